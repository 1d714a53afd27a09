"""The table of exits that `perf kvm stat report` prints."""

from __future__ import annotations

import re
from typing import NamedTuple

from ple_gym.traces.lines import Content, Lines

MAX_ROWS = 10_000

_US = r"\s+(\d{1,12}\.\d\d)us"
_ROW = re.compile(
    rf"\s*(\S{{1,60}}(?: \S{{1,60}})?)\s+(\d{{1,15}})(?:\s+\d{{1,3}}\.\d\d%){{2}}{_US * 3}(?:\s+\(.*\))?\s*", re.ASCII
)
_NO_ROW = re.compile(r"\s*(?:[\d:.]*\s*Analyze events.*|.*Samples\s+Samples%.*|Total Samples.*|Lost events.*|#.*)?\s*")


class ExitClass(NamedTuple):
    """Exits for one reason, and how long they took until the guest was entered again, in ns."""

    reason: str
    number: int
    shortest: int
    longest: int
    mean: int


class ExitTable(Lines):
    """What is in such a table; whatever is in it, nothing is raised."""

    def __init__(self, data: Content = b"") -> None:
        super().__init__()
        self.exits: list[ExitClass] = []
        for text in self._of(data):
            if len(self.exits) < MAX_ROWS and (row := _ROW.fullmatch(text)):
                least, most, mean = (round(1000 * float(row[column])) for column in (3, 4, 5))
                self.exits.append(ExitClass(row[1], int(row[2]), least, most, mean))
            elif not _NO_ROW.fullmatch(text):
                self._misread(text)

    @property
    def found(self) -> str:
        """How many."""
        return f"{sum(one.number for one in self.exits):,} exits in {{}}" if self.exits else ""

    @property
    def pause(self) -> ExitClass | None:
        """Those for a PAUSE."""
        return next((one for one in self.exits if one.reason.lower() in ("pause_instruction", "pause")), None)
