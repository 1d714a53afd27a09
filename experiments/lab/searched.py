"""The machines of `experiments/answer/headroom.py`: where a choice under Linux/KVM might be hard.

A lock-heavy VM beside VMs that compute without end, on four pCPUs. Its vCPUs have pCPUs of their own, each shared with
two that compute; or twice as many, two siblings on each pCPU, with one that computes. Its sections are short, but one
lock in a hundred is held for 30 to 300 us; with flushes, one transaction in ten also interrupts all siblings and spins
until they have answered. Sizes are those of a throw-away model of such a host that found choices to matter by factors
there; no source says how often a load takes which lock.

With requests, a VM that sleeps and then works for 100 us, on the mean, stands in place of one that computes: 99 % of
its responses should take 2 ms at most. On two sockets, a vCPU that goes to the other one needs a millisecond to fill
its caches, ten times as long as on Skylake: assumed, for a load with much memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ple_gym.scenario import Host, Scenario, Vm
from ple_gym.scenario.core import COMPUTES, HELD, LOCKS, SERVES, under_kvm

_FLUSHES = f"compute uniform 15000 45000 kernel 0.5; jump 3 with 0.9; ipi all; lock any; compute {HELD}; unlock any"
_APART = (replace(COMPUTES, count=2),)

#: Whether siblings share pCPUs, and what is waited for: vCPUs of the VM that takes locks, its work, and its neighbours.
_SIZES: Mapping[tuple[str, str], tuple[int, int, tuple[Vm, ...]]] = {
    ("Apart", "Locks"): (4, 3800, _APART),
    ("Apart", "Flushes"): (4, 3800, _APART),
    ("Apart", "Requests"): (4, 3800, (SERVES, COMPUTES)),
    ("Stacked", "Locks"): (8, 1500, (COMPUTES,)),
    ("Stacked", "Flushes"): (8, 1500, (COMPUTES,)),
    ("Sockets", "Requests"): (4, 3800, (SERVES, COMPUTES)),
}
_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "Apart": {},
    "Stacked": {"host.placement": "stacked", "limit.simulated_s": 0.12},
    "Sockets": {"host.sockets": 2, "cost.remote_migration": 2_500_000},
}


def _world(place: str, waits: str) -> Scenario:
    vcpus, work, neighbours = _SIZES[place, waits]
    program = _FLUSHES if waits == "Flushes" else LOCKS
    scenario = Scenario(
        name=f"Headroom{place}{waits}", host=Host(pcpus=4),
        guest=Vm(vcpus=vcpus, locks=2, program=program, transactions=work), neighbours=neighbours,
    )  # fmt: skip
    return under_kvm(scenario, {**_SETTINGS[place], "host.ipi_visible": waits == "Flushes"})


SEARCHED: Mapping[str, Scenario] = {world.name: world for world in map(_world, *zip(*_SIZES, strict=True))}
