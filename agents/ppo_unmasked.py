"""PPO that does not know which actions are legal: what masks are worth. An illegal action defers to the host.

Inside the kernel a policy is always masked, so the file that this writes plays better than its training did.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO

from agents import maskable_ppo, ppo, sb3

NAME = "ppo-unmasked"


@dataclass(frozen=True)
class Options(ppo.Options):
    """PPO without masks."""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    return ppo.build(PPO, "MlpPolicy", sb3.make_envs(options), options, ppo.perceptron(options))


def train(options: Options) -> Path:
    """Train; where the policy is."""
    return sb3.train(NAME, options, build(options), maskable_ppo.network)
