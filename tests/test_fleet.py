"""The fleet: worlds that stay the same, splits that share none, and lanes that each have a world of their own."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from test_vector import alike, same, singles, walk

import ple_gym
from experiments.answer import fleet as question
from experiments.lab.tables import Table, committed
from ple_gym.drive import NEXT
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.errors import ArgumentError
from ple_gym.fleet import ROW_BYTES, _machine, _next_seed, first_kept
from ple_gym.lanes import Lanes
from ple_gym.scenario import Scenario, never_decides
from ple_gym.scenario.fleet import (
    AXES,
    COMBINATIONS,
    MAX_VCPUS,
    RANGES,
    SPLITS,
    WORLDS,
    Combination,
    candidate,
    number_of,
    world,
)
from ple_gym.scenario.fleet_draws import PASSED
from ple_gym.scenario.profiles import GUESTS
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.memory import handle
from ple_gym.testing import check_vector_env
from ple_gym.view.features import INTERRUPTS, names_at, table_of, table_of_all
from ple_gym.view.record import HYPERVISOR, ORACLE

MODES = list(AutoresetMode)
compiled = pytest.mark.skipif(not JIT_ENABLED, reason="plain Python is slow")


def _seed(fits: Callable[[Scenario], bool]) -> int:
    """The first seed of `Fleet` whose world fits, and has room for more vCPUs."""
    worlds = ((seed, world("Fleet", number_of("Fleet", seed))) for seed in range(2000))
    return next(seed for seed, one in worlds if fits(one) and one.vcpus < MAX_VCPUS)


#: A seed for each scheduler, and one whose host sees interrupts.
SEEDS = {name: _seed(lambda one, name=name: one.host.scheduler == name) for name in AXES}
SEEDS["interrupts"] = _seed(lambda one: one.sees_interrupts)


def combination_of(scenario: Scenario) -> Combination:
    """What a world's parameters say of its combination."""
    parameters, scheduler = scenario.parameters(), scenario.host.scheduler
    axis = AXES[scheduler]
    (kernel,) = (
        name for name in axis.kernels if all(parameters[f"guest.{key}"] == value for key, value in GUESTS[name].items())
    )
    return Combination(scheduler, str(parameters[axis.version]), str(parameters[axis.layout]), kernel)


# --------------------------------------------------------------------------------------------------------------- worlds


def test_the_splits_share_no_combination_and_have_everything_in_each() -> None:
    everything = [one for split in SPLITS for one in COMBINATIONS[split]]
    assert len(everything) == len(set(everything)) == 200
    for axis in AXES.values():
        for split in SPLITS:
            found = COMBINATIONS[split]
            assert set(axis.versions) <= {one.version for one in found}
            assert set(axis.layouts) <= {one.layout for one in found}
            assert set(axis.kernels) <= {one.kernel for one in found}


@pytest.mark.parametrize("split", SPLITS)
def test_worlds_are_of_their_splits_combinations_and_fit(split: str) -> None:
    for number in range(0, WORLDS, 16):
        found = world(split, number)
        assert combination_of(found) in COMBINATIONS[split] and found.name == f"{split}-{number}"
        assert 2 <= found.host.pcpus <= 16 and found.host.pcpus < found.vcpus <= MAX_VCPUS
        assert found.actuator != "pull" and never_decides(found) is None
        assert found.limit.simulated_s in [6 * ms / 1000 for ms in RANGES["work"].values]


def test_no_world_is_in_two_splits() -> None:
    digests = [{world(split, number).digest for number in range(0, WORLDS, 4)} for split in SPLITS]
    assert sum(map(len, digests)) == len(set.union(*digests)) > 700


def test_worlds_stay_what_they_are() -> None:
    """Another digest needs another version of the fleet."""
    digest = blake2b(digest_size=8)
    for split in SPLITS:
        for number in range(0, WORLDS, 8):
            digest.update(world(split, number).digest.encode())
    assert digest.hexdigest() == "69ec4e9746209f71"
    assert [number_of("FleetTest", seed) for seed in range(4)] == [866, 724, 475, 79]


