"""What is simulated: scenarios, their parameters, the built-in ones, and how a file describes one."""

from ple_gym.errors import ScenarioError
from ple_gym.scenario.builtin import SCENARIOS, SUITES, load
from ple_gym.scenario.model import (
    PROFILES,
    Cost,
    Decision,
    Host,
    Limit,
    Noise,
    Ple,
    Scenario,
    Vm,
    describe_parameters,
    never_decides,
)

__all__ = [
    "PROFILES",
    "SCENARIOS",
    "SUITES",
    "Cost",
    "Decision",
    "Host",
    "Limit",
    "Noise",
    "Ple",
    "Scenario",
    "ScenarioError",
    "Vm",
    "describe_parameters",
    "load",
    "never_decides",
]
