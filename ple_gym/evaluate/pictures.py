"""A picture of a sweep: what each policy makes of each value, with intervals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ple_gym.evaluate.configurations import Configurations
from ple_gym.extras import needs
from ple_gym.traces.pictures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "osD^vP*X"  # so that no policy is told by its colour alone
WIDE = 8  # largest value over smallest from which the axis is logarithmic


def sweep_figure(result: Configurations, path: str | os.PathLike[str] | None = None) -> Figure:
    """Return a figure: the first parameter across, a column for each value of the others, a row for each endless VM.

    With `path`, also save it there as PNG, whole or not at all.
    """
    with needs("viz"):
        from matplotlib.figure import Figure

    rows, (axis, *others) = result.rows(), result.settings[0]
    across = list(dict.fromkeys(row.setting[axis] for row in rows))
    beside = list(dict.fromkeys(tuple(row.setting[name] for name in others) for row in rows))
    below = list(dict.fromkeys(row.vm for row in rows))
    size = (1.5 + 4.5 * len(beside), 0.8 + 3.4 * len(below))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels: Any = figure.subplots(len(below), len(beside), squeeze=False, sharex=True, sharey="row")
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in across)
    places: Any = {value: value if numbers else place for place, value in enumerate(across)}
    for number, policy in enumerate(dict.fromkeys(row.policy for row in rows)):
        for (i, vm), (j, rest) in ((one, other) for one in enumerate(below) for other in enumerate(beside)):
            own = [row for row in rows if (row.policy, row.vm) == (policy, vm)]
            own = [row for row in own if tuple(row.setting[name] for name in others) == rest]
            values = [row.makespan_s or row.transactions_per_s for row in own]
            scale = 1 if vm else 1e3
            means = [scale * value.mean for value in values if value]
            lows = [scale * (value.mean if value.low is None else value.low) for value in values if value]
            bars = [mean - low for mean, low in zip(means, lows, strict=True)]  # intervals are symmetric
            panels[i][j].errorbar(
                [places[row.setting[axis]] for row in own], means, yerr=bars, label=policy, capsize=3,
                marker=MARKS[number % len(MARKS)], markersize=5, color=f"C{number % 10}",
            )  # fmt: skip
            panels[i][j].set_title(", ".join(f"{name} = {value}" for name, value in zip(others, rest, strict=True)))
            panels[i][0].set_ylabel(f"{vm}: transactions per s" if vm else "makespan, ms")
            panels[-1][j].set_xlabel(axis)
    low, high = min(places.values()), max(places.values())
    if numbers and low > 0 and high / low >= WIDE:
        panels[0][0].set_xscale("log")
    panels[0][0].minorticks_off()
    panels[0][0].set_xticks(list(places.values()), list(map(str, across)))
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    seeds = len(result.comparisons[0].seeds)
    figure.suptitle(f"{result.comparisons[0].scenario.name}: {seeds} seeds, 95 % intervals")
    if path is not None:
        save_figure(figure, path)
    return figure
