"""What traces say that vCPUs and pCPUs did is what they did: it equals the reference simulator at every event."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import traced
from reference_simulator import World
from reference_simulator.state import Mode, Pcpu, Phase, State, Vcpu
from worlds import MORE, ON_CREDIT, affordable, contended_scenarios, scenarios

from ple_gym.envs import interface
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.lanes import Lanes
from ple_gym.policies import load_compiled
from ple_gym.scenario import Scenario
from ple_gym.sim import state
from ple_gym.traces import events as tr
from ple_gym.traces.events import Ints

rules = st.sampled_from(ON_CREDIT)
seeds = st.integers(0, 2**63 - 1)
worlds = scenarios() | contended_scenarios()


def state_of(on: bool, asleep: bool, waits: bool, holds: bool) -> int:
    """The state that is drawn of a vCPU."""
    if on:
        return tr.SPINNING if waits else tr.HOLDING if holds else tr.RUNNING
    return tr.BLOCKED if asleep else tr.PREEMPTED if holds else tr.WAITING if waits else tr.QUEUED


class Witness(World):
    """The reference simulator, which notes after every event what everybody is doing."""

    def start(self) -> None:
        super().start()
        self.seen = {}
        self.look()

    def serve(self, kind: int, index: int) -> None:
        try:
            super().serve(kind, index)
        finally:
            self.look()

    def look(self) -> None:
        on = {p.current for p in self.pcpus}
        states = [
            state_of(v in on, v.state in (State.BLOCKED, State.DONE), v.phase in (Phase.SPIN, Phase.ACKS), bool(v.held))
            for v in self.vcpus
        ]
        modes = {Mode.IDLE: tr.IDLE, Mode.NOISE: tr.NOISE}
        who = [p.current.index if p.current is not None else modes[p.mode] for p in self.pcpus]
        self.seen[self.now] = states, who  # of several events at a time, the last


def at(intervals: Ints, rows: int, time: int) -> list[int]:
    """What each row is at a time."""
    now = intervals[(intervals[:, 2] <= time) & (intervals[:, 3] > time)]
    assert now[:, 0].tolist() == list(range(rows))
    return now[:, 1].tolist()


def running(states: list[int]) -> int:
    return sum(one in (tr.RUNNING, tr.SPINNING, tr.HOLDING) for one in states)


@settings(max_examples=150 * MORE)
@given(worlds, rules, seeds)
def test_states_and_occupancy_are_the_reference_simulators_at_every_event(
    scenario: Scenario, rule: str, seed: int
) -> None:
    scenario = affordable(scenario, rule, seed, 300_000)
    witness = Witness(load_compiled(rule).world(scenario).to_dict(), seed)
    witness.run(rule)
    lanes, trace = traced(scenario, rule, seed)
    states, occupancy = tr.states(trace, lanes.vcpus), tr.occupancy(trace, lanes.pcpus)
    for time, (expected, who) in list(witness.seen.items())[:-1]:  # the last event may end the run half done
        drawn = at(states, lanes.vcpus, time)
        assert drawn == expected
        assert at(occupancy, lanes.pcpus, time) == who
        assert running(drawn) <= lanes.pcpus


@settings(max_examples=150 * MORE)
@given(worlds, rules, seeds, st.floats(0, 1))
def test_a_trace_that_lost_its_beginning_is_completed_from_its_end(
    scenario: Scenario, rule: str, seed: int, share: float
) -> None:
    lanes, trace = traced(scenario, rule, seed)
    kept = trace[int(share * len(trace)) :]
    # An acquire that is the first event of all may have had to wait or not; nothing before it is drawn.
    now = int(lanes.world["now"][0])
    begin, end = (int(kept[0, 0]), int(kept[-1, 0])) if len(kept) else (now, now)
    whole, part = lanes.completed(0, trace), lanes.completed(0, kept)
    for read, rows in ((tr.states, lanes.vcpus), (tr.occupancy, lanes.pcpus)):
        times = {begin, end, *kept[:: max(1, len(kept) // 20), 0].tolist()}
        for time in times:
            assert at(read(part, rows), rows, time) == at(read(whole, rows), rows, time)


class Decider(World):
    """The reference simulator, which notes what is decided."""

    def decide(self, p: Pcpu, y: Vcpu, action: int) -> None:
        self.__dict__.setdefault("decided", []).append([self.now, tr.DECIDE, p.index, y.index, action])
        super().decide(p, y, action)


@settings(max_examples=50 * MORE)
@given(worlds, rules, seeds)
def test_each_exit_is_followed_by_what_is_decided(scenario: Scenario, rule: str, seed: int) -> None:
    decider = Decider(load_compiled(rule).world(scenario).to_dict(), seed)
    decider.run(rule)
    _, trace = traced(scenario, rule, seed)
    decisions = np.flatnonzero(trace[:, 1] == tr.DECIDE)
    assert trace[decisions].tolist() == decider.__dict__.get("decided", [])
    assert (trace[decisions - 1][:, [0, 2, 3]] == trace[decisions][:, [0, 2, 3]]).all()
    assert (trace[decisions - 1, 1] == tr.PLE).all() and len(decisions) == (trace[:, 1] == tr.PLE).sum()


def present(lanes: Lanes, lane: int) -> list[int]:
    """What everybody is doing now, from the records of the lane itself."""
    on = {int(p["current"]) for p in lanes.pcpu[lane] if p["mode"] == state.GUEST}
    return [
        state_of(
            v in on,
            vcpu["state"] in (state.BLOCKED, state.DONE),
            guest["phase"] & state.BENEATH in (state.SPIN, state.ACKS),
            guest["held"] != 0,
        )
        for v, (vcpu, guest) in enumerate(zip(lanes.vcpu[lane], lanes.guest[lane], strict=True))
    ]


def check_picture(lanes: Lanes, lane: int, ring: Ints) -> None:
    """The picture of a lane shows its present at the right edge, and nowhere more running vCPUs than pCPUs."""
    trace, pcpus, vcpus, start, stop = interface.picture_of(lanes, lane, ring)
    states = tr.states(trace, vcpus)
    assert at(states, vcpus, stop) == present(lanes, lane)
    for time in {start, *trace[trace[:, 0] >= start][:, 0].tolist()}:
        assert running(at(states, vcpus, time)) <= pcpus


@pytest.mark.parametrize("rows", [16, interface.TRACE_ROWS])
@pytest.mark.parametrize("start", ["first", "storm"])
@pytest.mark.parametrize("name", ["Storm", "Tiny", "TicketOrder", "HolderPreempted"])
def test_pictures_show_the_present(monkeypatch: pytest.MonkeyPatch, name: str, start: str, rows: int) -> None:
    monkeypatch.setattr("ple_gym.envs.env.TRACE_ROWS", rows)
    env = PleEnv(name, start=start if name in ("Storm", "TicketOrder") else "first", render_mode="ansi")
    env.reset(seed=3)
    for turn in range(60):
        check_picture(env.lanes, 0, env._trace)
        if turn == 30:
            env.set_state(env.get_state())  # the ring begins anew, in the midst of a run
            continue
        action = env.action_space.sample(env.action_masks().astype(np.int8))
        if any(env.step(action)[2:4]):
            env.reset()


def test_pictures_of_lanes_show_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ple_gym.envs.vector.TRACE_ROWS", 64)
    envs = PleVectorEnv(3, "Storm", render_mode="rgb_array")
    envs.reset(seed=5)
    for _ in range(30):
        envs.step(envs.sample_actions())
        for lane, ring in enumerate(envs._traces):
            check_picture(envs.lanes, lane, ring)


def test_an_exported_trace_begins_with_its_first_event_and_shows_the_preempted_holder() -> None:
    env = gym.make("PLE/HolderPreempted-v0", render_mode="ansi").unwrapped
    env.reset(seed=0)
    for _ in range(20):
        env.step(env.lanes.vcpus)
    trace = env.trace()[8:]
    whole, part = (json.loads(tr.to_chrome_json(one, 10**9)) for one in (env.lanes.completed(0, trace), trace))
    slices = [event for event in whole["traceEvents"] if event["ph"] == "X"]
    assert whole["otherData"] == part["otherData"]
    assert all(0 <= slice["ts"] < (trace[-1, 0] - trace[0, 0]) / 1e3 for slice in slices)
    assert [slice["tid"] for slice in slices if slice["name"] == "holder preempted"] == [0]


def test_a_preempted_holder_is_drawn_as_one() -> None:
    env = gym.make("PLE/HolderPreempted-v0", render_mode="ansi")
    env.reset(seed=0)
    rows = {line.split("|")[0].strip(): line.split("|")[1] for line in env.render().splitlines() if "|" in line}
    assert set(rows["0"]) == {"h"}, "vCPU 0 holds the lock, off its pCPU"
    assert set(rows["P0"]) == {"1"}
