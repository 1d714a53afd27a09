"""Tables of locks that a Linux guest prints: `/proc/lock_stat`, and `perf lock report`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ple_gym.traces.lines import Lines

MAX_CLASSES = 100_000


@dataclass(frozen=True)
class LockClass:
    """Locks of one name. Times are nanoseconds, all together; -1: the table does not say it."""

    name: str
    acquired: int
    contended: int
    waited: int = -1
    held: int = -1


@dataclass(frozen=True)
class LockTable:
    """The classes in a file, and what to tell of it."""

    classes: tuple[LockClass, ...]
    lines: Lines

    @property
    def empty(self) -> str:
        """What is missing, if nothing is in it."""
        return "" if self.classes else "no class of locks"

    def told(self) -> list[str]:
        """What to tell of it, in lines."""
        return self.lines.told(f"{len(self.classes):,} classes of locks")


_TIME = r"\s+(\d{1,15}\.\d\d)"
_AVERAGE = r"\s+-?\d{1,15}\.-?\d\d"  # which overflowed until Linux 5.9, and is not needed
_COUNT = r"\s+(\d{1,15})"
#: Bounces, contentions, min, max, total and (since 3.16) average wait; the same of acquisitions and holds.
_CLASS = re.compile(
    rf"\s*(\S.{{0,99}}?):{_COUNT}{_COUNT}{_TIME}{_TIME}{_TIME}(?:{_AVERAGE})?"
    rf"{_COUNT}{_COUNT}{_TIME}{_TIME}{_TIME}(?:{_AVERAGE})?\s*",
    re.ASCII,
)
_AROUND = re.compile(r"\s*(?:lock_stat version.*|[-.]*|class name .*|.*\[<.*|\*WARNING\*.*|debug_locks.*)\s*")


def read_lock_stat(data: bytes) -> LockTable:
    """Read `/proc/lock_stat`. Whatever is in it, nothing is raised."""
    lines, classes = Lines(), list[LockClass]()
    for text in lines.of(data):
        found = _CLASS.fullmatch(text)
        if found and len(classes) < MAX_CLASSES:
            waited, held = (round(1000 * float(found[place])) for place in (6, 11))
            classes.append(LockClass(found[1], int(found[8]), int(found[3]), waited, held))
        elif not _AROUND.fullmatch(text):
            lines.misread(text)
    return LockTable(tuple(classes), lines)


_UNITS = {"": 1, "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_HEADS = re.compile(r"acquired|contended|(?:avg|total|max|min) wait(?: \(ns\))?")
_REPORTED = re.compile(
    r"\s*(\S.{0,99}?)((?:\s+\d{1,15}(?:\.\d{1,2})?(?: ?(?:ns|us|ms|s|m|h)(?!\S))?){1,6})\s*", re.ASCII
)
_CELL = re.compile(r"(\d+(?:\.\d+)?)(?: ?(ns|us|ms|s|m|h))?(?!\S)")
_REST = re.compile(
    r"\s*(?:#.*|=== output for debug.*|bad(?: rate)?:.*|histogram of .*|(?:acquire|acquired|contended|release):.*)?\s*"
)


def read_perf_lock(data: bytes) -> LockTable:
    """Read what `perf lock report` prints, which has no hold times. Whatever is in it, nothing is raised."""
    lines, classes, heads = Lines(), list[LockClass](), list[str]()
    for text in lines.of(data):
        if text.lstrip().startswith("Name ") and not heads:
            heads = [head.removesuffix(" (ns)") for head in _HEADS.findall(text)]
            continue
        found = _REPORTED.fullmatch(text)
        cells = _CELL.findall(found[2]) if found and heads and "Name" not in text else []
        if found and cells and len(cells) == len(heads) and len(classes) < MAX_CLASSES:
            told = {
                head: round(float(number) * _UNITS[unit]) for head, (number, unit) in zip(heads, cells, strict=True)
            }
            acquired, contended = (told.get(head, 0) for head in ("acquired", "contended"))
            classes.append(LockClass(found[1], acquired, contended, told.get("total wait", -1)))
        elif not _REST.fullmatch(text):
            lines.misread(text)
    return LockTable(tuple(classes), lines)
