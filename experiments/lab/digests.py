"""Names the code that rows come from, so that a sweep goes on with rows of the same code only.

Of a source what it does counts, not its words: comments and docstrings may change, and so may whatever only tells of
rows, or carries them: the command line, tables, pictures. Of `ple_gym` everything else counts, for rules may be found
by name; of `experiments` and `agents`, what the measuring module imports.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from experiments.lab.folders import ROOT

#: Files and folders on which no measured integer depends.
TELLING = (
    *(f"ple_gym/{name}" for name in ("_checkout", "adapters", "bench", "cli", "testing")),
    *(f"ple_gym/evaluate/{name}.py" for name in ("comparison", "configurations", "grid", "pictures")),
    *(f"ple_gym/evaluate/{name}.py" for name in ("statistics", "tables", "tabular")),
    *(f"ple_gym/{name}.py" for name in ("extras", "files", "messages", "progress", "provenance")),
    *(
        f"experiments/lab/{name}.py"
        for name in ("commands", "digests", "discovery", "executors", "folders", "pictures")
    ),
    *(f"experiments/lab/{name}.py" for name in ("replay", "report", "sweeps", "tables")),
)
FOLLOWED = ("experiments", "agents")


def digest_of(measuring: Path, inputs: Iterable[Path] = (), *parts: object, root: Path = ROOT) -> str:
    """32 hexadecimal digits that change with what the module in a file measures, the inputs' content, or `parts`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
    for path in inputs:
        digest.update(path.read_bytes() if path.exists() else b"none")
    for source in sources(measuring, root):
        digest.update(_meaning(source.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def sources(measuring: Path, root: Path = ROOT) -> list[Path]:
    """The files on which it depends what the module in a file measures, sorted."""
    found, waiting = {measuring}, [measuring]
    while waiting:
        tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        new = {source for source in _imported(tree, root) if _computes(source, root)} - found
        found |= new
        waiting += new
    package = root / "ple_gym"
    if not package.exists():  # an installation has the measuring modules within the package
        package = root.parent
    return sorted(found | {source for source in package.rglob("*.py") if _computes(source, package.parent)})


def _computes(source: Path, root: Path) -> bool:
    name = source.relative_to(root).as_posix()
    return not any(name == one or name.startswith(f"{one}/") for one in TELLING)


def _imported(tree: ast.Module, root: Path) -> set[Path]:
    """The files of the modules in `FOLLOWED` folders that are imported, their packages included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [root.joinpath(*name.split(".")) for name in names if name.partition(".")[0] in FOLLOWED]
    return {path for place in places for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()}


@lru_cache(maxsize=512)
def _meaning(text: str) -> str:
    """A source without comments, docstrings and form. To find it takes milliseconds, and a sweep asks for it again."""
    return ast.dump(_Silent().visit(ast.parse(text)))


class _Silent(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Leave out a text that stands by itself."""
        told = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if told else self.generic_visit(node)
