"""Runs and comparisons: their fields, their order, their pairing, and statistics small enough to check by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ple_gym.evaluate import (
    Comparison,
    bootstrap_interval,
    busiest_window,
    compare,
    compare_all,
    cvar,
    estimate,
    parse_seeds,
    quantile,
    record,
    simulate,
)
from ple_gym.policies import RULES
from ple_gym.scenario import ScenarioError
from ple_gym.scenarios import SCENARIOS, SUITES, load
from ple_gym.trace import ACQUIRE, PLE

CAPPED = {"limit.simulated_s": 0.001}  # ends Tiny long before its work is done


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_has_the_documented_fields() -> None:
    run = simulate("Tiny", "kvm")[0]
    documented = {
        "seed", "finished", "makespan_s", "simulated_s", "decisions", "ple_exits", "lhp_events", "lwp_events",
        "acquisitions", "ple_per_acquisition", "ple_per_dispatch", "acquire_wait_us", "cycles", "vm",
    }  # fmt: skip
    assert documented <= set(run)
    assert set(run["ple_per_acquisition"]) == {"max", "p50", "p90", "p99"}
    assert set(run["ple_per_dispatch"]) == {"max", "mode"}
    assert set(run["acquire_wait_us"]) == {"p50", "p99", "max"}
    assert set(run["cycles"]) == {"useful", "spin", "exit", "switch", "cache", "idle", "stolen"}
    assert [set(vm) for vm in run["vm"]] == [{"slowdown", "share"}]
    assert json.loads(json.dumps(run, allow_nan=False)) == run


def test_times_and_cycles_of_a_run_agree() -> None:
    scenario = load("TicketOrder")
    run = simulate(scenario, "oracle", [3])[0]
    hz, pcpus = scenario.host.tsc_hz, scenario.host.pcpus
    assert run["seed"] == 3
    assert run["finished"]
    assert run["makespan_s"] == run["simulated_s"]
    assert sum(run["cycles"].values()) == pcpus * round(run["simulated_s"] * hz)
    assert run["ideal_s"] == pytest.approx(run["cycles"]["useful"] / pcpus / hz)
    assert run["vm"][0]["slowdown"] == pytest.approx(run["simulated_s"] / run["ideal_s"])
    assert 0 < run["vm"][0]["share"] <= 1


def test_a_run_cut_off_has_no_makespan() -> None:
    run = simulate("Tiny", "xen-4.5", overrides=CAPPED)[0]
    assert not run["finished"]
    assert run["makespan_s"] is None
    assert run["simulated_s"] == pytest.approx(0.001)


def test_a_neighbour_has_its_own_entry() -> None:
    run = simulate("Paper32", overrides={"limit.simulated_s": 0.01})[0]
    assert len(run["vm"]) == 2


def test_runs_come_in_the_order_of_the_seeds_whatever_the_number_of_threads() -> None:
    seeds = [5, 1, 2**63 - 1, 3, 1]
    alone = simulate("Tiny", "random", seeds, threads=1)
    assert [run["seed"] for run in alone] == seeds
    assert simulate("Tiny", "random", seeds, threads=4) == alone
    assert simulate("Tiny", "random", iter(seeds)) == alone
    assert alone[1] == alone[4]
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", ["Tiny", "TicketOrder"])
def test_policies_on_one_seed_face_the_same_work(name: str) -> None:
    runs = {policy: simulate(name, policy, range(2)) for policy in ("xen-4.8", "kvm", "spin-age", "oracle")}
    assert all(run["finished"] for group in runs.values() for run in group)
    for seed in range(2):
        assert len({group[seed]["acquisitions"] for group in runs.values()}) == 1
        assert len({group[seed]["cycles"]["useful"] for group in runs.values()}) == 1


def test_progress_counts_every_run_once() -> None:
    told: list[int] = []
    compare("HolderPreempted", ["kvm", "oracle"], range(3), progress=told.append)
    assert told == [1, 2, 3, 4, 5, 6]


def test_overrides_are_applied() -> None:
    exits = [
        simulate("HolderPreempted", "xen-4.5", overrides={"host.ratelimit_us": us})[0]["ple_exits"]
        for us in (500, 1000)
    ]
    assert exits[1] == pytest.approx(2 * exits[0], rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "Nope"}, "unknown scenario 'Nope'"),
        ({"policy": "nope"}, "unknown policy 'nope'"),
        ({"overrides": {"host.pcpus": 0}}, "host.pcpus = 0: must be 1..64"),
        ({"seeds": []}, "seeds: there must be at least one"),
        ({"seeds": [-1]}, "seed = -1: must be a whole number, 0..9223372036854775807"),
        ({"seeds": [2**63]}, "seed = 9223372036854775808: must be"),
        ({"seeds": [0.5]}, "seed = 0.5: must be"),
        ({"threads": 0}, "threads = 0: must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        simulate(**{"scenario": "Tiny", **arguments})
    assert str(error.value).startswith(message)


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0:16", range(16)),
        ("7", range(7, 8)),
        ("3:4", range(3, 4)),
        ("9223372036854775807", range(2**63 - 1, 2**63)),
        ("9223372036854775806:9223372036854775808", range(2**63 - 2, 2**63)),
    ],
)
def test_seeds_are_half_open_ranges(text: str, seeds: range) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    ["", ":", "0:", ":4", "5:5", "5:3", "-1", "-1:4", "9223372036854775808", "0:9223372036854775809", "1.5", "0:4:2",
     "x", " 3", "1_0", "٣", "9" * 5000, "0:10000000"],
)  # fmt: skip
def test_other_seeds_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"^seeds = .*must be") as error:
        parse_seeds(text)
    assert "\n" not in str(error.value)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_cvar_is_the_mean_of_the_worst_tenth_at_least_of_one() -> None:
    assert cvar(np.array([3.0, 1.0, 2.0])) == 3.0
    assert cvar(np.arange(20.0)) == 18.5
    assert cvar(np.arange(21.0)) == 19.0  # a tenth of 21, rounded up, are three
    assert cvar(np.array([1.0, 5.0, 2.0, 4.0]), percent=50) == 4.5


def test_quantile_is_one_of_the_values() -> None:
    values = np.array([40.0, 10.0, 30.0, 20.0])
    assert [quantile(values, percent) for percent in (1, 25, 26, 50, 75, 76, 100)] == [10, 10, 20, 20, 30, 40, 40]
    assert quantile(np.arange(1.0, 201.0), 99) == 198


def test_bootstrap_interval_by_hand() -> None:
    assert bootstrap_interval(np.full(5, 2.5)) == (2.5, 2.5)
    # Means of two draws from {0, 1} are 0, 0.5, 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert bootstrap_interval(np.array([0.0, 1.0]), confidence=0.4) == (0.5, 0.5)


def test_bootstrap_interval_is_repeatable_and_close_to_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(10, 2, size=400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_an_interval_needs_two_values() -> None:
    one = estimate(np.array([4.0]))
    assert (one.mean, one.low, one.high) == (4.0, None, None)
    two = estimate(np.array([3.0, 5.0]))
    assert (two.mean, two.low, two.high) == (4.0, 3.0, 5.0)


# --- comparisons ------------------------------------------------------------------------------------------------------


def made_up(**makespans: list[float | None]) -> Comparison:
    """A comparison of runs with these makespans; None stands for a run cut off after 8 s."""
    cycles = {"useful": 50, "spin": 20, "exit": 10, "switch": 5, "cache": 5, "idle": 10, "stolen": 0}
    runs = {
        policy: [
            {
                "finished": seconds is not None,
                "simulated_s": 8.0 if seconds is None else seconds,
                "ideal_s": 1.0,
                "ple_exits": index,
                "cycles": cycles,
            }
            for index, seconds in enumerate(values)
        ]
        for policy, values in makespans.items()
    }
    seeds = tuple(range(len(next(iter(runs.values())))))
    return Comparison(SCENARIOS["Tiny"], seeds, runs, dict.fromkeys(runs, 1.5))


def test_a_row_by_hand() -> None:
    first, second = made_up(first=[1.0, 4.0], second=[2.0, None]).rows()
    assert (first.makespan_s.mean, first.makespan_s.low, first.makespan_s.high) == (2.5, 1.0, 4.0)
    assert (first.p95_s, first.p99_s, first.cvar10_s) == (4.0, 4.0, 4.0)
    assert first.ideal_percent == pytest.approx(100)  # the geometric mean of 1 and 4 is 2
    assert first.waste_percent == pytest.approx(30)
    assert first.ple_exits == first.decisions == 0.5
    assert (first.runs, first.capped, first.wall_s) == (2, 0, 1.5)
    assert first.log_ratio is None
    assert (second.runs, second.capped, second.makespan_s.mean) == (2, 1, 5.0)
    assert second.log_ratio is not None
    assert second.log_ratio.mean == pytest.approx(math.log(2))
    assert second.log_ratio.low == second.log_ratio.high == pytest.approx(math.log(2))


def test_differences_are_taken_seed_by_seed() -> None:
    ratio = made_up(a=[1.0, 100.0, 10.0], b=[2.0, 200.0, 20.0]).log_ratio("b", "a")
    assert ratio.low == pytest.approx(math.log(2))
    assert ratio.high == pytest.approx(math.log(2))


def test_without_useful_work_there_is_no_ideal() -> None:
    comparison = made_up(a=[1.0, 2.0])
    comparison.runs["a"][1]["ideal_s"] = 0.0
    assert comparison.rows()[0].ideal_percent is None


def test_a_comparison_is_the_runs_of_each_policy() -> None:
    comparison = compare("Tiny", ["kvm", "oracle"], range(3))
    assert comparison.baseline == "kvm"
    assert comparison.seeds == (0, 1, 2)
    assert comparison.runs["oracle"] == simulate("Tiny", "oracle", range(3))
    assert [row.policy for row in comparison.rows()] == ["kvm", "oracle"]


def test_capped_runs_count_as_the_limit() -> None:
    row = compare("Tiny", ["xen-4.5"], range(2), overrides=CAPPED).rows()[0]
    assert row.capped == row.runs == 2
    assert row.makespan_s.mean == pytest.approx(0.001)


def test_a_comparison_is_a_json_document() -> None:
    document = compare("HolderPreempted", ["continue", "oracle"], [7], {"limit.simulated_s": 1e-6}).to_dict()
    assert set(document) == {"scenario", "parameters", "seeds", "baseline", "policies", "runs"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["policies"][0]["ideal_percent"] is None  # nobody got anywhere


def test_several_scenarios_are_several_comparisons() -> None:
    together = compare_all(["Tiny", "TicketOrder"], ["kvm", "oracle"], range(2), threads=3)
    for comparison, name in zip(together, ("Tiny", "TicketOrder"), strict=True):
        assert comparison.scenario.name == name
        assert comparison.runs == compare(name, ["kvm", "oracle"], range(2)).runs


def test_all_policies_are_compared_by_default() -> None:
    assert list(compare("HolderPreempted", seeds=[0]).runs) == list(RULES)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([], "policies: there must be"),
        (["kvm", "oracle", "kvm"], "policies: 'kvm' is named 2"),
        (["x"], "unknown policy"),
    ],
)
def test_wrong_policies_are_named(policies: list[str], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        compare("Tiny", policies)


def test_every_scenario_belongs_to_a_suite() -> None:
    assert set(SUITES) == set(SCENARIOS)


# --- traces -----------------------------------------------------------------------------------------------------------


def test_a_trace_holds_the_run_and_the_newest_events_if_there_are_too_many() -> None:
    scenario = load("TicketOrder")
    run = simulate(scenario, "kvm", [1])[0]
    trace = record(scenario, "kvm", 1)
    assert (trace[:, 1] == PLE).sum() == run["ple_exits"]
    assert (trace[:, 1] == ACQUIRE).sum() >= run["acquisitions"] - 1
    assert (np.diff(trace[:, 0]) >= 0).all()
    assert (record(scenario, "kvm", 1, events=100) == trace[-100:]).all()


def test_the_busiest_window_holds_most_exits() -> None:
    trace = np.zeros((6, 5), np.int64)
    trace[:, 0] = [0, 5000, 5010, 5095, 5900, 9000]
    trace[:, 1] = [ACQUIRE, PLE, PLE, PLE, PLE, PLE]
    assert busiest_window(trace, 100) == (4995, 5095)  # starts a twentieth before the first exit
    assert busiest_window(trace[:1], 100) == (0, 100)
    assert busiest_window(trace[:0], 100) == (0, 100)
