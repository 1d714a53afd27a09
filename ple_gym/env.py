"""The Gymnasium environment: at each PLE exit, which vCPU runs next on that pCPU?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ple_gym import observe, render, scenarios
from ple_gym.drive import OBSERVE, RESET, STEP
from ple_gym.episode import summarise
from ple_gym.lanes import INFORMATION, REWARDS, Lanes
from ple_gym.parameters import unknown
from ple_gym.scenario import Scenario
from ple_gym.sim import state

OBSERVATIONS = ("flat", "tokens")
ILLEGAL = ("defer", "raise")
MAX_SEED = 2**63 - 1
_TRACE_ROWS = 8192  # events kept for pictures: some ten milliseconds of a storm
_DECIDE, _FINISHED, _TIMED_OUT = (float(code) for code in (state.DECIDE, state.FINISHED, state.TIMED_OUT))

Observation = npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]]


class PleEnv(gym.Env[Any, Any]):
    """One simulated machine; a decision is due at every pause-loop exit, on the pCPU where it happened.

    **Action**, `Discrete(V + 1)`: 0..V-1 runs that vCPU here, now (the asker's own number resumes it, one from
    another pCPU's queue is pulled and pays for its migration); V defers to the host scheduler's own yield.
    `info["action_mask"]` (int8 [V + 1]) tells which are legal; the asker and V always are. An illegal action defers,
    and is reported: `info["illegal_action"]`, counted in `ple_episode`; with `illegal="raise"` it raises and changes
    nothing.

    **Observation**, float32: `flat` is one vector, feature by feature all vCPUs, then the host's
    (`observe.VCPU_FEATURES`, `observe.HOST_FEATURES`); `tokens` is a dict of the same, `vcpus` [V, F] and `host` [G].
    The information level (`hypervisor`, `introspection`, `oracle`) adds features and changes nothing else.

    **Reward** since the previous decision, in milliseconds of the whole machine: `waste` is minus the pCPU time that
    was no guest progress (spin, exit, switch, cache, idle) and how much further each endless neighbour got from its
    entitlement; with fixed work and no neighbour it sums to minus (makespan - ideal makespan), counted from the first
    decision.
    `time` is minus the time itself; `fair` is `waste` plus the growth of the largest lag of a VM beyond 10 ms.

    **End**: `terminated` when the fixed work is done, `truncated` at the simulated-time limit; then
    `info["ple_episode"]` holds the run's record (`episode.summarise`).

    **Start**: `reset(seed=n)` starts world n, the same that `ple-gym simulate --seeds n` runs, at its first decision. A
    world that ends before one is replaced by the next index of the same seed; both are in `info`.

    Decisions are not evenly spaced: `info["elapsed_cycles"]` is the simulated time since the previous one.

    Args:
        scenario: a name, an id, a .toml or .json file, or a `Scenario`.
        information: `hypervisor`, `introspection` or `oracle`.
        observation: `flat` or `tokens`.
        reward: `waste`, `time` or `fair`.
        illegal: what an illegal action does: `defer` or `raise`.
        overrides: scenario parameters by dotted name, e.g. `{"host.ratelimit_us": 500}`.
        render_mode: `ansi` or `rgb_array`: the last milliseconds as a timeline.

    Raises:
        ScenarioError: an unknown name, or a parameter out of its range.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}

    def __init__(
        self,
        scenario: str | Scenario = "Storm",
        *,
        information: str = "hypervisor",
        observation: str = "flat",
        reward: str = "waste",
        illegal: str = "defer",
        overrides: Mapping[str, object] | None = None,
        render_mode: str | None = None,
    ) -> None:
        _one_of("information level", information, [name for name in INFORMATION if name != "none"])
        _one_of("observation", observation, OBSERVATIONS)
        _one_of("reward", reward, REWARDS)
        _one_of("treatment of illegal actions", illegal, ILLEGAL)
        if render_mode is not None:
            _one_of("render mode", render_mode, self.metadata["render_modes"])
        if isinstance(scenario, str):
            scenario = scenarios.load(scenario)
        self.scenario = scenario.with_overrides(overrides or {})
        self.render_mode = render_mode
        self.tokens = observation == "tokens"
        self.lanes = Lanes(self.scenario, 1, reward, information)
        vcpus, features = self.lanes.vcpus, observe.vcpu_features(INFORMATION[information])
        self.action_space = spaces.Discrete(vcpus + 1)
        if self.tokens:
            shapes = {"vcpus": (vcpus, features), "host": (observe.HOST_LENGTH,)}
            self.observation_space = spaces.Dict({name: _box(shape) for name, shape in shapes.items()})
        else:
            self.observation_space = _box((vcpus * features + observe.HOST_LENGTH,))
        self._trace = np.zeros((_TRACE_ROWS if render_mode else 0, state.TRACE_WIDTH), np.int64)
        self._reset, self._step, self._show = (
            self.lanes.bind(0, 1, command, trace=self._trace) for command in (RESET, STEP, OBSERVE)
        )
        self._action = self.lanes.world["action"]
        self._result = self.lanes.result[0]
        self._mask = self.lanes.mask[0]
        self._flat = self.lanes.observation[0]
        self._raises = illegal == "raise"
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a world and go to its first decision.

        Without a seed a new world is drawn from `np_random`. No options are known.

        Raises:
            ValueError: a seed outside 0..2^63-1 or an unknown option.
            RuntimeError: 1,001 worlds in a row ended without a decision.
        """
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed = {seed}: must be 0..{MAX_SEED}")
        for name in options or {}:
            raise unknown("reset option", name, ())
        super().reset(seed=seed)
        world = self.lanes.world
        world["seed"][0] = self.np_random.integers(MAX_SEED) if seed is None else seed
        world["index"][0] = 0
        self._reset()
        self._running = self._result[state.RESULT_STATUS] == _DECIDE
        if not self._running:
            raise RuntimeError(
                f"{self.scenario.name}: worlds 0..{world['index'][0]} of seed {world['seed'][0]} have no PLE exit: "
                "there is nothing to decide"
            )
        return self._observe(), {
            "action_mask": self._mask.copy(),
            "elapsed_cycles": 0,
            "seed": int(world["seed"][0]),
            "index": int(world["index"][0]),
        }

    def step(self, action: SupportsInt) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out a decision and go to the next one, or to the end.

        Raises:
            ValueError: an action outside the space, or an illegal one with `illegal="raise"`; nothing has changed.
            RuntimeError: the run is over.
        """
        if not self._running:
            raise RuntimeError("the run is over: call reset() before step()")
        number = int(action)
        if not 0 <= number <= self.lanes.vcpus or (self._raises and not self._mask[number]):
            legal = ", ".join(str(one) for one in np.flatnonzero(self._mask))
            raise ValueError(f"action {action} is not legal here; legal are {legal} (info['action_mask'])")
        self._action[0] = number
        self._step()
        reward, status, elapsed, illegal = self._result.tolist()
        info: dict[str, Any] = {"action_mask": self._mask.copy(), "elapsed_cycles": int(elapsed)}
        if illegal:
            info["illegal_action"] = True
        if status == _DECIDE:
            return (self._observe() if self.tokens else self._flat.copy()), reward, False, False, info
        self._running = False
        info["ple_episode"] = summarise(self.scenario, self.lanes.totals(0))
        info["ple_episode"]["illegal_actions"] = int(self.lanes.world["illegal_actions"][0])
        return self._observe(), reward, status == _FINISHED, status == _TIMED_OUT, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Legal actions of the decision that is due: bool [V + 1], as sb3-contrib's MaskablePPO asks for."""
        return np.asarray(self._mask, np.bool_)

    def get_state(self) -> bytes:
        """The whole state, exactly: what `set_state` of an environment with the same scenario and level takes."""
        return self.lanes.save(0)

    def set_state(self, saved: bytes) -> tuple[Observation, dict[str, Any]]:
        """Go back to a saved state; returns what `reset` would.

        Raises:
            ValueError: not a state, damaged, or of another scenario or version; nothing has changed.
        """
        self.lanes.restore(0, saved)
        self._running = self._result[state.RESULT_STATUS] == _DECIDE
        self._trace[:] = 0
        self.lanes.world["traced"][0] = 0
        world = self.lanes.world[0]
        return self._observe(), {
            "action_mask": self._mask.copy(),
            "elapsed_cycles": int(self._result[state.RESULT_ELAPSED]),
            "seed": int(world["seed"]),
            "index": int(world["index"]),
        }

    def observe_again(self) -> Observation:
        """The observation of the decision that is due, written anew from the state as it is now."""
        self._show()
        return self._observe()

    def trace(self) -> npt.NDArray[np.int64]:
        """The events kept for rendering, oldest first: int64 [n, 5] (`trace.py`); empty without a render mode."""
        count = int(self.lanes.world["traced"][0])
        if count <= len(self._trace):
            return self._trace[:count].copy()
        return np.roll(self._trace, -(count % len(self._trace)), axis=0)

    def render(self) -> str | npt.NDArray[np.uint8] | None:
        """The last milliseconds as a timeline, in the way of the paper's Figures 3 to 6; None without a render mode."""
        if self.render_mode is None:
            return None
        trace = self.trace()
        stop = int(self.lanes.world["now"][0])
        start = max(int(trace[0, 0]) if len(trace) else 0, stop - self.scenario.host.tsc_hz // 200)
        draw = render.timeline_ansi if self.render_mode == "ansi" else render.timeline_rgb
        return draw(trace, self.lanes.pcpus, self.lanes.vcpus, start, stop)

    def _observe(self) -> Observation:
        flat: npt.NDArray[np.float32] = self._flat.copy()
        if not self.tokens:
            return flat
        columns, host = flat[: -observe.HOST_LENGTH], flat[-observe.HOST_LENGTH :]
        return {"vcpus": columns.reshape(-1, self.lanes.vcpus).T.copy(), "host": host.copy()}


def _box(shape: tuple[int, ...]) -> spaces.Box:
    return spaces.Box(observe.LOW, observe.HIGH, shape, np.float32)


def _one_of(what: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise unknown(what, value, allowed, list_all=True)
