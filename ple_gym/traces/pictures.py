"""Pictures of a trace: for a terminal, for a video, and for people in the style of the paper's figures 3 to 6.

All of them show the time from `start` to `stop` (cycles) of a trace (`traces/events.py`), pCPUs above vCPUs, and cope
with an empty trace and with `start == stop`. In the first two a cell of the picture shows what took most of its time;
what is shorter than a cell appears only as a mark.
"""

from __future__ import annotations

import colorsys
import functools
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ple_gym.extras import needs
from ple_gym.files import write_whole
from ple_gym.traces.events import (
    HOLDING,
    IDLE,
    NOISE,
    PLE,
    PREEMPTED,
    QUEUED,
    RUNNING,
    SPINNING,
    WAITING,
    Ints,
    holds,
    occupancy,
    states,
    waits,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image: TypeAlias = npt.NDArray[np.uint8]
Packed: TypeAlias = npt.NDArray[np.uint32]

LONG_HOLD = 30_000  # cycles from which the paper shows a hold at all (section 4.3)
MANY_EXITS = 10  # exits from which a wait is labelled with their number
FORMATS = (".png", ".pdf", ".svg")  # of figures
ROW_INCHES, MOST_INCHES = 0.13, 40  # of a figure with many rows: each row's height, and its own

# ---------------------------------------------------------------------------------------------------------------- text

SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of vCPUs; from 62 on they repeat
STATE_SYMBOLS = ".-=wsHh"  # by state
LEGEND = (
    "= running  s spinning  ! PLE exit  H holding  h holding, off CPU (LHP)  w waiting, off CPU  . off CPU  - blocked  "
    "~ host noise"
)


def timeline_ansi(trace: Ints, pcpus: int, vcpus: int, start: int, stop: int, width: int = 100) -> str:
    """Return a timeline in plain text, `width` characters of time wide: a row per pCPU, a row per vCPU, a legend.

    A pCPU's row names the vCPU it runs by one character (the vCPU rows repeat it from vCPU 10 on).
    """
    who = _raster(occupancy(trace, pcpus), pcpus, width, start, stop)
    state = _raster(states(trace, vcpus), vcpus, width, start, stop)
    pcpu_cells = np.array([*(SYMBOLS[v % len(SYMBOLS)] for v in range(vcpus)), "~", " "])[who]
    vcpu_cells = np.array(list(STATE_SYMBOLS))[state]
    vcpu, column = _marks(trace[trace[:, 1] == PLE][:, [3, 0]], vcpus, width, start, stop)
    vcpu_cells[vcpu, column] = "!"

    lines = [f"{start:,} .. {stop:,} cycles, {(stop - start) / width:,.0f} a column"]
    labels = [f"P{p}" for p in range(pcpus)]
    labels += [str(v) if v < 10 else f"{v} {SYMBOLS[v % len(SYMBOLS)]}" for v in range(vcpus)]
    margin = max(map(len, labels), default=0)
    for label, cells in zip(labels, [*pcpu_cells, *vcpu_cells], strict=True):
        lines.append(f"{label:>{margin}} |{''.join(cells)}|")
    return "\n".join([*lines, LEGEND])


# -------------------------------------------------------------------------------------------------------------- pixels

RGB_COLOURS = {
    "paper": (255, 255, 255),
    "line": (232, 232, 232),
    "ink": (70, 70, 70),
    "queued": (185, 185, 185),
    "running": (212, 228, 219),
    "waiting": (240, 175, 100),
    "spinning": (248, 176, 84),
    "holding": (52, 110, 190),
    "preempted": (206, 60, 60),
    "noise": (120, 120, 120),
    "exit": (96, 52, 0),
    "try": (225, 0, 0),
    "acquire": (0, 140, 60),
    "release": (255, 220, 0),
}

# Five rows of three pixels each, a row an octal digit.
_GLYPHS = {
    **{"0": 0o75557, "1": 0o26227, "2": 0o71747, "3": 0o71717, "4": 0o55711, "5": 0o74717},
    **{"6": 0o74757, "7": 0o71111, "8": 0o75757, "9": 0o75717, "P": 0o75744},
}


def timeline_rgb(trace: Ints, pcpus: int, vcpus: int, start: int, stop: int, width: int = 900) -> Image:
    """Return a timeline as a picture: a fresh uint8 array [height, width, 3]; equal arguments give equal bytes.

    Top: one strip per pCPU in the colour of the vCPU it runs (numbered where there is room), grey for host noise.
    Below: one strip per vCPU: pale = running, orange = spinning, blue = holding, red = holding but off the CPU, a thin
    grey line = queued, a thin orange one = off the CPU in line for a lock, nothing = blocked. Marks: dark = pause-loop
    exit; of waits and holds at least a pixel long, red = try, green = acquire, yellow = release.
    """
    if width < 100:
        raise ValueError(f"width must be at least 100 pixels, not {width}: the rows' names need some of them")
    layout = _Layout(pcpus, vcpus, width)
    image = np.full((layout.height, width), _COLOUR["paper"])  # colours are drawn as single numbers: that is faster
    _draw_pcpus(image, layout, occupancy(trace, pcpus), start, stop)
    _draw_vcpus(image, layout, trace, start, stop)
    _draw_labels(image, layout)
    result = np.empty((*image.shape, 3), dtype=np.uint8)
    for channel in range(3):
        result[:, :, channel] = image.view(np.uint8)[:, channel::4]
    return result


@functools.lru_cache(maxsize=8)
def vcpu_colours(vcpus: int) -> Image:
    """Return one colour per vCPU, the same in every picture: uint8 [vcpus, 3], read-only.

    Hues a golden angle apart keep neighbours distinct for any number of vCPUs; all are dark enough for white digits.
    None is red: that is a holder off its pCPU.
    """
    hues = (0.06 + 0.86 * ((0.58 + v * 0.381966) % 1) for v in range(vcpus))
    colours = [colorsys.hls_to_rgb(hue, (0.42, 0.5, 0.33)[v % 3], 0.5) for v, hue in enumerate(hues)]
    result = np.array(colours).reshape(vcpus, 3) * 255
    image: Image = result.round().astype(np.uint8)
    image.flags.writeable = False
    return image


def _packed(colours: Image) -> Packed:
    """Return each colour [n, 3] as one number [n]: in memory red, green, blue and a spare byte."""
    return np.pad(colours, ((0, 0), (0, 1))).view(np.uint32)[:, 0]


_COLOUR = dict(zip(RGB_COLOURS, _packed(np.array([*RGB_COLOURS.values()], dtype=np.uint8)), strict=True))


class _Layout:
    """Where things are in the picture of `timeline_rgb`, in pixels. All heights are even, as video encoders ask."""

    def __init__(self, pcpus: int, vcpus: int, width: int) -> None:
        self.pcpus, self.vcpus = pcpus, vcpus
        self.strip = 2 * min(max(260 // max(pcpus + vcpus, 1), 4), 10)  # from one strip's top to the next one's
        self.gap = 1 if self.strip < 12 else 2
        self.body = self.strip - self.gap
        self.scale = 1 if self.strip < 12 else 2  # of the labels' glyphs
        self.left = self.scale * (4 * max(len(f"P{pcpus}"), len(str(vcpus))) + 1) + 6
        self.columns = width - self.left - 2
        self.top = 4
        self.middle = self.top + self.strip * pcpus + 8
        self.height = self.middle + self.strip * vcpus + 4

    def pcpu_strips(self, image: Packed) -> Packed:
        """Return the pCPUs' strips: a view [pcpus, strip, columns]."""
        part = image[self.top : self.top + self.strip * self.pcpus, self.left : self.left + self.columns]
        return part.reshape(self.pcpus, self.strip, part.shape[1])

    def vcpu_strips(self, image: Packed) -> Packed:
        """Return the vCPUs' strips: a view [vcpus, strip, columns]."""
        part = image[self.middle : self.middle + self.strip * self.vcpus, self.left : self.left + self.columns]
        return part.reshape(self.vcpus, self.strip, part.shape[1])


def _draw_pcpus(image: Packed, layout: _Layout, intervals: Ints, start: int, stop: int) -> None:
    """Draw who has each pCPU, with the vCPU's number where it fits."""
    strips = layout.pcpu_strips(image)
    colours = np.array([*_packed(vcpu_colours(layout.vcpus)), _COLOUR["noise"], _COLOUR["line"]])
    cells = colours[_raster(intervals, layout.pcpus, layout.columns, start, stop)]
    strips[:, : layout.body] = cells[:, None, :]

    pcpu, who, begin, end = intervals.T
    first, last = (_columns(time, layout.columns, start, stop) for time in (begin, end))
    roomy = (who >= 0) & (last - first >= 8 * layout.scale)
    for row, vcpu, column, beyond in zip(pcpu[roomy], who[roomy], first[roomy], last[roomy], strict=True):
        text = _text(str(vcpu), layout.scale)
        x, y = column + 3, (layout.body - text.shape[0]) // 2
        if x + text.shape[1] < beyond:
            strips[row, y : y + text.shape[0], x : x + text.shape[1]][text] = _COLOUR["paper"]


def _draw_vcpus(image: Packed, layout: _Layout, trace: Ints, start: int, stop: int) -> None:
    """Draw what each vCPU does, then the marks: dots for exits, ticks for the ends of waits and holds."""
    strips = layout.vcpu_strips(image)
    cells = _raster(states(trace, layout.vcpus), layout.vcpus, layout.columns, start, stop)
    bar, line = np.full((2, len(STATE_SYMBOLS)), _COLOUR["paper"])
    for state, name in ((RUNNING, "running"), (SPINNING, "spinning"), (HOLDING, "holding"), (PREEMPTED, "preempted")):
        bar[state] = line[state] = _COLOUR[name]
    for state, name in ((QUEUED, "queued"), (WAITING, "waiting")):
        line[state] = _COLOUR[name]
    body = slice(0, layout.body)
    centre = slice((layout.body - 1) // 2, layout.body // 2 + 1)  # one pixel or two
    strips[:, body] = bar[cells][:, None, :]
    strips[:, centre] = line[cells][:, None, :]

    def mark(name: str, times: Ints, rows: slice, width: int) -> None:
        vcpu, column = _marks(times, layout.vcpus, layout.columns, start, stop)
        for x in range(width):
            strips[vcpu, rows, np.minimum(column + x, layout.columns - 1)] = _COLOUR[name]

    # Shorter waits and holds would cover everything with marks that all look the same.
    pixel = max(stop - start, 1) // layout.columns
    waited, held = waits(trace, partial=True), holds(trace, partial=True)
    waited = waited[waited[:, 3] - waited[:, 2] > pixel]
    held = held[held[:, 3] - held[:, 2] > pixel]
    mark("exit", trace[trace[:, 1] == PLE][:, [3, 0]], centre, 1)
    mark("release", held[:, [0, 3]], body, 2)
    mark("acquire", waited[:, [0, 3]], body, 2)
    mark("try", waited[:, [0, 2]], body, 2)


def _draw_labels(image: Packed, layout: _Layout) -> None:
    """Draw the rows' names, each vCPU's with a swatch of its colour."""
    labels = [(f"P{p}", layout.top + p * layout.strip) for p in range(layout.pcpus)]
    labels += [(str(v), layout.middle + v * layout.strip) for v in range(layout.vcpus)]
    right = layout.left - 6
    for label, y in labels:
        text = _text(label, layout.scale)
        y += (layout.body - text.shape[0]) // 2
        image[y : y + text.shape[0], right - text.shape[1] - 1 : right - 1][text] = _COLOUR["ink"]
    swatches = image[layout.middle : layout.middle + layout.strip * layout.vcpus, right : right + 4]
    swatches = swatches.reshape(layout.vcpus, layout.strip, 4)
    swatches[:, : layout.body] = _packed(vcpu_colours(layout.vcpus))[:, None, None]


@functools.lru_cache(maxsize=1024)
def _text(text: str, scale: int) -> npt.NDArray[np.bool_]:
    """Return a text of digits and "P" as a mask, `5 * scale` pixels high."""
    columns = []
    for character in text:
        bits = [[_GLYPHS[character] >> (3 * y + x) & 1 for x in (2, 1, 0, 3)] for y in (4, 3, 2, 1, 0)]
        columns.append(np.array(bits, dtype=bool) & [True, True, True, False])
    mask = np.concatenate(columns, axis=1)[:, :-1]
    return np.repeat(np.repeat(mask, scale, axis=0), scale, axis=1)


# ------------------------------------------------------------------------------------------------------- cells of time


def _columns(time: Ints, columns: int, start: int, stop: int) -> Ints:
    """Return the column of each time, clipped to `0..columns - 1`: what happens at `stop` belongs to the last one."""
    span = max(stop - start, 1)
    return np.minimum((np.clip(time, start, start + span) - start) * columns // span, columns - 1)


def _marks(times: Ints, rows: int, columns: int, start: int, stop: int) -> tuple[Ints, Ints]:
    """Return row and column of the instants [n, 2] = row, time that lie in the window (its end included)."""
    row, time = times[(times[:, 1] >= start) & (times[:, 1] <= stop) & (times[:, 0] >= 0) & (times[:, 0] < rows)].T
    return row, _columns(time, columns, start, stop)


def _raster(intervals: Ints, rows: int, columns: int, start: int, stop: int) -> Ints:
    """Return the value that takes most of each cell's time: int64 [rows, columns].

    `intervals` [n, 4] = row, value, start, stop cover all of the window. Of values that share a cell evenly the highest
    wins. Positions are counted in a `span`-th of a column, which keeps them integers.
    """
    span = max(stop - start, 1)
    row, value, begin, end = intervals[(intervals[:, 2] < start + span) & (intervals[:, 3] > start)].T
    begin = (np.maximum(begin, start) - start) * columns
    end = (np.minimum(end, start + span) - start) * columns
    first_whole, beyond_whole = -(-begin // span), end // span
    cells = np.zeros(rows * columns, dtype=np.int64)

    # Whole columns belong to one interval only.
    count = np.maximum(beyond_whole - first_whole, 0)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    cells[np.repeat(row * columns + first_whole, count) + offset] = np.repeat(value, count)

    # What is left of an interval is a piece in the column where it begins and one in the column where it ends.
    head = first_whole * span > begin
    tail = (beyond_whole * span < end) & (beyond_whole * span >= begin)
    cell = np.concatenate([(row * columns + begin // span)[head], (row * columns + beyond_whole)[tail]])
    length = np.concatenate(
        [(np.minimum(end, first_whole * span) - begin)[head], (end - np.maximum(beyond_whole * span, begin))[tail]]
    )
    piece = np.concatenate([value[head], value[tail]])
    order = np.lexsort((piece, cell))
    cell, piece, length = cell[order], piece[order], length[order]
    new = np.flatnonzero((np.diff(cell, prepend=-1) != 0) | (np.diff(piece, prepend=0) != 0))
    if len(new):
        total = np.add.reduceat(length, new)
        cell, piece = cell[new], piece[new]
        order = np.lexsort((piece, total))
        cells[cell[order]] = piece[order]  # the last value assigned to a cell stays
    return cells.reshape(rows, columns)


# ------------------------------------------------------------------------------------------------------------- figures


def timeline_figure(
    trace: Ints,
    pcpus: int,
    vcpus: int,
    start: int,
    stop: int,
    tsc_hz: int,
    title: str,
    path: str | os.PathLike[str] | None = None,
    vms: Mapping[str, int] | None = None,
) -> Figure:
    """Return a figure for people, 1200 x 700 pixels, or higher for many rows; with `path`, also save it there.

    The upper panel shows which vCPU each pCPU runs. The lower panel shows vCPU against TSC, as the paper's figures 3 to
    6 do. A circle in the vCPU's colour is a pause-loop exit. Red and green marks are try and acquire of the waits with
    an exit; a wait of at least `MANY_EXITS` exits has their number beside it. Blue and yellow squares are acquire and
    release of the holds of at least `LONG_HOLD` cycles. Three marks are not in the paper's figures: a pale bar (the
    vCPU is on a pCPU), a thin orange line (it waits for a lock off its pCPU) and a red line (it holds a lock off its
    pCPU). `vms`, the vCPUs of each VM by name, draws lines between VMs, where there are several.
    """
    with needs("viz"):
        from matplotlib.figure import Figure

    rows = pcpus + vcpus
    height = min(max(7, 2 + ROW_INCHES * rows), MOST_INCHES)
    figure = Figure(figsize=(12, height), dpi=100, layout="constrained")
    heights = [1, min(max(1.5 * vcpus / max(pcpus, 1), 2), 4)] if height == 7 else [pcpus, vcpus]
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    stop = max(stop, start + 1)
    _plot_pcpus(above, trace, pcpus, vcpus, start, stop)
    plot_vcpus(below, trace, vcpus, start, stop, 330 if height == 7 else 72 * (height - 2) * vcpus / rows)
    if height > 7:  # as many names as there is room for
        every = int(-(-ROW_INCHES * rows // (height - 2)))
        above.set_yticks(range(0, pcpus, every), [f"P{p}" for p in range(0, pcpus, every)], fontsize=6.5)
        below.set_yticks(range(0, vcpus, every))
    if vms and len(vms) > 1:
        _part_vms(below, vms)

    # The paper's axis is in cycles; people think in seconds.
    unit, per_second = ("ms", 1e3) if stop - start >= tsc_hz // 1000 else ("µs", 1e6)
    scale = per_second / tsc_hz
    seconds = above.secondary_xaxis("top", functions=(lambda x: (x - start) * scale, lambda s: s / scale + start))
    seconds.set_xlabel(f"time from the left edge ({unit})")
    figure.suptitle(title, fontsize="medium")
    figure.legend(
        *below.get_legend_handles_labels(), loc="outside lower center", ncols=9, frameon=False, fontsize="small"
    )

    if path is not None:
        save_figure(figure, path)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], about: str = "") -> None:
    """Write a figure whole or not at all, the same bytes each time: as PDF or SVG if the name says so, or as PNG.

    about: what made it, for the file's own description.
    """
    from matplotlib import rc_context

    suffix = os.path.splitext(path)[1].lower()
    kinds = {".pdf": ("pdf", "CreationDate", "Subject"), ".svg": ("svg", "Date", "Description")}
    kind, dated, described = kinds.get(suffix, ("png", "Software", "Description"))
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "ple_gym"}):
        figure.savefig(content, format=kind, metadata={dated: None, described: about or None})
    write_whole(path, content.getvalue())


def _part_vms(axes: Axes, vms: Mapping[str, int]) -> None:
    """Draw a line where a VM's vCPUs end, and write its name beside them if there is room."""
    first, total = 0, sum(vms.values())
    for name, count in vms.items():
        if first:
            axes.axhline(first - 0.5, color="0.6", linewidth=0.8)
        if count * 160 >= total:
            axes.text(1.005, first + (count - 1) / 2, name, transform=axes.get_yaxis_transform(), va="center", size=7)
        first += count


def _plot_pcpus(axes: Axes, trace: Ints, pcpus: int, vcpus: int, start: int, stop: int) -> None:
    """Plot a bar per stay of a vCPU on a pCPU, numbered where there is room."""
    colours = [*(vcpu_colours(vcpus) / 255), (0.45, 0.45, 0.45), None]  # ... noise, idle
    for pcpu, who, begin, end in occupancy(trace, pcpus).tolist():
        begin, end = max(begin, start), min(end, stop)
        if who == IDLE or begin >= end:
            continue
        axes.broken_barh([(begin, end - begin)], (pcpu - 0.4, 0.8), facecolor=colours[who], linewidth=0)
        if end - begin > 0.02 * (stop - start):
            name = "host" if who == NOISE else str(who)
            axes.text((begin + end) / 2, pcpu, name, ha="center", va="center", color="white", fontsize=8, clip_on=True)
    axes.set_ylim(pcpus - 0.5, -0.5)
    axes.set_yticks(range(pcpus), [f"P{p}" for p in range(pcpus)])
    axes.set_ylabel("runs vCPU")


def plot_vcpus(axes: Axes, trace: Ints, vcpus: int, start: int, stop: int, points: float = 330) -> None:
    """Plot the lower panel of `timeline_figure`, exits, waits and long holds, vCPU against time, on given axes.

    points: height of the axes, about.
    """
    from matplotlib.patheffects import withStroke

    inside = (trace[:, 0] >= start) & (trace[:, 0] <= stop)
    state = states(trace, vcpus)
    for values, label, colour, height in (
        ((RUNNING, SPINNING, HOLDING), "on a pCPU", "0.90", 0.7),
        ((WAITING,), "waiting off the CPU", "#edc58f", 0.08),
        ((PREEMPTED,), "holding off the CPU", "#d06060", 0.2),
    ):
        for vcpu in range(vcpus):
            _, _, begin, end = state[(state[:, 0] == vcpu) & np.isin(state[:, 1], values)].T
            begin, end = np.maximum(begin, start), np.minimum(end, stop)
            bars = np.column_stack([begin, end - begin])[end > begin]
            axes.broken_barh(bars.tolist(), (vcpu - height / 2, height), facecolor=colour, linewidth=0)
        axes.barh([-9], [0], color=colour, label=label)  # for the legend alone

    gap = min(points / max(vcpus, 1), 16)  # points between two vCPUs, about
    exits = trace[inside & (trace[:, 1] == PLE)]
    size, colours = (0.25 * gap + 1) ** 2, vcpu_colours(vcpus) / 255
    axes.scatter(exits[:, 0], exits[:, 3], s=size, facecolors="none", edgecolors=colours[exits[:, 3]], linewidths=0.8)
    axes.scatter([], [], s=size, facecolors="none", edgecolors="0.3", linewidths=0.8, label="PLE exit")

    def mark(rows: Ints, column: int, colour: str, size: float, label: str, **style: Any) -> None:
        rows = rows[(rows[:, column] >= start) & (rows[:, column] <= stop)]
        axes.scatter(rows[:, column], rows[:, 0], s=size**2, color=colour, label=label, zorder=3, **style)

    waited = waits(trace, partial=True)
    waited = waited[waited[:, 4] > 0]
    mark(waited, 2, "#d40000", 0.7 * gap, "try", marker="|", linewidths=2)
    mark(waited, 3, "#008a3c", 0.7 * gap, "acquire", marker="|", linewidths=2)
    halo = withStroke(linewidth=2, foreground="white")
    for vcpu, _, tried, _, count in waited[waited[:, 4] >= MANY_EXITS].tolist():
        if start <= tried <= stop:
            text = axes.annotate(
                f"{count:,} exits", (tried, vcpu), (2, 0.25 * gap), textcoords="offset points", zorder=4
            )
            text.set(color="#a00000", fontsize=min(0.25 * gap + 4, 8), path_effects=[halo])

    held = holds(trace, partial=True)
    held = held[held[:, 3] - held[:, 2] >= LONG_HOLD]
    mark(held, 2, "#2d6cc0", 0.25 * gap + 2, "acquire, held long", marker="s", edgecolors="#d40000")
    mark(held, 3, "#ffd800", 0.25 * gap + 2, "release", marker="s", edgecolors="#d40000")

    axes.set_xlim(start, stop)
    axes.set_xlabel("TSC (cycles)")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.set_ylim(-0.7, max(vcpus, 1) - 0.1)
    axes.set_yticks(range(0, vcpus, max(vcpus // 32, 1)))
    axes.tick_params(axis="y", labelsize=8 if vcpus < 20 else 6.5)
    axes.set_ylabel("vCPU")
