"""Look-ahead: at each decision every action is tried on copies of the lane, the base rule goes on, the best is taken.

With `samples` futures each action is tried in the same futures, other ones than will come (`sim/redraw.py`). All
actions are tried in a quarter as many; the one that seems best against the base rule's is then tried in fresh ones, and
taken if it is better by more than two standard errors. A clairvoyant look-ahead has one future, the true one, and takes
whatever is best in it. It leaves PLE windows to the host (`decision.window`).

What counts is useful work in time, or in CPU time where VMs with an end take more of it than their allowance and than
they have under the base rule. Otherwise the best action would often be the one that takes most from endless VMs.

Gains are skewed: an action that saves a little may once in fifty times bring a convoy that lasts, which few futures
show. And a fair scheduler takes back later what a VM was given out of turn: a horizon that ends before that sees only
the gain.

Both know who holds which lock, who waits, and how long a section has lasted: they are bounds, not policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.drive import ASK, RESET, STEP
from ple_gym.lanes import Lanes
from ple_gym.policies import Compiled
from ple_gym.scenario.model import Scenario
from ple_gym.sim import state
from ple_gym.sim.memory import handle
from ple_gym.sim.redraw import redrawer
from ple_gym.sim.seam import host_of

ERRORS = 2.0  # standard errors by which an action must be better than the base rule's
CLAIRVOYANT = 0  # samples of who knows the future
TO_THE_END = 0  # horizon
WORLDS = 4  # in which the base rule's pace is measured

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Choices:
    """What the decisions of a run were.

    Attributes:
        decisions: all of them; open: those with more than one legal action.
        matter: open ones where some action differs from the base rule's by more than two standard errors.
        resume, defer, favour: those where another action than the base rule's was taken, by what that was.
    """

    decisions: int = 0
    open: int = 0
    matter: int = 0
    resume: int = 0
    defer: int = 0
    favour: int = 0

    @property
    def deviations(self) -> int:
        """Decisions that were not the base rule's."""
        return self.resume + self.defer + self.favour


@dataclass(frozen=True)
class Lesson:
    """A decision as a learner may see it: observation [length], which actions are legal [V + 1], and the one taken."""

    observation: npt.NDArray[np.float32]
    legal: npt.NDArray[np.bool_]
    action: int


