"""The compiled simulator: whether it is ready, getting it ready, and where it is kept."""

from __future__ import annotations

import threading
import time

from ple_gym.drive import drive
from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.sim.jit import cache_of

NO_CACHE = "no folder to keep it in can be written to: set NUMBA_CACHE_DIR to one"


def warm_up() -> float:
    """Load the kernel from its cache, or compile it (half a minute to two of CPU time); return the seconds that took.

    It is done in a thread of its own, so that Ctrl-C interrupts the caller at once: nothing can stop the compiler.
    """
    started = time.perf_counter()
    if is_warm():
        return 0.0
    failures: list[BaseException] = []

    def compile_all() -> None:
        try:
            Lanes(SCENARIOS["HolderPreempted"], 1).run(0, 0, RULES["oracle"].code)
        except BaseException as error:  # told to the caller below
            failures.append(error)

    thread = threading.Thread(target=compile_all, name="compiler", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def compiling() -> str | None:
    """What to tell while `warm_up` takes long; None if it does not compile."""
    if is_warm():
        return None
    lasting = "once" if cache_folder() else f"in every process, as {NO_CACHE}"
    return f"compiling the simulator: half a minute to two minutes of CPU time, {lasting}"


def is_warm() -> bool:
    """Whether the kernel is ready to run in this process."""
    return bool(getattr(drive, "signatures", True))  # without the JIT it always is


def loaded_from() -> str | None:
    """The folder that this process has its compiled code from; None if it was compiled here, or is not yet needed."""
    cache = cache_of(drive)
    return str(cache.loaded.parent) if cache and cache.loaded else None


def cache_folder() -> str | None:
    """Where compiled code is kept; None without a folder to write to, or without the JIT."""
    stats = getattr(drive, "stats", None)
    return stats.cache_path if stats else None
