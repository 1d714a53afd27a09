"""The PLE window as a part of the action (`decision.window = agent`; docs/model.md, 8.4 and 10)."""

from __future__ import annotations

import json
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from machine import Machine, totals, traced
from reference_simulator.world import world_of
from test_ple_window import stalled

import ple_gym
from ple_gym import PleEnv, PleVectorEnv
from ple_gym.adapters.masks import mask_in_observation
from ple_gym.evaluate.agents import Agent
from ple_gym.lanes import RuleFault
from ple_gym.rules import rule, whole, with_window
from ple_gym.scenario import Cost, Decision, Host, Ple, Scenario, Vm
from ple_gym.testing import check_vector_env
from ple_gym.traces.events import to_chrome_json

AGENT = {"decision.window": "agent"}
#: Each vCPU has a pCPU; one holds the lock for ten windows, and the other spins for it meanwhile.
PAIR = Scenario(
    name="Pair",
    host=Host(pcpus=2),
    cost=Cost(exit=1000),
    decision=Decision(window="agent"),
    guest=Vm(vcpus=2, transactions=40, sections=1, compute="constant 2000", hold="constant 40000", lock_probability=1),
)


@rule("spins-on", reads="-", actuator="pull", source="a test", k=whole(-9, 9, default=0, help="window"))
def spins_on(see, asker, k):
    """Resume, with a window."""
    return with_window(see, asker, k.k)


def long(k: int) -> ple_gym.rules.Rule:
    return spins_on.with_values({"k": k})


@pytest.mark.parametrize("ple", [Ple(), Ple(window_grow=2), Ple(kind="count", count=4096, window_grow=3)], ids=str)
def test_what_is_chosen_takes_the_place_of_the_growth(ple: Ple) -> None:
    """k = 3 is 4096 * 16 cycles, or PAUSEs of 64 cycles, until the next exit; from there it grows again."""
    m = Machine(stalled(ple).with_overrides({"limit.simulated_s": 1, **AGENT}))
    before, asker = int(m.world["now"]), m.asker
    m.step(asker + (m.defer + 1) * 3)
    assert m.world["now"] - before == 1000 + (65_535 * 64 if ple.kind == "count" else 65_536 + 64)
    assert m.vcpu["window"][asker] == 65_536 * max(1, ple.window_grow)
    assert m.vcpu["ples"][asker] == 3, "a long window is no progress"


@pytest.mark.parametrize(("k", "window"), [(1, 4096), (2, 16_384), (4, 262_144), (5, 300_000)])
def test_a_window_outlasts_switches_until_its_vcpu_exits_again(k: int, window: int) -> None:
    world = stalled(Ple(window_grow=2, window_max=300_000), vcpus=3)
    m = Machine(world.with_overrides({"limit.simulated_s": 1, **AGENT}))
    one, other = m.asker, m.queue(0)[0]
    m.step(other + (m.defer + 1) * k)
    assert m.vcpu[["window", "chosen"]][one].item() == (window, 1)
    m.step(one)
    assert (m.asker, m.vcpu["window"][one]) == (one, min(300_000, 2 * window))
    m.step(other)  # its window is the host's again: it shrinks at the switch, and grows at the exit
    m.step(one)
    assert m.vcpu[["window", "chosen"]][one].item() == (8192, 0)


def test_a_long_window_for_a_short_hold_saves_exits() -> None:
    found = [totals(PAIR, long(k)) for k in range(6)]
    for k in range(6):
        world = world_of(PAIR.to_dict(), "continue", 0)
        world.window = lambda k=k: k
        assert found[k] == world.run("continue")
    assert found[0]["exits"] > 200 and found[3]["exits"] == 2, "nine in a wait; one of each vCPU in all"
    assert found[3]["now"] < found[0]["now"]


def test_what_a_rule_may_not_answer() -> None:
    for k in (6, -1):
        with pytest.raises(RuleFault, match=r"or to defer \(2\), and 3 times a window, 0\.\.5$"):
            totals(PAIR, long(k))
    with pytest.raises(RuleFault, match=r"; windows need decision\.window = 'agent'$"):
        totals(PAIR.with_overrides({"decision.window": "host"}), long(1))


def test_the_digest_of_a_world_without_it_is_as_before() -> None:
    assert ple_gym.SCENARIOS["Tiny"].digest == "9b140ad0fe1be24f" != PAIR.digest, "kept certificates name it"


def test_spaces_masks_and_checkers() -> None:
    env, envs = PleEnv("TicketOrder", overrides=AGENT), PleVectorEnv(3, "TicketOrder", overrides=AGENT)
    mask = env.reset(seed=0)[1]["action_mask"]
    envs.reset(seed=0)
    assert env.action_space == spaces.MultiDiscrete([7, 6]) and envs.action_space.shape == (3, 2)
    assert mask.tolist() == env.action_masks().tolist() == envs.action_masks()[0].tolist()
    assert len(mask) == 13 and mask[6:].all()
    check_env(gym.make("PLE/Tiny-v0", overrides=AGENT).unwrapped)
    check_vector_env(lambda: PleVectorEnv(3, "Tiny", overrides=AGENT), lambda: PleEnv("Tiny", overrides=AGENT))