@compiled
@pytest.mark.parametrize("split", SPLITS)
def test_kept_draws_are_those_that_pass(split: str) -> None:
    assert len(PASSED[split]) == WORLDS
    for number in range(5, WORLDS, 128):
        assert first_kept(split, number) == int(PASSED[split][number], 36)


@compiled
def test_some_draws_do_not_pass() -> None:
    assert any(candidate("Fleet", number, 0) is None for number in range(40))
    assert any(digit != "0" for digit in PASSED["Fleet"])


def test_a_world_is_loaded_by_its_name() -> None:
    assert ple_gym.load("FleetTest-17") == ple_gym.load("PLE/FleetTest-v0-17") == world("FleetTest", 17)
    with pytest.raises(ArgumentError, match=r"Fleet: world 1024: must be 0..1023"):
        ple_gym.load("Fleet-1024")


def test_every_row_has_room() -> None:
    for number in range(0, WORLDS, 32):
        assert Lanes(world("Fleet", number), 1).rows.shape[1] <= ROW_BYTES


# ---------------------------------------------------------------------------------------------------------------- lanes


def unpadded(env: PleEnv, flat: np.ndarray, level: int) -> np.ndarray:
    """What of the fleet's observation a world's own environment shows."""
    scenario = env.scenario
    shared = table_of_all().with_more(INTERRUPTS)
    own = table_of(scenario.host.scheduler, scenario.sees_interrupts)
    columns = flat[: len(shared.of_vcpu(level)) * MAX_VCPUS].reshape(-1, MAX_VCPUS)
    names = shared.vcpu_names(level)
    shown = [columns[names.index(name), : scenario.vcpus] for name in own.vcpu_names(level)]
    left_out = [i for i, name in enumerate(names) if name not in own.vcpu_names(level)]
    assert not columns[:, scenario.vcpus :].any() and not columns[left_out].any()
    host = flat[-len(shared.host) :]
    return np.concatenate([*shown, [host[shared.host_names.index(name)] for name in own.host_names]])


@pytest.mark.parametrize("which", SEEDS)
@pytest.mark.parametrize(("information", "level"), [("hypervisor", HYPERVISOR), ("oracle", ORACLE)])
def test_an_episode_is_that_of_its_world(which: str, information: Any, level: int) -> None:
    """Every observation, mask, reward and flag of the world's own environment, with room for others."""
    env = PleEnv("Fleet", information=information)
    flat, info = env.reset(seed=SEEDS[which])
    alone = PleEnv(env.scenario, information=information)
    expected, told = alone.reset(seed=SEEDS[which])
    rng, vcpus = np.random.default_rng(0), env.scenario.vcpus
    for _ in range(150 if JIT_ENABLED else 10):
        assert np.array_equal(unpadded(env, flat, level), expected)
        legal = info["action_mask"]
        assert np.array_equal(np.append(legal[:vcpus], legal[MAX_VCPUS]), told["action_mask"])
        assert legal.shape == (MAX_VCPUS + 1,) and not legal[vcpus:MAX_VCPUS].any()
        action = int(rng.choice(np.flatnonzero(legal)))
        flat, reward, *ended, info = env.step(action)
        expected, reward_alone, *ended_alone, told = alone.step(vcpus if action == MAX_VCPUS else action)
        assert reward == reward_alone and ended == ended_alone
        assert info["elapsed_cycles"] == told["elapsed_cycles"]
        if any(ended):
            assert info["ple_episode"] == told["ple_episode"]
            break


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    "options",
    [{}, {"observation": "tokens", "information": "oracle", "reward": "fair"}, {"observation_dtype": "uint8"}],
    ids=str,
)
def test_lanes_are_single_environments(mode: AutoresetMode, options: dict[str, Any]) -> None:
    """Through changes of world and of host; steps are cut off so that there are many."""
    steps = 120 if JIT_ENABLED else 10
    ours = PleVectorEnv(5, "Fleet", autoreset_mode=mode, threads=2, max_episode_steps=9, **options)
    theirs = singles(5, mode, 9, scenario="Fleet", **options)
    seen = set()
    for one, two in zip(walk(ours, steps, seed=3), walk(theirs, steps, seed=3), strict=True):
        assert all(same(a, b) for a, b in zip(one[:-1], two[:-1], strict=True))
        known = two[-1]["_action_mask"]
        assert same(one[-1]["action_mask"][known], two[-1]["action_mask"][known])
        seen |= {(lane, ours.lanes.scenario_of(lane).name) for lane in range(5)}
    schedulers = {ple_gym.load(name).host.scheduler for _, name in seen}
    assert not JIT_ENABLED or (len(seen) > 40 and schedulers == set(AXES))


