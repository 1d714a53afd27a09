"""The Gymnasium environment: at each PLE exit, which vCPU runs next on that pCPU?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import index
from sys import getrefcount
from typing import Any, SupportsIndex

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ple_gym.drive import NEXT, RESET, STEP
from ple_gym.envs.buffers import ONLY_THE_LIST
from ple_gym.envs.interface import (
    TRACE_ROWS,
    Observation,
    checked_options,
    make_interface,
    one_of,
    picture_of,
)
from ple_gym.envs.options import (
    Illegal,
    Information,
    InfosForm,
    ObservationForm,
    ObservationType,
    RenderMode,
    Reward,
    Start,
)
from ple_gym.episode import Episode, episode_of
from ple_gym.errors import ArgumentError
from ple_gym.lanes import STARTS, never_starts
from ple_gym.messages import show
from ple_gym.policies import Compiled
from ple_gym.scenario.model import Scenario, never_decides
from ple_gym.scenario.parameters import MAX_SEED, checked_seed
from ple_gym.sim import state
from ple_gym.sim.constants import WINDOWS
from ple_gym.traces import pictures as render
from ple_gym.traces.events import unrolled

_ADVANCING, _DECIDE, _FINISHED, _TIMED_OUT = map(
    float, (state.ADVANCING, state.DECIDE, state.FINISHED, state.TIMED_OUT)
)

_REWARD, _ELAPSED = state.RESULT_REWARD, state.RESULT_ELAPSED

#: What `_bind` makes: addresses in this process, and views of memory that they name. Copies and pickles go without.
_BOUND = ("lanes", "_step", "_action", "_results", "_mask", "_flat", "_last", "_spare")


class PleEnv(gym.Env[Any, Any]):
    """One simulated machine; a decision is due at every pause-loop exit, on the pCPU where it happened.

    **Action**, `Discrete(V + 1)`: 0..V-1 runs that vCPU here, now (the asker's own number resumes it, one from
    another pCPU's queue is pulled and pays for its migration); V defers to the host scheduler's own yield.
    `info["action_mask"]` (int8 [V + 1]) says which are legal; the asker and V always are. An illegal action defers,
    and is reported: `info["illegal_action"]`, counted in `ple_episode`; with `illegal="raise"` it raises and changes
    nothing. What is not in the space at all always raises.
    With `decision.window = agent` it is `MultiDiscrete([V + 1, 6])`: the second part leaves the asker's PLE window to
    the host (0), or makes it 1, 4, 16, 64 or 256 times `ple.window`. Masks are [V + 1 + 6].

    **Observation**: `flat` is one vector, feature by feature all vCPUs, then the host's; `tokens` is a dict of the
    same, `vcpus` [V, F] and `host` [G]. docs/observation.md lists the features; `view.features.names_at(level)` and
    `HOST_FEATURES` tell their order. The information level (`hypervisor`, `introspection`, `oracle`) adds features and
    changes nothing else. `observation_dtype`: `float32`; `float16`; or `uint8`, codes 0..252 over each feature's range,
    which `interface.decode` turns back into float32.

    **Reward** since the previous decision, in milliseconds of the whole machine: `waste` is minus the pCPU time that
    was no guest progress (spin, exit, switch, cache, idle), and minus how much further each endless neighbour got from
    its entitlement. With fixed work and no neighbour it sums to minus (makespan - ideal makespan), counted from the
    first decision.
    `time` is minus the time itself; `fair` is `waste` plus the growth of the largest lag of a VM beyond 10 ms.
    `response` is `waste` minus the time beyond their goals of all responses, where a VM has a `response_goal_us`.

    **End**: `terminated` when the fixed work is done, `truncated` at the simulated-time limit; then
    `info["ple_episode"]` holds the run's record (`episode.summarise`).

    **Start**: `reset(seed=n)` starts world n, the same that `ple-gym simulate --seeds n` runs, at its first decision,
    or where it is first in a storm of exits under its host's own rule (docs/model.md, 12.1). A world that ends before
    is replaced by the next index of the same seed; both are in `info`. `reset()` without a seed starts the world that
    follows the present one: a seed names a whole sequence of worlds, and a state contains what follows it.

    Decisions are not evenly spaced: `info["elapsed_cycles"]` is the simulated time since the previous one.

    **Infos** hold a key only when there is something to report. Some libraries need the same keys and shapes at every
    reset and step: with `infos="uniform"` they are always `action_mask`, `elapsed_cycles`, `illegal_action`, `seed` and
    `index`, and `episode_record` returns the record.

    **Copies** and pickles keep everything: attributes (a subclass's too), `spec`, the generators, the trace. The
    machine of a copy is its own.

    Args:
        scenario: a name, an id, a .toml or .json file, or a `Scenario`; or a fleet, which draws one for each episode.
        information: `hypervisor`, `introspection` or `oracle`.
        observation: `flat` or `tokens`.
        observation_dtype: `float32`, `float16` or `uint8`.
        reward: `waste`, `time`, `fair` or `response`.
        start: `first` (decision) or `storm`: where every world starts unless an option of `reset` says otherwise.
        illegal: what an illegal action does: `defer` or `raise`.
        infos: `sparse` or `uniform`.
        overrides: scenario parameters by dotted name, e.g. `{"host.ratelimit_us": 500}`.
        render_mode: `ansi` or `rgb_array`: the last milliseconds as a timeline.

    Raises:
        ScenarioError: an unknown scenario, or a parameter out of its range.
        ArgumentError: an unknown word for another option.

    Examples:
        >>> env = ple_gym.PleEnv("TicketOrder", information="oracle", observation="tokens")
        >>> observation, info = env.reset(seed=0)
        >>> observation["vcpus"].shape, observation["host"].shape, info["action_mask"].shape
        ((6, 27), (13,), (7,))
        >>> observation, reward, terminated, truncated, info = env.step(6)  # defers to the host
        >>> terminated, truncated
        (False, False)
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}

    def __init__(
        self,
        scenario: str | Scenario = "Storm",
        *,
        information: Information = "hypervisor",
        observation: ObservationForm = "flat",
        observation_dtype: ObservationType = "float32",
        reward: Reward = "waste",
        start: Start = "first",
        illegal: Illegal = "defer",
        infos: InfosForm = "sparse",
        overrides: Mapping[str, object] | None = None,
        render_mode: RenderMode | None = None,
    ) -> None:
        if render_mode is not None:
            one_of("render mode", render_mode, self.metadata["render_modes"])
        self.interface = make_interface(
            scenario,
            overrides,
            information=information,
            observation=observation,
            observation_dtype=observation_dtype,
            reward=reward,
            start=start,
            illegal=illegal,
            infos=infos,
        )
        self.render_mode = render_mode
        self.action_space = self.interface.action_space()
        self.observation_space = self.interface.observation_space()
        self._trace = np.zeros((TRACE_ROWS if render_mode else 0, state.TRACE_WIDTH), np.int64)
        self._is_flat, self._arrange = observation == "flat", self.interface.arrange
        self._is_sparse = infos == "sparse"
        self._targets = self.interface.vcpus + 1
        self._parts = self.interface.parts
        self._most = self._targets * (WINDOWS if self._parts else 1) - 1
        self._raises = illegal == "raise"
        self._running = self._seeded = False
        self._bind()

    @property
    def scenario(self) -> Scenario:
        """The scenario; of a fleet, the world of this episode."""
        return self.lanes.scenario_of(0)

    def _bind(self) -> None:
        """Make the machine, and the fast ways to what is in it."""
        self.lanes = self.interface.lanes(1)
        self._step = self.lanes.bind(STEP, trace=self._trace)
        # Two arrays to observe into in turns, unless somebody still holds the one whose turn it is, and the step there.
        self._last, self._spare = self._other_step(), self._other_step()
        # One number goes faster into a memory view, or out of it, than into an array.
        self._action = self.lanes.action.data
        self._results = self.lanes.result[:, 0].data
        self._mask = self.lanes.mask[0]
        self._flat = self.lanes.observation[0]

    def _other_step(self) -> tuple[npt.NDArray[Any], Callable[[], int]]:
        """An array, and the call that steps and observes into it."""
        flat = np.empty_like(self.lanes.observation[0])
        return flat, self.lanes.bind(STEP, trace=self._trace, observation=flat)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a world and go to its first decision.

        Args:
            seed: the world; None: the one that follows the present one, at first any.
            options: `start`: `first` or `storm`, for this world; `state`: what `get_state` returned, to go on from.

        Raises:
            ArgumentError: a seed outside 0..2^63-1, or an unknown option; nothing has changed.
            ValueError: a state that does not fit; nothing has changed.
            RuntimeError: in this scenario nothing can ever be decided, or 1,001 worlds in a row ended before they
                reached their start.
        """
        asked = checked_options(options, "start", "state")
        if seed is not None:
            seed = checked_seed(seed)
        if "state" in asked:
            if seed is not None:
                raise ArgumentError("reset: a state contains its world, so it takes no seed")
            return self.set_state(asked["state"])
        if reason := never_decides(self.scenario):
            raise RuntimeError(f"{self.scenario.name}: there is nothing to decide: {reason}")
        super().reset(seed=seed)
        world = self.lanes.world
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(MAX_SEED))
        world["start"][0] = STARTS[asked.get("start", self.interface.start)]
        if seed is not None:
            world["seed"][0], world["index"][0] = seed, 0
        self._running = False
        self.lanes.drive(0, 1, NEXT if seed is None else RESET, trace=self._trace)
        self._seeded = True
        self._running = self._results[state.RESULT_STATUS] == _DECIDE
        if not self._running:
            raise RuntimeError(never_starts(self.lanes, 0))
        return self._present()

    def step(self, action: SupportsIndex | npt.ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out a decision and go to the next one, or to the end.

        Raises:
            ArgumentError: an action outside the space, or an illegal one with `illegal="raise"`; nothing has changed.
            RuntimeError: not reset yet, or the run is over.
        """
        if not self._running:
            raise RuntimeError(f"{'the run is over' if self._seeded else 'not reset yet'}: call reset() before step()")
        try:
            number = int(self.interface.joined(action, 2)) if self._parts else index(action)  # type: ignore[arg-type]
        except (TypeError, ValueError):  # no float is taken for a whole number
            number = -1
        if not 0 <= number <= self._most or (self._raises and not self._mask[number % self._targets]):
            raise ArgumentError(self._not_legal(action, number))
        self._action[0] = number
        results, spare = self._results, self._spare
        if getrefcount(spare[0]) == ONLY_THE_LIST:
            flat, told = spare[0], spare[1]()
            self._last, self._spare = spare, self._last
        else:
            told = self._step()
            flat = self._flat.copy()
        if not told and self._is_sparse:  # in most steps nothing else happens; a call more would cost a twentieth
            info = {"action_mask": self._mask.copy(), "elapsed_cycles": int(results[_ELAPSED])}
            return flat if self._is_flat else self._arrange(flat), results[_REWARD], False, False, info
        if told > 1:
            self.lanes.go_on(told, 1, STEP, trace=self._trace)
            flat = self._flat.copy()
        reward, info = results[_REWARD], self._timed()
        illegal, status = bool(results[state.RESULT_ILLEGAL]), results[state.RESULT_STATUS]
        self._running = status == _DECIDE
        if not self._is_sparse:
            info |= self._named(illegal)
        elif illegal:
            info["illegal_action"] = True
        if status == _ADVANCING:
            raise RuntimeError("the step before was interrupted: call reset() before step()")
        if self._is_sparse and not self._running:
            info["ple_episode"] = self.episode_record()
        return self._arrange(flat), reward, status == _FINISHED, status == _TIMED_OUT, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Legal actions of the decision that is due: bool [V + 1] (or [V + 1 + 6]), as MaskablePPO asks for."""
        return np.asarray(self._mask, np.bool_)

    def get_state(self) -> bytes:
        """The whole state, exactly: what `set_state` of an environment with the same options takes, in any process."""
        return self.lanes.save(0)

    def set_state(self, saved: bytes) -> tuple[Observation, dict[str, Any]]:
        """Go back to a saved state; returns what `reset` would.

        Raises:
            ValueError: not a state, damaged, or of another scenario or version; nothing has changed.
        """
        self.lanes.restore(0, saved)
        self._seeded = True
        self._running = self._results[state.RESULT_STATUS] == _DECIDE
        self._trace[:] = 0
        self.lanes.world["traced"][0] = 0
        return self._present()

    def ask(self, rule: str | Compiled) -> int | npt.NDArray[np.int64]:
        """What a rule, or another policy, would do in the decision that is due, as `step` takes it. Nothing changes.

        It remembers what it does at the start of a run: nothing.

        Raises:
            PolicyError: there is no such policy.
            RuleFault: the answer is not legal (a PolicyError).
            RuntimeError: no decision is due.
        """
        if not self._running:
            raise RuntimeError("no decision is due: call reset() before ask()")
        answer = self.lanes.ask(rule)
        return self.interface.parted(answer)[0] if self._parts else int(answer[0])

    def episode_record(self) -> Episode:
        """The record of the run so far: what `info["ple_episode"]` holds when it has ended."""
        return episode_of(self.lanes, 0)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: all attributes and the exact state, none of the addresses in this process."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _BOUND}
        return kept | {"_saved": self.lanes.save(0) if self._seeded else None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Take the attributes, and make a machine in that state.

        Raises:
            ValueError: a state that does not fit.
        """
        saved, trace = kept["_saved"], kept["_trace"]
        self.__dict__.update({name: value for name, value in kept.items() if name != "_saved"})
        self._trace = np.array(trace, np.int64, order="C").reshape(-1, state.TRACE_WIDTH)
        self._bind()
        if saved is not None:
            self.lanes.restore(0, saved)
        self._seeded = saved is not None
        self._running = self._seeded and self._results[state.RESULT_STATUS] == _DECIDE

    def trace(self) -> npt.NDArray[np.int64]:
        """Events kept for rendering, oldest first: int64 [n, 5] (`traces/events.py`); empty without a render mode."""
        return unrolled(self._trace, int(self.lanes.world["traced"][0]))

    def render(self) -> str | npt.NDArray[np.uint8] | None:
        """The last milliseconds as a timeline, in the way of the paper's Figures 3 to 6; None without a render mode."""
        if self.render_mode is None:
            return None
        draw = render.timeline_ansi if self.render_mode == "ansi" else render.timeline_rgb
        return draw(*picture_of(self.lanes, 0, self._trace))

    def _observe(self) -> Observation:
        return self._arrange(self._flat.copy())

    def _timed(self) -> dict[str, Any]:
        """What infos hold at every step."""
        return {"action_mask": self._mask.copy(), "elapsed_cycles": int(self._results[_ELAPSED])}

    def _named(self, illegal: bool) -> dict[str, Any]:
        """What infos hold beside mask and time where they are to be uniform."""
        world = self.lanes.world[0]
        return {"illegal_action": illegal, "seed": int(world["seed"]), "index": int(world["index"])}

    def _not_legal(self, action: object, number: int) -> str:
        """Return why an action is refused; `number` is the action as a number, negative if it is none."""
        defer = self._targets - 1
        if not 0 <= number <= self._most:
            more = f", and another, 0..{WINDOWS - 1}" if self._parts else ""
            return f"action {show(action)} is not legal: it must be a whole number, 0..{defer}{more}"
        legal = ", ".join(str(one) for one in np.flatnonzero(self._mask[: self._targets]))
        return f"action {number % self._targets} is not legal here; legal are {legal} (info['action_mask'])"

    def _present(self) -> tuple[Observation, dict[str, Any]]:
        """What a reset returns."""
        world = self.lanes.world[0]
        info = self._timed()
        if self._is_sparse:
            return self._observe(), info | {"seed": int(world["seed"]), "index": int(world["index"])}
        return self._observe(), info | self._named(False)
