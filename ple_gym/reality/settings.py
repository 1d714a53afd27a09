"""What the threads of the reality check do: a setting, and the sets of them that are measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

LOCKS = ("ticket", "tas")
REACTIONS = ("spin", "yield")
"""To a window that has ended: the thread spins on, or it calls `sched_yield`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the threads of one run do.

    Attributes:
        threads: how many there are in all.
        groups: 1 or 2: the threads are spread over so many processes, each with a lock and a control group of its own.
        window: of waiting, after which a thread reacts; cycles.
        hold: how long a thread holds its lock; cycles.
        think: how long it computes before, on average; between half of it and one and a half; cycles.
        lock: one of `LOCKS`.
        reaction: one of `REACTIONS`.
    """

    threads: int
    groups: int = 1
    window: int = 4096
    hold: int = 2000
    think: int = 60_000
    lock: str = "ticket"
    reaction: str = "yield"

    @property
    def fifo(self) -> bool:
        """Whether its lock is handed on, first come, first served."""
        return self.lock == "ticket"


def quick_settings() -> list[Setting]:
    """One thread for each of two CPUs, two and four, with both locks and both reactions: 12 settings."""
    return _all(threads=(2, 4, 8))


def standard_settings() -> list[Setting]:
    """The 64 settings of a whole check: the number of threads, the window, the hold and the groups in turns."""
    return [
        *_all(threads=(2, 3, 4, 8, 16)),
        *_all(threads=(4, 8), windows=(1024, 16_384)),
        *_all(threads=(4, 8), holds=(200, 20_000)),
        *_all(threads=(4, 8, 16), groups=2),
    ]


def bistable_settings() -> list[Setting]:
    """Those of a whole check in which by chance a convoy forms, or none: FIFO locks that are spun on or held shortly.

    Two threads on two CPUs never wait for one that has no CPU, so that no convoy can form.
    """
    fifo = [one for one in standard_settings() if one.fifo and one.threads > 2]
    return [one for one in fifo if one.reaction == "spin" or one.hold < 2000]


def _all(
    threads: Iterable[int], windows: Iterable[int] = (4096,), holds: Iterable[int] = (2000,), groups: int = 1
) -> list[Setting]:
    """Every combination, with both locks and both reactions."""
    return [
        Setting(many, groups, window, hold, lock=lock, reaction=reaction)
        for many, window, hold, lock, reaction in product(threads, windows, holds, LOCKS, REACTIONS)
    ]
