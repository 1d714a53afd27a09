"""Rules of those who changed KVM's handler: `strict-boost` (Ishiguro et al., 2021) and `queue-head` (W. Li, 2019)."""

from __future__ import annotations

import pytest
from machine import Machine
from test_kvm_rules import Scan

from ple_gym.scenario.builtin import load
from ple_gym.sim import state


def test_who_was_preempted_in_kernel_mode_is_boosted_at_once() -> None:
    assert Scan().answers("strict-boost", 4) == [1, 2, 3, 1]


@pytest.mark.parametrize("left_by", [state.PREEMPTED, state.WENT_TO_SLEEP])
def test_others_are_boosted_at_the_second_look(left_by: int) -> None:
    scan = Scan(left_by)
    scan.vcpu["left_kernel"] = 0
    assert scan.answers("strict-boost", 5) == [0, 1, 2, 3, 1]
    assert Scan(state.PREEMPTED).answers("kvm", 1) == [1]


def test_a_look_is_forgotten_when_the_vcpu_has_run() -> None:
    scan = Scan()
    scan.vcpu["left_kernel"] = 0
    assert scan.answers("strict-boost", 2) == [0, 1]
    scan.vcpu["dispatches"][1:] += 1
    assert scan.answers("strict-boost", 2) == [0, 2]


def test_the_head_of_the_line_runs_where_nobody_holds_the_lock() -> None:
    """In `TicketOrder` all stand in one line; the head is vCPU 1 as soon as 0, the first holder, has released."""
    m = Machine(load("TicketOrder"), 0)
    seen = set()
    while m.deciding and len(seen) < 2:
        lock = m.lanes.section("lock")[0][0]
        held, head = lock["holder"] != state.NONE, int(lock["head"])
        runs = m.vcpu["state"][head] == state.RUNNING
        expected = m.asker if held or runs else head
        assert m.consult("queue-head") == expected
        seen.add(held)
        m.step(m.lanes.vcpus)
    assert seen == {True, False}
