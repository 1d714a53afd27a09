"""Stable-Baselines3: native lanes as a `VecEnv`, so that its learners step a thousand lanes by one call.

from sb3_contrib import MaskablePPO
model = MaskablePPO("MlpPolicy", ple_gym.make_sb3("PLE/Storm-v1", num_envs=64))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from ple_gym.envs.infos import Infos
from ple_gym.envs.interface import Observation, checked_options
from ple_gym.envs.vector import Bools, PleVectorEnv
from ple_gym.errors import ArgumentError
from ple_gym.extras import needs

with needs("agents"):
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn


RESET_INFOS = ("action_mask", "elapsed_cycles", "seed", "index")  # what `PleEnv.reset` returns


class PleVecEnv(VecEnv):
    """A `PleVectorEnv` in the form that Stable-Baselines3 asks for; `make_sb3` makes one.

    A lane whose episode ends is reset in the same step, as `PleEnv.reset()` would. The infos are one dict per lane:
    `elapsed_cycles` always, `illegal_action` if it was one, and at the end of an episode `terminal_observation`,
    `TimeLimit.truncated`, `ple_episode` and SB3's own `episode` (return, length, seconds). `reset_infos[i]` is what
    the last reset of lane i returned: its world's `seed` and `index`, `elapsed_cycles` and `action_mask`.

    Masks: `env_method("action_masks")`, as MaskablePPO calls it, or `action_masks()`, bool [N, V + 1]. The other
    methods that a lane has are `get_state()` and `set_state(saved)`. What lanes share (`scenario`, `render_mode`, ...)
    can be read by `get_attr` and not be set; other attributes can be, per lane.

    Args:
        envs: lanes that are reset in the step that ends their run (autoreset mode `SameStep`).

    Raises:
        ArgumentError: lanes that are not.
    """

    def __init__(self, envs: PleVectorEnv) -> None:
        if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ArgumentError(f"autoreset_mode = {envs.autoreset_mode.value}: must be SameStep, as a VecEnv's is")
        # The constructor of the base class reads the lanes' attributes.
        self.envs = envs
        self._methods: dict[str, Callable[..., Any]] = {
            "action_masks": self._mask_of,
            "get_state": envs.get_state,
            "set_state": self._set_state,
        }
        self._attributes: list[dict[str, Any]] = [{} for _ in range(envs.num_envs)]
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata["render_fps"] = envs.metadata["render_fps"]
        self._actions: npt.ArrayLike = ()
        self._returns = np.zeros(envs.num_envs)  # of each lane's episode, so far
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._began = time.monotonic()

    def reset(self) -> Observation:
        """Reset all lanes, with what `seed` and `set_options` have said since the last reset.

        Options are those of `PleEnv.reset`: `start`, or `state` (one for all lanes, or a list of one per lane).

        Raises:
            ArgumentError: options that the lanes do not know, or that are not the same for all.
            RuntimeError: 1,001 worlds in a row ended before they reached their start.
        """
        options = checked_options(self._options[0], "start", "state")
        if any(other != options for other in self._options):
            raise ArgumentError("set_options: the options of a reset must be the same for all lanes")
        seeds = None if self._seeds == [None] * self.num_envs else self._seeds
        observation, infos = self.envs.reset(seed=seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        self._restarted(range(self.num_envs), infos)
        return observation

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take the actions, int [N]; `step_wait` carries them out."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Carry out the actions: fresh observations, rewards (float64 [N]), dones (bool [N]) and infos.

        Raises:
            ArgumentError: not N actions, or one outside the action space; nothing has changed.
        """
        observation, rewards, terminations, truncations, infos = self.envs.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        each: list[dict[str, Any]] = [{"elapsed_cycles": cycles} for cycles in infos["elapsed_cycles"].tolist()]
        if "illegal_action" in infos:
            for lane in np.flatnonzero(infos["illegal_action"]).tolist():
                each[lane]["illegal_action"] = True
        for lane, (last, info) in self.envs.ends.items():
            each[lane] = self._final(lane, last, info, bool(truncations[lane]))
        self._restarted(self.envs.ends, infos)
        return observation, rewards, terminations | truncations, each

    def close(self) -> None:
        """End the threads."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8]]:
        """One timeline per lane."""
        return self.envs.render() or ()

    # ------------------------------------------------------------------------------------------------- single lanes

    def action_masks(self) -> Bools:
        """Legal actions of the decisions that are due: bool [N, V + 1], fresh."""
        return self.envs.action_masks()

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call `action_masks`, `get_state` or `set_state` of some lanes, or of all.

        Raises:
            AttributeError: another method.
        """
        if method_name == "action_masks" and indices is None:
            return list(self.envs.action_masks())
        method = self._method(method_name)
        return [method(lane, *method_args, **method_kwargs) for lane in self._lanes(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of some lanes, or of all.

        Raises:
            AttributeError: there is no such attribute.
        """
        return [self._attribute(lane, attr_name) for lane in self._lanes(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Give some lanes, or all, an attribute that means nothing to the simulator.

        Raises:
            AttributeError: an attribute that all lanes share.
        """
        if attr_name in self._methods or hasattr(self.envs, attr_name):
            raise AttributeError(f"{attr_name} cannot be set: all lanes share it; give it to make_sb3")
        for lane in self._lanes(indices):
            self._attributes[lane][attr_name] = value

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Lanes are never wrapped one by one."""
        return [False for _ in self._lanes(indices)]

    # ------------------------------------------------------------------------------------------------------ helpers

    def _lanes(self, indices: VecEnvIndices) -> list[int]:
        """The lanes that indices name; negative ones count from the end."""
        return [range(self.num_envs)[index] for index in self._get_indices(indices)]

    def _method(self, name: str) -> Callable[..., Any]:
        if name not in self._methods:
            raise AttributeError(f"lanes have no method {name!r}; they have {', '.join(self._methods)}")
        return self._methods[name]

    def _attribute(self, lane: int, name: str) -> Any:
        if name in self._attributes[lane]:
            return self._attributes[lane][name]
        if name in self._methods:
            return partial(self._methods[name], lane)
        if name in ("observation_space", "action_space"):  # those of one lane
            name = f"single_{name}"
        return getattr(self.envs, name)

    def _mask_of(self, lane: int) -> Bools:
        mask: Bools = self.envs.action_masks()[lane]
        return mask

    def _set_state(self, lane: int, saved: bytes) -> tuple[Observation, dict[str, Any]]:
        """Put a lane into a saved state; its observation and info."""
        observation, infos = self.envs.set_state(lane, saved)
        self._restarted([lane], infos)
        return _row(observation, lane), self.reset_infos[lane]

    def _final(self, lane: int, last: Observation, info: dict[str, Any], truncated: bool) -> dict[str, Any]:
        """The info of a run's last step."""
        length, seconds = int(self._lengths[lane]), round(time.monotonic() - self._began, 6)
        return {
            **{name: value for name, value in info.items() if name != "action_mask"},
            "terminal_observation": last,
            "TimeLimit.truncated": truncated,
            "episode": {"r": float(self._returns[lane]), "l": length, "t": seconds},
        }

    def _restarted(self, lanes: Iterable[int], infos: Infos) -> None:
        """Keep the infos that a reset returned for some lanes."""
        for lane in lanes:
            self.reset_infos[lane] = {name: _plain(infos[name][lane]) for name in RESET_INFOS}
            self._returns[lane] = self._lengths[lane] = 0


def _row(observation: Observation, lane: int) -> Observation:
    """A copy of one lane's observation, so that keeping it does not keep those of all lanes."""
    if isinstance(observation, dict):
        return {name: part[lane].copy() for name, part in observation.items()}
    row: Observation = observation[lane].copy()
    return row


def _plain(value: Any) -> Any:
    """A copy of a row, or a Python number."""
    return value.copy() if isinstance(value, np.ndarray) else value.item()
