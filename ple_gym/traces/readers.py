"""Traces recorded on a Linux host, read into one table: one reader for each tool whose text it is.

| name | suffixes | what prints it |
|---|---|---|
| `ftrace` | `.ftrace`, `.txt` | `trace-cmd report`, `/sys/kernel/tracing/trace`, and `ple-gym trace` |
| `perf` | `.perf`, `.script` | `perf script` of what `perf sched record`, or `perf record -e`, has recorded |

A line that cannot be understood is counted and kept to be shown; it never ends the reading. Events of other names are
counted, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from ple_gym.errors import TraceError
from ple_gym.files import PathLike, read_bytes, reading
from ple_gym.messages import show, shown_path
from ple_gym.traces.lines import Lines, told
from ple_gym.traces.linux import (
    ENTRY,
    EVENT,
    EXIT,
    IS_PREEMPTED,
    KINDS,
    SLEEPS,
    SWITCH,
    WAKEUP,
    WAKING,
    WINDOW,
    YIELDS,
    HostTrace,
    Table,
)

MAX_BYTES = 1 << 29
MAX_REASONS = 1000  # different names of exits
_BLOCK = 1 << 14  # rows at a time: they take less room in a table than as Python's objects

_WHEN = r"(?P<seconds>\d{1,9})\.(?P<rest>\d{1,9}):"
_FTRACE = re.compile(
    r"\s*(?P<comm>\S.{0,63})-(?P<pid>\d{1,10})\s+(?:\(\s*[\d-]+\)\s+)?\[(?P<cpu>\d{1,6})\]\s+(?:[a-zA-Z0-9.#]{4,8}\s+)?"
    + _WHEN
    + r"\s+(?P<event>\w+):\s*(?P<fields>.*)",
    re.ASCII,
)
_PERF = re.compile(
    r"\s*(?P<comm>\S.{0,63}?)\s+(?:\d{1,10}/)?(?P<pid>-?\d{1,10})\s+\[(?P<cpu>\d{1,6})\]\s+(?:[a-zA-Z0-9.#]{4,8}\s+)?"
    + _WHEN
    + r"\s+(?:\d+\s+)?(?:\w+:)?(?P<event>\w+):\s*(?P<fields>.*)",
    re.ASCII,
)
_NO_LINE = re.compile(r"\s*(?:#.*|version = .*|cpus=\d+|CPU \d+ is empty|[0-9a-f]+ \S.* \(.*\))?\s*")  # also stacks

_N, _COMM = r"-?\d{1,10}", r".{0,64}?"
_SWITCH = re.compile(
    rf"prev_comm=({_COMM}) prev_pid=({_N}) prev_prio={_N} prev_state=(\S+) ==> "
    rf"next_comm=({_COMM}) next_pid=({_N}) next_prio={_N}\b.*",
    re.ASCII,
)
_SHORT_SWITCH = re.compile(
    rf"({_COMM}):({_N}) \[{_N}\] (\S+) ==> ({_COMM}):({_N}) \[{_N}\].*", re.ASCII
)  # trace-cmd's own
_WAKE = re.compile(rf"comm=({_COMM}) pid=({_N}) prio={_N}(?: success=\d+)? target_cpu=(\d{{1,6}})\b.*", re.ASCII)
_SHORT_WAKE = re.compile(rf"({_COMM}):({_N}) \[{_N}\].* CPU:(\d{{1,6}})\b.*", re.ASCII)
_RIP = r"(?:,? rip (0x[0-9a-f]{1,16})\b|(?!,? rip ))"
_ENTRY = re.compile(rf"vcpu (\d{{1,9}})\b{_RIP}.*", re.ASCII)
_EXIT = re.compile(rf"(?:vcpu (\d{{1,9}}) )?reason (\S{{1,80}})(?!\S){_RIP}.*", re.ASCII)
_WINDOW = re.compile(r"vcpu (\d{1,9})[,:]? old (\d{1,10}) new (\d{1,10}) \(\w+\).*", re.ASCII)


@dataclass(frozen=True)
class Reading:
    """What was found in a file.

    trace: the events, in the file's order; lines: how many it has; others: events of other names; bad: lines that
    could not be understood; shown: number, from 1 on, and text of the first `MAX_SHOWN` of them.
    """

    trace: HostTrace
    lines: int
    others: int
    bad: int
    shown: tuple[tuple[int, str], ...]

    def told(self) -> list[str]:
        """What to tell of it, in lines."""
        count = f"{len(self.trace.events):,} events in {self.lines:,} lines; {self.others:,} events of other kinds"
        return told(count, self.bad, self.shown)

    @property
    def empty(self) -> str:
        """What is missing, if nothing is in it."""
        return "" if len(self.trace.events) else f"none of {', '.join(KINDS)}"


class _Names:
    """Names of tasks and exits, as they are met."""

    def __init__(self) -> None:
        self.comms: dict[int, str] = {}
        self.reasons: dict[str, int] = {}

    def task(self, comm: str, pid: str) -> int:
        number = int(pid)
        if number > 0 and comm != "<...>":
            self.comms[number] = comm
        return number

    def reason(self, name: str) -> int | None:
        if name not in self.reasons and len(self.reasons) == MAX_REASONS:
            return None
        return self.reasons.setdefault(name, len(self.reasons))


#: What an event's own text says: other, state, target, vcpu, reason, rip, old and new; None: it is not understood.
_Fields: TypeAlias = tuple[int, int, int, int, int, int, int, int] | None


def _switch(text: str, names: _Names) -> _Fields:
    found = _SWITCH.fullmatch(text) or _SHORT_SWITCH.fullmatch(text)
    if not found:
        return None
    comm, pid, state, next_comm, next_pid = found.groups()
    names.task(comm, pid)
    why = SLEEPS if state[0] != "R" else IS_PREEMPTED if state.endswith("+") else YIELDS
    return names.task(next_comm, next_pid), why, -1, -1, -1, 0, -1, -1


def _wake(text: str, names: _Names) -> _Fields:
    found = _WAKE.fullmatch(text) or _SHORT_WAKE.fullmatch(text)
    return None if not found else (names.task(found[1], found[2]), 0, int(found[3]), -1, -1, 0, -1, -1)


def _entry(text: str, names: _Names) -> _Fields:
    found = _ENTRY.fullmatch(text)
    return None if not found else (-1, 0, -1, int(found[1]), -1, int(found[2] or "0", 16), -1, -1)


def _exit(text: str, names: _Names) -> _Fields:
    found = _EXIT.fullmatch(text)
    reason = names.reason(found[2]) if found else None
    if not found or reason is None:
        return None
    return -1, 0, -1, int(found[1] or -1), reason, int(found[3] or "0", 16), -1, -1


def _window(text: str, names: _Names) -> _Fields:
    found = _WINDOW.fullmatch(text)
    return None if not found else (-1, 0, -1, int(found[1]), -1, 0, int(found[2]), int(found[3]))


_FIELDS: dict[str, tuple[int, Callable[[str, _Names], _Fields]]] = {
    KINDS[SWITCH]: (SWITCH, _switch),
    KINDS[WAKING]: (WAKING, _wake),
    KINDS[WAKEUP]: (WAKEUP, _wake),
    "sched_wakeup_new": (WAKEUP, _wake),
    KINDS[ENTRY]: (ENTRY, _entry),
    KINDS[EXIT]: (EXIT, _exit),
    KINDS[WINDOW]: (WINDOW, _window),
}


class _Parser:
    """Reads line after line."""

    def __init__(self, form: re.Pattern[str]) -> None:
        self._form, self._names = form, _Names()
        self._rows: list[tuple[int, ...]] = []
        self._blocks: list[Table] = []
        self._others = 0
        self._lines = Lines()

    def read(self, data: bytes) -> Reading:
        """Read all of them."""
        for text in self._lines.of(data):
            self._line(text)
        self._pack()
        trace = HostTrace(np.concatenate(self._blocks), self._names.comms, tuple(self._names.reasons))
        return Reading(trace, self._lines.count, self._others, self._lines.bad, tuple(self._lines.shown))

    def _line(self, text: str) -> None:
        found = self._form.fullmatch(text)
        if not found:
            if not _NO_LINE.fullmatch(text):
                self._lines.misread(text)
        elif found["event"] not in _FIELDS:
            self._others += 1
        else:
            kind, fields_of = _FIELDS[found["event"]]
            fields = fields_of(found["fields"], self._names)
            if fields is None:
                self._lines.misread(text)
            else:
                time = int(found["seconds"]) * 10**9 + int(found["rest"].ljust(9, "0"))
                pid = self._names.task(found["comm"], found["pid"])
                self._rows.append((time, kind, int(found["cpu"]), pid, *fields))
                if len(self._rows) == _BLOCK:
                    self._pack()

    def _pack(self) -> None:
        self._blocks.append(np.array(self._rows, EVENT))
        self._rows.clear()


@dataclass(frozen=True)
class Reader:
    """How the text of a tool is read; `form` matches one whole line with an event."""

    suffixes: tuple[str, ...]
    form: re.Pattern[str]

    def read(self, data: bytes) -> Reading:
        """Read a file's content. Whatever is in it, nothing is raised."""
        return _Parser(self.form).read(data)


