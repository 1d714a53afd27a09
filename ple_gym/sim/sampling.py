"""Sampling a duration from an integer quantile table (docs/model.md, section 3.2): exact on every platform, no libm."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined

UNIT = np.int64(0)  # row of the table of an exponential with mean 65536 (2^16)


@inlined
def sample(tables, row, x):
    """The quantile of table `row` at the 32-bit x (int64), in the table's unit.

    tables: grid of int64 [n, 505]; 248 equal bins of 1/256, then 256 of 1/8192 that resolve the upper tail.
    """
    if x >> 24 < 248:
        i = x >> 24
        fraction = (x >> 8) & 0xFFFF
    else:
        y = x - (248 << 24)
        i = 248 + (y >> 19)
        fraction = (y >> 3) & 0xFFFF
    below = tables[row, i]
    return below + (((tables[row, i + 1] - below) * fraction) >> 16)
