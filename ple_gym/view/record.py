"""What the lanes of a vector environment have in common for those who look at them: the last part of a description."""

from __future__ import annotations

import numpy as np

from ple_gym.scenario.model import Scenario

# information levels
NOTHING, HYPERVISOR, INTROSPECTION, ORACLE = 0, 1, 2, 3
# rewards
WASTE, TIME, FAIR, RESPONSE = 0, 1, 2, 3

VIEW = np.dtype(
    [
        ("information", "i8"), ("interrupts", "i8"), ("reward", "i8"),  # interrupts: 1 if features of them are shown
        # scale of times: the PLE window, cycles; bits of it as float32; 1 / range of bits
        ("window", "i8"), ("low", "f8"), ("factor", "f8"),
    ]
)  # fmt: skip
VIEW_BYTES = VIEW.itemsize


def float_bits(x: float) -> int:
    """Bits of x as float32: up to scale and offset, a piecewise linear logarithm."""
    return int(np.float32(x).view(np.int32))


def view_of(scenario: Scenario, information: int, interrupts: bool, reward: int) -> np.ndarray:
    """A scenario as it is seen: VIEW [1]. Times are scaled to 0 for none and 1 for 100 ms (`scales.py`)."""
    window = scenario.ple.window
    low = float_bits(window)
    factor = 1.0 / (float_bits(window + scenario.host.tsc_hz // 10) - low)
    return np.array([(information, interrupts, reward, window, low, factor)], VIEW)
