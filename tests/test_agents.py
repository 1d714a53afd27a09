"""Agents: what they learn, that it survives a kill, and that the kernel decides as torch does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="learners need it")

from exhaustive import shortest_makespan  # noqa: E402

from agents import __main__ as command  # noqa: E402
from agents import bc, cem, common, dqn, maskable_ppo, set_ppo  # noqa: E402
from agents.set_network import Actor  # noqa: E402
from ple_gym import evaluate, make_sb3  # noqa: E402
from ple_gym.adapters.semi_markov import semi_markov  # noqa: E402
from ple_gym.drive import NEXT, RESET, STEP  # noqa: E402
from ple_gym.env import PleEnv  # noqa: E402
from ple_gym.lanes import Lanes  # noqa: E402
from ple_gym.observe import HOST_LENGTH, VCPU_FEATURES  # noqa: E402
from ple_gym.policies.exported import read_network  # noqa: E402
from ple_gym.policies.network import learned  # noqa: E402
from ple_gym.scenarios import load  # noqa: E402
from ple_gym.sim.memory import grid, handle  # noqa: E402
from ple_gym.sim.state import INT8, open_lane  # noqa: E402

#: `Tiny` with 5 of its 100 transactions, one section each, and a PLE window ten times as long: a wrong decision costs
#: 15 us, and all sequences of decisions that could be best are some thousands.
SHORT = {"guest.transactions": 5, "guest.sections": 1, "ple.window": 40_000, "limit.simulated_s": 0.01}
TINY: dict[str, Any] = {
    "scenario": "Tiny", "overrides": tuple(f"{name}={value}" for name, value in SHORT.items()), "quiet": True,
}  # fmt: skip


def test_seeds_for_training_validation_and_test_never_meet() -> None:
    sets = (common.TRAIN, common.VALIDATION, common.TEST)
    assert all(set(a).isdisjoint(b) for a in sets for b in sets if a is not b)
    runs = len(common.TRAIN) // common.WORLDS_PER_RUN
    used = [common.Options(seed=seed, lanes=common.WORLDS_PER_RUN).first_world() for seed in (0, 1, runs - 1)]
    assert used[1] - used[0] == common.WORLDS_PER_RUN and used[2] + common.WORLDS_PER_RUN - 1 in common.TRAIN
    for wrong in (common.Options(seed=runs), common.Options(seed=-1), common.Options(lanes=1001)):
        with pytest.raises(common.AgentError, match="must be"):
            wrong.first_world()
    lanes = Lanes(load("Tiny"), 1, information="hypervisor")
    lanes.world["seed"] = common.TRAIN[-1]
    lanes.drive(0, 1, RESET)
    lanes.drive(0, 1, 3)  # the world that follows
    assert lanes.world["seed"][0] >= 2**62 > common.TEST[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_tiny_agent_reaches_95_percent_of_the_best_that_is_possible(tmp_path: Path, seed: int) -> None:
    """The best: found by trying all decisions, per world, which no policy can know to beat."""
    worlds = common.VALIDATION[100:104]
    best = []
    for world in worlds:
        env = PleEnv("Tiny", overrides=SHORT)
        _, info = env.reset(seed=world)
        assert info["index"] == 0
        makespan, tried = shortest_makespan(env, info["action_mask"])
        best.append(makespan)
        assert tried > 1000
    options = maskable_ppo.Options(
        **TINY, folder=str(tmp_path / "run"), seed=seed, steps=15_000, gae_lambda=0.95, learning_rate=2e-3, validate=3
    )
    path = maskable_ppo.train(options)
    reached = {}
    for policy in ("xen-4.8", f"learned:{path}"):
        runs = evaluate.simulate("Tiny", policy, worlds, SHORT)
        reached[policy] = np.mean([least / run["simulated_s"] for least, run in zip(best, runs, strict=True)])
    assert reached["xen-4.8"] < 0.8
    assert 0.95 <= reached[f"learned:{path}"] <= 1.0
    assert (tmp_path / "run" / "curve.png").exists()
    card = read_network(path).card
    assert card["scenario"] == "Tiny" and card["seed"] == seed and card["validation"]["above_ideal_percent"] > 0


def random_actor(seed: int, features: int = len(VCPU_FEATURES)) -> Actor:
    """Not as trained ones begin, whose scores are all alike."""
    torch.manual_seed(seed)
    actor = Actor(features, 16)
    for last in (actor.vcpu3, actor.defer2):
        torch.nn.init.normal_(last.weight)
    return actor


def test_permuted_vcpus_get_permuted_scores_and_any_number_of_them_will_do() -> None:
    actor = random_actor(0)
    for vcpus in (3, 32, 70):
        rows, host = torch.rand(5, vcpus, len(VCPU_FEATURES)), torch.rand(5, HOST_LENGTH)
        rows[..., 0] = 0
        rows[:, 1, 0] = 1
        order = torch.randperm(vcpus)
        one, two = actor(rows, host), actor(rows[:, order], host)
        assert one.shape == (5, vcpus + 1) and one.std() > 0.1
        torch.testing.assert_close(two[:, :-1], one[:, :-1][:, order], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(two[:, -1], one[:, -1], atol=1e-4, rtol=1e-4)


@numba.njit
def answer(description, row, mask, observation, trace, actions):
    """What the network in a description decides in a state."""
    return learned(open_lane(description, row, trace, 0), description, grid(mask, 0, INT8, 1, 1, actions), observation)


@pytest.mark.parametrize("learner", [maskable_ppo, set_ppo])
def test_the_kernel_decides_as_torch_does_on_ten_thousand_states(learner: Any) -> None:
    """On states of random play; where the best two scores are a hair apart, nobody can tell."""
    model = learner.build(learner.Options(quiet=True))
    outside = Lanes(load("Storm"), 1, information="hypervisor")
    inside = Lanes(load("Storm"), 1, network=learner.network(model))
    length, count = outside.observation.shape[1], 12_000
    seen, masks = np.zeros((count, length), np.float32), np.zeros((count, 33), np.int8)
    handles = [handle(array) for array in (inside.description, outside.rows[0], outside.mask[0], inside.observation[0])]
    choice, decided = np.random.default_rng(0), np.zeros(count, np.int64)
    outside.drive(0, 1, RESET)
    for i in range(count):
        seen[i], masks[i] = outside.observation[0], outside.mask[0]
        inside.observation[0, :length] = outside.observation[0]
        decided[i] = answer(*handles, handle(np.zeros(0, np.uint8)), 33)
        outside.action[0] = choice.choice(np.flatnonzero(outside.mask[0]))
        if outside.drive(0, 1, STEP):  # the run is over, and nothing is to be decided
            outside.drive(0, 1, NEXT)
    observations, _ = model.policy.obs_to_tensor(model.get_env().envs.interface.arrange(seen))
    with torch.no_grad():
        logits = model.policy.get_distribution(observations).distribution.logits.numpy()
    scores = np.where(masks, logits, -np.inf)
    second, first = np.sort(scores, axis=1)[:, -2:].T
    clear = first - second > 1e-5
    assert clear.sum() >= 10_000
    assert np.array_equal(decided[clear], scores.argmax(axis=1)[clear])
    assert len(np.unique(decided)) > 10


def test_the_oracle_of_behaviour_cloning_is_the_compiled_one() -> None:
    for name, seed in (("Storm", 3), ("TicketOrder", 0)):
        envs = make_sb3(name, 1, observation="tokens", information="oracle", seed=seed, threads=1)
        observation, done, infos = envs.reset(), np.array([False]), []
        while not done[0]:
            action = bc.oracle_targets(observation["vcpus"], envs.action_masks(), 0.3).argmax(axis=1)
            observation, _, done, infos = envs.step(action)
        run = evaluate.simulate(name, "oracle", [seed])[0]
        assert infos[0]["ple_episode"]["makespan_s"] == run["makespan_s"]
        assert infos[0]["ple_episode"]["ple_exits"] == run["ple_exits"]


@pytest.mark.parametrize("actuator", ["pull", "local"])
def test_dqn_reads_the_mask_from_the_observation(actuator: str) -> None:
    envs = make_sb3("Storm", 8, seed=0, threads=1, overrides={"decision.actuator": actuator})
    observation = envs.reset()
    waiting = dqn.waiting_feature(envs.envs.scenario)
    for _ in range(200):
        masks = envs.action_masks()
        assert np.array_equal(dqn.mask_of(torch.from_numpy(observation), 32, waiting).numpy(), masks)
        observation, *_ = envs.step(envs.envs.sample_actions())


def test_dqn_explores_and_learns_among_legal_actions_only() -> None:
    options = dqn.Options(lanes=8, learning_starts=80, train_freq=1, gradient_steps=1, buffer_size=4000, quiet=True)
    model = dqn.build(options)
    assert isinstance(model, semi_markov(dqn.MaskedDQN))
    model.learn(400)
    assert not any(lane["illegal_actions"] for lane in envs_world(model))
    observation = torch.from_numpy(model._last_obs)
    values = model.q_net_target(observation)
    legal = dqn.mask_of(observation, 32)
    assert (values[~legal] == dqn.ILLEGAL).all() and (values[legal] > dqn.ILLEGAL).all()
    assert legal[torch.arange(8), values.argmax(dim=1)].all()


def envs_world(model: Any) -> Any:
    """The lanes' records."""
    return model.get_env().envs.lanes.world


