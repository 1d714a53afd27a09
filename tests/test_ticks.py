"""Timer ticks of guests (docs/model.md, 7.11)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_programs import FREE, makespan

from ple_gym import ScenarioError
from ple_gym.lanes import Lanes
from ple_gym.scenario import Host, Limit, Scenario, Vm

HZ = 100_000_000
MS = HZ // 1000
#: A vCPU that computes for 10 ms, with a tick a millisecond.
HOG = Vm(
    vcpus=1, locks=0, lock_probability=0.0, transactions=1, sections=1, compute=f"constant {10 * MS}",
    tick_us=1000, tick_handler=5000,
)  # fmt: skip


def world(*vms: Vm, **host: object) -> Scenario:
    """Some VMs on one pCPU, whose own work costs nothing."""
    own = Host(**{"pcpus": 1, "tsc_hz": HZ, "timeslice_ms": 10, "ratelimit_us": 0, **host})
    return Scenario(host=own, cost=FREE, limit=Limit(simulated_s=10.0), guest=vms[0], neighbours=vms[1:])


def totals(scenario: Scenario) -> dict:
    """What a run under the host's own rule comes to."""
    lanes = Lanes(scenario, 1, policy="host")
    lanes.run(0, 0)
    return lanes.totals(0)


def ticks(scenario: Scenario) -> int:
    """How many ticks are served, where each takes a cycle and all transactions end."""
    run = totals(scenario)
    work = sum(vm.transactions * int(vm.compute.split()[1]) for vm in scenario.vms().values())
    assert run["finished"]
    return int(run["cycles"]["useful"]) - work


def test_each_tick_takes_its_handler() -> None:
    assert makespan(world(replace(HOG, tick_us=0))) == 10 * MS
    assert makespan(world(HOG)) == 10 * MS + 10 * 5000, "the tenth comes before the end"
    assert makespan(world(replace(HOG, tick_us=100))) == 10 * MS + 199 * 5000, "handlers take half of the time"


def test_vms_tick_in_turns() -> None:
    """The second VM's first tick is half a period after its start: of 9.7 ms it has one more than the first."""
    one = replace(HOG, tick_handler=1, compute=f"constant {97 * MS // 10}")
    assert [vm["finish"] for vm in totals(world(one, one, pcpus=2))["vms"]] == [97 * MS // 10 + 9, 97 * MS // 10 + 10]


@pytest.mark.parametrize("scheduler", ["credit", "credit2", "fair"])
def test_who_comes_back_has_one_tick_for_all_that_it_has_missed(scheduler: str) -> None:
    pair = replace(HOG, vcpus=2, transactions=2, compute=f"constant {100 * MS}", tick_handler=1)
    scenario = world(pair, scheduler=scheduler)
    assert 200 <= ticks(scenario) <= 200 + totals(scenario)["switches"]


def test_who_sleeps_has_none() -> None:
    sleepy = replace(HOG, compute="constant 10", block=f"constant {100 * MS}", block_probability=1.0, tick_handler=1)
    assert ticks(world(sleepy)) == 0


def test_a_tick_ends_a_pause_loop() -> None:
    """With ticks more often than windows end, a spinner never exits."""
    vm = Vm(
        vcpus=4, locks=1, lock_probability=1.0, transactions=40, sections=1, compute="constant 1000",
        hold="constant 200000", tick_us=100, tick_handler=200,
    )  # fmt: skip
    scenario = world(vm, pcpus=4).with_overrides({"ple.window": 20_000})
    assert totals(scenario)["exits"] == 0
    assert totals(scenario.with_overrides({"guest.tick_us": 0}))["exits"] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lock_kind": "pv"}, "guest.lock_kind = 'pv': must be ticket or mcs or tas with guest.tick_us = 1000"),
        ({"tick_handler": 2_670_000}, r"guest.tick_handler = 2670000: must be below a tick, .* \(2670000 cycles\)"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        Scenario(guest=Vm(tick_us=1000, **fields))
