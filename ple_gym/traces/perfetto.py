"""Runs as Perfetto's protobuf traces: each packet is made once by the library's classes, and copied for every event.

A track for each pCPU shows the vCPUs that it runs. Each VM has a group: a counter of its exits, and a track for each
vCPU, with its states (`STATE_NAMES`) as slices, and as instants its exits, what is decided on these (with action and
rule), and its locks. From a release a flow leads to the acquire of whoever waited for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ple_gym.extras import needs
from ple_gym.scenario.model import Scenario
from ple_gym.traces.columns import CHUNK, Ints
from ple_gym.traces.events import (
    ACQUIRE,
    DECIDE,
    IDLE,
    NEVER,
    NOISE,
    PLE,
    RELEASE,
    STATE_NAMES,
    THREAD,
    TRY,
    carried,
    carried_values,
    occupancy,
    states,
)
from ple_gym.traces.linux import nanoseconds

_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # types of track events
# What a packet is about; those from _COUNT on end in a field of eight bytes.
_LEAVE, _RUN, _STATE, _EXIT, _DECIDE, _ACQUIRE, _THREAD, _COUNT, _HANDED, _RELEASE = range(10)
_SEQUENCE = 1
_TIME_AT, _TIME_BYTES = 4, 8  # of a packet; seven bits a byte
_MOST_NAME = 500  # characters of a rule's name
_KEPT = 1 << 16  # different packets

Bits = np.ndarray[Any, np.dtype[np.uint64]]


class Packets:
    """Encodes the events of the cycles start..stop-1 of a run whose rows arrive in pieces, from its beginning on."""

    def __init__(self, scenario: Scenario, policy: str, start: int, stop: int) -> None:
        with needs("traces"):
            from perfetto.protos.perfetto.trace import perfetto_trace_pb2
        self._protos: Any = perfetto_trace_pb2
        self.start, self.stop, self._hz = start, stop, scenario.host.tsc_hz
        self._rule = policy[:_MOST_NAME]
        self._vms = list(scenario.vms().items())
        self._vm_of = np.repeat(np.arange(len(self._vms)), [vm.vcpus for _, vm in self._vms])
        self._pcpus, self._vcpus = scenario.host.pcpus, scenario.vcpus
        self._vm_track = 2 + self._pcpus  # pCPUs are a group, 1, and its tracks; each VM is a group, and its counter
        self._vcpu_track = self._vm_track + 2 * len(self._vms)
        self._known: Ints = np.zeros((0, 5), np.int64)  # rows that tell what everybody is doing
        self._begun, self._last = False, start
        self._number = 0  # events so far
        self._exits = np.zeros(len(self._vms), np.int64)
        locks = max([row.locks for _, row in self._vms], default=0) * len(self._vms) + 1
        self._released, self._tried = np.full(locks, -1), np.full(self._vcpus, -1)  # numbers of the last such events
        self._made: dict[int, bytes] = {}

    def head(self, origin: str = "") -> bytes:
        """What tracks there are; `origin` describes the first."""
        tracks = [self._track(1, "pCPUs", 0, 0)]
        if origin:
            tracks[0].track_descriptor.description = origin
        tracks += [self._track(2 + p, f"pCPU {p}", 1, p) for p in range(self._pcpus)]
        for m, (name, vm) in enumerate(self._vms):
            group = self._vm_track + 2 * m
            first = int(np.searchsorted(self._vm_of, m))
            tracks += [self._track(group, f"VM {m}: {name}", 0, m + 1), self._track(group + 1, "exits", group, 0, True)]
            tracks += [
                self._track(self._vcpu_track + first + n, f"vCPU {first + n}", group, n + 1) for n in range(vm.vcpus)
            ]
        found: bytes = self._protos.Trace(packet=tracks).SerializeToString()
        return found

    def add(self, rows: Ints) -> Iterator[bytes]:
        """What follows for these rows."""
        rows = rows[: np.searchsorted(rows[:, 0], self.stop)]
        first = int(np.searchsorted(rows[:, 0], self.start))
        if first:
            self._known = carried(np.concatenate([self._known, rows[:first]]))
        if first < len(rows):
            yield from self._encoded(rows[first:])

    def end(self) -> Iterator[bytes]:
        """The ends of what still goes on."""
        on = occupancy(self._known, self._pcpus)[:, 1]
        tracks = np.concatenate([2 + np.flatnonzero(on != IDLE), self._vcpu_track + np.arange(self._vcpus)])
        if self._begun:
            yield from self._packets(*self._columns(np.full(len(tracks), self._last), _LEAVE, tracks))

    def _encoded(self, rows: Ints) -> Iterator[bytes]:
        trace = np.concatenate([self._known, rows])
        made = []
        for base, told, idle in (
            (2, occupancy(trace, self._pcpus), IDLE), (self._vcpu_track, states(trace, self._vcpus), -1),
        ):  # fmt: skip
            row, value, begin, end = told.T
            new = begin > -NEVER
            ends = new & (self._begun | (begin > self.start)) & (np.append(idle, value)[:-1] != idle)
            begins = np.where(self._begun, new, end > self.start) & (value != idle)
            time = np.maximum(begin, self.start)
            made.append(self._columns(time[ends], _LEAVE, base + row[ends]))
            kind = _RUN if idle == IDLE and base == 2 else _STATE
            made.append(self._columns(time[begins], kind, base + row[begins], value[begins]))
        time, kind, _, vcpu, lock = rows.T
        for event, what in ((PLE, _EXIT), (DECIDE, _DECIDE), (THREAD, _THREAD)):
            own = kind == event
            made.append(self._columns(time[own], what, self._vcpu_track + vcpu[own], lock[own]))
        made += self._counts(rows[kind == PLE])
        made += self._locks(rows)
        self._known, self._begun, self._last = carried(trace), True, int(rows[-1, 0])
        self._number += len(rows)
        time, key, last = (np.concatenate(column) for column in zip(*made, strict=True))
        order = np.argsort(time, kind="stable")
        yield from self._packets(time[order], key[order], last[order])

    def _counts(self, exits: Ints) -> Iterator[tuple[Ints, Ints, Bits]]:
        """How many exits a VM had by now, as the bits of a float."""
        vm = self._vm_of[exits[:, 3]]
        order = np.argsort(vm, kind="stable")
        ascending = vm[order]
        count = np.empty(len(vm), np.int64)
        count[order] = self._exits[ascending] + np.arange(1, len(vm) + 1) - np.searchsorted(ascending, ascending)
        self._exits += np.bincount(vm, minlength=len(self._exits))
        yield self._columns(
            exits[:, 0], _COUNT, self._vm_track + 1 + 2 * vm, last=count.astype(np.float64).view(np.uint64)
        )

    def _locks(self, rows: Ints) -> Iterator[tuple[Ints, Ints, Bits]]:
        """Acquires and releases; a flow has the number of its release."""
        time, kind, _, vcpu, lock = rows.T
        tries, acquires, releases = (np.flatnonzero(kind == one) for one in (TRY, ACQUIRE, RELEASE))
        number = self._number + np.arange(len(rows))
        released = carried_values(lock[releases], releases, number[releases], self._released)(lock[acquires], acquires)
        tried = carried_values(vcpu[tries], tries, number[tries], self._tried)(vcpu[acquires], acquires)
        waited = (released > tried) & (tried >= 0)
        self._released[lock[releases]], self._tried[vcpu[tries]] = number[releases], number[tries]
        track = self._vcpu_track + vcpu
        for what, which, flow in (
            (_RELEASE, releases, number[releases]), (_ACQUIRE, acquires[~waited], 0),
            (_HANDED, acquires[waited], released[waited]),
        ):  # fmt: skip
            yield self._columns(time[which], what, track[which], lock[which], np.uint64(flow) + np.uint64(1))

    def _columns(self, time: Ints, what: int, track: Ints, about: Any = 0, last: Any = 0) -> tuple[Ints, Ints, Bits]:
        """Packets: times, what tells one from all others but for the time, and the bits of their last field."""
        key = (track << 24) + ((np.asarray(about, np.int64) + 2) << 4) + what
        return time, key, np.broadcast_to(np.asarray(last, np.uint64), time.shape)

    def _packets(self, time: Ints, keys: Ints, last: Bits) -> Iterator[bytes]:
        """The packets in bytes, in pieces."""
        if len(self._made) > _KEPT:
            self._made.clear()
        different, which = np.unique(keys, return_inverse=True)
        made = [self._made.get(key) or self._made.setdefault(key, self._packet(key)) for key in different.tolist()]
        width = max(map(len, made), default=0)
        patterns = np.frombuffer(b"".join(one.ljust(width, b"\0") for one in made), np.uint8).reshape(-1, width)
        sizes = np.array([len(one) for one in made], np.int64)
        places = np.arange(width)
        shifts = 7 * np.arange(_TIME_BYTES)
        for first in range(0, len(time), CHUNK):
            part = slice(first, first + CHUNK)
            bytes_, size = patterns[which[part]], sizes[which[part]]
            ns = nanoseconds(time[part], self._hz)[:, np.newaxis]
            bytes_[:, _TIME_AT : _TIME_AT + _TIME_BYTES] = ns >> shifts & 127 | 128
            bytes_[:, _TIME_AT + _TIME_BYTES - 1] &= 127
            long = np.flatnonzero(keys[part] & 15 >= _COUNT)
            eight = last[part][long].astype("<u8")[:, np.newaxis].view(np.uint8)
            bytes_[long[:, np.newaxis], size[long, np.newaxis] + np.arange(-8, 0)] = eight
            yield bytes_[places < size[:, np.newaxis]].tobytes()

    def _packet(self, key: int) -> bytes:
        """One packet; its time, and its last field if it has one, are to be filled in."""
        what, about, track = key & 15, (key >> 4 & 0xFFFFF) - 2, key >> 24
        event = self._protos.TrackEvent(track_uuid=track, type=_INSTANT)
        arguments: dict[str, int | str] = {} if about < 0 else {"lock": about}
        if what == _LEAVE:
            event.type, arguments = _END, {}
        elif what in (_RUN, _STATE):
            event.type, arguments = _BEGIN, {}
            event.name = STATE_NAMES[about] if what == _STATE else "host noise" if about == NOISE else f"vCPU {about}"
        elif what == _DECIDE:
            asker = track - self._vcpu_track
            window, about = divmod(about, self._vcpus + 1)
            choice = "resume" if about == asker else "defer" if about == self._vcpus else f"vCPU {about}"
            event.name, arguments = f"decision: {choice}", {"action": about, "rule": self._rule}
            arguments |= {"window": window} if window else {}
        elif what == _THREAD:
            event.name, arguments = f"thread {about}", {}
        elif what == _COUNT:
            event.type, arguments = _COUNTER, {}
        else:
            event.name = {_EXIT: "PLE", _RELEASE: "release"}.get(what, "acquire")
        for name, value in arguments.items():
            annotation = event.debug_annotations.add(name=name)
            setattr(annotation, "string_value" if isinstance(value, str) else "int_value", value)
        end: dict[int, dict[str, Any]] = {
            _COUNT: {"double_counter_value": 0.0}, _HANDED: {"terminating_flow_ids": [0]}, _RELEASE: {"flow_ids": [0]},
        }  # fmt: skip
        last = self._protos.TrackEvent(**end[what]) if what in end else None
        content: bytes = event.SerializeToString() + (last.SerializeToString() if last else b"")
        # Protobuf's fields one by one, as what is filled in must have its place: 8, timestamp; 11, track_event.
        sequence: bytes = self._protos.TracePacket(trusted_packet_sequence_id=_SEQUENCE).SerializeToString()
        body = b"\x40" + bytes(_TIME_BYTES) + sequence + b"\x5a" + _length(content) + content
        return b"\x0a" + _length(body) + body  # 1: a packet of the trace

    def _track(self, uuid: int, name: str, parent: int, rank: int, counter: bool = False) -> Any:
        packet = self._protos.TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        track = packet.track_descriptor
        track.uuid, track.name, track.sibling_order_rank = uuid, name, rank
        track.child_ordering = track.EXPLICIT
        if parent:
            track.parent_uuid = parent
        if counter:
            track.counter.unit = track.counter.UNIT_COUNT
        return packet


def _length(content: bytes) -> bytes:
    """Its length in two bytes."""
    return bytes([len(content) & 127 | 128, len(content) >> 7])
