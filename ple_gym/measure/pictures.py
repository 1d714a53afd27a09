"""A picture of how a scenario fits what was measured: quantiles of both, over one another."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ple_gym.extras import needs
from ple_gym.measure.guest import SAMPLES
from ple_gym.measure.machine import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 400  # of a line
NAMES = ("computes", "holds", "sleeps", "waits", "stays on a pCPU")


def fit_figure(pairs: Sequence[tuple[Measured, Measured]], hz: int) -> Figure | None:
    """A row for each file with durations and, beside one another, what it has; pairs: as measured, and as simulated.

    None: no file has durations.
    """
    with needs("viz"):
        from matplotlib.figure import Figure

    both = [(one.name, one.vms[0].samples, run.vms[0].samples) for one, run in pairs if one.vms]
    rows = [(name, [key for key in SAMPLES if measured[key]], measured, run) for name, measured, run in both]
    rows = [row for row in rows if row[1]]
    if not rows:
        return None
    figure = Figure(figsize=(1 + 2.7 * max(len(row[1]) for row in rows), 0.9 + 2.4 * len(rows)), layout="constrained")
    panels: Any = figure.subplots(len(rows), max(len(row[1]) for row in rows), squeeze=False, sharey=True)
    for axes, (name, keys, measured, run) in zip(panels, rows, strict=True):
        for axis in axes[len(keys) :]:
            axis.set_visible(False)
        for axis, key in zip(axes, keys, strict=False):
            for values, style, label in ((measured[key], "-", "measured"), (run[key], "--", "simulated")):
                colour = "#0072b2" if label == "measured" else "#d55e00"
                axis.plot(*_quantiles(values, 1e6 / hz), style, color=colour, linewidth=2, label=label)
            axis.set(xscale="log", xlabel=f"{NAMES[SAMPLES.index(key)]}, us")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(f"share up to there\n{name}")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _quantiles(values: array[int], us: float) -> tuple[Any, Any]:
    shares = np.linspace(0, 1, POINTS)
    return (np.quantile(np.array(values), shares) * us, shares) if values else ([], [])
