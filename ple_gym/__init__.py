"""ple_gym: which vCPU should run when a spinning one exits to the hypervisor? A Gymnasium environment."""

from typing import TYPE_CHECKING, Any

from ple_gym.envs.registration import register_environments
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.scenario.model import Scenario, ScenarioError

if TYPE_CHECKING:
    from ple_gym.adapters.sb3 import make_sb3 as make_sb3
    from ple_gym.envs.env import PleEnv
    from ple_gym.evaluate import compare, simulate

__version__ = "0.1.0"
__all__ = ["SCENARIOS", "PleEnv", "Scenario", "ScenarioError", "compare", "simulate"]

# These load the compiled kernel, which takes a second, or another library: only when they are asked for. What needs an
# extra is not in __all__, so that a star import works without.
_LATE = {
    "PleEnv": "ple_gym.envs.env",
    "compare": "ple_gym.evaluate",
    "make_sb3": "ple_gym.adapters.sb3",
    "simulate": "ple_gym.evaluate",
}

register_environments()


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'ple_gym' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, "make_sb3", "__version__", "__doc__"})
