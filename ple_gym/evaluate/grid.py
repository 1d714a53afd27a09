"""Tables for people at any width, as plain lines of text: no digit of a number is ever cut off.

Columns that do not fit side by side get shorter names, and prose is broken between words. If that does not help, the
columns go into several tables below each other, each with the first column. Where even that is too wide, every row
becomes a record, with a line per column.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions
from rich.text import Text

PROSE_WIDTH = 16  # below which prose is not made narrower
INDENT = "  "  # of a record's lines


@dataclass(frozen=True)
class Column:
    """A column of texts.

    Attributes:
        head: what is above it.
        cells: a text per row.
        right: aligned to the right, as numbers are.
        prose: may be broken between words.
        short: shorter texts, to be shown where the cells do not fit.
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    prose: bool = False
    short: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Characters that it needs."""
        return max(map(len, (self.head, *self.cells)))

    @property
    def least(self) -> int:
        """Characters that it cannot do without."""
        if not self.prose:
            return self.width
        words = [word for text in (self.head, *self.cells) for word in text.split()]
        return min(self.width, max([PROSE_WIDTH, *map(len, words)]))


class Grid:
    """A table that is printed as wide as there is room: `console.print(grid)`."""

    def __init__(self, key: Column, *groups: Sequence[Column], title: str = "") -> None:
        """Make a table.

        Args:
            key: the first column, which says what a row is about.
            groups: the others; where there must be several tables, no table has columns of two groups.
            title: stands above.
        """
        self.key, self.groups, self.title = key, [list(group) for group in groups if group], title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for number, line in enumerate(self.lines(options.max_width)):
            style = "bold" if self.title and number < len(_wrapped(self.title, options.max_width)) else ""
            yield Text(line, style=style, no_wrap=True, overflow="ignore")

    def lines(self, width: int) -> list[str]:
        """The table in lines of at most `width` characters, 1 or more."""
        title = _wrapped(self.title, width) if self.title else []
        short = replace(self.key, cells=self.key.short) if self.key.short else self.key
        everything = [column for group in self.groups for column in group]
        for key in (self.key, short):
            if (widths := _widths([key, *everything], width)) is not None:
                return [*title, *_side_by_side([key, *everything], widths)]
        parts = [part for group in self.groups for part in _packed(short, group, width)]
        if not parts or any(_widths(part, width) is None for part in parts):
            return [*title, *_records(self.key, everything, width)]
        tables = [_side_by_side(part, _widths(part, width) or []) for part in parts]
        return [*title, *tables[0], *(line for table in tables[1:] for line in ("", *table))]


def _widths(columns: Sequence[Column], width: int) -> list[int] | None:
    """How wide each column is if they stand side by side; None if they cannot."""
    room = width - (len(columns) - 1)
    needed, least = [column.width for column in columns], [column.least for column in columns]
    if sum(least) > room:
        return None
    spare = room - sum(least)
    for place in sorted(range(len(columns)), key=lambda place: needed[place] - least[place]):
        # Who wants little more gets it; the rest is shared evenly among those that want more than there is.
        wanting = sum(n > m for n, m in zip(needed, least, strict=True))
        more = min(needed[place] - least[place], spare // max(1, wanting))
        least[place], needed[place], spare = least[place] + more, least[place] + more, spare - more
    return least


def _packed(key: Column, group: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in as few tables as their order allows."""
    parts = [[key]]
    for column in group:
        if len(parts[-1]) > 1 and _widths([*parts[-1], column], width) is None:
            parts.append([key])
        parts[-1].append(column)
    return parts


def _side_by_side(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """Heads, a line under them, and a row per cell; a row has several lines where prose is broken."""
    rows = [[column.head for column in columns], *map(list, zip(*(column.cells for column in columns), strict=True))]
    lines = []
    for row in rows:
        cells = [_wrapped(text, width) for text, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            words = [cell[number] if number < len(cell) else "" for cell in cells]
            placed = [
                word.rjust(width) if column.right else word.ljust(width)
                for word, width, column in zip(words, widths, columns, strict=True)
            ]
            lines.append(" ".join(placed).rstrip())
        if row is rows[0]:
            lines.append("-" * (sum(widths) + len(widths) - 1))
    return lines


def _records(key: Column, columns: Sequence[Column], width: int) -> list[str]:
    """A few lines per row, which name the columns."""
    lines: list[str] = []
    for place, name in enumerate(key.cells):
        if len(name) > width and key.short:
            name = key.short[place]
        lines += ["", *_wrapped(name, width)] if lines else _wrapped(name, width)
        for column in columns:
            head, text = f"{INDENT}{column.head}:", column.cells[place]
            if len(head) + 1 + len(text) <= width:
                lines.append(f"{head} {text}".rstrip())
                continue
            indent = 2 * INDENT if max(map(len, text.split()), default=0) + 2 * len(INDENT) <= width else ""
            lines += _wrapped(head, width)
            lines += [indent + line for line in _wrapped(text, width - len(indent))]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """A text in lines, broken between words; only a word that is longer than a line is broken itself."""
    return textwrap.wrap(text, max(1, width), break_on_hyphens=False) or [""]
