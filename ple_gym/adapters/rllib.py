"""RLlib (new API stack): the environment with masks, and a PPO module that cannot choose what they forbid.

    config = PPOConfig().environment(rllib.MASKED, env_config={"id": "PLE/Storm-v1"})
    config.env_runners(gym_env_vectorize_mode="vector_entry_point", num_envs_per_env_runner=64)
    config.rl_module(rl_module_spec=rllib.masked_module())

Importing this module imports Ray (`pip install 'ple-gym[rllib]'`) and registers `MASKED` there.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import VectorEnv

import ple_gym  # noqa: F401  registers the ids, in RLlib's workers too
from ple_gym.adapters.masks import ACTION_MASK, OBSERVATIONS, mask_in_observation
from ple_gym.errors import ArgumentError
from ple_gym.extras import needs

with needs("rllib"):
    import torch
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.rl_module.apis import ValueFunctionAPI
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.core.rl_module.torch import TorchRLModule
    from ray.tune.registry import register_env
    from torch import nn

MASKED = "ple_gym-masked"  # what `config.environment` is given


def make_masked(config: Mapping[str, Any]) -> gym.Env[Any, Any] | VectorEnv[Any, Any, Any]:
    """The environment `config["id"]` with its masks in the observations.

    Args:
        config: `id`, and whatever else its constructor takes. RLlib adds `num_envs` where it wants a vector
            environment: then all of them are the lanes of one native one.

    Raises:
        KeyError: no `id`.
    """
    options = dict(config)
    name = options.pop("id")
    if "num_envs" in options:
        return mask_in_observation(gym.make_vec(name, **options))
    return mask_in_observation(gym.make(name, **options))


class MaskedModule(TorchRLModule, ValueFunctionAPI):
    """Actor and critic, two small networks side by side; illegal actions get the lowest logit there is.

    `model_config`: `{"hiddens": [64, 64]}`, the widths of both. Observations are those of `mask_in_observation`,
    `flat` (`tokens` are concatenated).
    """

    def setup(self) -> None:
        """Build the networks (RLlib calls this)."""
        space = self.observation_space
        if not isinstance(space, spaces.Dict) or ACTION_MASK not in space.spaces:
            raise ArgumentError(f"MaskedModule: the observations hold no masks; use the environment {MASKED!r}")
        widths = self.model_config.get("hiddens", [64, 64])
        inputs = spaces.flatdim(space[OBSERVATIONS])
        self.actor = _network([inputs, *widths, int(self.action_space.n)], 0.01)
        self.critic = _network([inputs, *widths, 1], 1.0)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        observation = batch[Columns.OBS]
        logits = self.actor(_flat(observation[OBSERVATIONS]))
        illegal = ~observation[ACTION_MASK].bool()
        # Finite: RLlib's entropy would be NaN with minus infinity.
        return {Columns.ACTION_DIST_INPUTS: logits.masked_fill(illegal, torch.finfo(logits.dtype).min)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Value of each observation (RLlib calls this)."""
        values: torch.Tensor = self.critic(_flat(batch[Columns.OBS][OBSERVATIONS])).squeeze(-1)
        return values


def masked_module(**model_config: Any) -> RLModuleSpec:
    """What `config.rl_module(rl_module_spec=...)` is given; the options are `MaskedModule`'s `model_config`."""
    return RLModuleSpec(module_class=MaskedModule, model_config=model_config)


def _flat(observations: torch.Tensor | Mapping[str, torch.Tensor]) -> torch.Tensor:
    if isinstance(observations, torch.Tensor):
        return observations
    return torch.cat([observations[name].flatten(-2 if name == "vcpus" else -1) for name in sorted(observations)], -1)


def _network(widths: list[int], last_gain: float) -> nn.Sequential:
    """Linear layers with tanh between them; a small last one starts near equal logits."""
    layers: list[nn.Module] = []
    for depth, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=2):
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight, last_gain if depth == len(widths) else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


register_env(MASKED, make_masked)
