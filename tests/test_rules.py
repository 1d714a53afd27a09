"""Rules that users bring, in Python and in C: they do what built-in ones do, see nothing more, and fail in one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from machine import Machine, totals
from reference_simulator.rules import RULES as SPECIFIED
from test_policies import decisions, seeds, with_another_secret
from worlds import ON_CREDIT, contended_scenarios

import ple_gym
from experiments.lab.tables import committed
from experiments.pages import suites
from ple_gym import cli
from ple_gym.drive import MAX_REPLACEMENTS, RESET, STEP
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.errors import PolicyError
from ple_gym.evaluate import compare, record, simulate
from ple_gym.lanes import MOST_ASKED, Lanes, RuleFault
from ple_gym.learned.file import learned_names
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES, Memory, Rule, c_rule, files, helpers
from ple_gym.rules.documented import MEANINGS, rules_page
from ple_gym.rules.header import c_header
from ple_gym.rules.registry import Registry
from ple_gym.rules.sight import FACTS, NUMBERS, SIGHT, TABLES, visible_fields
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim.host.credit import VCPU as CREDIT_VCPU
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.state import DECIDE

ROOT = Path(__file__).resolve().parents[1]
SHORT = {"limit.simulated_s": 0.02}
compiled = pytest.mark.skipif(not JIT_ENABLED, reason="of compiled rules: not under make nojit")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

# --- the same rules once more, as users would write them --------------------------------------------------------------

COPIES = '''
from ple_gym.rules import (
    PLE_YIELD, PREEMPTED, candidates, draw, earliest, helper, may_run, queued_since, rule, runnable_sibling,
    seems_to_spin, whole,
)

MINE = {"reads": "-", "actuator": "pull", "source": "mine"}


@rule("my-longest-waiting", **MINE)
def longest_waiting(see, asker):
    """The longest queued."""
    best = asker
    for v in candidates(see):
        if best == asker or see.vcpu[v].queued_since < see.vcpu[best].queued_since:
            best = v
    return best


@rule("my-random", **MINE)
def random(see, asker):
    """Any."""
    count = 0
    for p in range(see.pcpus):
        for i in range(see.pcpu[p].queued):
            if may_run(see, see.queue[p, i]):
                count += 1
    chosen = draw(see) * count >> 32
    for v in candidates(see):
        if chosen == 0:
            return v
        chosen -= 1
    return asker


@rule("my-kvm", memory={"vm": ("boosted",), "vcpu": ("toggle", "dispatch")}, **MINE)
def kvm(see, asker, memory):
    """The order of KVM; `boosted` is a place counted from 1."""
    vm = see.vcpu[asker].vm
    first, last = see.vm[vm].first, see.vm[vm].first + see.vm[vm].vcpus
    memory.vcpu[asker].toggle = 0
    for turn in range(2):
        for v in range(first, last):
            later = v - first >= memory.vm[vm].boosted
            if later == (turn == 1) or v == asker or not may_run(see, v):
                continue
            why = see.vcpu[v].left_by
            if why in (PREEMPTED, PLE_YIELD) and not see.vcpu[v].left_kernel:
                continue
            if why == PLE_YIELD:
                own = memory.vcpu[v]
                own.toggle = 0 if own.toggle and own.dispatch == see.vcpu[v].dispatches else 1
                own.dispatch = see.vcpu[v].dispatches
                if own.toggle:
                    continue
            memory.vm[vm].boosted = v - first + 1
            return v
    return asker


@helper
def first_exit(see, v):
    return see.vcpu[v].first_ple


@helper
def older(see, v):
    return runnable_sibling(see, v) and seems_to_spin(see, v) and first_exit(see, v) < first_exit(see, see.asker)


@helper
def holds(see, v):
    return runnable_sibling(see, v) and not seems_to_spin(see, v) and see.vcpu[v].left_kernel == 1


@rule("my-two-patience", patience=whole(0, 10_000, default=64, help="exits"), **MINE)
def two_patience(see, asker, k):
    """Two."""
    spinner, holder = earliest(see, older, first_exit), earliest(see, holds, queued_since)
    if spinner >= 0:
        return spinner
    return holder if holder >= 0 and see.vcpu[asker].ples >= k.patience else asker
'''

#: Of a rule in C, the same.
COPIES_IN_C = """
#include "ple_gym.h"

static int can_run(const struct ple_sight *see, int64_t v) {
    return see->vcpu[v].state == PLE_QUEUED && (see->actuator != PLE_LOCAL || see->vcpu[v].pcpu == see->here);
}

int64_t longest_waiting(const struct ple_sight *see) {
    int64_t best = see->asker, least = INT64_MAX;
    for (int64_t v = 0; v < see->vcpus; v++)
        if (can_run(see, v) && see->vcpu[v].queued_since < least) {
            best = v;
            least = see->vcpu[v].queued_since;
        }
    return best;
}

const int64_t kvm_vm_words = 1, kvm_vcpu_words = 2;

