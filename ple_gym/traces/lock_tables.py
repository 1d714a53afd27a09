"""Tables of locks that a Linux guest prints: `/proc/lock_stat`, `perf lock report` and `perf lock contention`."""

from __future__ import annotations

import re
from typing import NamedTuple

from ple_gym.traces.lines import Content, Lines

MAX_CLASSES = 100_000

_COUNTS = r"\s+\d{1,15}\s+(\d{1,15})" + r"\s+\d{1,15}\.\d\d" * 2 + r"\s+(\d{1,15}\.\d\d)"
_AVERAGE = r"(?:\s+-?\d{1,15}\.-?\d\d)?"  # since Linux 3.16; it overflowed until 5.9, and is not needed
_STAT = re.compile(rf"\s*(\S.{{0,99}}?):{_COUNTS}{_AVERAGE}{_COUNTS}{_AVERAGE}\s*", re.ASCII)
_REPORT = re.compile(r"\s*(\S{1,99})\s+(\d{1,15})\s+(\d{1,15})(?:\s+[\d.]{1,15}(?: ?[a-z]{1,2})?){0,4}\s*", re.ASCII)
# By caller, thread (-t), lock (-l) or cgroup (-g), with and without -b; the first time is that of all waits together.
_CONTENTION = re.compile(
    r"\s*(\d{1,15})\s+(\d{1,15}(?:\.\d\d)?) ([a-z]{1,2})(?:\s+[\d.]{1,18} [a-z]{1,2}){1,3}\s+(\S.{0,200})", re.ASCII
)
# With `-x SEPARATOR`; times are whole ns then. With -v a stack is last.
_CSV = re.compile(
    r"# output: contended([^ ]{1,8}) total wait\1 ((?:[a-z]{3} wait\1 ){0,3})\S.{0,50}?(stacktrace)?", re.ASCII
)
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NO_LOCK = re.compile(
    r"\s*(?:lock_stat version.*|[-.]*|class name .*|.*\[<.*|\*WARN.*|Name +acquired.*|===.*|"
    r"# debug: .*|(?:bad|ac|cont|rel|task|stack|time|data)[a-z ]*: \d.*|hist.*|contended .*wait.*|0x[0-9a-f]+\s.*)\s*"
)


class LockClass(NamedTuple):
    """Locks of one name; held, waited: all their holds, and waits, together in ns. -1: the table does not say it."""

    name: str
    acquired: int  # -1, too
    contended: int
    held: int = -1
    waited: int = -1


class LockTable(Lines):
    """The classes of locks in one of these tables; whatever is in it, nothing is raised."""

    def __init__(self, data: Content = b"") -> None:
        super().__init__()
        self.classes: list[LockClass] = []
        csv: re.Match[str] | None = None
        for text in self._of(data):
            if head := _CSV.fullmatch(text):
                csv = head
            elif len(self.classes) < MAX_CLASSES and csv and (row := _csv_row(csv, text)):
                self.classes.append(row)
            elif len(self.classes) < MAX_CLASSES and (stat := _STAT.fullmatch(text)):
                held = round(1000 * float(stat[5]))
                self.classes.append(LockClass(stat[1], int(stat[4]), int(stat[2]), held))
            elif len(self.classes) < MAX_CLASSES and (found := _CONTENTION.fullmatch(text)) and found[3] in _NS:
                waited = round(float(found[2]) * _NS[found[3]])
                self.classes.append(LockClass(" ".join(found[4].split()), -1, int(found[1]), waited=waited))
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


def _csv_row(head: re.Match[str], text: str) -> LockClass | None:
    """A line of `perf lock contention -x`; `head`: its header."""
    words = text.split(f"{head[1]} ")
    times = words[: 2 + head[2].count(" wait")]
    if not all(word.isascii() and word.isdecimal() and len(word) <= 15 for word in times) or len(words) <= len(times):
        return None
    name = " ".join(words[len(times) : len(times) + 2 if head[3] else None])
    return LockClass(" ".join(name.split()), -1, int(times[0]), waited=int(times[1]))
