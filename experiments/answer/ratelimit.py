"""Is it only the rate limit? The limit from off to 2 ms, under Xen 4.5, Xen 4.8 and the proposal.

A yield within the limit does nothing in Xen 4.5, so that a vCPU that waits has PLE until the limit is over. If that
were all, switching it off would do what the proposal does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.answer.answer import IN_LINE, WORLDS
from experiments.answer.rules import COLUMNS, compare
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check

LIMITS_US = (0, 250, 500, 1000, 2000)
RULES = ("xen-4.5", "xen-4.8", "paper")


def limit(us: int) -> dict[str, object]:
    """Started in line, with this rate limit."""
    return IN_LINE | {"host.ratelimit_us": us}


def run(quick: bool) -> list[Task]:
    """Both machines, started in line."""
    own = seeds.ANSWER[: 8 if quick else 200]
    return [task for world in WORLDS for us in LIMITS_US for task in tasks(world, RULES, own, limit(us))]


def part(table: Table, world: str, us: int) -> Table:
    """The rows of a machine at a limit."""
    return table.where(scenario=world, overrides=overrides_text(limit(us)))


def checks(table: Table) -> list[Check]:
    """Every rule at every limit."""
    found = []
    for world in WORLDS:
        for us in LIMITS_US:
            for rule in RULES:
                one = compare(part(table, world, us), rule)
                found.append(Check("answer", f"{world}, limit {us / 1000:g} ms: `{rule}`", one.text()))
    return found


def draw(table: Table, path: Path) -> None:
    """Makespan and PLE against the limit."""
    with picture(path, 9, 5.5, nrows=2, ncols=2, sharex=True) as (_, axes):
        for column, world in enumerate(WORLDS):
            for colour, rule in zip(COLOURS, RULES, strict=False):
                rows = [part(table, world, us).where(policy=rule) for us in LIMITS_US]
                x = [us / 1000 for us in LIMITS_US]
                axes[0, column].plot(
                    x, np.array([one["now_us"].mean() / 1000 for one in rows]), "o-", color=colour, label=rule
                )
                axes[1, column].plot(x, [one["exits"].mean() for one in rows], "o-", color=colour)
            axes[0, column].set(title=f"{world}, started in line", ylabel="makespan, ms")
            axes[0, column].set_ylim(0, 1.08 * max(line.get_ydata().max() for line in axes[0, column].lines))
            axes[1, column].set(yscale="log", xlabel="rate limit, ms", ylabel="PLE per run")
        axes[0, 0].legend(frameon=False)


EXPERIMENT = Experiment("ratelimit", __doc__, COLUMNS, run, checks, draw)
