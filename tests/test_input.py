"""Hostile input, case by case: what once ended in a traceback, took the memory, or was taken for something else."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick import at_most
from test_exported import random_network

from ple_gym import cli
from ple_gym.learned.file import PolicyError, encode, read_card, read_network
from ple_gym.policies import load_compiled
from ple_gym.scenario import Scenario, ScenarioError, Vm
from ple_gym.scenario.builtin import load
from ple_gym.scenario.distributions import MAX_KNOTS, quantile_table
from ple_gym.scenario.model import MAX_BYTES
from ple_gym.sim.description import Memory, describe
from ple_gym.sim.seam import host_of
from ple_gym.view.record import view_of

MAX_S = 2.0  # of CPU time, to refuse a file
MAX_MEMORY = 200 * 2**20


def one_line(error: Exception) -> str:
    """A message, which must be one short printable line."""
    text = str(error)
    assert text.isprintable() and len(text) <= 1000, text[:2000]
    return text


# ------------------------------------------------------------------------ scenarios: kinds A and B of what went wrong


@pytest.mark.parametrize(
    ("read", "text", "why"),
    [
        (Scenario.from_json, "[" * 200_000, "not JSON: nested too deeply"),
        (Scenario.from_toml, "a = " + "[" * 100_000, "not TOML: nested too deeply"),
        (Scenario.from_toml, "guest = " + "{a = " * 900 + "1" + "}" * 900, "not TOML: nested too deeply"),
        (Scenario.from_json, '{"host": {"pcpus": 8}, "host": {"tsc_hz": 1000000000}}', "key 'host' stands there twice"),
        (Scenario.from_toml, "name = 'a'\rdescription = 'b'", "not TOML: "),
        (Scenario.from_json, '{"host": {"pcpus": ' + "1" * 5000 + "}}", "not JSON: "),
        (Scenario.from_toml, "a = " + "1" * 2000, "a word has more than 1000 characters"),
        (Scenario.from_toml, "a" + ".a" * 2000 + " = 1", "a key has too many parts"),
        (Scenario.from_json, " " * (MAX_BYTES + 1), "at most 1,048,576 characters"),
        (Scenario.from_toml, f"name = '{'x y ' * 500}'", "must be at most 1000 characters, not 2000"),
        (Scenario.from_json, '{"\\u001b[2J": 1}', "unknown parameter '\\x1b[2J'"),
        (Scenario.from_json, '{"neighbours": [' + "{}," * 1023 + "{}]}", "neighbours: must be at most 1023, not 1024"),
        (Scenario.from_json, '{"host": {"pcpus": "' + "9" * 5000 + '"}}', "host.pcpus = '9999"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_scenario_s_text_is_refused_in_one_short_line(read: Callable[[str], Scenario], text: str, why: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read(text)
    assert why in one_line(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("neighbours." + "9" * 5000 + ".vcpus", 1),
        ("x" * 10**6, 1),
        ("\x1b[2J\n", 1),
        ("host.pcpus", 10**5000),
        ("host.pcpus", "9" * 10**6),
        ("limit.simulated_s", 10**5000),
        ("limit.simulated_s", "1e999999999"),
        ("guest.hold", "knots " + "x" * 10**7),
        ("guest.hold", "constant " + "1" * 30_000),
        ("guest.hold", "x" * 30_000),
        ("guest.hold", "knots 0:1 " + ".5:2 " * 1001 + "1:3"),
        ("guest.hold", "knots 0:1 \x1b]0;x\x07:2 1:3"),
        ("name", "x" * 10**7),
        ("guest.lock_kind", ["x" * 100] * 1000),
    ],
    ids=itertools.count(),
)
def test_absurd_overrides_are_refused_in_one_short_line(name: str, value: object) -> None:
    with pytest.raises(ScenarioError) as caught:
        load("Storm").with_overrides({name: value})
    one_line(caught.value)


def test_an_unknown_name_in_a_scenario_of_a_thousand_vms_is_answered_at_once() -> None:
    scenario = Scenario(neighbours=(Vm(vcpus=1),) * 1000)
    for name in ("neighbours.999.vcpu", "guest.vcpu", "neighbours.1000.vcpus", "zzz", "neighbour.3.weight"):
        with at_most(1), pytest.raises(ScenarioError) as caught:
            scenario.with_overrides({name: 1})
        one_line(caught.value)
    assert "did you mean 'neighbours.999.vcpus'" in error_of(scenario, "neighbours.999.vcpu")


def error_of(scenario: Scenario, name: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        scenario.with_overrides({name: 1})
    return str(caught.value)


def test_a_long_list_of_known_names_is_cut() -> None:
    with pytest.raises(ScenarioError, match=r"known: name, description, .*, \.\.\. \(\d+ in all\)$") as caught:
        load("Storm").with_overrides({"zzz": 1})
    assert len(str(caught.value)) < 600


def test_a_hundred_vms_with_knots_of_their_own_do_not_take_seconds() -> None:
    def vm(number: int) -> Vm:
        knots = {name: f"knots 0:{number + 1} .25:{place}00 .5:{place}0000 .999:{place + 1}00000 1:10000000"
                 for place, name in enumerate(("compute", "hold", "block"), 3)}  # fmt: skip
        return Vm(vcpus=1, **knots)

    with at_most(3):
        scenario = Scenario.from_toml(Scenario(neighbours=tuple(vm(number) for number in range(100))).to_toml())
        describe(scenario, host_of("credit"), Memory(), view_of(scenario, 0, False, 0))


def test_the_largest_table_of_knots_does_not_take_a_second() -> None:
    inner = " ".join(f"{place / 1000:.3f}:{10**6 + place}" for place in range(1, MAX_KNOTS - 1))
    with at_most(1):
        assert len(quantile_table(f"knots 0:5 {inner} 1:100000000000")) == 505


def scenario_bombs() -> Iterator[tuple[str, bytes]]:
    """Names and contents of files that were slow or large to read."""
    full = MAX_BYTES - 100
    toml = {
        "dotted": "a" + ".a" * (full // 2) + "=1",
        "dotted-with-spaces": "a" + " . a" * (full // 4) + "=1",
        "dotted-and-quoted": '"\\"a"' + '."\\"a"' * (full // 6) + "=1",
        "dotted-some": "".join(f"a{'.a' * 100}{number} = 1\n" for number in range(full // 220)),
        "headers": "".join(f"[a{'.a' * 14}.b{number}]\n" for number in range(full // 42)),
        "integer": "a=" + "1" * full,
        "hexadecimal": "a=0x" + "f" * full,
        "integers": "a=[" + "1," * (full // 2) + "]",
        "arrays": "a=" + "[" * full,
        "inline": "a=" + "{a=" * (full // 3),
        "tables": "\n".join(f"[t{number}]" for number in range(full // 9)),
        "neighbours": "[[neighbours]]\n" * (full // 15),
        "neighbours-inline": "neighbours=[" + "{}," * (full // 3) + "]",
        "text": 'name="' + "xy " * (full // 3) + '"',
        "quotes": '"' * full,
        "dates": "a=[" + "1979-05-27T07:32:00Z," * (full // 21) + "]",
        "knots": 'guest.hold="knots 0:1 ' + " ".join(f".{number:06d}:5" for number in range(1, 90_000)) + ' 1:9"',
        "keys": "\n".join(f"k{number}=1" for number in range(full // 11)),
        "too-large": "#" * (MAX_BYTES + 1),
    }
    documents = {
        "arrays": "[" * full,
        "objects": '{"a":' * (full // 5),
        "lists": "[" + "[]," * (full // 3) + "[]]",
        "neighbours": '{"neighbours":[' + "{}," * (full // 3) + "{}]}",
        "keys": "{" + ",".join(f'"k{number}":1' for number in range(full // 13)) + "}",
        "number": '{"a":' + "1" * full + "}",
        "twice": "{" + ",".join('"k":1' for _ in range(full // 6)) + "}",
        "key": '{"' + "k" * full + '":1}',
    }
    yield from ((f"{name}.toml", text.encode()) for name, text in toml.items())
    yield from ((f"{name}.json", text.encode()) for name, text in documents.items())


def npy(header: bytes, body: bytes = b"") -> bytes:
    """A `.npy` file with a header of one's own."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def header(shape: str, dtype: str = "|u1") -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def policy_bombs() -> Iterator[tuple[str, bytes]]:
    """Names and contents of files of policies that were slow or large to read."""
    zeros = npy(header("(314572800,)"), bytes(300 * 2**20))
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED):
        yield f"zeros-{method}.npz", archive({"vcpu1.npy": zeros}, method)
    for name, content in {
        "shape": npy(header("(75161927680,)")),
        "large-shape": npy(header("(99999999999999999999999,)")),
        "parentheses": npy(b"(" * 9000),
        "minus": npy(b"-" * 9000),
        "header": npy(b" " * 65_535),
        "object": npy(header("(1,)", "|O")),
    }.items():
        yield f"{name}.npz", archive({"card.npy": content})
    for name, card in {
        "lists": b"[" * 200_000,
        "objects": b'{"a":' * 100_000,
        "many": b"[" + b"[]," * 5_000_000 + b"[]]",
    }.items():
        yield f"card-{name}.npz", archive({"card.npy": npy(header(f"({len(card)},)"), card)})
    yield "members.npz", archive({f"{number}.npy": b"" for number in range(20_000)})
    huge = {
        "format": 1,
        "kind": "torch-lstm",
        "information": "oracle",
        "vcpus": 1024,
        "hidden": 1024,
        "temperature": 0,
        "card": {},
    }
    card = json.dumps(huge).encode()
    yield "huge-network.npz", archive({"card.npy": npy(header(f"({len(card)},)"), card)})
    yield "random.npz", np.random.default_rng(0).bytes(2**24 + 1)


