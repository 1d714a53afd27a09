"""The types that observations are written in: `float32`, `float16`, and codes of one byte.

float32 is what features are computed in. float16 is the nearest float16, ties to even, as NumPy rounds. uint8 are codes
0..252: of a feature with range low..high

    code = floor((x - low) * 252 / (high - low) + 1/2)        x = low + code * (high - low) / 252

so that flags, 0, 1, -1 and 1.5 are exact (252 is a multiple of 4 and of 3), and no other value is further off than half
a step: 1/504, 1/336 where the range is 0..1.5, 1/252 where it is -1..1. An observation of 32 vCPUs takes 2,484 bytes as
float32, 1,242 as float16 and 621 as uint8; where thousands of lanes are stepped, that is memory traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.view.rows import Feature

STEPS = 252
DTYPES: Mapping[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("float32", "float16", "uint8")}

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]


def bounds(features: Sequence[Feature], dtype: np.dtype[Any]) -> tuple[Numbers, Numbers]:
    """The lowest and the highest value of each feature, as observations of this type have them: two arrays [F]."""
    if dtype == np.uint8:
        return np.zeros(len(features), dtype), np.full(len(features), STEPS, dtype)
    low, high = np.array([feature.range for feature in features], dtype).reshape(-1, 2).T
    return low, high


def lows(features: Sequence[Feature]) -> Floats:
    """The value of code 0, of each feature: float32 [F]."""
    return np.array([feature.range[0] for feature in features], np.float32)


def steps(features: Sequence[Feature]) -> Floats:
    """Codes in 1, of each feature: float32 [F]."""
    return np.array([STEPS / (feature.range[1] - feature.range[0]) for feature in features], np.float32)


def encode(values: Floats, features: Sequence[Feature]) -> npt.NDArray[np.uint8]:
    """Codes of float32 values [..., F]: uint8 [..., F], the same bits as the kernel writes."""
    codes: npt.NDArray[np.uint8] = np.floor((values - lows(features)) * steps(features) + np.float32(0.5)).astype(
        np.uint8
    )
    return codes


def decode(numbers: Numbers, features: Sequence[Feature]) -> Floats:
    """Values of an observation of any of the types, [..., F]: float32 [..., F]."""
    if numbers.dtype != np.uint8:
        return numbers.astype(np.float32)
    values: Floats = lows(features) + numbers.astype(np.float32) / steps(features)
    return values
