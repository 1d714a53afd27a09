"""The compiled code: whether it is ready, getting it ready, and where it is kept."""

from __future__ import annotations

import threading
import time

from ple_gym.drive import simulator
from ple_gym.learned.network import NETWORKS
from ple_gym.rules import RULES
from ple_gym.sim.seam import host_of
from ple_gym.sim.units import Unit
from ple_gym.view.unit import view

NO_CACHE = "no folder to keep it in can be written to: set NUMBA_CACHE_DIR to one"


def units() -> list[Unit]:
    """Every compile unit that the built-in scenarios and rules need, what takes longest first."""
    credit = host_of("credit")
    rules = {rule.unit.name: rule.unit for rule in RULES.values() if rule.unit}
    return [simulator(credit), NETWORKS, view(credit, "float32"), *rules.values()]


def warm_up() -> float:
    """Load everything from its cache, or compile it; return the seconds that took.

    It is done in a thread of its own, so that Ctrl-C interrupts the caller at once: nothing can stop the compiler.
    """
    started = time.perf_counter()
    if is_warm():
        return 0.0
    failures: list[BaseException] = []

    def compile_all() -> None:
        try:
            for unit in units():
                unit.prepare()
        except BaseException as error:  # raised in the caller's thread below
            failures.append(error)

    thread = threading.Thread(target=compile_all, name="compiler", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def compiling() -> str | None:
    """Return the message for a `warm_up` that takes long; None if it does not compile."""
    if is_warm():
        return None
    lasting = "once" if cache_folder() else f"in every process, as {NO_CACHE}"
    return f"compiling the simulator: half a minute to two minutes of CPU time, {lasting}"


def is_warm() -> bool:
    """Whether everything is ready to run in this process."""
    return all(unit.is_ready for unit in units())


def loaded_from() -> str | None:
    """The folder that this process has the simulator from; None if it was compiled here, or is not yet needed."""
    cache = units()[0].cache
    return str(cache.loaded.parent) if cache and cache.loaded else None


def cache_folder() -> str | None:
    """Where compiled code is kept; None without a folder to write to, or without the JIT."""
    cache = units()[0].cache
    return cache.cache_path if cache else None
