"""Run scenarios under policies, and compare these fairly."""

from ple_gym.evaluate.comparison import Comparison, Row, Run
from ple_gym.evaluate.runs import Group, compare, compare_all, doubts, parse_seeds, simulate
from ple_gym.evaluate.statistics import Estimate, Ratio, cvar, estimate, quantile, ratio, score
from ple_gym.traces.recording import record

__all__ = [
    "Comparison",
    "Estimate",
    "Group",
    "Ratio",
    "Row",
    "Run",
    "compare",
    "compare_all",
    "cvar",
    "doubts",
    "estimate",
    "parse_seeds",
    "quantile",
    "ratio",
    "record",
    "score",
    "simulate",
]
