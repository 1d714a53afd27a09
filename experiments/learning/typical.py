"""What do some policies typically get on the ids that have no leaderboard? The scores of their cards.

Nothing is trained on them yet, so there are rules only, whole runs on test seeds of the leaderboard.
"""

from __future__ import annotations

from experiments.lab import Experiment, Table, Task, seeds, tasks
from experiments.lab.report import Check
from experiments.learning import trained
from experiments.learning.trained import COLUMNS
from ple_gym.evaluate import Comparison

#: By name, so that neither a new id nor a new rule makes the committed table incomplete.
SCENARIOS = (
    "Tiny", "HolderPreempted", "Busy8", "KvmEbizzy", "KvmShootdown", "KvmDbench", "KvmWindows", "XcpWindows",
    "Consolidated",
)  # fmt: skip
RULES = (
    "host", "continue", "random", "longest-waiting", "kvm-5.13", "ipi-aware", "spin-age-self", "two-patience", "oracle",
)  # fmt: skip
SEEDS = 20


def run(quick: bool) -> list[Task]:
    """Every id under every rule."""
    own = seeds.LEADERBOARD[: 1 if quick else SEEDS]
    return [task for scenario in SCENARIOS for task in tasks(scenario, RULES, own)]


def compared(table: Table, scenario: str) -> Comparison:
    """What the rows of one id say."""
    return trained.comparison(table, scenario, "", {rule: [rule] for rule in RULES})


def checks(table: Table) -> list[Check]:
    """Every rule on every id."""
    return [check for scenario in SCENARIOS for check in trained.checks("typical", scenario, compared(table, scenario))]


EXPERIMENT = Experiment("typical", __doc__, COLUMNS, run, checks, measure=trained.measure)