int64_t kvm(const struct ple_sight *see) {
    int64_t m = see->vcpu[see->asker].vm, first = see->vm[m].first, n = see->vm[m].vcpus, start = see->vm_memory[m];
    see->vcpu_memory[2 * see->asker] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = first + (start + i) % n, *own = &see->vcpu_memory[2 * v];
        const struct ple_vcpu *one = &see->vcpu[v];
        int spun = one->left_by == PLE_YIELD;
        if (v == see->asker || !can_run(see, v)) continue;
        if ((one->left_by == PLE_PREEMPTED || spun) && !one->left_kernel) continue;
        if (spun) {
            int eligible = own[0] == 1 && own[1] == one->dispatches;
            own[0] = !eligible;
            own[1] = one->dispatches;
            if (!eligible) continue;
        }
        see->vm_memory[m] = (start + i) % n + 1;
        return v;
    }
    return see->asker;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the copies in it, in Python and, where there is a compiler, in C."""
    path = tmp_path_factory.mktemp("rules")
    for name in ("mine.py", "my_rules.py"):  # the second to be imported: mine.so would come before mine.py
        (path / name).write_text(COPIES)
    if shutil.which("gcc"):
        (path / "ple_gym.h").write_text(c_header())
        compile_c(path, "mine", COPIES_IN_C)
    return path


def compile_c(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.c").write_text(source)
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)


@pytest.fixture(scope="module")
def copies(folder: Path) -> dict[str, str]:
    """Built-in rule -> its copy in Python."""
    names = {"longest-waiting": "longest_waiting", "random": "random", "kvm": "kvm", "two-patience": "two_patience"}
    found = {name: f"{folder}/mine.py:{copy}" for name, copy in names.items()}
    return {**found, "two-patience:patience=16": f"{folder}/mine.py:two_patience:patience=16"}


@pytest.mark.kernel
@settings(max_examples=50 if JIT_ENABLED else 3)
@given(contended_scenarios(), seeds)
def test_a_user_s_rule_does_what_the_built_in_rule_does(copies: dict[str, str], scenario: Scenario, seed: int) -> None:
    for name, copy in copies.items():
        assert totals(scenario, copy, seed) == totals(scenario, name, seed), name


@compiled
@needs_gcc
@settings(max_examples=50)
@given(contended_scenarios(), seeds)
def test_a_rule_in_c_does_what_the_built_in_rule_does(folder: Path, scenario: Scenario, seed: int) -> None:
    for name, copy in (("longest-waiting", "longest_waiting"), ("kvm", "kvm")):
        assert totals(scenario, f"{folder}/mine.so:{copy}", seed) == totals(scenario, name, seed), name


def test_the_copies_do_something_and_their_parameter_matters(copies: dict[str, str]) -> None:
    exits = {copy: totals(load("Storm"), copy)["exits"] for copy in copies.values()}
    assert len(set(exits.values())) == len(copies), exits


@compiled
@needs_gcc
def test_a_pointer_to_a_c_function_is_a_rule(folder: Path) -> None:
    import ctypes

    library = ctypes.CDLL(str(folder / "mine.so"))
    address = ctypes.cast(library.longest_waiting, ctypes.c_void_p).value
    expected = compare("Tiny", ["longest-waiting"], 3).runs["longest-waiting"]
    for function in (library.longest_waiting, address):
        assert compare("Tiny", [c_rule("mine", function)], 3).runs["mine"] == expected


@compiled
@needs_gcc
def test_a_function_that_cffi_has_loaded_is_a_rule(folder: Path) -> None:
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    rules = {"longest-waiting": ("longest_waiting", Memory()), "kvm": ("kvm", Memory(per_vm=1, per_vcpu=2))}
    ffi.cdef("struct ple_sight;" + "".join(f"int64_t {name}(const struct ple_sight *);" for name, _ in rules.values()))
    library = ffi.dlopen(str(folder / "mine.so"))
    for rule, (name, memory) in rules.items():
        mine = c_rule("mine", ffi.addressof(library, name), memory)
        table = compare("Storm", [rule, mine, "host"], 3).runs
        assert table["mine"] == table[rule] != table["host"]


# --- names with parameters, everywhere a policy is named --------------------------------------------------------------


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the copies, as the working folder."""
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("brought", ["./mine.py:kvm", "mine.py:kvm", "my_rules:kvm", "rule", "pair"])
def test_compare_takes_a_user_s_rule(here: Path, brought: str) -> None:
    loaded = load_compiled("./mine.py:kvm")
    handed = {"rule": ple_gym.rules.Rule, "pair": tuple}
    policy: Any = brought
    if brought in handed:
        policy = load_own(here).kvm if brought == "rule" else ("pair", load_own(here).kvm)
    name = {"rule": "my-kvm", "pair": "pair"}.get(brought, brought)
    comparison = compare("Storm", ["kvm", policy], range(3), SHORT)
    assert list(comparison.runs) == ["kvm", name]
    assert comparison.runs[name] == comparison.runs["kvm"] == simulate("Storm", policy, range(3), SHORT)
    assert isinstance(loaded, Rule)


def load_own(folder: Path) -> Any:
    from ple_gym.objects import _from_file

    return _from_file(folder / "mine.py")


def test_each_value_is_a_row(here: Path) -> None:
    names = ["two-patience", "two-patience:patience=16", "./mine.py:two_patience:patience=16", "./mine.py:two_patience"]
    runs = compare("Storm", names, range(3), SHORT).runs
    assert runs[names[0]] == runs[names[3]] != runs[names[1]] == runs[names[2]]
    made = load_own(here).two_patience.with_values({"patience": 16})
    assert compare("Storm", [made], range(3), SHORT).runs == {"my-two-patience:patience=16": runs[names[1]]}
    assert RULES["two-patience"].with_values({"patience": 64}).name == "two-patience"  # the default


