"""What `Env` and `VectorEnv` have in common: their options, spaces and the form of observations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ple_gym.envs.options import (
    AgentOptions,
    Illegal,
    Information,
    InfosForm,
    ObservationForm,
    ObservationType,
    Reward,
    Start,
)
from ple_gym.errors import ArgumentError
from ple_gym.fleet import FleetLanes
from ple_gym.lanes import INFORMATION, REWARDS, STARTS, Lanes
from ple_gym.messages import show
from ple_gym.scenario import builtin as scenarios
from ple_gym.scenario.fleet import MAX_VCPUS, is_fleet, world
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import unknown
from ple_gym.sim.constants import WINDOWS
from ple_gym.traces.events import Ints, unrolled
from ple_gym.view import codes
from ple_gym.view.features import INTERRUPTS, seen_in, table_of_all
from ple_gym.view.rows import Feature

OBSERVATIONS = ("flat", "tokens")
INFOS = ("sparse", "uniform")
ILLEGAL = ("defer", "raise")
LEVELS = tuple(name for name in INFORMATION if name != "none")
TRACE_ROWS = 1 << 14  # events kept for pictures: some ten milliseconds of a storm

Observation = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]  # of the type that was asked for


@dataclass(frozen=True)
class Interface:
    """How a scenario is offered to an agent; the options are those of `PleEnv`.

    fleet: the name of a fleet, of which `scenario` is the first world; observations and masks have room for all.

    Raises:
        ArgumentError: an unknown name.
    """

    scenario: Scenario
    information: Information = "hypervisor"
    observation: ObservationForm = "flat"
    reward: Reward = "waste"
    start: Start = "first"
    illegal: Illegal = "defer"
    infos: InfosForm = "sparse"
    observation_dtype: ObservationType = "float32"
    fleet: str = ""

    def __post_init__(self) -> None:
        one_of("information level", self.information, LEVELS)
        one_of("observation", self.observation, OBSERVATIONS)
        one_of("reward", self.reward, REWARDS)
        if self.reward == "response" and not self.scenario.has_goals:
            name = self.fleet or self.scenario.name
            raise ArgumentError(f"{name}: no VM has a response_goal_us, which reward 'response' needs")
        one_of("start", self.start, STARTS)
        one_of("treatment of illegal actions", self.illegal, ILLEGAL)
        one_of("form of infos", self.infos, INFOS)
        one_of("observation_dtype", self.observation_dtype, codes.DTYPES)

    @property
    def vcpus(self) -> int:
        """VCPUs of all VMs, or room for them; the action after the last of them defers."""
        return MAX_VCPUS if self.fleet else self.scenario.vcpus

    @property
    def features(self) -> int:
        """Features of a vCPU."""
        return len(self._tables()[0])

    def lanes(self, count: int, policy: str | None = None) -> Lanes:
        """Simulated machines that are observed and rewarded in this way, and who may decide in them."""
        if self.fleet:
            if policy is not None:
                raise ArgumentError(f"{self.fleet}: no policy decides in its lanes but the caller")
            return FleetLanes(self.fleet, count, self.reward, self.information, self.start, self.observation_dtype)
        return Lanes(self.scenario, count, self.reward, self.information, self.start, policy, self.observation_dtype)

    @property
    def parts(self) -> tuple[int, ...]:
        """The shape of an action: (2,) where it chooses a window, else ()."""
        return (2,) if self.scenario.chooses_windows else ()

    def action_space(self) -> spaces.Discrete[Any] | spaces.MultiDiscrete[Any]:
        """One action per vCPU, and to defer; with a window where that is chosen too."""
        return spaces.MultiDiscrete([self.vcpus + 1, WINDOWS]) if self.parts else spaces.Discrete(self.vcpus + 1)

    def joined(self, actions: npt.ArrayLike, *shape: int) -> npt.NDArray[np.int64]:
        """Actions of two parts as lanes take them, -1 outside the space; ValueError or TypeError: not of this shape."""
        pairs = np.asarray(actions)
        if pairs.shape != shape or pairs.dtype.kind not in "iu":
            raise ValueError
        target, window = pairs.astype(np.int64).T
        inside = (target >= 0) & (target <= self.vcpus) & (window >= 0) & (window < WINDOWS)
        return np.where(inside, target + (self.vcpus + 1) * window, -1)

    def parted(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """What `joined` was given; of -1 two of these."""
        return np.where(numbers < 0, -1, np.divmod(numbers, self.vcpus + 1)[::-1]).T

    def observation_space(self) -> spaces.Space[Any]:
        """A Box, or a Dict of two; each number lies in the range of its feature."""
        vcpu, host = (self._bounds(features) for features in self._tables())
        if self.observation == "flat":
            low, high = (np.append(each.repeat(self.vcpus), one) for each, one in zip(vcpu, host, strict=True))
            return _box(low, high)
        rows = [np.tile(each, (self.vcpus, 1)) for each in vcpu]
        return spaces.Dict({"vcpus": _box(*rows), "host": _box(*host)})

    def arrange(self, flat: npt.NDArray[Any]) -> Observation:
        """The observation that a flat one [..., length] is to be given as; of `tokens` a copy."""
        if self.observation == "flat":
            return flat
        begin = self.vcpus * self.features
        columns, host = flat[..., :begin], flat[..., begin:]
        rows = columns.reshape(*flat.shape[:-1], self.features, self.vcpus).swapaxes(-1, -2)
        return {"vcpus": np.ascontiguousarray(rows), "host": host.copy()}

    def decode(self, observation: Observation) -> Observation:
        """The float32 values of an observation of any type, single or batched (`view/codes.py`), in the same form."""
        vcpu, host = self._tables()
        if isinstance(observation, dict):
            return {
                "vcpus": codes.decode(observation["vcpus"], vcpu),
                "host": codes.decode(observation["host"], host),
            }
        each = tuple(feature for feature in vcpu for _ in range(self.vcpus))
        return codes.decode(observation, (*each, *host))

    def _tables(self) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
        """Features of a vCPU and of the host at this information level."""
        table = table_of_all().with_more(INTERRUPTS) if self.fleet else seen_in(self.scenario)
        return table.of_vcpu(INFORMATION[self.information]), table.host

    def _bounds(self, features: tuple[Feature, ...]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return codes.bounds(features, codes.DTYPES[self.observation_dtype])


def make_interface(
    scenario: str | Scenario, overrides: Mapping[str, object] | None, **options: Unpack[AgentOptions]
) -> Interface:
    """An interface to a scenario, or to the name, id or file of one, with some parameters changed; or to a fleet.

    Raises:
        ScenarioError: an unknown scenario, or a parameter out of its range.
        ArgumentError: an unknown option, or parameters of a fleet.
    """
    if split := is_fleet(scenario):
        if overrides:
            raise ArgumentError(f"{split}: takes no overrides: each of its worlds has parameters of its own")
        return Interface(world(split, 0), fleet=split, **options)
    if isinstance(scenario, str):
        scenario = scenarios.load(scenario)
    return Interface(scenario.with_overrides(overrides or {}), **options)


def one_of(what: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ArgumentError unless the value is one of some words."""
    if value not in list(allowed):
        raise unknown(what, value, allowed, True, ArgumentError)


