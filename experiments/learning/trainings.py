"""Train every learner of the leaderboard with five seeds or more: `python -m experiments train`.

A training that was interrupted goes on when the command is started again; one whose policy is kept is not repeated.
Policies go to the archive `agents/checkpoints.tar.xz` (`agents/archive.py`). What each was trained with is on the card
inside its file. Of a training only the card is kept if no experiment runs its policy: one that never came to the end of
its runs on validation seeds, or that torch has to run. A kill at any moment loses nothing: the archive is replaced
whole, and until then a finished training stands in its own folder in `runs/leaderboard/`, from which the same command
adds it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.archive import Archive, halved
from agents.torch_policy import TorchPolicy, read_policy
from experiments.lab.executors import without_interrupts
from experiments.lab.folders import CHECKPOINTS, TRAININGS
from ple_gym.files import read_bytes
from ple_gym.learned.file import MAX_BYTES, read_card
from ple_gym.scenario.builtin import load

KEPT = Archive(CHECKPOINTS)
VERSION = "-v1"  # of the scenarios that all are trained on, and run on
LEARNERS = ("maskable-ppo", "set-ppo", "dqn", "ppo-unmasked", "recurrent-ppo", "bc", "cem")

#: The paper's machines with all vCPUs in line for one lock and a fiftieth of the work: every run begins with a storm.
#: Whole runs have one in ten, and take a thousand times as long to simulate as to decide.
IN_LINE = ("guest.start=convoy", "guest.transactions=200")


@dataclass(frozen=True)
class Training:
    """A row of the leaderboard: `name` with a seed behind it is the name of a policy in `agents/checkpoints.tar.xz`."""

    name: str
    learner: str
    options: Mapping[str, Any]
    seeds: int = 5

    @property
    def world(self) -> str:
        """The scenario that its policies are trained on, with its version."""
        return str(self.options["scenario"])

    @property
    def information(self) -> str:
        """What its policies see."""
        return str(self.options.get("information", "hypervisor"))

    @property
    def vcpus(self) -> int:
        """Of the machine that it is trained on."""
        changes = dict(text.split("=", 1) for text in self.options.get("overrides", ()))
        return load(self.options["scenario"]).with_overrides(changes).vcpus

    def policies(self) -> list[str]:
        """What its policies are called, one per training seed; each has a file, or its card alone has."""
        return [f"{self.name}-{seed}" for seed in range(self.seeds)]


def _each_learner(scenario: str, steps: int, cem_steps: int, **options: Any) -> list[Training]:
    """Every learner on one scenario; the cross-entropy method needs more decisions, which cost it less."""
    return [
        Training(
            f"{learner}-{scenario}",
            learner,
            {"scenario": scenario + VERSION, "steps": cem_steps if learner == "cem" else steps, **options},
        )
        for learner in LEARNERS
    ]


#: What `make train` does, ten times.
QUICK_START = Training("set-ppo-Storm", "set-ppo", {"scenario": "Storm" + VERSION, "steps": 100_000}, seeds=10)
#: Learners on the scenarios of the leaderboard.
LEADERBOARD = [
    QUICK_START,
    *(row for row in _each_learner("Storm", 100_000, 30_000_000) if row.learner != QUICK_START.learner),
    *_each_learner("TicketOrder", 40_000, 5_000_000),
    *_each_learner("Paper8", 60_000, 20_000_000, overrides=IN_LINE, validation_seeds=32),
    *_each_learner("Paper32", 30_000, 20_000_000, overrides=IN_LINE, validation_seeds=16, validate=6),
]
#: The set policy on smaller machines than it is then run on, and with more to see.
SMALLER = [
    Training(
        f"set-ppo-Storm-{vcpus}vcpus",
        "set-ppo",
        {"scenario": "Storm" + VERSION, "overrides": (f"guest.vcpus={vcpus}",)},
    )
    for vcpus in (8, 16)
]
KNOWING = [
    Training(f"set-ppo-Storm-{level}", "set-ppo", {"scenario": "Storm" + VERSION, "information": level})
    for level in ("introspection", "oracle")
]
ALL = [*LEADERBOARD, *SMALLER, *KNOWING]


def train_all(jobs: int, progress: Callable[[int], None], rows: list[Training] = ALL) -> None:
    """Train what is missing, `jobs` at a time; `progress` gets the number of policies that there are."""
    from joblib import Parallel, delayed

    wanted = [(row, seed, policy) for row in rows for seed, policy in enumerate(row.policies())]
    there = KEPT.files().keys()
    missing = [one for one in wanted if there.isdisjoint(_files(one[2]))]
    kept = len(wanted) - len(missing)
    progress(kept)
    parallel = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch=jobs, return_as="generator_unordered")
    with without_interrupts():
        trained = parallel(delayed(_train)(*one, TRAININGS) for one in missing)
    for number, (name, content) in enumerate(trained, 1):
        KEPT.add({name: content})
        progress(kept + number)


def _files(policy: str) -> tuple[str, str]:
    """What a policy may be in the archive: the whole of it, or its card alone."""
    return f"{policy}.npz", f"{policy}.json"


def file_of(policy: str) -> Path:
    """The path by which a policy is read."""
    return KEPT.file(f"{policy}.npz")


def finished(row: Training) -> list[str]:
    """The policies of a row that are kept: the kernel runs them, to the end on validation seeds."""
    there = KEPT.files().keys()
    return [policy for policy in row.policies() if f"{policy}.npz" in there]


def cards(row: Training) -> list[Mapping[str, Any]]:
    """The cards of a row's trainings so far, with a policy that was kept or without."""
    there = KEPT.files().keys()
    files = [KEPT.file(name) for policy in row.policies() for name in _files(policy) if name in there]
    return [read_card(file) if file.suffix == ".json" else read_policy(file).card for file in files]


def _train(row: Training, seed: int, policy: str, folder: Path) -> tuple[str, bytes]:
    """Train a policy, or go on with it; the name and the content of what is to be kept."""
    learner = importlib.import_module(f"agents.{row.learner.replace('-', '_')}")
    options = learner.Options(**row.options, seed=seed, quiet=True, folder=str(folder / policy))
    trained = learner.train(options)
    whole, alone = _files(policy)
    made = read_policy(trained)
    card = made.card
    if isinstance(made, TorchPolicy) or card["validation"]["above_ideal_percent"] is None:
        return alone, (json.dumps(dict(card), indent=1) + "\n").encode()
    return whole, halved(read_bytes(trained, MAX_BYTES))
