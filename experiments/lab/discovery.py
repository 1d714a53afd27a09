"""Finds the experiments: whatever module in `paper/`, `answer/` or `learning/` has an `EXPERIMENT`.

Their order is that of the folders and, in a folder, of the names. None needs another's table.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from experiments.lab.folders import HERE
from experiments.lab.sweeps import Experiment

FOLDERS = ("paper", "answer", "learning")


@lru_cache(maxsize=1)
def experiments() -> dict[str, Experiment]:
    """Every experiment by its name, which is its module's."""
    found = [module for folder in FOLDERS for module in _modules(folder) if hasattr(module, "EXPERIMENT")]
    named = {module.__name__.rpartition(".")[2]: module.EXPERIMENT for module in found}
    for module in found:
        name = module.__name__.rpartition(".")[2]
        assert named[name] is module.EXPERIMENT, f"{module.__name__}: another experiment is called {name}"
        assert module.EXPERIMENT.name == name, f"{module.__name__}: its EXPERIMENT must be called {name}"
    return named


def pages() -> list[Any]:
    """The modules that write a page of `docs/`: each has `NEEDS`, names of experiments, and `write(tables)`."""
    return [module for module in _modules("pages") if hasattr(module, "NEEDS")]


def _modules(folder: str) -> Iterator[ModuleType]:
    for found in sorted(pkgutil.iter_modules([str(HERE / folder)]), key=lambda one: one.name):
        yield importlib.import_module(f"experiments.{folder}.{found.name}")
