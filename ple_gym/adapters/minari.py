"""Minari: write the episodes of a policy as an offline data set (`pip install 'ple-gym[minari]'`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

import ple_gym
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.episode import Episode, episode_of
from ple_gym.errors import ArgumentError
from ple_gym.extras import needs

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

#: Actions int [N] for the observations and infos of N lanes, as `gymnasium.make_vec` gives them.
Policy = Callable[[Any, dict[str, Any]], npt.ArrayLike]


def export_minari(
    dataset_id: str,
    env_id: str,
    policy: Policy,
    seeds: Sequence[int],
    *,
    num_envs: int = 64,
    env_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    **metadata: Any,
) -> MinariDataset:
    """Run one episode for each seed, `num_envs` at a time, and write them as a Minari data set.

    Of T decisions an episode has T + 1 observations and T + 1 of each info: `action_mask` (int8 [T + 1, V + 1]) and
    `elapsed_cycles` (int64 [T + 1]). Its metadata hold the `seed`, from which the environment replays it exactly, and
    `ple_episode`, the run's record as JSON. All episodes are in memory until the last one has ended.

    Args:
        dataset_id: `namespace/name-v0`, where Minari keeps its data sets (`MINARI_DATASETS_PATH`).
        env_id: `PLE/<scenario>-v0`.
        policy: called with the observations and infos of all lanes; those of lanes that have ended are ignored.
        seeds: worlds, in the order in which they are written.
        num_envs: lanes that are stepped together.
        env_options: of the environment, e.g. `{"information": "oracle", "max_episode_steps": 500}`.
        progress: called with the number of episodes that are done.
        metadata: what `minari.create_dataset_from_buffers` takes: `algorithm_name`, `author`, `description` and so on.

    Raises:
        ModuleNotFoundError: Minari is not installed.
        ArgumentError: no seeds, or there is such a data set already; nothing has been run.
    """
    with needs("minari"):
        import minari

    if not seeds:
        raise ArgumentError("export_minari: no seeds")
    if dataset_id in minari.list_local_datasets():
        raise ArgumentError(f"export_minari: there is a data set {dataset_id!r} already; raise its version")
    options = dict(env_options or {})
    envs = gym.make_vec(env_id, num_envs=min(num_envs, len(seeds)), autoreset_mode="NextStep", **options).unwrapped
    assert isinstance(envs, PleVectorEnv)
    buffers: list[EpisodeBuffer] = []
    records: list[dict[str, str]] = []
    for buffer, record in _episodes(envs, policy, seeds):
        buffers.append(buffer)
        records.append({"ple_episode": json.dumps(record)})
        if progress is not None:
            progress(len(buffers))
    envs.close()
    metadata.setdefault("requirements", [f"ple-gym=={ple_gym.__version__}"])
    dataset = minari.create_dataset_from_buffers(dataset_id, buffers, env=gym.make(env_id, **options), **metadata)
    dataset.storage.update_episode_metadata(records)
    return dataset


def _episodes(envs: PleVectorEnv, policy: Policy, seeds: Sequence[int]) -> Iterator[tuple[EpisodeBuffer, Episode]]:
    """One episode, and its record, for each seed."""
    for begin in range(0, len(seeds), envs.num_envs):
        wanted = [int(seed) for seed in seeds[begin : begin + envs.num_envs]]
        spare = [wanted[-1]] * (envs.num_envs - len(wanted))
        ends: dict[int, tuple[int, Episode]] = {}  # decisions and record of each lane that has ended
        observations, infos = envs.reset(seed=wanted + spare)
        seen = [(observations, infos["action_mask"], infos["elapsed_cycles"])]
        done: list[tuple[Any, ...]] = []
        while len(ends) < len(wanted):
            actions = np.asarray(policy(observations, infos))
            observations, rewards, terminations, truncations, infos = envs.step(actions)
            seen.append((observations, infos["action_mask"], infos["elapsed_cycles"]))
            done.append((actions, rewards, terminations, truncations))
            for lane in np.flatnonzero((terminations | truncations)[: len(wanted)]).tolist():
                if lane not in ends:
                    ends[lane] = len(done), episode_of(envs.lanes, lane)
        for lane, seed in enumerate(wanted):
            length, record = ends[lane]
            yield _buffer(seed, lane, seen[: length + 1], done[:length]), record


def _buffer(seed: int, lane: int, seen: list[tuple[Any, ...]], done: list[tuple[Any, ...]]) -> EpisodeBuffer:
    """The part of one lane in steps of all lanes."""
    with needs("minari"):
        from minari.data_collector import EpisodeBuffer

    observations, masks, elapsed = zip(*seen, strict=True)
    actions, rewards, terminations, truncations = (
        [column[lane] for column in part] for part in zip(*done, strict=True)
    )
    return EpisodeBuffer(
        seed=seed,
        observations=_stacked(observations, lane),
        actions=np.array(actions, np.int64),
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
        infos={"action_mask": _stacked(masks, lane), "elapsed_cycles": _stacked(elapsed, lane)},
    )


def _stacked(rows: Sequence[Any], lane: int) -> Any:
    if isinstance(rows[0], dict):
        return {name: _stacked([row[name] for row in rows], lane) for name in rows[0]}
    return np.stack([row[lane] for row in rows])
