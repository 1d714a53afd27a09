"""How far two samples of runs are apart as distributions, and how far they would be by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
SHUFFLES = 1000


def distance(one: Sequence[float], other: Sequence[float], room: float = 1.0) -> float:
    """The largest difference between the shares of two samples that lie at or below a value, 0..1.

    This is the statistic of Kolmogorov and Smirnov: 0 if the samples are the same, 1 if one lies beyond the other.

    Args:
        one, other: the samples, positive numbers; neither may be empty.
        room: up to this factor values count as the same: the other sample's share is that at or below `room` times
            the value. So two samples are 0 apart if each value of one has its own in the other that is so near.
    """
    return max(0.0, _below(np.sort(one), np.sort(other), room), _below(np.sort(other), np.sort(one), room))


def chance(one: Sequence[float], other: Sequence[float]) -> float:
    """What `distance` stays within with probability `CONFIDENCE` if nothing but chance tells the samples apart.

    Found by shuffling: the values of both are dealt anew `SHUFFLES` times, in each call in the same ways.
    """
    generator, values = np.random.default_rng(0), np.array([*one, *other], np.float64)
    dealt = (np.split(generator.permutation(values), [len(one)]) for _ in range(SHUFFLES))
    return sorted(distance(left.tolist(), right.tolist()) for left, right in dealt)[round(CONFIDENCE * SHUFFLES) - 1]


def _below(ordered: npt.NDArray[np.float64], others: npt.NDArray[np.float64], room: float) -> float:
    """By how much the share of one sample at or below a value exceeds the other's at most."""
    shares = np.searchsorted(ordered, ordered, side="right") / len(ordered)
    return float((shares - np.searchsorted(others, room * ordered, side="right") / len(others)).max())
