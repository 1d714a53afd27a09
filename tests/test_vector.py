"""The vector environment: every lane is the single environment of its seed, whatever happens in the other lanes."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference_simulator.draws import mix
from worlds import contended_scenarios

from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.evaluate import record
from ple_gym.lanes import Lanes
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim.constants import WINDOWS
from ple_gym.traces.events import PLE

MODES = list(AutoresetMode)
GOLDEN = 0x9E3779B97F4A7C15  # docs/model.md, section 3.1
#: Short runs, so that there are many of them.
SHORT = {"guest.vcpus": 8, "guest.transactions": 8, "guest.sections": 3}


def same(one: Any, two: Any) -> bool:
    """Whether two observations or infos are equal, dtypes and all."""
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(*column(one, two, key)) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    one, two = np.asarray(one), np.asarray(two)
    if one.dtype == object and one.ndim == 0:
        return bool(one[()] == two[()])
    if one.dtype == object:
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def column(one: dict, two: dict, key: str) -> tuple[Any, Any]:
    """What both say under a key. A number that is missing is NaN with us, and makes an object array with Gymnasium."""
    kinds = [getattr(infos[key], "dtype", np.dtype(int)).kind for infos in (one, two)]
    if kinds == ["f", "O"]:
        known = two[f"_{key}"]
        return one[key][known], two[key][known].astype(np.float64)
    return one[key], two[key]


def alike(ours: tuple, theirs: tuple) -> bool:
    """Whether two resets or steps are the same. After a partial reset we tell the masks of all lanes, not of some."""
    infos, others = dict(ours[-1]), dict(theirs[-1])
    if len(ours) == 2:
        mask, known, other = infos.pop("action_mask"), others.pop("_action_mask"), others.pop("action_mask")
        assert infos.pop("_action_mask").all() and same(mask[known], other[known])
    return same(ours[:-1], theirs[:-1]) and same(infos, others)


def walk(envs: VectorEnv, steps: int, seed: int) -> Iterator[tuple]:
    """Random legal actions, the same for equal masks; lanes that nobody resets are reset when they have ended."""
    rng = np.random.default_rng(seed)
    observation, infos = envs.reset(seed=seed)
    yield observation, infos
    disabled = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    pairs = len(envs.single_action_space.shape)
    for _ in range(steps):
        mask = infos["action_mask"]
        draws = np.where(mask, rng.random(mask.shape), -1)
        parts = [part.argmax(axis=1) for part in np.split(draws, [-WINDOWS] if pairs else [], axis=1)]
        step = envs.step(np.column_stack(parts) if pairs else parts[0])
        yield step
        infos, over = step[4], step[2] | step[3]
        if disabled and over.any():
            observation, fresh = envs.reset(options={"reset_mask": over})
            yield observation, fresh
            infos = {"action_mask": np.where(over[:, None], fresh["action_mask"], infos["action_mask"])}


def singles(count: int, mode: AutoresetMode, max_steps: int | None = None, **options: Any) -> SyncVectorEnv:
    """The same as single environments, stepped by Gymnasium."""

    def make() -> gym.Env:
        env = PleEnv(**options)
        return TimeLimit(env, max_steps) if max_steps else env

    return SyncVectorEnv([make] * count, autoreset_mode=mode)


# ------------------------------------------------------------------------------------------------ lanes against singles


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observation": "tokens", "information": "oracle", "reward": "fair"},
        {"infos": "uniform"},
        {"overrides": {**SHORT, "host.scheduler": "fair"}},
    ],
    ids=str,
)
def test_lanes_are_single_environments(mode: AutoresetMode, threads: int, options: dict[str, Any]) -> None:
    """Observations, rewards, flags and infos, bit for bit, in every mode, with any number of threads."""
    options = {"scenario": "Storm", "overrides": SHORT, **options}
    ours = PleVectorEnv(num_envs=5, autoreset_mode=mode, threads=threads, **options)
    theirs = singles(5, mode, **options)
    ended = 0
    for one, two in zip(walk(ours, 600, seed=3), walk(theirs, 600, seed=3), strict=True):
        assert alike(one, two)
        ended += (one[2] | one[3]).sum() if len(one) == 5 else 0
    assert ended > 10


@settings(max_examples=40)
@given(contended_scenarios(), st.integers(0, 2**62), st.sampled_from(MODES))
def test_lanes_are_single_environments_in_random_worlds(scenario: Scenario, seed: int, mode: AutoresetMode) -> None:
    options = {"scenario": scenario, "observation": "tokens", "information": "introspection"}
    try:
        steps = list(walk(singles(3, mode, **options), 40, seed))
    except RuntimeError:  # a world with nothing to decide
        assume(False)
    for one, two in zip(walk(PleVectorEnv(num_envs=3, autoreset_mode=mode, **options), 40, seed), steps, strict=True):
        assert alike(one, two)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("overrides", [{}, SHORT], ids=["all cut off", "some finish"])
def test_a_step_limit_truncates(mode: AutoresetMode, overrides: dict[str, Any]) -> None:
    """As Gymnasium's TimeLimit does; the record of the run is reported, too."""
    most = 40 if overrides else 7
    ours = PleVectorEnv(3, "Storm", autoreset_mode=mode, max_episode_steps=most, overrides=overrides)
    theirs = singles(3, mode, max_steps=most, scenario="Storm", overrides=overrides)
    for one, two in zip(walk(ours, 300, seed=1), walk(theirs, 300, seed=1), strict=True):
        assert all(same(a, b) for a, b in zip(one[:-1], two[:-1], strict=True))
        assert same(one[-1]["action_mask"], two[-1]["action_mask"])
        if len(one) == 5 and one[3].all():
            infos = one[-1]["final_info"] if mode is AutoresetMode.SAME_STEP else one[-1]
            assert not infos["ple_episode"]["finished"].any()


