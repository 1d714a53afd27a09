"""All experiments by name, in the order of the paper."""

from __future__ import annotations

import importlib

from experiments.lab import Experiment

NAMES = ("figure2",)


def load(name: str) -> Experiment:
    """The experiment of that name."""
    experiment: Experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    return experiment
