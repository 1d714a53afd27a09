"""Where results go: tables to the console, documents and pictures to files, and what a document says of its origin."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

import ple_gym
from ple_gym import files
from ple_gym.errors import UsageError
from ple_gym.files import write_whole, writing
from ple_gym.messages import plain

STDOUT = "-"
WIDTH = 160  # of tables that do not go to a terminal


def console_for(json_file: str = "") -> Console:
    """Where tables go: stdout, unless the JSON document has it."""
    file = sys.stderr if json_file == STDOUT else sys.stdout
    width = None if file.isatty() or "COLUMNS" in os.environ else WIDTH
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def check_outputs(json_file: str, picture: str, option: str = "--timeline") -> None:
    """Raise UsageError before the long work if its results could not be kept; `option`: that of the picture."""
    check_writable(json_file)
    if not picture:
        return
    if not picture.endswith(".png"):
        raise UsageError(f"{option} {plain(picture)}: the name must end in .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"{option} needs matplotlib: pip install 'ple-gym[viz]'")
    check_writable(picture)


def check_writable(name: str) -> None:
    """Raise UsageError if `write_whole` could not make this file; empty and - need none."""
    if name not in ("", STDOUT):
        with writing(name, UsageError):
            files.check_writable(name)


def write_json(name: str, document: Callable[[], Mapping[str, Any]], argv: Sequence[str]) -> None:
    """Write the document, which is only made if somebody wants it, and what it comes from."""
    if not name:
        return
    text = json.dumps({**document(), "provenance": provenance(argv)}, indent=2, allow_nan=False) + "\n"
    if name == STDOUT:
        sys.stdout.write(text)
        return
    with writing(name, UsageError):
        write_whole(name, text.encode())


def provenance(argv: Sequence[str]) -> dict[str, str]:
    """What made a document: version, command as typed, time; of a checkout with git also the commit."""
    made = {
        "ple_gym": ple_gym.__version__,
        "command": shlex.join(["ple-gym", *argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return made | ({"commit": commit} if (commit := _commit()) else {})


def _commit() -> str:
    """The commit of the checkout that this package is run from, `-dirty` if files have changed; empty if unknown."""
    root = Path(ple_gym.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""
