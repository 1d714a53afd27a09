"""Which rule wins where? Every built-in rule on every scenario of every suite, in its newest version.

All rules of a scenario run on the same seeds, of a range that nothing was trained or tuned on. A run that reaches the
limit counts with the limit. What makes a score is `ple_gym.evaluate.scores`: 0 is the host's own rule, 1 the ideal, and
who takes from a VM what it is due gets no more than 0.

Times are kept in whole nanoseconds, rough; of each VM, where there are several, the CPU time that it received in
percent of what it was entitled to.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from experiments.lab import Experiment, Table, Task, rough, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.episode import summarise
from ple_gym.evaluate import scores
from ple_gym.evaluate.runs import suiting
from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import SCENARIOS, SUITES, VERSIONS

HOST = "host"
SEEDS = 100
#: In whole runs of the paper's machines storms are rare. 48 VMs take many bytes of the table.
MORE_OR_FEWER = {"Paper8": 200, "Paper32": 200, "Consolidated": 60}
ENDED = 10_000  # units of `worst_vm` in a logarithm
MOST_VMS = max(len(scenario.vms()) for scenario in SCENARIOS.values())
COLUMNS = ("finished", "took_ns", "ideal_ns", "worst_vm", *(f"got_{vm}" for vm in range(MOST_VMS)))


def scenario_id(name: str) -> str:
    """A scenario in its newest version; its bare name means the first one here."""
    return f"{name}-v{VERSIONS[name]}"


def run(quick: bool) -> list[Task]:
    """Every suite."""
    return [
        task
        for name, scenario in SCENARIOS.items()
        for task in tasks(
            scenario_id(name), suiting(scenario), seeds.SUITE[: 2 if quick else MORE_OR_FEWER.get(name, SEEDS)]
        )
    ]


@lru_cache(maxsize=2)
def _lanes(name: str, policy: str) -> Lanes:
    return Lanes(world(name, ""), 1, policy=policy)


def measure(task: Task) -> dict[str, int]:
    """The integers of `COLUMNS`."""
    scenario, lanes = world(task.scenario, task.overrides), _lanes(task.scenario, task.policy)
    lanes.run(0, task.seed)
    record = summarise(scenario, lanes.totals(0))
    found = scores.sample(scenario, [[record]])
    took = rough(round(record["simulated_s"] * 1e9))
    row = {"finished": int(record["finished"]), "took_ns": took, "ideal_ns": 0, "worst_vm": 0}
    row |= dict.fromkeys(COLUMNS[4:], 0)
    if found is None:
        return row
    row["ideal_ns"] = rough(round(record["simulated_s"] * 1e9 / np.exp(found.above[0, 0])))
    vms = found.got.shape[-1]
    if vms > 1:
        row["worst_vm"] = round(ENDED * found.worst[0, 0])
        row |= {f"got_{vm}": round(100 * found.got[0, 0, vm]) for vm in range(vms)}
    return row


def sample(table: Table, name: str, rule: str) -> scores.Sample | None:
    """The runs of a rule on a scenario; None if one of them did no useful work."""
    part = table.where(scenario=scenario_id(name), policy=rule)
    if not len(part) or not part["ideal_ns"].all():
        return None
    above = np.log(part["took_ns"] / part["ideal_ns"])
    vms = len(SCENARIOS[name].vms())
    if vms == 1:
        return scores.Sample(above, above, np.ones((len(above), 1)))
    got = np.stack([part[f"got_{vm}"] for vm in range(vms)], axis=1) / 100
    return scores.Sample(above, part["worst_vm"] / ENDED, got)


def checks(table: Table) -> list[Check]:
    """Of each suite the best rule of a hypervisor, reported only; docs/suites.md has them all."""
    found = []
    for suite in dict.fromkeys(SUITES.values()):
        best = max((value, rule) for rule, value in suite_means(table, suite).items() if not RULES[rule].privileged)
        found.append(Check("suite", f"`{suite}`: best rule of a hypervisor, mean score", f"`{best[1]}`: {best[0]:.2f}"))
    return found


def suite_means(table: Table, suite: str) -> dict[str, float]:
    """Rule -> mean score over the suite's scenarios, of rules with a score on all."""
    return {
        rule: found.mean
        for rule in table.distinct("policy")
        if (found := scores.suite_score(worlds(table, suite, rule), draws=1))
    }


def worlds(table: Table, suite: str, rule: str) -> list[scores.World]:
    """What `scores.suite_score` wants; nothing if the rule has no sample on one of the scenarios."""
    names = [name for name, own in SUITES.items() if own == suite]
    found = [(SCENARIOS[name], sample(table, name, rule), sample(table, name, HOST)) for name in names]
    whole = [(world, own, host) for world, own, host in found if own is not None and host is not None]
    return whole if len(whole) == len(found) else []


EXPERIMENT = Experiment("suite", __doc__, COLUMNS, run, checks, measure=measure)