class Killed(Exception):
    """Stands for a kill -9."""


@pytest.mark.parametrize("learner", [maskable_ppo, set_ppo, cem])
def test_a_training_that_was_killed_goes_on_to_the_same_result(
    learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 6_000 if learner is cem else 2_000
    options = learner.Options(**TINY, folder=str(tmp_path / "whole"), steps=steps, save_every_s=0, validate=2)
    if learner is cem:
        options = replace(options, population=8, elite=3, worlds=2)
    whole = read_network(learner.train(options))
    halves = replace(options, folder=str(tmp_path / "halves"))
    target = (cem.Search, "advance") if learner is cem else (common.Run, "card")
    original = getattr(*target)
    calls = 0

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(*target, dies)
    with pytest.raises(Killed):
        learner.train(halves)
    monkeypatch.undo()
    again = read_network(learner.train(halves))
    assert again.card["steps"] == whole.card["steps"]
    assert all(np.array_equal(again.weights[name], whole.weights[name]) for name in whole.weights)
    assert learner.train(halves) == tmp_path / "halves" / "policy.npz"  # it is finished: nothing more is done
    with pytest.raises(common.AgentError, match="other options"):
        learner.train(replace(halves, seed=1))


def test_damaged_and_foreign_states_are_refused_in_one_line(tmp_path: Path) -> None:
    options = maskable_ppo.Options(**TINY, folder=str(tmp_path / "run"), steps=500)
    common.Run.open(maskable_ppo.NAME, options)
    for content in (b"", b"PK\x03\x04 nonsense", b"\x80\x04cos\nsystem\n(S'true'\ntR."):
        (tmp_path / "run" / "state.pt").write_bytes(content)
        with pytest.raises(common.AgentError, match=r"state\.pt: not the state of this training") as caught:
            maskable_ppo.train(options)
        assert "\n" not in str(caught.value)


def test_commands_say_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.npz").write_bytes(b"nonsense")
    for arguments, why in (
        (["train", "nobody"], "unknown learner 'nobody'"),
        (["frobnicate"], "unknown command"),
        (["evaluate", "Storm", str(tmp_path)], "no policy there"),
        (["evaluate", "Storm", str(tmp_path / "x.npz")], "not a learned policy"),
        (["evaluate", "Nowhere"], "unknown scenario"),
        (["export", str(tmp_path / "x.npz"), "--name", "y"], "not a learned policy"),
        (["export", str(tmp_path / "x.npz"), "--name", "../y"], "must be letters"),
    ):
        assert command.main(arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("agents: error: ") and why in err and err.count("\n") == 1
    assert command.main(["list"]) == 0
    assert all(name in capsys.readouterr().out for name in ["set-ppo"])


def test_a_trained_policy_is_exported_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = cem.Options(**TINY, folder=str(tmp_path / "run"), steps=500, population=6, elite=2, worlds=2)
    path = cem.train(options)
    assert command.main(["export", str(path.parent), "--name", "mine", "--to", str(tmp_path)]) == 0
    copy = read_network(tmp_path / "mine.npz")
    assert copy.card["learner"] == "cem" and copy.card["command"]
    assert (
        command.main(["evaluate", "Tiny", str(path.parent), "--policies", "xen-4.8", "--seeds", "1000000:1000002"]) == 0
    )
    assert "learned:" in capsys.readouterr().out
