"""A vector wrapper that watches a training library at work: what it did must have been legal, and masks needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper


class Referee(VectorWrapper):
    """Counts decisions, those at which something was forbidden, illegal actions and ends of episodes."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.decisions = self.restricted = self.illegal = self.ends = 0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        envs = self.env.unwrapped
        masks = envs.action_masks()
        if envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP:
            masks = masks[~envs._over]  # the others are only reset
        result = self.env.step(actions)
        self.decisions += len(masks)
        self.restricted += int((~masks).any(axis=1).sum())
        self.illegal += int(np.sum(result[4].get("illegal_action", 0)))
        final = result[4].get("final_info", {})
        self.illegal += int(np.sum(final.get("illegal_action", 0)))
        self.ends += int((result[2] | result[3]).sum())
        return result

    def approve(self) -> None:
        """Raise AssertionError unless episodes ended, masks were needed, and nothing illegal was done."""
        assert self.decisions > 0 and self.restricted > 0.9 * self.decisions
        assert self.ends > 0
        assert self.illegal == 0
