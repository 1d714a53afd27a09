"""Run scenarios under rules, learned policies and agents, and compare these fairly.

`simulate` gives one record per run, `compare` a summary per policy (`comparison.py`, with the statistics of
`statistics.py`, whose names can all be imported from here). Both run everything that is compiled in one pool of threads
(the kernel holds no lock of the interpreter) and return the same whatever the number of threads; then each agent, in
the caller's thread (`agents.py`). Policies are compared on equal seeds: the n-th transaction of a VM is the same work
whatever any policy did before.
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
from itertools import islice
from numbers import Integral
from typing import Any, TypeAlias

from ple_gym import progress as shown
from ple_gym.compilation import compiling, is_warm, warm_up
from ple_gym.episode import how_far, summarise
from ple_gym.errors import ArgumentError, PolicyError, ScenarioError
from ple_gym.evaluate.agents import Agent, run_agent
from ple_gym.evaluate.comparison import Asked, Comparison, Row, Run
from ple_gym.evaluate.policies import Policy, is_free, load_policy
from ple_gym.evaluate.scores import KEPT
from ple_gym.evaluate.statistics import Estimate, Ratio, cvar, estimate, quantile, ratio, score
from ple_gym.lanes import Lanes
from ple_gym.learned.file import PREFIX
from ple_gym.messages import show
from ple_gym.policies import Compiled
from ple_gym.progress import LONG_S
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import load
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import MAX_SEED, checked_seed
from ple_gym.traces.recording import record

__all__ = [
    "Comparison",
    "Estimate",
    "Group",
    "Policy",
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
_ALLOWED_SEEDS = f"must be START:STOP (without STOP) or one number, START < STOP, seeds 0..{MAX_SEED}"

# ---------------------------------------------------------------------------------------------------------------- runs


def simulate(
    scenario: str | Scenario,
    policy: Policy = "host",
    seeds: Seeds = range(1),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> list[Run]:
    """Run a scenario to its end once per seed.

    Args:
        scenario: a scenario, or the name, id or file of one.
        policy: who decides at every PLE exit: the name of a rule or of a learned policy; an object with the `predict`
            of Stable-Baselines3, or its name, `package.module:Object` or `./file.py:Object`; or a pair (name, policy).
        seeds: whole numbers 0..2^63-1; or one of them; or text, as on the command line: "0:16".
        overrides: dotted parameter name -> value, as in `Scenario.with_overrides`.
        progress: True shows a bar on stderr; a function is called with the number of runs that are done, in the
            caller's thread.
        threads: workers for what is compiled; one per CPU if None.

    Returns:
        One record per seed, in the order of the seeds.

    Raises:
        ScenarioError, PolicyError, ArgumentError: an unknown name or a wrong value.

    Examples:
        >>> runs = ple_gym.simulate("TicketOrder", "kvm", seeds=range(2), overrides={"guest.transactions": 12})
        >>> [run["ple_exits"] for run in runs]
        [64, 64]
    """
    task = _Task(_resolve(scenario, overrides), load_policy(policy), _checked(seeds))
    return _run_all([task], progress, threads)[0].runs


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
class _Task:
    """Runs of one policy on one scenario that are to be made."""

    scenario: Scenario
    policy: Compiled | Agent
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Result:
    """Runs that have been made, the wall seconds that they took together, and what an agent was asked."""

    runs: list[Run]
    seconds: float
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """One run under a compiled policy that is to be made."""

    scenario: Scenario
    rule: Compiled
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


def _run_all(tasks: Sequence[_Task], progress: Progress | bool | None, threads: int | None) -> list[_Result]:
    """Run what is compiled on a pool of threads, then the agents; results are in the order of the tasks."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, Integral) or threads < 1):
        raise ArgumentError(f"threads = {show(threads)}: must be at least 1")
    schedulers = sorted({task.scenario.host.scheduler for task in tasks})
    if not is_warm(*schedulers):  # here, where Ctrl-C ends a compilation, and not in all threads at once
        with shown.waiting(lambda: compiling(*schedulers)) if progress is True else nullcontext():
            warm_up(*schedulers)
    many = sum(len(task.seeds) for task in tasks)
    with shown.bar("runs", many) if progress is True else nullcontext(_told(progress)) as report:
        jobs = [
            _Job(task.scenario, task.policy, seed)
            for task in tasks
            if isinstance(task.policy, Compiled)
            for seed in task.seeds
        ]
        outcomes = iter(_in_threads(jobs, report, threads or os.cpu_count() or 1))
        done, results = len(jobs), []
        for task in tasks:
            if isinstance(task.policy, Compiled):
                own = list(islice(outcomes, len(task.seeds)))
                results.append(_Result([one.run for one in own], sum(one.seconds for one in own)))
            else:
                found = run_agent(task.policy, task.scenario, task.seeds, _after(done, report))
                results.append(_Result(found.runs, found.seconds, found.asked))
                done += len(task.seeds)
        return results