@dataclass
class LookAhead:
    """A decider that tries every action.

    Args:
        scenario: the machine.
        base: who decides after the first action, and wherever no action is clearly better.
        samples: futures that an action is judged in; CLAIRVOYANT: the true one.
        horizon_us: how far it looks, microseconds; TO_THE_END: to the end of the run.
        allowance: the share of all CPU time that VMs with an end may have beside others (`evaluate.scores.allowance`).
        teaches: keep what a learner could learn from.
        between: called at each decision; it may end everything by raising.
    """

    scenario: Scenario
    base: Compiled
    samples: int
    horizon_us: int
    allowance: float = 0.0
    teaches: bool = False
    between: Callable[[], None] = lambda: None
    choices: Choices = field(default_factory=Choices)
    lessons: list[Lesson] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lane = Lanes(self.scenario, 1, information="hypervisor", policy=self.base)
        self._copies = Lanes(self.scenario, 1, policy=self.base)
        self._redraw = redrawer(host_of(self.scenario.host.scheduler)).entry
        vms = self.scenario.vms().values()
        ends = [vm.transactions > 0 for vm in vms]
        counted = [vm.takes_locks or vm.sends_interrupts for vm in vms] if self.scenario.endless else ends
        self._counted = np.array(counted)
        self._own_vcpus = np.repeat(self._counted, [vm.vcpus for vm in vms])
        self._end = int(self.lane.layout["limit"])
        self._horizon = self.horizon_us * self.scenario.host.tsc_hz // 10**6 or self._end
        self._rate, self._share = self._usual()

    def run(self, seed: int) -> dict[str, Any]:
        """Simulate world `seed` to its end; its `Lanes.totals`."""
        lane = self.lane
        lane.world["seed"], lane.world["index"] = seed, 0
        lane.drive(0, 1, RESET)
        if lane.world["index"][0] > 0 or lane.world["status"][0] != state.DECIDE:  # there is nothing to decide in it
            lane.run(0, seed)
            return lane.totals(0)
        while lane.world["status"][0] == state.DECIDE:
            self.between()
            legal = np.flatnonzero(lane.mask[0, : lane.vcpus + 1])
            lane.drive(0, 1, ASK, decides=True)
            usual = int(lane.action[0])
            lane.action[0] = chosen = self._choose(legal, usual, seed) if len(legal) > 1 else usual
            self._note(legal, usual, chosen)
            lane.drive(0, 1, STEP)
        return lane.totals(0)

    def _note(self, legal: Ints, usual: int, chosen: int) -> None:
        choices = self.choices
        choices.decisions += 1
        choices.open += len(legal) > 1
        if self.teaches and len(legal) > 1:
            mask, targets = self.lane.mask[0] != 0, self.lane.vcpus + 1
            self.lessons.append(Lesson(self.lane.observation[0].copy(), mask[:targets], chosen % targets))
        if chosen == usual:
            return
        if chosen == self.lane.vcpus:
            choices.defer += 1
        elif chosen == int(self.lane.pcpu["current"][0, self.lane.world["deciding"][0]]):
            choices.resume += 1
        else:
            choices.favour += 1

    def _choose(self, legal: Ints, usual: int, seed: int) -> int:
        others = legal[legal != usual]
        if self.samples == CLAIRVOYANT:
            gains = self._gains(usual, others, np.zeros(1, np.int64))[:, 0]
            self.choices.matter += bool((gains != 0).any())
            return int(others[gains.argmax()]) if gains.max() > 0 else usual
        draws = np.random.default_rng([seed, self.choices.decisions])
        screened = self._gains(usual, others, _salts(draws, max(4, self.samples // 4)))
        mean, error = screened.mean(axis=1), _errors(screened)
        self.choices.matter += bool((np.abs(mean) > ERRORS * error).any())
        best = int(mean.argmax())
        if mean[best] <= error[best]:
            return usual
        judged = self._gains(usual, others[best : best + 1], _salts(draws, self.samples))
        return int(others[best]) if judged.mean() > ERRORS * _errors(judged)[0] else usual

    def _gains(self, usual: int, others: Ints, salts: Ints) -> Floats:
        """By how many cycles each other action is better than the usual one, in each future: [actions, futures]."""
        actions = np.concatenate([[usual], others])
        futures, count = len(salts), len(actions) * len(salts)
        copies = self._room(count)
        copies.rows[:count] = self.lane.rows[0]
        copies.action[:count] = np.repeat(actions, futures)
        if self.scenario.has_goals:
            copies.histogram[:count, state.RESPONSES] = self.lane.histogram[0, state.RESPONSES]
        if self.samples != CLAIRVOYANT:
            salt = np.tile(salts, len(actions))
            self._redraw(handle(copies.places), 0, count, handle(salt))
        now = int(self.lane.world["now"][0])
        copies.layout["limit"] = min(now + self._horizon, self._end)
        copies.drive(0, count, STEP, decides=True)
        values = self._values(copies, count).reshape(len(actions), futures)
        gains: Floats = values[1:] - values[0]
        return gains

    def _usual(self) -> tuple[float, float]:
        """Useful cycles of the VMs that are counted per cycle, and pCPUs that they have, under the base rule in worlds
        that are no fresh ones, or may have if that is more; any number of pCPUs if there are no others."""
        lane = self.lane
        useful: float = 0
        cpu = now = 0
        for seed in range(WORLDS):
            lane.run(0, seed)
            useful += self._useful(lane, 1)[0].item()
            cpu += int(lane.vcpu["cpu_time"][0, self._own_vcpus].sum())
            now += int(lane.world["now"][0])
        allowance = 0.0 if np.isinf(self.allowance) else self.allowance * self.scenario.host.pcpus
        had = max(max(1, cpu) / max(1, now), allowance)
        return useful / max(1, now), np.inf if self._counted.all() else had

    def _values(self, copies: Lanes, count: int) -> Floats:
        """Useful cycles of the VMs whose end is awaited, or if there are none of those that wait; less what the base
        rule would get done in the time, or in the CPU time that they have had. So a run that ends before the horizon
        counts what it saves, and nobody gains by taking from the others."""
        useful = self._useful(copies, count)
        had = copies.vcpu["cpu_time"][:count, self._own_vcpus].sum(axis=1) / self._share
        values: Floats = useful - self._rate * np.maximum(copies.world["now"][:count], had)
        return values

    def _useful(self, lanes: Lanes, count: int) -> npt.NDArray[Any]:
        """Useful cycles of the VMs that are counted, in each of the first lanes; 1 / r of them where late responses
        make time count r times (`evaluate.scores.slower`)."""
        useful: npt.NDArray[Any] = lanes.vm["useful"][:count, self._counted].sum(axis=1)
        if self.scenario.has_goals:
            return useful / [max(1.0, lanes.responses(lane)["p99"] / 1000) for lane in range(count)]
        return useful

    def _room(self, count: int) -> Lanes:
        if self._copies.count < count:
            self._copies = Lanes(self.scenario, count, policy=self.base)
        return self._copies


def _salts(draws: np.random.Generator, count: int) -> Ints:
    return draws.integers(2**62, size=count)


def _errors(gains: Floats) -> Floats:
    """Standard errors of the means over futures."""
    error: Floats = gains.std(axis=1, ddof=1) / gains.shape[1] ** 0.5
    return error
