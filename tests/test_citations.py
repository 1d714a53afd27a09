"""What comments and docstrings cite exists: files by their path, and functions by `module.name`."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ple_gym.scenario import describe_parameters

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("agents", "experiments", "ple_gym", "tests")
SOURCES = sorted([*ROOT.glob("*.py"), *(source for folder in FOLDERS for source in ROOT.glob(f"{folder}/**/*.py"))])

PATH = re.compile(r"(?<![\w./{}*<-])(?:[\w.-]+/)*[\w-]+(?:\.in)?\.(?:py|md)(?![\w/])|(?<![\w./])reference/[\w./-]*\w")
NAME = re.compile(r"`(?P<module>[a-z_]+)\.(?P<name>(?!py`|md`|pt`)\w+)(?:\(\))?`")
ELSEWHERE = {"mine.py", "./mine.py", "./file.py", "rules.md", "ppo.py"}  # a user's files, and CleanRL's
LIBRARIES = {"minari"}  # ple_gym/adapters has modules of their names
PARAMETERS = set(describe_parameters())  # they have dotted names, too


def remarks(source: Path) -> Iterator[tuple[int, str]]:
    """Yield every comment and every line of a docstring, with the number of its line."""
    text = source.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield from enumerate(docstring.splitlines(), start=node.body[0].lineno)


def names_by_module(sources: list[Path]) -> dict[str, set[str]]:
    """Return the names that each module assigns, defines or imports; a package also has its files and folders.

    Modules with the same name, in different folders, count as one.
    """
    names: dict[str, set[str]] = {}
    for source in sources:
        is_package = source.name == "__init__.py"
        module = names.setdefault(source.parent.name if is_package else source.stem, set())
        if is_package:
            module.update(path.stem for path in source.parent.iterdir())
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    module.add(name)
                case ast.alias(name=name, asname=shorter):
                    module.add(shorter or name)
    return names


def dangling(source: Path, modules: dict[str, set[str]]) -> list[str]:
    """Return a line for each citation of something that does not exist.

    A path may be relative to the file that cites it, to the repository or to the package.
    """
    places = (source.parent, ROOT, ROOT / "ple_gym", ROOT / "experiments")
    found = []
    for number, line in remarks(source):
        for path in PATH.findall(line):
            if path not in ELSEWHERE and not any((place / path).exists() for place in places):
                found.append(f"{source.name}:{number}: {path}: no such file")
        for module, name in NAME.findall(line):
            if module in LIBRARIES or f"{module}.{name}" in PARAMETERS:
                continue
            if name not in modules.get(module, {name}):
                found.append(f"{source.name}:{number}: {module}.{name}: no such name")
    return found


def test_code_cites_what_exists() -> None:
    modules = names_by_module(SOURCES)
    assert [line for source in SOURCES for line in dangling(source, modules)] == []


# The check above would also pass if it looked at nothing, so it is shown something broken.


def test_a_dangling_citation_is_found(tmp_path: Path) -> None:
    source = tmp_path / "here.py"
    source.write_text(
        '"""Text of nowhere.py, not of here.py or docs/model.md.\n\nAs `here.gone` says, unlike `here.there`.\n"""\n'
        "there = 1  # reference/gone.md, 0.3\n"
        'text = "nowhere.py"\n',
        encoding="utf-8",
    )
    assert dangling(source, names_by_module([source])) == [
        "here.py:5: reference/gone.md: no such file",
        "here.py:1: nowhere.py: no such file",
        "here.py:3: here.gone: no such name",
    ]


def test_the_code_is_read() -> None:
    assert {"kvm.py", "file.py", "conftest.py", "tasks.py", "__main__.py"} <= {source.name for source in SOURCES}
    assert sum(len(PATH.findall(line)) for source in SOURCES for _, line in remarks(source)) > 50
