"""Statistics of runs, as functions of arrays: means with 95 % intervals, quantiles, tails, the score.

Values are [n], one per test seed, or [k, n], one row per trained policy of a learner, all on the same n test seeds.
Both axes are samples: of the seeds that could have been run, and of the trainings that could have been made.

An interval is Student's t. Its squared standard error is the sum over the axes of the variance of the axis's means
divided by their number, so both factors count. Its degrees of freedom are Satterthwaite's; those of an axis are the
number of its entries *that are not zero*, less one. Most pairs of runs are equal, to the cycle: if five of a hundred
seeds differ, the hundred say as much about the size of a difference as these five. This was chosen because of what it
holds, on populations of runs as they are: docs/intervals.md has it beside five other methods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
# With fewer, intervals held the truth in less than 92 % of the cases of the coverage study.
ENOUGH_DIFFERING = 20  # seeds on which two policies differ
ENOUGH_RUNS = 100  # seeds of a mean: one run in ten may be a slow one, and one in a hundred a very slow one
ENOUGH_TAIL = 40  # seeds in the worst tenth


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval.

    Attributes:
        mean: the value.
        low, high: the ends of the interval; None if the runs do not bound it.
        few: whether it rests on so few runs that the truth is outside more often than in 8 % of the cases.
    """

    mean: float
    low: float | None
    high: float | None
    few: bool = False


@dataclass(frozen=True, slots=True)
class Ratio(Estimate):
    """A mean log-ratio of two policies' makespans, and on how many seeds they differ at all."""

    differing: int = 0


def estimate(values: Floats, enough: int = ENOUGH_RUNS) -> Estimate:
    """Mean and interval of values [n], [k, n], ...; no interval with fewer than two values.

    It rests on `few` if fewer seeds than `enough` (of the last axis) have a value that is not zero.
    """
    return _estimate(float(values.mean()), values, values != 0, enough)


def ratio(logs: Floats) -> Ratio:
    """Mean and interval of log-ratios [n], [k, n], ...: of two policies, paired by seed."""
    found = estimate(logs, ENOUGH_DIFFERING)
    return Ratio(found.mean, found.low, found.high, found.few, _count(logs != 0, logs.ndim - 1))


def score(above: Floats, reference: Floats) -> Estimate | None:
    """The share of the reference's distance to the ideal that is gone: 0 at the reference, 1 at the ideal.

    Args:
        above: log(makespan / ideal makespan) per run, [n] or [k, n].
        reference: the same of what scores 0, on the same seeds, [n] or [m, n].

    Returns:
        None if the reference is at the ideal, where the scale has no length.
    """
    scale = float(reference.mean())
    if scale <= 0:
        return None
    value = 1 - float(above.mean()) / scale
    # An axis more for the reference: its trained policies are not those of `above`.
    own, others = np.atleast_2d(above)[:, np.newaxis], np.atleast_2d(reference)[np.newaxis]
    # To first order the error of the score is the mean of this, over the seeds and both kinds of trainings.
    errors = (own - (1 - value) * others) / scale
    found = _estimate(value, errors, own != others, ENOUGH_DIFFERING)
    return replace(found, few=found.few or reference.shape[-1] < ENOUGH_RUNS)  # the scale is a mean


def quantile(values: Floats, percent: int) -> float:
    """The ceil(percent * n / 100)-th smallest of n values in all, as in docs/model.md, section 13."""
    return float(np.sort(values, axis=None)[max(1, -(-percent * values.size // 100)) - 1])


def quantile_estimate(values: Floats, percent: int) -> Estimate:
    """`quantile` of values [n] or [k, n], and its interval: the quantiles at both ends of the interval of its rank.

    (Woodruff, "Confidence intervals for medians and other position measures", 1952.) There is no interval if the rank's
    reaches beyond the smallest or the largest value: for a 95 % quantile with fewer than 77 seeds, for a 99 % one with
    fewer than 384.
    """
    value, share, seeds = quantile(values, percent), percent / 100, values.shape[-1]
    if seeds < 2:
        return Estimate(value, None, None)
    error, _ = _error(np.asarray(values <= value, np.float64), np.ones(values.shape, bool))
    of_rank = (share * (1 - share) / (seeds - 1)) ** 0.5  # the larger one where many values are equal
    half = t_factor(seeds - 1) * max(error, of_rank)
    low, high = int(np.floor((share - half) * values.size + 1e-9)), int(np.ceil((share + half) * values.size - 1e-9))
    if low < 1 or share + half >= 1:
        return Estimate(value, None, None)
    ordered = np.sort(values, axis=None)
    return Estimate(value, float(ordered[low - 1]), float(ordered[high - 1]))


def cvar(values: Floats, percent: int = 10) -> float:
    """Mean of the largest `percent` of all values, at least of one."""
    return float(np.sort(values, axis=None)[-_tail(values, percent) :].mean())


def cvar_estimate(values: Floats, percent: int = 10) -> Estimate:
    """`cvar` of values [n] or [k, n], and its interval: that of the mean of what exceeds the rest.

    (Rockafellar and Uryasev, "Optimization of conditional value-at-risk", 2000.)
    """
    tail = _tail(values, percent)
    rest = float(np.sort(values, axis=None)[max(0, values.size - tail - 1)])
    excess = np.maximum(values - rest, 0) * (values.size / tail)
    return _estimate(cvar(values, percent), excess, excess != 0, ENOUGH_TAIL)


@lru_cache(maxsize=4096)
def t_factor(freedom: float, confidence: float = CONFIDENCE) -> float:
    """How many standard errors the middle `confidence` of Student's t with so many degrees of freedom reaches."""
    # With t = sqrt(freedom) tan(x) its density is that of x, in proportion to cos(x)^(freedom - 1).
    x = np.linspace(0, np.pi / 2, 8001)
    density = np.cos(x) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(freedom**0.5 * np.tan(np.interp(confidence * share[-1], share, x)))


def _estimate(value: float, errors: Floats, counted: Bools, enough: int) -> Estimate:
    """A value and the interval that the mean of `errors` has; `counted` says which entries know something."""
    few = _count(counted, counted.ndim - 1) < enough
    if errors.size < 2:
        return Estimate(value, None, None, few)
    error, freedom = _error(errors, counted)
    half = t_factor(freedom) * error
    return Estimate(value, value - half, value + half, few)


def _error(values: Floats, counted: Bools) -> tuple[float, float]:
    """Standard error of the mean, and its degrees of freedom."""
    variances, freedoms = [], []
    for axis, length in enumerate(values.shape):
        if length > 1:
            means = values.mean(axis=tuple(other for other in range(values.ndim) if other != axis))
            variances.append(float(means.var(ddof=1)) / length)
            freedoms.append(max(1, _count(counted, axis) - 1))
    total = sum(variances)
    spread = sum(one**2 / freedom for one, freedom in zip(variances, freedoms, strict=True))
    return total**0.5, round(total**2 / spread, 1) if spread else 1.0


def _count(counted: Bools, axis: int) -> int:
    """How many entries of an axis count anywhere."""
    return int(counted.any(axis=tuple(other for other in range(counted.ndim) if other != axis)).sum())


def _tail(values: Floats, percent: int) -> int:
    return max(1, -(-percent * values.size // 100))