@compiled
@pytest.mark.parametrize("infos", ["sparse", "uniform"])
def test_infos_of_whole_episodes_are_those_of_single_environments(infos: Any) -> None:
    ours, mode = PleVectorEnv(4, "FleetTest", infos=infos), AutoresetMode.NEXT_STEP
    theirs, ended = singles(4, mode, scenario="FleetTest", infos=infos), 0
    for one, two in zip(walk(ours, 1200, seed=8), walk(theirs, 1200, seed=8), strict=True):
        assert alike(one, two)
        ended += (one[2] | one[3]).sum() if len(one) == 5 else 0
    assert ended > 0


def test_the_seed_of_an_episode_names_its_world() -> None:
    env = PleEnv("FleetValidation")
    _, info = env.reset(seed=11)
    names = []
    for _ in range(4):
        assert env.scenario is world("FleetValidation", number_of("FleetValidation", info["seed"]))
        names.append(env.scenario.name)
        _, info = env.reset()
    assert len(set(names)) == 4


def test_the_seed_that_follows_is_the_simulators() -> None:
    lanes = Lanes(ple_gym.load("HolderPreempted"), 1)
    lanes.reset(0, 5)
    for _ in range(3):
        seed = int(lanes.world["seed"][0])
        lanes.drive(0, 1, NEXT)
        assert _next_seed(seed) == lanes.world["seed"][0]


def test_who_is_not_there_cannot_be_chosen() -> None:
    envs = PleVectorEnv(2, "Fleet", infos="uniform")
    _, infos = envs.reset(seed=[SEEDS["credit"], SEEDS["fair"]])
    absent = envs.scenario_of(0).vcpus
    assert absent < MAX_VCPUS and not infos["action_mask"][0, absent:MAX_VCPUS].any()
    *_, infos = envs.step([absent, MAX_VCPUS])
    assert infos["illegal_action"].tolist() == [True, False]
    env = PleEnv("Fleet", illegal="raise")
    env.reset(seed=SEEDS["credit"])
    before = env.get_state()
    for wrong in (absent, MAX_VCPUS + 1, -1):
        with pytest.raises(ArgumentError, match="not legal"):
            env.step(wrong)
    assert env.get_state() == before
    with pytest.raises(ArgumentError, match=rf"actions must be 0..{MAX_VCPUS}, not 0..{MAX_VCPUS + 1}: see lane 1"):
        envs.step([0, MAX_VCPUS + 1])


def test_a_fleet_takes_no_overrides() -> None:
    with pytest.raises(ArgumentError, match="Fleet: takes no overrides"):
        PleEnv("Fleet", overrides={"host.pcpus": 2})


# --------------------------------------------------------------------------------------------------------------- states


