"""Which input of a learned policy is which feature: files name them, and weights are put in the kernel's order.

The letters of `SHAPES` (file.py) that count inputs are R (features of a vCPU and their ranks), G (the host's), S (three
times the hidden units, then the host's), and L (a flat observation). Along these axes weights are selected or
rearranged. A feature that the kernel shows and a file does not name has weights of zero: what was trained without it
does not look at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.learned.cards import list_of
from ple_gym.learned.network import RANKED
from ple_gym.messages import show
from ple_gym.scenario.parameters import check, text
from ple_gym.view.rows import Table

RANK_NAMES = tuple(f"rank of {name}" for name in RANKED)
MAX_NAMES = 1000
_NAMES = list_of(text(100), 1, MAX_NAMES)

Arrays = Mapping[str, npt.NDArray[Any]]
#: Letters of each axis of each array.
Letters = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Inputs:
    """Names of the features that a policy reads, in the order of its weights.

    Attributes:
        vcpu: of each vCPU, with the ranks of some behind them if its kind has ranks.
        host: of the host.
    """

    vcpu: tuple[str, ...]
    host: tuple[str, ...]

    @classmethod
    def shown(cls, table: Table, level: int, ranks: bool) -> Inputs:
        """What the kernel shows of a table of features at an information level, in its order."""
        return cls(table.vcpu_names(level) + (RANK_NAMES if ranks else ()), table.host_names)

    @classmethod
    def of(cls, told: Any, shown: Inputs, error: type[Exception]) -> Inputs:
        """What a file tells, which must be some of what is shown, all ranks among them.

        Raises:
            error: two lists of names it is not; one is named twice, is shown nowhere, or is missed.
        """
        if not isinstance(told, Mapping) or told.keys() != {"vcpu", "host"}:
            raise error(f"features {show(told)}: must be a table of vcpu and host")
        found = cls(*(tuple(check(f"features of {name}", _NAMES, told[name], error)) for name in ("vcpu", "host")))
        for whose, names, known in (("a vCPU", found.vcpu, shown.vcpu), ("the host", found.host, shown.host)):
            for name in names:
                if name not in known:
                    raise error(f"feature {show(name)} of {whose}: this version shows none of that name at that level")
                if names.count(name) > 1:
                    raise error(f"feature {show(name)} of {whose}: it is named twice")
        for name in RANK_NAMES:
            if name in shown.vcpu and name not in found.vcpu:
                raise error(f"features of vcpu: {show(name)} is missing, which a network of this kind needs")
        return found

    def sizes(self, hidden: int, vcpus: int) -> dict[str, int]:
        """How long an axis with one of the letters is."""
        host = len(self.host)
        return {"R": len(self.vcpu), "G": host, "S": 3 * hidden + host, "L": vcpus * len(self.vcpu) + host}


def rearranged(arrays: Arrays, letters: Letters, own: Inputs, shown: Inputs, hidden: int, vcpus: int) -> Arrays:
    """Weights over the inputs `own` as weights over those that are shown."""
    if own == shown:
        return arrays
    vcpu, host = _sources(own.vcpu, shown.vcpu), _sources(own.host, shown.host)
    columns = vcpu[:, np.newaxis] * vcpus + np.arange(vcpus)  # of a flat observation; the host's come behind them
    flat = np.append(columns, host + len(own.vcpu) * vcpus)
    sources = {
        "R": vcpu,
        "G": host,
        "S": np.append(np.arange(3 * hidden), np.where(host < 0, -1, 3 * hidden + host)),
        "L": np.where(np.append(vcpu.repeat(vcpus), host) < 0, -1, flat),
    }
    found = dict(arrays)
    for name, axes in letters.items():
        for axis, letter in enumerate(axes):
            if letter in sources:
                found[name] = _taken(found[name], sources[letter], axis)
    return found


def _sources(own: Sequence[str], shown: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where each one that is shown is among one's own; -1: nowhere."""
    return np.array([own.index(name) if name in own else -1 for name in shown])


def _taken(array: npt.NDArray[Any], sources: npt.NDArray[np.int64], axis: int) -> npt.NDArray[Any]:
    """The slices of an array from these places along an axis; zeros from nowhere."""
    missing = [slice(None)] * array.ndim
    missing[axis] = sources < 0  # type: ignore[call-overload]
    taken = array.take(np.maximum(sources, 0), axis)
    taken[tuple(missing)] = 0
    return taken
