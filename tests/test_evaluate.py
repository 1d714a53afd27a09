"""Runs and comparisons of them: their fields, their order, their pairing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_exported import random_network

from ple_gym import progress
from ple_gym.errors import ArgumentError, PleError, PolicyError
from ple_gym.evaluate import (
    Group,
    compare,
    compare_all,
    doubts,
    parse_seeds,
    simulate,
)
from ple_gym.evaluate.runs import suiting
from ple_gym.learned.file import write_network
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import SCENARIOS, SUITES, load

CAPPED = {"limit.simulated_s": 0.001}  # ends Tiny long before its work is done


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_has_the_documented_fields() -> None:
    run = simulate("Tiny", "kvm")[0]
    documented = {
        "seed", "finished", "makespan_s", "simulated_s", "decisions", "ple_exits", "lhp_events", "lwp_events",
        "acquisitions", "ple_per_acquisition", "ple_per_dispatch", "acquire_wait_us", "cycles", "vm",
        "responses", "responses_late", "response_p50", "response_p99", "response_max",
    }  # fmt: skip
    assert documented <= set(run)
    assert set(run["ple_per_acquisition"]) == {"max", "p50", "p90", "p99"}
    assert set(run["ple_per_dispatch"]) == {"max", "mode"}
    assert set(run["acquire_wait_us"]) == {"p50", "p99", "max"}
    assert set(run["cycles"]) == {"useful", "spin", "exit", "switch", "cache", "idle", "stolen"}
    of_vm = {
        "name",
        "transactions",
        "transactions_per_s",
        "finish_s",
        "useful_s",
        "longest_steal_ms",
        "slowdown",
        "share",
    }
    assert [set(vm) for vm in run["vm"]] == [of_vm]
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
        ({"overrides": {"host.pcpus": 0}}, "host.pcpus = 0: must be 1..256"),
        ({"seeds": []}, "seeds: there must be at least one"),
        ({"seeds": [-1]}, "seed = -1: must be a whole number, 0..9223372036854775807"),
        ({"seeds": [2**63]}, "seed = 9223372036854775808: must be"),
        ({"seeds": [0.5]}, "seed = 0.5: must be"),
        ({"seeds": -1}, "seed = -1: must be a whole number, 0..9223372036854775807"),
        ({"seeds": True}, "seed = True: must be a whole number"),
        ({"seeds": 1.5}, "seed = 1.5: must be a whole number"),
        ({"seeds": None}, "seed = None: must be a whole number"),
        ({"seeds": "5:0"}, "seeds = '5:0': must be START:STOP"),
        ({"threads": 0}, "threads = 0: must be at least 1"),
        ({"threads": True}, "threads = True: must be at least 1"),
        ({"threads": "2"}, "threads = '2': must be at least 1"),
        ({"policy": 5}, "policy 5: must be the name of a rule, learned:NAME or"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PleError) as error:
        simulate(**{"scenario": "Tiny", **arguments})
    assert str(error.value).startswith(message)


def test_seeds_may_be_given_as_on_the_command_line() -> None:
    assert simulate("Tiny", "kvm", 5) == simulate("Tiny", "kvm", [5]) == simulate("Tiny", "kvm", "5")
    assert simulate("Tiny", "kvm", np.int64(5)) == simulate("Tiny", "kvm", [5])
    assert simulate("Tiny", "kvm", "2:4") == simulate("Tiny", "kvm", [2, 3])
    assert compare("Tiny", "kvm", "2:4").seeds == (2, 3)
    assert compare("Tiny", ["kvm"], 7).seeds == (7,)


def test_an_object_that_is_no_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^policy <object object .*>: must be the name of a rule"):
        compare("Tiny", ["kvm", object()])
    with pytest.raises(PolicyError, match=r"^group x: 3 must be learned:NAME"):
        Group("x", [3])


def test_progress_may_be_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    compare("HolderPreempted", ["kvm", "oracle"], range(2), progress=True)
    assert capsys.readouterr().err.splitlines()[-1] == "runs: 4 of 4"


def test_runs_that_are_too_short_to_compare_are_told_of() -> None:
    fresh = Scenario().with_overrides({"guest.transactions": 10})
    (told,) = doubts(compare(fresh, ["kvm", "xen-4.8"], range(2)))
    assert "before one time slice (host.timeslice_ms = 30) is over, with 0 PLE exits" in told
    assert doubts(compare("Storm", ["kvm"], range(2))) == []  # short, but begins in the midst of it
    assert doubts(compare("TicketOrder", ["kvm"], range(2))) == []


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
    with pytest.raises(ArgumentError, match=r"^seeds = .*must be") as error:
        parse_seeds(text)
    assert "\n" not in str(error.value)


# --- comparisons ------------------------------------------------------------------------------------------------------


def test_a_comparison_is_the_runs_of_each_policy() -> None:
    comparison = compare("Tiny", ["kvm", "oracle"], range(3))
    assert comparison.baseline == "kvm"
    assert comparison.seeds == (0, 1, 2)
    assert comparison.runs["oracle"] == simulate("Tiny", "oracle", range(3))
    assert [row.policy for row in comparison.rows()] == ["kvm", "oracle"]


def test_waste_is_pcpu_time_per_simulated_second() -> None:
    comparison = compare("TicketOrder", ["kvm"], range(3))
    runs, host = comparison.runs["kvm"], comparison.scenario.host
    assert host.pcpus > 1
    lost_ms = sum(run["cycles"]["spin"] + run["cycles"]["exit"] for run in runs) / host.tsc_hz * 1000
    row = comparison.rows()[0]
    assert row.waste_ms_per_s == pytest.approx(lost_ms / sum(run["simulated_s"] for run in runs))
    assert row.waste_percent == pytest.approx(row.waste_ms_per_s / host.pcpus / 10)


def test_capped_runs_count_as_the_limit() -> None:
    row = compare("Tiny", ["xen-4.5"], range(2), overrides=CAPPED).rows()[0]
    assert row.capped == row.runs == 2
    assert row.makespan_s.mean == pytest.approx(0.001)


def test_a_comparison_is_a_json_document() -> None:
    document = compare("HolderPreempted", ["continue", "oracle"], [7], {"limit.simulated_s": 1e-6}).to_dict()
    assert set(document) == {"scenario", "parameters", "seeds", "baseline", "own_rule", "best_rule", "policies", "runs"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["policies"][0]["ideal_percent"] is None  # nobody got anywhere


def test_several_scenarios_are_several_comparisons() -> None:
    together = compare_all(["Tiny", "TicketOrder"], ["kvm", "oracle"], range(2), threads=3)
    for comparison, name in zip(together, ("Tiny", "TicketOrder"), strict=True):
        assert comparison.scenario.name == name
        assert comparison.runs == compare(name, ["kvm", "oracle"], range(2)).runs


def test_all_policies_are_compared_by_default() -> None:
    assert list(compare("HolderPreempted", seeds=[0]).runs) == suiting(load("HolderPreempted"))


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([], "policies: there must be"),
        (["kvm", "oracle", "kvm"], "policies: 'kvm' is named 2"),
        (["x"], "unknown policy"),
    ],
)
def test_wrong_policies_are_named(policies: list[str], message: str) -> None:
    with pytest.raises(PleError, match=message):
        compare("Tiny", policies)


def test_a_group_is_one_row_and_each_policy_runs_once(tmp_path: Path) -> None:
    learned = [f"learned:{tmp_path}/{seed}.npz" for seed in range(2)]
    for seed in range(2):
        write_network(tmp_path / f"{seed}.npz", random_network("set", 0, seed=seed))
    told: list[int] = []
    short = {"limit.simulated_s": 0.01}
    policies = ["host", Group("ppo", learned), learned[0]]
    together = compare("TicketOrder", policies, range(3), short, progress=told.append)
    assert told == list(range(1, 10))
    assert [row.policy for row in together.rows()] == ["host", "ppo", learned[0]]
    assert together.members["ppo"] == tuple(learned)
    assert together.runs == compare("TicketOrder", ["host", *learned], range(3), short).runs
    assert together.to_dict()["policies"][1]["runs"] == 6


@pytest.mark.parametrize(
    ("name", "policies", "message"),
    [
        ("", ["learned:a"], "group '': the name must not be empty"),
        ("kvm", ["learned:a"], "group 'kvm': the name must not be empty, a rule's"),
        ("learned:a", ["learned:a"], "group 'learned:a': the name must not be"),
        ("ppo", [], "group ppo: there must be at least one policy"),
        ("ppo", ["kvm"], "group ppo: 'kvm' must be learned:NAME or learned:FILE.npz"),
        ("ppo", ["learned:a", "learned:a"], "group ppo: 'learned:a' is named 2 times, must be once"),
    ],
)
def test_wrong_groups_are_named(name: str, policies: list[str], message: str) -> None:
    with pytest.raises(PolicyError) as error:
        Group(name, policies)
    assert str(error.value).startswith(message)


def test_two_rows_do_not_share_a_name() -> None:
    with pytest.raises(PolicyError, match="policies: 'ppo' is named 2 times"):
        compare("Tiny", [Group("ppo", ["learned:a"]), "kvm", Group("ppo", ["learned:b"])])


def test_every_scenario_belongs_to_a_suite() -> None:
    assert set(SUITES) == set(SCENARIOS)
