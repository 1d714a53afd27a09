"""What a public forge and pre-commit run exists: workflows name make targets, and hooks the project's own tools."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def commands(workflow: dict[str, Any]) -> list[str]:
    """Return what the steps of a workflow run, once for each value of a matrix."""
    found = []
    for job in workflow["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            command = step.get("run", "")
            name = re.search(r"\$\{\{ matrix\.(\w+) \}\}", command)
            found += [command.replace(name[0], value) for value in matrix[name[1]]] if name else [command]
    return [command for command in found if command]


def targets(lines: list[str]) -> list[str]:
    """Return the targets of lines that call make."""
    return [target for line in lines if line.startswith("make ") for target in line.split()[1:] if "=" not in target]


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_make_targets_that_exist(path: Path) -> None:
    lines = commands(load(path))
    assert lines and all(line.startswith("make ") for line in lines)
    assert [target for target in targets(lines) if target not in TARGETS] == []


def test_every_test_target_is_run_somewhere() -> None:
    run = {target for path in WORKFLOWS for target in targets(commands(load(path)))}
    tests = {target for target in TARGETS if target.startswith("test")}
    assert tests | {"lint", "type", "nojit", "boundscheck", "explore", "wheel"} <= run


def test_the_merge_check_runs_targets_that_exist() -> None:
    called = targets((ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines())
    assert {"lint", "type", "site", "test", "nojit"} <= {*called}
    assert {one for one in called if not one.startswith("-")} <= TARGETS


def test_the_matrix_has_the_supported_pythons() -> None:
    matrix = load(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    classified = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert set(classified) <= set(matrix)
    assert f">={matrix[0]}" == PROJECT["requires-python"]


def pins(name: str) -> dict[str, str]:
    """The versions that a file in constraints/ names, by library."""
    text = (ROOT / "constraints" / name).read_text(encoding="utf-8")
    return {
        library.lower().replace("_", "-"): version
        for library, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    }


def test_the_lock_names_every_library_in_the_versions_of_the_tests() -> None:
    lock = pins("lock.txt")
    tested = pins("pins.txt") | pins("ci.txt")
    assert {name: version for name, version in lock.items() if tested.get(name, version) != version} == {}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["viz"], *extras["agents"], *extras["experiments"]]
    names = {re.split(r"[\[<>=]", one)[0].lower() for one in wanted} - {"ple-gym"}
    assert sorted(names - set(lock)) == []
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "-c constraints/lock.txt -e '.[viz,agents,experiments]'" in image


def test_hooks_call_the_tools_of_the_environment() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    tools = [hook["entry"].split()[0] for hook in repository["hooks"]]
    assert repository["repo"] == "local"
    assert tools == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]


def test_a_target_that_is_not_there_is_found() -> None:
    workflow = {
        "jobs": {"a": {"strategy": {"matrix": {"x": ["one", "two"]}}, "steps": [{"run": "make ${{ matrix.x }}"}]}}
    }
    assert targets(commands(workflow)) == ["one", "two"]
    assert not set(targets(commands(workflow))) & TARGETS
