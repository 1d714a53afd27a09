"""Who had which CPU during one run of a setting: as `perf` has recorded it, and as it is simulated."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ple_gym.errors import RealityError
from ple_gym.messages import show
from ple_gym.reality.measured import Costs, Machine, from_line
from ple_gym.reality.program import WARM_UP_US
from ple_gym.reality.settings import Setting
from ple_gym.reality.worlds import POLICIES, world
from ple_gym.traces.events import IDLE, NEVER, NOISE, NOISE_BEGIN, NOISE_END, RUN, STOP, Ints, occupancy
from ple_gym.traces.linux import SWITCH, HostTrace
from ple_gym.traces.readers import READERS
from ple_gym.traces.recording import record_window

SECONDS = 0.05
_HEAD = re.compile(r"# (setting .{1,300}) seed=(\d{1,10})", re.ASCII)


@dataclass(frozen=True)
class Timeline:
    """Who had which CPU from `start` to `stop`, of a clock with so many ticks `per_second`.

    stays: int64 [m, 4], as `occupancy` has them: a vCPU is a thread, NOISE any other task.
    """

    setting: Setting
    stays: Ints
    start: int
    stop: int
    per_second: int

    def numbers(self) -> dict[str, float]:
        """What can be compared: how often a thread left a CPU, and after how long; percents of one CPU's time."""
        _, who, begin, end = self.stays.T
        left = (who >= 0) & (self.start < end) & (end <= self.stop) & (begin > -NEVER)
        stays = np.sort((end - begin)[left]) * 1e6 / self.per_second
        time = np.clip(end, self.start, self.stop) - np.clip(begin, self.start, self.stop)
        whose = {f"thread_{i}": i for i in range(self.setting.threads)} | {"other_tasks": NOISE, "idle": IDLE}
        length = self.stop - self.start
        return {
            "switches_per_second": len(stays) * self.per_second / length,
            **{f"stay_us_p{p}": float(stays[-(-p * len(stays) // 100) - 1]) if len(stays) else 0.0 for p in (50, 90)},
            **{f"{name}_percent": 100 * float(time[who == i].sum()) / length for name, i in whose.items()},
        }


def measured(data: bytes, machine: Machine) -> Timeline:
    """Read what `record` has made: the last `SECONDS` of the run.

    Raises:
        RealityError: it is something else, or events are missing.
    """
    first = data.partition(b"\n")[0][:400].decode(errors="replace")
    if not (head := _HEAD.fullmatch(first)):
        raise RealityError(f"line 1: must be '# setting ... seed=...', not {show(first)}")
    setting, reading = from_line(Setting, head[1]), READERS["perf"].read(data)
    if reading.bad:
        raise RealityError(reading.told()[1])
    numbers = {f"spin-{head[2]}-{i}": i for i in range(setting.threads)}
    threads = {pid: numbers[comm] for pid, comm in reading.trace.comms.items() if comm in numbers}
    moves, torn = _moves(reading.trace, threads, machine)
    stays = occupancy(moves, len(machine.cpus))
    ends = [stays[(stays[:, 1] == thread) & (stays[:, 3] < NEVER), 3] for thread in range(setting.threads)]
    if not all(map(len, ends)):
        raise RealityError(f"not all of {setting.threads} threads are in it")
    stop = min(int(of_one.max()) for of_one in ends)  # the first one that saw that the run was over
    start = stop - round(SECONDS * 1e9)
    if lost := sum(start < time <= stop for time in torn):
        raise RealityError(f"perf has lost events, at {lost} places at least")
    return Timeline(setting, stays, start, stop, 10**9)


def _moves(trace: HostTrace, threads: dict[int, int], machine: Machine) -> tuple[Ints, list[int]]:
    """The switches as a simulated trace, other tasks being the host, and when one left that had not come."""
    rows, torn = [], []
    for place, cpu in enumerate(machine.cpus):
        events = trace.events[(trace.events["kind"] == SWITCH) & (trace.events["cpu"] == cpu)]
        has = -1
        for time, leaves, comes in events[["time", "pid", "other"]].tolist():
            if has != leaves and -1 not in (has, leaves):  # a task that has ended has no number
                torn.append(time)
            for pid, kinds in ((has if leaves < 0 else leaves, (STOP, NOISE_END)), (comes, (RUN, NOISE_BEGIN))):
                if pid:
                    rows.append((time, kinds[pid not in threads], place, threads.get(pid, -1), -1))
            has = comes
    return np.array(rows, np.int64).reshape(-1, 5), torn


def simulated(setting: Setting, machine: Machine, costs: Costs) -> Timeline:
    """The same, simulated.

    Raises:
        ScenarioError: the simulator cannot have a world like this.
    """
    start, stop = (round((WARM_UP_US * 1e-6 + more) * costs.tsc_hz) for more in (0, SECONDS))
    scenario = world(setting, machine, costs, stop / costs.tsc_hz)
    stays = occupancy(record_window(scenario, POLICIES[setting.reaction], 0, start, stop), len(machine.cpus))
    stays[stays[:, 1] >= setting.threads, 1] = NOISE
    return Timeline(setting, stays, start, stop, costs.tsc_hz)
