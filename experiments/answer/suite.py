"""Which rule wins where? Every built-in rule on every scenario of every suite, in its newest version.

All rules of a scenario, and those of the red team where there are several VMs, run on the same seeds, of a range that
nothing was trained or tuned on. A run that reaches the limit counts with the limit. What makes a score is
`ple_gym.evaluate.scores`: 0 is the host's own rule (`own`), 1 the ideal, and who takes from a VM what it is due gets
no more than 0.

Times are kept in whole nanoseconds, rough, and longer where responses are late (`ple_gym.evaluate.scores`); of each VM,
where there are several, the CPU time that it received, and that it was entitled to, in thousandths of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from experiments.answer.robustness import sign
from experiments.answer.rules import in_percent
from experiments.lab import Experiment, Table, Task, rough, run_of, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.episode import summarise
from ple_gym.evaluate import scores
from ple_gym.evaluate.runs import suiting
from ple_gym.evaluate.statistics import Estimate, Floats, ratio, score
from ple_gym.rules import RULES
from ple_gym.rules.own import own_rule
from ple_gym.scenario.builtin import SCENARIOS, SUITES, VERSIONS
from ple_gym.scenario.core import CORE

#: Rules that try to cheat the score, where there is a VM to take from.
RED = tuple(f"ple_gym.rules.red_team:{name}" for name in ("hold", "starve", "favour"))
SHIPS = tuple(rule for rule in RULES if rule.startswith(("xen-", "kvm-")))
SEEDS = 100
#: In whole runs of the paper's machines storms are rare. Several VMs take many bytes of the table; of `core` there is
#: another one, with more seeds.
MORE_OR_FEWER = {"Paper8": 200, "Paper32": 200, "Consolidated": 60, **{scenario.name: 60 for scenario in CORE}}
ENDED = 10_000  # units of `worst_vm` in a logarithm
MACHINE = 1000  # units of a VM's CPU time in all pCPU time
MOST_VMS = max(len(scenario.vms()) for scenario in SCENARIOS.values())
OF_VMS = tuple(f"{what}_{vm}" for what in ("got", "entitled") for vm in range(MOST_VMS))
COLUMNS = ("finished", "took_ns", "ideal_ns", "worst_vm", *OF_VMS)


def scenario_id(name: str) -> str:
    """A scenario in its newest version; its bare name means the first one here."""
    return f"{name}-v{VERSIONS[name]}"


def own(name: str) -> str:
    """The rule that a scenario's host has: score 0."""
    return own_rule(SCENARIOS[name])


def run(quick: bool) -> list[Task]:
    """Every suite."""
    wanted: list[Task] = []
    for name, scenario in SCENARIOS.items():
        wide = seeds.SUITE[: 2 if quick else MORE_OR_FEWER.get(name, SEEDS)]
        wanted += tasks(scenario_id(name), [*suiting(scenario), *(RED if len(scenario.vms()) > 1 else ())], wide)
    return wanted


def record_of(task: Task) -> dict[str, Any]:
    """The record of a run, as `summarise` makes it."""
    return summarise(world(task.scenario, task.overrides), run_of(task).totals(0))


def of_vms(found: scores.Sample) -> dict[str, int]:
    """What each VM received and was entitled to in one run, as columns of a table."""
    both = {"got": found.got[0], "entitled": found.entitled[0]}
    return {f"{what}_{vm}": round(MACHINE * one) for what, vms in both.items() for vm, one in enumerate(vms[0])}


def from_vms(rows: Table, vms: int) -> tuple[Floats, Floats]:
    """From such columns again what each VM received, and what it was entitled to: [runs, VMs]."""
    got, entitled = (
        np.stack([rows[f"{what}_{vm}"] for vm in range(vms)], axis=1) / MACHINE for what in ("got", "entitled")
    )
    return got, entitled


def measure(task: Task) -> dict[str, int]:
    """The integers of `COLUMNS`."""
    scenario, record = world(task.scenario, task.overrides), record_of(task)
    found = scores.sample(scenario, [[record]])
    took = record["simulated_s"] * 1e9 * np.exp(scores.slower(scenario, record))
    row = {"finished": int(record["finished"]), "took_ns": rough(round(took)), "ideal_ns": 0, "worst_vm": 0}
    row |= dict.fromkeys(OF_VMS, 0)
    if found is None:
        return row
    row["ideal_ns"] = rough(round(took / np.exp(found.above[0, 0])))
    if found.got.shape[-1] > 1:
        row["worst_vm"] = round(ENDED * found.worst[0, 0])
        row |= of_vms(found)
    return row


