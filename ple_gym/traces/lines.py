"""Lines of a file that a stranger may have written: those that are not understood are counted, and some are shown."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from ple_gym.messages import show

MAX_LINE = 2000  # characters; the lines of all these tools have a tenth
MAX_SHOWN = 10  # bad lines that are kept


def told(found: str, bad: int, shown: Sequence[tuple[int, str]]) -> list[str]:
    """What was found in a file, and which lines were not understood, in lines."""
    more = [f"and {bad - len(shown):,} more"] if bad > len(shown) else []
    return [
        f"{found}; {bad:,} lines not understood", *(f"line {number}: {show(text)}" for number, text in shown), *more,
    ]  # fmt: skip


class Lines:
    """Counts lines while they are read.

    count: how many; bad: how many could not be understood; shown: number, from 1 on, and text of the first of them.
    """

    def __init__(self) -> None:
        self.count = self.bad = 0
        self.shown: list[tuple[int, str]] = []

    def of(self, data: bytes) -> Iterator[str]:
        """Each line; one that is too long is bad."""
        for line in io.TextIOWrapper(io.BytesIO(data), "utf-8", "replace"):
            self.count += 1
            text = line.removesuffix("\n")
            if len(text) > MAX_LINE:
                self.misread(text)
            else:
                yield text

    def misread(self, text: str) -> None:
        """The newest line is not understood."""
        self.bad += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append((self.count, text[:MAX_LINE]))

    def told(self, found: str) -> list[str]:
        """What to tell of the file, in lines; `found`: what was in it."""
        return told(f"{found} in {self.count:,} lines", self.bad, self.shown)
