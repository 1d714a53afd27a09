"""What comparisons say, by hand: made-up runs whose means, differences and scores are known."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ple_gym.evaluate.comparison import Comparison, Row
from ple_gym.evaluate.statistics import (
    Estimate,
    Ratio,
    cvar_estimate,
    estimate,
    quantile_estimate,
    ratio,
    score,
    t_factor,
)
from ple_gym.evaluate.tables import comparison_note
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import SCENARIOS


def made_up(makespans: dict[str, list[float | None]], **members: tuple[str, ...]) -> Comparison:
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
    return Comparison(SCENARIOS["Tiny"], seeds, runs, dict.fromkeys(runs, 1.5), members)


def test_a_row_by_hand() -> None:
    first, second = made_up({"first": [1.0, 4.0], "second": [2.0, None]}).rows()
    assert first.makespan_s == estimate(np.array([1.0, 4.0]))
    assert (first.p95_s.mean, first.p99_s.mean, first.cvar10_s.mean) == (4.0, 4.0, 4.0)
    assert first.ideal_percent == pytest.approx(100)  # the geometric mean of 1 and 4 is 2
    assert first.waste_percent == pytest.approx(30)
    assert first.waste_ms_per_s == pytest.approx(300 * SCENARIOS["Tiny"].host.pcpus)
    assert first.ple_exits == first.decisions == 0.5
    assert (first.runs, first.capped, first.wall_s) == (2, 0, 1.5)
    assert first.log_ratio is None
    assert (second.runs, second.capped, second.makespan_s.mean) == (2, 1, 5.0)
    assert second.log_ratio is not None
    assert second.log_ratio.mean == pytest.approx(math.log(2))
    assert second.log_ratio.low == second.log_ratio.high == pytest.approx(math.log(2))
    assert second.log_ratio.differing == 2


def test_every_number_of_a_row_has_the_interval_of_its_runs() -> None:
    """On enough seeds nothing is marked, but for what seldom differs; on fewer than 100 all means are."""
    rng = np.random.default_rng(1)
    host = 2 + rng.exponential(size=(1, 400))
    ppo = host * np.where(np.arange(400) < 15, 0.9, 1.0) + rng.normal(scale=0.01, size=(2, 1)) * (np.arange(400) < 15)
    names = {"host": ("host",), "ppo": ("a", "b")}
    rows = made_up(dict(zip(("host", "a", "b"), np.concatenate([host, ppo]).tolist(), strict=True)), **names).rows()
    for row, own in zip(rows, (host, ppo), strict=True):
        assert row.makespan_s == estimate(own)
        assert row.p95_s == quantile_estimate(own, 95)
        assert row.p99_s == quantile_estimate(own, 99)
        assert row.cvar10_s == cvar_estimate(own)
        assert None not in (row.p95_s.high, row.p99_s.high)
        assert not (row.makespan_s.few or row.p95_s.few or row.p99_s.few or row.cvar10_s.few)
    assert rows[1].log_ratio == ratio(np.log(ppo[:, np.newaxis] / host[np.newaxis]))
    assert (rows[1].log_ratio.differing, rows[1].log_ratio.few) == (15, True)
    assert rows[1].score == score(np.log(ppo), np.log(host))
    assert rows[1].score.few
    short = made_up({"host": host[0, :99].tolist(), "kvm": (2 * host[0, :99]).tolist()}).rows()[1]
    assert (short.makespan_s.few, short.cvar10_s.few, short.log_ratio.few) == (True, True, False)
    assert short.p99_s.high is None


def test_differences_are_taken_seed_by_seed() -> None:
    ratio = made_up({"a": [1.0, 100.0, 10.0], "b": [2.0, 200.0, 20.0]}).log_ratio("b", "a")
    assert ratio.low == pytest.approx(math.log(2))
    assert ratio.high == pytest.approx(math.log(2))


def test_without_useful_work_there_is_no_ideal() -> None:
    comparison = made_up({"a": [1.0, 2.0]})
    comparison.runs["a"][1]["ideal_s"] = 0.0
    row = comparison.rows()[0]
    assert (row.ideal_percent, row.score) == (None, None)


# --- the baseline and the best rule -----------------------------------------------------------------------------------


def test_the_host_is_the_baseline_wherever_it_stands() -> None:
    comparison = made_up({"kvm": [1.0, 2.0], "host": [2.0, 4.0]})
    kvm, host = comparison.rows()
    assert comparison.baseline == "host"
    assert host.log_ratio is None
    assert kvm.log_ratio == Ratio(*[pytest.approx(-math.log(2))] * 3, few=True, differing=2)


def test_under_kvm_the_baseline_is_kvm_s_rule_of_that_version() -> None:
    """`host` only yields there: it is the baseline if KVM's own is not among the rows, and the note says so."""
    times = {"kvm-2012": [1.0, 2.0], "host": [2.0, 4.0], "kvm-5.13": [2.0, 3.0]}
    fewer = {name: times[name] for name in ("kvm-2012", "host")}
    both, without = (dataclasses.replace(made_up(rows), scenario=SCENARIOS["KvmEbizzy"]) for rows in (times, fewer))
    assert (both.baseline, both.own_rule, both.to_dict()["baseline"]) == ("kvm-5.13", "kvm-5.13", "kvm-5.13")
    assert (without.baseline, without.to_dict()["own_rule"]) == ("host", "kvm-5.13")
    assert "against the host's own rule and" in comparison_note(both) and "vs kvm-5.13" in comparison_note(both)
    assert "a plain yield (the host's own rule, kvm-5.13, is not here)" in comparison_note(without)
    assert "score: 0 = kvm-5.13" in comparison_note(both) and "score: 0 = host" in comparison_note(without)


