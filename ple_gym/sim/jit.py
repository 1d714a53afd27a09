"""The two decorators of compiled helpers. `units.py` says what is compiled together and how it is kept."""

from __future__ import annotations

from typing import Any

import numba

JIT_ENABLED: bool = not numba.config.DISABLE_JIT

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

#: Only compiled code calls these, so they need no wrappers for Python or C: that saves a third of the compile time.
_HELPER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

#: Decorator of the helpers that are inlined into their callers.
inlined = numba.njit(forceinline=True, **_HELPER)
#: Decorator of the helpers that become part of their callers before these are compiled: so the compiler knows, when it
#: vectorises their loops, that the caller's rows on the stack overlap nothing. It takes numba longer than `inlined`.
pasted = numba.njit(inline="always", **_HELPER)
#: Decorator of the helpers that are called rarely or from many places: inlining them would only cost compile time. By
#: order they are not inlined, as numba takes an option that is not set from the caller.
called = numba.njit(forceinline=False, **_HELPER)
