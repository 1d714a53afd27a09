"""The Gymnasium environment: contract, decisions, observations, rewards, state."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_match import check_environments_match
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from worlds import scenarios

import ple_gym
from agents.paper_heuristic import PaperHeuristic
from ple_gym.drive import OBSERVE
from ple_gym.envs.env import PleEnv
from ple_gym.envs.registration import MAX_EPISODE_STEPS, environment_id, registered_limit
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.lanes import Lanes
from ple_gym.scenario import never_decides
from ple_gym.scenario.builtin import EARLIER
from ple_gym.view import features as observe

IDS = [environment_id(name) for name in ple_gym.SCENARIOS]
FORMS = [("flat", "hypervisor"), ("tokens", "introspection"), ("flat", "oracle")]


def random_walk(env: gym.Env, seed: int, steps: int) -> list[tuple]:
    """Legal random actions from a fixed generator; what each step returned."""
    rng = np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    seen = []
    for _ in range(steps):
        step = env.step(rng.choice(np.flatnonzero(info["action_mask"])))
        info = step[4]
        seen.append(step)
        if step[2] or step[3]:
            _, info = env.reset()
    return seen


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(("observation", "information"), FORMS)
def test_gymnasiums_checker_passes(name: str, observation: str, information: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(name, observation=observation, information=information).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_sb3s_checker_passes(name: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.make(name).unwrapped)


def test_two_environments_are_the_same_world() -> None:
    check_environments_match(
        gym.make("PLE/Storm-v1"), gym.make("ple_gym:PLE/Storm-v1"), num_steps=300, seed=7, skip_render=True
    )


def test_specs_can_be_written_down() -> None:
    for name in IDS:
        spec = gym.spec(name)
        assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec


def test_close_twice_and_pickle() -> None:
    env = gym.make("PLE/Tiny-v0").unwrapped
    env.reset(seed=1)
    copy = PleEnv("Tiny")
    copy.set_state(pickle.loads(pickle.dumps(env.get_state())))
    assert env.step(0)[1:4] == copy.step(0)[1:4]
    env.close()
    env.close()


# --- worlds and seeds -------------------------------------------------------------------------------------------------


def test_seed_names_the_world_that_simulate_runs() -> None:
    env = gym.make("PLE/Storm-v1").unwrapped
    _, info = env.reset(seed=3)
    assert (info["seed"], info["index"]) == (3, 0)
    lanes = Lanes(env.scenario, 1, policy="longest-waiting")
    lanes.run(0, 3)
    waited = observe.VCPU_FEATURES.index("waited")
    observation, done = env._observe(), False
    while not done:
        columns = observation[: -len(observe.HOST_FEATURES)].reshape(-1, env.lanes.vcpus)
        since = np.where(env.lanes.vcpu["state"][0] == 1, env.lanes.vcpu["queued_since"][0], 2**62)
        assert columns[waited, since.argmin()] == columns[waited].max()
        observation, _, terminated, truncated, info = env.step(since.argmin())
        done = terminated or truncated
    assert env.lanes.totals(0) == lanes.totals(0)


def test_worlds_without_a_decision_are_replaced_and_counted() -> None:
    env = gym.make("PLE/Paper32-v1", overrides={"guest.transactions": 2000}).unwrapped
    _, info = env.reset(seed=0)
    assert info["seed"] == 0
    index = info["index"]
    assert index > 0, "the median run of Paper32 has no exit at all"
    again, info = env.reset(seed=0)
    assert info["index"] == index
    assert env.observation_space.contains(again)


NEVER: list[tuple[dict[str, object], str]] = [
    ({"ple.gap": 32}, r"guest\.spin_period = 50: longer than ple\.gap = 32"),
    ({"ple.gap": 0}, r"ple\.gap = 0: pause-loop exiting is off"),
    ({"ple.kind": "count", "ple.count": 0}, r"ple\.count = 0: pause-loop exiting is off"),
    ({"ple.kind": "count", "ple.gap": 32}, r"longer than ple\.gap = 32"),
    ({"guest.spin_in_user_mode": True}, "user mode"),
    ({"guest.vcpus": 1}, r"guest\.vcpus = 1"),
    ({"guest.locks": 0, "guest.start": "fresh"}, "never takes a shared lock"),
    ({"guest.lock_probability": 0, "guest.start": "fresh"}, "never takes a shared lock"),
    ({"limit.simulated_s": 1e-6}, r"limit\.simulated_s = 1e-06: over before"),
]


@pytest.mark.parametrize("kind", [PleEnv, lambda *args, **options: PleVectorEnv(2, *args, **options)], ids=["one", "N"])
@pytest.mark.parametrize(("overrides", "why"), NEVER, ids=lambda value: str(value)[:40])
def test_a_scenario_that_never_exits_says_so_at_once(
    overrides: dict[str, object], why: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a world being tried, of which there may be a thousand that take hours each."""
    env = kind("Paper8", overrides=overrides)
    monkeypatch.setattr(env.lanes, "_drive", None)
    with pytest.raises(RuntimeError, match=f"Paper8: there is nothing to decide: .*{why}"):
        env.reset(seed=0)


