"""`ple-gym agents` and `ple-gym experiments`, the programs beside the package: in a checkout, and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.lab import commands
from experiments.lab.digests import sources
from ple_gym.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def told(folder: Path, *arguments: str) -> str:
    """What the script prints, started elsewhere with the modules of a folder."""
    script = "import sys; sys.argv[0] = 'ple-gym'; from ple_gym_main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The script as it is installed, with a program that shows itself, beside a folder that is called like it."""
    inside = tmp_path / "ple_gym" / "_checkout" / "agents"
    inside.mkdir(parents=True)
    (inside / "__init__.py").touch()
    (inside / "__main__.py").write_text("import sys; print(*sys.argv[1:], sys.path[0])", encoding="utf-8")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise SystemExit('the wrong agents')", encoding="utf-8")
    shutil.copy(ROOT / "ple_gym_main.py", tmp_path)
    return tmp_path


def test_a_checkout_has_both_programs() -> None:
    assert told(ROOT, "experiments", "--version") == told(ROOT, "--version")
    assert told(ROOT, "agents", "--help").startswith("usage: ple-gym agents COMMAND")


def test_an_installation_has_them_inside_the_package(installed: Path) -> None:
    assert told(installed, "agents", "train", "cem").split() == [
        "train",
        "cem",
        str(installed / "ple_gym" / "_checkout"),
    ]


def test_rows_depend_on_the_package_around_the_experiments(installed: Path) -> None:
    measuring = installed / "ple_gym" / "_checkout" / "experiments" / "one.py"
    measuring.parent.mkdir()
    measuring.write_text("x = 1", encoding="utf-8")
    kernel = installed / "ple_gym" / "sim" / "kernel.py"
    kernel.parent.mkdir()
    kernel.write_text("y = 1", encoding="utf-8")
    assert sources(measuring, installed / "ple_gym" / "_checkout") == sorted([measuring, kernel])


@pytest.mark.parametrize("name", ("results", "train", "fit", "replay"))
def test_an_installation_says_what_needs_a_checkout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "IS_CHECKOUT", False)
    with pytest.raises(UsageError, match=f"^{name}: needs a checkout"):
        commands.Options(name).check()
    assert not commands.Options("figure1").kept()
