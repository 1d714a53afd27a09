"""Whatever stands on the command line: a result, or one line and the exit code 2. `ARGUMENTS=5000` makes it longer."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ple_gym import cli

MANY = int(os.environ.get("ARGUMENTS", "150"))
SMALL = "HolderPreempted"
TEXTS = [
    SMALL, f"PLE/{SMALL}-v0", "Nope", "bad.toml", "empty.toml", "list.json", "folder.toml", "no.toml", "", " ", "\x00",
    "\x1b[2J", "é", "x" * 3000, "-", "--", "0", "-1", "nan", "inf", "1e999", "9" * 20, "0:2", "5:5", "0:9999999999",
    "host", "kvm", "learned:storm-set", "learned:x.npz", "learned:", "learned:nope", "learned:\x00.npz", "/dev/null",
    "folder", "no/x.json", "x.png", "a\x00.png", "host.pcpus=1", "host.pcpus=", "=", "=3", "guest.vcpus=1025",
    "name=\x00", "profile=xen-4.8", "profile=x", "limit.simulated_s=1e-9", "guest.transactions=0", "ple.gap=0",
    "limit.simulated_s=0.001", "host.timeslice_ms=nan", "neighbours.0.vcpus=2", "guest.compute=knots 0:1 1:2",
    "--json=", "--help", "-h", "--version",
]  # fmt: skip
OPTIONS = {
    "ple_gym": "policy policies seeds set json timeline threads parameters scenarios",
    "agents": "seed steps lanes scenario overrides start information temperature population elite n-steps batch-size "
    "quiet name to policies seeds each hidden torch-threads what",
    "experiments": "quick jobs ray trials out what",
}


@pytest.fixture(autouse=True)
def _in_a_folder_with_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_bytes(b"\xff\x00x=")
    Path("empty.toml").write_text("")
    Path("list.json").write_text("[1, 2]")
    Path("x.npz").write_bytes(b"PK\x03\x04nonsense")
    Path("folder.toml").mkdir()
    Path("folder").mkdir()


def any_arguments(program: str, random_: random.Random) -> list[str]:
    """A command that takes no long, and anything behind it."""
    first = {
        "ple_gym": [["list"], ["show", SMALL], ["simulate", SMALL], ["compare", SMALL], ["show"], ["simulate"], []],
        "agents": [
            ["list"],
            ["evaluate", SMALL],
            ["evaluate"],
            ["export"],
            ["export", "x.npz"],
            ["train", "nobody"],
            [],
        ],
        "experiments": [["list"], ["nope"], ["replay", "--quick"], [""], []],
    }[program]
    arguments = list(random_.choice(first))
    for _ in range(random_.randint(0, 3)):
        arguments.append(f"--{random_.choice(OPTIONS[program].split())}")
        arguments += random_.choices(TEXTS, k=random_.randint(0, 2))
    return arguments


@pytest.mark.parametrize("program", OPTIONS)
def test_any_arguments_end_in_a_result_or_in_one_line(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    main: Callable[[list[str]], int] = cli.main
    if program != "ple_gym":
        pytest.importorskip({"agents": "torch", "experiments": "optuna"}[program])
        main = importlib.import_module(f"{program}.__main__").main
    random_, codes = random.Random(7), set()
    for _ in range(MANY):
        arguments = any_arguments(program, random_)
        code = main(arguments)
        told = [line for line in capsys.readouterr().err.splitlines() if "warning: " not in line]
        assert code in (0, 2), arguments
        if code == 2:
            assert len(told) == 1 and told[0].isprintable() and len(told[0]) < 1000, arguments
        codes.add(code)
    assert codes == {0, 2}
