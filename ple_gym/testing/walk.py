"""Play an environment, and record what each of its lanes saw."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from ple_gym.errors import PleError

Bools = npt.NDArray[np.bool_]

_SHORT = reprlib.Repr()
_SHORT.maxother = 80


class NotApplicable(PleError):
    """A check has nothing to say about this environment."""


class Unequal(PleError):
    """Something is not as a check expects it."""


def fail(what: str, expected: object, found: object, lane: object = None, step: object = None) -> NoReturn:
    """Raise `Unequal` with one line."""
    places = [f"{name} {place}" for name, place in (("lane", lane), ("step", step)) if place is not None]
    where = f" ({', '.join(places)})" if places else ""
    raise Unequal(f"{what}: expected {brief(expected)}, found {brief(found)}{where}")


def brief(value: object) -> str:
    """A value in less than a line."""
    text = " ".join((value if isinstance(value, str) else _SHORT.repr(value)).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


# --------------------------------------------------------------------------------------------------------- comparison


class Difference(NamedTuple):
    """The first thing in which two values differ."""

    path: str
    expected: object
    found: object


def difference(expected: Any, found: Any, path: str = "") -> Difference | None:
    """The first difference of two observations or infos, bit for bit and dtypes included; None: they are the same."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        if expected.keys() != found.keys():
            return Difference(f"{path} keys".strip(), sorted(map(str, expected)), sorted(map(str, found)))
        pairs = ((expected[key], found[key], f"{path}[{key!r}]") for key in expected)
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            return Difference(f"{path} length".strip(), len(expected), len(found))
        pairs = ((one, two, f"{path}[{i}]") for i, (one, two) in enumerate(zip(expected, found, strict=True)))
    elif any(isinstance(one, Mapping | list | tuple) for one in (expected, found)):
        return Difference(path, expected, found)
    else:
        return _array_difference(np.asarray(expected), np.asarray(found), path)
    return next((one for one in (difference(*pair) for pair in pairs) if one), None)


def _array_difference(expected: npt.NDArray[Any], found: npt.NDArray[Any], path: str) -> Difference | None:
    if expected.dtype != found.dtype:
        return Difference(f"{path} dtype".strip(), str(expected.dtype), str(found.dtype))
    if expected.shape != found.shape:
        return Difference(f"{path} shape".strip(), expected.shape, found.shape)
    if expected.dtype == object:
        if not expected.ndim:
            return None if expected[()] == found[()] else Difference(path, expected[()], found[()])
        return difference(list(expected), list(found), path)
    if expected.tobytes() == found.tobytes():
        return None
    if expected.ndim:
        where = next(i for i in np.ndindex(expected.shape) if expected[i].tobytes() != found[i].tobytes())
        return Difference(f"{path}[{', '.join(map(str, where))}]", expected[where], found[where])
    return Difference(path, expected[()], found[()])


def demand_same(what: str, expected: Any, found: Any, lane: object = None, step: object = None) -> None:
    """Raise `Unequal` unless two values are the same."""
    unlike = difference(expected, found)
    if unlike:
        path = unlike.path if unlike.path.startswith("[") else f" {unlike.path}".rstrip()
        fail(f"{what}{path}", unlike.expected, unlike.found, lane, step)


# -------------------------------------------------------------------------------------------------------------- walks


class Moment(NamedTuple):
    """What one lane saw of a `reset` (then without a reward) or a `step`; `number`: steps since the first reset."""

    number: int
    observation: Any
    info: dict[str, Any]
    reward: float | None = None
    terminated: bool | None = None
    truncated: bool | None = None


class Turn(NamedTuple):
    """What a `reset` (of the lanes in `started`) or a `step` (`started` is None) returned, copied."""

    number: int
    started: Bools | None
    observation: Any
    infos: dict[str, Any]
    rewards: Any = None
    terminations: Any = None
    truncations: Any = None


