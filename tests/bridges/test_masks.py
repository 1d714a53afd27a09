"""Masks in observations: the same environment, with its mask where RLlib, TorchRL and skrl look for it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import ple_gym  # noqa: F401
from ple_gym.adapters.masks import mask_in_observation

MODES = list(AutoresetMode)
STEPS = 90  # with episodes of 25 decisions


def unmasked(observation: Any, mask: Any) -> Any:
    """The observation without its mask, which must be the one of the infos."""
    assert list(observation) == ["action_mask", "observations"] or list(observation) == ["observations", "action_mask"]
    assert observation["action_mask"].dtype == np.bool_
    np.testing.assert_array_equal(observation["action_mask"], mask)
    assert not np.shares_memory(observation["action_mask"], mask)
    return observation["observations"]


@pytest.mark.parametrize("observation", ["flat", "tokens"])
def test_a_single_environment_is_the_same_but_for_the_mask(observation: str) -> None:
    bare = gym.make("PLE/TicketOrder-v1", observation=observation)
    masked = mask_in_observation(gym.make("PLE/TicketOrder-v1", observation=observation))
    rng = np.random.default_rng(0)
    seen, info = bare.reset(seed=3)
    found, same_info = masked.reset(seed=3)
    for _ in range(60):
        assert masked.observation_space.contains(found)
        np.testing.assert_equal(unmasked(found, same_info["action_mask"]), seen)
        np.testing.assert_equal(same_info, info)
        action = rng.choice(np.flatnonzero(info["action_mask"]))
        seen, *outcome, info = bare.step(action)
        found, *same_outcome, same_info = masked.step(action)
        assert outcome == same_outcome
        if outcome[1] or outcome[2]:
            seen, info = bare.reset()
            found, same_info = masked.reset()


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version.*")
def test_gymnasium_accepts_the_masked_environment() -> None:
    check_env(mask_in_observation(gym.make("PLE/TicketOrder-v1")), skip_render_check=True)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_lanes_are_the_same_but_for_the_masks(mode: AutoresetMode) -> None:
    options = {"num_envs": 3, "autoreset_mode": mode, "max_episode_steps": 25}
    bare, inner = gym.make_vec("PLE/Storm-v1", **options), gym.make_vec("PLE/Storm-v1", **options)
    masked = mask_in_observation(inner)
    rng = np.random.default_rng(0)
    seen, infos = bare.reset(seed=3)
    found, same_infos = masked.reset(seed=3)
    ends = 0
    for _ in range(STEPS):
        assert masked.observation_space.contains(found)
        np.testing.assert_array_equal(unmasked(found, same_infos["action_mask"]), seen)
        actions = np.where(infos["action_mask"], rng.random(infos["action_mask"].shape), -1).argmax(axis=1)
        seen, rewards, terminated, truncated, infos = bare.step(actions)
        found, *same_outcome, same_infos = masked.step(actions)
        np.testing.assert_equal(same_outcome, [rewards, terminated, truncated])
        over = terminated | truncated
        ends += over.sum()
        if mode is AutoresetMode.SAME_STEP and over.any():
            for lane in np.flatnonzero(over):
                last = same_infos["final_obs"][lane]
                assert masked.single_observation_space.contains(last)
                mask = infos["final_info"]["action_mask"][lane]
                np.testing.assert_array_equal(unmasked(last, mask), infos["final_obs"][lane])
            infos.pop("final_obs")
            same_infos.pop("final_obs")
        np.testing.assert_equal(same_infos, infos)
        if mode is AutoresetMode.DISABLED and over.any():
            seen, infos = bare.reset(options={"reset_mask": over})
            found, same_infos = masked.reset(options={"reset_mask": over})
    assert ends >= 3


def test_what_has_no_mask_is_refused() -> None:
    with pytest.raises(TypeError, match="Discrete"):
        mask_in_observation(gym.make("Pendulum-v1"))
    with pytest.raises(TypeError, match="str is no Gymnasium environment"):
        mask_in_observation("PLE/Storm-v1")  # type: ignore[call-overload]
    with pytest.raises(KeyError, match="action_mask"):
        mask_in_observation(gym.make("CartPole-v1")).reset()
