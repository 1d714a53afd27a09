"""Traces: what happened when, as one integer array, and the few questions that everybody asks of it.

A trace is an int64 array [n, 5] with the columns `TRACE_COLUMNS`, ascending in time. Times are TSC cycles; a column
that says nothing for a kind of event holds -1. A recorder that keeps only the newest events gives a trace that starts
in the middle: the `RUN` of an early `STOP` may be missing, and so may any other beginning. Nothing here minds, and what
has no event at all in the trace can be made up from the present (`completed`). What happens at the same time stands in
the order of cause and effect: `STOP` before the `RUN` or `NOISE_BEGIN` it makes way for, `TRY` before `ACQUIRE`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ple_gym.files import write_whole
from ple_gym.sim.constants import WINDOWS
from ple_gym.sim.state import (
    ACQUIRED,
    ANSWERED,
    DECIDED,
    EXITED,
    INTERRUPTED,
    NOISE_BEGAN,
    NOISE_ENDED,
    RAN,
    RELEASED,
    SLEPT,
    STOPPED,
    THREAD_TAKEN,
    TRIED,
    WOKE,
)
from ple_gym.traces import columns

Ints: TypeAlias = npt.NDArray[np.int64]

TRACE_COLUMNS = ("time", "kind", "pcpu", "vcpu", "lock")

RUN = int(RAN)  # a vCPU is switched in on a pCPU; its guest enters when exit and switch are paid
STOP = int(STOPPED)  # a vCPU leaves its pCPU
TRY = int(TRIED)  # a vCPU asks for a lock (takes its ticket); pcpu = -1: it is in line as its world starts
ACQUIRE = int(ACQUIRED)  # it has the lock; pcpu = -1: as its world starts, off its pCPU
RELEASE = int(RELEASED)  # it gives the lock back
PLE = int(EXITED)  # a pause-loop exit of a spinning vCPU; lock = -1: it spins for acknowledgements
BLOCK = int(SLEPT)  # a vCPU goes to sleep (or halts in a paravirtual lock, or is done)
WAKE = int(WOKE)  # it becomes runnable again
NOISE_BEGIN = int(NOISE_BEGAN)  # the host takes the pCPU for itself; vcpu = -1
NOISE_END = int(NOISE_ENDED)  # and gives it back; vcpu = -1
THREAD = int(THREAD_TAKEN)  # a vCPU goes on with another thread, or with its last one after a sleep; lock = its number
IPI = int(INTERRUPTED)  # a vCPU has interrupted siblings, and spins until all of them have acknowledged that
ACK = int(ANSWERED)  # all have
DECIDE = int(DECIDED)  # what is decided on a vCPU's exit; lock = action: who runs, or how many there are (defer)
KIND_NAMES = (
    "RUN", "STOP", "TRY", "ACQUIRE", "RELEASE", "PLE", "BLOCK", "WAKE", "NOISE_BEGIN", "NOISE_END", "THREAD", "IPI",
    "ACK", "DECIDE",
)  # fmt: skip
_WAITING = (TRY, ACQUIRE, RELEASE, PLE, IPI, ACK)  # what shows whether a vCPU waits

# States of a vCPU, the more telling the higher: where two share a picture's cell evenly, the higher one is shown.
QUEUED = 0  # off the CPU, with nothing to do with a lock
BLOCKED = 1  # asleep, or done
RUNNING = 2  # on the CPU, with nothing to do with a lock
WAITING = 3  # off the CPU, in line for a lock, or lacking acknowledgements
SPINNING = 4  # on the CPU, in line for a lock or lacking acknowledgements, whether it holds a lock or not
HOLDING = 5  # on the CPU, holding a lock
PREEMPTED = 6  # off the CPU, holding a lock, whether it waits for another or not: lock-holder preemption
STATE_NAMES = ("queued", "blocked", "running", "waiting", "spinning", "holding", "preempted")

IDLE = -1  # a pCPU with nothing to run
NOISE = -2  # a pCPU that the host has taken

NEVER = 1 << 62  # the time of an end that lies outside the trace (-NEVER: of a beginning)


def unrolled(ring: Ints, written: int) -> Ints:
    """Return the events that a ring [n, 5] still holds after `written` of them, oldest first: a copy."""
    if written <= len(ring):
        return ring[:written].copy()
    return np.roll(ring, -(written % len(ring)), axis=0)


def completed(trace: Ints, pcpus: Ints, vcpus: Ints, held: Ints) -> Ints:
    """Return the trace, before it rows at -NEVER for what has no event in it, so that nothing need be guessed.

    What no event changes was as it is at the trace's end.

    Args:
        trace: int64 [n, 5]; a recorder may have kept only the newest events.
        pcpus: who has each pCPU at its end: int64 [P], a vCPU, IDLE or NOISE.
        vcpus: asleep (0, 1), whether it waits (0, 1) and the lock waited for (-1: for acknowledgements) of each vCPU at
            its end: int64 [V, 3].
        held: vCPU and lock of each lock that is held at its end: int64 [n, 2].
    """
    where = np.full(len(vcpus), -1)
    where[pcpus[pcpus >= 0]] = np.flatnonzero(pcpus >= 0)
    asleep, waiting, lock = vcpus.T
    none = np.full(max(len(pcpus), len(vcpus)), -1)
    made = []

    def add(
        kind: int, which: npt.NDArray[np.bool_], column: int, *kinds: int, pcpu: Ints, vcpu: Ints, lock: Ints
    ) -> None:
        """Make up the event `kind` of those that have none of `kinds` in the trace; `column` says whose events."""
        told = trace[np.isin(trace[:, 1], kinds), column]
        whose = np.flatnonzero(which & np.isin(np.arange(len(which)), told, invert=True))
        rows = np.broadcast_arrays(-NEVER, kind, pcpu[whose], vcpu[whose], lock[whose])
        made.append(np.column_stack(rows))

    numbers = np.arange(len(none))
    add(NOISE_BEGIN, pcpus == NOISE, 2, RUN, STOP, NOISE_BEGIN, NOISE_END, pcpu=numbers, vcpu=none, lock=none)
    add(RUN, where >= 0, 3, RUN, STOP, pcpu=where, vcpu=numbers, lock=none)
    add(BLOCK, asleep == 1, 3, BLOCK, WAKE, pcpu=none, vcpu=numbers, lock=none)
    told = trace[np.isin(trace[:, 1], (TRY, ACQUIRE, RELEASE, PLE))]
    held = held[~(held[:, None] == told[:, 3:]).all(2).any(1)] if len(told) else held
    made.append(np.column_stack([*np.broadcast_arrays(-NEVER, ACQUIRE, -1, held[:, 0]), held[:, 1]]))
    add(TRY, (waiting == 1) & (lock >= 0), 3, *_WAITING, pcpu=none, vcpu=numbers, lock=lock)
    add(IPI, (waiting == 1) & (lock < 0), 3, *_WAITING, pcpu=none, vcpu=numbers, lock=lock)
    return np.concatenate([*made, trace])


def carried(trace: Ints) -> Ints:
    """Return what of a trace tells what everybody is doing at its end, as rows at -NEVER before one that follows."""
    trace = trace.copy()
    kind, pcpu, vcpu, lock = trace.T[1:]

    def newest(which: npt.NDArray[np.bool_], *keys: Ints) -> Ints:
        """Where the last row with each key is."""
        picked = np.flatnonzero(which)
        picked = picked[np.lexsort([key[picked] for key in keys])]
        last = np.ones(len(picked), np.bool_)
        last[:-1] = np.any([np.diff(key[picked]) != 0 for key in keys], axis=0)
        return picked[last]

    moves = np.isin(kind, (RUN, STOP, NOISE_BEGIN, NOISE_END))
    wait = newest(np.isin(kind, _WAITING), vcpu)
    held = newest(np.isin(kind, (ACQUIRE, RELEASE)), vcpu, lock)
    held = held[kind[held] == ACQUIRE]
    over = np.setdiff1d(wait[np.isin(kind[wait], (ACQUIRE, RELEASE))], held)
    kept = [newest(moves, pcpu), newest(moves & (vcpu >= 0), vcpu), newest(np.isin(kind, (BLOCK, WAKE)), vcpu)]
    trace[over, 1] = ACK  # which says that it does not wait, and of locks nothing
    trace[:, 0] = -NEVER
    kept_rows: Ints = trace[np.unique(np.concatenate([*kept, wait, held]))]
    return kept_rows


def window(trace: Ints, start: int, stop: int) -> Ints:
    """Return the events with `start <= time < stop` (cycles), as a view [m, 5]."""
    first, last = np.searchsorted(trace[:, 0], [start, max(start, stop)])
    return trace[first:last]


def waits(trace: Ints, partial: bool = False) -> Ints:
    """Return one row per wait for a lock: int64 [m, 5] = vcpu, lock, try, acquire, pause-loop exits in between.

    Rows ascend in the time of the try. A wait that the trace shows only in part counts if `partial`: its lost try is
    -NEVER, an acquire still to come NEVER, and its exits are those seen. (An acquire whose try is lost is a wait only
    if an exit came before it; otherwise nothing shows that the vCPU had to wait.)
    """
    return _waits(trace, TRY, ACQUIRE, partial)


def acknowledgements(trace: Ints, partial: bool = False) -> Ints:
    """Return one row per wait for acknowledgements: int64 [m, 4] = vcpu, start, end, pause-loop exits in between.

    `partial` as in `waits`.
    """
    return _waits(trace, IPI, ACK, partial)[:, [0, 2, 3, 4]]


def _waits(trace: Ints, opening: int, closing: int, partial: bool) -> Ints:
    """Return one row per wait that starts with `opening` and ends with `closing`: as `waits`."""
    time, kind, _, vcpu, lock = trace.T
    begin, end = _pairs(trace, opening, closing)
    known = np.where(begin >= 0, begin, end)
    # Positions, not times, decide what lies between: events may share a time.
    n = len(trace)
    exits = np.flatnonzero((kind == PLE) & ((lock < 0) == (opening == IPI)))
    keys = np.sort(vcpu[exits] * n + exits)
    first = np.searchsorted(keys, vcpu[known] * n + np.maximum(begin, 0))
    last = np.searchsorted(keys, vcpu[known] * n + np.where(end >= 0, end, n))
    rows = np.column_stack(
        [vcpu[known], lock[known], _times(time, begin, -NEVER), _times(time, end, NEVER), last - first]
    )
    # Who can take a lock at once asks for it too; who need not wait for acknowledgements has no event.
    shown = (begin >= 0) | (last > first) | (opening == IPI)
    return rows[shown] if partial else rows[(begin >= 0) & (end >= 0)]


def holds(trace: Ints, partial: bool = False) -> Ints:
    """Return one row per hold of a lock: int64 [m, 4] = vcpu, lock, acquire, release; `partial` as in `waits`."""
    time, _, _, vcpu, lock = trace.T
    begin, end = _pairs(trace, ACQUIRE, RELEASE, 3, 4)
    known = np.where(begin >= 0, begin, end)
    rows = np.column_stack([vcpu[known], lock[known], _times(time, begin, -NEVER), _times(time, end, NEVER)])
    return rows if partial else rows[(begin >= 0) & (end >= 0)]


def handovers(trace: Ints) -> Ints:
    """Return one row per lock that was waited for and handed over: int64 [m, 5] = lock, who gave it back, when, who got
    it, when.

    A row ends where a vCPU acquires a lock whose newest release came after it had asked. Rows ascend in that.
    """
    time, kind, _, vcpu, lock = trace.T
    tries, acquires, releases = (np.flatnonzero(kind == one) for one in (TRY, ACQUIRE, RELEASE))
    none = np.full(1 + int(trace[:, 3:].max(initial=0)), -1)
    released = carried_values(lock[releases], releases, releases, none)(lock[acquires], acquires)
    tried = carried_values(vcpu[tries], tries, tries, none)(vcpu[acquires], acquires)
    waited = (released > tried) & (tried >= 0)
    gave, got = released[waited], acquires[waited]
    return np.column_stack([lock[got], vcpu[gave], time[gave], vcpu[got], time[got]])


def runs(trace: Ints, partial: bool = False) -> Ints:
    """Return one row per stay on a pCPU: int64 [m, 4] = pcpu, vcpu, start, stop; `partial` as in `waits`."""
    time, _, pcpu, vcpu, _ = trace.T
    begin, end = _pairs(trace, RUN, STOP)
    known = np.where(begin >= 0, begin, end)
    rows = np.column_stack([pcpu[known], vcpu[known], _times(time, begin, -NEVER), _times(time, end, NEVER)])
    return rows if partial else rows[(begin >= 0) & (end >= 0)]


def states(trace: Ints, vcpus: int) -> Ints:
    """Return what each vCPU was doing, without gaps: int64 [m, 4] = vcpu, state, start, stop, ascending per vCPU.

    The first interval of a vCPU starts at -NEVER, its last stops at NEVER. What went on before a vCPU's first `RUN` or
    `STOP`, `BLOCK` or `WAKE`, and event of a lock is inferred from that one; a vCPU without any counts as queued.
    """
    trace = trace[(trace[:, 3] >= 0) & (trace[:, 3] < vcpus)]
    _, kind, pcpu, vcpu, _ = trace.T

    def first(*kinds: int) -> Ints:
        own = np.isin(kind, kinds)
        return _first(vcpu[own], kind[own], vcpus)

    move, sleep, wait = first(RUN, STOP), first(BLOCK, WAKE), first(*_WAITING)
    seen_on = np.zeros(vcpus, np.bool_)
    seen_on[vcpu[np.isin(kind, _WAITING) & (pcpu >= 0)]] = True

    # One made-up event per vCPU, at -NEVER, carries what is inferred; then each aspect is carried forward.
    rows = np.concatenate([np.arange(vcpus), vcpu])
    order = np.argsort(rows, kind="stable")
    time = np.concatenate([np.full(vcpus, -NEVER), trace[:, 0]])[order]
    kind = np.concatenate([np.full(vcpus, -1), kind])[order]
    inferred = kind == -1

    on = _carry(kind, {RUN: 1, STOP: 0}, inferred, np.where(move >= 0, move == STOP, seen_on))
    asleep = _carry(kind, {BLOCK: 1, WAKE: 0, RUN: 0}, inferred, sleep == WAKE)
    ends = {ACQUIRE: 0, RELEASE: 0, ACK: 0}
    waits = _carry(kind, {TRY: 1, PLE: 1, IPI: 1, **ends}, inferred, np.isin(wait, (PLE, ACQUIRE, ACK))) == 1
    holds = _held(kind, inferred) > 0
    off_state = np.select([holds, waits], [PREEMPTED, WAITING], QUEUED)
    awake = np.where(on == 1, np.select([waits, holds], [SPINNING, HOLDING], RUNNING), off_state)
    state = np.where(asleep == 1, BLOCKED, awake)  # also where its pCPU polls for it
    return _intervals(rows[order], state, time)


def _held(kind: Ints, first: npt.NDArray[np.bool_]) -> Ints:
    """Return how many locks a row's vCPU holds: as many at first as it gives up without having taken them."""
    change = (kind == ACQUIRE).astype(np.int64) - (kind == RELEASE)
    total = change.cumsum()
    starts = np.flatnonzero(first)
    own = total - np.repeat(total[starts], np.diff(starts, append=len(kind)))  # of a row's vCPU alone
    least = np.minimum.reduceat(own, starts) if len(starts) else own
    result: Ints = own - np.repeat(np.minimum(least, 0), np.diff(starts, append=len(kind)))
    return result


