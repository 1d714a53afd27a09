"""The few statistics that several experiments use, besides those of `ple_gym.evaluate`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(values: npt.ArrayLike) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rank correlation; not a number if all x or all y are equal."""
    x, y = ranks(x), ranks(y)
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else math.nan


def mode(values: Floats, width: float) -> float:
    """Middle of the fullest of bins of this width (the first of equals)."""
    bins, counts = np.unique(np.floor(values / width), return_counts=True)
    return float((bins[counts.argmax()] + 0.5) * width)


def slope(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Least squares slope of y over x through (0, median of y where x = 0)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    above = y - np.median(y[x == 0])
    return float((x * above).sum() / (x * x).sum())
