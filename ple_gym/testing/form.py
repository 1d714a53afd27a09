"""Checks of what a vector environment is and returns, turn by turn: spaces, dtypes, infos, memory, masks.

Each check is a function of a `Subject` that returns if all is well, and otherwise raises `Unequal` or `NotApplicable`.
Its docstring says what it demands, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array

from ple_gym.testing.walk import (
    Bools,
    NotApplicable,
    Subject,
    Turn,
    Walk,
    demand_same,
    demand_same_stories,
    fail,
    is_mask,
    mask_sizes,
    other_players,
)

# ------------------------------------------------------------------------------------------------ what it says it is


def metadata(subject: Subject) -> None:
    """`metadata["autoreset_mode"]` is an `AutoresetMode`, and no class's metadata changes when one is built.

    Training code chooses what to do with an episode's end by the mode. A constructor that writes it into an inherited
    dict changes it for every other environment in the process.
    """
    of_base = dict(VectorEnv.metadata)
    env = subject.env()
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        fail("metadata['autoreset_mode']", "a gymnasium.vector.AutoresetMode", mode)
    demand_same("VectorEnv.metadata after construction", of_base, VectorEnv.metadata)
    before = [(owner, deepcopy(value)) for owner, value in _class_metadata(env)]
    subject.env()
    for owner, value in before:
        demand_same(f"{owner.__name__}.metadata after construction", value, owner.metadata)


def own_metadata(subject: Subject) -> None:
    """`metadata` belongs to the instance: what a wrapper or a user writes there stays in this one environment."""
    env, other = subject.env(), subject.env()
    for owner, value in _class_metadata(env):
        if env.metadata is value:
            fail("metadata", "a dict of the instance", f"that of its class {owner.__name__}")
    if env.metadata is other.metadata:
        fail("metadata", "a dict of the instance", "one that two environments share")


def _class_metadata(env: VectorEnv[Any, Any, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    for owner in type(env.unwrapped).__mro__:
        if isinstance(vars(owner).get("metadata"), dict):
            yield owner, vars(owner)["metadata"]


def spaces(subject: Subject) -> None:
    """The batched spaces are `num_envs` of the single ones, and these are the single environment's.

    A learner builds its network from the single spaces and its buffers from the batched ones.
    """
    env = subject.env()
    if not isinstance(env.num_envs, int) or env.num_envs < 1:
        fail("num_envs", "a whole number, at least 1", env.num_envs)
    for name in ("observation_space", "action_space"):
        alone = getattr(env, f"single_{name}")
        if not isinstance(alone, Space):
            fail(f"single_{name}", "a gymnasium.Space", alone)
        _demand_equal(name, batch_space(alone, env.num_envs), getattr(env, name))
        if subject.single is not None:
            _demand_equal(f"single_{name}", getattr(subject.single_env(), name), alone)


def _demand_equal(what: str, expected: object, found: object) -> None:
    if expected != found:
        fail(what, str(expected), str(found))


# ------------------------------------------------------------------------------------------------- what it returns


def outputs(subject: Subject) -> None:
    """Observations have the structure, shapes and dtypes of their space and lie in it; the rest are arrays [N].

    Rewards are floats and finite, flags are `bool_`, infos a dict. A wider dtype than the space's is a fault as well:
    buffers of the space's dtype would round.
    """
    walk = subject.walk()
    form = create_empty_array(walk.env.single_observation_space, len(walk.lanes))
    for turn in _turns(walk, subject.steps):
        _demand_form("observation", form, turn.observation, turn.number)
        if not walk.env.observation_space.contains(turn.observation):
            for lane, one in enumerate(walk.split(turn.observation)):
                if not walk.env.single_observation_space.contains(one):
                    fail("observation", f"in {walk.env.single_observation_space}", one, lane, turn.number)
            fail("observation", f"in {walk.env.observation_space}", turn.observation, step=turn.number)
        if not isinstance(turn.infos, dict):
            fail("infos", "a dict", turn.infos, step=turn.number)
        if turn.started is not None:
            continue
        for name, kind in (("rewards", "f"), ("terminations", "b"), ("truncations", "b")):
            array = getattr(turn, name)
            if not isinstance(array, np.ndarray) or array.dtype.kind != kind:
                words = {"f": "an array of floats", "b": "an array of bool_"}
                fail(name, words[kind], getattr(array, "dtype", array), step=turn.number)
            _demand_equal_shape(name, (len(walk.lanes),), array.shape, turn.number)
        for lane in np.flatnonzero(~np.isfinite(turn.rewards)).tolist():
            fail("reward", "a finite number", turn.rewards[lane], lane, turn.number)


def _demand_form(what: str, form: Any, found: Any, step: int) -> None:
    if isinstance(form, dict):
        if not isinstance(found, dict) or form.keys() != found.keys():
            fail(what, f"a dict of {sorted(form)}", sorted(found) if isinstance(found, dict) else found, step=step)
        for key in form:
            _demand_form(f"{what}[{key!r}]", form[key], found[key], step)
    elif isinstance(form, np.ndarray):
        if not isinstance(found, np.ndarray):
            fail(what, "an array", type(found).__name__, step=step)
        _demand_equal_shape(what, form.shape, found.shape, step)
        if form.dtype != found.dtype:
            fail(f"{what} dtype", str(form.dtype), str(found.dtype), step=step)
    elif isinstance(form, tuple):
        if not isinstance(found, tuple) or len(form) != len(found):
            fail(what, f"a tuple of {len(form)}", found, step=step)
        for i, one in enumerate(form):
            _demand_form(f"{what}[{i}]", one, found[i], step)


def _demand_equal_shape(what: str, expected: tuple[int, ...], found: tuple[int, ...], step: int) -> None:
    if expected != found:
        fail(f"{what} shape", expected, found, step=step)


def infos(subject: Subject) -> None:
    """Each key of `infos` is an array [N, ...], or a dict of such, and `_key` marks the lanes that have it: bool [N].

    Wrappers and `DictInfoToList` read them so; a lane without the mask gets the values of lanes that have none. In a
    nested dict the masks may be left out, for the dict has one.
    """
    walk = subject.walk()
    for turn in _turns(walk, subject.steps):
        _demand_infos(turn.infos, "infos", len(walk.lanes), turn.number, nested=False)


def _demand_infos(infos: Mapping[str, Any], path: str, lanes: int, step: int, nested: bool) -> None:
    for key, value in infos.items():
        if not isinstance(key, str):
            fail(f"{path} keys", "strings", key, step=step)
        name = f"{path}[{key!r}]"
        if is_mask(key, infos):
            if not isinstance(value, np.ndarray) or value.dtype != np.bool_ or value.shape != (lanes,):
                found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else value
                fail(name, f"bool ({lanes},)", found, step=step)
            continue
        if not nested and f"_{key}" not in infos:
            fail(path, f"the mask '_{key}' of {key!r}", "none", step=step)
        if isinstance(value, Mapping):
            _demand_infos(value, name, lanes, step, nested=True)
        elif not isinstance(value, np.ndarray) or value.shape[:1] != (lanes,):
            found = value.shape if isinstance(value, np.ndarray) else value
            fail(name, f"an array of {lanes} rows, or a dict of such", found, step=step)


def memory(subject: Subject) -> None:
    """No array shares memory with one that was returned before, or with the caller's actions.

    A learner keeps the last observation beside the new one; if both are one buffer, they are equal.
    """
    walk = subject.walk()
    kept: list[tuple[str, npt.NDArray[Any]]] = []
    bounds = np.empty((0, 2), np.uint64)
    dicts: list[object] = []  # kept too, so that no other one gets their identity
    for _ in range(min(subject.steps, 200) + 1):
        names = ("observation", "rewards", "terminations", "truncations", "infos")
        new = list(_arrays(dict(zip(names if len(walk.raw) == 5 else ("observation", "infos"), walk.raw, strict=True))))
        for name, array in new:
            low, high = np.lib.array_utils.byte_bounds(array)
            for index in np.flatnonzero((bounds[:, 0] < high) & (bounds[:, 1] > low)):
                if np.shares_memory(array, kept[index][1]):
                    fail(f"memory of {name}", "fresh", f"that of {kept[index][0]}", step=walk.number)
        if any(walk.raw[-1] is one for one in dicts):
            fail("infos", "a fresh dict", "one that was returned before", step=walk.number)
        dicts.append(walk.raw[-1])
        actions = walk.batch(walk.draw())
        new += _arrays({"the actions": actions})
        kept += [(f"{name} at step {walk.number}", array) for name, array in new]
        bounds = np.vstack([bounds, *(np.array(np.lib.array_utils.byte_bounds(one), np.uint64) for _, one in new)])
        if walk.mode is AutoresetMode.DISABLED and walk.over.any():
            walk.reset(mask=walk.over)
        else:
            walk.step(actions)


def _arrays(value: Any, path: str = "") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """All arrays with some memory, in dicts, tuples and arrays of objects too, with their names."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _arrays(one, f"{path}[{key!r}]" if path else str(key))
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _arrays(one, f"{path}[{i}]")
    elif isinstance(value, np.ndarray) and value.size:
        yield path, value
        if value.dtype == object:
            yield from _arrays(list(value.flat), path)


