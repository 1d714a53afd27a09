"""The worlds that experiments run besides the built-in scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ple_gym.scenario import Scenario
from ple_gym.scenarios import load

FITTED = Path(__file__).parent / "calibration" / "paper32-fitted.toml"

WORLDS: Mapping[str, Scenario] = {}


def load_world(name: str) -> Scenario:
    """A world of this module, the fitted profile (`fitted`), or a built-in scenario.

    Raises:
        ScenarioError: no such scenario.
    """
    if name == "fitted":
        return load(str(FITTED))
    return WORLDS.get(name) or load(name)
