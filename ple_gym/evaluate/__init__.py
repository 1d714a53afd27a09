"""Run scenarios under policies, and compare these fairly.

Examples:
    >>> ple_gym.evaluate.parse_seeds("0:16")
    range(0, 16)
"""

from ple_gym.evaluate.agents import Agent, Predicts
from ple_gym.evaluate.comparison import Comparison, Outcome, Row, Run
from ple_gym.evaluate.configurations import Configurations, compare_configurations, sweep
from ple_gym.evaluate.policies import Policy, load_policy
from ple_gym.evaluate.runs import Group, compare, compare_all, doubts, parse_seeds, simulate
from ple_gym.evaluate.statistics import Estimate, Ratio, cvar, estimate, quantile, ratio, score
from ple_gym.evaluate.tables import comparison_table
from ple_gym.traces.recording import record

__all__ = [
    "Agent",
    "Comparison",
    "Configurations",
    "Estimate",
    "Group",
    "Outcome",
    "Policy",
    "Predicts",
    "Ratio",
    "Row",
    "Run",
    "compare",
    "compare_all",
    "compare_configurations",
    "comparison_table",
    "cvar",
    "doubts",
    "estimate",
    "load_policy",
    "parse_seeds",
    "quantile",
    "ratio",
    "record",
    "score",
    "simulate",
    "sweep",
]
