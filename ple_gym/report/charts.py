"""How what came of the runs of a comparison is distributed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ple_gym.evaluate.comparison import Comparison
from ple_gym.evaluate.statistics import Floats
from ple_gym.extras import needs
from ple_gym.report.timeline import COLOURS, rows_figure, tell

with needs("report"):
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

ROW = 26  # pixels
MOST_DOTS = 1000  # of a policy; of more runs so many quantiles are shown
WIDE = 30  # largest value over smallest from which the axis is logarithmic


def distributions(comparison: Comparison) -> dict[str, figure]:
    """What is distributed -> a picture of it with a row for each policy (and endless VM)."""
    members = comparison.members
    if comparison.endless:
        kind = "transactions per simulated second"
        values = {
            f"{name} {vm}": comparison.of_vm(name, place, "transactions_per_s")
            for name in members
            for place, vm in enumerate(comparison.scenario.vms())
        }
    else:
        kind, values = "makespan, ms", {name: 1e3 * comparison.makespans(name) for name in members}
    exits = {
        name: np.array([[run["ple_exits"] for run in comparison.runs[one]] for one in own], float)
        for name, own in members.items()
    }
    return {title: _strips(title, each, comparison.seeds) for title, each in ((kind, values), ("PLE exits", exits))}


def _strips(title: str, values: dict[str, Floats], seeds: Sequence[int]) -> figure:
    low, high = min(one.min() for one in values.values()), max(one.max() for one in values.values())
    kind = "log" if low > 0 and high / low > WIDE else "linear"
    plot = rows_figure(dict(enumerate(values)), len(values), ROW, title, x_axis_type=kind)
    for place, each in enumerate(values.values()):
        first, middle, third = np.quantile(each, [0.25, 0.5, 0.75])
        plot.hbar(y=[place], left=[first], right=[third], height=0.7, color=COLOURS["running"])
        plot.segment(x0=[middle], x1=[middle], y0=[place - 0.35], y1=[place + 0.35], color=COLOURS["ink"], line_width=3)
        dots, whose = each.ravel(), np.tile(np.array(seeds, float), len(each))
        if len(dots) > MOST_DOTS:
            dots, whose = np.quantile(dots, np.linspace(0, 1, MOST_DOTS), method="nearest"), np.full(MOST_DOTS, np.nan)
        spread = place + 0.3 * np.sin(2.4 * np.arange(len(dots)))  # so that few dots hide each other
        source = ColumnDataSource({"value": dots, "place": spread.astype(np.float32), "seed": whose})
        marks = plot.scatter(x="value", y="place", source=source, size=6, color=COLOURS["holding"], alpha=0.6)
        tell(plot, marks, [("", "@value{0,0.[000]}"), ("seed", "@seed{0}")])
    return plot
