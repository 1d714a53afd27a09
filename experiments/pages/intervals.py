"""Write docs/intervals.md: the text of `intervals.in.md` with the numbers of `coverage` filled in, and its tables.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.answer.coverage import (
    METHODS,
    OTHERS,
    PAIRS,
    RARE,
    SAMPLES,
    SELDOM,
    SHIPPED,
    SIZES,
    Cell,
    line,
    part,
    study,
    two_levels,
)
from experiments.answer.rules import BASE
from experiments.lab import Table
from experiments.lab.folders import DOCS
from ple_gym.evaluate.statistics import ENOUGH_DIFFERING, ENOUGH_RUNS, ENOUGH_TAIL
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("intervals.in.md")
PAGE = DOCS / "intervals.md"
NEEDS = ("coverage",)


def page(table: Table) -> str:
    """The page's text from the table of `coverage`."""
    cells = study(table)
    sizes = [f"{size}" for size in SIZES]
    lines = [TEXT.read_text(encoding="utf-8").format(**_numbers(table, cells)).rstrip(), ""]
    said = "Percent held (below, above), and the median width in that of the percentile bootstrap:"
    lines += ["## Methods, where seldom anything differs", "", said, ""]
    own = {(one.population, one.what, one.size, one.method): one for one in cells}
    rows = []
    for population in RARE:
        for rule, base in PAIRS[:4]:
            for size in (20, 50, 100, 200, 600):
                found = [own[population, f"{rule} / {base}", size, name] for name in METHODS]
                rows.append([population, f"`{rule}`", str(size), *(_method(one) for one in found)])
    lines += [*_markdown(("world", "rule against `xen-4.5`", "seeds", *METHODS), rows), ""]
    lines += [
        "## Everything that is printed",
        "",
        "Percent held by number of seeds. ~: most samples are printed with a mark; -: without an interval.",
        "",
    ]
    shipped = [one for one in cells if one.method == SHIPPED]
    rows = [
        [population, what, *line(shipped, population, what)]
        for population, what in dict.fromkeys((one.population, one.what) for one in shipped)
    ]
    lines += [*_markdown(("world", "what", *sizes), rows), ""]
    lines += [
        "## Rows of several trainings",
        "",
        "Percent held for k trainings on the same n seeds, made-up normal effects:",
        "",
    ]
    rows = [
        [name, str(k), str(n), f"{bootstrap:.0f}", f"{ours:.0f}"]
        for (name, k, n), (bootstrap, ours) in two_levels().items()
    ]
    lines += _markdown(("effects", "trainings", "seeds", "two-level percentile bootstrap", "here"), rows)
    return "\n".join(lines) + "\n"


def _numbers(table: Table, cells: Sequence[Cell]) -> dict[str, str]:
    """Of the text."""
    bare = [one for one in cells if one.method == SHIPPED and not one.marked]

    def held(method: str, size: int, rule: str = "paper") -> str:
        return next(
            f"{one.holds:.0f} %"
            for one in cells
            if (one.population, one.what, one.size, one.method) == ("Paper8", f"{rule} / {BASE}", size, method)
        )

    rows = part(table, "Paper8")
    seldom = [one for one in cells if one.method == SHIPPED and SELDOM <= one.unmarked < 50]
    return {
        "rare_least": f"{min(one.holds_unmarked for one in seldom):.0f} %",
        "samples": f"{SAMPLES:,}",
        "others": f"{OTHERS}",
        "runs": f"{len(rows):,}",
        "differ": f"{100 * (rows['paper'] != 0).mean():.0f} %",
        "old_20": held("percentile", 20),
        "old_50": held("percentile", 50),
        "old_100": held("percentile", 100),
        "new_20": held(SHIPPED, 20),
        "new_50": held(SHIPPED, 50),
        "new_100": held(SHIPPED, 100),
        "bca_100": held("BCa", 100),
        "studentised_100": held("studentised", 100),
        "cells": str(len(bare)),
        "least": f"{min(one.holds_unmarked for one in bare):.1f} %",
        "differing": str(ENOUGH_DIFFERING),
        "enough": str(ENOUGH_RUNS),
        "tail": str(ENOUGH_TAIL),
        "tail_runs": str(10 * ENOUGH_TAIL),
    }


def _method(one: Cell) -> str:
    width = f", {one.width:.2f}" if one.width < 100 else ", unbounded"
    return f"{one.holds:.0f} ({one.below:.0f}, {one.above:.0f}){width}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["coverage"]).encode())
