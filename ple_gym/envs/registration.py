"""Gymnasium ids: `PLE/<scenario>-v<version>` for every version of every built-in scenario.

A change of dynamics raises the version. Gymnasium says at each `make` of an earlier one that there is a later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import gymnasium as gym

from ple_gym.scenario.builtin import EARLIER, SCENARIOS, VERSIONS
from ple_gym.scenario.fleet import SPLITS, is_fleet
from ple_gym.scenario.fleet import VERSION as FLEET_VERSION

#: Decisions after which an episode of an id, of any version, is cut off, so that evaluating a policy always ends:
#: whoever resumes at every exit makes up to ten million. A limit is at least ten times the longest of 20 runs with
#: actions drawn among the legal ones, and so long that who is cut off has lost more than others lose in the whole of a
#: usual run, so that it does not pay (docs/vector.md, "Step limits").
MAX_EPISODE_STEPS: Mapping[str, int] = MappingProxyType(
    {
        "Tiny": 20_000,
        "HolderPreempted": 1_000,
        "TicketOrder": 2_000,
        "Storm": 50_000,
        "Busy8": 20_000,
        "Paper8": 200_000,
        "Paper32": 200_000,
        "KvmServer614": 50_000,
        "KvmServer614Flat": 50_000,
        "KvmServer618": 50_000,
        "KvmServer618Flat": 50_000,
        "KvmFlushes618Flat": 200_000,
        "KvmEbizzy": 500_000,
        "KvmShootdown": 200_000,
        "KvmDbench": 200_000,
        "KvmWindows": 100_000,
        "XcpWindows": 1_000_000,
        "Consolidated": 500_000,
    }
)

FLEET_STEPS = 200_000
"""The same of a fleet, whose worlds are short: a kept one has at most 10,000 exits under its host's own rule."""


def environment_id(scenario: str) -> str:
    """Id of a built-in scenario, called `Storm` (the newest version) or `Storm-v0`, or of a fleet."""
    if scenario in SPLITS:
        return f"PLE/{scenario}-v{FLEET_VERSION}"
    return f"PLE/{scenario}-v{VERSIONS[scenario]}" if scenario in VERSIONS else f"PLE/{scenario}"


def registered_limit(scenario: object) -> int | None:
    """The step limit of a built-in scenario, called as `load` may call it, or of a fleet; None for anything else."""
    if is_fleet(scenario):
        return FLEET_STEPS
    if not isinstance(scenario, str):
        return None
    return MAX_EPISODE_STEPS.get(re.sub(r"-v\d+$", "", scenario.removeprefix("PLE/")))


def register_environments() -> None:
    """Register the ids; harmless if called again.

    Gymnasium's wrappers for the order of calls and for checks are left out, which makes a step a sixth cheaper: the
    environment itself refuses a step before a reset, and its tests run Gymnasium's checker on every id.
    """
    for name in (*SCENARIOS, *EARLIER, *SPLITS):
        if environment_id(name) not in gym.registry:
            gym.register(
                environment_id(name),
                entry_point="ple_gym.envs.env:PleEnv",
                vector_entry_point="ple_gym.envs.vector:PleVectorEnv",
                max_episode_steps=registered_limit(name),
                kwargs={"scenario": name},
                order_enforce=False,
                disable_env_checker=True,
            )
