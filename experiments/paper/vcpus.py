"""Do more vCPUs on the same pCPUs make a preempted holder dearer?

Section 3.1: the more vCPUs a VM has, the harder it is to guess the holder, and the more often one preemption leads to
several PLE. Once with a single preemption (a holder off its pCPU, everyone else in line), once with the load of Paper8
and 4 to 32 vCPUs, a given lock taken every 72 ms by each. With 4 vCPUs in line everyone runs, the holder too: the few
exits are false, made while a holder's cache is cold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check

ONE, LOAD = "OnePreemption", "PLE/Paper8-v0"
VCPUS = (4, 6, 8, 12, 16, 24, 32)
POLICIES = ("xen-4.5", "xen-4.8")
RARE = 200  # locks, so that a vCPU takes a given one every 72 ms


def single(vcpus: int) -> dict[str, object]:
    return {"guest.vcpus": vcpus, "guest.transactions": vcpus}


def loaded(vcpus: int) -> dict[str, object]:
    return {"guest.vcpus": vcpus, "guest.locks": RARE}


def run(quick: bool) -> list[Task]:
    """Both worlds for each number of vCPUs."""
    few, many = (10, 20) if quick else (100, 1_000)
    wanted = [task for v in VCPUS for task in tasks(ONE, POLICIES, seeds.FIGURES[:few], single(v))]
    return wanted + [task for v in VCPUS for task in tasks(LOAD, "xen-4.5", seeds.FIGURES[:many], loaded(v))]


def per_preemption(table: Table, policy: str) -> list[float]:
    """Mean exits that one preempted holder leads to, by the number of vCPUs."""
    part = table.where(scenario=ONE, policy=policy)
    return [float(part.where(overrides=overrides_text(single(v)))["exits"].mean()) for v in VCPUS]


def under_load(table: Table) -> list[tuple[int, int, int]]:
    """Exits, preempted holders and runs with at least one, of all runs, by the number of vCPUs."""
    parts = [table.where(scenario=LOAD, overrides=overrides_text(loaded(v))) for v in VCPUS]
    return [(int(p["exits"].sum()), int(p["lhp_events"].sum()), int((p["exits"] > 1_000).sum())) for p in parts]


def checks(table: Table) -> list[Check]:
    """R16."""
    found = []
    for policy in POLICIES:
        means = per_preemption(table, policy)
        text = ", ".join(f"{v}: {mean:,.0f}" for v, mean in zip(VCPUS, means, strict=True))
        found.append(Check("R16", f"PLE after one preemption by vCPUs, {policy}", text, "rising", rising(means)))
    load = under_load(table)
    ratios = [exits / lhp if lhp else 0.0 for exits, lhp, _ in load]
    text = ", ".join(f"{v}: {ratio:,.0f}" for v, ratio in zip(VCPUS, ratios, strict=True))
    found.append(Check("R16", "PLE / preempted holders under load, by vCPUs", text, "rising", rising(ratios)))
    text = ", ".join(f"{v}: {lhp}" for v, (_, lhp, _) in zip(VCPUS, load, strict=True))
    found.append(Check("R16", "preempted holders under load", text))
    return found


def rising(values: list[float]) -> bool:
    return bool(np.all(np.diff(values) > 0))


def draw(table: Table, path: Path) -> None:
    """Exits per preempted holder against the number of vCPUs."""
    with picture(path, 9, 4, ncols=2) as (_, (left, right)):
        for policy, colour in zip(POLICIES, COLOURS, strict=False):
            left.plot(VCPUS, per_preemption(table, policy), "o-", color=colour, label=policy)
        left.set(title="one preempted holder, all others in line", yscale="log")
        left.set(xlabel="vCPUs on 4 pCPUs", ylabel="PLE exits")
        left.legend(frameon=False)
        load = under_load(table)
        right.plot(VCPUS, [exits / max(1, lhp) for exits, lhp, _ in load], "o-", color=COLOURS[0])
        right.set(title="Paper8's load, rare locks, Xen 4.5")
        right.set(xlabel="vCPUs on 4 pCPUs", ylabel="PLE exits / preempted holders")


COLUMNS = ("exits", "lhp_events")
EXPERIMENT = Experiment("vcpus", __doc__, COLUMNS, run, checks, draw)
