"""Runs under rules and trained policies, whole or from a storm on: what the experiments on learning share.

A task's policy is a rule, or the name of a policy in `agents/checkpoints.tar.xz`. Only those are run that the kernel
can run and whose runs on validation seeds came to an end: with torch, a run that is caught in a storm takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from experiments.lab import Table, Task, rough, world
from experiments.lab.report import Check
from experiments.learning import trainings
from experiments.learning.trainings import Training, file_of
from ple_gym.evaluate import Comparison, Estimate, Row
from ple_gym.evaluate.tables import FEW
from ple_gym.lanes import Lanes
from ple_gym.learned.file import Network, read_network
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario

FROM_STORM = " from a storm"  # behind a scenario's name: counted from its first storm under the host's own rule
COLUMNS = ("finished", "took_100ns", "useful_100ns", "exits", "waste_10us")

Totals = Mapping[str, Any]


def measure(task: Task) -> dict[str, int]:
    """What happened from the start on: time, useful pCPU time, and what was lost in spin and exit.

    Tables keep them in units of 100 ns, the useful time `rough`, and what is only looked at in whole tens of
    microseconds: in cycles they would be half as large again.
    """
    scenario = world(task.scenario.removesuffix(FROM_STORM), task.overrides)
    storm = task.scenario.endswith(FROM_STORM)
    lanes = _lanes(scenario, task.policy, storm)
    if storm:
        before = lanes.run_from_start(0, task.seed)
        return since(before, lanes.totals(0), scenario.host.tsc_hz)
    lanes.run(0, task.seed)
    return since(NOTHING, lanes.totals(0), scenario.host.tsc_hz)


def since(before: Totals, after: Totals, tsc_hz: int) -> dict[str, int]:
    """What happened between two totals: the integers of `COLUMNS`."""
    spent = {name: after["cycles"][name] - before["cycles"][name] for name in ("useful", "spin", "exit")}
    took, waste = after["now"] - before["now"], spent["spin"] + spent["exit"]
    return {
        "finished": int(after["finished"]),
        "exits": after["exits"] - before["exits"],
        "took_100ns": in_units(took, 10_000_000, tsc_hz),
        "useful_100ns": rough(in_units(spent["useful"], 10_000_000, tsc_hz)),
        "waste_10us": in_units(waste, 1_000_000, tsc_hz) // 10,
    }


def in_units(cycles: int, a_second: int, tsc_hz: int) -> int:
    """A time in units of which a second has so many, to the nearest."""
    return (cycles * a_second + tsc_hz // 2) // tsc_hz


NOTHING: Totals = {"now": 0, "exits": 0, "cycles": {"useful": 0, "spin": 0, "exit": 0}}


@lru_cache(maxsize=64)
def _policy(name: str) -> Network:
    return read_network(file_of(name))


@lru_cache(maxsize=2)
def _lanes(scenario: Scenario, policy: str, storm: bool) -> Lanes:
    decides = policy if policy in RULES else _policy(policy)
    return Lanes(scenario, 1, start="storm" if storm else "first", policy=decides)


def comparison(table: Table, place: str, overrides: str, members: Mapping[str, Sequence[str]]) -> Comparison:
    """The rows of one place as `ple_gym compare` would have them; `members`: row -> policies."""
    part = table.where(scenario=place, overrides=overrides)
    scenario = world(place.removesuffix(FROM_STORM), overrides)
    per_us, pcpus = scenario.host.tsc_hz / 1e6, scenario.host.pcpus
    runs: dict[str, list[dict[str, Any]]] = {}
    columns = [part[name].tolist() for name in ("policy", "seed", *COLUMNS)]
    for policy, seed, finished, took, useful, exits, waste in zip(*columns, strict=True):
        run = {"seed": seed, "finished": bool(finished), "simulated_s": took / 1e7, "ideal_s": useful / (pcpus * 1e7)}
        lost = 10 * waste + 5 * (waste > 0)  # the middle of what it may be
        cycles = {"spin": round(lost * per_us), "exit": 0, "rest": round((took / 10 * pcpus - lost) * per_us)}
        run |= {"ple_exits": exits, "cycles": cycles}
        runs.setdefault(policy, []).append(run)
    kept = {name: tuple(policies) for name, policies in members.items() if all(one in runs for one in policies)}
    seeds = tuple(run["seed"] for run in next(iter(runs.values())))
    return Comparison(scenario, seeds, runs, dict.fromkeys(runs, 0.0), kept)


def rules_and(rows: Mapping[str, Training], rules: Iterable[str]) -> dict[str, Sequence[str]]:
    """Rules under their own names, and rows of trainings under theirs, except rows without a policy that finishes."""
    found: dict[str, Sequence[str]] = {rule: [rule] for rule in rules}
    return found | {name: policies for name, row in rows.items() if (policies := trainings.finished(row))}


def checks(name: str, place: str, compared: Comparison) -> list[Check]:
    """Every row in a line."""
    return [Check(name, f"{place}: `{row.policy}`", text(row)) for row in compared.rows()]


def text(row: Row) -> str:
    """A row's numbers in a line."""
    against = f", {percent(row.best_ratio)} against the best rule" if row.best_ratio else ""
    capped = f", {row.capped} of {row.runs} cut off" if row.capped else ""
    trainings = f" ({len(row.members)} trainings)" if len(row.members) > 1 else ""
    return f"{row.makespan_s.mean * 1e3:,.2f} ms, {row.ple_exits:,.0f} PLE{against}{capped}{trainings}"


def percent(ratio: Estimate | None) -> str:
    """A mean logarithm of a ratio as a change in percent, with its interval."""
    if ratio is None:
        return "-"
    mean, low, high = (None if x is None else 100 * np.expm1(x) for x in (ratio.mean, ratio.low, ratio.high))
    if low is None or high is None:
        return f"{mean:+.1f} %"
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{FEW if ratio.few else ''} %"
