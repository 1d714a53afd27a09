"""Observations go to memory that is used again, and never to memory that somebody still looks at."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ple_gym.envs.buffers import LEAST_BYTES, MOST, Buffers
from ple_gym.envs.vector import PleVectorEnv

HOLDERS: dict[str, Callable[[Any], object]] = {
    "itself": lambda array: array,
    "a row": lambda array: array[3],
    "a reshaped row": lambda array: array[1:2].reshape(-1, 3),
    "a memory view": memoryview,
    "a list": lambda array: [array],
    "another array's base": lambda array: np.frombuffer(array, np.uint8),
    "a capsule": lambda array: array.__dlpack__(),
}


def test_memory_is_used_again() -> None:
    buffers, places = Buffers((1024, 30), np.float32), set()
    holder = [buffers.take()]  # as lanes hold where they write
    for _ in range(10):
        holder[0] = buffers.take()
        places.add(holder[0].ctypes.data)
    assert len(places) == 1


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS.keys())
def test_memory_that_is_held_is_not_used_again(holder: Callable[[Any], object]) -> None:
    buffers = Buffers((1024, 30), np.float32)
    held, places, writer = [], set(), []
    for k in range(MOST + 3):  # more than are kept
        array = buffers.take()
        writer[:] = [array]
        assert array.ctypes.data not in places
        places.add(array.ctypes.data)
        array[:] = k
        held.append(holder(array))
        del array
    assert len(held) == MOST + 3 and len(buffers._kept) == MOST
    del held
    gc.collect()
    assert buffers.take().ctypes.data in places


def test_small_arrays_are_not_kept() -> None:
    assert not Buffers((1, LEAST_BYTES // 4 - 1), np.float32).is_worth_it
    assert Buffers((1, LEAST_BYTES // 4), np.float32).is_worth_it


@pytest.mark.parametrize("observation", ["flat", "tokens"])
def test_observations_that_a_caller_keeps_stay_as_they_were(observation: str) -> None:
    """Some are kept and some dropped, in every order of four steps."""
    envs = PleVectorEnv(40, "Storm", observation=observation, threads=1)
    kept: list[tuple[Any, Any]] = []
    shown, _ = envs.reset(seed=0)
    for k in range(60):
        array = shown["vcpus"] if isinstance(shown, dict) else shown
        if (k // 4) >> (k % 4) & 1:
            kept.append((array, array.copy()))
        shown, *_ = envs.step(envs.sample_actions())
        assert all((one == copy).all() for one, copy in kept)
    assert len(kept) > 20 and len({one.ctypes.data for one, _ in kept}) == len(kept)
