"""The checker of vector environments passes good ones, and finds each of many faults by the check meant for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from test_docs import python_script

from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.testing import CHECKS, VectorEnvError, check_vector_env

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
MODES = [NEXT_STEP, SAME_STEP, DISABLED]
#: The check of each mode, which applies if episodes have ended.
ENDS = {
    NEXT_STEP: "autoreset_next_step",
    SAME_STEP: "autoreset_same_step",
    DISABLED: "autoreset_disabled",
}
#: Short runs, so that there are many of them.
SHORT = {"guest.vcpus": 6, "guest.transactions": 2, "guest.sections": 3}


def name_of(value: object) -> str:
    return getattr(value, "name", None) or getattr(value, "__name__", None) or str(value)


# ----------------------------------------------------------------------------------------------------- what passes


@pytest.mark.parametrize("mode", MODES, ids=name_of)
@pytest.mark.parametrize(
    ("threads", "options"),
    [
        (1, {"scenario": "Storm", "overrides": SHORT}),
        (3, {"scenario": "Storm", "overrides": SHORT, "observation": "tokens", "information": "oracle"}),
        (2, {"scenario": "Tiny", "overrides": {"guest.transactions": 2}, "observation": "tokens", "reward": "fair"}),
        (2, {"scenario": "HolderPreempted", "reward": "time"}),
    ],
    ids=["flat", "tokens", "Tiny", "HolderPreempted"],
)
def test_ours_passes(mode: AutoresetMode, threads: int, options: dict[str, Any]) -> None:
    report = check_vector_env(
        lambda: PleVectorEnv(num_envs=3, autoreset_mode=mode, threads=threads, **options),
        lambda: PleEnv(**options),
        steps=40,
    )
    assert {"masks", "lanes_are_singles", "partial_reset", ENDS[mode]} <= set(report.passed)
    modes = {*ENDS.values(), "autoreset_start"} - {ENDS[mode], "autoreset_start" if mode is NEXT_STEP else ""}
    assert set(report.not_applicable) == modes


def test_ours_passes_with_a_step_limit() -> None:
    report = check_vector_env(
        lambda: gym.make_vec("PLE/Storm-v1", num_envs=3, max_episode_steps=7),
        steps=40,
    )
    assert report.not_applicable.keys() == {ENDS[SAME_STEP], ENDS[DISABLED], "lanes_are_singles"}


def cart_pole() -> gym.Env:
    return gym.make("CartPole-v1")


#: What Gymnasium's SyncVectorEnv does not do: it takes `reset_mask` out of the caller's options
#: (Farama-Foundation/Gymnasium#1696); in release 1.2 it also writes into the metadata of the environment's class.
SYNC = ["own_metadata", "reset_mask_kept"]
SHARES_METADATA = SyncVectorEnv([cart_pole]).metadata is SyncVectorEnv([cart_pole]).metadata


@pytest.mark.parametrize("mode", MODES, ids=name_of)
def test_gymnasiums_sync_vector_env(mode: AutoresetMode) -> None:

    def make() -> VectorEnv:
        return SyncVectorEnv([cart_pole] * 3, autoreset_mode=mode)

    with pytest.raises(VectorEnvError, match=r"reset_mask_kept: the caller's options after the reset: .* found {}"):
        check_vector_env(make, cart_pole, steps=60, skip=["own_metadata"])
    if SHARES_METADATA:
        with pytest.raises(VectorEnvError, match=r"^own_metadata: "):
            check_vector_env(make, cart_pole, steps=60)
    report = check_vector_env(make, cart_pole, steps=60, skip=SYNC)
    assert {"lanes_are_singles", ENDS[mode]} <= set(report.passed)


#: What Gymnasium's own CartPole does not do, and why. Each is found (the next test), so the list stays true.
NATIVE_CART_POLE = {
    "own_metadata": "its metadata is that of the class",
    "seed_of_lanes": "it takes no list of seeds: one generator serves all lanes",
    "independent_lanes": "one generator serves all lanes, so an end in one changes where others start again",
    "lanes_are_singles": "one generator serves all lanes",
    "autoreset_start": "it has no partial reset",
    "partial_reset": "it has no partial reset: reset_mask is ignored",
    "wrong_reset_mask": "it has no partial reset: reset_mask is ignored",
}


def native_cart_pole() -> VectorEnv:
    return gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")


def test_gymnasiums_native_cart_pole() -> None:
    report = check_vector_env(native_cart_pole, cart_pole, steps=120, skip=NATIVE_CART_POLE)
    assert "autoreset_next_step" in report.passed
    assert "masks" in report.not_applicable


@pytest.mark.parametrize("check", NATIVE_CART_POLE)
def test_what_native_cart_pole_does_not_do_is_found(check: str) -> None:
    with pytest.raises(VectorEnvError, match=rf"^{check}: "):
        check_vector_env(native_cart_pole, cart_pole, steps=120, skip=set(CHECKS) - {check})


# ------------------------------------------------------------------------------------------ a small good environment


class Corridor(gym.Env):
    """Six cells; the last one is the end, the way left of the first one is not legal. Rewards are random."""

    observation_space: spaces.Space = spaces.Box(0, 1, (2,), np.float32)
    action_space: spaces.Space = spaces.Discrete(3)  # left, right, stay
    metadata: dict = {"render_modes": []}
    strict = True

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.cell, self.steps, self.limit = int(self.np_random.integers(2)), 0, self.np_random.integers(4, 12)
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple:
        if self.strict and not self.info()["action_mask"][action]:
            raise ValueError(f"action {action} is not legal")
        self.cell = max(self.cell + (-1, 1, 0)[action], 0)
        self.steps += 1
        over = self.cell == 5, bool(self.steps >= self.limit)
        return self.observe(), float(self.np_random.random()), over[0], over[1] and not over[0], self.info()

    def observe(self) -> Any:
        return np.array([self.cell / 5, self.np_random.random()], np.float32)

    def info(self) -> dict[str, Any]:
        return {"action_mask": np.array([self.cell > 0, 1, 1], np.int8), "place": {"cell": self.cell}}


class Good(SyncVectorEnv):
    """Corridors that are stepped together; `changed` is where subclasses go wrong."""

    corridor: Any = Corridor
    mode = NEXT_STEP

    def __init__(self) -> None:
        super().__init__([self.corridor] * 3, autoreset_mode=self.mode)
        self.metadata = dict(self.metadata)  # Gymnasium 1.2 shares it

    def reset(self, *, seed: Any = None, options: dict | None = None) -> tuple:
        return self.changed(*super().reset(seed=seed, options=dict(options or {})))

    def step(self, actions: Any) -> tuple:
        return self.changed(*super().step(actions))

    def changed(self, observation: Any, *rest: Any) -> tuple:
        return observation, *rest


class Several(Corridor):
    """The same with several parts of everything."""

    strict = False

    observation_space = spaces.Dict(
        {"cell": spaces.Discrete(6), "noise": spaces.Tuple([spaces.Box(0, 1, (2, 1), np.float64)])}
    )
    action_space = spaces.MultiDiscrete([3, 2])

    def step(self, action: Any) -> tuple:
        return super().step(2 if action[1] else max(int(action[0]), 1))

    def observe(self) -> Any:
        return {"cell": np.int64(self.cell), "noise": (self.np_random.random((2, 1)),)}

    def info(self) -> dict[str, Any]:
        return {**super().info(), "action_mask": np.array([0, 1, 1, 1, 1], np.int8), "name": f"cell {self.cell}"}


class Pushed(Several):
    """Continuous actions."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def step(self, action: Any) -> tuple:
        return super().step(np.array([1, action[0] > 0]))

    def info(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("mode", MODES, ids=name_of)
@pytest.mark.parametrize("corridor", [Corridor, Several, Pushed], ids=name_of)
def test_a_good_environment_passes(mode: AutoresetMode, corridor: type[Corridor]) -> None:
    make = type("Made", (Good,), {"mode": mode, "corridor": corridor})
    report = check_vector_env(make, corridor, steps=40)
    not_here = {*ENDS.values(), "autoreset_start"} - {ENDS[mode], "autoreset_start" if mode is NEXT_STEP else ""}
    assert set(report.not_applicable) == not_here | ({"masks"} if corridor is Pushed else set())
    assert report.passed == [name for name in CHECKS if name not in report.not_applicable]


# ------------------------------------------------------------------------------------------------------------ faults


FAULTS: list[tuple[str, type[Good]]] = []


def found_by(check: str, mode: AutoresetMode = NEXT_STEP) -> Any:
    """The check that is meant for a faulty environment."""

    def register(faulty: type[Good]) -> type[Good]:
        faulty.mode = mode
        FAULTS.append((check, faulty))
        return faulty

    return register


@found_by("metadata")
class WritesIntoTheBaseClassMetadata(Good):
    def __init__(self) -> None:
        super().__init__()
        VectorEnv.metadata["autoreset_mode"] = self.mode


@found_by("metadata")
class NamesItsModeByAString(Good):
    def __init__(self) -> None:
        super().__init__()
        self.metadata["autoreset_mode"] = "NextStep"


@found_by("own_metadata")
class SharesTheMetadataOfItsClass(Good):
    metadata: dict = {}

    def __init__(self) -> None:
        super().__init__()
        del self.metadata
        self.metadata["autoreset_mode"] = self.mode


@found_by("spaces")
class DoesNotBatchItsActionSpace(Good):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = self.single_action_space


@found_by("outputs")
class ReturnsWiderFloats(Good):
    def changed(self, observation: Any, *rest: Any) -> tuple:
        return observation.astype(np.float64), *rest


@found_by("outputs")
class LeavesItsObservationSpace(Good):
    def changed(self, observation: Any, *rest: Any) -> tuple:
        return observation * 2, *rest


@found_by("outputs")
class DropsALaneOfItsObservation(Good):
    def changed(self, observation: Any, *rest: Any) -> tuple:
        return observation[1:], *rest


class ChangesSteps(Good):
    """A step that is not what it should be."""

    def changed(self, *returned: Any) -> tuple:
        return self.stepped(*returned) if len(returned) == 5 else returned

    def stepped(self, observation: Any, rewards: Any, terminations: Any, truncations: Any, infos: Any) -> tuple:
        raise NotImplementedError


@found_by("outputs")
class ReturnsFlagsAsIntegers(ChangesSteps):
    def stepped(self, observation, rewards, terminations, truncations, infos):
        return observation, rewards, terminations.astype(np.int8), truncations, infos


@found_by("outputs")
class ReturnsRewardsAsAColumn(ChangesSteps):
    def stepped(self, observation, rewards, *rest):
        return observation, rewards[:, None], *rest


@found_by("outputs")
class ReturnsAnInfiniteReward(ChangesSteps):
    def stepped(self, observation, rewards, terminations, *rest):
        return observation, np.where(rewards > 0.9, np.inf, rewards), terminations, *rest


class ChangesInfos(Good):
    """Infos that are not what they should be."""

    def changed(self, *returned: Any) -> tuple:
        return *returned[:-1], self.infos(returned[-1])

    def infos(self, infos: dict[str, Any]) -> Any:
        raise NotImplementedError


@found_by("outputs")
class ReturnsAListOfInfos(ChangesInfos):
    def infos(self, infos):
        return [infos]


@found_by("infos")
class DoesNotSayWhichLanesAnInfoIsAbout(ChangesInfos):
    def infos(self, infos):
        return {key: value for key, value in infos.items() if key != "_place"}


@found_by("infos")
class SaysSoInIntegers(ChangesInfos):
    def infos(self, infos):
        return {**infos, "_place": infos["_place"].astype(np.int8)}


@found_by("infos")
class GivesOneInfoForAllLanes(ChangesInfos):
    def infos(self, infos):
        return {**infos, "version": 1, "_version": np.ones(3, np.bool_)}


@found_by("memory")
class ReturnsItsObservationBuffer(Good):
    def __init__(self) -> None:
        super().__init__()
        self.copy = False


@found_by("memory")
class ReturnsAViewOfItsMasks(ChangesInfos):
    def __init__(self) -> None:
        super().__init__()
        self.kept = np.ones((5, 3), np.bool_)

    def infos(self, infos):
        return {**infos, "awake": self.kept[0], "_awake": np.ones(3, np.bool_)}


@found_by("memory")
class ReturnsTheActions(Good):
    def step(self, actions):
        *rest, infos = super().step(actions)
        return *rest, {**infos, "action": actions, "_action": np.ones(3, np.bool_)}


@found_by("actions_kept")
class WritesIntoTheActions(Good):
    def step(self, actions):
        returned = super().step(actions)
        actions[:] = 0
        return returned


@found_by("actions_kept")
class ReadsTheActionsOfTheStepBefore(Good):
    kept: Any = 0

    def step(self, actions):
        observation, rewards, *rest = super().step(actions)
        rewards += self.kept
        self.kept = actions
        return observation, rewards, *rest

    def reset(self, **options):
        self.kept = 0
        return super().reset(**options)


class Lenient(Corridor):
    strict = False


@found_by("masks")
class ForbidsEverythingAtAnEnd(ChangesSteps):
    def stepped(self, observation, rewards, terminations, truncations, infos):
        infos["action_mask"][terminations | truncations] = 0
        return observation, rewards, terminations, truncations, infos


@found_by("masks")
class MasksInBooleans(ChangesInfos):
    def infos(self, infos):
        return {**infos, "action_mask": infos["action_mask"] != 0}


@found_by("masks")
class MasksOneActionTooFew(ChangesInfos):
    corridor = Lenient

    def infos(self, infos):
        return {**infos, "action_mask": infos["action_mask"][:, :2]}


@found_by("masks")
class GivesNoMaskAtAnEnd(ChangesSteps):
    def stepped(self, observation, rewards, terminations, truncations, infos):
        infos["_action_mask"] &= ~(terminations | truncations)
        return observation, rewards, terminations, truncations, infos


@found_by("masks")
class ReturnsTheMasksOfTheStepBefore(ChangesInfos):
    corridor = Lenient

    def infos(self, infos):
        before, self.masks = getattr(self, "masks", infos["action_mask"]), infos["action_mask"]
        return {**infos, "action_mask": before.copy()}


@found_by("masks")
class AnswersWithOtherMasks(Good):
    def action_masks(self) -> Any:
        return np.ones((3, 3), np.bool_)


@found_by("same_seed")
class DrawsFromAnotherGenerator(Good):
    generator = np.random.default_rng()

    def step(self, actions):
        observation, rewards, *rest = super().step(actions)
        return observation, rewards * self.generator.random(3), *rest


@found_by("same_seed")
class CountsOnThroughResets(ChangesSteps):
    count = 0

    def stepped(self, observation, rewards, *rest):
        self.count += 1
        return observation, rewards + self.count, *rest


@found_by("seed_of_lanes")
class SeedsLanesOffByOne(Good):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed + 1 if isinstance(seed, int) else seed, options=options)


