"""Agents: what they learn, that it survives a kill, and that the kernel decides as torch does."""

from __future__ import annotations

import io
import itertools
import os
import shlex
import shutil
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

torch = pytest.importorskip("torch", reason="learners need it")

from exhaustive import shortest_makespan  # noqa: E402

import ple_gym  # noqa: E402
from agents import __main__ as command  # noqa: E402
from agents import (  # noqa: E402
    bc,
    cem,
    common,
    curves,
    dqn,
    evaluation,
    maskable_ppo,
    ppo_unmasked,
    recurrent_ppo,
    sb3,
    set_ppo,
    torch_policy,
)
from agents.commands import LEARNERS, learner  # noqa: E402
from agents.common import AgentError  # noqa: E402
from agents.ranges import RANGES, check_ranges  # noqa: E402
from agents.set_network import Actor  # noqa: E402
from agents.torch_policy import TorchPolicy, read_policy  # noqa: E402
from ple_gym import evaluate, files, make_sb3  # noqa: E402
from ple_gym.adapters.semi_markov import semi_markov  # noqa: E402
from ple_gym.cli.parsing import STYLE  # noqa: E402
from ple_gym.drive import NEXT, RESET, STEP  # noqa: E402
from ple_gym.envs.env import PleEnv  # noqa: E402
from ple_gym.envs.vector import PleVectorEnv  # noqa: E402
from ple_gym.lanes import Lanes  # noqa: E402
from ple_gym.learned.file import (  # noqa: E402
    HEAD,
    PolicyError,
    decode,
    encode,
    pack,
    read_network,
    write_network,
)
from ple_gym.learned.network import RANKS  # noqa: E402
from ple_gym.scenario.builtin import load  # noqa: E402
from ple_gym.sim.state import NONE  # noqa: E402
from ple_gym.view.features import HOST_FEATURES, VCPU_FEATURES  # noqa: E402

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


