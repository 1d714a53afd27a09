"""How far does a rule carry that was read off from a learned policy? Worlds around the one that it comes from.

That world is `Fleet-18`: two Windows VMs of 16 vCPUs on 8 pCPUs under KVM, with locks in FIFO order, some of them held
for long. One thing at a time is varied, under three versions of Linux: 5.15 is the last but one with CFS for long-term
use, 6.6 has EEVDF, and since 6.18.2 a yield forfeits virtual time. The rule runs as tuned in that world, in parts of
it, and with its defaults, beside what KVM has and other rules.

How it was read off: the searched policy of that world (`experiments/answer/learnable.py`) also runs there without each
of its inputs, one at a time.

Both VMs also work without end there, for a tenth of a second, to see who gains.

A row holds how long a run took, and how many transactions each of the first two VMs ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from experiments.answer.fleet import TUNED_FILE
from experiments.answer.learnable import KEPT, SEARCHED, searched
from experiments.answer.rules import in_percent, percent
from experiments.lab import Experiment, Table, Task, overrides_text, rough, run_of, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.evaluate.statistics import Estimate, Floats, ratio
from ple_gym.learned.file import for_hosts_like, inputs_of
from ple_gym.learned.policy import LearnedPolicy
from ple_gym.policies import Compiled, load_compiled
from ple_gym.rules.own import own_rule
from ple_gym.scenario import Scenario
from ple_gym.tuned import policy_in

BASE = "Fleet-18"
LINUX = ("5.15", "6.6", "6.18.2")
SEEDS = seeds.LEARNABLE[1000:1020]
RULE = "longest-in-kernel"
#: As the certificate of that world has it, tuned there.
_TUNED = "ripe_us=3,spared_us=9,fallback=resume"
TUNED = f"{RULE}:halvings=2,{_TUNED}"
#: That, but for one thing: among siblings only; no pCPU before another; each asker's own pCPU before others.
PARTS = (f"{TUNED},vms=own", f"{RULE}:halvings=0,{_TUNED}", f"{TUNED},place=distance")
#: Of what was there before; by name, so that a new rule does not make the committed table incomplete.
OTHERS = (
    "host", "kvm-2012", "kvm-5.2", "kvm-6.18", "strict-boost", "ipi-aware", "longest-sibling", "longest-waiting",
    "paper-local", "random", "victim-aware", policy_in(str(TUNED_FILE)),
)  # fmt: skip


def _both(**changes: object) -> dict[str, object]:
    """The same for both VMs."""
    return {f"{vm}.{name}": value for vm in ("guest", "neighbours.0") for name, value in changes.items()}


#: Who runs where both VMs work without end, the host's own rule first.
ON_ENDLESS = (own_rule(world(BASE, "")), RULE, TUNED, *PARTS)
#: What is varied, by what the page calls it.
VARIED: Mapping[str, Mapping[str, object]] = {
    "as it is": {},
    "a group for all": {"host.groups": "flat"},
    "a group for each vCPU": {"host.groups": "vcpu"},
    "slices of 3 ms": {"host.base_slice_us": 3000},
    "vCPUs spread": {"host.placement": "spread"},
    "16 pCPUs": {"host.pcpus": 16},
    "4 pCPUs": {"host.pcpus": 4},
    "three VMs": {"neighbours.0.count": 2},
    "VMs of 8 vCPUs": _both(vcpus=8, transactions=806),
    "VMs of 8 vCPUs, 4 pCPUs": _both(vcpus=8, transactions=806) | {"host.pcpus": 4},
    "no notifications": _both(notify_after=0),
    "ticket locks": _both(notify_after=0, lock_kind="ticket"),
    "test-and-set locks": _both(notify_after=0, lock_kind="tas"),
    "paravirtual locks": _both(notify_after=0, lock_kind="pv", pv_spin_threshold=32768),
    "short holds": _both(hold="exponential 2500"),
    "4 locks": _both(locks=4),
    "64 locks": _both(locks=64),
    "longer sections": _both(compute="exponential 60000"),
    "more kernel mode": _both(kernel_share=0.7),
    "no sleep": _both(block_probability=0.0),
    "no line at the start": _both(start="fresh"),
}


#: Both work for so long, instead of until all is done.
ENDLESS = {**_both(transactions=0), "limit.simulated_s": 0.1}


@dataclass(frozen=True)
class Place:
    """A world."""

    linux: str
    varied: str

    @property
    def overrides(self) -> dict[str, object]:
        """What tells it from the base."""
        return {"host.linux": self.linux, "limit.simulated_s": 0.5} | dict(VARIED[self.varied])

    @property
    def scenario(self) -> Scenario:
        """The machine."""
        return world(BASE, overrides_text(self.overrides))

    @property
    def own(self) -> str:
        """The rule that its host has."""
        return own_rule(self.scenario)

    def times(self, table: Table, policy: str) -> Floats:
        """Makespans, per seed; milliseconds."""
        rows = table.where(scenario=BASE, overrides=overrides_text(self.overrides), policy=policy)
        return np.asarray(rows["now_us"] / 1000)

    def change(self, table: Table, policy: str, base: str) -> Estimate:
        """By how much a policy takes longer than another, on the same seeds, percent."""
        return in_percent(ratio(np.log(self.times(table, policy)) - np.log(self.times(table, base))))

    def best(self, table: Table) -> str:
        """Of all that was there before the one that is best on these seeds, which flatters it."""
        return min((self.own, *OTHERS), key=lambda policy: float(np.log(self.times(table, policy)).mean()))


def against_best(table: Table, one: Place) -> Estimate:
    """The tuned rule against the best of the others, percent."""
    return one.change(table, TUNED, one.best(table))


def places() -> Iterator[Place]:
    """All of them."""
    for linux, varied in itertools.product(LINUX, VARIED):
        yield Place(linux, varied)


def run(quick: bool) -> list[Task]:
    """Every world."""
    own = SEEDS[:2] if quick else SEEDS
    wanted = [
        task
        for place in itertools.islice(places(), 2 if quick else None)
        for task in tasks(BASE, policies(place), own, place.overrides)
    ]
    wanted += tasks(BASE, ON_ENDLESS, own, ENDLESS)
    return wanted + tasks(BASE, [SEARCHED, *map(without, inputs())][: 3 if quick else None], own)


def policies(place: Place) -> list[str]:
    """Who runs in a world."""
    return list(dict.fromkeys([place.own, *OTHERS, RULE, TUNED, *PARTS]))


def inputs() -> tuple[str, ...]:
    """What the searched policy sees: of each vCPU, and of the host."""
    seen = inputs_of("linear", "hypervisor", **for_hosts_like(world(BASE, "")))
    return (*(f"vcpu {name}" for name in seen.vcpu), *(f"host {name}" for name in seen.host))


def without(name: str) -> str:
    """The searched policy without one of its inputs."""
    return f"{SEARCHED} without {name}"


def policy_of(name: str) -> Compiled:
    """A rule, or what was searched, with all its weights or with that of an input at 0."""
    if not name.startswith(SEARCHED):
        return load_compiled(name)
    policy = searched(BASE)
    for place, one in enumerate(inputs()):
        if name == without(one):
            weights = {key: array.copy() for key, array in policy.network.weights.items()}
            of_vcpus = weights["vcpu"].size
            weights["vcpu" if place < of_vcpus else "defer"].flat[place % of_vcpus] = 0.0
            return LearnedPolicy(name, replace(policy.network, weights=weights), "linear network")
    return policy


def measure(task: Task) -> dict[str, int]:
    """How long a run took, microseconds, rough, and the transactions that two VMs ended."""
    totals = run_of(task, policy_of).totals(0)
    now_us = rough(totals["now"] * 1_000_000 // world(task.scenario, task.overrides).host.tsc_hz)
    return {"now_us": now_us} | {f"done_{vm}": totals["vms"][vm]["completed"] for vm in range(2)}


def gained(table: Table, policy: str, vm: int) -> Estimate:
    """By how much a VM does more of its endless work than under the host's own rule, percent."""
    own, host = (
        np.log(table.where(scenario=BASE, overrides=overrides_text(ENDLESS), policy=one)[f"done_{vm}"])
        for one in (policy, ON_ENDLESS[0])
    )
    return in_percent(ratio(own - host))


def lost(table: Table, name: str) -> Estimate:
    """By how much the searched policy takes longer without one of its inputs, percent."""
    own, whole = (
        np.log(table.where(scenario=BASE, overrides="", policy=one)["now_us"]) for one in (without(name), SEARCHED)
    )
    return in_percent(ratio(own - whole))


def checks(table: Table) -> list[Check]:
    """The tuned rule against the best of the others under each version of Linux; reported only."""
    return [
        Check(
            "in_kernel", f"Linux {linux}: tuned against the best other of {len(own)} worlds", percent(in_percent(found))
        )
        for linux in LINUX
        for own in [[one for one in places() if one.linux == linux]]
        for found in [ratio(np.array([np.log1p(against_best(table, one).mean / 100) for one in own]))]
    ]


EXPERIMENT = Experiment(
    "in_kernel", __doc__, ("now_us", "done_0", "done_1"), run, checks, measure=measure, inputs=(KEPT.path,)
)
