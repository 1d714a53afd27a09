"""Who had which CPU during one run of a setting: as `perf` has recorded it, and as it is simulated."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ple_gym.errors import RealityError
from ple_gym.messages import show
from ple_gym.reality.measured import Costs, Machine, from_line, to_line
from ple_gym.reality.program import WARM_UP_US
from ple_gym.reality.settings import Setting
from ple_gym.reality.worlds import POLICIES, world
from ple_gym.traces.events import IDLE, NEVER, NOISE, NOISE_BEGIN, NOISE_END, RUN, STOP, Ints, occupancy
from ple_gym.traces.linux import SWITCH, HostTrace
from ple_gym.traces.readers import READERS, Reading
from ple_gym.traces.recording import record_window

SECONDS = 0.05
OTHERS = NOISE
"""In place of a thread's number: tasks that are not the program's threads."""
HEAD = re.compile(r"# (setting .{1,300}) seed=(\d{1,10})", re.ASCII)


@dataclass(frozen=True)
class Timeline:
    """Who had which CPU.

    Attributes:
        stays: int64 [m, 4]: a CPU's place among those of the threads, who (a thread's number, OTHERS or IDLE), start
            and stop; without gaps, from -NEVER to NEVER.
        start, stop: what is looked at, of the same clock.
        per_second: its rate.
        threads: how many there are.
    """

    stays: Ints
    start: int
    stop: int
    per_second: int
    threads: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.stop - self.start) / self.per_second

    @property
    def _left(self) -> Ints:
        """The stays of threads that ended in this time."""
        _, who, begin, end = self.stays.T
        left: Ints = self.stays[(who >= 0) & (self.start < end) & (end <= self.stop) & (begin > -NEVER)]
        return left

    @property
    def switches(self) -> float:
        """How often per second a thread left a CPU to somebody else."""
        return len(self._left) / self.seconds

    def stay_us(self, percent: int) -> float | None:
        """A quantile of the stays of threads that ended, in microseconds; None if there are none."""
        lengths = np.sort(self._left[:, 3] - self._left[:, 2])
        rank = max(1, -(-percent * len(lengths) // 100))
        return float(lengths[rank - 1]) * 1e6 / self.per_second if len(lengths) else None

    def share(self, whose: int) -> float:
        """The part of one CPU's time that a thread had, OTHERS, or IDLE; of several CPUs the sum."""
        _, who, begin, end = self.stays.T
        inside = np.clip(end, self.start, self.stop) - np.clip(begin, self.start, self.stop)
        return float(inside[who == whose].sum()) / (self.stop - self.start)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, as JSON can hold them."""
        return {
            "seconds": self.seconds,
            "switches_per_second": self.switches,
            "stay_us": {f"p{percent}": self.stay_us(percent) for percent in (50, 90)},
            "shares": [self.share(thread) for thread in range(self.threads)],
            "others": self.share(OTHERS),
            "idle": self.share(IDLE),
        }


@dataclass(frozen=True)
class Timelines:
    """Both, of one setting on one machine."""

    setting: Setting
    machine: Machine
    measured: Timeline
    simulated: Timeline

    def to_dict(self) -> dict[str, Any]:
        """Return what can be compared as JSON can hold it."""
        both = {"measured": self.measured.to_dict(), "simulated": self.simulated.to_dict()}
        return {"setting": asdict(self.setting), **both}


def headed(setting: Setting, seed: int, events: str) -> str:
    """What is kept of a recorded run: a line of what it was, and the text of `perf script`."""
    return f"# {to_line(setting)} seed={seed}\n{events}"


def laid_beside(data: bytes, machine: Machine, costs: Costs) -> Timelines:
    """Read what `headed` has made, and simulate the same: the last moments of the run, as long as `SECONDS`.

    Raises:
        RealityError: it is something else, or events are missing.
        ScenarioError: the simulator cannot have a world like this.
    """
    first = data.partition(b"\n")[0][:400].decode(errors="replace")
    if not (head := HEAD.fullmatch(first)):
        raise RealityError(f"line 1: must be '# setting ... seed=...', not {show(first)}")
    setting = from_line(Setting, head[1])
    measured = _measured(READERS["perf"].read(data), setting, machine, f"spin-{head[2]}-")
    return Timelines(setting, machine, measured, _simulated(setting, machine, costs))


def _measured(reading: Reading, setting: Setting, machine: Machine, name: str) -> Timeline:
    if reading.bad:
        raise RealityError(reading.told()[1])
    numbers = {f"{name}{i}": i for i in range(setting.threads)}
    threads = {pid: numbers[comm] for pid, comm in reading.trace.comms.items() if comm in numbers}
    stays = occupancy(_moves(reading.trace, threads, machine), len(machine.cpus))
    ends = [stays[(stays[:, 1] == thread) & (stays[:, 3] < NEVER), 3] for thread in range(setting.threads)]
    if not all(map(len, ends)):
        raise RealityError(f"not all of {setting.threads} threads are in the trace")
    stop = min(int(of_one.max()) for of_one in ends)  # the first to see that the run is over has ended
    return Timeline(stays, stop - round(SECONDS * 1e9), stop, 10**9, setting.threads)


def _moves(trace: HostTrace, threads: dict[int, int], machine: Machine) -> Ints:
    """The switches as rows of a simulated trace: a thread is a vCPU, and any other task the host."""
    rows = []
    for place, cpu in enumerate(machine.cpus):
        events = trace.events[(trace.events["kind"] == SWITCH) & (trace.events["cpu"] == cpu)]
        events = events[np.argsort(events["time"], kind="stable")]
        has = None
        for time, leaves, comes in events[["time", "pid", "other"]].tolist():
            # A task that is gone has no number: it is the one that came.
            if has is not None and leaves not in (has, -1):
                raise RealityError(f"CPU {cpu}: perf has lost events, task {has} came and {leaves} left; repeat it")
            goes = leaves if has is None else has
            for pid, thread_moves, others_move in ((goes, STOP, NOISE_END), (comes, RUN, NOISE_BEGIN)):
                if pid in threads:
                    rows.append((time, thread_moves, place, threads[pid], -1))
                elif pid:
                    rows.append((time, others_move, place, -1, -1))
            has = comes
    return np.array(rows, np.int64).reshape(-1, 5)


def _simulated(setting: Setting, machine: Machine, costs: Costs) -> Timeline:
    warm_up = WARM_UP_US * 1e-6
    scenario = world(setting, machine, costs, warm_up + SECONDS)
    start, stop = (round(seconds * costs.tsc_hz) for seconds in (warm_up, warm_up + SECONDS))
    trace = record_window(scenario, POLICIES[setting.reaction], 0, start, stop)
    stays = occupancy(trace, len(machine.cpus))
    stays[stays[:, 1] >= setting.threads, 1] = OTHERS
    return Timeline(stays, start, stop, costs.tsc_hz, setting.threads)
