"""Stable-Baselines3: the VecEnv is what SB3's own would be around single environments, and SB3's parts work on it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

import ple_gym
from ple_gym.envs.env import PleEnv
from ple_gym.scenario.builtin import SCENARIOS

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

from sb3_contrib import MaskablePPO  # noqa: E402
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked  # noqa: E402
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported  # noqa: E402
from stable_baselines3 import A2C, DQN, PPO  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import (  # noqa: E402
    DummyVecEnv,
    VecEnv,
    VecMonitor,
    VecNormalize,
    VecVideoRecorder,
)

from ple_gym.adapters import make_sb3  # noqa: E402
from ple_gym.adapters.sb3 import PleVecEnv  # noqa: E402
from ple_gym.envs.vector import PleVectorEnv  # noqa: E402

#: Short runs, so that there are many of them.
SHORT = {"guest.vcpus": 8, "guest.transactions": 8, "guest.sections": 3}
LEARNERS: dict[str, Callable[..., Any]] = {
    "MaskablePPO": lambda *args, **kwargs: MaskablePPO(*args, n_steps=16, batch_size=64, n_epochs=2, **kwargs),
    "PPO": lambda *args, **kwargs: PPO(*args, n_steps=16, batch_size=64, n_epochs=2, **kwargs),
    "A2C": A2C,
    "DQN": lambda *args, **kwargs: DQN(*args, buffer_size=2000, learning_starts=64, train_freq=8, **kwargs),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def singles(count: int, max_episode_steps: int | None = None, **options: Any) -> DummyVecEnv:
    """The same as single environments, stepped by SB3."""

    def make() -> Any:
        env = PleEnv(**options)
        return TimeLimit(env, max_episode_steps) if max_episode_steps else env

    return DummyVecEnv([make] * count)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    return type(one) is type(two) and one == two


def walk(envs: VecEnv, steps: int, seed: int) -> Iterator[tuple]:
    """Random actions, a few of them illegal: what SB3 sees, and the infos of the resets."""
    rng = np.random.default_rng(seed)
    envs.seed(seed)
    yield envs.reset(), envs.reset_infos
    for _ in range(steps):
        masks = get_action_masks(envs)
        actions = np.where(masks | (rng.random(masks.shape) < 0.03), rng.random(masks.shape), -1).argmax(axis=1)
        observation, rewards, dones, infos = envs.step(actions)
        yield observation, rewards.astype(np.float32), dones, infos, masks, envs.reset_infos


class Deferring:
    """A policy that defers at every exit, as one that has learned nothing may."""

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        return np.full(len(observation), 6), state


@pytest.mark.parametrize("name", ["PLE/TicketOrder-v1", "TicketOrder"])
def test_the_evaluation_of_a_policy_that_defers_always_ends_at_the_step_limit_of_the_id(name: str) -> None:
    lanes = VecMonitor(make_sb3(name, 2, seed=0))
    singles = DummyVecEnv([lambda: Monitor(gym.make("PLE/TicketOrder-v1"))])
    for envs in (lanes, singles):
        _, lengths = evaluate_policy(Deferring(), envs, n_eval_episodes=2, return_episode_rewards=True)
        assert lengths == [2000, 2000]


def test_a_scenario_of_ones_own_has_the_limit_that_is_asked_for() -> None:
    for given, expected in ((SCENARIOS["Tiny"], None), ("Tiny", 20_000), ("PLE/Tiny-v0", 20_000)):
        assert make_sb3(given, 1).envs.max_episode_steps == expected
        assert make_sb3(given, 1, max_episode_steps=5).envs.max_episode_steps == 5
        assert make_sb3(given, 1, max_episode_steps=None).envs.max_episode_steps is None


# ------------------------------------------------------------------------------------------------ lanes against singles


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observation": "tokens", "information": "oracle", "reward": "fair"},
        {"max_episode_steps": 7},
        {"overrides": SHORT | {"limit.simulated_s": 0.0002}},
    ],
    ids=str,
)
def test_lanes_are_single_environments(options: dict[str, Any]) -> None:
    options = {"scenario": "Storm", "overrides": SHORT, **options}
    ours, theirs = make_sb3(num_envs=5, threads=2, **options), singles(5, **options)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    ends, cuts, illegal = 0, 0, 0
    for one, two in zip(walk(ours, 600, seed=3), walk(theirs, 600, seed=3), strict=True):
        assert same(one[0], two[0])
        assert all(same(a, b) for a, b in zip(one[-1], two[-1], strict=True))  # reset infos
        if len(one) == 2:
            continue
        assert same(one[1], two[1]) and same(one[2], two[2]) and same(one[4], two[4])
        for done, info, other in zip(one[2], one[3], two[3], strict=True):
            other.pop("action_mask")  # SB3 asks for masks by env_method
            if not done:
                assert other.pop("TimeLimit.truncated") is False
            else:
                assert info.pop("episode").keys() == {"r", "l", "t"}
                cuts += info["TimeLimit.truncated"]
                if "max_episode_steps" in options:  # Gymnasium's TimeLimit knows nothing of what a run came to
                    info.pop("ple_episode")
                    other.pop("ple_episode", None)
            assert same(info, other)
            ends += done
            illegal += "illegal_action" in info
    assert ends > 10 and illegal > 10
    assert (cuts > 10) == ("max_episode_steps" in options or "limit.simulated_s" in options["overrides"])


def test_episodes_are_counted() -> None:
    """SB3's logs have returns and lengths without a monitor, and a monitor says the same."""
    envs = VecMonitor(make_sb3("Storm", 3, overrides=SHORT, max_episode_steps=20, seed=0))
    plain = make_sb3("Storm", 3, overrides=SHORT, max_episode_steps=20, seed=0)
    envs.reset()
    plain.reset()
    actions, ends = np.full(3, envs.action_space.n - 1), 0
    for _ in range(100):
        for monitored, ours in zip(envs.step(actions)[3], plain.step(actions)[3], strict=True):
            assert ("episode" in monitored) == ("episode" in ours)
            if "episode" in ours:
                ends += 1
                assert ours["episode"]["l"] == monitored["episode"]["l"]
                assert ours["episode"]["r"] == pytest.approx(monitored["episode"]["r"], rel=1e-5)
    assert ends > 3


