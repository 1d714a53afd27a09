"""A VM's program: its steps as they are written (section 7.9). What a scenario refuses is not looked for here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .draws import table

ENOUGH = 992  # steps of a transaction after which none jumps back


@dataclass
class Step:
    verb: str
    time: tuple[int, ...] = ()  # a table
    below: int = 0  # of 2^32
    locks: range = field(default_factory=lambda: range(0))
    target: int = 0
    siblings: int | None = None  # that an ipi interrupts; None: all


def steps_of(text: str, locks: int) -> list[Step]:
    """The steps of a program of a VM with so many locks."""
    lines = [line.split() for line in re.split("[;\n]", text) if line.strip()]
    return [step_of(words, locks, len(lines)) for words in lines]


def step_of(words: list[str], locks: int, count: int) -> Step:
    verb, *rest = words
    if verb == "block":
        return Step(verb, time=table(" ".join(rest)))
    if verb == "compute":
        share = rest.pop() if rest[-2] == "kernel" else "0"
        time = [word for word in rest if word != "kernel"]
        return Step(verb, time=table(" ".join(time)), below=round(float(share) * 2**32))
    if verb == "jump":
        share = rest[2] if len(rest) > 1 else "1"
        return Step(verb, target=count if rest[0] == "end" else int(rest[0]), below=round(float(share) * 2**32))
    if verb == "ipi":
        return Step(verb, siblings=None if rest[0] == "all" else int(rest[0]))
    if rest[0] == "any":
        return Step(verb, locks=range(locks))
    first, _, last = rest[0].partition("-")
    return Step(verb, locks=range(int(first), int(last or first) + 1))
