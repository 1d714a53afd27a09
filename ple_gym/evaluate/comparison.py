"""What runs of several policies on equal seeds say: `Comparison` holds the runs, `Row` is its summary of one policy.

A row stands for one policy, or for several trained policies of one learner (say, one per training seed); intervals then
cover both the seeds and the trainings (`statistics.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from ple_gym.episode import Record, total_cycles
from ple_gym.evaluate import scores
from ple_gym.evaluate.statistics import (
    Estimate,
    Floats,
    Ratio,
    cvar_estimate,
    estimate,
    quantile_estimate,
    ratio,
    score,
)
from ple_gym.evaluate.tabular import FlatRecord, Tabular, flat_records
from ple_gym.messages import show
from ple_gym.rules import RULES
from ple_gym.rules.own import own_rule
from ple_gym.scenario.model import Scenario

HOST = "host"
MOST_TOLD = 4  # policies that a comparison's representation names

#: What `Comparison.of_vm` gives, a field of a VM's record.
VmNumber = Literal["transactions", "transactions_per_s", "longest_steal_ms", "share"]


class Run(Record):
    """One run of a comparison, which JSON can hold: its seed, and the fields of a record.

    Examples:
        >>> run = ple_gym.simulate("HolderPreempted", "xen-4.5", seeds=0)[0]
        >>> run["finished"], run["ple_exits"], round(1e3 * run["simulated_s"], 3)  # the last in milliseconds
        (True, 484, 1.026)
    """

    seed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What an agent was asked in all its runs on a scenario.

    Attributes:
        decisions: how often it had to decide.
        illegal: how many of its actions were illegal, and deferred.
        predict_s: wall time of its `predict`, seconds.
    """

    decisions: int
    illegal: int
    predict_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """What a comparison says about one policy, or about several trained policies of one learner.

    Of several, means are over all runs, and quantiles and tails are of all runs together.

    Attributes:
        policy: the policy, or the name of the several.
        members: the policies that the row stands for.
        runs: how many runs.
        capped: how many of these were cut off, at the simulated-time limit or after 2 x 10^9 events; the time until
            then counts as their makespan, which flatters them.
        makespan_s: mean over the runs, seconds; p95, p99 and cvar10 (mean of the worst tenth) beside it. All have
            intervals, except quantiles so far out that the runs do not bound them.
        ideal_percent: how much longer than the ideal, useful work / pCPUs (an unfinished run's: the work done until
            then); from the mean logarithm. None if a run did no useful work.
        waste_percent: share of all pCPU time spent in spin and exit.
        waste_ms_per_s: the same as pCPU milliseconds per simulated second.
        ple_exits: mean per run. Every exit is a decision.
        log_ratio: mean over seeds of log(makespan / makespan of the baseline), and on how many seeds they differ;
            None for the baseline.
        best_ratio: the same against the best rule; None for the best rule itself, and if there is no such rule.
        score: 0 = the baseline, 1 = the ideal, which is out of reach (no waiting, switching or idling at all); linear
            in mean log(makespan / ideal), to which late responses add, and at most 0 if a VM gets less than 0.9 of the
            CPU time that it is due (see `ple_gym.evaluate.scores`). None if a run did no useful work or the baseline is
            at the ideal.
        wall_s: time to simulate the runs, added up over threads, seconds.
        decision_us: of an agent the wall time of its `predict` per decision, microseconds (those that it makes in one
            call share that); None of what is compiled, and of an agent that never had to decide.
    """

    policy: str
    members: tuple[str, ...]
    runs: int
    capped: int
    makespan_s: Estimate
    p95_s: Estimate
    p99_s: Estimate
    cvar10_s: Estimate
    ideal_percent: float | None
    waste_percent: float
    waste_ms_per_s: float
    ple_exits: float
    decisions: float
    log_ratio: Ratio | None
    best_ratio: Ratio | None
    score: Estimate | None
    wall_s: float
    decision_us: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one policy in one configuration, for each VM where none ever ends.

    Attributes:
        setting: what tells the configuration from the others, by parameter.
        policy: a row of the comparison.
        vm: whose throughput it is, as in `Scenario.vms`; empty where the makespan is compared.
        makespan_s: mean over the runs, seconds; None of endless VMs.
        transactions_per_s: of the VM, per simulated second; None where the makespan is compared.
        waste_ms_per_s, ple_exits, capped: see `Row`.
        vs_baseline: mean log-ratio of what is compared against the baseline in this configuration.
        vs_first: the same against this policy in the first configuration. Both are paired by seed, and None where there
            is nothing to compare to, or a throughput of 0.
    """

    setting: Mapping[str, object]
    policy: str
    vm: str
    makespan_s: Estimate | None
    transactions_per_s: Estimate | None
    waste_ms_per_s: float
    ple_exits: float
    capped: int
    vs_baseline: Ratio | None
    vs_first: Ratio | None


@dataclass(frozen=True, repr=False)
class Comparison(Tabular):
    """Runs of several policies on one scenario and on equal seeds.

    Attributes:
        scenario: what was run.
        seeds: on which seeds.
        runs: policy -> one record per seed.
        wall_s: policy -> seconds that its runs took, added up over threads.
        members: row -> the policies that it stands for, in the order of the rows; if empty, a row per policy.
        asked: agent -> what it was asked; the policies that are not there are compiled.

    Examples:
        >>> comparison = ple_gym.compare("HolderPreempted", ["xen-4.5", "oracle"], seeds=range(2))
        >>> comparison.makespans("oracle").shape  # policies of the row, seeds
        (1, 2)
        >>> [(row.policy, row.ple_exits) for row in comparison.rows()]
        [('xen-4.5', 484.0), ('oracle', 1.0)]
        >>> comparison
        <Comparison on 'HolderPreempted': xen-4.5, oracle; 2 seeds>
        >>> print(comparison.to_markdown().splitlines()[2])  # so do to_csv, to_latex and, with pandas, to_dataframe
        | policy | makespan | waste/s | exits | wall s | p95 | p99 | CVaR10 | vs first | vs best | differ | score |
    """

    scenario: Scenario
    seeds: tuple[int, ...]
    runs: Mapping[str, Sequence[Run]]
    wall_s: Mapping[str, float]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asked: Mapping[str, Asked] = field(default_factory=dict)
    _samples: dict[str, scores.Sample | None] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.members:
            object.__setattr__(self, "members", {policy: (policy,) for policy in self.runs})

    @property
    def baseline(self) -> str:
        """The row that the others are compared to: the host's own rule, else `host`, which yields, else the first."""
        return next((name for name in (self.own_rule, HOST) if name in self.members), next(iter(self.members)))

    @property
    def own_rule(self) -> str:
        """The rule that the scenario's host has: KVM's of its version where vCPUs can be favoured, else `host`."""
        return own_rule(self.scenario)

    @property
    def endless(self) -> bool:
        """See `Scenario.endless`: makespans are all the limit, and throughputs are what differs."""
        return self.scenario.endless

    @property
    def best_rule(self) -> str | None:
        """The rule with the least mean log-makespan, of those that know no more than a hypervisor; None without any.

        It is picked on the same seeds that it is then compared on, which flatters it a little.
        """
        rules = [name for name in self.members if name in RULES and not RULES[name].privileged]
        return min(rules, key=lambda name: float(np.log(self.makespans(name)).mean()), default=None)

    def rows(self) -> list[Row]:
        """One summary per row, in the order they were given."""
        best = self.best_rule
        return [self._row(name, best) for name in self.members]

    def outcomes(self, setting: Mapping[str, object] | None = None, first: Comparison | None = None) -> list[Outcome]:
        """What came of each row, by VM if endless, on a configuration of this setting; `first`: see `Outcome`."""
        outcomes = []
        for row, vm in itertools.product(self.rows(), self.scenario.vms() if self.endless else [""]):
            values = self._compared(row.policy, vm)
            baseline = None if row.policy == self.baseline else self._compared(self.baseline, vm)
            before = first._compared(row.policy, vm) if first and (not vm or vm in first.scenario.vms()) else None
            outcomes.append(
                Outcome(
                    setting=setting or {},
                    policy=row.policy,
                    vm=vm,
                    makespan_s=None if vm else row.makespan_s,
                    transactions_per_s=estimate(values) if vm else None,
                    waste_ms_per_s=row.waste_ms_per_s,
                    ple_exits=row.ple_exits,
                    capped=row.capped,
                    vs_baseline=None if baseline is None else _ratio(values[:, np.newaxis], baseline[np.newaxis]),
                    vs_first=None if before is None else _ratio(values, before),
                )
            )
        return outcomes

    def makespans(self, name: str) -> Floats:
        """Makespan per policy of a row and per seed, seconds [k, n]; the limit for a run that did not finish."""
        return self._each(name, "simulated_s")

    def of_vm(self, name: str, place: int, key: VmNumber) -> Floats:
        """A number of one VM, per policy of a row and per seed [k, n]; `place` is as in `Scenario.vms`."""
        return np.array([[run["vm"][place][key] for run in self.runs[policy]] for policy in self.members[name]], float)

    def log_ratio(self, name: str, reference: str) -> Ratio:
        """Mean of log(makespan / makespan under `reference`) of two rows, paired by seed."""
        paired = self.makespans(name)[:, np.newaxis] / self.makespans(reference)[np.newaxis]
        return ratio(np.log(paired))

    def ideal_percent(self, name: str) -> float | None:
        """See `Row.ideal_percent`."""
        above = self._above_ideal(name)
        return None if above is None else 100 * math.expm1(float(above.mean()))

    def score(self, name: str) -> Estimate | None:
        """See `Row.score`."""
        own, reference = self._sample(name), self._sample(self.baseline)
        if own is None or reference is None:
            return None
        if name == self.baseline:
            return Estimate(0.0, 0.0, 0.0) if reference.above.mean() > 0 else None
        return scores.guarded(score(own.above, reference.above), scores.kept(self.scenario, own, reference))

    def kept(self, name: str) -> float | None:
        """What the worst off VM receives of what it is due, see `ple_gym.evaluate.scores`; None where no VM ends."""
        own, reference = self._sample(name), self._sample(self.baseline)
        return None if own is None or reference is None else scores.kept(self.scenario, own, reference)

    def capped(self, name: str) -> int:
        """How many runs of a row reached the simulated-time limit."""
        return sum(not run["finished"] for run in self._runs(name))

    def records(self) -> list[FlatRecord]:
        """A flat record per row, or if endless per outcome; see `Row` and `Outcome` for its names."""
        return flat_records(self.outcomes() if self.endless else self.rows())

    def digests(self) -> dict[str, str]:
        """`Scenario.digest` of the scenario, by its name."""
        return {self.scenario.name: self.scenario.digest}

    def __repr__(self) -> str:
        names = list(self.members)
        told = ", ".join(names[:MOST_TOLD] + ["..."] * (len(names) > MOST_TOLD))
        return f"<Comparison on {show(self.scenario.name)}: {told}; {len(self.seeds)} seeds>"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a JSON-able dict."""
        return {
            "scenario": self.scenario.name,
            "parameters": self.scenario.parameters(),
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "own_rule": self.own_rule,
            "best_rule": self.best_rule,
            "policies": [{**asdict(row), "members": list(row.members)} for row in self.rows()],
            "runs": {policy: list(runs) for policy, runs in self.runs.items()},
        }

    def _compared(self, name: str, vm: str) -> Floats:
        """Throughputs of a VM or, of none, makespans of a row's policies and seeds [k, n]."""
        if not vm:
            return self.makespans(name)
        return self.of_vm(name, list(self.scenario.vms()).index(vm), "transactions_per_s")

    def response_p99(self, name: str) -> float:
        """The mean of the runs' 99 % quantiles of responses, in goals; 0 where no VM has a goal."""
        return float(np.mean([run["response_p99"] for run in self._runs(name)]))

    def _runs(self, name: str) -> list[Run]:
        return [run for policy in self.members[name] for run in self.runs[policy]]

    def _each(self, name: str, field_name: Literal["simulated_s", "ideal_s"]) -> Floats:
        """One field of a row's runs, [k, n]."""
        return np.array([[run[field_name] for run in self.runs[policy]] for policy in self.members[name]])

    def _above_ideal(self, name: str) -> Floats | None:
        """log(makespan / ideal) of a row's runs, [k, n]; None if one did no useful work."""
        ideal = self._each(name, "ideal_s")
        return np.log(self.makespans(name) / ideal) if ideal.all() else None

    def _sample(self, name: str) -> scores.Sample | None:
        """What a score needs of a row."""
        if name not in self._samples:
            self._samples[name] = scores.sample(self.scenario, [self.runs[policy] for policy in self.members[name]])
        return self._samples[name]

    def _row(self, name: str, best: str | None) -> Row:
        runs, makespans = self._runs(name), self.makespans(name)
        exits = float(np.mean([run["ple_exits"] for run in runs]))
        cycles = [run["cycles"] for run in runs]
        waste = sum(one["spin"] + one["exit"] for one in cycles) / sum(map(total_cycles, cycles))
        return Row(
            policy=name,
            members=self.members[name],
            runs=len(runs),
            capped=self.capped(name),
            makespan_s=estimate(makespans),
            p95_s=quantile_estimate(makespans, 95),
            p99_s=quantile_estimate(makespans, 99),
            cvar10_s=cvar_estimate(makespans),
            ideal_percent=self.ideal_percent(name),
            waste_percent=100 * waste,
            waste_ms_per_s=1000 * waste * self.scenario.host.pcpus,
            ple_exits=exits,
            decisions=exits,
            log_ratio=None if name == self.baseline else self.log_ratio(name, self.baseline),
            best_ratio=None if best in (None, name) else self.log_ratio(name, best),
            score=self.score(name),
            wall_s=sum(self.wall_s[policy] for policy in self.members[name]),
            decision_us=self._decision_us(name),
        )

    def _decision_us(self, name: str) -> float | None:
        """See `Row.decision_us`."""
        asked = [self.asked[policy] for policy in self.members[name] if policy in self.asked]
        decisions = sum(one.decisions for one in asked)
        return sum(one.predict_s for one in asked) * 1e6 / decisions if decisions else None


def _ratio(values: Floats, reference: Floats) -> Ratio | None:
    """Paired log-ratio; None if a value is 0."""
    return ratio(np.log(values / reference)) if values.all() and reference.all() else None