def info_of(infos: Mapping[str, Any], lane: int) -> dict[str, Any]:
    """What `infos` says of a lane: values whose mask is set, or that have no mask; nested dicts likewise."""
    info = {}
    for key, value in infos.items():
        if not is_mask(key, infos) and (f"_{key}" not in infos or infos[f"_{key}"][lane]):
            info[key] = info_of(value, lane) if isinstance(value, Mapping) else value[lane]
    return info


def is_mask(key: str, infos: Mapping[str, Any]) -> bool:
    """Whether a key of `infos` marks the lanes of another key."""
    return key.startswith("_") and key[1:] in infos


class Walk:
    """Random legal actions in one environment, and what it returned.

    Each lane has its own source of actions, so that what it plays depends on its seed and its masks alone. Where
    nothing resets lanes that have ended, `go` does.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], seed: int) -> None:
        self.env = env
        self.lanes = range(env.num_envs)
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.players = [player(env.single_action_space, seed + lane) for lane in self.lanes]
        self.masks: list[Any] = [None] * env.num_envs
        self.turns: list[Turn] = []
        self.played: list[list[Any]] = []  # the random actions of each step
        self.over = np.zeros(env.num_envs, np.bool_)
        self.raw: Any = None  # what the environment itself returned last
        self.number = 0

    def reset(self, seed: Any = None, mask: Bools | None = None) -> Turn:
        """Reset all lanes, or those of a mask."""
        self.raw = self.env.reset(seed=seed, options=None if mask is None else {"reset_mask": mask.copy()})
        started = np.ones(len(self.lanes), np.bool_) if mask is None else mask.copy()
        self.over &= ~started
        return self._keep(Turn(self.number, started, *deepcopy(self.raw)))

    def step(self, actions: Any = None) -> Turn:
        """Take a step with actions of the batched space; None: with random ones."""
        drawn = self.draw() if actions is None else []
        self.raw = self.env.step(self.batch(drawn) if actions is None else actions)
        self.played.append(drawn)
        self.number += 1
        observation, rewards, terminations, truncations, infos = deepcopy(self.raw)
        self.over = np.asarray(terminations, np.bool_) | np.asarray(truncations, np.bool_)
        return self._keep(Turn(self.number, None, observation, infos, rewards, terminations, truncations))

    def go(self, steps: int) -> Iterator[Turn]:
        """Take some steps; yields every turn, resets included."""
        for _ in range(steps):
            yield self.step()
            if self.mode is AutoresetMode.DISABLED and self.over.any():
                yield self.reset(mask=self.over)

    def run(self, steps: int) -> Walk:
        """Take some steps."""
        for _ in self.go(steps):
            pass
        return self

    def draw(self) -> list[Any]:
        """One action for each lane."""
        return [_sample(player, mask) for player, mask in zip(self.players, self.masks, strict=True)]

    def batch(self, actions: list[Any]) -> Any:
        """Actions as `step` takes them."""
        space = self.env.single_action_space
        empty: Any = create_empty_array(space, len(self.lanes))
        return concatenate(space, actions, empty)

    def split(self, observation: Any) -> list[Any]:
        """The observation of each lane."""
        return list(iterate(self.env.observation_space, observation))

    def moments(self, turn: Turn) -> list[Moment]:
        """What each lane saw of a turn."""
        moments = []
        for lane, observation in enumerate(self.split(turn.observation)):
            moment = Moment(turn.number, observation, info_of(turn.infos, lane))
            if turn.started is None:
                result = float(turn.rewards[lane]), bool(turn.terminations[lane]), bool(turn.truncations[lane])
                moment = Moment(*moment[:3], *result)
            moments.append(moment)
        return moments

    def stories(self, since: int = 0) -> list[list[Moment]]:
        """What each lane saw from a turn on: the steps, and the resets that were its own."""
        stories: list[list[Moment]] = [[] for _ in self.lanes]
        for turn in self.turns[since:]:
            for lane, moment in enumerate(self.moments(turn)):
                if turn.started is None or turn.started[lane]:
                    stories[lane].append(moment)
        return stories

    def _keep(self, turn: Turn) -> Turn:
        """Remember a turn, and the masks of the actions that come next."""
        self.turns.append(turn)
        infos = turn.infos if isinstance(turn.infos, dict) else {}
        masks: Any = infos.get("action_mask")
        known = infos.get("_action_mask")
        for lane in self.lanes if np.ndim(masks) == 2 and len(masks) == len(self.lanes) else ():
            if known is None or known[lane]:
                self.masks[lane] = masks[lane]
        return turn


def player(space: gym.Space[Any], seed: int) -> gym.Space[Any]:
    """A source of actions."""
    space = deepcopy(space)
    space.seed(seed)
    return space


def other_players(walk: Walk) -> list[gym.Space[Any]]:
    """Sources of other actions than a walk's own; the same ones at each call."""
    return [player(walk.env.single_action_space, 10**6 + lane) for lane in walk.lanes]