def occupancy(trace: Ints, pcpus: int) -> Ints:
    """Return who had each pCPU, without gaps: int64 [m, 4] = pcpu, vcpu (or IDLE or NOISE), start, stop.

    As `states`: ascending per pCPU, from -NEVER to NEVER, the beginning inferred from the pCPU's first event.
    """
    on_cpu = np.isin(trace[:, 1], (BLOCK, WAKE), invert=True)
    trace = trace[on_cpu & (trace[:, 2] >= 0) & (trace[:, 2] < pcpus)]
    time, kind, pcpu, vcpu, _ = trace.T
    before = np.select([kind == NOISE_END, (kind == RUN) | (kind == NOISE_BEGIN)], [NOISE, IDLE], vcpu)
    after = np.select([kind == NOISE_BEGIN, (kind == STOP) | (kind == NOISE_END)], [NOISE, IDLE], vcpu)
    rows = np.concatenate([np.arange(pcpus), pcpu])
    order = np.argsort(rows, kind="stable")
    time = np.concatenate([np.full(pcpus, -NEVER), time])[order]
    who = np.concatenate([_first(pcpu, before, pcpus), after])[order]
    return _intervals(rows[order], who, time)


def to_chrome_json(
    trace: Ints,
    tsc_hz: int,
    path: str | os.PathLike[str] | None = None,
    rule: str = "",
    origin: str = "",
    targets: int = NEVER,
) -> str:
    """Return the trace as Chrome trace JSON (opens in Perfetto); with `path`, also write it there, whole or not at all.

    One track per pCPU shows the vCPUs it runs; one per vCPU shows its waits, its holds (inside them, while it is off
    the CPU, the preemption), its pause-loop exits, what is decided on these and, where a VM has more threads than
    vCPUs, which it takes. A flow leads from a release to the acquire of whoever waited for that. Times are microseconds
    from the first event, to the nanosecond; what the trace shows only in part is cut off at its ends. `rule` says who
    decided, `origin` where it is from; `targets`, V + 1, tells the parts of an action that chooses a window.
    """
    recorded = trace[trace[:, 0] > -NEVER, 0]  # of a completed trace, without what was made up
    first, last = (int(recorded[0]), int(recorded[-1])) if len(recorded) else (0, 0)
    pcpus, vcpus = (int(trace[:, column].max(initial=-1)) + 1 for column in (2, 3))
    events: list[str] = []
    for pid, (name, count) in enumerate((("pCPU", pcpus), ("vCPU", vcpus))):
        events.append(f'{{"ph":"M","name":"process_name","pid":{pid},"args":{{"name":"{name}s"}}}}')
        events += [
            f'{{"ph":"M","name":"thread_name","pid":{pid},"tid":{tid},"args":{{"name":"{name} {tid}"}}}}'
            for tid in range(count)
        ]

    # The rest is put together from columns of numbers: a dict per event, and a general encoder, are ten times slower.
    parts: list[str] = []

    def times(time: Ints) -> Ints:
        return columns.rounded((np.clip(time, first, last) - first) * 1e6 / tsc_hz)

    def add(pid: int, rows: Ints, name: columns.Texts | str, *arguments: columns.Texts | str) -> None:
        """Slices; rows: tid, ..., start, stop. Those that are too short to be seen are left out."""
        begin, end = times(rows[:, -2]), times(rows[:, -1])
        seen = begin < end
        name, *others = (part if isinstance(part, str) else part[seen] for part in (name, *arguments))
        tid, begin, duration = columns.whole(rows[seen, 0]), begin[seen], (end - begin)[seen]
        parts.extend(
            columns.lines(
                len(begin), ',{"ph":"X","name":"', name, f'","pid":{pid},"tid":', tid, ',"ts":', columns.decimal(begin),
                ',"dur":', columns.decimal(duration), ',"args":{', *others, "}}",
            )
        )  # fmt: skip

    rows = occupancy(trace, pcpus)
    rows = rows[rows[:, 1] != IDLE]
    noise, count = rows[:, 1] == NOISE, len(rows)
    vcpu = np.column_stack([columns.constant("vCPU ", count), columns.whole(np.maximum(rows[:, 1], 0))])
    add(0, rows, columns.either(noise, columns.constant("host noise", count), vcpu))
    rows = waits(trace, partial=True)
    lock, exits = columns.whole(rows[:, 1]), columns.whole(rows[:, 4])
    title = np.column_stack([columns.constant("wait for lock ", len(rows)), lock])
    add(1, rows[:, :4], title, '"lock":', lock, ',"ples":', exits)
    rows = acknowledgements(trace, partial=True)
    add(1, rows[:, :3], "wait for acknowledgements", '"ples":', columns.whole(rows[:, 3]))
    rows = holds(trace, partial=True)
    lock = columns.whole(rows[:, 1])
    title = np.column_stack([columns.constant("hold lock ", len(rows)), lock])
    add(1, rows, title, '"lock":', lock)
    rows = states(trace, vcpus)
    add(1, rows[rows[:, 1] == PREEMPTED], "holder preempted")
    rows = trace[trace[:, 1] == PLE]
    pcpu, vcpu, lock = (columns.whole(rows[:, column]) for column in (2, 3, 4))
    parts += columns.lines(
        len(rows), ',{"ph":"i","name":"PLE","s":"t","pid":1,"tid":', vcpu, ',"ts":',
        columns.decimal(times(rows[:, 0])), ',"args":{"pcpu":', pcpu, ',"lock":', lock, "}}",
    )  # fmt: skip
    rows = trace[trace[:, 1] == DECIDE]
    chosen = np.maximum(rows[:, 4], 0) // targets
    windows = ["", *(f',"window":{window}' for window in range(1, WINDOWS))]
    parts += columns.lines(
        len(rows), ',{"ph":"i","name":"decision","s":"t","pid":1,"tid":', columns.whole(rows[:, 3]), ',"ts":',
        columns.decimal(times(rows[:, 0])), ',"args":{"action":', columns.whole(rows[:, 4] - chosen * targets),
        columns.choice(windows, chosen), "}}",
    )  # fmt: skip
    rows = trace[trace[:, 1] == THREAD]
    parts += columns.lines(
        len(rows), ',{"ph":"i","name":"thread ', columns.whole(rows[:, 4]), '","s":"t","pid":1,"tid":',
        columns.whole(rows[:, 3]), ',"ts":', columns.decimal(times(rows[:, 0])), "}",
    )  # fmt: skip
    rows = handovers(trace)
    lock, ids = columns.whole(rows[:, 0]), columns.whole(np.arange(len(rows)))
    for name, phase, whose in (("release", '"s"', 1), ("acquire", '"f","bp":"e"', 3)):
        at = ',"pid":1,"tid":', columns.whole(rows[:, whose]), ',"ts":', columns.decimal(times(rows[:, whose + 1]))
        # A flow binds to the newest slice of its track: an instant is one, and a hold may have ended.
        parts += columns.lines(len(rows), f',{{"ph":"i","name":"{name}","s":"t"', *at, ',"args":{"lock":', lock, "}}")
        flow = f',{{"ph":{phase},"cat":"lock","name":"lock '
        parts += columns.lines(len(rows), flow, lock, '","id":', ids, *at, "}")

    who = "".join(f',"{name}":{json.dumps(text)}' for name, text in (("rule", rule), ("origin", origin)) if text)
    others = f'"displayTimeUnit":"ns","otherData":{{"tsc_hz":{tsc_hz},"first_tsc":{first}{who}}}'
    text = "".join(['{"traceEvents":[', ",".join(events), *parts, "],", others, "}"])
    if path is not None:
        write_whole(path, text.encode())
    return text


