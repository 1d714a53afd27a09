"""Lanes: simulated machines that share a scenario, as Python sees them.

The one place that knows both the bytes of `sim/state.py` and the objects above: `Env`, the vector environment and
`simulate` hold a `Lanes` and call `drive` through it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ple_gym.drive import CHECK, CONTINUE, GO_ON, OBSERVE, RESET, UNFINISHED, drive
from ple_gym.learned.file import Network
from ple_gym.rules.compiled import EXTERNAL
from ple_gym.scenario.model import Scenario
from ple_gym.sim import state
from ple_gym.sim.description import describe
from ple_gym.sim.jit import compiled
from ple_gym.sim.memory import handle
from ple_gym.sim.soundness import FLAWS
from ple_gym.traces.events import IDLE, NOISE, Ints, completed
from ple_gym.view import observation as observe

STARTS = {"first": state.FIRST, "storm": state.STORM}
REWARDS = {"waste": state.WASTE, "time": state.TIME, "fair": state.FAIR}
INFORMATION = {
    "none": state.NOTHING,
    "hypervisor": state.HYPERVISOR,
    "introspection": state.INTROSPECTION,
    "oracle": state.ORACLE,
}
_MAGIC = b"ple_gym state 1\n"
_CHECKSUM_BYTES = 16

#: What `Lanes.drive` calls between two parts of a long run, with the number of a lane.
Between: TypeAlias = Callable[[int], None]

NO_TRACE = np.zeros((0, state.TRACE_WIDTH), np.int64)
_NO_TRACE = handle(NO_TRACE.ravel())


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


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


def never_starts(lanes: Lanes, lane: int) -> str:
    """Says that a reset of a lane went through all replacement worlds without reaching its start."""
    world = lanes.world[lane]
    what = "storm of exits" if world["start"] == state.STORM else "PLE exit: there is nothing to decide"
    return f"{lanes.scenario.name}: worlds 0..{world['index']} of seed {world['seed']} have no {what}"


def _parameters(description: npt.NDArray[np.uint8]) -> Any:
    """The integers at the start of a description, as one record."""
    return description[: state.PARAMETERS.itemsize].view(state.PARAMETERS)[0]


def _with_network(description: npt.NDArray[np.uint8], network: Network, width: int) -> npt.NDArray[np.uint8]:
    """A description with the weights of a learned policy; observations are `width` numbers wide, scratch included."""
    parameters = _parameters(description)
    parameters["network_kind"], parameters["network_hidden"] = network.code, network.hidden
    parameters["network_at"], parameters["observation_bytes"] = len(description), 4 * width
    parameters["network_temperature"] = network.temperature
    return np.concatenate([description, network.flat().view(np.uint8)])


class Lanes:
    """`count` simulated machines of one scenario.

    rows: uint8 [count, row_bytes], everything that changes; description: uint8, everything that does not.
    """

    def __init__(
        self,
        scenario: Scenario,
        count: int,
        reward: str = "waste",
        information: str = "none",
        start: str = "first",
        network: Network | None = None,
    ) -> None:
        vcpus = sum(vm.vcpus for vm in scenario.vms().values())
        level = INFORMATION[network.information if network else information]
        length = observe.observation_length(level, vcpus)
        self.scenario, self.count = scenario, count
        self.description = describe(scenario, REWARDS[reward], level, observe.vcpu_features(level), length)
        if network:
            network.check_fits(vcpus)
            length += network.room(vcpus)
            self.description = _with_network(self.description, network, length)
        self.layout = _parameters(self.description)
        self.rows = np.zeros((count, int(self.layout["row_bytes"])), np.uint8)
        self.pcpus, self.vcpus = scenario.host.pcpus, vcpus
        self.world = self._records("world_at", "vm_at", state.WORLD)[:, 0]
        self.world["start"] = STARTS[start]
        self.vm = self._records("vm_at", "memory_at", state.VM)
        self.pcpu = self._records("pcpu_at", "clock_at", state.PCPU)
        self.vcpu = self._records("vcpu_at", "guest_at", state.VCPU)
        self.guest = self._records("guest_at", "lock_at", state.VCPU_GUEST)
        counts = self._records("histogram_at", "row_bytes", np.dtype(np.int32))
        self.histogram = counts[:, : state.HISTOGRAMS * state.HISTOGRAM_BINS].reshape(count, state.HISTOGRAMS, -1)
        self.action = np.zeros(count, np.int64)
        self.result = np.zeros((state.RESULTS, count))
        self.mask = np.zeros((count, vcpus + 1), np.int8)
        fixed = (self.description, self.rows, self.action, self.result.ravel(), self.mask)
        self._fixed = tuple(handle(array) for array in fixed)
        self.observation = np.zeros((count, length), np.float32)
        self._drive = compiled(drive, *self._arguments(0, 0, RESET, EXTERNAL, NO_TRACE))

    def _records(self, start: str, stop: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return self.rows[:, int(self.layout[start]) : int(self.layout[stop])].view(dtype)

    def drive(
        self,
        begin: int,
        end: int,
        command: int,
        rule: int = EXTERNAL,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> int:
        """Run a command of `drive.py` on lanes begin..end-1.

        Actions are read from `action`: int64 [count]. Written are `result`: float64 [4, count]; `mask`: int8
        [count, V + 1]; and `observation`: float32 [count, length], which may be replaced by a fresh array before.
        `trace`: int64 [n, 5], a ring that takes events (n = 0: none).

        The kernel returns now and then (`drive.EVENTS_PER_CALL`), so that Ctrl-C is noticed; it goes on at once.
        `between` is called there with the number of the lane that is being run, and may end everything by raising. The
        status of that lane is then ADVANCING: it must be reset.

        Returns:
            How many of these lanes are over or were given an illegal action. -1: an action of any lane is not 0..V, and
            nothing was done.
        """
        told: int = self._drive(*self._arguments(begin, end, command, rule, trace))
        return told if told < UNFINISHED else self.go_on(told, end, command, rule, trace, between)

    def go_on(
        self,
        told: int,
        end: int,
        command: int,
        rule: int = EXTERNAL,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> int:
        """Finish a `drive` of lanes up to `end` that told it was UNFINISHED; returns what `drive` does."""
        remarkable = 0
        while told >= UNFINISHED:
            lane, before = divmod(told - UNFINISHED, 1 << 32)
            remarkable += before
            if between:
                between(lane)
            told = self._drive(*self._arguments(lane, lane + 1, CONTINUE, rule, trace))
            if told < UNFINISHED and lane + 1 < end:
                remarkable += told
                told = self._drive(*self._arguments(lane + 1, end, command, rule, trace))
        return remarkable + told

    def bind(self, command: int, trace: npt.NDArray[np.int64]) -> Callable[[], int]:
        """The call `drive(0, 1, command, trace=trace)`, faster: for one lane whose arrays all stay where they are.

        What it returns may be UNFINISHED: then `go_on` must be called.
        """
        return partial(self._drive, *self._arguments(0, 1, command, EXTERNAL, trace))

    def _arguments(
        self, begin: int, end: int, command: int, rule: int, trace: npt.NDArray[np.int64]
    ) -> tuple[Any, ...]:
        ring = handle(trace.ravel()) if len(trace) else _NO_TRACE
        return (*self._fixed, self._observed, self.count, begin, end, command, rule, ring, len(trace))

    @property
    def observation(self) -> npt.NDArray[np.float32]:
        """Where observations go."""
        return self._observation

    @observation.setter
    def observation(self, array: npt.NDArray[np.float32]) -> None:
        self._observation, self._observed = array, handle(array)

    def run(
        self,
        lane: int,
        seed: int,
        rule: int,
        trace: npt.NDArray[np.int64] = NO_TRACE,
        between: Between | None = None,
    ) -> None:
        """Simulate world `seed` from its start to its end under a compiled rule; `between` is as in `drive`."""
        self.world["seed"][lane] = seed
        self.world["index"][lane] = 0
        self.drive(lane, lane + 1, RESET, rule, trace, between)

    def run_from_start(self, lane: int, seed: int, rule: int) -> dict[str, Any]:
        """Simulate as an environment would: world `seed`, or the one that replaces it, up to its start, then under a
        compiled rule to its end. Returns the `totals` at its start.

        Raises:
            RuntimeError: 1,001 worlds in a row ended before they reached their start.
        """
        self.run(lane, seed, EXTERNAL)
        if self.world["status"][lane] != state.DECIDE:
            raise RuntimeError(never_starts(self, lane))
        before = self.totals(lane)
        self.drive(lane, lane + 1, GO_ON, rule)
        return before

    def save(self, lane: int) -> bytes:
        """The exact state of a lane: a header that names format and scenario, the bytes, a checksum."""
        body: bytes = self._header() + self.rows[lane].tobytes()
        return body + _checksum(body)

    def restore(self, lane: int, saved: bytes) -> None:
        """Put a saved state into a lane. If its run had not begun, or was interrupted, only its world's name stays.

        Raises:
            ValueError: not a state, damaged, of another scenario or version, or one that no run can be in; nothing has
                changed.
        """
        header = self._header()
        if not isinstance(saved, bytes) or saved[: len(_MAGIC)] != _MAGIC:
            raise ValueError("this is not a saved state of a ple_gym environment")
        if _checksum(saved[:-_CHECKSUM_BYTES]) != saved[-_CHECKSUM_BYTES:]:
            raise ValueError("the saved state is damaged: its checksum does not match")
        if saved[: len(header)] != header:
            raise ValueError("the saved state is of another scenario, observation, reward or version of ple_gym")
        row = np.frombuffer(saved[len(header) : -_CHECKSUM_BYTES], np.uint8).copy()
        if len(row) != self.rows.shape[1]:
            raise ValueError(f"the saved state is damaged: it has {len(row)} bytes, not {self.rows.shape[1]}")
        description, _, *others = self._arguments(0, 1, CHECK, EXTERNAL, NO_TRACE)
        if wrong := self._drive(description, handle(row[np.newaxis]), *others):
            raise ValueError(f"the saved state is damaged: {FLAWS[wrong]} is as in no run")
        self._put(lane, row)
        self.drive(lane, lane + 1, OBSERVE)

    def _put(self, lane: int, row: npt.NDArray[np.uint8]) -> None:
        world = row[: state.WORLD.itemsize].view(state.WORLD)[0]
        if world["status"] != state.ADVANCING:
            self.rows[lane] = row
            return
        self.rows[lane] = 0
        for name in ("seed", "index", "start"):
            self.world[name][lane] = world[name]

    def _header(self) -> bytes:
        return _MAGIC + _checksum(self.description.tobytes() + repr(state.LANE_FORMAT).encode())

    def quantiles(self, lane: int, row: np.integer[Any], maximum: str) -> Quantiles:
        """One of the recorded distributions (`state.WAITS`, `state.ACQUIRE_EXITS`)."""
        return Quantiles(self.histogram[lane, row].cumsum(), int(self.world[maximum][lane]))

    def completed(self, lane: int, trace: Ints) -> Ints:
        """A trace of this lane up to now, and before it what has no event in it (`trace.completed`)."""
        pcpu, vcpu, guest = self.pcpu[lane], self.vcpu[lane], self.guest[lane]
        who = np.where(pcpu["mode"] == state.GUEST, pcpu["current"].astype(np.int64), IDLE)
        who[pcpu["mode"] == state.NOISE] = NOISE
        asleep = np.isin(vcpu["state"], (state.BLOCKED, state.DONE))
        done = vcpu["state"] == state.DONE
        phase = np.select([done, guest["phase"] == state.SPIN, guest["phase"] == state.HOLD], [0, 1, 2])
        return completed(trace, who, np.column_stack([asleep, phase, guest["lock"]]).astype(np.int64))

    def totals(self, lane: int) -> dict[str, Any]:
        """Every metric of docs/model.md, section 13, as exact integers."""
        world = dict(zip(state.WORLD.names or (), self.world[lane].item(), strict=True))
        waits = self.quantiles(lane, state.WAITS, "wait_max")
        exits = self.quantiles(lane, state.ACQUIRE_EXITS, "acquire_exits_max")
        per_dispatch = self.histogram[lane, state.DISPATCH_EXITS]
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
            "ple_per_dispatch": {"max": world["dispatch_exits_max"], "mode": int(per_dispatch.argmax())},
            "vms": [
                {
                    "used": int(self.vcpu["cpu_time"][lane, self.vcpu["vm"][lane] == m].sum()),
                    "useful": int(vm["useful"]),
                    "finish": int(vm["finish"]),
                }
                for m, vm in enumerate(self.vm[lane])
            ],
        }
