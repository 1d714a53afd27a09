"""Tables of locks that a Linux guest prints: `/proc/lock_stat`, and `perf lock report`."""

from __future__ import annotations

import re
from typing import NamedTuple

from ple_gym.traces.lines import Lines

MAX_CLASSES = 100_000

_COUNTS = r"\s+\d{1,15}\s+(\d{1,15})" + r"\s+\d{1,15}\.\d\d" * 2 + r"\s+(\d{1,15}\.\d\d)"
_AVERAGE = r"(?:\s+-?\d{1,15}\.-?\d\d)?"  # since Linux 3.16; it overflowed until 5.9, and is not needed
_STAT = re.compile(rf"\s*(\S.{{0,99}}?):{_COUNTS}{_AVERAGE}{_COUNTS}{_AVERAGE}\s*", re.ASCII)
_REPORT = re.compile(r"\s*(\S{1,99})\s+(\d{1,15})\s+(\d{1,15})(?:\s+[\d.]{1,15}(?: ?[a-z]{1,2})?){0,4}\s*", re.ASCII)
_NO_LOCK = re.compile(
    r"\s*(?:lock_stat version.*|[-.]*|class name .*|.*\[<.*|\*WARN.*|Name +acquired.*|===.*|"
    r"(?:bad|ac|cont|rel)[a-z ]*: \d.*|hist.*)\s*"
)


class LockClass(NamedTuple):
    """Locks of one name; `held`: all their holds together in ns, -1 if the table does not say it."""

    name: str
    acquired: int
    contended: int
    held: int = -1


class LockTable(Lines):
    """The classes of locks in one of these tables; whatever is in it, nothing is raised."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__()
        self.classes: list[LockClass] = []
        for text in self._of(data):
            if len(self.classes) < MAX_CLASSES and (stat := _STAT.fullmatch(text)):
                held = round(1000 * float(stat[5]))
                self.classes.append(LockClass(stat[1], int(stat[4]), int(stat[2]), held))
            elif _NO_LOCK.fullmatch(text):
                continue
            elif len(self.classes) < MAX_CLASSES and (report := _REPORT.fullmatch(text)):
                self.classes.append(LockClass(report[1], int(report[2]), int(report[3])))
            else:
                self._misread(text)

    @property
    def found(self) -> str:
        """How many."""
        return f"{len(self.classes):,} classes of locks in {{}}" if self.classes else ""
