"""The command line: documents, messages and exit codes."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ple_gym
from ple_gym import cli, evaluate
from ple_gym.certify.certificate import VERDICTS
from ple_gym.cli import commands
from ple_gym.envs.interface import LEVELS
from ple_gym.envs.registration import environment_id
from ple_gym.evaluate import Comparison, Estimate, tables
from ple_gym.learned.file import learned_names
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario, ScenarioError, Vm, describe_parameters
from ple_gym.scenario.builtin import SCENARIOS, load
from ple_gym.scenario.documented import documented_toml

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "list", "parameters", "show", "new", "measure", "simulate", "compare", "sweep", "table", "trace", "rules",
    "header", "bench", "reality", "warmup", "report", "watch",
)  # fmt: skip
HYPOTHETICAL = {"kvm": False, "xen-4.8": False, "spin-age": True, "two-patience": True, "oracle": True}
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """The one JSON document that this command line prints; nothing else may be on stdout."""
    assert cli.main(argv) == 0
    printed = json.loads(capsys.readouterr().out)
    provenance = printed.pop("provenance")
    assert set(provenance) - {"commit", "scenarios"} == {"ple_gym", "command", "date"}
    assert provenance["command"] == shlex.join(["ple-gym", *argv])
    return printed


def run_process(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ple_gym.cli", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


# --- documents --------------------------------------------------------------------------------------------------------


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    listed = document(capsys, "list", "--json", "-")
    assert set(listed) == {"scenarios", "policies"}
    assert [one["id"] for one in listed["scenarios"]] == [environment_id(name) for name in SCENARIOS]
    assert [one["name"] for one in listed["policies"]] == [*RULES, *learned_names()]
    assert {one["information"] for one in listed["policies"]} <= set(LEVELS)
    described = {"id", "suite", "verdict", "pcpus", "vcpus", "description"}
    assert all(set(one) == described for one in listed["scenarios"])
    assert {one["verdict"] for one in listed["scenarios"]} <= {"", *VERDICTS}
    described = {"name", "summary", "information", "reads", "actuator", "source"}
    assert all(all(one[key] for key in described) for one in listed["policies"])
    assert all(set(one) == {*described, "hypothetical", "parameters"} for one in listed["policies"])
    policies = {one["name"]: one for one in listed["policies"]}
    assert {name: policies[name]["hypothetical"] for name in HYPOTHETICAL} == HYPOTHETICAL
    assert policies["two-patience"]["parameters"] == [
        {"name": "patience", "default": 64, "allowed": "0..10000", "help": "exits before a likely holder is run"}
    ]
    assert policies["kvm"]["parameters"] == []
    storm_entry = listed["scenarios"][3]
    assert {**storm_entry, "description": "", "verdict": ""} == {
        "id": "PLE/Storm-v1", "suite": "train", "verdict": "", "pcpus": 4, "vcpus": 32, "description": "",
    }  # fmt: skip


def test_every_name_that_is_listed_can_be_passed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = document(capsys, "list", "--json", "-")
    for policy in listed["policies"]:
        assert load_compiled(policy["name"]).information == policy["information"]
    for scenario in listed["scenarios"]:
        assert load(scenario["id"]).host.pcpus == scenario["pcpus"]


def test_list_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*SCENARIOS, *RULES, *learned_names()))
    assert out.isascii()


def test_all_parameters_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parameters"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and allowed.split()[0] in out for name, (allowed, _) in describe_parameters().items())
    assert out.isascii()
    listed = document(capsys, "parameters", "--json", "-")["parameters"]
    assert [one["name"] for one in listed] == list(describe_parameters())
    for one in listed:
        assert one["default"] == Scenario().parameters()[one["name"]]
        assert (one["allowed"], one["help"]) == describe_parameters()[one["name"]]
        Scenario().with_overrides({one["name"]: str(one["default"]).lower()})


def test_parameters_are_asked_for_by_group_or_name(capsys: pytest.CaptureFixture[str]) -> None:
    listed = document(capsys, "parameters", "ple", "neighbours.3.locks", "name", "--json", "-")["parameters"]
    ple = [f"ple.{field}" for field in ("kind", "gap", "window", "count", "window_grow", "window_shrink", "window_max")]
    assert [one["name"] for one in listed] == ["name", *ple, "guest.locks"]
    guest = [name for name in describe_parameters() if name.startswith("guest.")]
    assert [one["name"] for one in document(capsys, "parameters", "neighbours", "--json", "-")["parameters"]] == guest


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_is_shown_reads_back_as_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", name]) == 0
    Path("mine.toml").write_text(text := capsys.readouterr().out, encoding="utf-8")
    assert load("mine.toml") == SCENARIOS[name]
    for described, (allowed, what) in describe_parameters().items():
        key = described.rpartition(".")[2]
        assert f"\n# {what}: {allowed}\n{key} = " in text
    assert cli.main(["show", "mine.toml", "--set", "host.pcpus=3"]) == 0
    assert Scenario.from_toml(capsys.readouterr().out) == SCENARIOS[name].with_overrides({"host.pcpus": 3})


def test_a_scenario_that_is_shown_keeps_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    guest, many = SCENARIOS["Tiny"].guest, replace(SCENARIOS["Paper32"], neighbours=(Vm(vcpus=2), Vm(), Vm(vcpus=3)))
    assert Scenario.from_toml(documented_toml(many)) == many
    odd = replace(many, name='[guest] "x" # = y', description="[[neighbours]]", guest=guest)
    assert Scenario.from_toml(documented_toml(odd)) == odd


def test_a_scenario_in_few_words_reads_back_as_itself() -> None:
    many = replace(SCENARIOS["Paper8"], neighbours=(Vm(), Vm(vcpus=2, weight=512), Vm(), Vm()))
    for scenario in (Scenario(), many, *SCENARIOS.values()):
        short = documented_toml(scenario, ["guest.vcpus"])
        assert Scenario.from_toml(short) == scenario
        assert "\nvcpus = " in short and "\nwindow = " not in short and "[limit]\n\n" not in short
    assert "[" not in documented_toml(Scenario(), [])


BOX = ("new", "box.toml", "--pcpus", "16", "--sockets", "2", "--vcpus", "12", "--vms", "2", "--locks", "8")


def test_a_new_scenario_is_the_machine_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*BOX, "--neighbours", "3", "--set", "profile=zen-kvm-6.18", "guest.weight=512"]) == 0
    assert capsys.readouterr().out.endswith("Now: ple-gym compare box.toml\n")
    text, box = Path("box.toml").read_text(), load("box.toml")
    assert (box.name, box.host.pcpus, box.host.sockets, box.host.scheduler) == ("box", 16, 2, "fair")
    assert (box.guest.count, box.guest.vcpus, box.guest.locks, box.guest.weight) == (2, 12, 8, 512)
    assert [(vm.count, vm.vcpus, vm.transactions, vm.takes_locks) for vm in box.neighbours] == [(3, 12, 0, False)]
    work = 2 * box.guest.transactions * box.guest.sections * 100_000
    assert work == 0.25 * 16 * 2_500_000_000
    for name in ("host.pcpus", "ple.window", "guest.hold", "guest.weight"):
        allowed, what = describe_parameters()[name]
        assert f"\n# {what}: {allowed}\n{name.partition('.')[2]} = " in text
    assert "yield_bypasses_ratelimit" not in text  # nor whatever else has its default


def test_a_new_scenario_runs_long_enough_to_compare_policies(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "box.toml"]) == 0
    assert cli.main(["compare", "box.toml", "--policies", "host", "kvm", "--seeds", "0:2"]) == 0
    assert capsys.readouterr().err == ""


def test_a_new_scenario_overwrites_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("box.toml").write_text("mine")
    assert cli.main(BOX) == 2
    assert capsys.readouterr().err == "ple-gym: error: box.toml: is there already, and is not written over\n"
    assert Path("box.toml").read_text() == "mine"


def test_simulate_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("simulate", "PLE/Tiny-v0", "--policy", "kvm", "--seeds", "2:5", "--set", "host.ratelimit_us=500")
    simulated = document(capsys, *argv, "--json", "-")
    assert set(simulated) == {"scenario", "policy", "parameters", "runs"}
    assert (simulated["scenario"], simulated["policy"]) == ("Tiny", "kvm")
    assert simulated["parameters"]["host.ratelimit_us"] == 500
    assert simulated["runs"] == evaluate.simulate("Tiny", "kvm", range(2, 5), {"host.ratelimit_us": 500})
    assert document(capsys, *argv, "--json", "-", "--threads", "3") == simulated


def test_tables_make_room_for_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["simulate", "Tiny", "--policy", "kvm", "--seeds", "1"]
    assert cli.main(argv) == 0
    printed = capsys.readouterr()
    assert "makespan" in printed.out
    assert printed.err == ""
    assert cli.main([*argv, "--json", "-"]) == 0
    assert "makespan" in capsys.readouterr().err


def test_documents_go_to_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("simulate", "HolderPreempted", "--seeds", "0:2", "--json")
    Path("runs.json").write_text("older")
    assert cli.main([*argv, "runs.json"]) == 0
    capsys.readouterr()
    kept = json.loads(Path("runs.json").read_text())
    assert kept.pop("provenance")["ple_gym"] == ple_gym.__version__
    assert kept == document(capsys, *argv, "-")
    assert os.listdir(tmp_path) == ["runs.json"]


def test_overrides_can_be_given_in_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("simulate", "HolderPreempted", "--seeds", "0", "--json", "-", "--set", "host.ratelimit_us=500")
    together = document(capsys, *argv, "cost.exit=2000")
    assert together == document(capsys, *argv, "--set", "cost.exit=2000")
    assert together["parameters"]["cost.exit"] == 2000


def test_a_scenario_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text(SCENARIOS["Tiny"].with_overrides({"name": "mine"}).to_toml(), encoding="utf-8")
    simulated = document(capsys, "simulate", "mine.toml", "--policy", "oracle", "--seeds", "4", "--json", "-")
    assert simulated["scenario"] == "mine"
    assert simulated["runs"] == evaluate.simulate("Tiny", "oracle", [4])


def test_compare_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("compare", "TicketOrder", "--policies", "kvm", "oracle", "--seeds", "0:3", "--json", "-")
    compared = document(capsys, *argv)
    assert (compared["scenario"], compared["baseline"], compared["seeds"]) == ("TicketOrder", "kvm", [0, 1, 2])
    assert [row["policy"] for row in compared["policies"]] == ["kvm", "oracle"]
    assert compared["policies"][0]["log_ratio"] is None
    assert set(compared["policies"][1]["log_ratio"]) == {"mean", "low", "high", "few", "differing"}
    for name in ("makespan_s", "p95_s", "p99_s", "cvar10_s", "score"):
        assert set(compared["policies"][1][name]) == {"mean", "low", "high", "few"}
    assert [run["seed"] for run in compared["runs"]["oracle"]] == [0, 1, 2]


@pytest.mark.parametrize("columns", [80, 200])
def test_compare_takes_every_policy_by_default(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain ASCII, with every column, and with nothing cut off where the terminal is narrow."""
    monkeypatch.setenv("COLUMNS", str(columns))
    argv = ("compare", "TicketOrder", "--seeds", "0:2")
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= columns
    lines = [line.split() for line in out.splitlines()]
    rows = {name: [text for line in lines if line[:1] == [name] for text in line[1:]] for name in ("policy", *RULES)}
    heads = " ".join(rows["policy"]).replace("policy ", "")
    assert heads == "makespan waste/s exits wall s p95 p99 CVaR10 vs host vs best differ score"
    for row in document(capsys, *argv, "--json", "-")["policies"]:
        shown = rows[row["policy"]]
        for field in ("p95_s", "p99_s", "cvar10_s"):
            assert tables.number(1e3 * row[field]["mean"]) in shown
        assert f"{row['waste_ms_per_s']:,.1f}" in shown
        assert tables.count(row["ple_exits"]) in shown
        assert f"{row['score']['mean']:.2f}" in shown
        intervals = [row[name] for name in ("makespan_s", "cvar10_s", "log_ratio", "best_ratio", "score")]
        assert " ".join(shown).count("[") == sum(one is not None and one["low"] is not None for one in intervals)
        assert " ".join(shown).count("]~") == sum(one is not None and one["few"] for one in intervals)