def test_a_scenario_that_just_happens_not_to_exit_is_found_out() -> None:
    env = PleEnv("Tiny", overrides={"limit.simulated_s": 0.000002})  # the window ends just before
    with pytest.raises(RuntimeError, match=r"worlds 0\.\.1000 of seed 0 have no PLE exit: there is nothing to decide"):
        env.reset(seed=0)


@settings(max_examples=300)
@given(scenarios(), st.integers(0, 2**62))
def test_where_nothing_can_be_decided_nothing_ever_is(scenario: ple_gym.Scenario, seed: int) -> None:
    assume(never_decides(scenario) is not None)
    lanes = Lanes(scenario, 1, policy="continue")
    lanes.run(0, seed)
    assert lanes.totals(0)["exits"] == 0


def test_in_every_built_in_scenario_something_can_be_decided() -> None:
    assert [never_decides(scenario) for scenario in ple_gym.SCENARIOS.values()] == [None] * len(ple_gym.SCENARIOS)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_outside_the_range_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed = {seed}: must be a whole number, 0"):
        PleEnv("Tiny").reset(seed=seed)


def test_unknown_names_are_refused() -> None:
    for keyword in ("information", "observation", "reward", "start", "illegal", "infos", "render_mode"):
        with pytest.raises(ValueError, match="'nonsense'"):
            PleEnv("Tiny", **{keyword: "nonsense"})
    with pytest.raises(ple_gym.ScenarioError, match=r"host\.ratelimit_us = 50"):
        gym.make("PLE/Tiny-v0", overrides={"host.ratelimit_us": 50})
    with pytest.raises(ValueError, match="reset option 'begin'"):
        PleEnv("Tiny").reset(options={"begin": 1})


# --- actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actuator", ["pull", "local", "hint", "yield"])
def test_masks_tell_the_legal_actions(actuator: str) -> None:
    env = PleEnv("Storm", illegal="raise", overrides={"decision.actuator": actuator})
    _, info = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        mask = info["action_mask"]
        asker = int(env.lanes.pcpu["current"][0, env.lanes.world["deciding"][0]])
        assert mask.dtype == np.int8 and mask[asker] == 1 and mask[-1] == 1
        assert (env.action_masks() == mask.astype(bool)).all()
        before = env.get_state()
        for illegal in np.flatnonzero(mask == 0)[:3]:
            with pytest.raises(ValueError, match="not legal"):
                env.step(illegal)
        assert env.get_state() == before
        _, _, terminated, truncated, info = env.step(rng.choice(np.flatnonzero(mask)))
        if terminated or truncated:
            _, info = env.reset()


class Wrapped:
    """A number that is none of Python's or NumPy's, such as a tensor."""

    def __repr__(self) -> str:
        return "wrapped"

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


