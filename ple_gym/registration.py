"""Gymnasium ids: `PLE/<scenario>-v0` for every built-in scenario; a change of dynamics raises the version."""

from __future__ import annotations

import gymnasium as gym

from ple_gym.scenarios import SCENARIOS


def environment_id(scenario: str) -> str:
    """Id of a built-in scenario."""
    return f"PLE/{scenario}-v0"


def register_environments() -> None:
    """Register the ids; harmless if called again.

    The environment itself refuses a step before a reset, and its tests run Gymnasium's checker on every id: the
    wrappers that would do both at every step are left out, which makes a step a sixth cheaper.
    """
    for name in SCENARIOS:
        if environment_id(name) not in gym.registry:
            gym.register(
                environment_id(name),
                entry_point="ple_gym.env:PleEnv",
                vector_entry_point="ple_gym.vector:PleVectorEnv",
                kwargs={"scenario": name},
                order_enforce=False,
                disable_env_checker=True,
            )
