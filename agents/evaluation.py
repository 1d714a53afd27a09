"""Trainings beside rules in one comparison of `ple_gym.evaluate`, those included that only torch can run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from agents.common import AgentError
from agents.torch_policy import TorchPolicy, read_policy
from ple_gym import evaluate
from ple_gym.evaluate import Comparison, Group
from ple_gym.files import in_archive
from ple_gym.learned.file import PREFIX
from ple_gym.messages import plain, shown_path
from ple_gym.scenario import Scenario

_ItemT = TypeVar("_ItemT")


def checkpoint(name: str) -> Path:
    """The file of a training's folder, or the file itself.

    Raises:
        AgentError: there is none.
    """
    if not name.isprintable():  # it stands in tables
        raise AgentError(f"{shown_path(name)}: the name of a policy's file must be printable")
    path = Path(name)
    if os.path.isdir(path):  # unlike the methods of Path these never raise, whatever the name
        path /= "policy.npz"
    if not os.path.exists(path.parent if in_archive(path) else path):
        raise AgentError(
            f"{shown_path(name)}: no policy there; an unfinished training goes on with the command that began it"
        )
    return path


def agent_rows(names: Sequence[str], each: bool = False) -> list[str | Group]:
    """Return the rows for shipped policies (`learned:NAME`) and for trainings. Trainings that differ only in their seed
    are one row unless `each`.

    Such a row is named by its learner, and by those options in which it differs from other rows of that learner.
    """
    rows: list[str | Group] = [name for name in names if name.startswith(PREFIX)]
    paths = [checkpoint(name) for name in names if not name.startswith(PREFIX)]
    if each:
        return rows + [f"{PREFIX}{path}" for path in paths]
    cards = [(read_policy(path).card, f"{PREFIX}{path}") for path in paths]
    return rows + [Group(name, policies) for name, policies in alike(cards).items()]


def alike(cards: Iterable[tuple[Mapping[str, Any], _ItemT]]) -> dict[str, list[_ItemT]]:
    """Put together what belongs to trainings (by their cards) that differ in nothing but the seed; by learner, and by
    those options in which it differs from others of that learner.
    """
    trainings: dict[str, dict[str, list[_ItemT]]] = {}  # learner -> options without the seed -> its items
    for card, item in cards:
        options = {name: value for name, value in card.get("options", {}).items() if name != "seed"}
        same = trainings.setdefault(str(card.get("learner") or "policy"), {})
        same.setdefault(json.dumps(options, sort_keys=True), []).append(item)
    result = {}
    for learner, kinds in trainings.items():
        every = [json.loads(kind) for kind in kinds]
        for options, items in zip(every, kinds.values(), strict=True):
            own = [
                f" {key}={plain(value)}"
                for key, value in options.items()
                if any(one.get(key) != value for one in every)
            ]
            result[learner + ",".join(own)] = items
    return result


def compare(
    scenario: str | Scenario,
    rows: Sequence[str | Group],
    seeds: Iterable[int],
    announce: Callable[[str], None] = lambda name: None,
    progress: bool = False,
) -> Comparison:
    """As `ple_gym.evaluate.compare`, also of policies that only torch can run, one after the other; `announce` gets
    the name of each.
    """
    numbers = list(seeds)
    members = {row.name if isinstance(row, Group) else row: _policies(row) for row in rows}
    torch = {policy: found for each in members.values() for policy in each if (found := _torch_policy(policy))}
    in_kernel = [row for row in rows if torch.keys().isdisjoint(_policies(row))]
    comparison = evaluate.compare(scenario, in_kernel, numbers, progress=progress)
    runs, wall = dict(comparison.runs), dict(comparison.wall_s)
    for name, policy in torch.items():
        announce(name)
        began = time.perf_counter()
        runs[name] = policy.simulate(comparison.scenario, numbers)
        wall[name] = time.perf_counter() - began
    return replace(comparison, runs=runs, wall_s=wall, members=members)


def _policies(row: str | Group) -> tuple[str, ...]:
    return tuple(row.policies) if isinstance(row, Group) else (row,)


def _torch_policy(name: str) -> TorchPolicy | None:
    """The policy of that name, if the kernel cannot run it."""
    path = Path(name.removeprefix(PREFIX))
    if path.suffix != ".npz" or not name.startswith(PREFIX):
        return None
    policy = read_policy(path)
    return policy if isinstance(policy, TorchPolicy) else None
