"""Where things stand in a checkout: what git keeps, and what it ignores."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parents[1]  # experiments/
ROOT = HERE.parent
DOCS = ROOT / "docs"
RESULTS = HERE / "results"  # tables in their small form, and the pictures that documents show
PROFILES = HERE / "profiles"  # made by `python -m experiments fit`
CHECKPOINTS = ROOT / "agents" / "checkpoints.tar.xz"  # policies that `python -m experiments train` makes

# Ignored by git:
SCRATCH = ROOT / "runs" / "experiments"  # partial tables, studies, quick results
TABLES = SCRATCH / "tables"  # every table as CSV, every picture
TRAININGS = ROOT / "runs" / "leaderboard"
