"""The script `ple-gym`. It is no part of the package, so that Ctrl-C is heard while the package is imported."""

import runpy
import sys
from pathlib import Path

#: Programs beside the package, which an installation has inside it, where their names collide with nobody's.
BESIDE = ("agents", "experiments")


def main() -> None:
    """Run the command line of the process, and end it."""
    if sys.argv[1:2] and sys.argv[1] in BESIDE:
        return beside(sys.argv[1], sys.argv[2:])
    try:
        from ple_gym.cli import run
    except KeyboardInterrupt:
        print("ple-gym: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


def beside(program: str, arguments: list[str]) -> None:
    """Run `python -m PROGRAM ARGUMENTS`, of this checkout or, from an installation, of `ple_gym/_checkout`."""
    here = Path(__file__).resolve().parent
    installed = here / "ple_gym" / "_checkout"
    sys.path.insert(0, str(installed if installed.exists() else here))
    sys.argv = [f"ple-gym {program}", *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=False)
