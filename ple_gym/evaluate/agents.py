"""Agents in comparisons: whatever has the `predict` of Stable-Baselines3 decides at every PLE exit of a run.

A run of an agent is that of a rule: a world from time 0 to its end, the agent asked at each exit. Up to `LANES` runs go
side by side, so that one call of `predict` answers for all of them; an agent that remembers something gets back the
state that it returned, and is told which rows have just begun, as SB3's recurrent policies are.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ple_gym.drive import RESET, STEP
from ple_gym.envs.interface import ILLEGAL, LEVELS, OBSERVATIONS, Interface
from ple_gym.envs.options import Illegal, Information, ObservationForm
from ple_gym.episode import how_far, summarise
from ple_gym.errors import PolicyError
from ple_gym.evaluate.comparison import Asked, Run
from ple_gym.messages import plain, show
from ple_gym.objects import blame
from ple_gym.progress import LONG_S, Report
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import check, choice
from ple_gym.sim import state
from ple_gym.sim.constants import WINDOWS

LANES = 16  # runs side by side: a network asked for 16 takes hardly longer than for one


class Predicts(Protocol):
    """What an agent is: Stable-Baselines3's models and policies are, and any object with this method."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """The actions for N observations, and what is to be handed back in the next call.

        Args:
            observation: float32 [N, length]; as `tokens` a dict of `vcpus` [N, V, F] and `host` [N, G].
            state: what the call before returned; None in the first.
            episode_start: bool [N], which rows are the first of a run.
            deterministic: True.

        Returns:
            Actions, whole numbers [N], 0..V, or where an action has two parts [N, 2]; and any state.
        """


@dataclass(frozen=True, eq=False)
class Agent:
    """An agent with a name.

    Attributes:
        name: of its row.
        thing: what has `predict`. If that takes `action_masks`, it gets the legal actions, bool [N, V + 1] (with
            `decision.window = agent` [N, V + 1 + 6], unless its `action_space` is Discrete).
        information: level of its observations.
        observation: their form.
        illegal: whether an illegal action of its ends everything (`raise`), or defers and is counted (`defer`).

    The last three are the thing's own attributes, if it has them.

    Raises:
        PolicyError: a thing without `predict`, or an attribute that is another word.
    """

    name: str
    thing: Predicts
    information: Information = "hypervisor"
    observation: ObservationForm = "flat"
    illegal: Illegal = "raise"

    def __post_init__(self) -> None:
        if not callable(getattr(self.thing, "predict", None)):
            raise PolicyError(
                f"policy {show(self.thing)}: must be the name of a rule, learned:NAME or learned:FILE.npz, or an "
                "object with predict(observation, state, episode_start, deterministic)"
            )
        for option, words in (("information", LEVELS), ("observation", OBSERVATIONS), ("illegal", ILLEGAL)):
            own = getattr(self.thing, option, getattr(self, option))
            check(f"agent {self.name}: {option}", choice(*words), own, PolicyError)
            object.__setattr__(self, option, own)

    def interface(self, scenario: Scenario) -> Interface:
        """How it sees a scenario.

        Raises:
            PolicyError: it says that it takes other observations or actions (`observation_space`, `action_space`).
        """
        interface = Interface(scenario, information=self.information, observation=self.observation)
        for name, given in (
            ("observation_space", interface.observation_space()),
            ("action_space", interface.action_space()),
        ):
            wanted = getattr(self.thing, name, None)
            if wanted is not None and _shape(wanted) not in (_shape(given), interface.vcpus + 1):
                raise PolicyError(
                    f"agent {plain(self.name)}: its {name} is {_told(wanted)}; {plain(scenario.name)} at level "
                    f"{self.information}, {self.observation}, has {_told(given)}"
                )
        return interface


def _shape(space: Any) -> object:
    """What two spaces must have in common: shapes by name, or how many actions there are."""
    if hasattr(space, "spaces"):
        return {name: part.shape for name, part in space.spaces.items()}
    if hasattr(space, "nvec"):
        return tuple(space.nvec.tolist())
    return int(space.n) if hasattr(space, "n") else getattr(space, "shape", None)


def _told(space: Any) -> str:
    shape = _shape(space)
    parts = [f"{name} {part}" for name, part in shape.items()] if isinstance(shape, dict) else [str(shape)]
    return f"{type(space).__name__} {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class AgentRuns:
    """Runs of an agent, in the order of the seeds; the wall seconds that all of them took; what the agent did."""

    runs: list[Run]
    seconds: float
    asked: Asked


def run_agent(agent: Agent, scenario: Scenario, seeds: Sequence[int], report: Report) -> AgentRuns:
    """Run a scenario to its end once per seed; `report` is told of runs that are done, in this thread.

    Raises:
        PolicyError: the agent does not fit the scenario, raises something, or answers what it may not.
    """
    started = time.perf_counter()
    play = _Play(agent, scenario, seeds, report)
    play.to_the_end()
    asked = Asked(play.decisions, play.illegal, play.predict_s)
    return AgentRuns([play.runs[place] for place in range(len(seeds))], time.perf_counter() - started, asked)


class _ReplacedError(Exception):
    """A world has ended without a decision, and the kernel has gone on to the one that replaces it."""


class _Play:
    """Runs side by side: each lane takes the next seed when its run has ended."""

    def __init__(self, agent: Agent, scenario: Scenario, seeds: Sequence[int], report: Report) -> None:
        self.agent, self.scenario, self.report = agent, scenario, report
        self.interface = agent.interface(scenario)
        self.count = min(LANES, len(seeds))
        self.lanes = self.interface.lanes(self.count, policy="host")
        self.predict = agent.thing.predict
        self.targets = self.interface.vcpus + 1
        self.takes_masks = "action_masks" in _parameters(self.predict)
        self.waiting = deque(enumerate(seeds))
        self.at = [(-1, -1)] * self.count  # place in the list and seed of each lane's run
        self.deciding = np.zeros(self.count, np.bool_)  # lanes in which a decision is due
        self.starting = np.zeros(self.count, np.bool_)  # of these, those whose first one it is
        self.runs: dict[int, Run] = {}
        self.decisions = self.illegal = 0
        self.predict_s = 0.0
        self.told = time.perf_counter()

    def to_the_end(self) -> None:
        """Make all runs."""
        memory = None
        for lane in range(self.count):
            self._next_run(lane)
        while self.deciding.any():
            answer, memory = self._ask(memory)
            self.lanes.action[:] = self._checked(answer)
            self.starting[:] = False
            self.decisions += int(self.deciding.sum())
            self.lanes.drive(0, self.count, STEP, between=self._tell)
            for lane in np.flatnonzero(self.deciding & (self.lanes.world["status"] != state.DECIDE)).tolist():
                self._keep(lane)
                self._next_run(lane)
            self._tell(int(self.deciding.argmax()))

    def _next_run(self, lane: int) -> None:
        """Go to the first decision of the next seed that has one; keep the runs that have none."""
        self.deciding[lane] = self.starting[lane] = False
        while self.waiting:
            self.at[lane] = self.waiting.popleft()
            if self._starts(lane, self.at[lane][1]):
                self.deciding[lane] = self.starting[lane] = True
                return
            self._keep(lane)

    def _starts(self, lane: int, seed: int) -> bool:
        """Go from time 0 to the world's first decision; without any, to its end, the same under every rule."""
        world = self.lanes.world

        def between(lane: int) -> None:
            self._tell(lane)
            if world["index"][lane]:
                raise _ReplacedError

        world["seed"][lane], world["index"][lane] = seed, 0
        with suppress(_ReplacedError):
            self.lanes.drive(lane, lane + 1, RESET, between=between)
            if world["index"][lane] == 0:
                return True
        self.lanes.run(lane, seed, between=self._tell)
        return False

    def _keep(self, lane: int) -> None:
        place, seed = self.at[lane]
        self.runs[place] = {"seed": seed, **summarise(self.scenario, self.lanes.totals(lane))}
        self.report(len(self.runs))

    def _ask(self, memory: Any) -> tuple[Any, Any]:
        """What the agent answers, and what it wants to be handed back."""
        observation = self.interface.arrange(self.lanes.observation.copy())
        options: dict[str, Any] = {"state": memory, "episode_start": self.starting.copy(), "deterministic": True}
        if self.takes_masks:
            one_part = hasattr(getattr(self.agent.thing, "action_space", None), "n")
            masks = self.lanes.mask[:, : self.targets] if one_part else self.lanes.mask
            options["action_masks"] = (masks != 0) | ~self.deciding[:, np.newaxis]
        began = time.perf_counter()
        try:
            answer = self.predict(observation, **options)
        except Exception as failure:
            raise self._error(f"predict raised {blame(failure)}") from failure
        self.predict_s += time.perf_counter() - began
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._error(f"predict must return a pair, actions and state, not {show(answer)}")
        return answer

    def _checked(self, answer: Any) -> npt.NDArray[np.int64]:
        """The actions of all lanes, as lanes take them; of those that have nothing to decide, to defer."""
        try:
            actions = np.asarray(answer)
        except Exception:  # ragged, or what no array can hold
            raise self._error(f"predict must return {self.count} whole numbers, not {show(answer)}") from None
        pairs = self.interface.parts != () and actions.shape == (self.count, 2) and actions.dtype.kind in "iu"
        if pairs:
            actions = self.interface.joined(actions, self.count, 2)
        if actions.shape != (self.count,) or actions.dtype.kind not in "iu":
            raise self._error(
                f"predict must return {self.count} whole numbers, one for each row of the observation, not "
                f"{actions.dtype} {actions.shape}"
            )
        defer = self.interface.vcpus
        outside = self.deciding & ((actions < 0) | ((actions > defer) & (not pairs)))
        if outside.any():
            lane = int(outside.argmax())
            allowed = f"0..{defer}, 0..{WINDOWS - 1}" if pairs else f"0..{defer}"
            raise self._error(f"its action {np.asarray(answer)[lane]}, on seed {self.at[lane][1]}, must be {allowed}")
        actions = np.where(self.deciding, actions, defer).astype(np.int64)
        targets = actions % self.targets
        illegal = self.deciding & (self.lanes.mask[np.arange(self.count), targets] == 0)
        if illegal.any():
            self._illegal(targets, illegal)
        return actions

    def _illegal(self, actions: npt.NDArray[np.int64], illegal: npt.NDArray[np.bool_]) -> None:
        """Refuse or count illegal actions."""
        if self.agent.illegal == "raise":
            lane = int(illegal.argmax())
            legal = ", ".join(map(str, np.flatnonzero(self.lanes.mask[lane, : self.targets])))
            raise self._error(
                f"its action {actions[lane]}, on seed {self.at[lane][1]}, is not legal there; legal are {legal} (an "
                "agent that knows no masks may have the attribute illegal = 'defer')"
            )
        self.illegal += int(illegal.sum())

    def _tell(self, lane: int) -> None:
        """Say how far a run is, now and then."""
        if time.perf_counter() - self.told > LONG_S:
            self.told = time.perf_counter()
            self.report(len(self.runs), how_far(self.lanes, lane, self.at[lane][1], self.agent.name))

    def _error(self, what: str) -> PolicyError:
        return PolicyError(f"agent {plain(self.agent.name)}: {what}")


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of what is written in C nobody knows
        return ()
