"""Discounts by elapsed time: returns and advantages against sums written out by hand, and against SB3's own."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ple_gym.envs.env import PleEnv

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

from sb3_contrib import QRDQN, TRPO, MaskablePPO, RecurrentPPO  # noqa: E402
from stable_baselines3 import A2C, DQN, PPO  # noqa: E402
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize  # noqa: E402

from ple_gym.adapters import make_sb3  # noqa: E402
from ple_gym.adapters.semi_markov import SemiMarkovRolloutBuffer, discounts_of, semi_markov  # noqa: E402

ON_POLICY = [PPO, A2C, MaskablePPO, TRPO, RecurrentPPO]
TINY = {"policy_kwargs": {"net_arch": []}, "device": "cpu", "seed": 0}
HZ = 1_000_000
HORIZON_MS = 1 / math.log(2)  # 1 ms, which is 1,000 cycles, is a discount of 1/2


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


class Scripted(VecEnv):
    """Two lanes that tell a written story whatever one does. A row: elapsed ms, reward, how the episode goes on.

    An observation is the number of the state: 0, 1, 2, ... in lane 0, 100, 101, ... in lane 1, one more at each step.
    The state after an end, which only `terminal_observation` shows, is 50 more than it would be.
    """

    STORY = (
        [(1, 1.0, ""), (2, -2.0, ""), (1, 4.0, "truncated"), (3, 8.0, ""), (1, 3.0, "terminated"), (2, 5.0, "")],
        [(2, 0.5, ""), (0, 1.0, "truncated"), (1, -1.0, "truncated"), (1, 2.0, ""), (4, 1.0, ""), (1, 6.0, "")],
    )

    def __init__(self, as_dict: bool = False, story: Any = STORY) -> None:
        self.story, self.as_dict, self.at = story, as_dict, 0
        box = spaces.Box(-1000, 1000, (1,), np.float32)
        super().__init__(2, spaces.Dict({"state": box}) if as_dict else box, spaces.Discrete(2))

    def observe(self, states: Any) -> Any:
        numbers = np.asarray(states, np.float32)[..., None]
        return {"state": numbers} if self.as_dict else numbers

    def reset(self) -> Any:
        self.at = 0
        return self.observe([0, 100])

    def step_async(self, actions: Any) -> None:
        self.at += 1

    def step_wait(self) -> Any:
        rows = [lane[(self.at - 1) % len(lane)] for lane in self.story]
        infos: list[dict[str, Any]] = [{"elapsed_cycles": int(1000 * elapsed)} for elapsed, _, _ in rows]
        for lane, (_, _, end) in enumerate(rows):
            if end:
                infos[lane]["terminal_observation"] = self.observe(self.at + 100 * lane + 50)
                infos[lane]["TimeLimit.truncated"] = end == "truncated"
        rewards, dones = np.array([row[1] for row in rows], np.float32), np.array([bool(row[2]) for row in rows])
        return self.observe([self.at, self.at + 100]), rewards, dones, infos

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if attr_name not in ("render_mode", "scenario", "action_masks"):
            raise AttributeError(attr_name)
        scenario = SimpleNamespace(host=SimpleNamespace(tsc_hz=HZ))
        return [scenario if attr_name == "scenario" else None for _ in self._get_indices(indices)]

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [np.ones(2, np.bool_)] * 2

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * 2

    def set_attr(self, *args: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def sizes(learner: type, n_steps: int) -> dict[str, Any]:
    """Options of a learner that looks at all that it has collected at once."""
    if learner in (DQN, QRDQN):
        return {"learning_starts": 10, "buffer_size": 1000}
    small = {"policy_kwargs": {"lstm_hidden_size": 8}} if learner is RecurrentPPO else {}
    return small | {"n_steps": n_steps} | ({} if learner is A2C else {"batch_size": 2 * n_steps})


def policy_of(learner: type, as_dict: bool = False) -> str:
    return f"{'MultiInput' if as_dict else 'Mlp'}{'Lstm' * (learner is RecurrentPPO)}Policy"


def value(state: float) -> float:
    return 0.25 * state - 3


def collected(learner: type, envs: VecEnv, **options: Any) -> tuple[Any, list[np.ndarray]]:
    """A learner with V(s) = s / 4 - 3 that has walked six steps, and the rewards that its callbacks saw."""
    policy = policy_of(learner, isinstance(envs.observation_space, spaces.Dict))
    network: dict[str, Any] = {"net_arch": []}
    if learner is RecurrentPPO:  # the critic has one linear layer more in the place of an LSTM
        network |= {"lstm_hidden_size": 1, "enable_critic_lstm": False}
    options |= sizes(learner, 6) | TINY | {"policy_kwargs": network}
    model = semi_markov(learner)(policy, envs, horizon_ms=HORIZON_MS, **options)
    with torch.no_grad():
        if learner is RecurrentPPO:
            model.policy.critic.weight[:], model.policy.critic.bias[:] = 1, 0
        model.policy.value_net.weight[:], model.policy.value_net.bias[:] = 0.25, -3
    seen: list[np.ndarray] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(self.locals["rewards"].astype(np.float64))
            return True

    _, callback = model._setup_learn(12, Watch())
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, 6)
    return model.rollout_buffer, seen


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("learner", ON_POLICY)
def test_returns_written_out(learner: type, as_dict: bool) -> None:
    """With gae_lambda = 1 a return is what it is in books: rewards, each times the discounts before it."""
    buffer, _ = collected(learner, Scripted(as_dict), gae_lambda=1.0)
    v = value
    lane_0 = [
        1 + (-2 + (4 + v(53) / 2) / 4) / 2,  # cut off after 3 steps: the value of the state there counts 1/2 more
        -2 + (4 + v(53) / 2) / 4,
        4 + v(53) / 2,
        8 + 3 / 8,  # the end: nothing comes after it
        3,
        5 + v(6) / 4,  # the rollout ends, the episode does not
    ]
    lane_1 = [
        0.5 + (1 + v(152)) / 4,
        1 + v(152),  # no time has passed at all
        -1 + v(153) / 2,
        2 + (1 + (6 + v(106) / 2) / 16) / 2,
        1 + (6 + v(106) / 2) / 16,
        6 + v(106) / 2,
    ]
    assert np.allclose(buffer.returns.T, [lane_0, lane_1], rtol=1e-6)
    assert np.allclose(buffer.values.T, value(np.add.outer([0, 100], np.arange(6))), rtol=1e-6)
    assert np.allclose(buffer.advantages, buffer.returns - buffer.values, rtol=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.9])
@pytest.mark.parametrize("learner", ON_POLICY)
def test_advantages_are_the_sums_of_their_definition(learner: type, gae_lambda: float, normalised: bool) -> None:
    """A_t = sum over k of (product of d_j * lambda, t <= j < k) * delta_k, up to the end of the episode."""
    envs = VecNormalize(Scripted(), norm_obs=False) if normalised else Scripted()
    buffer, seen = collected(learner, envs, gae_lambda=gae_lambda)
    for lane, story in enumerate(Scripted.STORY):
        discounts = [0.5**elapsed for elapsed, _, _ in story]
        ends = [end for _, _, end in story]
        if not normalised:
            assert [rewards[lane] for rewards in seen] == [reward for _, reward, _ in story]
        deltas = []
        for k in range(6):
            bootstrap = {"": value(k + 1 + 100 * lane), "truncated": value(k + 51 + 100 * lane), "terminated": 0.0}
            deltas.append(seen[k][lane] + discounts[k] * bootstrap[ends[k]] - value(k + 100 * lane))
        for t in range(6):
            last = next((k for k in range(t, 6) if ends[k]), 5)
            advantage = sum(
                math.prod(discounts[j] * gae_lambda for j in range(t, k)) * deltas[k] for k in range(t, last + 1)
            )
            assert buffer.advantages[t, lane] == pytest.approx(advantage, rel=1e-5, abs=1e-5)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.99, 0.9, 0.1]), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_with_a_constant_discount_the_buffer_is_sb3s(seed: int, gamma: float, gae_lambda: float) -> None:
    """Bit for bit, bootstraps included."""
    rng = np.random.default_rng(seed)
    space, actions = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
    options = {"gamma": gamma, "gae_lambda": gae_lambda, "n_envs": 5, "device": "cpu"}
    ours, theirs = SemiMarkovRolloutBuffer(20, space, actions, **options), RolloutBuffer(20, space, actions, **options)
    for _ in range(20):
        rewards = rng.normal(size=5).astype(rng.choice([np.float32, np.float64]))
        ours.expect(rewards, np.full(5, gamma))
        rewards += (rng.random(5) < 0.2) * gamma * rng.normal(size=5).astype(np.float32)
        transition = rng.normal(size=(5, 3)), rng.integers(4, size=5), rewards, rng.random(5) < 0.3
        estimates = torch.as_tensor(rng.normal(size=(2, 5)), dtype=torch.float32)
        ours.add(*transition, *estimates)
        theirs.add(*transition, *estimates)
    last, dones = torch.as_tensor(rng.normal(size=(5, 1)), dtype=torch.float32), rng.random(5) < 0.3
    ours.compute_returns_and_advantage(last, dones)
    theirs.compute_returns_and_advantage(last, dones)
    for name in ("rewards", "returns", "advantages"):
        one, two = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == two.dtype and np.array_equal(one, two), name


@pytest.mark.parametrize("learner", [PPO, A2C, MaskablePPO, RecurrentPPO, DQN, QRDQN])
def test_evenly_spaced_decisions_give_the_learner_itself(learner: type) -> None:
    """All weights, bit for bit, after training on transitions that take equally long."""
    story = [[(1, reward, end if end != "truncated" else "") for _, reward, end in lane] for lane in Scripted.STORY]
    options = sizes(learner, 6) | TINY
    before, ours, theirs = (
        learner(policy_of(learner), Scripted(), **options),
        semi_markov(learner)(policy_of(learner), Scripted(story=story), horizon_ms=HORIZON_MS, **options).learn(48),
        learner(policy_of(learner), Scripted(story=story), gamma=0.5, **options).learn(48),
    )
    weights = [torch.cat([part.flatten() for part in model.policy.parameters()]) for model in (before, ours, theirs)]
    assert torch.equal(weights[1], weights[2]) and not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("as_dict", [False, True])
def test_replayed_transitions_have_their_own_discount(as_dict: bool) -> None:
    """State, reward, next state, end and discount belong together; a time limit is no end."""
    policy = "MultiInputPolicy" if as_dict else "MlpPolicy"
    model = semi_markov(DQN)(policy, Scripted(as_dict), horizon_ms=HORIZON_MS, train_freq=6, buffer_size=12, **TINY)
    model.learn(12)
    samples = model.replay_buffer.sample(400)
    states, following = samples.observations, samples.next_observations
    if as_dict:
        states, following = states["state"], following["state"]
    rows = torch.cat([states, following, samples.rewards, samples.dones, samples.discounts], dim=1)
    expected = {
        (t + 100.0 * lane, t + 1 + 100.0 * lane + 50 * bool(end), reward, float(end == "terminated"), 0.5**elapsed)
        for lane, story in enumerate(Scripted.STORY)
        for t, (elapsed, reward, end) in enumerate(story)
    }
    assert samples.discounts.dtype == torch.float32 and samples.discounts.shape == (400, 1)
    assert {tuple(row) for row in rows.tolist()} == expected


@pytest.mark.parametrize("learner", [PPO, A2C, MaskablePPO, RecurrentPPO, DQN])
def test_learners_train_save_and_load(learner: type, tmp_path: Any) -> None:
    envs = VecNormalize(VecMonitor(make_sb3("Storm", 4, max_episode_steps=10, seed=1)))
    model = semi_markov(learner)(policy_of(learner), envs, horizon_ms=20, seed=0, device="cpu", **sizes(learner, 16))
    model.learn(128)
    buffer = model.replay_buffer if learner is DQN else model.rollout_buffer
    filled = buffer.discounts[: buffer.pos or None]
    assert 0.9 < filled.min() < 1 and len(np.unique(filled)) > 3
    model.save(tmp_path / "model.zip")
    loaded = semi_markov(learner).load(tmp_path / "model.zip", env=envs, device="cpu")
    assert loaded.horizon_ms == 20 and loaded.gamma == 1
    if learner is DQN:
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        loaded.load_replay_buffer(tmp_path / "buffer.pkl")
        assert np.array_equal(loaded.replay_buffer.discounts, buffer.discounts)
    loaded.learn(64)
    semi_markov(learner).load(tmp_path / "model.zip", device="cpu").predict(envs.reset())


def test_sb3s_own_vec_env_around_single_environments() -> None:
    """Discounts come from infos, so that the native lanes are not needed."""
    singles = DummyVecEnv([lambda: PleEnv("Storm")] * 2)
    models = [
        semi_markov(PPO)("MlpPolicy", envs, n_steps=32, batch_size=64, seed=3, device="cpu").learn(64)
        for envs in (singles, make_sb3("Storm", 2))
    ]
    one, two = (model.rollout_buffer.discounts for model in models)
    assert np.array_equal(one, two) and len(np.unique(one)) > 3
    assert singles.get_attr("scenario")[0].host.tsc_hz * 0.050 == models[0]._horizon_cycles(singles)


def test_what_cannot_be() -> None:
    envs = Scripted()
    with pytest.raises(TypeError, match="horizon_ms, not gamma"):
        semi_markov(PPO)("MlpPolicy", envs, gamma=0.9)
    with pytest.raises(ValueError, match="horizon_ms = 0: must be above 0"):
        semi_markov(PPO)("MlpPolicy", envs, horizon_ms=0)
    with pytest.raises(TypeError, match="RolloutBuffer: must be a SemiMarkovRolloutBuffer"):
        semi_markov(PPO)("MlpPolicy", envs, rollout_buffer_class=RolloutBuffer)
    with pytest.raises(TypeError, match="ReplayBuffer: must be a SemiMarkovReplayBuffer"):
        semi_markov(DQN)("MlpPolicy", envs, replay_buffer_class=ReplayBuffer)
    with pytest.raises(ValueError, match="n_steps = 3: semi-Markov learning has no n-step returns"):
        semi_markov(DQN)("MlpPolicy", envs, n_steps=3)
    with pytest.raises(ValueError, match="optimize_memory_usage = True: not possible"):
        semi_markov(DQN)(
            "MlpPolicy",
            envs,
            optimize_memory_usage=True,
            replay_buffer_kwargs={"handle_timeout_termination": False},
        )
    with pytest.raises(TypeError, match="BaseAlgorithm: must be an on-policy or off-policy algorithm"):
        semi_markov(PPO.__mro__[2])
    with pytest.raises(ValueError, match="infos with elapsed_cycles"):
        discounts_of([{}], 1.0)
    plain = PPO("MlpPolicy", envs, n_steps=6, batch_size=6, rollout_buffer_class=SemiMarkovRolloutBuffer, device="cpu")
    with pytest.raises(RuntimeError, match=r"make the learner by semi_markov"):
        plain.learn(12)
    assert semi_markov(PPO) is semi_markov(PPO) and semi_markov(PPO).__name__ == "SemiMarkovPPO"
