"""Gymnasium's own vector wrappers around native lanes: they compute what they should, from what we return."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import vector as wrappers

import ple_gym  # noqa: F401

MODES = list(AutoresetMode)
OLD = tuple(int(part) for part in gym.__version__.split(".")[:2]) < (1, 3)


def lanes(mode: AutoresetMode = AutoresetMode.NEXT_STEP, **options: Any) -> VectorEnv:
    return gym.make_vec("PLE/TicketOrder-v1", num_envs=3, autoreset_mode=mode, max_episode_steps=40, **options)


def walk(envs: VectorEnv, steps: int) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
    """Random legal steps; lanes that nobody resets are reset when they have ended."""
    rng = np.random.default_rng(0)
    envs.reset(seed=3)
    for _ in range(steps):
        step = envs.step(envs.unwrapped.sample_actions(rng))
        yield step
        over = step[2] | step[3]
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            envs.reset(options={"reset_mask": over})


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_record_episode_statistics(mode: AutoresetMode) -> None:
    if mode is AutoresetMode.SAME_STEP and OLD:
        pytest.skip("this Gymnasium counts one step too few in SAME_STEP (its pull request 1624)")
    returns, lengths, found = np.zeros(3), np.zeros(3, int), 0
    resets = np.zeros(3, bool)
    for _, rewards, terminated, truncated, infos in walk(wrappers.RecordEpisodeStatistics(lanes(mode)), 300):
        returns += rewards
        lengths += ~resets
        over = terminated | truncated
        assert ("episode" in infos) == over.any()
        if over.any():
            np.testing.assert_array_equal(infos["_episode"], over)
            np.testing.assert_allclose(infos["episode"]["r"][over], returns[over])
            np.testing.assert_array_equal(infos["episode"]["l"][over], lengths[over])
            found += int(over.sum())
        returns[over] = lengths[over] = 0
        resets = over if mode is AutoresetMode.NEXT_STEP else np.zeros(3, bool)
    assert found > 10


def test_normalize_observation() -> None:
    envs, bare = wrappers.NormalizeObservation(lanes()), lanes()
    seen = [bare.reset(seed=3)[0]]
    for (normalized, *_), (observation, *_) in zip(walk(envs, 100), walk(bare, 100), strict=True):
        seen.append(observation)
        assert normalized.shape == observation.shape and np.isfinite(normalized).all()
    np.testing.assert_allclose(envs.obs_rms.mean, np.concatenate(seen).mean(axis=0), atol=1e-4)


def test_normalize_reward() -> None:
    scaled = 0
    envs = wrappers.NormalizeReward(lanes())
    for (_, normalized, *_), (_, rewards, *_) in zip(walk(envs, 100), walk(lanes(), 100), strict=True):
        some = rewards != 0
        ratio = normalized[some] / rewards[some]
        assert some.sum() == 0 or ratio == pytest.approx(ratio[0])
        scaled += int(some.sum())
    assert scaled > 200


def test_dict_info_to_list() -> None:
    ends = 0
    for listed, nested in zip(walk(wrappers.DictInfoToList(lanes()), 150), walk(lanes(), 150), strict=True):
        infos = nested[4]
        assert len(listed[4]) == 3
        for lane, info in enumerate(listed[4]):
            np.testing.assert_array_equal(info["action_mask"], infos["action_mask"][lane])
            assert info["elapsed_cycles"] == infos["elapsed_cycles"][lane]
            over = nested[2][lane] or nested[3][lane]
            assert ("ple_episode" in info) == over
            if over:
                assert info["ple_episode"]["ple_exits"] == infos["ple_episode"]["ple_exits"][lane]
                assert info["ple_episode"]["cycles"]["spin"] == infos["ple_episode"]["cycles"]["spin"][lane]
                ends += 1
    assert ends > 3


# ------------------------------------------------------------------------------------------------------------- videos


@pytest.fixture
def clips(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """Stands in for moviepy, which needs an old pillow: frames by the file that they would be written to."""
    written: dict[str, list[np.ndarray]] = {}

    class ImageSequenceClip:
        def __init__(self, frames: list[np.ndarray], fps: float) -> None:
            self.frames = list(frames)
            assert fps == 10  # metadata["render_fps"]

        def write_videofile(self, path: str, logger: Any) -> None:
            written[Path(path).name] = self.frames

    for name in ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["moviepy.video.io.ImageSequenceClip"].ImageSequenceClip = ImageSequenceClip  # type: ignore[attr-defined]
    return written


def test_record_video_of_one(tmp_path: Path, clips: dict[str, list[np.ndarray]]) -> None:
    env = gym.make("PLE/TicketOrder-v1", render_mode="rgb_array", max_episode_steps=15)
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: episode == 1)
    for _ in range(2):
        _, info = env.reset(seed=0)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.action_space.sample(mask=info["action_mask"]))
            over = terminated or truncated
    env.close()
    (frames,) = clips.values()
    assert len(frames) == 16
    assert {frame.shape for frame in frames} == {frames[0].shape} and frames[0].dtype == np.uint8
    assert any(not np.array_equal(frames[0], frame) for frame in frames)


@pytest.mark.parametrize("first_only", [True, False])
def test_record_video_of_lanes(tmp_path: Path, clips: dict[str, list[np.ndarray]], first_only: bool) -> None:
    envs = wrappers.RecordVideo(
        lanes(render_mode="rgb_array"),
        str(tmp_path / "videos"),
        record_first_only=first_only,
        episode_trigger=lambda episode: episode == 0,
    )
    for _ in walk(envs, 60):
        pass
    envs.close()
    (frames,) = clips.values()
    one = envs.unwrapped.render()[0].shape
    count = 1 if first_only else 3
    assert 10 < len(frames) <= 41
    assert np.prod(frames[0].shape) == count * np.prod(one)


def test_record_video_writes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    envs = wrappers.RecordVideo(lanes(render_mode="rgb_array"), str(tmp_path / "videos"), video_length=5)
    for _ in walk(envs, 8):
        pass
    envs.close()
    (video,) = (tmp_path / "videos").iterdir()
    assert video.suffix == ".mp4" and video.stat().st_size > 1000
