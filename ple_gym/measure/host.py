"""What a host's trace tells of its vCPUs: VMs, pCPUs, sleeps, stays on a pCPU, and what exits and switches cost.

A vCPU is a task that enters a guest, or is called `CPU 3/KVM`, as QEMU calls it, or `d1v3`, as Xen's tools do. Pids
of a VM's tasks ascend with the vCPUs' numbers; where a number does not, the next VM begins.
"""

from __future__ import annotations

import re
from array import array
from itertools import compress

import numpy as np

from ple_gym.measure.guest import VmMeasures, pooled
from ple_gym.traces.linux import ENTRY, EXIT, SLEEPS, SWITCH, WAKEUP, HostTrace

_NAME = re.compile(r"CPU (\d{1,6})/KVM|d\d{1,5}v(\d{1,5})", re.ASCII)


class _Task:
    """A vCPU while its events are read; times: since when it is on a pCPU, in its guest, asleep."""

    def __init__(self, vm: VmMeasures) -> None:
        self.vm = vm
        self.on: int | None = None
        self.inside: int | None = None
        self.asleep: int | None = None
        self.paused: int | None = None  # when it exited for a PAUSE, if nothing but its entry has followed
        self.came: int | None = None  # when it was switched in, likewise

    def leave(self, time: int) -> None:
        self.vm.ran += 0 if self.inside is None else time - self.inside
        self.inside = self.came = self.paused = None

    def wake(self, time: int) -> None:
        if self.asleep is not None:
            self.vm.samples["block"].append(time - self.asleep)
        self.asleep = None


class HostMeter:
    """Measures a trace, in cycles of `tsc_hz`; `cycles`: its times are cycles, not ns.

    vms: what was measured of them; exits, switches: what a pause-loop exit, and a switch to a vCPU, took; cpus: on
    which vCPUs ran; bursts: how long other tasks had one of these; displaced: how many of them took it from a vCPU that
    would have run on; beside: the time of all these CPUs without bursts.
    """

    def __init__(self, trace: HostTrace, tsc_hz: int, cycles: bool = False) -> None:
        self.exits, self.switches, self.cpus = array("q"), array("q"), set[int]()
        self.bursts, self.displaced, where = array("q"), 0, array("q")
        taken = dict[int, int]()  # since when each CPU has other tasks
        vms, tasks = _tasks(trace)
        guests = bool(np.isin(trace.events["kind"], (ENTRY, EXIT)).any())
        events = trace.events[np.argsort(trace.events["time"], kind="stable")]
        reasons = [reason.lower() for reason in trace.reasons]
        scale = 1 if cycles else tsc_hz / 1e9
        for part in range(0, len(events), 1 << 16):  # as Python's objects, they take much room
            rows = events[part : part + (1 << 16)]
            times = np.rint((rows["time"] - events["time"][0]) * scale).astype(np.int64).tolist()
            columns = (rows[name].tolist() for name in ("kind", "cpu", "pid", "other", "state", "reason"))
            for time, kind, cpu, pid, other, state, reason in zip(times, *columns, strict=True):
                task = tasks.get(pid)
                if kind == WAKEUP and other in tasks:
                    tasks[other].wake(time)
                elif kind == SWITCH:
                    foreign = other > 0 and other not in tasks
                    if foreign and (task or pid <= 0):
                        taken[cpu] = time
                        self.displaced += task is not None and state != SLEEPS
                    elif cpu in taken and not foreign:
                        where.append(cpu)
                        self.bursts.append(time - taken.pop(cpu))
                    paused = task and task.paused is not None  # then the way into the next guest is longer
                    if task:
                        task.leave(time)
                        if task.on is not None:
                            task.vm.samples["run"].append(time - task.on)
                        task.on = None
                        if state == SLEEPS and task.asleep is None:
                            task.asleep = time
                    if comes := tasks.get(other):
                        comes.wake(time)
                        comes.on, comes.came = time, None if paused else time
                        comes.inside = comes.inside if guests else time
                        self.cpus.add(cpu)
                elif task and kind == ENTRY:
                    task.wake(time)
                    for values, since in ((self.exits, task.paused), (self.switches, task.came)):
                        if since is not None:
                            values.append(time - since)
                    task.paused = task.came = None
                    task.inside = time
                    self.cpus.add(cpu)
                elif task and kind == EXIT:
                    task.leave(time)
                    why = reasons[reason] if reason >= 0 else ""
                    if why in ("pause_instruction", "pause"):
                        task.paused = time
                        task.vm.exits += 1
                    task.asleep = time if why == "hlt" else None
        self.bursts = array("q", compress(self.bursts, (cpu in self.cpus for cpu in where)))
        span = round(int(events["time"][-1] - events["time"][0]) * scale) if len(events) else 0
        self.beside = span * len(self.cpus) - sum(self.bursts)
        self.vms = pooled(vms)


def _tasks(trace: HostTrace) -> tuple[list[VmMeasures], dict[int, _Task]]:
    """The VMs, and the vCPUs by their pids."""
    numbers = {pid: int(found[1] or found[2]) for pid, comm in trace.comms.items() if (found := _NAME.fullmatch(comm))}
    told = trace.events[np.isin(trace.events["kind"], (ENTRY, EXIT))][["pid", "vcpu"]]
    for pid, vcpu in np.unique(told).tolist():
        if pid > 0:
            numbers[pid] = max(vcpu, numbers.get(pid, -1))
    vms, tasks, last = list[VmMeasures](), dict[int, _Task](), -1
    for pid, number in sorted(numbers.items()):
        if not vms or number <= last:
            vms.append(VmMeasures())
        vms[-1].vcpus += 1
        tasks[pid], last = _Task(vms[-1]), number
    return vms, tasks