def test_documents_name_what_was_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = {name: SCENARIOS[name].digest for name in ("Tiny", "TicketOrder")}
    seeds = ["--policies", "kvm", "oracle", "--seeds", "0:2"]
    assert cli.main(["table", "--scenarios", *digests, *seeds, "--json", "table.json"]) == 0
    assert json.loads(Path("table.json").read_text())["provenance"]["scenarios"] == digests
    capsys.readouterr()
    argv = ["compare", "Tiny", *seeds, "--json", "out.json", "--csv", "-"]
    assert cli.main(argv) == 0
    written = capsys.readouterr()
    assert "makespan" in written.err
    lines = written.out.splitlines()
    comments = [line for line in lines if line.startswith("# ")]
    assert lines[: len(comments)] == comments
    assert f"# command: {shlex.join(['ple-gym', *argv])}" in comments
    assert f"# scenario Tiny: {digests['Tiny']}" in comments
    known = json.loads(Path("out.json").read_text())["policies"]
    rows = csv.DictReader(lines[len(comments) :])
    assert [float(row["makespan_s_low"]) for row in rows] == [one["makespan_s"]["low"] for one in known]


def test_the_note_names_who_is_compared_to() -> None:
    runs_of = {name: made_up_runs(2.0, 3.0) for name in ("kvm", "a", "b", "oracle")}
    walls = dict.fromkeys(runs_of, 0.0)
    members = {"kvm": ("kvm",), "ppo": ("a", "b"), "oracle": ("oracle",)}
    comparison = Comparison(SCENARIOS["Tiny"], (0, 1), runs_of, walls, members)
    assert tables.comparison_table(comparison).key.cells == ["kvm", "ppo (2 trainings)", "oracle"]
    note = tables.comparison_note(comparison)
    assert "against kvm and against kvm, the best rule here" in note
    assert "score: 0 = kvm, 1 = the ideal" in note
    assert "Rows of several trainings: [ ] over both trainings and seeds." in note
    assert "8 runs took" in note
    assert "~: rests on few: 20 seeds should differ, 100 be run, 400 for CVaR10" in note
    learned_only = {name: runs_of[name] for name in ("a", "oracle")}
    note = tables.comparison_note(Comparison(SCENARIOS["Tiny"], (0, 1), learned_only, walls))
    assert "no rule, as none is here" in note
    assert "trainings" not in note


