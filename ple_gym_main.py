"""The script `ple-gym`. It is no part of the package, so that Ctrl-C is heard while the package is imported."""

import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Programs beside the package, which an installation has inside it, where their names collide with nobody's.
BESIDE = ("agents", "experiments")


def main() -> None:
    """Run the command line of the process, and end it."""
    if sys.argv[1:2] and sys.argv[1] in BESIDE:
        return beside(sys.argv[1], sys.argv[2:])
    with ended_at_once("ple-gym: interrupted"):
        import ple_gym.cli.commands  # with all that it needs
    ple_gym.cli.run()


@contextmanager
def ended_at_once(line: str) -> Iterator[None]:
    """Let Ctrl-C end the process with a line on stderr, while all that this block does is to import.

    Some modules, numpy's for one, make an ImportError of the exception that Ctrl-C would raise within them.
    """

    def end(*_: object) -> None:
        print(line, file=sys.stderr, flush=True)
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # it is ignored, or somebody else's
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def beside(program: str, arguments: list[str]) -> None:
    """Run `python -m PROGRAM ARGUMENTS`, of this checkout or, from an installation, of `ple_gym/_checkout`."""
    here = Path(__file__).resolve().parent
    installed = here / "ple_gym" / "_checkout"
    sys.path.insert(0, str(installed if installed.exists() else here))
    sys.argv = [f"ple-gym {program}", *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=False)
