"""The compiled code: whether it is ready, getting it ready, and where it is kept.

numba compiles one thing at a time in a process. So where there is another CPU, another process compiles the rest while
this one compiles the simulator, which takes longest, and leaves it in the cache.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ple_gym.drive import simulator
from ple_gym.learned.network import NETWORKS
from ple_gym.rules import RULES
from ple_gym.sim.seam import host_of
from ple_gym.sim.units import PACKAGE, Unit
from ple_gym.view.unit import view

NO_CACHE = "no folder to keep it in can be written to: set NUMBA_CACHE_DIR to one"


def units() -> list[Unit]:
    """Every compile unit that the built-in scenarios and rules need, what takes longest first."""
    credit = host_of("credit")
    rules = {rule.unit.name: rule.unit for rule in RULES.values()}
    return [simulator(credit), NETWORKS, view(credit, "float32"), *rules.values()]


def warm_up() -> float:
    """Load everything from its cache, or compile it; return the seconds that took.

    It is done in a thread of its own, so that Ctrl-C interrupts the caller at once: nothing can stop the compiler.
    """
    started = time.perf_counter()
    if is_warm():
        return 0.0
    failures: list[BaseException] = []
    with _others_aside() as helper:

        def compile_all() -> None:
            try:
                first, *others = units()
                first.prepare()
                if helper:
                    helper.wait()
                for unit in others:  # what the helper has not left in the cache is compiled here
                    unit.prepare()
            except BaseException as error:  # raised in the caller's thread below
                failures.append(error)

        thread = threading.Thread(target=compile_all, name="compiler", daemon=True)
        thread.start()
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - started


def _cpus() -> int:
    """How many CPUs this process may use; not every system says it."""
    may_use = getattr(os, "sched_getaffinity", None)
    return len(may_use(0)) if may_use else os.cpu_count() or 1


@contextlib.contextmanager
def _others_aside() -> Iterator[subprocess.Popen[bytes] | None]:
    """Have all units but the simulator compiled by another process, which ends with this block.

    Yields None where the simulator need not be compiled either, where there is one CPU, where no cache can be written
    to, and where this process is no plain Python.
    """
    first, *others = units()
    names = [unit.name for unit in others if unit.must_be_compiled]
    plain = Path(sys.executable or "").name.startswith("python")
    if not (names and first.must_be_compiled and cache_folder() and plain and _cpus() > 1):
        yield None
        return
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        # What it would say of the cache, this process says itself when it comes to load what is not there.
        helper = subprocess.Popen(
            [sys.executable, "-c", "from ple_gym.compilation import compile_aside; compile_aside()", *names],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # no memory for it, for instance
        yield None
        return
    try:
        yield helper
    finally:
        helper.kill()
        helper.communicate()


def compile_aside() -> None:
    """Be the other process: compile the units that its arguments name."""
    threading.Thread(target=_end_with_the_first_process, daemon=True).start()
    for unit in units():
        if unit.name in sys.argv:
            unit.prepare()


def _end_with_the_first_process() -> None:
    sys.stdin.buffer.read()  # it lasts until the pipe is closed, however that process ends
    os._exit(1)


def compiling() -> str | None:
    """Return the message for a `warm_up` that takes long; None if it does not compile."""
    if is_warm():
        return None
    lasting = "once" if cache_folder() else f"in every process, as {NO_CACHE}"
    return f"compiling the simulator: a quarter of a minute to a minute of CPU time, {lasting}"


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