@found_by("seed_of_lanes")
class SeedsLanesTenApart(Good):
    def reset(self, *, seed=None, options=None):
        first = seed if isinstance(seed, int) or seed is None else seed[0]
        return super().reset(seed=None if first is None else [first + 10 * lane for lane in range(3)], options=options)


class ChangesTheStepAfterAnEnd(Good):
    """Mode NEXT_STEP gone wrong; `over` are the lanes whose reset this step is."""

    def step(self, actions):
        over = self._autoreset_envs.copy()
        return self.after(over, actions, *super().step(actions)) if over.any() else super().step(actions)

    def after(self, over: Any, actions: Any, observation: Any, rewards: Any, *rest: Any) -> tuple:
        raise NotImplementedError


@found_by("autoreset_next_step")
class RewardsTheStepAfterAnEnd(ChangesTheStepAfterAnEnd):
    def after(self, over, actions, observation, rewards, *rest):
        return observation, rewards + over, *rest


@found_by("autoreset_next_step")
class EndsAgainInTheStepAfterAnEnd(ChangesTheStepAfterAnEnd):
    def after(self, over, actions, observation, rewards, terminations, *rest):
        return observation, rewards, terminations | over, *rest


@found_by("autoreset_next_step")
class ObeysTheActionOfTheStepAfterAnEnd(ChangesTheStepAfterAnEnd):
    def after(self, over, actions, observation, *rest):
        return np.where(over[:, None], (actions[:, None] / 2).astype(np.float32), observation), *rest