def _after(before: int, report: shown.Report) -> shown.Report:
    """What is to be told of runs that come after so many others."""

    def later(done: float, note: str = "") -> None:
        report(before + done, note)

    return later


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
                report(len(outcomes), how_far(own.lanes, lane, job.seed, job.rule.name))

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

    Examples:
        >>> ple_gym.Group("set-ppo", ["learned:storm-set"])
        Group(name='set-ppo', policies=('learned:storm-set',))
    """

    name: str
    policies: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "policies", tuple(self.policies))
        if not is_free(self.name):
            raise PolicyError(f"group {show(self.name)}: the name must not be empty, a rule's or a learned policy's")
        if not self.policies:
            raise PolicyError(f"group {self.name}: there must be at least one policy")
        for policy in self.policies:
            if not isinstance(policy, str) or not policy.startswith(PREFIX):
                raise PolicyError(f"group {self.name}: {show(policy)} must be {PREFIX}NAME or {PREFIX}FILE.npz")
        _refuse_repeats(f"group {self.name}", self.policies)


def compare(
    scenario: str | Scenario,
    policies: Iterable[Policy | Group] | Policy | Group | None = None,
    seeds: Seeds = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> Comparison:
    """Run a scenario under several policies (all rules that suit it if None) on equal seeds.

    Several trained policies of one learner are one row if they come as a `Group`. Other arguments and errors are as in
    `simulate`, with one difference: a tuple stands for several policies here, so that a pair (name, agent) must be in a
    list: `compare("Storm", ["kvm", ("mine", agent)])`.

    Raises:
        ScenarioError, PolicyError, ArgumentError: an unknown name or a wrong value.

    Examples:
        >>> comparison = ple_gym.compare("TicketOrder", ["xen-4.8", "oracle"], seeds=range(3))
        >>> {row.policy: round(1e3 * row.makespan_s.mean, 3) for row in comparison.rows()}  # milliseconds
        {'xen-4.8': 0.25, 'oracle': 0.213}
    """
    return compare_all([scenario], policies, seeds, overrides, progress, threads)[0]


def compare_all(
    scenarios: Iterable[str | Scenario],
    policies: Iterable[Policy | Group] | Policy | Group | None = None,
    seeds: Seeds = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> list[Comparison]:
    """As `compare` for several scenarios; all runs are one list of jobs, so that progress is even."""
    worlds = [_resolve(scenario, overrides) for scenario in scenarios]
    rows = _rows(RULES if policies is None else policies)
    members = {name: tuple(own) for name, own in rows.items()}
    named = {name: policy for own in rows.values() for name, policy in own.items()}
    loaded = {name: load_policy(policy) for name, policy in named.items()}
    asked_for = [suiting(world) if policies is None else list(rows) for world in worlds]
    numbers = _checked(seeds)
    run_in = [list(dict.fromkeys(name for row in own for name in members[row])) for own in asked_for]
    tasks = [_Task(world, loaded[name], numbers) for world, own in zip(worlds, run_in, strict=True) for name in own]
    results = iter(_run_all(tasks, progress, threads))
    comparisons = []
    for world, names, own in zip(worlds, asked_for, run_in, strict=True):
        found = {name: next(results) for name in own}
        runs = {name: result.runs for name, result in found.items()}
        wall = {name: result.seconds for name, result in found.items()}
        asked = {name: result.asked for name, result in found.items() if result.asked}
        kept = {row: members[row] for row in names}
        comparisons.append(Comparison(world, tuple(numbers), runs, wall, kept, asked))
    return comparisons


def suiting(*scenarios: Scenario) -> list[str]:
    """The rules that can decide in all of these scenarios: the others read what another scheduler keeps."""
    return [name for name, rule in RULES.items() if all(rule.suits(scenario) for scenario in scenarios)]


def doubts(comparison: Comparison) -> list[str]:
    """What makes a comparison say less than it seems to, a line each."""
    scenario, policies = comparison.scenario, comparison.runs
    lines = [
        f"{scenario.name}: {asked.illegal:,} of the {asked.decisions:,} actions of {name} were illegal, and deferred"
        for name, asked in comparison.asked.items()
        if asked.illegal
    ]
    lines += [
        f"{scenario.name}: {name} leaves a VM {share:.2f} of the CPU time that it is due: its score is at most 0"
        for name in comparison.members
        if (share := comparison.kept(name)) is not None and share < KEPT
    ]
    longest = max(run["simulated_s"] for runs in policies.values() for run in runs)
    slice_ms = scenario.host.timeslice_ms
    if longest * 1000 < slice_ms and all(vm.start == "fresh" for vm in scenario.vms().values()):
        exits = sum(run["ple_exits"] for runs in policies.values() for run in runs)
        lines.append(
            f"{scenario.name}: the longest run ends after {longest * 1000:.3g} ms, before one time slice "
            f"(host.timeslice_ms = {slice_ms}) is over, with {exits:,} PLE exits in all: too short to compare policies"
        )
    return lines


def _rows(policies: Iterable[Policy | Group] | Policy | Group) -> dict[str, dict[str, Policy]]:
    """Row -> the policies that it stands for, by name; names are not yet looked up.

    Raises:
        PolicyError: there is no row, two have one name, or a policy is none.
    """
    alone = isinstance(policies, str | Group) or not isinstance(policies, Iterable) or hasattr(policies, "predict")
    each: Any = [policies] if alone else policies
    rows = [_row(one) for one in each]
    if not rows:
        raise PolicyError("policies: there must be at least one")
    _refuse_repeats("policies", [name for name, _ in rows])
    return dict(rows)


def _row(policy: Policy | Group) -> tuple[str, dict[str, Policy]]:
    if isinstance(policy, Group):
        return policy.name, {name: name for name in policy.policies}
    if isinstance(policy, str):
        return policy, {policy: policy}
    loaded = load_policy(policy)
    return loaded.name, {loaded.name: loaded}


def _refuse_repeats(where: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise PolicyError(f"{where}: {show(name)} is named {names.count(name)} times, must be once")
