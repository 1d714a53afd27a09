"""What mends it elsewhere? Remedies of guest and host, alone and beside a rule at the exit.

Hypervisors and guests were given other remedies than a choice at the pause-loop exit: a line that is no line
(preemptable ticket locks), later preemption, siblings on different queues, vCPUs that run together, fewer vCPUs. Each
is a switch here (docs/model.md, 7.8, 7.12, 9.11 to 9.15); vCPU ballooning is also a VM that has only as many vCPUs as
its share of the pCPUs, from the start. All are under Xen 4.5's credit scheduler, but for `KvmEbizzy`, whose guests take
no lock and wait for acknowledgements; with the host's own yield at an exit, and with `spin-age-self`, which runs a
likely holder or the oldest spinner. No spinner takes the place of whom it displaces.

A row is a run: its time and its longest steal in microseconds, and how much later than the first VM the last was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experiments.answer.rules import in_percent, percent
from experiments.lab import Experiment, Table, Task, overrides_text, rough, seeds, tasks, totals, world
from experiments.lab.report import Check
from ple_gym.evaluate.statistics import Estimate, estimate, ratio

Settings = Mapping[str, object]

RULES = ("host", "spin-age-self")
SEEDS = 200
BITS = 11  # of what is shown with two or three digits
NONE = "none"

#: What is shown as -> scenario and overrides. `Busy4 twice`: Busy8's load in two VMs, each as large as the machine.
WORLDS: Mapping[str, tuple[str, Settings]] = {
    "Busy8": ("Busy8-v1", {}),
    "Busy4 twice": ("Busy8-v1", {"guest.count": 2, "guest.vcpus": 4, "guest.transactions": 500}),
    "Paper8": ("Paper8-v1", {}),
    "Consolidated": ("Consolidated-v1", {}),
    "KvmEbizzy": ("KvmEbizzy", {}),
}
#: Half of the pCPUs' time is a VM's where two are alike; all of it where it is alone.
BALLOONED: Mapping[str, Settings] = {
    "Busy8": {"guest.vcpus": 4}, "Busy4 twice": {"guest.vcpus": 2}, "Paper8": {"guest.vcpus": 4},
    "Consolidated": {"guest.vcpus": 1}, "KvmEbizzy": {"guest.vcpus": 8},
}  # fmt: skip
BALLOONING = "as many vCPUs as the share"
FOLLOWING = "as many runnable as the share"
URGENT = "the interrupted at once"
STRICT = "strict co-scheduling"
SHORT = "time slices of 1 ms"
MICRO = "slices of 0.1 ms after an exit"
LATER = "preemption up to 1 ms later"
REMEDIES: Mapping[str, Settings] = {
    NONE: {},
    "preemptable ticket locks": {"guest.lock_kind": "preemptable-ticket"},
    LATER: {"host.defer_preemption_us": 1000},
    "balance scheduling": {"host.balance_siblings": True},
    "relaxed co-scheduling, 3 ms": {"host.coscheduling": "relaxed"},
    STRICT: {"host.coscheduling": "strict"},
    SHORT: {"host.timeslice_ms": 1, "host.ratelimit_us": 100},
    MICRO: {"host.micro_slice_us": 100, "host.ratelimit_us": 100},
    BALLOONING: {},
    FOLLOWING: {"guest.balloon": True},
    URGENT: {"host.ipi_visible": True, "host.urgent_ipis": True},
}

#: What stands for a remedy where Xen's parameters have no effect.
LINUX: Mapping[str, Settings] = {SHORT: {"host.base_slice_us": 1000}, MICRO: {"host.micro_slice_us": 100}}


@dataclass(frozen=True)
class Cell:
    """A remedy and a rule in a world. Changes are against no remedy and the host's own yield, on the same seeds."""

    place: str
    remedy: str
    rule: str

    @property
    def overrides(self) -> dict[str, object]:
        """Of the world."""
        own = REMEDIES[self.remedy]
        if self.remedy == BALLOONING:
            own = BALLOONED[self.place]
        if self.place == "KvmEbizzy":
            own = LINUX.get(self.remedy, own)
        return {**WORLDS[self.place][1], **own}

    def rows(self, table: Table) -> Table:
        """Its runs, a row per seed."""
        return table.where(scenario=WORLDS[self.place][0], overrides=overrides_text(self.overrides), policy=self.rule)

    def change(self, table: Table) -> Estimate:
        """Of the makespan, in percent."""
        base = Cell(self.place, NONE, "host").rows(table)
        return in_percent(ratio(np.log(self.rows(table)["now_us"] / base["now_us"])))


def applies(place: str, remedy: str) -> bool:
    """Whether a remedy can be had in a world: a gang must fit the machine, and Linux has but few;
    who takes locks only is interrupted by nobody.
    """
    if place == "KvmEbizzy":
        return remedy in (NONE, LATER, BALLOONING, URGENT, *LINUX)
    return remedy != URGENT and (remedy != STRICT or place in ("Busy4 twice", "Consolidated"))


def cells() -> list[Cell]:
    """Every remedy in every world where it applies, under both rules."""
    return [
        Cell(place, remedy, rule)
        for place in WORLDS for remedy in REMEDIES if applies(place, remedy) for rule in RULES
    ]  # fmt: skip


def run(quick: bool) -> list[Task]:
    """All cells on equal seeds."""
    own = seeds.REMEDIES[: 2 if quick else SEEDS]
    return [task for cell in cells() for task in tasks(WORLDS[cell.place][0], (cell.rule,), own, cell.overrides)]


def measure(task: Task) -> dict[str, int]:
    """What a run amounts to.

    How often a holder, and the next in line, lost its pCPU, and how far VMs end apart, is kept of `Busy8`'s load only.
    """
    run, hz = totals(task), world(task.scenario, task.overrides).host.tsc_hz
    vms = range(sum(name.startswith("useful_") for name in run))
    finishes = [run[f"finish_{number}"] for number in vms]
    busy8 = task.scenario == WORLDS["Busy8"][0]
    apart = max(finishes) - min(finishes) if run["finished"] and busy8 else 0
    return {
        "now_us": run["now_us"],
        "steal_10us": rough(max(run[f"longest_steal_{number}"] for number in vms) * 100_000 // hz, BITS),
        "apart_us": rough(apart * 1_000_000 // hz, BITS),
        "finished": run["finished"],
        "exits": rough(run["exits"], BITS),
        **{name: run[name] * busy8 for name in ("lhp_events", "lwp_events")},
    }


def mean(table: Table, column: str, scale: float = 1.0) -> Estimate:
    """Mean of a column."""
    return estimate(scale * table[column].astype(np.float64)[np.newaxis])


def checks(table: Table) -> list[Check]:
    """The change of the makespan of every cell, reported only; docs/findings-on-guests.md has the rest."""
    return [
        Check("remedies", f"{cell.place}: {cell.remedy}, `{cell.rule}`", percent(cell.change(table)))
        for cell in cells()
        if (cell.remedy, cell.rule) != (NONE, "host")
    ]


COLUMNS = ("finished", "now_us", "exits", "lhp_events", "lwp_events", "steal_10us", "apart_us")
EXPERIMENT = Experiment("remedies", __doc__, COLUMNS, run, checks, measure=measure)