def actions_kept(subject: Subject) -> None:
    """`step` does not write into the actions, and does not read them later: the caller may use the array again."""
    walk, twin = subject.walk(), subject.walk()
    others = other_players(walk)
    for _ in range(subject.steps):
        actions = walk.batch(walk.draw())
        before = deepcopy(actions)
        walk.step(actions)
        demand_same("the caller's actions after the step", before, actions, step=walk.number)
        other = walk.batch([one.sample() for one in others])
        for (_, mine), (_, new) in zip(_arrays({"": actions}), _arrays({"": other}), strict=True):
            mine[...] = new
        twin.step()
        if walk.mode is AutoresetMode.DISABLED and walk.over.any():
            walk.reset(mask=walk.over)
            twin.reset(mask=twin.over)
    demand_same_stories("after the caller used its actions array again", twin, walk)


# ----------------------------------------------------------------------------------------------------------- masks


def masks(subject: Subject) -> None:
    """`infos["action_mask"]` is int8 [N, n] (n columns in all for a `MultiDiscrete`), 0 or 1, for every lane, always.

    At least one action is legal, at ends too: from a mask of zeros Gymnasium samples the first action, and MaskablePPO
    any, both silently. `space.sample` takes int8 only. Legal actions are accepted. The mask belongs to the observation
    that comes with it: a reset with the same seed brings the same again, and `action_masks()`, if there is one, agrees.
    """
    walk = subject.walk()
    if "action_mask" not in walk.turns[0].infos:
        raise NotApplicable("infos has no 'action_mask'")
    sizes = mask_sizes(walk.env.single_action_space)
    if sizes is None:
        raise NotApplicable(f"actions of {walk.env.single_action_space} cannot be masked")
    last = walk.turns[0].infos["action_mask"].copy()
    for turn in _turns(walk, subject.steps):
        known = _demand_masks(turn, sizes, len(walk.lanes))
        last[known] = turn.infos["action_mask"][known]
        ask = getattr(walk.env.unwrapped, "action_masks", None)
        if callable(ask):
            demand_same("action_masks()", last != 0, np.asarray(ask(), np.bool_), step=turn.number)
    seeds = range(subject.seed, subject.seed + 8)
    there = [walk.run(3).reset(seed=seed).infos["action_mask"] for seed in seeds]
    back = [walk.run(3).reset(seed=seed).infos["action_mask"] for seed in reversed(seeds)]
    for first, again in zip(there, reversed(back), strict=True):  # a late mask would be that of another seed
        demand_same("action_mask of a second reset with the same seed", first, again, step=walk.number)


