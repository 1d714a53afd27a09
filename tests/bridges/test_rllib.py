"""RLlib, new API stack: PPO trains on native lanes, remotely and locally, and masks are obeyed (make test-rllib)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Ray alone (make test-cluster) is not enough.
pytest.importorskip("ray.rllib", reason="RLlib has an environment of its own: make test-rllib", exc_type=ImportError)

import ray
from ray.rllib.algorithms.ppo import PPOConfig

from ple_gym.adapters import rllib
from ple_gym.adapters.masks import VectorMaskInObservation
from ple_gym.envs.vector import PleVectorEnv

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are Ray's business

EPISODE = 20  # decisions


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def config(lanes: int) -> PPOConfig:
    return (
        PPOConfig()
        .env_runners(num_envs_per_env_runner=lanes, gym_env_vectorize_mode="vector_entry_point", num_env_runners=0)
        .learners(num_learners=0)
        .training(train_batch_size_per_learner=320, minibatch_size=80, num_epochs=2)
        .debugging(seed=0)
    )


def masked(lanes: int, **options: Any) -> PPOConfig:
    env_config = {"id": "PLE/Storm-v1", "max_episode_steps": EPISODE, **options}
    spec = rllib.masked_module(hiddens=[16, 16])
    return config(lanes).environment(rllib.MASKED, env_config=env_config).rl_module(rl_module_spec=spec)


def trained(config: PPOConfig, iterations: int = 1) -> tuple[Any, dict[str, Any], list[int]]:
    """The algorithm, the last result, and the illegal actions of every episode."""
    illegal: list[int] = []

    def count(*, episode: Any, **_: Any) -> None:
        illegal.append(int(episode.get_infos(-1)["ple_episode"]["illegal_actions"]))

    algorithm = config.callbacks(on_episode_end=count).build_algo()
    for _ in range(iterations):
        result = algorithm.train()
    return algorithm, result, illegal


def test_masked_ppo_trains_on_native_lanes() -> None:
    algorithm, result, illegal = trained(masked(8), iterations=2)
    env = algorithm.env_runner.env
    assert isinstance(env.env, VectorMaskInObservation) and isinstance(env.unwrapped, PleVectorEnv)
    assert result["env_runners"]["episode_len_mean"] == EPISODE
    assert len(illegal) > 20 and set(illegal) == {0}
    learner = result["learners"]["default_policy"]
    assert np.isfinite([learner[name] for name in ("total_loss", "entropy", "mean_kl_loss")]).all()
    algorithm.stop()


def test_masked_ppo_trains_on_single_environments_in_a_worker() -> None:
    remote = masked(2, observation="tokens").env_runners(num_env_runners=1, gym_env_vectorize_mode="sync")
    algorithm = remote.build_algo()
    result = algorithm.train()
    assert result["env_runners"]["episode_len_mean"] == EPISODE
    algorithm.stop()


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "bridges.md").read_text(encoding="utf-8")
    (example,) = (
        block for block in re.findall(r"```python[^\n]*\n(.*?)```", page, re.DOTALL) if "PPOConfig()" in block
    )
    names: dict[str, Any] = {}
    exec(example, names)
    algorithm, result = names["algorithm"], names["result"]
    runners = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: (type(runner.env.unwrapped), runner.env.num_envs, runner.env.unwrapped.interface.information),
        local_env_runner=False,
    )
    assert set(runners) == {(PleVectorEnv, 64, "introspection")}
    assert result["env_runners"]["num_env_steps_sampled"] >= 4000  # what RLlib calls one iteration
    assert np.isfinite(result["learners"]["default_policy"]["total_loss"])
    algorithm.stop()


def test_unmasked_ppo_takes_plain_ids_and_acts_illegally() -> None:
    plain = config(8).environment("ple_gym:PLE/Storm-v1", env_config={"max_episode_steps": EPISODE})
    algorithm, _, illegal = trained(plain)
    assert isinstance(algorithm.env_runner.env.unwrapped, PleVectorEnv)
    assert sum(illegal) > 0  # so that the tests above could have failed
    algorithm.stop()


def test_the_module_gives_what_is_illegal_no_probability() -> None:
    torch = pytest.importorskip("torch")
    env = rllib.make_masked({"id": "PLE/Storm-v1", "num_envs": 4})
    module = rllib.masked_module().module_class(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        model_config={"hiddens": [8]},
    )
    observations, _ = env.reset(seed=0)
    batch = {"obs": {name: torch.as_tensor(value) for name, value in observations.items()}}
    probabilities = torch.softmax(module.forward_exploration(batch)["action_dist_inputs"], -1)
    np.testing.assert_array_equal(probabilities.detach().numpy() > 0, observations["action_mask"])
    assert module.compute_values(batch).shape == (4,)


def test_a_module_without_masks_says_so() -> None:
    env = PleVectorEnv(1)
    with pytest.raises(ValueError, match=rllib.MASKED):
        rllib.MaskedModule(observation_space=env.single_observation_space, action_space=env.single_action_space)
