"""Simulate a sample of the committed rows again and compare every integer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from experiments import catalog
from experiments.executors import run_one
from experiments.lab import Table

SAMPLE = 24  # rows of each experiment; half of them those with the largest values of the last column


def replay(results: Path, say: Callable[[str], None], sample: int = SAMPLE) -> int:
    """Replay a sample of every experiment's rows; say one line per difference, and return how many there are."""
    differences = replayed = 0
    for name in catalog.NAMES:
        path = results / f"{name}.csv"
        if not path.exists():
            differences += 1
            say(f"{name}: there is no {path.name}")
            continue
        experiment = catalog.load(name)
        rows = Table.read(path).rows()
        for task in random.Random(0).sample(list(rows), min(sample, len(rows))):
            replayed += 1
            for column, old, new in zip(
                experiment.columns, rows[task], run_one(experiment.measure, experiment.columns, task), strict=True
            ):
                if old != new:
                    differences += 1
                    say(f"{name}: {task}: {column} = {new}, the committed file says {old}")
    say(f"{replayed} rows replayed, {differences} differences")
    return differences