def test_without_the_host_the_first_row_is_the_baseline() -> None:
    assert made_up({"kvm": [1.0], "xen-4.8": [2.0]}).baseline == "kvm"


def test_the_best_rule_has_the_least_mean_log_makespan() -> None:
    """Not the least mean; and neither privileged rules nor learned policies count."""
    comparison = made_up({
        "host": [4.0, 4.0], "kvm": [1.0, 7.0], "xen-4.8": [3.0, 3.0], "oracle": [1.0, 1.0], "learned:x": [1.0, 1.0],
    })  # fmt: skip
    assert comparison.best_rule == "kvm"
    rows = {row.policy: row for row in comparison.rows()}
    assert rows["kvm"].best_ratio is None
    assert rows["oracle"].best_ratio == comparison.log_ratio("oracle", "kvm")
    assert rows["oracle"].best_ratio.mean == pytest.approx(-math.log(7) / 2)
    assert comparison.to_dict()["best_rule"] == "kvm"


def test_of_equal_rules_the_first_is_the_best() -> None:
    assert made_up({"xen-4.8": [2.0], "kvm": [1.0], "spin-age": [1.0]}).best_rule == "kvm"


def test_without_rules_there_is_no_best_one() -> None:
    comparison = made_up({"oracle": [1.0], "learned:x": [1.0]})
    assert comparison.best_rule is None
    assert [row.best_ratio for row in comparison.rows()] == [None, None]


def test_three_rules_are_privileged() -> None:
    assert [name for name, rule in RULES.items() if rule.privileged] == ["queue-head", "holder", "oracle"]


def test_scores_run_from_the_baseline_to_the_ideal() -> None:
    """The made-up ideal is 1 s on every seed."""
    rows = made_up({"paper": [4.0, 16.0], "host": [16.0, 4.0], "kvm": [2.0, 4.0], "oracle": [1.0, 1.0]}).rows()
    scores = {row.policy: row.score for row in rows}
    assert scores["host"] == Estimate(0.0, 0.0, 0.0)
    assert scores["oracle"] == Estimate(1.0, 1.0, 1.0, few=True)
    assert scores["kvm"].mean == pytest.approx(0.5)
    assert scores["kvm"] == score(np.log([2.0, 4.0]), np.log([16.0, 4.0]))
    assert scores["paper"].mean == pytest.approx(0.0)


