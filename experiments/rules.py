"""Comparing the rules: what the experiments on the paper's proposal share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.lab import Table
from experiments.report import Check
from ple_gym.evaluate import Estimate, cvar, estimate, quantile

BASE = "xen-4.5"
PROPOSAL = "paper"
RULES = (BASE, "xen-4.8", PROPOSAL, "kvm", "spin-age", "spin-age-self", "longest-waiting", "oracle")
COLUMNS = ("finished", "now", "exits", "wait_p99", "waits_1ms")
HZ = 2_670_000_000
WHY_NOT = (
    "spinners change places at every PLE, while the next in line waits on its pCPU behind a vCPU that computes for a "
    "whole time slice (`harm`: with a slice of 5 ms or an unfair lock most of the harm is gone)"
)


@dataclass(frozen=True)
class Comparison:
    """One rule against Xen 4.5 on the same seeds. Changes are percentages, with 95 % bootstrap intervals over seeds.

    `wait_ms` is the mean over runs of the run's 99 % quantile over contended acquisitions, `wait_change_ms` the
    mean paired difference.
    """

    rule: str
    change: Estimate
    mean_s: float
    p95_s: float
    cvar10_s: float
    exits: float
    exits_ratio: float
    wait_ms: float
    wait_change_ms: Estimate
    long_waits: float
    unfinished: int

    def text(self) -> str:
        """The numbers in a line."""
        return (
            f"makespan {percent(self.change)}, mean {self.mean_s:.3f} s, p95 {self.p95_s:.3f} s, "
            f"CVaR10 {self.cvar10_s:.3f} s; {self.exits:,.0f} PLE; wait p99 {self.wait_ms:.1f} ms"
        )


def percent(change: Estimate) -> str:
    """A change with its interval."""
    if change.low is None or change.high is None:
        return f"{change.mean:+.1f} %"
    return f"{change.mean:+.1f} [{change.low:+.1f}, {change.high:+.1f}] %"


def milliseconds(change: Estimate) -> str:
    """A change with its interval."""
    if change.low is None or change.high is None:
        return f"{change.mean:+.2f} ms"
    return f"{change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}] ms"


def compare(table: Table, rule: str, base: str = BASE) -> Comparison:
    """One rule on the rows of one world; the geometric mean of the paired makespan ratios, as a change in percent."""
    own, other = table.where(policy=rule), table.where(policy=base)
    assert (own["seed"] == other["seed"]).all(), "the rules were run on different seeds"
    seconds = own["now"] / HZ
    logs = estimate(np.log(own["now"] / other["now"]))
    change = Estimate(*(None if x is None else 100 * math.expm1(x) for x in (logs.mean, logs.low, logs.high)))  # type: ignore[arg-type]
    waits = 1e3 / HZ
    return Comparison(
        rule=rule,
        change=change,
        mean_s=float(seconds.mean()),
        p95_s=quantile(seconds, 95),
        cvar10_s=cvar(seconds),
        exits=float(own["exits"].mean()),
        exits_ratio=float(own["exits"].sum() / max(1, other["exits"].sum())),
        wait_ms=float(own["wait_p99"].mean() * waits),
        wait_change_ms=estimate((own["wait_p99"] - other["wait_p99"]) * waits),
        long_waits=float(own["waits_1ms"].mean()),
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