@found_by("autoreset_next_step")
class ReturnsTheLastObservationAgain(Good):
    def step(self, actions):
        over, last = self._autoreset_envs[:, None].copy(), self._observations.copy()
        observation, *rest = super().step(actions)
        return np.where(over, last, observation), *rest


@found_by("autoreset_start")
class LeavesOutAnEpisodeAtAnAutoreset(Good):
    def step(self, actions):
        for lane in np.flatnonzero(self._autoreset_envs):
            self.envs[lane].reset()
        return super().step(actions)


@found_by("autoreset_same_step", SAME_STEP)
class LosesTheFinalObservation(ChangesInfos):
    def infos(self, infos):
        return {key: value for key, value in infos.items() if key not in ("final_obs", "_final_obs")}


@found_by("autoreset_same_step", SAME_STEP)
class LosesTheFinalInfo(ChangesInfos):
    def infos(self, infos):
        return {key: value for key, value in infos.items() if key not in ("final_info", "_final_info")}


@found_by("autoreset_same_step", SAME_STEP)
class SaysThatAllLanesHaveAFinalObservation(ChangesInfos):
    def infos(self, infos):
        return {**infos, "_final_obs": np.ones(3, np.bool_)} if "final_obs" in infos else infos


@found_by("autoreset_same_step", SAME_STEP)
class TakesTheNewObservationForTheFinalOne(ChangesSteps):
    def stepped(self, observation, *rest):
        infos = rest[-1]
        for lane in np.flatnonzero(infos.get("_final_obs", ())):
            infos["final_obs"][lane] = observation[lane].copy()
        return observation, *rest


