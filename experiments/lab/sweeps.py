"""An experiment, and the sweep that runs its tasks: in batches, resumable after a kill at any moment."""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.lab.digests import digest_of
from experiments.lab.executors import Where, run_batches
from experiments.lab.folders import PROFILES, SCRATCH, TABLES
from experiments.lab.tables import MAX_TABLE_BYTES, Table, TableError, parsed
from experiments.lab.tasks import KEYS, Measure, Row, Task, totals
from ple_gym.files import Log, make_folder, read_bytes, reading, reason, write_whole, writing
from ple_gym.messages import shown_path

if TYPE_CHECKING:
    from experiments.lab.report import Check

BATCH = 50  # tasks at most between two writes of the partial file


@dataclass(frozen=True)
class Experiment:
    """One figure or question.

    Attributes:
        name: of its module and of its files.
        question: the module's docstring; its first line is shown in lists.
        columns: what is kept of each run, names of `measure`'s integers.
        tasks: quick? -> what is run.
        checks: table -> what it says about the reproduction matrix.
        draw: writes the picture of a table to a path; None if there is none.
        measure: what a run is measured by.
        inputs: files that rows depend on, besides code and fitted profiles.
    """

    name: str
    question: str
    columns: tuple[str, ...]
    tasks: Callable[[bool], list[Task]]
    checks: Callable[[Table], list[Check]]
    draw: Callable[[Table, Path], None] | None = None
    measure: Measure = totals
    inputs: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """The question in a line."""
        return self.question.strip().splitlines()[0]


@dataclass(frozen=True)
class Folders:
    """Where a sweep leaves its table as CSV and, until it is complete, its partial file."""

    tables: Path = TABLES
    scratch: Path = SCRATCH


def sweep(
    experiment: Experiment, quick: bool, where: Where, folders: Folders, progress: Callable[[int], None]
) -> Table:
    """Run what is missing of an experiment and write its table; `progress` gets the number of rows that there are.

    Interrupted (also by a kill), the same call goes on where the last one stopped.
    """
    wanted = experiment.tasks(quick)
    partial = Partial(folders.scratch / f"{experiment.name}.partial.csv", experiment)
    if partial.lost:
        print(f"{shown_path(partial.path)}: {partial.lost}", file=sys.stderr)
    done = partial.rows
    missing = [task for task in dict.fromkeys(wanted) if task not in done]
    progress(len(done))
    size = max(1, min(BATCH, len(missing) // (8 * where.jobs)))
    batches = [missing[i : i + size] for i in range(0, len(missing), size)]
    with partial:
        for number, rows in run_batches(experiment.measure, experiment.columns, batches, where):
            partial.append(dict(zip(batches[number], rows, strict=True)))
            progress(len(done))
    table = Table.of(experiment.columns, {task: done[task] for task in wanted})
    table.write_csv(folders.tables / f"{experiment.name}.csv")
    partial.path.unlink(missing_ok=True)  # an equal sweep may have been faster
    return table


class Partial:
    """The rows of a sweep that is not complete, in a file that survives a kill at any moment.

    Its first line names the code that made the rows. If the code has changed since, they are not used. Each row ends
    with a checksum of itself and of all before it, so that of a damaged file the rows before the damage are used.

    Attributes:
        rows: what is kept.
        lost: what of the file is not used, and why; empty if all is.
    """

    def __init__(self, path: Path, experiment: Experiment) -> None:
        self.path = path
        self.head = f"# {fingerprint(experiment)} format 2"
        self.width = len(KEYS) + len(experiment.columns)
        self.lost = ""
        self._chain = self.head
        self.rows: dict[Task, Row] = self._read()

    def _read(self) -> dict[Task, Row]:
        if not self.path.exists():
            return {}
        with reading(self.path, TableError, "a partial table", "remove it to begin anew"):
            data = read_bytes(self.path, MAX_TABLE_BYTES)
        head, *lines = data.decode(errors="replace").split("\n")
        rows: dict[Task, Row] = {}
        if head != self.head:
            self.lost = "of other code, another experiment or another version, or damaged in its first line; begun anew"
            return rows
        end = lines.pop() if lines else ""  # a kill may leave half a line there
        for number, line in enumerate(lines, 2):
            text, _, checksum = line.rpartition(",")
            chain = self._linked(text)
            try:
                if checksum != chain:
                    raise ValueError("its checksum is another one")
                task, row = parsed(next(csv.reader([text], strict=True)), self.width)
            except (ValueError, csv.Error, StopIteration) as error:
                self.lost = f"damaged from line {number} on ({reason(error)}); the {len(rows):,} rows before are used"
                return rows
            rows[task], self._chain = row, chain
        if end:
            self.lost = f"its last line is incomplete; the {len(rows):,} rows before are used"
        return rows

    def _linked(self, text: str) -> str:
        return hashlib.blake2b(f"{self._chain}\n{text}".encode(errors="replace"), digest_size=8).hexdigest()

    def __enter__(self) -> Partial:
        self._chain = self.head
        with writing(self.path, TableError):
            make_folder(self.path.parent)
            write_whole(self.path, f"{self.head}\n{self._lines(self.rows)}".encode())
            self._file = Log(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: Mapping[Task, Row]) -> None:
        """Keep finished rows.

        Raises:
            TableError: they cannot be written.
        """
        self.rows.update(rows)
        with writing(self.path, TableError):
            self._file.add(self._lines(rows).encode())

    def _lines(self, rows: Mapping[Task, Row]) -> str:
        lines = []
        for task, row in rows.items():
            text = io.StringIO()
            csv.writer(text, lineterminator="").writerow((*task, *row))
            self._chain = self._linked(text.getvalue())
            lines.append(f"{text.getvalue()},{self._chain}\n")
        return "".join(lines)


def fingerprint(experiment: Experiment) -> str:
    """Names what rows come from: the code, the fitted profiles, the experiment's inputs and columns."""
    inputs = [*sorted(PROFILES.glob("*.toml")), *experiment.inputs]
    return digest_of(Path(inspect.getfile(experiment.measure)), inputs, experiment.columns)
