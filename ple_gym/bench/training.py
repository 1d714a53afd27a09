"""How much of training is the environment: time inside the `VecEnv` while MaskablePPO learns."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from ple_gym import make_sb3
from ple_gym.bench.report import Measurement, at_most
from ple_gym.envs.registration import environment_id

LANES = 64
SHARE_LIMIT = 5  # percent
STEPS, ROUNDS, BATCH, EPOCHS = 128, 2, 1024, 10  # per lane and round; the learner's other settings are its defaults

_T = TypeVar("_T")


class Timed(VecEnvWrapper):
    """Adds up the time that a learner spends in its environment."""

    seconds = 0.0

    def reset(self) -> Any:
        """Reset all lanes."""
        return self._timed(self.venv.reset)

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        """Take the actions."""
        self._timed(lambda: self.venv.step_async(actions))

    def step_wait(self) -> Any:
        """Carry them out."""
        return self._timed(self.venv.step_wait)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
        """Call a method of the lanes: MaskablePPO asks for its masks in this way."""
        return self._timed(lambda: self.venv.env_method(method_name, *args, indices=indices, **options))

    def _timed(self, work: Callable[[], _T]) -> _T:
        started = time.perf_counter()
        result = work()
        self.seconds += time.perf_counter() - started
        return result


class Free(VecEnv):
    """Costs nothing: the same answer each time, of the shapes of another environment."""

    def __init__(self, like: VecEnv) -> None:
        super().__init__(like.num_envs, like.observation_space, like.action_space)
        self.observation = like.reset()
        self.answer: Any = (
            self.observation,
            np.zeros(like.num_envs),
            np.zeros(like.num_envs, np.bool_),
            [{} for _ in range(like.num_envs)],
        )
        self.masks: list[Any] = like.env_method("action_masks")

    def reset(self) -> Any:
        """Return the observation."""
        return self.observation

    def step_async(self, actions: Any) -> None:
        """Forget the actions."""

    def step_wait(self) -> Any:
        """Return the answer."""
        return self.answer

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
        """Return the masks."""
        return self.masks

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return nothing, for each lane."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Forget the value."""

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No."""
        return [False] * self.num_envs

    def close(self) -> None:
        """Do nothing."""


def training_row(name: str, repeats: int) -> Measurement:
    """The environment's share, in turns with that of an environment which costs nothing."""
    envs = make_sb3(environment_id("Storm"), num_envs=LANES, seed=0)
    free = Free(envs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _learn(free, rounds=1)  # the first time, libraries prepare themselves
        turns = [(_learn(envs), _learn(free)) for _ in range(repeats)]
    finally:
        torch.set_num_threads(threads)
        envs.close()
    ours, theirs = zip(*turns, strict=True)
    note = "; ".join(
        f"{of}: {median(pace for _, pace in each):,.0f} steps/s, {median(share for share, _ in each):.2f} %"
        for of, each in (("this", ours), ("a free environment", theirs))
    )
    return at_most(name, median(share for share, _ in ours), "%", SHARE_LIMIT, note)


def _learn(envs: VecEnv, rounds: int = ROUNDS) -> tuple[float, float]:
    """Learn for some rounds; percent of the time that was the environment's, and steps per second."""
    timed = Timed(envs)
    model = MaskablePPO(
        "MlpPolicy", timed, n_steps=STEPS, batch_size=BATCH, n_epochs=EPOCHS, device="cpu", seed=0, verbose=0
    )
    timed.seconds = 0.0
    started = time.perf_counter()
    model.learn(rounds * STEPS * envs.num_envs)
    seconds = time.perf_counter() - started
    return 100 * timed.seconds / seconds, rounds * STEPS * envs.num_envs / seconds