#: Reads each file in a process of its own, with the memory that it has and so much more; prints name, seconds, message.
REFUSE = f"""
import os, resource, sys, time
from ple_gym.scenario.builtin import load
from ple_gym.learned.file import read_network
from pathlib import Path
for name in sys.argv[1:]:
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if status:
            print(name, -1, f"status {{status}}", sep="\\t", flush=True)
        continue
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + {MAX_MEMORY},) * 2)
    began = time.process_time()
    try:
        read_network(Path(name)) if name.endswith(".npz") else load(name)
        said = "accepted"
    except ValueError as error:
        said = str(error)
    print(name, time.process_time() - began, said, sep="\\t", flush=True)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bombs", [scenario_bombs, policy_bombs])
def test_no_file_takes_more_than_two_seconds_or_200_megabytes_to_refuse(
    bombs: Callable[[], Iterator[tuple[str, bytes]]], tmp_path: Path
) -> None:
    names = []
    for name, content in bombs():
        (tmp_path / name).write_bytes(content)
        names.append(name)
    if bombs is scenario_bombs:
        with (tmp_path / "sparse.toml").open("wb") as file:
            file.truncate(8 * 2**30)
        os.mkfifo(tmp_path / "pipe.toml")
        (tmp_path / "zero.json").symlink_to("/dev/zero")
        names += ["sparse.toml", "pipe.toml", "zero.json"]
    path = str(Path(__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", REFUSE, *names], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert not run.stderr
    told = [line.split("\t") for line in run.stdout.splitlines()]
    assert [name for name, *_ in told] == names
    for name, seconds, said in told:
        assert said.startswith(name) and len(said) < 1000, (name, said)
        assert "too large for the memory" not in said, (name, said)
        assert 0 <= float(seconds) < MAX_S, (name, seconds)


# ------------------------------------------------------------------------------------------- policies: kinds A, D, G


def test_no_flipped_bit_in_a_policy_s_directory_is_a_traceback_or_another_policy(tmp_path: Path) -> None:
    """NotImplementedError and RuntimeError, 80 of 1,440, they were."""
    network = replace(random_network("linear", 0), card={"learner": "cem"})
    data, path = encode(network), tmp_path / "x.npz"
    start = data.index(b"PK\x01\x02")
    for bit in range(8 * (len(data) - start)):
        flipped = bytearray(data)
        flipped[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = read_network(path)
        except PolicyError as error:
            assert "x.npz: " in one_line(error)
        else:
            assert found.card == network.card
            assert all(np.array_equal(found.weights[name], network.weights[name]) for name in network.weights)


def written(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A policy's file with something else for its head, in a sound archive."""
    network = random_network("linear", 0)
    with zipfile.ZipFile(io.BytesIO(encode(network))) as file:
        members = {name: file.read(name) for name in file.namelist()}
    head = change(json.loads(np.load(io.BytesIO(members["card.npy"])).tobytes()))
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(json.dumps(head).encode(), np.uint8))
    path.write_bytes(archive(members | {"card.npy": buffer.getvalue()}, zipfile.ZIP_STORED))
    return path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"card": 5}, "card: must be a table"),
        ({"card": "x"}, "card: must be a table"),
        ({"card": []}, "card: must be a table"),
        ({"card": None}, "card: must be a table"),
        ({"card": {"steps": "many"}}, "card: steps = 'many': must be a whole number"),
        ({"card": {"steps": True}}, "card: steps = True: must be a whole number"),
        ({"card": {"steps": -1}}, "card: steps = -1: must be"),
        ({"card": {"validation": []}}, "card: validation = []: must be a table"),
        ({"card": {"validation": {"above_ideal_percent": "x"}}}, "above_ideal_percent = 'x': must be"),
        ({"card": {"validation": {"above_ideal_percent": float("nan")}}}, "above_ideal_percent = nan: must be"),
        ({"card": {"options": []}}, "card: options = []: must be a table"),
        ({"card": {"options": None}}, "card: options = None: must be a table"),
        ({"card": {"options": {"seed": [[1]]}}}, "card: options = {'seed': [[1]]}"),
        ({"card": {"learner": "\x1b[2J\x1b]0;pwned\x07"}}, r"learner = '\x1b[2J\x1b]0;pwned\x07': must be one line"),
        ({"card": {"scenario": "a\nb"}}, "card: scenario = 'a\\nb': must be one line of text"),
        ({"card": {"options": {"a\x07": 1}}}, "must be one line of text"),
        ({"card": {"versions": {"numpy": "\u2028"}}}, "must be one line of text"),
        ({"card": {"learner": "x" * 10**5}}, "must be at most 65536 characters"),
        ({"card": {"x" * 10**5: 1}}, "must not have a field 'xxx"),
        ({"vcpus": True}, "vcpus = True: must be a whole number, 0..1024"),
        ({"hidden": False}, "hidden = False: must be a whole number, 0..1024"),
        ({"temperature": True}, "temperature = True: must be a number, 0..1000"),
        ({"temperature": float("nan")}, "temperature = nan: must be 0..1000"),
        ({"format": True}, "format True: must be 2"),
        ({"kind": "x" * 900_000}, "kind = 'xxx"),
        ({"kind": ["linear"]}, "kind = ['linear']: must be linear, mlp or set"),
        ({"information": {}}, "information level = {}: must be hypervisor, introspection or oracle"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_policy_s_card_is_checked_for_kinds_and_ranges(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = written(tmp_path / "x.npz", lambda head: head | changes)
    with pytest.raises(PolicyError) as caught:
        read_network(path)
    assert why in one_line(caught.value)
    with pytest.raises(PolicyError):
        load_compiled(f"learned:{path}")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *((lambda head, value=value: value, f"{value}: must be a table") for value in (0, 1.5, True, None, [], ["x"])),
        (lambda head: {}, "'format' is missing"),
        *(
            (lambda head, name=name: {key: head[key] for key in head if key != name}, f"'{name}' is missing")
            for name in ("format", "kind", "vcpus", "features", "card")
        ),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_what_a_policy_s_file_tells_of_it_must_be_a_table_with_all_names(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    path = written(tmp_path / "x.npz", change)
    with pytest.raises(PolicyError) as caught:
        read_network(path)
    assert one_line(caught.value).endswith(f"x.npz: not a learned policy, or damaged ({why})")


def test_a_card_of_its_own_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"steps": 5, "validation": {"above_ideal_percent": null}}')
    assert read_card(path)["steps"] == 5
    for content, why in (
        ("[]", "card: must be a table"),
        ('{"steps": 1, "steps": 2}', "twice"),
        ("{", "not a policy's card"),
    ):
        path.write_text(content)
        with pytest.raises(PolicyError, match=why):
            read_card(path)


def test_a_file_name_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    """It would stand in tables: a terminal's commands, or bytes that are no UTF-8, which nothing can print."""
    for stem in ("\x1b[2J", "a\nb", os.fsdecode(b"\xff")):
        path = tmp_path / f"{stem}.npz"
        path.write_bytes(encode(random_network("linear", 0)))
        with pytest.raises(PolicyError, match="must be printable") as caught:
            load_compiled(f"learned:{path}")
        one_line(caught.value)


def test_a_policy_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    network = random_network("mlp", 1024, hidden=256)
    with pytest.raises(PolicyError, match="is too large: at most 16,777,216"):
        encode(network)
    with pytest.raises(PolicyError, match="of its card"):
        encode(replace(random_network("linear", 0), card={"overrides": ["x" * 60_000] * 20}))


# -------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "Tiny", "--set", f"neighbours.{'9' * 5000}.vcpus=1"),
        ("simulate", "Tiny", "--set", "x" * 10**6),
        ("simulate", "Tiny", "--set", "\x1b[2J"),
        ("simulate", "Tiny", "--set", "a=1", f"a={'x' * 10**6}"),
        ("simulate", "a\0b.toml"),
        ("simulate", "x" * 10**5 + ".toml"),
        ("simulate", "\x1b[2J.toml"),
        ("simulate", "Tiny", "--json", "a\0b"),
        ("simulate", "Tiny", "--json", "x" * 10**5),
        ("simulate", "Tiny", "--json", "\x1b[2J/x"),
        ("simulate", "Tiny", "--policy", "learned:a\0.npz"),
        ("compare", "Storm", "--policies", "learned:" + "x" * 10**5 + ".npz"),
        ("compare", "Storm", "--policies", "learned:\x1b[2J"),
        ("compare", "Storm", "--policies", "x" * 10**5, "x" * 10**5),
        ("simulate", "Tiny", "--seeds", "9" * 5000),
        ("simulate", "Tiny", "--seeds", "\x1b[2J"),
        ("simulate", "Tiny", "--threads", "9" * 5000),
        ("simulate", "Tiny", "--timeline", "x" * 10**5 + ".png"),
        ("simulate", "Tiny", "--timeline", "a\0.png"),
        ("simulate", "Tiny", "--timeline", "\x1b[2J"),
        ("simulate", "\udcff.toml"),
        ("simulate", "Tiny", "--json", "\udcff/x"),
        ("table", "--scenarios", "\x1b[2J"),
        ("x" * 10**5,),
        ("\x1b[2J",),
    ],
    ids=itertools.count(),
)
def test_hostile_arguments_are_refused_in_one_short_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("ple-gym: error: ") and printed.err.endswith("\n") and printed.out == ""
    assert printed.err[:-1].isprintable() and len(printed.err) < 600
    assert os.listdir(tmp_path) == []
