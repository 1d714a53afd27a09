"""A picture of the reality check: predicted against measured, a mark per setting."""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING

from ple_gym.extras import needs
from ple_gym.reality.comparison import Check
from ple_gym.reality.settings import LOCKS, REACTIONS
from ple_gym.traces.pictures import save_figure

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
    if path is not None:
        save_figure(figure, path)
    return figure


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
