"""The script `ple-gym`. It is no part of the package, so that Ctrl-C is heard while the package is imported."""

import sys


def main() -> None:
    """Run the command line of the process, and end it."""
    try:
        from ple_gym.cli import run
    except KeyboardInterrupt:
        print("ple-gym: interrupted", file=sys.stderr)
        sys.exit(130)
    run()
