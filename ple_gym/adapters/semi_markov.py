"""Semi-Markov learning with Stable-Baselines3: a discount for the time that passed, not for the number of decisions.

Decisions are not evenly spaced: 2 us apart in a storm of exits, milliseconds apart without one. A discount per decision
would let a policy push its costs beyond the horizon by causing exits. Here the discount of a transition that took
`elapsed_cycles` is exp(-elapsed / horizon) (Bradtke and Duff 1994; Sutton, Precup and Singh 1999), and its reward is
what was lost meanwhile, undiscounted:

    model = semi_markov(MaskablePPO)("MlpPolicy", envs, horizon_ms=50)

On-policy learners get a rollout buffer with returns and advantages of that kind, off-policy ones a replay buffer that
fills `discounts`. `envs` is any `VecEnv` whose infos have `elapsed_cycles` and whose environments have a `scenario`:
that of `make_sb3`, SB3's own around `PleEnv`s, wrapped or not.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ple_gym.errors import ArgumentError
from ple_gym.extras import needs

with needs("agents"):
    import torch
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
    from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer, RecurrentRolloutBuffer
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import DictReplayBuffer, DictRolloutBuffer, ReplayBuffer, RolloutBuffer
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

Floats = npt.NDArray[np.float64]


@functools.cache
def semi_markov(learner: type[BaseAlgorithm]) -> type[Any]:
    """The learner, with discounts by elapsed time.

    The class that is returned takes `horizon_ms` (default 50; simulated time in which a discount falls to 1/e) in the
    place of `gamma`, and everything else by name. It saves and loads like any other: `semi_markov(PPO).load(path)`.

    Args:
        learner: PPO, A2C, MaskablePPO, RecurrentPPO, DQN, or a class with the same buffers (TRPO, QRDQN).

    Raises:
        TypeError: neither an on-policy nor an off-policy algorithm of Stable-Baselines3.
    """
    for kind, mixin in ((OnPolicyAlgorithm, _OnPolicy), (OffPolicyAlgorithm, _OffPolicy)):
        if issubclass(learner, kind):
            return type(f"SemiMarkov{learner.__name__}", (mixin, learner), {"__doc__": learner.__doc__})
    raise TypeError(f"{learner.__name__}: must be an on-policy or off-policy algorithm of Stable-Baselines3")


def discounts_of(infos: list[dict[str, Any]], horizon_cycles: float) -> Floats:
    """exp(-elapsed / horizon) of each lane's transition: float64 [N].

    Raises:
        ArgumentError: infos without `elapsed_cycles`.
    """
    try:
        elapsed = np.array([info["elapsed_cycles"] for info in infos], np.float64)
    except KeyError:
        raise ArgumentError("semi-Markov learning needs infos with elapsed_cycles: environments of ple_gym") from None
    return np.exp(-elapsed / horizon_cycles)


# -------------------------------------------------------------------------------------------------------------- buffers


class SemiMarkovRolloutBuffer(RolloutBuffer):
    """A rollout buffer whose transitions have a discount each; `gamma` is only what SB3 bootstraps time limits with.

    `expect` must be called between a step and its `add`, which has no infos.

    discounts: float64 [buffer_size, n_envs].
    """

    def reset(self) -> None:
        """Forget all transitions."""
        self.discounts = np.ones((self.buffer_size, self.n_envs))
        self._rewards: Floats | None = None
        super().reset()

    def expect(self, rewards: npt.NDArray[Any], discounts: npt.NDArray[Any]) -> None:
        """Take note of the rewards [n_envs] and discounts [n_envs] of the transition that `add` will bring."""
        self.discounts[self.pos] = discounts
        self._rewards = rewards.copy()

    def add(self, obs: Any, action: Any, reward: npt.NDArray[Any], *args: Any, **kwargs: Any) -> None:
        """Add a transition, as SB3 does after `rewards[i] += gamma * V(terminal_observation)` at a time limit.

        Raises:
            RuntimeError: `expect` has not been called for it.
        """
        if self._rewards is None:
            raise RuntimeError("no elapsed times for this transition: make the learner by semi_markov(...)")
        bootstrap = reward - self._rewards
        self._rewards = None
        reward = reward + bootstrap * (self.discounts[self.pos] / self.gamma - 1)
        super().add(obs, action, reward, *args, **kwargs)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: npt.NDArray[Any]) -> None:
        """SB3's generalised advantage estimation, and TD(lambda) returns, with the discount of each transition."""
        discounts = self.discounts.astype(np.float32)
        decays = (self.discounts * self.gae_lambda).astype(np.float32)
        continues = 1 - np.vstack([self.episode_starts[1:], dones]).astype(np.float32)
        next_values = np.vstack([self.values[1:], last_values.cpu().numpy().flatten()])
        deltas = self.rewards + discounts * next_values * continues - self.values
        advantage = np.zeros(self.n_envs, np.float32)
        for step in reversed(range(self.buffer_size)):
            advantage = deltas[step] + decays[step] * continues[step] * advantage
            self.advantages[step] = advantage
        self.returns = self.advantages + self.values


