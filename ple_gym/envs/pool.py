"""A few threads that share lanes: each takes a part of them; compiled code does not hold the interpreter meanwhile."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait


class Pool:
    """Splits lanes 0..`lanes`-1 over `threads` threads, the calling one among them."""

    def __init__(self, lanes: int, threads: int) -> None:
        bounds = [lanes * part // threads for part in range(threads + 1)]
        self.parts = list(itertools.pairwise(bounds))
        self.executor: ThreadPoolExecutor | None = None
        self.process = 0
        self.stopping = threading.Event()

    def run(self, work: Callable[..., int], *arguments: object) -> int:
        """Call `work(begin, end, *arguments)` for each part of the lanes; returns the sum of what the calls return.

        `work` must call what it gets as `between` (`Lanes.drive`) now and then: that raises when this thread was
        interrupted. When `run` raises, no thread is at work any more.
        """
        mine, *others = self.parts
        if not others:
            return work(*mine, *arguments)
        if self.executor is None or self.process != os.getpid():  # a forked child inherits no threads
            self.executor, self.process = ThreadPoolExecutor(len(others)), os.getpid()
        futures = [self.executor.submit(work, *part, *arguments, between=self._stop_if_asked) for part in others]
        try:
            return work(*mine, *arguments) + sum(future.result() for future in futures)
        except BaseException:
            self.stopping.set()
            wait(futures)
            self.stopping.clear()
            raise

    def _stop_if_asked(self, lane: int) -> None:
        if self.stopping.is_set():
            raise CancelledError

    def close(self) -> None:
        """End the threads; the next `run` starts new ones."""
        if self.executor and self.process == os.getpid():
            self.executor.shutdown()
        self.executor, self.process = None, 0
