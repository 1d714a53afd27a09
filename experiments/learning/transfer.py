"""Does a policy carry over to machines of other sizes? The set policy from 8 and 16 vCPUs, and from 32, run on 8 to 64.

The set policy scores each vCPU by itself, so its weights fit any number of them. `Storm` with so many vCPUs on its four
pCPUs; the policies were trained on one size only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.lab import CHECKPOINTS, Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check
from experiments.learning import trained, trainings
from experiments.learning.trained import COLUMNS
from ple_gym.evaluate import Comparison

RULES = ("xen-4.8", "kvm", "spin-age-self", "two-patience", "oracle")
WORLD = trainings.QUICK_START.world
SIZES = (8, 16, 32, 64)
FROM = {f"set-ppo from {row.vcpus}": row for row in (*trainings.SMALLER, trainings.QUICK_START)}


def changed(vcpus: int) -> dict[str, object]:
    """`Storm` with so many vCPUs."""
    return {"guest.vcpus": vcpus}


def members() -> dict[str, Sequence[str]]:
    """Row -> policies."""
    return trained.rules_and(FROM, RULES)


def run(quick: bool) -> list[Task]:
    """Every size."""
    own = seeds.LEADERBOARD[: 2 if quick else 100]
    policies = [policy for row in members().values() for policy in row]
    return [task for vcpus in SIZES for task in tasks(WORLD, policies, own, changed(vcpus))]


def compared(table: Table, vcpus: int) -> Comparison:
    """What the rows of one size say."""
    return trained.comparison(table, WORLD, overrides_text(changed(vcpus)), members())


def checks(table: Table) -> list[Check]:
    """Every row of every size."""
    return [
        check
        for vcpus in SIZES
        for check in trained.checks("transfer", f"{WORLD}, {vcpus} vCPUs", compared(table, vcpus))
    ]


def draw(table: Table, path: Path) -> None:
    """How much longer than the ideal, over the number of vCPUs."""
    with picture(path, 8, 4.5) as (_, axis):
        for number, name in enumerate(members()):
            above = [compared(table, vcpus).ideal_percent(name) or np.nan for vcpus in SIZES]
            style = "--" if name in RULES else "o-"
            axis.plot(SIZES, above, style, color=COLOURS[number % len(COLOURS)], label=name, markersize=4)
        axis.set(xscale="log", yscale="log", xlabel="vCPUs on 4 pCPUs", ylabel="makespan above ideal, %")
        axis.set_xticks(SIZES, [str(vcpus) for vcpus in SIZES])
        axis.minorticks_off()
        axis.legend(fontsize="small")


EXPERIMENT = Experiment("transfer", __doc__, COLUMNS, run, checks, draw, trained.measure, (CHECKPOINTS,))
