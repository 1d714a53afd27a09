"""Where things stand: what git keeps, and what it ignores. An installation has the programs, and not what git keeps."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parents[1]  # experiments/
ROOT = HERE.parent  # of a checkout; or `ple_gym/_checkout` of an installation
IS_CHECKOUT = (ROOT / "pyproject.toml").exists()
PACKAGE = ROOT / "ple_gym" if IS_CHECKOUT else ROOT.parent
DOCS = ROOT / "docs"
RESULTS = HERE / "results"  # tables in their small form, and the pictures that documents show
PROFILES = HERE / "profiles"  # made by `python -m experiments fit`
CHECKPOINTS = ROOT / "agents" / "checkpoints.tar.xz"  # policies that `python -m experiments train` makes

# Ignored by git; beside the caller, where there is no checkout:
RUNS = (ROOT if IS_CHECKOUT else Path()) / "runs"
SCRATCH = RUNS / "experiments"  # partial tables, studies, quick results
TABLES = SCRATCH / "tables"  # every table as CSV, every picture
TRAININGS = RUNS / "leaderboard"
