"""Rules: what each one decides in a situation made by hand, what all respect, what none but the oracle can see."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from machine import Machine, totals
from reference_simulator.draws import mix
from worlds import ON_CREDIT, contended_scenarios

from ple_gym.errors import PolicyError
from ple_gym.lanes import Lanes
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario, Vm
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.host.credit import NO_VCPU, OVER

PATIENCE = 64  # docs/model.md, section 11
SIGHTED = sorted(name for name in ON_CREDIT if not RULES[name].privileged)  # these see what a hypervisor sees
YIELDING = ("host", "xen-4.5", "xen-4.8", "xen-4.17", "xen-4.18")
KEEP_TO_SIBLINGS = ("round-robin", "kvm", "spin-age-self", "two-patience", "oracle", "holder", "patience")
GOLDEN = 0x9E3779B97F4A7C15  # docs/model.md, section 3.1
seeds = st.integers(0, 2**63 - 1)


def ask(m: Machine, rule: str, lanes: Lanes | None = None) -> int:
    """What a rule would do now. Nothing is remembered."""
    return int((lanes or m.lanes).ask(rule)[0])


def consult(m: Machine, rule: str, lanes: Lanes | None = None) -> int:
    """What a rule does now. Some rules remember that they were asked."""
    return m.consult(rule, lanes)


def at_a_decision(scenario: Scenario, seed: int, decisions: int) -> Machine:
    """A random world after some random decisions, at a decision."""
    m = Machine(scenario, seed)
    choice = random.Random(seed)
    before = None
    for _ in range(decisions):
        if not m.deciding:
            break
        before = m.lanes.rows[0].copy()
        m.step(choice.choice(m.legal_actions()))
    if not m.deciding and before is not None:
        m.lanes.rows[0] = before
    assume(m.deciding)
    return m


decisions = st.builds(at_a_decision, contended_scenarios(), seeds, st.integers(0, 60))


# ------------------------------------------------------------------------------------------------------ what is hidden

#: Of the world's own record the rules may use the time of the exit, where it is, and the stream of random choices.
PUBLIC_OF_THE_WORLD = {"now", "status", "deciding", "exits", "policy_key"}


def with_another_secret(m: Machine, seed: int) -> Lanes:
    """The same machine to a hypervisor's eye; locks, tickets, phases, the future and the books are noise."""
    other = Lanes(m.scenario, 1)
    noise = np.random.default_rng(seed)
    for name, section in other.sections.items():
        part, own = other.section(name), m.lanes.section(name)
        if section.visible:
            part[:] = own
        elif name != "world":
            part.view(np.uint8)[:] = noise.integers(0, 256, part.view(np.uint8).shape, np.uint8)
    for name in state.WORLD.names:
        public = name in PUBLIC_OF_THE_WORLD
        other.world[name] = m.world[name] if public else noise.integers(0, 2**31 - 1)
    return other


@pytest.mark.kernel
@settings(max_examples=10)
@given(decisions, seeds)
def test_no_rule_of_a_hypervisor_can_see_what_a_guest_hides(m: Machine, seed: int) -> None:
    other = with_another_secret(m, seed)
    for rule in SIGHTED:
        assert ask(m, rule) == ask(m, rule, other), rule


@settings(max_examples=200)
@given(decisions, seeds)
def test_no_rule_of_a_hypervisor_remembers_what_a_guest_hides(m: Machine, seed: int) -> None:
    """Nor does a rule write anything hidden into its memory: what it leaves behind is the same too."""
    other = Machine(m.scenario)
    hidden = with_another_secret(m, seed)
    for rule in SIGHTED:
        assert m.consult(rule) == other.consult(rule, hidden), rule
        memories = [one.askers[rule].section("memory") for one in (m, other)]
        assert memories[0].tobytes() == memories[1].tobytes(), rule


@settings(max_examples=100)
@given(decisions)
def test_the_oracle_does_see_it(m: Machine) -> None:
    """Whoever is said to hold the lock of the asker, with nobody in line between them, is whom the oracle runs."""
    y = m.asker
    assume(m.guest["phase"][y] == state.SPIN)  # else it waits for acknowledgements
    lock = m.guest["lock"][y]
    for v in m.candidates():
        m.guest["phase"][v] = state.HOLD
        m.lock["holder"][lock], m.lock["head"][lock], m.lock["tail"][lock] = v, y, y
        m.guest["next_waiter"][y] = state.NONE
        assert ask(m, "oracle") == m.meant(v)


