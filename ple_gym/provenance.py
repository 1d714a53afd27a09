"""What made a document: every one that is written says it."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ple_gym
from ple_gym.messages import escaped


def provenance(argv: Sequence[str] = (), digests: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What made a document: version and time; of a checkout with git also the commit.

    argv: the words of the command line, if there was one; digests: `Scenario.digest` of each scenario, by name.
    """
    made: dict[str, Any] = {"ple_gym": ple_gym.__version__}
    if argv:
        made["command"] = shlex.join(["ple-gym", *argv])
    made["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    if commit := _commit():
        made["commit"] = commit
    return made | ({"scenarios": dict(digests)} if digests else {})


def comment_lines(made: Mapping[str, Any]) -> list[str]:
    """`provenance` as lines that begin with `# `."""
    flat = {**made, **{f"scenario {name}": digest for name, digest in made.get("scenarios", {}).items()}}
    return [f"# {escaped(f'{name}: {value}')}" for name, value in flat.items() if name != "scenarios"]


def told(argv: Sequence[str] = (), digests: Mapping[str, str] | None = None) -> str:
    """`provenance` as text of a few lines, for the description of a picture."""
    return "\n".join(line.removeprefix("# ") for line in comment_lines(provenance(argv, digests)))


def _commit() -> str:
    """The commit of the checkout that this package is run from, `-dirty` if files have changed; empty if unknown."""
    root = Path(ple_gym.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""