@found_by("autoreset_same_step", SAME_STEP)
class ReturnsTheFinalObservationInsteadOfTheNewOne(ChangesSteps):
    def stepped(self, observation, *rest):
        infos = rest[-1]
        for lane in np.flatnonzero(infos.get("_final_obs", ())):
            observation[lane] = infos["final_obs"][lane]
        return observation, *rest


@found_by("autoreset_disabled", DISABLED)
class ResetsThoughItShouldNot(Good):
    def step(self, actions):
        for lane in np.flatnonzero(self._autoreset_envs):
            self.envs[lane].reset()
            actions[lane] = 2
        self._autoreset_envs[:] = False
        return super().step(actions)


@found_by("independent_lanes")
class SharesARewardAmongLanes(ChangesSteps):
    def stepped(self, observation, rewards, *rest):
        return observation, rewards * observation[:, 0].sum(), *rest


@found_by("reset_mask_kept")
class TakesTheMaskOutOfTheOptions(Good):
    def reset(self, *, seed=None, options=None):
        returned = super().reset(seed=seed, options=options)
        if options:
            options.pop("reset_mask")
        return returned


@found_by("reset_mask_kept")
class WritesIntoTheMask(Good):
    def reset(self, *, seed=None, options=None):
        returned = super().reset(seed=seed, options=options)
        if options:
            options["reset_mask"][:] = False
        return returned


