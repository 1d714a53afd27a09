"""Where the batches of a sweep run: in this process, in local processes (joblib), or on a Ray cluster.

All three yield the same rows. On Ray a batch whose worker dies is run again elsewhere, and every batch is the same
wherever it runs, so that nothing is lost, repeated or different.
"""

from __future__ import annotations

import operator
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from experiments.lab.folders import PACKAGE, ROOT
from ple_gym.cluster import PENDING, connected
from ple_gym.compilation import warm_up

Batches: TypeAlias = Sequence[Sequence[Any]]
Rows: TypeAlias = list[tuple[int, ...]]
Measure: TypeAlias = Callable[[Any], Mapping[str, int]]


@dataclass(frozen=True)
class Where:
    """`jobs` local processes, or the Ray cluster at an address; `local` starts one here, with `jobs` workers."""

    jobs: int = os.cpu_count() or 1
    ray: str = ""


def run_batches(measure: Measure, columns: Sequence[str], batches: Batches, where: Where) -> Iterator[tuple[int, Rows]]:
    """Yield (number of the batch, its rows) as batches are finished, in any order."""
    if not batches:
        return
    if where.ray:
        yield from _on_ray(measure, columns, batches, where)
    elif where.jobs == 1:
        for number, batch in enumerate(batches):
            yield number, _run(measure, columns, batch)
    else:
        yield from _in_processes(measure, columns, batches, where.jobs)


def _run(measure: Measure, columns: Sequence[str], batch: Sequence[Any]) -> Rows:
    """The rows; TypeError if a measured value is not an integer."""
    return [tuple(operator.index(values[name]) for name in columns) for values in map(measure, batch)]


def _numbered(measure: Measure, columns: Sequence[str], batch: Sequence[Any], number: int) -> tuple[int, Rows]:
    return number, _run(measure, columns, batch)


def _in_processes(measure: Measure, columns: Sequence[str], batches: Batches, jobs: int) -> Iterator[tuple[int, Rows]]:
    from joblib import Parallel, delayed

    warm_up()  # compile here, once, and not in all processes at the same time
    parallel = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch=f"{PENDING}*n_jobs", return_as="generator_unordered")
    with without_interrupts():
        results = parallel(delayed(_numbered)(measure, columns, batch, i) for i, batch in enumerate(batches))
    yield from results


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, which a terminal sends to all: this one ends them, without their words.

    They inherit what this thread does not hear now. It hears of it at the end. Their resource tracker outlives this
    process; what it then finds and warns of has been tidied up already, or is tidied up by it.
    """
    from joblib.externals.loky.backend import resource_tracker

    with _environment(PYTHONWARNINGS="ignore"):
        resource_tracker.ensure_running()  # before, as it makes the thread hear again
    threading.excepthook = _without_executors
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Start processes with further environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _without_executors(failure: threading.ExceptHookArgs) -> None:
    """Tell of an exception in a thread, but not in the one that feeds processes which have just been ended."""
    if failure.thread is None or "ExecutorManager" not in failure.thread.name:
        threading.__excepthook__(failure)


def _on_ray(measure: Measure, columns: Sequence[str], batches: Batches, where: Where) -> Iterator[tuple[int, Rows]]:
    warm_up()
    with connected(where.ray, where.jobs, (PACKAGE, ROOT / "experiments", ROOT / "agents")) as cluster:
        yield from cluster.calls(_numbered, ((measure, columns, batch, number) for number, batch in enumerate(batches)))
