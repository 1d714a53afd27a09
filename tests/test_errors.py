"""The errors: one tree, which is documented, and each mistake ends in the error that is meant for it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ple_gym
from ple_gym import errors
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.errors import ArgumentError, PleError, PolicyError, ScenarioError, UsageError
from ple_gym.evaluate import Group, compare, parse_seeds, simulate
from ple_gym.learned.file import load_network

ROOT = Path(__file__).resolve().parents[1]


def bases_of_classes(*folders: str) -> dict[str, set[str]]:
    """Class -> the names of its bases, of all Python files in some folders."""
    found = {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    return found


def ancestors(name: str, bases: dict[str, set[str]]) -> set[str]:
    return {name}.union(*(ancestors(base, bases) for base in bases.get(name, ())))


def is_builtin_exception(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def test_every_error_is_in_the_tree_and_documented() -> None:
    bases = bases_of_classes("ple_gym", "agents", "experiments")
    lineage = {name: ancestors(name, bases) for name in bases}
    exceptions = {name for name, line in lineage.items() if any(map(is_builtin_exception, line))}
    assert {"ScenarioError", "PolicyError", "AgentError", "TableError", "VectorEnvError", "Unequal"} <= exceptions
    public = {name for name in exceptions if not name.startswith("_")}
    assert {name for name in public if "PleError" not in lineage[name]} == set()
    assert {name for name in public if name.endswith("Error") and name not in (errors.__doc__ or "")} == set()


def test_what_was_a_value_error_still_is_one() -> None:
    assert issubclass(ple_gym.ScenarioError, ValueError)
    assert issubclass(PolicyError, ValueError) and issubclass(ArgumentError, ValueError)


@pytest.mark.parametrize(
    ("error", "mistake"),
    [
        (ScenarioError, lambda: simulate("Nope")),
        (ScenarioError, lambda: simulate("no.toml")),
        (ScenarioError, lambda: simulate("Tiny", overrides={"host.pcpus": 0})),
        (ScenarioError, lambda: PleEnv("Tiny", overrides={"profile": "x"})),
        (PolicyError, lambda: compare("Tiny", ["kvm", "kvm"])),
        (PolicyError, lambda: compare("Tiny", [])),
        (PolicyError, lambda: simulate("Tiny", 5)),
        (PolicyError, lambda: Group("x", ["kvm"])),
        (PolicyError, lambda: load_network("learned:nobody")),
        (ArgumentError, lambda: simulate("Tiny", seeds=-1)),
        (ArgumentError, lambda: parse_seeds("5:5")),
        (ArgumentError, lambda: simulate("Tiny", threads=0)),
        (ArgumentError, lambda: PleEnv("Tiny", information="all")),
        (ArgumentError, lambda: PleEnv("Tiny", render_mode="human")),
        (ArgumentError, lambda: PleEnv("Tiny").reset(seed=-1)),
        (ArgumentError, lambda: PleEnv("Tiny").reset(options={"begin": 1})),
        (ArgumentError, lambda: PleVectorEnv(0, "Tiny")),
        (ArgumentError, lambda: started().step(99)),
        (ArgumentError, lambda: PleVectorEnv(2, "Tiny").step(np.zeros(3, np.int64))),
    ],
)
def test_a_mistake_ends_in_the_error_of_its_kind(error: type[PleError], mistake: Callable[[], object]) -> None:
    with pytest.raises(PleError) as caught:
        mistake()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def started() -> PleEnv:
    env = PleEnv("Tiny")
    env.reset(seed=0)
    return env


def test_a_command_line_is_no_value() -> None:
    assert not issubclass(UsageError, ValueError)
