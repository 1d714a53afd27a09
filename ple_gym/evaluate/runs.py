"""Run scenarios under compiled rules and learned policies, and compare these fairly.

`simulate` gives one record per run, `compare` a summary per policy (`comparison.py`, with the statistics of
`statistics.py`, whose names can all be imported from here). Both run every job of a call in one pool of threads (the
kernel holds no lock of the interpreter) and return the same whatever the number of threads. Policies are compared on
equal seeds: the n-th transaction of a VM is the same work whatever any policy did before.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

from ple_gym import progress as shown
from ple_gym.compilation import compiling, is_warm, warm_up
from ple_gym.episode import summarise
from ple_gym.errors import ArgumentError, PolicyError, ScenarioError
from ple_gym.evaluate.comparison import Comparison, Row, Run
from ple_gym.evaluate.statistics import Estimate, Ratio, cvar, estimate, quantile, ratio, score
from ple_gym.lanes import Lanes
from ple_gym.learned.file import PREFIX
from ple_gym.messages import show
from ple_gym.policies import Policy, load_policy
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import load
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import MAX_SEED, checked_seed
from ple_gym.traces.recording import record

__all__ = [
    "Comparison",
    "Estimate",
    "Group",
    "Ratio",
    "Row",
    "Run",
    "compare",
    "compare_all",
    "cvar",
    "estimate",
    "parse_seeds",
    "quantile",
    "ratio",
    "record",
    "score",
    "simulate",
]

Progress: TypeAlias = Callable[[int], None]
Seeds: TypeAlias = Iterable[int] | int | str

MAX_SEEDS = 1_000_000  # of one call
AHEAD = 50  # jobs that wait for each thread
LONG_S = 0.5  # after which a run that is not done is reported, again and again
_ALLOWED_SEEDS = f"must be START:STOP (without STOP) or one number, START < STOP, seeds 0..{MAX_SEED}"

# ---------------------------------------------------------------------------------------------------------------- runs


def simulate(
    scenario: str | Scenario,
    policy: str = "host",
    seeds: Seeds = range(1),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> list[Run]:
    """Run a scenario to its end once per seed.

    Args:
        scenario: a scenario, or the name, id or file of one.
        policy: the rule that decides at every PLE exit.
        seeds: whole numbers 0..2^63-1; or one of them; or text, as on the command line: "0:16".
        overrides: dotted parameter name -> value, as in `Scenario.with_overrides`.
        progress: True shows a bar on stderr; a function is called with the number of runs that are done, in the
            caller's thread.
        threads: workers; one per CPU if None.

    Returns:
        One record per seed, in the order of the seeds.

    Raises:
        ScenarioError, PolicyError, ArgumentError: an unknown name or a wrong value.
    """
    world = _resolve(scenario, overrides)
    rule = load_policy(_name(policy))
    jobs = [_Job(world, rule, seed) for seed in _checked(seeds)]
    return [outcome.run for outcome in _run_all(jobs, progress, threads)]


def parse_seeds(text: str) -> range:
    """The seeds that a text stands for: `0:16` is 0..15, `7` is 7 alone.

    Raises:
        ArgumentError: the text is something else, names no seed, or one that is too large.
    """
    match = re.fullmatch(r"([0-9]{1,19})(?::([0-9]{1,19}))?", text)
    if not match:
        raise ArgumentError(f"seeds = {show(text)}: {_ALLOWED_SEEDS}")
    start = int(match[1])
    stop = int(match[2]) if match[2] else start + 1
    if not start < stop <= MAX_SEED + 1:
        raise ArgumentError(f"seeds = {show(text)}: {_ALLOWED_SEEDS}")
    if stop - start > MAX_SEEDS:
        raise ArgumentError(f"seeds = {show(text)}: must be at most {MAX_SEEDS} seeds")
    return range(start, stop)


@dataclass(frozen=True, slots=True)
class _Job:
    """One run that is to be made."""

    scenario: Scenario
    rule: Policy
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


def _checked(seeds: Seeds) -> list[int]:
    """The seeds as a list.

    Raises:
        ArgumentError: there is none, or one is not a whole number 0..2^63-1.
    """
    if isinstance(seeds, str):
        return list(parse_seeds(seeds))
    if not isinstance(seeds, Iterable):
        seeds = [seeds]
    checked = [checked_seed(seed) for seed in seeds]
    if not checked:
        raise ArgumentError("seeds: there must be at least one")
    return checked


def _run_all(jobs: Sequence[_Job], progress: Progress | bool | None, threads: int | None) -> list[_Outcome]:
    """Run jobs on a pool of threads; outcomes are in the order of the jobs."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, Integral) or threads < 1):
        raise ArgumentError(f"threads = {show(threads)}: must be at least 1")
    if not is_warm():  # here, where Ctrl-C ends a compilation, and not in all threads at once
        with shown.waiting(compiling) if progress is True else nullcontext():
            warm_up()
    with shown.bar("runs", len(jobs)) if progress is True else nullcontext(_told(progress)) as report:
        return _in_threads(jobs, report, threads or os.cpu_count() or 1)


def _told(progress: Progress | bool | None) -> shown.Report:
    """Call a caller's function with the number of runs that are done, and only when one more is."""

    def report(done: float, note: str = "") -> None:
        if progress and not isinstance(progress, bool) and not note:
            progress(int(done))

    return report