def _demand_masks(turn: Turn, sizes: list[int], lanes: int) -> Bools:
    """Which lanes have a mask: all that the turn is about."""
    if "action_mask" not in turn.infos:
        fail("infos", "'action_mask'", sorted(turn.infos), step=turn.number)
    mask = turn.infos["action_mask"]
    form = f"int8 {(lanes, sum(sizes))}"
    if f"{mask.dtype} {mask.shape}" != form:
        fail("action_mask", form, f"{mask.dtype} {mask.shape}", step=turn.number)
    known: Bools = turn.infos.get("_action_mask", np.ones(lanes, np.bool_))
    concerned = np.ones(lanes, np.bool_) if turn.started is None else turn.started
    for lane in np.flatnonzero(concerned & ~known).tolist():
        fail("infos", "'action_mask' for this lane", "none", lane, turn.number)
    for lane in np.flatnonzero(known).tolist():
        if not np.isin(mask[lane], (0, 1)).all():
            fail("action_mask", "0 and 1", mask[lane], lane, turn.number)
        for part in np.split(mask[lane], np.cumsum(sizes)[:-1]):
            if not part.any():
                fail("action_mask", "a legal action", "none", lane, turn.number)
    return known


def close_twice(subject: Subject) -> None:
    """`close` may be called again, as wrappers and `finally` clauses do."""
    walk = subject.walk()
    walk.step()
    walk.env.close()
    walk.env.close()


def _turns(walk: Walk, steps: int) -> Iterator[Turn]:
    """The reset, and what follows."""
    yield walk.turns[0]
    yield from walk.go(steps)
