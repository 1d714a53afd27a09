"""Where every vCPU has a pCPU of its own, pause-loop exiting finds nobody to run, on any host."""

from __future__ import annotations

import pytest
from machine import totals
from reference_simulator import simulate

from ple_gym.scenario import Cost, Decision, Host, Limit, Ple, Scenario, Vm

LINUX = ("5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2")
SLEEPS = {"guest.block_probability": 0.3, "guest.block": "exponential 30000"}


def pinned(**host: object) -> Scenario:
    """Eight vCPUs on eight pCPUs, one busy lock; what an exit costs cannot be less."""
    return Scenario(
        host=Host(pcpus=8),
        cost=Cost(exit=1),
        ple=Ple(window=4096),
        decision=Decision(actuator="hint"),
        limit=Limit(simulated_s=0.2),
        guest=Vm(
            vcpus=8,
            affinity="pinned",
            transactions=0,
            compute="exponential 40000",
            hold="exponential 20000",
            lock_probability=1.0,
        ),
    ).with_overrides(host)


def hosts() -> list[dict[str, object]]:
    linux = [
        {"host.scheduler": "fair", "host.linux": version, "host.groups": groups}
        for version in LINUX
        for groups in ("flat", "vm", "vcpu")
    ]
    return [{"host.xen": "4.5"}, {"host.xen": "4.18"}, {"host.scheduler": "credit2"}, *linux]


@pytest.mark.parametrize("host", hosts(), ids=lambda host: "-".join(map(str, host.values())))
def test_exits_that_cost_nothing_change_nothing(host: dict[str, object]) -> None:
    world = pinned(**host)
    on, off = totals(world, "kvm-2012"), totals(world.with_overrides({"ple.gap": 0}), "kvm-2012")
    assert on["exits"] > 100 > off["exits"] == 0
    assert on["cycles"]["useful"] == pytest.approx(off["cycles"]["useful"], rel=0.01)
    assert (on["switches"], on["migrations"]) == (off["switches"], off["migrations"]) == (8, 0)


@pytest.mark.parametrize("linux", LINUX)
def test_every_directed_yield_fails_on_linux(linux: str) -> None:
    """Who has just woken waits for its own pCPU, which is idle: neither queue has another task."""
    world = pinned(**{"host.scheduler": "fair", "host.linux": linux, **SLEEPS, "cost.ipi": 2600})
    on, off = totals(world, "kvm-2012"), totals(world.with_overrides({"ple.gap": 0}), "kvm-2012")
    assert on["hints"] > 10
    assert on["hints_failed"] == on["hints"]
    assert on["hints_won"] == on["hints_ignored"] == 0
    assert on["cycles"]["useful"] == pytest.approx(off["cycles"]["useful"], rel=0.01)
    shorter = world.with_overrides({"limit.simulated_s": 0.02})
    specified = simulate(shorter.to_dict(), "kvm-2012", 0)
    assert totals(shorter, "kvm-2012") == specified
    assert specified["hints_failed"] > 0
