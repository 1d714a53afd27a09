"""The best that any policy can do in a small world, by trying everything: for tests only."""

from __future__ import annotations

from typing import Any

from ple_gym.envs.env import PleEnv


def shortest_makespan(env: PleEnv, mask: Any, first_bound: float = 0.01) -> tuple[float, int]:
    """The shortest makespan (seconds) from the decision that is due, and how many decisions were tried.

    Tries all sequences of legal actions that lose less than a bound, each from an exact copy of the state. The loss
    (minus the sum of rewards) never shrinks, and the least loss of a world is its shortest makespan. The bound (ms of
    the machine) grows until a sequence gets to the end, and then is the loss of the best one so far.
    """
    tried, makespan = 0, float("inf")

    def search(lost: float, mask: Any, bound: float) -> float:
        nonlocal tried, makespan
        state = env.get_state()
        for action in mask.nonzero()[0]:
            env.set_state(state)
            _, reward, terminated, _, info = env.step(int(action))
            tried += 1
            lost_now = lost - float(reward)
            if lost_now >= bound:
                continue
            if terminated:
                bound, makespan = lost_now, info["ple_episode"]["makespan_s"]
            else:
                bound = search(lost_now, info["action_mask"], bound)
        return bound

    start, bound = env.get_state(), first_bound
    while True:
        env.set_state(start)
        if search(0.0, mask, bound) < bound:
            return makespan, tried
        bound *= 1.5
