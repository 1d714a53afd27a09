"""Do the 95 % intervals hold the truth in 95 % of the cases? Drawn again and again from large populations of runs.

The true difference is that of the whole population. A sample of n seeds is drawn from it with replacement, the interval
is computed as for any n seeds, and it holds the truth or misses it, on one side or the other. `differing` is the method
of `ple_gym.evaluate.statistics`; the others are what it was chosen against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

from experiments.answer.answer import IN_LINE
from experiments.answer.rules import BASE, PAIRED, paired, paired_logs
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check, within
from ple_gym.evaluate.statistics import (
    ENOUGH_DIFFERING,
    ENOUGH_RUNS,
    ENOUGH_TAIL,
    Floats,
    cvar,
    estimate,
    quantile,
    t_factor,
)

RULES = (BASE, "xen-4.8", "paper", "kvm", "spin-age-self")
#: Population -> scenario, overrides, runs of each rule.
POPULATIONS: Mapping[str, tuple[str, Mapping[str, object], int]] = {
    "Paper8": ("Paper8", {}, 4000),
    "Paper32": ("Paper32", {}, 4000),
    "Paper8 in line": ("Paper8", IN_LINE, 1000),
    "Storm": ("Storm", {}, 1000),
    "Busy8": ("Busy8", {}, 1000),
}
RARE = ("Paper8", "Paper32")  # few of whose seeds differ at all
PAIRS = (*((rule, BASE) for rule in RULES[1:]), ("spin-age-self", "kvm"))
SIZES = (20, 50, 100, 200, 400, 600)
SAMPLES = 2000  # of each size
OTHERS = 500  # of these, for the methods that are not used
RESAMPLES = 500  # of a bootstrap
PROMISE = 92.0  # percent of the samples, at least
SHIPPED = "differing"
SELDOM = 2.0  # percent of the samples, of which a share can be told

Ends: TypeAlias = tuple[Floats, Floats]  # low [samples], high [samples]
Method: TypeAlias = Callable[[Floats, Floats], Ends]  # of samples [samples, n] and resampling weights [resamples, n]


def run(quick: bool) -> list[Task]:
    """Every population."""
    return [
        task
        for scenario, changes, count in POPULATIONS.values()
        for task in tasks(scenario, PAIRED, seeds.COVERAGE[: 40 if quick else count], changes)
    ]


def measure(task: Task) -> dict[str, int]:
    """One seed under every rule."""
    return paired(task, RULES, 22)  # whole microseconds: rounded, samples at an interval's end change sides


def part(table: Table, name: str) -> Table:
    """The rows of a population."""
    scenario, changes, _ = POPULATIONS[name]
    return table.where(scenario=scenario, overrides=overrides_text(changes))


# --- methods, for many samples at a time ------------------------------------------------------------------------------


def differing(values: Floats, weights: Floats) -> Ends:
    """As `statistics.ratio`: t, its degrees of freedom the values that are not zero, less one."""
    del weights
    return around(values.mean(1), values, values != 0)


def student(values: Floats, weights: Floats) -> Ends:
    """T with n - 1 degrees of freedom."""
    del weights
    return around(values.mean(1), values, np.ones(values.shape, bool))


def percentile(values: Floats, weights: Floats) -> Ends:
    """The middle of the means of resamples: what was printed before."""
    low, high = np.quantile(values @ weights.T, [0.025, 0.975], axis=1)
    return low, high


def studentised(values: Floats, weights: Floats, floor: float = 0.0) -> Ends:
    """The middle of (mean - mean of the sample) / standard error over resamples, times the sample's standard error.

    The variance is not taken for less than `floor` of the mean square of the values that are not zero, over n.
    """
    n, mean = values.shape[1], values.mean(1)
    means = values @ weights.T
    known = (values**2).sum(1) / np.maximum(1, (values != 0).sum(1))
    least = np.maximum(floor * known / n, 1e-300)
    errors = np.sqrt(np.maximum(values**2 @ weights.T - means**2, 0) + least[:, np.newaxis])
    low, high = np.quantile((means - mean[:, np.newaxis]) / errors, [0.025, 0.975], axis=1)
    error = np.sqrt(values.var(1) + least)
    return mean - high * error, mean - low * error


def floored(values: Floats, weights: Floats) -> Ends:
    """The same with a floor for rare events that no seed has seen."""
    return studentised(values, weights, floor=1.0)


def accelerated(values: Floats, weights: Floats) -> Ends:
    """BCa: quantiles of the resamples' means, moved for bias and skewness."""
    normal = NormalDist()
    means = np.sort(values @ weights.T, axis=1)
    mean = values.mean(1)
    below = (means < mean[:, np.newaxis]).mean(1) + (means == mean[:, np.newaxis]).mean(1) / 2
    bias = np.array([normal.inv_cdf(share) for share in below.clip(1 / means.shape[1], 1 - 1 / means.shape[1])])
    apart = values - mean[:, np.newaxis]
    skewness = (apart**3).sum(1) / (6 * np.maximum((apart**2).sum(1), 1e-200) ** 1.5)
    ends = []
    for end in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        moved = bias + (bias + end) / np.maximum(1e-9, 1 - skewness * (bias + end))
        shares = np.array([normal.cdf(value) for value in moved])
        places = (shares * means.shape[1]).astype(int).clip(0, means.shape[1] - 1)
        ends.append(means[np.arange(len(means)), places])
    return ends[0], ends[1]


