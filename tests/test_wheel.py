"""The wheel, in an environment without a checkout: whoever installs it can compare, write rules, train and reproduce.

`make wheel` builds it, makes that environment, and names its Python in PLE_WHEEL_PYTHON.
"""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = os.environ.get("PLE_WHEEL_PYTHON", "")
LARGEST_SDIST = 3_000_000  # bytes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON, reason="only make wheel makes the environment")]


@pytest.fixture
def run(tmp_path: Path):
    """Runs a program of the environment in an empty folder, and returns what it printed."""

    def call(*command: str, code: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(Path(PYTHON).with_name(command[0])), *command[1:]],
            cwd=tmp_path,
            env=environment | {"MPLBACKEND": "Agg", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return call


def test_only_our_own_names_are_installed(run) -> None:
    assert "site-packages" in run("python", "-c", "import ple_gym; print(ple_gym.__file__)")
    for name in ("agents", "experiments", "tests", "website"):
        assert f"No module named '{name}'" in run("python", "-c", f"import {name}", code=1)


def test_rules_are_compared_and_drawn(run, tmp_path: Path) -> None:
    told = run(
        "ple-gym", "compare", "Storm", "--policies", "host", "kvm", "oracle", "--seeds", "0:3", "--timeline", "t.png"
    )
    assert "Storm: 3 seeds" in told and (tmp_path / "t.png").exists()


def test_the_rule_of_the_page_is_a_policy(run, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "write-a-rule.md").read_text(encoding="utf-8")
    rule = re.search(r"^```python\n(from ple_gym\.rules .*?)^```", page, re.MULTILINE | re.DOTALL)
    assert rule
    (tmp_path / "mine.py").write_text(rule[1], encoding="utf-8")
    assert "./mine.py:patient" in run(
        "ple-gym", "compare", "Storm", "--policies", "kvm", "./mine.py:patient", "--seeds", "0:3"
    )


def test_a_figure_is_reproduced_in_two_processes(run, tmp_path: Path) -> None:
    told = run("ple-gym", "experiments", "figure1", "--quick", "--jobs", "2", "--out", "again")
    assert "1 + 484" in told and " NO" not in told
    assert {file.name for file in (tmp_path / "again").iterdir()} == {"figure1.csv", "figure1.png"}
    assert "replay: needs a checkout" in run("ple-gym", "experiments", "replay", code=2)


def test_an_agent_is_trained_and_evaluated_though_the_folder_has_agents_of_its_own(run, tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise SystemExit('the wrong agents')", encoding="utf-8")
    run(
        "ple-gym", "agents", "train", "set-ppo", "--scenario", "TicketOrder", "--steps", "1024", "--folder", "runs/mine"
    )
    told = run("ple-gym", "agents", "evaluate", "TicketOrder", "runs/mine", "--seeds", "2000000:2000002")
    assert "set-ppo" in told and (tmp_path / "runs" / "mine" / "policy.npz").exists()


def test_what_is_built_is_small_and_holds_what_it_should() -> None:
    (wheel,) = (ROOT / "dist").glob("*.whl")
    (source,) = (ROOT / "dist").glob("*.tar.gz")
    assert source.stat().st_size < LARGEST_SDIST
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ple_gym", "ple_gym_main.py"}
    assert not [name for name in names if name.endswith((".pyc", ".nbi", ".nbc", ".table.xz"))]
