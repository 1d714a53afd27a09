"""Which policy is best? Every rule and every learner on four scenarios, whole and from a storm on.

Learners were trained with five seeds each on the scenario itself (the paper's machines: with all vCPUs in line for one
lock and a fiftieth of the work), and `set-ppo` also on `Storm` alone. Test seeds are nobody's training or validation
seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.lab import CHECKPOINTS, Experiment, Table, Task, seeds, tasks
from experiments.lab.pictures import picture
from experiments.lab.report import Check, within
from experiments.learning import trained, trainings
from experiments.learning.trained import COLUMNS, FROM_STORM
from ple_gym.evaluate import Comparison

SCENARIOS = tuple(name + trainings.VERSION for name in ("Storm", "TicketOrder", "Paper8", "Paper32"))
PLACES = (*SCENARIOS, *(scenario + FROM_STORM for scenario in SCENARIOS))
#: By name, so that a new rule does not make the committed table incomplete.
RULES = (
    "host", "continue", "random", "round-robin", "longest-waiting", "xen-4.5", "xen-4.8", "xen-4.17", "xen-4.18",
    "paper", "paper-local", "paper-ban", "kvm", "kvm-2012", "kvm-5.4", "kvm-5.13", "kvm-6.13", "kvm-6.18", "spin-age",
    "spin-age-self", "two-patience", "patience", "longest-in-kernel", "oracle",
)  # fmt: skip
RARE = SCENARIOS[2:]  # whole runs of which few have a storm
TICKS, FAR_TICKS = (0, 10, 100), (0, 100, 10_000)  # percent
TO_BEAT = ("xen-4.8", "paper", "kvm")  # by the quick start, in eight of ten trainings
FOR_ALL = trainings.QUICK_START
GENERAL = f"{FOR_ALL.learner}, trained on Storm"  # its row elsewhere
LEARNED = "learner, trained on this scenario"
#: Colour (for the colour-blind, too), mark and its size in the picture.
KINDS = {"rule": ("#0072b2", "o", 4), LEARNED: ("#d55e00", "D", 5), GENERAL: ("#000000", "^", 6)}


def members(place: str) -> dict[str, Sequence[str]]:
    """Row -> policies, of one place."""
    scenario = place.removesuffix(FROM_STORM)
    own = {row.learner: row for row in trainings.LEADERBOARD if row.world == scenario}
    general = {} if scenario == FOR_ALL.world else {GENERAL: FOR_ALL}
    return trained.rules_and(own | general, RULES)


def run(quick: bool) -> list[Task]:
    """Every place."""
    return [
        task
        for place in PLACES
        for task in tasks(
            place, [policy for row in members(place).values() for policy in row], test_seeds(place, quick)
        )
    ]


def test_seeds(place: str, quick: bool = False) -> range:
    """Twice as many where nine of ten runs have no storm, so that enough differ."""
    return seeds.LEADERBOARD[: 2 if quick else 200 if place in RARE else 100]


def compared(table: Table, place: str) -> Comparison:
    """What the rows of one place say."""
    return trained.comparison(table, place, "", members(place))


def makespans(here: Comparison, policy: str) -> np.ndarray:
    """Of one policy, per seed, seconds."""
    return np.array([run["simulated_s"] for run in here.runs[policy]])


def checks(table: Table) -> list[Check]:
    """The quick start's promise, and every row of every place."""
    storm = compared(table, FOR_ALL.world)
    better = [
        policy
        for policy in storm.members.get(FOR_ALL.learner, ())
        if all(np.log(makespans(storm, policy) / makespans(storm, rule)).mean() < 0 for rule in TO_BEAT)
    ]
    metric = (
        f"trainings of `{FOR_ALL.learner}` on Storm that beat {', '.join(TO_BEAT)} on test seeds, of {FOR_ALL.seeds}"
    )
    found = [within("quick start", metric, len(better), 8, FOR_ALL.seeds)]
    for place in PLACES:
        found += trained.checks("leaderboard", place, compared(table, place))
    return found


def draw(table: Table, path: Path) -> None:
    """Against the best rule, per place."""
    with picture(path, 12, 10.3, nrows=2, ncols=4) as (figure, axes):
        for axis, place in zip(axes.flat, PLACES, strict=True):
            here = compared(table, place)
            rows = sorted(here.rows(), key=lambda row: -row.makespan_s.mean)
            for height, row in enumerate(rows):
                colour, mark, size = KINDS[
                    "rule" if row.policy in RULES else GENERAL if row.policy == GENERAL else LEARNED
                ]
                ratio = row.best_ratio
                mean = 0.0 if ratio is None else 100 * np.expm1(ratio.mean)
                if ratio and ratio.low is not None and ratio.high is not None:
                    axis.plot(100 * np.expm1([ratio.low, ratio.high]), [height] * 2, color=colour, linewidth=1.5)
                axis.plot(mean, height, mark, color=colour, markersize=size, clip_on=False)
            axis.set_yticks(range(len(rows)), [row.policy for row in rows], fontsize="small")
            axis.set_xscale("symlog", linthresh=10, subs=None)
            axis.set_xlim(left=-10)
            right = axis.get_xlim()[1]
            within_sight = [tick for tick in (TICKS if right < FAR_TICKS[-1] else FAR_TICKS) if tick <= right]
            axis.set_xticks(within_sight, [f"{tick:,}" for tick in within_sight])
            axis.axvline(0, color="0.5", linewidth=0.8)
            axis.set_title(place, fontsize="medium")
            axis.set_xlabel(f"against {here.best_rule}, %", fontsize="small")
        for kind, (colour, mark, size) in KINDS.items():
            axes.flat[0].plot([], [], mark, color=colour, markersize=size, linestyle="-", linewidth=1.5, label=kind)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, title="Makespans with 95 % intervals")


EXPERIMENT = Experiment("leaderboard", __doc__, COLUMNS, run, checks, draw, trained.measure, (CHECKPOINTS,))
