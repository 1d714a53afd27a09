"""A few threads that share lanes: each takes a part of them; compiled code does not hold the interpreter meanwhile."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Pool:
    """Splits lanes 0..`lanes`-1 over `threads` threads, the calling one among them."""

    def __init__(self, lanes: int, threads: int) -> None:
        bounds = [lanes * part // threads for part in range(threads + 1)]
        self.parts = list(itertools.pairwise(bounds))
        self.executor: ThreadPoolExecutor | None = None
        self.process = 0

    def run(self, work: Callable[..., int], *arguments: object) -> int:
        """Call `work(begin, end, *arguments)` for each part of the lanes; returns the sum of what the calls return."""
        mine, *others = self.parts
        if not others:
            return work(*mine, *arguments)
        if self.executor is None or self.process != os.getpid():  # a forked child inherits no threads
            self.executor, self.process = ThreadPoolExecutor(len(others)), os.getpid()
        futures = [self.executor.submit(work, *part, *arguments) for part in others]
        return work(*mine, *arguments) + sum(future.result() for future in futures)

    def close(self) -> None:
        """End the threads; the next `run` starts new ones."""
        if self.executor and self.process == os.getpid():
            self.executor.shutdown()
        self.executor, self.process = None, 0
