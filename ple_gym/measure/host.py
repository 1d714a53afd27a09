"""What a Linux host's trace tells of its vCPUs: VMs, pCPUs, sleeps, stays on a pCPU, and what exits and switches cost.

A vCPU is a task that enters a guest, or is called `CPU 3/KVM`, as QEMU calls it. Tasks of a VM have pids that ascend
with the vCPUs' numbers; where a number does not, the next VM begins.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable

import numpy as np

from ple_gym.measure.guest import Noise, VmMeasures
from ple_gym.traces.linux import ENTRY, EXIT, SLEEPS, SWITCH, WAKEUP, HostTrace

_QEMU = re.compile(r"CPU (\d{1,6})/KVM", re.ASCII)
_PAUSES, _HALTS = ("pause", "pause_instruction"), ("hlt",)


class _Task:
    """A vCPU while its events are read; None: it is off its pCPU, out of its guest, awake."""

    def __init__(self, vm: VmMeasures) -> None:
        self.vm = vm
        self.on: int | None = None
        self.inside: int | None = None
        self.asleep: int | None = None
        self.left: tuple[int, bool] | None = None  # when it exited, if nothing but its entry has followed; for a PAUSE
        self.came: int | None = None  # when it was switched in, likewise

    def leave(self, time: int) -> None:
        """It runs in its guest no more."""
        if self.inside is not None:
            self.vm.ran += time - self.inside
        self.inside = None

    def wake(self, time: int) -> None:
        """If it slept, it sleeps no more."""
        if self.asleep is not None:
            self.vm.samples["block"].append(time - self.asleep)
        self.asleep = None


class HostMeter:
    """Measures a trace; times are cycles of `tsc_hz`.

    pcpus: CPUs on which vCPUs ran; exits, switches: what a pause-loop exit, and a switch to a vCPU, took.
    """

    def __init__(self, trace: HostTrace, tsc_hz: int) -> None:
        events = trace.events
        self._reasons = [reason.lower() for reason in trace.reasons]
        self._vms, self._tasks = _tasks(trace)
        self.exits, self.switches = array("q"), array("q")
        self._bursts: dict[int, array[int]] = {}
        self._host: dict[int, int] = {}  # since when another task has a CPU
        self._cpus: set[int] = set()
        guests = bool(np.isin(events["kind"], (ENTRY, EXIT)).any())
        order = np.argsort(events["time"], kind="stable")
        self._observed = 0
        if len(events):
            first = int(events["time"][order[0]])
            self._observed = _cycles(int(events["time"][order[-1]]) - first, tsc_hz)
            for part in range(0, len(order), 1 << 16):  # as Python's objects, events take much room
                rows = events[order[part : part + (1 << 16)]]
                columns = [rows[name].tolist() for name in ("kind", "cpu", "pid", "other", "state", "reason")]
                times = [_cycles(time - first, tsc_hz) for time in rows["time"].tolist()]
                self._read(zip(times, *columns, strict=True), guests)
        self.pcpus = len(self._cpus)

    def _read(self, rows: Iterable[tuple[int, ...]], guests: bool) -> None:
        for time, kind, cpu, pid, other, state, reason in rows:
            task = self._tasks.get(pid)
            if kind == SWITCH:
                self._switch(time, cpu, pid, other, state, guests)
            elif kind == WAKEUP and other in self._tasks:
                self._tasks[other].wake(time)
            elif kind == ENTRY and task:
                task.wake(time)
                if task.left and task.left[1]:
                    self.exits.append(time - task.left[0])
                if task.came is not None:
                    self.switches.append(time - task.came)
                task.left = task.came = None
                task.inside = time
                self._cpus.add(cpu)
            elif kind == EXIT and task:
                task.leave(time)
                name = self._reasons[reason] if reason >= 0 else ""
                task.left = (time, name in _PAUSES)
                task.came = None
                task.vm.exits += name in _PAUSES
                if name in _HALTS:
                    task.asleep = time

    def _switch(self, time: int, cpu: int, pid: int, other: int, state: int, guests: bool) -> None:
        goes, comes = self._tasks.get(pid), self._tasks.get(other)
        paused = goes is not None and goes.left is not None and goes.left[1]  # which takes longer than a switch
        if goes:
            goes.leave(time)
            if goes.on is not None:
                goes.vm.samples["run"].append(time - goes.on)
            goes.on = goes.came = goes.left = None
            if state == SLEEPS and goes.asleep is None:
                goes.asleep = time
        elif cpu in self._host:
            self._bursts.setdefault(cpu, array("q")).append(time - self._host[cpu])
        self._host.pop(cpu, None)
        if comes:
            comes.wake(time)
            comes.on, comes.came = time, None if paused else time
            comes.inside = comes.inside if guests else time
            self._cpus.add(cpu)
        elif other > 0:
            self._host[cpu] = time

    def vms(self) -> list[VmMeasures]:
        """What was measured of the VMs, those of a size together, the largest first."""
        pooled: dict[int, VmMeasures] = {}
        for vm in self._vms:
            if vm.vcpus in pooled:
                pooled[vm.vcpus].add(vm)
            else:
                pooled[vm.vcpus] = vm
        return sorted(pooled.values(), key=lambda vm: -vm.vcpus * vm.count)

    def noise(self) -> Noise:
        """What other tasks than vCPUs ran on these CPUs."""
        bursts = array("q")
        for cpu in self._cpus:
            bursts += self._bursts.get(cpu, bursts[:0])
        return Noise(bursts, len(bursts), self.pcpus * self._observed - sum(bursts))


def _cycles(ns: int, tsc_hz: int) -> int:
    return ns * tsc_hz // 10**9


def _tasks(trace: HostTrace) -> tuple[list[VmMeasures], dict[int, _Task]]:
    """The VMs, and the vCPUs by their pids."""
    numbers = {pid: int(found[1]) for pid, comm in trace.comms.items() if (found := _QEMU.fullmatch(comm))}
    told = trace.events[np.isin(trace.events["kind"], (ENTRY, EXIT))][["pid", "vcpu"]]
    for pid, vcpu in np.unique(told).tolist():
        if pid > 0:
            numbers[pid] = max(vcpu, numbers.get(pid, -1))
    vms, tasks, last = list[VmMeasures](), dict[int, _Task](), -1
    for pid in sorted(numbers):
        number = numbers[pid]
        if not vms or number <= last:
            vms.append(VmMeasures())
        vms[-1].vcpus += 1
        tasks[pid] = _Task(vms[-1])
        last = number
    return vms, tasks
