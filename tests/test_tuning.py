"""`ple-gym tune`: a search ends the same, interrupted or not; what it keeps is a policy's name everywhere."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ple_gym
from experiments.lab.searched import SEARCHED
from ple_gym import cli, compare, simulate
from ple_gym.cli.tune import verdict
from ple_gym.course import TRAINING, VALIDATION, Course, FleetCourse, allowance_of, losses_of, objective
from ple_gym.errors import ArgumentError, PleError, PolicyError
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES, Rule
from ple_gym.rules.own import own_rule
from ple_gym.scenario import fleet
from ple_gym.scenario.builtin import load
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.tuned import policy_in
from ple_gym.tuning import Found, Search, Study, tune

pytest.importorskip("optuna")
pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="of many runs: not under make nojit")
ROOT = Path(__file__).resolve().parents[1]
WORLD = load("TicketOrder").with_overrides({"limit.simulated_s": 0.01})
OPTIONS = ["--trials", "3", "--restarts", "1", "--training", "2", "--validation", "3"]


def search(rule: str = "patience", **changes: int) -> Search:
    small = {"trials": 6, "restarts": 2, "training": 3, "validation": 4}
    return Search(Course(WORLD, 3, 1), load_compiled(rule), **{**small, **changes})


def find(asked: Search, path: Path | str = "") -> Found:
    study = Study(asked, str(path), lambda done, note="": None)
    try:
        return tune(asked, study)
    finally:
        study.close()


def told(found: Found) -> list[object]:
    each = [(name, one.restart, one.training, one.losses.tolist()) for name, one in found.entrants.items()]
    return [found.best.name, found.best_builtin, *each]


def test_the_same_search_ends_the_same_and_another_seed_tries_something_else(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    first, again, _ = (find(search(seed=seed), path) for seed, path in zip((0, 0, 1), paths, strict=True))
    assert told(first) == told(again)
    tried = [set(re.findall('patience:[^"]*', path.read_text())) for path in paths]
    assert tried[0] == tried[1] != tried[2] and len(tried[0]) >= 8


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stop", [1, 20, 45, 60])
def test_a_search_that_was_killed_goes_on_and_ends_the_same(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, most, path = [], -1, tmp_path / "study"

    def counted(scenario: object, policy: Rule, *others: object) -> object:
        if len(made) == most:
            raise Killed
        made.append(policy.name)
        return simulate(scenario, policy, *others)

    monkeypatch.setattr("ple_gym.course.simulate", counted)
    whole = told(find(search()))
    needed, made[:], most = len(made), [], stop
    with pytest.raises(Killed):
        find(search(), path)
    assert path.read_text().count("\n") == 1 + stop
    with path.open("a") as file:
        file.write('{"policy": "patience", "fir')  # what a machine that loses its power leaves
    most = -1
    assert told(find(search(), path)) == whole and len(made) == needed, "nothing runs twice"
    assert told(find(search(trials=8), path)) == told(find(search(trials=8)))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "not a study, or damaged"),
        ("no study\n", "is of another scenario, or of other code"),
        ('{"policy": "kvm", "first": 0, "losses": [NaN]}', "item 0 = nan: must be -1e+06..1e+06"),
    ],
)
def test_a_damaged_study_is_refused_and_left_as_it_is(content: str, fault: str, tmp_path: Path) -> None:
    path, asked = tmp_path / "study", search()
    Study(asked, str(path), lambda done, note="": None).close()
    path.write_text(path.read_text() + content + "\n" if content[:1] == "{" else content)
    before = path.read_text()
    with pytest.raises(ArgumentError) as refusal:
        find(asked, path)
    assert fault in str(refusal.value) and str(refusal.value).startswith(f"{path}: ")
    assert path.read_text() == before


def test_all_built_in_rules_of_a_hypervisor_are_in_the_race() -> None:
    found = find(search("two-patience"))
    suiting = [name for name, one in RULES.items() if one.scheduler in ("", "credit") and not one.privileged]
    assert {name for name in found.entrants if name in RULES} == set(suiting)
    means = [one.losses.mean() for one in found.entrants.values()]
    assert means == sorted(means) and {len(one.losses) for one in found.entrants.values()} == {4}
    assert found.best_builtin == next(name for name in found.entrants if name in RULES and name != "two-patience")
    assert found.percent(found.best.name)[0] == 0 > found.percent("host")[0]


def test_of_vms_that_never_end_the_throughput_counts() -> None:
    endless = WORLD.with_overrides({"guest.transactions": 0})
    assert objective(endless) != objective(WORLD)
    for world in (endless, WORLD):
        kvm, host = (losses_of(world, ple_gym.simulate(world, rule, 1), math.inf)[0] for rule in ("kvm", "host"))
        assert kvm < host


def test_time_that_is_taken_from_an_endless_vm_counts_as_time() -> None:
    """Else the rule that runs the VM's own vCPUs whenever it can would seem better than it is."""
    world = SEARCHED["HeadroomApartLocks"].with_overrides({"host.linux": "6.14", "host.groups": "flat"})
    most = allowance_of(world, 8)
    for rule, more in (("host", 0.0), ("ple_gym.rules.red_team:favour", 0.086)):
        runs = ple_gym.simulate(world, rule, range(8))
        bare, counted = (np.mean(losses_of(world, runs, allowance)) for allowance in (math.inf, most))
        assert counted == pytest.approx(bare + more, abs=0.01)
    assert allowance_of(WORLD, 2) == math.inf


