"""What one `Env.step` costs through Python, beside CartPole's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any, TypeAlias

import gymnasium
import numpy as np

from ple_gym.bench.report import Measurement, at_least
from ple_gym.envs.registration import environment_id

ENV_ID = environment_id("Storm")

Environment: TypeAlias = "gymnasium.Env[Any, Any]"
Episode: TypeAlias = tuple[int, list[int]]  # seed, actions


def single_rows(repeats: int) -> list[Measurement]:
    """`Env.step` as users call it, in turns with CartPole's."""
    names = ("single Env.step, Storm", "single Env.step, Storm : CartPole")
    try:
        env = gymnasium.make(ENV_ID)
    except gymnasium.error.Error:
        reason = f"{ENV_ID} is not registered"
        return [at_least(names[0], None, "1/s", 300_000, reason), at_least(names[1], None, "", 4, reason)]
    cart = gymnasium.make("CartPole-v1")
    ours, theirs = _episodes(env, 20_000), _episodes(cart, 5_000)
    pairs = [(_rate(env, ours), _rate(cart, theirs)) for _ in range(repeats)]
    steps, yardstick = (median(rates) for rates in zip(*pairs, strict=True))
    bare = median(_rate(env.unwrapped, ours) for _ in range(repeats))
    note = f"random legal actions; without Gymnasium's wrappers {bare:,.0f}/s"
    return [
        at_least(names[0], steps, "1/s", 300_000, note),
        at_least(names[1], median(a / b for a, b in pairs), "", 4, f"CartPole-v1: {yardstick:,.0f}/s"),
    ]


def _episodes(env: Environment, steps: int) -> list[Episode]:
    """Random legal actions for this many steps, to be replayed without the time it takes to choose them."""
    generator = np.random.default_rng(0)
    episodes: list[Episode] = []
    while steps > 0:
        seed, actions, ended = len(episodes), [], False
        _, info = env.reset(seed=seed)
        while not ended and steps > 0:
            mask = info.get("action_mask", np.ones(env.action_space.n))  # type: ignore[attr-defined]
            actions.append(int(generator.choice(np.flatnonzero(mask))))
            _, _, terminated, truncated, info = env.step(actions[-1])
            ended = terminated or truncated
            steps -= 1
        episodes.append((seed, actions))
    return episodes


def _rate(env: Environment, episodes: Sequence[Episode]) -> float:
    """Steps per second over the episodes, without their resets."""
    step, seconds = env.step, 0.0
    for seed, actions in episodes:
        env.reset(seed=seed)
        started = time.perf_counter()
        for action in actions:
            step(action)
        seconds += time.perf_counter() - started
    return sum(len(actions) for _, actions in episodes) / seconds
