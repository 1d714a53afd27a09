"""Certificates: look-ahead against exhaustive search, verdicts from rows, work that goes on after an interruption."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhaustive import shortest_makespan
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MORE, contended_scenarios, one_to_one_under_fair

from ple_gym import cli, simulate
from ple_gym.certify import certificate as c
from ple_gym.certify.catalogue import FOLDER, certificate, certificates, verdicts
from ple_gym.certify.certificate import Row, judge
from ple_gym.certify.learned import probe
from ple_gym.certify.lookahead import CLAIRVOYANT, TO_THE_END, Lesson, LookAhead
from ple_gym.certify.plan import FRESH, QUICK, Plan
from ple_gym.certify.work import Parts, Work
from ple_gym.course import VALIDATION
from ple_gym.envs.env import PleEnv
from ple_gym.errors import ArgumentError
from ple_gym.lanes import Lanes
from ple_gym.learned.file import read_network
from ple_gym.learned.search import Form
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES
from ple_gym.rules.own import own_rule
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import SCENARIOS, load
from ple_gym.sim.jit import JIT_ENABLED

pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="of many runs: not under make nojit")

#: Small worlds of which every sequence of decisions can be tried.
SMALL: dict[str, dict[str, object]] = {
    "Tiny": {"guest.transactions": 5, "guest.sections": 1, "ple.window": 40_000, "limit.simulated_s": 0.01},
    "HolderPreempted": {},
    "TicketOrder": {"guest.vcpus": 3, "guest.transactions": 3, "ple.window": 20_000, "limit.simulated_s": 0.01},
}


def small(name: str) -> Scenario:
    return load(name).with_overrides(SMALL[name])


def ahead(scenario: Scenario, base: str, samples: int, seed: int) -> float:
    """Makespan of a look-ahead to the end, seconds."""
    decider = LookAhead(scenario, load_compiled(base), samples, TO_THE_END)
    return float(decider.run(seed)["now"]) / scenario.host.tsc_hz


@pytest.mark.parametrize("name", SMALL)
def test_no_look_ahead_is_faster_than_the_best_that_is_possible(name: str) -> None:
    """And a clairvoyant one is nearly as fast, from whatever rule it starts."""
    scenario = small(name)
    for seed in range(3):
        env = PleEnv(scenario)
        _, info = env.reset(seed=seed)
        assert info["index"] == 0
        best, tried = shortest_makespan(env, info["action_mask"])
        bases = {
            base: simulate(scenario, base, seed)[0]["simulated_s"] for base in ("kvm", "spin-age-self", "continue")
        }
        assert tried > 1 and min(bases.values()) >= best * (1 - 1e-9)
        for base, took in bases.items():
            clairvoyant, resampled = (ahead(scenario, base, samples, seed) for samples in (CLAIRVOYANT, 32))
            assert best * (1 - 1e-9) <= clairvoyant <= took
            assert resampled >= best * (1 - 1e-9)
        assert min(ahead(scenario, base, CLAIRVOYANT, seed) for base in bases) <= 1.02 * best


@settings(max_examples=25 * MORE)
@given(
    contended_scenarios() | one_to_one_under_fair(),
    st.integers(0, 2**63 - 1),
    st.sampled_from(sorted(name for name, rule in RULES.items() if not rule.scheduler)),
)
def test_who_knows_the_future_is_never_slower_than_the_base_rule(scenario: Scenario, seed: int, rule: str) -> None:
    scenario = scenario.with_overrides({"limit.simulated_s": min(0.001, scenario.limit.simulated_s)})
    base = load_compiled(rule)
    usual = simulate(scenario, base, seed)[0]
    decider = LookAhead(scenario, base, CLAIRVOYANT, TO_THE_END)
    decider.run(seed)
    lanes = Lanes(scenario, 1, policy=base)
    lanes.run(0, seed)
    if usual["decisions"]:
        assert decider._values(decider.lane, 1)[0] >= decider._values(lanes, 1)[0] - 1e-3


def test_a_run_without_a_decision_is_the_base_rules() -> None:
    scenario = load("Storm").with_overrides({"ple.gap": 0})
    decider = LookAhead(scenario, RULES["kvm"], 4, TO_THE_END)
    assert decider.run(5)["now"] == round(simulate(scenario, "kvm", 5)[0]["simulated_s"] * scenario.host.tsc_hz)
    assert decider.choices.decisions == 0


def test_other_futures_do_not_tell_the_true_one() -> None:
    """The same seeds give the same choices; who knows the future does no worse on the mean."""
    scenario = small("Tiny")
    decider = LookAhead(scenario, RULES["kvm"], 16, TO_THE_END)
    found = [decider.run(seed)["now"] for seed in range(6)]
    again = LookAhead(scenario, RULES["kvm"], 16, TO_THE_END)
    assert found[:2] == [again.run(seed)["now"] for seed in range(2)], "nothing is random but the seeds"
    clairvoyant = [LookAhead(scenario, RULES["kvm"], CLAIRVOYANT, TO_THE_END).run(seed)["now"] for seed in range(6)]
    assert np.mean(clairvoyant) <= np.mean(found)


# ------------------------------------------------------------------------------------------------------------ verdicts


def a(
    kind: str, mean: float, half: float = 1.0, name: str = "", tail: list[float] | None = None, kept: float = 1.0
) -> Row:
    return Row(name or kind, kind, 200, [mean, mean - half, mean + half], tail or [], 0.0, kept, [1])


BAR, OWN = a(c.RULE, 0, 0, "patience"), a(c.RULE, 30, 1, "host")
AHEAD = a(c.AHEAD, -1.0)


@pytest.mark.parametrize(
    ("rows", "changes", "verdict"),
    [
        ([AHEAD], {}, c.SOLVABLE),
        ([AHEAD, a(c.LEARNED, -12)], {}, c.SOLVABLE),  # one training seed
        ([AHEAD, a(c.LEARNED, -12), a(c.LEARNED, -11)], {}, c.LEARNABLE),
        ([AHEAD, a(c.LEARNED, -12, 13), a(c.LEARNED, -11, 13)], {}, c.SOLVABLE),  # not clear of zero
        ([AHEAD, *[a(c.LEARNED, -12)] * 2, a(c.RULE, -5, name="another")], {}, c.SOLVABLE),  # 7 % before that rule
        ([AHEAD, *[a(c.LEARNED, -15)] * 2, a(c.RULE, -5, name="another")], {}, c.LEARNABLE),
        ([AHEAD, *[a(c.LEARNED, -15)] * 2, a(c.RULE, -6, kept=0.8, name="thief")], {}, c.LEARNABLE),
        ([AHEAD, *[a(c.LEARNED, -3, tail=[-30, -40, -20])] * 2], {}, c.LEARNABLE),
        (
            [AHEAD, *[a(c.LEARNED, -3, tail=[-30, -40, -20])] * 2, a(c.RULE, 0, tail=[-10, -20, -1])],
            {},
            c.SOLVABLE,
        ),
        ([a(c.AHEAD, -15), a(c.LEARNED, -9), a(c.LEARNED, -9)], {}, c.LIMITED),
        ([AHEAD, a(c.PRIVILEGED, -20)], {}, c.LIMITED),
        (
            [AHEAD, *[a(c.LEARNED, -20, kept=0.8)] * 2, a(c.PRIVILEGED, -20, kept=0.8)],
            {},
            c.SOLVABLE,
        ),  # of others' time
        ([AHEAD, a(c.CLAIRVOYANT, -20)], {}, c.SOLVABLE),  # luck only
        ([AHEAD, a(c.SETTING, -20)], {}, c.DEGENERATE),
        ([AHEAD], {"decisions": 0.5}, c.DEGENERATE),
        ([AHEAD], {"bar": replace(BAR, cut=0.2)}, c.DEGENERATE),
        ([AHEAD], {"own": replace(OWN, percent=[1.0, 0.5, 1.5])}, c.INTRINSIC),
        ([AHEAD], {"own": replace(OWN, percent=[1.0, 0.5, 1.5]), "ideal_percent": 3.0}, c.SOLVABLE),
    ],
)
def test_what_rows_say(rows: list[Row], changes: dict[str, object], verdict: str) -> None:
    asked: dict[str, object] = {"own": OWN, "bar": BAR, "decisions": 50.0, "ideal_percent": 40.0, **changes}
    found, why = judge([asked["bar"], asked["own"], *rows], **asked)  # type: ignore[arg-type,list-item]
    assert found == verdict and why
    assert set(c.MEANING) == set(c.VERDICTS)


def test_the_bar_against_the_hosts_own_rule() -> None:
    _, why = judge([BAR, OWN, AHEAD], OWN, BAR, 50.0, 40.0)
    assert "-23.1 % [-23.7, -22.5] against host" in why


# ---------------------------------------------------------------------------------------------------------------- probe


def test_a_probe_learns_a_rule_that_is_linear() -> None:
    """What spin-age-self does can be told from the ages of spins: the probe does as it."""
    scenario = load("TicketOrder")
    decider = LookAhead(scenario, RULES["spin-age"], 8, TO_THE_END, teaches=True)
    for seed in range(4):
        decider.run(seed)
    assert isinstance(decider.lessons[0], Lesson)
    form = Form(scenario, "linear")
    found = simulate(scenario, form.policy(probe(form, decider.lessons), "probe"), range(50, 54))
    usual = simulate(scenario, "spin-age", range(50, 54))
    assert [run["simulated_s"] for run in found] == [run["simulated_s"] for run in usual]


# ----------------------------------------------------------------------------------------------------------------- work

PLAN = replace(
    QUICK, seeds=4, trials=3, training=2, validation=3, ahead=2, samples=8, generations=1, worlds=1, lessons=1
)


def test_work_that_is_interrupted_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    scenario, path = small("TicketOrder"), str(tmp_path / "parts")
    whole = Work(scenario, PLAN, Parts(scenario, PLAN, ""), 1).certificate({})

    class Killed(Exception):
        pass

    kept = Parts(scenario, PLAN, path)
    work, made = Work(scenario, PLAN, kept, 1), []
    keep = kept.keep

    def counted(part: str, found: object) -> None:
        keep(part, found)
        made.append(part)
        if len(made) == 20:
            raise Killed

    kept.keep = counted  # type: ignore[method-assign]
    with pytest.raises(Killed):
        work.certificate({})
    kept.close()
    with Path(path).open("a") as file:
        file.write('{"part": "torn off')
    again = Parts(scenario, PLAN, path)
    assert again.count == 20
    assert Work(scenario, PLAN, again, 1).certificate({}) == whole
    again.close()
    with pytest.raises(ArgumentError, match="another plan"):
        Parts(scenario, replace(PLAN, seeds=5), path)


def test_the_policy_that_is_kept_is_the_best_on_validation_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some that differ: of Storm's decisions a random linear policy makes little."""
    scenario = load("Storm").with_overrides({"limit.simulated_s": 0.02})
    work, form = Work(scenario, PLAN, Parts(scenario, PLAN, ""), 1), Form(scenario, "linear")
    draws = np.random.default_rng(0)
    learned = [form.policy(form.deviation() * draws.normal(size=len(form.deviation())), f"{k}") for k in range(4)]
    losses = {one.name: np.mean(work._losses(one, VALIDATION[0], PLAN.validation)) for one in learned}
    assert len(set(losses.values())) > 1
    monkeypatch.setattr(Work, "learned", lambda self: learned)
    best = work.best_learned()
    assert best is not None and losses[best.name] == min(losses.values())
    monkeypatch.setattr(Work, "learned", lambda self: [])
    assert work.best_learned() is None