def test_values_that_are_given_stay_and_seeds_are_those_of_learners() -> None:
    from agents import common

    found = find(search("patience:fallback=defer,order=next"))
    names = [name for name, one in found.entrants.items() if one.restart >= 0]
    assert names and all("order=next" in name and "fallback=defer" in name for name in names)
    assert (TRAINING, VALIDATION) == (common.TRAIN, common.VALIDATION)


@pytest.mark.parametrize(
    ("rule", "changes", "fault"),
    [
        ("kvm", {}, "kvm: has no parameter to search"),
        ("patience", {"trials": 0}, "trials = 0: must be 1..1000000"),
        ("yield-if-cheap", {}, "it reads what host.scheduler = fair keeps"),
    ],
)
def test_a_search_for_nothing_is_refused(rule: str, changes: dict[str, int], fault: str) -> None:
    with pytest.raises(PleError, match=re.escape(fault)):
        search(rule, **changes)


# --- clusters -------------------------------------------------------------------------------------------------------


class Elsewhere:
    """A cluster of three workers that ends the last of the calls first; all that reaches it are bytes."""

    workers = 3

    def calls(self, function: Any, arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for each in reversed([*arguments]):
            yield pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(each)))))


@pytest.mark.parametrize("course", [Course(load("KvmServer614"), 2, 1), FleetCourse(enough=2, threads=1)])
def test_on_a_cluster_losses_are_the_same_in_the_same_order(course: Course) -> None:
    rule, told = RULES["two-patience"].with_values({"patience": 3}), []
    for count in (1, 5, 20):
        seeds = range(3, 3 + count)
        told.clear()
        found = replace(course, cluster=Elsewhere()).losses(rule, seeds, told.append)
        assert found == course.losses(rule, seeds, int)
        assert told == sorted(told) and told[-1] == count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray, about its own dependencies
def test_on_ray_a_search_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    for name, where in (("here", []), ("ray", ["--ray", "local"])):
        assert (
            cli.main(["tune", "patience", "TicketOrder", *OPTIONS, "--threads", "2", *where, "--out", f"{name}.toml"])
            == 0
        )
    here, ray = (tomllib.loads(Path(f"{name}.toml").read_text()) for name in ("here", "ray"))
    assert here | {"made_by": ray["made_by"]} == ray
    assert Path("here.toml.study").read_text() == Path("ray.toml.study").read_text()


def test_without_a_cluster_a_line_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["tune", "patience", "TicketOrder", "--ray", "local"]) == 2
    assert capsys.readouterr().err == "ple-gym: error: --ray: Ray is not installed; pip install 'ple-gym[cluster]'\n"


# --- fleets ---------------------------------------------------------------------------------------------------------


def test_on_a_fleet_each_seed_has_its_world() -> None:
    """To train on, or to choose on; where a rule cannot decide, the host yields."""
    course, rule = FleetCourse(enough=2, threads=2), RULES["yield-if-cheap"]
    for first, split in ((0, "Fleet"), (1_000_000, "FleetValidation")):
        seeds = range(first, first + 24)
        worlds = [fleet.world(split, fleet.number_of(split, seed)) for seed in seeds]
        able = [rule.suits(one) for one in worlds]
        assert True in able and False in able
        for asked, found in zip(zip(worlds, able, seeds, strict=True), course.losses(rule, seeds, int), strict=True):
            one, suits, seed = asked
            runs = simulate(one, rule if suits else "host", seed, threads=1)
            assert found == losses_of(one, runs, allowance_of(one, 2, 1))[0]