def test_states_go_from_lane_to_lane_and_to_single_environments() -> None:
    envs, env = PleVectorEnv(3, "Fleet"), PleEnv("Fleet")
    envs.reset(seed=[SEEDS["credit"], SEEDS["credit2"], SEEDS["fair"]])
    for _ in range(5):
        envs.step(np.full(3, MAX_VCPUS))
    saved = envs.get_state(2)
    flat, info = env.set_state(saved)
    assert env.scenario.host.scheduler == "fair"
    observations, infos = envs.set_state(0, saved)
    assert np.array_equal(observations[0], flat) and np.array_equal(infos["action_mask"][0], info["action_mask"])
    envs.fork(2, [1])
    for _ in range(20):
        observations, rewards, *_ = envs.step(np.full(3, MAX_VCPUS))
        flat, reward, *_ = env.step(MAX_VCPUS)
        assert (observations == flat).all() and (rewards == reward).all()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    envs, other = PleVectorEnv(2, "Fleet"), PleEnv("FleetTest")
    envs.reset(seed=[SEEDS["credit"], SEEDS["fair"]])
    other.reset(seed=0)
    before = [envs.get_state(lane) for lane in range(2)]
    good, foreign = PleEnv("Fleet"), other.get_state()
    good.reset(seed=SEEDS["credit2"])
    for wrong in (foreign, b"", before[0][:100], before[0][:-1], 7):
        with pytest.raises(ValueError, match="saved state"):
            envs.reset(options={"state": [good.get_state(), wrong]})
        assert [envs.get_state(lane) for lane in range(2)] == before
    env, damaged = PleEnv("Fleet"), good.get_state()[:-1] + b"?"
    env.reset(seed=SEEDS["fair"])
    with pytest.raises(ValueError, match="checksum"):
        env.set_state(damaged)
    assert env.scenario.host.scheduler == "fair" and env.get_state() == before[1]
    ours, theirs = envs.step([MAX_VCPUS] * 2), PleVectorEnv(2, "Fleet")
    theirs.reset(options={"state": before})
    assert same(ours, theirs.step([MAX_VCPUS] * 2))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"]
)
def test_copies_go_on_alike(duplicate: Any) -> None:
    envs, env = PleVectorEnv(3, "Fleet"), PleEnv("Fleet")
    envs.reset(seed=0)
    env.reset(seed=SEEDS["fair"])
    for one, action in ((envs, np.full(3, MAX_VCPUS)), (env, MAX_VCPUS)):
        one.step(action)
        twin = duplicate(one)
        for _ in range(5):
            assert same(one.step(action), twin.step(action))


@pytest.mark.parametrize("which", ["credit", "fair"])
def test_a_rule_is_asked_in_each_lane(which: str) -> None:
    envs, env = PleVectorEnv(2, "Fleet"), PleEnv("Fleet")
    envs.reset(seed=[SEEDS[which], SEEDS["credit2"]])
    env.reset(seed=SEEDS[which])
    assert envs.ask("host").tolist() == [MAX_VCPUS] * 2
    for rule in ("continue", "longest-waiting"):
        alone = PleEnv(env.scenario)
        alone.reset(seed=SEEDS[which])
        answer = alone.ask(rule)
        expected = MAX_VCPUS if answer == env.scenario.vcpus else answer
        assert envs.ask(rule)[0] == env.ask(rule) == expected


# ------------------------------------------------------------------------------------------------------------- contract


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("split", SPLITS)
def test_gymnasiums_checker_passes(split: str) -> None:
    env = gym.make(f"PLE/{split}-v0")
    assert env.action_space.n == MAX_VCPUS + 1
    check_env(env.unwrapped, skip_render_check=True)


@compiled
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_our_checker_passes(mode: AutoresetMode) -> None:
    def make() -> Any:
        return gym.make_vec("PLE/FleetTest-v0", 4, autoreset_mode=mode, max_episode_steps=60, infos="uniform")

    def single() -> Any:
        return gym.make("PLE/FleetTest-v0", max_episode_steps=60, infos="uniform")

    report = check_vector_env(make, single, steps=150)
    assert {"lanes_are_singles", f"autoreset_{mode.name.lower()}"} <= set(report.passed)


