"""What a feature is: one row of a table, from which observations, spaces, documents and policy files are made.

A row names a feature, says who may see it, what it means, where it lies, and how it is computed. The tables are in
`features.py`; what one host scheduler adds to them is in a file of that scheduler (`credit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ple_gym.view.record import HYPERVISOR, NOTHING

Range: TypeAlias = tuple[float, float]

TOP = 1.5  # the highest value of all: "never", "not in line", or longer than what is told apart
FLAG: Range = (0.0, 1.0)  # 0 or 1
SHARE: Range = (0.0, 1.0)  # of all vCPUs, of all pCPUs, of a timeslice
SIGNED: Range = (-1.0, 1.0)
LOGARITHM: Range = (0.0, TOP)  # of a time or a count
PLACE: Range = (0.0, TOP)  # a share, or 1.5 for none


@dataclass(frozen=True)
class Feature:
    """One feature of every vCPU, or of the host.

    Attributes:
        name: how policy files, documents and programs call it.
        level: the lowest information level that shows it (`record.HYPERVISOR` .. `ORACLE`).
        meaning: one line for the documents.
        range: the lowest and the highest value. Both are told by the spaces; 0 lies within.
        writer: the value, as a function that is compiled into the loop over all vCPUs. It must not branch. Of a vCPU it
            gets the words that were gathered of it (`observation.Seen`, `Guessed` or `Known`, by its level) and the
            decision (`observation.Here`); of the host the decision alone.
        scheduler: the host scheduler that it belongs to; empty: any. The writer of such a feature of a vCPU gets what
            the table's `look` returns instead of gathered words, so that no neutral code knows what that scheduler
            keeps; of the host it may also ask for `see`, all that a hypervisor sees (`sim/sight.py`).
        after: the neutral feature that it comes next to, if it belongs to a scheduler.
    """

    name: str
    level: int
    meaning: str
    range: Range
    writer: Callable[..., Any]
    scheduler: str = ""
    after: str = ""


def its_record(see: Any, number: Any, here: Any) -> Any:
    """What the host's scheduler keeps of vCPU `number`."""
    return see.host_vcpu[number]


@dataclass(frozen=True)
class Table:
    """All features of an observation, in their order; those of a vCPU by level, the lowest first.

    `look` is compiled, too: it says what the writers of the host scheduler's features of a vCPU are given as `own`.
    """

    vcpu: tuple[Feature, ...]
    host: tuple[Feature, ...]
    look: Callable[..., Any] = its_record

    def with_more(self, more: tuple[Feature, ...]) -> Table:
        """This table with more features of a vCPU, behind those of their level."""
        (level,) = {one.level for one in more}
        below = len(self.of_vcpu(level))
        return replace(self, vcpu=(*self.vcpu[:below], *more, *self.vcpu[below:]))

    def of_vcpu(self, level: int) -> tuple[Feature, ...]:
        """What is shown of each vCPU at an information level; a higher level only adds features at the end."""
        return tuple(feature for feature in self.vcpu if feature.level <= level)

    def vcpu_names(self, level: int) -> tuple[str, ...]:
        """Names of the features of a vCPU at an information level (`record.NOTHING` .. `ORACLE`), in order."""
        return names(self.of_vcpu(level))

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names of the host's features, in order."""
        return names(self.host)

    def length(self, level: int, vcpus: int) -> int:
        """Length of a flat observation: feature by feature all vCPUs, then the host's; 0 if nothing is seen."""
        return 0 if level == NOTHING else vcpus * len(self.of_vcpu(level)) + len(self.host)

    def added(self, level: int) -> tuple[Feature, ...]:
        """What a level adds to the one before."""
        return tuple(feature for feature in self.vcpu if feature.level == level)


def names(features: Iterable[Feature]) -> tuple[str, ...]:
    """Their names."""
    return tuple(feature.name for feature in features)


def joined(vcpu: Iterable[Feature], host: Iterable[Feature], own: Table) -> Table:
    """The neutral features with those of a host scheduler among them, each behind the one that it names.

    Raises:
        ValueError: two features of one name, one that names no neutral feature, a level above one that follows it, or a
            range without 0.
    """
    table = Table(merged(vcpu, own.vcpu), merged(host, own.host), own.look)
    for what, features in (("a vCPU", table.vcpu), ("the host", table.host)):
        found = names(features)
        for feature in features:
            if found.count(feature.name) > 1:
                raise ValueError(f"feature {feature.name!r} of {what}: there are two of that name")
            if not feature.range[0] <= 0 <= feature.range[1]:
                raise ValueError(f"feature {feature.name!r} of {what}: its range {feature.range} must hold 0")
        levels = [feature.level for feature in features]
        if levels != sorted(levels) or levels[:1] != [HYPERVISOR]:
            raise ValueError(f"features of {what}: each level must follow the one below it")
    return table


def merged(neutral: Iterable[Feature], own: Iterable[Feature]) -> tuple[Feature, ...]:
    """The neutral features with others among them, each behind the one that it names.

    Raises:
        ValueError: one names no neutral feature.
    """
    merged, own = list(neutral), list(own)
    places = names(merged)
    for feature in own:
        if feature.after not in places:
            raise ValueError(f"feature {feature.name!r} comes after {feature.after!r}: there is no such feature")
    for name in reversed(places):
        at = places.index(name) + 1
        merged[at:at] = [feature for feature in own if feature.after == name]
    return tuple(merged)
