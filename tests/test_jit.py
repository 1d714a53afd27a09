"""Compilation: one variant for all sizes, and a place for the cache is not needed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

from ple_gym.drive import drive
from ple_gym.lanes import Lanes
from ple_gym.scenarios import SCENARIOS
from ple_gym.sim.jit import JIT_ENABLED, compiled_sources

READ_ONLY = """
from numba.core import caching
for name in vars(caching):
    kind = getattr(caching, name)
    if isinstance(kind, type) and hasattr(kind, "_locator_classes"):
        kind._locator_classes = []  # as numba finds things where it can write nowhere
from ple_gym import evaluate
assert evaluate.cache_folder() is None
print(evaluate.simulate("HolderPreempted", "xen-4.5", [0])[0]["ple_exits"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not JIT_ENABLED, reason="nothing is compiled")
def test_a_read_only_installation_with_a_read_only_home_still_works() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY],
        env={**os.environ, "NUMBA_OPT": "0"},  # compiled anew in every such process: here as quickly as it goes
        capture_output=True,
        text=True,
    )
    assert done.stdout == "484\n", done.stderr


@pytest.mark.skipif(not JIT_ENABLED, reason="nothing is compiled")
def test_an_edit_of_any_compiled_source_is_noticed() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("ple_gym.")]
    dispatchers = [value for module in modules for value in vars(module).values() if hasattr(value, "py_func")]
    sources = {inspect.getfile(dispatcher.py_func) for dispatcher in dispatchers}
    keyed = {str(path) for path in compiled_sources()} | {inspect.getfile(drive.py_func)}
    assert len(sources) > 10
    assert sources <= keyed


@pytest.mark.skipif(not JIT_ENABLED, reason="nothing is compiled")
def test_another_number_of_pcpus_vcpus_or_locks_does_not_compile_again() -> None:
    for scenario in SCENARIOS.values():
        for overrides in ({}, {"host.pcpus": 7, "guest.vcpus": 11, "guest.locks": 5}):
            for count in (1, 3):
                Lanes(scenario.with_overrides(overrides), count, information="oracle").run(0, 1, 0)
    assert len(drive.signatures) == 1