def test_names_with_parameters_on_the_command_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = ["kvm", "two-patience:patience=16", "./mine.py:two_patience:patience=16"]
    names += ["mine.so:kvm", "./mine.so:kvm"] if shutil.which("gcc") and JIT_ENABLED else []
    common = ["--seeds", "0:2"]
    assert cli.main(["compare", "Tiny", "--policies", *names, *common, "--json", "all.json"]) == 0
    document = json.loads(Path("all.json").read_text())
    assert [row["policy"] for row in document["policies"]] == names
    assert cli.main(["simulate", "Tiny", "--policy", names[2], *common, "--json", "one.json"]) == 0
    assert json.loads(Path("one.json").read_text())["policy"] == names[2]
    assert cli.main(["table", "--scenarios", "Tiny", "--policies", *names, *common]) == 0
    printed = capsys.readouterr().out
    assert all(printed.count(name) >= 1 for name in names)


def test_a_recording_takes_names_with_parameters(here: Path) -> None:
    same = [record(load("Tiny"), name, 1) for name in ("two-patience:patience=3", "./mine.py:two_patience:patience=3")]
    other = record(load("Tiny"), "two-patience:patience=200", 1)
    assert np.array_equal(*same) and not np.array_equal(same[0], other)


def test_a_timeline_takes_names_with_parameters(here: Path) -> None:
    pytest.importorskip("matplotlib")
    argv = ["compare", "Tiny", "--policies", "host", "./mine.py:two_patience:patience=3", "--seeds", "0:1"]
    assert cli.main([*argv, "--timeline", "drawn.png"]) == 0
    assert Path("drawn.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("two-patience:patience=x", "two-patience: patience = 'x': must be a whole number, 0..10000"),
        ("two-patience:patience=10001", "two-patience: patience = 10001: must be 0..10000"),
        ("two-patience:patience=1.5", "two-patience: patience = '1.5': must be a whole number, 0..10000"),
        ("two-patience:patence=1", "unknown parameter of two-patience 'patence'; did you mean 'patience'?"),
        ("two-patience:patience", "policy two-patience:patience: after the rule's name must stand NAME=VALUE,..."),
        ("two-patience:", "policy two-patience:: after the rule's name must stand NAME=VALUE,..."),
        ("two-patience:patience=1,patience=2", "policy two-patience:patience=1,patience=2: patience is set twice"),
        ("kvm:patience=1", "kvm: patience: it has no parameters"),
        ("./mine.py:kvm:patience=1", "my-kvm: patience: it has no parameters"),
        ("./mine.py:two_patience:", "policy ./mine.py:two_patience:: after the rule's name must stand NAME=VALUE,..."),
        ("./mine.py:MINE:x=1", "policy ./mine.py:MINE:x=1: only a rule has parameters"),
        ("two-patence:patience=1", "unknown policy 'two-patence:patience=1'; "),
    ],
)
def test_a_wrong_parameter_is_told_as_one_of_a_scenario(here: Path, name: str, told: str) -> None:
    for ask in (load_compiled, lambda name: compare("Tiny", name, 1), lambda name: simulate("Tiny", name, 1)):
        with pytest.raises(PolicyError, match=re.escape(told)):
            ask(name)


# --- what is hidden ---------------------------------------------------------------------------------------------------


def all_seeing() -> str:
    """A rule that hashes whatever it can see, and answers by that."""
    lines = [f"    see.{name}" for name in NUMBERS]
    rows = {"pcpu": "see.pcpus", "vcpu": "see.vcpus", "vm": "see.vms"}
    parts = ["    h = np.uint64(7)"]
    parts += [f"    h = mixed(h, np.uint64(see.{name}))" for name in NUMBERS]
    for table, count in rows.items():
        parts.append(f"    for i in range({count}):")
        parts += [f"        h = mixed(h, np.uint64(see.{table}[i].{name}))" for name in visible_fields(TABLES[table])]
    for table, count in (("vm", "see.vms"), ("pcpu", "see.pcpus"), ("vcpu", "see.vcpus")):
        dtype = load_host(table)
        parts.append(f"    for i in range({count}):")
        parts += [f"        h = mixed(h, np.uint64(scheduler.{table}[i].{name}))" for name in visible_fields(dtype)]
    parts.append("    for p in range(see.pcpus):\n        for i in range(see.pcpu[p].queued):")
    parts.append("            h = mixed(h, np.uint64(see.queue[p, i]))")
    assert len(lines) == len(NUMBERS) > 10
    return "\n".join(
        [
            "import numpy as np",
            "from ple_gym.rules import helper, may_run, rule",
            "@helper",
            "def mixed(h, word):",
            "    return (h ^ word) * np.uint64(0x9E3779B97F4A7C15) + (h >> np.uint64(29))",
            '@rule("all-seeing", reads="-", actuator="pull", source="-", scheduler="credit")',
            "def see_all(see, asker, scheduler):",
            '    """Everything."""',
            *parts,
            "    first = np.int64(h >> np.uint64(33)) % see.vcpus",
            "    for i in range(see.vcpus):",
            "        v = (first + i) % see.vcpus",
            "        if may_run(see, v):",
            "            return v",
            "    return asker if h & np.uint64(1) == np.uint64(0) else see.defer",
        ]
    )


def load_host(table: str) -> np.dtype[Any]:
    from ple_gym.sim.seam import host_of

    return getattr(host_of("credit"), table.upper())


