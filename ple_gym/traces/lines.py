"""Lines of a file that a stranger may have written: those that are not understood are counted, and some are shown."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

from ple_gym.messages import show

MAX_LINE = 2000  # characters; the lines of all these tools have a tenth
MAX_SHOWN = 10  # bad lines that are kept

#: What is in a file, or the file, which is read in pieces.
Content: TypeAlias = bytes | BinaryIO


class Lines:
    """What was found in a file; of its lines how many there are, how many are bad, and number and text of the first of
    these.
    """

    def __init__(self) -> None:
        self.lines = self.bad = 0
        self.shown: tuple[tuple[int, str], ...] = ()

    @property
    def found(self) -> str:
        """How much it is, in words; empty if it is nothing."""
        raise NotImplementedError

    def told(self) -> list[str]:
        """What to tell of it, in lines."""
        more = [f"and {self.bad - len(self.shown):,} more"] if self.bad > len(self.shown) else []
        bad = [f"line {number}: {show(text)}" for number, text in self.shown]
        return [f"{self.found.format(f'{self.lines:,} lines')}; {self.bad:,} lines not understood", *bad, *more]

    def _of(self, data: Content) -> Iterator[str]:
        """Each line; one that is too long is bad."""
        text = io.TextIOWrapper(io.BytesIO(data) if isinstance(data, bytes) else data, "utf-8", "replace")
        try:
            while line := text.readline(MAX_LINE + 1):
                self.lines += 1
                if len(line) <= MAX_LINE or line[-1] == "\n":
                    yield line.removesuffix("\n")
                    continue
                self._misread(line)
                while line and line[-1] != "\n":  # no more of it than this is ever kept
                    line = text.readline(MAX_LINE)
        finally:
            text.detach()  # whose it is closes it

    def _misread(self, text: str) -> None:
        """The newest line is not understood."""
        self.bad += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown += ((self.lines, text[:MAX_LINE]),)
