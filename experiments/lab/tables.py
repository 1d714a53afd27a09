"""A table: rows of integers under the keys of their tasks, in memory, in git and as CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lab.folders import RESULTS
from experiments.lab.tasks import KEYS, Row, Task
from ple_gym.errors import PleError
from ple_gym.files import (
    compressed,
    make_folder,
    read_bytes,
    reading,
    seal,
    uncompressed,
    unseal,
    write_whole,
    writing,
)

KIND = "table of runs, format 2"  # as `files.seal` names it
MAX_TABLE_BYTES = 2**27
TEXTS = KEYS.index("seed")  # the first columns are texts, the others numbers
_NUMBER = np.dtype("<i8")

_WHOLE, _LIMIT = re.compile(r"-?[0-9]{1,18}", re.ASCII), 10**18
_CONTROLS, _NO_NUMBER = "a text has control characters", "a number is not whole, or has more than 18 digits"


class TableError(PleError, ValueError):
    """A table cannot be read or written. The message is one line that names the file."""


class Table:
    """Rows of integers under the keys of their tasks: `table["exits"]` is an array [rows], int64 or text."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self.columns = dict(columns)
        self._equal: dict[tuple[str, object], np.ndarray] = {}

    @classmethod
    def of(cls, names: Sequence[str], rows: Mapping[Task, Row]) -> Table:
        """A table of measured rows; `names` are those of the measured columns."""
        columns = [*zip(*((*task, *row) for task, row in rows.items()), strict=True)]
        columns = columns or [()] * (len(KEYS) + len(names))
        return cls({name: _array(values) for name, values in zip([*KEYS, *names], columns, strict=True)})

    @classmethod
    def read(cls, path: Path) -> Table:
        """The table in a file that `write` wrote.

        Raises:
            TableError: it cannot be read, is no such table, or was changed.
        """
        with reading(path, TableError, "a table of runs", "get it again, or run its experiment"):
            return cls.unpack(read_bytes(path, MAX_TABLE_BYTES))

    @classmethod
    def unpack(cls, data: bytes) -> Table:
        """The table that `pack` was called of.

        Raises:
            TableError: its columns or one of its rows are none.
            Exception: it is damaged, or was changed; to be called within `files.reading`.
        """
        *lines, planes = unseal(KIND, uncompressed(data, MAX_TABLE_BYTES)).split(b"\n", 1 + TEXTS)
        names, *texts = csv.reader([line.decode() for line in lines], strict=True)
        if tuple(names[: len(KEYS)]) != KEYS or len(set(names)) < len(names):
            raise TableError(f"its columns must be {', '.join(KEYS)} and others, each once")
        columns = np.frombuffer(planes, np.uint8).reshape(len(names) - TEXTS, _NUMBER.itemsize, len(texts[0]))
        numbers = np.ascontiguousarray(columns.swapaxes(1, 2)).view(_NUMBER)[..., 0]
        tasks, first = [*zip(*texts, numbers[0].tolist(), strict=True)], dict[tuple[Any, ...], int]()
        for fine, wrong in (
            ([all(map(str.isprintable, task[:TEXTS])) for task in tasks], _CONTROLS),
            (((numbers > -_LIMIT) & (numbers < _LIMIT)).all(axis=0).tolist(), _NO_NUMBER),
            ([first.setdefault(task, row) == row for row, task in enumerate(tasks)], "the same run stands there twice"),
        ):
            if not all(fine):
                raise TableError(f"row {fine.index(False) + 1}: {wrong}")
        return cls(dict(zip(names, [*map(_array, texts), *numbers], strict=True)))

    def pack(self) -> bytes:
        """The table in its small form: an `.xz` file of a line with a checksum, a line with the names of the columns, a
        line per column of texts, and the numbers. Of these each column's lowest bytes come first, then the next ones:
        so they take a seventh less than as digits."""
        columns = [*self.columns.values()]
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([self.columns, *(texts.tolist() for texts in columns[:TEXTS])])
        planes = (numbers.astype(_NUMBER).view(np.uint8).reshape(-1, _NUMBER.itemsize).T for numbers in columns[TEXTS:])
        return compressed(seal(KIND, lines.getvalue().encode() + b"".join(plane.tobytes() for plane in planes)))

    def digest(self) -> str:
        """16 hexadecimal digits that change with any number or name."""
        return hashlib.blake2b(self._text(by_column=True), digest_size=8).hexdigest()

    def write(self, path: Path) -> None:
        """Write the small form, whole."""
        self._write(path, self.pack())

    def write_csv(self, path: Path) -> None:
        """Write a CSV file with a line per row, whole."""
        self._write(path, self._text(by_column=False))

    def _write(self, path: Path, content: bytes) -> None:
        with writing(path, TableError):
            make_folder(path.parent)
            write_whole(path, content)

    def _text(self, by_column: bool) -> bytes:
        columns = [[name, *column.tolist()] for name, column in self.columns.items()]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(columns if by_column else zip(*columns, strict=True))
        return text.getvalue().encode()

    def __len__(self) -> int:
        return len(self["seed"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def where(self, **equal: object) -> Table:
        """The rows whose columns have these values."""
        keep = np.ones(len(self), bool)
        for name, value in equal.items():
            keep &= self._rows_with(name, value) if name in KEYS[:TEXTS] else self[name] == value
        return self.select(keep)

    def _rows_with(self, name: str, text: object) -> np.ndarray:
        """The mask of the rows with this text; it is kept, as pages ask for the same thousands of times."""
        if (name, text) not in self._equal:
            self._equal[name, text] = self[name] == text
        return self._equal[name, text]

    def select(self, keep: np.ndarray) -> Table:
        """The rows of a mask, or at these positions."""
        return Table({name: column[keep] for name, column in self.columns.items()})

    def distinct(self, name: str) -> list[Any]:
        """The values of a column, in the order they first appear."""
        return list(dict.fromkeys(self[name].tolist()))

    def rows(self) -> dict[Task, Row]:
        """Task -> measured row."""
        lines = zip(*(column.tolist() for column in self.columns.values()), strict=True)
        return {Task(*line[: len(KEYS)]): tuple(line[len(KEYS) :]) for line in lines}


def parsed(cells: Sequence[str], width: int) -> tuple[Task, Row]:
    """Task and measured row of a line; ValueError if it is none of so many cells."""
    if len(cells) != width:
        raise ValueError(f"{len(cells)} cells instead of {width}")
    if not all(cell.isprintable() for cell in cells[:3]):
        raise ValueError(_CONTROLS)
    if not all(_WHOLE.fullmatch(cell) for cell in cells[3:]):
        raise ValueError(_NO_NUMBER)
    seed, *row = map(int, cells[3:])
    return Task(cells[0], cells[1], cells[2], seed), tuple(row)


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, object if values and isinstance(values[0], str) else np.int64)


def kept(name: str, folder: Path = RESULTS) -> Path:
    """Where an experiment's table stands in its small form."""
    return folder / f"{name}.table.xz"


def committed(name: str) -> Table:
    """The table of an experiment that git keeps.

    Raises:
        TableError: as `Table.read`.
    """
    return Table.read(kept(name))