@pytest.fixture(scope="module")
def all_seer(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("seer") / "seer.py"
    path.write_text(all_seeing())
    return f"{path}:see_all"


@compiled
@settings(max_examples=100)
@given(decisions, seeds)
def test_a_rule_that_reads_everything_cannot_tell_what_a_guest_hides(all_seer: str, m: Machine, seed: int) -> None:
    other = with_another_secret(m, seed)
    assert int(m.lanes.ask(all_seer)[0]) == int(other.ask(all_seer)[0])


@compiled
@settings(max_examples=20)
@given(decisions)
def test_and_it_does_react_to_what_it_sees(all_seer: str, m: Machine) -> None:
    """Else it would prove nothing: among sixteen values of something visible it answers in more than one way."""
    if len(m.candidates()) < 3 or m.scenario.actuator == "yield":  # then whomever it names, it yields
        return
    answers = set()
    for ples in range(16):
        m.vcpu["last_run"][0] = ples
        answers.add(int(m.lanes.ask(all_seer)[0]))
    assert len(answers) > 1


def written(folder: Path, body: str, takes: str = "see, asker", extra: str = "", decorator: str = "") -> str:
    """A file with a rule of these lines, whose first has number 10; its name for commands."""
    text = "from ple_gym.rules import *\n" + extra
    text += "\n" * (6 - text.count("\n"))
    decorator = decorator or '@rule("mine", reads="-", actuator="pull", source="-")'
    text += f'{decorator}\ndef mine({takes}):\n    """Mine."""\n{textwrap.indent(textwrap.dedent(body), "    ")}\n'
    (folder / "own.py").write_text(text)
    stamp = time.time_ns()
    os.utime(folder / "own.py", ns=(stamp, stamp))
    return f"{folder}/own.py:mine"


HIDDEN = ["guest", "row", "description", "mask", "observation", "lock", "world", "clock", "host_vcpu", "parameters",
          "vcpu_memory", "program", "histogram", "addresses"]  # fmt: skip


@compiled
@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_else_of_the_sight_can_be_named(tmp_path: Path, name: str) -> None:
    own = written(tmp_path, f"return see.{name}\n")
    with pytest.raises(PolicyError, match=rf"^own\.py:10: rule mine does not compile: .*'{name}'"):
        compare("Tiny", own, 1)


@compiled
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return see.vcpu[0].phase", "phase"),
        ("return see.vcpu[0].lock", "lock"),
        ("return see.vcpu[0].look", "look"),  # two fields once more
        ("return see.pcpu[0].event_at", "event_at"),
        ("return see.vm[0].holder", "holder"),
        ("see.vcpu[0].ples = 3\nreturn asker", "cannot be changed"),
        ("see.now = 3\nreturn asker", "now: what a rule sees cannot be changed"),
        ("see.now += 3\nreturn asker", "now: what a rule sees cannot be changed"),
        ("see.queue[0, 0] = 3\nreturn asker", "there is no"),
        ("see.vcpu[0] = 3\nreturn asker", "there is no"),
    ],
)
def test_nothing_else_of_a_record_can_be_named_and_nothing_be_written(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(PolicyError, match=rf"^own\.py:10: rule mine does not compile: .*{told}"):
        compare("Tiny", written(tmp_path, body), 1)


@compiled
@pytest.mark.parametrize("index", ["-1", "see.vcpus", "1 << 62", "-(1 << 62)"])
@pytest.mark.parametrize("row", ["see.vcpu[{}].ples", "see.queue[{}, 0]", "see.queue[0, {}]", "memory.vcpu[{}].word"])
def test_an_index_out_of_range_ends_in_a_line(tmp_path: Path, index: str, row: str) -> None:
    body = "i = asker - asker + " + index + "\nreturn 0 * " + row.format("i") + " + asker"
    decorator = '@rule("mine", reads="-", actuator="pull", source="-", memory={"vcpu": ("word",)})'
    own = written(tmp_path, body, "see, asker, memory", decorator=decorator)
    with pytest.raises(
        RuleFault, match=r"^own\.py:11: rule .*own\.py:mine: IndexError: a rule's index .* out of range"
    ):
        compare("Tiny", own, 1)


# --- faults -----------------------------------------------------------------------------------------------------------

RULE = '@rule("mine", reads="-", actuator="pull", source="-"{})'
#: What is wrong: the file's lines (a rule's body if it has none), and what must be told.
WRONG_FILES = {
    "syntax": ("def mine(see:\n", r"SyntaxError: .*own\.py, line 1"),
    "raises": ("x = 1\nraise OSError('no disk')\n", r"OSError: no disk .*own\.py, line 2"),
    "divides": ("x = 1\n\nx // 0\n", r"ZeroDivisionError: .*own\.py, line 3"),
    "import": ("import nothing_like_this\n", r"No module named 'nothing_like_this' .*own\.py, line 1"),
    "exits": ("import sys\nsys.exit(3)\n", r"own\.py: was not loaded: it called sys\.exit"),
    "no name": ("x = 1\n", r"own\.py: has no mine"),
    "no rule": ("mine = 3\n", r"own\.py:.*: 3 is neither a rule nor an object with predict"),
    "a plain function": ("def mine(see, asker):\n    return asker\n", r"own\.py:.*: calling it without arguments"),
    "empty": ("", r"own\.py: has no mine"),
    "bytes": ("mine = '\x00'\n", r"own\.py"),
}


def fails(own: str, told: str, capfd: pytest.CaptureFixture[str], scenario: str = "Tiny") -> None:
    """A fault is one line, in Python and from the command line; afterwards all is well."""
    with pytest.raises((PolicyError, RuleFault)) as caught:
        compare(scenario, ["kvm", own], range(4), threads=3)
    message = str(caught.value)
    assert re.search(told, message) and "\n" not in message and len(message) < 500, message
    capfd.readouterr()
    argv = ["compare", scenario, "--policies", "kvm", own, "--seeds", "0:4", "--threads", "3"]
    assert cli.main(argv) == 2
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.strip()]
    assert not out and len(lines) == 1 and lines[0].startswith("ple-gym: error: "), (out, err)
    assert re.search(told, lines[0]), lines[0]
    assert simulate("Tiny", "kvm", 1)[0]["finished"]