@compiled
def test_lanes_hold_their_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nobody else does: their places are addresses."""
    monkeypatch.setattr("ple_gym.fleet._machine", _machine.__wrapped__)
    ours, theirs = PleVectorEnv(3, "Fleet", max_episode_steps=9), PleVectorEnv(3, "Fleet", max_episode_steps=9)
    made = [weakref.ref(one.description) for one in ours.lanes._machines]  # type: ignore[attr-defined]
    for one, two in zip(walk(ours, 60, seed=3), walk(theirs, 60, seed=3), strict=True):
        assert same(one[0], two[0])
        held = [one.description for one in ours.lanes._machines]  # type: ignore[attr-defined]
        for group in ours.lanes._groups.values():  # type: ignore[attr-defined]
            for lane in np.flatnonzero(group.places["row"]):
                assert group.places["description"][lane] == handle(held[lane])
    assert any(one() is None for one in made)


def test_pictures_are_of_the_world() -> None:
    env = PleEnv("Fleet", render_mode="ansi")
    env.reset(seed=SEEDS["fair"])
    env.step(MAX_VCPUS)
    assert isinstance(env.render(), str)


def test_the_shared_table_is_the_same_under_every_scheduler() -> None:
    rows = [
        [(one.name, one.level, one.range) for one in (*table_of_all(name).vcpu, *table_of_all(name).host)]
        for name in ("", *AXES)
    ]
    assert all(row == rows[0] for row in rows)
    for name in AXES:
        assert set(names_at("oracle", name)) <= set(table_of_all().vcpu_names(ORACLE))


def test_a_machine_is_made_once() -> None:
    assert _machine("Fleet", 3, "waste", "hypervisor", "float32") is _machine(
        "Fleet", 3, "waste", "hypervisor", "float32"
    )


# ------------------------------------------------------------------------------------------------------------- the gap


def test_the_single_rule_is_chosen_on_other_worlds_and_judged_on_other_seeds() -> None:
    """Two worlds of each split: `continue` is best where the rule is chosen, `host` on the seeds to choose on."""
    names = [f"{split}-{number}" for split in (question.CHOOSE, question.JUDGE) for number in range(2)]
    columns = {"scenario": np.array(names)}
    for which in ("first", "then"):
        for policy in question.POLICIES:
            columns[f"{which} {policy}"] = np.array([200, 200, 200, 200])
    columns["then continue"] = columns["first continue"] = np.array([100, 100, 300, 300])
    columns["first host"], columns["then host"] = np.array([200, 200, 100, 100]), np.array([200, 200, 250, 150])
    table = Table(columns)
    assert question.POLICIES[question.single(table)] == "continue"
    assert question.gaps(table, question.single(table)).tolist() == pytest.approx([20, 100])


def test_a_rule_gains_in_groups_of_worlds_against_what_their_hosts_have() -> None:
    """The host's own rule gains nothing on itself: KVM's of its version on fair hosts, elsewhere a yield."""
    table = committed("fleet")
    worlds = question.judged_worlds(table)
    members = question.members(worlds)
    assert all(len(places) >= 5 for places in members.values()) and {*AXES} < {*members}
    assert sum(len(members[name]) for name in AXES) == len(worlds) == question.WORLDS
    assert all(worlds[place].host.linux == "6.6" for place in members["fair, 6.6"])
    host = {one.name: one.found for one in question.gains(table, question.POLICIES.index(question.HOST))}
    own = {one.name: one.found for one in question.gains(table, question.POLICIES.index("kvm-5.13"))}
    assert host["credit"].mean == host["credit2"].mean == 0 != host["fair"].mean
    assert own["fair, 5.15"].mean == own["fair, 6.6"].mean == own["fair, 6.12"].mean == 0 != own["fair, 6.18"].mean
    assert all(rule in question.POLICIES for rule in question.SHOWN)
