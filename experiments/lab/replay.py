"""Simulate a sample of the committed rows again and compare every integer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from experiments.lab.discovery import experiments
from experiments.lab.executors import Where, run_batches
from experiments.lab.tables import Table, kept

SAMPLE = 24  # rows of each experiment


def replay(results: Path, say: Callable[[str], None], where: Where, sample: int = SAMPLE) -> int:
    """Replay a sample of every experiment's rows; say one line per difference, and return how many there are.

    Raises:
        TableError: a table is damaged, or was changed.
    """
    differences = replayed = 0
    for name, experiment in experiments().items():
        path = kept(name, results)
        if not path.exists():
            differences += 1
            say(f"{name}: there is no {path.name}")
            continue
        rows = Table.read(path).rows()
        tasks = random.Random(0).sample(list(rows), min(sample, len(rows)))
        replayed += len(tasks)
        for place, [row] in run_batches(experiment.measure, experiment.columns, [[task] for task in tasks], where):
            task = tasks[place]
            for column, old, new in zip(experiment.columns, rows[task], row, strict=True):
                if old != new:
                    differences += 1
                    say(f"{name}: {task}: {column} = {new}, the committed table says {old}")
    say(f"{replayed} rows replayed, {differences} differences")
    return differences
