"""Bridges to training libraries; each module imports its library, `ple_gym` imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from ple_gym.envs.options import LaneOptions
from ple_gym.envs.registration import registered_limit
from ple_gym.scenario.model import Scenario

if TYPE_CHECKING:
    from ple_gym.adapters.sb3 import PleVecEnv


def make_sb3(
    scenario: str | Scenario = "Storm", num_envs: int = 16, *, seed: int | None = None, **options: Unpack[LaneOptions]
) -> PleVecEnv:
    """`num_envs` machines as one Stable-Baselines3 `VecEnv`, with action masks.

    Args:
        scenario: a name, an id, a .toml or .json file, or a `Scenario`.
        num_envs: number of machines N.
        seed: of the first machine in the first reset (machine i gets `seed + i`); None: any. A learner's own `seed`
            takes its place.
        options: those of `PleVectorEnv`, but for the autoreset mode. `max_episode_steps` is the registered one of a
            built-in scenario that is given by name or id, otherwise None.

    Raises:
        ScenarioError: an unknown scenario, or a parameter out of its range.
        ArgumentError: an unknown word or a number out of its range for another option.
        ModuleNotFoundError: Stable-Baselines3 is not installed; the message names the extra that brings it.

    Examples:
        >>> envs = ple_gym.make_sb3("TicketOrder", num_envs=4, seed=0)
        >>> envs.reset().shape, int(envs.action_space.n)
        ((4, 127), 7)
        >>> envs.env_method("action_masks")[0].dtype
        dtype('bool')
    """
    from ple_gym.adapters.sb3 import PleVecEnv
    from ple_gym.envs.vector import PleVectorEnv

    options.setdefault("max_episode_steps", registered_limit(scenario))
    envs = PleVecEnv(PleVectorEnv(num_envs, scenario, autoreset_mode="SameStep", **options))
    if seed is not None:
        envs.seed(seed)
    return envs
