"""Without the library of an extra, everything that needs it says in one line how to install it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ple_gym.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
# A name that is None among the modules cannot be imported: as if it were not installed.
WITHOUT = "import sys; [sys.modules.__setitem__(name, None) for name in {missing!r}]; "


def run_without(missing: tuple[str, ...], script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing) + script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_extra_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "missing", "extra"),
    [
        ("agents", ["train", "set-ppo"], "sb3_contrib", "agents"),
        ("agents", ["train", "set-ppo"], "stable_baselines3", "agents"),
        ("agents", ["train", "maskable-ppo", "--help"], "torch", "agents"),
        ("agents", ["train", "set-ppo", "--folder", "run", "--steps", "10"], "tensorboard", "agents"),
        ("experiments", ["figure1", "--quick", "--jobs", "2", "--out", "out"], "joblib", "experiments"),
        ("experiments", ["fit", "--quick"], "optuna", "experiments"),
        ("experiments", ["figure1", "--quick", "--out", "out", "--jobs", "1"], "matplotlib", "viz"),
    ],
)
def test_a_command_names_the_extra(
    program: str, arguments: list[str], missing: str, extra: str, tmp_path: Path
) -> None:
    if extra in ("agents", "rllib"):
        pytest.importorskip("sb3_contrib")  # or another library of the extra would be named
    script = f"from {program}.__main__ import main; sys.exit(main({arguments!r}))"
    done = run_without((missing,), script, tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"{program}: error: {missing} is not installed: pip install 'ple-gym[{extra}]'\n"


@pytest.mark.parametrize(
    ("script", "missing", "extra"),
    [
        ("import ple_gym; ple_gym.make_sb3()", "stable_baselines3", "agents"),
        ("import ple_gym.adapters.semi_markov", "torch", "agents"),
        ("import ple_gym.adapters.semi_markov", "sb3_contrib", "agents"),
        ("import ple_gym.adapters.rllib", "ray", "rllib"),
        ("import ple_gym.report.page", "bokeh", "report"),
        ("from ple_gym.adapters.minari import export_minari; export_minari('x', 'y', None, [1])", "minari", "minari"),
        (
            "from ple_gym.traces.pictures import *; timeline_figure(np.zeros((0, 5), int), 1, 1, 0, 9, 9, '', 'x.png')",
            "matplotlib",
            "viz",
        ),
    ],
)
def test_a_module_names_the_extra(script: str, missing: str, extra: str, tmp_path: Path) -> None:
    if extra in ("agents", "rllib"):
        pytest.importorskip("sb3_contrib")
    done = run_without((missing,), script, tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last == f"ModuleNotFoundError: {missing} is not installed: pip install 'ple-gym[{extra}]'"