def mask_sizes(space: gym.Space[Any]) -> list[int] | None:
    """How many columns of a mask each part of an action has; None: such actions cannot be masked."""
    if isinstance(space, Discrete):
        return [int(space.n)]
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1:
        return [int(n) for n in space.nvec]
    return None


def _sample(space: gym.Space[Any], mask: Any) -> Any:
    """A random action, legal if the mask can be understood (`checks.masks` sees whether it can)."""
    sizes = mask_sizes(space)
    if mask is None or sizes is None or np.shape(mask) != (sum(sizes),):
        return space.sample()
    parts = np.split((np.asarray(mask) != 0).astype(np.int8), np.cumsum(sizes)[:-1])
    return space.sample(mask=parts[0] if isinstance(space, Discrete) else tuple(parts))


def demand_same_story(what: str, expected: Sequence[Moment], found: Sequence[Moment], lane: int) -> None:
    """Raise `Unequal` unless a lane saw the same twice; the numbers of its steps may differ."""
    for one, two in zip(expected, found, strict=False):
        for name in Moment._fields[1:]:
            demand_same(f"{what}, {name}", getattr(one, name), getattr(two, name), lane, two.number)
    if len(expected) != len(found):
        fail(f"{what}, resets and steps", len(expected), len(found), lane)


def demand_same_stories(what: str, expected: Walk, found: Walk) -> None:
    """Raise `Unequal` unless each lane saw the same twice."""
    for lane, (one, two) in enumerate(zip(expected.stories(), found.stories(), strict=True)):
        demand_same_story(what, one, two, lane)


# ------------------------------------------------------------------------------------------------------------ subject


@dataclass
class Subject:
    """What is checked, and the environments that were made so far; they are closed at the end."""

    make: Callable[[], VectorEnv[Any, Any, Any]]
    single: Callable[[], gym.Env[Any, Any]] | None
    steps: int
    seed: int
    open: list[Any] = field(default_factory=list)

    def env(self) -> VectorEnv[Any, Any, Any]:
        """A fresh environment."""
        self.open.append(self.make())
        env: VectorEnv[Any, Any, Any] = self.open[-1]
        return env

    def single_env(self) -> gym.Env[Any, Any]:
        """A fresh single environment."""
        if self.single is None:
            raise NotApplicable("no single environment was given")
        self.open.append(self.single())
        env: gym.Env[Any, Any] = self.open[-1]
        return env

    def walk(self, seed: int | None = None) -> Walk:
        """A fresh environment that has just been reset."""
        seed = self.seed if seed is None else seed
        walk = Walk(self.env(), seed)
        walk.reset(seed=seed)
        return walk

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *exception: object) -> None:
        for env in self.open:
            with suppress(Exception):  # `checks.close_twice` is for these
                env.close()