def whole_number(name: str, value: object, least: int) -> int:
    """The value as an int.

    Raises:
        ArgumentError: it is no whole number, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentError(f"{name} = {show(value)}: must be a whole number, at least {least}")
    if int(value) < least:
        raise ArgumentError(f"{name} = {show(value)}: must be at least {least}")
    return int(value)


def checked_options(options: dict[str, Any] | None, *known: str) -> dict[str, Any]:
    """The options of a `reset`; where the worlds start is checked.

    Raises:
        ArgumentError: an unknown option, an unknown start, or a start for a state, which is somewhere already.
    """
    options = options or {}
    for name in options:
        if name not in known:
            raise unknown("reset option", name, known, True, ArgumentError)
    if "start" in options:
        one_of("start", options["start"], STARTS)
        if "state" in options:
            raise ArgumentError("reset options: a state is somewhere in its run already, so it takes no start")
    return options


def picture_of(lanes: Lanes, lane: int, ring: Ints) -> tuple[Ints, int, int, int, int]:
    """What `render.timeline_*` is to draw of a lane's newest 5 ms: trace, pCPUs, vCPUs, start and stop (cycles)."""
    lanes, lane = lanes.alone(lane)
    trace = unrolled(ring, int(lanes.world["traced"][lane]))
    stop = int(lanes.world["now"][lane])
    start = max(int(trace[0, 0]) if len(trace) else 0, stop - lanes.scenario.host.tsc_hz // 200)
    return lanes.completed(lane, trace), lanes.pcpus, lanes.vcpus, start, stop


def _box(low: npt.NDArray[Any], high: npt.NDArray[Any]) -> spaces.Box:
    return spaces.Box(low, high, dtype=low.dtype.type)