def test_returned_arrays_are_the_callers() -> None:
    """SB3 adds bootstrapped values to the rewards in place, and callers keep what they were given."""
    envs = make_sb3("Storm", 4, seed=0)
    observation = envs.reset()
    kept = [observation, *envs.step(np.zeros(4, np.int64))[:3], *envs.env_method("action_masks")]
    copies = [array.copy() for array in kept]
    masks = envs.action_masks()
    envs.step(np.zeros(4, np.int64))
    assert all(np.array_equal(one, two) for one, two in zip(kept, copies, strict=True))
    masks[:] = False
    assert envs.action_masks().any(axis=1).all()


# ------------------------------------------------------------------------------------------------------ the interface


@pytest.mark.parametrize("scenario", ["PLE/Storm-v1", "Storm", SCENARIOS["Storm"]], ids=["id", "name", "object"])
def test_scenarios_are_named_in_every_way(scenario: Any) -> None:
    envs = ple_gym.make_sb3(scenario, num_envs=2, overrides={"guest.vcpus": 5}, seed=4)
    assert isinstance(envs, PleVecEnv) and envs.num_envs == 2 and envs.action_space.n == 6
    single, _ = PleEnv("Storm", overrides={"guest.vcpus": 5}).reset(seed=4)
    assert np.array_equal(envs.reset()[0], single)


def test_lanes_that_reset_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="autoreset_mode = NextStep"):
        PleVecEnv(PleVectorEnv(2))


def test_seeds_and_options_are_for_the_next_reset() -> None:
    envs = make_sb3("Storm", 2, overrides=SHORT)
    assert envs.seed(5) == [5, 6]
    envs.reset()
    assert [info["seed"] for info in envs.reset_infos] == [5, 6]
    single = PleEnv("Storm", overrides=SHORT)
    single.reset(seed=6)
    envs.reset()  # the worlds that follow
    assert envs.reset_infos[1]["seed"] == single.reset()[1]["seed"] != 6
    envs.seed(5)
    envs.set_options({"start": "storm"})
    storm = envs.reset()
    expected, _ = PleEnv("Storm", overrides=SHORT).reset(seed=5, options={"start": "storm"})
    assert np.array_equal(storm[0], expected)
    envs.seed(5)
    expected, _ = PleEnv("Storm", overrides=SHORT).reset(seed=5)
    assert np.array_equal(envs.reset()[0], expected)
    envs.set_options([{"start": "storm"}, {}])
    with pytest.raises(ValueError, match="same for all lanes"):
        envs.reset()
    for unknown in ("begin", "reset_mask"):
        envs.set_options({unknown: 1})
        with pytest.raises(ValueError, match=f"{unknown}.*start, state"):
            envs.reset()


