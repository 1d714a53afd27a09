"""What a Linux host with KVM records of its vCPUs, as one table: what tracepoints say, and what a simulated run would.

A vCPU is a task of the host there. The simulator's own events (`ple_gym.traces.events`) know more of the guest; a host
sees no lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ple_gym.scenario.model import Scenario
from ple_gym.traces.events import (
    BLOCK,
    IDLE,
    NOISE,
    NOISE_BEGIN,
    NOISE_END,
    PLE,
    RUN,
    STOP,
    WAKE,
    Ints,
    carried_values,
)

#: A row of `HostTrace.events`. What says nothing for a kind is -1, or 0 (`state`, `rip`).
EVENT = np.dtype(
    [
        ("time", "i8"),  # nanoseconds of the trace's clock (Xen's: cycles)
        ("kind", "i1"),  # SWITCH, ...
        ("cpu", "i4"),  # on which it was recorded
        ("pid", "i8"),  # the task that ran there; 0: idle. SWITCH: who leaves
        ("other", "i8"),  # SWITCH: the pid that comes; WAKING, WAKEUP: who is woken
        ("state", "i1"),  # SWITCH: why `pid` leaves: SLEEPS, YIELDS or IS_PREEMPTED
        ("target", "i4"),  # WAKING, WAKEUP: the CPU that `other` will run on
        ("vcpu", "i4"),  # ENTRY, EXIT, WINDOW: the vCPU's number within its VM; older kernels do not say it
        ("reason", "i4"),  # EXIT: its name's place in `HostTrace.reasons`
        ("rip", "u8"),  # ENTRY, EXIT: where the guest was, if it is said
        ("old", "i8"),  # WINDOW: the PLE window before, cycles
        ("new", "i8"),  # and after
    ]
)

# Kinds of events
SWITCH = 0  # a CPU goes on with another task
WAKING = 1  # somebody wakes a task
WAKEUP = 2  # the task is awake, and queued
ENTRY = 3  # a vCPU enters its guest
EXIT = 4  # and leaves it
WINDOW = 5  # KVM changes the PLE window of a vCPU
KINDS = ("sched_switch", "sched_waking", "sched_wakeup", "kvm_entry", "kvm_exit", "kvm_ple_window_update")

# Why a task leaves its CPU
SLEEPS = 0  # Linux prints S, or D, ...
YIELDS = 1  # R
IS_PREEMPTED = 2  # R+

# The simulator's reasons of exits
PAUSE = 0
HALT = 1
INTERRUPT = 2
REASONS = ("PAUSE_INSTRUCTION", "HLT", "EXTERNAL_INTERRUPT")

NOISE_PID = 2  # the task that host noise is
FIRST_VCPU_PID = 1000  # of the scenario's vCPU 0
SPIN_RIP = 0xFFFFFFFF81000000  # where a guest spins on lock 0; before it, where it spins for acknowledgements
LOCK_BYTES = 64  # from there to where it spins on the next

Table = npt.NDArray[np.void]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HostTrace:
    """A host's events, and the names in them.

    events: EVENT [n], in the order of the file or, if simulated, of time; comms: the name of each task but idle ones
    by pid; reasons: names of exits.
    """

    events: Table
    comms: dict[int, str]
    reasons: tuple[str, ...]


def table(count: int) -> Table:
    """So many events that say nothing yet."""
    events = np.full(count, -1, EVENT)
    events["state"] = events["rip"] = 0
    return events


def nanoseconds(cycles: Ints, tsc_hz: int) -> Ints:
    """Cycles as nanoseconds, rounded down; the product of both may not fit into 64 bits."""
    seconds, rest = np.divmod(cycles, tsc_hz)
    return seconds * 10**9 + (rest.astype(np.uint64) * 10**9 // tsc_hz).astype(np.int64)


class Observer:
    """Sees a simulated run, which arrives in pieces from its beginning, as tracepoints of a Linux host would.

    A pause-loop exit leaves the guest when the simulator says so; a switch stands at the same time. The guest enters
    after `cost.exit` and, if there was a switch, `cost.switch`; what else a handler costs is not in the events, so that
    with `cost.exit_per_candidate`, `cost.yield_to` or `cost.notify` an entry stands too early.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._hz, self._exit, self._switch = scenario.host.tsc_hz, scenario.cost.exit, scenario.cost.switch
        sizes = [vm.vcpus for vm in scenario.vms().values()]
        self._number = np.concatenate([np.arange(size) for size in sizes])
        names = [f"vm{m}-vcpu{number}" for m, size in enumerate(sizes) for number in range(size)]
        self.comms = {FIRST_VCPU_PID + v: name for v, name in enumerate(names)} | {NOISE_PID: "host-noise"}
        self._who = np.full(scenario.host.pcpus, IDLE)  # has each pCPU
        self._asleep = np.zeros(scenario.vcpus, np.int64)
        self._held: Ints = np.zeros((0, 5), np.int64)  # the newest rows: others of the same time may follow
        self._late = table(0)  # times in cycles

    def add(self, piece: Ints) -> HostTrace:
        """Take the rows int64 [n, 5] that follow; return what is certain by now."""
        rows = np.concatenate([self._held, piece])
        if not len(rows):
            return self._told(table(0), 0)
        now = int(rows[-1, 0])
        cut = int(np.searchsorted(rows[:, 0], now))
        self._held = rows[cut:]
        return self._told(self._seen(rows[:cut]), now)

    def end(self) -> HostTrace:
        """Return what is left when the run has ended."""
        return self._told(self._seen(self._held), np.iinfo(np.int64).max)

    def _told(self, events: Table, now: int) -> HostTrace:
        """Those before `now`, in order; what comes later is kept."""
        events = np.concatenate([self._late, events])
        events = events[np.argsort(events["time"], kind="stable")]
        cut = int(np.searchsorted(events["time"], now))
        self._late, events = events[cut:], events[:cut]
        events["time"] = nanoseconds(events["time"], self._hz)
        return HostTrace(events, self.comms, REASONS)

    def _seen(self, rows: Ints) -> Table:
        """What a host sees of these rows, times in cycles, in the order of the rows that tell it."""
        time, kind, pcpu, vcpu, lock = rows.T
        moves = np.flatnonzero(np.isin(kind, (RUN, STOP, NOISE_BEGIN, NOISE_END)))
        comes = np.select([kind[moves] == RUN, kind[moves] == NOISE_BEGIN], [vcpu[moves], NOISE], IDLE)
        sleeps = np.flatnonzero(np.isin(kind, (BLOCK, WAKE)))
        who_at = carried_values(pcpu[moves], moves, comes, self._who)
        asleep_at = carried_values(vcpu[sleeps], sleeps, (kind[sleeps] == BLOCK).astype(np.int64), self._asleep)
        pauses, on = np.flatnonzero(kind == PLE), pcpu >= 0

        # Who comes next to a pCPU at the time at which another goes makes one switch with that.
        marks = np.sort(np.concatenate([moves, pauses]))
        marks = marks[np.argsort(pcpu[marks], kind="stable")]
        goes = np.isin(kind[marks], (STOP, NOISE_END))
        marks = marks[~(goes & _at_once(time, pcpu, marks) & ~np.append(goes[1:], True))]
        exits, at_once = kind[marks] == PLE, _at_once(time, pcpu, marks)
        comes_to = who_at(pcpu[marks], marks)
        had = np.append(IDLE, comes_to)[:-1]
        first = np.diff(pcpu[marks], prepend=-1) != 0
        had[first] = self._who[pcpu[marks][first]]
        switched = (had != comes_to) & ~exits
        order, before, after = marks[switched], had[switched], comes_to[switched]
        paused = np.append(False, exits & at_once)[:-1][switched]
        stays = marks[exits & ~(at_once & np.append(switched[1:], False))]
        slept = (before >= 0) & (asleep_at(before, order) == 1)
        places: list[Ints] = []

        def events(which: Ints, kind: int, **values: npt.ArrayLike) -> Table:
            places.append(which)
            made = table(len(which))
            made["time"], made["kind"], made["cpu"] = time[which], kind, pcpu[which]
            for name, value in values.items():
                made[name] = value
            return made

        def of_guest(which: Ints, who: Ints, kind: int, late: npt.ArrayLike = 0, **values: npt.ArrayLike) -> Table:
            made = events(which, kind, pid=_pid(who), vcpu=self._number[who], **values)
            made["time"] += late
            return made

        why = np.select([slept | (before == NOISE), paused | (before == IDLE)], [SLEEPS, YIELDS], IS_PREEMPTED)
        halts = np.flatnonzero((kind == BLOCK) & on)
        halts = halts[who_at(pcpu[halts], halts) == vcpu[halts]]
        wakes = np.flatnonzero((kind == WAKE) & on)
        running = who_at(pcpu[wakes], wakes)
        polled = running == vcpu[wakes]  # its pCPU waits for it, busy: it never slept
        forced = (before >= 0) & ~slept & ~paused
        rip = np.uint64(SPIN_RIP - LOCK_BYTES) + np.uint64(LOCK_BYTES) * (lock[pauses] + 1).astype(np.uint64)
        enters = after >= 0
        made = [
            of_guest(pauses, vcpu[pauses], EXIT, reason=PAUSE, rip=rip),
            of_guest(halts, vcpu[halts], EXIT, reason=HALT),
            of_guest(order[forced], before[forced], EXIT, reason=INTERRUPT),
            events(order, SWITCH, pid=_pid(before), other=_pid(after), state=why),
            events(
                wakes[~polled], WAKEUP, pid=_pid(running[~polled]), other=_pid(vcpu[wakes[~polled]]),
                target=pcpu[wakes[~polled]],
            ),
            of_guest(wakes[polled], vcpu[wakes[polled]], ENTRY),
            of_guest(stays, vcpu[stays], ENTRY, self._exit),
            of_guest(order[enters], after[enters], ENTRY, self._switch + self._exit * paused[enters]),
        ]  # fmt: skip
        self._who[pcpu[moves]] = comes  # of several values assigned to one element, the last stays
        self._asleep[vcpu[sleeps]] = kind[sleeps] == BLOCK
        told = np.concatenate(made)
        rank = np.array([2, 1, 1, 3, 0, 0])[told["kind"]]  # out of the guest, switch, in again
        return told[np.lexsort((rank, np.concatenate(places)))]


def _at_once(time: Ints, pcpu: Ints, rows: Ints) -> Flags:
    """Whether the next of `rows`, which stand in order pCPU by pCPU, is of the same pCPU and time."""
    return np.append((np.diff(time[rows]) == 0) & (np.diff(pcpu[rows]) == 0), False)[: len(rows)]


def _pid(who: Ints) -> Ints:
    """The pids of vCPUs, IDLE or NOISE."""
    return np.select([who == IDLE, who == NOISE], [0, NOISE_PID], FIRST_VCPU_PID + who)
