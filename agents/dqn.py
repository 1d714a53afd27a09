"""DQN with masks, on SB3's: illegal actions have a value of minus infinity, so that neither the greedy policy nor the
maximum in the target takes them, and exploration draws among the legal ones.

The mask of a stored state is read from its observation: whoever is queued (here, if the scenario lets a pCPU run only
its own), the asker, and deferring.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor

from agents import common, sb3
from ple_gym.adapters.semi_markov import semi_markov
from ple_gym.learned.file import Network
from ple_gym.scenario import Scenario
from ple_gym.view.features import VCPU_FEATURES

NAME = "dqn"
ILLEGAL = -1e8


@dataclass(frozen=True)
class Options(common.Options):
    """DQN with masks in the target and in exploration."""

    learning_rate: float = 5e-4
    """of Adam"""
    batch_size: int = 256
    """transitions in a gradient step"""
    buffer_size: int = 50_000
    """transitions that are kept"""
    learning_starts: int = 5_000
    """decisions at random before the first gradient step, and again when a stopped training goes on with an empty
    buffer"""
    train_freq: int = 4
    """decisions of every lane between two rounds of gradient steps"""
    gradient_steps: int = 8
    """gradient steps in a round"""
    target_update_interval: int = 10_000
    """decisions between two updates of the target network"""
    horizon_ms: float = 0.5
    """simulated time in which a discount falls to 1/e"""
    exploration_fraction: float = 0.5
    """share of the training in which exploration falls to its last value"""
    exploration_final: float = 0.05
    """its last value: probability of a random legal action"""
    temperature: float = 0.02
    """of the policy that is kept, in milliseconds of lost machine as the values are: resuming a spinner for 2 us
    costs at most 0.002, so that values that are wrong by more may let everybody spin for ever"""
    expected_waste: float = 1.0
    """share of the machine that all actions are expected to lose before anything has been learned"""
    hidden: int = 64
    """units in each of the two hidden layers"""


def mask_of(observation: Tensor, vcpus: int, waiting: str = "queued") -> Tensor:
    """Legal actions of flat observations [B, length]: bool [B, V + 1]."""
    # These features come before those of any scheduler.
    asker, able = (VCPU_FEATURES.index(name) * vcpus for name in ("asker", waiting))
    may_run = observation[:, able : able + vcpus] + observation[:, asker : asker + vcpus] > 0.5
    return torch.cat([may_run, torch.ones_like(may_run[:, :1])], dim=1)


def waiting_feature(scenario: Scenario) -> str:
    """The feature of those that may be run."""
    return "here" if scenario.decision.actuator == "local" else "queued"


class MaskedQNetwork(QNetwork):
    """Action values, `ILLEGAL` for illegal actions; `waiting` is the feature of vCPUs that may be run."""

    waiting = "queued"

    def forward(self, obs: Tensor) -> Tensor:
        """Values [B, V + 1]."""
        legal = mask_of(obs, int(self.action_space.n) - 1, self.waiting)
        return super().forward(obs).masked_fill(~legal, ILLEGAL)


class MaskedDQNPolicy(DQNPolicy):
    """DQN's policy with masked action values."""

    def __init__(self, *args: Any, waiting: str = "queued", **options: Any) -> None:
        self.waiting = waiting
        super().__init__(*args, **options)

    def make_q_net(self) -> QNetwork:
        """The network."""
        network = MaskedQNetwork(**self._update_features_extractor(self.net_args, features_extractor=None))
        network.waiting = self.waiting
        return network.to(self.device)


class MaskedDQN(DQN):
    """DQN that explores among the legal actions, each lane for itself."""

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> Any:
        masks = np.stack(self.env.env_method("action_masks"))
        rate = 1.0 if self.num_timesteps < learning_starts else self.exploration_rate
        random = np.where(masks, np.random.random(masks.shape), -1).argmax(axis=1)
        greedy, _ = self.predict(self._last_obs, deterministic=True)
        actions = np.where(np.random.random(n_envs) < rate, random, greedy)
        return actions, actions


def build(options: Options) -> Any:
    """The model, with its lanes; its values begin with `expected_waste` for ever, for the reason of `ppo.build`."""
    envs = sb3.make_envs(options)
    model = semi_markov(MaskedDQN)(
        MaskedDQNPolicy,
        envs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        buffer_size=options.buffer_size,
        learning_starts=options.learning_starts,
        train_freq=options.train_freq,
        gradient_steps=options.gradient_steps,
        target_update_interval=options.target_update_interval,
        horizon_ms=options.horizon_ms,
        exploration_fraction=options.exploration_fraction,
        exploration_final_eps=options.exploration_final,
        seed=options.seed,
        device="cpu",
        policy_kwargs={"net_arch": [options.hidden] * 2, "waiting": waiting_feature(envs.envs.scenario)},
    )
    with torch.no_grad():
        for values in (model.q_net, model.q_net_target):
            values.q_net[-1].bias.fill_(-options.expected_waste * options.horizon_ms)
    return model


def network(model: Any) -> Network:
    """The action values as the kernel computes them; it masks by itself."""
    first, _, second, _, third = model.policy.q_net.q_net
    interface = model.get_env().envs.interface
    return Network(
        "mlp", interface.information, interface.vcpus, first.out_features, sb3.mlp_weights(first, second, third), {}
    )


class Training(sb3.Training):
    """Fills the buffer anew before it goes on with a stopped training."""

    def load(self, path: Path) -> None:
        """As its parent; SB3 counts decisions from the beginning of the training."""
        super().load(path)
        self.learning.learning_starts += self.learning.num_timesteps


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, build(options), network, Training)
