"""What a decision costs where many lanes are stepped together, observations and masks included.

Steps are recorded first, with random legal actions, and then repeated exactly: the choice of actions takes no time that
is measured. The lanes are as in the middle of training, each a random number of decisions into its episode; those whose
episode ends are reset within the measured steps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median

import numpy as np

from ple_gym.bench.report import Measurement, Seconds, at_least, plain, timed
from ple_gym.drive import OBSERVE, STEP_OR_NEXT
from ple_gym.envs.options import ObservationType
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.scenario.builtin import load
from ple_gym.scenario.fleet import WORLDS

SCENARIO = "Storm"
PLAIN: ObservationType = "float32"
FLOOR = 1_200_000  # decisions a second that one core has to make at these numbers of lanes:
FLOOR_LANES = (64, 256, 1024)
LANES = (16, *FLOOR_LANES, 2048, 4096)
#: Types of observations -> the numbers of lanes that they are measured at.
NARROW: dict[ObservationType, tuple[int, ...]] = {"uint8": (1024, 4096)}
FLEET, FLEET_FLOOR = "Fleet", 0.7  # of the decisions of SCENARIO
CLIFF = 1.25  # times the cheapest decision is what an expensive one costs
EPISODE = 2500  # decisions: about the median episode under random actions


class Replay:
    """Some steps of `lanes` lanes, which can be repeated exactly, on as many threads as one likes."""

    def __init__(
        self,
        lanes: int,
        states: list[bytes],
        decisions: int,
        dtype: ObservationType = PLAIN,
        scenario: str = SCENARIO,
    ) -> None:
        """Record `decisions` of all lanes together, from states that `mixed_states` returned."""
        generator = np.random.default_rng(lanes)
        self.lanes, self.dtype, self.scenario = lanes, dtype, scenario
        self.envs = {1: PleVectorEnv(lanes, scenario, threads=1, observation_dtype=dtype)}
        envs, count = self.envs[1], max(1, decisions // lanes)
        envs.reset(options={"state": [states[i % len(states)] for i in range(lanes)]})
        for _ in range(20):  # lanes that began in the same state part
            envs.step(envs.sample_actions(generator))
        self.begin = [envs.get_state(lane) for lane in range(lanes)]
        self.actions = np.zeros((count, lanes), np.int64)
        self.decisions, events = self.actions.size, 0
        for actions in self.actions:
            actions[:] = envs.sample_actions(generator)
            before = envs.lanes.world["events"].copy()
            envs.step(actions)
            after = envs.lanes.world["events"]
            events += int(np.where(after < before, after, after - before).sum())  # a reset begins at 0
        self.events_per_decision = events / self.decisions

    def step(self, threads: int = 1) -> Seconds:
        """Repeat the steps as users make them."""
        envs = self._again(threads)

        def steps() -> None:
            for actions in self.actions:
                envs.step(actions)

        return timed(steps)

    def drive(self) -> Seconds:
        """Repeat only the compiled part of the steps."""
        lanes = self._again(1).lanes

        def steps() -> None:
            for actions in self.actions:
                lanes.action[:] = actions
                lanes.drive(0, len(actions), STEP_OR_NEXT)

        return timed(steps)

    def observe(self) -> Seconds:
        """Write as many observations and masks, and do nothing else."""
        lanes = self._again(1).lanes

        def steps() -> None:
            for actions in self.actions:
                lanes.drive(0, len(actions), OBSERVE)

        return timed(steps)

    def _again(self, threads: int) -> PleVectorEnv:
        if threads not in self.envs:
            self.envs[threads] = PleVectorEnv(self.lanes, self.scenario, threads=threads, observation_dtype=self.dtype)
        self.envs[threads].reset(options={"state": self.begin})
        return self.envs[threads]


def mixed_states(count: int = 128, scenario: str = SCENARIO) -> list[bytes]:
    """States of lanes that are each a random number of decisions into their episode."""
    generator = np.random.default_rng(0)
    envs = PleVectorEnv(count, scenario, threads=1)
    envs.reset(seed=0)
    begins = generator.integers(EPISODE, size=count)
    for step in range(EPISODE):
        if (begins == step).any():
            envs.reset(options={"reset_mask": begins == step})
        envs.step(envs.sample_actions(generator))
    return [envs.get_state(lane) for lane in range(count)]


def batched_rows(replays: Sequence[Replay], repeats: int) -> list[Measurement]:
    """Decisions a second at each number of lanes, and where more lanes begin to cost."""
    turns: list[list[tuple[Seconds, Seconds, Seconds]]] = [[] for _ in replays]
    for _ in range(repeats):
        for replay, taken in zip(replays, turns, strict=True):
            taken.append((replay.step(), replay.drive(), replay.observe()))
    rows, costs = [], {}
    for replay, taken in zip(replays, turns, strict=True):
        cost = median(step.cpu for step, _, _ in taken) / replay.decisions
        wall = median(step.wall for step, _, _ in taken) / replay.decisions
        python = 1 - median(drive.cpu / step.cpu for step, drive, _ in taken)
        observing = median(observe.cpu / step.cpu for step, _, observe in taken)
        plain_type, lanes = replay.dtype == PLAIN, replay.lanes
        name = f"batched, {SCENARIO}, {lanes:,} lanes" + ("" if plain_type else f", {replay.dtype}")
        note = (
            f"{cost * 1e9:,.0f} ns/decision (wall {wall * 1e9:,.0f}), Python {python:.0%}, observing {observing:.0%}; "
            f"{replay.events_per_decision:.1f} events/decision"
        )
        has_floor = plain_type and lanes in FLOOR_LANES
        rows.append(at_least(name, 1 / cost, "1/s", FLOOR, note) if has_floor else plain(name, 1 / cost, "1/s", note))
        if plain_type:
            costs[lanes] = cost
    return [*rows, _cliff_row(costs)]


def fleet_row(storm: Replay, decisions: int, repeats: int) -> Measurement:
    """Decisions a second where each lane has a world of its own, against as many lanes of one scenario."""
    for number in range(WORLDS):  # a process does so once
        load(f"{FLEET}-{number}")
    fleet = Replay(storm.lanes, mixed_states(storm.lanes, FLEET), decisions, scenario=FLEET)
    pairs = [(storm.step().cpu / storm.decisions, fleet.step().cpu / fleet.decisions) for _ in range(repeats)]
    cost = median(own for _, own in pairs)
    note = f"{cost * 1e9:,.0f} ns/decision; {fleet.events_per_decision:.1f} events/decision"
    name = f"batched, {storm.lanes:,} lanes, {FLEET} : {SCENARIO}"
    return at_least(name, median(one / own for one, own in pairs), "", FLEET_FLOOR, note)


def _cliff_row(costs: dict[int, float]) -> Measurement:
    cheapest = min(costs, key=lambda lanes: costs[lanes])
    dear = [lanes for lanes, cost in costs.items() if lanes > cheapest and cost > CLIFF * costs[cheapest]]
    before = [lanes for lanes in costs if not dear or lanes < dear[0]]
    note = f"cheapest: {cheapest:,}; measured: {', '.join(f'{lanes:,}' for lanes in costs)}"
    return plain(f"batched, most lanes before a decision costs {CLIFF:g} of the cheapest", max(before), "lanes", note)


def threads_row(replay: Replay, repeats: int) -> Measurement:
    """Two threads against one, on the wall clock, which is what another load on the machine disturbs most."""
    name = f"batched, {SCENARIO}, {len(replay.begin):,} lanes, 2 threads : 1"
    if (os.cpu_count() or 1) < 2:
        return at_least(name, None, "", 1.8, "there is one CPU")
    pairs = [(replay.step(1).wall, replay.step(2).wall) for _ in range(repeats)]
    one, two = (replay.decisions / median(walls) for walls in zip(*pairs, strict=True))
    return at_least(name, median(a / b for a, b in pairs), "", 1.8, f"wall: {one:,.0f}/s, {two:,.0f}/s")


def memory_row(most: int) -> Measurement:
    """What a lane needs: its row, and what a step returns of it; and what `most` lanes need."""
    one = PleVectorEnv(1, SCENARIO, threads=1)
    _, rewards, terminations, truncations, infos = (one.reset(seed=0), one.step(np.array([0])))[1]
    row, observation = one.lanes.lane_bytes, one.lanes.observation.nbytes
    others = sum(array.nbytes for array in (one.lanes.mask, rewards, terminations, truncations, *infos.values()))
    total = row + observation + others
    parts = f"row {row:,}, observation {observation:,}, other outputs {others:,}"
    note = f"{parts}; {most:,} lanes: {total * most / 1e6:.0f} MB"
    return plain(f"memory per lane, {SCENARIO}", total, "bytes", note)
