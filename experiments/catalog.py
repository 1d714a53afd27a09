"""All experiments by name, in the order of the paper."""

from __future__ import annotations

import importlib

from experiments.lab import Experiment

NAMES = (
    "figure1", "vcpus", "gap", "window", "holds", "figure2", "figure3", "dispatch", "figure4", "lock_kinds", "rival",
    "slope", "calibration", "answer", "ratelimit", "overcommit", "harm",
)  # fmt: skip


def load(name: str) -> Experiment:
    """The experiment of that name."""
    experiment: Experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    return experiment
