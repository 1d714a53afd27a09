"""The fleet: a distribution of small worlds, so that a policy is asked on many hosts and guests, not on one.

World `n` of a split is drawn here, from `RANGES` and `COMBINATIONS` alone. A draw is a hash of what it is for, and all
arithmetic is that of whole numbers: the same split and number give the same world on every machine.

    ple_gym.load("FleetTest-17")       # a world by its name, as any scenario
    gymnasium.make("PLE/FleetTest-v0")  # an environment that draws one for each episode
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from typing import Any, NamedTuple

from ple_gym.errors import ArgumentError
from ple_gym.scenario.fleet_draws import PASSED
from ple_gym.scenario.model import Host, Scenario, Vm
from ple_gym.scenario.profiles import GUESTS

SPLITS = ("Fleet", "FleetValidation", "FleetTest")
"""To train on, to choose on, and to report."""
VERSION = 0
WORLDS = 1024
"""Of each split: seed `s` is run in world `number_of(split, s)` of them."""
MAX_VCPUS = 32
"""Of all VMs of a world together; observations and masks have room for so many."""

MS = 1000
LIMIT = 6
"""A run is cut off after so many times the time that its work takes at its VMs' share of the machine."""
BUSIEST = 500
"""Per mille of the time that the busiest lock of a VM may be asked for, if all pCPUs work for it."""
EXITS = range(100, 10_001)
"""How many exits a kept world may have under the host's own rule."""
SPARSEST = 10
"""Events for each exit that it may have then, at most: an episode is made of decisions, and is quick."""
TEST_SEED = 10**9
"""Of the run that decides whether a draw is kept; no experiment has it."""


@dataclass(frozen=True)
class Range:
    """What a world's parameter is drawn from: all `values` alike (one that stands twice is drawn twice as often)."""

    values: tuple[Any, ...]
    what: str
    source: str


