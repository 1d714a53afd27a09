"""Random input of every kind that a user gives: no crash, no traceback, nothing damaged taken for sound.

A few of each kind by default. `PLE_FUZZ=long` makes it as many as `FUZZES` says (ten minutes or so; add `-s` to see the
counts), and `PLE_FUZZ_SEED=7` other ones. A kind is a class: made once, it is asked for one input after the other, and
says whether that was refused or accepted; whatever it raises is a fault. The number of the input in the message is all
that is needed to see it again.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import time
import tomllib
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from test_exported import random_network
from test_files import PYTHON_WORDS

from ple_gym.errors import ScenarioError
from ple_gym.files import compressed, seal, uncompressed, unseal
from ple_gym.lanes import Lanes
from ple_gym.learned.file import KINDS, Network, PolicyError, encode, read_network
from ple_gym.policies import load_compiled
from ple_gym.scenario import Scenario, Vm, describe_parameters
from ple_gym.scenario.builtin import SCENARIOS, load
from ple_gym.scenario.distributions import parse
from ple_gym.scenario.parameters import DISTRIBUTION, parameters_of

LONG = os.environ.get("PLE_FUZZ", "") == "long"
SEED = int(os.environ.get("PLE_FUZZ_SEED", "1"))
MAX_MESSAGE = 1000  # a known name or two hundred characters here, a file's name and 80 of the input there
SLOW_S = 2.0  # of CPU time


class Fuzz(Protocol):
    """One kind of input."""

    def one(self, rng: random.Random) -> str:
        """Try one input; `refused` or `accepted`. Raises if it was taken for something else than it is."""


def refused(error: Exception) -> str:
    """Check the message of a documented error."""
    text = str(error)
    assert "\n" not in text and text.isprintable(), f"a message of several lines, or with control characters: {text!r}"
    assert len(text) <= MAX_MESSAGE, f"a message of {len(text)} characters: {text[:300]}"
    assert not PYTHON_WORDS.search(text), f"a message in the words of Python: {text}"
    return "refused"


# ------------------------------------------------------------------------------------------------------------- damage


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes with one kind of damage, of those that disks, networks and editors do."""
    if not data:
        return b"\0"
    at, to = sorted((rng.randrange(len(data)), rng.randrange(len(data) + 1)))
    short = min(to, at + rng.choice([1, 2, 8, 64, 512]))
    flip = bytes([data[at] ^ (1 << rng.randrange(8))])
    lines = data.splitlines(keepends=True)
    line, place = rng.choice(lines), rng.randrange(len(lines))
    return rng.choice(
        [
            data[:at],
            data[at:],
            data[:at] + flip + data[at + 1 :],
            data[:at] + flip + data[at + 1 :],
            data[:at] + rng.randbytes(short - at) + data[short:],
            data[:at] + bytes(short - at) + data[short:],
            data[:at] + data[short:],
            data[:at] + data[at:short] * 2 + data[short:],
            data + rng.randbytes(rng.choice([1, 100])),
            data + data,
            b"".join([*lines[:place], line, *lines[place:]]),
            b"".join([*lines[:place], *lines[place + 1 :]]),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
            data.replace(data[at : at + 1], b""),
            data[at:] + data[:at],
            data.decode("latin-1").encode("utf-16"),
            b"\xef\xbb\xbf" + data,
        ]
    )


# ----------------------------------------------------------------------------------------------------- configurations

NUMBERS = (0, 1, -1, 2, 3, 50, 255, 256, 1000, 1023, 1024, 65_535, 10**6, 10**9, 2**31, 2**53, 2**63, 10**18, 10**400)
REALS = (0.0, -0.0, 1e-300, 0.1, 0.5, 1.0, 1.5, 60.0, 3600.0, 1e308, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "", " ", "x", "true", "False", "1_000", "2e-3", "0x10", "nan", "ticket", "mcs", "tas", "window", "count", "pull",
    "local", "hint", "fresh", "convoy", "constant 5", "constant 0", "exponential 110000", "uniform 3 9", "uniform 9 3",
    "knots 0:1 1:2", "knots 0:1 0.5:0 1:2", "knots 0:1_0 .5:20 1.0:30", "a\nb", "\x1b[2J", "\ud800", "x" * 1001,
    "9" * 5000, "knots " + "0:1 " * 2000, "é" * 50, "\u202e",
)  # fmt: skip
NAMES = tuple(describe_parameters())


