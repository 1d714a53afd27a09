"""CleanRL's ways: its scripts run on our ids unchanged, and our own single-file PPO learns on native lanes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import ple_gym

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agents.cleanrl_ppo import Args, advantages, train  # noqa: E402


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TicketOrder", "Storm"])
def test_a_script_of_cleanrl_needs_one_import(name: str, tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("ppo_as_in_cleanrl.py"))
    output = run("-W", "error", script, "--env-id", f"PLE/{name}-v0", cwd=tmp_path)
    assert "dtype=float32" in output
    if name == "TicketOrder":
        assert "ends=0" not in output


@pytest.mark.slow
def test_it_records_videos_too(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    script = str(Path(__file__).with_name("ppo_as_in_cleanrl.py"))
    run(script, "--env-id", "PLE/TicketOrder-v1", "--capture-video", cwd=tmp_path)
    assert list((tmp_path / "videos").glob("*.mp4"))


@pytest.mark.slow
def test_our_script_runs_from_the_command_line(tmp_path: Path) -> None:
    options = "--env-id PLE/Storm-v1 --num-envs 8 --num-steps 32 --total-timesteps 512 --max-episode-steps 20"
    output = run("-m", "agents.cleanrl_ppo", *options.split(), "--log-dir", str(tmp_path / "log"), cwd=tmp_path)
    assert output.count("illegal_actions 0") == 2
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_it_learns_what_the_oracle_does() -> None:
    env_id = "PLE/TicketOrder-v1"
    agent = train(Args(env_id, total_timesteps=60_000, num_envs=16, num_steps=32, learning_rate=2e-3, ent_coef=0.0))
    oracle, kvm = (ple_gym.simulate(env_id, rule, [5])[0]["makespan_s"] for rule in ("oracle", "kvm"))
    env = gym.make(env_id)
    observation, info = env.reset(seed=5)
    over = False
    while not over:
        with torch.no_grad():
            logits = agent.actor(torch.as_tensor(observation)).numpy()
        action = np.where(info["action_mask"], logits, -np.inf).argmax()
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    assert oracle <= info["ple_episode"]["makespan_s"] < (oracle + kvm) / 2


@pytest.mark.parametrize("seed", range(5))
def test_advantages_are_those_of_each_episode_by_itself(seed: int) -> None:
    """Against the definition, episode by episode: the sum of (gamma lambda)^k delta_k up to the episode's end."""
    rng = np.random.default_rng(seed)
    steps, lanes, gamma, lam = 40, 3, 0.9, 0.8
    rewards, values = rng.normal(size=(steps, lanes)), rng.normal(size=(steps + 1, lanes))
    over = np.zeros((steps + 1, lanes), bool)
    for t in range(1, steps + 1):  # what a step leaves behind; the step after an end is a reset, and ends nothing
        over[t] = (rng.random(lanes) < 0.2) & ~over[t - 1]
    terminations = over & (rng.random(over.shape) < 0.5)
    assert (over & ~terminations).any() and terminations.any()
    expected = np.zeros((steps, lanes))
    for lane in range(lanes):
        for t in range(steps):
            for k in range(t, steps):
                bootstrap = 0 if terminations[k + 1, lane] else values[k + 1, lane]
                delta = rewards[k, lane] + gamma * bootstrap - values[k, lane]
                expected[t, lane] += (gamma * lam) ** (k - t) * delta
                if over[k + 1, lane]:
                    break
    arguments = (torch.tensor(array) for array in (rewards, values, terminations, over))
    found = advantages(*arguments, gamma=gamma, gae_lambda=lam).numpy()
    kept = ~over[:steps]
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-12)
