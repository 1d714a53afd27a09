"""Threads (docs/model.md, 7.6): who sleeps gives its vCPU away, and nobody is ready beside a vCPU that lies idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, totals, traced
from reference_simulator import guest as specified_guest
from reference_simulator import threads as specified
from reference_simulator.rules import RULES as SPECIFIED
from reference_simulator.state import Vcpu
from reference_simulator.world import world_of
from test_states import signed
from worlds import MORE, WORK, affordable, contended_scenarios, fitted, scenarios, under_fair

from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario, ScenarioError
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.traces import events as tr

worlds = contended_scenarios() | under_fair(contended_scenarios()) | scenarios()
rules = st.sampled_from(sorted(SPECIFIED))
seeds = st.integers(0, 2**63 - 1)

#: A VM whose threads sleep often, beside few transactions at its end.
SLEEPY = {
    "guest.vcpus": 4,
    "guest.threads": 9,
    "guest.block_probability": 0.4,
    "guest.block": "exponential 60000",
    "guest.transactions": 60,
    "guest.sections": 3,
    "guest.compute": "exponential 20000",
}


def fitting(rule: str, scenario: Scenario) -> str:
    return rule if RULES[rule].scheduler in ("", scenario.host.scheduler) else "host"


def threaded(scenario: Scenario, count: int, **changes: float | int) -> Scenario:
    """The scenario with so many threads in each VM, but at least one for each vCPU."""
    vms = [fitted(vm, threads=max(count, vm.vcpus), **changes) for vm in scenario.tables().values()]
    return replace(scenario, guest=vms[0], neighbours=tuple(vms[1:]))


@pytest.mark.kernel
@settings(max_examples=(60 if JIT_ENABLED else 20) * MORE)
@given(worlds, rules, seeds)
def test_as_many_threads_as_vcpus_are_as_none(scenario: Scenario, rule: str, seed: int) -> None:
    """To the cycle, and whatever a switch costs: each thread stays on its vCPU."""
    rule = fitting(rule, scenario)
    alone = replace(
        scenario,
        guest=fitted(scenario.guest, threads=0, program="", balloon=False, block_probability=0.2),
        neighbours=tuple(fitted(vm, threads=0, program="", balloon=False) for vm in scenario.neighbours),
    )
    assert totals(threaded(alone, 0, thread_switch=10**8), rule, seed) == totals(alone, rule, seed)


@settings(max_examples=(60 if JIT_ENABLED else 15) * MORE)
@given(worlds, rules, seeds)
def test_each_thread_is_in_one_place(scenario: Scenario, rule: str, seed: int) -> None:
    """At every decision; and none is ready, or asleep for ever, beside a vCPU that lies idle."""
    scenario = threaded(scenario, 9, block_probability=0.3)
    m = Machine(scenario, seed)
    for turn in range(30):
        if not m.deciding:
            break
        check_places(m)
        m.step(m.legal_actions()[turn % len(m.legal_actions())])


def check_places(m: Machine) -> None:
    first = 0
    for number, vm in enumerate(m.scenario.vms().values()):
        own = m.thread[first : first + vm.threads]
        vcpus = np.flatnonzero(m.vcpu["vm"] == number)
        status, halted = m.vcpu["state"][vcpus], m.guest["halted"][vcpus] != 0
        idle = (status == state.BLOCKED) & ~halted
        busy = vcpus[(status != state.DONE) & ~idle]
        on = first + np.flatnonzero(own["place"] == state.ON_VCPU)
        assert sorted(m.guest["thread"][busy]) == on.tolist()
        assert (m.guest["thread"][m.thread["vcpu"][on]] == on).all()
        line, h = [], int(m.vm["ready_head"][number])
        while h != state.NONE:
            line.append(h)
            assert len(line) <= vm.threads, "the line goes round in circles"
            h = int(m.thread["next"][h])
        assert sorted(line) == (first + np.flatnonzero(own["place"] == state.READY)).tolist()
        assert int(m.vm["ready_tail"][number]) == (line[-1] if line else state.NONE)
        if line:
            assert not idle.any() and not (status == state.DONE).any()
        asleep = own["place"] == state.SLEEPING
        assert ((own["wake_at"] < state.INF) == asleep).all() and (own["wake_at"] >= m.world["now"]).all()
        assert (status != state.DONE).sum() <= (own["place"] != state.THREAD_DONE).sum(), "more vCPUs than threads"
        first += vm.threads


@pytest.mark.parametrize("scheduler", ["credit", "credit2", "fair"])
def test_all_transactions_are_done_once(scheduler: str) -> None:
    """The work of a finished VM is the same however many threads share it; and nobody is left over."""
    scenario = load("Tiny").with_overrides({**SLEEPY, "host.scheduler": scheduler, "limit.simulated_s": 5.0})
    for seed in range(3):
        ends = []
        for threads in (0, 4, 5, 9, 59, 61, 200):
            lanes = Lanes(scenario.with_overrides({"guest.threads": threads}), 1, policy="host")
            lanes.run(0, seed)
            ends.append(lanes.totals(0))
            assert ends[-1]["finished"]
            assert int(lanes.vm["completed"][0, 0]) == 60 == int(lanes.vm["next_transaction"][0, 0])
        assert len({end["acquisitions"] for end in ends}) == 1
        assert len({end["cycles"]["useful"] for end in ends}) == 1


def happened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What comes to pass in the reference simulator's worlds from now on."""
    found: Counter[str] = Counter()
    sleep_ends = specified.sleep_ends

    def noting(what: str, happens: Callable[[Vcpu], None]) -> Callable[[Vcpu], None]:
        def noted(v: Vcpu) -> None:
            happens(v)
            then = v.state.name if v.state.name in ("BLOCKED", "DONE") else "another one goes on"
            found[f"one {what}, and {then}"] += 1

        return noted

    def noting_end(h: specified.Thread) -> Vcpu | None:
        last = h.vcpu
        v = sleep_ends(h)
        found["one waits" if v is None else "one wakes its last vCPU" if v is last else "one wakes another vCPU"] += 1
        return v

    monkeypatch.setattr(specified, "ends", noting("ends", specified.ends))
    monkeypatch.setattr(specified, "goes_to_sleep", noting("sleeps", specified.goes_to_sleep))
    monkeypatch.setattr(specified, "sleep_ends", noting_end)
    assert specified_guest.threads is specified
    return found


