"""`ple-gym watch` shows what the trace says, and ends when asked to."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ple_gym import cli
from ple_gym.cli.watch import Scene
from ple_gym.scenario.builtin import load
from ple_gym.traces.events import ACQUIRE, PLE, RUN, STOP, TRY
from ple_gym.traces.recording import record

ROOT = Path(__file__).resolve().parents[1]


def shown(scene: Scene) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(scene.view())
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_the_scene_names_holder_and_first_in_line() -> None:
    scene = Scene(load("Storm"))
    for event in ((0, RUN, 0, 7, -1), (1, TRY, 0, 7, 3), (1, ACQUIRE, 0, 7, 3), (2, RUN, 1, 8, -1), (3, TRY, 1, 8, 3)):
        scene.take(*event)
    scene.take(4, PLE, 1, 8, 3)
    for told in ("P0 vCPU 7 holds 3 P1 vCPU 8 spins 3 P2 idle", "3 7 on P0 8 on P1 1", "guest 2 1 0 0 1 1"):
        assert told in shown(scene)
    scene.take(5, STOP, 0, 7, -1)
    assert "3 7 off 8 on P1 1" in shown(scene)


def test_what_is_no_terminal_gets_the_last_frame(capsys: Any) -> None:
    assert cli.main(["watch", "Storm", "--policy", "xen-4.8", "--seed", "2", "--window", "3:4"]) == 0
    out = capsys.readouterr().out
    scenario = load("Storm")
    hz, trace = scenario.host.tsc_hz, record(scenario, "xen-4.8", 2)
    inside = trace[trace[:, 0] < 4 * hz // 1000]
    assert out.count("simulated") == 1 and "\x1b" not in out
    assert out.startswith(f"{inside[-1, 0] * 1e3 / hz:,.3f} ms simulated, {(inside[:, 1] == PLE).sum():,} exits")


def test_it_keeps_its_pace_and_ctrl_c_ends_it_at_once() -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "ple_gym.cli", "watch", "Storm", "--speed", "0.01"]
    run = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    )
    os.close(theirs)
    try:
        seen = b""
        while seen.count(b"simulated") < 4:  # frames
            seen += os.read(ours, 4096)
        assert 0 < float(re.findall(rb"([\d.]+) ms", seen)[-1]) < 0.1
        run.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert run.wait(20) == 130
        assert time.monotonic() - asked < 1
    finally:
        run.kill()
        run.wait()
        os.close(ours)