class SemiMarkovDictRolloutBuffer(SemiMarkovRolloutBuffer, DictRolloutBuffer):
    """The same for `Dict` observations."""


class SemiMarkovMaskableRolloutBuffer(SemiMarkovRolloutBuffer, MaskableRolloutBuffer):  # type: ignore[misc] # of `add`
    """The same with action masks."""


class SemiMarkovMaskableDictRolloutBuffer(SemiMarkovRolloutBuffer, MaskableDictRolloutBuffer):  # type: ignore[misc] # of `add`
    """The same with action masks, for `Dict` observations."""


class SemiMarkovRecurrentRolloutBuffer(SemiMarkovRolloutBuffer, RecurrentRolloutBuffer):  # type: ignore[misc] # of `add`
    """The same with the states of recurrent networks."""


class SemiMarkovRecurrentDictRolloutBuffer(SemiMarkovRolloutBuffer, RecurrentDictRolloutBuffer):  # type: ignore[misc] # of `add`
    """The same with the states of recurrent networks, for `Dict` observations."""


class SemiMarkovReplayBuffer(ReplayBuffer):
    """A replay buffer that fills `discounts`, by which SB3's off-policy learners discount the next state's value.

    `horizon_cycles` must be set before the first `add`.

    discounts: float32 [buffer_size, n_envs].
    """

    horizon_cycles: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.optimize_memory_usage:
            raise ArgumentError("optimize_memory_usage = True: not possible with semi-Markov learning")
        self.discounts = np.ones((self.buffer_size, self.n_envs), np.float32)

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        """Add a transition."""
        self.discounts[self.pos] = discounts_of(infos, self.horizon_cycles)
        super().add(obs, next_obs, action, reward, done, infos)

    def _get_samples(self, batch_inds: npt.NDArray[np.int64], env: VecNormalize | None = None) -> Any:
        """As in SB3, which draws the lanes in here and does not return them; so its whole method stands here again."""
        at = batch_inds, np.random.randint(0, high=self.n_envs, size=len(batch_inds))

        def observations(kept: Any) -> Any:
            rows = {name: part[at] for name, part in kept.items()} if isinstance(kept, dict) else kept[at]
            rows = self._normalize_obs(rows, env)
            if isinstance(rows, dict):
                return {name: self.to_torch(part) for name, part in rows.items()}
            return self.to_torch(rows)

        samples = DictReplayBufferSamples if isinstance(self.observations, dict) else ReplayBufferSamples
        return samples(
            observations=observations(self.observations),
            actions=self.to_torch(self.actions[at]),
            next_observations=observations(self.next_observations),
            dones=self.to_torch((self.dones[at] * (1 - self.timeouts[at])).reshape(-1, 1)),
            rewards=self.to_torch(self._normalize_reward(self.rewards[at].reshape(-1, 1), env)),
            discounts=self.to_torch(self.discounts[at].reshape(-1, 1)),
        )


class SemiMarkovDictReplayBuffer(SemiMarkovReplayBuffer, DictReplayBuffer):
    """The same for `Dict` observations."""


