"""The reference of the Python interface: every public name and every public module, from their docstrings."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from inspect import ismodule
from pathlib import Path

import ple_gym

NAMES = """# Python

This page lists every name of `ple_gym.__all__`, with shapes, units, errors and an example. The
[modules](modules.md) hold more names; whatever is on neither page is private and may change in any version.

`import ple_gym` loads no compiled code; a name that needs it loads it when it is first asked for.

"""
MODULES = """# Python, by module

This page lists what the public modules hold. The most used names stand in `ple_gym` itself: [Python](python.md).

"""
NEXT = """
## Where to go next

[Parameters](parameters.md) · [Command line](commands.md) · [Files](files.md) · [Thousands of lanes](../vector.md)
"""


def pages() -> dict[str, str]:
    """Page -> Markdown, in which mkdocstrings puts the docstrings where `:::` stands."""
    values = {name: getattr(ple_gym, name) for name in ple_gym.__all__}
    names = [name for name, value in values.items() if not ismodule(value)]
    modules = [f"- [`ple_gym.{name}`](modules.md#ple_gym.{name})" for name, value in values.items() if ismodule(value)]
    return {
        "reference/python.md": NAMES + "\n".join(_entry(f"ple_gym.{name}") for name in names)
        + "\n## Modules\n\nAlso in `ple_gym`:\n\n" + "\n".join(modules) + "\n" + NEXT,
        "reference/modules.md": MODULES + "\n".join(_module(name) for name in public_modules()) + NEXT,
    }  # fmt: skip


def public_modules() -> list[str]:
    """The modules that the docstring of `ple_gym` names."""
    return re.findall(r"^    (ple_gym\.[\w.]+)", ple_gym.__doc__ or "", re.MULTILINE)


def _entry(path: str) -> str:
    return f"::: {path}\n    options:\n      heading_level: 2\n"


def _module(name: str) -> str:
    listed = listed_in(name)
    members = "".join(f"\n        - {one}" for one in sorted(listed)) if listed else " true"
    return f"::: {name}\n    options:\n      heading_level: 2\n      members:{members}\n"


def listed_in(name: str) -> list[str]:
    """The `__all__` of a module, which is not imported: some need a library that is not here. Empty if it has none."""
    spec = find_spec(name)
    assert spec and spec.origin, f"there is no module {name}"
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
