"""Build the C program of the reality check, and run it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from ple_gym.errors import RealityError
from ple_gym.messages import plain
from ple_gym.reality.machine import this_machine
from ple_gym.reality.measured import Costs, Machine, Measured, Result, from_line, to_line
from ple_gym.reality.settings import Setting

SOURCE = "spinners.c"
COMPILERS = ("gcc", "clang")
FLAGS = ("-O2", "-std=gnu11", "-pthread")
PATIENCE_S = 30
"""Seconds that the program may take longer than it was told: it ends by itself before."""
WARM_UP_US = 100_000
"""Microseconds before each run is measured: a convoy takes some time to form."""
RECORD = ["perf", "record", "-q", "-e", "sched:sched_switch", "-B", "-N", "-m", "8M"]
"""Nothing is left in the home; of 360,000 switches a second none is lost."""


def check_machine() -> None:
    """Raise RealityError if nothing can be measured here."""
    where = (platform.system(), platform.machine())
    if where != ("Linux", "x86_64"):
        raise RealityError(f"the reality check needs Linux on x86-64; this is {plain(' on '.join(where))}")
    compiler()


def compiler() -> str:
    """The C compiler that is there.

    Raises:
        RealityError: there is none.
    """
    for name in COMPILERS:
        if shutil.which(name):
            return name
    raise RealityError("the reality check needs a C compiler: gcc or clang; none is in PATH")


@contextmanager
def built() -> Iterator[Path]:
    """The program, compiled; it is gone afterwards.

    Raises:
        RealityError: nothing can be measured here, or the compiler fails.
    """
    check_machine()
    with tempfile.TemporaryDirectory(prefix="ple-gym-") as folder:
        program = Path(folder, "spinners")
        with resources.as_file(resources.files(__package__) / SOURCE) as source:
            _output([compiler(), *FLAGS, "-o", str(program), str(source)], 0)
        yield program


def measure(
    settings: Sequence[Setting], repetitions: int, seconds: float, cpus: int, announce: Callable[[int], None]
) -> Measured:
    """Measure the machine's costs and then every setting, again and again.

    Args:
        settings: what the threads do.
        repetitions: how often each setting is run; all are run once before any is run again.
        seconds: how long a run is.
        cpus: how many CPUs the threads have, the first of those that this process may use.
        announce: called with the number of runs that are done.

    Raises:
        RealityError: it cannot be done here.
    """
    with built() as program:
        machine = this_machine(cpus)
        numbers = list(map(str, machine.cpus))
        costs = from_line(Costs, _output([str(program), "costs", *numbers], PATIENCE_S))
        runs: list[tuple[Setting, Result]] = []
        for repetition in range(repetitions):
            for setting in settings:
                announce(len(runs))
                runs.append((setting, _run(program, setting, seconds, repetition, numbers)))
    return Measured(machine, costs, tuple(runs))


def check_perf() -> None:
    """Raise RealityError if `perf` cannot record who has a CPU."""
    if not shutil.which("perf"):
        raise RealityError("a timeline needs perf (linux-perf, linux-tools); none is in PATH")
    try:
        _output([*RECORD, "-C", str(min(os.sched_getaffinity(0))), "-o", os.devnull, "true"], PATIENCE_S)
    except RealityError as failure:
        raise RealityError(
            f"{failure}; to record sched_switch takes root, or `sysctl kernel.perf_event_paranoid=-1` and "
            "`mount -o remount,mode=755 /sys/kernel/tracing`"
        ) from None


def record(setting: Setting, machine: Machine, seconds: float) -> bytes:
    """Run a setting under `perf`: a line with what it was, and the text of `perf script`.

    Raises:
        RealityError: it cannot be done here.
    """
    seed = os.getpid() % 10**6  # in the threads' names; another check has another one
    numbers = list(map(str, machine.cpus))
    with built() as program:
        data = str(program.with_name("data"))
        # The warm-up would be two thirds of the events.
        perf = [*RECORD, "-D", str(WARM_UP_US // 1000), "-C", ",".join(numbers), "-o", data]
        _output([*perf, *_command(program, setting, seconds, seed, numbers)], seconds + PATIENCE_S)
        events = _output(["perf", "script", "--ns", "-i", data], PATIENCE_S)
    return f"# {to_line(setting)} seed={seed}\n{events}\n".encode()


def _run(program: Path, setting: Setting, seconds: float, seed: int, cpus: Sequence[str]) -> Result:
    return from_line(Result, _output(_command(program, setting, seconds, seed, cpus), seconds + PATIENCE_S))


def _command(program: Path, setting: Setting, seconds: float, seed: int, cpus: Sequence[str]) -> list[str]:
    numbers = (setting.threads, setting.groups, setting.window, setting.hold, setting.think)
    words = [*map(str, numbers), setting.lock, setting.reaction, str(WARM_UP_US), str(round(seconds * 1e6))]
    return [str(program), "run", *words, str(seed), *cpus]


def _output(command: Sequence[str], timeout_s: float) -> str:
    """The line that a command prints. Whatever ends us ends it: it is killed, and its own children with it.

    timeout_s: 0 for none.

    Raises:
        RealityError: it fails, or takes too long.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s or None, check=False)
    except subprocess.TimeoutExpired:
        raise RealityError(f"{name}: took longer than {timeout_s:g} s") from None
    except OSError as failure:
        raise RealityError(f"{name}: cannot be run: {failure.strerror}") from None
    if done.returncode:
        told = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        raise RealityError(f"{name}: {plain(told)}")
    return done.stdout.removesuffix("\n")
