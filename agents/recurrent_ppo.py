"""RecurrentPPO: a network with a memory (LSTM), for what can only be seen over several exits. It knows no masks.

An illegal action defers to the host. The kernel has no such network, so the policy is run by torch (`torch_policy.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import RecurrentPPO

from agents import ppo, sb3
from agents.torch_policy import TorchPolicy, layers

NAME = "recurrent-ppo"


@dataclass(frozen=True)
class Options(ppo.Options):
    """RecurrentPPO, without masks."""

    validate: int = 10
    """how often to measure the policy on validation seeds; the best one is kept"""
    hidden: int = 32
    """units of the LSTM, and of the hidden layer behind it, of actor and critic"""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    shape = layers("torch-lstm", options.hidden)
    return ppo.build(RecurrentPPO, "MlpLstmPolicy", sb3.make_envs(options), options, shape)


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, build(options), TorchPolicy.of)
