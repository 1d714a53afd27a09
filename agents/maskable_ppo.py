"""MaskablePPO with a multi-layer perceptron over the flat observation: the reference learner.

Its input layer knows each vCPU by its number, so it has to learn every lesson once per vCPU; `set_ppo.py` does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO

from agents import ppo, sb3
from agents.torch_policy import layers
from ple_gym.learned.file import Network

NAME = "maskable-ppo"


@dataclass(frozen=True)
class Options(ppo.Options):
    """MaskablePPO with a multi-layer perceptron."""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    return ppo.build(MaskablePPO, "MlpPolicy", sb3.make_envs(options), options, layers("torch-mlp", options.hidden))


def network(model: Any) -> Network:
    """The actor as the kernel runs it."""
    first, _, second, _ = model.policy.mlp_extractor.policy_net
    interface = model.get_env().envs.interface
    weights = sb3.mlp_weights(first, second, model.policy.action_net)
    return Network("mlp", interface.information, interface.vcpus, first.out_features, weights, {})


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, build(options), network)