def test_a_card_s_command_trains_with_the_same_options() -> None:
    overrides = ("guest.start=convoy", "guest.transactions=200")
    options = set_ppo.Options(scenario="Paper8", seed=3, overrides=overrides, privileged_critic=True, ent_coef=0.1)
    python, dash_m, agents, train, name, *rest = shlex.split(common.command_of("set-ppo", options))
    assert (python, dash_m, agents, train, name) == ("python", "-m", "agents", "train", "set-ppo")
    assert tyro.cli(set_ppo.Options, args=rest, config=STYLE) == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cem --start never", "unknown start 'never'; known: first, storm"),
        ("cem --information all", "unknown information level 'all'"),
        ("set-ppo --temperature -1", "temperature = -1.0: must be 0..1000"),
        ("ppo-unmasked --start storm", "--start storm: must be first"),
        ("recurrent-ppo --start storm", "--start storm: must be first"),
        ("set-ppo --seed -1", "--seed -1: must be 0..999"),
        ("set-ppo --steps 0", "--steps 0: must be 1.."),
        ("cem --steps -5", "--steps -5: must be 1.."),
        ("dqn --lanes 0", "--lanes 0: must be 1..1000"),
        ("bc --learning-rate nan", "--learning-rate nan: must be above 0, 10 at most"),
        ("maskable-ppo --n-steps 1 --lanes 1", "--n-steps 1: must be 2 at least with --lanes 1"),
        ("cem --worlds 1001", "--worlds 1001: must be 1..1000"),
        ("cem --steps many", "Error parsing --steps"),
        ("cem --what", "Unrecognized options: --what"),
        ("set-ppo --overrides host.pcpus", "--overrides host.pcpus: must be NAME=VALUE"),
    ],
)
def test_wrong_options_are_refused_in_one_line_before_anything_is_learned(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", *arguments.split(), "--folder", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("run/*.pt")) and not list(tmp_path.glob("run/*.npz"))


@pytest.mark.parametrize("name", LEARNERS)
def test_every_number_among_the_options_has_a_range_that_holds_its_default(name: str) -> None:
    options = learner(name).Options()
    check_ranges(options)
    for option in fields(options):
        if isinstance(option.default, int | float) and not isinstance(option.default, bool):
            for wrong in (RANGES[option.name][0] - 1, RANGES[option.name][1] * 2 + 1, float("nan")):
                with pytest.raises(AgentError, match=f"^--{option.name.replace('_', '-')} .*: must be"):
                    check_ranges(replace(options, **{option.name: wrong}))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_search_makes_about_the_decisions_that_it_is_asked_for(tmp_path: Path, threads: int) -> None:
    """Of one generation there would be some 40 x 4 runs: 10 decisions end within the first run."""
    few = cem.train(cem.Options(**TINY, folder=str(tmp_path / "few"), steps=10, threads=threads))
    one_run = evaluate.simulate("Tiny", "continue", common.TRAIN[:1], {"limit.simulated_s": 0.1})[0]["decisions"]
    assert 0 < read_network(few).card["steps"] <= max(one_run, 1000)
    some = cem.train(cem.Options(**TINY, folder=str(tmp_path / "some"), steps=2000, population=6, elite=2, worlds=2))
    assert 2000 <= read_network(some).card["steps"] <= 2000 * 1.1 + max(one_run, 1000)


def test_a_search_ends_where_no_run_has_a_second_decision(tmp_path: Path) -> None:
    options = cem.Options(scenario="HolderPreempted", quiet=True, folder=str(tmp_path / "run"), steps=50, population=4,
                          elite=2, worlds=2, validation_seeds=1)  # fmt: skip
    assert read_network(cem.train(options)).card["steps"] >= 50


def test_what_to_do_next_can_be_copied_though_the_folder_has_a_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my run"
    few = "--steps 10 --population 2 --elite 1 --worlds 1 --validation-seeds 1 --scenario HolderPreempted"
    assert command.main(["train", "cem", *few.split(), "--folder", str(folder)]) == 0
    hint = capsys.readouterr().out.splitlines()[-1]
    program, agents, *arguments = shlex.split(hint.removeprefix("compare it: "))
    assert (program, agents) == ("ple-gym", "agents")
    assert arguments == ["evaluate", "HolderPreempted", str(folder)]
    assert command.main([*arguments, "--seeds", "0:2"]) == 0
    assert "cem" in capsys.readouterr().out


def test_commands_tell_their_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ple-gym {ple_gym.__version__}\n"


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


def test_curves_over_seeds_are_drawn_with_the_rules_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        more = {"validate": 3, "validation_seeds": 4, "seed": seed}
        set_ppo.train(set_ppo.Options(**TINY, **more, folder=f"run-{seed}", steps=1600))
    world = curves.read_world(["run-0", "run-1"])
    assert [*world.curves] == ["set-ppo"]
    for number, (steps, logs) in enumerate(world.curves["set-ppo"]):
        rows = [row.split(",") for row in Path(f"run-{number}/curve.csv").read_text().splitlines()[1:]]
        known = [(float(row[0]), float(row[-1])) for row in rows if row[-1]]
        assert np.allclose(np.column_stack([steps, 100 * np.expm1(logs)]), known) and known
        # Rules are measured as policies are.
        best = min(above for _, above in known)
        assert world.rule(f"learned:run-{number}/policy.npz") == pytest.approx(best, rel=1e-3)
    for name in ("c.png", "c.svg", "c.pdf"):
        assert command.main(["curves", "run-0", "run-1", "--out", name, "--policies", "kvm", "oracle"]) == 0
        told = capsys.readouterr().out
        assert f"{name}: above the ideal kvm {world.rule('kvm'):+.1f} %, oracle " in told
    assert b"PNG" in Path("c.png").read_bytes()[:8] and Path("c.pdf").read_bytes().startswith(b"%PDF")
    text = Path("c.svg").read_text()
    assert all(f"<!-- {word} -->" in text for word in ("decisions", "kvm", "oracle", "set-ppo (2 seeds)"))
    other = cem.train(cem.Options(**{**TINY, "overrides": ()}, folder="other", steps=10, validation_seeds=1))
    Path("run-1/curve.csv").write_text("steps\n1\n")
    for words, message in {
        "run-0 --out c.txt": "c.txt: the name must end in .png, .svg, .pdf",
        "--out d.png": "name the folder of a training",
        "nowhere --out d.png": "nowhere: no policy there",
        f"run-0 {other.parent} --out d.png": "policy.npz: measured on other worlds than the first training",
        "run-0 run-1 --out d.png": "run-1/curve.csv: its columns are not steps, ",
        "run-0 --policies nobody --out d.png": "unknown policy 'nobody'",
    }.items():
        assert command.main(["curves", *words.split()]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert message in error and not Path("d.png").exists(), error


def random_actor(seed: int, features: int = len(VCPU_FEATURES)) -> Actor:
    torch.manual_seed(seed)
    actor = Actor(features, len(HOST_FEATURES), 16, "credit")
    spread(actor.vcpu3, actor.defer2)
    return actor


def spread(*last_layers: Any) -> None:
    """Let scores differ: where a training begins they are almost alike."""
    for layer in last_layers:
        torch.nn.init.normal_(layer.weight)


def test_permuted_vcpus_get_permuted_scores_and_any_number_of_them_will_do() -> None:
    actor = random_actor(0)
    for vcpus in (3, 32, 70):
        rows, host = torch.rand(5, vcpus, len(VCPU_FEATURES)), torch.rand(5, len(HOST_FEATURES))
        rows[..., 0] = 0
        rows[:, 1, 0] = 1
        order = torch.randperm(vcpus)
        one, two = actor(rows, host), actor(rows[:, order], host)
        assert one.shape == (5, vcpus + 1) and one.std() > 0.1
        torch.testing.assert_close(two[:, :-1], one[:, :-1][:, order], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(two[:, -1], one[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("learner", [maskable_ppo, set_ppo])
def test_the_kernel_decides_as_torch_does_on_ten_thousand_states(learner: Any) -> None:
    """On states of random play; where the best two scores are a hair apart, nobody can tell."""
    model = learner.build(learner.Options(quiet=True))
    policy = model.policy
    spread(*([policy.actor.vcpu3, policy.actor.defer2] if learner is set_ppo else [policy.action_net]))
    outside = Lanes(load("Storm"), 1, information="hypervisor")
    inside = Lanes(load("Storm"), 1, policy=learner.network(model))
    length, count = outside.observation.shape[1], 12_000
    seen, masks = np.zeros((count, length), np.float32), np.zeros((count, 33), np.int8)
    choice, decided = np.random.default_rng(0), np.zeros(count, np.int64)
    outside.drive(0, 1, RESET)
    for i in range(count):
        seen[i], masks[i] = outside.observation[0], outside.mask[0]
        decided[i] = outside.ask(inside.policy)[0]
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


def test_a_privileged_critic_sees_more_than_its_actor(tmp_path: Path) -> None:
    options = set_ppo.Options(**TINY, folder=str(tmp_path), steps=600, validate=1, privileged_critic=True)
    policy = set_ppo.build(options).policy
    vcpus, host = torch.rand(1, 3, len(bc.FEATURES)), torch.rand(1, len(HOST_FEATURES))
    other = vcpus.clone()
    other[..., len(VCPU_FEATURES) :] = torch.rand(1, 3, len(bc.FEATURES) - len(VCPU_FEATURES))
    observations = [{"vcpus": rows, "host": host} for rows in (vcpus, other)]
    with torch.no_grad():
        one, two = (policy.get_distribution(seen).distribution.logits for seen in observations)
        assert torch.equal(one, two)
        assert policy.predict_values(observations[0]) != policy.predict_values(observations[1])
    trained = read_network(set_ppo.train(options))
    assert (trained.kind, trained.information) == ("set", "hypervisor")
    assert trained.weights["vcpu1"].shape[1] == len(VCPU_FEATURES) + RANKS


def line_of(lane: PleVectorEnv) -> list[int]:
    """Holder, then waiters in order, of the lock that the asker of the only lane waits for."""
    of, guest = lane.lanes.section, lane.lanes.section("guest")[0]
    lock = of("lock")[0][guest["lock"][of("pcpu")[0]["current"][of("world")[0, 0]["deciding"]]]]
    line = [int(lock["holder"])] if lock["holder"] != NONE else []
    waiter = lock["head"]
    while waiter != NONE:
        line.append(int(waiter))
        waiter = guest["next_waiter"][waiter]
    return line


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("Storm", {}),
        ("Storm", {"decision.actuator": "local"}),
        ("Storm", {"guest.lock_kind": "tas"}),
        ("TicketOrder", {}),
    ],
)
def test_cloning_learns_the_oracle_s_answer_first_and_then_the_line(name: str, overrides: dict[str, Any]) -> None:
    """Computed once more from the locks themselves."""
    envs = make_sb3(name, 1, observation="tokens", information="oracle", seed=3, threads=1, overrides=overrides)
    observation, longest = envs.reset(), 0
    for _ in range(400):
        masks = envs.action_masks()
        (answer,) = answers = envs.envs.ask("oracle")
        (targets,) = bc.oracle_targets(answers, observation["vcpus"], masks, 0.3)
        asker = int(observation["vcpus"][0, :, bc.FEATURES.index("asker")].argmax())
        line = line_of(envs.envs)
        before = line[: line.index(asker)] if asker in line else line
        told = [asker] if answer == asker else [v for v in before if masks[0, v]]
        expected = np.zeros(targets.size)
        expected[told] = 0.3 ** np.arange(len(told))
        assert told[0] == answer == targets.argmax()
        assert targets == pytest.approx(expected / expected.sum(), abs=1e-6)
        longest = max(longest, len(told))
        observation, *_ = envs.step(answers)
    assert longest >= (1 if overrides.get("guest.lock_kind") == "tas" else 3)


@pytest.mark.parametrize("actuator", ["pull", "local"])
def test_dqn_reads_the_mask_from_the_observation(actuator: str) -> None:
    envs = make_sb3("Storm", 8, seed=0, threads=1, overrides={"decision.actuator": actuator})
    observation = envs.reset()
    waiting = dqn.waiting_feature(envs.envs.scenario)
    for _ in range(200):
        masks = envs.action_masks()
        assert np.array_equal(dqn.mask_of(torch.from_numpy(observation), 32, waiting).numpy(), masks)
        observation, *_ = envs.step(envs.envs.sample_actions())


def test_dqn_fills_its_buffer_at_random_before_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dqn.Options(
        **TINY, folder=str(tmp_path), steps=2_000, save_every_s=0, validate=4, lanes=4, buffer_size=4_000,
        learning_starts=400, gradient_steps=1, exploration_fraction=0.1, exploration_final=0.0,
    )  # fmt: skip
    train_with_a_kill(dqn, options, monkeypatch)
    stopped_at = sb3.decode_state((tmp_path / "state.pt").read_bytes(), 2**26)["steps"]
    assert 800 < stopped_at < 1_200
    learned_at, rates = [], {}
    train, sample = dqn.MaskedDQN.train, dqn.MaskedDQN._sample_action

    def watched_train(self: Any, *args: Any, **kwargs: Any) -> None:
        learned_at.append((self.num_timesteps, self.replay_buffer.size() * 4))
        train(self, *args, **kwargs)

    def watched_sample(self: Any, learning_starts: int, *args: Any) -> Any:
        actions = sample(self, learning_starts, *args)
        greedy, _ = self.predict(self._last_obs, deterministic=True)
        rates.setdefault(self.num_timesteps < stopped_at + 400, []).append((actions[0] != greedy).mean())
        return actions

    monkeypatch.setattr(dqn.MaskedDQN, "train", watched_train)
    monkeypatch.setattr(dqn.MaskedDQN, "_sample_action", watched_sample)
    dqn.train(options)
    steps, kept = learned_at[0]
    assert 400 <= steps - stopped_at <= 400 + 16 and kept == steps - stopped_at
    assert np.mean(rates[True]) > 0.2 and np.mean(rates[False]) == 0


def test_dqn_explores_and_learns_among_legal_actions_only() -> None:
    options = dqn.Options(lanes=8, learning_starts=80, train_freq=1, gradient_steps=1, buffer_size=4000, quiet=True)
    model = dqn.build(options)
    assert isinstance(model, semi_markov(dqn.MaskedDQN))
    with torch.no_grad():
        first = model.q_net.q_net(torch.from_numpy(model.get_env().reset()))
    assert abs(float(first.mean()) + options.expected_waste * options.horizon_ms) < 0.1
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


def train_with_a_kill(learner: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the second validation or generation, and stop there."""
    target = (cem.Search, "advance") if learner is cem else (common.Validation, "__call__")
    original = getattr(*target)
    calls = 0

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(*target, dies)
        with pytest.raises(Killed):
            learner.train(options)


@pytest.mark.parametrize("learner", [maskable_ppo, set_ppo, recurrent_ppo, bc, cem])
def test_a_training_that_was_killed_goes_on_to_the_same_result(
    learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = learner.Options(**TINY, folder=str(tmp_path / "whole"), steps=2_000, save_every_s=0, validate=4)
    if learner is cem:
        options = replace(options, steps=6_000, population=8, elite=3, worlds=2)
    elif learner is bc:  # the actor is let loose after the kill
        options = replace(options, expert_decisions=400, bc_epochs=2, critic_steps=1_200)
    whole = read_policy(learner.train(options))
    halves = replace(options, folder=str(tmp_path / "halves"))
    train_with_a_kill(learner, halves, monkeypatch)
    again = read_policy(learner.train(halves))
    assert again.card["steps"] == whole.card["steps"]
    assert all(np.array_equal(again.weights[name], whole.weights[name]) for name in whole.weights)
    assert learner.train(halves) == tmp_path / "halves" / "policy.npz"  # it is finished: nothing more is done
    with pytest.raises(common.AgentError, match="other options"):
        learner.train(replace(halves, seed=1))


@pytest.mark.parametrize("learner", [ppo_unmasked, recurrent_ppo])
def test_torch_runs_what_the_kernel_cannot(
    learner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept as plain arrays; the file decides as the model it came from, in whatever lanes."""
    options = learner.Options(**TINY, folder=str(tmp_path / "run"), steps=1_000, validate=1, hidden=8)
    path = learner.train(options)
    policy = read_policy(path)
    assert isinstance(policy, TorchPolicy) and policy.card["learner"] == learner.NAME and policy.card["steps"] == 1024
    assert path.stat().st_size < 2**20
    world, seeds = load("Tiny").with_overrides(SHORT), [common.VALIDATION[0] + k for k in range(5)]
    drawn = policy.simulate(world, seeds)  # at the temperature that it has by default
    before = torch.get_rng_state()
    assert policy.simulate(world, seeds) == drawn and torch.equal(torch.get_rng_state(), before)
    policy = replace(policy, temperature=0.0)
    write_network(path, policy)
    expected = [by_hand(policy.network(), world, seed) for seed in seeds]
    for lanes in (1, 2, 16):
        monkeypatch.setattr(torch_policy, "LANES", lanes)
        runs = policy.simulate(world, seeds)
        assert [(run["seed"], run["simulated_s"], run["decisions"], run["illegal_actions"]) for run in runs] == expected
    assert runs[0].keys() - {"illegal_actions"} == evaluate.simulate(world, "host", seeds[:1])[0].keys()
    comparison = evaluation.compare(world, ["host", *evaluation.agent_rows([str(path)])], seeds)
    assert comparison.members == {"host": ("host",), learner.NAME: (f"learned:{path}",)}
    assert comparison.runs[f"learned:{path}"] == runs
    assert command.main(["export", str(path), "--name", "y"]) == 2
    assert "the kernel cannot run a torch-" in capsys.readouterr().err


def by_hand(network: Any, world: Any, seed: int) -> tuple[int, float, int, int]:
    """One run in the single environment."""
    env = PleEnv(world)
    observation, info = env.reset(seed=seed)
    assert info["index"] == 0
    over, memory, start = False, None, True
    while not over:
        action, memory = network.predict(observation[None], memory, np.array([start]), deterministic=True)
        observation, _, terminated, truncated, info = env.step(action[0])
        over, start = terminated or truncated, False
    told = info["ple_episode"]
    return seed, told["simulated_s"], told["decisions"], told["illegal_actions"]


def test_worlds_without_a_decision_are_run_too() -> None:
    world = load("Tiny").with_overrides({"ple.window": 1_000_000_000})
    policy = TorchPolicy.of(ppo_unmasked.build(ppo_unmasked.Options(scenario="Tiny", hidden=4)))
    runs = policy.simulate(world, [3, 4])
    assert runs == [{**run, "illegal_actions": 0} for run in evaluate.simulate(world, "host", [3, 4])]
    assert [run["decisions"] for run in runs] == [0, 0]


def test_torch_s_files_are_refused_in_one_line_when_damaged(tmp_path: Path) -> None:
    policy = TorchPolicy.of(recurrent_ppo.build(recurrent_ppo.Options(scenario="Tiny", hidden=4)))
    path = tmp_path / "policy.npz"
    name, array = next(iter(policy.weights.items()))
    wrong = {
        "must be 1..1024": replace(policy, hidden=0),
        "information level = 'all'": replace(policy, information="all"),
        "must be a number, 0..1000": replace(policy, temperature="x"),
        "must be finite": replace(policy, weights={**policy.weights, name: np.full_like(array, np.nan)}),
        f"{name}: must be float32": replace(policy, weights={**policy.weights, name: array[:1]}),
        r"weights \[\]: must be": replace(policy, weights={}),
        "kind = 'torch-cnn'": replace(policy, kind="torch-cnn"),
    }
    head, _ = decode(encode(policy))
    for why, one in wrong.items():
        path.write_bytes(pack({**head, **{name: getattr(one, name) for name in HEAD}}, one.weights))
        with pytest.raises(PolicyError, match=why) as caught:
            read_policy(path)
        assert "\n" not in str(caught.value)
    write_network(path, policy)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:200] + b"x" * 50 + whole[250:], b""):
        path.write_bytes(content)
        with pytest.raises(PolicyError, match=r"policy\.npz: ") as caught:
            read_policy(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(PolicyError, match="is for 3 vCPUs, the scenario has 32"):
        policy.simulate(load("Storm"), [0])


def test_torch_reads_interrupts_where_it_learned_to_and_nowhere_else() -> None:
    policy = TorchPolicy.of(recurrent_ppo.build(recurrent_ppo.Options(scenario="KvmEbizzy", hidden=4)))
    assert policy.interrupts and policy.inputs.vcpu[-1] == "interrupt_age"
    blind = load("KvmEbizzy").with_overrides({"host.ipi_visible": False})
    with pytest.raises(PolicyError, match="reads interrupts, and the scenario's host sees none"):
        policy.simulate(blind, range(1))
    with pytest.raises(PolicyError, match="does not read interrupts, which the scenario's host sees"):
        replace(policy, interrupts=False).simulate(load("KvmEbizzy"), range(1))


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


def test_trainings_that_differ_only_by_their_seed_are_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for name, seed, elite in (("a", 0, 2), ("b", 1, 2), ("c", 0, 3)):
        folders.append(str(tmp_path / name))
        cem.train(cem.Options(**TINY, folder=folders[-1], seed=seed, steps=300, population=6, elite=elite, worlds=2))
    a, b, c = (f"learned:{folder}/policy.npz" for folder in folders)
    assert evaluation.agent_rows(folders[:2], each=False) == [evaluate.Group("cem", (a, b))]
    assert evaluation.agent_rows([*folders, "learned:x"], each=False) == [
        "learned:x", evaluate.Group("cem elite=2", (a, b)), evaluate.Group("cem elite=3", (c,)),
    ]  # fmt: skip
    assert evaluation.agent_rows(folders, each=True) == [a, b, c]
    told = [*folders[:2], "--policies", "host", "--seeds", "1000000:1000002"]
    assert command.main(["evaluate", "Tiny", *told]) == 0
    assert "cem (2 trainings)" in capsys.readouterr().out
    assert command.main(["evaluate", "Tiny", *told, "--each"]) == 0
    assert "(2 trainings)" not in capsys.readouterr().out


def test_a_trained_policy_is_exported_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = cem.Options(**TINY, folder=str(tmp_path / "run"), steps=500, population=6, elite=2, worlds=2)
    path = cem.train(options)
    assert command.main(["export", str(path.parent), "--name", "mine", "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("/mine.npz\n")  # the command that runs it, as it can be typed
    copy = read_network(tmp_path / "mine.npz")
    assert copy.card["learner"] == "cem" and copy.card["command"]
    assert (
        command.main(["evaluate", "Tiny", str(path.parent), "--policies", "xen-4.8", "--seeds", "1000000:1000002"]) == 0
    )
    assert "cem" in capsys.readouterr().out


# --- what a training keeps --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a stopped training per learner: copy its folder before use."""
    options = {}
    for module, more in ((cem, {"steps": 6_000, "population": 8, "elite": 3, "worlds": 2}),
                          (recurrent_ppo, {"steps": 1_500, "hidden": 4, "lanes": 4})):  # fmt: skip
        folder = tmp_path_factory.mktemp("stopped") / module.NAME
        given = {**TINY, "validation_seeds": 2, "save_every_s": 0, "validate": 4, **more}
        options[module.NAME] = module.Options(**given, folder=str(folder))
        with pytest.MonkeyPatch.context() as patch:
            train_with_a_kill(module, options[module.NAME], patch)
    return options


def refused_with(learner: Any, stopped: dict[str, Any], folder: Path, name: str, content: bytes) -> str:
    """What is said of a copy of a stopped training with another file in it."""
    shutil.copytree(stopped[learner.NAME].folder, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(common.AgentError) as caught:
        learner.train(replace(stopped[learner.NAME], folder=str(folder)))
    text = str(caught.value)
    assert text.isprintable() and len(text) < 500 and f"{name}: " in text and "name another --folder" in text
    return text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generation", -1), ("generation", True), ("decisions", -(10**6)), ("decisions", 1.5), ("decisions", 10**30),
        ("deviation", []), ("deviation", None), ("mean", [float("nan")]), ("mean", "x"), ("cycles", -1.0),
        ("curve", 5), ("curve", [[1]]), ("curve", [[1, 2, 3, 4, 5, 6, "x"]]), ("seconds", float("inf")),
        ("seconds", "soon"), ("deviation", "negative"),
    ],
)  # fmt: skip
def test_a_forged_state_of_a_search_is_refused(stopped: dict[str, Any], tmp_path: Path, name: str, value: Any) -> None:
    """With a right checksum: what it says must be possible."""
    kept = files.unseal_json(cem.STATE, (Path(stopped["cem"].folder) / "state.json").read_bytes())
    if value == "negative":
        value = [-1.0] * len(kept[name])
    content = files.seal_json(cem.STATE, {**kept, name: value})
    assert f"{name} = " in refused_with(cem, stopped, tmp_path / "x", "state.json", content)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"", b"{}", b"null", b'{"mean": []}', b"\xff"])
def test_what_is_no_state_of_a_search_is_refused(stopped: dict[str, Any], tmp_path: Path, content: bytes) -> None:
    assert "not the state of this training" in refused_with(cem, stopped, tmp_path / "x", "state.json", content)


def change(name: str, function: Any) -> Any:
    return lambda state: {**state, name: function(state[name])}


def nan_weights(policy: Any) -> Any:
    return {name: torch.full_like(array, torch.nan) for name, array in policy.items()}


FORGED = {
    "steps = -1000000000": change("steps", lambda _: -(10**9)),
    "steps = 1000000000": change("steps", lambda _: 10**30),
    "steps = True": change("steps", lambda _: True),
    "updates = None": change("updates", lambda _: None),
    "must be finite": change("policy", nan_weights),
    "must have other names": change("policy", lambda policy: dict(list(policy.items())[1:])),
    "must be torch.float32": change("policy", lambda policy: {name: one.double() for name, one in policy.items()}),
    "curve = [[1]]": change("curve", lambda _: [[1]]),
    "curve = 'x'": change("curve", lambda _: "x"),
    "ended = [5]": change("ended", lambda _: [5]),
    "ended = 5": change("ended", lambda _: 5),
    "seconds = -1.0": change("seconds", lambda _: -1.0),
    "seconds = 'x'": change("seconds", lambda _: "x"),
    "counts = [0, 0]": change("counts", lambda _: [0, 0]),
    "the last row must not come after": change("counts", lambda _: [0, 10**9, 0]),
    "lane_logs = ": change("lane_logs", lambda logs: [[float("nan")] * len(logs[0]), logs[1]]),
    "lanes: must be 4 arrays": change("lanes", lambda lanes: lanes[1:]),
    "this is not a saved state": change("lanes", lambda lanes: [lanes[0] + 1, *lanes[1:]]),
    "memory: must be": change("memory", lambda _: []),
    "torch: must be": change("torch", lambda generator: generator[1:]),
    "numpy = ": change("numpy", lambda parts: [parts[0], parts[1][1:], *parts[2:]]),
    "python = ": change("python", lambda parts: (parts[0], parts[1][1:], parts[2])),
    "optimizer: has other settings": change("optimizer", lambda state: {**state, "param_groups": [{"lr": "x"}]}),
    "card: steps = 'x'": change("best", lambda best: {**best, "card": {**best["card"], "steps": "x"}}),
    "hidden of the best policy": change("best", lambda best: {**best, "hidden": 5}),
    "best mlp_extractor": change("best", lambda best: {**best, "weights": nan_weights(best["weights"])}),
}


@pytest.mark.parametrize("why", FORGED)
def test_a_forged_state_of_a_training_is_refused(stopped: dict[str, Any], tmp_path: Path, why: str) -> None:
    """With a right checksum: every part must have the kind, the shape and the range of this training's."""
    path = Path(stopped["recurrent-ppo"].folder) / "state.pt"
    state = FORGED[why](sb3.decode_state(path.read_bytes(), 2**26))
    said = refused_with(recurrent_ppo, stopped, tmp_path / "x", "state.pt", sb3.encode_state(state))
    assert why in said, said


def test_a_state_s_archive_is_checked_before_it_is_unpacked(stopped: dict[str, Any], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 * 2**20))
    content = files.seal(sb3.STATE, buffer.getvalue())
    assert "what is in its archive has" in refused_with(recurrent_ppo, stopped, tmp_path / "x", "state.pt", content)


def test_options_of_another_version_or_damaged_are_refused(stopped: dict[str, Any], tmp_path: Path) -> None:
    sound = (Path(stopped["cem"].folder) / "options.json").read_bytes()
    for content, why in (
        (b'{"learner": "cem"}', "not the options of a training"),
        (sound.replace(b'"elite": 3', b'"elite": 2'), "its checksum is of another content"),
        (sound.replace(b"format 1", b"format 9"), "its format is not"),
        (sound[:-20], "not the options"),
    ):
        assert why in refused_with(cem, stopped, tmp_path / "x", "options.json", content)


def test_a_full_disk_names_the_file_of_the_training(
    stopped: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    shutil.copytree(stopped["cem"].folder, tmp_path / "x")
    before = (tmp_path / "x" / "state.json").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(common.AgentError, match=r"x/state\.json: cannot be written: No space left on device$"):
        cem.train(replace(stopped["cem"], folder=str(tmp_path / "x")))
    assert (tmp_path / "x" / "state.json").read_bytes() == before
    assert not list((tmp_path / "x").glob(".*"))
    with pytest.raises(common.AgentError, match=r"new/options\.json: cannot be written: No space left on device$"):
        cem.train(replace(stopped["cem"], folder=str(tmp_path / "new")))


def test_a_policy_is_kept_where_its_picture_is_too_large_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).suffix in (".png", ".csv"):
            raise OSError(28, "No space left on device")
        replaced(source, target)

    monkeypatch.setattr(os, "replace", full)
    options = cem.Options(**TINY, folder=str(tmp_path / "x"), steps=300, population=6, elite=2, worlds=2)
    with pytest.raises(
        common.AgentError, match=r"curve\.csv: cannot be written: No space .*; the policy is kept: .*npz$"
    ):
        cem.train(options)
    assert read_policy(tmp_path / "x" / "policy.npz").card["learner"] == "cem"
    assert not list((tmp_path / "x").glob(".*"))


def test_a_full_disk_under_tensorboard_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    folder = str(tmp_path / "x")
    given = ["--folder", folder, "--steps", "3000", "--quiet", "--overrides", *TINY["overrides"]]
    assert command.main(["train", "maskable-ppo", "--scenario", "Tiny", *given]) == 2
    told = capsys.readouterr().err
    assert told == f"agents: error: {folder}/events.out.tfevents: cannot be written: No space left on device\n"


@pytest.mark.parametrize("folder", ["a\0b", "x" * 5000, "\ud800", "file/inside"])
def test_a_folder_that_cannot_be_is_refused_in_one_line(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(common.AgentError) as caught:
        cem.train(cem.Options(**TINY, folder=str(tmp_path / folder)))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_a_policy_s_file_whose_name_cannot_be_printed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "\x1b[2J.npz"
    write_network(path, TorchPolicy.of(recurrent_ppo.build(recurrent_ppo.Options(scenario="Tiny", hidden=4))))
    for arguments in (["evaluate", "Tiny", str(path)], ["export", str(path), "--name", "x", "--to", str(tmp_path)]):
        assert command.main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.err[:-1].isprintable() and "must be printable" in printed.err and not printed.out


BIG, ESCAPE = "x" * 10**5, "\x1b[2J"


@pytest.mark.parametrize(
    "arguments",
    [
        (BIG,), (ESCAPE,), ("train", BIG), ("train", ESCAPE), ("train", "cem", "--scenario", BIG),
        ("train", "cem", "--scenario", ESCAPE), ("train", "cem", "--folder", "a\0b"), ("train", "cem", "--folder", BIG),
        ("train", "cem", "--folder", ESCAPE), ("train", "cem", "--folder", "\udcff"),
        ("train", "cem", "--overrides", BIG),
        ("train", "cem", "--overrides", f"a={BIG}"), ("train", "cem", "--seed", "9" * 5000),
        ("train", "cem", "--start", BIG), ("evaluate", BIG), ("evaluate", "Tiny", BIG), ("evaluate", "Tiny", "a\0b"),
        ("evaluate", "Tiny", f"learned:{BIG}"), ("evaluate", "Tiny", f"learned:{ESCAPE}"),
        ("evaluate", "Tiny", "\udcff.npz"),
        ("evaluate", "Tiny", "--policies", BIG), ("evaluate", "Tiny", "--seeds", BIG), ("export", BIG, "--name", "x"),
        ("export", "sound.npz", "--name", BIG), ("export", ESCAPE, "--name", "x"),
        ("export", "sound.npz", "--name", "x", "--to", "a\0b"), ("export", "sound.npz", "--name", "x", "--to", BIG),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_hostile_arguments_are_refused_in_one_short_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_network(Path("sound.npz"), cem.form_of(cem.Options(), load("Tiny")).network(np.zeros(35)))
    assert command.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("agents: error: ") and printed.err.endswith("\n") and printed.out == ""
    assert printed.err[:-1].isprintable() and len(printed.err) < 700
    assert os.listdir(tmp_path) == ["sound.npz"]


def test_what_the_card_cannot_hold_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "a\nb.toml").write_text(load("Tiny").to_toml())
    with pytest.raises(common.AgentError, match=r"card: scenario = .*must be one line of text") as caught:
        cem.train(cem.Options(scenario=str(tmp_path / "a\nb.toml"), folder=str(tmp_path / "x"), quiet=True))
    assert str(caught.value).isprintable() and not (tmp_path / "x").exists()


def test_control_characters_of_a_stranger_s_card_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = TorchPolicy.of(recurrent_ppo.build(recurrent_ppo.Options(scenario="Tiny", hidden=4)))
    for number, card in enumerate(
        ({"learner": "\x1b[2J\x1b]0;pwned\x07"}, {"scenario": "\x1b[2J"}, {"options": {"\x1b": 1}})
    ):
        path = tmp_path / f"{number}.npz"
        write_network(path, replace(policy, card=card))
        for arguments in (["evaluate", "Tiny", str(path)], ["export", str(path), "--name", "x", "--to", str(tmp_path)]):
            assert command.main(arguments) == 2
            printed = capsys.readouterr()
            assert (printed.out + printed.err).replace("\n", "").isprintable() and printed.err.count("\n") == 1
    write_network(tmp_path / "bare.npz", cem.form_of(cem.Options(), load("Tiny")).network(np.zeros(35)))
    assert command.main(["export", str(tmp_path / "bare.npz"), "--name", "x", "--to", str(tmp_path)]) == 0
    assert "best after 0 decisions" in capsys.readouterr().out


@pytest.mark.parametrize("kind", torch_policy.KINDS)
@pytest.mark.parametrize("information", ["hypervisor", "introspection", "oracle"])
def test_the_shapes_that_torch_s_policies_must_have_are_those_that_torch_gives(kind: str, information: str) -> None:
    shapes = torch_policy.shapes_of(kind, 5, 8, torch_policy.inputs_of(information))
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    network = TorchPolicy(kind, information, 5, 8, weights, {}).network()
    found = {name: array.shape for name, array in torch_policy.actor_weights(network).items()}
    assert found == shapes
    assert all(np.array_equal(array, weights[name]) for name, array in torch_policy.actor_weights(network).items())
