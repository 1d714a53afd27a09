"""Run scenarios under compiled rules, and compare the rules fairly.

`simulate` gives one record per run, `compare` a summary per rule. Both run every job of a call in one pool of threads
(the kernel holds no lock of the interpreter) and return the same whatever the number of threads. Rules are compared on
equal seeds: the n-th transaction of a VM is the same work whatever any rule did before.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ple_gym.drive import drive
from ple_gym.episode import summarise
from ple_gym.lanes import Lanes
from ple_gym.parameters import show
from ple_gym.policies import RULES, Rule, load_rule
from ple_gym.scenario import Scenario, ScenarioError
from ple_gym.scenarios import SCENARIOS, load
from ple_gym.trace import PLE, TRACE_COLUMNS, Ints, unrolled

__all__ = ["Comparison", "Estimate", "Row", "Run", "compare", "compare_all", "parse_seeds", "record", "simulate"]

#: One run as a JSON-able dict: its seed, and the fields of `episode.summarise`.
Run: TypeAlias = dict[str, Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Progress: TypeAlias = Callable[[int], None]

MAX_SEED = 2**63 - 1
MAX_SEEDS = 1_000_000  # of one call
TRACE_EVENTS = 1 << 22  # 168 MB if all are used, which takes a second of storm
_ALLOWED_SEEDS = f"must be START:STOP (without STOP) or one number, START < STOP, seeds 0..{MAX_SEED}"

# ---------------------------------------------------------------------------------------------------------------- runs


def simulate(
    scenario: str | Scenario,
    policy: str = "host",
    seeds: Iterable[int] = range(1),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> list[Run]:
    """Run a scenario to its end once per seed.

    Args:
        scenario: a scenario, or the name, id or file of one.
        policy: the rule that decides at every PLE exit.
        seeds: whole numbers 0..2^63-1.
        overrides: dotted parameter name -> value, as in `Scenario.with_overrides`.
        progress: called with the number of runs that are done, in the caller's thread.
        threads: workers; one per CPU if None.

    Returns:
        One record per seed, in the order of the seeds.

    Raises:
        ScenarioError: an unknown name or a wrong value.
    """
    world = _resolve(scenario, overrides)
    rule = load_rule(policy)
    jobs = [_Job(world, rule, seed) for seed in _checked(seeds)]
    return [outcome.run for outcome in _run_all(jobs, progress, threads)]


def parse_seeds(text: str) -> range:
    """The seeds that a text stands for: `0:16` is 0..15, `7` is 7 alone.

    Raises:
        ScenarioError: the text is something else, names no seed, or one that is too large.
    """
    match = re.fullmatch(r"([0-9]{1,19})(?::([0-9]{1,19}))?", text)
    if not match:
        raise ScenarioError(f"seeds = {show(text)}: {_ALLOWED_SEEDS}")
    start = int(match[1])
    stop = int(match[2]) if match[2] else start + 1
    if not start < stop <= MAX_SEED + 1:
        raise ScenarioError(f"seeds = {show(text)}: {_ALLOWED_SEEDS}")
    if stop - start > MAX_SEEDS:
        raise ScenarioError(f"seeds = {show(text)}: must be at most {MAX_SEEDS} seeds")
    return range(start, stop)


def warm_up() -> float:
    """Load the kernel from its cache, or compile it (about half a minute); return the seconds that took."""
    started = time.perf_counter()
    Lanes(SCENARIOS["HolderPreempted"], 1).run(0, 0, RULES["oracle"].code)
    return time.perf_counter() - started


def is_warm() -> bool:
    """Whether the kernel is ready to run in this process."""
    return bool(getattr(drive, "signatures", True))  # without the JIT it always is


def cache_folder() -> str | None:
    """Where compiled code is kept; None without a folder to write to, or without the JIT."""
    stats = getattr(drive, "stats", None)
    return stats.cache_path if stats else None


def record(scenario: Scenario, policy: str, seed: int, events: int = TRACE_EVENTS) -> Ints:
    """Run one seed and return its trace (`ple_gym.trace`): the newest `events` events at most, int64 [n, 5]."""
    rows = np.zeros((events, len(TRACE_COLUMNS)), np.int64)
    rule = load_rule(policy)
    lanes = Lanes(scenario, 1, network=rule.network)
    lanes.run(0, seed, rule.code, rows)
    return unrolled(rows, int(lanes.world["traced"][0]))


def busiest_window(trace: Ints, length: int) -> tuple[int, int]:
    """The `length` cycles (start, stop) with most PLE exits, the earliest of equals, after a lead-in of a twentieth.

    Without exits: the trace's first `length` cycles.
    """
    exits = trace[trace[:, 1] == PLE, 0]
    if len(exits) == 0:
        return 0, length
    within = np.searchsorted(exits, exits + length - length // 20) - np.arange(len(exits))
    start = max(0, int(exits[within.argmax()]) - length // 20)
    return start, start + length


@dataclass(frozen=True, slots=True)
class _Job:
    """One run that is to be made."""

    scenario: Scenario
    rule: Rule
    seed: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One run that has been made, and the wall seconds it took."""

    run: Run
    seconds: float