def test_threads_do_not_matter() -> None:
    for one, two in zip(
        walk(PleVectorEnv(num_envs=300, threads=1), 20, seed=0),
        walk(PleVectorEnv(num_envs=300, threads=7), 20, seed=0),
        strict=True,
    ):
        assert same(one, two)


# -------------------------------------------------------------------------------------------------------- partial reset


def test_a_partial_reset_leaves_the_others_alone() -> None:
    one, two = (PleVectorEnv(num_envs=4, scenario="Storm") for _ in range(2))
    for envs in (one, two):
        envs.reset(seed=5)
        for _ in range(20):
            before = envs.step(np.full(4, envs.lanes.vcpus))
    mask = np.array([False, True, False, True])
    options = {"reset_mask": mask}
    observation, infos = one.reset(seed=[None, 50, None, 51], options=options)
    assert options == {"reset_mask": mask} and mask.tolist() == [False, True, False, True]
    assert np.array_equal(observation[~mask], before[0][~mask])
    assert infos["_seed"].tolist() == mask.tolist() and infos["seed"].tolist() == [0, 50, 0, 51]
    assert np.array_equal(infos["action_mask"][~mask], before[4]["action_mask"][~mask])
    fresh, _ = PleVectorEnv(num_envs=2, scenario="Storm").reset(seed=50)
    assert np.array_equal(observation[mask], fresh)
    for _ in range(20):
        ours, theirs = (envs.step(np.full(4, envs.lanes.vcpus)) for envs in (one, two))
        assert np.array_equal(ours[0][~mask], theirs[0][~mask]) and np.array_equal(ours[1][~mask], theirs[1][~mask])