_ASSUMED = "assumed"
#: Each range stands here once. The fleet's page of the site is made of it (`website/fleet.py`).
RANGES: Mapping[str, Range] = {
    "scheduler": Range(
        ("fair", "credit", "credit2"), "the host's scheduler", "two thirds Xen, so that steps are quick: " + _ASSUMED
    ),
    "machine": Range(
        ("westmere-xen-4.5", "xcp-ng-8.3", "xen-4.20-credit2", "skylake-kvm-6.6", "zen-kvm-6.18"),
        "costs and pause-loop exiting of that profile, of those with the scheduler",
        "docs/hosts/profiles.md",
    ),
    "pcpus": Range((2, 2, 2, 3, 3, 4, 4, 6, 8, 12, 16), "`host.pcpus`", "4 in the paper, 8 to 16 in field cases"),
    "sockets": Range((1, 1, 2), "`host.sockets`; 1 below 4 pCPUs", _ASSUMED),
    "busy": Range(
        (150, 150, 200, 200, 300, 400),
        "vCPUs in per cent of the pCPUs, at most 32 in all",
        "2:1 to 4:1 in published work on pause-loop exits",
    ),
    "neighbours": Range(
        ("none", "none", "twin", "hog", "twin and hog", "sleeper"),
        "a VM like the guest with work of its own; one that computes without end; one that sleeps, works 20 us and "
        "sleeps again",
        "twins and hogs: published runs of 2 and 3 VMs; sleepers: field case F3",
    ),
    "actuator of fair": Range(("hint",), "`decision.actuator`", "KVM's `yield_to`"),
    "actuator of credit": Range(("yield", "local"), "`decision.actuator`", "Xen's own; the paper's proposal"),
    "actuator of credit2": Range(("yield", "local"), "`decision.actuator`", "Xen's own; the paper's proposal"),
    "placement": Range(
        ("spread", "stacked"), "`host.placement` of `fair` and `credit2`: siblings side by side, or on one pCPU",
        "both arise; credit has it in its combinations",
    ),
    "timeslice": Range((30, 30, 5), "`host.timeslice_ms` of `credit`", "Xen's default; 5 ms in field cases F4 and F5"),
    "ratelimit": Range((1000, 1000, 0), "`host.ratelimit_us` under Xen", "Xen's default; off in field cases"),
    "tick": Range((4000, 1000), "`host.tick_us` of `fair`", "HZ = 250 and 1000: Debian's and RHEL's"),
    "slice": Range((0, 0, 750), "`host.base_slice_us` of `fair`; 0: Linux's own", "Linux's default; unscaled"),
    "exit": Range((1, 1, 1, 3), "`cost.exit` is so many times the profile's", "nested or mitigated machines: assumed"),
    "candidate": Range((0, 80), "`cost.exit_per_candidate`, cycles", "20 to 50 ns for each sibling looked at: assumed"),
    "yield_to": Range((0, 1500), "`cost.yield_to`, cycles", "0.3 to 1 us under two runqueues' locks: assumed"),
    "visible": Range((False, True), "`host.ipi_visible` where siblings are interrupted", "APICv, or without"),
    "waits": Range(
        ("locks", "locks", "sleeps", "shoot-downs", "nested"),
        "what a transaction does: takes locks; and sleeps at times; and interrupts all siblings and waits for their "
        "answers at times; or does so while it holds a lock. The last two where docs/model.md, 7.10 says how",
        "ebizzy, dedup and vips: flushes of siblings' TLBs; F15: with a lock held",
    ),
    "compute": Range(
        (10_000, 20_000, 50_000, 100_000), "mean cycles of computing between two sections, exponential",
        "Storm 30,000, Paper32 110,000; no source says how often a load locks",
    ),
    "hold": Range(
        ("usual", "1 us", "8 us", "long tail"), "how long a lock is held",
        "99.5 % below 2,048 cycles; averages and maxima of lock_stat's documentation",
    ),
    "locks": Range((1, 2, 4, 16), "`guest.locks`", _ASSUMED),
    "locking": Range((100, 300, 1000), "per mille of sections that take a lock", _ASSUMED),
    "kernel": Range((1, 3, 7), "tenths of computing in kernel mode", _ASSUMED),
    "flushing": Range((20, 50, 100), "per mille of transactions that interrupt", "20 to 1000/s of each vCPU: assumed"),
    "threads": Range((0, 0, 0, 2), "threads for each vCPU (0: one), without interrupts", _ASSUMED),
    "start": Range(("fresh", "fresh", "convoy"), "`guest.start`; fresh where siblings are interrupted", "as Storm"),
    "work": Range((5, 10, 20), "ms that the work takes at its VMs' share of the machine", "so that episodes are quick"),
}  # fmt: skip


class Axis(NamedTuple):
    """What is held out: every combination of one version, one layout and one guest kernel is in one split alone."""

    version: str  # parameter
    versions: tuple[str, ...]
    layout: str  # parameter
    layouts: tuple[str, ...]
    kernels: tuple[str, ...]


_LINUX = ("linux-ticket", "linux-tas", "linux-queued", "linux-pv")
AXES: Mapping[str, Axis] = {
    "credit": Axis(
        "host.xen", ("4.5", "4.8", "4.17", "4.18", "4.21"), "host.placement", ("spread", "stacked"),
        (*_LINUX, "windows-xen"),
    ),
    "credit2": Axis(
        "host.xen", ("4.8", "4.17", "4.18", "4.21"), "host.runqueue", ("cpu", "socket", "all"),
        (*_LINUX, "windows-xen"),
    ),
    "fair": Axis(
        "host.linux", ("5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2"), "host.groups", ("vm", "flat", "vcpu"),
        (*_LINUX, "windows"),
    ),
}  # fmt: skip


class Combination(NamedTuple):
    """One host version, one layout and one guest kernel, under a scheduler."""

    scheduler: str
    version: str
    layout: str
    kernel: str


def _split_of(place: int) -> str:
    """Three fifths to train on, one to choose on, one to report."""
    return {0: "FleetValidation", 1: "FleetTest"}.get(place % 5, "Fleet")


#: Split -> its combinations. A Latin square: each version, layout and kernel is in every split, each triple in one.
COMBINATIONS: Mapping[str, tuple[Combination, ...]] = {
    split: tuple(
        Combination(scheduler, version, layout, kernel)
        for scheduler, axis in AXES.items()
        for (i, version), (j, layout), (k, kernel) in product(
            enumerate(axis.versions), enumerate(axis.layouts), enumerate(axis.kernels)
        )
        if _split_of(i + 2 * j + k) == split
    )
    for split in SPLITS
}

