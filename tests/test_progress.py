"""What is shown while something takes long, on a terminal and elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ple_gym import bench, cli, compilation, evaluate, progress
from ple_gym.scenario.builtin import load

ROOT = Path(__file__).resolve().parents[1]


def on_a_terminal(script: str) -> str:
    """What a script writes to a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = io.BytesIO()
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown.write(data)
    os.close(master)
    assert process.wait(60) == 0
    return shown.getvalue().decode(errors="replace")


def test_without_a_terminal_a_bar_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.bar("runs", 4) as report:
        report(1)
        report(2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    with progress.bar("runs", 4) as report:
        report(1)
        report(3, "seed 5")
    with progress.bar("drawing", 8, "%") as report:
        report(2)
    assert capsys.readouterr().err.splitlines() == ["runs: 1 of 4", "runs: 3 of 4, seed 5", "drawing: 25 %"]


def test_a_quiet_bar_shows_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    with progress.bar("runs", 4, quiet=True) as report:
        report(1, "a note")
    assert capsys.readouterr().err == ""


def test_there_is_one_bar_for_all_commands() -> None:
    sources = [path for folder in ("ple_gym", "agents", "experiments") for path in (ROOT / folder).rglob("*.py")]
    drawing = [path for path in sources if re.search(r"rich\.progress|tqdm\b.*import|import tqdm", path.read_text())]
    assert drawing == [ROOT / "ple_gym" / "progress.py"]


def test_only_what_lasts_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.waiting("drawing"):
        pass
    assert capsys.readouterr().err == ""
    with progress.waiting(lambda: None, patience_s=0.01):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with progress.waiting("drawing: a while", patience_s=0.01):
        time.sleep(0.2)
    assert capsys.readouterr().err.splitlines() == ["drawing: a while", "drawing: done after 0 s"]
    with pytest.raises(KeyboardInterrupt), progress.waiting("drawing", patience_s=0.01):
        time.sleep(0.2)
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "drawing\n"  # it is not done


def test_a_terminal_shows_elapsed_time_and_how_far_it_is() -> None:
    shown = on_a_terminal(
        "import time; from ple_gym import progress\n"
        "with progress.waiting('compiling', 0.01): time.sleep(1.3)\n"
        "with progress.bar('runs', 4) as report: report(3, 'seed 5: 0.25 s simulated'); time.sleep(0.3)\n"
        "with progress.bar('drawing', 8, '%') as report: report(2); time.sleep(0.3)\n"
        "with progress.steps('measuring', 3) as announce: announce('a'); announce('b'); time.sleep(0.3)\n"
    )
    for text in ("compiling", "0:00:01", "3/4", "seed 5: 0.25 s simulated", "25 %", "1/3", "b"):
        assert text in shown, text


def test_bench_announces_every_subject_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.steps("measuring", 2) as announce:
        announce("a")
        announce("b")
    assert capsys.readouterr().err.splitlines() == ["measuring: a", "measuring: b"]
    assert len(bench.subjects(True)) == len(bench.subjects()) - 2 == 6


def test_a_compilation_is_announced_with_its_price_and_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "is_warm", lambda *_: False)
    monkeypatch.setattr(compilation, "cache_folder", lambda: "/somewhere")
    assert compilation.compiling() == "compiling the simulator: a quarter of a minute to a minute of CPU time, once"
    assert "a minute to three minutes" in str(compilation.compiling("credit", "fair"))
    monkeypatch.setattr(compilation, "cache_folder", lambda: None)
    told = compilation.compiling() or ""
    assert "in every process" in told and "NUMBA_CACHE_DIR" in told and "once" not in told
    monkeypatch.setattr(compilation, "is_warm", lambda *_: True)
    assert compilation.compiling() is None


@pytest.mark.parametrize("name", ["Tiny", "KvmWindows"])
def test_what_a_scenario_needs_is_compiled_where_an_interrupt_is_heard(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by the threads that run it."""
    scenario, compiled = load(name), []
    monkeypatch.setattr("ple_gym.evaluate.runs.is_warm", lambda *schedulers: False)
    monkeypatch.setattr("ple_gym.evaluate.runs.warm_up", lambda *schedulers: compiled.append(schedulers))
    evaluate.simulate(scenario, "host", 0)
    assert compiled == [(scenario.host.scheduler,)]
    assert compilation.units(*compiled[0])[0].is_ready, "it is what ran"


def test_warmup_names_the_remedy_without_a_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "cache_folder", lambda: None)
    monkeypatch.setattr(compilation, "loaded_from", lambda: None)
    assert cli.main(["warmup"]) == 0
    assert (
        "cache: none (no folder to keep it in can be written to: set NUMBA_CACHE_DIR to one)" in capsys.readouterr().out
    )


def test_a_long_run_tells_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setattr("ple_gym.evaluate.runs.LONG_S", 0.0)
    convoy = {"guest.start": "convoy", "guest.transactions": 2000}
    runs = evaluate.simulate("Paper8", "continue", 3, convoy, progress=True, threads=1)
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "runs: 1 of 1"
    assert told[0].startswith("runs: 0 of 1, seed 3 under continue: ")
    assert told[0].endswith(" of at most 60 s simulated")
    times = [float(line.split()[8]) for line in told[:-1]]
    assert times == sorted(times) and 0 < times[0] <= times[-1] <= runs[0]["simulated_s"] + 0.01
    counted: list[int] = []
    assert evaluate.simulate("Paper8", "continue", 3, convoy, progress=counted.append, threads=1) == runs
    assert counted == [1]  # a function is only told of runs that are done
