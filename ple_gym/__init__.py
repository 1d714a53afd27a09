"""ple_gym: which vCPU should run when a spinning one exits to the hypervisor? A Gymnasium environment.

Public are the names in `ple_gym.__all__`, and those of these modules: of their `__all__` or, without one, all that have
no leading underscore:

    ple_gym.errors                  what is raised, as one tree
    ple_gym.evaluate                runs and comparisons, their statistics and tables
    ple_gym.rules                   the compiled rules
    ple_gym.scenario                scenarios and their parameters
    ple_gym.envs.options            the words that options take, as types
    ple_gym.view.features           the features of observations
    ple_gym.traces.events           what is in a trace
    ple_gym.traces.linux            what a Linux host records, as one table
    ple_gym.traces.readers          traces of Linux hosts, read
    ple_gym.traces.writers          runs, written for other tools
    ple_gym.testing                 a checker for vector environments
    ple_gym.adapters.masks          masks within observations
    ple_gym.adapters.minari         data sets
    ple_gym.adapters.rllib          RLlib
    ple_gym.adapters.sb3            Stable-Baselines3
    ple_gym.adapters.semi_markov    discounts by elapsed time

All other modules are private: they may change in any version, and the changelog does not mention it.
"""

from typing import TYPE_CHECKING, Any

from ple_gym import errors
from ple_gym.adapters import make_sb3
from ple_gym.envs.registration import register_environments
from ple_gym.errors import ArgumentError, PleError, PolicyError, ScenarioError
from ple_gym.scenario.builtin import SCENARIOS, load
from ple_gym.scenario.model import Scenario

if TYPE_CHECKING:
    from ple_gym import evaluate, rules
    from ple_gym.envs.env import PleEnv
    from ple_gym.envs.vector import PleVectorEnv
    from ple_gym.evaluate import Comparison, Group, Run, compare, record, simulate
    from ple_gym.view.features import HOST_FEATURES, VCPU_FEATURES

__version__ = "0.1.0"  # the one place: pyproject.toml reads it
__all__ = [
    "HOST_FEATURES",
    "SCENARIOS",
    "VCPU_FEATURES",
    "ArgumentError",
    "Comparison",
    "Group",
    "PleEnv",
    "PleError",
    "PleVectorEnv",
    "PolicyError",
    "Run",
    "Scenario",
    "ScenarioError",
    "compare",
    "errors",
    "evaluate",
    "load",
    "make_sb3",
    "record",
    "rules",
    "simulate",
]

#: What loads the compiled kernel, which takes a second: only when it is asked for. An empty name: a module as it is.
_LATE = {
    "HOST_FEATURES": "ple_gym.view.features",
    "VCPU_FEATURES": "ple_gym.view.features",
    "Comparison": "ple_gym.evaluate",
    "Group": "ple_gym.evaluate",
    "PleEnv": "ple_gym.envs.env",
    "PleVectorEnv": "ple_gym.envs.vector",
    "Run": "ple_gym.evaluate",
    "compare": "ple_gym.evaluate",
    "evaluate": "",
    "record": "ple_gym.evaluate",
    "rules": "",
    "simulate": "ple_gym.evaluate",
}

register_environments()


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'ple_gym' has no attribute {name!r}")
    from importlib import import_module

    if not _LATE[name]:
        return import_module(f"ple_gym.{name}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", "__doc__"})
