"""The compiled code: whether it is ready, getting it ready, and where it is kept.

Each scheduler of a host makes a simulator of its own, which is compiled for the first scenario that has it; functions
here take the names of those that are needed, and mean `credit` without one.

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
from collections.abc import Iterator, Sequence
from pathlib import Path

from ple_gym.drive import simulator
from ple_gym.learned.network import NETWORKS
from ple_gym.progress import waiting
from ple_gym.rules import RULES
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.seam import host_of
from ple_gym.sim.units import PACKAGE, Unit
from ple_gym.view.unit import view

USUAL = "credit"
NO_CACHE = "no folder to keep it in can be written to: set NUMBA_CACHE_DIR to one"


def units(*schedulers: str) -> list[Unit]:
    """Every compile unit that hosts with these schedulers and the built-in rules need: simulators, which take longest,
    stand first."""
    hosts = [host_of(name) for name in schedulers or (USUAL,)]
    rules = {rule.unit.name: rule.unit for rule in RULES.values()}
    return [*map(simulator, hosts), NETWORKS, *(view(host, "float32") for host in hosts), *rules.values()]


def _ahead(*schedulers: str) -> list[Unit]:
    """What is compiled before a run. Where no process can keep it for the next, that is the simulators alone: what else
    a run needs is compiled when it is asked for, and most of it never is."""
    return units(*schedulers) if cache_folder() else units(*schedulers)[: max(1, len(schedulers))]


def warm_up(*schedulers: str) -> float:
    """Load everything from its cache, or compile it; return the seconds that took.

    It is done in a thread of its own, so that Ctrl-C interrupts the caller at once: nothing can stop the compiler.
    """
    started = time.perf_counter()
    if is_warm(*schedulers):
        return 0.0
    failures: list[BaseException] = []
    own, others = _shared_out(_ahead(*schedulers), max(1, len(schedulers)))
    with _aside(own, others) as helper:

        def compile_all() -> None:
            try:
                for unit in own:
                    unit.prepare()
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


def warm_up_and_say(*schedulers: str) -> float:
    """The same; on stderr it is said what is going on if that lasts."""
    with waiting(lambda: compiling(*schedulers)):
        return warm_up(*schedulers)


def _cpus() -> int:
    """How many CPUs this process may use; not every system says it."""
    may_use = getattr(os, "sched_getaffinity", None)
    return len(may_use(0)) if may_use else os.cpu_count() or 1


def _shared_out(every: Sequence[Unit], simulators: int) -> tuple[list[Unit], list[Unit]]:
    """What this process compiles, and what another one does: every second simulator, and all that is short."""
    own = every[:simulators:2]
    return [*own], [unit for unit in every if unit not in own]


@contextlib.contextmanager
def _aside(own: Sequence[Unit], others: Sequence[Unit]) -> Iterator[subprocess.Popen[bytes] | None]:
    """Have the others compiled by another process, which ends with this block.

    Yields None where nothing of `own` must be compiled either, where there is one CPU, where no cache can be written
    to, and where this process is no plain Python.
    """
    names = [unit.name for unit in others if unit.must_be_compiled]
    plain = Path(sys.executable or "").name.startswith("python")
    must = any(unit.must_be_compiled for unit in own)
    if not (names and must and cache_folder() and plain and _cpus() > 1):
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
    for unit in units(*SCHEDULERS):
        if unit.name in sys.argv:
            unit.prepare()


def _end_with_the_first_process() -> None:
    sys.stdin.buffer.read()  # it lasts until the pipe is closed, however that process ends
    os._exit(1)


def compiling(*schedulers: str) -> str | None:
    """Return the message for a `warm_up` that takes long; None if it does not compile."""
    if is_warm(*schedulers):
        return None
    lasting = "once" if cache_folder() else f"in every process, as {NO_CACHE}"
    price = "a minute to three minutes" if len(schedulers) > 1 else "a quarter of a minute to a minute"
    return f"compiling the simulator: {price} of CPU time, {lasting}"


def is_warm(*schedulers: str) -> bool:
    """Whether everything is ready to run in this process."""
    return all(unit.is_ready for unit in _ahead(*schedulers))


def loaded_from() -> str | None:
    """The folder that this process has the simulator from; None if it was compiled here, or is not yet needed."""
    cache = units()[0].cache
    return str(cache.loaded.parent) if cache and cache.loaded else None


def cache_folder() -> str | None:
    """Where compiled code is kept; None without a folder to write to, or without the JIT."""
    cache = units()[0].cache
    return cache.cache_path if cache else None
