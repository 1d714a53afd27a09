"""What each vCPU was doing with which lock and where, and who was the next to get a lock: what a report shows."""

from __future__ import annotations

import numpy as np

from ple_gym.traces.events import HOLDING, PREEMPTED, SPINNING, WAITING, Ints, holds, runs, states, waits


def doings(trace: Ints, vcpus: int) -> Ints:
    """`states` with lock and pCPU: int64 [m, 6] = vcpu, state, start, stop, lock, pcpu; -1 stands for none.

    The lock is what a vCPU waits for or, if it does not wait, what it holds, as the state begins.
    """
    rows = states(trace, vcpus)
    waited, held, ran = (
        _value_at(of(trace, partial=True), rows, *columns)
        for of, columns in ((waits, (0, 1)), (holds, (0, 1)), (runs, (1, 0)))
    )
    kind = rows[:, 1]
    lock = np.select([np.isin(kind, (SPINNING, WAITING)), np.isin(kind, (HOLDING, PREEMPTED))], [waited, held], -1)
    return np.column_stack([rows, lock, ran])


def next_in_line(trace: Ints) -> Ints:
    """Who waits for a lock and is the next to get it: int64 [m, 4] = vcpu, lock, start, stop; none is empty.

    The trace tells who got it, whatever order the lock keeps. Of those who get it after the trace's end the first that
    came counts as the next.
    """
    rows = waits(trace, partial=True)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 3], rows[:, 1]))]
    same = np.diff(rows[:, 1], prepend=-1) == 0
    before = np.where(same, np.roll(rows[:, 3], 1), rows[:, 2])
    start = np.maximum(rows[:, 2], before)
    result: Ints = np.column_stack([rows[:, :2], start, rows[:, 3]])[start < rows[:, 3]]
    return result


def _value_at(intervals: Ints, rows: Ints, vcpu: int, value: int) -> Ints:
    """The value in the latest interval (start, stop as 3rd and 4th) of a row's vCPU that the row begins in; or -1.

    vcpu, value: the columns that have them.
    """
    if not len(intervals):
        return np.full(len(rows), -1)
    intervals = intervals[np.lexsort((intervals[:, 2], intervals[:, vcpu]))]
    # One number for vCPU and time: times are counted among those that there are.
    times = np.unique(np.concatenate([intervals[:, 2], rows[:, 2]]))
    keys = intervals[:, vcpu] * len(times) + np.searchsorted(times, intervals[:, 2])
    asked = rows[:, 0] * len(times) + np.searchsorted(times, rows[:, 2])
    found = intervals[np.searchsorted(keys, asked, "right") - 1]  # before the first: the last, which is refused
    inside = (found[:, vcpu] == rows[:, 0]) & (found[:, 2] <= rows[:, 2]) & (rows[:, 2] < found[:, 3])
    result: Ints = np.where(inside, found[:, value], -1)
    return result
