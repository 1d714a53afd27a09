"""PPO that does not know which actions are legal: what masks are worth. An illegal action defers to the host.

Inside the kernel a policy is always masked, so the file that this writes plays better than its training did.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO
from torch import nn

from agents import maskable_ppo, sb3
from ple_gym.adapters.semi_markov import semi_markov

NAME = "ppo-unmasked"


@dataclass(frozen=True)
class Options(maskable_ppo.Options):
    """PPO without masks; the options are those of maskable-ppo."""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    model = semi_markov(PPO)(
        "MlpPolicy",
        sb3.make_envs(options),
        n_steps=options.n_steps,
        batch_size=options.batch_size,
        n_epochs=options.n_epochs,
        learning_rate=options.learning_rate,
        horizon_ms=options.horizon_ms,
        gae_lambda=options.gae_lambda,
        ent_coef=options.ent_coef,
        clip_range=options.clip_range,
        seed=options.seed,
        device="cpu",
        policy_kwargs={"net_arch": [options.hidden] * 2, "activation_fn": nn.ReLU},
    )
    sb3.start_values_at(model, options)
    return model


def train(options: Options) -> Path:
    """Train; where the policy is."""
    return sb3.train(NAME, options, build(options), maskable_ppo.network)
