"""What was measured on a real machine, as text: written, and read strictly.

    reality 2
    machine release=6.18.44 online=2 cpus=0,1 tick_ns=4000000 groups=autogroup
    costs tsc_hz=2600000000 pause=52 yield=440 yield_switch=1245 line=169 own=150 others_every=160000000 ...
    setting threads=4 groups=1 window=4096 hold=2000 think=60000 lock=ticket reaction=yield
    result warm_up=260000000 cycles=780000000 acquisitions=20000 ...

A setting and its result follow each other, once for each run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any, TypeVar, get_type_hints

from ple_gym.errors import RealityError
from ple_gym.messages import show
from ple_gym.reality.settings import LOCKS, REACTIONS, Setting

HEAD = "reality 2"
MAX_BYTES = 2**24
"""Of a file with measured runs; a whole check has about 100 kB."""
BINS = 64

_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_WORD = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured.

    Attributes:
        release: of the kernel, as `uname -r` has it.
        online: CPUs of the machine, which set the kernel's slices.
        cpus: numbers of those that the threads ran on.
        tick_ns: time between two ticks.
        groups: `autogroup` if each session had a control group of its own, else `none`.
    """

    release: str
    online: int
    cpus: tuple[int, ...]
    tick_ns: int
    groups: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What the machine's own work takes, in cycles of the TSC; each but the last four the median of many.

    Attributes:
        tsc_hz: cycles per second.
        pause: from PAUSE to PAUSE in a waiter's loop.
        yield_: a `sched_yield` after which the same thread goes on.
        yield_switch: from one thread's `sched_yield` to the return of another's.
        line: from the write of one CPU to a waiter's on another; 0 if there was one CPU only.
        own: what thinking, taking a lock that is free, and holding it take longer than they should.
        others_every: of a CPU's time, after which another task takes it for a moment; the mean, 0 if none ever did.
        others_take: how long that task has it; the mean.
        lost_every: of a CPU's time, after which something that is no task takes it for a moment (an interrupt, or a
            hypervisor beneath); the mean, 0 if nothing ever did.
        lost_take: how long that has it; the mean.
    """

    tsc_hz: int
    pause: int
    yield_: int
    yield_switch: int
    line: int
    own: int = 0
    others_every: int = 0
    others_take: int = 0
    lost_every: int = 0
    lost_take: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        warm_up: cycles before, of which nothing was counted.
        cycles: how long it was.
        acquisitions, contended: of locks, and those for which a thread had to wait.
        windows: of waiting that ended.
        voluntary, involuntary: context switches of the threads, as the kernel counts them: a yield is involuntary.
        cpu_us: what the threads ran, in microseconds; less than CPUs x time if other work had CPUs too.
        steal_ms: what a hypervisor took from these CPUs, in milliseconds.
        waits: contended waits by their length: element i counts those of 2^i to 2^(i+1) - 1 cycles; 64 numbers.
        groups: names of the control groups that the kernel made for the sessions.
    """

    warm_up: int
    cycles: int
    acquisitions: int
    contended: int
    windows: int
    voluntary: int
    involuntary: int
    cpu_us: int
    steal_ms: int
    waits: tuple[int, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A whole check: the machine, its costs, and each run with its setting, in the order in which they were made."""

    machine: Machine
    costs: Costs
    runs: tuple[tuple[Setting, Result], ...]

    def by_setting(self) -> dict[Setting, list[Result]]:
        """The runs of each setting, in order."""
        found: dict[Setting, list[Result]] = {}
        for setting, result in self.runs:
            found.setdefault(setting, []).append(result)
        return found


def joined(several: Sequence[Measured]) -> Measured:
    """All runs of several checks of one machine as one: of each of the costs the median. At least one check.

    Raises:
        RealityError: they are of different machines.
    """
    machines = {one.machine for one in several}
    if len(machines) > 1:
        raise RealityError(f"of {len(machines)} different machines: {'; '.join(sorted(map(to_line, machines)))}")
    costs = {field.name: round(median(getattr(one.costs, field.name) for one in several)) for field in fields(Costs)}
    return Measured(several[0].machine, Costs(**costs), tuple(run for one in several for run in one.runs))


KINDS: Mapping[type, str] = {Machine: "machine", Costs: "costs", Setting: "setting", Result: "result"}
_RecordT = TypeVar("_RecordT")


def to_text(measured: Measured) -> str:
    """The text that `from_text` reads."""
    pairs = [record for pair in measured.runs for record in pair]
    lines = [HEAD, *map(to_line, (measured.machine, measured.costs, *pairs))]
    return "".join(f"{line}\n" for line in lines)


def to_line(record: Machine | Costs | Setting | Result) -> str:
    """A record as a line."""
    values = [f"{_spelled(field.name)}={_written(getattr(record, field.name))}" for field in fields(record)]
    return " ".join([KINDS[type(record)], *values])


def from_text(text: str) -> Measured:
    """Read what was measured.

    Raises:
        RealityError: a line is not what it must be; the message has its number.
    """
    head, *lines = text.removesuffix("\n").split("\n")
    if head != HEAD:
        raise RealityError(f"line 1: must be {HEAD!r}, not {show(head)}")
    if len(lines) < 4 or len(lines) % 2:
        raise RealityError("must have a machine, costs, and a setting and a result for each run")
    expected: list[type] = [Machine, Costs, *[Setting, Result] * (len(lines) // 2 - 1)]
    records: list[Any] = []
    for number, (kind, line) in enumerate(zip(expected, lines, strict=True), 2):
        try:
            records.append(from_line(kind, line))
        except RealityError as wrong:
            raise RealityError(f"line {number}: {wrong}") from None
    machine, costs, *pairs = records
    return Measured(machine, costs, tuple(zip(pairs[::2], pairs[1::2], strict=True)))


def from_line(kind: type[_RecordT], line: str) -> _RecordT:
    """Read one record from its line: all of its fields, in order, and nothing else.

    Raises:
        RealityError: the line is something else.
    """
    hints = get_type_hints(kind)
    word, *pairs = line.split(" ")
    names = [_spelled(name) for name in hints]
    if word != KINDS[kind] or [pair.partition("=")[0] for pair in pairs] != names:
        raise RealityError(f"must be {KINDS[kind]} {'=... '.join(names)}=..., not {show(line)}")
    values = {}
    for (name, hint), pair in zip(hints.items(), pairs, strict=True):
        text = pair.partition("=")[2]
        values[name] = _READERS[hint](_spelled(name), text)
    record = kind(**values)
    _check(record)
    return record


def _check(record: object) -> None:
    """Raise RealityError if a value is out of its range; what becomes part of a scenario is checked there."""
    match record:
        case Setting():
            _within("threads", record.threads, 1, 64)
            _within("groups", record.groups, 1, min(2, record.threads))
            for name in ("window", "hold", "think"):
                _within(name, getattr(record, name), 1, 10**9)  # as in spinners.c
            _one_of("lock", record.lock, LOCKS)
            _one_of("reaction", record.reaction, REACTIONS)
        case Machine():
            _within("online", record.online, 1, 2**16)
            _within("cpus", len(record.cpus), 1, 64)
            _within("tick_ns", record.tick_ns, 100_000, 100_000_000)
            _one_of("groups", record.groups, ("autogroup", "none"))
        case Costs():
            _within("tsc_hz", record.tsc_hz, 10**8, 10**10)
            _within("others_take", record.others_take, 0, record.others_every)
            # A machine that has less than half of its time for its tasks tells nothing of its scheduler.
            _within("lost_take", record.lost_take, 0, record.lost_every // 2)
        case Result():
            _within("cycles", record.cycles, 1, 10**18)
            _within("waits", len(record.waits), BINS, BINS)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise RealityError(f"{name} = {value}: must be {low}..{high}")


def _one_of(name: str, value: str, words: Sequence[str]) -> None:
    if value not in words:
        raise RealityError(f"{name} = {show(value)}: must be {' or '.join(words)}")


def _whole(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise RealityError(f"{name} = {show(text)}: must be a whole number of at most 18 digits")
    return int(text)


def _word(name: str, text: str) -> str:
    if not _WORD.fullmatch(text):
        raise RealityError(f"{name} = {show(text)}: must be a word of at most 200 characters")
    return text


def _wholes(name: str, text: str) -> tuple[int, ...]:
    return tuple(_whole(name, part) for part in text.split(","))


def _words(name: str, text: str) -> tuple[str, ...]:
    return tuple(_word(name, part) for part in text.split(","))


_READERS: Mapping[object, Callable[[str, str], object]] = {
    int: _whole,
    str: _word,
    tuple[int, ...]: _wholes,
    tuple[str, ...]: _words,
}


def _written(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _spelled(name: str) -> str:
    """A field's name in the text: `yield` is no name in Python."""
    return name.removesuffix("_")
