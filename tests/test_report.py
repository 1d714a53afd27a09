"""The page of `ple-gym report` has everything in it, loads nothing, and runs in a browser without errors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_render import STORY

from ple_gym import cli, evaluate
from ple_gym.cli.watch import Scene
from ple_gym.evaluate import Comparison
from ple_gym.scenario.builtin import load
from ple_gym.traces.doings import doings, next_in_line
from ple_gym.traces.events import BLOCKED, HOLDING, PLE, PREEMPTED, SPINNING, WAITING
from ple_gym.traces.pictures import RGB_COLOURS
from ple_gym.traces.recording import find_busiest, record

pytest.importorskip("bokeh")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ASKED = ("report", "TicketOrder", "--policies", "xen-4.8", "oracle", "--seeds", "0:3")


def columns(page: str, name: str) -> list[int]:
    """How long the columns of this name are in the page's tables of data."""
    text = re.search(r"const docs_json = '(.*?)';\n", page)
    assert text
    found = []

    def walk(one: Any) -> None:
        if isinstance(one, list) and len(one) == 2 and one[0] == name and isinstance(one[1], dict):
            found.append(one[1]["shape"][0])
        for each in one.values() if isinstance(one, dict) else one if isinstance(one, list) else ():
            walk(each)

    walk(json.loads(text[1].replace("\\\\", "\\")))
    return found


def test_the_next_in_line_is_who_gets_it() -> None:
    assert next_in_line(STORY).tolist() == [[1, 7, 4_000, 15_000]]
    both = np.array([(0, 2, 0, 0, 5), (1, 2, 1, 1, 5), (2, 3, 1, 1, 5), (4, 4, 1, 1, 5), (6, 3, 0, 0, 5)])
    assert next_in_line(both).tolist() == [[1, 5, 1, 2], [0, 5, 2, 6]]  # who came later was served first
    assert doings(both[:0], 1)[:, [4, 5]].tolist() == [[-1, -1]] and not len(next_in_line(both[:0]))


@pytest.mark.parametrize(("name", "policy"), [("Storm", "xen-4.8"), ("Consolidated", "host")])
def test_doings_are_what_one_sees_who_takes_event_after_event(name: str, policy: str) -> None:
    scenario = load(name)
    trace = record(scenario, policy, 1)[:30_000]
    rows, scene, last = doings(trace, scenario.vcpus), Scene(scenario), 0
    for time in np.unique(trace[:, 0])[::500].tolist():
        end = int(np.searchsorted(trace[:, 0], time, "right"))
        for event in trace[last:end].tolist():
            scene.take(*event)
        last = end
        for vcpu, state, _, _, lock, pcpu in rows[(rows[:, 2] <= time) & (rows[:, 3] > time)].tolist():
            assert pcpu == (scene.on.index(vcpu) if vcpu in scene.on else -1)
            if state in (SPINNING, WAITING):
                assert lock == scene.wants[vcpu]
            elif state != BLOCKED:
                assert state == PREEMPTED or vcpu not in scene.wants
                holds = [lock for lock, owners in scene.owners.items() if vcpu in owners]
                assert lock in holds if state in (HOLDING, PREEMPTED) else not holds


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert cli.main([*ASKED, "--set", "guest.transactions=4", "--out", str(path)]) == 0
    return path


