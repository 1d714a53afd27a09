"""What some lanes tell, as the infos of all: Gymnasium's nested arrays, each with a mask of the lanes that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Infos = dict[str, Any]


def nest(infos: Infos, told: Sequence[Infos], lanes: Sequence[int], count: int) -> None:
    """Add what some lanes tell, all of them the same kinds of things, to the infos of all `count` lanes.

    Gymnasium's format, but column by column instead of lane by lane, and with NaN for a number that is None.
    """
    for name in dict.fromkeys(name for info in told for name in info):
        values = {lane: info[name] for lane, info in zip(lanes, told, strict=True) if name in info}
        first = next(iter(values.values()))
        column: Any
        if isinstance(first, dict):
            column = {}
            nest(column, list(values.values()), list(values), count)
        else:
            column = _column(first, count)
            for lane, value in values.items():
                column[lane] = value
        where = np.zeros(count, np.bool_)
        for lane in values:
            where[lane] = True
        infos[name], infos[f"_{name}"] = column, where


def _column(value: object, count: int) -> npt.NDArray[Any]:
    """An array for `count` values like this one."""
    if isinstance(value, np.ndarray):
        return np.zeros((count, *value.shape), value.dtype)
    if isinstance(value, bool | int):
        return np.zeros(count, type(value))
    if isinstance(value, float | None):
        return np.zeros(count, np.float64)
    return np.full(count, None, object)