@found_by("partial_reset")
class ResetsTheOthersToo(Good):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


@found_by("partial_reset")
class DrawsFromTheGeneratorsOfTheOthers(Good):
    def reset(self, *, seed=None, options=None):
        for lane in np.flatnonzero(~options["reset_mask"] if options else ()):
            self.envs[lane].np_random.random()
        return super().reset(seed=seed, options=options)


@found_by("partial_reset")
class KeepsThePendingResetOfALaneThatWasReset(Good):
    def reset(self, *, seed=None, options=None):
        pending = self._autoreset_envs.copy() if options else False
        returned = super().reset(seed=seed, options=options)
        self._autoreset_envs |= pending
        return returned


@found_by("partial_reset")
class ForgetsThePendingResetsOfTheOthers(Good):
    corridor = Lenient

    def reset(self, *, seed=None, options=None):
        returned = super().reset(seed=seed, options=options)
        self._autoreset_envs[:] = False
        return returned


@found_by("wrong_reset_mask")
class TakesAnEmptyMaskForAll(Good):
    def reset(self, *, seed=None, options=None):
        options = options if options and options["reset_mask"].any() else None
        return super().reset(seed=seed, options=options)


@found_by("wrong_reset_mask")
class TakesIntegersForAMask(Good):
    def reset(self, *, seed=None, options=None):
        options = {"reset_mask": options["reset_mask"].astype(np.bool_)} if options else None
        return super().reset(seed=seed, options=options)


