"""Do exits on a free lock come from the order of tickets?

Section 4.3.2 suspects lock-waiter preemption: the lock is free, but the next ticket's vCPU is off its pCPU. Then an
unfair lock (test and set: whoever runs takes it) has no such exits at all, and a queued lock (MCS), which keeps the
order, has them, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, totals
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check, exactly, within
from experiments.lab.traces import trace_of
from ple_gym.traces import events as tr

WORLD, POLICY = "PLE/Paper8-v0", "xen-4.5"
KINDS = ("ticket", "mcs", "tas")
WHERE = {
    "exits_lock_free": "lock free",
    "exits_holder_off": "holder off its pCPU",
    "exits_holder_running": "holder running",
}


def run(quick: bool) -> list[Task]:
    """Paper8 with each kind of lock, on equal seeds."""
    own = seeds.PAUSE_LOOP[: 50 if quick else 1_000]
    return [task for kind in KINDS for task in tasks(WORLD, POLICY, own, {"guest.lock_kind": kind})]


def measure(task: Task) -> dict[str, int]:
    """The totals; for an unfair lock also the longest time that a lock had been free at an exit, in cycles."""
    row = totals(task)
    unfair = "tas" in task.overrides and row["exits_lock_free"] > 0
    return row | {"free_for": longest_free(trace_of(task)) if unfair else 0}


def longest_free(trace: tr.Ints) -> int:
    """How long before an exit its lock had been released, if it was free then: the maximum."""
    longest, released = 0, dict[int, int]()
    for time, kind, _, _, lock in trace[np.isin(trace[:, 1], (tr.ACQUIRE, tr.RELEASE, tr.PLE))].tolist():
        if kind == tr.RELEASE:
            released[lock] = time
        elif kind == tr.ACQUIRE:
            released.pop(lock, None)
        elif lock in released:
            longest = max(longest, time - released[lock])
    return longest


def of(table: Table, kind: str) -> Table:
    return table.where(overrides=overrides_text({"guest.lock_kind": kind}))


def shares(table: Table, kind: str) -> dict[str, float]:
    """Percent of the exits by what the lock was doing."""
    part = of(table, kind)
    return {name: 100 * float(part[name].sum() / max(1, part["exits"].sum())) for name in WHERE}


def checks(table: Table) -> list[Check]:
    """R14."""
    found = [
        within("R14", f"exits on a free lock, {kind}", shares(table, kind)["exits_lock_free"], 10, None, "%", 1)
        for kind in ("ticket", "mcs")
    ]
    unfair = of(table, "tas")
    beside = int(unfair["exits_lock_free"].sum())
    reason = (
        f"{beside} of {unfair['exits'].sum():,} exits fell between a release and the spinner's next look at the lock, "
        f"which is at most {unfair['free_for'].max()} cycles later; nobody was waiting for a turn"
    )
    found.append(exactly("R14", "exits on a free lock, tas", beside, 0, reason))
    for name, text in WHERE.items():
        values = ", ".join(f"{kind} {shares(table, kind)[name]:.2f} %" for kind in KINDS)
        found.append(Check("R14", f"exits with the {text}", values))
    exits = ", ".join(f"{kind} {of(table, kind)['exits'].sum():,}" for kind in KINDS)
    found.append(Check("R14", "exits, all runs", exits))
    makespans = ", ".join(f"{kind} {np.mean(of(table, kind)['now_us']) / 1e6:.3f}" for kind in KINDS)
    return [*found, Check("R14", "mean makespan, s", makespans)]


def draw(table: Table, path: Path) -> None:
    """Exits per run by what the lock was doing, for each kind of lock."""
    with picture(path, 7, 3.5) as (_, axes):
        left = np.zeros(len(KINDS))
        for (name, text), colour in zip(WHERE.items(), COLOURS, strict=False):
            values = np.array([of(table, kind)[name].mean() for kind in KINDS])
            axes.barh(KINDS, values, left=left, color=colour, label=text)
            left += values
        axes.set(xlabel="PLE exits per run", title="Paper8 under Xen 4.5")
        axes.legend(frameon=False)


COLUMNS = ("now_us", "exits", *WHERE, "lhp_events", "lwp_events", "free_for")
EXPERIMENT = Experiment("lock_kinds", __doc__, COLUMNS, run, checks, draw, measure)