def test_timeline_of_the_worst_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    argv = ["compare", "TicketOrder", "--policies", "xen-4.8", "oracle", "--seeds", "0:2", "--timeline", "line.png"]
    assert cli.main(argv) == 0
    assert "line.png" in capsys.readouterr().out
    assert Path("line.png").read_bytes().startswith(PNG)
    assert os.listdir(tmp_path) == ["line.png"]


def test_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = ("table", "--scenarios", "Tiny", "TicketOrder", "--policies", "xen-4.5", "kvm", "oracle", "--seeds", "0:2")
    assert cli.main(table) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("Tiny", "TicketOrder", "xen-4.5", "kvm", "oracle"))
    printed = document(capsys, *table, "--json", "-")
    assert [one["scenario"] for one in printed["scenarios"]] == ["Tiny", "TicketOrder"]


def test_warmup_says_where_the_cache_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["warmup"]) == 0
    assert "cache: " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"Example: ple-gym {command}" in capsys.readouterr().out


SMALLER = {
    "tune": ["--restarts", "1", "--trials", "1", "--training", "1", "--validation", "2"],
    "certify": ["--quick", "--seeds", "2", "--trials", "1", "--ahead", "2", "--samples", "2", "--horizon-us", "100"],
}
EXAMPLES = re.findall(r"Example: ple-gym (.*?)(?: > .*)?\n", Path(commands.__file__).read_text(encoding="utf-8"))