#: Holds by name: the distribution, and its mean in cycles, about.
_HOLDS = {
    "usual": (Vm().hold, 700),
    "1 us": ("exponential 2500", 2500),
    "8 us": ("exponential 20000", 20_000),
    "long tail": ("knots 0:120 0.5:600 0.98:2048 0.985:75000 1:750000", 4800),
}
_MACHINES = {
    "credit": ("westmere-xen-4.5", "xcp-ng-8.3"),
    "credit2": ("xen-4.20-credit2",),
    "fair": ("skylake-kvm-6.6", "zen-kvm-6.18"),
}
_SLEEP = 750_000  # cycles, 0.3 ms
_NEVER_ENDS: dict[str, Any] = {"transactions": 0, "locks": 0, "lock_probability": 0.0, "sections": 1}


class _Draw:
    """The draws of one candidate of one world."""

    def __init__(self, split: str, number: int, candidate: int) -> None:
        self.of = f"{split}-v{VERSION} {number} {candidate}"

    def one_of(self, what: str, values: tuple[Any, ...]) -> Any:
        """One of the values, whatever else is drawn."""
        digest = blake2b(f"{self.of} {what}".encode(), digest_size=8).digest()
        return values[int.from_bytes(digest, "little") % len(values)]

    def __call__(self, name: str, fits: Callable[[Any], bool] = lambda value: True) -> Any:
        """A value of a range, of those that fit."""
        return self.one_of(name, tuple(value for value in RANGES[name].values if fits(value)))


