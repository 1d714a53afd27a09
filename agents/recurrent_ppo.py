"""RecurrentPPO (an LSTM), as sb3-contrib has it: no masks, so illegal actions defer, and one row of a table.

It discounts per decision (`gamma`), not by elapsed time: its rollout buffer cuts sequences in a way that `semi_markov`
does not know and refuses. The kernel runs no LSTM either: the file that it writes is torch's weights, and
`evaluate` plays it through the environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import RecurrentPPO

from agents import common, sb3

NAME = "recurrent-ppo"


@dataclass(frozen=True)
class Options(common.Options):
    """RecurrentPPO: an LSTM, without masks and without discounts by elapsed time."""

    n_steps: int = 64
    """decisions of a lane between two updates"""
    batch_size: int = 256
    """transitions in a gradient step"""
    n_epochs: int = 4
    """times that each transition is learned from"""
    learning_rate: float = 5e-4
    """of Adam"""
    gamma: float = 0.995
    """discount per decision"""
    gae_lambda: float = 0.95
    """decay per decision of generalised advantage estimation"""
    ent_coef: float = 0.01
    """weight of the entropy bonus"""
    hidden: int = 64
    """units of the LSTM, and of the layer behind it"""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    return RecurrentPPO(
        "MlpLstmPolicy",
        sb3.make_envs(options),
        n_steps=options.n_steps,
        batch_size=options.batch_size,
        n_epochs=options.n_epochs,
        learning_rate=options.learning_rate,
        gamma=options.gamma,
        gae_lambda=options.gae_lambda,
        ent_coef=options.ent_coef,
        seed=options.seed,
        device="cpu",
        policy_kwargs={"net_arch": [options.hidden], "lstm_hidden_size": options.hidden},
    )


def train(options: Options) -> Path:
    """Train; where its scores are."""
    return sb3.train(NAME, options, build(options), None)
