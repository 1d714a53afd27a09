"""Traces of runs of any length: a run is recorded in pieces, and only what is looked for is kept.

The same seed gives the same run, so that a first pass can find what a second one records.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ple_gym.lanes import Lanes
from ple_gym.scenario.model import Scenario
from ple_gym.traces.events import NEVER, PLE, TRACE_COLUMNS, Ints, unrolled

TRACE_EVENTS = 1 << 22  # 168 MB if all are used, which takes half a second of storm and more
PIECE_EVENTS = 1 << 20  # room for a piece: the kernel returns after `drive.EVENTS_PER_CALL` events, an eighth of that

#: Called now and then with the simulated time, in cycles.
Progress = Callable[[int], None]


class _EnoughError(Exception):
    """The rest of the run is of no interest."""


def record(scenario: Scenario, policy: str, seed: int, events: int = TRACE_EVENTS) -> Ints:
    """Run one seed and return its trace (`ple_gym.traces.events`): the newest `events` events at most, int64 [n, 5].

    Examples:
        >>> trace = ple_gym.record(ple_gym.SCENARIOS["HolderPreempted"], "oracle", seed=0)
        >>> trace.shape, trace.dtype
        ((15, 5), dtype('int64'))
    """
    ring, lanes = _ring(events), Lanes(scenario, 1, policy=policy)
    lanes.run(0, seed, ring)
    return unrolled(ring, int(lanes.world["traced"][0]))


def record_window(
    scenario: Scenario,
    policy: str,
    seed: int,
    start: int,
    stop: int,
    progress: Progress = lambda now: None,
    events: int = TRACE_EVENTS,
) -> Ints:
    """Run one seed and return the trace of the cycles start..stop-1, int64 [n, 5].

    Earlier events precede it, from which one can infer what everybody was doing at `start`: those of up to half a
    second, as many as there is room for, and made-up ones for whatever has no event in that time (`Lanes.completed`).
    """
    ring, lanes = _ring(events), Lanes(scenario, 1, policy=policy)

    def between(lane: int) -> None:
        now = int(lanes.world["now"][lane])
        progress(min(now, stop))
        if now >= stop:
            raise _EnoughError

    with suppress(_EnoughError):
        lanes.run(0, seed, ring, between)
    trace = unrolled(ring, int(lanes.world["traced"][0]))
    trace = trace[np.searchsorted(trace[:, 0], start - scenario.host.tsc_hz // 2) :]
    trace = lanes.completed(0, trace)
    return trace[: np.searchsorted(trace[:, 0], stop)]


def record_pieces(
    scenario: Scenario,
    policy: str,
    seed: int,
    use: Callable[[Ints], None],
    progress: Progress = lambda now: None,
    stop: int = NEVER,
    events: int = PIECE_EVENTS,
) -> None:
    """Run one seed up to the cycle `stop`, and give `use` its events in pieces: each int64 [n, 5], from the beginning.

    The last piece may have events of `stop` and later.
    """
    ring, lanes = _ring(events), Lanes(scenario, 1, policy=policy)
    seen = 0

    def between(lane: int) -> None:
        nonlocal seen
        written, now = int(lanes.world["traced"][lane]), int(lanes.world["now"][lane])
        if written - seen > len(ring):
            raise RuntimeError(f"{written - seen} events are more than the ring's {len(ring)}")
        use(ring[np.arange(seen, written) % len(ring)])
        seen = written
        progress(min(now, stop))
        if now >= stop:
            raise _EnoughError

    with suppress(_EnoughError):
        lanes.run(0, seed, ring, between)
        between(0)


def find_busiest(
    scenario: Scenario,
    policy: str,
    seed: int,
    length: int,
    progress: Progress = lambda now: None,
    events: int = PIECE_EVENTS,
) -> tuple[int, int]:
    """Run one seed and return the `length` cycles (start, stop) with most PLE exits, as `busiest_window` does."""
    busiest = Busiest(length)
    record_pieces(
        scenario, policy, seed, lambda piece: busiest.add(piece[piece[:, 1] == PLE, 0]), progress, events=events
    )
    return busiest.window()


def busiest_window(trace: Ints, length: int) -> tuple[int, int]:
    """The `length` cycles (start, stop) with most PLE exits, the earliest of equals, after a lead-in of a twentieth.

    Without exits: the first `length` cycles.
    """
    busiest = Busiest(length)
    busiest.add(trace[trace[:, 1] == PLE, 0])
    return busiest.window()


class Busiest:
    """Finds the window with most exits while the exits arrive in pieces; it keeps no more than the last `length`."""

    def __init__(self, length: int) -> None:
        self.length, self.lead = length, length // 20
        self.pending = np.zeros(0, np.int64)  # exits whose window may not be complete yet
        self.most, self.start = 0, 0

    def add(self, exits: Ints) -> None:
        """Take the times of the exits that follow, ascending."""
        self.pending = np.concatenate([self.pending, exits])
        if len(self.pending):
            self._settle(int(np.searchsorted(self.pending, self.pending[-1] - (self.length - self.lead), "right")))

    def window(self) -> tuple[int, int]:
        """Return the window; to be called when all exits have been added."""
        self._settle(len(self.pending))
        return self.start, self.start + self.length

    def _settle(self, count: int) -> None:
        """Compare the windows that begin at the first `count` pending exits."""
        if not count:
            return
        begins = self.pending[:count]
        within = np.searchsorted(self.pending, begins + self.length - self.lead) - np.arange(count)
        best = int(within.argmax())
        if within[best] > self.most:
            self.most, self.start = int(within[best]), max(0, int(begins[best]) - self.lead)
        self.pending = self.pending[count:]


def _ring(events: int) -> Ints:
    return np.zeros((events, len(TRACE_COLUMNS)), np.int64)
