"""How a command ends: what it tells and which code it leaves. Shared with `python -m agents` and `... experiments`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

from ple_gym.messages import escaped

INTERRUPTED = 130
MISTAKE = 2  # that the user can put right


def interrupted(program: str, advice: str = "") -> int:
    """Say in a line that Ctrl-C ended the program; its exit code."""
    print(f"{program}: interrupted{advice}", file=sys.stderr)
    return INTERRUPTED


def mistake(program: str, message: str) -> int:
    """Say in a line what the user can put right; the exit code."""
    print(f"{program}: error: {escaped(' '.join(message.split()))}", file=sys.stderr)
    return MISTAKE


def missing_library(error: ModuleNotFoundError) -> str:
    """Which extra brings a library that is not installed; raises the error again if none does."""
    from ple_gym.extras import advice

    if not (told := advice(error)):
        raise error
    return told


def open_streams() -> bool:
    """Give a process that was started without stdout or stderr something to write to; whether there was a stdout."""
    has_stdout = sys.stdout is not None
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open until the process ends
    return has_stdout


def discard_stdout() -> None:
    """Let what is still buffered vanish; it could not be written, and Python would complain once more at its exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(code: int) -> NoReturn:
    """End the process; after Ctrl-C at once. Nothing can stop a compilation, and libraries take seconds to tidy up.

    What was registered to be done at the end is done, such as joblib's taking leave of its other processes.
    """
    if code == INTERRUPTED:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
