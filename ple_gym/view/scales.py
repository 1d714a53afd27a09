"""How times and counts become numbers of about 1, so that a policy means the same in every scenario; and how such a
number becomes one of two bytes or of one (`codes.py`).

* times are `L(x) = log(1 + x / W) / log(1 + 100 ms / W)`, W the PLE window: 0 for nothing, 1 for 100 ms;
* counts are `log(1 + n) / log(1001)`; the logarithm is the piecewise linear one that a float's bits are.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined
from ple_gym.view.record import float_bits
from ple_gym.view.rows import TOP as HIGHEST

FLOAT32, INT32 = np.float32, np.int32
ZERO, ONE, TOP = np.float32(0.0), np.float32(1.0), np.float32(HIGHEST)
COUNT_LOW = np.float32(float_bits(1.0))
COUNT_SCALE = np.float32(1.0 / (float_bits(1001.0) - float_bits(1.0)))


@inlined
def log_bits(x):
    """Bits of x (an integer, 1 at least) as float32, as a float32: a logarithm up to scale and offset."""
    return FLOAT32(FLOAT32(x).view(INT32))


@inlined
def scaled(time, low, factor):
    """L(x) of time = x + W cycles, 1.5 at most; low and factor are the scenario's scale."""
    return min(TOP, (log_bits(time) - low) * factor)


@inlined
def counted(n):
    """A count on its scale, 1.5 at most."""
    return min(TOP, (log_bits(INT32(n + INT32(1))) - COUNT_LOW) * COUNT_SCALE)


@inlined
def within(x, low, high):
    """The float32 x, or the end of low..high that is nearest to it."""
    return max(low, min(high, x))


@inlined
def byte(word, number):
    """Byte `number` of an int32, as an int32. (Sums of int32 are int64 to numba, which the vector units dislike.)"""
    return INT32((word >> INT32(8 * number)) & INT32(255))


@inlined
def coded(x, low, step):
    """The code of the float32 x."""
    return np.uint8(INT32((x - low) * step + FLOAT32(0.5)))


@inlined
def halved(x):
    """Bits of the float16 that is nearest to the float32 x, ties to even; |x| < 65520. (LLVM's own conversion needs a
    processor that has it.)
    """
    magnitude = FLOAT32(abs(x))
    bits = FLOAT32(magnitude).view(INT32)
    odd = INT32((bits >> INT32(13)) & INT32(1))
    normal = INT32(INT32(bits + INT32(-0x37FFF001) + odd) >> INT32(13))  # another bias of the exponent; round
    subnormal = INT32(FLOAT32(magnitude + FLOAT32(0.5)).view(INT32) - INT32(0x3F000000))  # the addition rounds
    sign = INT32((FLOAT32(x).view(INT32) >> INT32(16)) & INT32(0x8000))
    return np.uint16((subnormal if bits < INT32(0x38800000) else normal) | sign)
