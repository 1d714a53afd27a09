"""The vector environment: every lane is the single environment of its seed, whatever happens in the other lanes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from worlds import contended_scenarios

from ple_gym.env import PleEnv
from ple_gym.scenario import Scenario
from ple_gym.vector import PleVectorEnv

MODES = list(AutoresetMode)
#: Short runs, so that there are many of them.
SHORT = {"guest.vcpus": 8, "guest.transactions": 8, "guest.sections": 3}


def same(one: Any, two: Any) -> bool:
    """Whether two observations or infos are equal, dtypes and all."""
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    one, two = np.asarray(one), np.asarray(two)
    if one.dtype == object and one.ndim == 0:
        return bool(one[()] == two[()])
    if one.dtype == object:
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def alike(ours: tuple, theirs: tuple) -> bool:
    """Whether two resets or steps are the same. After a partial reset we tell the masks of all lanes, not of some."""
    infos, others = dict(ours[-1]), dict(theirs[-1])
    if len(ours) == 2:
        mask, known, other = infos.pop("action_mask"), others.pop("_action_mask"), others.pop("action_mask")
        assert infos.pop("_action_mask").all() and same(mask[known], other[known])
    return same(ours[:-1], theirs[:-1]) and same(infos, others)


def walk(envs: VectorEnv, steps: int, seed: int) -> Iterator[tuple]:
    """Random legal actions, the same for equal masks; lanes that nobody resets are reset when they have ended."""
    rng = np.random.default_rng(seed)
    observation, infos = envs.reset(seed=seed)
    yield observation, infos
    disabled = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for _ in range(steps):
        mask = infos["action_mask"]
        step = envs.step(np.where(mask, rng.random(mask.shape), -1).argmax(axis=1))
        yield step
        infos, over = step[4], step[2] | step[3]
        if disabled and over.any():
            observation, fresh = envs.reset(options={"reset_mask": over})
            yield observation, fresh
            infos = {"action_mask": np.where(over[:, None], fresh["action_mask"], infos["action_mask"])}


def singles(count: int, mode: AutoresetMode, max_steps: int | None = None, **options: Any) -> SyncVectorEnv:
    """The same as single environments, stepped by Gymnasium."""

    def make() -> gym.Env:
        env = PleEnv(**options)
        return TimeLimit(env, max_steps) if max_steps else env

    return SyncVectorEnv([make] * count, autoreset_mode=mode)


# ------------------------------------------------------------------------------------------------ lanes against singles


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", [{}, {"observation": "tokens", "information": "oracle", "reward": "fair"}], ids=str)
def test_lanes_are_single_environments(mode: AutoresetMode, threads: int, options: dict[str, Any]) -> None:
    """Observations, rewards, flags and infos, bit for bit, in every mode, with any number of threads."""
    options = {"scenario": "Storm", "overrides": SHORT, **options}
    ours = PleVectorEnv(num_envs=5, autoreset_mode=mode, threads=threads, **options)
    theirs = singles(5, mode, **options)
    ended = 0
    for one, two in zip(walk(ours, 600, seed=3), walk(theirs, 600, seed=3), strict=True):
        assert alike(one, two)
        ended += (one[2] | one[3]).sum() if len(one) == 5 else 0
    assert ended > 10


@settings(max_examples=40)
@given(contended_scenarios(), st.integers(0, 2**62), st.sampled_from(MODES))
def test_lanes_are_single_environments_in_random_worlds(scenario: Scenario, seed: int, mode: AutoresetMode) -> None:
    options = {"scenario": scenario, "observation": "tokens", "information": "introspection"}
    try:
        steps = list(walk(singles(3, mode, **options), 40, seed))
    except RuntimeError:  # a world with nothing to decide
        assume(False)
    for one, two in zip(walk(PleVectorEnv(num_envs=3, autoreset_mode=mode, **options), 40, seed), steps, strict=True):
        assert alike(one, two)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_step_limit_truncates(mode: AutoresetMode) -> None:
    """As Gymnasium's TimeLimit does; what became of the run is told too."""
    ours = PleVectorEnv(num_envs=3, scenario="Storm", autoreset_mode=mode, max_episode_steps=7)
    theirs = singles(3, mode, max_steps=7, scenario="Storm")
    for one, two in zip(walk(ours, 50, seed=1), walk(theirs, 50, seed=1), strict=True):
        assert all(same(a, b) for a, b in zip(one[:-1], two[:-1], strict=True))
        assert same(one[-1]["action_mask"], two[-1]["action_mask"])
        if len(one) == 5 and one[3].any():
            infos = one[-1]["final_info"] if mode is AutoresetMode.SAME_STEP else one[-1]
            assert not infos["ple_episode"]["finished"].any()


def test_threads_do_not_matter() -> None:
    for one, two in zip(
        walk(PleVectorEnv(num_envs=300, threads=1), 20, seed=0),
        walk(PleVectorEnv(num_envs=300, threads=7), 20, seed=0),
        strict=True,
    ):
        assert same(one, two)
