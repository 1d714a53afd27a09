"""Runs written to files for other tools, of any length: one writer for each kind of file, by its suffix.

| suffix | what it is | what it holds |
|---|---|---|
| `.ftrace`, `.txt` | ftrace text, as `trace-cmd report -t` prints it | what a Linux host with KVM would record |
| `.csv`, `.parquet` | a table with the columns `CSV_COLUMNS` | every event of the simulator |
| `.pftrace`, `.perfetto-trace` | Perfetto's protobuf | states, exits, decisions, locks: `ple_gym.traces.perfetto` |
| `.json` | Chrome trace JSON | slices of pCPUs and vCPUs, of at most `CHROME_EVENTS` events |
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from ple_gym import files
from ple_gym.errors import TraceError
from ple_gym.extras import needs
from ple_gym.files import PathLike
from ple_gym.messages import shown_path
from ple_gym.scenario.model import Scenario
from ple_gym.traces import columns, ftrace
from ple_gym.traces.events import DECIDE, KIND_NAMES, NEVER, TRACE_COLUMNS, Ints, to_chrome_json, window
from ple_gym.traces.linux import HostTrace, Observer, nanoseconds
from ple_gym.traces.perfetto import Packets
from ple_gym.traces.recording import Progress, record_pieces

#: Columns of a CSV file: cycles, nanoseconds, the kind's name, and numbers of the scenario; empty if it has none.
#: Action and rule are those of a decision. A comment above them says what made the file.
CSV_COLUMNS = ("tsc", "ns", "event", "pcpu", "vm", "vcpu", "lock", "action", "rule")
CHROME_EVENTS = 1 << 22  # which are in memory at once


class Writer:
    """Turns a run into the text of one kind of file.

    It is given the run's rows int64 [n, 5] in pieces, from the run's beginning on, so that it knows who was where when
    the cycles start..stop-1 begin, which are to be written. `policy` is who decides, `origin` a line that says where
    the file is from.
    """

    def __init__(self, scenario: Scenario, policy: str, origin: str, start: int, stop: int) -> None:
        self.scenario, self.policy, self.origin, self.start, self.stop = scenario, policy, origin, start, stop
        self.hz = scenario.host.tsc_hz

    def head(self) -> str | bytes:
        """What stands at the file's beginning."""
        return ""

    def add(self, rows: Ints) -> Iterator[str | bytes]:
        """What follows for these rows, in pieces."""
        raise NotImplementedError

    def end(self) -> Iterator[str | bytes]:
        """What stands at its end."""
        yield from ()


class Ftrace(Writer):
    """Ftrace text (`ple_gym.traces.ftrace`)."""

    def __init__(self, scenario: Scenario, policy: str, origin: str, start: int, stop: int) -> None:
        super().__init__(scenario, policy, origin, start, stop)
        self._observer = Observer(scenario)

    def head(self) -> str:
        """Comments."""
        return f"{ftrace.HEAD}# {self.origin}\n#\n"

    def add(self, rows: Ints) -> Iterator[str]:
        """What a host has seen for certain by now."""
        yield from self._lines(self._observer.add(rows))

    def end(self) -> Iterator[str]:
        """What it sees last."""
        yield from self._lines(self._observer.end())

    def _lines(self, trace: HostTrace) -> Iterator[str]:
        bounds = nanoseconds(np.array([self.start, self.stop]), self.hz)
        first, last = np.searchsorted(trace.events["time"], bounds)
        yield from ftrace.lines(HostTrace(trace.events[first:last], trace.comms, trace.reasons))


