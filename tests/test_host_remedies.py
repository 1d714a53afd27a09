"""Remedies at the host: balance scheduling (docs/model.md, 9.12), co-scheduling (9.13), and those of 9.14 and 9.15."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine import Machine

from ple_gym import ScenarioError
from ple_gym.evaluate import simulate
from ple_gym.lanes import Lanes
from ple_gym.scenario import Decision, Host, Limit, Scenario, Vm
from ple_gym.sim import state

HZ = 1_000_000_000
MS = HZ // 1000
HOG = Vm(vcpus=4, locks=0, lock_probability=0.0, transactions=0, sections=1, compute=f"constant {HZ // 100}")


def world(host: Host, *vms: Vm, simulated_s: float = 1.0) -> Scenario:
    """Some VMs on a host with a clock of 1 GHz and slices of 10 ms."""
    host = replace(host, tsc_hz=HZ, timeslice_ms=10)
    decision = Decision(actuator="local")  # under which vCPUs may be pinned
    limit = Limit(simulated_s=simulated_s)
    return Scenario(host=host, decision=decision, limit=limit, guest=vms[0], neighbours=vms[1:])


@pytest.mark.parametrize("scheduler", ["credit2", "fair"])
@pytest.mark.parametrize(
    ("name", "value", "off"), [("balance_siblings", True, False), ("coscheduling", "strict", "'off'")]
)
def test_other_schedulers_refuse_them(scheduler: str, name: str, value: object, off: object) -> None:
    with pytest.raises(ScenarioError, match=rf"^host.{name} = .*: must be {off}.* with host.scheduler = '{scheduler}'"):
        Scenario(host=Host(scheduler=scheduler, **{name: value}))


def test_a_gang_must_fit() -> None:
    with pytest.raises(
        ScenarioError, match=r"^host.coscheduling = 'strict': neighbours.0.vcpus = 5 must be at most .* 4"
    ):
        world(Host(pcpus=4, coscheduling="strict"), HOG, replace(HOG, vcpus=5))


# --- balance scheduling -----------------------------------------------------------------------------------------------


def stacked(balance: bool) -> Scenario:
    """Two VMs with four vCPUs that sleep for a millisecond now and then, on four pCPUs; each starts on two of them."""
    sleepy = replace(HOG, compute=f"exponential {MS}", block=f"exponential {MS}", block_probability=0.5)
    return world(Host(pcpus=4, placement="stacked", balance_siblings=balance), sleepy, sleepy)


def most_siblings(scenario: Scenario, seed: int) -> int:
    """The largest number of siblings that are on one pCPU at the end."""
    m = Machine(scenario, seed)
    vcpus = m.lanes.vcpu[0]
    placed = vcpus[np.isin(vcpus["state"], (state.RUNNING, state.QUEUED))]
    return int(
        np.unique(np.stack([placed["vm"], placed["pcpu"].astype(np.int64)]), axis=1, return_counts=True)[1].max()
    )


def test_siblings_are_on_different_queues() -> None:
    assert max(most_siblings(stacked(False), seed) for seed in range(20)) >= 2
    assert {most_siblings(stacked(True), seed) for seed in range(20)} == {1}


# --- co-scheduling ----------------------------------------------------------------------------------------------------


def uneven(kind: str, skew_us: int = 1000) -> Scenario:
    """A VM with a vCPU on a pCPU of its own, and one that shares the other pCPU with another VM."""
    pair = replace(HOG, vcpus=2, affinity="pinned")
    single = replace(HOG, vcpus=1, affinity="1")
    host = Host(pcpus=2, coscheduling=kind, coscheduling_skew_us=skew_us, ratelimit_us=0)
    return world(host, pair, single)


def pace(scenario: Scenario) -> tuple[int, int]:
    """Cycles that the two vCPUs of the pair have run."""
    first, second, _ = Machine(scenario, 0).lanes.vcpu[0]["cpu_time"]
    return int(first), int(second)


@pytest.mark.parametrize("skew_us", [1000, 10_000])
def test_who_is_ahead_waits(skew_us: int) -> None:
    fast, slow = pace(uneven("off"))
    assert fast - slow > 300 * MS
    fast, slow = pace(uneven("relaxed", skew_us))
    assert -2 * skew_us * 1000 <= fast - slow <= 2 * skew_us * 1000
    assert slow > 300 * MS, "nobody waits for ever"


def test_a_vm_runs_in_its_slots_alone() -> None:
    run = simulate(world(Host(pcpus=4, coscheduling="strict"), HOG, replace(HOG, vcpus=1)), "host", [0])[0]
    assert [round(vm["share"], 2) for vm in run["vm"]] == pytest.approx([0.5, 0.125], abs=0.01)
    idle = run["cycles"]["idle"] / (4 * HZ)
    assert idle == pytest.approx(0.375, abs=0.01), "three pCPUs are idle in every other slot"


def test_a_gang_that_sleeps_gives_its_slot_up() -> None:
    sleepy = replace(HOG, vcpus=1, compute="constant 1000", block=f"constant {100 * MS}", block_probability=1.0)
    run = simulate(world(Host(pcpus=4, coscheduling="strict"), HOG, sleepy), "host", [0])[0]
    assert run["vm"][0]["share"] > 0.98


def test_a_holder_is_preempted_with_those_that_wait_for_it() -> None:
    """Two VMs whose vCPUs take one lock each: a gang's waiters spin while the holder runs, or not at all."""
    busy = replace(HOG, locks=1, lock_probability=1.0, compute="exponential 100000", hold="exponential 20000")
    off, strict = (
        simulate(world(Host(pcpus=4, coscheduling=kind), busy, busy), "host", range(5)) for kind in ("off", "strict")
    )
    assert sum(run["cycles"]["spin"] for run in strict) < 0.5 * sum(run["cycles"]["spin"] for run in off)