@pytest.mark.parametrize(
    "action",
    [2.7, -0.5, 0.5, 2.0, np.float32(1), np.nan, np.inf, -1, 33, 10**30, -(10**30), np.int64(-3), np.uint64(2**64 - 1),
     np.array([1]), np.array([1, 2]), np.array(1.0), np.array("1"), np.zeros((2, 2, 40)), [1], (1,), "1", b"1", None,
     {}, 1j, np.timedelta64(1), np.bool_(True)],
    ids=lambda action: repr(action)[:30],
)  # fmt: skip
@pytest.mark.parametrize("illegal", ["defer", "raise"])
def test_what_is_not_in_the_space_is_refused_and_changes_nothing(action: Any, illegal: str) -> None:
    env = PleEnv("Storm", illegal=illegal)
    env.reset(seed=0)
    too_long = isinstance(action, int) and abs(action) >= 2**63  # the oldest Gymnasium cannot be asked
    assert action is None or too_long or not env.action_space.contains(action) or isinstance(action, np.bool_)
    before = env.get_state()
    with pytest.raises(ValueError, match=r"^action .*is not legal: it must be a whole number, 0\.\.32$") as raised:
        env.step(action)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)
    assert env.get_state() == before


@pytest.mark.parametrize(
    "action", [3, True, np.int8(3), np.uint64(3), np.int64(3), np.array(3), Wrapped(3)], ids=lambda action: repr(action)
)
def test_whole_numbers_of_all_kinds_are_actions(action: Any) -> None:
    one, two = PleEnv("Storm"), PleEnv("Storm")
    one.reset(seed=0)
    two.reset(seed=0)
    one.step(action)
    two.step(1 if action is True else 3)
    assert one.get_state() == two.get_state()


def test_a_step_before_the_first_reset_says_so() -> None:
    for env in (PleEnv("Tiny"), gym.make("PLE/Tiny-v0").unwrapped):
        with pytest.raises(RuntimeError, match=r"^not reset yet: call reset\(\) before step\(\)$"):
            env.step(0)


def test_an_illegal_action_defers_and_is_reported() -> None:
    one, two = PleEnv("Storm"), PleEnv("Storm")
    _, info = one.reset(seed=0)
    two.reset(seed=0)
    illegal = np.flatnonzero(info["action_mask"] == 0)[0]
    first, second = one.step(illegal), two.step(one.lanes.vcpus)
    assert np.array_equal(first[0], second[0]) and first[1:4] == second[1:4]
    assert first[4]["illegal_action"] and "illegal_action" not in second[4]
    with pytest.raises(ValueError, match="not legal"):
        one.step(one.lanes.vcpus + 1)


def test_stepping_a_finished_run_is_refused() -> None:
    env = PleEnv("HolderPreempted")
    env.reset(seed=0)
    _, _, terminated, _, info = env.step(0)  # run the holder: the known best answer
    assert terminated and info["ple_episode"]["ple_exits"] == 1
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(0)


def test_the_paper_heuristic_decides_like_the_compiled_rule() -> None:
    agent = PaperHeuristic()
    for scenario, seed in (("Storm", 0), ("TicketOrder", 0), ("Tiny", 5), ("Storm", 9)):
        env = gym.make(environment_id(scenario), observation="tokens").unwrapped
        observation, done = env.reset(seed=seed)[0], False
        while not done:
            action, _ = agent.predict(observation)
            observation, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
        lanes = Lanes(env.scenario, 1, policy="paper")
        lanes.run(0, seed)
        assert env.lanes.totals(0) == lanes.totals(0)


# --- observations -----------------------------------------------------------------------------------------------------


def test_both_forms_hold_the_same_numbers() -> None:
    flat, tokens = PleEnv("Storm"), PleEnv("Storm", observation="tokens")
    for (one, *_), (two, *_) in zip(random_walk(flat, 1, 100), random_walk(tokens, 1, 100), strict=True):
        assert np.array_equal(one, np.concatenate([two["vcpus"].T.ravel(), two["host"]]))
        assert flat.observation_space.contains(one) and tokens.observation_space.contains(two)


