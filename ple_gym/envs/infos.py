"""The infos of all lanes, made from those of some: Gymnasium's nested arrays with a mask of the lanes that have one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Infos = dict[str, Any]

_KINDS: dict[type, type] = {bool: np.bool_, int: np.int64, float: np.float64, type(None): np.float64}


def nest(infos: Infos, items: Infos, lane: int, count: int) -> None:
    """Add the infos of a lane to those of all `count` lanes.

    Gymnasium's format, but with NaN for a number that is None.
    """
    for name, value in items.items():
        whose = f"_{name}"
        if name not in infos:
            infos[name], infos[whose] = _column(value, count), np.zeros(count, np.bool_)
        if isinstance(value, dict):
            nest(infos[name], value, lane, count)
        else:
            infos[name][lane] = value
        infos[whose][lane] = True


def _column(value: object, count: int) -> npt.NDArray[Any] | Infos:
    """Room for the values of `count` lanes, of the kind of this one."""
    if isinstance(value, dict):
        return {}
    if isinstance(value, np.ndarray):
        return np.zeros((count, *value.shape), value.dtype)
    kind = _KINDS.get(type(value))
    return np.empty(count, object) if kind is None else np.zeros(count, kind)  # objects: all of them None
