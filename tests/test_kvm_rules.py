"""KVM's choice at a pause-loop exit (`kvm_vcpu_on_spin`), by version: whom it looks at, in which order, how long."""

from __future__ import annotations

import pytest
from machine import Machine

from ple_gym.scenario import Scenario
from ple_gym.sim import state

VERSIONS = ["kvm-5.2", "kvm-5.4", "kvm-5.13", "kvm-6.13", "kvm-6.18"]


class Scan(Machine):
    """vCPU 0 of four asks; the others wait on pCPUs of their own, each behind something else."""

    def __init__(self, left_by: int = state.PREEMPTED) -> None:
        world = {"host.pcpus": 4, "host.scheduler": "fair", "decision.actuator": "hint", "guest.vcpus": 4}
        guest = {"guest.start": "convoy", "guest.hold": "constant 100000000000"}
        super().__init__(Scenario(name="scan").with_overrides(world | guest))
        self.world["deciding"] = 0
        self.pcpu["mode"], self.pcpu["current"], self.pcpu["queued"] = state.NOISE, state.NONE, 1
        self.pcpu["mode"][0], self.pcpu["current"][0], self.pcpu["queued"][0] = state.GUEST, 0, 0
        self.vcpu["state"], self.vcpu["pcpu"] = state.QUEUED, [0, 1, 2, 3]
        self.vcpu["state"][0] = state.RUNNING
        self.queues[:, 0] = [0, 1, 2, 3]
        self.vcpu["left_by"], self.vcpu["left_kernel"] = left_by, 1

    def answers(self, rule: str, times: int) -> list[int]:
        return [self.consult(rule) for _ in range(times)]


@pytest.mark.parametrize("rule", VERSIONS)
def test_siblings_take_turns_but_for_the_fault_of_6_13(rule: str) -> None:
    assert Scan().answers(rule, 6) == ([1, 2, 1, 1, 1, 1] if rule == "kvm-6.13" else [1, 2, 3, 1, 2, 3])


@pytest.mark.parametrize("rule", VERSIONS)
def test_who_yielded_at_an_exit_is_passed_over_once(rule: str) -> None:
    assert Scan(state.PLE_YIELD).answers(rule, 2) == [0, 1]


@pytest.mark.parametrize("rule", VERSIONS)
def test_who_was_preempted_in_user_mode_is_passed_over(rule: str) -> None:
    scan = Scan()
    scan.vcpu["left_kernel"][1:3] = 0
    assert scan.answers(rule, 2) == [3, 3]


@pytest.mark.parametrize("rule", VERSIONS)
def test_three_yields_that_fail_end_the_scan(rule: str) -> None:
    scan = Scan()
    scan.pcpu["mode"][1:] = state.IDLE
    assert scan.answers(rule, 2) == [3, 3], "the last that it tried, and nobody was found"
    scan.pcpu["mode"][3] = state.NOISE
    assert scan.answers(rule, 1) == [3], "the third try succeeds"
    scan.pcpu["queued"][0] = 1
    assert scan.answers("kvm-5.4", 1) == [1], "there is somebody else here"


def test_until_3_5_anybody_will_do_from_a_random_one_on() -> None:
    scan = Scan(state.PLE_YIELD)
    scan.vcpu["left_kernel"] = 0
    found = set()
    for exits in range(1, 30):
        scan.world["exits"] = exits
        found.add(scan.consult("kvm-2012"))
    assert found == {1, 2, 3}
    scan.vcpu["state"][1:] = state.RUNNING
    assert scan.consult("kvm-2012") == 0