@pytest.mark.parametrize("observation", ["flat", "tokens"])
def test_observations_that_somebody_holds_stay_as_they_are(observation: str) -> None:
    """Memory is used again; what is held in whatever way, or changed by whoever holds it, is nobody else's."""
    envs = [PleEnv("Storm", observation=observation) for _ in range(2)]
    keeping, dropping = envs
    ways: list[Any] = [lambda x: x, lambda x: x[1:3], memoryview, lambda x: x.T, lambda x: None]
    held: list[tuple[Any, Any]] = []
    seen, info = keeping.reset(seed=3)
    dropping.reset(seed=3)
    for turn in range(200):
        action = int(np.flatnonzero(info["action_mask"])[-1 - turn % 2])
        seen, _, over, _, info = keeping.step(action)
        array = seen if observation == "flat" else seen["vcpus"]
        way = ways[turn % len(ways)]
        held.append((way(array), way(array.copy())))
        other = dropping.step(action)[0]
        other = other if observation == "flat" else other["vcpus"]
        assert np.array_equal(array, other) and not np.shares_memory(array, other)
        other[:] = -7  # an agent's own business
        del seen, array, other
        if over:
            break
    assert len(held) > 100
    assert all(now is None or np.array_equal(np.asarray(now), np.asarray(then)) for now, then in held)


def test_levels_add_features_and_change_nothing_else() -> None:
    walks = [random_walk(PleEnv("Storm", observation="tokens", information=level), 2, 200) for level in
             ("hypervisor", "introspection", "oracle")]  # fmt: skip
    for hypervisor, introspection, oracle in zip(*walks, strict=True):
        narrow, wide = len(observe.VCPU_FEATURES), len(observe.names_at("introspection"))
        assert np.array_equal(hypervisor[0]["vcpus"], introspection[0]["vcpus"][:, :narrow])
        assert np.array_equal(introspection[0]["vcpus"], oracle[0]["vcpus"][:, :wide])
        assert hypervisor[1:4] == introspection[1:4] == oracle[1:4]


def test_the_oracle_level_shows_holder_and_line() -> None:
    env = PleEnv("TicketOrder", observation="tokens", information="oracle")
    names = observe.names_at("oracle")
    rows = env.reset(seed=0)[0]["vcpus"]
    # A convoy of six: 0 holds the lock, 1..5 wait in this order.
    assert rows[:, names.index("holder")].tolist() == [1, 0, 0, 0, 0, 0]
    assert rows[1:, names.index("line")] * 6 == pytest.approx([0, 1, 2, 3, 4])
    assert rows[1:, names.index("behind")] * 6 == pytest.approx([4, 3, 2, 1, 0])


def shown(env: PleEnv) -> np.ndarray:
    """The observation, written anew from the state as it is now."""
    env.lanes.drive(0, 1, OBSERVE)
    return env.lanes.observation[0].copy()


def test_hidden_state_does_not_reach_the_hypervisor_level() -> None:
    env = PleEnv("Storm", overrides={"guest.pc_classes": 1})
    rng = np.random.default_rng(0)
    env.reset(seed=4)
    for _ in range(50):
        env.step(env.lanes.vcpus)
        plain = shown(env)
        saved = env.get_state()
        for section in ("guest", "lock"):
            env.lanes.section(section)[0] = 0
        for field in ("transaction", "section", "remaining", "lock", "exit_lock", "next_waiter", "spin_from"):
            env.lanes.guest[field][0] = rng.permutation(env.lanes.vcpus)
        assert np.array_equal(shown(env), plain)
        env.set_state(saved)


# --- rewards, time, episodes ------------------------------------------------------------------------------------------


def test_waste_sums_to_the_lost_makespan() -> None:
    env = PleEnv("Storm")
    rng = np.random.default_rng(0)
    for seed in range(5):
        _, info = env.reset(seed=seed)
        milliseconds = env.scenario.host.tsc_hz * env.lanes.pcpus / 1000
        cycles = env.lanes.totals(0)["cycles"]
        total, lost_before = 0.0, sum(cycles.values()) - cycles["useful"]
        elapsed, first = 0, int(env.lanes.world["now"][0])
        done = False
        while not done:
            action = rng.choice(np.flatnonzero(info["action_mask"]))
            _, reward, terminated, truncated, info = env.step(action)
            total += reward
            elapsed += info["elapsed_cycles"]
            done = terminated or truncated
        totals = env.lanes.totals(0)
        lost = totals["now"] * env.lanes.pcpus - totals["cycles"]["useful"] - lost_before
        assert total == pytest.approx(-lost / milliseconds, rel=1e-9)
        assert elapsed == totals["now"] - first
        assert info["ple_episode"]["finished"] == terminated != truncated


