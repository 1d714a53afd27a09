"""Traces are read right and drawn right: one hand-made story of a preempted lock holder, and what must hold of any."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ple_gym.traces import events as tr
from ple_gym.traces import pictures as render
from ple_gym.traces.events import ACQUIRE, BLOCK, NEVER, NOISE_BEGIN, NOISE_END, PLE, RELEASE, RUN, STOP, TRY, WAKE

PCPUS, VCPUS, END = 2, 4, 20_000

# vCPU 0 takes lock 7 and loses its pCPU to vCPU 2; vCPU 1 spins in vain and gives way to vCPU 3, which goes to sleep;
# the host takes the pCPU for a while; vCPU 0 comes back and releases, and in the end vCPU 1 gets the lock.
STORY = np.array(
    [
        (0, RUN, 0, 0, -1),
        (0, RUN, 1, 1, -1),
        (2_000, TRY, 0, 0, 7),
        (2_000, ACQUIRE, 0, 0, 7),
        (4_000, TRY, 1, 1, 7),
        (5_000, PLE, 1, 1, 7),
        (6_000, PLE, 1, 1, 7),
        (6_000, STOP, 0, 0, -1),
        (7_000, RUN, 0, 2, -1),
        (8_000, PLE, 1, 1, 7),
        (8_000, STOP, 1, 1, -1),
        (9_000, RUN, 1, 3, -1),
        (10_000, STOP, 1, 3, -1),
        (10_000, BLOCK, 1, 3, -1),
        (10_000, NOISE_BEGIN, 1, -1, -1),
        (12_000, NOISE_END, 1, -1, -1),
        (12_000, STOP, 0, 2, -1),
        (12_000, RUN, 0, 0, -1),
        (14_000, RELEASE, 0, 0, 7),
        (15_000, RUN, 1, 1, -1),
        (15_000, ACQUIRE, 1, 1, 7),
        (16_000, RELEASE, 1, 1, 7),
        (17_000, WAKE, 1, 3, -1),
    ],
    dtype=np.int64,
)
EMPTY = np.zeros((0, len(tr.TRACE_COLUMNS)), dtype=np.int64)
CUT = tr.window(STORY, 5_000, END)  # what a recorder might have left of it

ROWS = {
    "P0": "000000 2222200000000",
    "P1": "11111111 3~~   11111",
    "0": "==HHHHhhhhhhHH======",
    "1": "====s!!s!wwwwwwH====",
    "2": ".......=====........",
    "3": ".........=-------...",
}


def cells(text):
    return {line.split("|")[0].strip(): line.split("|")[1] for line in text.splitlines()[1:-1]}


def random_trace(seed, pcpus=3, vcpus=6, events=400):
    """A trace that only has to be well-formed: vCPUs come and go, try, exit, get and release at random."""
    rng = np.random.default_rng(seed)
    on, phase, rows, time = [-1] * pcpus, [0] * vcpus, [], 0
    while len(rows) < events:
        time += int(rng.integers(0, 300))
        pcpu = int(rng.integers(pcpus))
        vcpu = on[pcpu]
        if vcpu < 0:
            vcpu = on[pcpu] = int(rng.choice([v for v in range(vcpus) if v not in on]))
            rows.append((time, RUN, pcpu, vcpu, -1))
        elif rng.random() < 0.3:
            rows.append((time, STOP, pcpu, vcpu, -1))
            on[pcpu] = -1
        else:
            kind, phase[vcpu] = {0: (TRY, 1), 1: [(PLE, 1), (ACQUIRE, 2)][rng.integers(2)], 2: (RELEASE, 0)}[
                phase[vcpu]
            ]
            rows.append((time, kind, pcpu, vcpu, 0))
    return np.array(rows, dtype=np.int64)


# ---------------------------------------------------------------------------------------------------------- reading


def test_kinds_have_names():
    assert [getattr(tr, name) for name in tr.KIND_NAMES] == list(range(14))
    assert len(render.STATE_SYMBOLS) == len(tr.STATE_NAMES)


def test_window_is_half_open():
    assert tr.window(STORY, 4_000, 6_000)[:, 0].tolist() == [4_000, 5_000]
    assert len(tr.window(STORY, 6_000, 4_000)) == 0


def test_waits():
    assert tr.waits(STORY).tolist() == [[0, 7, 2_000, 2_000, 0], [1, 7, 4_000, 15_000, 3]]
    assert tr.waits(CUT).tolist() == []
    assert tr.waits(CUT, partial=True).tolist() == [[1, 7, -NEVER, 15_000, 3]]
    assert tr.waits(tr.window(STORY, 0, 8_000), partial=True)[-1].tolist() == [1, 7, 4_000, NEVER, 2]


def test_holds():
    assert tr.holds(STORY).tolist() == [[0, 7, 2_000, 14_000], [1, 7, 15_000, 16_000]]
    assert tr.holds(CUT).tolist() == [[1, 7, 15_000, 16_000]]
    assert tr.holds(CUT, partial=True).tolist() == [[0, 7, -NEVER, 14_000], [1, 7, 15_000, 16_000]]


def test_runs():
    complete = [[0, 0, 0, 6_000], [1, 1, 0, 8_000], [0, 2, 7_000, 12_000], [1, 3, 9_000, 10_000]]
    assert tr.runs(STORY).tolist() == complete
    assert tr.runs(STORY, partial=True).tolist() == [*complete, [0, 0, 12_000, NEVER], [1, 1, 15_000, NEVER]]
    assert tr.runs(CUT, partial=True)[:2].tolist() == [[0, 0, -NEVER, 6_000], [1, 1, -NEVER, 8_000]]


@pytest.mark.parametrize("seed", range(20))
def test_waits_of_a_random_trace_are_those_of_a_replay(seed):
    trace = random_trace(seed)
    expected, tried = [], {}
    for time, kind, _, vcpu, lock in trace.tolist():
        if kind == TRY:
            tried[vcpu] = [vcpu, lock, time, None, 0]
            expected.append(tried[vcpu])
        elif kind == PLE:
            tried[vcpu][4] += 1
        elif kind == ACQUIRE:
            tried[vcpu][3] = time
    assert tr.waits(trace).tolist() == [row for row in expected if row[3] is not None]


@pytest.mark.parametrize("seed", range(20))
def test_states_and_occupancy_of_a_random_trace_are_those_of_a_replay(seed):
    trace = random_trace(seed)
    states, occupancy = tr.states(trace, 6), tr.occupancy(trace, 3)
    on, phase = {}, {}
    for position, (time, kind, pcpu, vcpu, _) in enumerate(trace.tolist()):
        on[vcpu] = kind != STOP
        phase[vcpu] = {TRY: 1, PLE: 1, ACQUIRE: 2, RELEASE: 0}.get(kind, phase.get(vcpu, 0))
        if position + 1 < len(trace) and trace[position + 1, 0] == time:
            continue  # what lasts no time leaves no interval
        names = ("running", "spinning", "holding") if on[vcpu] else ("queued", "waiting", "preempted")
        [now] = states[(states[:, 0] == vcpu) & (states[:, 2] <= time) & (states[:, 3] > time)]
        assert tr.STATE_NAMES[now[1]] == names[phase[vcpu]]
        [now] = occupancy[(occupancy[:, 0] == pcpu) & (occupancy[:, 2] <= time) & (occupancy[:, 3] > time)]
        assert now[1] == (vcpu if kind != STOP else tr.IDLE)


@pytest.mark.parametrize("trace", [STORY, CUT, EMPTY, random_trace(0), random_trace(1)[100:]])
def test_intervals_leave_no_gap_and_are_as_long_as_they_can_be(trace):
    for rows, intervals in ((6, tr.states(trace, 6)), (3, tr.occupancy(trace, 3))):
        assert intervals.dtype == np.int64
        for row in range(rows):
            part = intervals[intervals[:, 0] == row]
            assert part[0, 2] == -NEVER and part[-1, 3] == NEVER
            assert (part[1:, 2] == part[:-1, 3]).all() and (part[:, 2] < part[:, 3]).all()
            assert (part[1:, 1] != part[:-1, 1]).all()


def test_nothing_comes_of_an_empty_trace():
    assert tr.waits(EMPTY, partial=True).shape == (0, 5)
    assert tr.holds(EMPTY, partial=True).shape == (0, 4)
    assert tr.runs(EMPTY, partial=True).shape == (0, 4)
    assert json.loads(tr.to_chrome_json(EMPTY, 10**9))["otherData"] == {"tsc_hz": 10**9, "first_tsc": 0}


# ----------------------------------------------------------------------------------------------------- Chrome's JSON


def test_chrome_json_has_a_track_per_pcpu_and_vcpu():
    events = json.loads(tr.to_chrome_json(STORY, 10**9))["traceEvents"]  # 1,000 cycles = 1 microsecond

    def track(pid, tid):
        return [(e["name"], e["ts"], e["dur"]) for e in events if (e["ph"], e["pid"], e.get("tid")) == ("X", pid, tid)]

    names = [e["args"]["name"] for e in events if e["name"] == "thread_name"]
    assert names == ["pCPU 0", "pCPU 1", "vCPU 0", "vCPU 1", "vCPU 2", "vCPU 3"]
    assert track(0, 0) == [("vCPU 0", 0, 6), ("vCPU 2", 7, 5), ("vCPU 0", 12, 5)]
    assert track(0, 1) == [("vCPU 1", 0, 8), ("vCPU 3", 9, 1), ("host noise", 10, 2), ("vCPU 1", 15, 2)]
    assert track(1, 0) == [("hold lock 7", 2, 12), ("holder preempted", 6, 6)]
    assert track(1, 1) == [("wait for lock 7", 4, 11), ("hold lock 7", 15, 1)]
    assert [(e["tid"], e["ts"]) for e in events if e["ph"] == "i"] == [(1, 5), (1, 6), (1, 8), (0, 14), (1, 15)]
    assert [(e["ph"], e["tid"], e["ts"]) for e in events if "id" in e] == [("s", 0, 14), ("f", 1, 15)]
    [wait] = [e for e in events if e["name"] == "wait for lock 7"]
    assert wait["args"] == {"lock": 7, "ples": 3}


def test_chrome_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "trace.json"
    text = tr.to_chrome_json(STORY, 10**9, path)
    assert path.read_text() == text

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(tr.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tr.to_chrome_json(CUT, 10**9, path)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


# -------------------------------------------------------------------------------------------------------------- text


def test_ansi_tells_the_story():
    text = render.timeline_ansi(STORY, PCPUS, VCPUS, 0, END, width=20)
    assert cells(text) == ROWS
    assert text.splitlines()[-1] == render.LEGEND
    assert "\x1b" not in text


def test_ansi_infers_what_a_cut_trace_has_lost():
    text = render.timeline_ansi(CUT, PCPUS, VCPUS, 5_000, END, width=15)
    assert cells(text) == {label: row[5:] for label, row in ROWS.items()}


def test_ansi_names_vcpus_beyond_nine():
    trace = np.array([(0, RUN, 0, 31, -1)], dtype=np.int64)
    rows = cells(render.timeline_ansi(trace, 1, 32, 0, 10, width=10))
    assert rows["P0"] == "V" * 10
    assert rows["31 V"] == "=" * 10


# ------------------------------------------------------------------------------------------------------------ pixels


def pixel(image, row, time, edge=False):
    """The colour of a row ("P0" or "1") at a time; at its edge nothing but bars and ticks is drawn."""
    layout = render._Layout(PCPUS, VCPUS, image.shape[1])
    number = int(row.removeprefix("P"))
    y = (layout.top if row.startswith("P") else layout.middle) + number * layout.strip
    return tuple(image[y + (1 if edge else layout.body // 2), layout.left + time * layout.columns // END].tolist())


def test_rgb_tells_the_story():
    image = render.timeline_rgb(STORY, PCPUS, VCPUS, 0, END)
    colour = render.RGB_COLOURS
    assert image.dtype == np.uint8 and image.shape[1:] == (900, 3)

    assert pixel(image, "P0", 5_500) == tuple(render.vcpu_colours(VCPUS)[0])
    assert pixel(image, "P0", 6_500) == colour["line"]
    assert pixel(image, "P1", 7_500) == tuple(render.vcpu_colours(VCPUS)[1])
    assert pixel(image, "P1", 11_000) == colour["noise"]

    states = {"running": 1_000, "holding": 4_000, "preempted": 9_000}
    assert {name: pixel(image, "0", time) for name, time in states.items()} == {name: colour[name] for name in states}
    assert pixel(image, "1", 4_500) == colour["spinning"]
    assert pixel(image, "1", 10_000) == colour["waiting"] != pixel(image, "1", 10_000, edge=True) == colour["paper"]
    assert pixel(image, "2", 3_000) == colour["queued"] != pixel(image, "2", 3_000, edge=True) == colour["paper"]
    assert pixel(image, "3", 13_000) == colour["paper"]

    assert pixel(image, "1", 5_000) == colour["exit"] != pixel(image, "1", 5_000, edge=True) == colour["spinning"]
    assert pixel(image, "1", 4_000, edge=True) == colour["try"]
    assert pixel(image, "1", 15_000, edge=True) == colour["acquire"]
    assert pixel(image, "0", 14_000, edge=True) == colour["release"]
    assert pixel(image, "0", 2_000, edge=True) == colour["holding"]  # it did not wait, so no try and no acquire


def test_rgb_is_deterministic_and_fresh():
    first = render.timeline_rgb(STORY, PCPUS, VCPUS, 0, END)
    expected = first.copy()
    first[:] = 0
    assert np.array_equal(render.timeline_rgb(STORY.copy(), PCPUS, VCPUS, 0, END), expected)


@pytest.mark.parametrize(
    ("pcpus", "vcpus", "width"), [(1, 1, 900), (4, 32, 640), (8, 64, 900), (24, 240, 901), (2, 4, 100)]
)
def test_rgb_has_the_width_asked_for_and_an_even_height(pcpus, vcpus, width):
    image = render.timeline_rgb(STORY, pcpus, vcpus, 0, END, width)
    assert image.shape == (len(image), width, 3)
    assert len(image) % 2 == 0


def test_rgb_refuses_a_picture_too_narrow_for_its_labels():
    with pytest.raises(ValueError, match="at least 100 pixels"):
        render.timeline_rgb(STORY, PCPUS, VCPUS, 0, END, width=10)


@pytest.mark.parametrize("trace", [STORY, EMPTY])
@pytest.mark.parametrize(("start", "stop"), [(0, 0), (8_000, 8_000), (5, 6), (-9, 10**15), (NEVER >> 1, NEVER >> 1)])
def test_any_window_can_be_drawn(trace, start, stop):
    rows = cells(render.timeline_ansi(trace, PCPUS, VCPUS, start, stop, width=30))
    assert len(rows) == PCPUS + VCPUS and {len(row) for row in rows.values()} == {30}
    everything = render.timeline_rgb(STORY, PCPUS, VCPUS, 0, END)
    assert render.timeline_rgb(trace, PCPUS, VCPUS, start, stop).shape == everything.shape


@pytest.mark.parametrize("seed", range(20))
def test_a_cell_shows_what_takes_most_of_its_time(seed):
    rng = np.random.default_rng(seed)
    columns, start, stop = int(rng.integers(1, 9)), 100, 100 + int(rng.integers(1, 60))
    cuts = np.unique(rng.integers(90, 170, int(rng.integers(0, 30))))
    values = rng.integers(-2, 4, len(cuts) + 1)
    intervals = np.column_stack([0 * values, values, [-NEVER, *cuts], [*cuts, NEVER]])
    # Each cycle is as many parts as there are columns, so that a column is a whole number of parts.
    parts = np.repeat([values[np.searchsorted(cuts, time, "right")] for time in range(start, stop)], columns)
    expected = []
    for cell in parts.reshape(columns, -1).tolist():
        expected.append(max((cell.count(value), value) for value in cell)[1])
    assert render._raster(intervals, 1, columns, start, stop).tolist() == [expected]


# ----------------------------------------------------------------------------------------------------------- figures


def test_only_the_figure_needs_matplotlib():
    code = "import sys, ple_gym.traces.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figure_shows_counts_and_explains_its_marks(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(render, "MANY_EXITS", 3)
    path = tmp_path / "figure.png"
    figure = render.timeline_figure(STORY, PCPUS, VCPUS, 0, END, 10**9, "A preempted holder", path)
    above, below = figure.axes
    assert above.get_ylabel() == "runs vCPU" and below.get_ylabel() == "vCPU"
    assert [text.get_text() for text in below.texts] == ["3 exits"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"PLE exit", "try", "acquire", "release", "holding off the CPU"} <= set(labels)
    png = path.read_bytes()
    assert png.startswith(b"\x89PNG")
    assert [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)] == [1200, 700]
    assert list(tmp_path.iterdir()) == [path]


def test_figure_marks_long_holds_only():
    pytest.importorskip("matplotlib")
    slow = STORY * np.array([3, 1, 1, 1, 1])  # the first hold now lasts 36,000 cycles, the second 3,000

    def squares(trace):
        figure = render.timeline_figure(trace, PCPUS, VCPUS, 0, 3 * END, 10**9, "")
        marks = {marks.get_label(): marks.get_offsets().tolist() for marks in figure.axes[1].collections}
        return marks["acquire, held long"] + marks["release"]

    assert squares(STORY) == []
    assert squares(slow) == [[6_000, 0], [42_000, 0]]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, END)])
def test_figure_of_an_empty_trace(start, stop, tmp_path):
    pytest.importorskip("matplotlib")
    render.timeline_figure(EMPTY, PCPUS, VCPUS, start, stop, 10**9, "Nothing", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_a_figure_of_many_rows_has_room_for_each_and_names_the_vms():
    pytest.importorskip("matplotlib")
    figure = render.timeline_figure(random_trace(0), 32, 96, 0, END, 10**9, "", vms={"a": 24, "b": 72})
    figure.canvas.draw()
    for axes, rows in zip(figure.axes, (32, 96), strict=True):
        assert axes.get_window_extent().height / rows > 10 and len(axes.get_yticks()) == rows
    below = figure.axes[1]
    assert {"a", "b"} <= {text.get_text() for text in below.texts}
    assert [line.get_ydata()[0] for line in below.lines if line.get_linewidth() == 0.8] == [23.5]
    figure = render.timeline_figure(EMPTY, 256, 1024, 0, END, 10**9, "")
    assert figure.get_figheight() == render.MOST_INCHES and len(figure.axes[1].get_yticks()) < 400


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_figure_is_written_as_its_name_says_and_the_same_each_time(suffix, start, tmp_path):
    pytest.importorskip("matplotlib")
    file, made = tmp_path / f"figure.{suffix}", []
    for _ in range(2):
        render.timeline_figure(STORY, PCPUS, VCPUS, 0, END, 10**9, "", file)
        made.append(file.read_bytes())
    assert made[0].startswith(start) and made[0] == made[1]


def test_no_vcpu_has_the_colour_of_a_holder_off_its_pcpu():
    red, *others = render.vcpu_colours(1024).T.astype(int)
    assert (red - np.maximum(*others) < 100).all()


def test_the_lower_panel_can_be_drawn_on_other_axes():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    upper, lower = figure.subplots(2)
    render.plot_vcpus(lower, STORY, VCPUS, 100, END)
    assert lower.get_xlim() == (100, END) and lower.get_xlabel() == "TSC (cycles)"
    assert "PLE exit" in lower.get_legend_handles_labels()[1]
    assert not upper.collections
