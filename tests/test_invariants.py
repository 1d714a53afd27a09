"""What must hold in every world, whatever is decided: random scenarios, random decisions, every state on the way."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from machine import Machine, totals, traced
from worlds import MORE, ON_CREDIT, contended_scenarios, scenarios

from ple_gym.drive import RESET, STEP
from ple_gym.lanes import Lanes
from ple_gym.scenario import Limit, Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.constants import ASIDE
from ple_gym.sim.guest.kinds import LOCK_KINDS, stand_last, the_first
from ple_gym.sim.host.credit import BOOST, OVER, UNDER
from ple_gym.traces import events as tr

WORLDS = 4  # per random scenario
RULE_NAMES = ON_CREDIT
seeds = st.integers(0, 2**63 - 1)
rules = st.sampled_from(RULE_NAMES)

# ---------------------------------------------------------------------------------------------- every state on the way


def check_every_cycle_is_accounted_for(m: Machine) -> None:
    result = m.lanes.totals(0)
    spent, vms = result["cycles"], result["vms"]
    assert m.lanes.pcpus * result["now"] == sum(spent[name] for name in state.CYCLES)
    assert min(spent.values()) >= 0
    assert sum(vm["used"] for vm in vms) == spent["useful"] + spent["spin"] + spent["cache"]
    assert sum(vm["useful"] for vm in vms) == spent["useful"]
    assert np.bincount(m.vcpu["vm"], m.vcpu["cpu_time"], len(vms)).tolist() == [vm["used"] for vm in vms]


def check_every_exit_is_accounted_for(m: Machine) -> None:
    world = m.world
    assert world["exits"] == world["exits_lock_free"] + world["exits_holder_off"] + world["exits_holder_running"]
    assert world["contended"] <= world["acquisitions"]
    assert m.lanes.histogram[0, state.WAITS].sum() == world["contended"]
    assert m.lanes.histogram[0, state.ACQUIRE_EXITS].sum() == world["contended"]


def check_every_vcpu_is_in_one_place(m: Machine) -> None:
    where = Counter()
    for p, (mode, current) in enumerate(m.pcpu[["mode", "current"]].tolist()):
        assert (mode == state.GUEST) == (current != state.NONE)
        if mode == state.GUEST:
            where[current, state.RUNNING, p] += 1
        for v in m.queue(p):
            where[v, state.QUEUED, p] += 1
    runnable = {
        (v, status, p): 1
        for v, (status, p) in enumerate(m.vcpu[["state", "pcpu"]].tolist())
        if status in (state.RUNNING, state.QUEUED)
    }
    assert where == runnable


def check_every_sleeper_will_wake(m: Machine) -> None:
    pooled = [vm.transactions for vm in m.scenario.vms().values()]
    for v, (status, vm) in enumerate(m.vcpu[["state", "vm"]].tolist()):
        phase, halted, wake_at = m.guest[["phase", "halted", "wake_at"]][v].tolist()
        if status == state.BLOCKED and list(m.scenario.vms().values())[vm].threads and not halted:
            assert wake_at == state.INF  # a thread that is ready again wakes it
        elif status == state.BLOCKED and m.guest["frozen"][v]:
            assert wake_at == state.INF  # a sibling calls it
        elif status == state.BLOCKED:
            assert phase == state.SPIN if halted else m.world["now"] <= wake_at < state.INF
        else:
            assert not halted and wake_at == state.INF
        if status == state.DONE:
            assert 0 < pooled[vm] <= m.vm["next_transaction"][vm]
    assert m.world["next_wake"] == min([*m.guest["wake_at"].tolist(), *m.thread["wake_at"].tolist()])


def check_every_lock_has_one_holder_and_one_line(m: Machine) -> None:
    lock, tried = (m.guest[name].tolist() for name in ("lock", "try_at"))
    phase = (m.guest["phase"] & state.BENEATH).tolist()
    status = m.vcpu["state"].tolist()
    held = [m.held(v) for v in range(m.lanes.vcpus)]
    for v in range(m.lanes.vcpus):
        waits = phase[v] in (state.SPIN, state.ACKS)
        assert waits or bool(held[v]) == (phase[v] == state.HOLD) or status[v] == state.DONE
        assert not held[v] or status[v] in (state.RUNNING, state.QUEUED) or m.guest["halted"][v]
    vms = list(m.scenario.vms().values())
    for number, (holder, head, tail, vm) in enumerate(m.lock.tolist()[: sum(vm.locks for vm in vms)]):
        busy = [v for v in range(m.lanes.vcpus) if status[v] != state.DONE and lock[v] == number]
        spinning = {v for v in busy if phase[v] == state.SPIN}
        assert [v for v in range(m.lanes.vcpus) if number in held[v]] == ([] if holder == state.NONE else [holder])
        assert all(m.vcpu["vm"][v] == vm for v in busy if phase[v] == state.SPIN or number in held[v])
        kind = LOCK_KINDS[vms[vm].lock_kind]
        if not kind.in_line:
            assert head == tail == state.NONE
            continue
        line = m.waiters(number)
        if kind.stolen:  # who stands aside is in no line
            spinning -= {v for v in spinning if m.guest["node"][v] == ASIDE}
        assert set(line) == spinning and len(line) == len(spinning)
        assert tail == (line[-1] if line else state.NONE)
        if line and holder == state.NONE:
            assert not m.guest["halted"][head], "who is first was not woken when the lock became free"
        if kind.stand is stand_last:  # the order of the tickets
            assert [tried[v] for v in line] == sorted(tried[v] for v in line)


def check_nothing_is_due_in_the_past(m: Machine) -> None:
    now = m.world["now"]
    others = np.arange(m.lanes.pcpus) != m.here
    assert (m.clock["event_at"][others] >= now).all()
    assert (m.pcpu["settled"] <= np.maximum(now, m.pcpu["entry"])).all()
    assert m.world["period_at"] >= now and m.world["next_wake"] >= now


def check_an_idle_pcpu_with_a_queue_has_been_told(m: Machine) -> None:
    for p, (mode, resched_at) in enumerate(m.pcpu[["mode", "resched_at"]].tolist()):
        if mode == state.IDLE and m.queue(p):
            assert resched_at <= m.world["now"] + m.scenario.cost.ipi


def check_the_host_counts_its_active_vcpus(m: Machine) -> None:
    active = np.bincount(m.vcpu["vm"], weights=m.host_vcpu["active"], minlength=len(m.vm))
    assert active.tolist() == m.host_vm["active"].tolist()
    assert set(m.host_vcpu["priority"].tolist()) <= {BOOST, UNDER, OVER}


def check_the_exit_that_is_due(m: Machine) -> None:
    """The asker runs, spins, and has reached the exit, or its notification, at this very moment."""
    y = m.asker
    assert m.vcpu["state"][y] == state.RUNNING and m.guest["phase"][y] in (state.SPIN, state.ACKS)
    due = m.world["now"] if m.pcpu["notified"][m.here] else m.guest["exit_at"][y]
    assert due == m.world["now"] == m.vcpu["last_ple"][y]


AT_A_DECISION = (
    check_every_cycle_is_accounted_for,
    check_every_exit_is_accounted_for,
    check_every_vcpu_is_in_one_place,
    check_every_sleeper_will_wake,
    check_every_lock_has_one_holder_and_one_line,
    check_nothing_is_due_in_the_past,
    check_an_idle_pcpu_with_a_queue_has_been_told,
    check_the_host_counts_its_active_vcpus,
    check_the_exit_that_is_due,
)


def check_the_end(m: Machine) -> None:
    check_every_cycle_is_accounted_for(m)
    check_every_exit_is_accounted_for(m)
    world, limit = m.world, round(m.scenario.limit.simulated_s * m.scenario.host.tsc_hz)
    finite = [vm.transactions > 0 for vm in m.scenario.vms().values()]
    finishes = m.vm["finish"][finite].tolist()
    assert m.lanes.totals(0)["finished"] == (world["status"] == state.FINISHED)
    if world["status"] == state.FINISHED:
        assert max(finishes) == world["now"] < limit
    else:
        assert world["status"] == state.TIMED_OUT
        assert world["now"] == limit and max(finishes) == state.INF


def check_a_world(scenario: Scenario, seed: int, rule: str, decisions: int, lanes: Lanes | None = None) -> int:
    """Decide at random; check the state at the first decisions and now and then later. Returns their number."""
    m = Machine(scenario, seed, lanes, policy=rule)
    choice = random.Random(seed)
    taken = 0
    while m.deciding and taken < decisions:
        if taken < 20 or taken % 20 == 0:
            for check in AT_A_DECISION:
                check(m)
        m.step(choice.choice(m.legal_actions()))
        taken += 1
    if m.deciding:
        m.leave_to_policy(m.defer)
    check_the_end(m)
    return taken


@settings(max_examples=1000 * MORE)
@given(contended_scenarios() | scenarios(), seeds, rules)
def test_random_decisions_in_random_worlds(scenario: Scenario, seed: int, rule: str) -> None:
    lanes = Lanes(scenario, 1, policy=rule)
    taken = [check_a_world(scenario, seed ^ world, rule, 200, lanes) for world in range(WORLDS)]
    event("some decisions" if sum(taken) else "no decision")


@pytest.mark.kernel
@settings(max_examples=15)
@given(contended_scenarios(), seeds, rules)
def test_random_decisions_in_a_few_random_worlds(scenario: Scenario, seed: int, rule: str) -> None:
    check_a_world(scenario, seed, rule, 40)


@pytest.mark.parametrize("name", ["Tiny", "TicketOrder", "Storm"])
def test_random_decisions_in_built_in_worlds(name: str) -> None:
    scenario = load(name)
    assert sum(check_a_world(scenario, seed, "xen-4.8", 2_000) for seed in range(3)) > 100


# ------------------------------------------------------------------------------------------- the record of a whole run


def alternates(kinds: np.ndarray, who: np.ndarray, opening: int, closing: int) -> bool:
    """Whether a sequence is opening, closing, opening, ...; each pair by the same one."""
    even, odd = kinds[0::2], kinds[1::2]
    return (even == opening).all() and (odd == closing).all() and (who[1::2] == who[0 : len(odd) * 2 : 2]).all()


def check_a_trace(scenario: Scenario, trace: np.ndarray) -> None:
    time, kind, pcpu, vcpu, lock = trace.T
    assert (np.diff(time) >= 0).all()

    dispatches = np.isin(kind, (tr.RUN, tr.STOP))
    for column, other in ((pcpu, vcpu), (vcpu, pcpu)):
        for i in np.unique(column[dispatches]):
            mine = dispatches & (column == i)
            assert alternates(kind[mine], other[mine], tr.RUN, tr.STOP)

    # Only who runs can do anything. (At time 0 a convoy takes its tickets before anybody runs.)
    running = {}
    for t, what, p, v, _ in trace[:5_000].tolist():
        if what == tr.RUN:
            running[p] = v
        elif what == tr.STOP:
            assert running.pop(p) == v
        elif what in (tr.TRY, tr.ACQUIRE, tr.RELEASE, tr.PLE, tr.IPI, tr.ACK) and t > 0:
            assert running[p] == v
        elif what == tr.NOISE_BEGIN:
            assert p not in running

    first = 0
    for vm in scenario.vms().values():
        for number in range(first, first + vm.locks):
            mine = lock == number
            holds = mine & np.isin(kind, (tr.ACQUIRE, tr.RELEASE))
            assert alternates(kind[holds], vcpu[holds], tr.ACQUIRE, tr.RELEASE)  # one holder at a time
            if LOCK_KINDS[vm.lock_kind][:2] == (stand_last, the_first):  # first come, first served
                tries, gets = vcpu[mine & (kind == tr.TRY)], vcpu[mine & (kind == tr.ACQUIRE)]
                assert gets.tolist() == tries[: len(gets)].tolist()
        first += vm.locks


def check_trace_against_counters(lanes: Lanes, trace: np.ndarray) -> None:
    count = np.bincount(trace[:, 1], minlength=len(tr.KIND_NAMES))
    world = lanes.world[0]
    assert count[tr.PLE] == world["exits"]
    assert count[tr.RUN] == world["switches"]
    assert (tr.waits(trace)[:, 3] - tr.waits(trace)[:, 2]).max(initial=0) >= world["wait_max"]


@settings(max_examples=500 * MORE)
@given(contended_scenarios() | scenarios(), seeds, rules)
def test_records_of_random_worlds(scenario: Scenario, seed: int, rule: str) -> None:
    lanes, trace = traced(scenario, rule, seed)
    check_a_trace(scenario, trace)
    check_trace_against_counters(lanes, trace)


@pytest.mark.kernel
@settings(max_examples=10)
@given(contended_scenarios(), seeds, rules)
def test_records_of_a_few_random_worlds(scenario: Scenario, seed: int, rule: str) -> None:
    _, trace = traced(scenario, rule, seed)
    check_a_trace(scenario, trace)


# ------------------------------------------------------------------------------------------------------- repeatability


def final_bytes(scenario: Scenario, seed: int, rule: str) -> bytes:
    lanes = Lanes(scenario, 1, policy=rule)
    lanes.run(0, seed)
    return lanes.rows[0].tobytes()


@pytest.mark.kernel
@settings(max_examples=4)
@given(contended_scenarios(), seeds, seeds, rules)
def test_equal_seeds_give_equal_bytes(scenario: Scenario, seed: int, other: int, rule: str) -> None:
    expected = final_bytes(scenario, seed, rule)
    assert final_bytes(scenario, seed, rule) == expected
    lanes = Lanes(scenario, 1, policy=rule)
    for one in (other, seed):  # whatever ran in this lane before
        lanes.run(0, one)
    assert lanes.rows[0].tobytes() == expected


@settings(max_examples=300 * MORE)
@given(contended_scenarios(), seeds, seeds, rules)
def test_lanes_do_not_touch_each_other(scenario: Scenario, seed: int, other: int, rule: str) -> None:
    lanes = Lanes(scenario, 3, policy=rule)
    for lane, one in enumerate((seed, other, seed)):
        lanes.run(lane, one)
    assert lanes.rows[0].tobytes() == lanes.rows[2].tobytes() == final_bytes(scenario, seed, rule)
    assert lanes.rows[1].tobytes() == final_bytes(scenario, other, rule)


@settings(max_examples=50)
@given(contended_scenarios(), seeds, seeds)
def test_lanes_stepped_together_are_like_lanes_stepped_alone(scenario: Scenario, seed: int, other: int) -> None:
    alone = [Machine(scenario, one) for one in (seed, other)]
    together = Lanes(scenario, 2)
    for lane, m in enumerate(alone):
        together.world["seed"][lane], together.world["index"][lane] = m.world["seed"], m.world["index"]
    together.drive(0, 2, RESET)
    choice = random.Random(seed)
    for _ in range(20):
        if not all(m.deciding for m in alone):
            break
        for lane, m in enumerate(alone):
            action = choice.choice(m.legal_actions())
            together.action[lane] = action
            m.step(action)
        together.drive(0, 2, STEP)
    for lane, m in enumerate(alone):
        assert together.rows[lane].tobytes() == m.lanes.rows[0].tobytes()


@settings(max_examples=100)
@given(contended_scenarios(), seeds)
def test_a_compiled_rule_is_nothing_but_its_actions(scenario: Scenario, seed: int) -> None:
    """Given from outside, `continue` and `host` lead to the same end as compiled."""
    for rule in ("continue", "host"):
        m = Machine(scenario, seed, policy=rule)
        start = m.lanes.rows.copy(), m.lanes.histogram.copy()
        for _ in range(300):
            if m.deciding:
                m.step(m.asker if rule == "continue" else m.defer)
        if m.deciding:
            m.leave_to_policy(m.asker if rule == "continue" else m.defer)
        outside = m.lanes.totals(0)
        m.lanes.rows[:], m.lanes.histogram[:] = start
        if m.deciding:
            m.leave_to_policy(m.asker if rule == "continue" else m.defer)
        assert m.lanes.totals(0) == outside


# ----------------------------------------------------------------------------------- work does not depend on decisions


def work(result: dict, scenario: Scenario) -> list[int]:
    """Useful cycles of each VM with a pool, and, where they all have one, the locks taken.

    Handlers are useful, too, and how many there are depends on who has ended when the others are interrupted.
    """
    pools = [vm.transactions > 0 and not vm.is_interrupted for vm in scenario.vms().values()]
    useful = [vm["useful"] for vm, pool in zip(result["vms"], pools, strict=True) if pool]
    return useful + [result["acquisitions"]] * all(pools)


@settings(max_examples=100)
@given(scenarios(), seeds)
def test_every_rule_lets_the_same_work_be_done(scenario: Scenario, seed: int) -> None:
    scenario = replace(scenario, limit=Limit(simulated_s=0.02))
    results = [totals(scenario, rule, seed) for rule in RULE_NAMES]
    finished = [work(result, scenario) for result in results if result["finished"]]
    event("all finished" if len(finished) == len(RULE_NAMES) else "some finished" if finished else "none finished")
    assert all(done == finished[0] for done in finished)


@pytest.mark.parametrize("name", ["Tiny", "HolderPreempted", "TicketOrder", "Storm"])
def test_every_rule_lets_the_same_work_be_done_in_built_in_worlds(name: str) -> None:
    scenario = load(name).with_overrides({"limit.simulated_s": 60})
    results = [totals(scenario, rule, seed=3) for rule in RULE_NAMES]
    assert all(result["finished"] for result in results)
    assert len({tuple(work(result, scenario)) for result in results}) == 1
    assert len({result["now"] for result in results}) > 1  # though they differ in how long it takes


@pytest.mark.kernel
@pytest.mark.parametrize("rule", ["continue", "xen-4.5", "oracle"])
def test_a_run_that_hits_the_cap_says_so(rule: str) -> None:
    scenario = load("HolderPreempted")
    whole = totals(scenario, rule)
    assert whole["finished"] and whole["vms"][0]["finish"] == whole["now"]
    cap_s = 1_000_000 / scenario.host.tsc_hz if rule == "continue" else whole["now"] / 2 / scenario.host.tsc_hz
    cut = totals(scenario.with_overrides({"limit.simulated_s": cap_s}), rule)
    assert not cut["finished"]
    assert cut["now"] == round(cap_s * scenario.host.tsc_hz)
    assert cut["vms"][0]["finish"] == state.INF


def test_work_without_end_is_cut_off_at_the_cap() -> None:
    result = totals(load("Tiny").with_overrides({"guest.transactions": 0, "limit.simulated_s": 0.05}), "xen-4.8")
    assert not result["finished"] and result["now"] == round(0.05 * load("Tiny").host.tsc_hz)
