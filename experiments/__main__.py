"""`python -m experiments`; see `lab/commands.py`. Nothing heavy is imported here, so that Ctrl-C is heard at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ple_gym_main import ended_at_once

INTERRUPTED = "experiments: interrupted; the same command goes on from here"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    try:
        with ended_at_once(INTERRUPTED):
            from experiments.lab.commands import execute
        return execute(argv)
    except ModuleNotFoundError as error:
        from ple_gym.cli.process import missing_library, mistake

        return mistake("experiments", missing_library(error))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = main()
    # `leave`, if it came to that: an interrupted import is not begun again.
    getattr(sys.modules.get("ple_gym.cli.process"), "leave", sys.exit)(code)
