"""Traces of runs that are longer than a trace may be: the busiest milliseconds are those of the whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ple_gym import cli, drive, evaluate
from ple_gym.evaluate import simulate
from ple_gym.scenario.builtin import load
from ple_gym.traces import recording
from ple_gym.traces.events import ACQUIRE, NEVER, PLE, states, window
from ple_gym.traces.recording import Busiest, busiest_window, find_busiest, record, record_window

#: Storms all through the run, and most exits long before its end.
LONG = load("Paper8").with_overrides({"guest.start": "convoy", "guest.transactions": 1800, "guest.locks": 8})


def test_a_trace_holds_the_run_and_the_newest_events_if_there_are_too_many() -> None:
    scenario = load("TicketOrder")
    run = simulate(scenario, "kvm", [1])[0]
    trace = record(scenario, "kvm", 1)
    assert (trace[:, 1] == PLE).sum() == run["ple_exits"]
    assert (trace[:, 1] == ACQUIRE).sum() >= run["acquisitions"] - 1
    assert (np.diff(trace[:, 0]) >= 0).all()
    assert (record(scenario, "kvm", 1, events=100) == trace[-100:]).all()


def test_the_busiest_window_holds_most_exits() -> None:
    trace = np.zeros((6, 5), np.int64)
    trace[:, 0] = [0, 5000, 5010, 5095, 5900, 9000]
    trace[:, 1] = [ACQUIRE, PLE, PLE, PLE, PLE, PLE]
    assert busiest_window(trace, 100) == (4995, 5095)  # starts a twentieth before the first exit
    assert busiest_window(trace[:1], 100) == (0, 100)
    assert busiest_window(trace[:0], 100) == (0, 100)


@given(
    st.lists(st.integers(0, 300), max_size=60).map(sorted),
    st.integers(1, 120),
    st.lists(st.integers(0, 60), max_size=6).map(sorted),
)
def test_exits_told_in_pieces_give_the_window_of_all(times: list[int], length: int, cuts: list[int]) -> None:
    exits, busiest = np.array(times, np.int64), Busiest(length)
    for piece in np.split(exits, cuts):
        busiest.add(piece)
        assert len(busiest.pending) == 0 or busiest.pending[0] > busiest.pending[-1] - length
    counts = [sum(begin <= other < begin + length - length // 20 for other in times) for begin in times]
    begin = max(0, times[int(np.argmax(counts))] - length // 20) if times else 0
    assert busiest.window() == (begin, begin + length)


@pytest.mark.slow
def test_a_run_with_more_events_than_the_ring_has_the_window_of_a_ring_that_holds_all() -> None:
    scenario, hz = LONG, LONG.host.tsc_hz
    whole = record(scenario, "xen-4.5", 3)
    small = 1 << 18
    assert small + drive.EVENTS_PER_CALL < len(whole) < recording.TRACE_EVENTS
    start, stop = busiest_window(whole, 5 * hz // 1000)
    told: list[int] = []
    assert find_busiest(scenario, "xen-4.5", 3, stop - start, told.append, events=small) == (start, stop)
    assert told == sorted(told) and told[-1] == whole[-1, 0]
    newest = record(scenario, "xen-4.5", 3, events=small)
    assert busiest_window(newest, stop - start) != (start, stop)  # which the newest events do not show
    for events in (small, recording.TRACE_EVENTS):
        shown = record_window(scenario, "xen-4.5", 3, start, stop, events=events)
        assert (window(shown, start, stop) == window(whole, start, stop)).all()
        expected, found = (states(rows, 8) for rows in (whole[whole[:, 0] < stop], shown))
        assert (clipped(found, start, stop) == clipped(expected, start, stop)).all()


def clipped(intervals: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The parts of intervals [n, 4] within start..stop."""
    rows = intervals[(intervals[:, 3] > start) & (intervals[:, 2] < stop)]
    rows[:, 2:] = rows[:, 2:].clip(start, stop)
    return rows


def test_a_window_comes_with_what_went_before() -> None:
    scenario = load("Storm")
    told: list[int] = []
    start, stop = 10**7, 10**7 + 10**6
    shown = record_window(scenario, "xen-4.8", 2, start, stop, told.append)
    assert shown[0, 0] in (0, -NEVER) and start < shown[-1, 0] < stop
    whole = record(scenario, "xen-4.8", 2)
    assert (clipped(states(shown, 32), start, stop) == clipped(states(whole, 32), start, stop)).all()
    assert all(now <= stop for now in told)


def test_the_picture_is_of_the_window_that_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render = pytest.importorskip("ple_gym.traces.pictures")
    pytest.importorskip("matplotlib")
    drawn, original = [], render.timeline_figure
    monkeypatch.setattr(render, "timeline_figure", lambda *a, **b: (drawn.append(a), original(*a, **b))[1])
    assert (
        cli.main(["simulate", "Storm", "--policy", "xen-4.8", "--seeds", "0:3", "--timeline", str(tmp_path / "x.png")])
        == 0
    )
    trace, pcpus, vcpus, start, stop, hz, title, *_ = drawn[0]
    worst = max(evaluate.simulate("Storm", "xen-4.8", range(3)), key=lambda run: run["ple_exits"])["seed"]
    assert (pcpus, vcpus, hz) == (4, 32, load("Storm").host.tsc_hz)
    assert f"seed {worst}: the 5 ms with most PLE exits" in title
    assert (start, stop) == busiest_window(record(load("Storm"), "xen-4.8", worst), 5 * hz // 1000)
    assert (window(trace, start, stop)[:, 1] == PLE).sum() > 1000
