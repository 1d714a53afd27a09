"""What do some policies typically get on each id, and what has its newest version changed? The scores of the cards.

Learners are those of the leaderboard; two trainings of each run here. All runs are whole, on the leaderboard's test
seeds. Between versions they are paired by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.lab import CHECKPOINTS, Experiment, Table, Task, seeds, tasks, world
from experiments.lab.report import Check
from experiments.learning import leaderboard, trained
from experiments.learning.trained import COLUMNS
from ple_gym.evaluate import Comparison
from ple_gym.evaluate.statistics import Ratio, ratio
from ple_gym.rules import RULES as ALL_RULES
from ple_gym.rules.own import own_rule

#: By name, so that neither a new id, a new version nor a new rule makes the committed table incomplete.
IDS = (
    "Tiny-v0", "HolderPreempted-v0", "TicketOrder-v1", "Storm-v1", "Busy8-v1", "Paper8-v1", "Paper32-v1",
    "KvmServer614-v0", "KvmServer614Flat-v0", "KvmServer618-v0", "KvmServer618Flat-v0",
    "KvmFlushes618Flat-v0",
    "KvmEbizzy-v0", "KvmShootdown-v0", "KvmDbench-v0", "KvmWindows-v0", "XcpWindows-v1", "Consolidated-v1",
)  # fmt: skip
RULES = (
    "host", "continue", "random", "longest-waiting", "paper", "kvm-5.13", "ipi-aware", "spin-age-self", "two-patience",
    "oracle",
)  # fmt: skip
CHANGED = {one: one.replace("-v1", "-v0") for one in IDS if one.endswith("-v1")}  # newest version -> the one before
BOTH = ("host", "paper", "kvm-5.13", "longest-waiting", "oracle")  # what runs on both versions
SEEDS, MORE_SEEDS = 20, 100


def members(one: str) -> dict[str, Sequence[str]]:
    """Row -> policies, of one id: those that suit its host, and the host's own."""
    scenario = world(one, "")
    names = dict.fromkeys([*RULES, own_rule(scenario)])
    rules: dict[str, Sequence[str]] = {rule: [rule] for rule in names if ALL_RULES[rule].suits(scenario)}
    if one not in leaderboard.SCENARIOS:
        return rules
    return rules | {row: own[:2] for row, own in leaderboard.members(one).items() if row not in ALL_RULES}


def run(quick: bool) -> list[Task]:
    """Every id under every policy, and both versions of the changed ones."""
    own = seeds.LEADERBOARD[: 1 if quick else SEEDS]
    wanted = [task for one in IDS for row in members(one).values() for task in tasks(one, row, own)]
    for new, old in CHANGED.items():
        wanted += [task for one in (new, old) for task in tasks(one, BOTH, both_seeds(new, quick))]
    return list(dict.fromkeys(wanted))


def both_seeds(one: str, quick: bool = False) -> range:
    """Fewer of the worlds whose runs all differ, and are long."""
    return seeds.LEADERBOARD[: 1 if quick else MORE_SEEDS if world(one, "").host.pcpus <= 4 else SEEDS]


def compared(table: Table, one: str) -> Comparison:
    """What the rows of one id say."""
    first = table.select(table["seed"] < seeds.LEADERBOARD[SEEDS])
    return trained.comparison(first, one, "", members(one))


def changes(table: Table, one: str) -> Mapping[str, Ratio]:
    """Rule -> logarithm of the makespan over that of the version before, on the same seeds."""
    makespans = [
        {rule: np.log(table.where(scenario=version, policy=rule)["took_100ns"]) for rule in BOTH}
        for version in (one, CHANGED[one])
    ]
    return {rule: ratio(makespans[0][rule] - makespans[1][rule]) for rule in BOTH}


def checks(table: Table) -> list[Check]:
    """Every row of every id, and what its newest version changed."""
    found = [check for one in IDS for check in trained.checks("typical", one, compared(table, one))]
    return found + [
        Check("typical", f"{one} against {CHANGED[one]}: `{rule}`", trained.percent(change))
        for one in CHANGED
        for rule, change in changes(table, one).items()
    ]


EXPERIMENT = Experiment("typical", __doc__, COLUMNS, run, checks, None, trained.measure, (CHECKPOINTS,))