METHODS: Mapping[str, Method] = {
    SHIPPED: differing,
    "Student": student,
    "percentile": percentile,
    "studentised": studentised,
    "with a floor": floored,
    "BCa": accelerated,
}


def around(value: Floats, errors: Floats, counted: np.ndarray) -> Ends:
    """As `statistics._estimate`, for samples [samples, n]."""
    n = errors.shape[1]
    factors = np.array([t_factor(float(max(1, count - 1))) for count in range(n + 1)])
    half = factors[counted.sum(1)] * errors.std(1, ddof=1) / n**0.5
    return value - half, value + half


# --- what else is printed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Makespans, ideals and the baseline's makespans, each [samples, n]."""

    own: Floats
    ideal: Floats
    base: Floats


def mean_of(sample: Sample) -> tuple[Floats, Floats, np.ndarray]:
    """Ends, and which samples are printed without a mark."""
    return *around(sample.own.mean(1), sample.own, sample.own != 0), _all(sample, ENOUGH_RUNS)


def quantile_of(sample: Sample, percent: int) -> tuple[Floats, Floats, np.ndarray]:
    """As `statistics.quantile_estimate`."""
    n, share = sample.own.shape[1], percent / 100
    half = t_factor(n - 1) * (share * (1 - share) / (n - 1)) ** 0.5
    if share + half >= 1:
        return np.full(len(sample.own), -np.inf), np.full(len(sample.own), np.inf), np.zeros(len(sample.own), bool)
    ordered = np.sort(sample.own, axis=1)
    low, high = int(np.floor((share - half) * n + 1e-9)), int(np.ceil((share + half) * n - 1e-9))
    return ordered[:, low - 1], ordered[:, high - 1], _all(sample, 0)


