"""Experiments on learned policies: what is run, what is explained, and the pages that say so."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="learners need it")

from agents import common, set_ppo
from agents.torch_policy import read_policy
from experiments import agreement, best_policy, features, lab, leaderboard, leaderboard_page, seeds, trained, trainings
from experiments.lab import Table, Task
from ple_gym.envs.env import PleEnv
from ple_gym.evaluate import simulate
from ple_gym.learned.file import FOLDER, Network, read_network

SHORT = "limit.simulated_s=0.03"


def test_the_leaderboard_s_worlds_are_test_worlds() -> None:
    assert set(seeds.LEADERBOARD) <= set(common.TEST)
    for name in leaderboard_page.NAMES:
        assert set(Table.read(lab.RESULTS / f"{name}.csv")["seed"].tolist()) <= set(common.TEST)


def test_every_training_is_kept_as_a_policy_or_as_a_card_and_was_on_training_worlds() -> None:
    """Its card says so; it fits the row that it stands in, and is small."""
    for row in trainings.ALL:
        for seed, policy in enumerate(row.policies()):
            file, card_file = trainings.file_of(policy), trainings.card_of(policy)
            assert file.exists() != card_file.exists(), policy
            card = json.loads(card_file.read_text()) if card_file.exists() else read_policy(file).card
            assert (card["learner"], card["seed"], card["scenario"]) == (row.learner, seed, row.options["scenario"])
            assert {name: card["options"][name] for name in row.options} == json.loads(json.dumps(dict(row.options)))
            assert set(card["train_worlds"]) <= set(common.TRAIN) and card["command"].startswith(
                "python -m agents train "
            )
            assert set(range(*card["validation"]["seeds"])) <= set(common.VALIDATION)
            assert (card["validation"]["above_ideal_percent"] is None) == card_file.exists()
            assert not file.exists() or file.stat().st_size < 2**20


def test_what_ships_is_the_best_policy_on_validation_worlds() -> None:
    shipped, best = read_network(FOLDER / "storm-set.npz"), read_policy(trainings.file_of(features.best()))
    assert isinstance(best, Network) and shipped.card == best.card
    assert all(np.array_equal(shipped.weights[name], best.weights[name]) for name in best.weights)


def test_from_a_storm_nothing_counts_that_was_before() -> None:
    whole, after = (trained.measure(Task(f"TicketOrder{place}", "", "host", 3)) for place in ("", trained.FROM_STORM))
    assert whole["finished"] and after["finished"]
    assert all(0 < after[name] < whole[name] for name in ("cycles", "exits", "waste"))
    assert 0 < after["useful"] <= whole["useful"]
    assert simulate("TicketOrder", "host", [3])[0]["ple_exits"] == whole["exits"]


@pytest.mark.parametrize("rule", agreement.RULES)
def test_the_rules_that_are_asked_are_the_compiled_ones(rule: str) -> None:
    env = PleEnv("Storm", observation="tokens")
    observation, _ = env.reset(seed=1_500_000)
    over = False
    while not over:
        action = agreement.rule_action(env, observation["vcpus"], rule)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    run = simulate("Storm", rule, [1_500_000])[0]
    assert (info["ple_episode"]["simulated_s"], info["ple_episode"]["ple_exits"]) == (
        run["simulated_s"],
        run["ple_exits"],
    )


def test_the_policy_that_is_explained_is_the_one_that_the_kernel_runs() -> None:
    task = Task("Storm", SHORT, features.best(), 1_500_001)
    explained, run = agreement.measure(task), trained.measure(task)
    assert explained["decisions"] == run["exits"] > 100
    assert sum(explained[f"policy_{kind}"] for kind in agreement.KINDS) == explained["decisions"]
    assert sum(explained[pair] for pair in agreement.PAIRS) == explained["decisions"] - explained["as_spin_age_self"]


def test_a_hidden_feature_does_not_matter_to_what_is_left() -> None:
    """Scores of a random network do not move with the feature that was hidden, and move with another."""
    model = set_ppo.build(set_ppo.Options(scenario="Tiny", hidden=8))
    network = set_ppo.network(model)
    rng = np.random.default_rng(0)
    vcpus, host = rng.random((5, 19)).astype(np.float32), rng.random(13).astype(np.float32)
    vcpus[:, 0] = np.arange(5) == 2
    for feature, other in pairwise((*features.ROWS[1:7], *features.ROWS[8:16])):
        changed = vcpus.copy()
        changed[:, features.ROWS.index(feature)] = rng.random(5)
        one, two = (agreement.scores(features.hidden(network, feature), rows, host) for rows in (vcpus, changed))
        assert np.array_equal(one, two)
        one, two = (agreement.scores(features.hidden(network, other), rows, host) for rows in (vcpus, changed))
        assert not np.array_equal(one, two)
    for number, feature in enumerate(features.HOST):
        changed = host.copy()
        changed[number] += 1
        one, two = (agreement.scores(features.hidden(network, feature), vcpus, row) for row in (host, changed))
        assert np.array_equal(one, two)
    assert features.hidden(replace(network, temperature=0.25), features.DRAWING).temperature == 0


def test_the_quick_start_keeps_its_promise() -> None:
    """On test worlds; the table is replayed by `python -m experiments replay`."""
    promise = leaderboard.checks(Table.read(lab.RESULTS / "leaderboard.csv"))[0]
    assert promise.row == "quick start" and promise.passed


def test_the_pages_are_what_the_data_say() -> None:
    tables = {name: Table.read(lab.RESULTS / f"{name}.csv") for name in leaderboard_page.NAMES}
    assert leaderboard_page.page(tables) == leaderboard_page.PAGE.read_text(), "run: python -m experiments results"
    tables = {name: Table.read(lab.RESULTS / f"{name}.csv") for name in best_policy.NAMES}
    page, text = best_policy.PAGE.read_text(), best_policy.TEXT.read_text()
    for name, number in best_policy.numbers(tables).items():
        if f"{{{name}}}" in text:
            assert number in page, f"{name}: run: python -m experiments results"


def test_a_training_without_a_policy_that_finishes_leaves_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(trainings, "FOLDERS", tmp_path / "runs")
    options = {"scenario": "Tiny", "overrides": ("guest.transactions=5",), "steps": 2_000, "population": 4, "elite": 2}
    row, progress = trainings.Training("cem-Tiny", "cem", options, seeds=1), list[int]()
    monkeypatch.setattr(common.Validation, "__call__", lambda self, policy: 12.5)
    trainings.train_all(1, progress.append, [row])
    assert trained.validated(row) == ["cem-Tiny-0"] and progress == [0, 1]
    trainings.train_all(1, progress.append, [row])
    assert progress == [0, 1, 1]  # nothing was missing
    monkeypatch.setattr(common.Validation, "__call__", lambda self, policy: None)
    failing = replace(row, name="cem-Worse")
    trainings.train_all(1, progress.append, [failing])
    assert trained.validated(failing) == [] and trainings.card_of("cem-Worse-0").exists()
