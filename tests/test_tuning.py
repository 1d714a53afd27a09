"""`ple-gym tune`: the same search ends the same, interrupted or not; what it keeps is a policy's name everywhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ple_gym
from ple_gym import cli, compare, tuning
from ple_gym.errors import ArgumentError, PleError, PolicyError
from ple_gym.evaluate.runs import suiting
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES, Rule
from ple_gym.scenario.builtin import load
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.tuned import Tuned
from ple_gym.tuning import Found, Search, Study, tune

pytest.importorskip("optuna")
pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="of many runs: not under make nojit")
ROOT = Path(__file__).resolve().parents[1]
WORLD = load("TicketOrder").with_overrides({"limit.simulated_s": 0.01})
SMALL = {"trials": 6, "restarts": 2, "training": 3, "validation": 4, "threads": 1}
OPTIONS = ["--trials", "3", "--restarts", "1", "--training", "2", "--validation", "3"]


def search(rule: str = "patience", **changes: int) -> Search:
    found = load_compiled(rule)
    assert isinstance(found, Rule)
    return Search(WORLD, found, **{**SMALL, **changes})


def find(asked: Search, path: Path | str = "") -> Found:
    study = Study(asked, str(path), lambda done, note="": None)
    try:
        return tune(asked, study)
    finally:
        study.close()


def told(found: Found) -> dict[str, object]:
    return {"best": found.best.name, "builtin": found.best_builtin} | {
        name: (one.restart, one.training, one.losses.tolist()) for name, one in found.entrants.items()
    }


def test_the_same_search_ends_the_same_and_another_seed_tries_something_else(tmp_path: Path) -> None:
    first, again, other = (find(search(seed=seed), tmp_path / f"{n}") for n, seed in enumerate((0, 0, 1)))
    assert told(first) == told(again)
    tried = [set(re.findall('patience:[^"]*', (tmp_path / str(n)).read_text())) for n in range(3)]
    assert tried[0] == tried[1] != tried[2] and len(tried[0]) >= 8
    assert other.search.seed == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 20, 45, 60])
def test_a_search_that_was_killed_goes_on_and_ends_the_same(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    simulate = tuning.simulate

    def counted(scenario: object, policy: Rule, *others: object) -> object:
        if len(made) == stop:
            raise Killed
        made.append(policy.name)
        return simulate(scenario, policy, *others)

    monkeypatch.setattr(tuning, "simulate", counted)
    stop = -1
    whole, path = told(find(search())), tmp_path / "study"
    needed, made[:], stop = len(made), [], after
    with pytest.raises(Killed):
        find(search(), path)
    with path.open("a") as file:
        file.write('{"policy": "patience", "fir')  # what a machine that loses its power leaves
    before, stop = len(path.read_text().splitlines()) - 2, -1
    assert before == after
    assert told(find(search(), path)) == whole
    assert len(made) == needed, "nothing runs twice"
    assert told(find(search(), path)) == whole and len(made) == needed


def test_more_trials_go_on_from_fewer(tmp_path: Path) -> None:
    path = tmp_path / "study"
    find(search(trials=5), path)
    few = path.read_text()
    assert told(find(search(trials=8), path)) == told(find(search(trials=8)))
    assert path.read_text().startswith(few)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "not a study of ple-gym tune, or damaged"),
        ("no study\n", "is of another scenario, or of other code"),
        (None, "is of another scenario, or of other code"),
        ('{"policy": 3, "first": 0, "losses": [1]}', "policy = 3: must be one line of text"),
        ('{"policy": "kvm", "first": 0, "losses": [NaN]}', "item 0 = nan: must be -1e+06..1e+06"),
        ('{"policy": "kvm", "first": -1, "losses": [1]}', "first = -1: must be 0.."),
        ("[]", "must be a table"),
    ],
)
def test_a_file_that_is_no_study_of_this_is_refused_and_left_as_it_is(
    content: str | None, fault: str, tmp_path: Path
) -> None:
    path, asked = tmp_path / "study", search()
    if content is None:
        asked = Search(load("Tiny"), RULES["patience"], **SMALL)
    if not content or content.startswith(("{", "[")):
        Study(search(), str(path), lambda done, note="": None).close()
    if content is not None:
        path.write_text(path.read_text() + content + "\n" if path.exists() and content else content)
    before = path.read_text()
    with pytest.raises(ArgumentError) as refusal:
        find(asked, path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and fault in message and "\n" not in message
    assert path.read_text() == before


def test_all_built_in_rules_of_a_hypervisor_are_in_the_race() -> None:
    found = find(search("two-patience"))
    raced = {name for name in found.entrants if name in RULES}
    assert raced == {name for name in suiting(WORLD) if not RULES[name].privileged}
    means = [one.losses.mean() for one in found.entrants.values()]
    assert means == sorted(means) and all(len(one.losses) == SMALL["validation"] for one in found.entrants.values())
    first = next(name for name in found.entrants if name in RULES and name != "two-patience")
    assert found.best_builtin == first
    assert found.percent(found.best.name).mean == 0 and found.percent("host").mean < 0


def test_the_losses_are_of_makespans_or_of_throughputs() -> None:
    runs = ple_gym.simulate(WORLD, "kvm", 3)
    assert tuning.losses_of(WORLD, runs) == pytest.approx([__import__("math").log(run["simulated_s"]) for run in runs])
    endless = WORLD.with_overrides({"guest.transactions": 0})
    assert endless.endless and tuning.objective(endless) != tuning.objective(WORLD)
    better, worse = (tuning.losses_of(endless, ple_gym.simulate(endless, rule, 1))[0] for rule in ("kvm", "host"))
    assert better < worse


def test_values_that_are_given_stay() -> None:
    found = find(search("patience:fallback=defer,order=next"))
    names = [name for name, one in found.entrants.items() if one.restart >= 0]
    assert names and all("order=next" in name and "fallback=defer" in name for name in names)


def test_seeds_are_told_apart_as_learners_do() -> None:
    from agents.common import TEST, TRAIN, VALIDATION

    assert (tuning.TRAINING, tuning.VALIDATION) == (TRAIN, VALIDATION)
    assert not set(TEST) & {tuning.TRAINING[-1], tuning.VALIDATION[-1], tuning.VALIDATION[0]}


@pytest.mark.parametrize(
    ("rule", "changes", "fault"),
    [
        ("kvm", {}, "kvm: there is nothing to search: it has no parameters"),
        ("two-patience:patience=3", {}, "nothing to search: all its parameters have been given values"),
        ("patience", {"trials": 0}, "trials = 0: must be 1..1000000"),
        ("patience", {"validation": 1}, "validation = 1: must be 2..1000000"),
        ("patience", {"seed": -1}, "seed = -1: must be 0.."),
        ("yield-if-cheap", {}, "it reads what host.scheduler = fair keeps"),
    ],
)
def test_a_search_for_nothing_is_refused(rule: str, changes: dict[str, int], fault: str) -> None:
    with pytest.raises(PleError, match=re.escape(fault)):
        search(rule, **changes)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content() -> str:
    return find(search("two-patience")).tuned({"ple_gym": "0.1.0", "command": 'ple-gym "x"'}).to_toml()


def test_a_file_is_the_rule_with_its_values_wherever_a_policy_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(content.replace("patience = ", "patience = 1#"))
    same = compare("Storm", ["two-patience:patience=1", "./mine.toml", "tuned:mine.toml"], 2).runs
    assert same["two-patience:patience=1"] == same["./mine.toml"] == same["tuned:mine.toml"]
    assert ple_gym.record(WORLD, "mine.toml", 1).any()
    assert cli.main(["simulate", "Tiny", "--policy", "mine.toml", "--seeds", "0:2"]) == 0
    assert cli.main(["table", "--scenarios", "Tiny", "--policies", "host", "mine.toml", "--seeds", "0:2"]) == 0
    assert capsys.readouterr().out.count("mine.toml") == 2  # a column, and its note


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("patience = ", "patience = 99999", "two-patience: patience = 99999"),
        ("[parameters]\n", "[parameters]\nwindow = 1\n", "unknown parameter of two-patience 'window'"),
        ("format = 1", "format = 2", "format = 2: must be"),
        ("format = 1\n", "", "'format' is missing"),
        ('rule = "two-patience"', 'rule = "./mine.py:f"', "unknown rule './mine.py:f'"),
        ("[search]", "[searched]", "must not have a field 'searched'"),
        ("trials = 6", "trials = 6\ncode = 1", "must not have a field 'code'"),
        ("[parameters]\n", "[parameters\n", "not a tuned rule, or damaged"),
    ],
)
def test_a_file_with_anything_else_is_refused_in_a_line(
    old: str, new: str, fault: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(PolicyError) as refusal:
        load_compiled(str(path))
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and fault in message and "\n" not in message


def test_a_file_that_is_not_there_is_told() -> None:
    for name in ("no.toml", "tuned:no.toml"):
        with pytest.raises(PolicyError, match=r"^no\.toml: No such file or directory$"):
            load_compiled(name)


def test_what_is_written_is_read_again() -> None:
    found = find(search())
    made = found.tuned({"ple_gym": "0.1.0"})
    assert isinstance(made, Tuned) and set(made.values) == set(RULES["patience"].parameters)
    assert RULES["patience"].with_values(made.values).name == found.best.name


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_searches_prints_the_race_and_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["tune", "resume-then-defer", "TicketOrder", "--set", "host.pcpus=1", *OPTIONS, "--out", "mine.toml"]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert "TicketOrder: makespan, 3 seeds" in out and "the tuned rule" in out and "host" in out
    assert out.splitlines()[-1].endswith("Now: ple-gym compare SCENARIO --policies host ./mine.toml")
    assert "warning: restarts < 4" in err and "best built-in rule on 2 training seeds" in err
    assert sorted(os.listdir()) == ["mine.toml", "mine.toml.study"]
    assert cli.main(argv) == 0
    assert "goes on" in capsys.readouterr().err
    assert load_compiled("mine.toml").name == "mine.toml"


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["kvm", "Tiny"], "kvm: there is nothing to search: it has no parameters"),
        (["learned:storm-set", "Tiny"], "learned:storm-set: only a rule has parameters"),
        (["patience", "Tiny", "--out", "mine.txt"], "--out mine.txt: the name must end in .toml"),
        (["patience", "Tiny", "--out", "no/mine.toml"], "no/mine.toml: cannot be written: No such file or directory"),
        (
            ["patience", "Tiny", "--study", "no/study", *OPTIONS],
            "no/study: cannot be written: No such file or directory",
        ),
        (["patience", "Tiny", "--restarts", "0"], "restarts = 0: must be 1..1000"),
    ],
)
def test_a_wrong_command_is_told_in_a_line(
    argv: list[str], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", *argv]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"ple-gym: error: {fault}"
    assert os.listdir() == []


@pytest.mark.slow
def test_ctrl_c_ends_a_search_at_once_and_what_has_run_is_kept(tmp_path: Path) -> None:
    study = tmp_path / "study"
    process = subprocess.Popen(
        [sys.executable, "-m", "ple_gym.cli", "tune", "patience", "Storm", "--study", str(study)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not study.exists() or study.read_text().count("\n") < 5:
        assert process.poll() is None
        time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5  # a second on a machine that does nothing else
    kept = [json.loads(line) for line in study.read_text().splitlines()][1:]
    assert len(kept) >= 4 and process.returncode == 130 and out == ""
    assert err.splitlines()[-2:] == [
        f"tune: {study}: {len(kept)} parts are kept; the same command goes on",
        "ple-gym: interrupted",
    ]
