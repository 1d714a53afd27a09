"""Halt polling: a pCPU waits for a vCPU that sleeps, as KVM does (docs/model.md, 15.12)."""

from __future__ import annotations

import numpy as np
import pytest
from machine import Machine, traced

from ple_gym.drive import CHECK
from ple_gym.lanes import Lanes
from ple_gym.scenario import Scenario, ScenarioError
from ple_gym.sim import state
from ple_gym.sim.soundness import FLAWS
from ple_gym.traces import events as tr
from ple_gym.traces.events import Ints

US = 1000  # cycles
IPI, SWITCH = 2 * US, 3 * US


def sleeper(block: str, vcpus: int = 1, **overrides: object) -> Scenario:
    """vCPUs that compute for 50 us, sleep, and so on; by default one, on one pCPU."""
    machine = {"host.scheduler": "fair", "host.pcpus": 1, "host.tsc_hz": US * 10**6, "host.halt_poll_us": 200}
    costs = {"cost.ipi": IPI, "cost.switch": SWITCH, "cost.cache": 0, "limit.simulated_s": 0.02}
    guest = {"vcpus": vcpus, "compute": f"constant {50 * US}", "block": block, "block_probability": 1.0, "locks": 0}
    guest |= {"transactions": 0, "sections": 1}
    settings = machine | costs | {f"guest.{name}": value for name, value in guest.items()} | overrides
    return Scenario(name="sleeper").with_overrides(settings)


def sleeps(trace: Ints) -> list[tuple[int, int, int | None]]:
    """Of vCPU 0, each time that it slept: when it slept, when it ran again, and when it left its pCPU, if it did."""
    slept, left, rows = None, None, []
    for at, kind, _, vcpu, _ in trace.tolist():
        if vcpu != 0:
            continue
        if kind == tr.BLOCK:
            slept, left = at, None
        elif kind == tr.STOP:
            left = at
        elif slept is not None and kind == (tr.WAKE if left is None else tr.RUN):
            rows.append((slept, at, left))
            slept = None
    return rows[1:]  # the first time it slept before it ever ran


def flaw(lanes: Lanes) -> str:
    return FLAWS[lanes.drive(0, 1, CHECK)]