# --- urgent interrupts (9.15), which every scheduler has --------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["credit", "credit2", "fair"])
def test_who_is_interrupted_runs_at_once(scheduler: str) -> None:
    """Two VMs of three vCPUs on two pCPUs: a flush waits for slices of others, or for little more than a switch."""
    flushing = replace(HOG, vcpus=3, program=f"compute constant {5 * MS} kernel 1; ipi all", ipi_handler=2000)

    def spun(urgent: bool) -> float:
        host = Host(pcpus=2, scheduler=scheduler, ratelimit_us=0, ipi_visible=True, urgent_ipis=urgent)
        lanes = Lanes(world(host, flushing, replace(HOG, vcpus=3)), 1, policy="continue")
        lanes.run(0, 0)
        totals = lanes.totals(0)
        return float(totals["cycles"]["spin"] / totals["ipis"])

    assert spun(True) < 0.03 * MS < 0.06 * MS < spun(False)


def test_it_must_be_seen_who_is_interrupted() -> None:
    with pytest.raises(ScenarioError, match=r"^host.urgent_ipis = true: must be false with host.ipi_visible = false"):
        Scenario(host=Host(urgent_ipis=True))


# --- micro-slices (9.14), which every scheduler has -------------------------------------------------------------------


@pytest.mark.parametrize(("listed", "short"), [("all", True), ("locks", True), ("answers", False)])
def test_who_exits_in_listed_code_comes_back_for_a_short_slice(listed: str, short: bool) -> None:
    """Two VMs: in one all fight for a lock, and spin on; the other computes."""
    spinners = replace(HOG, locks=1, lock_probability=1.0, compute="constant 1000", hold=f"constant {20 * MS}")

    def switches(micro_slice_us: int) -> int:
        host = Host(pcpus=2, ratelimit_us=0, micro_slice_us=micro_slice_us, micro_slice_for=listed)
        return int(simulate(world(host, spinners, HOG), "continue", [0])[0]["switches"])

    assert (switches(50) > 10 * switches(0)) == short
    assert short or switches(50) == switches(0)


def test_linux_runs_on_whom_it_would_choose_again() -> None:
    """A short slice does not change who has the least virtual time, or whose deadline comes first."""
    spinners = replace(HOG, locks=1, lock_probability=1.0, compute="constant 1000", hold=f"constant {20 * MS}")
    found = [
        simulate(world(Host(pcpus=2, scheduler="fair", micro_slice_us=us), spinners, HOG), "host", [0])[0]["switches"]
        for us in (0, 50)
    ]
    assert found[0] == found[1]
