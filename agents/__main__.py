"""`python -m agents`; see `commands.py`. Nothing heavy is imported here, so that Ctrl-C is heard at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ple_gym_main import ended_at_once

ADVICE = "; the same command goes on from the last state"


def main(argv: Sequence[str]) -> int:
    """Run a command; the exit code."""
    told = f"agents: interrupted{ADVICE if argv[:1] == ['train'] else ''}"
    try:
        with ended_at_once(told):
            from agents.commands import execute
        return execute(argv)
    except ModuleNotFoundError as error:
        from ple_gym.cli.process import missing_library, mistake

        return mistake("agents", missing_library(error))
    except KeyboardInterrupt:
        print(told, file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # `leave`, if it came to that: an interrupted import is not begun again.
    getattr(sys.modules.get("ple_gym.cli.process"), "leave", sys.exit)(code)
