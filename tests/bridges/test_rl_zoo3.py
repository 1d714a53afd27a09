"""RL Zoo: its command line trains on our ids, and MaskablePPO does nothing illegal (make test-clients)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pages import example, run

# Not imported here: it patches Gymnasium's TimeLimit for all that is imported after it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("rl_zoo3"), reason="the RL Zoo has an environment of its own: make test-clients"),
]

#: Illegal actions would raise; episodes are short.
OPTIONS = ("--env-kwargs", "illegal:'raise'", "max_episode_steps:40")
COMMON = ("--env", "PLE/Storm-v1", "--gym-packages", "ple_gym", "--conf-file", "storm.yml", "--log-folder", "logs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hyperparameters = example("n_timesteps", "yaml")
    (tmp_path / "storm.yml").write_text(hyperparameters + "  n_steps: 32\n  batch_size: 64\n  frame_stack: 2\n")
    (tmp_path / "zoo.py").write_text(example("rl_zoo3.ALGOS"))
    return tmp_path


def test_maskable_ppo_trains_and_does_nothing_illegal(folder: Path) -> None:
    run(folder, "zoo.py", "--algo", "maskable_ppo", *COMMON, "-n", "512", "--eval-freq", "-1", "--seed", "1", *OPTIONS)
    logs = folder / "logs" / "maskable_ppo" / "PLE-Storm-v1_1"
    assert (logs / "PLE-Storm-v1.zip").exists()
    lengths = [line.split(",")[1] for line in (logs / "0.monitor.csv").read_text().splitlines()[2:]]
    assert lengths and set(lengths) == {"40"}


def test_ppo_trains_in_processes_and_its_evaluation_ends_at_the_step_limit(folder: Path) -> None:
    command = ("-m", "rl_zoo3.train", "--algo", "ppo", *COMMON, "--vec-env", "subproc", "-n", "512", "--seed", "1")
    run(folder, *command, "--eval-freq", "256", "--eval-episodes", "2", "--env-kwargs", "max_episode_steps:300")
    found = np.load(folder / "logs" / "ppo" / "PLE-Storm-v1_1" / "evaluations.npz")
    assert found["ep_lengths"].shape == (2, 2) and found["ep_lengths"].max() == 300


def test_without_masks_something_illegal_is_done(folder: Path) -> None:
    """So that the first test could have failed."""
    with pytest.raises(AssertionError, match="is not legal here"):
        run(folder, "-m", "rl_zoo3.train", "--algo", "ppo", *COMMON, "-n", "512", "--eval-freq", "-1", *OPTIONS)
