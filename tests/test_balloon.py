"""Ballooning: as many vCPUs are awake as a VM's share of the pCPUs comes to (docs/model.md, 7.12)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine import Machine
from test_programs import FREE

from ple_gym import ScenarioError
from ple_gym.lanes import Lanes
from ple_gym.scenario import Host, Limit, Scenario, Vm
from ple_gym.sim import state

HZ = 100_000_000
MS = HZ // 1000
#: Eight vCPUs with 0.1 ms of work at a time.
BUSY = Vm(
    vcpus=8, locks=0, lock_probability=0.0, transactions=0, sections=1, compute=f"constant {MS // 10}", balloon=True
)


def world(*vms: Vm, limit_s: float = 0.5) -> Scenario:
    """Some VMs on eight pCPUs, whose own work costs nothing."""
    return Scenario(
        host=Host(pcpus=8, tsc_hz=HZ, timeslice_ms=3),
        cost=FREE,
        limit=Limit(simulated_s=limit_s),
        guest=vms[0],
        neighbours=vms[1:],
    )


def totals(scenario: Scenario) -> dict:
    """What a run under the host's own rule comes to."""
    lanes = Lanes(scenario, 1, policy="host")
    lanes.run(0, 0)
    return lanes.totals(0)


def awake(scenario: Scenario) -> list[int]:
    """How many vCPUs of each VM are not frozen at the end."""
    m = Machine(scenario, 0)
    return [int(sum((m.vcpu["vm"] == vm) & (m.guest["frozen"] == 0))) for vm in range(len(scenario.vms()))]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], [8]),
        ([BUSY], [4, 4]),
        ([replace(BUSY, weight=768)], [2, 6]),
        ([BUSY, BUSY], [3, 3, 3]),  # 2.67 pCPUs each
        ([replace(BUSY, balloon=False)], [4, 8]),
        ([replace(BUSY, vcpus=1), replace(BUSY, vcpus=1)], [7, 1, 1]),  # of 10 shares of 0.8 pCPUs; and one of its own
    ],
)
def test_a_vm_keeps_as_many_as_it_has_pcpus_for(others: list[Vm], expected: list[int]) -> None:
    assert awake(world(BUSY, *others)) == expected


def test_who_sleeps_much_leaves_its_share_to_others() -> None:
    idle = replace(BUSY, block=f"constant {10 * MS}", block_probability=1.0)
    assert awake(world(BUSY, idle))[0] == 8


def test_they_wake_when_the_others_are_done() -> None:
    short, long = replace(BUSY, transactions=8000), replace(BUSY, transactions=24_000)
    assert awake(world(long, short, limit_s=0.1)) == [4, 4]
    assert awake(world(long, short, limit_s=0.3))[0] == 8


def test_all_work_is_done_and_few_holders_wait() -> None:
    """Two VMs with locks: of those awake all run, so that hardly any holder loses its pCPU."""
    guest = replace(BUSY, locks=8, lock_probability=1.0, hold=f"constant {MS // 20}", transactions=20_000)
    on, off = (totals(world(*2 * [replace(guest, balloon=balloon)], limit_s=60.0)) for balloon in (True, False))
    assert on["finished"] and [vm["completed"] for vm in on["vms"]] == [20_000, 20_000]
    assert off["lhp_events"] > 20 > 10 * on["lhp_events"]


@pytest.mark.parametrize("fields", [{"threads": 8}, {"program": "compute constant 1000"}])
def test_it_goes_with_sections_and_a_thread_per_vcpu(fields: dict) -> None:
    with pytest.raises(ScenarioError, match=r"guest\.balloon = true: must be false with guest\.(threads = 8|program)"):
        Scenario(guest=replace(BUSY, **fields))


def test_the_frozen_are_asleep() -> None:
    m = Machine(world(BUSY, BUSY), 0)
    frozen = m.guest["frozen"] == 1
    assert frozen.sum() == 8
    assert (m.vcpu["state"][frozen] == state.BLOCKED).all()
    assert (m.guest["wake_at"][frozen] == state.INF).all()