def candidate(split: str, number: int, place: int) -> Scenario | None:
    """Draw `place` of the stream of world `number`; None if its busiest lock is too busy (`BUSIEST`)."""
    draw = _Draw(split, number, place)
    scheduler = draw("scheduler")
    combinations = tuple(one for one in COMBINATIONS[split] if one.scheduler == scheduler)
    chosen: Combination = draw.one_of("combination", combinations)
    settings, host = _settings(draw, chosen)
    vcpus = host.pcpus * draw("busy", lambda busy: host.pcpus < host.pcpus * busy // 100 <= MAX_VCPUS) // 100
    guest, mean, busiest = _guest(draw, chosen.kernel, host.pcpus)
    if busiest > BUSIEST:
        return None
    neighbours = draw("neighbours")
    others: list[Vm] = []
    twins = 1 + ("twin" in neighbours)
    own = vcpus // (twins + ("hog" in neighbours))
    if "hog" in neighbours:
        others.append(Vm(vcpus=min(host.pcpus, vcpus - twins * own), compute="constant 2500000000", **_NEVER_ENDS))
    if neighbours == "sleeper":
        own = vcpus - max(1, host.pcpus // 4)
        others.append(
            Vm(
                vcpus=vcpus - own, compute="exponential 50000", block_probability=1.0, kernel_share=0.5,
                block="exponential 750000", **_NEVER_ENDS,
            )
        )  # fmt: skip
    if own < 2:
        return None
    work = draw("work")
    share = twins * own * 1000 // (twins * own + sum(vm.vcpus for vm in others if neighbours != "sleeper"))
    cycles = work * (host.tsc_hz // 1000) * host.pcpus * share // (1000 * twins)
    guest |= {"vcpus": own, "transactions": max(own, cycles // mean)}
    if guest.get("threads"):
        guest["threads"] = own * guest["threads"]
    vm = Vm(**guest)
    settings |= {"limit.simulated_s": work * LIMIT / MS}
    world = Scenario(
        name=f"{split}-{number}",
        description=f"World {number} of the {split} split: {', '.join(chosen)}",
        guest=vm,
        neighbours=(*[vm] * (twins - 1), *others),
    )
    return world.with_overrides(settings)


def _settings(draw: _Draw, chosen: Combination) -> tuple[dict[str, object], Host]:
    """The machine and its host as overrides; and as a `Host`, for what depends on it."""
    scheduler, axis = chosen.scheduler, AXES[chosen.scheduler]
    machine = draw("machine", lambda name: name in _MACHINES[scheduler])
    alone = Scenario().with_profile(machine)
    pcpus = draw("pcpus")
    settings: dict[str, object] = {
        "profile": machine,
        "host.pcpus": pcpus,
        "host.sockets": draw("sockets") if pcpus >= 4 else 1,
        axis.version: chosen.version,
        axis.layout: chosen.layout,
        "decision.actuator": draw(f"actuator of {scheduler}"),
        "cost.exit": alone.cost.exit * draw("exit"),
        "cost.exit_per_candidate": draw("candidate"),
        "cost.yield_to": draw("yield_to"),
    }
    if scheduler == "fair":
        settings |= {"host.tick_us": draw("tick"), "host.base_slice_us": draw("slice")}
        settings |= {"host.kick_yields": chosen.kernel == "linux-pv"}
    else:
        settings |= {"host.ratelimit_us": draw("ratelimit")}
    if scheduler == "credit":
        settings |= {"host.timeslice_ms": draw("timeslice")}
    else:
        settings |= {"host.placement": draw("placement")}
    settings["host.ipi_visible"] = draw("visible")
    return settings, replace(alone.host, pcpus=pcpus)


def _guest(draw: _Draw, kernel: str, pcpus: int) -> tuple[dict[str, Any], int, int]:
    """What the guest does, the mean cycles of a transaction, and per mille of the time its busiest lock is used."""
    waits = draw("waits", lambda waits: kernel != "linux-pv" or waits in ("locks", "sleeps"))
    compute, locks, in_kernel = draw("compute"), draw("locks"), draw("kernel")
    hold, held = _HOLDS[draw("hold")]
    guest: dict[str, Any] = dict(GUESTS[kernel]) | {"locks": locks, "kernel_share": in_kernel / 10}
    if waits in ("locks", "sleeps"):
        sections, locking = 5, draw("locking")
        guest |= {
            "compute": f"exponential {compute}", "hold": hold, "sections": sections, "lock_probability": locking / 1000,
            "start": draw("start"), "threads": draw("threads"),
        }  # fmt: skip
        if waits == "sleeps":
            guest |= {"block_probability": 0.02, "block": f"exponential {_SLEEP}"}
        mean = compute + held * locking // 1000
        return guest, sections * mean, pcpus * held * locking // (mean * locks)
    flushing = draw("flushing")
    begin, keep = f"compute exponential {compute} kernel 0.{in_kernel}; lock any; compute {hold}", 1000 - flushing
    if waits == "nested":
        guest["program"] = f"{begin}; jump 5 with 0.{keep:03}; ipi all; unlock any"
    else:
        guest["program"] = f"{begin}; unlock any; jump end with 0.{keep:03}; ipi all"
    mean = compute + held
    return guest, mean, pcpus * held * 1000 // (mean * locks)


@lru_cache(maxsize=4 * WORLDS)
def world(split: str, number: int) -> Scenario:
    """World `number` of a split, `PLE/Fleet-v0`'s for instance: the first draw of its stream that is kept.

    Raises:
        ArgumentError: no such split, or no such world.
    """
    if split not in SPLITS:
        raise ArgumentError(f"split = {split!r}: must be {', '.join(SPLITS)}")
    if not 0 <= number < WORLDS:
        raise ArgumentError(f"{split}: world {number}: must be 0..{WORLDS - 1}")
    found = candidate(split, number, int(PASSED[split][number], 36))
    assert found is not None
    return found


def number_of(split: str, seed: int) -> int:
    """The world in which a seed, 0..2^64-1, is run."""
    digest = blake2b(f"{split} {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % WORLDS


_NAME = re.compile(rf"({'|'.join(SPLITS)})(?:-v{VERSION})?-([0-9]{{1,6}})")


def named(name: str) -> Scenario | None:
    """The world of a name such as `FleetTest-17`; None if it is no such name.

    Raises:
        ArgumentError: there is no world of that number.
    """
    match = _NAME.fullmatch(name)
    return world(match[1], int(match[2])) if match else None


def is_fleet(name: object) -> str | None:
    """The split that an environment's name or id means: `Fleet`, `PLE/FleetTest-v0`; None if none."""
    if not isinstance(name, str):
        return None
    split = name.removeprefix("PLE/").removesuffix(f"-v{VERSION}")
    return split if split in SPLITS else None
