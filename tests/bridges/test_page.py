"""The page about bridges is true: its Python runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import python_script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bridges.md"


@pytest.mark.slow
def test_its_python_runs(tmp_path: Path) -> None:
    for library in ("minari", "skrl", "torchrl"):
        pytest.importorskip(library)
    script = tmp_path / "bridges.py"  # a traceback's line numbers are the page's
    script.write_text(python_script(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "minari")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "minari").exists()
