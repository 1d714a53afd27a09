"""Programs: a transaction as a table of steps, how it is written, and what is refused (docs/model.md, section 7.9).

A program that is accepted ends, gives back what it takes, and cannot wait in a circle: which locks are held before each
step is known before anything runs, and each lock is above those that are held already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ple_gym.messages import show
from ple_gym.scenario import distributions

MAX_STEPS = 32
MAX_HELD = 4
"""Locks that a vCPU holds at once."""
MAX_LOCK = 4095
MAX_SIBLINGS = 1023
MAX_CHARACTERS = 100_000

STEPS = (
    "compute DIST [kernel P], lock L (or A-B, any), unlock as it was locked, block DIST, jump STEP (or end) [with P], "
    "ipi N (or all)"
)
ALLOWED = f"empty, or up to {MAX_STEPS} steps, separated by ';' or new lines: {STEPS}"

_LOCK = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_PROBABILITY = re.compile(r"[01]|[01]?\.[0-9]{1,12}")


class Locks(NamedTuple):
    """What a step locks: one that is drawn from `first` to `last`; `any` is a word for all of the VM's."""

    first: int
    last: int

    def __str__(self) -> str:
        if self == ANY_LOCK:
            return "any"
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


ANY_LOCK = Locks(0, MAX_LOCK + 1)
#: Held before a step: a place for each lock that may be held at once.
Held = tuple[Locks | None, ...]


class Step(NamedTuple):
    """One step of a program.

    Attributes:
        verb: compute, lock, unlock, block, jump or ipi.
        time: distribution of cycles (compute, block).
        share: probability; of kernel mode (compute), of being taken (jump).
        locks: what is locked or unlocked.
        target: step that is jumped to; the number of steps for `end`.
        held: locks that are held before the step, by their places.
        place: where this one's lock stands among them (lock, unlock).
        siblings: how many are interrupted; 0: all (ipi).
    """

    verb: str
    time: str = ""
    share: float = 0.0
    locks: Locks = ANY_LOCK
    target: int = 0
    held: Held = (None,) * MAX_HELD
    place: int = 0
    siblings: int = 0

    def text(self, steps: int) -> str:
        """The step as it is written, in a program of so many steps."""
        if self.verb == "compute":
            return f"compute {self.time}" + (f" kernel {_decimal(self.share)}" if self.share else "")
        if self.verb == "block":
            return f"block {self.time}"
        if self.verb == "jump":
            taken = f" with {_decimal(self.share)}" if self.share < 1 else ""
            return f"jump {'end' if self.target == steps else self.target}{taken}"
        if self.verb == "ipi":
            return f"ipi {self.siblings or 'all'}"
        return f"{self.verb} {self.locks}"


def checked(value: object) -> str:
    """Return a program's canonical text, which is empty for none.

    Raises:
        ValueError: it is no program, or one that is refused; the message says what it must be.
    """
    if not isinstance(value, str):
        raise ValueError(f"must be {ALLOWED}")
    steps = parse(value)
    return "; ".join(step.text(len(steps)) for step in steps)


