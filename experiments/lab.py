"""What all experiments share: a task, a table of integers, and a sweep that can be stopped and goes on.

An experiment runs tasks. A task is one simulated run (scenario, overrides, policy, seed) and gives one row of exact
integers, the same on every machine. `sweep` runs the tasks that are missing, keeps each finished batch in a partial
file in the scratch folder, and at the end writes the table whole, in the order of the tasks. So the file is the same
whatever the number of workers, wherever they run, and however often the sweep was interrupted.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

import ple_gym
from experiments.executors import Where, run_batches
from experiments.worlds import PROFILES, load_world
from ple_gym.files import Log, make_folder, parsing, read_bytes, read_text, reading, reason, write_whole, writing
from ple_gym.lanes import Lanes, bin_value
from ple_gym.messages import shown_path
from ple_gym.scenario import Scenario, ScenarioError
from ple_gym.sim.state import WAITS

if TYPE_CHECKING:
    from experiments.report import Check

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CHECKPOINTS = HERE.parent / "agents" / "checkpoints"  # policies that `python -m experiments train` makes
SCRATCH = HERE.parent / "runs" / "experiments"  # ignored by git
BATCH = 50  # tasks at most between two writes of the partial file
MAX_TABLE_BYTES = 2**27
UNFINISHED = -1  # a VM's finish if it had none


_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)


class TableError(ScenarioError):
    """A table cannot be read or written. The message is one line that names the file."""


class Task(NamedTuple):
    """One run. `overrides` is text: `host.ratelimit_us=500;guest.vcpus=16`, empty for none."""

    scenario: str
    overrides: str
    policy: str
    seed: int


KEYS = Task._fields
Row: TypeAlias = tuple[int, ...]
Measure: TypeAlias = Callable[[Task], Mapping[str, int]]


def tasks(
    scenario: str, policies: str | Iterable[str], seeds: Iterable[int], overrides: Mapping[str, object] | None = None
) -> list[Task]:
    """Every policy on every seed."""
    policies = [policies] if isinstance(policies, str) else policies
    text = overrides_text(overrides)
    seeds = list(seeds)
    return [Task(scenario, text, policy, seed) for policy in policies for seed in seeds]


def overrides_text(overrides: Mapping[str, object] | None) -> str:
    """How a `Task` and a table's column `overrides` write these overrides."""
    return ";".join(f"{name}={value}" for name, value in (overrides or {}).items())


@lru_cache(maxsize=64)
def world(scenario: str, overrides: str) -> Scenario:
    """The scenario of a task, its overrides applied."""
    pairs = (item.split("=", 1) for item in overrides.split(";") if item)
    return load_world(scenario).with_overrides(dict(pairs))


@lru_cache(maxsize=2)
def _lanes(scenario: str, overrides: str, policy: str) -> Lanes:
    return Lanes(world(scenario, overrides), 1, policy=policy)


