"""Calls of a function on a Ray cluster, each in whatever process is free.

A call whose worker dies is made again elsewhere. So what is called must give the same wherever it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ple_gym.errors import UsageError
from ple_gym.files import reason
from ple_gym.messages import plain

PACKAGE = Path(__file__).parent
LOCAL = "local"
RETRIES = 5  # of a call whose worker died
PENDING = 4  # calls per worker that Ray is given at a time


class Cluster:
    """A cluster that this process is connected to; `workers`: how many CPUs it has."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Callable[..., Any], Any] = {}  # each is sent once
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def calls(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function returns for each of these arguments, in the order in which calls end; or raises."""
        if function not in self._remote:
            self._remote[function] = self._ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        run = self._remote[function]
        waiting = (run.remote(*each) for each in arguments)
        pending = list(islice(waiting, PENDING * self.workers))
        while pending:
            ready, pending = self._ray.wait(pending)
            try:
                yield from self._ray.get(ready)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            pending += islice(waiting, len(ready))


@contextmanager
def connected(address: str, workers: int, packages: Sequence[Path] = (PACKAGE,)) -> Iterator[Cluster]:
    """The Ray cluster at an address; `local` starts one here, with so many workers, and ends it afterwards.

    packages: folders of the code that is called, which a cluster elsewhere is given.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--ray: Ray is not installed; pip install 'ple-gym[cluster]'") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        # This code as it is: its compiled kernel is used, too.
        paths = [*{str(one.parent): None for one in packages}, *filter(None, [os.environ.get("PYTHONPATH")])]
        code: dict[str, Any] = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
        ray.init(
            LOCAL, num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", runtime_env=code, **quiet
        )
    else:
        code = {"py_modules": [*map(str, packages)], "excludes": ["**/__pycache__", "results"]}
        try:
            ray.init(address, runtime_env=code, **quiet)
        except (ConnectionError, ValueError) as error:
            raise UsageError(f"--ray = {plain(address)}: no cluster there ({reason(error)})") from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()