def some_value(rng: random.Random, depth: int = 0) -> Any:
    """A value of any kind."""
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.randrange(-5, 2000)
    if kind == 2:
        return rng.choice(REALS)
    if kind == 3:
        return rng.choice(WORDS)
    if kind == 4:
        return rng.choice([True, False, None])
    if kind == 5:
        return rng.random()
    if kind == 6:
        return [some_value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {rng.choice(WORDS): some_value(rng, depth + 1) for _ in range(rng.randrange(3))}


def fitting_value(rng: random.Random, name: str) -> Any:
    """A value that a parameter allows, as its description says."""
    allowed = describe_parameters()[name][0]
    if allowed.startswith("constant"):
        low = rng.randrange(1, 10**6)
        knots = f"knots 0:{low} 1:{3 * low}"
        return rng.choice([f"constant {low}", f"uniform {low} {2 * low}", f" exponential  {low:_}", knots])
    if allowed.startswith("one line"):
        return rng.choice(["", "x", "a = b # c", "é\u3042", '"', "''", "a\\b"])
    if allowed == "true or false":
        return rng.random() < 0.5
    if (bounds := re.search(r"(\d+)\.\.(\d+)$", allowed)) is not None:
        low, high = map(int, bounds.groups())
        if isinstance(Scenario().parameters()[name], float):
            return rng.choice([low, high, rng.uniform(low, high)])
        return rng.choice([low, high, min(high, low + int(10 ** rng.uniform(0, 9)))])
    if "at most" in allowed:
        return rng.choice([1, 3600, 0.5, 60.0])
    return rng.choice(re.split(", | or ", allowed))


class Configurations:
    """Scenarios as tables, TOML, JSON, files and `--set`: accepted ones say what the input says, read independently."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts = [getattr(scenario, f"to_{form}")() for scenario in SCENARIOS.values() for form in ("toml", "json")]

    def one(self, rng: random.Random) -> str:
        """A table, a text or overrides."""
        try:
            return rng.choice([self.table, self.text, self.text, self.overrides])(rng)
        except ScenarioError as error:
            return refused(error)

    def table(self, rng: random.Random) -> str:
        data = self.some_table(rng)
        agrees(Scenario.from_dict(data), data)
        return "accepted"

    def some_table(self, rng: random.Random) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(rng.choice(list(SCENARIOS.values())).to_json()) if rng.random() < 0.7 else {}
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            name = rng.choice(NAMES)
            group, _, key = name.rpartition(".")
            table = data.setdefault(group, {}) if group else data
            if rng.random() < 0.1:
                key = rng.choice(WORDS)
            if isinstance(table, dict):
                table[key] = some_value(rng) if rng.random() < 0.2 else fitting_value(rng, name)
        if rng.random() < 0.2:
            count = rng.choice([0, 1, 2, 1024, 5000])
            data["neighbours"] = [{"vcpus": rng.randrange(3), "locks": 0} for _ in range(count)]
        if rng.random() < 0.05:
            data[rng.choice(WORDS)] = some_value(rng)
        return data

    def text(self, rng: random.Random) -> str:
        whole = rng.choice(self.texts)
        if rng.random() < 0.3:
            whole = json.dumps(self.some_table(rng))
        suffix = ".json" if whole.lstrip().startswith("{") else ".toml"
        data = whole.encode(errors="replace")
        for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
            data = damaged(data, rng)
        path = self.folder / f"x{suffix}"
        path.write_bytes(data)
        scenario = load(str(path))
        agrees(
            scenario, tomllib.loads(data.decode()) if suffix == ".toml" else json.loads(data, object_pairs_hook=once)
        )
        return "accepted"

    def overrides(self, rng: random.Random) -> str:
        base = rng.choice(list(SCENARIOS.values()))
        changes: dict[Any, Any] = {}
        for _ in range(rng.choice([1, 1, 2, 4])):
            name: Any = rng.choice([*NAMES, *base.parameters()])
            if rng.random() < 0.2:
                name = rng.choice([
                    name[:-1], name + "x", name.upper(), f"neighbours.{'9' * rng.choice([1, 5000])}.vcpus", "x" * 10**5,
                    "neighbours.0.vcpu", "neighbours..vcpus", "profile", 7, None, *WORDS,
                ])  # fmt: skip
            known = name in NAMES and rng.random() < 0.8
            value = fitting_value(rng, name) if known else some_value(rng)
            changes[name] = str(value) if rng.random() < 0.5 and value not in NUMBERS else value
        scenario = base.with_overrides(changes)
        flat = scenario.parameters()
        for name, value in changes.items():
            if name != "profile":
                assert same(flat[name], value, typed=True), (name, value, flat[name])
        return "accepted"


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, every key once."""
    assert len({key for key, _ in pairs}) == len(pairs), "a key twice"
    return dict(pairs)


def agrees(scenario: Scenario, data: Any) -> None:
    """Check that a scenario has every value of a table, and the defaults for the rest."""
    default = Scenario()
    told = scenario.to_dict()
    assert len(told["neighbours"]) == len(data.get("neighbours", ()))
    for name, group in told.items():
        if name == "neighbours":
            for own, given in zip(group, data.get(name, ()), strict=True):
                group_agrees(own, given, Vm())
        elif isinstance(group, dict):
            group_agrees(group, data.get(name, {}), getattr(default, name))
        else:
            assert group == data.get(name, getattr(default, name))
    assert set(data) <= set(told)


def group_agrees(own: dict[str, Any], given: dict[str, Any], default: Any) -> None:
    """Check one group."""
    assert set(given) <= set(own)
    for name, value in own.items():
        wanted = given.get(name, getattr(default, name))
        assert same(value, wanted, typed=False), (name, value, wanted)
        if name in given and parameters_of(type(default))[name][0] is DISTRIBUTION:
            assert parse(value) == parse(wanted)


def same(value: Any, given: Any, typed: bool) -> bool:
    """Whether a parameter's value is what was given, as text if that was typed."""
    if isinstance(given, str) and isinstance(value, str):
        return value == given or parse(value) == parse(given)
    if isinstance(given, str) and typed:
        text = given.replace("_", "").strip()
        return text.lower() == str(value).lower() or (not isinstance(value, bool) and float(text) == value)
    return (type(value) is type(given) and value == given) or (isinstance(value, float) and value == given)


# ------------------------------------------------------------------------------------------------------------ policies

CARD: dict[str, Any] = {
    "learner": "cem", "scenario": "Tiny", "overrides": ["guest.vcpus=3"], "information": "hypervisor", "seed": 3,
    "train_worlds": [3000, 3016], "steps": 1000, "simulated_s": 1.5, "wall_s": 2.5,
    "validation": {"seeds": [1000000, 1000016], "above_ideal_percent": 4.5},
    "options": {"scenario": "Tiny", "overrides": ["guest.vcpus=3"], "seed": 3, "noise": 0.1, "quiet": True},
    "versions": {"numpy": "2.0.0"}, "command": "python -m agents train cem",
}  # fmt: skip


class Policies:
    """Files of learned policies, damaged or forged: accepted ones mean what the sound file did, or what was forged."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policy.npz"
        self.networks = [replace(random_network(kind, 3, seed=1), card=CARD) for kind in KINDS]
        self.files = [encode(network) for network in self.networks]

    def one(self, rng: random.Random) -> str:
        """A damaged or a forged file."""
        place = rng.randrange(len(self.files))
        forged = rng.random() < 0.5
        data = self.forged(self.files[place], rng) if forged else damaged(self.files[place], rng)
        self.path.write_bytes(data)
        try:
            found = read_network(self.path)
        except PolicyError as error:
            return refused(error)
        if forged:
            kinds_are_right(found)
            load_compiled(f"learned:{self.path}")
        else:
            assert equal(found, self.networks[place]), "a damaged policy was taken for a sound one"
        return "accepted"

    def forged(self, data: bytes, rng: random.Random) -> bytes:
        """An archive that is sound, with something else in it."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice(list(members))
        way = rng.randrange(6)
        if way < 3:
            card = io.BytesIO()
            np.save(card, np.frombuffer(self.forged_head(members["card.npy"], rng), np.uint8))
            members["card.npy"] = card.getvalue()
        elif way == 3:
            members[name] = damaged(members[name], rng)
        elif way == 4:
            header, body = members[name][:128], members[name][128:]
            body = rng.choice([body, b"", bytes(10**6)])
            shape = rng.choice(
                [b"(75161927680,)", b"(99999999999999999999999,)", b"(((((((((", b"()", b"(-1, 5)", b"(1, 2, 3)"]
            )
            members[name] = header[:10] + header[10:].replace(b"(1,", shape, 1)[:118] + body
        else:
            members[rng.choice(["x.npy", "../x.npy", "x", "\n.npy", "card"])] = members[name]
        method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return buffer.getvalue()

    @staticmethod
    def forged_head(member: bytes, rng: random.Random) -> bytes:
        head = json.loads(np.load(io.BytesIO(member)).tobytes())
        way = rng.randrange(5)
        if way == 0:
            head[rng.choice(list(head))] = some_value(rng)
        elif way == 1:
            head["card"] = some_value(rng)
        elif way == 2:
            head["card"][rng.choice([*CARD, *WORDS])] = some_value(rng)
        elif way == 3:
            for part in ("validation", "options", "versions"):
                head["card"][part][rng.choice([*head["card"][part], *WORDS])] = some_value(rng)
        else:
            return rng.choice(
                [
                    b"[" * 200_000,
                    b'{"a":' * 100_000,
                    b"1" * 100_000,
                    b"\xff",
                    b"",
                    b"null",
                    b"5",
                    b"[]",
                    b'"x"',
                    b"{}",
                    b'{"format": 1, "format": 1}',
                ]
            )
        return json.dumps(head).encode()


def equal(one: Network, other: Network) -> bool:
    """Whether two policies are the same in all that they hold."""
    numbers = all(
        getattr(one, name) == getattr(other, name) and type(getattr(one, name)) is type(getattr(other, name))
        for name in ("kind", "information", "vcpus", "hidden", "temperature", "card")
    )
    return numbers and all(np.array_equal(one.weights[name], other.weights[name]) for name in other.weights)


def kinds_are_right(network: Network) -> None:
    """Check what the rest of the program takes for granted of a policy, written down once more."""
    assert type(network.vcpus) is int and type(network.hidden) is int and type(network.temperature) in (int, float)
    card = network.card
    assert type(card) is dict and set(card) <= set(CARD)
    for name in ("learner", "scenario", "command"):
        assert str(card.get(name, "x")).isprintable() and type(card.get(name, "x")) is str
    assert f"{card.get('steps', 0):,}" and type(card.get("options", {})) is dict
    score = card.get("validation", {}).get("above_ideal_percent")
    assert score is None or f"{score:+.1f}"


# ----------------------------------------------------------------------------------------------- trainings and sweeps


class Trainings:
    """Folders of stopped trainings, with one file damaged: refused, or gone on with to the very result."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("sb3_contrib")
        import torch
        from test_agents import TINY, train_with_a_kill

        from agents import cem, set_ppo

        torch.set_num_threads(1)
        self.folder = folder
        tiny = {**TINY, "validation_seeds": 2, "save_every_s": 0}
        self.learners: list[tuple[Any, Any, bytes]] = []
        for learner, more in (
            (cem, {"steps": 6_000, "population": 8, "elite": 3, "worlds": 2}),
            (set_ppo, {"steps": 700, "lanes": 4, "hidden": 4, "n_steps": 32, "validate": 3}),
        ):
            options = learner.Options(**tiny, **more, folder=str(folder / learner.NAME))
            with pytest.MonkeyPatch.context() as patch:
                train_with_a_kill(learner, options, patch)
            whole = replace(options, folder=str(folder / f"{learner.NAME}-whole"))
            self.learners.append((learner, options, weights_of(learner.train(whole))))

    def one(self, rng: random.Random) -> str:
        """One damaged file of one folder."""
        from agents.common import AgentError

        learner, options, result = rng.choice(self.learners)
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(options.folder, copy)
        path = copy / rng.choice(["state.json" if learner.NAME == "cem" else "state.pt"] * 4 + ["options.json"])
        sound = path.read_bytes()
        path.write_bytes(damaged(sound, rng))
        try:
            found = weights_of(learner.train(replace(options, folder=str(copy))))
        except AgentError as error:
            assert path.name in str(error), f"the message does not name {path.name}: {error}"
            return refused(error)
        assert found == result, "a damaged training was gone on with to another result"
        return "accepted"


def weights_of(path: Path) -> bytes:
    """All weights of a policy."""
    return b"".join(array.tobytes() for _, array in sorted(read_network(path).weights.items()))


class PartialTables:
    """Partial tables of sweeps: what is kept is a beginning of what was measured, and what is lost is said."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("joblib")
        from experiments.lab import Experiment, Partial, Task

        self.experiment = Experiment("example", "", ("now", "exits"), lambda quick: [], lambda table: [])
        self.path = folder / "example.partial.csv"
        overrides = "guest.vcpus=3;guest.hold=uniform 1 9"
        self.rows = {Task("Tiny", overrides, "kvm", seed): (seed * 10**9 + 7, seed % 7) for seed in range(40)}
        with Partial(self.path, self.experiment) as partial:
            partial.append(self.rows)
        self.sound = self.path.read_bytes()

    def one(self, rng: random.Random) -> str:
        """One damaged file."""
        from experiments.lab import Partial, TableError

        data = damaged(self.sound, rng)
        self.path.write_bytes(data)
        try:
            partial = Partial(self.path, self.experiment)
        except TableError as error:
            return refused(error)
        assert list(partial.rows.items()) == list(self.rows.items())[: len(partial.rows)], "rows that were not measured"
        cut_between_rows = self.sound.startswith(data) and data.endswith(b"\n")
        if len(partial.rows) < len(self.rows) and not cut_between_rows:
            assert partial.lost, "rows are lost, and nothing is said"
        with partial:
            partial.append({})  # the sweep goes on
        return f"lost {'all' if not partial.rows else 'some' if partial.lost else 'nothing'}"


class Tables:
    """Tables of runs: damaged files are refused; a text whose checksum is right is a table, or refused."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("joblib")
        from experiments.lab.tables import KIND, committed, kept

        self.path, self.kind = folder / "table.xz", KIND
        self.sound, self.digest = kept("agreement").read_bytes(), committed("agreement").digest()
        self.text = unseal(KIND, uncompressed(self.sound, 2**20))

    def one(self, rng: random.Random) -> str:
        """One damaged file, or one with another text."""
        from experiments.lab import Table, TableError

        forged = rng.random() < 0.5
        text = seal(self.kind, damaged(self.text, rng))
        self.path.write_bytes(compressed(text) if forged else damaged(self.sound, rng))
        try:
            table = Table.read(self.path)
        except TableError as error:
            return refused(error)
        assert forged or table.digest() == self.digest, "numbers that were not measured"
        assert {len(column) for column in table.columns.values()} == {len(table)}
        return "accepted"


#: Kind, how many of it by default, how many if long.
class States:
    """Damaged states of a lane: refused, unless the damage changed nothing. (tests/test_states.py forges others.)"""

    def __init__(self, folder: Path) -> None:
        self.lanes, self.sound = Lanes(load("Storm"), 1), []
        for seed in range(4):
            self.lanes.reset(0, seed)
            self.sound.append(self.lanes.save(0))

    def one(self, rng: random.Random) -> str:
        """A damaged state, and at times one that is no state."""
        sound = rng.choice(self.sound)
        data = rng.randbytes(rng.randrange(300)) if rng.random() < 0.1 else damaged(sound, rng)
        before = self.lanes.save(0)
        try:
            self.lanes.restore(0, data)
        except ValueError as error:
            assert self.lanes.save(0) == before, "a state that was refused changed the lane"
            return refused(error)
        assert self.lanes.save(0) == data == sound, "a damaged state was taken for a sound one"
        return "accepted"


FUZZES: dict[str, tuple[type[Any], int, int]] = {
    "configurations": (Configurations, 600, 20_000),
    "policies": (Policies, 400, 5_000),
    "states": (States, 300, 1_000),
    "training folders": (Trainings, 6, 500),
    "partial tables": (PartialTables, 60, 500),
    "tables": (Tables, 60, 500),
}


SLOW = ("training folders",)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in FUZZES])
def test_random_input_is_refused_in_one_line_or_means_what_it_says(kind: str, tmp_path: Path) -> None:
    make, few, many = FUZZES[kind]
    fuzz: Fuzz = make(tmp_path)
    counts: Counter[str] = Counter()
    for number in range(many if LONG else few):
        rng = random.Random(f"{SEED} {kind} {number}")
        began = time.thread_time()
        try:
            counts[fuzz.one(rng)] += 1
        except Exception as error:
            raise AssertionError(f"input {number} of kind {kind!r}, seed {SEED}: {type(error).__name__}") from error
        took = time.thread_time() - began
        assert took < SLOW_S or kind == "training folders", f"input {number} of {kind!r} took {took:.1f} s"
    print(f"\n{kind}: {sum(counts.values())} inputs, {dict(counts)}")
    assert len(counts) > 1 or kind == "training folders", "all of one sort: this sees nothing"
