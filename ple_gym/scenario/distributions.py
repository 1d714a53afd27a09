"""Distributions of durations: how they are written, and the quantile tables the simulator samples.

docs/model.md, section 3.2. A table holds integers and is computed with `decimal`, so that no platform's libm matters.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

from ple_gym.messages import show

MAX_VALUE = 10**11
"""Largest value that can be written in a distribution; the smallest is 1."""

MAX_KNOTS = 1000
MAX_CHARACTERS = 32_768
"""Of a distribution's text; more than `MAX_KNOTS` of the longest knots have."""

GRAMMAR = "constant C | uniform A B | exponential MEAN | knots U:C U:C ..."

_CONTEXT = Context(prec=28, rounding=ROUND_HALF_EVEN)

with localcontext(_CONTEXT):
    #: The 505 probabilities of a table: 248 equal steps of 1/256, then 256 of 1/8192, because 0.5 % of lock holds lie
    #: in the last step of 1/256 and reach 25 times the value below it.
    QUANTILES = tuple(
        [Decimal(i) / 256 for i in range(248)] + [Decimal(31) / 32 + Decimal(j) / 8192 for j in range(257)]
    )

_WHOLE = re.compile(r"[0-9]+(_[0-9]+)*")
_PROBABILITY = re.compile(r"[01]|[01]?\.[0-9]{1,12}")


class Distribution(Protocol):
    """A parsed distribution. Its `str` is its canonical form, which parses to an equal one."""

    def quantiles(self) -> list[int]:
        """Return the values, rounded, that shares `QUANTILES` of all draws do not exceed, in `_CONTEXT`."""


def _rounded(value: Decimal) -> int:
    return int(value.to_integral_value())


@dataclass(frozen=True, slots=True)
class Uniform:
    """All values from `low` to `high` alike; a constant if they are equal."""

    low: int
    high: int

    def quantiles(self) -> list[int]:
        """Return the values at `QUANTILES`."""
        return [_rounded(self.low + (self.high - self.low) * u) for u in QUANTILES]

    def __str__(self) -> str:
        return f"constant {self.low}" if self.low == self.high else f"uniform {self.low} {self.high}"


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential with the given mean; its endless tail is cut at the probability 1 - 2^-16, which is 11.09 means."""

    mean: int

    def quantiles(self) -> list[int]:
        """Return the values at `QUANTILES`."""
        return [_rounded(-self.mean * logarithm) for logarithm in _tail_logarithms()]

    def __str__(self) -> str:
        return f"exponential {self.mean}"


@dataclass(frozen=True, slots=True)
class Knots:
    """A measured distribution: pairs of probability and value, between which the logarithm is linear."""

    pairs: tuple[tuple[Decimal, int], ...]

    def quantiles(self) -> list[int]:
        """Return the values at `QUANTILES`."""
        result: list[int] = []
        for (u0, value0), (u1, value1) in pairwise(self.pairs):
            if QUANTILES[len(result)] > u1:
                continue
            low, high = Decimal(value0).ln(), Decimal(value1).ln()
            for u in QUANTILES[len(result) :]:
                if u > u1:
                    break
                result.append(_rounded_power(low + (high - low) * (u - u0) / (u1 - u0)))
        return result

    def __str__(self) -> str:
        return "knots " + " ".join(f"{u.normalize(_CONTEXT):f}:{value}" for u, value in self.pairs)


@lru_cache(maxsize=1)
def _tail_logarithms() -> tuple[Decimal, ...]:
    """ln(1 - u) at `QUANTILES`, and of the tail's end at u = 1."""
    return tuple(((1 - u) or Decimal(2) ** -16).ln() for u in QUANTILES)


def _rounded_power(exponent: Decimal) -> int:
    """Return exp(exponent), rounded. A float decides where it is far enough from the middle of two integers: any libm
    is right to many more than the 12 digits that this needs, and 10 times as fast as `decimal`.
    """
    estimate = math.exp(exponent)
    if abs(estimate % 1 - 0.5) > 1e-12 * estimate + 1e-9:
        return round(estimate)
    return _rounded(exponent.exp())


@lru_cache(maxsize=512)
def parse(text: str) -> Distribution:
    """Read a distribution: `constant C`, `uniform A B`, `exponential MEAN` or `knots U:C U:C ...`.

    C, A, B and MEAN are whole numbers 1..10^11 (cycles, unless the parameter says otherwise). U rises from 0 to 1,
    with up to 12 decimals, and C does not fall; there are at most `MAX_KNOTS` knots.

    Raises:
        ValueError: the text is none of these; the message starts with "must".
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"must be at most {MAX_CHARACTERS} characters, not {len(text)}")
    kind, *words = text.split() or [""]
    if kind == "constant" and len(words) == 1:
        return Uniform(_value(words[0]), _value(words[0]))
    if kind == "uniform" and len(words) == 2:
        low, high = _value(words[0]), _value(words[1])
        if low > high:
            raise ValueError("must have A <= B in 'uniform A B'")
        return Uniform(low, high)
    if kind == "exponential" and len(words) == 1:
        return Exponential(_value(words[0]))
    if kind == "knots" and words:
        return Knots(_pairs(words))
    raise ValueError(f"must be {GRAMMAR}")


@lru_cache(maxsize=512)
def quantile_table(text: str) -> tuple[int, ...]:
    """Return the 505 integers of a distribution, at `QUANTILES`, never falling; in the unit of its values.

    Raises:
        ValueError: see `parse`.
    """
    distribution = parse(text)
    with localcontext(_CONTEXT):
        return tuple(distribution.quantiles())


def _value(word: str) -> int:
    """Read a value 1..10^11."""
    # The length is tested first: Python refuses to convert very long numbers, in words of its own.
    if not _WHOLE.fullmatch(word) or len(word) > 40 or not 1 <= int(word) <= MAX_VALUE:
        raise ValueError(f"must have whole numbers 1..{MAX_VALUE} as values, not {show(word)}")
    return int(word)


def _pairs(words: list[str]) -> tuple[tuple[Decimal, int], ...]:
    """Read the knots U:C."""
    if len(words) > MAX_KNOTS:
        raise ValueError(f"must have at most {MAX_KNOTS} knots, not {len(words)}")
    pairs = []
    for word in words:
        u, colon, value = word.partition(":")
        if not colon or not _PROBABILITY.fullmatch(u):
            raise ValueError(f"must have knots U:C with U in 0..1 (up to 12 decimals), not {show(word)}")
        pairs.append((Decimal(u), _value(value)))
    if len(pairs) < 2 or pairs[0][0] != 0 or pairs[-1][0] != 1:
        raise ValueError("must have knots from U = 0 to U = 1")
    for (u0, value0), (u1, value1) in pairwise(pairs):
        if u0 >= u1:
            raise ValueError(f"must have knots with rising U, not {u0} before {u1}")
        if value0 > value1:
            raise ValueError(f"must have knots whose values do not fall, not {value0} before {value1}")
    return tuple(pairs)
