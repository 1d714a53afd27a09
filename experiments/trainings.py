"""Train every learner of the leaderboard with five seeds, and keep the policies: `python -m experiments train`.

A training that was interrupted goes on when the command is started again; one whose policy is kept is not repeated.
Policies go to `agents/checkpoints/`, and what each was trained with is on the card inside its file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ple_gym.trace import write_whole

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "agents" / "checkpoints"
FOLDERS = ROOT / "runs" / "leaderboard"  # ignored by git
SEEDS = range(5)
LEARNERS = ("maskable-ppo", "set-ppo", "dqn", "ppo-unmasked", "recurrent-ppo", "bc", "cem")

#: The paper's machines with all vCPUs in line for one lock and a fiftieth of the work: every run begins with a storm.
#: Whole runs have one in ten, and take a thousand times as long to simulate as to decide.
IN_LINE = ("guest.start=convoy", "guest.transactions=200")


@dataclass(frozen=True)
class Training:
    """A row of the leaderboard: `name` with a seed behind it is a policy's file in `agents/checkpoints/`."""

    name: str
    learner: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """Its policies, one per training seed."""
        return [CHECKPOINTS / f"{self.name}-{seed}.npz" for seed in SEEDS]


def _each_learner(scenario: str, steps: int, cem_steps: int, **options: Any) -> list[Training]:
    """Every learner on one scenario; the cross-entropy method needs more decisions, which cost it less."""
    return [
        Training(
            f"{learner}-{scenario}",
            learner,
            {"scenario": scenario, "steps": cem_steps if learner == "cem" else steps, **options},
        )
        for learner in LEARNERS
    ]


#: Learners on the scenarios of the leaderboard.
LEADERBOARD = [
    *_each_learner("Storm", 100_000, 5_000_000),
    *_each_learner("TicketOrder", 40_000, 1_000_000),
    *_each_learner("Paper8", 60_000, 20_000_000, overrides=IN_LINE, validation_seeds=32),
    *_each_learner("Paper32", 30_000, 20_000_000, overrides=IN_LINE, validation_seeds=16, validate=6),
]
#: The set policy on smaller machines than it is then run on, and with more to see.
SMALLER = [
    Training(f"set-ppo-Storm-{vcpus}vcpus", "set-ppo", {"scenario": "Storm", "overrides": (f"guest.vcpus={vcpus}",)})
    for vcpus in (8, 16)
]
KNOWING = [
    Training(f"set-ppo-Storm-{level}", "set-ppo", {"scenario": "Storm", "information": level})
    for level in ("introspection", "oracle")
]
ALL = [*LEADERBOARD, *SMALLER, *KNOWING]


def train_all(jobs: int, progress: Callable[[int], None], rows: list[Training] = ALL) -> None:
    """Train what is missing, `jobs` at a time; `progress` is told how many policies there are."""
    from joblib import Parallel, delayed

    missing = [(row, seed) for row in rows for seed, file in zip(SEEDS, row.files(), strict=True) if not file.exists()]
    kept = len(rows) * len(SEEDS) - len(missing)
    progress(kept)
    parallel = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch=jobs, return_as="generator_unordered")
    for number, _ in enumerate(parallel(delayed(_train)(*one) for one in missing), 1):
        progress(kept + number)


def _train(row: Training, seed: int) -> None:
    learner = importlib.import_module(f"agents.{row.learner.replace('-', '_')}")
    options = learner.Options(**row.options, seed=seed, quiet=True, folder=str(FOLDERS / f"{row.name}-{seed}"))
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    write_whole(row.files()[seed], learner.train(options).read_bytes())
