"""Lanes that each have a scenario of their own: worlds of a fleet, which change from episode to episode.

Whom a call of `drive` steps is said by its PLACEs, and these have their own description. So all lanes under one
scheduler are stepped by one call, which passes over the others; arrays that go in and out are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.drive import NEXT, OBSERVE, OUTSIDE, RESET, STEP, STEP_OR_NEXT
from ple_gym.errors import ArgumentError
from ple_gym.lanes import NO_TRACE, STARTS, Between, Lanes, seed_in
from ple_gym.policies import Compiled
from ple_gym.scenario.fleet import (
    AXES,
    EXITS,
    MAX_VCPUS,
    SPARSEST,
    SPLITS,
    TEST_SEED,
    WORLDS,
    candidate,
    number_of,
    world,
)
from ple_gym.scenario.model import Scenario
from ple_gym.sim import state
from ple_gym.sim.memory import handle

#: Room for the largest row of any world, and no power of two, so that rows do not share the lines of a cache.
ROW_BYTES = 64 * 513
_64_BITS = 2**64 - 1


@lru_cache(maxsize=len(SPLITS) * WORLDS)
def _machine(split: str, number: int, reward: str, information: str, dtype: str) -> Lanes:
    """A world with its description, for all lanes of it in this process; its own memory is not used.

    Whoever has its address must hold it: this keeps it no longer than others leave it room.
    """
    machine = Lanes(world(split, number), 1, reward, information, "first", None, dtype, room=MAX_VCPUS)
    if machine.rows.shape[1] > ROW_BYTES:
        raise RuntimeError(f"{split}-{number} needs {machine.rows.shape[1]} bytes for each lane, not {ROW_BYTES}")
    return machine


class FleetLanes(Lanes):
    """`count` lanes, each in the world of a fleet that its seed names; nobody but the caller decides in them.

    Actions are those of `MAX_VCPUS` vCPUs: `MAX_VCPUS` defers, and who is not in a lane's world cannot be chosen there.
    """

    def __init__(
        self, split: str, count: int, reward: str, information: str, start: str, observation_dtype: str
    ) -> None:
        self._options = reward, information, observation_dtype
        self.split, self.count, self.vcpus, self.policy = split, count, MAX_VCPUS, None
        first = _machine(split, 0, *self._options)
        self.scenario, self.pcpus, self.level = first.scenario, first.pcpus, first.level
        self.rows = np.zeros((count, ROW_BYTES), np.uint8)
        self.histogram = np.zeros((count, *first.histogram.shape[1:]), np.int32)
        self.world = self.rows[:, : state.WORLD.itemsize].view(state.WORLD)[:, 0]
        self.world["start"] = STARTS[start]
        self._make_arrays(first.room, *first.form)
        self._own_vcpus = np.zeros(count, np.int64)
        self._numbers = np.full(count, -1)
        self._machines: list[Lanes] = [first] * count  # of each lane; its place has an address there
        some = (_machine(split, number, *self._options) for number in range(WORLDS))
        self._groups: dict[str, Lanes] = {}
        while len(self._groups) < len(AXES):  # all of them now: threads go over them
            self._add_group(next(some))
        for lane in range(count):
            self._place(lane, 0)

    # -------------------------------------------------------------------------------------------------------- places

    def _place(self, lane: int, number: int) -> None:
        """Put a lane into a world; its bytes stay what they are."""
        if self._numbers[lane] == number:
            return
        if self._numbers[lane] >= 0:
            self._group(self._machines[lane]).leave(lane)
        machine = self._machines[lane] = _machine(self.split, number, *self._options)
        self._numbers[lane] = number
        self._own_vcpus[lane] = machine.vcpus
        self._group(machine).take(lane, machine.description, self.rows, self.histogram)

    def _add_group(self, machine: Lanes) -> None:
        """Have lanes for all that are under the scheduler of a world, which are stepped together."""
        name = machine.scenario.host.scheduler
        if name not in self._groups:
            self._groups[name] = machine.sharing(self)

    def _group(self, machine: Lanes) -> Lanes:
        return self._groups[machine.scenario.host.scheduler]

    def alone(self, lane: int, runs: bool = False) -> tuple[Lanes, int]:
        """Lanes that have one scenario, and which of them this lane is: its bytes are the same."""
        machine = self._machines[lane]
        row = self.rows[lane : lane + 1, : machine.rows.shape[1]]
        return machine.over(row, self.histogram[lane : lane + 1], runs), 0

    def scenario_of(self, lane: int) -> Scenario:
        """The world that a lane is in; before its first reset, the first of the fleet."""
        return self._machines[lane].scenario

    # --------------------------------------------------------------------------------------------------------- calls

    def drive(
        self,
        begin: int,
        end: int,
        command: int,
        decides: bool = False,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> int:
        """Run RESET, NEXT, STEP, STEP_OR_NEXT or OBSERVE on lanes begin..end-1, as `Lanes.drive` does.

        Raises:
            ValueError: a policy is to decide.
        """
        if decides:
            raise ValueError("lanes of a fleet have no policy that could decide")
        if command in (RESET, NEXT):
            return sum(self._start(lane, command == NEXT, trace, between) for lane in range(begin, end))
        over: npt.NDArray[np.intp] | list[int] = []
        if command == STEP_OR_NEXT:
            over = begin + np.flatnonzero(self.result[state.RESULT_STATUS, begin:end] != state.DECIDE)
            command = STEP
        told = 0
        for group in self._groups.values():
            remarkable = group.drive(begin, end, command, False, trace, between)
            if remarkable < 0:
                return OUTSIDE
            told += remarkable
        for lane in over:  # a step has done nothing there but be counted
            told += self._start(int(lane), True, trace, between) - 1
        return told

    def _start(self, lane: int, follows: bool, trace: npt.NDArray[np.int64], between: Between | None) -> int:
        """Begin the episode that a lane's seed names, or the one that follows it."""
        seed = int(self.world["seed"][lane])
        if follows:
            seed = _next_seed(seed)
            self.world["seed"][lane], self.world["index"][lane] = seed, 0
        self._place(lane, number_of(self.split, seed))
        return self._group(self._machines[lane]).drive(lane, lane + 1, RESET, False, trace, between)

    def bind(
        self,
        command: int,
        decides: bool = False,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        observes: bool = True,
        observation: npt.NDArray[Any] | None = None,
    ) -> Callable[[], int]:
        """The call `drive(0, count, command, trace=trace)`; `observation`: where to observe; None: as ever."""
        here = handle(self.observation)
        there = here if observation is None else handle(observation)

        def call() -> int:
            self.observe_at(there)
            try:
                return self.drive(0, self.count, command, decides, trace)
            finally:
                self.observe_at(here)

        return call

    def observe_at(self, address: int) -> None:
        """As `Lanes.observe_at`."""
        for group in self._groups.values():
            group.observe_at(address)

    def ask(self, policy: Compiled | str) -> npt.NDArray[np.int64]:
        """What a policy would answer in each lane, as `Lanes.ask` says."""
        answers = np.full(self.count, -1)
        for lane in np.flatnonzero(self.world["status"] == state.DECIDE):
            (answer,) = self.alone(int(lane), runs=True)[0].ask(policy)
            answers[lane] = MAX_VCPUS if answer == self._own_vcpus[lane] else answer
        return answers

    # -------------------------------------------------------------------------------------------------------- states

    def save(self, lane: int) -> bytes:
        """The exact state of a lane."""
        lanes, own = self.alone(lane)
        return lanes.save(own)

    def restore(self, lane: int, saved: bytes) -> None:
        """Put a saved state into a lane, and the lane into its world.

        Raises:
            ValueError: as `Lanes.restore`; nothing has changed.
        """
        before = int(self._numbers[lane])
        if (seed := seed_in(saved)) is not None:
            self._place(lane, number_of(self.split, seed))
        try:
            lanes, own = self.alone(lane, runs=True)
            lanes.restore(own, saved)
        except ValueError:
            self._place(lane, before)
            raise
        self.drive(lane, lane + 1, OBSERVE)

    def cut_off(self, lanes: Any) -> None:
        """End the runs of these lanes where they are."""
        super().cut_off(lanes)
        self.result[state.RESULT_STATUS, lanes] = state.CUT_OFF

    def copy(self, source: int, targets: npt.NDArray[np.bool_]) -> None:
        """Put the state of one lane into others: bool [count]."""
        super().copy(source, targets)
        for lane in np.flatnonzero(targets):
            self._place(int(lane), int(self._numbers[source]))

    def keep(self, lanes: npt.NDArray[np.intp]) -> Any:
        """What `put_back` needs to undo whatever happens to these lanes."""
        return super().keep(lanes), self._numbers[lanes]

    def put_back(self, lanes: npt.NDArray[np.intp], kept: Any) -> None:
        """Put lanes back into the states that they were in."""
        super().put_back(lanes, kept[0])
        for lane, number in zip(lanes, kept[1], strict=True):
            self._place(int(lane), int(number))


