"""What rules are tuned on, and policies searched on: a scenario or a fleet, its seeds, and what is made small there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from ple_gym.cluster import Cluster
from ple_gym.evaluate.comparison import Run
from ple_gym.evaluate.runs import simulate, suiting
from ple_gym.evaluate.scores import allowance, beyond, slower
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES, Rule
from ple_gym.rules.own import own_rule
from ple_gym.scenario.fleet import AXES, SPLITS, number_of, world
from ple_gym.scenario.fleet import VERSION as FLEET_VERSION
from ple_gym.scenario.model import Scenario

#: As learners have them (`agents.common`); from 2,000,000 on are those that results are reported on.
TRAINING, VALIDATION = range(1_000_000), range(1_000_000, 2_000_000)
#: Patterns of the files that a loss depends on, beside the simulator: kept losses are of no use once one has changed.
JUDGING = ("course.py", "evaluate/*.py", "rules/*.py")


@dataclass(frozen=True)
class Course:
    """What a rule is tuned on: a scenario.

    Attributes:
        scenario: the scenario.
        enough: training seeds from which the allowance of its VMs is told.
        threads: workers; one per CPU if None.
        cluster: where runs are made; None: in this process.
    """

    scenario: Scenario
    enough: int = 28
    threads: int | None = None
    cluster: Cluster | None = None

    @property
    def name(self) -> str:
        """Of the scenario."""
        return self.scenario.name

    @property
    def digest(self) -> str:
        """Of the scenario."""
        return self.scenario.digest

    @property
    def objective(self) -> str:
        """What is made small, in words."""
        return objective(self.scenario)

    @property
    def own(self) -> str:
        """The rule that the host itself has."""
        return own_rule(self.scenario)

    @property
    def schedulers(self) -> Sequence[str]:
        """Of the hosts."""
        return (self.scenario.host.scheduler,)

    def check(self, rule: Rule) -> None:
        """Raise PolicyError unless the rule can decide here."""
        rule.world(self.scenario)

    @property
    def rivals(self) -> list[Rule]:
        """The built-in rules that can decide here and know no more than a hypervisor."""
        return [RULES[name] for name in suiting(self.scenario) if not RULES[name].privileged]

    @property
    def allowance(self) -> float:
        """The share of all CPU time that the VMs with an end may have."""
        return allowance_of(self.scenario, self.enough, self.threads)

    def losses(self, policy: Rule, seeds: range, report: Callable[[int], None]) -> list[float]:
        """Of each seed the logarithm of what is made small; `report` is told of how many.

        On a cluster the rule is known by its name.
        """
        if self.cluster is None:
            return self.here(policy, seeds, report)
        many = max(1, len(seeds) // (2 * self.cluster.workers))
        parts = [seeds[at : at + many] for at in range(0, len(seeds), many)]
        alone, found, done = replace(self, threads=1, cluster=None), dict[range, list[float]](), 0
        for part, losses in self.cluster.calls(_part, ((alone, policy.name, part) for part in parts)):
            found[part] = losses
            report(done := done + len(part))
        return [loss for part in parts for loss in found[part]]

    def here(self, policy: Rule, seeds: range, report: Callable[[int], None]) -> list[float]:
        """The same in this process."""
        return losses_of(
            self.scenario, simulate(self.scenario, policy, seeds, None, report, self.threads), self.allowance
        )


def _part(course: Course, policy: str, seeds: range) -> tuple[range, list[float]]:
    """What a worker of a cluster does."""
    rule = load_compiled(policy)
    assert isinstance(rule, Rule)
    return seeds, course.here(rule, seeds, lambda done: None)


@dataclass(frozen=True)
class FleetCourse(Course):
    """The worlds of a fleet: each seed is run in one of them, of `Fleet` if it is for training, of `FleetValidation`
    if it is for validation. Where a rule cannot decide, the host only yields. `scenario` is the first world.
    """

    scenario: Scenario = field(default_factory=lambda: world(SPLITS[0], 0))
    enough: int = 4

    name = SPLITS[0]
    digest = f"{SPLITS[0]}-v{FLEET_VERSION}"
    objective = "makespan, where CPU time beyond the allowance counts as time; geometric mean over worlds"
    own = "host"
    schedulers = tuple(AXES)

    def check(self, rule: Rule) -> None:
        """Any rule will do."""

    @property
    def rivals(self) -> list[Rule]:
        """The built-in rules that know no more than a hypervisor, and do not set the host."""
        return [rule for rule in RULES.values() if not rule.privileged and not rule.settings]

    def here(self, policy: Rule, seeds: range, report: Callable[[int], None]) -> list[float]:
        """Of each seed the logarithm of what is made small, in its world."""

        def one(seed: int) -> float:
            split = SPLITS[0] if seed in TRAINING else SPLITS[1]
            course = Course(world(split, number_of(split, seed)), self.enough, 1)
            decides = policy if policy.suits(course.scenario) else RULES[self.own]
            return course.here(decides, range(seed, seed + 1), lambda done: None)[0]

        found, pool = [], ThreadPoolExecutor(self.threads)
        try:
            for loss in pool.map(one, seeds):
                found.append(loss)
                report(len(found))
        finally:
            pool.shutdown(cancel_futures=True)
        return found


def objective(scenario: Scenario) -> str:
    """What is made small, in words."""
    late = ", where a 99 % quantile of responses beyond its goal counts as time" if scenario.has_goals else ""
    if scenario.endless:
        return f"1 / throughput, geometric mean over VMs{late}"
    some = any(not vm.transactions for vm in scenario.vms().values())
    return ("makespan, where CPU time beyond the allowance counts as time" if some else "makespan") + late


@lru_cache(maxsize=4096)
def allowance_of(scenario: Scenario, count: int, threads: int | None = None) -> float:
    """The share of all CPU time that the VMs with an end may have (`scores.allowance`), by so many training seeds."""
    if all(vm.transactions for vm in scenario.vms().values()) or scenario.endless:
        return math.inf
    seeds = range(TRAINING[0], TRAINING[0] + count)
    return allowance(scenario, simulate(scenario, load_compiled(own_rule(scenario)), seeds, threads=threads))


def losses_of(scenario: Scenario, runs: Sequence[Run], allowance: float) -> list[float]:
    """Of each run the logarithm of what is made small; `allowance` is of `allowance_of`."""
    if not scenario.endless:
        losses = [math.log(run["simulated_s"]) + beyond(scenario, run, allowance) for run in runs]
    else:
        rates = [[max(1e-3, vm["transactions_per_s"]) for vm in run["vm"]] for run in runs]
        losses = [-float(np.mean([math.log(rate) for rate in row])) for row in rates]
    return [loss + slower(scenario, run) for loss, run in zip(losses, runs, strict=True)]