@pytest.mark.parametrize(
    ("mask", "error", "why"),
    [
        (np.ones(3, np.bool_), ValueError, r"shape \(4,\)"),
        (np.zeros(4, np.bool_), ValueError, "name a lane"),
        (np.ones(4, np.int8), TypeError, "bool array, not int8"),
        ([True] * 4, TypeError, "bool array, not list"),
    ],
)
def test_a_wrong_reset_mask_changes_nothing(mask: Any, error: type[Exception], why: str) -> None:
    envs = PleVectorEnv(num_envs=4)
    envs.reset(seed=0)
    before = envs.lanes.rows.copy()
    with pytest.raises(error, match=why):
        envs.reset(options={"reset_mask": mask})
    assert np.array_equal(envs.lanes.rows, before)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda envs: envs.reset(seed=-1), "seed = -1"),
        (lambda envs: envs.reset(seed=2**63 - 3), "seed = 9223372036854775808"),
        (lambda envs: envs.reset(seed=[1, 2]), "one number or 4, not 2"),
        (lambda envs: envs.reset(options={"begin": 1}), "reset option 'begin'"),
        (lambda envs: envs.reset(options={"start": "end"}), "start 'end'"),
        (lambda envs: envs.reset(options={"state": [b""] * 3}), "one state or 4, not 3"),
        (lambda envs: envs.reset(options={"state": b"nonsense"}), "not a saved state"),
        (lambda envs: envs.reset(options={"state": b"", "start": "storm"}), "takes no start"),
        (lambda envs: envs.reset(seed=1, options={"state": b""}), "takes no seed"),
        (lambda envs: envs.step([0, 1]), "4 integers"),
        (lambda envs: envs.step(np.zeros(4)), "4 integers, not float64"),
        (lambda envs: envs.step([0, 0, 33, -1]), r"0\.\.32, not -1\.\.33: see 2 lanes, the first of them 2"),
        (lambda envs: envs.step([0, 0, 33, 1]), r"0\.\.32, not 0\.\.33: see lane 2"),
        (lambda envs: envs.step(np.array([0, 0, 0, 2**64 - 1], np.uint64)), r"0\.\.32, not 0\.\.18446744073709551615"),
        (lambda envs: envs.step([0, 0.5, 0, 0]), r"4 integers, not float64 \(4,\); each must be 0\.\.32"),
        (lambda envs: envs.step([0, np.nan, 0, 0]), "4 integers, not float64"),
        (lambda envs: envs.step(np.zeros(4, np.bool_)), "4 integers, not bool"),
        (lambda envs: envs.step(np.zeros((4, 1), int)), r"4 integers, not int64 \(4, 1\)"),
        (lambda envs: envs.step([[0], [0, 1], 0, 0]), r"4 integers, not \[\[0\], \[0, 1\], 0, 0\]"),
        (lambda envs: envs.step([10**30, 0, 0, 0]), "4 integers, not \\[1000000"),
        (lambda envs: envs.step(["0", "0", "0", "0"]), "4 integers, not <U1"),
        (lambda envs: envs.step(None), "4 integers, not None"),
        (lambda envs: envs.step(0), r"4 integers, not int64 \(\)"),
        (lambda envs: PleVectorEnv(num_envs=0), "num_envs = 0: must be at least 1"),
        (lambda envs: PleVectorEnv(num_envs=2.0), r"num_envs = 2\.0: must be a whole number, at least 1"),
        (lambda envs: PleVectorEnv(num_envs=True), "num_envs = True: must be a whole number"),
        (lambda envs: PleVectorEnv(threads=-1), "threads = -1: must be at least 0"),
        (lambda envs: PleVectorEnv(threads=1.5), r"threads = 1\.5: must be a whole number"),
        (lambda envs: PleVectorEnv(max_episode_steps=0), "max_episode_steps = 0: must be at least 1"),
        (lambda envs: PleVectorEnv(max_episode_steps=float("nan")), "max_episode_steps = nan: must be a whole number"),
        (lambda envs: PleVectorEnv(illegal="ignore"), "treatment of illegal actions 'ignore'"),
        (lambda envs: PleVectorEnv(infos="none"), "form of infos 'none'"),
        (lambda envs: PleVectorEnv(observation=["flat"]), r"observation \['flat'\]"),
        (lambda envs: PleVectorEnv(autoreset_mode="Never"), "autoreset mode 'Never'"),
        (lambda envs: PleVectorEnv(render_mode="human"), "render mode 'human'"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"threads": 3}, {"render_mode": "rgb_array"}], ids=["", "threads", "traced"])
def test_what_is_wrong_is_named_and_changes_nothing(options: dict[str, Any], call: Any, why: str) -> None:
    envs = PleVectorEnv(num_envs=4, **options)
    envs.reset(seed=0)
    before = [array.copy() for array in (envs.lanes.rows, envs.lanes.observation, envs.lanes.mask)]
    with pytest.raises(ValueError, match=why):
        call(envs)
    after = (envs.lanes.rows, envs.lanes.observation, envs.lanes.mask)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_step_needs_a_reset() -> None:
    with pytest.raises(RuntimeError, match=r"lanes \[0 1\] are not reset yet: call reset"):
        PleVectorEnv(num_envs=2).step([0, 0])
    envs = PleVectorEnv(num_envs=2, scenario="HolderPreempted", autoreset_mode="Disabled")
    envs.reset(seed=0)
    assert envs.step([0, 1])[2].tolist() == [True, False]
    with pytest.raises(RuntimeError, match=r"lanes \[0\] are over"):
        envs.step([0, 0])