def _resolve(scenario: str | Scenario, overrides: Mapping[str, object] | None) -> Scenario:
    """The scenario that is meant; a share of its time must mean something.

    Raises:
        ScenarioError: unknown, wrong, or cut off before its first cycle.
    """
    world = load(scenario) if isinstance(scenario, str) else scenario
    world = world.with_overrides(overrides or {})
    if round(world.limit.simulated_s * world.host.tsc_hz) == 0:
        raise ScenarioError(f"limit.simulated_s = {world.limit.simulated_s}: must be at least a cycle of host.tsc_hz")
    return world


def _checked(seeds: Iterable[int]) -> list[int]:
    """The seeds as a list.

    Raises:
        ScenarioError: there is none, or one is not a whole number 0..2^63-1.
    """
    checked = list(seeds)
    for seed in checked:
        if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed <= MAX_SEED:
            raise ScenarioError(f"seed = {show(seed)}: must be a whole number, 0..{MAX_SEED}")
    if not checked:
        raise ScenarioError("seeds: there must be at least one")
    return [int(seed) for seed in checked]


def _run_all(jobs: Sequence[_Job], progress: Progress | None, threads: int | None) -> list[_Outcome]:
    """Run jobs on a pool of threads; outcomes are in the order of the jobs."""
    if threads is not None and threads < 1:
        raise ScenarioError(f"threads = {threads}: must be at least 1")
    if not is_warm():
        warm_up()  # here, where Ctrl-C ends a compilation, and not in all threads at once
    own = threading.local()

    def work(job: _Job) -> _Outcome:
        # Neighbours in the list share a scenario, so a thread seldom builds new lanes.
        kind = (job.scenario, job.rule.network)
        if getattr(own, "kind", None) != kind:
            own.kind, own.lanes = kind, Lanes(job.scenario, 1, network=job.rule.network)
        started = time.perf_counter()
        own.lanes.run(0, job.seed, job.rule.code)
        run = {"seed": job.seed, **summarise(job.scenario, own.lanes.totals(0))}
        return _Outcome(run, time.perf_counter() - started)

    outcomes = []
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        for outcome in pool.map(work, jobs):
            outcomes.append(outcome)
            if progress:
                progress(len(outcomes))
    finally:
        pool.shutdown(cancel_futures=True)
    return outcomes


# ---------------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval, None with fewer than two values."""

    mean: float
    low: float | None
    high: float | None


def estimate(values: Floats) -> Estimate:
    """Mean and bootstrap interval of values [n]."""
    mean = float(values.mean())
    return Estimate(mean, *bootstrap_interval(values)) if len(values) > 1 else Estimate(mean, None, None)


