"""Where results go: tables to the console, documents and pictures to files."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from ple_gym import files
from ple_gym.errors import UsageError
from ple_gym.evaluate.tabular import Tabular
from ple_gym.files import write_whole, writing
from ple_gym.messages import plain
from ple_gym.provenance import provenance
from ple_gym.traces.pictures import FORMATS

STDOUT = "-"
WIDTH = 160  # of tables that do not go to a terminal


def console_for(*documents: str) -> Console:
    """Where tables go: stdout, unless a document has it."""
    file = sys.stderr if STDOUT in documents else sys.stdout
    width = None if file.isatty() or "COLUMNS" in os.environ else WIDTH
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def check_outputs(json_file: str, picture: str, option: str = "--timeline") -> None:
    """Raise UsageError before the long work if its results could not be kept; `option`: that of the picture."""
    check_writable(json_file)
    if not picture:
        return
    _check_made(option, picture, FORMATS, "matplotlib", "viz")


def check_page(name: str) -> None:
    """Raise UsageError before the long work if there could be no HTML page of this name."""
    _check_made("--out", name, (".html",), "bokeh", "report")


def _check_made(option: str, name: str, ends: tuple[str, ...], library: str, extra: str) -> None:
    if not name.endswith(ends):
        raise UsageError(f"{option} {plain(name)}: the name must end in {', '.join(ends)}")
    if importlib.util.find_spec(library) is None:
        raise UsageError(f"{option} needs {library}: pip install 'ple-gym[{extra}]'")
    check_writable(name)


def check_documents(*names: str) -> None:
    """Raise UsageError if these documents could not all be written, or would write over each other; empty is none."""
    for name in names:
        check_writable(name)
        if name and names.count(name) > 1:
            raise UsageError(f"{plain(name)}: is one file, and there are {names.count(name)} documents for it")


def check_writable(name: str) -> None:
    """Raise UsageError if `write_whole` could not make this file; empty and - need none."""
    if name not in ("", STDOUT):
        with writing(name, UsageError):
            files.check_writable(name)


def write_json(
    name: str,
    document: Callable[[], Mapping[str, Any]],
    argv: Sequence[str],
    digests: Mapping[str, str] | None = None,
) -> None:
    """Write the document, which is only made if somebody wants it, and what it comes from.

    digests: `Scenario.digest` of what was simulated, by name.
    """
    if name:
        made = {**document(), "provenance": provenance(argv, digests)}
        _write(name, json.dumps(made, indent=2, allow_nan=False) + "\n")


def write_csv(name: str, result: Tabular, argv: Sequence[str]) -> None:
    """Write a table, and above it what it comes from."""
    if name:
        _write(name, result.to_csv(argv))


def _write(name: str, text: str) -> None:
    if name == STDOUT:
        sys.stdout.write(text)
        return
    with writing(name, UsageError):
        write_whole(name, text.encode())
