"""The examples of docs/bridges.md that need a library which the usual environment does not have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def example(words: str, language: str = "python") -> str:
    """The one block of the page that contains these words."""
    page = (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(rf"```{language}[^\n]*\n(.*?)```", page, re.DOTALL) if words in block)
    return block


def run(folder: Path, *command: str) -> str:
    """What a Python command prints that ends well, with files going to the folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