def test_time_reward_is_the_time() -> None:
    env = PleEnv("TicketOrder", reward="time")
    for _, reward, _, _, info in random_walk(env, 0, 50):
        assert reward == pytest.approx(-info["elapsed_cycles"] * 1000 / env.scenario.host.tsc_hz)


def test_running_the_neighbour_is_charged() -> None:
    """Otherwise an agent would hand the machine to a compute-only neighbour, whose work is never wasted."""
    hog = {"vcpus": 4, "transactions": 0, "locks": 0, "lock_probability": 0.0, "compute": "constant 1000000000"}
    scenario = ple_gym.Scenario.from_dict({**ple_gym.SCENARIOS["Storm"].to_dict(), "neighbours": [hog]})
    returns = {}
    for favour in (True, False):
        env = PleEnv(scenario, observation="tokens")
        (observation, info), total = env.reset(seed=0), 0.0
        sibling = observe.VCPU_FEATURES.index("sibling")
        for _ in range(400):
            waiting = info["action_mask"][:-1].astype(bool)
            liked = np.flatnonzero(waiting & (observation["vcpus"][:, sibling] == (0 if favour else 1)))
            observation, reward, terminated, truncated, info = env.step(liked[0] if liked.size else env.lanes.vcpus)
            total += reward
            if terminated or truncated:
                break
        returns[favour] = total * 1e3 / env.lanes.world["now"][0]  # per simulated time
    assert returns[True] < returns[False]


def test_every_id_ends_within_its_step_limit() -> None:
    """Of those that defer at every exit, too, who otherwise make up to a million and a half steps."""
    for name, limit in MAX_EPISODE_STEPS.items():
        assert gym.spec(environment_id(name)).max_episode_steps == registered_limit(name) == limit
        env = gym.make(environment_id(name))
        assert env.spec is not None and env.spec.max_episode_steps == limit
        env.reset(seed=0)
        steps, over = 0, False
        while not over:
            *_, terminated, truncated, _ = env.step(env.unwrapped.action_space.n - 1)
            steps, over = steps + 1, terminated or truncated
        assert steps <= limit
        assert truncated == (steps == limit) == (name in ("TicketOrder", "Tiny", "Storm", "Busy8"))
    assert set(MAX_EPISODE_STEPS) == set(ple_gym.SCENARIOS)
    assert registered_limit(ple_gym.SCENARIOS["Storm"]) is registered_limit("storm.toml") is None


@pytest.mark.parametrize("rule", ["random", "longest-waiting", "kvm", "spin-age", "two-patience", "oracle"])
def test_a_rule_that_names_a_vcpu_ends_far_within_the_step_limit(rule: str) -> None:
    for name, limit in MAX_EPISODE_STEPS.items():
        lanes = Lanes(ple_gym.SCENARIOS[name], 1, policy=rule)
        for seed in range(3):
            before = lanes.run_from_start(0, seed)["exits"]
            assert 8 * (lanes.totals(0)["exits"] - before + 1) <= limit


@pytest.mark.parametrize("name", EARLIER)
def test_an_earlier_version_stays_and_says_that_there_is_a_later(name: str) -> None:
    newest = name.split("-v")[0]
    with pytest.warns(DeprecationWarning, match="out of date"):
        env = gym.make(f"PLE/{name}").unwrapped
    assert env.scenario == EARLIER[name] and env.scenario.decision.pull_swaps
    assert registered_limit(name) == MAX_EPISODE_STEPS[newest]
    assert not ple_gym.SCENARIOS[newest].decision.pull_swaps


def test_the_step_limit_can_be_chosen() -> None:
    assert isinstance(gym.make("PLE/Tiny-v0", max_episode_steps=-1), PleEnv)
    for limit, seen in ((None, 20_000), (7, 7), (-1, None)):
        assert gym.make("PLE/Tiny-v0", max_episode_steps=limit).spec.max_episode_steps == seen
    assert gym.make_vec("PLE/Tiny-v0").max_episode_steps == 20_000
    assert gym.make_vec("PLE/Tiny-v0", max_episode_steps=7).max_episode_steps == 7
    for none in (None, -1):
        assert gym.make_vec("PLE/Tiny-v0", max_episode_steps=none).max_episode_steps is None