def test_a_baseline_at_the_ideal_scores_nothing() -> None:
    assert [row.score for row in made_up({"host": [1.0, 1.0], "kvm": [1.0, 2.0]}).rows()] == [None, None]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(1.01, 100), min_size=2, max_size=6), st.floats(1.01, 50))
def test_shorter_makespans_never_score_less(makespans: list[float], factor: float) -> None:
    longer = [seconds * factor for seconds in makespans]
    host, short, long = made_up({"host": [2.0] * len(makespans), "kvm": makespans, "paper": longer}).rows()
    assume(abs(short.log_ratio.mean) > 1e-9)  # or rounding decides
    assert host.score.mean == 0
    assert long.score.mean < short.score.mean < 1
    assert (short.score.mean > 0) == (short.log_ratio.mean < 0)


# --- several trained policies in a row --------------------------------------------------------------------------------

THREE = {"host": [4.0, 4.0], "a": [1.0, 2.0], "b": [4.0, 8.0], "kvm": [2.0, 2.0]}


def rows_of_three() -> dict[str, Row]:
    members = {"host": ("host",), "ppo": ("a", "b"), "kvm": ("kvm",), "b": ("b",)}
    return {row.policy: row for row in made_up(THREE, **members).rows()}


def test_a_row_of_several_by_hand() -> None:
    rows = rows_of_three()
    assert list(rows) == ["host", "ppo", "kvm", "b"]
    ppo = rows["ppo"]
    assert (ppo.members, ppo.runs, ppo.wall_s) == (("a", "b"), 4, 3.0)
    own = np.array([[1.0, 2.0], [4.0, 8.0]])
    assert ppo.makespan_s == estimate(own)
    assert (ppo.makespan_s.mean, ppo.p95_s.mean, ppo.cvar10_s.mean) == (3.75, 8.0, 8.0)
    assert ppo.ideal_percent == pytest.approx(100 * (math.exp((math.log(2) + math.log(32)) / 4) - 1))
    assert (ppo.log_ratio.mean, ppo.best_ratio.mean, ppo.score.mean) == (
        pytest.approx(-math.log(2) / 2), pytest.approx(math.log(2) / 2), pytest.approx(0.25)
    )  # fmt: skip
    # log2(makespan / 4) is -2, -1 for a, 0, 1 for b: the trainings are at -1.5 and 0.5, the seeds at -1 and 0.
    assert ppo.log_ratio == ratio(np.log(own / 4))
    half = t_factor(1.5) * math.hypot(1.0, 0.5) * math.log(2)  # Satterthwaite: (1 + 1/4)^2 / (1 + 1/16) degrees
    assert ppo.log_ratio.high - ppo.log_ratio.mean == pytest.approx(half)


def test_a_policy_can_be_a_row_and_a_member() -> None:
    assert rows_of_three()["b"].makespan_s.mean == 6.0


def test_a_row_of_one_is_that_policy() -> None:
    alone = made_up(THREE).rows()[1]
    row = made_up(THREE, host=("host",), ppo=("a",), kvm=("kvm",)).rows()[1]
    assert row == dataclasses.replace(alone, policy="ppo")


def test_a_learner_can_be_the_baseline() -> None:
    """Then its trainings are a sample as well, of their own."""
    comparison = made_up({"a": [1.0], "b": [4.0], "c": [2.0], "d": [8.0]}, ppo=("a", "b"), dqn=("c", "d"))
    ppo, dqn = comparison.rows()
    assert (ppo.log_ratio, ppo.score) == (None, Estimate(0.0, 0.0, 0.0))
    assert dqn.log_ratio == ratio(np.log(2) * np.array([[[1.0], [-1.0]], [[3.0], [1.0]]]))
    assert dqn.log_ratio.high - dqn.log_ratio.low == pytest.approx(2 * 4.302653 * math.sqrt(2) * math.log(2))


def test_documents_name_the_members_and_hold_the_runs_of_each() -> None:
    document = made_up(THREE, host=("host",), ppo=("a", "b"), kvm=("kvm",)).to_dict()
    assert [row["members"] for row in document["policies"]] == [["host"], ["a", "b"], ["kvm"]]
    assert set(document["runs"]) == {"host", "a", "b", "kvm"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
