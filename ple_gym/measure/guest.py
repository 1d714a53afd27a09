"""What events of locks tell: how long guests compute, hold and sleep, in time of the guest.

A *stretch* is what a vCPU computes between two of these: it releases a lock, it wakes; it asks for one, it sleeps. Its
length and that of a hold are the time in which the guest ran: the switches of the trace say when it was off its pCPU,
and what a switch and a refill of the caches cost (`cost.*` of a scenario) is taken off, as the simulator adds it
(docs/model.md, sections 6 and 9.4). A trace without switches cannot say it: there it is time of the clock.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ple_gym.scenario.model import Scenario
from ple_gym.traces.events import (
    ACK,
    ACQUIRE,
    BLOCK,
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
)  # fmt: skip

SAMPLES = ("compute", "hold", "block", "wait", "run")

ENOUGH = 30  # bursts

_COMPUTES, _WAITS, _HOLDS, _SLEEPS = range(4)


@dataclass
class VmMeasures:
    """What was measured of a VM, or of several that are alike (`count`). Times are cycles.

    samples: of each of `SAMPLES` as they came: stretches, holds, sleeps, waits of the clock, stays on a pCPU.
    asked: stretches that end at a lock; ran: time in which the guest ran, spinning too; locks: for each VM, how often
    each of its locks was asked for.
    """

    vcpus: int = 0
    count: int = 1
    samples: dict[str, array[int]] = field(default_factory=lambda: {name: array("q") for name in SAMPLES})
    asked: int = 0
    ran: int = 0
    exits: int = 0
    locks: list[Counter[int]] = field(default_factory=lambda: [Counter()])

    @property
    def tries(self) -> int:
        """How often locks were asked for."""
        return sum(locks.total() for locks in self.locks)

    @property
    def alike(self) -> tuple[int, bool]:
        """What VMs share that are measured together: size, and whether they take locks."""
        return self.vcpus, self.tries > 0

    def add(self, other: VmMeasures) -> None:
        """Take what was measured of another one that is alike."""
        self.count += other.count
        for name in SAMPLES:
            self.samples[name] += other.samples[name]
        self.asked += other.asked
        self.ran += other.ran
        self.exits += other.exits
        self.locks += other.locks


@dataclass
class Noise:
    """What the host itself ran on the pCPUs, in cycles.

    bursts: how long; begun: those that began at once; open: the time of all pCPUs in which they could, without bursts.
    waited: whether others had to wait for a rate limit, and these were too few to count alone.
    """

    bursts: array[int]
    begun: int
    open: int
    waited: bool = False


class _Vcpu:
    """One vCPU while its events are read."""

    def __init__(self, vm: VmMeasures, since: int | None) -> None:
        self.vm = vm
        self.since = since  # the guest's time counts from here on; None: it is off its pCPU
        self.phase = -1  # unknown until an event tells
        self.work = self.asleep = self.cold = self.depth = self.at = self.ran_at = 0
        self.known = self.polls = False
        self.last: int | None = None

    def settle(self, time: int) -> None:
        """Let the guest's time pass; whoever spins does not refill its caches."""
        if self.since is None or time <= self.since:
            return
        passed = time - self.since
        self.since = time
        self.vm.ran += passed
        if self.phase != _WAITS:
            refill = min(self.cold, passed)
            self.cold -= refill
            self.work += passed - refill

    def ask(self) -> None:
        """A stretch ends, if it began in the trace: the vCPU asks for a lock, or interrupts others."""
        if self.phase == _COMPUTES and self.known and self.work > 0:
            self.vm.samples["compute"].append(self.work)
            self.vm.asked += 1
        self.work = 0

    def begin(self, phase: int) -> None:
        """Something else begins."""
        self.phase, self.work, self.known = phase, 0, True

    def event(self, time: int, kind: int, lock: int) -> None:
        """One of its own events, which a guest would know."""
        samples = self.vm.samples
        self.settle(time)
        if kind == TRY:
            if not self.depth:
                self.ask()
            self.phase, self.at = _WAITS, time
            self.vm.locks[0][lock] += 1
        elif kind == ACQUIRE:
            if self.phase == _WAITS and time > self.at and self.at >= 0:
                samples["wait"].append(time - self.at)
            self.depth += 1
            if self.depth == 1:
                self.begin(_HOLDS)
            self.phase = _HOLDS
        elif kind == RELEASE:
            self.depth = max(0, self.depth - 1)
            if not self.depth:
                if self.phase == _HOLDS and self.known and self.work > 0:
                    samples["hold"].append(self.work)
                self.begin(_COMPUTES)
        elif kind == BLOCK and self.phase in (_COMPUTES, -1):
            self.asleep = self.work if self.phase == _COMPUTES and self.known else 0
            self.phase, self.at = _SLEEPS, time
        elif kind == WAKE and self.phase == _SLEEPS:
            # Only now it is certain that it slept, and had not done all its work.
            samples["block"].append(time - self.at)
            if self.asleep > 0:
                samples["compute"].append(self.asleep)
            self.begin(_COMPUTES)
        elif kind == IPI:
            self.ask()
            self.phase = _WAITS
        elif kind == ACK:
            self.phase = _HOLDS if self.depth else _COMPUTES
            self.work, self.known = 0, not self.depth
        elif kind == THREAD:
            self.begin(_COMPUTES)
            self.known = False  # another thread goes on somewhere in its work
        elif kind == PLE:
            self.vm.exits += 1