def test_a_poll_grows_until_it_outlasts_the_sleep() -> None:
    """KVM's sequence for sleeps of 100 us; the interrupt that ends one is a part of it."""
    lanes, trace = traced(sleeper(f"constant {100 * US - IPI}"), "continue")
    polls = [None if left is None else (left - slept) // US for slept, _, left in sleeps(trace)]
    assert polls[:5] == [0, 10, 20, 40, 80]
    assert len(polls) > 100 and set(polls[5:]) == {None}, "160 us outlast it"
    assert lanes.totals(0)["switches"] == 6, "whoever wakes within the poll costs no switch"


def test_who_wakes_within_the_poll_goes_on_at_once() -> None:
    for poll_us, late in ((0, IPI + SWITCH), (200, 0)):
        lanes, trace = traced(sleeper(f"constant {30 * US}", **{"host.halt_poll_us": poll_us}), "continue")
        slept = trace[trace[:, 1] == tr.BLOCK, 0][5:]  # the poll has grown to 40 us
        assert len(slept) > 100 and set(np.diff(slept).tolist()) == {30 * US + late + 50 * US}
        cycles = lanes.totals(0)["cycles"]
        assert sum(cycles.values()) == lanes.totals(0)["now"]
        assert cycles["idle"] > 5_000_000, "polled time is idle time"


@pytest.mark.parametrize(("linux", "factor"), [("5.15", 0), ("6.6", 0), ("6.12", 2), ("6.18.2", 2)])
def test_a_poll_follows_the_last_sleeps(linux: str, factor: int) -> None:
    """It shrinks after one that was longer than the longest poll; since 6.12 by half, before to nothing."""
    scenario = sleeper(f"uniform {5 * US} {300 * US}", **{"host.linux": linux, "limit.simulated_s": 0.1})
    _, trace = traced(scenario, "continue")
    poll, seen = 0, set()
    for slept, ran, left in sleeps(trace):
        poll = min(poll, 200 * US)
        assert (left is None) == (ran - slept <= poll)
        if left is not None:
            assert left - slept == poll
        change = ""
        if poll > 0 and ran - slept > 200 * US:
            poll, change = poll // factor if factor else 0, "shrinks"
            poll = poll if poll >= 10 * US else 0
        elif poll < ran - slept < 200 * US:
            poll, change = max(2 * poll, 10 * US), "grows"
        seen.add(change)
    assert seen == {"", "shrinks", "grows"}


def test_another_who_wakes_there_ends_the_poll() -> None:
    """Two vCPUs on one pCPU: who wakes runs at once, without an interrupt, in place of the poll for the other one."""
    _, trace = traced(sleeper(f"uniform {60 * US} {150 * US}", vcpus=2), "continue")
    ended = 0
    for woke in np.flatnonzero(trace[:, 1] == tr.WAKE):
        at, v = trace[woke, 0], trace[woke, 3]
        now = trace[trace[:, 0] == at]
        if (tr.STOP, 1 - v) in zip(now[:, 1].tolist(), now[:, 3].tolist(), strict=True):
            assert (tr.RUN, v) in zip(now[:, 1].tolist(), now[:, 3].tolist(), strict=True)
            ended += 1
    assert ended > 5


def test_nobody_polls_while_another_waits() -> None:
    _, trace = traced(sleeper(f"constant {20 * US}", vcpus=3, **{"cost.ipi": 0}), "continue")
    for row in np.flatnonzero((trace[:, 1] == tr.BLOCK) & (trace[:, 0] > 0)):
        kinds = trace[: row + 1, 1]
        if (kinds == tr.WAKE).sum() > (kinds == tr.BLOCK).sum() - 3:  # somebody is awake
            now = trace[trace[:, 0] == trace[row, 0]]
            assert (tr.STOP, trace[row, 3]) in zip(now[:, 1].tolist(), now[:, 3].tolist(), strict=True)


def test_a_waiter_that_halts_is_polled_for() -> None:
    """Halted waiters of a lock get it sooner, and at last nobody is switched: six times each while the poll grows."""
    guest = {"locks": 1, "lock_probability": 1.0, "hold": f"constant {40 * US}", "block_probability": 0.0}
    guest |= {"pv_spin_threshold": 10, "compute": f"constant {10 * US}"}
    settings = {"host.pcpus": 3, **{f"guest.{name}": value for name, value in guest.items()}}
    found = {}
    for poll_us in (0, 200):
        scenario = sleeper("constant 1", vcpus=3, **settings, **{"host.halt_poll_us": poll_us})
        found[poll_us] = traced(scenario, "continue")[0].totals(0)
    assert found[200]["halts"] > 100 and found[0]["switches"] > 100 > 3 * 6 >= found[200]["switches"]
    assert found[200]["acquisitions"] > 1.05 * found[0]["acquisitions"]


def test_a_vcpu_that_is_polled_for_is_drawn_as_blocked_and_has_its_pcpu() -> None:
    _, trace = traced(sleeper(f"constant {30 * US}"), "continue")
    blocked = tr.states(trace, 1)
    blocked = blocked[(blocked[:, 1] == tr.BLOCKED)][5:-1]
    assert len(blocked) > 100 and set((blocked[:, 3] - blocked[:, 2]).tolist()) == {30 * US}
    whole = tr.occupancy(trace, 1)
    assert whole[-1, 1] == 0 and whole[-1, 2] < blocked[0, 2]


def test_a_state_with_a_poll_is_sound_unless_it_is_damaged() -> None:
    guest = {"locks": 1, "lock_probability": 0.5, "hold": f"constant {40 * US}", "compute": f"constant {10 * US}"}
    settings = {"host.pcpus": 4, **{f"guest.{name}": value for name, value in guest.items()}}
    m = Machine(sleeper(f"uniform {5 * US} {50 * US}", vcpus=4, **settings))
    m.step_until(lambda: bool((m.pcpu["mode"] == state.POLLING).any()))
    p = int(np.flatnonzero(m.pcpu["mode"] == state.POLLING)[0])
    v = int(m.pcpu["current"][p])
    assert flaw(m.lanes) == "" and m.vcpu["state"][v] == state.BLOCKED
    for records, at, name, value in (
        (m.vcpu, v, "state", state.RUNNING),
        (m.pcpu, p, "mode", state.GUEST),
        (m.pcpu, p, "mode", state.IDLE),
        (m.pcpu, p, "current", state.NONE),
        (m.clock, p, "guest_at", int(m.world["now"])),
    ):
        before = records[name][at]
        records[name][at] = value
        assert flaw(m.lanes) != "", name
        records[name][at] = before
    assert flaw(m.lanes) == ""


def test_only_kvm_polls() -> None:
    with pytest.raises(ScenarioError, match=r"halt_poll_us = 200: must be 0 \(off\) with host.scheduler = 'credit'"):
        sleeper("constant 1", **{"host.scheduler": "credit"})