# --------------------------------------------------------------------------------------------------------------- states


def go_on(envs: VectorEnv, steps: int = 50) -> list[tuple]:
    """The next steps, all lanes deferring."""
    return [envs.step(np.full(envs.num_envs, envs.single_action_space.n - 1)) for _ in range(steps)]


def test_states_go_from_lane_to_lane_and_to_a_single_environment() -> None:
    envs = PleVectorEnv(num_envs=3, scenario="Storm", overrides=SHORT)
    envs.reset(seed=1)
    go_on(envs, 30)
    saved = envs.get_state(2)
    observation, infos = envs.set_state(0, saved)
    assert np.array_equal(observation[0], observation[2])
    assert infos["seed"][0] == envs.lanes.world["seed"][2]
    single = PleEnv("Storm", overrides=SHORT)
    seen, info = single.reset(options={"state": saved})
    assert np.array_equal(seen, observation[2]) and np.array_equal(info["action_mask"], infos["action_mask"][2])
    over = False
    for step in go_on(envs, 200):  # and the worlds that follow are the same too
        assert np.array_equal(step[0][0], step[0][2]) and step[1][0] == step[1][2]
        seen = single.reset()[0] if over else (result := single.step(single.action_space.n - 1))[0]
        over = not over and (result[2] or result[3])
        assert np.array_equal(step[0][2], seen)


def test_a_fork_goes_on_exactly() -> None:
    envs = PleVectorEnv(num_envs=4, max_episode_steps=60)
    envs.reset(seed=1)
    for _ in range(40):
        envs.step(envs.sample_actions())
    observation, _ = envs.fork(2, [0, 3])
    assert np.array_equal(observation[[0, 3]], observation[[2, 2]])
    assert not np.array_equal(observation[1], observation[2])
    for step in go_on(envs, 60):
        for part in step[:4]:
            assert np.array_equal(part[[0, 3]], part[[2, 2]])
    with pytest.raises(IndexError, match="lane 4"):
        envs.fork(4)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    envs = PleVectorEnv(num_envs=2)
    envs.reset(seed=1)
    before, good = envs.lanes.rows.copy(), envs.get_state(1)
    for bad, why in (
        (good[:-1], "damaged"),
        (PleVectorEnv(num_envs=1, reward="time").get_state(0), "another scenario"),
        (12, "one state or 2"),
    ):
        with pytest.raises((ValueError, TypeError), match=why):
            envs.reset(options={"state": [good, bad] if isinstance(bad, bytes) else [bad]})
        assert np.array_equal(envs.lanes.rows, before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda envs: pickle.loads(pickle.dumps(envs))])
def test_copies_and_pickles_go_on_alike(copied: Any) -> None:
    """And hold no address of the original's arrays."""
    envs = PleVectorEnv(num_envs=3, threads=2, max_episode_steps=70)
    envs.reset(seed=1)
    go_on(envs, 20)
    other = copied(envs)
    assert same(go_on(envs, 100), go_on(other, 100))
    single = PleEnv("Storm", observation="tokens")
    single.reset(seed=4)
    twin = copied(single)
    assert same([single.step(32) for _ in range(20)], [twin.step(32) for _ in range(20)])
    assert same(single.reset(), twin.reset())


def test_a_state_from_another_process() -> None:
    script = (
        "import sys; from ple_gym.envs.vector import PleVectorEnv; envs = PleVectorEnv(num_envs=2); "
        "envs.reset(seed=8); [envs.step([32, 32]) for _ in range(25)]; sys.stdout.buffer.write(envs.get_state(1))"
    )
    saved = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    envs = PleVectorEnv(num_envs=2)
    envs.reset(seed=8)
    go_on(envs, 25)
    assert envs.get_state(1) == saved


# ----------------------------------------------------------------------------------------------------- where they start


def test_worlds_that_follow_are_the_models() -> None:
    """docs/model.md, 12.1. They lie beyond all seeds that anybody writes down."""
    envs = PleVectorEnv(num_envs=2)
    envs.reset(seed=[0, 2**63 - 1])
    for _ in range(3):
        expected = [(mix((int(seed) + GOLDEN) % 2**64) >> 2) + 2**62 for seed in envs.lanes.world["seed"]]
        infos = envs.reset()[1]
        assert infos["seed"].tolist() == expected and min(expected) >= 2**62


