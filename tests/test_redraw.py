"""Other futures of a lane: what is seen stays, what was drawn is drawn from what it could have been."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine
from worlds import MORE, contended_scenarios, kicks_under_fair, one_to_one_under_fair, scenarios, with_pv_locks

from ple_gym.drive import CHECK, GO_ON
from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.memory import handle
from ple_gym.sim.redraw import redrawer
from ple_gym.sim.seam import host_of
from ple_gym.sim.soundness import FLAWS

ANYWHERE = sorted(name for name, rule in RULES.items() if not rule.scheduler)


def redraw(lanes: Lanes, salts: list[int]) -> None:
    salt = np.array(salts, np.int64)
    redrawer(host_of(lanes.scenario.host.scheduler)).entry(handle(lanes.places), 0, len(salts), handle(salt))


def copies(lanes: Lanes, count: int, policy: str) -> Lanes:
    found = Lanes(lanes.scenario, count, policy=policy)
    found.rows[:], found.histogram[:] = lanes.rows[0], lanes.histogram[0]
    return found


@pytest.mark.kernel
@settings(max_examples=(80 if JIT_ENABLED else 8) * MORE)
@given(
    contended_scenarios() | scenarios() | one_to_one_under_fair() | kicks_under_fair() | with_pv_locks(),
    st.integers(0, 2**63 - 1),
    st.sampled_from(ANYWHERE),
    st.integers(0, 2**62),
)
def test_what_is_seen_stays_and_the_state_is_one_that_a_run_can_be_in(
    scenario: Scenario, seed: int, rule: str, salt: int
) -> None:
    m = Machine(scenario, seed, policy=rule)
    for turn in range(10):
        if m.deciding:
            m.step(m.legal_actions()[turn % len(m.legal_actions())])
    if not m.deciding:
        return
    lanes = copies(m.lanes, 3, rule)
    redraw(lanes, [salt, salt, salt + 1])
    for name, section in lanes.sections.items():
        if section.visible or name == "lock":
            assert lanes.section(name)[0].tobytes() == m.lanes.section(name)[0].tobytes(), name
    assert lanes.rows[0].tobytes() == lanes.rows[1].tobytes(), "one salt, one future"
    assert [FLAWS[lanes.drive(k, k + 1, CHECK)] for k in range(3)] == ["", "", ""]
    lanes.drive(0, 3, GO_ON, decides=True)
    assert [FLAWS[lanes.drive(k, k + 1, CHECK)] for k in range(3)] == ["", "", ""], "the runs have ended"
    assert lanes.totals(0) == lanes.totals(1)


def test_without_chance_there_is_one_future() -> None:
    m = Machine(load("TicketOrder"), 3, policy="kvm")
    m.step(m.legal_actions()[0])
    lanes = copies(m.lanes, 2, "kvm")
    redraw(lanes, [1, 2])
    m.lanes.drive(0, 1, GO_ON, decides=True)
    lanes.drive(0, 2, GO_ON, decides=True)
    assert m.lanes.totals(0) == lanes.totals(0) == lanes.totals(1)


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"guest.compute": "uniform 100000 900000"}, state.USER),
        ({"guest.compute": "exponential 300000"}, state.USER),
        ({"guest.hold": "uniform 20000 200000", "guest.lock_probability": 0.4}, state.HOLD),
        ({"guest.program": "compute uniform 100000 900000; lock any; compute constant 5000; unlock any"}, state.USER),
    ],
)
def test_what_is_left_is_distributed_as_it_was(changes: dict[str, object], phase: int) -> None:
    """At equal points of many worlds: what was left, and what is after a redraw; the largest gap of their shares."""
    world = load("Busy8").with_overrides({"guest.locks": 1, "guest.lock_probability": 0.2, "guest.kernel_share": 0.0})
    lanes = Lanes(world.with_overrides(changes), 1, policy="host", information="hypervisor")
    true, drawn, passed = [], [], []
    for seed in range(400):
        lanes.reset(0, seed)
        if lanes.world["status"][0] != state.DECIDE:
            continue
        at = np.flatnonzero((lanes.guest["phase"][0] == phase) & (lanes.guest["remaining"][0] > 0))
        true += lanes.guest["remaining"][0, at].tolist()
        clocks = lanes.section("clock")["guest_at"][0].copy()
        before = lanes.guest["remaining"][0].copy()
        redraw(lanes, [seed])
        drawn += lanes.guest["remaining"][0, at].tolist()
        for p, v in enumerate(lanes.pcpu["current"][0]):
            if v != state.NONE and v in at:
                moved = lanes.section("clock")["guest_at"][0, p] - clocks[p]
                assert moved == lanes.guest["remaining"][0, v] - before[v], "the next event comes when the work ends"
        passed.append(len(at))
    assert sum(passed) > 300
    both = np.sort(np.concatenate([true, drawn]))
    shares = [np.searchsorted(np.sort(values), both, side="right") / len(values) for values in (true, drawn)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(2 / len(true)), "Kolmogorov and Smirnov, 0.1 %"
    assert true != drawn
