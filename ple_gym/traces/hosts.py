"""Text of a Linux host's trace: lines of ftrace and of `perf script`.

A line that cannot be understood is counted and kept to be shown; it never ends the reading. Events of other names are
counted, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ple_gym.traces.lines import Content, Lines
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
)

MAX_REASONS = 1000  # different names of exits
_BLOCK = 1 << 14  # rows at a time: they take less room in a table than as Python's objects

_WHEN = r"(?P<seconds>\d{1,9})\.(?P<rest>\d{1,9}):"
FTRACE = re.compile(
    r"\s*(?P<comm>\S.{0,63})-(?P<pid>\d{1,10})\s+(?:\(\s*[\d-]+\)\s+)?\[(?P<cpu>\d{1,6})\]\s+(?:[a-zA-Z0-9.#]{4,8}\s+)?"
    + _WHEN
    + r"\s+(?P<event>\w+):\s*(?P<fields>.*)",
    re.ASCII,
)
PERF = re.compile(
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


class Reading(Lines):
    """What was found in a file with lines of this form; whatever is in it, nothing is raised.

    trace: the events, in the file's order; others: how many have other names; scheduler: the host's, if it is known,
    and how; cycles: whether times are cycles, not ns.
    """

    cycles = False
    scheduler: tuple[str, str] | None = None

    def __init__(self, form: re.Pattern[str], data: Content) -> None:
        super().__init__()
        self._names = _Names()
        self._rows: list[tuple[int, ...]] = []
        self._packed = bytearray()
        self.others = 0
        for text in self._of(data):
            self._line(form, text)
        self._pack()
        self.trace = HostTrace(np.frombuffer(self._packed, EVENT), self._names.comms, tuple(self._names.reasons))

    @property
    def found(self) -> str:
        """How many."""
        count = len(self.trace.events)
        return f"{count:,} events in {{}}; {self.others:,} events of other kinds" if count else ""

    def _line(self, form: re.Pattern[str], text: str) -> None:
        found = form.fullmatch(text)
        if not found:
            if not _NO_LINE.fullmatch(text):
                self._misread(text)
        elif found["event"] not in _FIELDS:
            self.others += 1
        else:
            kind, fields_of = _FIELDS[found["event"]]
            fields = fields_of(found["fields"], self._names)
            if fields is None:
                self._misread(text)
            else:
                time = int(found["seconds"]) * 10**9 + int(found["rest"].ljust(9, "0"))
                pid = self._names.task(found["comm"], found["pid"])
                self._add((time, kind, int(found["cpu"]), pid, *fields))

    def _add(self, row: tuple[int, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) == _BLOCK:
            self._pack()

    def _pack(self) -> None:
        self._packed += np.array(self._rows, EVENT).tobytes()
        self._rows.clear()


class LinuxReading(Reading):
    """As `Reading`, of Linux."""

    scheduler = "fair", "Linux made it"
