"""The public surface: what it holds, that it costs nothing to import, and that pages and examples use nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_docs import DOCUMENTS, split_fences

import ple_gym

ROOT = Path(__file__).resolve().parents[1]
MODULES = re.findall(r"^    (ple_gym[\w.]*) ", ple_gym.__doc__ or "", re.MULTILINE)
EXAMPLES = [ROOT / "agents/paper_heuristic.py", ROOT / "agents/cleanrl_ppo.py"]


def fresh(script: str) -> str:
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_of(module: ModuleType) -> set[str]:
    """The public names of a public module."""
    return set(getattr(module, "__all__", None) or (name for name in vars(module) if not name.startswith("_")))


def test_every_public_name_is_there_and_listed() -> None:
    for name in ple_gym.__all__:
        assert getattr(ple_gym, name) is not None
    assert set(dir(ple_gym)) == {*ple_gym.__all__, "__version__", "__doc__"}
    assert {"PleEnv", "PleVectorEnv", "make_sb3", "compare", "simulate", "Scenario", "rules", "errors"} <= set(
        ple_gym.__all__
    )
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ple_gym.nothing  # noqa: B018
    assert inspect.ismodule(ple_gym.rules) and ple_gym.rules.RULES["kvm"].name == "kvm"


def test_importing_loads_neither_the_kernel_nor_a_training_library() -> None:
    heavy = ("torch", "numba", "stable_baselines3", "matplotlib", "tyro", "ple_gym.lanes")
    assert fresh(f"import sys, ple_gym; print([name for name in {heavy} if name in sys.modules])") == "[]\n"


def test_a_star_import_needs_no_extra() -> None:
    script = """
import sys
for name in ("torch", "stable_baselines3", "sb3_contrib", "matplotlib"):
    sys.modules[name] = None
from ple_gym import *
print(compare.__name__, make_sb3.__name__, PleVectorEnv.__name__, rules.__name__, SCENARIOS["Tiny"].vcpus)
"""
    assert fresh(script) == "compare make_sb3 PleVectorEnv ple_gym.rules 3\n"


def test_the_public_modules_exist_and_have_what_they_list() -> None:
    assert len(MODULES) > 8
    for name in MODULES:
        if name.startswith("ple_gym.adapters"):
            assert importlib.util.find_spec(name)  # some need a library that is not here
            continue
        module = importlib.import_module(name)
        assert (module.__doc__ or "").strip()
        for public in names_of(module):
            assert hasattr(module, public)


def private_imports(source: str) -> list[str]:
    """What a script imports from ple_gym that is not public."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wrong += [one.name for one in node.names if one.name.startswith("ple_gym") and not is_public(one.name)]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ple_gym":
            wrong += [f"{node.module}.{one.name}" for one in node.names if not is_public_name(node.module, one.name)]
    return wrong


def is_public(module: str) -> bool:
    return module == "ple_gym" or module in MODULES


def is_public_name(module: str, name: str) -> bool:
    if is_public(f"{module}.{name}"):
        return True
    if module == "ple_gym":
        return name in ple_gym.__all__
    if not is_public(module) or name.startswith("_"):
        return False
    path = ROOT / (module.replace(".", "/") + ".py")
    source = (path if path.exists() else path.with_suffix("") / "__init__.py").read_text(encoding="utf-8")
    if listed := re.search(r"^__all__ = \[(.*?)\]", source, re.MULTILINE | re.DOTALL):
        return f'"{name}"' in listed[1]
    return re.search(rf"^(def |class |){name}\b", source, re.MULTILINE) is not None


#: Pages about the inside of the package.
FOR_DEVELOPERS = {
    "add-a-feature.md", "add-a-host.md", "add-a-wait.md", "add-an-experiment.md", "debug-the-kernel.md",
    "architecture.md",
}  # fmt: skip


def python_of(document: Path) -> str:
    """All Python of a page, what does not run included."""
    lines = split_fences(document.read_text(encoding="utf-8"))
    return "\n".join(line if info in ("python", "python not-run") else "" for line, info in lines)


def test_pages_and_examples_import_only_what_is_public() -> None:
    pages = [page for page in DOCUMENTS if page.name not in FOR_DEVELOPERS]
    sources = {page.name: python_of(page) for page in pages} | {path.name: path.read_text() for path in EXAMPLES}
    assert sum("ple_gym" in source for source in sources.values()) > 6
    assert {name: wrong for name, source in sources.items() if (wrong := private_imports(source))} == {}


def test_a_private_import_is_found() -> None:
    assert private_imports("import ple_gym, ple_gym.errors, numpy\nfrom ple_gym.rules import rule") == []
    assert private_imports("from ple_gym import compare, evaluate, errors\nfrom ple_gym.adapters import rllib") == []
    assert private_imports("from ple_gym.lanes import Lanes\nimport ple_gym.drive") == [
        "ple_gym.lanes.Lanes", "ple_gym.drive",
    ]  # fmt: skip
    assert private_imports("from ple_gym.rules import compiling") == ["ple_gym.rules.compiling"]
    assert private_imports("from ple_gym.adapters.sb3 import nothing\nfrom ple_gym import Lanes") == [
        "ple_gym.adapters.sb3.nothing", "ple_gym.Lanes",
    ]  # fmt: skip