class Csv(Writer):
    """The simulator's events as a table."""

    def __init__(self, scenario: Scenario, policy: str, origin: str, start: int, stop: int) -> None:
        super().__init__(scenario, policy, origin, start, stop)
        self._vm_of = _vm_of(scenario)
        self._rule = _field(policy)

    def head(self) -> str:
        """A comment, and the names of the columns."""
        return f"# {self.origin}\n{','.join(CSV_COLUMNS)}\n"

    def add(self, rows: Ints) -> Iterator[str]:
        """One line each."""
        rows = window(rows, self.start, self.stop)
        time, kind, pcpu, vcpu, lock = rows.T
        decides = kind == DECIDE
        return iter(
            columns.lines(
                len(rows), columns.whole(time), ",", columns.whole(nanoseconds(time, self.hz)), ",",
                columns.choice(KIND_NAMES, kind), ",", _or_empty(pcpu), ",", _or_empty(self._vm_of[vcpu]), ",",
                _or_empty(vcpu), ",", _or_empty(np.where(decides, -1, lock)), ",",
                _or_empty(np.where(decides, lock, -1)), ",", columns.choice(("", self._rule), decides.astype(np.int64)),
                "\n",
            )
        )  # fmt: skip


class Parquet(Writer):
    """The same table for pandas, polars and DuckDB: a row group for each piece of the run."""

    def __init__(self, scenario: Scenario, policy: str, origin: str, start: int, stop: int) -> None:
        super().__init__(scenario, policy, origin, start, stop)
        with needs("parquet"):
            import pyarrow
            from pyarrow import parquet
        self._arrow: Any = pyarrow
        self._vm_of = _vm_of(scenario)
        kinds = [pyarrow.int64(), pyarrow.int64(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())]
        kinds += [pyarrow.int32()] * 5 + [pyarrow.dictionary(pyarrow.int8(), pyarrow.string())]
        about = {"origin": origin, "tsc_hz": str(self.hz)}
        self._schema = pyarrow.schema(list(zip(CSV_COLUMNS, kinds, strict=True)), metadata=about)
        self._pieces = _Pieces()
        self._file = parquet.ParquetWriter(self._pieces, self._schema, compression="zstd")

    def add(self, rows: Ints) -> Iterator[bytes]:
        """One row each."""
        rows = window(rows, self.start, self.stop)
        if len(rows):
            time, kind, pcpu, vcpu, lock = rows.T
            decides = kind == DECIDE
            rule = self._arrow.array(np.zeros(len(rows), np.int8), mask=~decides)
            numbers = (pcpu, self._vm_of[vcpu], vcpu, np.where(decides, -1, lock), np.where(decides, lock, -1))
            self._file.write_table(
                self._arrow.Table.from_arrays(
                    [
                        self._arrow.array(time),
                        self._arrow.array(nanoseconds(time, self.hz)),
                        self._arrow.DictionaryArray.from_arrays(self._arrow.array(kind.astype(np.int8)), KIND_NAMES),
                        *(self._arrow.array(one.astype(np.int32), mask=one < 0) for one in numbers),
                        self._arrow.DictionaryArray.from_arrays(rule, [self.policy]),
                    ],
                    schema=self._schema,
                )
            )
        yield self._pieces.taken()

    def end(self) -> Iterator[bytes]:
        """The table of contents."""
        self._file.close()
        yield self._pieces.taken()


class _Pieces(io.RawIOBase):
    """A file that hands on what is written to it, and keeps nothing."""

    def __init__(self) -> None:
        self._new: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, content: Any) -> int:
        self._new.append(bytes(content))
        self._at += len(self._new[-1])
        return len(self._new[-1])

    def taken(self) -> bytes:
        """What is new."""
        content = b"".join(self._new)
        self._new.clear()
        return content


