"""Arrays that are used again once nobody holds them, so that their memory need not be asked for at every step.

A fresh array of ten megabytes costs a millisecond: the system clears its pages; to copy an observation of one machine
costs a sixth of a step. Python counts who holds an object (a
view of an array holds it, a memory view and a tensor do), so that an array that only its list holds is as good as new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_BYTES = 2**16  # smaller arrays come from memory that the process has
MOST = 3  # arrays that are kept: one that is filled, one that the caller still looks at, and one to spare


def _holders(arrays: Sequence[object], place: int) -> int:
    """A number that is `ONLY_THE_LIST` if nobody but the list holds the object there."""
    return sys.getrefcount(arrays[place])


#: What `sys.getrefcount(arrays[place])` is if nobody but the list or tuple `arrays` holds the object there. (Pythons
#: differ in which references of their own they count.)
ONLY_THE_LIST = _holders([object()], 0)


class Buffers:
    """Arrays [*shape] of one type, without values, for one who holds the last one until the next is taken."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.is_worth_it = int(np.prod(shape)) * self.dtype.itemsize >= LEAST_BYTES
        self._kept: list[npt.NDArray[Any]] = []
        self._last = -1  # place of the one taken last

    def take(self) -> npt.NDArray[Any]:
        """An array that nobody holds, but for the one who takes it."""
        for place in range(len(self._kept)):
            if _holders(self._kept, place) == ONLY_THE_LIST + (place == self._last):
                self._last = place
                return self._kept[place]
        array = np.empty(self.shape, self.dtype)
        if self.is_worth_it:
            self._kept = [*self._kept[-(MOST - 1) :], array]
            self._last = len(self._kept) - 1
        return array
