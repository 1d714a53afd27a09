"""Minari: what is exported is what is loaded, and a seed replays its episode exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from pages import example, run

import ple_gym  # noqa: F401
from ple_gym.adapters.minari import export_minari

pytest.importorskip("minari")
import minari

# It asks for authors and links, which a test has none of.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

ID, SEEDS = "ple/ticket-order/random-v0", [11, 5, 7, 5, 2**62]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


class Random:
    """Legal actions; remembers what it was shown and what it did."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.seen: list[tuple[Any, Any, Any, Any]] = []

    def __call__(self, observations: Any, infos: dict[str, Any]) -> np.ndarray:
        mask = infos["action_mask"]
        actions = np.where(mask, self.rng.random(mask.shape), -1).argmax(axis=1)
        self.seen.append((observations, mask, infos["elapsed_cycles"], actions))
        return actions


@pytest.mark.parametrize("options", [{}, {"observation": "tokens", "information": "oracle", "max_episode_steps": 30}])
def test_episodes_come_back_and_replay(options: dict[str, Any]) -> None:
    done: list[int] = []
    export_minari(ID, "PLE/TicketOrder-v1", Random(), SEEDS, num_envs=2, env_options=options, progress=done.append)
    assert done == [1, 2, 3, 4, 5]
    dataset = minari.load_dataset(ID)
    env = dataset.recover_environment()
    assert [int(one["seed"]) for one in dataset.storage.get_episode_metadata(range(5))] == SEEDS
    assert (env.observation_space, env.action_space) == (dataset.observation_space, dataset.action_space)
    for number, episode in enumerate(dataset.iterate_episodes()):
        record = json.loads(next(iter(dataset.storage.get_episode_metadata([number])))["ple_episode"])
        assert episode.actions.dtype == np.int64 and episode.infos["action_mask"].dtype == np.int8
        seen, info = env.reset(seed=SEEDS[number])
        for t in range(len(episode) + 1):
            found = {k: v[t] for k, v in episode.observations.items()} if options else episode.observations[t]
            np.testing.assert_equal(found, seen)
            np.testing.assert_array_equal(episode.infos["action_mask"][t], info["action_mask"])
            assert episode.infos["elapsed_cycles"][t] == info["elapsed_cycles"]
            if t < len(episode):
                seen, *outcome, info = env.step(episode.actions[t])
                assert outcome == [episode.rewards[t], episode.terminations[t], episode.truncations[t]]
        assert outcome[1] or outcome[2]
        assert record["decisions"] > 0
        if not options:  # Gymnasium's TimeLimit ends an episode without the environment's knowing
            assert record == info["ple_episode"]


def test_what_the_policy_saw_and_did_is_what_is_written() -> None:
    policy = Random()
    dataset = export_minari(ID, "PLE/TicketOrder-v1", policy, [1, 2], num_envs=2)
    for lane, episode in enumerate(dataset.iterate_episodes()):
        for t in range(len(episode)):
            observations, mask, elapsed, actions = policy.seen[t]
            np.testing.assert_array_equal(episode.observations[t], observations[lane])
            np.testing.assert_array_equal(episode.infos["action_mask"][t], mask[lane])
            assert episode.infos["elapsed_cycles"][t] == elapsed[lane] and episode.actions[t] == actions[lane]


def test_a_lane_that_ends_early_is_not_written_twice() -> None:
    dataset = export_minari(ID, "PLE/HolderPreempted-v0", Random(), range(12), num_envs=4)
    episodes = list(dataset.iterate_episodes())
    lengths = [len(episode) for episode in episodes]
    assert len(episodes) == 12 and max(lengths) > 2 * min(lengths)
    for episode in episodes:
        over = episode.terminations | episode.truncations
        assert over[-1] and not over[:-1].any()


def test_nothing_is_run_for_a_data_set_that_is_there_already() -> None:
    export_minari(ID, "PLE/HolderPreempted-v0", Random(), [1])
    policy = Random()
    with pytest.raises(ValueError, match="already"):
        export_minari(ID, "PLE/HolderPreempted-v0", policy, [1])
    with pytest.raises(ValueError, match="no seeds"):
        export_minari("ple/other-v0", "PLE/HolderPreempted-v0", policy, [])
    assert policy.seen == []


def test_the_environment_of_a_data_set_is_the_one_it_came_from() -> None:
    export_minari(ID, "PLE/TicketOrder-v1", Random(), [1], env_options={"overrides": {"host.pcpus": 3}})
    env = minari.load_dataset(ID).recover_environment()
    assert isinstance(env, gym.Env) and env.unwrapped.scenario.host.pcpus == 3


@pytest.mark.parametrize("infos", ["uniform", "sparse"])
def test_minaris_own_collector_stores_uniform_infos(infos: str, tmp_path: Path) -> None:
    """The others' keys change from step to step, which it cannot store."""
    pytest.importorskip("jax", reason="Minari's collector needs JAX: make test-clients")
    script = tmp_path / "collect.py"
    script.write_text(f"import gymnasium as gym\n{example('DataCollector').replace('uniform', infos)}{COLLECT}")
    if infos == "sparse":
        with pytest.raises(AssertionError, match="pytree structure error"):
            run(tmp_path, str(script))
        return
    told = json.loads(run(tmp_path, str(script)).splitlines()[-1])
    episodes = list(minari.load_dataset(ID).iterate_episodes())
    assert len(episodes[0]) == 30 and [len(episode) + 1 for episode in episodes] == [len(steps) for steps in told]
    for episode, steps in zip(episodes, told, strict=True):
        assert set(episode.infos) == {"action_mask", "elapsed_cycles", "illegal_action", "seed", "index"}
        for name, column in episode.infos.items():
            np.testing.assert_array_equal(column, [info[name] for info in steps])


#: In a process of its own: the collector leaves temporary folders for the garbage collector to remove.
COLLECT = f"""
import json
import numpy as np
import ple_gym

rng, told = np.random.default_rng(0), []
for seed in range(6):
    _, info = env.reset(seed=seed)
    told.append([info])
    over = False
    while not over:
        # Deferring always is cut off by the limit.
        action = 2 if seed == 0 else rng.choice(np.flatnonzero(info["action_mask"]))
        *_, terminated, truncated, info = env.step(int(action))
        told[-1].append(info)
        over = terminated or truncated
env.create_dataset({ID!r})
print(json.dumps(told, default=lambda array: array.tolist()))
"""