def _pairs(trace: Ints, opening: int, closing: int, *same: int) -> tuple[Ints, Ints]:
    """Match each `opening` event with the `closing` one that follows on the same vCPU, or with the `same` columns.

    Returns two arrays of positions in the trace, ascending; -1 stands for a partner beyond the trace's ends.
    """
    picked = np.flatnonzero((trace[:, 1] == opening) | (trace[:, 1] == closing))
    whose = trace[:, same or [3]]
    picked = picked[np.lexsort(whose[picked].T)]
    opens = trace[picked, 1] == opening
    change = np.ones(len(picked) + 1, np.bool_)
    change[1:-1] = (whose[picked[1:]] != whose[picked[:-1]]).any(1)
    first, last = change[:-1], change[1:]
    following = np.append(picked[1:], -1)
    matched = opens & ~last & ~np.append(opens[1:], True)
    cut_off = opens & last
    headless = ~opens & first
    begin = np.concatenate([picked[matched | cut_off], np.full(headless.sum(), -1)])
    end = np.concatenate([np.where(matched, following, -1)[matched | cut_off], picked[headless]])
    order = np.lexsort((end, begin))
    return begin[order], end[order]


def _times(time: Ints, position: Ints, missing: int) -> Ints:
    """Return the times at these positions, `missing` at -1."""
    return np.where(position >= 0, np.append(time, missing)[position], missing)


