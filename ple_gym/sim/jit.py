"""How the simulator is compiled: one inlined kind of helper, and entry points that are cached on disk.

Only the entry point is cached. Numba keys its cache on the entry point's own file, so that an edited helper in another
file would go unnoticed; the entry point therefore closes over a fingerprint of all compiled sources, part of the key.
`sim/cache.py` keeps the files.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ple_gym.sim.cache import CompiledCache

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
    others = ("view/observation.py", "learned/network.py", "rules/compiled.py")
    # How compiled code is kept does not change it.
    simulator = [path for path in package.glob("sim/**/*.py") if path.name != "cache.py"]
    return sorted([*simulator, *(package / name for name in others)])


def source_fingerprint() -> int:
    """Hash of all compiled sources, and of whether indices are checked (63-bit int)."""
    digest = hashlib.blake2b(str(numba.config.BOUNDSCHECK).encode(), digest_size=8)
    for path in compiled_sources():
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def entry_point(function: Callable[..., Any]) -> Any:
    """Compile `function` when it is first needed, or load what was compiled before (sim/cache.py).

    Not with checked indices: numba cannot cache what raises IndexError.
    """
    dispatcher = numba.njit(**_OPTIONS)(function)
    if JIT_ENABLED and not numba.config.BOUNDSCHECK:
        with contextlib.suppress(RuntimeError):  # not even a place to look in: compiled in every process
            dispatcher._cache = CompiledCache(function)
    return dispatcher


def cache_of(function: Any) -> CompiledCache | None:
    """Where an entry point's compiled code is kept, and whether it came from there; None where nothing is cached."""
    cache = getattr(function, "_cache", None)
    return cache if isinstance(cache, CompiledCache) else None


def compiled(function: Any, *arguments: Any) -> Callable[..., Any]:
    """The machine code of an entry point for arguments of these types.

    Calling it spares numba's look-up of the types, which takes longer than most steps of the simulator.
    """
    if not JIT_ENABLED:
        return np.errstate(over="ignore")(function)  # type: ignore[no-any-return]  # hashing overflows on purpose
    return function.compile(tuple(numba.typeof(argument) for argument in arguments))  # type: ignore[no-any-return]
