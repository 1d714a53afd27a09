"""Behaviour cloning of the oracle, then PPO: the set policy begins as a guess of who holds the lock and who is next.

The oracle knows what the student cannot see, so the student is taught with soft targets, the whole line in the order in
which it should run, and ranks what is likely. PPO then learns what the guess is worth; its critic learns first, alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents import sb3, set_ppo
from ple_gym.view.features import names_at, seen_in
from ple_gym.view.record import ORACLE

NAME = "bc"
FEATURES = names_at("oracle")
NOT_IN_LINE = 1.25  # `line` is 1.5 for those who are not, below 1 for those who are


@dataclass(frozen=True)
class Options(set_ppo.Options):
    """Behaviour cloning of the oracle, then PPO with the set policy."""

    learning_rate: float = 5e-4
    """of Adam, for PPO"""
    expert_decisions: int = 20_000
    """decisions of the oracle to learn from"""
    softness: float = 0.3
    """weight of each next one in the line, as a share of the one before"""
    bc_epochs: int = 20
    """times that each of them is learned from"""
    bc_learning_rate: float = 2e-3
    """of Adam, for cloning"""
    critic_steps: int = 10_000
    """decisions of PPO before the actor begins to learn too"""


def oracle_targets(
    answers: npt.NDArray[np.int64],
    vcpus: npt.NDArray[np.float32],
    masks: npt.NDArray[np.bool_],
    softness: float,
    features: tuple[str, ...] = FEATURES,
) -> npt.NDArray[np.float32]:
    """Softened `answers` [B] of the rule `oracle`, as probabilities [B, V + 1], whose argmax they are.

    Where the answer is the asker, it has all weight. Else each vCPU of the line (holder, then tickets in order) that
    may run has `softness` of the one before, and the answer, the first of them, most. vcpus: [B, V, F], `tokens` at
    the oracle's level, of `features`; masks: [B, V + 1].
    """
    column = {name: vcpus[..., features.index(name)] for name in features}
    batch, count = vcpus.shape[:2]
    rows = np.arange(batch)
    asker = column["asker"].argmax(axis=1)
    own_line = column["line"][rows, asker][:, None]
    in_line = column["line"] < NOT_IN_LINE
    ahead = (column["holder"] > 0) | (in_line & (column["line"] < own_line))
    chain = np.where(ahead & masks[:, :-1], np.where(column["holder"] > 0, -1.0, column["line"]), np.inf)
    chain[rows, asker] = np.inf
    resumes = answers == asker
    place = chain.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    weights = np.where(np.isinf(chain), 0.0, softness ** place.astype(float))
    weights[resumes] = 0.0
    weights[rows[resumes], asker[resumes]] = 1.0
    targets = np.zeros((batch, count + 1), np.float32)
    targets[:, :count] = weights / weights.sum(axis=1, keepdims=True)
    return targets


def experience(options: Options) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Observations (vcpus [B, V, F], host [B, G]), masks and targets [B, V + 1] of lanes that the oracle drives."""
    envs = sb3.make_envs(options, observation="tokens", information="oracle")
    envs.seed(options.first_world())
    observation, features = envs.reset(), seen_in(options.load_scenario()).vcpu_names(ORACLE)
    kept: list[tuple[Any, ...]] = []
    for _ in range(max(1, options.expert_decisions // options.lanes)):
        masks = envs.action_masks()
        answers = envs.envs.ask("oracle")
        targets = oracle_targets(answers, observation["vcpus"], masks, options.softness, features)
        kept.append((observation["vcpus"], observation["host"], masks, targets))
        observation, *_ = envs.step(answers)
    vcpus, host, masks, targets = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*kept, strict=True))
    return {"vcpus": vcpus, "host": host}, masks, targets


def clone(actor: torch.nn.Module, options: Options) -> float:
    """Teach an actor what the oracle does; the mean cross-entropy of the last epoch."""
    observation, masks, targets = experience(options)
    optimizer = torch.optim.Adam(actor.parameters(), options.bc_learning_rate)
    generator = torch.Generator().manual_seed(options.seed)
    losses: list[float] = []
    for _ in range(options.bc_epochs):
        losses = []
        for batch in torch.randperm(len(masks), generator=generator).split(options.batch_size):
            scores = actor(observation["vcpus"][batch], observation["host"][batch])
            scores = scores.masked_fill(~masks[batch], -1e8)
            loss = torch.nn.functional.cross_entropy(scores, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return float(np.mean(losses))


class Training(sb3.Training):
    """Clones before the first decision of PPO, whose critic learns alone until the actor is let loose."""

    def begin(self) -> None:
        """Teach the actor."""
        loss = clone(self.learning.policy.actor, self.options)
        self.learning.logger.record("ple/cloning_loss", loss)

    def _on_rollout_start(self) -> None:
        frozen = self.learning.num_timesteps < self.options.critic_steps
        self.learning.policy.actor.requires_grad_(not frozen)
        super()._on_rollout_start()


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, set_ppo.build(options), set_ppo.network, Training)
