"""Copies and pickles keep what those of Gymnasium's own environments keep, and go on exactly alike."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import OrderEnforcing, RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorStatistics
from test_vector import SHORT, same

from ple_gym.adapters.masks import mask_in_observation
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv

COPIERS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "old pickle": lambda env: pickle.loads(pickle.dumps(env, protocol=2)),
    "cloudpickle": lambda env: cloudpickle.loads(cloudpickle.dumps(env)),
}
STEPS = 1000


class Costly(PleEnv):
    """A user's environment: an argument without a name, and things of its own."""

    def __init__(self, penalty: float, **options: Any) -> None:
        super().__init__("Storm", **options)
        self.penalty = penalty
        self.seen: list[int] = []

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        self.seen.append(int(action))
        cost = self.penalty * (1 + self.np_random.random())
        return observation, reward - cost, terminated, truncated, info


class CostlyLanes(PleVectorEnv):
    """The same for many."""

    def __init__(self, penalty: float, mode: AutoresetMode) -> None:
        super().__init__(4, "Storm", autoreset_mode=mode, overrides=SHORT, max_episode_steps=30)
        self.penalty = penalty

    def step(self, actions: Any) -> Any:
        observation, rewards, *rest = super().step(actions)
        return observation, rewards - self.penalty * self.np_random.random(self.num_envs), *rest


SINGLES: dict[str, Callable[[], gym.Env]] = {
    "bare": lambda: PleEnv("Storm", overrides=SHORT),
    "every option": lambda: PleEnv(
        "Storm", information="oracle", observation="tokens", reward="fair", start="storm", illegal="raise",
        infos="uniform", overrides={"host.pcpus": 3}, render_mode="ansi",
    ),
    "subclass": lambda: Costly(0.25, information="introspection"),
    "made": lambda: gym.make("PLE/Tiny-v0", max_episode_steps=70, render_mode="rgb_array"),
    "wrapped": lambda: RecordEpisodeStatistics(
        OrderEnforcing(mask_in_observation(gym.make("PLE/Storm-v1", overrides=SHORT)))
    ),
}  # fmt: skip


def walk(env: gym.Env, steps: int) -> list[Any]:
    """What is seen on a walk that the action space itself chooses; infos of statistics hold the time of day."""
    seen: list[Any] = []
    mask = env.unwrapped.action_masks().astype(np.int8)
    for _ in range(steps):
        action = env.action_space.sample(mask)
        observation, reward, terminated, truncated, info = env.step(action)
        info.pop("episode", None)
        seen.append((action, observation, reward, terminated, truncated, info))
        if terminated or truncated:
            observation, info = env.reset()
            seen.append((observation, info))
        mask = info["action_mask"]
    return [*seen, env.observation_space.sample(), env.unwrapped.np_random.random(3), env.unwrapped.trace()]


@pytest.mark.parametrize("make", SINGLES.values(), ids=SINGLES)
@pytest.mark.parametrize("copied", COPIERS.values(), ids=COPIERS)
def test_a_twin_goes_on_as_the_original_does(make: Callable[[], gym.Env], copied: Callable[[Any], Any]) -> None:
    env = make()
    env.reset(seed=5)
    env.action_space.seed(5)
    env.observation_space.seed(6)
    walk(env, 150)
    twin = copied(env)
    assert twin.spec == env.spec and twin.metadata == env.metadata and twin.render_mode == env.render_mode
    assert vars(twin.unwrapped).keys() == vars(env.unwrapped).keys()
    assert twin.unwrapped.lanes.rows is not env.unwrapped.lanes.rows
    if env.render_mode:
        assert same(twin.render(), env.render())
    assert same(walk(twin, STEPS), walk(env, STEPS))
    assert twin.unwrapped.get_state() == env.unwrapped.get_state()
    if isinstance(env, Costly):
        assert twin.penalty == 0.25 and twin.seen == env.seen and len(env.seen) == 150 + STEPS


def test_a_shallow_copy_has_a_machine_of_its_own_and_shares_the_rest() -> None:
    """As a shallow copy of CartPole does, whose state is a tuple that each step replaces."""
    env = Costly(1.0, render_mode="ansi")
    env.reset(seed=1)
    env.step(32)
    twin = copy.copy(env)
    assert twin.action_space is env.action_space and twin.seen is env.seen and twin.np_random is env.np_random
    pictures = []
    for one in (env, twin):
        one._np_random = np.random.default_rng(0)
        steps = [one.step(32) for _ in range(100)]
        pictures.append((steps, one.render()))
    assert same(*pictures)


