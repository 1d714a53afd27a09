"""What is allowed for the numbers among the options of learners: an option has one meaning, whoever takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from agents.common import TRAIN, VALIDATION, WORLDS_PER_RUN, AgentError, Options
from ple_gym.learned.file import MAX_HIDDEN, MAX_TEMPERATURE

MANY = 10**12
TINY = 1e-12  # the least where a number must be above 0

#: Option -> the least and the most.
RANGES: Mapping[str, tuple[float, float]] = {
    # every training
    "seed": (0, len(TRAIN) // WORLDS_PER_RUN - 1),
    "steps": (1, MANY),
    "lanes": (1, WORLDS_PER_RUN),
    "temperature": (0, MAX_TEMPERATURE),
    "save_every_s": (0, MANY),
    "validate": (1, 10**6),
    "validation_seeds": (1, len(VALIDATION)),
    "torch_threads": (1, 1024),
    # gradients
    "n_steps": (1, 10**6),
    "batch_size": (2, 10**7),
    "n_epochs": (1, 10**4),
    "learning_rate": (TINY, 10),
    "horizon_ms": (TINY, 10**6),
    "gae_lambda": (0, 1),
    "ent_coef": (0, 1000),
    "clip_range": (TINY, 10),
    "expected_waste": (0, 1),
    "hidden": (1, MAX_HIDDEN),
    # a replay buffer
    "buffer_size": (1, 10**9),
    "learning_starts": (0, MANY),
    "train_freq": (1, 10**6),
    "gradient_steps": (1, 10**6),
    "target_update_interval": (1, MANY),
    "exploration_fraction": (TINY, 1),
    "exploration_final": (0, 1),
    # an expert
    "expert_decisions": (1, 10**9),
    "softness": (TINY, 1000),
    "bc_epochs": (1, 10**6),
    "bc_learning_rate": (TINY, 10),
    "critic_steps": (0, MANY),
    # generations
    "population": (1, 10**6),
    "elite": (1, 10**6),
    "worlds": (1, WORLDS_PER_RUN),
    "limit_ideals": (1, 10**6),
    "noise": (0, 10**6),
    "threads": (1, 1024),
}


def check_ranges(options: Options) -> None:
    """Refuse a number that no training could be made with.

    Raises:
        AgentError: the option is out of its range.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = RANGES[option.name]
        if not low <= value <= high:  # NaN is in no range
            least = "above 0" if low == TINY else f"{low}"
            upto = f"{least}, {high} at most" if low == TINY else f"{least}..{high}"
            raise AgentError(f"--{option.name.replace('_', '-')} {value}: must be {upto}")
    if getattr(options, "n_steps", 2) * options.lanes < 2:
        raise AgentError("--n-steps 1: must be 2 at least with --lanes 1, as an update needs several decisions")