def _first(row: Ints, value: Ints, rows: int) -> Ints:
    """Return each row's first value, -1 where it has none: int64 [rows]."""
    result = np.full(rows, -1)
    result[row[::-1]] = value[::-1]  # of several values assigned to one element, the last stays
    return result


def _carry(kind: Ints, effect: dict[int, int], inferred: npt.NDArray[np.bool_], initial: npt.ArrayLike) -> Ints:
    """Carry an aspect forward: `effect` says what a kind of event sets it to, `initial` what each row starts with."""
    table = np.full(len(KIND_NAMES) + 1, -1)
    table[list(effect)] = list(effect.values())
    value = table[kind]  # kind -1 takes the spare last element
    value[inferred] = initial
    position = np.where(value >= 0, np.arange(len(value)), 0)
    result: Ints = value[np.maximum.accumulate(position)]
    return result


def carried_values(whose: Ints, places: Ints, values: Ints, initial: Ints) -> Callable[[Ints, Ints], Ints]:
    """Return what says the value of each of `who` at a place: that of its last change there or before, or the initial.

    places: ascending, where the changes are; whose: of whom each is. The value of a negative one means nothing.
    """
    size = int(places[-1]) + 1 if len(places) else 1
    initial = initial.copy()
    order = np.argsort(whose, kind="stable")
    keys = whose[order] * size + places[order]

    def value(who: Ints, place: Ints) -> Ints:
        found = np.searchsorted(keys, who * size + np.minimum(place, size - 1), "right") - 1
        known = (found >= 0) & (np.append(whose[order], -1)[found] == who)
        result: Ints = np.where(known, np.append(values[order], 0)[found], initial[np.maximum(who, 0)])
        return result

    return value


def _intervals(row: Ints, value: Ints, time: Ints) -> Ints:
    """Turn steps, grouped by row and ascending in time, into intervals [m, 4] = row, value, start, stop.

    None is empty, and no two neighbours of a row have the same value.
    """
    lasting = (np.diff(row, append=-1) != 0) | (np.diff(time, append=NEVER) > 0)
    row, value, time = row[lasting], value[lasting], time[lasting]
    new = (np.diff(row, prepend=-1) != 0) | (np.diff(value, prepend=0) != 0)
    row, value, time = row[new], value[new], time[new]
    stop = np.where(np.diff(row, append=-1) == 0, np.append(time, NEVER)[1:], NEVER)
    return np.column_stack([row, value, time, stop])
