"""Thousands of simulated machines as one Gymnasium `VectorEnv`: one compiled call steps them all.

Lane i is the environment that `PleEnv` with the seed of lane i would be, bit for bit: in each autoreset mode, with any
number of threads, through all episodes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ple_gym.drive import NEXT, OBSERVE, RESET, STEP, STEP_OR_NEXT
from ple_gym.envs.buffers import Buffers
from ple_gym.envs.infos import Infos, nest
from ple_gym.envs.interface import (
    TRACE_ROWS,
    Observation,
    checked_options,
    make_interface,
    one_of,
    picture_of,
    whole_number,
)
from ple_gym.envs.options import (
    AutoresetWord,
    Illegal,
    Information,
    InfosForm,
    ObservationForm,
    ObservationType,
    RenderMode,
    Reward,
    Start,
)
from ple_gym.envs.pool import Pool
from ple_gym.episode import Episode, episode_of
from ple_gym.errors import ArgumentError
from ple_gym.lanes import NO_TRACE, STARTS, never_starts
from ple_gym.messages import show
from ple_gym.policies import Compiled
from ple_gym.scenario.model import Scenario, never_decides
from ple_gym.scenario.parameters import MAX_SEED, checked_seed
from ple_gym.sim import state
from ple_gym.sim.constants import WINDOWS
from ple_gym.traces import pictures as render

MODES = {mode.value: mode for mode in AutoresetMode}
DRAWINGS = {"ansi": render.timeline_ansi, "rgb_array": render.timeline_rgb}
LANES_PER_THREAD = 512  # fewer are not worth the 0.1 ms that it takes to wake a thread and to wait for it

Bools = npt.NDArray[np.bool_]

#: What `_bind` makes: addresses in this process, and threads. Copies and pickles go without.
_BOUND = ("lanes", "_pool", "_buffers")


class PleVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` environments that are stepped together; `gymnasium.make_vec("PLE/Storm-v1", num_envs=1024)`.

    Actions, observations, rewards and information levels are those of `PleEnv`, one row per lane. `infos` holds
    `action_mask` (int8 [N, V + 1]) and `elapsed_cycles` (int64 [N]) for every lane at every step, `illegal_action` only
    if there was one, and `ple_episode` (nested arrays, as Gymnasium nests infos) for lanes whose run has just ended.
    With `infos="uniform"` they are those of `PleEnv` at every reset and step: also `illegal_action`, `seed` and `index`
    (int64 [N]), and no `ple_episode`.

    Every array that is returned is the caller's: nothing is written to one that somebody holds. A lane's worlds follow
    each other as `PleEnv.reset()` lets them. Copies and pickles keep everything, as those of `PleEnv` do.

    Args:
        num_envs: number of lanes N.
        scenario, information, observation, observation_dtype, reward, start, illegal, infos, overrides: as in `PleEnv`;
            with `illegal="raise"` one illegal action stops all lanes, and changes none.
        autoreset_mode: `NextStep`, `SameStep` or `Disabled`, or a `gymnasium.vector.AutoresetMode`.
        max_episode_steps: decisions after which an episode is truncated; None or -1: as many as it takes.
        threads: threads that share the lanes; 0: one per CPU, but at least 512 lanes for each.
        render_mode: `ansi` or `rgb_array`: one timeline per lane.

    Raises:
        ScenarioError: an unknown scenario, or a parameter out of its range.
        ArgumentError: an unknown word or a number out of its range for another option.

    Examples:
        >>> envs = ple_gym.PleVectorEnv(3, "TicketOrder")
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape, infos["action_mask"].shape
        ((3, 127), (3, 7))
        >>> observations, rewards, terminations, truncations, infos = envs.step(envs.sample_actions())
        >>> rewards.shape, infos["elapsed_cycles"].dtype
        ((3,), dtype('int64'))
    """

    def __init__(
        self,
        num_envs: int = 1,
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
        autoreset_mode: AutoresetWord | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        threads: int = 0,
        render_mode: RenderMode | None = None,
    ) -> None:
        if not isinstance(autoreset_mode, AutoresetMode):
            one_of("autoreset mode", autoreset_mode, MODES)
        if render_mode is not None:
            one_of("render mode", render_mode, DRAWINGS)
        if max_episode_steps == -1:  # how `gymnasium.make` is asked for no limit
            max_episode_steps = None
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
        self.scenario = self.interface.scenario
        self.num_envs = num_envs = whole_number("num_envs", num_envs, 1)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self._resets_next = self.autoreset_mode is AutoresetMode.NEXT_STEP
        self._is_sparse = infos == "sparse"
        self._raises, self._parts, defer = illegal == "raise", self.interface.parts, self.interface.vcpus
        self._shape, self._most = (num_envs, *self._parts), (defer + 1) * (WINDOWS if self._parts else 1) - 1
        self._allowed = f"0..{defer} and 0..{WINDOWS - 1}" if self._parts else f"0..{defer}"
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": list(DRAWINGS), "render_fps": 10}
        self.render_mode = render_mode
        self.max_episode_steps = (
            None if max_episode_steps is None else whole_number("max_episode_steps", max_episode_steps, 1)
        )
        self.single_action_space = self.interface.action_space()
        self.single_observation_space = self.interface.observation_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.threads = whole_number("threads", threads, 0) or max(
            1, min(os.cpu_count() or 1, num_envs // LANES_PER_THREAD)
        )
        self._traces = np.zeros((num_envs, TRACE_ROWS, state.TRACE_WIDTH), np.int64) if render_mode else None
        self._all = np.ones(num_envs, np.bool_)
        self._seeded = np.zeros(num_envs, np.bool_)  # lanes that are in some world
        self._over = np.ones(num_envs, np.bool_)  # lanes whose episode has ended, or not begun
        self._any_over = True
        # No step pays for the limit until a lane can be due: then `_due` is looked at again.
        self._clock = 0  # steps of all lanes together
        self._begun = np.zeros(num_envs, np.int64)  # the clock when each lane's episode began
        self._due = 0  # the clock before which no lane is cut off
        #: In mode `SameStep`: lane -> observation and info of the last step of the run that ended in this step.
        self.ends: dict[int, tuple[Observation, Infos]] = {}
        self._bind()

    def _bind(self) -> None:
        """Make the machines, and a place for their threads."""
        self.lanes = self.interface.lanes(self.num_envs)
        self._pool = Pool(self.num_envs, min(self.threads, self.num_envs))
        self._buffers = Buffers(self.lanes.observation.shape, self.lanes.observation.dtype)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Start all lanes, or some of them.

        Args:
            seed: of lane 0 (lane i gets `seed + i`), or one per lane; None: a lane's next world, at first any.
            options: `reset_mask`: bool [N], which lanes are reset (the others are only observed again); `start`:
                `first` or `storm`, for these worlds; `state`: one for all of them, or a list of one per lane that is
                reset.

        Raises:
            ArgumentError, TypeError: a seed, a mask or another option that is not as described; nothing has changed.
            ValueError: a state that does not fit; nothing has changed.
            RuntimeError: in this scenario nothing can ever be decided, or 1,001 worlds in a row ended before they
                reached their start.
        """
        asked = checked_options(options, "reset_mask", "start", "state")
        chosen = self._reset_mask(asked.get("reset_mask"))
        lanes = np.flatnonzero(chosen)
        if "state" in asked:
            if seed is not None:
                raise ArgumentError("reset: a state contains its world, so it takes no seed")
            self._restore(lanes, asked["state"])
        else:
            seeds = self._seeds(seed)
            if reason := never_decides(self.scenario):
                raise RuntimeError(f"{self.scenario.name}: there is nothing to decide: {reason}")
            super().reset(seed=None if seed is None or isinstance(seed, Sequence | np.ndarray) else int(seed))
            self._start(lanes, seeds, STARTS[asked.get("start", self.interface.start)])
        return self._present(chosen)

    def step(self, actions: npt.ArrayLike) -> tuple[Observation, npt.NDArray[np.float64], Bools, Bools, Infos]:
        """Carry out a decision in every lane and go on to the next one.

        Args:
            actions: int [N], or [N, 2] where an action has two parts; where the mode is `NextStep`, those of lanes
                that ended in the step before are ignored.

        Raises:
            ArgumentError: not such numbers, one outside the action space, or an illegal one with `illegal="raise"`;
                nothing has changed.
            RuntimeError: not reset yet, or a run is over that nothing resets.
        """
        try:
            numbers = np.asarray(actions)
        except (ValueError, TypeError):  # ragged, or what no array can hold
            raise ArgumentError(self._not_integers(show(actions))) from None
        if numbers.shape != self._shape or numbers.dtype.kind not in "iu":
            what = show(actions) if numbers.dtype == object else f"{numbers.dtype} {numbers.shape}"
            raise ArgumentError(self._not_integers(what))
        pairs = numbers
        if self._parts:
            numbers = self.interface.joined(pairs, *pairs.shape)
        resets = self._over if self._any_over else None
        if resets is not None and not (self._resets_next and self._seeded.all()):
            raise RuntimeError(self._needs_reset())
        if self._raises:
            self._check_legal(numbers)
        self.lanes.action[:] = numbers
        self._fresh_observation()
        remarkable = self._drive(STEP if resets is None else STEP_OR_NEXT)
        if remarkable < 0:
            self._drive(OBSERVE)
            raise ArgumentError(self._outside(numbers, pairs))
        # In most steps nothing else happens. Then no numpy arithmetic: its code is out of the cache, and costs 10 us.
        result = self.lanes.result
        rewards = result[state.RESULT_REWARD].copy()
        infos = self._infos(result[state.RESULT_ELAPSED])
        terminations, truncations = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        self.ends = {}
        if remarkable:
            status, illegal = result[state.RESULT_STATUS], result[state.RESULT_ILLEGAL]
            terminations, truncations = status == state.FINISHED, status == state.TIMED_OUT
            if illegal.any() and self._is_sparse:
                infos["illegal_action"], infos["_illegal_action"] = illegal != 0, illegal != 0
        is_due = False
        if self.max_episode_steps is not None:
            self._clock += 1
            is_due = self._clock >= self._due
            if resets is not None:
                self._begun[resets] = self._clock
            if is_due:
                truncations |= (self._clock - self._begun >= self.max_episode_steps) & ~terminations
        if resets is not None:
            self._check_started(np.flatnonzero(resets))
        if not self._is_sparse:
            self._name_worlds(infos, self._all)
            infos["illegal_action"], infos["_illegal_action"] = result[state.RESULT_ILLEGAL] != 0, self._all.copy()
        elif resets is not None:
            self._name_worlds(infos, resets)
        if remarkable or resets is not None or is_due:
            self._over = terminations | truncations
            self._any_over = bool(self._over.any())
            if self._any_over:
                self._end(infos)
        if is_due:
            self._look_ahead()
        return self.interface.arrange(self.lanes.observation), rewards, terminations, truncations, infos

    def render(self) -> tuple[Any, ...] | None:
        """The last milliseconds of each lane as a timeline; None without a render mode."""
        if self._traces is None or self.render_mode is None:
            return None
        draw = DRAWINGS[self.render_mode]
        return tuple(draw(*picture_of(self.lanes, i, ring)) for i, ring in enumerate(self._traces))

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads. Gymnasium 1.2 closes even what could not be made."""
        if hasattr(self, "_pool"):
            self._pool.close()

    # ------------------------------------------------------------------------------------------------------- actions

    def action_masks(self) -> Bools:
        """Legal actions of the decisions that are due: bool [N, V + 1] or [N, V + 1 + 6], fresh."""
        return self.lanes.mask.astype(np.bool_)

    def sample_actions(self, generator: np.random.Generator | None = None) -> npt.NDArray[np.int64]:
        """One legal action per lane, uniformly: int64 [N], or [N, 2]. (Gymnasium's `sample(mask=...)` is slow.)

        Args:
            generator: where the randomness comes from; None: `np_random`, which `reset(seed=n)` seeds.
        """
        generator, mask = generator or self.np_random, self.lanes.mask[:, : self.lanes.vcpus + 1]
        draws = generator.random(mask.shape, np.float32)
        actions: npt.NDArray[np.int64] = np.where(mask, draws, -1).argmax(axis=1)
        return np.column_stack([actions, generator.integers(WINDOWS, size=len(mask))]) if self._parts else actions

    def ask(self, rule: str | Compiled) -> npt.NDArray[np.int64]:
        """What a rule, or another policy, would do in each lane: as `step` takes it; -1 where no decision is due.

        Nothing changes. It remembers what it does at the start of a run: nothing.

        Raises:
            PolicyError: there is no such policy.
            RuleFault: an answer is not legal.
        """
        answers = self.lanes.ask(rule)
        return self.interface.parted(answers) if self._parts else answers

    # -------------------------------------------------------------------------------------------------------- states

    def get_state(self, lane: int) -> bytes:
        """The whole state of a lane, exactly: for any lane or `PleEnv` with the same options, in any process."""
        return self.lanes.save(self._lane(lane))

    def set_state(self, lane: int, saved: bytes) -> tuple[Observation, Infos]:
        """Put a lane into a saved state; returns what a reset of that lane would. Its steps are counted from here.

        Raises:
            ValueError: not a state, damaged, or of another scenario or version; nothing has changed.
        """
        chosen = np.zeros(self.num_envs, np.bool_)
        chosen[self._lane(lane)] = True
        return self.reset(options={"reset_mask": chosen, "state": saved})

    def fork(self, source: int, targets: Sequence[int] | slice = slice(None)) -> tuple[Observation, Infos]:
        """Copy a lane into others (all, if none are named), steps included; returns what a reset of those would.

        Raises:
            IndexError: a lane that there is not; nothing has changed.
        """
        source = self._lane(source)
        chosen = np.zeros(self.num_envs, np.bool_)
        chosen[targets] = True
        self.lanes.copy(source, chosen)
        self._fresh_observation()
        begun = self._begun[source]
        self._seeded[chosen] = self._seeded[source]
        presented = self._present(chosen)
        self._begun[chosen] = begun
        self._look_ahead()
        return presented

    def scenario_of(self, lane: int) -> Scenario:
        """The scenario that a lane is in: of a fleet each lane has its own, and `scenario` is the fleet's first."""
        return self.lanes.scenario_of(self._lane(lane))

    def episode_record(self, lane: int) -> Episode:
        """The record of a lane's run so far: what `ple_episode` holds when it has ended."""
        return episode_of(self.lanes, self._lane(lane))

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: all attributes and the exact states, none of the addresses in this process."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _BOUND}
        return kept | {"_saved": [self.lanes.save(lane) if on else None for lane, on in enumerate(self._seeded)]}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Take the attributes, and make machines in those states.

        Raises:
            ValueError: a state that does not fit.
        """
        self.__dict__.update({name: value for name, value in kept.items() if name != "_saved"})
        # A shallow copy shares no array that is written to.
        self._seeded = np.array([saved is not None for saved in kept["_saved"]])
        self._begun = self._begun.copy()
        self.ends = dict(self.ends)
        if self._traces is not None:
            self._traces = np.array(self._traces, np.int64, order="C").reshape(self.num_envs, -1, state.TRACE_WIDTH)
        self._bind()
        for lane, saved in enumerate(kept["_saved"]):
            if saved is not None:
                self.lanes.restore(lane, saved)
        self._over = self.lanes.world["status"] != state.DECIDE
        self._any_over = bool(self._over.any())

    # ------------------------------------------------------------------------------------------------------- helpers

    def _drive(self, command: int) -> int:
        """Run a command on all lanes, on all threads; returns what `Lanes.drive` does."""
        try:
            if self._traces is not None:  # a ring takes the events of one lane
                return sum(self.lanes.drive(i, i + 1, command, trace=ring) for i, ring in enumerate(self._traces))
            return self._pool.run(self.lanes.drive, command)
        except BaseException:  # Ctrl-C: some lanes have been stepped, others not
            self.lanes.cut_off(self._all)
            self._over[:] = self._any_over = True
            raise

    def _fresh_observation(self) -> None:
        """Let observations go to an array that nobody else has, and spare a copy."""
        array = self._buffers.take()
        if array is not self.lanes.observation:
            self.lanes.observation = array

    def _look_ahead(self) -> None:
        """When a lane may be cut off next, at the earliest."""
        if self.max_episode_steps is not None:
            self._due = int(self._begun.min()) + self.max_episode_steps

    def _not_integers(self, what: str) -> str:
        """Says what actions must be."""
        integers = "pairs of integers" if self._parts else "integers"
        return f"actions must be {self.num_envs} {integers}, not {what}; each must be {self._allowed}"

    def _outside(self, numbers: npt.NDArray[np.integer[Any]], pairs: npt.NDArray[np.integer[Any]]) -> str:
        """Says which actions are not in the space."""
        lanes = np.flatnonzero((numbers < 0) | (numbers > self._most))
        where = f"lane {lanes[0]}" if len(lanes) == 1 else f"{len(lanes)} lanes, the first of them {lanes[0]}"
        found = pairs[lanes[0]].tolist() if self._parts else f"{numbers.min()}..{numbers.max()}"
        return f"actions must be {self._allowed}, not {found}: see {where}"

    def _check_legal(self, numbers: npt.NDArray[np.integer[Any]]) -> None:
        """Raise ArgumentError if an action is illegal, of a lane that has something to decide."""
        inside = (numbers >= 0) & (numbers <= self._most)
        targets = np.where(inside, numbers, 0).astype(np.int64) % (self.lanes.vcpus + 1)
        legal = self.lanes.mask[np.arange(self.num_envs), targets] != 0
        wrong = np.flatnonzero(inside & ~legal & ~self._over)
        if len(wrong):
            lane = int(wrong[0])
            allowed = ", ".join(str(one) for one in np.flatnonzero(self.lanes.mask[lane, : self.lanes.vcpus + 1]))
            raise ArgumentError(f"action {targets[lane]} of lane {lane} is not legal here; legal are {allowed}")

    def _needs_reset(self) -> str:
        """Says why there is nothing to step."""
        if not self._seeded.all():
            return f"lanes {np.flatnonzero(~self._seeded)[:8]} are not reset yet: call reset() before step()"
        return f"the runs of lanes {np.flatnonzero(self._over)[:8]} are over: call reset() before step()"

    def _lane(self, lane: int) -> int:
        if not 0 <= lane < self.num_envs:
            raise IndexError(f"lane {lane}: must be 0..{self.num_envs - 1}")
        return lane

    def _reset_mask(self, mask: Any) -> Bools:
        """Which lanes to reset: all, or those of the mask, which stays the caller's."""
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"options['reset_mask'] must be a bool array, not {kind}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ArgumentError(f"options['reset_mask'] must have shape ({self.num_envs},) and name a lane, not {mask}")
        return mask.copy()

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        """One seed per lane."""
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, Sequence | np.ndarray):
            if len(seed) != self.num_envs:
                raise ArgumentError(f"seed: must be one number or {self.num_envs}, not {len(seed)}")
            return [None if one is None else checked_seed(one) for one in seed]
        checked_seed(checked_seed(seed) + self.num_envs - 1)
        return [int(seed) + lane for lane in range(self.num_envs)]

    def _start(self, lanes: npt.NDArray[np.intp], seeds: list[int | None], start: int) -> None:
        """Start worlds in some lanes."""
        world = self.lanes.world
        world["start"][lanes] = start  # of these worlds, not of those that follow
        self._fresh_observation()
        for lane in lanes:
            seed = seeds[lane]
            if seed is None and not self._seeded[lane]:
                seed = int(self.np_random.integers(MAX_SEED))
            if seed is not None:
                world["seed"][lane], world["index"][lane] = seed, 0
            self._drive_lane(int(lane), NEXT if seed is None else RESET)
        world["start"][lanes] = STARTS[self.interface.start]
        self._seeded[lanes] = True
        self._check_started(lanes)

    def _drive_lane(self, lane: int, command: int) -> None:
        ring = NO_TRACE if self._traces is None else self._traces[lane]
        self.lanes.drive(lane, lane + 1, command, trace=ring)

    def _restore(self, lanes: npt.NDArray[np.intp], states: bytes | Sequence[bytes]) -> None:
        """Put saved states into some lanes: into all of them, or into none if one does not fit."""
        each = [states] * len(lanes) if isinstance(states, bytes) else list(states)
        if len(each) != len(lanes):
            raise ArgumentError(f"options['state']: must be one state or {len(lanes)}, not {len(each)}")
        before = self.lanes.keep(lanes)
        self._fresh_observation()
        try:
            for lane, saved in zip(lanes, each, strict=True):
                self.lanes.restore(int(lane), saved)
        except ValueError:
            self.lanes.put_back(lanes, before)
            self._drive(OBSERVE)
            raise
        self.lanes.world["traced"][lanes] = 0
        self._seeded[lanes] = True

    def _check_started(self, lanes: npt.NDArray[np.intp]) -> None:
        """Raise RuntimeError if a lane went through all replacement worlds."""
        stuck = lanes[self.lanes.world["status"][lanes] != state.DECIDE]
        if len(stuck):
            raise RuntimeError(never_starts(self.lanes, int(stuck[0])))

    def _present(self, chosen: Bools) -> tuple[Observation, Infos]:
        """What a reset of the chosen lanes returns."""
        self._drive(OBSERVE)
        self._over[chosen] = self.lanes.world["status"][chosen] != state.DECIDE
        self._any_over = bool(self._over.any())
        self._begun[chosen] = self._clock
        self._look_ahead()
        self.ends = {}
        infos = self._infos(np.where(chosen, self.lanes.result[state.RESULT_ELAPSED], 0))
        infos["_elapsed_cycles"] = chosen.copy()
        self._name_worlds(infos, chosen)
        if not self._is_sparse:
            infos["illegal_action"], infos["_illegal_action"] = np.zeros(self.num_envs, np.bool_), chosen.copy()
        return self.interface.arrange(self.lanes.observation), infos

    def _infos(self, elapsed: npt.NDArray[np.float64]) -> Infos:
        """What every step says of every lane."""
        return {
            "action_mask": self.lanes.mask.copy(),
            "_action_mask": self._all.copy(),
            "elapsed_cycles": elapsed.astype(np.int64),
            "_elapsed_cycles": self._all.copy(),
        }

    def _name_worlds(self, infos: Infos, lanes: Bools) -> None:
        """Say which worlds have just been started."""
        for name in ("seed", "index"):
            infos[name] = np.where(lanes, self.lanes.world[name].astype(np.int64), 0)
            infos[f"_{name}"] = lanes.copy()

    def _end(self, infos: Infos) -> None:
        """Report the runs that have just ended, and start the next ones where the mode is `SameStep`."""
        ended = np.flatnonzero(self._over).tolist()
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            if self._is_sparse:
                for lane in ended:
                    nest(infos, {"ple_episode": episode_of(self.lanes, lane)}, lane, self.num_envs)
            self.lanes.cut_off(self._over & (self.lanes.world["status"] == state.DECIDE))
            return
        infos["final_obs"] = np.full(self.num_envs, None, object)
        infos["_final_obs"] = self._over.copy()
        for lane in ended:
            observation = self.interface.arrange(self.lanes.observation[lane].copy())
            info = self._final_info(lane, infos)
            self.ends[lane] = observation, info
            infos["final_obs"][lane] = observation
            nest(infos, {"final_info": info}, lane, self.num_envs)
            self._drive_lane(lane, NEXT)
        self._check_started(np.array(ended))
        self._name_worlds(infos, self._over if self._is_sparse else self._all)
        infos["action_mask"][ended] = self.lanes.mask[ended]
        infos["elapsed_cycles"][ended] = 0
        self._begun[ended] = self._clock
        self._over[:] = self._any_over = False

    def _final_info(self, lane: int, infos: Infos) -> Infos:
        """Take a lane's last step out of the infos of all, and return the infos that `PleEnv` would give with it."""
        info = {"action_mask": infos["action_mask"][lane].copy(), "elapsed_cycles": int(infos["elapsed_cycles"][lane])}
        if not self._is_sparse:
            info |= {name: infos[name][lane].item() for name in ("illegal_action", "seed", "index")}
            infos["illegal_action"][lane] = False
            return info
        if "illegal_action" in infos and infos["_illegal_action"][lane]:
            info["illegal_action"] = True
            infos["illegal_action"][lane] = infos["_illegal_action"][lane] = False
        return {**info, "ple_episode": episode_of(self.lanes, lane)}
