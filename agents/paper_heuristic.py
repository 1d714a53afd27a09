"""The paper's proposal (section 4.4) as an agent: an example of how to write one's own.

It sees nothing but observations, and has the `predict` signature of Stable-Baselines3, so that whatever evaluates a
trained model evaluates it too:

    env = gymnasium.make("PLE/Paper8-v0", observation="tokens")
    agent = PaperHeuristic()
    observation, info = env.reset(seed=0)
    action, _ = agent.predict(observation)
"""

from __future__ import annotations

from typing import Any

from ple_gym.view.observation import HOST_FEATURES, VCPU_FEATURES

QUEUED, POSITION, PRIORITY, PCPU = (VCPU_FEATURES.index(name) for name in ("queued", "position", "priority", "pcpu"))
HOST_PCPU = HOST_FEATURES.index("pcpu")
OVER = -1.0


class PaperHeuristic:
    """Never the vCPU that just exited: the head of the pCPU's own queue, or what Xen would steal (one socket)."""

    def predict(
        self, observation: dict[str, Any], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[int, Any]:
        """The action for one observation of `observation="tokens"` (float32 [V, F] and [G])."""
        vcpus, here = observation["vcpus"], observation["host"][HOST_PCPU]
        heads = {row[PCPU]: v for v, row in enumerate(vcpus) if row[QUEUED] and row[POSITION] == 0}
        own = heads.pop(here, None)
        least = OVER - 1 if own is None else vcpus[own, PRIORITY]
        if least <= OVER:  # work from another pCPU comes first if it is more urgent
            for pcpu in sorted(heads):
                if vcpus[heads[pcpu], PRIORITY] > least:
                    return heads[pcpu], state
        return len(vcpus) if own is None else own, state  # the last action defers to the host
