"""How the simulator is compiled: one inlined kind of helper, and entry points that are cached on disk.

Only the entry point is cached. Numba keys its cache on the entry point's own file, so that an edited helper in another
file would go unnoticed; the entry point therefore closes over a fingerprint of all compiled sources, part of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

JIT_ENABLED: bool = not numba.config.DISABLE_JIT

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

#: Only compiled code calls these, so they need no wrappers for Python or C: that saves a third of the compile time.
_HELPER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

#: Decorator of the helpers that are inlined into their callers.
inlined = numba.njit(forceinline=True, **_HELPER)
#: Decorator of the helpers that are called rarely or from many places: inlining them would only cost compile time.
called = numba.njit(**_HELPER)


def compiled_sources() -> list[Path]:
    """Every source file that takes part in compilation, besides the entry point's own."""
    package = Path(__file__).resolve().parent.parent
    others = ("observe.py", "policies/network.py", "policies/rules.py")
    return sorted([*package.glob("sim/**/*.py"), *(package / name for name in others)])


def source_fingerprint() -> int:
    """Hash of all compiled sources, and of whether indices are checked (63-bit int)."""
    digest = hashlib.blake2b(str(numba.config.BOUNDSCHECK).encode(), digest_size=8)
    for path in compiled_sources():
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def entry_point(function: Callable[..., Any]) -> Any:
    """Compile `function`, cached on disk where there is a folder to write to.

    With a read-only installation and a read-only home numba finds no place for its cache and raises at decoration;
    then the function is compiled in every process (set `NUMBA_CACHE_DIR` to avoid that). So it is with checked indices:
    numba cannot cache what raises IndexError.
    """
    if numba.config.BOUNDSCHECK:
        return numba.njit(**_OPTIONS)(function)
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return numba.njit(**_OPTIONS)(function)


def compiled(function: Any, *arguments: Any) -> Callable[..., Any]:
    """The machine code of an entry point for arguments of these types.

    Calling it spares numba's look-up of the types, which takes longer than most steps of the simulator.
    """
    if not JIT_ENABLED:
        return np.errstate(over="ignore")(function)  # type: ignore[no-any-return]  # hashing overflows on purpose
    return function.compile(tuple(numba.typeof(argument) for argument in arguments))  # type: ignore[no-any-return]