def _in_threads(jobs: Sequence[_Job], report: shown.Report, threads: int) -> list[_Outcome]:
    """Run jobs; `report` is called with the runs that are done and, with a note, how far a long one has come."""
    own = threading.local()
    stopping = threading.Event()
    outcomes: list[_Outcome] = []

    def work(job: _Job) -> _Outcome:
        # Neighbours in the list share a scenario, so a thread seldom builds new lanes.
        kind = (job.scenario, job.rule)
        if getattr(own, "kind", None) != kind:
            own.kind, own.lanes = kind, Lanes(job.scenario, 1, policy=job.rule)
        started = told = time.perf_counter()

        def between(lane: int) -> None:
            nonlocal told
            if stopping.is_set():
                raise CancelledError
            if time.perf_counter() - told > LONG_S:
                told = time.perf_counter()
                simulated = own.lanes.world["now"][lane] / job.scenario.host.tsc_hz
                most = f"of at most {job.scenario.limit.simulated_s:g} s simulated"
                report(len(outcomes), f"seed {job.seed} under {job.rule.name}: {simulated:.2f} {most}")

        own.lanes.run(0, job.seed, between=between)
        run: Run = {"seed": job.seed, **summarise(job.scenario, own.lanes.totals(0))}
        return _Outcome(run, time.perf_counter() - started)

    pool = ThreadPoolExecutor(threads)
    try:
        ahead: deque[Future[_Outcome]] = deque()
        for number in range(len(jobs) + AHEAD * threads):  # not all at once: it takes as long to take them back
            if number < len(jobs):
                ahead.append(pool.submit(work, jobs[number]))
            if ahead and number >= AHEAD * threads:
                outcomes.append(ahead.popleft().result())
                report(len(outcomes))
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)
    return outcomes


# ---------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, slots=True)
class Group:
    """Trained policies of one learner, say one per training seed, which a comparison shows as one row.

    Attributes:
        name: of the row.
        policies: learned policies, `learned:NAME` or `learned:FILE.npz`.

    Raises:
        PolicyError: a name that is empty or a policy's, no policies, one of them twice, or one that is not learned.
    """

    name: str
    policies: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "policies", tuple(self.policies))
        if not self.name or self.name in RULES or self.name.startswith(PREFIX):
            raise PolicyError(f"group {show(self.name)}: the name must not be empty, a rule's or a learned policy's")
        if not self.policies:
            raise PolicyError(f"group {self.name}: there must be at least one policy")
        for policy in self.policies:
            if not _name(policy).startswith(PREFIX):
                raise PolicyError(f"group {self.name}: {show(policy)} must be {PREFIX}NAME or {PREFIX}FILE.npz")
        _refuse_repeats(f"group {self.name}", self.policies)


def compare(
    scenario: str | Scenario,
    policies: Iterable[str | Group] | str | Group | None = None,
    seeds: Seeds = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> Comparison:
    """Run a scenario under several policies (all rules if None) on equal seeds.

    Several trained policies of one learner are one row if they come as a `Group`. Other arguments and errors are as in
    `simulate`.
    """
    return compare_all([scenario], policies, seeds, overrides, progress, threads)[0]


def compare_all(
    scenarios: Iterable[str | Scenario],
    policies: Iterable[str | Group] | str | Group | None = None,
    seeds: Seeds = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> list[Comparison]:
    """As `compare` for several scenarios; all runs are one list of jobs, so that progress is even."""
    worlds = [_resolve(scenario, overrides) for scenario in scenarios]
    members = _members(RULES if policies is None else policies)
    rules = [load_policy(name) for name in dict.fromkeys(policy for row in members.values() for policy in row)]
    numbers = _checked(seeds)
    jobs = [_Job(world, rule, seed) for world in worlds for rule in rules for seed in numbers]
    outcomes = iter(_run_all(jobs, progress, threads))
    comparisons = []
    for world in worlds:
        by_rule = {rule.name: [next(outcomes) for _ in numbers] for rule in rules}
        runs = {name: [outcome.run for outcome in one] for name, one in by_rule.items()}
        wall = {name: sum(outcome.seconds for outcome in one) for name, one in by_rule.items()}
        comparisons.append(Comparison(world, tuple(numbers), runs, wall, members))
    return comparisons


def doubts(comparison: Comparison) -> list[str]:
    """What makes a comparison say less than it seems to, a line each."""
    scenario, policies = comparison.scenario, comparison.runs
    longest = max(run["simulated_s"] for runs in policies.values() for run in runs)
    slice_ms = scenario.host.timeslice_ms
    if longest * 1000 < slice_ms and all(vm.start == "fresh" for vm in scenario.vms().values()):
        exits = sum(run["ple_exits"] for runs in policies.values() for run in runs)
        return [
            f"{scenario.name}: the longest run ends after {longest * 1000:.3g} ms, before one time slice "
            f"(host.timeslice_ms = {slice_ms}) is over, with {exits:,} PLE exits in all: too short to compare policies"
        ]
    return []


def _name(policy: object) -> str:
    """The name of a policy.

    Raises:
        PolicyError: it is no text: only what the kernel can run has a name.
    """
    if not isinstance(policy, str):
        raise PolicyError(f"policy {show(policy)}: must be the name of a rule, or learned:NAME or learned:FILE.npz")
    return policy


def _members(policies: Iterable[str | Group] | str | Group) -> dict[str, tuple[str, ...]]:
    """Row -> the policies that it stands for.

    Raises:
        PolicyError: there is no row, two have one name, or a policy is no text.
    """
    each: Any = [policies] if isinstance(policies, str | Group) or not isinstance(policies, Iterable) else policies
    rows = [(one.name, tuple(one.policies)) if isinstance(one, Group) else (_name(one), (one,)) for one in each]
    if not rows:
        raise PolicyError("policies: there must be at least one")
    _refuse_repeats("policies", [name for name, _ in rows])
    return dict(rows)


def _refuse_repeats(where: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise PolicyError(f"{where}: {show(name)} is named {names.count(name)} times, must be once")
