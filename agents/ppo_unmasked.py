"""PPO that does not know which actions are legal: what masks are worth. An illegal action defers to the host.

The kernel masks every policy, so this one is run by torch (`torch_policy.py`), without masks as it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO

from agents import ppo, sb3
from agents.torch_policy import TorchPolicy, layers

NAME = "ppo-unmasked"


@dataclass(frozen=True)
class Options(ppo.Options):
    """PPO without masks."""

    validate: int = 10
    """how often to measure the policy on validation seeds; the best one is kept"""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    return ppo.build(PPO, "MlpPolicy", sb3.make_envs(options), options, layers("torch-mlp", options.hidden))


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, build(options), TorchPolicy.of)
