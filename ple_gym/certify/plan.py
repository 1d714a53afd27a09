"""How much is tried for a certificate."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ple_gym.errors import ArgumentError

#: Fresh seeds: nothing is chosen on them.
FRESH = range(2_900_000, 3_000_000)


@dataclass(frozen=True)
class Plan:
    """How much is tried.

    Attributes:
        seeds: fresh seeds of rules and learned policies.
        tuned: rules that are tuned: `patience`, and the best with parameters.
        restarts, trials, training, validation: of each tuning.
        ahead: fresh seeds of the look-aheads; samples: futures; horizon_us: how far they look, microseconds;
            0: to the end.
        learners: searches for each kind of network; generations of each; worlds of each generation.
        lessons: training seeds whose look-ahead the probe learns from.
    """

    seeds: int = 200
    tuned: int = 3
    restarts: int = 4
    trials: int = 150
    training: int = 28
    validation: int = 128
    ahead: int = 24
    samples: int = 64
    horizon_us: int = 0
    learners: int = 5
    generations: int = 40
    worlds: int = 24
    lessons: int = 8

    def __post_init__(self) -> None:
        least = {"seeds": 2, "validation": 2, "ahead": 2, "samples": 2, "worlds": 1, "training": 1}
        for one in fields(self):
            value = getattr(self, one.name)
            if not least.get(one.name, 0) <= value <= 10**6:
                raise ArgumentError(f"{one.name} = {value}: must be {least.get(one.name, 0)}..1000000")


#: To see how it goes; what wins so may not win with more.
QUICK = Plan(
    seeds=20, tuned=1, restarts=1, trials=20, training=8, validation=16, ahead=4, samples=16, learners=1,
    generations=4, worlds=4, lessons=2,
)  # fmt: skip