# --- infos ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HolderPreempted", "Storm"])
def test_uniform_infos_have_the_same_keys_and_kinds_always(name: str) -> None:
    env = PleEnv(name, infos="uniform", overrides={"guest.vcpus": 2})
    rng, forms, ends = np.random.default_rng(0), set(), 0
    _, info = env.reset(seed=1)
    for _ in range(300):
        forms.add(tuple((key, type(value), np.shape(value)) for key, value in info.items()))
        *_, terminated, truncated, info = env.step(rng.integers(env.action_space.n))  # some of them illegal
        if terminated or truncated:
            ends += 1
            assert env.episode_record()["finished"] == terminated
            forms.add(tuple((key, type(value), np.shape(value)) for key, value in info.items()))
            _, info = env.reset()
    assert ends
    assert [[key for key, *_ in form] for form in forms] == [
        ["action_mask", "elapsed_cycles", "illegal_action", "seed", "index"]
    ]


def test_uniform_infos_say_what_the_others_do() -> None:
    sparse, uniform = (
        PleEnv("Storm", infos=infos, overrides={"guest.transactions": 9}) for infos in ("sparse", "uniform")
    )
    rng = np.random.default_rng(3)
    (_, one), (_, two) = sparse.reset(seed=3), uniform.reset(seed=3)
    for _ in range(400):
        named = {key: two[key] for key in ("seed", "index")}
        assert all(np.array_equal(two[key], value) for key, value in one.items())
        action = rng.integers(33)
        (*_, terminated, truncated, one), (*_, two) = sparse.step(action), uniform.step(action)
        assert two["illegal_action"] == one.get("illegal_action", False)
        assert {key: two[key] for key in named} == named
        if terminated or truncated:
            assert uniform.episode_record() == one["ple_episode"]
            (_, one), (_, two) = sparse.reset(), uniform.reset()


def test_truncation_is_not_termination() -> None:
    env = PleEnv("Tiny", overrides={"limit.simulated_s": 0.002})
    env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        observation, _, terminated, truncated, info = env.step(env.lanes.vcpus)
    assert truncated and not terminated
    assert info["ple_episode"]["makespan_s"] is None and info["ple_episode"]["simulated_s"] == 0.002
    assert env.observation_space.contains(observation) and info["action_mask"].all()


# --- state ------------------------------------------------------------------------------------------------------------


def test_a_restored_state_goes_on_exactly() -> None:
    env = PleEnv("Storm")
    env.reset(seed=2)
    for _ in range(100):
        env.step(env.lanes.vcpus)
    saved = env.get_state()

    def go_on(env: PleEnv) -> list:
        return [env.step(env.lanes.vcpus)[:2] for _ in range(100)]

    first = go_on(env)
    other = PleEnv("Storm")
    observation, info = other.set_state(saved)
    assert info["seed"] == 2 and other.observation_space.contains(observation)
    for one, two in zip(first, go_on(other), strict=True):
        assert np.array_equal(one[0], two[0]) and one[1] == two[1]


def test_damaged_and_foreign_states_are_refused() -> None:
    env = PleEnv("Storm")
    env.reset(seed=2)
    saved = env.get_state()
    before = env.lanes.rows.copy()
    for wrong, why in (
        (b"", "not a saved state"),
        (saved[:-1], "damaged"),
        (saved[:500] + bytes([saved[500] ^ 1]) + saved[501:], "damaged"),
        (PleEnv("Tiny").get_state(), "another scenario"),
    ):
        with pytest.raises(ValueError, match=why):
            env.set_state(wrong)
    assert np.array_equal(env.lanes.rows, before)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_render_modes() -> None:
    for mode, kind in (("ansi", str), ("rgb_array", np.ndarray)):
        env = gym.make("PLE/Storm-v1", render_mode=mode)
        env.reset(seed=0)
        assert isinstance(env.render(), kind)
        for _ in range(200):
            env.step(env.unwrapped.lanes.vcpus)
        picture = env.render()
        assert isinstance(picture, kind)
        if kind is str:
            assert "!" in picture
        else:
            assert picture.dtype == np.uint8 and picture.ndim == 3 and len(np.unique(picture)) > 10
    assert PleEnv("Tiny").render() is None