def test_what_was_never_reset_can_be_copied_too() -> None:
    for env in (PleEnv("Tiny"), PleVectorEnv(2, "Tiny"), gym.make("PLE/Tiny-v0")):
        env.action_space.seed(3)
        twin = copy.deepcopy(env)
        with pytest.raises(Exception, match="reset"):
            twin.step(env.action_space.sample())
        assert same(twin.reset(seed=1), env.reset(seed=1))


def test_what_is_over_stays_over() -> None:
    env = PleEnv("HolderPreempted")
    env.reset(seed=0)
    env.step(0)
    twin = copy.deepcopy(env)
    with pytest.raises(RuntimeError, match="the run is over"):
        twin.step(0)
    assert twin.episode_record() == env.episode_record()
    assert same(twin.reset(), env.reset())


# ---------------------------------------------------------------------------------------------------------------- lanes


def lane_walk(envs: VectorEnv, steps: int) -> list[Any]:
    seen: list[Any] = []
    disabled = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for _ in range(steps):
        actions = envs.unwrapped.sample_actions()
        step = envs.step(actions)
        step[4].pop("episode", None)
        step[4].pop("final_info", {}).pop("episode", None)
        seen.append((actions, step))
        over = step[2] | step[3]
        if disabled and over.any():
            seen.append(envs.reset(options={"reset_mask": over}))
    ends = {lane: end[0] for lane, end in envs.unwrapped.ends.items()}
    return [*seen, envs.action_space.sample(), envs.single_action_space.sample(), ends, envs.render()]


LANES: dict[str, Callable[[AutoresetMode], VectorEnv]] = {
    "bare": lambda mode: PleVectorEnv(3, "Storm", autoreset_mode=mode, overrides=SHORT, threads=2),
    "limited": lambda mode: PleVectorEnv(
        3, "Storm", autoreset_mode=mode, overrides=SHORT, max_episode_steps=25, infos="uniform", illegal="raise",
        render_mode="ansi",
    ),
    "subclass": lambda mode: CostlyLanes(0.5, mode),
    "made": lambda mode: VectorStatistics(
        gym.make_vec("PLE/TicketOrder-v1", num_envs=3, autoreset_mode=mode, observation="tokens", max_episode_steps=40)
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("make", LANES.values(), ids=LANES)
@pytest.mark.parametrize("copied", COPIERS.values(), ids=COPIERS)
def test_twin_lanes_go_on_as_the_original_ones(
    make: Callable[[AutoresetMode], VectorEnv], copied: Callable[[Any], Any], mode: AutoresetMode
) -> None:
    envs = make(mode)
    envs.reset(seed=2)
    envs.action_space.seed(1)
    envs.single_action_space.seed(2)
    lane_walk(envs, 37)
    twin = copied(envs)
    assert twin.spec == envs.spec and twin.metadata == envs.metadata and twin.render_mode == envs.render_mode
    assert vars(twin.unwrapped).keys() == vars(envs.unwrapped).keys()
    assert same(lane_walk(twin, STEPS), lane_walk(envs, STEPS))
    assert twin.unwrapped.lanes.rows.tobytes() == envs.unwrapped.lanes.rows.tobytes()


def test_a_twin_in_another_process() -> None:
    """Where every address is another one."""
    env = gym.make("PLE/Storm-v1", max_episode_steps=300)
    env.action_space.seed(4)
    env.reset(seed=4)
    walk(env, 50)
    script = (
        "import sys, pickle, numpy as np; env = pickle.loads(sys.stdin.buffer.read()); "
        "steps = [env.step(env.action_space.sample()) for _ in range(200)]; "
        "sys.stdout.buffer.write(pickle.dumps((steps, env.spec)))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(env), capture_output=True, check=True)
    steps, spec = pickle.loads(done.stdout)
    assert same(steps, [env.step(env.action_space.sample()) for _ in range(200)]) and spec == env.spec


def test_a_pickled_state_that_does_not_fit_is_refused() -> None:
    """What comes from a pickle goes the way of every other state into a lane."""
    env, envs = PleEnv("Tiny"), PleVectorEnv(2, "Tiny")
    env.reset(seed=0)
    envs.reset(seed=0)
    kept = env.__getstate__()
    with pytest.raises(ValueError, match="damaged"):
        PleEnv("Tiny").__setstate__({**kept, "_saved": kept["_saved"][:-1]})
    many = envs.__getstate__()
    with pytest.raises(ValueError, match="not a saved state"):
        PleVectorEnv(2, "Tiny").__setstate__({**many, "_saved": [many["_saved"][0], b""]})
