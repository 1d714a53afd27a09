"""The command line `ple-gym`; see `commands.py`. Nothing heavy is imported here, so that Ctrl-C is heard at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ple_gym.cli.process import interrupted, leave


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process if None) and return its exit code."""
    try:
        from ple_gym.cli.commands import execute

        return execute(argv)
    except KeyboardInterrupt:
        return interrupted("ple-gym")


def run() -> NoReturn:
    """Run the command line of the process, and end it."""
    leave(main())
