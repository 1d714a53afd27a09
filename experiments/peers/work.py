"""The random numbers and the work of a world (docs/model.md, section 3), in numpy: all drawn at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ple_gym.scenario import Scenario
from ple_gym.scenario.distributions import quantile_table

HOST, WORK = 1, 16  # streams
GOLDEN = np.array([0x9E3779B97F4A7C15], np.uint64)
Ints = npt.NDArray[np.int64]


def mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * 0x94D049BB133111EB
    return z ^ z >> 31


def draws(seed: int, stream: int, counters: Ints) -> npt.NDArray[np.uint64]:
    world = mix(mix(np.array([seed], np.uint64)) + GOLDEN)
    key = mix(world + GOLDEN * np.uint64(stream + 1))
    return mix(key + GOLDEN * (counters.astype(np.uint64) + np.uint64(1)))


def sample(distribution: str, x: Ints) -> Ints:
    table = np.array(quantile_table(distribution), np.int64)
    body, y = x >> 24 < 248, x - (248 << 24)
    i = np.where(body, x >> 24, 248 + (y >> 19))
    frac = np.where(body, x >> 8, y >> 3) & 0xFFFF
    return np.maximum(1, table[i] + ((table[i + 1] - table[i]) * frac >> 16))


def draw_work(scenario: Scenario, seed: int) -> tuple[Ints, Ints, Ints]:
    """[transaction, section]: compute time, number of the shared lock (-1: a private one), hold time."""
    guest = scenario.guest
    jobs = np.arange(guest.transactions)[:, None] * 64 + np.arange(guest.sections)
    high, low = [], []
    for j in range(3):
        x = draws(seed, WORK, jobs * 4 + j)
        high.append((x >> 32).astype(np.int64))
        low.append((x & 0xFFFFFFFF).astype(np.int64))
    shared = high[1] < round(guest.lock_probability * 2**32)
    hot = high[1] < round(guest.lock_probability * guest.hot_probability * 2**32)
    lock = np.where(hot, 0, np.where(shared, low[1] * guest.locks >> 32, -1)) if guest.locks else np.full_like(jobs, -1)
    return sample(guest.compute, high[0]), lock, sample(guest.hold, high[2])
