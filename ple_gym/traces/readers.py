"""Traces and tables of a machine, each read into one table: one reader for each tool whose text it is.

| name | suffixes | what prints it |
|---|---|---|
| `ftrace` | `.ftrace`, `.txt` | `trace-cmd report`, `/sys/kernel/tracing/trace`, and `ple-gym trace` |
| `perf` | `.perf`, `.script` | `perf script` of what `perf sched record`, or `perf record -e`, has recorded |
| `xentrace` | `.xentrace` | `xentrace_format` with Xen's `formats` (`ple_gym.traces.xen`) |

`SOURCES` has also tables: `csv` (`ple_gym.traces.tables`), `lock_stat`, `perf-lock` and `perf-contention`
(`ple_gym.traces.lock_tables`), `kvm-stat` (`ple_gym.traces.exit_tables`). Files are read in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Generic, TypeAlias, TypeVar

from ple_gym.errors import TraceError
from ple_gym.files import PathLike, open_file, reading
from ple_gym.messages import show, shown_path
from ple_gym.traces.exit_tables import ExitTable
from ple_gym.traces.hosts import FTRACE, PERF, LinuxReading, Reading
from ple_gym.traces.lines import Content, Lines
from ple_gym.traces.linux import KINDS
from ple_gym.traces.lock_tables import LockTable
from ple_gym.traces.tables import EventTable
from ple_gym.traces.xen import XenReading

MAX_BYTES = 1 << 29

#: What can be found in a file.
Source: TypeAlias = EventTable | LockTable | ExitTable | Reading

_FoundT = TypeVar("_FoundT", bound=Lines, covariant=True)


@dataclass(frozen=True)
class Reader(Generic[_FoundT]):
    """How the text of a tool is read: `read` takes a file or its content, and raises nothing."""

    suffixes: tuple[str, ...]
    read: Callable[[Content], _FoundT]


READERS: Mapping[str, Reader[Reading]] = {
    "ftrace": Reader((".ftrace", ".txt"), partial(LinuxReading, FTRACE)),
    "perf": Reader((".perf", ".script"), partial(LinuxReading, PERF)),
    "xentrace": Reader((".xentrace",), XenReading),
}
#: All files in which something can be measured (`ple_gym.measure`).
SOURCES: Mapping[str, Reader[Source]] = {
    "csv": Reader((".csv",), EventTable),
    "lock_stat": Reader((".lock_stat", "lock_stat"), LockTable),
    "perf-lock": Reader((".perf-lock",), LockTable),
    "perf-contention": Reader((".perf-contention",), LockTable),
    "kvm-stat": Reader((".kvm-stat",), ExitTable),
    **READERS,
}


def read_trace(path: PathLike, form: str = "") -> Reading:
    """Read what a tool has recorded on a Linux or Xen host; of Xen's, times are cycles.

    Args:
        path: a file of at most `MAX_BYTES` bytes.
        form: the reader's name in `READERS`; empty: the one that the file's suffix belongs to.

    Raises:
        TraceError: there is no such reader, the file cannot be read, or no event is in it.

    Examples:
        >>> from ple_gym.traces.readers import read_trace
        >>> _ = ple_gym.traces.writers.write_run(ple_gym.SCENARIOS["HolderPreempted"], "oracle", 0, "holder.ftrace")
        >>> reading = read_trace("holder.ftrace")
        >>> len(reading.trace.events), reading.bad
        (18, 0)
    """
    return _read(READERS, path, form, f"none of {', '.join(KINDS)}")


def read_source(path: PathLike, form: str = "") -> Source:
    """As `read_trace`, for all in `SOURCES`."""
    return _read(SOURCES, path, form, "nothing that is known")


def _read(readers: Mapping[str, Reader[_FoundT]], path: PathLike, form: str, nothing: str) -> _FoundT:
    suffix = PurePath(path).suffix or PurePath(path).name
    suited = [one for name, one in readers.items() if form == name or (not form and suffix in one.suffixes)]
    if form and not suited:
        raise TraceError(f"form = {show(form)}: must be {' or '.join(readers)}")
    if not suited:
        suffixes = ", ".join(suffix for reader in readers.values() for suffix in reader.suffixes)
        raise TraceError(f"{shown_path(path)}: name its form, {' or '.join(readers)}, or let it end in {suffixes}")
    with reading(path, TraceError, "a trace"):
        with open_file(path, MAX_BYTES) as file:
            found = suited[0].read(file)
        if not found.found:
            example = next((f"; line {number}: {show(text)}" for number, text in found.shown), "")
            raise TraceError(f"{nothing} in {found.lines:,} lines{example}")
        return found