class GuestMeter:
    """Measures events that arrive in pieces, ascending in time."""

    def __init__(self, scenario: Scenario, vm_of: Sequence[int], switches: bool = True) -> None:
        """`scenario` says what exits, switches and refills cost; `switches`: whether the trace has any."""
        self._cost, self._host = scenario.cost, scenario.host
        self._switches = switches
        vms = {vm: VmMeasures() for vm in vm_of}
        for vm in vm_of:
            vms[vm].vcpus += 1
        self.each = list(vms.values())  # in the order in which they are met
        self._vcpus = [_Vcpu(vms[vm], None) for vm in vm_of]
        self._exited: dict[int, int] = {}  # when a pCPU last had an exit
        self._before: dict[int, _Vcpu] = {}  # who last ran on it
        self._noisy: dict[int, int] = {}  # since when the host has it
        self._left: dict[int, int] = {}  # when a pCPU's last vCPU left
        self._first = self._last = -1
        self._bursts, self._begun, self._protected = array("q"), 0, 0
        limited = self._host.scheduler in ("credit", "credit2")  # a burst does not end a protected stay
        self._limit = self._host.ratelimit_us * self._host.tsc_hz // 10**6 if limited else 0

    def add(self, rows: Ints) -> None:
        """Take the rows int64 [n, 5] that follow."""
        if not len(rows):
            return
        if self._first < 0:
            self._first = int(rows[0, 0])
        self._last = int(rows[-1, 0])
        for time, kind, pcpu, vcpu, lock in rows.tolist():
            if kind == NOISE_BEGIN:
                self._noisy[pcpu] = time
                before = self._before.get(pcpu) if self._left.get(pcpu) == time else None
                self._begun += before is None or time - before.ran_at > self._limit
            elif kind == NOISE_END:
                if pcpu in self._noisy:
                    self._bursts.append(time - self._noisy.pop(pcpu))
            elif kind == RUN:
                self._run(self._vcpus[vcpu], pcpu, time)
            elif kind == STOP:
                one = self._vcpus[vcpu]
                one.settle(time)
                if one.since is not None and one.last is not None:
                    one.vm.samples["run"].append(time - one.ran_at)
                    self._left[pcpu] = time
                    self._protected += min(time - one.ran_at, self._limit)
                one.since = None
            else:
                one = self._vcpus[vcpu]
                if one.since is None and (pcpu >= 0 or not self._switches) and kind not in (WAKE, BLOCK):
                    one.since = time
                one.event(time, kind, lock)
                if kind == PLE:
                    self._exited[pcpu] = time
                    if one.since is not None:
                        one.since = time + self._cost.exit

    def _run(self, one: _Vcpu, pcpu: int, time: int) -> None:
        """A vCPU is switched in: it pays for exit, switch and refill."""
        cost, sockets = self._cost, self._host.sockets
        if one.last is None:
            refill = cost.cache
        elif one.last != pcpu:
            apart = one.last * sockets // self._host.pcpus != pcpu * sockets // self._host.pcpus
            refill = cost.remote_migration if apart else cost.migration
        else:
            refill = 0 if self._before.get(pcpu) is one else cost.cache
        one.cold = max(one.cold, refill)
        one.last, self._before[pcpu] = pcpu, one
        one.ran_at = time
        one.since = time + cost.switch + (cost.exit if self._exited.get(pcpu) == time else 0)

    def vms(self) -> list[VmMeasures]:
        """What was measured of the VMs, those that are alike together; first the ones with locks that asked most."""
        pooled: dict[tuple[int, bool], VmMeasures] = {}
        for vm in self.each:
            if vm.alike in pooled:
                pooled[vm.alike].add(vm)
            else:
                pooled[vm.alike] = vm
        return sorted(pooled.values(), key=lambda vm: -vm.tries)

    def noise(self, pcpus: int) -> Noise:
        """What the host itself ran."""
        time = pcpus * (self._last - self._first) - sum(self._bursts)
        if self._begun < ENOUGH:
            return Noise(self._bursts, len(self._bursts), time, self._limit > 0)
        return Noise(self._bursts, self._begun, time - self._protected)


def exit_period(rows: Ints) -> tuple[float, int]:
    """Median time from one pause-loop exit of a vCPU to its next, with no other event of it between; and how many."""
    own = rows[np.argsort(rows[:, 3], kind="stable")]
    both = (own[1:, 3] == own[:-1, 3]) & (own[1:, 1] == PLE) & (own[:-1, 1] == PLE)
    gaps = np.diff(own[:, 0])[both]
    return (float(np.median(gaps)), len(gaps)) if len(gaps) else (0.0, 0)
