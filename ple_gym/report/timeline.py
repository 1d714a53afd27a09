"""A timeline to zoom into: a row per pCPU, then a row per vCPU, VM by VM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ple_gym.extras import needs
from ple_gym.traces import events
from ple_gym.traces.doings import doings, next_in_line
from ple_gym.traces.events import Ints, occupancy
from ple_gym.traces.pictures import RGB_COLOURS

with needs("report"):
    from bokeh import models
    from bokeh.plotting import figure

MOST_EVENTS = 40_000  # of a timeline, which ends where it has so many: more would make a page slow
MOST_PIXELS = 8_000  # of its height
COLOURS = {name: f"#{red:02x}{green:02x}{blue:02x}" for name, (red, green, blue) in RGB_COLOURS.items()}

#: State -> colour, height of the bar, and what it is called; who sleeps has no bar.
STATES = {
    events.RUNNING: ("running", 0.8, "runs"),
    events.SPINNING: ("spinning", 0.8, "spins"),
    events.HOLDING: ("holding", 0.8, "holds a lock"),
    events.PREEMPTED: ("preempted", 0.8, "holds a lock off its pCPU"),
    events.WAITING: ("waiting", 0.25, "waits for a lock off its pCPU"),
    events.QUEUED: ("queued", 0.25, "is queued"),
}
MARKS = {
    "next": ("ink", 0.15, "is the next to get the lock"),
    "noise": ("noise", 0.8, "the host has the pCPU"),
    "exit": ("exit", 0.4, "PLE exit"),
}
LEGEND = [*STATES.values(), *MARKS.values()]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a timeline shows: the cycles start..stop-1 of a run, and of its trace also what went before."""

    policy: str
    seed: int
    tsc_hz: int
    trace: Ints
    start: int
    stop: int

    def shortened(self) -> Timeline:
        """The same, up to `MOST_EVENTS` events."""
        times = self.trace[:, 0]
        last = int(np.searchsorted(times, self.start)) + MOST_EVENTS
        stop = max(int(times[last]), self.start + 1) if last < len(times) else self.stop
        return replace(self, trace=self.trace[: np.searchsorted(times, stop)], stop=stop)

    def us(self, time: Ints) -> Any:
        """Microseconds from the left edge, of what lies outside that of an edge."""
        return ((np.clip(time, self.start, self.stop) - self.start) * 1e6 / self.tsc_hz).astype(np.float32)

    def bars(self, intervals: Ints, **columns: Ints) -> dict[str, Any]:
        """Columns of the intervals (start, stop as 3rd and 4th) that can be seen, and of what belongs to them."""
        begin, end = intervals[:, 2], intervals[:, 3]
        seen = (begin < self.stop) & (end > self.start) & (begin < end)
        own = {name: values[seen] for name, values in columns.items()}
        return {"left": self.us(begin[seen]), "right": self.us(end[seen]), **_narrow(**own)}