def _mixed(z: int) -> int:
    """`sim.rng.mix`."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _64_BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _64_BITS
    return z ^ (z >> 31)


def _next_seed(seed: int) -> int:
    """`sim.rng.next_seed`."""
    return _mixed((seed + 0x9E3779B97F4A7C15) & _64_BITS) >> 2 | 1 << 62


# ------------------------------------------------------------------------------------------------- which draws are kept


def is_kept(scenario: Scenario) -> bool:
    """Whether a draw is a world: under the host's own rule a run ends before its limit, with enough exits, not too many
    (`scenario.fleet.EXITS`) and not too far apart (`SPARSEST`).
    """
    lanes = Lanes(scenario, 1, policy="host")
    lanes.run(0, TEST_SEED)
    totals = lanes.totals(0)
    exits = totals["exits"]
    return bool(totals["finished"]) and exits in EXITS and totals["events"] <= SPARSEST * exits


def first_kept(split: str, number: int) -> int:
    """Which draw of its stream a world is.

    Raises:
        ArgumentError: none of the first 36.
    """
    for place in range(36):
        drawn = candidate(split, number, place)
        if drawn and is_kept(drawn):
            return place
    raise ArgumentError(f"{split}: world {number}: none of 36 draws is kept")


def find_draws(split: str) -> str:
    """What `fleet_draws.PASSED` must say of a split."""
    return "".join(np.base_repr(first_kept(split, number), 36) for number in range(WORLDS))
