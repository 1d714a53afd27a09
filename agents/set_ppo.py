"""MaskablePPO with the set policy (`set_network.py`): one set of weights for any number of vCPUs, in any order.

With `--privileged-critic` the critic sees holder and ticket order while the actor sees what the hypervisor does: less
variance while training, and nothing more is needed to run the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO

from agents import common, sb3
from agents.set_network import SetPolicy
from ple_gym.adapters.semi_markov import semi_markov
from ple_gym.lanes import INFORMATION
from ple_gym.observe import vcpu_features
from ple_gym.policies.exported import Network

NAME = "set-ppo"


@dataclass(frozen=True)
class Options(common.Options):
    """MaskablePPO with the set policy."""

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
    hidden: int = 32
    """units in each hidden layer, of actor and critic"""
    privileged_critic: bool = False
    """let the critic see what only the guest knows (information level oracle)"""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    level = "oracle" if options.privileged_critic else options.information
    model = semi_markov(MaskablePPO)(
        SetPolicy,
        sb3.make_envs(options, observation="tokens", information=level),
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
        policy_kwargs={
            "actor_features": vcpu_features(INFORMATION[options.information]),
            "hidden": options.hidden,
        },
    )
    sb3.start_values_at(model, options)
    return model


def network(model: Any) -> Network:
    """The actor as the kernel runs it."""
    actor = model.policy.actor
    level = next(name for name, code in INFORMATION.items() if vcpu_features(code) == actor.pool.features)
    return Network("set", level, 0, actor.vcpu2.out_features, actor.weights(), {})


def train(options: Options) -> Path:
    """Train; where the policy is."""
    return sb3.train(NAME, options, build(options), network)
