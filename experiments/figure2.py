"""Figure 2: does the paper's scatter of run time against PLE exits come out, 10,000 times?

Paper, 3.2: 10,000 runs of one benchmark under Xen 4.5, 32 vCPUs on 4 pCPUs. Most take about 1.5 s. In some PLE abound,
up to about 250,000 in less than 2 s, and these are always delayed (1.8 s and more); some slow runs have few PLE.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments import seeds
from experiments.lab import Experiment, Table, Task, tasks
from experiments.pictures import COLOURS, picture
from experiments.report import FITTED, Check, within

WORLD, POLICY = "PLE/Paper32-v0", "xen-4.5"
HZ = 2_670_000_000


def run(quick: bool) -> list[Task]:
    """All runs."""
    return tasks(WORLD, POLICY, seeds.FIGURE2[:200] if quick else seeds.FIGURE2)


def checks(table: Table) -> list[Check]:
    """R6 to R10."""
    seconds = table["now"] / HZ
    counts, edges = np.histogram(seconds, np.arange(1.0, 3.0, 0.02))
    mode = float(edges[counts.argmax()] + 0.01)
    return [
        within("R6", "mode of the run time", mode, 1.45, 1.55, "s", kind=FITTED),
        within("R7", "most PLE in a run", int(table["exits"].max()), 150_000, 400_000),
    ]


def draw(table: Table, path: Path) -> None:
    """PLE against time."""
    with picture(path) as (_, axes):
        axes.plot(table["now"] / HZ, table["exits"], ".", markersize=2, color=COLOURS[0])
        axes.set_xlabel("run time, s")
        axes.set_ylabel("PLE exits")


EXPERIMENT = Experiment("figure2", __doc__, ("now", "exits"), run, checks, draw)
