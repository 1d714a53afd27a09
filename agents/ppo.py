"""What all kinds of PPO share: options, how a model is made from them, and what its critic begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents import common
from ple_gym.adapters.sb3 import PleVecEnv
from ple_gym.adapters.semi_markov import semi_markov


@dataclass(frozen=True)
class Options(common.Options):
    """What every PPO has."""

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
    ent_coef: float = 0.003
    """weight of the entropy bonus, which keeps the policy from resuming the spinner for ever"""
    clip_range: float = 0.2
    """how far a probability may move in an update"""
    temperature: float = 0.25
    """of the policy that is kept: 0 takes the best action always, which may let everybody spin for ever where a draw,
    as in training (1) or sharper, does not"""
    expected_waste: float = 1.0
    """share of the machine that the critic expects to be lost before it has learned anything"""
    hidden: int = 64
    """units in each hidden layer, of actor and critic"""


def build(
    learner: type[OnPolicyAlgorithm], policy: Any, envs: PleVecEnv, options: Options, policy_kwargs: dict[str, Any]
) -> Any:
    """Make a kind of PPO with discounts by elapsed time, whose critic begins with `expected_waste` for ever.

    To a critic that expects no loss every transition looks bad in proportion to its length. The policy then learns to
    resume the spinner, whose next decision is only 2 us away, before the critic has learned better.
    """
    model = semi_markov(learner)(
        policy,
        envs,
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
        policy_kwargs=policy_kwargs,
    )
    with torch.no_grad():
        model.policy.value_net.bias.fill_(-options.expected_waste * options.horizon_ms)
    return model