def test_parts_are_of_no_use_once_code_that_made_them_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Path] = []
    monkeypatch.setattr("ple_gym.certify.work.fingerprint", lambda paths: files.extend(paths))
    Parts(load("Tiny"), PLAN, str(tmp_path / "parts")).close()
    modules = ("certify.work", "certify.lookahead", "course", "evaluate.scores", "learned.search", "rules.own",
               "sim.host.credit", "tuning")  # fmt: skip
    assert {find_spec(f"ple_gym.{name}").origin for name in modules} <= {*map(str, files)}  # type: ignore[union-attr]


def test_a_search_runs_the_worse_half_on_a_quarter_of_the_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on from the others alone: a candidate of that half never is among the best."""
    scenario, runs = load("TicketOrder").with_overrides({"limit.simulated_s": 0.01}), []

    def counted(world: Scenario, policy: object, seeds: range, **options: object) -> list[Any]:
        runs.append((world.limit.simulated_s, len(seeds)))
        return simulate(world, policy, seeds, **options)  # type: ignore[arg-type]

    plan = replace(PLAN, worlds=8)
    work = Work(scenario, plan, Parts(scenario, plan, ""), 1)
    base = load_compiled("kvm")
    monkeypatch.setattr("ple_gym.certify.work.simulate", counted)
    work.search(base, Form(scenario, "linear"), None, 0, 1e-4)
    assert [seeds for _, seeds in runs[:60]] == [2] * 40 + [8] * 20
    assert {seeds for _, seeds in runs[60:]} == {plan.validation} and len(runs) == 60 + 4 + 1
    assert all(limit == 2e-4 for limit, _ in runs)


def test_the_command_writes_a_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    out = tmp_path / "small.json"
    sizes = ["--quick", "--seeds", "4", "--trials", "3", "--ahead", "2", "--samples", "8", "--generations", "1"]
    sizes += ["--worlds", "3", "--lessons", "0"]
    asked = ["certify", "TicketOrder", "--set", "limit.simulated_s=0.01", *sizes]
    policy = tmp_path / "small.npz"
    assert cli.main([*asked, "--out", str(out), "--policy", str(policy)]) == 0
    told = capsys.readouterr().out
    kept = certificate(out)
    assert kept.verdict in told and kept.bar == kept.rows[0].name and kept.to_json() == out.read_text()
    assert kept.plan["seeds"] == 4 and kept.plan["worlds"] == 3 and kept.plan["training"] == QUICK.training
    assert kept.plan["lessons"] == 0 and "probe" not in {row.name for row in kept.rows}
    world = load("TicketOrder").with_overrides({"limit.simulated_s": 0.01})
    seeds = range(FRESH[0], FRESH[0] + 2)
    for row in kept.rows:
        if row.kind == c.RULE:
            runs = simulate(world, row.name, seeds)
            assert [round(run["simulated_s"] * world.host.tsc_hz) for run in runs] == row.cycles, row.name
    name = read_network(policy).card["learner"].removeprefix("certify, ")
    assert read_network(policy).card["scenario"] == "TicketOrder", "it is another one, whose runs are cut off sooner"
    (row,) = (row for row in kept.rows if row.name == name)
    assert row.kind == c.LEARNED and f"{name}, the best on validation seeds" in told
    runs = simulate(world, f"learned:{policy}", seeds)
    assert [round(run["simulated_s"] * world.host.tsc_hz) for run in runs] == row.cycles


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """And nothing of it is taken over."""
    good = json.loads((FOLDER / "Tiny.json").read_text())
    path = tmp_path / "one.json"
    for changes, message in (
        ({"verdict": "splendid"}, "verdict = 'splendid': must be one of learnable, "),
        ({"columns": ["name"]}, "columns: must be name, kind, seeds"),
        ({"rows": [["kvm"]]}, "not a certificate, or damaged"),
        ({"more": 1}, "not a certificate, or damaged"),
    ):
        path.write_text(json.dumps(good | changes))
        with pytest.raises(ArgumentError, match=f"one.json.*{message}"):
            certificate(path)


def test_a_plan_says_what_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError, match="seeds = 1: must be 2"):
        Plan(seeds=1)
    assert cli.main(["certify", "TicketOrder", "--ahead", "0"]) == 2
    assert "ahead = 0: must be 2..1000000" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- shipped


def test_a_shipped_certificate_says_what_its_rows_say() -> None:
    """And its first runs are those that the scenario still has: rules, and the clairvoyant look-ahead."""
    assert set(certificates()) == set(SCENARIOS)
    for name, kept in certificates().items():
        scenario = load(name)
        assert kept.scenario == name and kept.digest == scenario.digest
        rows = kept.rows
        own = next(row for row in rows if row.name == kept.own)
        assert judge(rows, own, rows[0], kept.decisions, kept.ideal_percent) == (kept.verdict, kept.why)
        assert kept.bar == rows[0].name and kept.own == own_rule(scenario)
        for row in random.Random(name).sample([row for row in rows if row.kind in (c.RULE, c.SETTING)], 3):
            run = simulate(scenario, row.name, FRESH[0])[0]
            assert round(run["simulated_s"] * scenario.host.tsc_hz) == row.cycles[0], (name, row.name)
    assert set(verdicts()) == set(SCENARIOS)


@pytest.mark.parametrize("name", ["TicketOrder", "HolderPreempted"])
def test_a_shipped_look_ahead_is_run_again(name: str) -> None:
    kept = certificates()[name]
    scenario, plan = load(name), kept.plan
    for row in kept.rows:
        if row.kind in (c.AHEAD, c.CLAIRVOYANT):
            samples = plan["samples"] if row.kind == c.AHEAD else CLAIRVOYANT
            decider = LookAhead(scenario, load_compiled(kept.bar), samples, plan["horizon_us"])
            assert decider.run(FRESH[0])["now"] == row.cycles[0]