_ROLLOUT_BUFFERS = {  # with action masks?, `Dict` observations?
    (False, False): SemiMarkovRolloutBuffer,
    (False, True): SemiMarkovDictRolloutBuffer,
    (True, False): SemiMarkovMaskableRolloutBuffer,
    (True, True): SemiMarkovMaskableDictRolloutBuffer,
}
_RECURRENT_BUFFERS = {False: SemiMarkovRecurrentRolloutBuffer, True: SemiMarkovRecurrentDictRolloutBuffer}
_REPLAY_BUFFERS = {False: SemiMarkovReplayBuffer, True: SemiMarkovDictReplayBuffer}

# ------------------------------------------------------------------------------------------------------------- learners


class _SemiMarkov(BaseAlgorithm):
    """What `semi_markov` puts before a learner: it has a horizon, and `gamma` is 1."""

    def __init__(self, policy: Any, env: Any, *, horizon_ms: float = 50.0, **options: Any) -> None:
        if "gamma" in options:
            raise TypeError("a semi-Markov learner discounts by time: give horizon_ms, not gamma")
        if not horizon_ms > 0:
            raise ArgumentError(f"horizon_ms = {horizon_ms}: must be above 0")
        self.horizon_ms = horizon_ms
        super().__init__(policy, env, gamma=1.0, **options)  # type: ignore[call-arg]

    def _horizon_cycles(self, env: VecEnv) -> float:
        return float(self.horizon_ms * 1e-3 * env.get_attr("scenario", 0)[0].host.tsc_hz)

    def _check_buffer(self, buffer: Any, kind: type) -> None:
        if not isinstance(buffer, kind):
            found, needed = type(buffer).__name__, kind.__name__
            raise TypeError(f"the buffer of {type(self).__name__} is a {found}: must be a {needed}")


class _OnPolicy(_SemiMarkov, OnPolicyAlgorithm):
    def _setup_model(self) -> None:
        as_dict = isinstance(self.observation_space, spaces.Dict)
        if self.rollout_buffer_class is None:
            self.rollout_buffer_class = _ROLLOUT_BUFFERS[isinstance(self, MaskablePPO), as_dict]
        super()._setup_model()
        if isinstance(self, RecurrentPPO):  # it asks for no class
            self.rollout_buffer = _RECURRENT_BUFFERS[as_dict](
                self.n_steps,
                self.observation_space,
                self.action_space,
                self.rollout_buffer.hidden_state_shape,  # type: ignore[attr-defined]
                self.device,
                gae_lambda=self.gae_lambda,
                gamma=self.gamma,
                n_envs=self.n_envs,
            )
        self._check_buffer(self.rollout_buffer, SemiMarkovRolloutBuffer)

    def collect_rollouts(self, env: VecEnv, callback: Any, rollout_buffer: Any, *args: Any, **kwargs: Any) -> bool:
        observed = _Observed(env, rollout_buffer, self._horizon_cycles(env))
        return super().collect_rollouts(observed, callback, rollout_buffer, *args, **kwargs)


class _OffPolicy(_SemiMarkov, OffPolicyAlgorithm):
    def _setup_model(self) -> None:
        if getattr(self, "n_steps", 1) != 1:
            raise ArgumentError(f"n_steps = {self.n_steps}: semi-Markov learning has no n-step returns")
        if self.replay_buffer_class is None:
            self.replay_buffer_class = _REPLAY_BUFFERS[isinstance(self.observation_space, spaces.Dict)]
        super()._setup_model()
        self._check_buffer(self.replay_buffer, SemiMarkovReplayBuffer)

    def collect_rollouts(self, env: VecEnv, *args: Any, **kwargs: Any) -> Any:
        self.replay_buffer.horizon_cycles = self._horizon_cycles(env)  # type: ignore[union-attr]
        return super().collect_rollouts(env, *args, **kwargs)


class _Observed(VecEnvWrapper):
    """Gives a rollout buffer the rewards and discounts of each step, before SB3 changes the rewards."""

    def __init__(self, venv: VecEnv, buffer: SemiMarkovRolloutBuffer, horizon_cycles: float) -> None:
        super().__init__(venv)
        self.buffer, self.horizon_cycles = buffer, horizon_cycles

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observation, rewards, dones, infos = self.venv.step_wait()
        self.buffer.expect(rewards, discounts_of(infos, self.horizon_cycles))
        return observation, rewards, dones, infos
