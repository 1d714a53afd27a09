"""The best that any policy can do in a small world, by trying everything: for tests only."""

from __future__ import annotations

from typing import Any

from ple_gym.env import PleEnv


def least_loss(env: PleEnv, mask: Any, first_bound: float = 0.01) -> tuple[float, int]:
    """The smallest loss (minus the sum of rewards) from the decision that is due to the end, and the decisions tried.

    Losses never shrink, so everything that stays below a bound is tried: all sequences of legal actions, each from an
    exact copy of the state. The bound doubles until one of them reaches the end.
    """
    tried = 0

    def search(lost: float, mask: Any, bound: float) -> float:
        nonlocal tried
        state = env.get_state()
        for action in mask.nonzero()[0]:
            env.set_state(state)
            _, reward, terminated, _, info = env.step(int(action))
            tried += 1
            now_lost = lost - float(reward)
            if now_lost < bound:
                bound = now_lost if terminated else search(now_lost, info["action_mask"], bound)
        return bound

    start, bound = env.get_state(), first_bound
    while True:
        env.set_state(start)
        found = search(0.0, mask, bound)
        if found < bound:
            return found, tried
        bound *= 1.5