@pytest.mark.parametrize("what", WRONG_FILES)
def test_a_file_that_cannot_be_loaded(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    source, told = WRONG_FILES[what]
    (tmp_path / "own.py").write_text(source)
    fails(f"{tmp_path}/own.py:mine", told, capfd)


@pytest.mark.parametrize(
    ("name", "told"),
    [("own.py:mine", r"own\.py: No such file"), ("own.so:mine", r"own\.so: .*(cannot be loaded|No such file)")],
)
def test_a_file_that_is_not_there(tmp_path: Path, name: str, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    fails(f"{tmp_path}/{name}", told, capfd)


@compiled
@needs_gcc
def test_a_library_that_is_none_or_has_no_such_function(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.so").write_bytes(b"\x7fELF no")
    fails(f"{tmp_path}/own.so:mine", r"own\.so: it cannot be loaded: ", capfd)
    fails(f"{folder}/mine.so:nothing", r"mine\.so: it has no function nothing", capfd)


MINE = '"mine", reads="-", actuator="pull", source="-"'
DECORATORS = {
    "name": ('"My Rule", reads="-", actuator="pull", source="-"', r"rule 'My Rule': its name must be"),
    "actuator": ('"mine", reads="-", actuator="push", source="-"', r"actuator = 'push': must be yield, resume"),
    "missing": ('"mine", reads="-", actuator="pull"', r"TypeError: .*source.*own\.py, line 7"),
    "scheduler": ('"mine", reads="-", actuator="pull", source="-", scheduler="cfs"', r"scheduler = 'cfs': must be cre"),
    "parameter": ('"mine", reads="-", actuator="pull", source="-", patience=64', r"patience must be made by whole\(\)"),
    "default": (
        '"mine", reads="-", actuator="pull", source="-", patience=whole(0, 9, default=10, help="")',
        r"default of patience = 10: must be 0\.\.9",
    ),
    "memory": (MINE + ', memory={"cpu": ("x",)}', r'memory must be a dict of "vm"'),
    "words": (MINE + ', memory={"vm": "next"}', r"of vm it must be a tuple of"),
    "hidden": (MINE + ', exits=whole(0, 9, default=1, help="")', "parameter exits: must have another name: look"),
    "hidden word": (MINE + ', memory={"vm": ("x", "look")}', "mine: memory: look: must have another name: "),
    "twice": (MINE + ', memory={"vm": ("x", "x")}', r"a tuple of different names"),
}  # fmt: skip


@pytest.mark.parametrize("what", DECORATORS)
def test_a_decorator_with_a_wrong_argument(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, told = DECORATORS[what]
    fails(written(tmp_path, "return asker", decorator=f"@rule({arguments})"), told, capfd)


@pytest.mark.parametrize("takes", ["see", "asker, see", "see, asker, other", "see, asker, lane", ""])
def test_a_function_with_wrong_arguments(tmp_path: Path, takes: str, capfd: pytest.CaptureFixture[str]) -> None:
    fails(
        written(tmp_path, "return asker", takes), r"own\.py:7: rule mine: its function must take \(see, asker\)", capfd
    )


def test_a_rule_without_a_docstring(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(
        f"from ple_gym.rules import rule\n{RULE.format('')}\ndef mine(see, asker):\n    return 1\n"
    )
    fails(f"{tmp_path}/own.py:mine", r"own\.py:2: rule mine: its function must have a docstring", capfd)


#: Bodies that do not compile; the first line has number 10.
DO_NOT_COMPILE = {
    "nothing": ("x = asker", r"own\.py:7: rule mine must return a vCPU or see\.defer, and returns nothing"),
    "sometimes nothing": (
        "if asker > 99999:\n    return asker",
        r"own\.py:7: rule mine must return a vCPU or see\.defer, and returns nothing",
    ),
    "text": ("x = 1\nreturn asker + 'x'", r"own\.py:11: rule mine does not compile: "),
    "answers text": ("return 'x'", r"own\.py:7: rule mine must return a vCPU or see\.defer, and returns Literal"),
    "unsure": ("y = []\nreturn y[0]", r"own\.py:10: rule mine does not compile: Cannot infer the type of variable"),
    "unknown": (
        "x = 1\nx = 2\nreturn nothing_like_this",
        r"own\.py:12: rule mine does not compile: .*nothing_like_this",
    ),
    "typo": ("return see.askr", r"own\.py:10: rule mine does not compile: .*askr"),
    "itself": ("return mine(see, asker)", r"own\.py:\d+: rule mine .*mine"),
}


@compiled
@pytest.mark.parametrize("what", DO_NOT_COMPILE)
def test_a_rule_that_does_not_compile(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    body, told = DO_NOT_COMPILE[what]
    fails(written(tmp_path, body), told, capfd)


HELPERS = """
@helper
def down(see, n):
    return 0 if n < 0 else {}(see, n + 1)
"""


@compiled
@pytest.mark.parametrize("other", ["down", "up"])
def test_endless_recursion(tmp_path: Path, other: str, capfd: pytest.CaptureFixture[str]) -> None:
    extra = HELPERS.format(other)
    if other == "up":
        extra += "@helper\ndef up(see, n):\n    return down(see, n)\n"
    own = written(tmp_path, "return down(see, asker)", extra=extra)
    fails(own, r"own\.py:3: down calls itself, which nothing that a rule calls may do", capfd)


#: Bodies that fail when they are asked.
FAIL = {
    "too low": ("return -1", r"own\.py:7\): -1 is not legal: .*the asker \(here \d+\), or to defer \(\d+\)"),
    "far too low": ("return -(1 << 63)", r"own\.py:7\): -9223372036854775808 is not legal"),
    "too high": ("return see.defer + 1", r"own\.py:7\): \d+ is not legal"),
    "far too high": ("return 1 << 40", r"own\.py:7\): 1099511627776 is not legal"),
    "running": (
        "for p in range(see.pcpus):\n    if p != see.here and see.pcpu[p].current >= 0:\n"
        "        return see.pcpu[p].current\nreturn asker",
        r"own\.py:7\): \d+ is not legal: an answer must be a queued vCPU",
    ),
    "late": ("return asker if see.exits < 9 else -5", r"own\.py:7\): -5 is not legal"),
    "divides": ("x = 1\nreturn x // (asker - asker)", r"own\.py:11: rule .*own\.py:mine: ZeroDivisionError"),
    "remainder": ("return asker % (asker - asker)", r"own\.py:10: rule .*own\.py:mine: ZeroDivisionError"),
    "raises": ("if see.exits > 2:\n    raise ValueError('mine')\nreturn asker", r"own\.py:11: .*ValueError: mine"),
    "asserts": ("assert see.exits < 3\nreturn asker", r"own\.py:10: rule .*AssertionError"),
}


@pytest.mark.parametrize("what", FAIL)
def test_a_rule_that_fails_when_it_is_asked(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    body, told = FAIL[what]
    fails(written(tmp_path, body), told, capfd, "TicketOrder")


def test_an_answer_beyond_the_actuator_s_reach(tmp_path: Path) -> None:
    body = "for v in range(see.vcpus):\n    if see.vcpu[v].state == QUEUED and see.vcpu[v].pcpu != see.here:\n"
    own = written(tmp_path, body + "        return v\nreturn asker")
    assert simulate("Storm", own, 1, SHORT)
    with pytest.raises(
        RuleFault, match=r"own\.py:7\): \d+ is not legal: an answer must be a queued vCPU that the actua"
    ):
        simulate("Storm", own, 1, {**SHORT, "decision.actuator": "local"})


@pytest.mark.parametrize("body", ["return see.vcpu[n].ples", "return 3 // (n - n)"])
def test_a_helper_that_fails_is_the_place(tmp_path: Path, body: str) -> None:
    own = written(tmp_path, "return asker + wrong(see, see.defer)", extra=f"@helper\ndef wrong(see, n):\n    {body}\n")
    with pytest.raises(RuleFault, match=r"^own\.py:4: rule .*: (IndexError|ZeroDivisionError)"):
        simulate("Tiny", own, range(4), threads=2)


@contextlib.contextmanager
def little_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files must load at once; what runs on for ever is stopped at the end."""
    os.environ.pop("STOP_LOADING", None)
    monkeypatch.setattr(files, "PATIENCE_S", 0.3)
    try:
        yield
    finally:
        os.environ["STOP_LOADING"] = "now"


def test_a_file_that_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "import os, time\nwhile 'STOP_LOADING' not in os.environ:\n    time.sleep(0.01)\nmine = 3\n"
    (tmp_path / "own.py").write_text(source)
    monkeypatch.setenv("STOP_LOADING", "")
    with little_patience(monkeypatch):
        fails(f"{tmp_path}/own.py:mine", r"own\.py: was not loaded within 0\.3 s", capfd)


def test_an_edited_file_is_run_again(tmp_path: Path) -> None:
    first = totals(load("Tiny"), written(tmp_path, "return asker"))
    second = totals(load("Tiny"), written(tmp_path, "return see.defer"))
    assert first == totals(load("Tiny"), "continue") != totals(load("Tiny"), "host") == second


# --- asking -----------------------------------------------------------------------------------------------------------

#: Who can be asked under credit: of the learned those that read nothing of another scheduler.
LEARNED = [name for name in learned_names() if load_compiled(name).network.scheduler in ("", "credit")]
EVERYBODY = [*ON_CREDIT, *LEARNED]


@pytest.mark.parametrize("name", [name for name in EVERYBODY if not name.startswith("xen")])
@settings(max_examples=10)
@given(contended_scenarios(), seeds)
def test_what_is_asked_is_what_is_done(name: str, scenario: Scenario, seed: int) -> None:
    """A lane that has the rule is asked before each decision; then the answer is taken. It is the run of the rule."""
    m, whole = Machine(scenario, seed, policy=name), Machine(scenario, seed, policy=name)
    whole.world["index"] = MAX_REPLACEMENTS
    whole.lanes.drive(0, 1, RESET, decides=True)
    done = 0
    while m.deciding and done < 300:
        answer = int(m.lanes.ask(name)[0])
        m.lanes.action[0] = answer
        remembered = asked_and_remembered(m, name)
        m.lanes.section("memory")[:] = remembered
        m.lanes.action[0] = answer
        m.lanes.drive(0, 1, STEP)
        done += 1
    if not m.deciding:
        assert m.lanes.totals(0) == whole.lanes.totals(0)


def asked_and_remembered(m: Machine, name: str) -> np.ndarray:
    """What the rule remembers after it was asked here."""
    m.consult(name)
    return m.askers[name].section("memory").copy()


def everything(lanes: Lanes) -> list[bytes]:
    """Every byte that a lane's future depends on, or that a caller reads."""
    arrays = (lanes.rows, lanes.histogram, lanes.mask, lanes.observation, lanes.result)
    return [array.tobytes() for array in arrays]


@settings(max_examples=20)
@given(decisions)
def test_asking_changes_nothing(m: Machine) -> None:
    before = everything(m.lanes)
    for name in ON_CREDIT:
        assert m.lanes.ask(name).tolist() == m.lanes.ask(name).tolist()
        assert everything(m.lanes) == before, name


def test_an_environment_can_be_asked() -> None:
    env = PleEnv(load("Storm"))
    with pytest.raises(RuntimeError, match="no decision is due: call reset"):
        env.ask("kvm")
    env.reset(seed=3)
    for _ in range(30):
        before, draws = everything(env.lanes), env.np_random.bit_generator.state
        answers = {name: env.ask(name) for name in EVERYBODY}
        assert (everything(env.lanes), env.np_random.bit_generator.state) == (before, draws)
        masks = env.action_masks()
        assert all(masks[action] for action in answers.values())
        env.step(answers["spin-age-self"])
    with pytest.raises(PolicyError, match="unknown policy 'kwm'; did you mean 'kvm'"):
        env.ask("kwm")
    assert everything(env.lanes) != before


def test_after_the_end_nothing_can_be_asked() -> None:
    env = PleEnv(load("Tiny"))
    env.reset(seed=1)
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(env.ask("longest-waiting"))
        done = terminated or truncated
    with pytest.raises(RuntimeError, match="no decision is due"):
        env.ask("kvm")


def test_a_vector_environment_can_be_asked() -> None:
    envs = PleVectorEnv(5, load("Tiny"))
    envs.reset(seed=7)
    alone = [PleEnv(load("Tiny")) for _ in range(5)]
    for env, seed in zip(alone, range(7, 12), strict=True):
        env.reset(seed=seed)
    over = np.zeros(5, bool)
    for _ in range(2000):
        before = everything(envs.lanes)
        actions = envs.ask("longest-waiting")
        assert everything(envs.lanes) == before
        due = envs.lanes.world["status"] == DECIDE
        assert ((actions >= 0) == due).all()
        assert actions.dtype == np.int64
        for i, env in enumerate(alone):
            if not over[i]:
                assert env.ask("longest-waiting") == actions[i]
                over[i] = any(env.step(int(actions[i]))[2:4])
        envs.step(np.where(due, actions, 0))
        if over.all():
            break
    assert over.all()


def test_a_lane_with_memory_is_asked_with_it() -> None:
    """`round-robin` goes on where its own lane left off; any other rule begins anew."""
    m = Machine(load("TicketOrder"), policy="round-robin")
    m.lanes.section("memory")[:] = 3
    assert m.lanes.ask("round-robin").tolist() != Machine(load("TicketOrder")).lanes.ask("round-robin").tolist()
    assert (m.lanes.section("memory") == 3).all()


def test_whoever_is_asked_in_turn_keeps_its_lanes_and_of_others_few_are_kept() -> None:
    lanes, *those = Machine(load("Tiny")).lanes, *ON_CREDIT[:MOST_ASKED]
    answers = [lanes.ask(name).tolist() for name in those]
    asked = dict(lanes._asked)
    assert [lanes.ask(name).tolist() for name in those] == answers and lanes._asked == asked
    for name in ON_CREDIT:
        lanes.ask(name)
    assert len(ON_CREDIT) > MOST_ASKED == len(lanes._asked)


# --- the header -------------------------------------------------------------------------------------------------------


@needs_gcc
def test_the_header_is_clean_c_and_has_the_layout_of_the_records(tmp_path: Path) -> None:
    (tmp_path / "ple_gym.h").write_text(c_header())
    records = {**TABLES, "credit_vcpu": CREDIT_VCPU}
    checks = [
        f'printf("{name}.{field} %zu %zu\\n", offsetof(struct ple_{name}, {field}), '
        f"sizeof(((struct ple_{name} *)0)->{field}));"
        for name, dtype in records.items()
        for field in visible_fields(dtype)
    ]
    checks += [f'printf("{name} %zu\\n", sizeof(struct ple_{name}));' for name in [*records, "sight"]]
    shown = [fact.name for fact in FACTS if fact.name in c_header().split("struct ple_sight {")[1].split("reserved")[0]]
    checks += [f'printf("sight.{name} %zu\\n", offsetof(struct ple_sight, {name}));' for name in shown]
    body = "\n    ".join(checks)
    (tmp_path / "check.c").write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "ple_gym.h"\n'
        f"int main(void) {{\n    {body}\n    return 0;\n}}\n"
    )
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wpadded", "-Werror"]
    subprocess.run(["gcc", "-std=c11", *warnings, "-o", "check", "check.c"], cwd=tmp_path, check=True, timeout=60)
    printed = subprocess.run([tmp_path / "check"], capture_output=True, text=True, check=True, timeout=60).stdout
    measured = dict(line.split(" ", 1) for line in printed.splitlines())
    expected = {name: str(dtype.itemsize) for name, dtype in records.items()} | {"sight": str(SIGHT.itemsize)}
    for name, dtype in records.items():
        for field in visible_fields(dtype):
            kind, offset = (dtype.fields or {})[field][:2]
            expected[f"{name}.{field}"] = f"{offset} {kind.itemsize}"
    expected |= {f"sight.{name}": str((SIGHT.fields or {})[name][1]) for name in shown}
    assert measured == expected
    assert set(NUMBERS) | set(TABLES) | {"queue", "vm_memory", "vcpu_memory", "host_vcpu"} <= set(shown)


@needs_gcc
def test_the_header_names_nothing_hidden() -> None:
    hidden = ("look", "phase", "lock", "holder", "waiter", "try_at", "event_at", "guest_at", "noise_at", "description;")
    declared = re.findall(
        r"^    \S+ \*?(\w+)[;\[]", c_header().replace("const ", "").replace("struct ", ""), re.MULTILINE
    )
    assert len(declared) > 50 and not set(hidden) & set(declared)


def test_the_command_prints_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["header"]) == 0
    assert capsys.readouterr().out == c_header()


# --- built-in rules ---------------------------------------------------------------------------------------------------


def test_every_rule_of_every_family_is_built_in_and_says_what_it_is() -> None:
    decorated = []
    for file in sorted({*(ROOT / "ple_gym/rules").glob("*.py")} - {ROOT / "ple_gym/rules/red_team.py"}):
        decorated += re.findall(
            r'^(?:\w+ = settings|@rule|@privileged)\(\s*"([\w.-]+)"', file.read_text(), re.MULTILINE
        )
    assert sorted(decorated) == sorted(RULES) and len(decorated) >= 13
    for name, one in RULES.items():
        assert one.name == name and one.reads and one.source and one.summary and one.actuator
        assert one.hypothetical in (True, False)
        assert all(parameter.help for parameter in one.parameters.values())


def test_a_new_family_is_one_file(tmp_path: Path) -> None:
    """In a copy of the package: the file is all that it takes."""
    shutil.copytree(ROOT / "ple_gym", tmp_path / "ple_gym", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ple_gym/rules/fresh.py").write_text(
        "from ple_gym.rules.registry import rule\n"
        '@rule("fresh", reads="-", actuator="resume", source="-")\n'
        'def fresh(see, asker):\n    """Resume."""\n    return asker\n'
    )
    script = "from ple_gym.rules import RULES; from ple_gym.cli import main; print(*RULES); main(['rules'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, *page = done.stdout.splitlines()
    names = first.split()
    assert sorted(names) == sorted([*RULES, "fresh"]) and names[-1] == "oracle"
    assert names.index("two-patience") < names.index("fresh")
    assert any(line.startswith("| `fresh` | Resume") for line in page)


def test_every_rule_that_is_specified_is_built_in_and_in_the_reference_simulator() -> None:
    """The others are not compared with it."""
    section = (ROOT / "docs/model.md").read_text(encoding="utf-8").split("\n## 11. ")[1].split("\n## ")[0]
    table = section.split("| name | action |")[1].split("\n\n")[0]
    specified = re.findall(r"^\| `([\w.-]+)` \|", table, re.MULTILINE)
    assert sorted(specified) == sorted(SPECIFIED) and set(specified) <= set(RULES) and len(specified) >= 13


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(PolicyError, match="two rules have one name"):
        Registry(RULES["kvm"], RULES["kvm"])


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_page_of_rules_is_what_the_command_prints_and_where_they_win(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rules"]) == 0
    assert capsys.readouterr().out == rules_page(RULES)
    page = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
    assert page == suites.page_of_rules(committed("suite")), "run: python -m experiments results"
    assert all(f"\n| `{name}` | {one.summary} | " in page for name, one in RULES.items())


def test_every_visible_field_has_a_meaning_and_every_helper_a_name() -> None:
    assert {name: list(fields) for name, fields in MEANINGS.items()} == {
        name: visible_fields(dtype) for name, dtype in TABLES.items()
    }
    page = rules_page(RULES)
    own = [name for name, value in vars(helpers).items() if getattr(value, "__module__", "") == helpers.__name__]
    assert len(own) >= 11
    assert all(f"`{name}(" in page and name in ple_gym.rules.__all__ for name in own)
    words = set(
        re.findall(r"\b[A-Z][A-Z_]{3,}\b", " ".join(text for one in MEANINGS.values() for text in one.values()))
    )
    assert words and words <= set(ple_gym.rules.__all__)


PAGE = ROOT / "docs/howto/write-a-rule.md"


@compiled
@needs_gcc
def test_the_page_shows_what_its_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the two files that the page shows; all but the column of wall time is the same."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(page.split("```python\n")[1].split("```")[0])
    (tmp_path / "ple_gym.h").write_text(c_header())
    (tmp_path / "mine.c").write_text(page.split("```c\n")[1].split("```")[0])
    gcc = next(line for line in page.splitlines() if line.startswith("gcc "))
    subprocess.run(shlex.split(gcc), check=True, timeout=60)
    command = next(line for line in page.splitlines() if line.startswith("ple-gym compare "))
    assert cli.main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out
    shown = page.split("```text\n")[1].split("```")[0]
    assert without_times(shown) == without_times(printed[: printed.index("vs host, vs best:")])
    assert len(without_times(shown)) > 15
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace("].left_kernel:", "].left_kernl:"))
    assert cli.main(["simulate", "Storm", "--policy", "./mine.py:patient"]) == 2
    assert capsys.readouterr().err in page


def without_times(tables: str) -> list[list[str]]:
    first, *others = [[line.split() for line in table.splitlines()] for table in tables.strip().split("\n\n")]
    title, heads, _, *rows = first
    assert heads[-2:] == ["wall", "s"]
    return [title, heads, *(row[:-1] for row in rows), *(line for table in others for line in table if len(line) > 1)]