@pytest.mark.parametrize("name", ["Storm", "Paper8"])
def test_a_storm_start_is_where_the_host_itself_gets_into_a_storm(name: str) -> None:
    env = PleEnv(name, start="storm")
    found = 0
    for seed in range(12):
        _, info = env.reset(seed=seed)
        if info["index"] == 0:  # the record is of a seed's first world
            now = int(env.lanes.world["now"][0])
            exits = record(env.scenario, "host", seed, events=1 << 23)
            exits = exits[exits[:, 1] == PLE, 0]
            count = np.unique(exits // 2_670_000, return_counts=True)
            bucket = count[0][count[1] >= 967][0]  # 4 * 2.67 M / (2 * (4,100 + 1,420))
            assert now == exits[exits // 2_670_000 == bucket][966]
            found += 1
    assert found


def test_start_can_be_chosen_at_a_reset() -> None:
    for envs in (PleVectorEnv(num_envs=1), PleEnv("Storm")):
        plain, storm, again = (envs.reset(seed=3, options=options)[0] for options in (None, {"start": "storm"}, None))
        assert np.array_equal(plain, again) and not np.array_equal(plain, storm)
        assert same(storm, type(envs)(scenario="Storm", start="storm").reset(seed=3)[0])


def test_a_compiled_rule_goes_on_from_a_storm_as_an_agent_does() -> None:
    """Seed 3 of Paper8 has its first storm long after its first decision."""
    env = PleEnv("Paper8", start="storm")
    env.reset(seed=3)
    at_start = env.lanes.totals(0)
    done = False
    while not done:
        *_, terminated, truncated, info = env.step(env.lanes.vcpus)
        done = terminated or truncated
    lanes = Lanes(load("Paper8"), 1, start="storm", policy="host")
    assert lanes.run_from_start(0, 3) == at_start
    assert lanes.totals(0) == env.lanes.totals(0)
    lanes = Lanes(load("Paper8"), 1, start="storm", policy="kvm")
    assert lanes.run_from_start(0, 3) == at_start
    assert at_start["exits"] < lanes.totals(0)["exits"] < info["ple_episode"]["ple_exits"]


def test_no_storm_to_be_found() -> None:
    with pytest.raises(RuntimeError, match=r"HolderPreempted: worlds 0\.\.1000 of seed 3 have no storm"):
        PleEnv("HolderPreempted", start="storm", overrides={"profile": "xen-4.8"}).reset(seed=3)
    with pytest.raises(RuntimeError, match="have no storm"):
        lanes = Lanes(load("HolderPreempted").with_overrides({"profile": "xen-4.8"}), 1, start="storm", policy="kvm")
        lanes.run_from_start(0, 3)


# ------------------------------------------------------------------------------------------------------------ the rest


def test_lanes_take_every_option_of_a_single_environment() -> None:
    single, lanes = (inspect.signature(kind).parameters for kind in (PleEnv, PleVectorEnv))
    assert set(single) < set(lanes)
    assert {name: option.default for name, option in single.items()} == {name: lanes[name].default for name in single}
    options = {
        "information": "oracle", "observation": "tokens", "observation_dtype": "uint8", "reward": "fair",
        "start": "storm", "illegal": "raise", "infos": "uniform", "overrides": SHORT, "render_mode": "ansi",
    }  # fmt: skip
    assert set(options) == set(single) - {"scenario"}
    gym.make("PLE/Storm-v1", **options).reset(seed=0)
    gym.make_vec("PLE/Storm-v1", num_envs=2, **options).reset(seed=0)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_an_illegal_action_stops_all_lanes_if_it_is_to_raise(mode: AutoresetMode) -> None:
    raising, plain = (
        PleVectorEnv(4, "Storm", illegal=illegal, autoreset_mode=mode, overrides=SHORT, threads=2)
        for illegal in ("raise", "defer")
    )
    rng, refused = np.random.default_rng(0), 0
    (_, infos), over = raising.reset(seed=0), np.zeros(4, np.bool_)
    plain.reset(seed=0)
    for _ in range(300):
        mask = infos["action_mask"]
        actions = np.where(rng.random(mask.shape) < np.where(mask, 1, 0.02), rng.random(mask.shape), -1).argmax(axis=1)
        wrong = np.flatnonzero((mask[np.arange(4), actions] == 0) & ~over)  # a lane that has ended ignores its action
        if len(wrong):
            refused += 1
            before = [array.copy() for array in (raising.lanes.rows, raising.lanes.observation, raising.lanes.mask)]
            with pytest.raises(ValueError, match=f"action {actions[wrong[0]]} of lane {wrong[0]} is not legal here; "):
                raising.step(actions)
            after = (raising.lanes.rows, raising.lanes.observation, raising.lanes.mask)
            assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
            actions[wrong] = 8
        one, two = raising.step(actions), plain.step(actions)
        assert same(one, two)
        infos, over = one[4], one[2] | one[3]
        if mode is AutoresetMode.SAME_STEP:
            over[:] = False
        if mode is AutoresetMode.DISABLED and over.any():
            fresh = [envs.reset(options={"reset_mask": over})[1] for envs in (raising, plain)]
            infos, over = fresh[0], np.zeros(4, np.bool_)
    assert refused > 10


def test_make_vec_makes_it() -> None:
    metadata = copy.deepcopy(VectorEnv.metadata)
    envs = gym.make_vec("PLE/TicketOrder-v1", num_envs=3, information="oracle", autoreset_mode="SameStep")
    assert isinstance(envs, PleVectorEnv) and envs.scenario.name == "TicketOrder"
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    other = gym.make_vec("ple_gym:PLE/Storm-v1", num_envs=2, max_episode_steps=5)
    assert other.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP and other.max_episode_steps == 5
    assert VectorEnv.metadata == metadata


def test_sampled_actions_are_legal_and_all_legal_ones_are_sampled() -> None:
    envs = PleVectorEnv(num_envs=400, scenario="TicketOrder")
    _, infos = envs.reset(seed=0)
    seen = np.zeros(7)
    for _ in range(20):
        actions = envs.sample_actions()
        assert infos["action_mask"][np.arange(400), actions].all()
        seen += np.bincount(actions, minlength=7)
    legal = infos["action_mask"][0].astype(bool)
    assert np.array_equal(seen > 0, legal)
    assert seen[legal].min() > 0.8 * 8000 / legal.sum()
    assert np.array_equal(envs.action_masks(), infos["action_mask"].astype(bool))


def test_illegal_actions_defer_and_are_told() -> None:
    one, two = (PleVectorEnv(num_envs=2) for _ in range(2))
    _, infos = one.reset(seed=0)
    two.reset(seed=0)
    illegal = np.flatnonzero(infos["action_mask"][1] == 0)[0]
    first, second = one.step([32, illegal]), two.step([32, 32])
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    assert first[4]["illegal_action"].tolist() == [False, True] and "illegal_action" not in second[4]


def test_pictures_of_all_lanes() -> None:
    envs = PleVectorEnv(num_envs=2, render_mode="rgb_array")
    single = PleEnv("Storm", render_mode="rgb_array")
    envs.reset(seed=0)
    single.reset(seed=1)
    for _ in range(100):
        actions = envs.sample_actions()
        envs.step(actions)
        single.step(actions[1])
    texts = PleVectorEnv(num_envs=2, render_mode="ansi")
    alone = PleEnv("Storm", render_mode="ansi")
    for one in (texts, alone):
        one.reset(seed=1)
        for _ in range(50):
            one.step([32, 32] if one is texts else 32)
    assert texts.render()[0] == alone.render() and "!" in alone.render()
    pictures = envs.render()
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures)
    assert np.array_equal(pictures[1], single.render()) and not np.array_equal(*pictures)
    assert PleVectorEnv(num_envs=1).render() is None


def test_what_was_returned_stays_as_it_was() -> None:
    """Resets, restored states and forks write to new arrays too."""
    envs = PleVectorEnv(num_envs=3)
    returned = [envs.reset(seed=0)]
    saved = envs.get_state(0)
    kept = []
    for call in (
        lambda: envs.step(envs.sample_actions()),
        lambda: envs.reset(options={"reset_mask": np.array([True, False, False])}),
        lambda: envs.step(envs.sample_actions()),
        lambda: envs.set_state(1, saved),
        lambda: envs.fork(1),
        lambda: envs.reset(),
    ):
        kept.append(copy.deepcopy(returned[-1]))
        returned.append(call())
    assert all(same(one, two) for one, two in zip(returned, kept, strict=False))
