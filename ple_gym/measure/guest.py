"""What events of locks tell: how long guests compute, hold and sleep, in time of the guest.

A *stretch* is what a vCPU computes between two of these: it releases a lock, it wakes; it asks for one, it sleeps. Of
stretches and holds only the time counts in which the guest ran: the trace's switches say when it was off its pCPU, and
what exits, switches and refills cost (`cost.*`) is taken off as the simulator adds it (docs/model.md, 6 and 9.4).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ple_gym.scenario.model import Scenario
from ple_gym.traces.events import (
    ACK,
    ACQUIRE,
    BLOCK,
    DECIDE,
    IPI,
    NOISE_BEGIN,
    NOISE_END,
    PLE,
    RELEASE,
    RUN,
    STOP,
    THREAD,
    TRY,
    WAKE,
    Ints,
)

SAMPLES = ("compute", "hold", "block", "wait", "run")

_COMPUTES, _WAITS, _HOLDS, _SLEEPS = range(4)


@dataclass
class VmMeasures:
    """What was measured of a VM, or of `count` that are alike. Times are cycles.

    samples: stretches, holds, sleeps, waits of the clock, stays on a pCPU; asked: stretches that end at a lock; ran:
    time in which the guest ran, spinning too; exits: for a PAUSE; locks: of each VM, how often each was asked for;
    contested: acquisitions while others waited for that lock, too; overtook: those of them by who was not the first to
    have asked; halts: of vCPUs that waited for a lock.
    """

    vcpus: int = 0
    count: int = 1
    samples: dict[str, array[int]] = field(default_factory=lambda: {name: array("q") for name in SAMPLES})
    asked: int = 0
    ran: int = 0
    exits: int = 0
    contested: int = 0
    overtook: int = 0
    halts: int = 0
    locks: list[Counter[int]] = field(default_factory=lambda: [Counter()])

    @property
    def tries(self) -> int:
        """How often locks were asked for."""
        return sum(locks.total() for locks in self.locks)


def pooled(vms: Sequence[VmMeasures]) -> list[VmMeasures]:
    """VMs that are alike in size and in whether they take locks, together; first those that ask most."""
    alike: dict[tuple[int, bool], VmMeasures] = {}
    for vm in vms:
        one = alike.setdefault((vm.vcpus, vm.tries > 0), vm)
        if one is not vm:
            for name in SAMPLES:
                one.samples[name] += vm.samples[name]
            for name in ("count", "asked", "ran", "exits", "contested", "overtook", "halts", "locks"):
                setattr(one, name, getattr(one, name) + getattr(vm, name))
    return sorted(alike.values(), key=lambda vm: (-vm.tries, -vm.vcpus * vm.count))


_Line: TypeAlias = "dict[_Vcpu, None]"  # in the order in which they have asked


class _Vcpu:
    """One vCPU while its events are read."""

    def __init__(self, vm: VmMeasures, lines: dict[int, _Line]) -> None:
        self.vm, self.lines = vm, lines  # of its VM: who waits for each lock
        self.line: _Line = {}  # that it stands in
        self.since: int | None = None  # the guest's time counts from here on; None: it is off its pCPU
        self.phase: int | None = None  # None until an event tells
        self.known = False  # its phase began in the trace
        self.work = self.asleep = self.cold = self.depth = self.at = self.ran_at = 0
        self.last: int | None = None  # pCPU

    def settle(self, time: int) -> None:
        """Let the guest's time pass; who spins refills no cache."""
        if self.since is None or time <= self.since:
            return
        passed, self.since = time - self.since, time
        self.vm.ran += passed
        if self.phase != _WAITS:
            refill = min(self.cold, passed)
            self.cold -= refill
            self.work += passed - refill

    def begin(self, phase: int, known: bool = True) -> None:
        self.phase, self.work, self.known = phase, 0, known

    def event(self, time: int, kind: int, lock: int) -> None:
        samples, whole = self.vm.samples, self.known and self.work > 0
        if kind in (TRY, IPI):
            if whole and self.phase == _COMPUTES:
                samples["compute"].append(self.work)
                self.vm.asked += 1
            self.phase, self.at = _WAITS, time
            self.line.pop(self, None)
            if kind == TRY:
                self.vm.locks[0][lock] += 1
                self.line = self.lines.setdefault(lock, {})
                self.line[self] = None
        elif kind == ACQUIRE:
            if self in self.line and len(self.line) > 1:
                self.vm.contested += 1
                self.vm.overtook += next(iter(self.line)) is not self
            self.line.pop(self, None)
            if self.phase == _WAITS and time > self.at:
                samples["wait"].append(time - self.at)
            self.depth += 1
            if self.depth == 1:
                self.begin(_HOLDS)
            self.phase = _HOLDS
        elif kind == RELEASE:
            self.depth = max(0, self.depth - 1)
            if not self.depth:
                if whole and self.phase == _HOLDS:
                    samples["hold"].append(self.work)
                self.begin(_COMPUTES)
        elif kind == BLOCK and self in self.line:
            self.vm.halts += 1
        elif kind == BLOCK and self.phase in (_COMPUTES, None):
            self.asleep = self.work if whole else 0
            self.phase, self.at = _SLEEPS, time
        elif kind == WAKE and self.phase == _SLEEPS:  # only now it is certain that its work was not done
            samples["block"].append(time - self.at)
            if self.asleep:
                samples["compute"].append(self.asleep)
            self.begin(_COMPUTES)
        elif kind in (ACK, THREAD):  # another thread is somewhere in its work
            self.line.pop(self, None)
            self.begin(_HOLDS if self.depth else _COMPUTES, known=kind == ACK and not self.depth)


