"""Is there one rule for all worlds of the fleet? The best single rule against the best rule of each world.

200 worlds of `FleetTest`. The single rule is chosen on 200 worlds of `FleetValidation`, which share no combination of
host version, layout and guest kernel with them: the one of `POLICIES` with the least geometric mean of makespans over
the host's own. Among them is `patience` as `ple-gym tune patience Fleet` found it, on worlds of `Fleet`. The best rule
of a world is chosen on 8 seeds of that world and judged on 8 others, and so is the single rule. A run that reaches its
limit counts with that; where a rule cannot decide, the host does. CPU time beyond the allowance of VMs with an end
counts as time.

A row holds a world: the time of all runs under each rule, in microseconds, on the first seeds and on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.answer.rules import in_percent
from experiments.lab import Experiment, Table, Task, rough, seeds, world
from experiments.lab.report import Check
from ple_gym.course import Course
from ple_gym.evaluate.statistics import Estimate, estimate, quantile_estimate, ratio
from ple_gym.evaluate.tables import FEW
from ple_gym.policies import load_compiled
from ple_gym.rules import Rule
from ple_gym.rules.own import own_rule
from ple_gym.scenario import Scenario
from ple_gym.scenario.fleet import AXES

Floats = npt.NDArray[np.float64]

HOST, TUNED = "host", "tuned patience"
#: What `ple-gym tune patience Fleet --training 256 --validation 1000` found.
TUNED_FILE = Path(__file__).with_suffix(".toml")
#: Every built-in rule that is not told the guest's state and is no setting of the host, and values for some.
POLICIES = (
    HOST, "continue", "random", "round-robin", "longest-waiting", "paper", "paper-local", "paper-ban", "kvm",
    "kvm-2012", "kvm-5.2", "kvm-5.4", "kvm-5.13", "kvm-6.13", "kvm-6.18", "strict-boost", "spin-age", "spin-age-self",
    "two-patience", "ipi-aware", "oldest-interrupt", "patience", "resume-then-defer", "longest-sibling",
    "oldest-spinner", "latest-in-kernel", "longest-in-kernel", "quiet-sibling", "outside-group", "victim-aware",
    "yield-if-cheap",
    "resume-then-defer:after=1", "resume-then-defer:after=30", "patience:fallback=defer",
    "patience:kernel_after=0,fallback=defer", "patience:anyone=3,fallback=defer",
    "patience:victim=stranger,fallback=defer", TUNED,
)  # fmt: skip
#: Whose gains are shown by group.
SHOWN = (TUNED, "kvm-2012", "random", "kvm-6.18", "longest-sibling", "victim-aware", "paper-local", "two-patience")
EACH = 8  # seeds to choose on, and as many to judge on
WORLDS = 200
CHOOSE, JUDGE = "FleetValidation", "FleetTest"
MEASURED = "all"  # the policy of a task whose measure runs every rule


def run(quick: bool) -> list[Task]:
    """The first worlds of both splits; the seed is the first of those that a world is run on."""
    return [
        Task(f"{split}-{number}", "", MEASURED, seeds.FLEET[2 * EACH * number])
        for split in (CHOOSE, JUDGE)
        for number in range(6 if quick else WORLDS)
    ]


def measure(task: Task) -> dict[str, int]:
    """Times under every rule: `first POLICY` on the seeds to choose on, `then POLICY` on the others."""
    scenario, found = world(task.scenario, task.overrides), {}
    course = Course(scenario, EACH, threads=1)
    for policy in POLICIES:
        rule = rule_of(policy)
        decides = rule if rule.suits(scenario) else rule_of(HOST)
        losses = course.losses(decides, range(task.seed, task.seed + 2 * EACH), lambda done: None)
        for which, own in (("first", losses[:EACH]), ("then", losses[EACH:])):
            found[f"{which} {policy}"] = rough(round(1e6 * sum(map(math.exp, own))), 10)
    return found


def rule_of(policy: str) -> Rule:
    """The rule of a name in `POLICIES`."""
    rule = load_compiled(str(TUNED_FILE) if policy == TUNED else policy)
    assert isinstance(rule, Rule)
    return rule


def times(table: Table, split: str, which: str) -> Floats:
    """Time under each rule in each world of a split: [worlds, POLICIES]; which: `first` or `then`."""
    rows = np.array([name.startswith(f"{split}-") for name in table["scenario"]])
    return np.stack([table[f"{which} {policy}"][rows] for policy in POLICIES], axis=1).astype(np.float64)


def single(table: Table, tuned: bool = True) -> int:
    """The place in POLICIES of the best rule for all worlds to choose on; tuned: whether it may be the tuned one."""
    both = times(table, CHOOSE, "first") + times(table, CHOOSE, "then")
    means = np.log(both / both[:, :1]).mean(axis=0)
    return int(np.where([tuned or policy != TUNED for policy in POLICIES], means, np.inf).argmin())


def gaps(table: Table, rule: int) -> Floats:
    """How much longer the work of each judged world takes under a rule than under the world's own best, in percent."""
    chosen, judged = times(table, JUDGE, "first").argmin(axis=1), times(table, JUDGE, "then")
    return 100 * (judged[:, rule] / judged[np.arange(len(judged)), chosen] - 1)


