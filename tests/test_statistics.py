"""Statistics on arrays small enough to check by hand, and intervals against truths that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ple_gym.evaluate.statistics import (
    ENOUGH_DIFFERING,
    Estimate,
    cvar,
    cvar_estimate,
    estimate,
    quantile,
    quantile_estimate,
    ratio,
    score,
    t_factor,
)


def half(found: Estimate) -> float:
    """Half an interval's width; it lies about its mean."""
    assert found.low is not None and found.high is not None
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    return (found.high - found.low) / 2


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


def test_factors_are_those_of_tables() -> None:
    known = {1: 12.7062, 2: 4.30265, 5: 2.57058, 19: 2.09302, 100: 1.98397, 1000: 1.96234}
    assert {freedom: t_factor(freedom) for freedom in known} == {
        freedom: pytest.approx(factor, rel=1e-5) for freedom, factor in known.items()
    }
    assert t_factor(4, 0.99) == pytest.approx(4.60409, rel=2e-6)


def test_an_interval_by_hand() -> None:
    assert estimate(np.full(5, 2.5)) == Estimate(2.5, 2.5, 2.5, few=True)
    found = estimate(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.mean == 3
    assert half(found) == pytest.approx(2.77645 * math.sqrt(2.5 / 5), rel=1e-5)  # t of 4 degrees of freedom


def test_values_that_are_zero_add_no_degree_of_freedom() -> None:
    """A hundred pairs of runs of which three differ know as much of the size of a difference as three."""
    values = np.zeros(100)
    values[:3] = 0.1, 0.2, 0.6
    assert half(estimate(values)) == pytest.approx(t_factor(2) * values.std(ddof=1) / 10)
    values[1:3] = 0
    assert half(estimate(values)) == pytest.approx(t_factor(1) * values.std(ddof=1) / 10)


def test_an_interval_needs_two_values() -> None:
    assert estimate(np.array([4.0])) == Estimate(4.0, None, None, few=True)
    two = estimate(np.array([3.0, 5.0]))
    assert two.mean == 4
    assert half(two) == pytest.approx(12.7062, rel=1e-5)


def test_an_interval_rests_on_few_if_few_seeds_have_a_value() -> None:
    assert estimate(np.ones(99)).few
    assert not estimate(np.ones(100)).few
    assert not estimate(np.ones(20), enough=20).few
    assert not estimate(np.tile(np.arange(1.0, 101), (3, 1))).few  # 100 seeds, whatever the number of trainings
    assert estimate(np.tile(np.arange(1.0, 51), (3, 1))).few


@pytest.mark.parametrize("differ", [0, 1, ENOUGH_DIFFERING - 1, ENOUGH_DIFFERING, 60])
def test_a_ratio_says_on_how_many_seeds_its_policies_differ(differ: int) -> None:
    logs = np.zeros((2, 60))
    logs[0, :differ] = 0.1
    logs[1, : differ // 2] = -0.2  # on some of the same seeds
    found = ratio(logs)
    assert (found.differing, found.few) == (differ, differ < ENOUGH_DIFFERING)
    assert found.mean == pytest.approx(logs.mean())


# --- two levels -------------------------------------------------------------------------------------------------------


def test_two_levels_by_hand() -> None:
    trainings_differ = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    assert half(estimate(trainings_differ)) == pytest.approx(12.7062 / 2, rel=1e-5)  # as of two values, not of six
    seeds_differ = np.array([[1.0, 2.0, 4.0]] * 5)
    assert half(estimate(seeds_differ)) == half(estimate(seeds_differ[0]))  # five equal trainings say nothing of them


def test_either_factor_counts() -> None:
    """Variances add up; degrees of freedom are Satterthwaite's."""
    values = np.array([[1.0], [2.0], [6.0]]) + np.array([[1.0, 2.0, 3.0, 6.0]])
    trainings, seeds = 7 / 3, 14 / 3 / 4
    freedom = (trainings + seeds) ** 2 / (trainings**2 / 2 + seeds**2 / 3)
    assert half(estimate(values)) == pytest.approx(t_factor(round(freedom, 1)) * math.sqrt(trainings + seeds))


def test_one_training_is_one_level() -> None:
    values = np.random.default_rng(2).normal(size=(1, 30))
    assert estimate(values) == estimate(values[0])
    assert ratio(values) == ratio(values[0])
    assert quantile_estimate(values, 50) == quantile_estimate(values[0], 50)
    assert cvar_estimate(values) == cvar_estimate(values[0])
    assert score(values + 5, values[0] + 6) == score(values[0] + 5, values[0] + 6)


@pytest.mark.parametrize("trainings", [3, 10])
def test_intervals_of_several_trainings_cover_the_truth_and_those_of_pooled_runs_do_not(trainings: int) -> None:
    rng = np.random.default_rng(3)
    covered = {"both axes": 0, "pooled": 0}
    for _ in range(400):
        seeds = rng.normal(size=(1, 40))
        values = rng.normal(size=(trainings, 1)) + seeds + rng.normal(size=(trainings, 40))  # true mean: 0
        for name, sample in (("both axes", values), ("pooled", values.ravel())):
            found = estimate(sample)
            assert found.low is not None and found.high is not None
            covered[name] += found.low < 0 < found.high
    assert covered["both axes"] >= 0.92 * 400
    assert covered["pooled"] < 0.6 * 400


# --- intervals of quantiles and tails ---------------------------------------------------------------------------------


def test_a_quantile_has_an_interval_if_its_rank_has_one() -> None:
    assert quantile_estimate(np.arange(76.0), 95).high is None
    assert quantile_estimate(np.arange(77.0), 95).high == 76
    assert quantile_estimate(np.arange(383.0), 99).high is None
    assert quantile_estimate(np.arange(384.0), 99).high == 383
    found = quantile_estimate(np.arange(1.0, 1001.0), 95)
    rank = t_factor(999) * math.sqrt(0.95 * 0.05 / 999)
    assert found == Estimate(950, math.floor(1000 * (0.95 - rank)), math.ceil(1000 * (0.95 + rank)))


def test_the_tail_has_the_interval_of_what_exceeds_the_rest() -> None:
    values = np.arange(1.0, 41.0)  # the worst tenth: 37 to 40
    found = cvar_estimate(values)
    excess = np.maximum(values - 36, 0) * 10
    assert found.mean == 38.5 == 36 + excess.mean()
    assert half(found) == pytest.approx(t_factor(3) * excess.std(ddof=1) / math.sqrt(40))
    assert found.few
    assert not cvar_estimate(np.arange(400.0)).few


@pytest.mark.parametrize("of", [lambda x: quantile_estimate(x, 95), lambda x: quantile_estimate(x, 99), cvar_estimate])
def test_trainings_that_differ_widen_quantiles_and_tails(of) -> None:
    values = np.random.default_rng(5).normal(size=(5, 600))
    alike, apart = of(values), of(values + np.array([[0.0], [0.3], [0.6], [0.9], [1.2]]))
    assert alike.low < alike.mean < alike.high
    assert apart.high is None or apart.high - apart.low > 1.5 * (alike.high - alike.low)


@pytest.mark.parametrize("name", ["p95", "p99", "tail", "mean"])
def test_intervals_of_heavy_tails_cover_the_truth(name: str) -> None:
    """Lognormal values; what is printed without a mark holds in 92 % of the samples at least."""
    rng, size = np.random.default_rng(6), 400
    z = {"p95": 1.6448536, "p99": 2.3263479, "tail": 1.2815516, "mean": 0.0}[name]
    # E[exp(z / 2)] is exp(1 / 8); of the part above the 90 % quantile q, exp(1 / 8) * P(z > q - 1 / 2) / 0.1.
    above = 0.5 * math.erfc((z - 0.5) / math.sqrt(2))
    truth = {"tail": math.exp(0.125) * above / 0.1, "mean": math.exp(0.125)}.get(name, math.exp(z / 2))
    held = 0
    for _ in range(400):
        values = np.exp(rng.normal(size=size) / 2)
        found = {
            "p95": lambda x: quantile_estimate(x, 95),
            "p99": lambda x: quantile_estimate(x, 99),
            "tail": cvar_estimate,
            "mean": estimate,
        }[name](values)
        assert not found.few
        held += found.low <= truth <= found.high
    assert held >= 0.92 * 400


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
    assert scored.mean == 0.5
    # Errors are [[-1, 0], [1, 0]] / 2: the means of the trainings are -1/4 and 1/4, of the seeds 0 and 0.
    assert half(scored) == pytest.approx(12.7062 / 4, rel=1e-5)


def test_trainings_of_the_reference_are_a_sample_of_their_own() -> None:
    """Two learners with the same spread over trainings are not paired by training."""
    spread = np.array([[1.0, 1.0], [3.0, 3.0]])
    scored = score(spread, spread)
    assert scored is not None
    assert scored.mean == 0
    assert half(scored) == pytest.approx(t_factor(2) * math.sqrt(2) / 2)  # either is 1 +- 1/2 of the scale


def test_without_distance_to_the_ideal_there_is_no_score() -> None:
    assert score(np.array([1.0, 2.0]), np.zeros(2)) is None
    single = score(np.array([1.0]), np.array([4.0]))
    assert single == Estimate(0.75, None, None, few=True)