@pytest.mark.parametrize("example", [one for one in EXAMPLES if not one.startswith(("bench", "reality"))])  # minutes
def test_the_examples_work(example: str) -> None:
    """On one seed, and of a search that takes minutes or hours the least."""
    for name in re.findall(r"(?<=measure )(\S+) (\S+)", example)[:1]:
        assert all(cli.main(["trace", "Tiny", "--policy", "kvm", "--out", file]) == 0 for file in name)
    asked = shlex.split(re.sub(r"--seeds 0:\d+", "--seeds 0:1", example))
    assert cli.main([*asked, *SMALLER.get(asked[0], [])]) == 0


@pytest.mark.parametrize("asked", [("compare", "Tiny"), ("sweep", "Tiny", "--sweep", "host.timeslice_ms=10,30")])
def test_all_rules_are_those_that_suit_the_scheduler(
    asked: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    def rules(*more: str) -> tuple[list[str], str]:
        assert cli.main([*asked, "--seeds", "0:1", "--csv", "-", *more]) == 0
        out, err = capsys.readouterr()
        return [row["policy"] for row in csv.DictReader(line for line in out.splitlines() if line[0] != "#")], err

    everywhere, told = rules()
    left_out = "left out what reads another scheduler's records: "
    assert f"{left_out}yield-if-cheap" in told
    linux, told = rules("--set", "host.scheduler=fair")
    assert set(everywhere) ^ set(linux) == {"paper", "yield-if-cheap"} and f"{left_out}paper\n" in told


# --- completions ------------------------------------------------------------------------------------------------------


def test_bash_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script is written by the line that the README shows, and asked as bash asks it."""
    assert cli.main(["--tyro-write-completion", "bash", "ple-gym"]) == 0

    def complete(*words: str) -> list[str]:
        ask = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _tyro_ple_gym; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(
            ["bash", "-c", f"source ./ple-gym; complete -p ple-gym; {ask}"], capture_output=True, text=True, timeout=60
        )
        assert done.stderr == "" and "ple-gym" in done.stdout.splitlines()[0]
        return done.stdout.splitlines()[1].split()

    assert set(complete("ple-gym", "")) >= set(COMMANDS)
    assert complete("ple-gym", "co") == ["compare"]
    assert complete("ple-gym", "compare", "--po") == ["--policies"]


def test_zsh_is_given_a_script_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--tyro-print-completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef ple-gym\n")
    assert all(command in script for command in COMMANDS) and "--policies" in script


def test_a_page_says_how_to_install_completions() -> None:
    page = (ROOT / "docs" / "start" / "install.md").read_text(encoding="utf-8")
    assert all(f"ple-gym --tyro-write-completion {shell} " in page for shell in ("bash", "zsh"))


def test_a_completion_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--tyro-write-completion", "bash", "no/where"]) == 2
    assert capsys.readouterr().err == "ple-gym: error: no/where: No such file or directory\n"


# --- messages ---------------------------------------------------------------------------------------------------------

TINY = ("simulate", "Tiny", "--policy", "kvm")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "Expected one of {list, parameters, show, new"),
        (("nothing",), "Unrecognized options: nothing"),
        (("simulate",), "Missing from ple-gym simulate: SCENARIO"),
        ((*TINY, "--polcy", "kvm"), "Unrecognized options: --polcy"),
        ((*TINY, "--threads", "many"), "Error parsing --threads"),
        ((*TINY, "--threads", "-1"), "--threads -1: must be 0 (one per CPU) or more"),
        (("simulate", "Nope"), "unknown scenario 'Nope'"),
        (("simulate", "no.toml"), "no.toml: No such file"),
        (("simulate", "Tiny", "--policy", "nope"), "unknown policy 'nope'"),
        ((*TINY, "--seeds", "5:5"), "seeds = '5:5': must be"),
        ((*TINY, "--seeds", "-1:4"), "seeds = '-1:4': must be"),
        ((*TINY, "--set", "host.pcpu=2"), "unknown parameter 'host.pcpu'; did you mean 'host.pcpus'?"),
        (("parameters", "windo"), "unknown parameter 'windo'; did you mean 'ple.window'?"),
        (("parameters", ""), "Error parsing"),
        ((*TINY, "--set", "host.pcpus=none"), "host.pcpus = 'none': must be a whole number, 1..256"),
        ((*TINY, "--set", "host.pcpus"), "--set host.pcpus: must be NAME=VALUE"),
        ((*TINY, "--set", "host.pcpus=1", "--set", "host.pcpus=2"), "--set host.pcpus=2: host.pcpus is set twice"),
        ((*TINY, "--set", "limit.simulated_s=1e-12"), "limit.simulated_s = 1e-12: must be"),
        ((*TINY, "--json", "no/where.json"), "no/where.json: cannot be written: No such file or directory"),
        ((*TINY, "--json", "."), ".: cannot be written: exists and is not a regular file"),
        ((*TINY, "--timeline", "line.jpg"), "--timeline line.jpg: the name must end in .png"),
        ((*TINY, "--timeline", "no/line.png"), "no/line.png: cannot be written"),
        (("report", "Tiny", "--out", "x.htm"), "--out x.htm: the name must end in .html"),
        (("report", "Tiny", "--out", "no/x.html"), "no/x.html: cannot be written"),
        (("watch", "Tiny", "--speed", "nan"), "--speed nan: must be above 0, at most 1000000"),
        (("compare", "Tiny", "--policies", "kvm", "kvm"), "policies: 'kvm' is named 2 times"),
        (("compare", "Tiny", "--json", "no/where.json"), "no/where.json: cannot be written"),
        (("compare", "Tiny", "--csv", "-", "--json", "-"), "-: is one file, and there are 2 documents for it"),
        (("compare", "Tiny", "Tiny"), "Tiny: is named 2 times, must be once"),
        (("compare", "Tiny", "--against", "ple.window"), "--against ple.window: must be NAME=VALUE"),
        (("compare", "Tiny", "Storm", "--against", "ple.gap=0"), "--against: takes one scenario, not 2"),
        (("compare", "Tiny", "Storm", "--per-vm"), "--per-vm: takes one scenario, and no --against"),
        (("sweep", "Tiny"), "--sweep: must be given once or twice, not 0 times"),
        (("sweep", "Tiny", "--sweep", "ple.gap"), "--sweep ple.gap: must be NAME=VALUE,VALUE,..."),
        (("sweep", "Tiny", "--sweep", "ple.gap=1,"), "ple.gap = '': must be a whole number"),
        (("sweep", "Tiny", "--sweep", "ple.gap=1", "--set", "ple.gap=2"), "--sweep ple.gap: must not also be in --set"),
        (("sweep", "Tiny", "--sweep", "ple.gap=1", "--picture", "a.gif"), "--picture a.gif: the name must end in .png"),
        (("table", "--scenarios", "Nope"), "unknown scenario 'Nope'"),
        (("list", "--json"), "Missing value for argument '--json'"),
        (("list", "--json", ""), "Error parsing --json: must not be empty"),
        ((*TINY, "--timeline", ""), "Error parsing --timeline: must not be empty"),
        ((*TINY, "--set"), "--set: must be NAME=VALUE"),
        ((*TINY, "--set", "x" * 10_000), "--set " + "x" * 80 + "...: must be NAME=VALUE"),
        (("compare", "Tiny", "--policies"), "Error parsing --policies: must be one name at least"),
        (("table", "--scenarios"), "Error parsing --scenarios: must be one name at least"),
        (("show", "Nope"), "unknown scenario 'Nope'"),
        (("new",), "Missing from ple-gym new: FILE.toml"),
        (("new", "box.json"), "box.json: the name must end in .toml"),
        (("new", "no/box.toml"), "no/box.toml: cannot be written: No such file or directory"),
        ((*BOX, "--pcpus", "0"), "host.pcpus = 0: must be 1..256"),
        ((*BOX, "--vms", "0"), "guest.count = 0: must be 1..1024"),
        ((*BOX, "--vcpus", "0", "--neighbours", "1"), "guest.vcpus = 0: must be 1..1024"),
        ((*BOX, "--neighbours", "-1"), "neighbours.0.count = -1: must be 1..1024"),
        ((*BOX, "--work-ms", "0"), "--work-ms 0: must be 1..10000"),
        ((*BOX, "--set", "profile=none"), "unknown profile 'none'"),
        (("bench", "--fast"), "Unrecognized options: --fast"),
    ],
)
def test_mistakes_give_one_line_and_nothing_else(
    argv: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"ple-gym: error: {message}")
    assert os.listdir(tmp_path) == []


def test_a_link_or_device_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("real.json").write_text("older")
    Path("link.json").symlink_to("real.json")
    os.mkfifo("pipe.json")
    for name in ("link.json", "pipe.json"):
        assert cli.main(["list", "--json", name]) == 2
        assert f"{name}: cannot be written: exists and is not a regular file" in capsys.readouterr().err
    assert Path("link.json").is_symlink()
    assert Path("real.json").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["link.json", "pipe.json", "real.json"]


def test_outputs_are_checked_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "compare_all", lambda *_, **__: pytest.fail("the work has begun"))
    assert cli.main([*TINY, "--json", "no/where.json"]) == 2
    assert "no/where.json" in capsys.readouterr().err


def test_a_failing_write_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    Path("runs.json").write_text("older")
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main([*TINY, "--seeds", "0", "--json", "runs.json"]) == 2
    told = capsys.readouterr().err.splitlines()  # the last line: something may have been compiled before
    assert told[-1] == "ple-gym: error: runs.json: cannot be written: No space left on device"
    assert Path("runs.json").read_text() == "older"
    assert os.listdir(tmp_path) == ["runs.json"]


def test_doubts_about_a_scenario_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TINY, "--seeds", "0", "--set", "ple.gap=0"]) == 0
    assert (
        capsys.readouterr().err == "ple-gym: warning: ple.gap = 0: pause-loop exiting is off, nothing is ever decided\n"
    )


def test_a_doubt_about_equal_vms_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    six = replace(SCENARIOS["Tiny"], name="six", neighbours=(SCENARIOS["Tiny"].guest,) * 5)
    Path("six.toml").write_text(six.to_toml(), encoding="utf-8")
    assert cli.main(["show", "six.toml", "--set", "ple.gap=32"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "silently dead" in line] == [
        "ple-gym: warning: guest (and 5 like it).spin_period = 50: longer than ple.gap = 32, PLE is silently dead"
    ]
    assert cli.main(["show", "six.toml", "--set", "ple.gap=32", "neighbours.4.spin_period=40"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "silently dead" in line]
    assert [line.partition(" = ")[0] for line in told] == [
        "ple-gym: warning: guest (and 4 like it).spin_period", "ple-gym: warning: neighbours.4.spin_period",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [["simulate"], ["compare"], ["show"], ["table", "--scenarios"]])
def test_an_empty_scenario_and_one_that_is_too_short_are_told_of(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text("# nothing\n")
    seeds = [] if command == ["show"] else ["--seeds", "0:2"]
    assert cli.main([*command, "mine.toml", *seeds]) == 0
    told = capsys.readouterr().err
    assert "ple-gym: warning: mine.toml: changes no parameter: every one has its default" in told
    if seeds:
        assert "before one time slice (host.timeslice_ms = 30) is over" in told


def test_the_version_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ple-gym {ple_gym.__version__}\n"


def test_the_package_lists_what_it_offers() -> None:
    assert {*ple_gym.__all__, "make_sb3"} <= set(dir(ple_gym))
    assert not {"Any", "TYPE_CHECKING", "register_environments"} & set(dir(ple_gym))


def test_an_interrupt_gives_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "compare_all", interrupted)
    assert cli.main(TINY) == 130
    assert capsys.readouterr().err == "ple-gym: interrupted\n"


# --- as a process -----------------------------------------------------------------------------------------------------


def test_a_process_has_the_same_codes_and_streams() -> None:
    good = run_process("simulate", "HolderPreempted", "--policy", "xen-4.5", "--seeds", "0:2", "--json", "-")
    assert good.returncode == 0
    assert [run["seed"] for run in json.loads(good.stdout)["runs"]] == [0, 1]
    assert run_process("--help").returncode == 0
    bad = run_process("simulate", "Tiny", "--seeds", "x")
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("ple-gym: error: seeds = 'x'")


def test_only_a_timeline_loads_big_libraries() -> None:
    script = (
        "import sys; from ple_gym import cli; assert cli.main(sys.argv[1:]) == 0;"
        "print(sorted({'torch', 'matplotlib', 'ray', 'stable_baselines3'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "compare", "HolderPreempted", "--seeds", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"  # above it may stand that compiling took a while


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_a_process_without_its_streams_ends_in_order(streams: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m ple_gym.cli list {streams}'],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    closed = streams.startswith(">&-")
    assert done.returncode == (2 if closed else 0)
    assert done.stderr == ("ple-gym: error: stdout: is closed\n" if streams == ">&-" else "")
    assert ("PLE/Storm-v1" in done.stdout) != closed


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [("simulate", "Tiny", "--policy", "continue"), ("sweep", "Tiny", "--sweep", "ple.gap=64,128", "--policies", "kvm")],
)
def test_ctrl_c_ends_a_process_without_leftovers(argv: tuple[str, ...], tmp_path: Path) -> None:
    argv = (*argv, "--seeds", "0:1000000", "--json", "runs.json")
    script = (
        "import sys; from ple_gym import cli, compilation, evaluate; compilation.warm_up(); print('ready', flush=True);"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)  # in the middle of the runs
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "ple-gym: interrupted\n")
    assert os.listdir(tmp_path) == []


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.026966, "0.02697"), (1.5, "1.500"), (12.345, "12.35"), (123.45, "123.5"), (500.0, "500"),
     (12345.6, "12,346")],
)  # fmt: skip
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_intervals_and_ratios() -> None:
    assert tables.interval(Estimate(1.5, 1.25, 2.0)) == "1.500 [1.250, 2]"
    assert tables.interval(Estimate(1.5, None, None), 1e3) == "1,500"
    assert tables.ratio(Estimate(0.0, -0.105361, 0.09531)) == "+0.0 [-10.0, +10.0]"
    assert tables.ratio(Estimate(0.0, -0.105361, 0.09531, few=True)) == "+0.0 [-10.0, +10.0]~"
    assert tables.ratio(Estimate(0.0, None, None, few=True)) == "+0.0"
    assert tables.percent(None) == "-"


def made_up_runs(*makespans: float) -> list[dict[str, Any]]:
    rest = {"ideal_s": 1.0, "ple_exits": 1, "cycles": {"useful": 1, "spin": 1, "exit": 0}}
    return [{"finished": True, "simulated_s": seconds, **rest} for seconds in makespans]


def test_a_rule_that_beats_the_oracle_is_named() -> None:
    makespans = {"kvm": (1.8, 1.9), "paper": (1.5, 2.4), "oracle": (2.0, 2.0), "random": (3.0, 3.0)}
    runs_of = {policy: made_up_runs(*seconds * 20) for policy, seconds in makespans.items()}
    comparison = Comparison(SCENARIOS["Tiny"], tuple(range(40)), runs_of, dict.fromkeys(runs_of, 0.0))
    remarks = tables.better_than_oracle([comparison])
    assert remarks == [
        "Tiny: kvm beats oracle, makespan -7.53 [-8.34, -6.72] %",
        "Tiny: paper beats oracle, makespan -5.13 [-12.08, +2.37] % (the interval includes no difference)",
    ]


def test_unknown_names_are_scenario_errors() -> None:
    with pytest.raises(ScenarioError, match="unknown scenario"):
        evaluate.compare("Nope")
