"""skrl: its PPO trains on native lanes with masks (docs/bridges.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from referee import Referee

import ple_gym  # noqa: F401
from ple_gym.adapters.masks import mask_in_observation

pytest.importorskip("skrl")
torch = pytest.importorskip("torch")

from skrl.agents.torch.base import ExperimentCfg  # noqa: E402
from skrl.agents.torch.ppo import PPO, PPO_CFG  # noqa: E402
from skrl.envs.wrappers.torch import wrap_env  # noqa: E402
from skrl.memories.torch import RandomMemory  # noqa: E402
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model  # noqa: E402
from skrl.trainers.torch import SequentialTrainer  # noqa: E402
from skrl.utils.spaces.torch import compute_space_size, unflatten_tensorized_space  # noqa: E402


class Part(Model):
    """One linear layer on the observations; the mask is beside them."""

    def __init__(self, env: Any, outputs: int) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        self.layer = torch.nn.Linear(compute_space_size(env.observation_space["observations"]), outputs)

    def parts(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        observation = unflatten_tensorized_space(self.observation_space, inputs["observations"])
        return self.layer(observation["observations"]), observation["action_mask"].bool()


class Policy(CategoricalMixin, Part):
    def __init__(self, env: Any) -> None:
        Part.__init__(self, env, int(env.action_space.n))
        CategoricalMixin.__init__(self)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[Any, dict[str, Any]]:
        logits, mask = self.parts(inputs)
        return logits.masked_fill(~mask, torch.finfo(logits.dtype).min), {}


class Value(DeterministicMixin, Part):
    def __init__(self, env: Any) -> None:
        Part.__init__(self, env, 1)
        DeterministicMixin.__init__(self)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[Any, dict[str, Any]]:
        return self.parts(inputs)[0], {}


def test_ppo_trains_and_does_nothing_illegal(tmp_path: Path) -> None:
    lanes = gym.make_vec("PLE/Storm-v1", num_envs=8, autoreset_mode="SameStep", max_episode_steps=20)
    referee = Referee(lanes)
    env = wrap_env(mask_in_observation(referee), verbose=False)
    policy = Policy(env)
    before = policy.layer.weight.clone()
    agent = PPO(
        models={"policy": policy, "value": Value(env)},
        memory=RandomMemory(memory_size=16, num_envs=env.num_envs, device=env.device),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
        cfg=PPO_CFG(
            rollouts=16, experiment=ExperimentCfg(directory=str(tmp_path), write_interval=0, checkpoint_interval=0)
        ),
    )
    cfg = {"timesteps": 64, "headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    SequentialTrainer(env=env, agents=agent, cfg=cfg).train()
    referee.approve()
    assert referee.decisions == 8 * 64
    assert torch.isfinite(policy.layer.weight).all() and not torch.equal(policy.layer.weight, before)
