"""Learning curves of trainings: mean and spread over seeds, with lines for the rules on the same validation seeds."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from agents.common import CURVE, VALIDATION, AgentError, Options, above_ideal, percent
from agents.evaluation import alike, checkpoint
from agents.torch_policy import read_policy
from ple_gym.extras import needs
from ple_gym.files import read_bytes, reading
from ple_gym.messages import plain, shown_path
from ple_gym.traces.pictures import save_figure

SUFFIXES = (".png", ".svg", ".pdf")
MAX_BYTES = 2**26
WIDE = 8  # largest value over smallest from which the axis is logarithmic
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, for the colour-blind
MARKS = "osD^vP"
DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3)))
APART = 0.05  # of the picture's height, between names of rules

#: Decisions and log(time / ideal time) where a policy was measured, float64 [2, n].
Curve = np.ndarray[Any, Any]


@dataclass(frozen=True)
class World:
    """What policies were measured on in trainings, and curves of each kind of training, one per seed."""

    options: Options
    curves: Mapping[str, Sequence[Curve]]

    def rule(self, policy: str) -> float:
        """Percent above the ideal of a rule on the same seeds, by the mean logarithm; infinite: it does not finish."""
        seeds = VALIDATION[: self.options.validation_seeds]
        return percent(above_ideal(self.options.load_scenario(), policy, seeds, self.options.start))


def read_world(names: Sequence[str]) -> World:
    """Read trainings: folders that `train` has made.

    Raises:
        AgentError: one is no finished training, or was measured on other worlds than the first.
    """
    found, first = [], None
    for name in names:
        path = checkpoint(name)
        card = read_policy(path).card
        options = card.get("options", {})
        with reading(path, AgentError, "a policy of a training", "draw those of one scenario at once"):
            own = Options(
                str(options["scenario"]), tuple(options["overrides"]), start=str(options["start"]),
                validation_seeds=int(options["validation_seeds"]),
            )  # fmt: skip
            if not 1 <= own.validation_seeds <= len(VALIDATION):
                raise AgentError(f"validation_seeds = {own.validation_seeds}: must be 1..{len(VALIDATION)}")
            own.load_scenario()
            if own != (first := first or own):
                raise AgentError("measured on other worlds than the first training")
        found.append((card, _read_curve(path.with_name("curve.csv"))))
    if first is None:
        raise AgentError("name the folder of a training")
    return World(first, alike(found))


def _read_curve(path: Path) -> Curve:
    with reading(path, AgentError, "the curve of a training"):
        head, *rows = csv.reader(read_bytes(path, MAX_BYTES).decode().splitlines())
        if tuple(head) != CURVE:
            raise AgentError(f"its columns are not {', '.join(CURVE)}")
        known = [(float(row[0]), float(row[-1])) for row in rows if row[-1]]
        steps, above = np.array(sorted(known)).reshape(-1, 2).T
        if not (np.isfinite(steps).all() and np.isfinite(above).all() and (above > -100).all()):
            raise AgentError("a value is out of range")
        return np.array([steps, np.log1p(above / 100)])


def check_suffix(path: str) -> None:
    """Raise AgentError if no picture can have this name."""
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise AgentError(f"{shown_path(path)}: the name must end in {', '.join(SUFFIXES)}")


def draw(world: World, rules: Mapping[str, float], path: str, about: str = "") -> None:
    """Write the picture, whole or not at all. rules: percent above the ideal by name; about: what made it.

    Raises:
        AgentError: the name's suffix is none of `SUFFIXES`, or it cannot be written.
        MissingLibraryError: matplotlib is not installed.
    """
    check_suffix(path)
    with needs("viz"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(7.2, 3.8), dpi=100, layout="constrained")
    axis = figure.subplots()
    drawn = [value for value in rules.values() if np.isfinite(value)]
    for (name, curves), colour, mark in zip(world.curves.items(), cycle(COLOURS), cycle(MARKS), strict=False):
        measured = [curve for curve in curves if curve.shape[1]]
        label = f"{name} ({len(measured)} of {len(curves)} seeds finish)"
        if len(measured) == len(curves):
            label = f"{name} ({len(curves)} seed{'s' if len(curves) > 1 else ''})"
        if not measured:
            axis.plot([], [], color=colour, marker=mark, label=label)
            continue
        steps = np.unique(np.concatenate([curve[0] for curve in measured]))
        steps = steps[(steps >= max(c[0, 0] for c in measured)) & (steps <= min(c[0, -1] for c in measured))]
        each = 100 * np.expm1([np.interp(steps, *curve) for curve in measured])
        mean = 100 * np.expm1(np.log1p(each / 100).mean(0))
        axis.fill_between(steps, each.min(0), each.max(0), color=colour, alpha=0.2, linewidth=0)
        axis.plot(steps, mean, color=colour, marker=mark, markersize=4, label=label)
        drawn += [*each.ravel()]
    if drawn and min(drawn) > 0 and max(drawn) / min(drawn) > WIDE:
        axis.set_yscale("log")
        axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
    axis.yaxis.set_major_formatter("{x:,g}")
    for (_, value), dashes in zip(rules.items(), cycle(DASHES), strict=False):
        if np.isfinite(value):
            axis.axhline(value, color="0.35", linestyle=dashes, linewidth=1.2)
    axis.set(xlabel="decisions", ylabel="makespan above ideal, %", xlim=(0, None))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    _name(axis, {name: value for name, value in rules.items() if np.isfinite(value)})
    if world.curves:
        axis.legend(fontsize="small", framealpha=0.9)
    seeds, changes = world.options.validation_seeds, "".join(f", {plain(one)}" for one in world.options.overrides)
    title = f"{plain(world.options.scenario)}{changes}: {seeds} validation seeds; mean and range of trainings"
    figure.suptitle(title, fontsize="medium")
    save_figure(figure, path, about)


def _name(axis: Any, rules: Mapping[str, float]) -> None:
    """Write the rules' names beside their lines, and none over another."""
    place = (axis.transData + axis.transAxes.inverted()).transform
    at = -1.0
    for name, value in sorted(rules.items(), key=lambda one: one[1]):
        at = max(place((0, value))[1], at + APART)
        axis.text(1.01, at, name, transform=axis.transAxes, va="center", fontsize="small")
