"""Statistics on arrays small enough to check by hand, and the bootstrap against variances that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ple_gym.statistics import bootstrap_interval, cvar, estimate, quantile, resampled_means, score


def components(values: np.ndarray) -> tuple[float, float, float]:
    """Population variances of the row means, the column means, and of what is left of values [k, n]."""
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    return rows.var(), columns.var(), values.var() - rows.var() - columns.var()


# --- quantiles and tails ----------------------------------------------------------------------------------------------


def test_cvar_is_the_mean_of_the_worst_tenth_at_least_of_one() -> None:
    assert cvar(np.array([3.0, 1.0, 2.0])) == 3.0
    assert cvar(np.arange(20.0)) == 18.5
    assert cvar(np.arange(21.0)) == 19.0  # a tenth of 21, rounded up, are three
    assert cvar(np.array([1.0, 5.0, 2.0, 4.0]), percent=50) == 4.5


def test_quantile_is_one_of_the_values() -> None:
    values = np.array([40.0, 10.0, 30.0, 20.0])
    assert [quantile(values, percent) for percent in (1, 25, 26, 50, 75, 76, 100)] == [10, 10, 20, 20, 30, 40, 40]
    assert quantile(np.arange(1.0, 201.0), 99) == 198


def test_quantiles_and_tails_of_several_trainings_are_of_all_their_runs() -> None:
    values = np.arange(40.0).reshape(4, 10)
    assert quantile(values, 95) == quantile(values.ravel(), 95) == 37
    assert cvar(values) == cvar(values.ravel()) == 37.5


# --- one level --------------------------------------------------------------------------------------------------------


def test_bootstrap_interval_by_hand() -> None:
    assert bootstrap_interval(np.full(5, 2.5)) == (2.5, 2.5)
    # Means of two draws from {0, 1} are 0, 0.5, 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert bootstrap_interval(np.array([0.0, 1.0]), confidence=0.4) == (0.5, 0.5)


def test_bootstrap_interval_is_repeatable_and_close_to_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(10, 2, size=400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_an_interval_needs_two_values() -> None:
    one = estimate(np.array([4.0]))
    assert (one.mean, one.low, one.high) == (4.0, None, None)
    two = estimate(np.array([3.0, 5.0]))
    assert (two.mean, two.low, two.high) == (4.0, 3.0, 5.0)


# --- two levels -------------------------------------------------------------------------------------------------------


def test_two_levels_by_hand() -> None:
    trainings_differ = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert bootstrap_interval(trainings_differ) == (0.0, 1.0)  # as of two values, not of six
    assert bootstrap_interval(trainings_differ, confidence=0.4) == (0.5, 0.5)
    assert bootstrap_interval(np.array([[0.0, 1.0]] * 5)) == (0.0, 1.0)  # five equal trainings say nothing of the seeds


def test_one_training_is_one_level() -> None:
    values = np.random.default_rng(2).normal(size=(1, 30))
    assert bootstrap_interval(values) == bootstrap_interval(values[0])
    assert estimate(values) == estimate(values[0])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(2, 12),
    st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * 3).filter(any),
    st.integers(0, 2**32 - 1),
)
def test_variance_of_resampled_means_is_that_of_both_factors(
    trainings: int, seeds: int, scales: tuple[float, float, float], seed: int
) -> None:
    """Var = A / k + B / n + I / (k n), with A, B, I the variances of the training, seed and interaction effects."""
    rng = np.random.default_rng(seed)
    shapes = ((trainings, 1), (1, seeds), (trainings, seeds))
    values = sum(scale * rng.normal(size=shape) for scale, shape in zip(scales, shapes, strict=True))
    values = values + np.zeros((trainings, seeds))
    of_training, of_seed, of_both = components(values)
    expected = of_training / trainings + of_seed / seeds + of_both / (trainings * seeds)
    means = resampled_means(values, 4000)
    assert means.var() == pytest.approx(expected, rel=0.2, abs=1e-12)
    assert means.mean() == pytest.approx(values.mean(), abs=5 * math.sqrt(expected / 4000) + 1e-9)


def test_intervals_of_several_trainings_cover_the_truth_and_those_of_pooled_runs_do_not() -> None:
    rng = np.random.default_rng(3)
    covered = {"two-level": 0, "pooled": 0}
    for _ in range(200):
        values = rng.normal(size=(10, 1)) + rng.normal(size=(1, 40)) + rng.normal(size=(10, 40))  # true mean: 0
        for name, sample in (("two-level", values), ("pooled", values.ravel())):
            low, high = bootstrap_interval(sample, resamples=400)
            covered[name] += low < 0 < high
    assert covered["two-level"] >= 176
    assert covered["pooled"] < 120


@pytest.mark.parametrize("seeds", [7, 1501])
def test_arrays_over_the_same_seeds_stay_paired(seeds: int) -> None:
    """Whatever the number of trainings, and so of batches."""
    one = np.random.default_rng(4).normal(size=seeds)
    for shape in ((3, 1), (5, 1, 1)):
        assert resampled_means(np.tile(one, shape)) == pytest.approx(resampled_means(one))


# --- the score --------------------------------------------------------------------------------------------------------

above = st.lists(st.floats(0.01, 3), min_size=2, max_size=20).map(np.array)


@settings(deadline=None)
@given(above)
def test_the_reference_scores_0_and_the_ideal_1(reference: np.ndarray) -> None:
    for share, expected in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (2.0, -1.0)):
        scored = score(share * reference, reference)
        assert scored is not None
        assert scored.mean == pytest.approx(expected)
        # The same share on every seed: what the seeds are makes no difference.
        assert (scored.low, scored.high) == (pytest.approx(expected), pytest.approx(expected))


def test_a_score_by_hand() -> None:
    scored = score(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([2.0, 2.0]))
    assert scored is not None
    assert (scored.mean, scored.low, scored.high) == (0.5, 0.0, 1.0)  # the mean of either training is between 0 and 2


def test_trainings_of_the_reference_are_drawn_on_their_own() -> None:
    """Two learners with the same spread over trainings are not paired by training."""
    spread = np.array([[1.0, 1.0], [3.0, 3.0]])
    scored = score(spread, spread)
    assert scored is not None
    assert (scored.mean, scored.low, scored.high) == (0.0, -2.0, pytest.approx(2 / 3))


def test_without_distance_to_the_ideal_there_is_no_score() -> None:
    assert score(np.array([1.0, 2.0]), np.zeros(2)) is None
    rarely = score(np.array([1.0, 2.0]), np.array([0.0, 1.0]))  # both draws may fall on the first seed
    assert rarely is not None
    assert (rarely.mean, rarely.low, rarely.high) == (-2.0, None, None)
    single = score(np.array([1.0]), np.array([4.0]))
    assert single is not None
    assert (single.mean, single.low, single.high) == (0.75, None, None)