def test_each_rule_says_what_it_uses() -> None:
    for name, rule in RULES.items():
        assert rule.name == name and rule.information and rule.actuator and rule.source and rule.summary
    assert load_compiled("kvm") is RULES["kvm"]
    with pytest.raises(PolicyError, match=r"papper.*paper"):
        load_compiled("papper")


# ---------------------------------------------------------------------------------------------- what all rules respect


@settings(max_examples=300)
@given(decisions)
def test_what_a_rule_answers_is_legal(m: Machine) -> None:
    legal, y = m.legal_actions(), m.asker
    for rule in ON_CREDIT:
        action = ask(m, rule)
        assert action in legal, rule
        if rule in YIELDING:
            assert action == m.defer
        if rule == "continue":
            assert action == y
        if m.scenario.actuator == "yield":
            assert action in (y, m.defer)
            continue
        if rule in KEEP_TO_SIBLINGS:
            assert m.vcpu["vm"][action] == m.vcpu["vm"][y]
        if RULES[rule].actuator == "local" and m.queue(m.here) and m.host_vcpu["priority"][m.queue(m.here)[0]] > OVER:
            assert action in m.queue(m.here) or (rule == "paper-ban" and action == m.defer)


def as_the_paper_proposes(m: Machine) -> int:
    """Never the vCPU that just exited: the head of the own queue, if it has credit left; else work from elsewhere."""
    pcpus, sockets = m.lanes.pcpus, m.scenario.host.sockets
    priority = m.host_vcpu["priority"].tolist()
    queue = m.queue(m.here)
    least = priority[queue[0]] if queue else NO_VCPU
    if queue and least > OVER:
        return queue[0]
    socket = [p * sockets // pcpus for p in range(pcpus)]
    for p in sorted(range(pcpus), key=lambda p: ((socket[p] - socket[m.here]) % sockets, p)):
        if p != m.here and m.queue(p) and m.queue(p)[0] in m.candidates() and priority[m.queue(p)[0]] > least:
            return m.queue(p)[0]
    return queue[0] if queue else m.defer


def rested(m: Machine, us: int) -> int:
    """The first of the own queue who has not left by an exit for so long."""
    since = int(m.world["now"]) - us * m.scenario.host.tsc_hz // 10**6
    spun = m.vcpu["left_by"] == state.PLE_YIELD
    return next((v for v in m.queue(m.here) if not spun[v] or m.vcpu["left_at"][v] <= since), m.defer)


@settings(max_examples=200)
@given(decisions)
def test_short_rules_do_what_they_say(m: Machine) -> None:
    y, candidates = m.asker, m.candidates()
    siblings = [v for v in candidates if m.vcpu["vm"][v] == m.vcpu["vm"][y]]
    bits = mix((int(m.world["policy_key"]) + GOLDEN * int(m.world["exits"])) % 2**64) >> 32
    last = -1  # who was asked never before
    expected = {
        "paper": as_the_paper_proposes(m),
        "paper-local": (m.queue(m.here) or [m.defer])[0],
        "paper-ban": rested(m, 1000),
        "paper-ban:us=20": rested(m, 20),
        "random": candidates[bits * len(candidates) >> 32] if candidates else y,
        "longest-waiting": min(candidates, key=lambda v: (m.vcpu["queued_since"][v], v), default=y),
        "round-robin": min(siblings, key=lambda v: (v - last - 1) % m.lanes.vcpus, default=y),
    }
    for rule, action in expected.items():
        assert ask(m, rule) == m.meant(action), rule


# -------------------------------------------------------------------------------------------------- a preempted holder


def test_the_holder_is_off_its_only_pcpu() -> None:
    """vCPU 0 holds the lock and is queued; vCPU 1 has spun for a window. Most rules run vCPU 0 at once."""
    m = Machine(load("HolderPreempted"))
    assert (m.asker, m.queue(0), m.lock["holder"][0]) == (1, [0], 0)
    assert {rule: ask(m, rule) for rule in ON_CREDIT if ask(m, rule) != 0} == {
        **dict.fromkeys(YIELDING, m.defer),  # as the host's own scheduler would have it
        **dict.fromkeys(("continue", "resume-then-defer"), 1),
        "queue-head": 1,  # the holder, not the line, keeps it waiting
        **dict.fromkeys(("two-patience", "patience"), 1),
        "oldest-spinner": 1,  # a holder does not spin
        "victim-aware": m.defer,  # nobody is put off where the asker runs
    }


def test_two_patience_waits_64_exits_for_a_holder() -> None:
    m = Machine(load("HolderPreempted"))
    answers = []
    for _ in range(70):
        answers.append((int(m.vcpu["ples"][1]), ask(m, "two-patience")))
        m.step(1)
    assert [action for ples, action in answers if ples < PATIENCE] == [1] * 62  # a convoy's waiter starts with one exit
    assert {action for ples, action in answers if ples >= PATIENCE} == {0}


def test_xen_45_yields_in_vain_for_a_millisecond_and_xen_48_at_once() -> None:
    result = totals(load("HolderPreempted"), "xen-4.5")
    assert (result["exits"], result["switches"]) == (484, 3)
    result = totals(load("HolderPreempted"), "xen-4.8")
    assert (result["exits"], result["switches"]) == (1, 3)


# --------------------------------------------------------------------------------------------------- a line of tickets


@pytest.fixture
def line() -> Machine:
    """vCPU 0 holds the lock and is preempted, 1..5 wait in this order: 4 has exited on pCPU 0, 5 spins on pCPU 1."""
    m = Machine(load("TicketOrder"))
    assert (m.asker, m.queue(0), m.queue(1), m.waiters(0)) == (4, [2, 0], [3, 1], [1, 2, 3, 4, 5])
    return m


def test_paper_runs_the_head_of_the_own_queue(line: Machine) -> None:
    assert ask(line, "paper") == 2


def test_paper_never_runs_the_one_that_just_exited(line: Machine) -> None:
    for _ in range(5):
        y, p = line.asker, line.here
        line.step(ask(line, "paper"))
        assert line.pcpu["current"][p] != y


def test_paper_brings_work_from_elsewhere_if_the_head_has_used_up_its_credit(line: Machine) -> None:
    """As Xen does before it runs a vCPU that is OVER. Here vCPU 3 heads the other queue."""
    line.host_vcpu["priority"][2] = OVER
    assert ask(line, "paper") == 3
    line.host_vcpu["priority"][3] = OVER
    assert ask(line, "paper") == 2


def test_paper_leaves_an_empty_queue_to_the_host() -> None:
    m = Machine(load("HolderPreempted").with_overrides({"host.pcpus": 2}))
    m.step_until(lambda: not m.queue(m.here))
    assert ask(m, "paper") == m.defer


def test_round_robin_goes_round(line: Machine) -> None:
    assert [consult(line, "round-robin") for _ in range(6)] == [0, 1, 2, 3, 0, 1]  # 4 exited, 5 runs


def test_longest_waiting_takes_the_lowest_of_equals_and_then_the_next(line: Machine) -> None:
    answers = []
    for _ in range(4):
        answers.append(ask(line, "longest-waiting"))
        line.step(answers[-1])
    assert answers[0] == 0  # all have waited since time 0
    assert len(set(answers)) == 4


def test_kvm_boosts_the_holder_it_does_not_know_because_it_left_in_kernel_mode_without_spinning(line: Machine) -> None:
    assert ask(line, "kvm") == 0


@pytest.fixture
def spinners(line: Machine) -> Machine:
    """The holder runs on pCPU 0. vCPU 5 exits on pCPU 1, and everybody in the queues left by a PLE exit."""
    line.step(0)
    assert (line.asker, line.here, line.pcpu["current"][0]) == (5, 1, 0)
    assert (line.queue(0), line.queue(1)) == ([2, 4], [3, 1])
    assert (line.vcpu["left_by"][1:5] == state.PLE_YIELD).all()
    return line


def test_kvm_skips_spinners_every_other_time(spinners: Machine) -> None:
    answers = [consult(spinners, "kvm") for _ in range(3)]
    assert answers[0] == 5  # all four are skipped: resume
    assert answers[1] == 1  # the first of them is eligible now, and not again
    assert answers[2] == 2  # the scan starts after the one boosted last


def test_kvm_passes_over_who_was_preempted_in_user_mode(line: Machine) -> None:
    line.vcpu["left_kernel"][0] = 0
    assert [consult(line, "kvm") for _ in range(2)] == [4, 1]


def test_kvm_scans_past_who_never_ran(line: Machine) -> None:
    """Who went to sleep, or has not run yet, needs no kernel mode to be a candidate."""
    line.vcpu["left_by"][2], line.vcpu["left_kernel"][:] = state.NEVER_RAN, 0
    assert ask(line, "kvm") == 2


def test_spin_age_takes_a_likely_holder_first(line: Machine) -> None:
    """vCPU 0 lost its pCPU in kernel mode, and has not been seen to spin."""
    for rule in ("spin-age", "spin-age-self"):
        assert ask(line, rule) == 0


def test_spin_age_takes_the_oldest_spinner_where_no_holder_is_to_be_had(spinners: Machine) -> None:
    for rule in ("spin-age", "spin-age-self", "two-patience"):
        assert ask(spinners, rule) == 1


def test_spin_age_does_not_run_a_younger_spinner(spinners: Machine) -> None:
    """vCPU 5, the asker, is made the one that has spun for longest: now nobody is worth running but the head."""
    spinners.vcpu["first_ple"][5] = spinners.vcpu["first_ple"].min() - 1
    assert ask(spinners, "spin-age") == 3  # the head of its own queue
    assert ask(spinners, "spin-age-self") == ask(spinners, "two-patience") == 5


def test_oracle_keeps_an_asker_who_has_running_waiters_behind_it(line: Machine) -> None:
    """If vCPU 4 left, the line would stop at 4, while 5 behind it goes on spinning."""
    assert ask(line, "oracle") == 4


def test_oracle_lets_the_last_in_line_go_for_the_holder(line: Machine) -> None:
    line.step(4)
    assert (line.asker, ask(line, "oracle")) == (5, 0)


def test_oracle_runs_the_next_in_line_once_the_holder_runs(spinners: Machine) -> None:
    assert ask(spinners, "oracle") == 1


def test_oracle_has_nobody_to_run_once_all_before_the_asker_run() -> None:
    m = Machine(load("TicketOrder").with_overrides({"host.pcpus": 6}))
    assert m.candidates() == [] and ask(m, "oracle") == m.asker


def test_oracle_keeps_an_asker_whose_turn_it_is() -> None:
    """A lock that changes hands so slowly that its next holder exits while the line is on its way."""
    m = Machine(load("TicketOrder").with_overrides({"cost.line": 100_000}))
    m.step_until(lambda: m.lock["holder"][0] == state.NONE and m.waiters(0)[0] == m.asker, lambda: ask(m, "oracle"))
    assert ask(m, "oracle") == m.asker


def test_oracle_only_cares_for_the_holder_of_a_lock_without_tickets() -> None:
    m = Machine(load("TicketOrder").with_overrides({"guest.lock_kind": "tas"}))
    assert (m.asker, m.lock["holder"][0]) == (4, 0)
    assert ask(m, "oracle") == 0  # though 5, a waiter too, runs: without tickets nobody is behind anybody
    m.step(0)
    assert ask(m, "oracle") == m.asker


# ------------------------------------------------------------------------------------------------------------- two VMs


def test_a_rule_for_siblings_leaves_the_neighbours_alone() -> None:
    """The holder runs on pCPU 0, vCPU 1 spins on pCPU 1; only neighbours are queued."""
    scenario = load("HolderPreempted").with_overrides({"host.pcpus": 2, "guest.hold": "constant 1000000"})
    busy = Vm(vcpus=3, transactions=0, compute="constant 10000000", kernel_share=1.0, lock_probability=0.0)
    m = Machine(replace(scenario, neighbours=(busy,)))
    assert (m.asker, m.queue(0), m.queue(1)) == (1, [2, 4], [3])
    assert {rule: ask(m, rule) for rule in KEEP_TO_SIBLINGS} == dict.fromkeys(KEEP_TO_SIBLINGS, 1)
    assert ask(m, "longest-waiting") == 2
    assert ask(m, "paper") == ask(m, "spin-age") == 3  # the head of its own queue, whoever that is
