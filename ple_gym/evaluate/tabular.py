"""Results in the forms in which others read tables: pandas, CSV, Markdown, LaTeX, HTML.

CSV and pandas have plain numbers under the names of the JSON document; the other three have the cells of the table that
is printed. A CSV file says in comment lines above its head what made it, so that no copy of it loses that. Texts are
quoted, so that whoever skips comments (`pandas.read_csv(file, comment="#")`) loses nothing of a name with a # in it.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.statistics import Estimate, Ratio
from ple_gym.extras import needs
from ple_gym.provenance import comment_lines, provenance

if TYPE_CHECKING:
    from pandas import DataFrame

FlatRecord = dict[str, Any]
_PARTS = {kind.__name__: [field.name for field in fields(kind)] for kind in (Estimate, Ratio)}
_MARKDOWN, _BEHIND_A_BACKSLASH = re.compile(r"[\\`*_<|]"), r"\\\g<0>"
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "[": "{[}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


class Tabular:
    """Base of results that are a table."""

    __slots__ = ()

    def records(self) -> list[FlatRecord]:
        """A flat record per row, all with the same names."""
        raise NotImplementedError

    def digests(self) -> dict[str, str]:
        """`Scenario.digest` of each scenario that was run, by name."""
        raise NotImplementedError

    def to_dataframe(self) -> DataFrame:
        """The records as a pandas DataFrame, a row each.

        Raises:
            ModuleNotFoundError: there is no pandas.
        """
        with needs("tables"):
            import pandas
        return pandas.DataFrame(self.records())

    def to_csv(self, argv: Sequence[str] = ()) -> str:
        """The records as CSV, below comments that say what made them; argv: the command line, if one did."""
        written = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(written, list(records[0]), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return "\n".join([*comment_lines(provenance(argv, self.digests())), written.getvalue()])

    def to_markdown(self) -> str:
        """The table as Markdown, and behind it comments that say what made it."""
        grid = table_of(self)
        columns = _columns(grid)

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(_MARKDOWN.sub(_BEHIND_A_BACKSLASH, cell) for cell in cells)} |"

        rule = f"|{'|'.join('---:' if column.right else '---' for column in columns)}|"
        head = [f"**{grid.title}**", ""] if grid.title else []
        lines = [*head, line([column.head for column in columns]), rule, *map(line, _rows(columns))]
        made = (f"<!-- {line[2:].replace('--', '- -')} -->" for line in self._made())
        return "\n".join([*lines, "", *made]) + "\n"

    def to_latex(self) -> str:
        """The table as a LaTeX tabular, which needs no package, and comments that say what made it."""
        grid = table_of(self)
        columns = _columns(grid)

        def line(cells: Sequence[str]) -> str:
            return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"

        align = "".join("r" if column.right else "l" for column in columns)
        body = [line([column.head for column in columns]), r"\hline", *map(line, _rows(columns))]
        title = [f"% {grid.title}"] if grid.title else []
        made = (f"% {line[2:]}" for line in self._made())
        return "\n".join([*title, rf"\begin{{tabular}}{{{align}}}", *body, r"\end{tabular}", *made]) + "\n"

    def _made(self) -> list[str]:
        """What made it, as comments."""
        return comment_lines(provenance((), self.digests()))

    def _repr_html_(self) -> str:
        """The table as notebooks show it."""
        grid = table_of(self)
        columns = _columns(grid)

        def row(cells: Sequence[str], tag: str) -> str:
            style = ["right" if column.right else "left" for column in columns]
            inner = (
                f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
                for cell, side in zip(cells, style, strict=True)
            )
            return f"<tr>{''.join(inner)}</tr>"

        body = [row([column.head for column in columns], "th"), *(row(cells, "td") for cells in _rows(columns))]
        return f"<table><caption>{html.escape(grid.title)}</caption>{''.join(body)}</table>"


@singledispatch
def table_of(result: Tabular) -> Grid:
    """The table of a result as it is printed; `tables.py` knows those there are."""
    raise NotImplementedError(type(result).__name__)


def flat_records(rows: Sequence[Any]) -> list[FlatRecord]:
    """A flat record per row, an instance of one dataclass each.

    An estimate becomes its mean, under the name of the field, and its other numbers behind that name: `p95_s`,
    `p95_s_low`, ... Mappings lose their own name, and sequences become one text.
    """
    return [dict(_flat(row)) for row in rows]


def _flat(row: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(row):
        value = getattr(row, field.name)
        if parts := _PARTS.get(str(field.type).removesuffix(" | None")):  # also where there is none: names are the same
            for part in parts:
                name = field.name if part == "mean" else f"{field.name}_{part}"
                yield name, None if value is None else getattr(value, part)
        elif isinstance(value, Mapping):
            yield from value.items()
        else:
            yield field.name, " ".join(value) if isinstance(value, tuple) else value


def _columns(grid: Grid) -> list[Column]:
    return [grid.key, *(column for group in grid.groups for column in group)]


def _rows(columns: Sequence[Column]) -> list[list[str]]:
    return [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