def timeline_plot(shown: Timeline, pcpus: int, vms: Mapping[str, int]) -> figure:
    """Draw it; `vms`: the vCPUs of each VM by its name."""
    sizes = list(vms.values())
    vcpus = sum(sizes)
    place = np.arange(vcpus) + pcpus + 1 + np.repeat(np.arange(len(vms)), sizes)  # above each group is its name
    height = min(14.0, MOST_PIXELS / (place[-1] + 1))
    every = int(-(-10 // height))
    names = {p: f"P{p}" for p in range(0, pcpus, every)} | {int(place[v]): str(v) for v in range(0, vcpus, every)}
    length = float(shown.us(np.array([shown.stop]))[0])
    plot = rows_figure(
        names, float(place[-1]) + 1, height, "µs from the left edge", x_range=(0, length), lod_threshold=None
    )
    plot.yaxis.major_label_text_font_size = f"{min(height - 3, 10):.0f}px"
    plot.x_range.bounds = (0, length)
    if height > 8:
        style = {"text_font_size": "10px", "text_color": COLOURS["ink"], "text_baseline": "middle"}
        firsts = place[np.cumsum([0, *sizes[:-1]])]
        for name, y in zip(["pCPUs", *vms], [0, *firsts.tolist()], strict=True):
            plot.add_layout(models.Label(x=2, y=y - 0.9, x_units="screen", text=name, **style))
    _draw_bars(plot, shown, pcpus, place)
    _draw_exits(plot, shown, place)
    return plot


def _draw_bars(plot: figure, shown: Timeline, pcpus: int, place: Ints) -> None:
    """Draw what lasts: states, in the rows of vCPU and pCPU; who is next; noise."""
    done = doings(shown.trace, len(place))
    for state in STATES:
        rows = done[done[:, 1] == state]
        data = shown.bars(rows, place=place[rows[:, 0]], vCPU=rows[:, 0], lock=rows[:, 4], pCPU=rows[:, 5])
        on, free = state in (events.RUNNING, events.SPINNING, events.HOLDING), state in (events.RUNNING, events.QUEUED)
        source, told = models.ColumnDataSource(data), ["vCPU", *["lock"] * (not free), *["pCPU"] * on]
        for column in ["place", "pCPU"][: 1 + on]:
            _bars(plot, source, STATES[state], column, *told)
    rows = next_in_line(shown.trace)
    data = shown.bars(rows, place=place[rows[:, 0]], vCPU=rows[:, 0], lock=rows[:, 1])
    data["place"] = data["place"] + np.float32(0.42)
    _bars(plot, models.ColumnDataSource(data), MARKS["next"], "place", "vCPU", "lock")
    rows = occupancy(shown.trace, pcpus)
    rows = rows[rows[:, 1] == events.NOISE]
    _bars(plot, models.ColumnDataSource(shown.bars(rows, pCPU=rows[:, 0])), MARKS["noise"], "pCPU", "pCPU")


def _draw_exits(plot: figure, shown: Timeline, place: Ints) -> None:
    rows = shown.trace[(shown.trace[:, 1] == events.PLE) & (shown.trace[:, 0] >= shown.start)]
    high = (place[rows[:, 3]] - 0.25).astype(np.float32)
    data = {"at": shown.us(rows[:, 0]), "place": high, **_narrow(vCPU=rows[:, 3], lock=rows[:, 4], pCPU=rows[:, 2])}
    colour, _, name = MARKS["exit"]
    source = models.ColumnDataSource(data)
    marks = plot.scatter("at", "place", source=source, marker="dash", angle=np.pi / 2, size=5, color=COLOURS[colour])
    told = [("", name), ("vCPU", "@vCPU"), ("lock", "@lock"), ("pCPU", "@pCPU"), ("at", "@at{0,0.000} µs")]
    tell(plot, marks, told)


def _narrow(**columns: Ints) -> dict[str, Any]:
    """Columns of whole numbers, in few bytes."""
    return {name: one.astype("i2" if one.max(initial=0) < 1 << 15 else "i4") for name, one in columns.items()}


def _bars(plot: figure, source: Any, look: tuple[str, float, str], y: str, *columns: str) -> None:
    """Draw bars that tell what they are, and these columns."""
    colour, height, name = look
    bars = plot.hbar(y, height=height, left="left", right="right", source=source, color=COLOURS[colour], line_width=0)
    code = "return (source.data.right[special_vars.index] - source.data.left[special_vars.index]).toFixed(3)"
    told = [("", name), *((column, f"@{column}") for column in columns)]
    told += [("from", "@left{0,0.000} µs"), ("for", "@right{custom} µs")]
    tell(plot, bars, told, {"@right": models.CustomJSHover(code=code, args={"source": source})})


def tell(plot: figure, drawn: Any, told: list[tuple[str, str]], formatters: Mapping[str, Any] | None = None) -> None:
    """Tell something when what is drawn is pointed at."""
    plot.add_tools(models.HoverTool(renderers=[drawn], tooltips=told, formatters=formatters or {}, visible=False))


def rows_figure(names: Mapping[int, str], top: float, height: float, across: str, **options: Any) -> figure:
    """An empty figure, `height` pixels a row: `names` stand at their places on the y axis, from -1.5 down to `top`."""
    plot = figure(
        height=round(height * (top + 1.5)) + 70,
        sizing_mode="stretch_width",
        y_range=(top, -1.5),
        min_border_right=22,
        x_axis_label=across,
        tools="xbox_zoom,xpan,xzoom_in,xzoom_out,reset,save",
        active_drag="xbox_zoom",
        toolbar_location="above",
        **options,
    )
    # The wheel alone scrolls the page.
    zoom = models.WheelZoomTool(dimensions="width", modifiers="ctrl")
    plot.add_tools(zoom)
    plot.toolbar.active_scroll = zoom
    plot.toolbar.logo = None
    plot.yaxis.ticker = models.FixedTicker(ticks=list(names))
    plot.yaxis.major_label_overrides = {place: models.PlainText(text=name) for place, name in names.items()}
    plot.yaxis.major_tick_line_color = None
    plot.ygrid.grid_line_color = None
    plot.xaxis.formatter = models.NumeralTickFormatter(format="0,0.[0000]")
    return plot
