"""Is it worth to choose the window of pause-loop exiting, together with whom to run?

The worlds of `headroom`, with `decision.window = agent`. The rule takes the next sibling from a random one on, as
KVM did until 3.5, and sets one window where it names somebody and another where nobody can be named: each is the host's
own, which grows at exits and shrinks at switches as KVM's, or 1, 4, 16, 64 or 256 times `ple.window`. The pair of a
world is chosen on the first half of the seeds, the pair for all worlds on the same; both are judged on the other half,
against the host's own windows. CPU time beyond the allowance and late responses count as time, as in `headroom`.

A row holds one seed of a world under every pair: the logarithm of the time that counts, in thousandths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.answer.headroom import APART, STACKED, Place, allowance, places
from experiments.answer.rules import in_percent, percent
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, world
from experiments.lab.report import Check
from experiments.lab.windowed import MOST
from ple_gym.course import losses_of
from ple_gym.evaluate.runs import simulate
from ple_gym.evaluate.statistics import Estimate, Floats, ratio
from ple_gym.policies import load_compiled

RULE = "experiments.lab.windowed:windowed"
MEASURED = "all"  # the policy of a task whose measure runs every pair
PAIRS = [(somebody, nobody) for somebody in range(MOST + 1) for nobody in range(MOST + 1)]
HOST = (0, 0)
SEEDS = seeds.HEADROOM[1000:1024]
HALF = len(SEEDS) // 2
KINDS: dict[str, Callable[[Place], bool]] = {
    "all": lambda place: True,
    "Apart": lambda place: place.place == APART,
    "Stacked": lambda place: place.place == STACKED,
    "ticket": lambda place: place.kind == "ticket",
    "tas": lambda place: place.kind == "tas",
}


@dataclass(frozen=True)
class World(Place):
    """One of them, where decisions choose windows."""

    @property
    def overrides(self) -> dict[str, object]:
        """What tells it from its base."""
        return super().overrides | {"decision.window": "agent"}


def worlds() -> Iterator[World]:
    """All of them."""
    for one in places():
        yield World(one.linux, one.groups, one.kind, one.place, one.waits)


def kinds() -> dict[str, list[World]]:
    """Kinds of worlds, and all."""
    return {kind: [one for one in worlds() if belongs(one)] for kind, belongs in KINDS.items()}


def policy(pair: tuple[int, int]) -> str:
    """The rule with these windows."""
    return f"{RULE}:somebody={pair[0]},nobody={pair[1]}"


def column(pair: tuple[int, int]) -> str:
    """Where a pair stands in the table."""
    return f"{pair[0]} {pair[1]}"


def run(quick: bool) -> list[Task]:
    """Every world."""
    return [
        task
        for one in itertools.islice(worlds(), 2 if quick else None)
        for task in tasks(one.name, MEASURED, SEEDS[:2] if quick else SEEDS, one.overrides)
    ]


def measure(task: Task) -> dict[str, int]:
    """One seed under every pair."""
    scenario = world(task.scenario, task.overrides)
    one = next(one for one in worlds() if (one.name, overrides_text(one.overrides)) == task[:2])
    found = {}
    for pair in PAIRS:
        runs = simulate(scenario, load_compiled(policy(pair)), task.seed, threads=1)
        found[column(pair)] = round(1000 * losses_of(scenario, runs, allowance(one))[0])
    return found


def losses(table: Table, one: World) -> Floats:
    """What is compared under each pair, less that under the host's own windows: [PAIRS, seeds]."""
    rows = table.where(scenario=one.name, overrides=overrides_text(one.overrides))
    found = np.stack([rows[column(pair)] / 1000 for pair in PAIRS])
    return np.asarray(found - found[PAIRS.index(HOST)])


@dataclass(frozen=True)
class Chosen:
    """Pairs that were chosen in some worlds, and what they change, percent: in each its own, and the one for all."""

    pairs: Sequence[tuple[int, int]]
    own: Estimate
    single_pair: tuple[int, int]
    single: Estimate

    @classmethod
    def of(cls, table: Table, some: Sequence[World]) -> Chosen:
        """From the table."""
        every = [losses(table, one) for one in some]
        best = [int(found[:, :HALF].mean(axis=1).argmin()) for found in every]
        single = int(np.mean([found[:, :HALF].mean(axis=1) for found in every], axis=0).argmin())
        judged = [found[:, HALF:].mean(axis=1) for found in every]
        own, all_one = (
            in_percent(ratio(np.array([found[place] for found, place in zip(judged, chosen, strict=True)])))
            for chosen in (best, [single] * len(best))
        )
        return cls([PAIRS[place] for place in best], own, PAIRS[single], all_one)


def checks(table: Table) -> list[Check]:
    """What a choice of windows changes; reported only."""
    found = []
    for kind, some in kinds().items():
        chosen = Chosen.of(table, some)
        found += [
            (f"{kind} ({len(some)} worlds): the best pair of each world", percent(chosen.own)),
            (f"{kind}: the best pair for all, {chosen.single_pair}", percent(chosen.single)),
        ]
    return [Check("windows", what, value) for what, value in found]


EXPERIMENT = Experiment("windows", __doc__, tuple(map(column, PAIRS)), run, checks, measure=measure)