@dataclass(frozen=True)
class Standing:
    """A rule on a scenario.

    Attributes:
        score: None where the host is at the ideal, or a run did no useful work.
        change: of the makespan against the host's own rule, percent.
        kept: see `ple_gym.evaluate.scores`.
        capped: how many runs reached the limit.
        wins: the rule is clearly faster than the host's own, no rule that knows as much is clearly faster, and every VM
            has kept what it is due.
    """

    score: Estimate | None
    change: Estimate
    kept: float
    capped: int
    wins: bool

    @property
    def sign(self) -> int:
        """-1 if it is clearly faster than the host's own, 1 if clearly slower."""
        return sign(self.change)


@lru_cache(maxsize=32)
def samples(table: Table, name: str) -> Mapping[str, scores.Sample | None]:
    """Rule -> its runs on a scenario; None if one of them did no useful work."""
    part, vms = table.where(scenario=scenario_id(name)), len(SCENARIOS[name].vms())
    found: dict[str, scores.Sample | None] = {}
    for rule in part.distinct("policy"):
        rows = part.where(policy=rule)
        if not rows["ideal_ns"].all():
            found[rule] = None
            continue
        above = np.log(rows["took_ns"] / rows["ideal_ns"])
        worst = rows["worst_vm"] / ENDED if vms > 1 else above
        found[rule] = scores.Sample(above, worst, *from_vms(rows, vms))
    return found


def host_sample(table: Table, name: str) -> scores.Sample:
    """The runs under the host's own rule."""
    found = samples(table, name)[own(name)]
    assert found is not None, "the host's own rule does some work"
    return found


@lru_cache(maxsize=32)
def standings(table: Table, name: str) -> Mapping[str, Standing]:
    """Rule -> how it stands on a scenario."""
    part, scenario, runs = table.where(scenario=scenario_id(name)), SCENARIOS[name], samples(table, name)
    rows = {rule: part.where(policy=rule) for rule in runs}
    logs = {rule: np.log(one["took_ns"]) for rule, one in rows.items()}
    host = host_sample(table, name)
    kept = {rule: 0.0 if one is None else scores.kept(scenario, one, host) for rule, one in runs.items()}
    fair = [rule for rule in runs if rule in RULES and kept[rule] >= scores.KEPT]
    change = {rule: in_percent(ratio(logs[rule] - logs[own(name)])) for rule in runs}
    return {
        rule: Standing(
            score=None if one is None else scores.guarded(score(one.above, host.above), kept[rule]),
            change=change[rule],
            kept=kept[rule],
            capped=int((rows[rule]["finished"] == 0).sum()),
            wins=rule in fair
            and sign(change[rule]) < 0
            and not any(
                sign(ratio(logs[other] - logs[rule])) < 0
                for other in fair
                if RULES[rule].privileged or not RULES[other].privileged
            ),
        )
        for rule, one in runs.items()
    }


def members(suite: str) -> list[str]:
    """The scenarios of a suite."""
    return [name for name, one in SUITES.items() if one == suite]


def worlds(table: Table, suite: str, rule: str) -> list[scores.World]:
    """What `scores.suite_score` wants; nothing if the rule has no sample on one of the scenarios."""
    found = [(SCENARIOS[name], samples(table, name).get(rule), host_sample(table, name)) for name in members(suite)]
    whole = [(world, one, host) for world, one, host in found if one is not None]
    return whole if len(whole) == len(found) else []


def ranking(table: Table, suite: str) -> list[str]:
    """The rules with a score on every scenario of a suite, from the best mean score to the worst."""
    found = {rule: scores.suite_score(worlds(table, suite, rule), draws=1) for rule in RULES}
    means = {rule: one.mean for rule, one in found.items() if one}
    return sorted(means, key=lambda rule: -means[rule])


def best(table: Table, suite: str) -> str:
    """The rule of a hypervisor with the best mean score."""
    return next(rule for rule in ranking(table, suite) if not RULES[rule].privileged)


def checks(table: Table) -> list[Check]:
    """Of each suite the best rule of a hypervisor, reported only; docs/suites.md has them all."""
    found = []
    for suite in dict.fromkeys(SUITES.values()):
        rule = best(table, suite)
        value = scores.suite_score(worlds(table, suite, rule))
        assert value is not None
        text = f"`{rule}`: {value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"
        found.append(Check("suite", f"`{suite}`: best rule of a hypervisor, mean score", text))
    return found


EXPERIMENT = Experiment("suite", __doc__, COLUMNS, run, checks, measure=measure)
