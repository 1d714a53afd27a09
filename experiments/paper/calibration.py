"""Calibration: how well do the fitted profiles do on seeds that the fit has not seen, and what do they then predict?

`fit.py` fits two explanations of the delay to the paper's statements on Figure 2: `fitted` (a shared host) and
`dear-exits`. Here both, and the built-in `Paper32`, whose parameters come from an earlier study, are run on validation
seeds and judged by the same statements. What a guest or hypervisor could measure to tell them apart is listed as well.
"""

from __future__ import annotations

import csv
from pathlib import Path

from experiments.lab import MAX_TABLE_BYTES, Experiment, Table, TableError, Task, seeds, tasks, totals
from experiments.lab.folders import PROFILES
from experiments.lab.pictures import picture
from experiments.lab.report import FITTED, Check
from experiments.paper import figure2
from experiments.paper.fit import EXPLANATIONS, misses
from experiments.paper.slope import storm
from ple_gym.files import read_text, reading

WORLDS = ("fitted", "dear-exits", "Paper32")


def run(quick: bool) -> list[Task]:
    """All three on the same seeds."""
    return [
        task for world in WORLDS for task in tasks(world, figure2.POLICY, seeds.VALIDATION[: 100 if quick else 1500])
    ]


def checks(table: Table) -> list[Check]:
    """The statements as tolerances missed, the matrix rows of the fitted profile, and what tells the two apart."""
    found = []
    for world in WORLDS:
        statistics = figure2.statistics(table.where(scenario=world))
        judged = world not in EXPLANATIONS or EXPLANATIONS[world].judged_by_figure3
        missed = misses(statistics, judged)
        text = f"{sum(miss**2 for miss in missed.values()):.1f}"
        found.append(Check("fit", f"`{world}`: sum of squared misses, in tolerances", text, kind=FITTED))
        for statement, miss in missed.items():
            found.append(
                Check("fit", f"`{world}`: {statement}", "met" if miss == 0 else f"missed by {miss:.1f}", kind=FITTED)
            )
    for number, column in parameters().items():
        found.append(Check("fit", f"parameter {number}", column, kind=FITTED))
    found += [on(check, "`fitted`") for check in figure2.matrix(figure2.statistics(table.where(scenario="fitted")))]
    for world in WORLDS:
        found += apart(table.where(scenario=world), world)
    return found


def on(check: Check, where: str) -> Check:
    """The same check as an extra, so that it does not stand for Figure 2 itself in the matrix."""
    return Check(f"{check.row}, {where}", check.metric, check.value, check.band, check.passed, check.kind, check.reason)


def apart(table: Table, world: str) -> list[Check]:
    """What a measurement on the real machine would have to show under an explanation; nothing here was fitted."""
    calm = table.select(table["exits"] == 0)
    heavy = table.select(table["exits"] >= figure2.MANY)
    if not len(heavy):
        return []
    cycles, mode = storm(table)
    gain = (heavy["others_us"].mean() - calm["others_us"].mean()) / 1e6
    n = figure2.statistics(table)
    return [
        Check("apart", f"`{world}`: cycles from PLE to PLE of a vCPU that waits", f"{cycles:,.0f}"),
        Check("apart", f"`{world}`: mode of PLE per dispatch", f"{mode}"),
        Check("apart", f"`{world}`: pCPU time of others, runs with 150,000 PLE against runs without", f"{gain:+.2f} s"),
        Check("apart", f"`{world}`: share of spin and exits in the delay of such runs", f"{n['ple_share']:.0f} %"),
    ]


def parameters() -> dict[str, str]:
    """The best parameters of each explanation as text."""
    path = PROFILES / "trials.csv"
    with reading(path, TableError, "the table of trials"):
        rows = list(csv.DictReader(read_text(path, MAX_TABLE_BYTES).splitlines(), strict=True))
        best = {row["explanation"]: row for row in reversed(rows)}
    names = [name for name in next(iter(best.values())) if name not in ("explanation", "trial", "loss")]
    return {
        f"`{name}`, {' / '.join(best)}": " / ".join(row[name] or "not free" for row in best.values()) for name in names
    }


def measure(task: Task) -> dict[str, int]:
    """As `figure2`; `others_us`: pCPU time that the benchmark's VM did not use, with what is idle or stolen."""
    run = totals(task)
    others = run["stolen"] + run["idle"] + run.get("used_1", 0)
    return figure2.measure(task) | {"others_us": figure2.microseconds(others)}


def draw(table: Table, path: Path) -> None:
    """Three scatters."""
    with picture(path, 11, 3.8, ncols=3, sharey=True, sharex=True) as (_, axes):
        for one, world in zip(axes, WORLDS, strict=True):
            rows = table.where(scenario=world)
            figure2.scatter(one, rows, f"{world}, {len(rows):,} runs")
        axes[1].set_ylabel(None)
        axes[2].set_ylabel(None)


COLUMNS = ("finished", "now_us", "exits", "lost_us", "others_us", "dispatch_exits_mode")
EXPERIMENT = Experiment("calibration", __doc__, COLUMNS, run, checks, draw, measure)
