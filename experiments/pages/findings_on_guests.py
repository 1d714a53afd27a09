"""Write docs/findings-on-guests.md: the text of `findings_on_guests.in.md`, and the tables of `remedies`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.answer.remedies import NONE, REMEDIES, RULES, WORLDS, Cell, applies, mean
from experiments.answer.rules import percent
from experiments.lab import Table
from experiments.lab.folders import DOCS
from ple_gym.evaluate.tables import count, number
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("findings_on_guests.in.md")
PAGE = DOCS / "findings-on-guests.md"
NEEDS = ("remedies",)


def page(table: Table) -> str:
    """The page's text from the table of `remedies`."""
    seeds = len(table.distinct("seed"))
    return TEXT.read_text(encoding="utf-8").format(seeds=seeds, tables="\n\n".join(_tables(table)))


def _tables(table: Table) -> Iterator[str]:
    heads = [f"{what}, `{rule}`" for rule in RULES for what in ("makespan, %", "exits", "steal, ms")]
    for place in WORLDS:
        apart = place == "Busy4 twice"
        lines: list[Sequence[str]] = [("remedy", *heads, *["apart, ms"] * apart)]
        for remedy in REMEDIES:
            if applies(place, remedy):
                cells = [Cell(place, remedy, rule) for rule in RULES]
                found = [text for cell in cells for text in _cell(table, cell)]
                late = [number(mean(cells[0].rows(table), "apart_us", 1e-3).mean)] if apart else []
                lines.append((remedy, *found, *late))
        yield f"### {place}\n\n{_table(lines)}"


def _cell(table: Table, cell: Cell) -> tuple[str, str, str]:
    rows = cell.rows(table)
    is_base = (cell.remedy, cell.rule) == (NONE, "host")
    change = number(mean(rows, "now_us", 1e-3).mean) + " ms" if is_base else percent(cell.change(table))
    return change.removesuffix(" %"), count(mean(rows, "exits").mean), number(mean(rows, "steal_10us", 1e-2).mean)


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["remedies"]).encode())
