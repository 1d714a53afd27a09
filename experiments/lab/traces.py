"""What the paper's text describes, found in a trace (`traces/events.py`): stalls of a lock, and who exits meanwhile."""

from __future__ import annotations

import numpy as np

from experiments.lab import Task, world
from ple_gym.evaluate import record
from ple_gym.traces import events as tr
from ple_gym.traces.pictures import LONG_HOLD, MANY_EXITS

SHORT_STALL = 4096  # cycles; a lock that is free for less is being handed over


def trace_of(task: Task) -> tr.Ints:
    """Everything that happens in the run of a task, int64 [n, 5]."""
    return record(world(task.scenario, task.overrides), task.policy, task.seed)


def exits_between(exits: tr.Ints, lock: int, start: int, stop: int) -> tr.Ints:
    """Those of the exits that are made for a lock in start <= time < stop."""
    part = tr.window(exits, start, stop)
    return part[part[:, 4] == lock]


def spinners(exits: tr.Ints) -> int:
    """How many vCPUs exit again and again: at least `MANY_EXITS` times."""
    return int((np.bincount(exits[:, 3]) >= MANY_EXITS).sum()) if len(exits) else 0


def holder_stalls(trace: tr.Ints, vcpus: int) -> tr.Ints:
    """Where a lock holder is off its pCPU (4.3.1): int64 [n, 6] = lock, start, stop, exits, spinners, holder.

    Exits and spinners are those of the holder's lock in that time. A hold cut short by the trace's end does not count.
    """
    exits, acquires = trace[trace[:, 1] == tr.PLE], trace[trace[:, 1] == tr.ACQUIRE]
    states = tr.states(trace, vcpus)
    rows = []
    for holder, _, start, stop in states[(states[:, 1] == tr.PREEMPTED) & (states[:, 3] < tr.NEVER)].tolist():
        lock = int(acquires[(acquires[:, 3] == holder) & (acquires[:, 0] <= start), 4][-1])
        part = exits_between(exits, lock, start, stop)
        rows.append((lock, start, stop, len(part), spinners(part), holder))
    return np.array(rows, np.int64).reshape(-1, 6)


def free_stalls(trace: tr.Ints) -> tr.Ints:
    """Where a lock is free and exits go on (4.3.2): int64 [n, 6] = lock, start, stop, exits, spinners, held.

    The last is the length of the hold that ended at `start`. Stalls end when somebody acquires the lock.
    """
    exits = trace[trace[:, 1] == tr.PLE]
    rows = []
    for lock in np.unique(exits[:, 4]).tolist():
        changes = trace[(trace[:, 4] == lock) & np.isin(trace[:, 1], (tr.ACQUIRE, tr.RELEASE))]
        time = changes[:, 0]
        for i in np.flatnonzero((changes[1:-1, 1] == tr.RELEASE) & (np.diff(time)[1:] > SHORT_STALL)) + 1:
            part = exits_between(exits, lock, time[i], time[i + 1])
            if len(part):
                rows.append((lock, time[i], time[i + 1], len(part), spinners(part), time[i] - time[i - 1]))
    return np.array(rows, np.int64).reshape(-1, 6)


def crowd(trace: tr.Ints, span: int) -> int:
    """The most vCPUs that exit in one `span` cycles (counted from time 0)."""
    exits = trace[trace[:, 1] == tr.PLE]
    pairs = np.unique((exits[:, 0] // span) << 10 | exits[:, 3])
    return int(np.unique(pairs >> 10, return_counts=True)[1].max(initial=0))


def largest_dispatch(trace: tr.Ints, vcpu: int, start: int, stop: int) -> int:
    """The most exits that a vCPU makes in one stay on a pCPU in start <= time < stop."""
    own = tr.window(trace, start, stop)
    own = own[(own[:, 3] == vcpu) & np.isin(own[:, 1], (tr.RUN, tr.PLE))]
    return int(np.bincount(np.cumsum(own[:, 1] == tr.RUN), own[:, 1] == tr.PLE).max(initial=0))


def recorded_holds(trace: tr.Ints) -> tr.Ints:
    """The holds that the paper's logger keeps, 4.3: as `ple_gym.traces.events.holds`, of at least 30,000 cycles."""
    held = tr.holds(trace)
    return held[held[:, 3] - held[:, 2] >= LONG_HOLD]
