"""Experiments on learned policies: what is run, what is explained, and the pages that say so."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="learners need it")

from agents import common, set_ppo
from agents.archive import Archive, halved
from agents.common import AgentError
from agents.evaluation import checkpoint
from agents.torch_policy import read_policy
from experiments.lab import CHECKPOINTS, Task, seeds
from experiments.lab.tables import committed
from experiments.learning import agreement, features, leaderboard, trained, trainings
from experiments.pages import best_policy
from experiments.pages import leaderboard as leaderboard_page
from ple_gym.evaluate import simulate
from ple_gym.files import compressed, uncompressed
from ple_gym.learned.file import FOLDER, Network, PolicyError, decode, pack, read_network

SHORT = "limit.simulated_s=0.03"
BY_TORCH = ("ppo-unmasked", "recurrent-ppo")


def test_the_leaderboard_s_worlds_are_test_worlds() -> None:
    assert set(seeds.LEADERBOARD) <= set(common.TEST)
    for name in leaderboard_page.NEEDS:
        assert set(committed(name)["seed"].tolist()) <= set(common.TEST)


def test_every_training_is_kept_as_a_policy_or_as_a_card_and_was_on_training_worlds() -> None:
    """Its card says so; it fits the row that it stands in, and is small."""
    kept = trainings.KEPT.files()
    assert len(kept) == sum(row.seeds for row in trainings.ALL)
    for row in trainings.ALL:
        for seed, policy in enumerate(row.policies()):
            file, alone = kept.get(f"{policy}.npz"), kept.get(f"{policy}.json")
            assert (file is None) != (alone is None), policy
            card = json.loads(alone) if alone else read_policy(trainings.file_of(policy)).card
            assert (card["learner"], card["seed"], card["scenario"]) == (row.learner, seed, row.options["scenario"])
            assert {name: card["options"][name] for name in row.options} == json.loads(json.dumps(dict(row.options)))
            assert all(seed in common.TRAIN for seed in card["train_worlds"])
            assert all(seed in common.VALIDATION for seed in range(*card["validation"]["seeds"]))
            assert card["command"].startswith("python -m agents train ")
            unfinished = card["validation"]["above_ideal_percent"] is None
            assert (file is None) == (unfinished or row.learner in BY_TORCH), policy
            assert len(file or b"") < 2**20


def test_a_policy_is_read_through_the_archive_by_its_name(tmp_path: Path) -> None:
    """By whatever reads policies; and unpacked by `tar` it is the same file."""
    best = features.best()
    inside = CHECKPOINTS / f"{best}.npz"
    run = simulate("Tiny", f"learned:{inside}", [1])
    with tarfile.open(CHECKPOINTS) as archive:
        archive.extract(inside.name, tmp_path, filter="data")
    assert simulate("Tiny", f"learned:{tmp_path / inside.name}", [1]) == run
    assert checkpoint(str(inside)) == inside
    for wrong in (CHECKPOINTS / "nobody.npz", CHECKPOINTS / "cem-Paper32-0.npz"):
        with pytest.raises(PolicyError, match=rf"{wrong.name}: no such file in the archive$"):
            simulate("Tiny", f"learned:{wrong}", [1])
    with pytest.raises(AgentError, match="no policy there"):
        checkpoint(str(tmp_path / "no.tar.xz" / "nobody.npz"))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-9], "its end is missing"),
        (lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], ""),
        (lambda data: b"PK", ""),
        (lambda data: compressed(b"no archive" * 100), ""),
        (lambda data: compressed(uncompressed(data, 2**26)[:200_000]), ""),
        (lambda data: archive_with(tarfile.SYMTYPE), "something else than files"),
        (lambda data: archive_with(tarfile.REGTYPE, twice=True), "two of one name"),
    ],
)
def test_a_damaged_archive_is_refused_and_stays_as_it_is(tmp_path: Path, damage: Any, why: str) -> None:
    path = tmp_path / "checkpoints.tar.xz"
    path.write_bytes(damaged := damage(CHECKPOINTS.read_bytes()))
    with pytest.raises(
        PolicyError, match=r"^\S*checkpoints\.tar\.xz: not an archive of learned policies, or damaged"
    ) as told:
        Archive(path).add({"new.npz": b"x"})
    assert why in str(told.value) and str(told.value).isprintable() and path.read_bytes() == damaged
    with pytest.raises(PolicyError, match="not a learned policy, or damaged"):
        read_policy(path / "bc-Storm-0.npz")


def archive_with(kind: bytes, twice: bool = False) -> bytes:
    """A sound archive but for a member of this kind, or that there are two of one name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for _ in range(1 + twice):
            member = tarfile.TarInfo("bc-Storm-0.npz")
            member.type = kind
            archive.addfile(member)
    return compressed(content.getvalue())


def test_what_is_added_stays_though_the_next_write_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path / "new" / "checkpoints.tar.xz")
    assert archive.files() == {}
    archive.add({"b.npz": b"two", "a.json": b"one"})
    before = archive.path.read_bytes()
    assert list(archive.files().items()) == [("a.json", b"one"), ("b.npz", b"two")]

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(os, "fsync", kill)
        archive.add({"c.npz": b"three"})
    assert archive.path.read_bytes() == before and len(list(archive.path.parent.iterdir())) == 1
    archive.add({"b.npz": b"2", "c.npz": b"three"})
    assert archive.files() == {"a.json": b"one", "b.npz": b"2", "c.npz": b"three"}


