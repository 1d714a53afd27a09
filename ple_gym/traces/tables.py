"""Tables of a guest's events, as CSV: the simulator's own, and those that people who trace locks by hand have.

The first line names the columns, in any order, and says which of three tables it is:

| columns | what a line is |
|---|---|
| `tsc`, `event`, `vcpu`; `lock`, `vm`, `pcpu`, `ns`, `pc` if there are | an event, as the simulator's, or `exit` |
| `tsc`, `vcpu`; `vm`, `pc` if there are | a pause-loop exit |
| `try`, `acquire`, `release`, `vcpu`; `lock`, `vm` if there are | a hold, with the three times of it |

`dom` stands for `vm`, `rip` for `pc`, `try_tsc`, `acq_tsc` and `rls_tsc` for the times. Numbers of vCPUs, VMs and locks
may be any words; they are counted in the order in which they are met.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ple_gym.traces.events import ACQUIRE, KIND_NAMES, PLE, RELEASE, TRACE_COLUMNS, TRY, Ints
from ple_gym.traces.lines import Lines

MAX_NAMES = 4096  # of vCPUs and of locks, as many as a scenario may have
MAX_PCS = 100_000
_BLOCK = 1 << 14  # rows at a time: they take less room as numbers than as Python's objects
_ALIAS = {"dom": "vm", "rip": "pc", "try_tsc": "try", "acq_tsc": "acquire", "rls_tsc": "release"}
_COLUMNS = {"tsc", "event", "vcpu", "lock", "vm", "pcpu", "ns", "pc", "try", "acquire", "release"}
_KINDS = {name.lower(): kind for kind, name in enumerate(KIND_NAMES)} | {"exit": PLE}
_TABLES = ({"tsc", "event", "vcpu"}, {"try", "acquire", "release", "vcpu"}, {"tsc", "vcpu"})
_PARTS = {"try": TRY, "acquire": ACQUIRE, "release": RELEASE}


@dataclass(frozen=True)
class EventTable:
    """What was found in a file.

    rows: as in `ple_gym.traces.events`, ascending in time, int64 [n, 5]; vCPUs and locks are numbered from 0 on.
    vm_of: the VM of each vCPU, likewise; pcs: how many different addresses exits have; hz: cycles per second, 0 if
    the file does not say it.
    """

    rows: Ints
    vm_of: tuple[int, ...]
    pcs: int
    hz: int
    lines: Lines

    @property
    def empty(self) -> str:
        """What is missing, if nothing is in it."""
        return (
            "" if len(self.rows) else "no event (the first line must name tsc, event, vcpu; or try, acquire, release)"
        )

    def told(self) -> list[str]:
        """What to tell of it, in lines."""
        return self.lines.told(f"{len(self.rows):,} events")


class _Names(dict[object, int]):
    """Numbers of what is met, from 0 on."""

    def number(self, name: object) -> int:
        if name not in self and len(self) == MAX_NAMES:
            raise ValueError
        return self.setdefault(name, len(self))


@dataclass
class _Table:
    """Reads the lines below the head."""

    at: dict[str, int]
    vcpus: _Names = field(default_factory=_Names)
    vms: _Names = field(default_factory=_Names)
    vm_of: list[int] = field(default_factory=list)
    locks: _Names = field(default_factory=_Names)
    pcs: set[str] = field(default_factory=set)
    clock: list[tuple[int, int]] = field(default_factory=list)

    def rows(self, words: list[str]) -> Iterator[tuple[int, int, int, int, int]]:
        """The events of a line.

        Raises:
            ValueError, IndexError, KeyError: it is not understood.
        """
        told = {name: words[place].strip() for name, place in self.at.items()}
        if "event" in told:
            kind = _KINDS[told["event"].lower()]
            times = {kind: _number(told["tsc"])}
        elif "tsc" in told:
            times = {PLE: _number(told["tsc"])}
        else:
            times = {kind: _number(told[name]) for name, kind in _PARTS.items()}
            if sorted(times.values()) != list(times.values()):
                raise ValueError
        pcpu = _number(told["pcpu"]) if told.get("pcpu") else -1
        vcpu = -1
        if told["vcpu"]:
            vm = self.vms.number(told.get("vm", ""))
            vcpu = self.vcpus.number((vm, told["vcpu"]))
            if vcpu == len(self.vm_of):
                self.vm_of.append(vm)
        elif not KIND_NAMES[min(times)].startswith("NOISE"):
            raise ValueError
        lock = self.locks.number(told["lock"]) if told.get("lock") else -1
        if told.get("ns"):
            stamp = (min(times.values()), _number(told["ns"]))
            self.clock[1:] = [stamp]
        if told.get("pc") and len(self.pcs) < MAX_PCS:
            self.pcs.add(told["pc"])
        for kind, time in times.items():
            yield time, kind, pcpu, vcpu, lock

    def hz(self) -> int:
        """Cycles per second; times in ns are whole, so that a trace of 10 ms tells seven digits of it."""
        if len(self.clock) < 2:
            return 0
        (tsc, ns), (last_tsc, last_ns) = self.clock
        hz = (last_tsc - tsc) / (last_ns - ns) * 1e9 if last_ns > ns else 0.0
        return int(float(f"{hz:.6g}")) if 1e8 <= hz <= 1e10 else 0


def _number(word: str) -> int:
    if len(word) > 18 or not (word.isascii() and word.isdecimal()):
        raise ValueError
    return int(word)


def read_table(data: bytes) -> EventTable:
    """Read a table of events. Whatever is in it, nothing is raised."""
    lines, table = Lines(), None
    blocks, rows = [np.zeros((0, len(TRACE_COLUMNS)), np.int64)], list[tuple[int, int, int, int, int]]()
    for text in lines.of(data):
        if not text.strip() or text.startswith("#"):
            continue
        words = text.split(",")
        if table is None:
            names = [word.strip().lower() for word in words]
            at = {_ALIAS.get(name, name): place for place, name in enumerate(names)}
            if any(needed <= set(at) for needed in _TABLES):
                table = _Table({name: place for name, place in at.items() if name in _COLUMNS})
            else:
                lines.misread(text)
            continue
        try:
            rows += list(table.rows(words))
        except (ValueError, LookupError):
            lines.misread(text)
        if len(rows) >= _BLOCK:
            blocks.append(np.array(rows, np.int64))
            rows.clear()
    blocks.append(np.array(rows, np.int64).reshape(-1, len(TRACE_COLUMNS)))
    whole = np.concatenate(blocks)
    blocks.clear()
    if (np.diff(whole[:, 0]) < 0).any():
        whole = whole[np.argsort(whole[:, 0], kind="stable")]
    if table is None:
        return EventTable(whole, (), 0, 0, lines)
    return EventTable(whole, tuple(table.vm_of), len(table.pcs), table.hz(), lines)
