"""The paper's proposal (section 4.4) as an agent: an example of how to write one's own.

It sees nothing but observations, and has the `predict` signature of Stable-Baselines3, so that whatever evaluates a
trained model evaluates it too:

    ple-gym compare Paper8 --policies paper agents.paper_heuristic:PaperHeuristic
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym import HOST_FEATURES, VCPU_FEATURES

QUEUED, POSITION, PRIORITY, PCPU = (VCPU_FEATURES.index(name) for name in ("queued", "position", "priority", "pcpu"))
HOST_PCPU = HOST_FEATURES.index("pcpu")
OVER = -1.0


class PaperHeuristic:
    """Never the vCPU that just exited: the head of the pCPU's own queue, or what Xen would steal (one socket)."""

    observation = "tokens"  # the form that `ple-gym compare` gives it

    def predict(
        self, observation: dict[str, Any], state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """The action for one observation (float32 [V, F], [G]), or the actions for several ([N, V, F], [N, G])."""
        vcpus, hosts = observation["vcpus"], observation["host"]
        if vcpus.ndim == 2:
            return self.decide(vcpus, hosts), state
        return np.array([self.decide(*one) for one in zip(vcpus, hosts, strict=True)]), state

    def decide(self, vcpus: npt.NDArray[np.float32], host: npt.NDArray[np.float32]) -> int:
        """The action for one machine."""
        heads = {row[PCPU]: v for v, row in enumerate(vcpus) if row[QUEUED] and row[POSITION] == 0}
        own = heads.pop(host[HOST_PCPU], None)
        least = OVER - 1 if own is None else vcpus[own, PRIORITY]
        if least <= OVER:  # work from another pCPU comes first if it is more urgent
            for pcpu in sorted(heads):
                if vcpus[heads[pcpu], PRIORITY] > least:
                    return heads[pcpu]
        return len(vcpus) if own is None else own  # the last action defers to the host
