"""Traces as Chrome JSON: the fast writer says what a plain one says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ple_gym import evaluate
from ple_gym.scenario.builtin import load
from ple_gym.traces import columns
from ple_gym.traces import events as trace
from ple_gym.traces.events import (
    ACQUIRE,
    DECIDE,
    IDLE,
    KIND_NAMES,
    NOISE,
    PLE,
    PREEMPTED,
    RELEASE,
    THREAD,
    TRY,
    Ints,
    acknowledgements,
    holds,
    occupancy,
    states,
    waits,
)


def plain_document(rows: Ints, tsc_hz: int) -> dict[str, Any]:
    """What `to_chrome_json` says, one event after the other."""
    first, last = (int(rows[0, 0]), int(rows[-1, 0])) if len(rows) else (0, 0)
    pcpus, vcpus = (int(rows[:, column].max(initial=-1)) + 1 for column in (2, 3))
    events: list[dict[str, Any]] = []
    for pid, (name, count) in enumerate((("pCPU", pcpus), ("vCPU", vcpus))):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"{name}s"}})
        for tid in range(count):
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": f"{name} {tid}"}})

    def microseconds(time: int) -> float:
        return round((min(max(time, first), last) - first) * 1e6 / tsc_hz, 3)

    def add(pid: int, tid: int, name: str, start: int, stop: int, **args: int) -> None:
        begin, end = microseconds(start), microseconds(stop)
        if begin < end:
            duration = round(end - begin, 3)
            events.append({"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": begin, "dur": duration, "args": args})

    for pcpu, who, start, stop in occupancy(rows, pcpus).tolist():
        if who != IDLE:
            add(0, pcpu, "host noise" if who == NOISE else f"vCPU {who}", start, stop)
    for vcpu, lock, start, stop, exits in waits(rows, partial=True).tolist():
        add(1, vcpu, f"wait for lock {lock}", start, stop, lock=lock, ples=exits)
    for vcpu, start, stop, exits in acknowledgements(rows, partial=True).tolist():
        add(1, vcpu, "wait for acknowledgements", start, stop, ples=exits)
    for vcpu, lock, start, stop in holds(rows, partial=True).tolist():
        add(1, vcpu, f"hold lock {lock}", start, stop, lock=lock)
    for vcpu, state, start, stop in states(rows, vcpus).tolist():
        if state == PREEMPTED:
            add(1, vcpu, "holder preempted", start, stop)
    for time, _, pcpu, vcpu, lock in rows[rows[:, 1] == PLE].tolist():
        args = {"pcpu": pcpu, "lock": lock}
        events.append(
            {"ph": "i", "name": "PLE", "s": "t", "pid": 1, "tid": vcpu, "ts": microseconds(time), "args": args}
        )
    for time, _, _, vcpu, action in rows[rows[:, 1] == DECIDE].tolist():
        event = {"ph": "i", "name": "decision", "s": "t", "pid": 1, "tid": vcpu, "ts": microseconds(time)}
        events.append(event | {"args": {"action": action}})
    for time, _, _, vcpu, thread in rows[rows[:, 1] == THREAD].tolist():
        event = {"ph": "i", "name": f"thread {thread}", "s": "t", "pid": 1, "tid": vcpu, "ts": microseconds(time)}
        events.append(event)
    flows = plain_flows(rows)
    for name, ends, who in (("release", {"ph": "s"}, 1), ("acquire", {"ph": "f", "bp": "e"}, 3)):
        places = [{"pid": 1, "tid": flow[who], "ts": microseconds(flow[who + 1])} for flow in flows]
        for flow, place in zip(flows, places, strict=True):
            events.append({"ph": "i", "name": name, "s": "t", **place, "args": {"lock": flow[0]}})
        for number, (flow, place) in enumerate(zip(flows, places, strict=True)):
            events.append({**ends, "cat": "lock", "name": f"lock {flow[0]}", "id": number, **place})
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"tsc_hz": tsc_hz, "first_tsc": first}}


def plain_flows(rows: Ints) -> list[tuple[int, ...]]:
    """Lock, who releases, when, who had waited for that and acquires, when."""
    released, tried, flows = dict[int, tuple[int, int, int]](), dict[int, int](), list[tuple[int, ...]]()
    for number, (time, kind, _, vcpu, lock) in enumerate(rows.tolist()):
        if kind == TRY:
            tried[vcpu] = number
        elif kind == RELEASE:
            released[lock] = number, vcpu, time
        elif kind == ACQUIRE and released.get(lock, (-1,))[0] > tried.get(vcpu, len(rows)):
            flows.append((lock, *released[lock][1:], vcpu, time))
    return flows


def plain_text(rows: Ints, tsc_hz: int) -> str:
    return json.dumps(plain_document(rows, tsc_hz), separators=(",", ":"))


@pytest.mark.parametrize(("name", "rule"), [("TicketOrder", "kvm"), ("Storm", "xen-4.8"), ("HolderPreempted", "paper")])
def test_a_run_is_written_as_by_the_plain_writer(name: str, rule: str) -> None:
    scenario = load(name)
    rows = evaluate.record(scenario, rule, 1)[:20_000]
    for part in (rows, rows[len(rows) // 3 :], rows[:1], rows[:0]):
        assert trace.to_chrome_json(part, scenario.host.tsc_hz) == plain_text(part, scenario.host.tsc_hz)


def test_a_flow_leads_from_the_hold_that_ends_to_that_of_whoever_waited_for_it() -> None:
    scenario = load("KvmDbench")
    rows = evaluate.record(scenario, "host", 1)[:20_000]
    events = json.loads(trace.to_chrome_json(rows, scenario.host.tsc_hz))["traceEvents"]
    slices = [one for one in events if one["ph"] == "X" and one["pid"] == 1]
    begins = {(one["tid"], one["name"], one["ts"]) for one in slices}
    ends = {(one["tid"], one["name"], round(one["ts"] + one["dur"], 3)) for one in slices}
    instants = {(one["name"], one["tid"], one["ts"]) for one in events if one["ph"] == "i"}
    starts, finishes = ({one["id"]: one for one in events if one["ph"] == ph} for ph in "sf")
    assert len(starts) == len(finishes) == sum(one["ph"] in "sf" for one in events) / 2 > 100  # ids are unique
    assert starts.keys() == finishes.keys()
    for number, start in starts.items():
        finish = finishes[number]
        assert start["name"] == finish["name"] and start["ts"] <= finish["ts"] and start["tid"] != finish["tid"]
        assert (start["tid"], f"hold {start['name']}", start["ts"]) in ends
        assert (finish["tid"], f"hold {start['name']}", finish["ts"]) in begins
        assert instants >= {(what, one["tid"], one["ts"]) for what, one in (("release", start), ("acquire", finish))}
        assert (finish["tid"], f"wait for {start['name']}", finish["ts"]) in ends
    per_lock = [sum(one["name"] == f"lock {lock}" for one in starts.values()) for lock in range(scenario.guest.locks)]
    waited = waits(rows)
    assert per_lock == [(waited[waited[:, 3] > waited[:, 2]][:, 1] == lock).sum() for lock in range(len(per_lock))]


events = st.tuples(
    st.integers(0, 3600 * 10**8),
    st.integers(0, len(KIND_NAMES) - 1),
    st.integers(0, 3),
    st.integers(-1, 5),
    st.integers(-1, 2),
)


@given(st.lists(events, max_size=60), st.sampled_from([10**8, 2_670_000_000, 10**10, 123_456_789]))
def test_any_trace_is_written_as_by_the_plain_writer(listed: list[tuple[int, ...]], tsc_hz: int) -> None:
    rows = np.array(sorted(listed), np.int64).reshape(-1, 5)
    assert trace.to_chrome_json(rows, tsc_hz) == plain_text(rows, tsc_hz)


@given(
    st.one_of(
        st.floats(0, 1e12),
        st.integers(0, 10**15).map(lambda half: (half + 0.5) / 1000),
        st.integers(0, 10**12).map(lambda cycles: cycles * 1e6 / 2_670_000_000),
    )
)
def test_numbers_are_rounded_and_written_as_python_does(value: float) -> None:
    thousandths = columns.rounded(np.array([value]))
    assert "".join(columns.lines(1, columns.decimal(thousandths))) == repr(round(value, 3))


@given(st.lists(st.integers(-(2**62), 2**62), max_size=5))
def test_whole_numbers_are_written_as_python_does(values: list[int]) -> None:
    assert "".join(columns.lines(len(values), columns.whole(np.array(values, np.int64)), ";")) == "".join(
        f"{value};" for value in values
    )