class Chrome(Writer):
    """Chrome trace JSON (`to_chrome_json`)."""

    def __init__(self, scenario: Scenario, policy: str, origin: str, start: int, stop: int) -> None:
        super().__init__(scenario, policy, origin, start, stop)
        self._rows, self._targets = np.zeros((0, len(TRACE_COLUMNS)), np.int64), scenario.vcpus + 1

    def add(self, rows: Ints) -> Iterator[str]:
        """Nothing yet: the length of a slice is known when it ends."""
        self._rows = np.concatenate([self._rows, window(rows, self.start, self.stop)])
        if len(self._rows) > CHROME_EVENTS:
            raise TraceError(f"more than {CHROME_EVENTS:,} events are too many for .json: ask for a shorter window")
        yield from ()

    def end(self) -> Iterator[str]:
        """All of it."""
        yield to_chrome_json(self._rows, self.hz, rule=self.policy, origin=self.origin, targets=self._targets)


class Perfetto(Writer):
    """Perfetto's protobuf (`ple_gym.traces.perfetto`)."""

    def __init__(self, scenario: Scenario, policy: str, origin: str, start: int, stop: int) -> None:
        super().__init__(scenario, policy, origin, start, stop)
        self._packets = Packets(scenario, policy, start, stop)

    def head(self) -> bytes:
        """The tracks."""
        return self._packets.head(self.origin)

    def add(self, rows: Ints) -> Iterator[bytes]:
        """Packets."""
        return self._packets.add(rows)

    def end(self) -> Iterator[bytes]:
        """The ends of what still goes on."""
        return self._packets.end()


#: What writes a file of each suffix.
WRITERS: dict[str, type[Writer]] = {
    ".ftrace": Ftrace, ".txt": Ftrace, ".csv": Csv, ".json": Chrome, ".pftrace": Perfetto, ".perfetto-trace": Perfetto,
    ".parquet": Parquet,
}  # fmt: skip


def writer_of(path: PathLike) -> type[Writer]:
    """What writes a file of this name.

    Raises:
        TraceError: the suffix is none of `WRITERS`.
    """
    writer = WRITERS.get(PurePath(path).suffix)
    if writer is None:
        raise TraceError(f"{shown_path(path)}: the name must end in {', '.join(WRITERS)}")
    return writer


def write_run(
    scenario: Scenario,
    policy: str,
    seed: int,
    path: PathLike,
    start: int = 0,
    stop: int = NEVER,
    origin: str = "ple_gym",
    progress: Progress = lambda now: None,
) -> int:
    """Run one seed and write its events of the cycles start..stop-1 to a file, whole or not at all; return how many
    events the simulator had in these.

    Args:
        scenario: the world.
        policy: who decides: a rule's name, or a learned policy's.
        seed: of the run.
        path: the file; its suffix says what it becomes (`WRITERS`).
        start: the first cycle to write.
        stop: the first one not to write.
        origin: where the file says that it is from, if its kind has comments.
        progress: called now and then with the simulated time, in cycles.

    Raises:
        TraceError: the suffix is unknown, or the events are too many for that kind of file.
        OSError: the file cannot be written.

    Examples:
        >>> ple_gym.traces.writers.write_run(ple_gym.SCENARIOS["HolderPreempted"], "oracle", 0, "holder.ftrace")
        14
    """
    writer = writer_of(path)(scenario, policy, origin, start, stop)
    written = 0
    with files.whole(path) as write:

        def use(piece: Ints) -> None:
            nonlocal written
            written += len(window(piece, start, stop))
            for text in writer.add(piece):
                write(_bytes(text))

        write(_bytes(writer.head()))
        record_pieces(scenario, policy, seed, use, progress, stop)
        for text in writer.end():
            write(_bytes(text))
    return written


def _vm_of(scenario: Scenario) -> Ints:
    """The VM of each vCPU; the last one is that of none."""
    sizes = [vm.vcpus for vm in scenario.vms().values()]
    return np.append(np.repeat(np.arange(len(sizes)), sizes), -1)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _field(text: str) -> str:
    """Any text as a field of one line."""
    text = " ".join(text.split())
    return '"' + text.replace('"', '""') + '"' if {",", '"'} & set(text) else text


def _or_empty(numbers: Ints) -> columns.Texts:
    text = columns.whole(numbers)
    text[numbers < 0] = 0
    return text