def test_maskable_ppo_learns() -> None:
    learner = pytest.importorskip("sb3_contrib").MaskablePPO
    envs = ple_gym.make_sb3("PLE/Tiny-v0", num_envs=2, overrides=AGENT)
    model = learner("MlpPolicy", envs, n_steps=8, batch_size=16, n_epochs=1, device="cpu").learn(16)
    assert model.predict(envs.reset(), action_masks=envs.action_masks())[0].shape == (2, 2)


def test_lanes_are_single_environments_and_states_keep_windows() -> None:
    envs, ones = PleVectorEnv(3, "Storm", overrides=AGENT), [PleEnv("Storm", overrides=AGENT) for _ in range(3)]
    envs.reset(seed=5)
    for lane, one in enumerate(ones):
        one.reset(seed=5 + lane)
    for _ in range(100):
        actions = envs.sample_actions()
        rewards = envs.step(actions)[1]
        assert [one.step(action)[1] for one, action in zip(ones, actions, strict=True)] == rewards.tolist()
    assert [one.get_state() for one in ones] == [envs.get_state(lane) for lane in range(3)]
    assert len(set(envs.lanes.vcpu["window"].ravel().tolist())) == 5
    copy, kept = pickle.loads(pickle.dumps(ones[0])), ones[0].get_state()
    story = [ones[0].step([32, k])[1] for k in (0, 5, 1)]
    ones[0].set_state(kept)
    assert [copy.step([32, k])[1] for k in (0, 5, 1)] == story == [ones[0].step([32, k])[1] for k in (0, 5, 1)]


@pytest.mark.parametrize(
    "action", [3, [3], [3, 6], [33, 0], [-1, 0], [0, -1], [1.0, 2], [[3, 1]], None, [2**64, 0], [[1], 2]], ids=repr
)
def test_what_is_not_in_the_space_is_refused_and_changes_nothing(action: Any) -> None:
    env, envs = PleEnv("Storm", overrides=AGENT), PleVectorEnv(2, "Storm", overrides=AGENT)
    env.reset(seed=0)
    envs.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ple_gym.ArgumentError, match=r"^action .*must be a whole number, 0\.\.32, and another, 0\.\.5$"):
        env.step(action)
    with pytest.raises(ple_gym.ArgumentError, match=r"^actions must be .*0\.\.32 and 0\.\.5"):
        envs.step([[0, 0], action])
    assert env.get_state() == before == envs.get_state(0)


def test_an_illegal_target_defers_and_chooses_no_window() -> None:
    env, strict = PleEnv("Storm", overrides=AGENT), PleVectorEnv(1, "Storm", overrides=AGENT, illegal="raise")
    strict.reset(seed=0)
    wrong = int(env.reset(seed=0)[1]["action_mask"].argmin())
    with pytest.raises(ple_gym.ArgumentError, match=rf"^action {wrong} of lane 0 is not legal here; legal are .* 32$"):
        strict.step([[wrong, 5]])
    strict.step([[32, 0]])
    assert env.step([wrong, 5])[4]["illegal_action"]
    assert env.lanes.vcpu.tolist() == strict.lanes.vcpu.tolist()


def test_ask_answers_in_two_parts() -> None:
    env, envs = PleEnv(PAIR), PleVectorEnv(1, PAIR)
    env.reset(seed=0)
    envs.reset(seed=0)
    assert env.ask("host").tolist() == [2, 0]
    assert env.ask(long(4))[1] == 4 and envs.ask(long(4)).tolist() == [env.ask(long(4)).tolist()]


class Resumes:
    def __init__(self, windows: bool, space: spaces.Space) -> None:
        self.windows, self.action_space = windows, space

    def predict(self, observation, state=None, episode_start=None, deterministic=True, action_masks=None):
        self.width = action_masks.shape[1]
        targets = action_masks[:, :2].argmax(axis=1)
        return (np.column_stack([targets, targets * 0 + 3]) if self.windows else targets), None


def test_who_knows_targets_alone_leaves_windows_to_the_host() -> None:
    knows, chooses = Resumes(False, spaces.Discrete(3)), Resumes(True, spaces.MultiDiscrete([3, 6]))
    rows = ple_gym.compare(PAIR, ["continue", Agent("a", knows), Agent("b", chooses)], "0:2").rows()
    assert rows[0].ple_exits == rows[1].ple_exits > rows[2].ple_exits
    assert (knows.width, chooses.width) == (3, 9)
    with pytest.raises(
        ple_gym.PolicyError, match=r"its action_space is MultiDiscrete \(3, 5\); Pair .* has .*\(3, 6\)"
    ):
        Agent("c", Resumes(True, spaces.MultiDiscrete([3, 5]))).interface(PAIR)


def test_what_knows_one_number_alone_refuses_pairs() -> None:
    with pytest.raises(
        TypeError, match=r"^mask_in_observation: a mask needs a Discrete .*, not MultiDiscrete\(\[3 6\]"
    ):
        mask_in_observation(PleEnv(PAIR))
    pytest.importorskip("torch")
    from agents.common import AgentError, Options

    with pytest.raises(AgentError, match=r"^decision\.window = 'agent': must be host; learners choose whom to run$"):
        Options("Tiny", ("decision.window=agent",)).load_scenario()


def test_traces_tell_target_and_window() -> None:
    events = json.loads(to_chrome_json(traced(PAIR, long(2))[1], 10**9, targets=3))["traceEvents"]
    assert {(one["args"]["action"] < 2, one["args"]["window"]) for one in events if one["name"] == "decision"} == {
        (True, 2)
    }
