"""Xen's credit2 scheduler (docs/model.md, section 9b): against the reference simulator, and what is known of it."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hosts.agreement import check_agreement, seeds, under
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, traced
from reference_simulator import World, simulate
from reference_simulator.credit2 import Credit2
from reference_simulator.state import INF, Mode, State, Vcpu
from test_reference import CONVOY, changed
from worlds import MORE, WORK, affordable, contended_scenarios

from ple_gym.drive import CHECK
from ple_gym.lanes import Lanes
from ple_gym.scenario import Cost, Decision, Host, Limit, Scenario, Vm
from ple_gym.sim.soundness import FLAWS
from ple_gym.traces import events as tr


def under_credit2(scenario: Scenario) -> Scenario:
    return under("credit2", scenario)


@pytest.mark.kernel
def test_kernel_and_reference_agree() -> None:
    check_agreement("credit2")


@pytest.mark.kernel
@settings(max_examples=40)
@given(contended_scenarios(), seeds)
def test_its_states_are_sound(scenario: Scenario, seed: int) -> None:
    m = Machine(under_credit2(scenario), seed)
    for turn in range(20):
        assert FLAWS[m.lanes.drive(0, 1, CHECK)] == ""
        if not m.deciding:
            break
        m.step(m.legal_actions()[turn % len(m.legal_actions())])


# ----------------------------------------------------------------------------------------------------- small cases
# These are on the reference simulator, which the first test compares with the kernel. The clock is of 1 GHz.

MS, US = 1_000_000, 1_000
HOG = {"vcpus": 4, "transactions": 0, "locks": 0, "start": "fresh", "compute": "constant 100000000000"}


def world(pcpus: int = 2, sockets: int = 1, runqueue: str = "socket", xen: str = "4.18", vcpus: int = 4) -> World:
    """A world at time 0, in which everybody computes for ever."""
    host = {"scheduler": "credit2", "xen": xen, "runqueue": runqueue, "pcpus": pcpus, "sockets": sockets}
    return World(changed(copy.deepcopy(CONVOY), host=host, guest={**HOG, "vcpus": vcpus}), 1)


def credit2(w: World) -> Credit2:
    assert isinstance(w.host, Credit2)
    return w.host


@pytest.mark.parametrize(
    ("pcpus", "sockets", "runqueue", "sizes"),
    [
        (6, 1, "socket", [6]), (24, 1, "socket", [12, 12]), (32, 1, "socket", [16, 16]), (33, 1, "all", [11, 11, 11]),
        (24, 2, "socket", [12, 12]), (8, 2, "socket", [4, 4]), (8, 2, "all", [8]), (4, 1, "cpu", [1, 1, 1, 1]),
        (17, 1, "all", [8, 8, 1]),
    ],
)  # fmt: skip
def test_which_pcpus_share_a_queue(pcpus: int, sockets: int, runqueue: str, sizes: list[int]) -> None:
    queues = credit2(world(pcpus, sockets, runqueue)).queues
    assert [len(queue.pcpus) for queue in queues] == sizes


def only(w: World, *vcpus: Vcpu) -> None:
    """Nobody but these is in the list."""
    host = credit2(w)
    for v in list(host.queues[0].list):
        host.take_out(v)
        v.state = State.BLOCKED
    for v in vcpus:
        v.state = State.QUEUED
        host.enlist(v)


@pytest.mark.parametrize(("lead", "runs"), [(499_999, False), (500_000, True)])
def test_who_waits_for_another_pcpu_needs_500_us_more(lead: int, runs: bool) -> None:
    """A yields on p0, and only B waits, who ran on p1 last. B gets 50 us for moving."""
    w = world()
    host, p = credit2(w), w.pcpus[0]
    a, b = p.current, w.pcpus[1].queue[0]
    assert a is not None
    only(w)
    w.now = p.dispatched_at + 300 * US
    a.credit, a.burned_at, b.credit = 3 * MS, w.now, 3 * MS + lead
    only(w, b)
    host.yields(a)
    host.schedule(p)
    assert (p.current is b) == runs
    assert b.credit == 3 * MS + lead + (50 * US if runs else 0)
    if not runs:
        assert p.slice_end - w.now == 700 * US, "the rest of the rate limit"


def test_a_yield_passes_over_whatever_credit() -> None:
    w = world()
    host, p = credit2(w), w.pcpus[0]
    a, b = p.current, p.queue[0]
    assert a is not None
    w.now = 2070
    only(w, b)
    b.credit = -9 * MS
    host.yields(a)
    host.schedule(p)
    assert p.current is b and p.slice_end == 2070 + MS
    assert credit2(w).queues[0].list == [a] and not a.yielding


@pytest.mark.parametrize(
    ("where", "ran", "lead", "asked"),
    [
        ("own", 950_000, 5 * MS, False), ("own", 950_001, 1, True), ("own", 950_001, 0, False),
        ("other", 950_001, 500_000, False), ("other", 950_001, 500_001, True), ("other", 950_000, 5 * MS, False),
    ],
)  # fmt: skip
def test_who_wakes_preempts_who_has_run_950_us(where: str, ran: int, lead: int, asked: bool) -> None:
    w = world()
    host = credit2(w)
    own, other = w.pcpus
    v = own.queue[0]
    only(w)
    p = own if where == "own" else other
    for q in (own, other):
        assert q.current is not None
        q.dispatched_at = w.now = MS * 10
        q.current.burned_at = w.now + ran
        q.current.credit = 5 * MS if q is p else 11 * MS
    w.now += ran
    v.credit = 5 * MS + lead
    host.wake(v)
    assert (p.resched_at < INF) == asked
    assert (v.tickled is p) == asked


def test_who_wakes_finds_an_idle_pcpu_that_nobody_has_asked_yet() -> None:
    w = world(pcpus=4, vcpus=8)
    host = credit2(w)
    first, second = w.pcpus[3].queue[0], w.pcpus[0].queue[0]
    only(w)
    for p in (w.pcpus[1], w.pcpus[2]):
        p.mode, p.current = Mode.IDLE, None
    for v in (first, second):
        host.wake(v)
    assert [v.tickled for v in (first, second)] == [w.pcpus[1], w.pcpus[2]]  # from the own on, around
    assert host.candidate(w.pcpus[2], -10 * MS - 1, False) is second, "the first one is for another"


def test_a_reset() -> None:
    """T5: whoever is next has -10 ms; the others get twice as much as usual, too, but none more than 10.5 ms."""
    w = world(pcpus=1)
    host, p = credit2(w), w.pcpus[0]
    cur, n, blocked, other = p.current, *p.queue
    only(w, n)
    assert cur is not None
    cur.credit = -10 * MS
    n.credit, blocked.credit, other.credit = -10 * MS, 10_500 * US, 3 * MS
    host.yields(cur)
    host.schedule(p)
    assert [v.credit for v in (n, blocked, other, cur)] == [10 * MS, 10_500 * US, 10_500 * US, 10 * MS]


# ------------------------------------------------------------------------------------------------------- long runs


def hogs(*weights: int, xen: str = "4.18") -> Scenario:
    """One pCPU, and a busy vCPU of each weight."""
    vms = [Vm(vcpus=1, locks=0, transactions=0, weight=weight, compute="constant 100000000000") for weight in weights]
    return Scenario(
        host=Host(scheduler="credit2", pcpus=1, tsc_hz=10**9, xen=xen),
        cost=Cost(switch=0, cache=0),
        limit=Limit(simulated_s=3),
        guest=vms[0],
        neighbours=tuple(vms[1:]),
    )


def run_lengths(scenario: Scenario) -> dict[int, list[int]]:
    """Lengths of the runs of each vCPU, but for the first two of all (whose phase is drawn) and the last."""
    _, trace = traced(scenario, "host")
    begins = [(int(row[0]), int(row[3])) for row in trace if row[1] == tr.RUN]
    found: dict[int, list[int]] = {}
    for (t, v), (end, _) in list(pairwise(begins))[2:]:
        found.setdefault(v, []).append(end - t)
    return found


def median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


def test_how_long_two_hogs_run() -> None:
    """T1: before 4.21 whoever is put back does not count, so that the queue is empty and a slice whole."""
    for lengths in run_lengths(hogs(256, 256)).values():
        assert median(lengths) == 10 * MS
    for lengths in run_lengths(hogs(256, 256, xen="4.21")).values():
        assert median(lengths) == MS and max(lengths) <= 1500 * US


def test_weights_are_shares() -> None:
    """T6."""
    for xen, length in (("4.18", 5 * MS), ("4.21", MS)):
        light, heavy = run_lengths(hogs(256, 512, xen=xen)).values()
        assert 1.97 < sum(heavy) / sum(light) < 2.03
        assert (median(light), median(heavy)) == (length, 2 * length)


def stalled(pcpus: int, runqueue: str, xen: str, hogs: int = 0) -> Scenario:
    """vCPU 0 holds a lock for ever, and all others of its VM spin for it; neighbours compute."""
    hog = Vm(vcpus=1, locks=0, transactions=0, compute="constant 100000000000")
    return Scenario(
        host=Host(scheduler="credit2", pcpus=pcpus, tsc_hz=10**9, runqueue=runqueue, xen=xen),
        cost=Cost(exit=1000, switch=0, cache=0),
        decision=Decision(actuator="hint"),
        limit=Limit(simulated_s=1),
        guest=Vm(vcpus=2 * pcpus, transactions=0, hold="constant 100000000000", start="convoy"),
        neighbours=(hog,) * hogs,
    )


@pytest.mark.parametrize(
    ("xen", "hogs", "most"), [("4.18", 0, 10 * MS), ("4.21", 0, MS), ("4.18", 1, MS), ("4.21", 1, MS)]
)
def test_a_yield_costs_a_rate_limit(xen: str, hogs: int, most: int) -> None:
    """T2: it costs a millisecond, or before 4.21 ten if nobody else waits; whoever is next does not yield."""
    _, trace = traced(stalled(1, "cpu", xen, hogs), "host")
    exits = [int(row[0]) for row in trace if row[1] == tr.PLE]
    gaps = [b - a for a, b in pairwise(exits)]
    window = 4100  # 82 PAUSEs
    assert median(gaps) == most + window
    lengths = run_lengths(stalled(1, "cpu", xen, hogs))
    assert set(lengths[1]) == {window}, "the spinner runs for a window"


def test_a_yield_costs_nothing_if_the_other_one_yields() -> None:
    """T7: on the pCPUs without the holder each exit is a switch, and nobody is stolen."""
    lanes, trace = traced(stalled(2, "cpu", "4.18"), "host")
    exits = Counter(int(row[2]) for row in trace if row[1] == tr.PLE)
    assert 95 <= exits[0] <= 105, "with the holder: ten milliseconds for each yield"
    assert exits[1] > 190_000, "two spinners: at once"
    assert lanes.totals(0)["steals"] == 0


@pytest.mark.kernel
@settings(max_examples=100 * MORE)
@given(contended_scenarios(), st.sampled_from(["random", "kvm", "longest-waiting", "oracle"]), seeds)
def test_lists_that_hints_have_put_out_of_order(scenario: Scenario, rule: str, seed: int) -> None:
    """Who is queued while a hinted vCPU of less credit is at the head stands before others of more."""
    blocks = {"block_probability": 0.3, "block": "exponential 30000", "affinity": "any"}
    guest = replace(scenario.guest, vcpus=7, threads=0, weight=64, **blocks)
    other = replace(guest, weight=1000, transactions=0)
    host = replace(scenario.host, scheduler="credit2", pcpus=2, sockets=1)
    hinting = replace(scenario, host=host, guest=guest, neighbours=(other,), decision=Decision(actuator="hint"))
    hinting = affordable(hinting, rule, seed, WORK)
    lanes = Lanes(hinting, 1, policy=rule)
    lanes.run(0, seed)
    assert lanes.totals(0) == simulate(hinting.to_dict(), rule, seed)