@pytest.mark.parametrize("scheduler", ["credit", "credit2", "fair"])
def test_kernel_and_specification_agree_on_sleepy_threads(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = happened(monkeypatch)
    for start, threads in (("fresh", 9), ("fresh", 4), ("convoy", 5), ("convoy", 30)):
        changes = {**SLEEPY, "host.scheduler": scheduler, "guest.start": start, "guest.threads": threads}
        scenario = load("Tiny").with_overrides(changes)
        for seed in range(4):
            assert totals(scenario, "host", seed) == world_of(scenario.to_dict(), "host", seed).run("host")
    assert set(found) == {
        "one sleeps, and another one goes on",
        "one sleeps, and BLOCKED",
        "one ends, and another one goes on",
        "one ends, and BLOCKED",
        "one ends, and DONE",
        "one waits",
        "one wakes its last vCPU",
        "one wakes another vCPU",
    }


@pytest.mark.kernel
def test_random_worlds_meet_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So `make explore` looks for what kernel and reference make of them."""
    found = happened(monkeypatch)
    met: Counter[str] = Counter()

    @settings(max_examples=(600 if JIT_ENABLED else 60) * MORE)
    @given(worlds, rules, seeds, st.sampled_from([0, 3, 9, 15]))
    def run(scenario: Scenario, rule: str, seed: int, count: int) -> None:
        scenario = threaded(scenario, count, block_probability=0.3) if count else scenario
        rule = fitting(rule, scenario)
        scenario = affordable(scenario, rule, seed, WORK)
        found.clear()
        assert totals(scenario, rule, seed) == world_of(scenario.to_dict(), rule, seed).run(rule)
        met.update(found.keys())

    run()
    if JIT_ENABLED:
        assert len(met) == 8, met


def test_who_sleeps_gives_its_vcpu_to_the_first_in_line() -> None:
    """One vCPU, three threads, no locks: they take turns, and each turn costs a switch, but for a thread's own vCPU."""
    scenario = load("Tiny").with_overrides(
        {
            **SLEEPY, "guest.vcpus": 1, "guest.threads": 3, "guest.locks": 0, "guest.transactions": 30, "host.pcpus": 1,
            "guest.sections": 1, "guest.compute": "constant 10000", "guest.block": "constant 300", "cost.cache": 0,
            "guest.thread_switch": 700, "guest.block_probability": 1.0, "guest.start": "fresh",
        }
    )  # fmt: skip
    lanes, trace = traced(scenario, "host")
    taken = trace[trace[:, 1] == tr.THREAD][:, 4]
    assert taken.tolist() == [0] + [(turn + 1) % 3 for turn in range(len(taken) - 1)]
    cycles = lanes.totals(0)["cycles"]
    assert cycles["useful"] == 300_000
    assert cycles["cache"] == 700 * (len(taken) - 1)


@pytest.mark.parametrize(
    ("threads", "share", "exits"), [(0, 0.0, 176_584), (0, 0.02, 124), (8, 0.02, 124), (32, 0.02, 133_291)]
)
def test_storms_need_a_thread_that_can_run(threads: int, share: float, exits: int) -> None:
    """`Paper8`: short sleeps end its storms if the vCPU sleeps, and do not if another thread goes on (40 runs each)."""
    changes = {"guest.threads": threads, "guest.block_probability": share, "guest.block": "constant 267000"}
    lanes = Lanes(load("Paper8").with_overrides(changes), 1, policy="xen-4.5")
    found = 0
    for seed in range(40):
        lanes.run(0, seed)
        found += int(lanes.world["exits"][0])
    assert round(found / 40) == exits


@pytest.mark.parametrize("threads", [1, 3, 4097])
def test_threads_that_do_not_fit(threads: int) -> None:
    with pytest.raises(ScenarioError, match=f"guest.threads = {threads}: must be"):
        load("Tiny").with_overrides({"guest.vcpus": 4, "guest.threads": threads})


def test_too_many_threads_of_all_vms() -> None:
    vm = replace(load("Tiny").guest, threads=3000)
    with pytest.raises(ScenarioError, match="all VMs together must have at most 4096, not 6000"):
        replace(load("Tiny"), guest=vm, neighbours=(vm,))


@pytest.mark.parametrize(
    ("section", "field", "index", "value"),
    [
        ("thread", "place", 3, state.THREAD_DONE),
        ("thread", "vcpu", 2, 70),
        ("thread", "next", 5, 10**9),
        ("thread", "section", None, 200),
        ("thread", "wake_at", 1, 0),
        ("thread", "phase", None, state.HOLD),
        ("vm", "ready_tail", 0, state.NONE),
        ("vm", "ready_head", 0, 10**6),
        ("guest", "thread", 0, 500),
        ("guest", "thread", 0, 1),
    ],
)
def test_a_forged_thread_is_refused(section: str, field: str, index: int | None, value: int) -> None:
    """The first decision of a storm in which somebody is ready; index None: who is the first of those."""
    lanes = at_a_line()
    right = lanes.rows.copy()
    first = int(lanes.vm["ready_head"][0, 0])
    lanes.section(section)[0][field][first if index is None else index] = value
    wrong = lanes.rows[0].copy()
    lanes.rows[:] = right
    with pytest.raises(ValueError, match="the saved state is damaged: "):
        lanes.restore(0, signed(lanes, wrong))


def at_a_line() -> Lanes:
    m = Machine(load("Storm").with_overrides({"guest.threads": 40, "guest.block_probability": 0.3}))
    m.step_until(lambda: int(m.vm["ready_head"][0]) != state.NONE)
    return m.lanes
