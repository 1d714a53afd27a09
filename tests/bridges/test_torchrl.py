"""TorchRL: specs, masks and resets, for a single environment and for native lanes (docs/bridges.md)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import ple_gym  # noqa: F401
from ple_gym.adapters.masks import mask_in_observation

pytest.importorskip("torchrl")
torch = pytest.importorskip("torch")

from tensordict.nn import TensorDictModule  # noqa: E402
from torchrl.envs import ActionMask, GymEnv, GymWrapper, TransformedEnv, check_env_specs  # noqa: E402
from torchrl.modules import MaskedCategorical, ProbabilisticActor  # noqa: E402


def in_torchrl(env: Any) -> TransformedEnv:
    return TransformedEnv(GymWrapper(mask_in_observation(env), categorical_action_encoding=True), ActionMask())


def lanes(**options: Any) -> gym.vector.VectorEnv:
    return gym.make_vec("PLE/Storm-v1", num_envs=4, autoreset_mode="Disabled", **options)


def legal(rollout: Any) -> bool:
    assert not rollout["action_mask"].all()
    return bool(rollout["action_mask"].gather(-1, rollout["action"].unsqueeze(-1)).all())


@pytest.mark.parametrize("kind", ["single", "lanes"])
def test_specs_are_what_the_environment_gives(kind: str) -> None:
    env = in_torchrl(gym.make("PLE/Storm-v1") if kind == "single" else lanes())
    check_env_specs(env)
    assert env.observation_spec["action_mask"].dtype == torch.bool


@pytest.mark.parametrize("kind", ["single", "lanes"])
def test_random_actions_are_legal_through_many_episodes(kind: str) -> None:
    options = {"max_episode_steps": 20}
    env = in_torchrl(gym.make("PLE/Storm-v1", **options) if kind == "single" else lanes(**options))
    rollout = env.rollout(65, break_when_any_done=False)
    assert legal(rollout)
    assert (rollout["next", "truncated"].squeeze(-1).sum(-1) == 3).all()


def test_a_masked_policy_is_legal_and_its_rollout_is_what_the_lanes_gave() -> None:
    env, direct = in_torchrl(lanes()), lanes()
    torch.manual_seed(0)
    size, actions = env.observation_spec["observations"].shape[-1], env.action_spec.space.n
    network = TensorDictModule(torch.nn.Linear(size, actions), ["observations"], ["logits"])
    actor = ProbabilisticActor(
        network, in_keys={"logits": "logits", "mask": "action_mask"}, distribution_class=MaskedCategorical
    )
    env.set_seed(7)
    rollout = env.rollout(40, actor)
    assert legal(rollout)
    direct.reset(seed=7)
    observations, _ = direct.reset()
    for t in range(40):
        np.testing.assert_array_equal(rollout["observations"][:, t], observations)
        observations, rewards, *_ = direct.step(rollout["action"][:, t].numpy())
        np.testing.assert_array_equal(rollout["next", "reward"][:, t, 0], rewards.astype(np.float32))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the processes are TorchRL's business
def test_environments_made_from_an_id_in_processes_of_their_own_go_on_through_many_episodes() -> None:
    env = GymEnv("ple_gym:PLE/HolderPreempted-v0", num_envs=3, infos="uniform")
    rollout = env.rollout(30, break_when_any_done=False)
    env.close()
    assert rollout.batch_size == (3, 30) and rollout["next", "done"].sum() > 6
    assert rollout["action_mask"].shape == (3, 30, 3) and rollout["action_mask"][..., -1].all()
    seeds = rollout["seed"]
    assert all(
        len(lane.unique()) == over.sum() + 1
        for lane, over in zip(seeds, rollout["next", "done"][:, :-1].squeeze(-1), strict=True)
    )


@pytest.mark.filterwarnings("ignore::UserWarning:torchrl")
def test_lanes_that_are_reset_in_the_step_of_their_end_need_uniform_infos() -> None:
    env = GymWrapper(
        mask_in_observation(
            gym.make_vec("PLE/HolderPreempted-v0", num_envs=4, autoreset_mode="SameStep", infos="uniform")
        )
    )
    rollout = env.rollout(30, break_when_any_done=False)
    assert rollout.batch_size == (4, 30) and rollout["next", "done"].sum() > 10


@pytest.mark.parametrize("many", [False, True], ids=["single", "many"])
def test_a_rollout_of_a_policy_that_defers_always_ends_at_the_step_limit_of_the_id(many: bool) -> None:
    if many:
        made = gym.make_vec("PLE/TicketOrder-v1", num_envs=2, autoreset_mode="Disabled")
    else:
        made = gym.make("PLE/TicketOrder-v1")
    env = GymWrapper(made, categorical_action_encoding=True)
    policy = TensorDictModule(lambda seen: torch.full(seen.shape[:-1], 6), ["observation"], ["action"])
    rollout = env.rollout(5000, policy)
    assert rollout.shape[-1] == 2000
    assert rollout["next", "truncated"][..., -1, :].all() and not rollout["next", "terminated"].any()


@pytest.mark.parametrize("kind", ["single", "many"])
def test_an_id_is_enough(kind: str) -> None:
    env = (
        GymWrapper(gym.make("PLE/HolderPreempted-v0")) if kind == "single" else GymWrapper(lanes(max_episode_steps=10))
    )
    check_env_specs(env)
    assert env.rollout(30, break_when_any_done=False)["next", "done"].any()
