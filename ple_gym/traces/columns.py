"""Many lines of text at once, from columns of numbers: what an f-string does to one line, NumPy does to all of them.

A column of texts is uint8 [n, width], in which a 0 stands for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Texts: TypeAlias = npt.NDArray[np.uint8]

CHUNK = 1 << 14  # lines at a time, so that they stay in the cache


def rounded(values: npt.NDArray[np.float64]) -> Ints:
    """Thousandths, rounded as Python's `round(value, 3)` does, of values 0..10^12."""
    scaled = values * 1000
    result = np.rint(scaled).astype(np.int64)
    # The product is not exact: close to a half only Python's way of rounding tells up from down.
    unsure = np.abs(scaled - np.floor(scaled) - 0.5) < np.maximum(1e-3, scaled * 2.0**-51)
    result[unsure] = [round(1000 * round(value, 3)) for value in values[unsure].tolist()]
    return result


def whole(values: Ints) -> Texts:
    """Whole numbers in decimal."""
    left = np.abs(values)
    most = int(left.max(initial=0))
    if most < 2**32:
        left = left.astype(np.uint32)  # NumPy divides these much faster
    width = len(str(most))
    texts = np.empty((len(values), width + 1), np.uint8)
    for place in range(width, 0, -1):
        following = left // 10
        digit = (left - 10 * following).astype(np.uint8) + ord("0")
        texts[:, place] = digit if place == width else np.where(left > 0, digit, 0)
        left = following
    texts[:, 0] = np.where(values < 0, ord("-"), 0)
    return texts


def padded(values: Ints, width: int) -> Texts:
    """Whole numbers 0..10^width - 1 in decimal, with leading zeros."""
    digits = np.empty((len(values), width), np.uint8)
    left = values.astype(np.uint32) if width < 10 else values
    for place in range(width - 1, -1, -1):
        following = left // 10
        digits[:, place] = left - 10 * following
        left = following
    return digits + np.uint8(ord("0"))


def choice(names: Sequence[str], which: npt.NDArray[Any]) -> Texts:
    """In each line one of some names, in UTF-8."""
    encoded = [name.encode() for name in names]
    width = max(map(len, encoded), default=0)
    rows = np.frombuffer(b"".join(name.ljust(width, b"\0") for name in encoded), np.uint8)
    texts: Texts = rows.reshape(len(encoded), width)[which]
    return texts


def decimal(thousandths: Ints) -> Texts:
    """Thousandths as Python writes a float: one to three decimals."""
    units = thousandths // 1000
    rest = (thousandths - 1000 * units).astype(np.uint16)[:, np.newaxis]
    decimals = (rest // np.array([100, 10, 1], np.uint16) % 10 + ord("0")).astype(np.uint8)
    decimals[:, 2:][rest % 10 == 0] = 0
    decimals[:, 1:2][rest % 100 == 0] = 0
    return np.column_stack([whole(units), constant(".", len(rest)), decimals])


def constant(text: str, count: int) -> Texts:
    """The same ASCII text in every line."""
    return np.broadcast_to(np.frombuffer(text.encode("ascii"), np.uint8), (count, len(text)))


def either(condition: npt.NDArray[np.bool_], yes: Texts, no: Texts) -> Texts:
    """In each line one text or the other."""
    width = max(yes.shape[1], no.shape[1])
    yes, no = (np.pad(texts, ((0, 0), (0, width - texts.shape[1]))) for texts in (yes, no))
    return np.where(condition[:, np.newaxis], yes, no)


def lines(count: int, *parts: str | Texts) -> list[str]:
    """Text of `count` lines, in a few pieces: of each its parts one after the other, and nothing between lines."""
    pieces = []
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        row: list[Any] = [
            constant(part, size) if isinstance(part, str) else part[first : first + size] for part in parts
        ]
        text = np.hstack(row)
        pieces.append(text[text != 0].tobytes().decode())
    return pieces
