"""Pictures of the reality check: predicted against measured, a mark per setting; who had which CPU, and when."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ple_gym.extras import needs
from ple_gym.reality.comparison import Check
from ple_gym.reality.settings import LOCKS, REACTIONS
from ple_gym.reality.tables import setting_name, timeline_numbers
from ple_gym.reality.timeline import Timeline
from ple_gym.traces.events import NOISE
from ple_gym.traces.pictures import save_figure, vcpu_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#c03030", "#e08a1e", "#2d6cc0", "#008a3c")
WORDS = {"spin": "spins on", "yield": "yields"}
#: Lock and reaction -> colour and name.
KINDS = {
    (lock, reaction): (colour, f"{lock}, {WORDS[reaction]}")
    for (lock, reaction), colour in zip(product(LOCKS, REACTIONS), COLOURS, strict=True)
}
LEAST = 10.0
"""Rates below are drawn here: the axes are logarithmic."""


def check_figure(check: Check, path: str | os.PathLike[str] | None = None) -> Figure:
    """Return a figure of 1200 x 640 pixels; with `path`, also save it there as PNG, whole or not at all.

    Left are acquisitions per second, right windows that ended. A mark is at the medians, its bars reach from the
    smallest to the largest run, and it is hollow if the setting is unstable. Between the grey lines a prediction is off
    by at most 10 % (left) or 20 % (right).
    """
    with needs("viz"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot(left, check, "acquisitions", "acquisitions per second", 0.1)
    _plot(right, check, "windows", "ended windows per second", 0.2)
    figure.suptitle(f"Linux {check.machine.release}, {len(check.machine.cpus)} CPUs: {len(check.cells)} settings")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS), frameon=False)
    _save(figure, path)
    return figure


def timeline_figure(
    measured: Timeline, simulated: Timeline, cpus: Sequence[int], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Return a figure, saved as `check_figure` does: who had each CPU, measured and simulated, numbers beside both."""
    with needs("viz"):
        from matplotlib.figure import Figure

    threads = measured.setting.threads
    figure = Figure(figsize=(12, max(5, 3.5 + 0.3 * threads)), dpi=100, layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name, of in zip(panels, ("measured", "simulated"), (measured, simulated), strict=True):
        _plot_stays(axes, of, cpus)
        axes.set_title(name, loc="left", fontsize="medium")
    panels[1].set_xlabel("time (ms)")
    figure.suptitle(f"{setting_name(measured.setting)}: who had the CPUs", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=9, frameon=False)
    _save(figure, path)
    return figure


def _plot_stays(axes: Axes, of: Timeline, cpus: Sequence[int]) -> None:
    looks = [(NOISE, "other tasks", "0.6")]
    looks += [(i, f"thread {i}", colour) for i, colour in enumerate(vcpu_colours(of.setting.threads) / 255)]
    for whose, name, colour in looks:
        axes.barh([-9], [0], color=[colour], label=name)  # for the legend alone
        for place in range(len(cpus)):
            times = of.stays[(of.stays[:, 0] == place) & (of.stays[:, 1] == whose), 2:]
            begin, end = ((times.clip(of.start, of.stop) - of.start) * 1e3 / of.per_second).T
            bars = np.column_stack([begin, end - begin])[end > begin]
            axes.broken_barh(bars.tolist(), (place - 0.4, 0.8), facecolor=colour, linewidth=0)
    axes.set_xlim(0, round(1e3 * (of.stop - of.start) / of.per_second, 3))
    axes.set_ylim(len(cpus) - 0.5, -0.5)
    axes.set_yticks(range(len(cpus)), [f"CPU {cpu}" for cpu in cpus])
    text = "\n".join(f"{number:>9}  {what}" for what, number in timeline_numbers(of))
    axes.text(1.015, 1, text, transform=axes.transAxes, va="top", family="monospace", fontsize=8)


def _save(figure: Figure, path: str | os.PathLike[str] | None) -> None:
    if path is not None:
        save_figure(figure, path)


def _plot(axes: Axes, check: Check, quantity: str, what: str, bar: float) -> None:
    """Plot one quantity of all settings."""
    for colour, name in KINDS.values():
        axes.plot([], [], "o", color=colour, label=name)
    ends = []
    for cell in check.cells:
        found, said = cell.measured[quantity], cell.predicted[quantity]
        x, y = max(LEAST, found.middle), max(LEAST, said.middle)
        ends += [x, y]
        colour, _ = KINDS[cell.setting.lock, cell.setting.reaction]
        across = [[x - max(LEAST, found.low)], [max(LEAST, found.high) - x]]
        along = [[y - max(LEAST, said.low)], [max(LEAST, said.high) - y]]
        axes.errorbar(
            [x], [y], xerr=across, yerr=along, fmt="o", color=colour, markersize=6, elinewidth=0.8,
            markerfacecolor=colour if cell.stable else "white",
        )  # fmt: skip
    low, high = min(ends) / 1.5, max(ends) * 1.5
    axes.plot([low, high], [low, high], color="0.5", linewidth=0.8, zorder=0)
    ends = [low, high]
    axes.fill_between(ends, [x / (1 + bar) for x in ends], [x * (1 + bar) for x in ends], color="0.92", zorder=-1)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel(f"measured: {what}")
    axes.set_ylabel(f"predicted: {what}")
