"""Randomness: counter-based draws, and distributions as quantile tables (section 3)."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import cache
from itertools import pairwise

MASK64 = (1 << 64) - 1
A = 0x9E3779B97F4A7C15

HOST, NOISE, POLICY, WORK = 1, 2, 3, 16  # streams; the work of VM m is WORK + m


# 3.1 Counter-based draws


def mix(z: int) -> int:
    """SplitMix64's finaliser."""
    z &= MASK64
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & MASK64
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & MASK64
    z ^= z >> 31
    return z


def high(x: int) -> int:
    return x >> 32


def low(x: int) -> int:
    return x & 0xFFFFFFFF


class Draws:
    """All the randomness of one world."""

    def __init__(self, seed: int, index: int) -> None:
        self.world_key = mix(mix(seed) + A * (index + 1))
        self.stream_keys: dict[int, int] = {}  # as far as they were asked for

    def draw(self, stream: int, counter: int) -> int:
        if stream not in self.stream_keys:
            self.stream_keys[stream] = mix(self.world_key + A * (stream + 1))
        return mix(self.stream_keys[stream] + A * (counter + 1))

    def work(self, vm: int, transaction: int, section: int, j: int) -> int:
        """Draw j of a section of a transaction of a VM: the table of section 3.1."""
        return self.draw(WORK + vm, (transaction * 64 + section) * 4 + j)

    def step(self, vm: int, transaction: int, executed: int) -> int:
        """The draw of a step of a program, before which so many of the transaction have been executed."""
        return self.draw(WORK + vm, transaction * 1024 + executed)


# 3.2 Distributions and quantile tables

QUANTILES = [Decimal(i) / 256 for i in range(248)] + [Decimal(31) / 32 + Decimal(j) / 8192 for j in range(257)]


@cache
def table(distribution: str) -> tuple[int, ...]:
    """The 505 integers of a distribution."""
    with localcontext(Context(prec=28, rounding=ROUND_HALF_EVEN)):
        kind, *words = distribution.split()
        if kind == "constant":
            values = [Decimal(words[0])] * 505
        elif kind == "uniform":
            a, b = Decimal(words[0]), Decimal(words[1])
            values = [a + (b - a) * u for u in QUANTILES]
        elif kind == "exponential":
            mean = Decimal(words[0])
            values = [-mean * (1 - u if u < 1 else Decimal(2) ** -16).ln() for u in QUANTILES]
        elif kind == "knots":
            knots = [(Decimal(u), Decimal(c)) for u, c in (word.split(":") for word in words)]
            values = [between_knots(knots, u) for u in QUANTILES]
        else:
            raise ValueError(f"no such distribution: {distribution!r}")
        return tuple(int(value.to_integral_value(ROUND_HALF_EVEN)) for value in values)


def between_knots(knots: list[tuple[Decimal, Decimal]], u: Decimal) -> Decimal:
    """ln(C) is linear in u between two knots."""
    for (u0, c0), (u1, c1) in pairwise(knots):
        if u0 <= u <= u1:
            return (c0.ln() + (c1.ln() - c0.ln()) * (u - u0) / (u1 - u0)).exp()
    raise ValueError("knots must rise from 0 to 1")


UNIT = table("exponential 65536")


def sample(values: tuple[int, ...], x: int) -> int:
    """The value of a table at the 32-bit quantile x."""
    if x >> 24 < 248:
        i, frac = x >> 24, (x >> 8) & 0xFFFF
    else:
        y = x - (248 << 24)
        i, frac = 248 + (y >> 19), (y >> 3) & 0xFFFF
    return values[i] + ((values[i + 1] - values[i]) * frac >> 16)
