"""Write docs/findings-on-guests.md: the text of `findings_on_guests.in.md`, and the tables of `remedies`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.answer import assumed
from experiments.answer.remedies import NONE, REMEDIES, RULES, WORLDS, Cell, applies, mean
from experiments.answer.rules import percent
from experiments.lab import Table
from experiments.lab.folders import DOCS
from ple_gym.evaluate.tables import count, number
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("findings_on_guests.in.md")
PAGE = DOCS / "findings-on-guests.md"
NEEDS = ("assumed", "remedies")


def page(worlds: Table, table: Table) -> str:
    """The page's text from the tables of `assumed` and `remedies`."""
    return TEXT.read_text(encoding="utf-8").format(
        seeds=len(table.distinct("seed")),
        tables="\n\n".join(_tables(table)),
        assumed=_assumed(worlds),
        assumed_seeds=len(worlds.distinct("seed")),
    )


def _assumed(table: Table) -> str:
    """How each rule does in the settings of each world: in how many clearly sooner, unclear and clearly later."""
    rules = (assumed.YIELD, *assumed.OTHERS)
    lines: list[Sequence[str]] = [("world", "settings", *(f"`{rule}`" for rule in rules))]
    for name in assumed.VARIED:
        here = [setting for setting in assumed.settings() if setting[0] == name]
        cells = ["its own" if rule == assumed.own(name) else _spread(table, here, rule) for rule in rules]
        lines.append((f"`{name}`", str(len(here)), *cells))
    return _table(lines)


def _spread(table: Table, settings: Sequence[tuple[str, str]], rule: str) -> str:
    changes = [assumed.change(table, setting, rule) for setting in settings]
    sooner = sum(not one.few and one.high is not None and one.high < 0 for one in changes)
    later = sum(not one.few and one.low is not None and one.low > 0 for one in changes)
    means = [one.mean for one in changes]
    return f"{sooner}, {len(changes) - sooner - later}, {later}: {min(means):+.0f} to {max(means):+,.0f} %"


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
    write_whole(PAGE, page(tables["assumed"], tables["remedies"]).encode())