@lru_cache(maxsize=512)
def parse(text: str) -> tuple[Step, ...]:
    """Return the steps of a program, none for an empty text.

    Raises:
        ValueError: see `checked`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"must be at most {MAX_CHARACTERS} characters, not {len(text)}")
    lines = [line.strip() for line in re.split(r"[;\n]", text) if line.strip()]
    if len(lines) > MAX_STEPS:
        raise ValueError(f"must have at most {MAX_STEPS} steps, not {len(lines)}")
    steps = []
    for number, line in enumerate(lines):
        try:
            steps.append(_step(line.split(), len(lines)))
        except ValueError as wrong:
            raise ValueError(f"step {number}, {show(line)}: {wrong}") from None
    return _verified(steps) if steps else ()


def _step(words: list[str], steps: int) -> Step:
    """Read one step of a program of so many."""
    verb, *rest = words
    if verb == "compute" and rest:
        time, share = _split(rest, "kernel")
        return Step(verb, time=str(distributions.parse(time)), share=_probability(share) if share else 0.0)
    if verb == "block" and rest:
        return Step(verb, time=str(distributions.parse(" ".join(rest))))
    if verb in ("lock", "unlock") and len(rest) == 1:
        return Step(verb, locks=_locks(rest[0]))
    if verb == "jump" and rest:
        target, share = _split(rest, "with")
        return Step(verb, target=_target(target, steps), share=_probability(share) if share else 1.0)
    if verb == "ipi" and len(rest) == 1:
        return Step(verb, siblings=_siblings(rest[0]))
    raise ValueError(f"must be one of: {STEPS}")


def _split(words: list[str], word: str) -> tuple[str, str]:
    """The words before and after a word, if the last but one is this."""
    if len(words) > 2 and words[-2] == word:
        return " ".join(words[:-2]), words[-1]
    return " ".join(words), ""


def _probability(text: str) -> float:
    if not _PROBABILITY.fullmatch(text) or float(text) > 1:
        raise ValueError(f"must have a probability 0..1 (up to 12 decimals), not {show(text)}")
    return float(text)


def _decimal(probability: float) -> str:
    """A probability in its shortest form, without an exponent."""
    return f"{probability:.12f}".rstrip("0").rstrip(".")


def _locks(text: str) -> Locks:
    if text == "any":
        return ANY_LOCK
    match = _LOCK.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last <= MAX_LOCK:
        raise ValueError(f"must be a lock 0..{MAX_LOCK}, some such as 1-3, or any, not {show(text)}")
    return Locks(first, last)


def _siblings(text: str) -> int:
    if text == "all":
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_SIBLINGS:
        raise ValueError(f"must interrupt 1..{MAX_SIBLINGS} siblings, or all, not {show(text)}")
    return int(text)


def _target(text: str, steps: int) -> int:
    if text == "end":
        return steps
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) >= steps:
        raise ValueError(f"must jump to a step 0..{steps - 1} or to the end, not {show(text)}")
    return int(text)


# --- what is refused --------------------------------------------------------------------------------------------------


def _verified(steps: list[Step]) -> tuple[Step, ...]:
    """The steps with what is held before each of them, and the places of their locks."""
    if steps[0].verb not in ("compute", "block"):
        raise ValueError(f"must begin with compute or block, so that it takes time, not with {steps[0].verb}")
    count = len(steps)
    before: dict[int, Held] = {0: (None,) * MAX_HELD}
    ways = [0]
    while ways:
        i = ways.pop(0)  # in order, so that the first step that is wrong is named
        after = _after(steps[i], before[i], _named(i, steps))
        for j in sorted(set(_next(i, steps[i], bound=True))):
            if j not in before and j < count:
                ways.append(j)
            if before.setdefault(j, after) != after:
                raise ValueError(
                    f"{_named(j, steps)}: must hold the same locks, taken in the same order, on every way to it, not "
                    f"{_listed(before[j])} and {_listed(after)}"
                )
    _check_ways(steps)
    if any(before[count]):
        raise ValueError(f"must hold nothing at its end, not {_listed(before[count])}")
    return tuple(step._replace(held=before[i], place=_place(step, before[i])) for i, step in enumerate(steps))


def _next(i: int, step: Step, bound: bool = False) -> Iterator[int]:
    """Where it goes on after step i; `bound`: also where a jump back leads that the bound on steps forbids (7.9)."""
    if step.verb != "jump" or step.share < 1 or (bound and step.target <= i):
        yield i + 1
    if step.verb == "jump" and step.share > 0:
        yield step.target


def _check_ways(steps: list[Step]) -> None:
    """Raise ValueError unless every step is reached and leads to the end."""
    count = len(steps)
    ways = [(i, j) for i, step in enumerate(steps) for j in _next(i, step)]
    reached = _closed({0}, ways)
    ending = _closed({count}, [(j, i) for i, j in ways])
    for i in range(count):
        if i not in reached:
            raise ValueError(f"{_named(i, steps)}: must be reached, but no way leads to it")
        if i not in ending:
            raise ValueError(f"{_named(i, steps)}: must lead to the end, but no way leads there")


def _closed(found: set[int], ways: list[tuple[int, int]]) -> set[int]:
    """Everything that ways lead to from what is found."""
    while more := {j for i, j in ways if i in found} - found:
        found |= more
    return found


def _after(step: Step, held: Held, name: str) -> Held:
    """What is held after a step; raises ValueError if it must not be done with that."""
    holds = [locks for locks in held if locks]
    if step.verb == "compute" and holds and step.share:
        raise ValueError(f"{name}: must have no kernel share, because who holds a lock is in kernel mode")
    if step.verb == "block" and holds:
        raise ValueError(f"{name}: must hold nothing while it sleeps, not {_listed(held)}")
    if step.verb == "lock":
        if any(step.locks.first <= locks.last for locks in holds):
            raise ValueError(
                f"{name}: must be above every lock that is held here, so that nobody waits in a circle; held is "
                f"{_listed(held)}"
            )
        if len(holds) == MAX_HELD:
            raise ValueError(f"{name}: must be one of at most {MAX_HELD} locks that are held at once")
    if step.verb == "unlock" and step.locks not in holds:
        raise ValueError(f"{name}: must be held here, written as in its lock; held is {_listed(held)}")
    if step.verb not in ("lock", "unlock"):
        return held
    place = _place(step, held)
    return (*held[:place], step.locks if step.verb == "lock" else None, *held[place + 1 :])


def _place(step: Step, held: Held) -> int:
    """The place of a step's lock: the first that is free, or where it stands."""
    if step.verb in ("lock", "unlock"):
        return held.index(None if step.verb == "lock" else step.locks)
    return 0


def _named(i: int, steps: list[Step]) -> str:
    return f"step {i}, {show(steps[i].text(len(steps)))}" if i < len(steps) else "the end"


def _listed(held: Held) -> str:
    return ", ".join(f"lock {locks}" for locks in held if locks) or "no lock"
