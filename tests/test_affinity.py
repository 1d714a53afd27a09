"""Where vCPUs may run (docs/model.md, 2 and 12)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine import totals, traced
from reference_simulator import simulate

from ple_gym.scenario import Decision, Host, Limit, Scenario, ScenarioError, Vm
from ple_gym.scenario.affinity import pcpus_of
from ple_gym.traces import events as tr

BUSY = Vm(vcpus=8, locks=1, transactions=400, hot_probability=1.0, block_probability=0.05, compute="exponential 20000")


def world(*vms: Vm, pcpus: int = 4, sockets: int = 1, xen: str = "4.8", scheduler: str = "credit") -> Scenario:
    return Scenario(
        host=Host(pcpus=pcpus, sockets=sockets, xen=xen, scheduler=scheduler),
        decision=Decision(actuator="hint"),
        limit=Limit(simulated_s=1.0),
        guest=vms[0],
        neighbours=vms[1:],
    )


def places(scenario: Scenario, rule: str = "host") -> list[set[int]]:
    """On which pCPUs each vCPU ever ran."""
    _, trace = traced(scenario, rule)
    runs = trace[trace[:, 1] == tr.RUN]
    return [set(np.unique(runs[runs[:, 3] == v, 2]).tolist()) for v in range(scenario.vcpus)]


@pytest.mark.parametrize("rule", ["host", "kvm", "longest-waiting"])
@pytest.mark.parametrize("sockets", [1, 2])
@pytest.mark.parametrize(("scheduler", "xen"), [("credit", "4.5"), ("credit", "4.18"), ("fair", "4.5")])
def test_nobody_leaves_the_pcpus_that_are_allowed(rule: str, sockets: int, scheduler: str, xen: str) -> None:
    vms = [replace(BUSY, affinity=affinity) for affinity in ("pinned", "1-3", "0 3", "any")]
    ran = places(world(*vms, sockets=sockets, xen=xen, scheduler=scheduler), rule)
    assert ran[:8] == [{v % 4} for v in range(8)]
    assert set().union(*ran[8:16]) == {1, 2, 3}
    assert set().union(*ran[16:24]) == {0, 3}
    assert set().union(*ran[24:]) == {0, 1, 2, 3}


def test_a_list_starts_on_its_pcpus_in_turns() -> None:
    assert pcpus_of("5 1-2 2") == (1, 2, 5)
    still = replace(BUSY, vcpus=7, affinity="5 1-2", locks=0, transactions=0, block_probability=0.0)
    _, trace = traced(world(still, pcpus=6, xen="4.18").with_overrides({"limit.simulated_s": 1e-5}), "host")
    begins = trace[trace[:, 1] == tr.RUN]
    assert sorted((p, v % 3) for p, v in begins[:, 2:4].tolist()) == [(1, 0), (2, 1), (5, 2)]


@pytest.mark.parametrize("scheduler", ["credit", "fair"])
def test_pinned_one_to_one_nobody_ever_moves_or_waits(scheduler: str) -> None:
    vm = replace(BUSY, vcpus=4, affinity="pinned", hold="constant 20000", lock_probability=1.0)
    pinned = totals(world(vm, scheduler=scheduler), "kvm")
    assert (pinned["migrations"], pinned["steals"]) == (0, 0)
    assert pinned["exits"] > 0, "they spin all the same"
    assert pinned["exits_holder_off"] == pinned["lwp_events"] == 0


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        ("0-4", r"guest.affinity = '0-4': must be pCPUs 0..3; host.pcpus = 4"),
        ("4-2", r"guest.affinity = '4-2': must be any, pinned, or pCPUs such as 0-3 or 0 2 5-7"),
        ("", r"guest.affinity = '': must be any, pinned"),
        ("0,1", r"guest.affinity = '0,1': must be any, pinned"),
        ("256", r"guest.affinity = '256': must be any, pinned"),
    ],
)
def test_what_no_affinity_is(affinity: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        world(BUSY).with_overrides({"guest.affinity": affinity})


def test_who_is_pinned_cannot_be_pulled() -> None:
    with pytest.raises(ScenarioError, match=r"guest.affinity = 'pinned': must be any with decision.actuator = 'pull'"):
        Scenario().with_overrides({"guest.affinity": "pinned"})


def test_all_of_the_most_pcpus() -> None:
    scenario = world(replace(BUSY, vcpus=512, affinity="0-255"), pcpus=256).with_overrides({"limit.simulated_s": 0.003})
    assert totals(scenario, "host") == totals(scenario.with_overrides({"guest.affinity": "any"}), "host")


@pytest.mark.parametrize(
    ("scheduler", "xen"), [("credit", "4.5"), ("credit", "4.18"), ("credit2", "4.18"), ("fair", "4.5")]
)
def test_pcpus_beyond_the_first_64_are_as_the_others(scheduler: str, xen: str) -> None:
    """Sets of pCPUs, and the draws of bursts of host noise, have several words there."""
    vms = [replace(BUSY, vcpus=60, affinity=where) for where in ("60-70 127-128 190-199", "any", "pinned", "3 64 192")]
    machine = world(*vms, pcpus=200, sockets=3, xen=xen, scheduler=scheduler)
    noise = {"noise.rate_hz": 3000, "noise.burst_us": 200, "limit.simulated_s": 0.004}
    scenario = machine.with_overrides(noise)
    ran = places(scenario)
    assert {60, 127, 128, 199} <= set().union(*ran[:60]) <= {*range(60, 71), 127, 128, *range(190, 200)}
    assert ran[120:180] == [{v} for v in range(120, 180)]
    assert set().union(*ran[180:]) == {3, 64, 192}
    for rule in ("host", "kvm"):
        assert totals(scenario, rule, seed=3) == simulate(scenario.to_dict(), rule, 3)
