"""The machines of `experiments/answer/headroom.py`: where a choice under Linux/KVM might be hard.

A lock-heavy VM beside VMs that compute without end, on four pCPUs. Its vCPUs have pCPUs of their own, each shared with
two that compute; or twice as many, two siblings on each pCPU, with one that computes. Its sections are short, but one
lock in a hundred is held for 30 to 300 us; with flushes, one transaction in ten also interrupts all siblings and spins
until they have answered. Sizes are those of a throw-away model of such a host that found choices to matter by factors
there; no source says how often a load takes which lock.

With requests, a VM that sleeps and then works for 100 us, on the mean, stands in place of one that computes: 99 % of
its responses should take 2 ms at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ple_gym.scenario import Host, Scenario, Vm

_HELD = "knots 0:1000 0.99:3000 0.995:80000 1:780000"  # cycles at 2.5 GHz; the last ones are 32 and 312 us
_LOCKS = f"compute uniform 15000 45000 kernel 0.5; lock any; compute {_HELD}; unlock any"
_FLUSHES = f"compute uniform 15000 45000 kernel 0.5; jump 3 with 0.9; ipi all; lock any; compute {_HELD}; unlock any"


_HOG = Vm(
    vcpus=4, transactions=0, sections=1, compute="constant 2500000000", kernel_share=0.0, locks=0, lock_probability=0.0
)  # fmt: skip
_SERVER = Vm(
    vcpus=4, transactions=0, sections=1, compute="exponential 250000", locks=0, lock_probability=0.0,
    block_probability=1.0, block="exponential 5000000", response_goal_us=2000,
)  # fmt: skip
_APART = (replace(_HOG, count=2),)

#: Whether siblings share pCPUs, and what is waited for: vCPUs of the VM that takes locks, its work, and its neighbours.
_SIZES: Mapping[tuple[str, str], tuple[int, int, tuple[Vm, ...]]] = {
    ("Apart", "Locks"): (4, 3800, _APART),
    ("Apart", "Flushes"): (4, 3800, _APART),
    ("Apart", "Requests"): (4, 3800, (_SERVER, _HOG)),
    ("Stacked", "Locks"): (8, 1500, (_HOG,)),
    ("Stacked", "Flushes"): (8, 1500, (_HOG,)),
}


def _world(place: str, waits: str) -> Scenario:
    vcpus, work, neighbours = _SIZES[place, waits]
    program = _FLUSHES if waits == "Flushes" else _LOCKS
    scenario = Scenario(
        name=f"Headroom{place}{waits}", host=Host(pcpus=4),
        guest=Vm(vcpus=vcpus, locks=2, program=program, transactions=work), neighbours=neighbours,
    )  # fmt: skip
    return scenario.with_overrides(
        {
            "profile": "skylake-kvm-6.6",
            "host.pcpus": 4,
            "host.placement": "stacked" if place == "Stacked" else "spread",
            "host.ipi_visible": waits == "Flushes",
            "limit.simulated_s": 0.12 if place == "Stacked" else 0.3,
        }
    )


SEARCHED: Mapping[str, Scenario] = {world.name: world for world in map(_world, *zip(*_SIZES, strict=True))}
