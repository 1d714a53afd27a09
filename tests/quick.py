"""A limit for what must not take long whatever it is given: CPU time of one thread, tens of times what it takes."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail if the block takes more. What other tests have left, threads and garbage, does not count."""
    gc.collect()
    gc.disable()
    began = time.thread_time()
    try:
        yield
        took = time.thread_time() - began
    finally:
        gc.enable()
    assert took < seconds, f"{took:.1f} s"
