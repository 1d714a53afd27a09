"""Comparing the rules: what the experiments on the paper's proposal share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.lab import Table, Task, rough, totals, world
from experiments.lab.report import Check
from ple_gym.evaluate.statistics import (
    ENOUGH_DIFFERING,
    Estimate,
    Floats,
    cvar_estimate,
    estimate,
    quantile_estimate,
    ratio,
)
from ple_gym.evaluate.tables import FEW

BASE = "xen-4.5"
PAIRED = "paired"  # the policy of a task whose measure runs several rules
PROPOSAL = "paper"
RULES = (BASE, "xen-4.8", PROPOSAL, "kvm", "spin-age", "spin-age-self", "longest-waiting", "oracle")
COLUMNS = ("finished", "now_us", "exits", "wait_p99")
HZ = 2_670_000_000
WHY_NOT = (
    "in whole runs of `Paper8` most storms take longer under the proposal, and the longest are shorter; beside VMs "
    "that compute it gives pCPUs away to them, and alone the same guest gains (`harm`)"
)


@dataclass(frozen=True)
class Comparison:
    """One rule against Xen 4.5 on the same seeds. Changes are percentages, with 95 % intervals over seeds.

    `wait_ms` is the mean over runs of the run's 99 % quantile over contended acquisitions, `wait_change_ms` the
    mean paired difference.
    """

    rule: str
    change: Estimate
    mean_s: Estimate
    p95_s: Estimate
    cvar10_s: Estimate
    exits: float
    exits_ratio: float
    wait_ms: float
    wait_change_ms: Estimate
    unfinished: int

    def text(self) -> str:
        """The numbers in a line."""
        return (
            f"makespan {percent(self.change)}, mean {seconds(self.mean_s)}, p95 {seconds(self.p95_s)}, "
            f"CVaR10 {seconds(self.cvar10_s)}; {self.exits:,.0f} PLE; wait p99 {self.wait_ms:.1f} ms"
        )


def paired(task: Task, rules: Sequence[str], bits: int = 16, more: Mapping[str, Task] | None = None) -> dict[str, int]:
    """One seed under several rules: the time under the first, how much longer it is under the others, or of the tasks
    `more`, in microseconds, as `rough` as the first with so many bits.

    Besides `ideal`, useful work / pCPUs; `exits`, those of the first; and `unfinished`: how many of the runs reached
    the limit, which is their time.
    """
    runs = {rule: totals(task._replace(policy=rule)) for rule in rules}
    host = world(task.scenario, task.overrides).host
    all_runs = runs | {name: totals(one) for name, one in (more or {}).items()}
    us = {name: run["now"] * 1_000_000 // host.tsc_hz for name, run in all_runs.items()}
    base, *others = us
    found = {base: rough(us[base], bits), **{name: rough(us[name] - us[base], bits, us[base]) for name in others}}
    return found | {
        "ideal": rough(max(run["useful"] for run in runs.values()) * 1_000_000 // (HZ * host.pcpus), 12),
        "exits": runs[base]["exits"],
        "unfinished": sum(not run["finished"] for run in runs.values()),
    }


def paired_logs(table: Table, rule: str, base: str = BASE) -> Floats:
    """log(makespan / makespan under `base`) per row of `paired`."""
    first = table[BASE].astype(np.float64)
    other = first if base == BASE else first + table[base]
    return np.log((first + table[rule]) / other)


def in_percent(logs: Estimate) -> Estimate:
    """A mean logarithm of a ratio as a change in percent."""
    mean, low, high = (None if x is None else 100 * math.expm1(x) for x in (logs.mean, logs.low, logs.high))
    assert mean is not None
    return replace(logs, mean=mean, low=low, high=high)


def percent(change: Estimate, digits: int = 1) -> str:
    """A change with its interval."""
    mean, *ends = (f"{x:+,.{digits}f}" for x in (change.mean, change.low, change.high) if x is not None)
    return f"{mean} [{', '.join(ends)}]{FEW if change.few else ''} %" if ends else f"{mean} %"


def whole_percent(change: Estimate) -> str:
    """A change with its interval, in whole percent."""
    return percent(change, 0)


def seconds(time: Estimate) -> str:
    """A time with its interval."""
    if time.low is None or time.high is None:
        return f"{time.mean:.3f} s"
    return f"{time.mean:.3f} [{time.low:.3f}, {time.high:.3f}]{FEW if time.few else ''} s"


def milliseconds(change: Estimate, digits: int = 2) -> str:
    """A change with its interval."""
    if change.low is None or change.high is None:
        return f"{change.mean:+.{digits}f} ms"
    low, high = f"{change.low:+.{digits}f}", f"{change.high:+.{digits}f}"
    return f"{change.mean:+.{digits}f} [{low}, {high}]{FEW if change.few else ''} ms"


def compare(table: Table, rule: str, base: str = BASE) -> Comparison:
    """One rule on the rows of one world; the geometric mean of the paired makespan ratios, as a change in percent."""
    own, other = table.where(policy=rule), table.where(policy=base)
    assert (own["seed"] == other["seed"]).all(), "the rules were run on different seeds"
    took = own["now_us"] / 1e6
    logs = ratio(np.log(own["now_us"] / other["now_us"]))
    waits = 1e3 / HZ
    return Comparison(
        rule=rule,
        change=in_percent(logs),
        mean_s=estimate(took),
        p95_s=quantile_estimate(took, 95),
        cvar10_s=cvar_estimate(took),
        exits=float(own["exits"].mean()),
        exits_ratio=float(own["exits"].sum() / max(1, other["exits"].sum())),
        wait_ms=float(own["wait_p99"].mean() * waits),
        wait_change_ms=estimate((own["wait_p99"] - other["wait_p99"]) * waits, ENOUGH_DIFFERING),
        unfinished=int((own["finished"] == 0).sum()),
    )


def compare_all(table: Table, rules: Iterable[str] | None = None) -> list[Comparison]:
    """Every rule of a table of one world."""
    return [compare(table, rule) for rule in (table.distinct("policy") if rules is None else rules)]


def direction(table: Table, where: str) -> list[Check]:
    """R18: does the proposal lessen PLE, waits, run time? In band if the whole interval says so, or the sum of PLE."""
    found = compare(table, PROPOSAL)
    wait, change, ratio = found.wait_change_ms, found.change, found.exits_ratio
    return [
        _lessens(f"PLE under `paper`, of those under Xen 4.5, {where}", f"{ratio:.2f}", ratio - 1, ratio - 1),
        _lessens(f"wait p99, `paper` against Xen 4.5, {where}", milliseconds(wait), wait.low, wait.high),
        _lessens(f"makespan, `paper` against Xen 4.5, {where}", percent(change), change.low, change.high),
    ]


def _lessens(metric: str, value: str, low: float | None, high: float | None) -> Check:
    passed = high is not None and high < 0
    clear = low is not None and low > 0
    reason = f"{'it grows' if clear else 'no clear difference'}; {WHY_NOT}"
    return Check("R18", metric, value, "less", passed, reason="" if passed else reason)


def dots(axes: Any, comparisons: Sequence[Comparison], colour: str) -> None:
    """Change of the makespan per rule, with its interval."""
    for height, one in enumerate(reversed(comparisons)):
        low, high = one.change.low, one.change.high
        if low is not None and high is not None:
            axes.plot([low, high], [height, height], color=colour, linewidth=1.5)
        axes.plot(one.change.mean, height, "o", color=colour, markersize=4)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(comparisons)), [one.rule for one in reversed(comparisons)])