def bootstrap_interval(values: Floats, confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values [n]; the same on every call."""
    count = len(values)
    generator = np.random.default_rng(0)
    batch = max(1, 2**20 // count)  # bounds the memory
    sizes = [min(batch, resamples - done) for done in range(0, resamples, batch)]
    means = np.concatenate([values[generator.integers(count, size=(size, count))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def quantile(values: Floats, percent: int) -> float:
    """The ceil(percent * n / 100)-th smallest of values [n], as in docs/model.md, section 13."""
    return float(np.sort(values)[max(1, -(-percent * len(values) // 100)) - 1])


def cvar(values: Floats, percent: int = 10) -> float:
    """Mean of the largest `percent` of values [n], at least of one."""
    return float(np.sort(values)[-max(1, -(-percent * len(values) // 100)) :].mean())


# ---------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, slots=True)
class Row:
    """What a comparison says about one rule.

    Attributes:
        policy: the rule.
        runs: how many runs.
        capped: how many of these reached the simulated-time limit; it counts as their makespan, which flatters them.
        makespan_s: mean over the runs, seconds; p95, p99 and cvar10 (mean of the worst tenth) beside it.
        ideal_percent: how much longer than the ideal, useful work / pCPUs (an unfinished run's: the work done until
            then); from the mean logarithm. None if a run did no useful work.
        waste_percent: share of all pCPU time spent in spin and exit.
        ple_exits: mean per run. Every exit is a decision.
        log_ratio: mean over seeds of log(makespan / makespan of the first rule); None for the first.
        wall_s: time to simulate the runs, added up over threads, seconds.
    """

    policy: str
    runs: int
    capped: int
    makespan_s: Estimate
    p95_s: float
    p99_s: float
    cvar10_s: float
    ideal_percent: float | None
    waste_percent: float
    ple_exits: float
    decisions: float
    log_ratio: Estimate | None
    wall_s: float


@dataclass(frozen=True)
class Comparison:
    """Runs of several rules on one scenario and on equal seeds.

    Attributes:
        scenario: what was run.
        seeds: on which seeds.
        runs: rule -> one record per seed; the first rule is the one that the others are compared to.
        wall_s: rule -> seconds that its runs took, added up over threads.
    """

    scenario: Scenario
    seeds: tuple[int, ...]
    runs: Mapping[str, Sequence[Run]]
    wall_s: Mapping[str, float]

    @property
    def baseline(self) -> str:
        """The first rule."""
        return next(iter(self.runs))

    def rows(self) -> list[Row]:
        """One summary per rule, in the order they were given."""
        return [self._row(policy) for policy in self.runs]

    def makespans(self, policy: str) -> Floats:
        """Makespan per seed, seconds [n]; the limit for a run that did not finish."""
        return np.array([run["simulated_s"] for run in self.runs[policy]])

    def log_ratio(self, policy: str, reference: str) -> Estimate:
        """Mean over the seeds of log(makespan / makespan under `reference`), paired."""
        return estimate(np.log(self.makespans(policy) / self.makespans(reference)))

    def ideal_percent(self, policy: str) -> float | None:
        """See `Row.ideal_percent`."""
        ideal = np.array([run["ideal_s"] for run in self.runs[policy]])
        if not ideal.all():
            return None
        return 100 * math.expm1(float(np.log(self.makespans(policy) / ideal).mean()))

    def capped(self, policy: str) -> int:
        """How many runs reached the simulated-time limit."""
        return sum(not run["finished"] for run in self.runs[policy])

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a JSON-able dict."""
        return {
            "scenario": self.scenario.name,
            "parameters": self.scenario.parameters(),
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "policies": [asdict(row) for row in self.rows()],
            "runs": {policy: list(runs) for policy, runs in self.runs.items()},
        }

    def _row(self, policy: str) -> Row:
        runs, makespans = self.runs[policy], self.makespans(policy)
        exits = float(np.mean([run["ple_exits"] for run in runs]))
        cycles = [run["cycles"] for run in runs]
        spent = sum(sum(one.values()) for one in cycles)
        return Row(
            policy=policy,
            runs=len(runs),
            capped=self.capped(policy),
            makespan_s=estimate(makespans),
            p95_s=quantile(makespans, 95),
            p99_s=quantile(makespans, 99),
            cvar10_s=cvar(makespans),
            ideal_percent=self.ideal_percent(policy),
            waste_percent=100 * sum(one["spin"] + one["exit"] for one in cycles) / spent,
            ple_exits=exits,
            decisions=exits,
            log_ratio=None if policy == self.baseline else self.log_ratio(policy, self.baseline),
            wall_s=self.wall_s[policy],
        )


def compare(
    scenario: str | Scenario,
    policies: Iterable[str] | None = None,
    seeds: Iterable[int] = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Comparison:
    """Run a scenario under several rules (all if None) on equal seeds; arguments and errors as in `simulate`."""
    return compare_all([scenario], policies, seeds, overrides, progress, threads)[0]


def compare_all(
    scenarios: Iterable[str | Scenario],
    policies: Iterable[str] | None = None,
    seeds: Iterable[int] = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> list[Comparison]:
    """As `compare` for several scenarios; all runs are one list of jobs, so that progress is even."""
    worlds = [_resolve(scenario, overrides) for scenario in scenarios]
    rules = [load_rule(name) for name in (RULES if policies is None else policies)]
    names = [rule.name for rule in rules]
    if not names:
        raise ScenarioError("policies: there must be at least one")
    for name in names:
        if names.count(name) > 1:
            raise ScenarioError(f"policies: {name!r} is named {names.count(name)} times, must be once")
    numbers = _checked(seeds)
    jobs = [_Job(world, rule, seed) for world in worlds for rule in rules for seed in numbers]
    outcomes = iter(_run_all(jobs, progress, threads))
    comparisons = []
    for world in worlds:
        by_rule = {name: [next(outcomes) for _ in numbers] for name in names}
        runs = {name: [outcome.run for outcome in one] for name, one in by_rule.items()}
        wall = {name: sum(outcome.seconds for outcome in one) for name, one in by_rule.items()}
        comparisons.append(Comparison(world, tuple(numbers), runs, wall))
    return comparisons
