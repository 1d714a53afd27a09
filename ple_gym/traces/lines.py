"""Lines of a file that a stranger may have written: those that are not understood are counted, and some are shown."""

from __future__ import annotations

import io
from collections.abc import Iterator

from ple_gym.messages import show

MAX_LINE = 2000  # characters; the lines of all these tools have a tenth
MAX_SHOWN = 10  # bad lines that are kept


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

    def _of(self, data: bytes) -> Iterator[str]:
        """Each line; one that is too long is bad."""
        for line in io.TextIOWrapper(io.BytesIO(data), "utf-8", "replace"):
            self.lines += 1
            text = line.removesuffix("\n")
            if len(text) > MAX_LINE:
                self._misread(text)
            else:
                yield text

    def _misread(self, text: str) -> None:
        """The newest line is not understood."""
        self.bad += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown += ((self.lines, text[:MAX_LINE]),)