@found_by("wrong_reset_mask")
class ResetsBeforeItRefuses(Good):
    def reset(self, *, seed=None, options=None):
        if options and options["reset_mask"].shape != (3,):
            super().reset()
        return super().reset(seed=seed, options=options)


@found_by("lanes_are_singles")
class SeedsAllLanesOneHigher(Good):
    def reset(self, *, seed=None, options=None):
        if seed is not None:
            seed = seed + 1 if isinstance(seed, int) else [one + 1 for one in seed]
        return super().reset(seed=seed, options=options)


@found_by("lanes_are_singles")
class RoundsItsRewards(ChangesSteps):
    def stepped(self, observation, rewards, *rest):
        return observation, rewards.astype(np.float32), *rest


@found_by("lanes_are_singles")
class InventsAnInfo(ChangesInfos):
    def infos(self, infos):
        return {**infos, "lane": np.arange(3) * 0, "_lane": np.ones(3, np.bool_)}


@found_by("lanes_are_singles", SAME_STEP)
class MixesUpFinalInfos(ChangesInfos):
    def infos(self, infos):
        if "final_info" in infos:
            infos["final_info"]["place"]["cell"] = np.full(3, 7)
        return infos


@found_by("close_twice")
class ClosesOnceOnly(Good):
    def close(self, **kwargs):
        if self.closed:
            raise RuntimeError("closed already")
        super().close(**kwargs)


@pytest.mark.parametrize(("check", "faulty"), FAULTS, ids=name_of)
def test_each_fault_is_found_by_its_check(check: str, faulty: type[Good], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VectorEnv, "metadata", {})
    single = faulty.corridor if check == "lanes_are_singles" else None
    with pytest.raises(VectorEnvError) as caught:
        check_vector_env(faulty, single, steps=60)
    assert caught.value.check == check
    assert str(caught.value).startswith(f"{check}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_each_check_finds_a_fault() -> None:
    assert {check for check, _ in FAULTS} == set(CHECKS)


# -------------------------------------------------------------------------------------------------------- the call


def test_the_line_says_what_and_where() -> None:
    with pytest.raises(VectorEnvError) as caught:
        check_vector_env(RewardsTheStepAfterAnEnd, steps=60)
    expected = r"autoreset_next_step: reward of the step after an end: expected 0.0, found 1.0 \(lane \d, step \d+\)"
    caught.match(f"^{expected}$")


def test_the_report_names_every_check_once() -> None:
    report = check_vector_env(Good, steps=60, skip=["close_twice", "memory"])
    assert sorted([*report.passed, *report.not_applicable, *report.skipped]) == sorted(CHECKS)
    assert report.not_applicable["lanes_are_singles"] == "no single environment was given"
    assert "autoreset_disabled does not apply: the autoreset mode is NEXT_STEP\n" in str(report)
    assert str(report).endswith("skipped: close_twice, memory")


def test_checks_of_ends_do_not_apply_where_nothing_ends() -> None:
    report = check_vector_env(Good, steps=1)
    assert report.not_applicable["autoreset_next_step"] == "no episode ended within 1 steps"


def test_one_lane_has_no_others() -> None:
    report = check_vector_env(lambda: PleVectorEnv(num_envs=1, scenario="Storm"), steps=3)
    assert report.not_applicable["independent_lanes"] == "there is only one lane"


@pytest.mark.parametrize(("wrong", "message"), [({"skip": ["mask"]}, "no check 'mask'"), ({"steps": 0}, "steps = 0")])
def test_a_wrong_call_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_vector_env(Good, **wrong)


def test_importing_the_checker_compiles_nothing() -> None:
    code = "import sys, ple_gym.testing; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_names_every_check_and_its_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "check_vector_env.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(CHECKS)
    exec(compile(python_script(text), "check_vector_env.md", "exec"), {})
    shown = re.search(r"^```\n(.*)\n```$", text, re.MULTILINE)
    assert shown
    assert shown[1] in capsys.readouterr().out or SHARES_METADATA
