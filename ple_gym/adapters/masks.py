"""Action masks inside the observation, where RLlib and TorchRL look for them; needs no library but Gymnasium."""

from __future__ import annotations

from typing import Any, overload

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

OBSERVATIONS, ACTION_MASK = "observations", "action_mask"  # the keys of RLlib's examples; TorchRL's `ActionMask` too


@overload
def mask_in_observation(env: gym.Env[Any, Any]) -> MaskInObservation: ...
@overload
def mask_in_observation(env: VectorEnv[Any, Any, Any]) -> VectorMaskInObservation: ...
def mask_in_observation(
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
) -> MaskInObservation | VectorMaskInObservation:
    """Wrap a single or a vector environment whose infos hold `action_mask`.

    Observations become `{"observations": what they were, "action_mask": bool [V + 1]}` (of a vector environment
    [N, V + 1]); everything else, the infos included, stays as it is.

    Raises:
        TypeError: neither a Gymnasium environment nor a vector environment, or its actions are not Discrete.
        KeyError: at a reset or step, if the infos hold no mask.
    """
    if isinstance(env, VectorEnv):
        return VectorMaskInObservation(env)
    if isinstance(env, gym.Env):
        return MaskInObservation(env)
    raise TypeError(f"mask_in_observation: {type(env).__name__} is no Gymnasium environment")


def _with_mask(observations: Any, infos: dict[str, Any]) -> dict[str, Any]:
    if ACTION_MASK not in infos:
        raise KeyError(f"mask_in_observation: the environment's infos hold no {ACTION_MASK!r}")
    return {OBSERVATIONS: observations, ACTION_MASK: np.array(infos[ACTION_MASK], np.bool_)}


def _space(observation: spaces.Space[Any], action: spaces.Space[Any]) -> spaces.Dict:
    if not isinstance(action, spaces.Discrete):
        raise TypeError(f"mask_in_observation: a mask needs a Discrete action space, not {action}")
    # A Box of bools: TorchRL's masks are bools, and skrl knows no MultiBinary.
    return spaces.Dict({OBSERVATIONS: observation, ACTION_MASK: spaces.Box(0, 1, (int(action.n),), np.bool_)})


class MaskInObservation(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """What `mask_in_observation` makes of a single environment."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.observation_space = _space(env.observation_space, env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the environment's, with the mask in the observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _with_mask(observation, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """As the environment's, with the mask in the observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _with_mask(observation, info), reward, terminated, truncated, info


class VectorMaskInObservation(VectorWrapper):
    """What `mask_in_observation` makes of a vector environment; in mode `SameStep` `final_obs` get their masks too."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.single_observation_space = _space(env.single_observation_space, env.single_action_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """What TorchRL asks a vector environment for."""
        mode: AutoresetMode = self.metadata["autoreset_mode"]
        return mode

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the environment's, with the masks in the observations."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return _with_mask(observations, infos), infos

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """As the environment's, with the masks in the observations."""
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        if "final_obs" in infos:
            final = infos["final_obs"].copy()
            for lane in np.flatnonzero(infos["_final_obs"]):
                final[lane] = _with_mask(final[lane], {ACTION_MASK: infos["final_info"][ACTION_MASK][lane]})
            infos = {**infos, "final_obs": final}
        return _with_mask(observations, infos), rewards, terminations, truncations, infos