def test_what_ships_is_the_best_policy_on_validation_worlds() -> None:
    shipped, best = read_network(FOLDER / "storm-set.npz"), read_policy(trainings.file_of(features.best()))
    assert isinstance(best, Network) and shipped.card == best.card
    assert all(np.array_equal(shipped.weights[name], best.weights[name]) for name in best.weights)


def test_every_weight_that_is_kept_is_a_number_of_half_precision() -> None:
    kept = {name: data for name, data in trainings.KEPT.files().items() if name.endswith(".npz")}
    kept |= {path.name: path.read_bytes() for path in FOLDER.glob("*.npz")}
    assert [name for name, data in kept.items() if halved(data) != data] == []
    for data in kept.values():
        for array in decode(data)[1].values():
            assert array.dtype == np.float32 and not (array.view(np.uint32) & (2**13 - 1))[abs(array) >= 2**-14].any()


@pytest.mark.parametrize("factor", [1e7, 1e-6])
def test_only_weights_are_rounded_and_what_half_precision_lacks_is_refused(factor: float) -> None:
    head, weights = decode((FOLDER / "storm-set.npz").read_bytes())
    exact = {name: array * np.float32(1.0001) for name, array in weights.items()}
    told, rounded = decode(halved(pack(head, exact)))
    assert told == head
    for name, array in exact.items():
        assert (rounded[name] != array).any() and np.allclose(rounded[name], array, rtol=2**-11, atol=2**-25)
    exact["bias2"] *= np.float32(factor)
    with pytest.raises(PolicyError, match=r"^weights bias2: the largest is \S+, out of the range of half precision$"):
        halved(pack(head, exact))


def test_from_a_storm_nothing_counts_that_was_before() -> None:
    whole, after = (trained.measure(Task(f"TicketOrder{place}", "", "host", 3)) for place in ("", trained.FROM_STORM))
    assert whole["finished"] and after["finished"]
    assert all(0 < after[name] < whole[name] for name in ("took_100ns", "exits", "waste_10us"))
    assert 0 < after["useful_100ns"] <= whole["useful_100ns"]
    assert simulate("TicketOrder", "host", [3])[0]["ple_exits"] == whole["exits"]


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
    promise = leaderboard.checks(committed("leaderboard"))[0]
    assert promise.row == "quick start" and promise.passed


def test_the_pages_are_what_the_data_say() -> None:
    tables = {name: committed(name) for name in leaderboard_page.NEEDS}
    assert leaderboard_page.page(tables) == leaderboard_page.PAGE.read_text(), "run: python -m experiments results"
    tables = {name: committed(name) for name in best_policy.NEEDS}
    page, text = best_policy.PAGE.read_text(), best_policy.TEXT.read_text()
    for name, number in best_policy.numbers(tables).items():
        if f"{{{name}}}" in text:
            assert number in page, f"{name}: run: python -m experiments results"


def test_the_leaderboard_has_a_table_per_suite_and_says_of_which_version_it_is() -> None:
    page = leaderboard_page.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+): ", page, re.M) == ["train", "micro", "repro"]
    assert page.count("| policy |") == 5  # suites, sizes, information
    assert "**Every row of this page stands for version 1 of its worlds**" in page


def test_a_training_whose_policy_no_experiment_runs_leaves_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "KEPT", Archive(tmp_path / "new" / "checkpoints.tar.xz"))
    monkeypatch.setattr(trainings, "TRAININGS", tmp_path / "runs")
    options = {"scenario": "Tiny", "overrides": ("guest.transactions=5",), "steps": 2_000, "population": 4, "elite": 2}
    row, progress = trainings.Training("cem-Tiny", "cem", options, seeds=1), list[int]()
    monkeypatch.setattr(common.Validation, "__call__", lambda self, policy: 12.5)
    monkeypatch.setattr(trainings, "halved", lambda data: b"half of " + data[:2])
    trainings.train_all(1, progress.append, [row])
    assert trainings.finished(row) == ["cem-Tiny-0"] and progress == [0, 1]
    assert trainings.KEPT.files()["cem-Tiny-0.npz"] == b"half of PK"
    trainings.train_all(1, progress.append, [row])
    assert progress == [0, 1, 1]  # nothing was missing
    monkeypatch.setattr(common.Validation, "__call__", lambda self, policy: None)
    failing = replace(row, name="cem-Worse")
    trainings.train_all(1, progress.append, [failing])
    assert trainings.finished(failing) == [] and "cem-Worse-0.json" in trainings.KEPT.files()
    assert [card["learner"] for card in trainings.cards(failing)] == ["cem"]
    assert trainings.finished(row) == ["cem-Tiny-0"]
    monkeypatch.setattr(common.Validation, "__call__", lambda self, policy: 12.5)
    options = {"scenario": "Tiny", "overrides": ("guest.transactions=5",), "steps": 64, "batch_size": 64}
    options |= {"lanes": 2, "n_steps": 32}
    by_torch = trainings.Training("ppo-unmasked-Tiny", "ppo-unmasked", options, seeds=1)
    trainings.train_all(1, progress.append, [by_torch])
    assert trainings.finished(by_torch) == []
    assert [card["validation"]["above_ideal_percent"] for card in trainings.cards(by_torch)] == [12.5]