def test_a_rule_is_tuned_on_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", "two-patience", "Fleet", *OPTIONS, "--threads", "1", "--out", "mine.toml"]) == 0
    kept = tomllib.loads(Path("mine.toml").read_text())
    assert (kept["scenario"], kept["digest"], kept["own"]) == ("Fleet", "Fleet-v0", "host")
    assert load_compiled("mine.toml").suits(load("FleetTest-3"))


@pytest.mark.parametrize("asked", [["FleetTest"], ["Fleet", "--set", "host.pcpus=2"]])
def test_nothing_is_tuned_on_worlds_that_results_are_reported_on(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune", "patience", *asked, *OPTIONS]) == 2
    assert "a rule is tuned on Fleet, validated on FleetValidation, without --set" in capsys.readouterr().err


# --- files and the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content() -> str:
    return find(search("two-patience")).to_toml('a "test"')


def test_a_file_is_the_rule_with_its_values_wherever_a_policy_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(re.sub('policy = .*"', 'policy = "two-patience:patience=1"', content))
    first, *others = compare("Storm", ["two-patience:patience=1", "./mine.toml", "tuned:mine.toml"], 2).runs.values()
    assert others == [first, first]
    assert ple_gym.record(WORLD, "mine.toml", 1).any()
    assert cli.main(["table", "--scenarios", "Tiny", "--policies", "host", "mine.toml", "--seeds", "0:2"]) == 0


@pytest.mark.parametrize("name", ["TicketOrder", "KvmEbizzy"])
def test_what_was_found_is_compared_with_the_host_s_own_rule(name: str) -> None:
    world = load(name).with_overrides({"limit.simulated_s": 0.01})
    found = find(Search(Course(world, 1, 1), RULES["two-patience"], 1, 1, 1, 2))
    own, kept = own_rule(world), tomllib.loads(found.to_toml("a test"))
    gain = found.entrants[found.best.name].losses - found.entrants[own].losses
    assert kept["own"] == own and kept["vs_own"][0] == pytest.approx(100 * math.expm1(gain.mean()), abs=0.001)
    assert f"against the host's own rule, {own}: {kept['vs_own'][0]:+.2f} %" in verdict(found)


def test_a_file_from_before_the_host_s_own_rule_is_read(content: str, tmp_path: Path) -> None:
    older = re.sub("own = .*\nvs_own", "vs_host", content)
    assert "own" not in tomllib.loads(older)
    path = tmp_path / "mine.toml"
    path.write_text(older)
    assert policy_in(str(path)) == tomllib.loads(content)["policy"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('policy = "two', 'policy = "./mine.py:two', "policy: must be a built-in rule"),
        ("objective = ", "code = 1\nobjective = ", "must not have a field 'code'"),
        ("objective = ", "# ", "'objective' is missing"),
        ("\nown = ", "\nvs_host = [1]\nown = ", "must not have a field 'vs_host'"),
    ],
)
def test_a_file_with_anything_else_is_refused_in_a_line(
    old: str, new: str, fault: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content.replace(old, new))
    with pytest.raises(PolicyError) as refusal:
        load_compiled(str(path))
    assert fault in str(refusal.value) and str(refusal.value).startswith(f"{path}: ")
    with pytest.raises(PolicyError, match=r"^no\.toml: No such file or directory$"):
        load_compiled("tuned:no.toml")


def test_the_command_searches_prints_the_race_and_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["tune", "resume-then-defer", "TicketOrder", "--set", "host.pcpus=1", *OPTIONS, "--out", "mine.toml"]
    assert cli.main(["tune", "learned:storm-set", "Tiny"]) == 2
    assert capsys.readouterr().err == "ple-gym: error: learned:storm-set: only a rule has parameters\n"
    for again in ("restarts < 4", "goes on"):
        assert cli.main(argv) == 0
        out, err = capsys.readouterr()
        assert again in err and "TicketOrder: makespan, 3 seeds" in out and "the tuned rule" in out
        assert out.splitlines()[-1].endswith("Now: ple-gym compare SCENARIO --policies host mine.toml")
    assert sorted(os.listdir()) == ["mine.toml", "mine.toml.study"]
    assert load_compiled("mine.toml").name == "mine.toml"


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
    kept = [json.loads(line) for line in study.read_text().splitlines()[1:]]
    assert len(kept) >= 4 and (process.returncode, out) == (130, "")
    assert f"{len(kept)} parts are kept; the same command goes on" in err.splitlines()[-2]
