"""All experiments by name: those on the paper in its order, then those on learned policies."""

from __future__ import annotations

import importlib

from experiments.lab import Experiment

NAMES = (
    "figure1", "vcpus", "gap", "window", "holds", "figure2", "figure3", "dispatch", "figure4", "lock_kinds", "rival",
    "slope", "calibration", "answer", "ratelimit", "overcommit", "harm", "robustness", "leaderboard", "transfer",
    "information", "features", "agreement", "coverage",
)  # fmt: skip


def load(name: str) -> Experiment:
    """The experiment of that name."""
    experiment: Experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    return experiment