def totals(task: Task) -> dict[str, int]:
    """Simulate a task: every metric of docs/model.md, section 13, flat, times in cycles.

    `finished, now, exits, ..., useful, spin, ..., wait_p50, wait_p99, wait_max, waits_1ms` (acquisitions that waited
    about a millisecond or more), `acquisition_exits_p50, ..., dispatch_exits_max, dispatch_exits_mode`, and of every VM
    `used_0, useful_0, finish_0`.
    """
    lanes = _lanes(task.scenario, task.overrides, task.policy)
    lanes.run(0, task.seed)
    run: dict[str, Any] = lanes.totals(0)
    flat = {name: int(value) for name, value in run.items() if not isinstance(value, dict | list)}
    flat |= run["cycles"]
    flat |= {f"wait_{name}": value for name, value in run["acquire_wait"].items()}
    flat["waits_1ms"] = _waits_over(lanes, world(task.scenario, task.overrides).host.tsc_hz // 1000)
    flat |= {f"acquisition_exits_{name}": value for name, value in run["ple_per_acquisition"].items()}
    flat |= {f"dispatch_exits_{name}": value for name, value in run["ple_per_dispatch"].items()}
    for number, vm in enumerate(run["vms"]):
        finish = vm["finish"] if vm["finish"] <= run["now"] else UNFINISHED
        flat |= {f"used_{number}": vm["used"], f"useful_{number}": vm["useful"], f"finish_{number}": finish}
    return flat


def _waits_over(lanes: Lanes, cycles: int) -> int:
    """Contended acquisitions that waited this long, to the histogram's 3.2 %."""
    counts = lanes.histogram[0, WAITS].tolist()
    return sum(count for index, count in enumerate(counts) if count and bin_value(index) >= cycles)


# ---------------------------------------------------------------------------------------------------------------- table


class Table:
    """Rows of integers under the keys of their tasks: `table["exits"]` is an array [rows], int64 or text."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self.columns = dict(columns)

    @classmethod
    def of(cls, names: Sequence[str], rows: Mapping[Task, Row]) -> Table:
        """A table of measured rows; `names` are those of the measured columns."""
        columns = [*zip(*((*task, *row) for task, row in rows.items()), strict=True)]
        columns = columns or [()] * (len(KEYS) + len(names))
        return cls({name: _array(values) for name, values in zip([*KEYS, *names], columns, strict=True)})

    @classmethod
    def read(cls, path: Path) -> Table:
        """The table in a CSV file.

        Raises:
            TableError: it cannot be read, or is no such table.
        """
        with reading(path, TableError, "a table of runs", "get it again, or run its experiment"):
            text = read_text(path, MAX_TABLE_BYTES)
            if not text.endswith("\n"):
                raise ValueError("its last line has no end")
            head, *lines = csv.reader(text.splitlines(), strict=True)
            if tuple(head[: len(KEYS)]) != KEYS or len(set(head)) < len(head):
                raise TableError(f"its columns must be {', '.join(KEYS)} and others, each once")
            rows: dict[Task, Row] = {}
            for number, line in enumerate(lines, 2):
                with parsing(TableError, f"line {number}"):
                    task, row = _parsed(line, len(head))
                    if rows.setdefault(task, row) is not row:
                        raise ValueError("the same run stands there twice")
            return cls.of(head[len(KEYS) :], rows)

    def write(self, path: Path) -> None:
        """Write a CSV file, whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*(column.tolist() for column in self.columns.values()), strict=True))
        with writing(path, TableError):
            make_folder(path.parent)
            write_whole(path, text.getvalue().encode())

    def __len__(self) -> int:
        return len(self["seed"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def where(self, **equal: object) -> Table:
        """The rows whose columns have these values."""
        keep = np.ones(len(self), bool)
        for name, value in equal.items():
            keep &= self[name] == value
        return self.select(keep)

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


def _parsed(cells: Sequence[str], width: int) -> tuple[Task, Row]:
    """Task and measured row of a line; ValueError if it is none of so many cells."""
    if len(cells) != width:
        raise ValueError(f"{len(cells)} cells instead of {width}")
    if not all(cell.isprintable() for cell in cells[:3]):
        raise ValueError("a text has control characters")
    if not all(_WHOLE.fullmatch(cell) for cell in cells[3:]):
        raise ValueError("a number is not whole, or has more than 18 digits")
    seed, *row = map(int, cells[3:])
    return Task(cells[0], cells[1], cells[2], seed), tuple(row)


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, object if values and isinstance(values[0], str) else np.int64)


# ----------------------------------------------------------------------------------------------------------- experiment


@dataclass(frozen=True)
class Experiment:
    """One figure or question.

    Attributes:
        name: of its module and of its files in `results/`.
        question: the module's docstring; its first line is shown in lists.
        columns: what is kept of each run, names of `measure`'s integers.
        tasks: quick? -> what is run.
        checks: table -> what it says about the reproduction matrix.
        draw: writes the picture of a table to a path; None if there is none.
        measure: what a run is measured by.
    """

    name: str
    question: str
    columns: tuple[str, ...]
    tasks: Callable[[bool], list[Task]]
    checks: Callable[[Table], list[Check]]
    draw: Callable[[Table, Path], None] | None = None
    measure: Measure = totals

    @property
    def title(self) -> str:
        """The question in a line."""
        return self.question.strip().splitlines()[0]


@dataclass(frozen=True)
class Folders:
    """Where a sweep leaves its results and, until it is complete, its partial file."""

    results: Path = RESULTS
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
    table.write(folders.results / f"{experiment.name}.csv")
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
                task, row = _parsed(next(csv.reader([text], strict=True)), self.width)
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
    """Names the code, the fitted profiles, the trained policies and the columns that rows come from."""
    sources = [Path(inspect.getfile(experiment.measure)), *sorted(PROFILES.glob("*.toml"))]
    sources += sorted(CHECKPOINTS.glob("*.npz"))
    return code_digest(experiment.columns, *(source.read_bytes() for source in sources))


def code_digest(*parts: object) -> str:
    """Names the simulator, what the lab makes of a run, the worlds, and `parts`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    for source in [*sorted(Path(ple_gym.__file__).parent.rglob("*.py")), HERE / "lab.py", HERE / "worlds.py"]:
        digest.update(source.read_bytes())
    return digest.hexdigest()
