"""Perfetto traces: the library's own classes read back what a plain observer of the run's rows says."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.traces import events as tr
from ple_gym.traces.events import Ints
from ple_gym.traces.linux import nanoseconds
from ple_gym.traces.perfetto import Packets
from ple_gym.traces.recording import record
from ple_gym.traces.writers import write_run
from tests import worlds

protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
NEIGHBOURS = Scenario.from_dict({**load("TicketOrder").to_dict(), "neighbours": [{"vcpus": 2, "count": 2}]})


class Read:
    """Slices [name, begin, end], instants (name, time, arguments) and counts of each track; flows as pairs of times."""

    def __init__(self, data: bytes) -> None:
        self.names: dict[int, str] = {}
        self.parents: dict[int, int] = {}
        self.slices: dict[str, list[list[Any]]] = defaultdict(list)
        self.instants: dict[str, list[tuple[str, int, dict[str, Any]]]] = defaultdict(list)
        self.counts: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.flows: dict[int, list[int]] = defaultdict(list)
        packets = protos.Trace.FromString(data).packet
        last, open_slices = 0, dict[int, list[Any]]()
        for packet in packets:
            if packet.HasField("track_descriptor"):
                track = packet.track_descriptor
                self.names[track.uuid], self.parents[track.uuid] = track.name, track.parent_uuid
                continue
            event, time = packet.track_event, packet.timestamp
            assert time >= last
            last, uuid = time, event.track_uuid
            if event.type == event.TYPE_COUNTER:
                self.counts[uuid].append((time, event.double_counter_value))
            elif event.type == event.TYPE_INSTANT:
                told = {one.name: one.string_value or one.int_value for one in event.debug_annotations}
                self.instants[self.names[uuid]].append((event.name, time, told))
                for flow in event.flow_ids:
                    self.flows[flow] = [time]
                for flow in event.terminating_flow_ids:
                    self.flows[flow].append(time)
            elif event.type == event.TYPE_SLICE_BEGIN:
                assert uuid not in open_slices
                open_slices[uuid] = [event.name, time, None]
                self.slices[self.names[uuid]].append(open_slices[uuid])
            else:
                open_slices.pop(uuid)[2] = time
        assert not open_slices


def encoded(scenario: Scenario, rows: Ints, cuts: list[int], start: int = 0, stop: int = tr.NEVER) -> Read:
    packets = Packets(scenario, "a rule", start, stop)
    parts = [b"".join(packets.add(piece)) for piece in np.split(rows, sorted(cuts))]
    return Read(b"".join([packets.head(), *parts, *packets.end()]))


def joined(slices: list[list[Any]]) -> list[list[Any]]:
    """Without those that are empty, and with neighbours of one name in one."""
    result: list[list[Any]] = []
    for name, begin, end in slices:
        if begin == end:
            continue
        if result and result[-1][0] == name and result[-1][2] == begin:
            result[-1][2] = end
        else:
            result.append([name, begin, end])
    return result


def check(scenario: Scenario, rows: Ints, cuts: list[int], start: int = 0, stop: int = tr.NEVER) -> Read:
    read, within = encoded(scenario, rows, cuts, start, stop), tr.window(rows, start, stop)
    last = int(within[-1, 0])

    def ns(time: int) -> int:
        return int(nanoseconds(np.array([min(max(time, start), last)]), scenario.host.tsc_hz)[0])

    names = {tr.NOISE: "host noise"} | {v: f"vCPU {v}" for v in range(scenario.vcpus)}
    until = rows[rows[:, 0] <= last]
    for told, track, word in (
        (tr.occupancy(until, scenario.host.pcpus), "pCPU", names),
        (tr.states(until, scenario.vcpus), "vCPU", dict(enumerate(tr.STATE_NAMES))),
    ):
        expected = defaultdict(list)
        for row, value, begin, end in told.tolist():
            if value in word:
                expected[f"{track} {row}"].append([word[value], ns(begin), ns(end)])
        for name, slices in expected.items():
            assert joined(read.slices[name]) == joined(slices)
    instants, flows = defaultdict(list), []
    tried, released, exits = dict[int, int](), dict[int, tuple[int, int]](), defaultdict(list)
    vm_of = [m for m, vm in enumerate(scenario.vms().values()) for _ in range(vm.vcpus)]
    for number, (time, kind, _, vcpu, lock) in enumerate(within.tolist()):
        told = {} if lock < 0 else {"lock": lock}
        name = {tr.PLE: "PLE", tr.ACQUIRE: "acquire", tr.RELEASE: "release", tr.THREAD: f"thread {lock}"}.get(kind)
        if kind == tr.DECIDE:
            name = "resume" if lock == vcpu else "defer" if lock == scenario.vcpus else f"vCPU {lock}"
            name, told = f"decision: {name}", {"action": lock, "rule": "a rule"}
        if kind == tr.PLE:
            exits[vm_of[vcpu]].append(ns(time))
        if kind == tr.TRY:
            tried[vcpu] = number
        if kind == tr.ACQUIRE and released.get(lock, (-1, 0))[0] > tried.get(vcpu, tr.NEVER):
            flows.append([released[lock][1], ns(time)])
        if kind == tr.RELEASE:
            released[lock] = number, ns(time)
        if name:
            instants[f"vCPU {vcpu}"].append((name, ns(time), {} if kind == tr.THREAD else told))
    assert {name: sorted(own, key=str) for name, own in read.instants.items()} == {
        name: sorted(own, key=str) for name, own in instants.items()
    }
    assert sorted(flow for flow in read.flows.values() if len(flow) == 2) == sorted(flows)
    assert sorted(read.counts.values()) == sorted([(t, i + 1.0) for i, t in enumerate(own)] for own in exits.values())
    return read


@given(worlds.scenarios(), st.sampled_from(["host", "kvm", "oracle"]), st.lists(st.integers(0, 2000), max_size=5))
def test_any_run_in_any_pieces_is_what_a_plain_observer_says(scenario: Scenario, policy: str, cuts: list[int]) -> None:
    rows = record(worlds.affordable(scenario, policy, 1), policy, 1)[:3000]
    if len(rows):
        check(scenario, rows, cuts)


def test_a_window_begins_with_what_everybody_is_doing() -> None:
    rows = record(NEIGHBOURS, "kvm", 2)
    start, stop = int(rows[len(rows) // 3, 0]) + 1, int(rows[len(rows) // 2, 0])
    read = check(NEIGHBOURS, rows, [100, 2000, len(rows) // 3 + 5], start, stop)
    assert {"VM 0: guest", "pCPUs", "exits", "vCPU 7"} < set(read.names.values())
    groups = {read.names[uuid]: read.names.get(read.parents[uuid], "") for uuid in read.names}
    assert groups["pCPU 0"] == "pCPUs" and groups["vCPU 0"] == "VM 0: guest" and groups["VM 0: guest"] == ""
    assert any(len(flow) == 2 for flow in read.flows.values()) and encoded(NEIGHBOURS, rows[:0], []).slices == {}


def test_a_run_is_written_and_read(tmp_path: Path) -> None:
    write_run(NEIGHBOURS, "kvm", 2, tmp_path / "run.pftrace")
    read = Read((tmp_path / "run.pftrace").read_bytes())
    rows = record(NEIGHBOURS, "kvm", 2)
    told = [one for own in read.instants.values() for one in own if one[0].startswith("decision")]
    assert len(told) == (rows[:, 1] == tr.DECIDE).sum() > 0 and {one[2]["rule"] for one in told} == {"kvm"}
