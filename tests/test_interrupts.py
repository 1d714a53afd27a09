"""Ctrl-C ends any command at once: exit code 130 and one line, whatever it is at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOON_S = 1.0  # on a machine that has nothing else to do
STARTED: list[subprocess.Popen[str]] = []
PROGRAMS = {
    "ple-gym": "from ple_gym_main import main; sys.argv[0] = 'ple-gym'; main()",
    "agents": "import runpy; runpy.run_module('agents', run_name='__main__', alter_sys=True)",
    "experiments": "import runpy; runpy.run_module('experiments', run_name='__main__', alter_sys=True)",
}
# Sends the signal to itself when the module is about to be imported.
AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                if name == "sb3_contrib":  # the training imports it
                    raise
                raise ImportError("a bad installation")  # what numpy makes of it while it imports what it needs

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        if went_on := process.poll() is None:
            process.kill()
        process.communicate()  # closes what the test did not read
        if went_on:
            pytest.fail("the command went on")


def start(program: str, arguments: list[str], cwd: Path, before: str = "", **variables: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys\n{before}\n{PROGRAMS[program]}", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    STARTED.append(process)
    return process


def interrupt(process: subprocess.Popen[str]) -> tuple[float, str, str]:
    """Send Ctrl-C to all processes of the command, as a terminal does: seconds until the end, stdout, stderr."""
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=200)
    return time.monotonic() - began, out, err


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("ple-gym", "gymnasium"),
        ("ple-gym", "numba"),
        ("ple-gym", "tyro"),
        ("ple-gym", "ple_gym.cli.commands"),
        ("agents", "ple_gym"),
        ("agents", "numba"),
        ("agents", "sb3_contrib"),
        ("experiments", "gymnasium"),
        ("experiments", "numba"),
    ],
)
def test_an_interrupt_during_the_imports(program: str, module: str, tmp_path: Path) -> None:
    arguments = {"ple-gym": ["list"], "agents": ["train", "set-ppo"], "experiments": ["list"]}[program]
    process = start(program, arguments, tmp_path, AT_IMPORT.format(module=module))
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (130, "")
    assert err.startswith(f"{program}: interrupted")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("ple-gym", ["warmup"]),
        ("ple-gym", ["compare", "Tiny", "--seeds", "0:2"]),
        ("ple-gym", ["bench", "--quick"]),
        ("agents", ["train", "cem", "--folder", "run"]),
        ("agents", ["evaluate", "Tiny"]),
        ("experiments", ["figure1", "--quick", "--out", "out"]),
    ],
)
def test_an_interrupt_while_the_simulator_is_compiled(program: str, arguments: list[str], tmp_path: Path) -> None:
    process = start(program, arguments, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("compiling the simulator: a ")
    took, out, err = interrupt(process)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith(f"{program}: interrupted")
    assert "Traceback" not in err
    assert took < SOON_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


LONG = ["--set", "limit.simulated_s=3600", "guest.transactions=1000000000"]
BUSY = ["--set", "guest.start=convoy", "guest.transactions=100000", "guest.locks=8", "limit.simulated_s=600"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "after"),
    [
        ("ple-gym", ["simulate", "Paper8", "--policy", "continue", *LONG, "--seeds", "0:1", "--threads", "1"], ""),
        ("ple-gym", ["compare", "Paper8", "--policies", "continue", "host", *LONG, "--seeds", "0:4"], ""),
        ("ple-gym", ["table", "--seeds", "0:100000"], ""),
        ("ple-gym", ["simulate", "Storm", "--policy", "agents.paper_heuristic:PaperHeuristic", *LONG], ""),
        (
            "ple-gym",
            ["simulate", "Paper8", "--policy", "xen-4.5", *BUSY, "--seeds", "0:1", "--timeline", "x.png"],
            "ms,",
        ),
        ("ple-gym", ["bench"], ""),
        ("agents", ["train", "set-ppo", "--folder", "run"], ""),
        ("agents", ["train", "cem", "--folder", "run", "--steps", "1000000000"], ""),
        ("agents", ["evaluate", "Paper8", "--seeds", "2000000:2100000"], ""),
        ("experiments", ["robustness", "--out", "out", "--jobs", "1"], ""),
        ("experiments", ["robustness", "--out", "out", "--jobs", "2"], ""),
    ],
)
def test_an_interrupt_in_the_midst_of_work(program: str, arguments: list[str], after: str, tmp_path: Path) -> None:
    """After some seconds, or once stdout has said something: while a timeline is made, say."""
    process = start(program, arguments, tmp_path)
    if after:
        assert process.stdout is not None
        while after not in (line := process.stdout.readline()):
            assert line
    time.sleep(1 if after else 5)
    assert process.poll() is None, "it has ended of itself"
    took, _, err = interrupt(process)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith(f"{program}: interrupted")
    assert "Traceback" not in err and "Exception" not in err
    assert took < SOON_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert set(os.listdir(tmp_path)) <= {"run", "out"}  # a training's own folder, to go on from
    assert not list(tmp_path.glob("out/*"))  # made before the work, to see that it can be


def test_what_is_left_of_other_processes_is_not_spoken_of(tmp_path: Path) -> None:
    """joblib's resource tracker outlives a command, and warned of folders that were gone after the last line."""
    pytest.importorskip("joblib")
    source = """
import os
from experiments.lab.executors import without_interrupts
from joblib.externals.loky.backend import resource_tracker
with without_interrupts():
    pass
resource_tracker.register("/no/such/folder", "folder")
assert "PYTHONWARNINGS" not in os.environ
"""
    process = subprocess.run(
        [sys.executable, "-c", source],
        env={"PYTHONPATH": str(ROOT), **{k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