def against_own(table: Table, rule: int) -> Floats:
    """The logarithm of the time under a rule over that under the host's own, in each judged world."""
    judged = times(table, JUDGE, "then")
    own = [POLICIES.index(own_rule(one)) for one in judged_worlds(table)]
    return np.asarray(np.log(judged[:, rule] / judged[np.arange(len(judged)), own]))


def judged_worlds(table: Table) -> list[Scenario]:
    """The worlds to judge on, in the order of the rows."""
    names = [name for name in table["scenario"] if name.startswith(f"{JUDGE}-")]
    return [world(str(name), "") for name in names]


@dataclass(frozen=True)
class Group:
    """Some worlds, and what is estimated of them: the gap of a rule, or what it gains on the host's own, percent."""

    name: str
    worlds: int
    found: Estimate


def members(worlds: Sequence[Scenario]) -> dict[str, list[int]]:
    """The places of the worlds of each scheduler, version, layout, actuator and guest kernel; of five at least."""
    named: dict[str, list[int]] = {}
    for place, one in enumerate(worlds):
        scheduler, version, layout, kernel = one.description.partition("split: ")[2].split(", ")
        for name in (
            scheduler, f"{scheduler}, {version}", f"{scheduler}, {layout}", f"{scheduler}, {one.actuator}", kernel
        ):  # fmt: skip
            named.setdefault(name, []).append(place)
    return {name: named[name] for name in sorted(named) if len(named[name]) >= 5}


def groups(table: Table, rule: int) -> list[Group]:
    """The gap of a rule in each group, the largest first."""
    own = gaps(table, rule)
    found = [Group(name, len(at), estimate(own[at])) for name, at in members(judged_worlds(table)).items()]
    return sorted(found, key=lambda one: -one.found.mean)


def gains(table: Table, rule: int) -> list[Group]:
    """What a rule gains on the rule that each world's host has, in all worlds and in each group."""
    own = against_own(table, rule)
    by = {"all": list(range(len(own))), **members(judged_worlds(table))}
    return [Group(name, len(at), in_percent(ratio(own[at]))) for name, at in by.items()]


def checks(table: Table) -> list[Check]:
    """The gap of the single rule: mean, p95 and worst group; reported only."""
    rule, plain = single(table), single(table, tuned=False)
    own, host = gaps(table, rule), gaps(table, 0)
    chosen = times(table, JUDGE, "first").argmin(axis=1)
    best = [POLICIES[place] for place in np.argsort(-np.bincount(chosen, minlength=len(POLICIES)))[:5]]
    found = [
        ("the best single rule, chosen on other combinations", f"`{POLICIES[rule]}`"),
        (f"its gap to each world's best rule, mean of {len(own)} worlds", percent(estimate(own))),
        ("its gap, p95 over worlds", percent(quantile_estimate(own, 95))),
        ("the best single rule with its defaults", f"`{POLICIES[plain]}`"),
        ("its gap, mean", percent(estimate(gaps(table, plain)))),
        ("the same where the host only yields, mean", percent(estimate(host))),
        ("the same where the host only yields, p95", percent(quantile_estimate(host, 95))),
        ("worlds in which it is within 2 % of the best", f"{np.mean(own <= 2):.0%}"),
        ("rules that are best most often", ", ".join(f"`{name}`" for name in best)),
    ]
    found += [
        (f"it against the rule that the host has, {one.name} ({one.worlds} worlds)", percent(one.found))
        for one in gains(table, rule)
        if one.name in ("all", *AXES)
    ]
    found += [
        (f"its gap in the worst groups: {one.name} ({one.worlds} worlds)", percent(one.found))
        for one in groups(table, rule)[:3]
    ]
    return [Check("fleet", what, value) for what, value in found]


def percent(value: Estimate) -> str:
    """A gap with its interval over worlds."""
    if value.low is None or value.high is None:
        return f"{value.mean:.1f} %"
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]{FEW if value.few else ''} %"


EXPERIMENT = Experiment(
    "fleet",
    __doc__,
    tuple(f"{which} {policy}" for which in ("first", "then") for policy in POLICIES),
    run,
    checks,
    measure=measure,
    inputs=(TUNED_FILE,),
)
