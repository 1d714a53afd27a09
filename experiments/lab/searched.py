"""The machines of `experiments/answer/headroom.py`: where a choice under Linux/KVM might be hard.

A lock-heavy VM beside VMs that compute without end, on four pCPUs. Its vCPUs have pCPUs of their own, each shared with
two that compute; or twice as many, two siblings on each pCPU, with one that computes. Its sections are short, but one
lock in a hundred is held for 30 to 300 us; with flushes, one transaction in ten also interrupts all siblings and spins
until they have answered. Sizes are those of a throw-away model of such a host that found choices to matter by factors
there; no source says how often a load takes which lock.
"""

from __future__ import annotations

from collections.abc import Mapping

from ple_gym.scenario import Host, Scenario, Vm

_HELD = "knots 0:1000 0.99:3000 0.995:80000 1:780000"  # cycles at 2.5 GHz; the last ones are 32 and 312 us
_LOCKS = f"compute uniform 15000 45000 kernel 0.5; lock any; compute {_HELD}; unlock any"
_FLUSHES = f"compute uniform 15000 45000 kernel 0.5; jump 3 with 0.9; ipi all; lock any; compute {_HELD}; unlock any"


def _world(name: str, vcpus: int, hogs: int, work: int, program: str, visible: bool) -> Scenario:
    hog = Vm(
        vcpus=4, count=hogs, transactions=0, sections=1, compute="constant 2500000000", kernel_share=0.0, locks=0,
        lock_probability=0.0,
    )  # fmt: skip
    scenario = Scenario(
        name=name, host=Host(pcpus=4), guest=Vm(vcpus=vcpus, locks=2, program=program, transactions=work),
        neighbours=(hog,),
    )  # fmt: skip
    return scenario.with_overrides(
        {
            "profile": "skylake-kvm-6.6",
            "host.pcpus": 4,
            "host.placement": "stacked" if hogs == 1 else "spread",
            "host.ipi_visible": visible,
            "limit.simulated_s": 0.3 if hogs > 1 else 0.12,
        }
    )


#: Whether siblings share pCPUs, and what is waited for.
SEARCHED: Mapping[str, Scenario] = {
    f"Headroom{place}{waits}": _world(f"Headroom{place}{waits}", vcpus, hogs, work, program, waits == "Flushes")
    for place, vcpus, hogs, work in (("Apart", 4, 2, 3800), ("Stacked", 8, 1, 1500))
    for waits, program in (("Locks", _LOCKS), ("Flushes", _FLUSHES))
}