READERS = {
    "ftrace": Reader((".ftrace", ".txt"), _FTRACE),
    "perf": Reader((".perf", ".script"), _PERF),
}


def read_trace(path: PathLike, form: str = "") -> Reading:
    """Read what a tool has recorded on a Linux host.

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
    reader = reader_of(READERS, path, form)
    with reading(path, TraceError, "a trace"):
        found = reader.read(read_bytes(path, MAX_BYTES))
        if found.empty:
            example = next((f"; line {number}: {show(text)}" for number, text in found.shown), "")
            raise TraceError(f"{found.empty} in {found.lines:,} lines{example}")
        return found


class HasSuffixes(Protocol):
    """Something that reads files whose names end so."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How they end."""


_ReaderT = TypeVar("_ReaderT", bound=HasSuffixes)


def reader_of(readers: Mapping[str, _ReaderT], path: PathLike, form: str) -> _ReaderT:
    """The reader of this name, or if it is empty, the one that the file's suffix belongs to.

    Raises:
        TraceError: there is none.
    """
    suffix = PurePath(path).suffix or PurePath(path).name
    suited = [one for name, one in readers.items() if form == name or (not form and suffix in one.suffixes)]
    if suited:
        return suited[0]
    if form:
        raise TraceError(f"form = {show(form)}: must be {' or '.join(readers)}")
    suffixes = ", ".join(suffix for reader in readers.values() for suffix in reader.suffixes)
    raise TraceError(f"{shown_path(path)}: name its form, {' or '.join(readers)}, or let it end in {suffixes}")
