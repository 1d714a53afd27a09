"""Statistics of runs, as functions of arrays: means with bootstrap intervals, quantiles, tails, the score.

Values are [n], one per test seed, or [k, n], one row per trained policy of a learner, all on the same n test seeds. The
bootstrap draws every axis anew, with replacement and on its own: for [k, n] that is the two-level bootstrap over
training seeds and test seeds. It suits crossed factors (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics,
2007): the variance of either factor is reproduced but for a share of 1/k or 1/n (with five trainings, an interval about
a tenth too narrow). Equal axes are drawn equally on every call, so that results repeat, and means of two arrays over
the same seeds stay paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval, None with fewer than two values."""

    mean: float
    low: float | None
    high: float | None


def estimate(values: Floats) -> Estimate:
    """Mean and bootstrap interval of values [n] or [k, n]."""
    mean = float(values.mean())
    return Estimate(mean, *bootstrap_interval(values)) if values.size > 1 else Estimate(mean, None, None)


def bootstrap_interval(values: Floats, confidence: float = 0.95, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values [n] or [k, n]; the same on every call."""
    return _middle(resampled_means(values, resamples), confidence)


def resampled_means(values: Floats, resamples: int = RESAMPLES) -> Floats:
    """Means [resamples] of values [n], [k, n], ... of which every axis was drawn anew, with replacement.

    What is drawn depends only on an axis's length and on its place, counted from the last.
    """
    generators = [np.random.default_rng(values.ndim - 1 - axis) for axis in range(values.ndim)]
    batch = max(1, 2**20 // values.size)  # bounds the memory; the draws are the same for any
    means = np.empty(resamples)
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        drawn = []
        for axis, (count, generator) in enumerate(zip(values.shape, generators, strict=True)):
            shape = [size] + [1] * values.ndim
            shape[1 + axis] = count
            drawn.append(generator.integers(count, size=(size, count)).reshape(shape))
        means[start : start + size] = values[tuple(drawn)].reshape(size, -1).mean(axis=1)
    return means


def score(above: Floats, reference: Floats) -> Estimate | None:
    """The share of the reference's distance to the ideal that is gone: 0 at the reference, 1 at the ideal.

    Args:
        above: log(makespan / ideal makespan) per run, [n] or [k, n].
        reference: the same of what scores 0, on the same seeds, [n] or [m, n].

    Returns:
        None if the reference is at the ideal, where the scale has no length. No interval if that happens in a resample.
    """
    scale = float(reference.mean())
    if scale <= 0:
        return None
    mean = 1 - float(above.mean()) / scale
    if above.size < 2:
        return Estimate(mean, None, None)
    # An axis more for the reference: its trained policies are not those of `above`, and are drawn on their own.
    scales = resampled_means(reference[..., np.newaxis, :])
    if (scales <= 0).any():
        return Estimate(mean, None, None)
    return Estimate(mean, *_middle(1 - resampled_means(above) / scales))


def quantile(values: Floats, percent: int) -> float:
    """The ceil(percent * n / 100)-th smallest of n values in all, as in docs/model.md, section 13."""
    return float(np.sort(values, axis=None)[max(1, -(-percent * values.size // 100)) - 1])


def cvar(values: Floats, percent: int = 10) -> float:
    """Mean of the largest `percent` of all values, at least of one."""
    return float(np.sort(values, axis=None)[-max(1, -(-percent * values.size // 100)) :].mean())


def _middle(values: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The middle `confidence` of values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
