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
    result = np.full(len(rows), -1)
    for one in np.unique(intervals[:, vcpu]):
        own = np.flatnonzero(rows[:, 0] == one)
        some = intervals[intervals[:, vcpu] == one]
        some = some[np.argsort(some[:, 2], kind="stable")]
        at = np.searchsorted(some[:, 2], rows[own, 2], "right") - 1  # -1, the last, has not begun
        inside = (some[at, 2] <= rows[own, 2]) & (rows[own, 2] < some[at, 3])
        result[own[inside]] = some[at[inside], value]
    return result
