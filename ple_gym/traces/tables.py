"""Tables of a guest's events, as CSV: the simulator's own, and those that people who trace locks by hand have.

The first line names the columns, in any order, and so says which of three tables it is:

| columns, and those in brackets if there are | a line is |
|---|---|
| `tsc`, `event`, `vcpu` (`lock`, `vm`, `pcpu`, `ns`, `action`) | an event of the simulator's, or `exit` |
| `tsc`, `vcpu` (`vm`) | a pause-loop exit |
| `try`, `acquire`, `release`, `vcpu` (`lock`, `vm`) | the three times of a hold |

Other names are `dom`, `try_tsc`, `acq_tsc`, `rls_tsc`. vCPUs, VMs and locks may have any names.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from ple_gym.traces.events import ACQUIRE, DECIDE, KIND_NAMES, NOISE_BEGIN, NOISE_END, PLE, RELEASE, TRY, Ints
from ple_gym.traces.lines import Content, Lines

MAX_NAMES = 4096  # of vCPUs and of locks, as many as a scenario may have
_BLOCK = 1 << 16  # numbers at a time: they take less room in an array than as Python's objects
_WINDOW = 1 << 18  # rows
_ALIAS = {"dom": "vm", "try_tsc": "try", "acq_tsc": "acquire", "rls_tsc": "release"}
_KINDS = {name.lower(): kind for kind, name in enumerate(KIND_NAMES)} | {"exit": PLE}
_HOLD = {"try": TRY, "acquire": ACQUIRE, "release": RELEASE}


class EventTable(Lines):
    """What was found in such a table; whatever is in it, nothing is raised.

    rows: as in `ple_gym.traces.events`, ascending in time, int64 [n, 5]; vCPUs and locks are numbered as they are met.
    vm_of: the VM of each vCPU, likewise; hz: cycles per second, 0 if nothing says it.
    """

    def __init__(self, data: Content = b"") -> None:
        super().__init__()
        self.rows: Ints = np.zeros((0, 5), np.int64)
        self.vm_of: list[int] = []
        self._at: dict[str, int] = {}  # the place of each column
        self._numbers: dict[object, int] = {}
        self._clock: list[tuple[int, int]] = []  # the first and the last time, in cycles and ns
        found, rows = array("q"), list[int]()
        for text in self._of(data):
            words = [word.strip() for word in text.split(",")]
            if words == [""] or text.startswith("#"):
                continue
            try:
                for row in list(self._line(words)) if self._at else self._head(words):
                    rows += row
            except (ValueError, LookupError):
                self._misread(text)
            if len(rows) >= _BLOCK:
                found.extend(rows)
                rows.clear()
        found.extend(rows)
        self.rows = np.frombuffer(found, np.int64).reshape(-1, 5)
        _sort(self.rows)

    @property
    def found(self) -> str:
        """How many."""
        return f"{len(self.rows):,} events in {{}}" if self.vm_of else ""

    @property
    def hz(self) -> int:
        """10 ms tell seven digits of it, as ns are whole."""
        (tsc, ns), (last_tsc, last_ns) = [*self._clock, (0, 0)][0], [(0, 0), *self._clock][-1]
        hz = (last_tsc - tsc) / max(1, last_ns - ns) * 1e9
        return int(float(f"{hz:.6g}")) if 1e8 <= hz <= 1e10 else 0

    def _head(self, words: list[str]) -> Iterator[tuple[int, ...]]:
        at = {_ALIAS.get(word.lower(), word.lower()): place for place, word in enumerate(words)}
        if "vcpu" not in at or not ("tsc" in at or set(_HOLD) <= set(at)):
            raise ValueError
        self._at = at
        yield from ()

    def _line(self, words: list[str]) -> Iterator[tuple[int, ...]]:
        told = {name: words[place] for name, place in self._at.items()}
        if "tsc" in told:
            times = {_KINDS[told.get("event", "exit").lower()]: _number(told["tsc"])}
        else:
            times = {kind: _number(told[name]) for name, kind in _HOLD.items()}
        pcpu, vcpu, lock = _number(told["pcpu"]) if told.get("pcpu") else -1, -1, -1
        if list(times.values()) != sorted(times.values()):
            raise ValueError
        if told["vcpu"]:
            vm = self._named("vm", told.get("vm", ""))
            vcpu = self._named("vcpu", (vm, told["vcpu"]))
            self.vm_of += [vm] if vcpu == len(self.vm_of) else []
        elif not {NOISE_BEGIN, NOISE_END} & set(times):
            raise ValueError
        if told.get("lock"):
            lock = self._named("lock", told["lock"])
        elif DECIDE in times and told.get("action"):
            lock = _number(told["action"])
        if told.get("ns"):
            self._clock[1:] = [(min(times.values()), _number(told["ns"]))]
        for kind, time in times.items():
            yield time, kind, pcpu, vcpu, lock

    def _named(self, what: str, name: object) -> int:
        """The number of a name, from 0 on."""
        count = self._numbers.setdefault(what, 0)
        if (what, name) not in self._numbers:
            if count == MAX_NAMES:
                raise ValueError
            self._numbers[what, name], self._numbers[what] = count, count + 1
        return self._numbers[what, name]


def _sort(rows: Ints) -> None:
    """Sort rows by time, in place. Lines of such a table are nearly in order: sorting one window after the other, which
    overlap, is mostly enough, and takes less room than an order of all rows."""
    for first in range(0, len(rows), _WINDOW // 2):
        part = rows[first : first + _WINDOW]
        part[:] = part[np.argsort(part[:, 0], kind="stable")]
    if (rows[1:, 0] < rows[:-1, 0]).any():
        rows[:] = rows[np.argsort(rows[:, 0], kind="stable")]


def _number(word: str) -> int:
    if len(word) > 18 or not (word.isascii() and word.isdecimal()):
        raise ValueError
    return int(word)