def measure_events(scenario: Scenario, vm_of: Sequence[int], rows: Ints) -> list[VmMeasures]:
    """Measure rows int64 [n, 5]; `scenario` says what exits, switches and refills cost, `vm_of` the VM of each vCPU."""
    cost, host = scenario.cost, scenario.host
    switches = has_switches(rows)
    vms = {vm: VmMeasures(vcpus=vm_of.count(vm)) for vm in dict.fromkeys(vm_of)}
    lines: dict[int, dict[int, _Line]] = {vm: {} for vm in vms}
    vcpus = [_Vcpu(vms[vm], lines[vm]) for vm in vm_of]
    exited: dict[int, int] = {}  # when a pCPU last had an exit
    before: dict[int, _Vcpu] = {}  # who last ran there

    def refill(one: _Vcpu, pcpu: int) -> int:
        if one.last in (pcpu, None):
            return 0 if one.last == pcpu and before.get(pcpu) is one else cost.cache
        here, there = (number * host.sockets // host.pcpus for number in (pcpu, one.last or 0))
        return cost.migration if here == there else cost.remote_migration

    for part in range(0, len(rows), 1 << 16):  # as Python's objects, they take much room
        for time, kind, pcpu, vcpu, lock in rows[part : part + (1 << 16)].tolist():
            if vcpu < 0:
                continue
            one = vcpus[vcpu]
            one.settle(time)
            if kind == RUN:
                one.cold = max(one.cold, refill(one, pcpu))
                one.last, before[pcpu], one.ran_at = pcpu, one, time
                one.since = time + cost.switch + (cost.exit if exited.get(pcpu) == time else 0)
            elif kind == STOP:
                if one.since is not None and one.last is not None:
                    one.vm.samples["run"].append(time - one.ran_at)
                one.since = None
            else:
                if one.since is None and kind not in (WAKE, BLOCK) and (pcpu >= 0 or not switches):
                    one.since = time
                one.event(time, kind, lock)
                if kind == PLE:
                    one.vm.exits += 1
                    exited[pcpu], one.since = time, time + cost.exit
    return pooled(list(vms.values()))


def has_switches(rows: Ints) -> bool:
    """Whether rows tell who has a pCPU."""
    return bool(np.isin(rows[:, 1], (RUN, STOP)).any())


def exit_period(rows: Ints) -> tuple[float, int]:
    """Median time from one pause-loop exit of a vCPU to its next, with no other event of it between; and how many."""
    own = np.flatnonzero(rows[:, 1] != DECIDE)  # places take less room than rows
    own = own[np.argsort(rows[own, 3], kind="stable")]
    exits = rows[own, 1] == PLE
    pairs = np.flatnonzero(exits[1:] & exits[:-1])
    pairs = pairs[rows[own[pairs], 3] == rows[own[pairs + 1], 3]]
    gaps = rows[own[pairs + 1], 0] - rows[own[pairs], 0]
    return (float(np.median(gaps)), len(gaps)) if len(gaps) else (0.0, 0)


def noise(rows: Ints) -> tuple[array[int], int]:
    """How long the bursts of the host's own work were, and the time of all pCPUs beside them: both in cycles."""
    pcpus = np.unique(rows[:, 2])
    span = (int(rows[-1, 0]) - int(rows[0, 0])) * int((pcpus >= 0).sum()) if len(rows) else 0
    own = rows[np.isin(rows[:, 1], (NOISE_BEGIN, NOISE_END))]
    own = own[np.argsort(own[:, 2], kind="stable")]
    whole = (own[:-1, 1] == NOISE_BEGIN) & (own[1:, 1] == NOISE_END) & (own[:-1, 2] == own[1:, 2])
    bursts = array("q", np.diff(own[:, 0])[whole].tolist())
    return bursts, span - sum(bursts)