def test_masks_of_all_lanes_and_of_some() -> None:
    envs = make_sb3("Storm", 4, seed=0)
    envs.reset()
    for _ in range(20):  # until no two lanes are alike
        envs.step(np.arange(4))
    masks = envs.env_method("action_masks")
    assert len({mask.tobytes() for mask in masks}) == 4
    assert is_masking_supported(envs) and is_masking_supported(VecNormalize(VecMonitor(envs)))
    assert len(masks) == 4 and all(mask.dtype == np.bool_ for mask in masks)
    assert np.array_equal(get_action_masks(envs), envs.action_masks())
    for indices, lanes in ((2, [2]), ([3, 0], [3, 0]), (-1, [3]), (iter([1]), [1]), (range(2), [0, 1])):
        some = envs.env_method("action_masks", indices=indices)
        assert np.array_equal(some, [masks[lane] for lane in lanes])
    assert np.array_equal([call() for call in envs.get_attr("action_masks", [2, 1])], [masks[2], masks[1]])


def test_attributes() -> None:
    envs = make_sb3("Storm", 3)
    assert envs.get_attr("render_mode") == [None] * 3 and envs.get_attr("scenario", 1) == [SCENARIOS["Storm"]]
    assert envs.get_attr("action_space", [0]) == [envs.action_space]
    assert envs.get_attr("observation_space", [0]) == [envs.observation_space]
    assert envs.env_is_wrapped(Monitor) == [False] * 3 and envs.env_is_wrapped(Monitor, [1]) == [False]
    assert not envs.has_attr("nothing")
    envs.set_attr("level", 1)
    envs.set_attr("level", 2, indices=[0, 2])
    assert envs.get_attr("level") == [2, 1, 2]
    for name in ("scenario", "action_masks"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set"):
            envs.set_attr(name, 1)
    with pytest.raises(AttributeError, match="no method 'jump'; they have action_masks, get_state, set_state"):
        envs.env_method("jump")
    with pytest.raises(IndexError):
        envs.get_attr("scenario", 3)


def test_states_of_single_lanes() -> None:
    envs = make_sb3("Storm", 3, seed=1)
    envs.reset()
    actions = np.full(3, envs.action_space.n - 1)
    (saved,) = envs.env_method("get_state", indices=0)
    first = envs.step(actions)
    envs.step(actions)
    ((observation, info),) = envs.env_method("set_state", saved, indices=[2])
    assert np.array_equal(observation, PleEnv("Storm").reset(options={"state": saved})[0]) and info["seed"] == 1
    again = envs.step(actions)
    assert np.array_equal(again[0][2], first[0][0]) and again[1][2] == first[1][0]
    envs.set_options({"state": saved})
    assert np.array_equal(envs.reset(), [observation] * 3)
    assert np.array_equal(envs.step(actions)[0], [first[0][0]] * 3)


def test_pickles() -> None:
    envs = make_sb3("Storm", 2, seed=0)
    envs.reset()
    actions = np.full(2, envs.action_space.n - 1)
    envs.step(actions)
    copy = pickle.loads(pickle.dumps(envs))
    assert np.array_equal(copy.env_method("action_masks"), envs.env_method("action_masks"))
    assert np.array_equal(copy.step(actions)[0], envs.step(actions)[0])


def test_rendering(tmp_path: Any) -> None:
    envs = make_sb3("Storm", 3, seed=0, render_mode="rgb_array")
    envs.reset()
    for _ in range(5):
        envs.step(np.full(3, envs.action_space.n - 1))
    images = envs.get_images()
    tiled = envs.render()
    assert tiled.dtype == np.uint8 and np.array_equal(tiled[: len(images[0]), : images[0].shape[1]], images[0])
    assert envs.metadata["render_fps"] == 10
    pytest.importorskip("moviepy")
    video = VecVideoRecorder(envs, str(tmp_path), lambda step: step == 0, video_length=3)
    video.reset()
    for _ in range(4):
        video.step(np.full(3, envs.action_space.n - 1))
    video.close()
    assert next(tmp_path.glob("*.mp4")).stat().st_size > 1000


def test_importing_ple_gym_imports_no_learner() -> None:
    code = """
import sys, ple_gym
assert not {"torch", "stable_baselines3"} & set(sys.modules)
sys.modules["stable_baselines3"] = None
from ple_gym import *
try:
    ple_gym.make_sb3()
except ModuleNotFoundError as error:
    assert "pip install 'ple-gym[agents]'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("observation", ["flat", "tokens"])
@pytest.mark.parametrize("name", LEARNERS)
def test_learners_train(name: str, observation: str) -> None:
    """Parameters move and stay finite; runs end and are cut off on the way, and the logs say how they went."""
    envs = make_sb3("Storm", 8, overrides=SHORT, observation=observation, max_episode_steps=20)
    policy = "MlpPolicy" if observation == "flat" else "MultiInputPolicy"
    model = LEARNERS[name](policy, envs, seed=0, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(600)
    after = list(model.policy.parameters())
    assert any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert {info["l"] for info in model.ep_info_buffer} >= {20} and len(model.ep_info_buffer) > 10


def test_wrappers_and_evaluation() -> None:
    envs = VecNormalize(VecMonitor(make_sb3("Storm", 4, overrides=SHORT, max_episode_steps=20, seed=0)))
    model = LEARNERS["MaskablePPO"]("MlpPolicy", envs, seed=0, device="cpu")
    model.learn(128)
    assert envs.obs_rms.count > 128 and np.abs(envs.normalize_obs(envs.get_original_obs())).max() <= 10
    held_out = VecMonitor(make_sb3("Storm", 4, overrides=SHORT, max_episode_steps=20, seed=1000))
    returns, lengths = evaluate_masked(model, held_out, n_eval_episodes=8, return_episode_rewards=True)
    assert len(returns) == 8 and all(0 < length <= 20 for length in lengths) and max(returns) < 0
    held_out.seed(1000)
    assert evaluate_masked(model, held_out, n_eval_episodes=8, return_episode_rewards=True) == (returns, lengths)
    plain = LEARNERS["PPO"]("MlpPolicy", envs, seed=0, device="cpu")
    mean, _ = evaluate_policy(plain, held_out, n_eval_episodes=8)
    assert mean < 0


def test_the_masks_and_observations_that_the_learner_keeps_are_those_of_single_environments() -> None:
    options = {"scenario": "Storm", "overrides": SHORT, "max_episode_steps": 20}
    model = MaskablePPO("MlpPolicy", make_sb3(num_envs=4, **options), n_steps=128, seed=9, device="cpu")
    buffer = model.rollout_buffer
    _, callback = model._setup_learn(512, None)
    model.collect_rollouts(model.env, callback, buffer, 128)
    envs = singles(4, **options)
    envs.seed(9)
    observation = envs.reset()
    for step in range(128):
        assert np.array_equal(buffer.observations[step], observation)
        assert np.array_equal(buffer.action_masks[step], get_action_masks(envs))
        observation, rewards, dones, _ = envs.step(buffer.actions[step, :, 0])
        assert np.array_equal(buffer.rewards[step][~dones], rewards[~dones])  # the others are bootstrapped
        if step < 127:
            assert np.array_equal(buffer.episode_starts[step + 1], dones)
    assert not buffer.action_masks.all() and buffer.episode_starts[1:].any()


def test_maskable_ppo_learns_to_run_the_holder() -> None:
    """vCPU 1 spins for a lock that vCPU 0 holds; the host's own rule goes on with vCPU 1 for a millisecond."""
    model = MaskablePPO(
        "MlpPolicy", make_sb3("HolderPreempted", 8), n_steps=16, batch_size=64, learning_rate=3e-3, seed=0, device="cpu"
    )
    observation = torch.as_tensor(make_sb3("HolderPreempted", 1).reset())

    def chance() -> float:
        return float(model.policy.get_distribution(observation).distribution.probs[0, 0].detach())

    assert chance() < 0.5
    model.learn(1024)
    assert chance() > 0.9
    env = PleEnv("HolderPreempted")
    observation, info = env.reset()
    while "ple_episode" not in info:
        action, _ = model.predict(observation, action_masks=env.action_masks(), deterministic=True)
        observation, _, _, _, info = env.step(int(action))
    (best,) = ple_gym.simulate("HolderPreempted", "oracle")
    assert info["ple_episode"]["makespan_s"] == best["makespan_s"]