def cvar_of(sample: Sample) -> tuple[Floats, Floats, np.ndarray]:
    """As `statistics.cvar_estimate`."""
    n = sample.own.shape[1]
    tail = -(-n // 10)
    ordered = np.sort(sample.own, axis=1)
    excess = np.maximum(sample.own - ordered[:, [-tail - 1]], 0) * (n / tail)
    return *around(ordered[:, -tail:].mean(1), excess, excess != 0), (excess != 0).sum(1) >= ENOUGH_TAIL


def score_of(sample: Sample) -> tuple[Floats, Floats, np.ndarray]:
    """As `statistics.score`."""
    above, reference = np.log(sample.own / sample.ideal), np.log(sample.base / sample.ideal)
    scale = reference.mean(1)
    value = 1 - above.mean(1) / scale
    errors = (above - (1 - value)[:, np.newaxis] * reference) / scale[:, np.newaxis]
    differs = above != reference
    return *around(value, errors, differs), (differs.sum(1) >= ENOUGH_DIFFERING) & _all(sample, ENOUGH_RUNS)


def _all(sample: Sample, enough: int) -> np.ndarray:
    return np.full(len(sample.own), sample.own.shape[1] >= enough)


QUANTITIES: Mapping[str, Callable[[Sample], tuple[Floats, Floats, np.ndarray]]] = {
    "makespan": mean_of,
    "p95": lambda sample: quantile_of(sample, 95),
    "p99": lambda sample: quantile_of(sample, 99),
    "CVaR10": cvar_of,
    "score": score_of,
}


# --- the study --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """How often an interval held, in percent of the samples.

    Attributes:
        population, what, size: the worlds, the difference or quantity, and the number of seeds.
        method: by which method.
        holds: of all samples; `below` and `above`: the interval lay on that side of the truth.
        unmarked: share of the samples that are printed without a mark; `holds_unmarked`: of these, held.
        width: median, in that of the percentile bootstrap.
    """

    population: str
    what: str
    size: int
    method: str
    holds: float
    below: float
    above: float
    unmarked: float
    holds_unmarked: float
    width: float = 1.0

    @property
    def marked(self) -> bool:
        """Whether most samples are printed with a mark."""
        return self.unmarked < 50


def cell(
    population: str, what: str, size: int, method: str, truth: float, ends: Ends, bare: np.ndarray, width: float = 1.0
) -> Cell:
    """From intervals [samples]."""
    low, high = ends
    held = (low <= truth) & (truth <= high)
    measured = 100 * np.array([held.mean(), (high < truth).mean(), (low > truth).mean(), bare.mean()])
    of_bare = 100 * float(held[bare].mean()) if bare.any() else float("nan")
    return Cell(population, what, size, method, *(float(one) for one in measured), of_bare, width)


@lru_cache(maxsize=2)
def study(table: Table) -> tuple[Cell, ...]:
    """Every cell."""
    return (*_ratios(table), *_quantities(table))


def _draws(count: int, size: int) -> np.ndarray:
    """Which seeds are in the samples, [samples, n]: the same for all rules, so that they stay paired."""
    return np.random.default_rng(size).integers(count, size=(SAMPLES, size))


def _ratios(table: Table) -> Iterator[Cell]:
    for population in POPULATIONS:
        rows = part(table, population)
        for size in SIZES:
            draws = _draws(len(rows), size)
            resamples = np.random.default_rng(0).integers(size, size=(RESAMPLES, size))
            weights = np.stack([np.bincount(one, minlength=size) for one in resamples]) / size
            for rule, base in PAIRS:
                logs = paired_logs(rows, rule, base)
                values, truth = logs[draws], float(logs.mean())
                bare = (values != 0).sum(1) >= ENOUGH_DIFFERING
                what = f"{rule} / {base}"
                if population not in RARE:
                    yield cell(population, what, size, SHIPPED, truth, differing(values, weights), bare)
                    continue
                reference = float(np.median(np.subtract(*percentile(values[:OTHERS], weights)[::-1])))
                for name, method in METHODS.items():
                    count = SAMPLES if name == SHIPPED else OTHERS
                    ends = method(values[:count], weights)
                    width = float(np.median(ends[1] - ends[0])) / max(1e-12, reference)
                    yield cell(population, what, size, name, truth, ends, bare[:count], width)


def _quantities(table: Table) -> Iterator[Cell]:
    for population in POPULATIONS:
        rows = part(table, population)
        ideal, base = rows["ideal"].astype(float), rows[BASE].astype(float)
        for rule in (BASE, "paper", "kvm"):
            own = base if rule == BASE else base + rows[rule]
            whole = Sample(own[np.newaxis], ideal[np.newaxis], base[np.newaxis])
            for size in SIZES:
                draws = _draws(len(rows), size)
                sample = Sample(own[draws], ideal[draws], base[draws])
                for name, of in QUANTITIES.items():
                    if name == "score" and rule == BASE:
                        continue
                    low, high, bare = of(sample)
                    yield cell(population, f"{name}, {rule}", size, SHIPPED, _truth(name, whole), (low, high), bare)


def _truth(name: str, whole: Sample) -> float:
    """Of a population [1, n]."""
    ordered = np.sort(whole.own[0])
    if name == "makespan":
        return float(ordered.mean())
    if name == "CVaR10":
        return cvar(ordered)
    if name == "score":
        return float(1 - np.log(whole.own / whole.ideal).mean() / np.log(whole.base / whole.ideal).mean())
    return quantile(ordered, int(name[1:]))


# --- several trainings ------------------------------------------------------------------------------------------------

TWO_LEVELS = ((3, 50), (5, 50), (5, 200), (10, 200))
SPREADS = {
    "trainings differ as seeds do": (1, 1, 1),
    "trainings differ most": (1, 0.1, 0.1),
    "seeds differ most": (0.1, 1, 1),
}


@lru_cache(maxsize=1)
def two_levels() -> dict[tuple[str, int, int], tuple[float, float]]:
    """(effects, trainings, seeds) -> percent held by the two-level percentile bootstrap, and by `estimate`."""
    rng, found = np.random.default_rng(0), {}
    for name, (training, seed, both) in SPREADS.items():
        for k, n in TWO_LEVELS:
            held = np.zeros(2)
            first, second = (rng.multinomial(size, [1 / size] * size, RESAMPLES) / size for size in (k, n))
            for _ in range(OTHERS):
                values = (
                    training * rng.normal(size=(k, 1)) + seed * rng.normal(size=(1, n)) + both * rng.normal(size=(k, n))
                )
                low, high = np.quantile((first @ values * second).sum(1), [0.025, 0.975])
                own = estimate(values)
                assert own.low is not None and own.high is not None
                held += (low <= 0 <= high, own.low <= 0 <= own.high)
            found[name, k, n] = tuple(100 * held / OTHERS)
    return found


# --- what is said of it -----------------------------------------------------------------------------------------------


def checks(table: Table) -> list[Check]:
    """The promise, and every cell in a line."""
    if len(part(table, "Paper8")) < max(SIZES):  # a quick run
        return [Check("coverage", "runs of Paper8", f"{len(part(table, 'Paper8'))}, too few for a study")]
    cells = [one for one in study(table) if one.method == SHIPPED]
    bare = [one for one in cells if not one.marked]
    least = min(bare, key=lambda one: one.holds_unmarked)
    where = f"{least.population}, {least.what}, {least.size} seeds"
    found = [
        within("coverage", f"least share held in a cell printed without a mark, of {len(bare)} ({where})",
               least.holds_unmarked, PROMISE, None, "%", 1)
    ]  # fmt: skip
    for population, what in dict.fromkeys((one.population, one.what) for one in cells):
        found.append(Check("coverage", f"{population}: {what}", ", ".join(line(cells, population, what))))
    return found


def line(cells: Sequence[Cell], population: str, what: str, method: str = SHIPPED) -> list[str]:
    """What is held by number of seeds; ~: most samples are printed with a mark; -: without an interval."""
    own = {one.size: one for one in cells if (one.population, one.what, one.method) == (population, what, method)}
    return [held(own[size]) for size in SIZES]


def held(one: Cell) -> str:
    """Of one cell."""
    return "-" if one.what.startswith("p9") and one.marked else f"{one.holds:.0f}{'~' if one.marked else ''}"


def draw(table: Table, path: Path) -> None:
    """What each method holds, by number of seeds, where seldom anything differs."""
    with picture(path, 9, 5, nrows=2, ncols=4, sharex=True, sharey=True) as (_, axes):
        if len(part(table, "Paper8")) < max(SIZES):
            return
        for line, population in zip(axes, RARE, strict=True):
            for axis, (rule, base) in zip(line, PAIRS[:4], strict=True):
                for number, method in enumerate(METHODS):
                    wanted = (population, f"{rule} / {base}", method)
                    own = [one for one in study(table) if (one.population, one.what, one.method) == wanted]
                    width = 2.2 if method == SHIPPED else 1
                    axis.plot(SIZES, [one.holds for one in own], "o-", color=COLOURS[number], markersize=3,
                              linewidth=width, label=method)  # fmt: skip
                axis.axhspan(PROMISE, 100, color="0.93", zorder=0)
                axis.set(xscale="log", ylim=(60, 100), title=f"{population}: {rule}")
                axis.set_xticks(SIZES, [str(size) for size in SIZES], fontsize="small")
                axis.minorticks_off()
        for axis in axes[1]:
            axis.set_xlabel("seeds")
        for axis in axes[:, 0]:
            axis.set_ylabel("intervals that hold the truth, %")
        axes[0, 0].legend(frameon=False, fontsize="x-small", loc="lower right")


EXPERIMENT = Experiment("coverage", __doc__, (*RULES, "ideal"), run, checks, draw, measure)