def test_the_page_has_everything_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    scenario = load("TicketOrder").with_overrides({"guest.transactions": 4})
    comparison = evaluate.compare(scenario, ["xen-4.8", "oracle"], range(3))
    assert re.findall(r"<td[^>]*>xen-4.8</td><td[^>]*>[^<]*", comparison._repr_html_())[0] in text
    for told in ("guest.transactions=4", "3: 0..2", "holds a lock off its pCPU", scenario.digest, "--seeds 0:3 "):
        assert told in text, told
    body = re.sub(r"(<script)(.*?)>.*?</script>", r"\1\2>", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|url\(|@import|<link|<iframe", body, re.IGNORECASE)
    exits, seed = [], max(comparison.runs["xen-4.8"], key=lambda run: run["ple_exits"])["seed"]
    for policy in comparison.members:
        times = record(scenario, policy, seed)
        start, stop = find_busiest(scenario, policy, seed, 5 * scenario.host.tsc_hz // 1000)
        exits.append(((times[:, 1] == PLE) & (times[:, 0] >= start) & (times[:, 0] < stop)).sum())
    assert columns(text, "at") == exits and min(exits) > 0
    assert columns(text, "value") == [3] * 4  # makespans and exits of two policies


def test_dots_are_what_the_runs_have() -> None:
    from ple_gym.report.charts import distributions

    comparison = evaluate.compare("TicketOrder", ["xen-4.8", "oracle"], range(3))
    drawn = distributions(comparison)
    for title, key, unit in (("makespan, ms", "makespan_s", 1000), ("PLE exits", "ple_exits", 1)):
        dots = [one.data_source.data["value"] for one in drawn[title].renderers if "seed" in one.data_source.data]
        runs = [[unit * run[key] for run in comparison.runs[name]] for name in comparison.members]
        assert np.array(dots) == pytest.approx(np.array(runs))


def test_names_are_escaped() -> None:
    from ple_gym.report.page import report_page
    from ple_gym.report.timeline import Timeline

    evil = "</script><script>alert(1)</script>$$x$$"
    runs = evaluate.simulate("TicketOrder", "kvm", range(2))
    scenario = replace(load("TicketOrder"), description=evil)
    comparison = Comparison(scenario, (0, 1), {evil: runs, f"{evil}2": runs}, {evil: 1.0, f"{evil}2": 1.0})
    text = report_page(comparison, [Timeline(evil, 0, 10**9, STORY, 0, 20_000)], ["report", evil])
    assert "alert(1)" in text and "<script>alert" not in text and "</script><script" not in text.lower()


def test_a_page_of_endless_vms_and_of_a_window(tmp_path: Path) -> None:
    argv = ["report", "TicketOrder", "--policies", "host", "kvm", "--seeds", "0:2", "--window", "1:1.5"]
    changes = {"guest.transactions": 0, "limit.simulated_s": 0.02}
    told = [f"{name}={value}" for name, value in changes.items()]
    assert cli.main([*argv, "--set", *told, "--out", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "vs host: throughput" in text and "transactions per simulated second" in text
    shown = re.search(r"host: seed (\d), 0.500 ms from 1.000 ms", text)
    assert shown
    scenario = load("TicketOrder").with_overrides(changes)
    trace, hz = record(scenario, "host", int(shown[1])), scenario.host.tsc_hz
    times = trace[trace[:, 1] == PLE, 0]
    assert columns(text, "at")[0] == np.diff(np.searchsorted(times, [hz // 1000, hz * 3 // 2000]))


def test_a_timeline_of_very_many_events_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from ple_gym.report import timeline

    shown = timeline.Timeline("x", 0, 10**9, STORY, 2_000, 20_000)
    assert shown.shortened().stop == 20_000
    monkeypatch.setattr(timeline, "MOST_EVENTS", 5)
    assert shown.shortened().stop == 6_000 and (shown.shortened().trace[:, 0] < 6_000).all()


def test_without_its_library_a_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main([*ASKED, "--out", "x.html"]) == 2
    assert capsys.readouterr().err == "ple-gym: error: --out needs bokeh: pip install 'ple-gym[report]'\n"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_the_page_without_errors(page: Path, width: int, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    picture = tmp_path / "page.png"
    argv = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--enable-logging=stderr",
    ]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2400", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [str(CHROMIUM), *argv, f"--screenshot={picture}", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    harmless = ("[bokeh ", "ResizeObserver loop")  # the browser's own word for a second layout
    assert said and not [line for line in said if not any(word in line for word in harmless)]
    pixels = np.round(image.imread(picture)[:, :, :3] * 255).astype(int)
    for name in ("running", "spinning", "holding"):
        assert (np.abs(pixels - RGB_COLOURS[name]).max(axis=2) <= 2).sum() > 50, name
