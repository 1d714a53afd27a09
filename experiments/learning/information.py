"""What is it worth to know more? The same learner on `Storm` at the three information levels.

`hypervisor` is what exits and the scheduler tell; `introspection` adds the lock address of each vCPU's last exit;
`oracle` adds holder and ticket line, which only the guest knows. Why that does not help: docs/agents.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.lab import CHECKPOINTS, Experiment, Table, Task, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check
from experiments.learning import trained, trainings
from experiments.learning.trained import COLUMNS
from ple_gym.evaluate import Comparison

RULES = ("kvm", "spin-age", "spin-age-self", "two-patience", "oracle")
WORLD = trainings.QUICK_START.world
LEVELS = {f"set-ppo, {row.information}": row for row in (trainings.QUICK_START, *trainings.KNOWING)}


def members() -> dict[str, Sequence[str]]:
    """Row -> policies."""
    return trained.rules_and(LEVELS, RULES)


def run(quick: bool) -> list[Task]:
    """Rules and levels on the same seeds."""
    own = seeds.LEADERBOARD[: 2 if quick else 100]
    return tasks(WORLD, [policy for row in members().values() for policy in row], own)


def compared(table: Table) -> Comparison:
    """What the rows say."""
    return trained.comparison(table, WORLD, "", members())


def checks(table: Table) -> list[Check]:
    """Every row."""
    return trained.checks("information", WORLD, compared(table))


def draw(table: Table, path: Path) -> None:
    """How much longer than the ideal: every training, and the rules as lines."""
    here = compared(table)
    with picture(path, 8, 4.5) as (_, axis):
        for number, rule in enumerate(RULES):
            axis.axhline(here.ideal_percent(rule), linestyle="--", color=COLOURS[2 + number], label=rule, linewidth=1)
        for place, name in enumerate(LEVELS):
            each = [
                100 * np.expm1(np.mean([np.log(run["simulated_s"] / run["ideal_s"]) for run in here.runs[policy]]))
                for policy in here.members.get(name, ())
            ]
            axis.plot([place] * len(each), each, "o", color=COLOURS[0], markersize=5, alpha=0.7)
            axis.plot(place, np.mean(each) if each else np.nan, "_", color=COLOURS[1], markersize=30)
        axis.set_xticks(range(len(LEVELS)), [row.information for row in LEVELS.values()])
        axis.set(ylabel="makespan above ideal, %", xlabel="what the policy sees (dots: trainings, line: mean)")
        axis.legend(fontsize="small")


EXPERIMENT = Experiment("information", __doc__, COLUMNS, run, checks, draw, trained.measure, (CHECKPOINTS,))
