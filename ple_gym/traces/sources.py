"""All files of other tools that something can be measured in: one reader for each kind.

| name | suffixes | what it is |
|---|---|---|
| `csv` | `.csv` | a table of events (`ple_gym.traces.tables`), as `ple-gym trace` writes it |
| `lock_stat` | `lock_stat`, `.lock_stat` | `/proc/lock_stat` |
| `perf-lock` | `.perf-lock` | `perf lock report` |
| `ftrace`, `perf` | see `ple_gym.traces.readers` | a trace of a Linux host |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from ple_gym.errors import TraceError
from ple_gym.files import PathLike, read_bytes, reading
from ple_gym.traces.lock_tables import LockTable, read_lock_stat, read_perf_lock
from ple_gym.traces.readers import MAX_BYTES, READERS, Reader, Reading, reader_of
from ple_gym.traces.tables import EventTable, read_table

#: What a file has become.
Found: TypeAlias = EventTable | LockTable | Reading


@dataclass(frozen=True)
class TableReader:
    """How a table is read; whatever is in it, `read` raises nothing."""

    suffixes: tuple[str, ...]
    read: Callable[[bytes], EventTable | LockTable]


#: What reads a file of each kind.
SOURCES: Mapping[str, TableReader | Reader] = MappingProxyType(
    {
        "csv": TableReader((".csv",), read_table),
        "lock_stat": TableReader((".lock_stat", "lock_stat"), read_lock_stat),
        "perf-lock": TableReader((".perf-lock",), read_perf_lock),
        **READERS,
    }
)


def read_source(path: PathLike, form: str = "") -> Found:
    """Read a file of a kind in `SOURCES`, of at most `MAX_BYTES` bytes.

    Args:
        path: the file.
        form: a name in `SOURCES`; empty: the one that the file's suffix belongs to.

    Raises:
        TraceError: there is no such kind, the file cannot be read, or nothing is in it.
    """
    reader = reader_of(SOURCES, path, form)
    with reading(path, TraceError, "a file to measure in"):
        found: Found = reader.read(read_bytes(path, MAX_BYTES))
        if found.empty:
            told = found.told()[1:2]
            raise TraceError("; ".join([f"{found.empty} in it", *told]))
        return found
