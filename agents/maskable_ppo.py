"""MaskablePPO with a multi-layer perceptron over the flat observation: the reference learner.

Its input layer knows each vCPU by its number, so it has to learn every lesson once per vCPU; `set_ppo.py` does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO
from torch import nn

from agents import common, sb3
from ple_gym.adapters.semi_markov import semi_markov
from ple_gym.policies.exported import Network

NAME = "maskable-ppo"


@dataclass(frozen=True)
class Options(common.Options):
    """MaskablePPO with a multi-layer perceptron."""

    n_steps: int = 32
    """decisions of a lane between two updates"""
    batch_size: int = 256
    """transitions in a gradient step"""
    n_epochs: int = 4
    """times that each transition is learned from"""
    learning_rate: float = 1e-3
    """of Adam"""
    horizon_ms: float = 1.0
    """simulated time in which a discount falls to 1/e"""
    gae_lambda: float = 0.99
    """decay per decision of generalised advantage estimation"""
    ent_coef: float = 0.01
    """weight of the entropy bonus, which keeps the policy from resuming the spinner for ever"""
    clip_range: float = 0.2
    """how far a probability may move in an update"""
    temperature: float = 0.25
    """of the policy that is kept: 0 takes the best action always, which may let everybody spin for ever where a draw,
    as in training (1) or sharper, does not"""
    expected_waste: float = 1.0
    """share of the machine that the critic expects to be lost before it has learned anything"""
    hidden: int = 64
    """units in each of the two hidden layers, of actor and critic"""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    model = semi_markov(MaskablePPO)(
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


def network(model: Any) -> Network:
    """The actor as the kernel runs it."""
    first, _, second, _ = model.policy.mlp_extractor.policy_net
    interface = model.get_env().envs.interface
    weights = sb3.mlp_weights(first, second, model.policy.action_net)
    return Network("mlp", interface.information, interface.vcpus, first.out_features, weights, {})


def train(options: Options) -> Path:
    """Train; where the policy is."""
    return sb3.train(NAME, options, build(options), network)
