"""Configurations side by side: differences are those of the runs; endless VMs are told by their throughput."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ple_gym import ArgumentError, ScenarioError, cli, compare
from ple_gym.evaluate import Configurations, compare_configurations, ratio, sweep, tables
from ple_gym.scenario import SCENARIOS, Vm

ENDLESS = {"guest.transactions": 0, "limit.simulated_s": 0.002}
POLICIES = ["xen-4.8", "kvm"]


@pytest.fixture(scope="module")
def windows() -> Configurations:
    return sweep("Tiny", {"ple.window": ["2048", "8192"], "cost.exit": [1420]}, POLICIES, range(3))


def test_differences_are_paired_by_seed(windows: Configurations) -> None:
    several = [compare("Tiny", POLICIES, range(3), {"ple.window": window}) for window in (2048, 8192)]
    rows = windows.rows()
    assert [(row.setting["ple.window"], row.policy) for row in rows] == [(w, p) for w in (2048, 8192) for p in POLICIES]
    for row, (number, policy) in zip(rows, [(n, p) for n in (0, 1) for p in POLICIES], strict=True):
        known = several[number].rows()[POLICIES.index(policy)]
        assert (row.makespan_s, row.ple_exits, row.vs_baseline) == (known.makespan_s, known.ple_exits, known.log_ratio)
        logs = np.log(several[number].makespans(policy) / several[0].makespans(policy))
        assert row.vs_first == (ratio(logs) if number else None)
    assert rows[2].vs_first is not None and rows[2].vs_first.mean != 0


def test_endless_vms_are_told_by_their_throughput() -> None:
    guests = {"one": SCENARIOS["TicketOrder"].with_overrides(ENDLESS)}
    guests["two"] = replace(guests["one"], neighbours=(Vm(vcpus=1, transactions=0, compute="constant 100000000"),))
    result = compare_configurations(guests, POLICIES, range(3))
    rows = {(row.setting["configuration"], row.policy, row.vm): row for row in result.rows()}
    assert list(rows)[3:] == [
        ("two", "xen-4.8", "neighbours.0"),
        ("two", "kvm", "guest"),
        ("two", "kvm", "neighbours.0"),
    ]
    per_s = [one.of_vm("kvm", 0, "transactions_per_s") for one in result.comparisons]
    row = rows["two", "kvm", "guest"]
    assert row.makespan_s is None and row.vs_first == ratio(np.log(per_s[1] / per_s[0]))
    assert row.transactions_per_s is not None and row.transactions_per_s.mean == per_s[1].mean()
    assert rows["two", "kvm", "neighbours.0"].vs_baseline is None  # it completes nothing
    assert rows["two", "kvm", "neighbours.0"].vs_first is None  # and is not in the first
    table = tables.comparison_table(result.comparisons[1])
    assert table.title == "TicketOrder: 3 seeds, transactions per simulated second"
    assert table.key.cells == [f"{policy}, {vm}" for policy in POLICIES for vm in ("guest", "neighbours.0")]
    assert (
        result.comparisons[1].records()[0]["transactions_per_s"]
        == rows["two", "xen-4.8", "guest"].transactions_per_s.mean
    )
    assert "throughput" in tables.comparison_note(result.comparisons[1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "sweep: there must be a parameter"),
        ({"ple.window": []}, "sweep: there must be a parameter, and a value of each"),
        ({"ple.window": ["1024", "1_024"]}, "sweep: ple.window=1024 is there 2 times, must be once"),
        ({"ple.windo": [1]}, "unknown parameter 'ple.windo'; did you mean 'ple.window'?"),
        ({"guest.transactions": [1, 0]}, "configuration '0': a run must have an end in all configurations, or in none"),
    ],
)
def test_wrong_sweeps_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentError, ScenarioError)) as raised:
        sweep("Tiny", parameters)
    assert str(raised.value).startswith(message)


def test_a_sweep_is_drawn_with_its_intervals(windows: Configurations) -> None:
    pytest.importorskip("matplotlib")
    from ple_gym.evaluate.pictures import sweep_figure

    (panel,) = sweep_figure(windows).axes
    assert [text.get_text() for text in panel.get_xticklabels()] == ["2048", "8192"]
    for container, policy in zip(panel.containers, POLICIES, strict=True):
        rows = [row for row in windows.rows() if row.policy == policy]
        line, _, (bars,) = container.lines
        assert list(line.get_ydata()) == [1e3 * row.makespan_s.mean for row in rows if row.makespan_s]
        ends = [[1e3 * row.makespan_s.low, 1e3 * row.makespan_s.high] for row in rows if row.makespan_s]
        assert [list(one[:, 1]) for one in bars.get_segments()] == [pytest.approx(pair) for pair in ends]


def test_a_sweep_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    argv = ["sweep", "Tiny", "--sweep", "profile=xen-4.8,zen-kvm-6.18", "--policies", "host", "kvm", "--seeds", "0:2"]
    assert cli.main([*argv, "--picture", "a.png", "--csv", "a.csv", "--json", "a.json"]) == 0
    out = capsys.readouterr().out
    assert "profile, policy" in out and "vs host" in out and "vs xen-4.8" in out
    document = json.loads(Path("a.json").read_text())
    assert set(document["provenance"]["scenarios"]) == {"xen-4.8", "zen-kvm-6.18"}
    lines = [line for line in Path("a.csv").read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert [row["profile"] for row in rows] == [row["profile"] for row in document["rows"]]
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_configurations_are_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--policies", "host", "--seeds", "0:2", "--json", "-"]
    assert cli.main(["compare", "Tiny", "--set", "ple.gap=100", "--against", "ple.window=9000", *common]) == 0
    one, other = json.loads(capsys.readouterr().out)["configurations"]
    assert other["setting"] == {"configuration": "ple.window=9000"}
    assert other["parameters"] == {**one["parameters"], "ple.window": 9000}
    assert one["parameters"]["ple.gap"] == 100
    assert cli.main(["compare", "Tiny", "TicketOrder", *common]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["configuration"] for row in document["rows"]] == ["Tiny", "TicketOrder"]
