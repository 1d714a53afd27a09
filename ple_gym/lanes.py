"""Lanes: simulated machines that share a scenario, as Python sees them.

The one place that knows both the bytes of `sim/state.py` and the objects above: `Env`, the vector environment and
`simulate` hold a `Lanes` and call `drive` through it.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ple_gym.drive import (
    ABOUT_POLICY,
    ASK,
    CALL,
    CHECK,
    CONTINUE,
    EVENTS_PER_CALL,
    FAULT,
    GO_ON,
    OBSERVE,
    OUTSIDE,
    RESET,
    SIGHT_AT,
    STEP,
    STEP_OR_NEXT,
    UNFINISHED,
    simulator,
)
from ple_gym.errors import PolicyError
from ple_gym.learned.file import Network
from ple_gym.policies import Compiled, load_compiled
from ple_gym.rules import Rule
from ple_gym.scenario.model import Scenario
from ple_gym.sim import state
from ple_gym.sim.constants import WINDOWS
from ple_gym.sim.description import Memory, Section, describe, lane_sections
from ple_gym.sim.memory import handle
from ple_gym.sim.seam import host_of
from ple_gym.sim.soundness import FLAWS
from ple_gym.traces.events import IDLE, NOISE, Ints, completed
from ple_gym.view import record
from ple_gym.view.codes import DTYPES
from ple_gym.view.features import INTERRUPTS, table_of, table_of_all
from ple_gym.view.record import view_of
from ple_gym.view.unit import view

STARTS = {"first": state.FIRST, "storm": state.STORM}
REWARDS = {"waste": record.WASTE, "time": record.TIME, "fair": record.FAIR, "response": record.RESPONSE}
INFORMATION = {
    "none": record.NOTHING,
    "hypervisor": record.HYPERVISOR,
    "introspection": record.INTROSPECTION,
    "oracle": record.ORACLE,
}
_MAGIC = b"ple_gym state 1\n"
_CHECKSUM_BYTES = 16

Bytes: TypeAlias = npt.NDArray[np.uint8]

#: What `Lanes.drive` calls between two parts of a long run, with the number of a lane.
Between: TypeAlias = Callable[[int], None]

#: Places of a CALL's words. A call is kept as an array of words: to copy a structured array takes numpy 10 us.
_WORD = {name: place[1] // 8 for name, place in (CALL.fields or {}).items()}
_BEGIN, _END, _COMMAND, _OBSERVATIONS = (_WORD[name] for name in ("begin", "end", "command", "observations"))
_POLICY = slice(_WORD[ABOUT_POLICY[0]], _WORD[ABOUT_POLICY[-1]] + 1)

NO_TRACE = np.zeros((0, state.TRACE_WIDTH), np.int64)
EVENTS_PER_SCORE = 16  # what scoring one vCPU by a learned policy counts for
MOST_ASKED = 8  # policies whose lanes are kept for `Lanes.ask`, which asks some of them in turn at each decision, say


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of recorded values, from a histogram that is exact below 32 and within 3.2 % above."""

    cumulative: npt.NDArray[np.int64]  # [1024]: values in each bin and those below it
    maximum: int

    def at(self, percent: int) -> int:
        """The `percent`-quantile: the rounded value of the ceil(percent * n / 100)-th smallest; 0 if there is none."""
        total = int(self.cumulative[-1])
        if total == 0:
            return 0
        rank = max(1, -(-percent * total // 100))
        return bin_value(int(self.cumulative.searchsorted(rank)))


def bin_value(index: int) -> int:
    """Smallest value that falls into bin `index` of a histogram (sim/metrics.py: rounded_bin)."""
    if index < 64:
        return index
    exponent = index // 32 - 1
    return (index - 32 * exponent) << exponent


#: The smallest value of each bin.
BIN_VALUES = np.array([bin_value(index) for index in range(state.HISTOGRAM_BINS)], np.int64)


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


def seed_in(saved: object) -> int | None:
    """The seed that a saved state names, of which nothing else is looked at; None if it is too short to name one."""
    at = len(_MAGIC) + _CHECKSUM_BYTES
    world = saved[at : at + state.WORLD.itemsize] if isinstance(saved, bytes) else b""
    return int(np.frombuffer(world, state.WORLD)["seed"][0]) if len(world) == state.WORLD.itemsize else None


def never_starts(lanes: Lanes, lane: int) -> str:
    """Says that a reset of a lane went through all replacement worlds without reaching its start."""
    lanes, lane = lanes.alone(lane)
    world = lanes.world[lane]
    what = "storm of exits" if world["start"] == state.STORM else "PLE exit: there is nothing to decide"
    return f"{lanes.scenario.name}: worlds 0..{world['index']} of seed {world['seed']} have no {what}"


def _parameters(description: Bytes) -> Any:
    """The integers at the start of a description, as one record."""
    return description[: state.PARAMETERS.itemsize].view(state.PARAMETERS)[0]


class RuleFault(PolicyError, RuntimeError):
    """A rule has raised something, or answered what is not legal. The message is one line, with the file and line."""


class Lanes:
    """`count` simulated machines of one scenario, and the policy that may decide in them.

    Args:
        scenario: the machine. If the policy is a setting of the host (`xen-4.8`), with that setting.
        count: number of lanes.
        reward: `waste`, `time`, `fair` or `response`.
        information: level of the observations; `none`: nothing is observed.
        start: `first` or `storm`: where `RESET` stops, unless the policy decides.
        policy: who decides where `drive` is called with `decides`; or its name.
        observation_dtype: `float32`, `float16` or `uint8`; a network reads float32 in any case.
        room: if not 0, masks and observations have room for so many vCPUs, and one form under every scheduler.

    Attributes:
        rows: uint8 [count, row_bytes], all that changes but the histograms, int32 [count, 4, 1024].
        description: uint8, all that does not.
        level: code of the observations' information level.
        form: length of an observation, and its dtype.
        places: PLACE [count], where description and memory of each lane are; a lane whose place is 0 is passed over.
        world, vm, pcpu, ...: the sections of the rows, as views (`sim/description.lane_sections`).
    """

    windows = 1  # choices of one, or WINDOWS

    def __init__(
        self,
        scenario: Scenario,
        count: int,
        reward: str = "waste",
        information: str = "none",
        start: str = "first",
        policy: Compiled | Network | str | None = None,
        observation_dtype: str = "float32",
        room: int = 0,
    ) -> None:
        self.policy = None if policy is None else load_compiled(policy)
        network = self.policy.network if self.policy else None
        self.scenario, self.count = self.policy.world(scenario) if self.policy else scenario, count
        self.pcpus, self.vcpus = scenario.host.pcpus, scenario.vcpus
        self.windows = WINDOWS if scenario.chooses_windows else 1
        self.level = level = INFORMATION[network.information if network else information]
        interrupts = network.interrupts if network else scenario.sees_interrupts
        self.room = room or self.vcpus
        table = table_of_all().with_more(INTERRUPTS) if room else table_of(scenario.host.scheduler, interrupts)
        length = table.length(level, self.room)
        dtype = DTYPES["float32" if network else observation_dtype]
        if network:
            network.check_fits(scenario)
            length += network.room(self.vcpus)
        memory = self.policy.words if self.policy else Memory()
        self._host = host_of(scenario.host.scheduler)
        view = view_of(scenario, level, interrupts, REWARDS[reward])
        self.description = describe(self.scenario, self._host, memory, view)
        self.layout = _parameters(self.description)
        self.sections = lane_sections(scenario, self._host, memory)
        self.form = length, dtype
        self._padded = room
        self._attach(
            np.zeros((count, int(self.layout["row_bytes"])), np.uint8),
            np.zeros((count, state.HISTOGRAMS, state.HISTOGRAM_BINS), np.int32),
        )
        self.world["start"] = STARTS[start]
        self._drive = simulator(self._host).entry
        self._given_scenario = scenario

    def _attach(self, rows: Bytes, histogram: npt.NDArray[np.int32]) -> None:
        """Be the lanes whose memory this is, with arrays of their own for what goes in and out."""
        self._look_at(rows, histogram)
        self._make_arrays(self.room, *self.form)
        self._begin()
        self.take(np.arange(self.count), self.description, rows, histogram)

    def _make_arrays(self, room: int, length: int, dtype: npt.DTypeLike) -> None:
        """Make what goes in and out: masks for so many vCPUs, and observations of this form."""
        self.action = np.zeros(self.count, np.int64)
        self.result = np.zeros((state.RESULTS, self.count))
        self.mask = np.ones((self.count, room + 1 + self.windows * (self.windows > 1)), np.int8)
        self.mask[:, : room + 1] = 0
        self._observation = np.zeros((self.count, length), dtype)

    def _begin(self) -> None:
        """Make what a call is made of; no lane has a place yet."""
        self.places = np.zeros(self.count, state.PLACE)
        self._call = self._blank_call(self.level)
        self._steps: dict[tuple[int, int, int], tuple[Ints, int]] = {}  # calls that step lanes, and their addresses
        self._bound: list[Ints] = []  # calls that `bind` has made: addresses need them
        self._asked: dict[int, Lanes] = {}  # for `ask`: these lanes under other policies, by id

    def sharing(self, lanes: Lanes) -> Lanes:
        """Lanes under this scheduler for those of `lanes` that they `take`; what goes in and out is that of `lanes`."""
        other = copy.copy(self)
        other.count, other.action, other.result, other.mask = lanes.count, lanes.action, lanes.result, lanes.mask
        other._observation = lanes.observation
        other._begin()
        return other

    def take(self, lanes: int | Ints, description: Bytes, rows: Bytes, histogram: npt.NDArray[np.int32]) -> None:
        """Step these lanes: a description, and their rows of these arrays, which must all live as long."""
        self.places["description"][lanes] = handle(description)
        self.places["row"][lanes] = handle(rows) + rows.strides[0] * lanes
        self.places["histogram"][lanes] = handle(histogram) + histogram.strides[0] * lanes

    def leave(self, lane: int) -> None:
        """Step a lane no more."""
        self.places[lane] = 0, 0, 0

    def _look_at(self, rows: Bytes, histogram: npt.NDArray[np.int32]) -> None:
        self.rows, self.histogram, self.count = rows, histogram, len(rows)
        self.world = self.section("world")[:, 0]
        self.vm, self.pcpu, self.vcpu, self.guest = map(self.section, ("vm", "pcpu", "vcpu", "guest"))

    def over(self, rows: Bytes, histogram: npt.NDArray[np.int32], runs: bool = True) -> Lanes:
        """Lanes like these whose memory is elsewhere; not `runs`: only to be looked at, which is made faster."""
        other = copy.copy(self)
        if runs:
            other._attach(rows, histogram)
        else:
            other._look_at(rows, histogram)
        return other

    def alone(self, lane: int, runs: bool = False) -> tuple[Lanes, int]:
        """Lanes that have one scenario, and which of them this lane is; not `runs`: only to be looked at."""
        return self, lane

    def scenario_of(self, lane: int) -> Scenario:
        """The scenario that a lane is in."""
        return self.scenario

    def cut_off(self, lanes: Any) -> None:
        """End the runs of these lanes, however numpy may name them, where they are."""
        self.world["status"][lanes] = state.CUT_OFF

    def keep(self, lanes: npt.NDArray[np.intp]) -> Any:
        """What `put_back` needs to undo whatever happens to these lanes."""
        return self.rows[lanes], self.histogram[lanes]

    def put_back(self, lanes: npt.NDArray[np.intp], kept: Any) -> None:
        """Put lanes back into the states that they were in."""
        self.rows[lanes], self.histogram[lanes] = kept

    @cached_property
    def _given(self) -> Lanes:
        """A lane of the scenario as it was given, without the policy's settings of the host."""
        return Lanes(self._given_scenario, 1)

    def section(self, name: str) -> npt.NDArray[Any]:
        """A section of all rows: [count, ...], a view."""
        section: Section = self.sections[name]
        at = int(self.layout[f"{name}_at"])
        part = self.rows[:, at : at + section.dtype.itemsize * math.prod(section.shape)]
        return part.view(section.dtype).reshape(self.count, *section.shape)

    def _blank_call(self, level: int) -> Ints:
        """The words of a CALL that has everything but its command, its lanes, and who decides."""
        words = np.zeros(CALL.itemsize // 8, np.int64)
        call = words.view(CALL)
        arrays = {"places": self.places, "actions": self.action, "results": self.result, "masks": self.mask}
        arrays |= {"observations": self._observation, "trace_at": NO_TRACE}
        for name, array in arrays.items():
            call[name] = handle(array)
        call["lanes"], call["events_per_call"] = self.count, EVENTS_PER_CALL
        call["defer"], call["most"] = self.room, (self.room + 1) * self.windows - 1
        call["mask_bytes"], call["observation_bytes"] = self.mask.shape[1], self._observation[0].nbytes
        if level != record.NOTHING:
            call["observer"] = view(self._host, self._observation.dtype.name, self._padded).address
        return words

    def _run(self, call: Ints) -> int:
        """Run a call, which must live as long as that takes."""
        try:
            told: int = self._drive(handle(call))
        except Exception as error:  # whatever a rule raises
            if not isinstance(self.policy, Rule):
                raise
            raise RuleFault(self.policy.why(error, handle(call) + SIGHT_AT)) from None
        return told

    def _call_for(self, begin: int, end: int, command: int, decides: bool, trace: Ints) -> Ints:
        call = self._call.copy()
        call[_BEGIN], call[_END], call[_COMMAND] = begin, end, command
        if len(trace):
            call[_WORD["trace_at"]], call[_WORD["trace_rows"]] = handle(trace), len(trace)
        if decides:
            call[_POLICY] = self._policy_words
        return call

    def _step_call(self, begin: int, end: int, command: int) -> int:
        """The address of a call that steps lanes as the caller has decided; it is made once."""
        kept = self._steps.get((begin, end, command))
        if kept is None:
            call = self._call_for(begin, end, command, False, NO_TRACE)
            kept = self._steps[begin, end, command] = call, handle(call)
        return kept[1]

    def _decider(self) -> Compiled:
        if self.policy is None:
            raise ValueError("these lanes have no policy that could decide")
        return self.policy

    @cached_property
    def _policy_words(self) -> Ints:
        """What a CALL says of the policy, where it decides."""
        policy = self._decider()
        words = {
            "policy": policy.address,
            "parameters": handle(policy.block),
            "settles": policy.settled,
            "observes": policy.network is not None,
            "privileged": policy.privileged,
            "memory_per_vm": policy.words.per_vm,
            "events": EVENTS_PER_SCORE * self.vcpus if policy.network else 0,
        }
        return np.array([words[name] for name in ABOUT_POLICY], np.int64)

    def drive(
        self,
        begin: int,
        end: int,
        command: int,
        decides: bool = False,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> int:
        """Run a command of `drive.py` on lanes begin..end-1.

        Actions are read from `action`: int64 [count], target + (V + 1) * window. Written are `result`: float64
        [4, count]; `mask`: int8 [count, V + 1] (where actions choose windows 6 more, all of them 1); and `observation`:
        [count, length], which may be replaced by a fresh array before.
        `decides`: whether the policy of these lanes decides, to the end of each run; else the caller does. `trace`:
        int64 [n, 5], a ring that takes events (n = 0: none).

        The kernel returns now and then (`drive.EVENTS_PER_CALL`), so that Ctrl-C is noticed; it goes on at once.
        `between` is called there with the number of the lane that is being run, and may end everything by raising. The
        status of that lane is then ADVANCING: it must be reset.

        Returns:
            How many of these lanes are over or were given an illegal action. -1: an action of any lane is none, and
            nothing was done.

        Raises:
            RuleFault: the policy's answer was not legal, or it is a rule that has raised something.
        """
        if decides or len(trace) or command not in (STEP, STEP_OR_NEXT):
            told = self._run(self._call_for(begin, end, command, decides, trace))
        else:  # a learner repeats it; to make a call takes as long as to step two lanes
            told = self._drive(self._step_call(begin, end, command))
        return told if OUTSIDE <= told < UNFINISHED else self.go_on(told, end, command, decides, trace, between)

    def go_on(
        self,
        told: int,
        end: int,
        command: int,
        decides: bool = False,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> int:
        """Finish a `drive` of lanes up to `end` that told it was UNFINISHED; returns and raises what `drive` does."""
        remarkable = 0
        while told >= UNFINISHED:
            lane, before = divmod(told - UNFINISHED, 1 << 32)
            remarkable += before
            if between:
                between(lane)
            told = self._run(self._call_for(lane, lane + 1, CONTINUE, decides, trace))
            if OUTSIDE <= told < UNFINISHED and lane + 1 < end:
                remarkable += told
                told = self._run(self._call_for(lane + 1, end, command, decides, trace))
        if told < OUTSIDE:
            raise self._fault(FAULT - told)
        return remarkable + told

    def _fault(self, lane: int) -> RuleFault:
        policy, answer = self._decider(), int(self.action[lane])
        here = int(self.world["deciding"][lane])
        asker = int(self.pcpu["current"][lane, here])
        more = "; windows need decision.window = 'agent'" if answer > self.vcpus else ""
        if self.windows > 1:
            more = f", and {self.vcpus + 1} times a window, 0..{self.windows - 1}"
        return RuleFault(
            f"{policy.name} ({policy.where}): {answer} is not legal: an answer must be a queued vCPU that the actuator "
            f"reaches, the asker (here {asker}), or to defer ({self.vcpus}){more}"
        )

    def ask(self, policy: Compiled | str) -> npt.NDArray[np.int64]:
        """What a policy would answer to the decision that is due in each lane: int64 [count], as `drive` takes it;
        -1 where none is due.

        Nothing changes. The policy of these lanes remembers what it does, any other what it does at the start of a run.

        Raises:
            PolicyError: there is no such policy.
            RuleFault: an answer is not legal, or a rule has raised something.
        """
        asked = load_compiled(policy)
        if id(asked) not in self._asked:
            if len(self._asked) == MOST_ASKED:
                self._asked.pop(next(iter(self._asked)))
            self._asked[id(asked)] = Lanes(self.scenario, self.count, policy=asked)
        lanes = self._asked[id(asked)]
        for name in self.sections:
            if name != "memory":
                lanes.section(name)[:] = self.section(name)
        lanes.section("memory")[:] = self.section("memory") if asked is self.policy else 0
        lanes.drive(0, self.count, ASK, decides=True)
        return lanes.action.copy()

    def bind(
        self,
        command: int,
        decides: bool = False,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        observes: bool = True,
        observation: npt.NDArray[Any] | None = None,
    ) -> Callable[[], int]:
        """The call `drive(0, count, command, decides, trace)`, faster: for lanes whose arrays all stay where they are.

        What it returns may be UNFINISHED: then `go_on` must be called, which observes into `self.observation`.
        `observes`: whether a network's observation is written before it is asked; else it is there already.
        `observation`: where to observe; None: as ever.
        """
        call = self._call_for(0, self.count, command, decides, trace)
        if not observes:
            call[_WORD["observes"]] = 0
        if observation is not None:
            call[_OBSERVATIONS] = handle(observation)
        self._bound.append(call)
        return partial(self._drive, handle(call))

    @property
    def observation(self) -> npt.NDArray[Any]:
        """Where observations go."""
        return self._observation

    @observation.setter
    def observation(self, array: npt.NDArray[Any]) -> None:
        self._observation = array
        self.observe_at(handle(array))

    def observe_at(self, address: int) -> None:
        """Write observations to this address from now on; `observation` stays the array that it is."""
        self._call[_OBSERVATIONS] = address
        for call, _ in self._steps.values():
            call[_OBSERVATIONS] = address

    def run(
        self,
        lane: int,
        seed: int,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> None:
        """Simulate world `seed` from its start to its end under the policy; `between` is as in `drive`."""
        self.world["seed"][lane] = seed
        self.world["index"][lane] = 0
        self.drive(lane, lane + 1, RESET, True, trace, between)

    def reset(self, lane: int, seed: int) -> None:
        """Go to the start of world `seed`, or of the one that replaces it; the caller decides there."""
        self.world["seed"][lane] = seed
        self.world["index"][lane] = 0
        self.drive(lane, lane + 1, RESET)

    def run_from_start(self, lane: int, seed: int) -> dict[str, Any]:
        """Simulate as an environment would: world `seed`, or the one that replaces it, up to its start, then under the
        policy to its end. Returns the `totals` at its start.

        The start is that of the scenario as it was given, so that all policies have the same.

        Raises:
            RuntimeError: 1,001 worlds in a row ended before they reached their start.
        """
        given = self._given
        given.world["start"] = self.world["start"][lane]
        given.reset(0, seed)
        if given.world["status"][0] != state.DECIDE:
            raise RuntimeError(never_starts(given, 0))
        for name in self.sections:
            if name != "memory":
                self.section(name)[lane] = given.section(name)[0]
        self.histogram[lane] = given.histogram[0]
        self.section("memory")[lane] = 0
        before = self.totals(lane)
        self.drive(lane, lane + 1, GO_ON, decides=True)
        return before

    def save(self, lane: int) -> bytes:
        """The exact state of a lane: a header that names format and scenario, the bytes, a checksum."""
        body: bytes = self._header + self.rows[lane].tobytes() + self.histogram[lane].tobytes()
        return body + _checksum(body)

    def restore(self, lane: int, saved: bytes) -> None:
        """Put a saved state into a lane. If its run had not begun, or was interrupted, only its world's name stays.

        Raises:
            ValueError: not a state, damaged, of another scenario or version, or one that no run can be in; nothing has
                changed.
        """
        header = self._header
        if not isinstance(saved, bytes) or saved[: len(_MAGIC)] != _MAGIC:
            raise ValueError("this is not a saved state of a ple_gym environment")
        if _checksum(saved[:-_CHECKSUM_BYTES]) != saved[-_CHECKSUM_BYTES:]:
            raise ValueError("the saved state is damaged: its checksum does not match")
        if saved[: len(header)] != header:
            raise ValueError("the saved state is of another scenario, observation, reward or version of ple_gym")
        body = np.frombuffer(saved[len(header) : -_CHECKSUM_BYTES], np.uint8).copy()
        if len(body) != self.lane_bytes:
            raise ValueError(f"the saved state is damaged: it has {len(body)} bytes, not {self.lane_bytes}")
        row, histogram = np.split(body, [self.rows.shape[1]])
        if wrong := self._flaw(lane, row.copy()):
            raise ValueError(f"the saved state is damaged: {FLAWS[wrong]} is as in no run")
        self._put(lane, row, histogram)
        self.drive(lane, lane + 1, OBSERVE)

    @property
    def lane_bytes(self) -> int:
        """Bytes of the state of a lane."""
        return int(self.rows[0].nbytes + self.histogram[0].nbytes)

    def copy(self, source: int, targets: npt.NDArray[np.bool_]) -> None:
        """Put the state of one lane into others: bool [count]."""
        self.rows[targets] = self.rows[source]
        self.histogram[targets] = self.histogram[source]

    def _flaw(self, lane: int, row: Bytes) -> int:
        """What is wrong with a row: a place in FLAWS."""
        place = self.places[lane : lane + 1].copy()
        place["row"] = handle(row)
        call = self._call_for(0, 1, CHECK, False, NO_TRACE)
        call[_WORD["places"]] = handle(place)
        return self._run(call)

    def _put(self, lane: int, row: Bytes, histogram: Bytes) -> None:
        world = row[: state.WORLD.itemsize].view(state.WORLD)[0]
        begun = world["status"] != state.ADVANCING
        self.rows[lane] = row if begun else 0
        self.histogram[lane] = histogram.view(np.int32).reshape(self.histogram[lane].shape) if begun else 0
        if not begun:
            for name in ("seed", "index", "start"):
                self.world[name][lane] = world[name]

    @cached_property
    def _header(self) -> bytes:
        """What the states of these lanes begin with."""
        layout = [(name, str(section.dtype)) for name, section in self.sections.items()]
        return _MAGIC + _checksum(self.description.tobytes() + repr(layout).encode())

    def quantiles(self, lane: int, row: np.integer[Any], maximum: str) -> Quantiles:
        """One of the recorded distributions (`state.WAITS`, `state.ACQUIRE_EXITS`)."""
        return Quantiles(self.histogram[lane, row].cumsum(), int(self.world[maximum][lane]))

    def completed(self, lane: int, trace: Ints) -> Ints:
        """A trace of this lane up to now, and before it what has no event in it (`traces.events.completed`)."""
        pcpu, vcpu, guest = self.pcpu[lane], self.vcpu[lane], self.guest[lane]
        who = np.where(pcpu["current"] != state.NONE, pcpu["current"].astype(np.int64), IDLE)
        who[pcpu["mode"] == state.NOISE] = NOISE
        asleep = np.isin(vcpu["state"], (state.BLOCKED, state.DONE))
        done = vcpu["state"] == state.DONE
        phase = guest["phase"] & state.BENEATH
        waiting = ~done & np.isin(phase, (state.SPIN, state.ACKS))
        lock = np.where(phase == state.ACKS, -1, guest["lock"].astype(np.int64))
        holder = self.section("lock")["holder"][lane].astype(np.int64)
        held = np.flatnonzero(holder != state.NONE)
        vcpus = np.column_stack([asleep, waiting, lock]).astype(np.int64)
        return completed(trace, who, vcpus, np.column_stack([holder[held], held]))

    def totals(self, lane: int) -> dict[str, Any]:
        """Every metric of docs/model.md, section 13, as exact integers."""
        world = dict(zip(state.WORLD.names or (), self.world[lane].item(), strict=True))
        waits = self.quantiles(lane, state.WAITS, "wait_max")
        exits = self.quantiles(lane, state.ACQUIRE_EXITS, "acquire_exits_max")
        per_dispatch = self.histogram[lane, state.DISPATCH_EXITS]
        steals = self._longest_steals(lane)
        return {
            "finished": bool(world["status"] == state.FINISHED),
            "now": world["now"],
            **{name: world[name] for name in state.COUNTERS},
            "cycles": {"useful": int(self.vm["useful"][lane].sum())}
            | {name: world[f"cycles_{name}"] for name in state.CYCLES[1:]},
            "acquire_wait": {"p50": waits.at(50), "p99": waits.at(99), "max": waits.maximum},
            "ple_per_acquisition": {
                "p50": exits.at(50),
                "p90": exits.at(90),
                "p99": exits.at(99),
                "max": exits.maximum,
            },
            "responses": self.responses(lane),
            "ple_per_dispatch": {"max": world["dispatch_exits_max"], "mode": int(per_dispatch.argmax())},
            "vms": [
                {
                    "used": int(self.vcpu["cpu_time"][lane, self.vcpu["vm"][lane] == m].sum()),
                    "useful": int(vm["useful"]),
                    "finish": int(vm["finish"]),
                    "completed": int(vm["completed"]),
                    "longest_steal": int(steals[m]),
                }
                for m, vm in enumerate(self.vm[lane])
            ],
        }

    def responses(self, lane: int) -> dict[str, int]:
        """What docs/model.md, 13, says of responses, with those under way that are late already."""
        bins, world = self.histogram[lane, state.RESPONSES], self.world[lane]
        late, lateness, longest = (int(world[name]) for name in state.LATE)
        if self.scenario.has_goals:
            asked_at = self.section("response")["asked_at"][lane]
            took = np.where(asked_at > 0, world["now"] - asked_at, 0)
            took, goals = took[took > self._goals], self._goals[took > self._goals]
            late, lateness = late + len(took), lateness + int((took - goals).sum())
            shares = took * 1000 // goals
            longest = max([longest, *shares.tolist()])
            bins = bins + np.bincount(BIN_VALUES.searchsorted(shares, side="right") - 1, minlength=len(bins))
        found = Quantiles(bins.cumsum(), longest)
        own = {"p50": found.at(50), "p99": found.at(99), "max": longest}
        return {"count": int(bins.sum()), "late": late, "lateness": lateness, **own}

    @cached_property
    def _goals(self) -> npt.NDArray[np.int64]:
        """Of each vCPU, and behind them of each thread: how many cycles its responses should take at most."""
        vms, hz = self.scenario.vms().values(), self.scenario.host.tsc_hz
        goals = [vm.response_goal_us * hz // 10**6 or state.INF for vm in vms]
        counts = [vm.vcpus for vm in vms] + [vm.threads for vm in vms]
        return np.repeat(np.array(2 * goals, np.int64), counts)

    def _longest_steals(self, lane: int) -> npt.NDArray[np.int64]:
        """The longest time that a vCPU of each VM was runnable and off its pCPU, up to now: cycles, int64 [VMs]."""
        longest: npt.NDArray[np.int64] = self.vm["longest_steal"][lane].copy()
        queued = self.vcpu[lane][self.vcpu["state"][lane] == state.QUEUED]
        np.maximum.at(longest, queued["vm"], self.world["now"][lane] - queued["queued_since"])
        return longest
