"""Files of runs: what a Linux host would have seen of a run, and the events themselves, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ple_gym import cli
from ple_gym.errors import TraceError
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.traces import writers
from ple_gym.traces.events import (
    IDLE,
    KIND_NAMES,
    NOISE,
    PLE,
    Ints,
    occupancy,
    to_chrome_json,
    window,
)
from ple_gym.traces.linux import (
    ENTRY,
    EXIT,
    FIRST_VCPU_PID,
    HALT,
    INTERRUPT,
    IS_PREEMPTED,
    LOCK_BYTES,
    NOISE_PID,
    PAUSE,
    SLEEPS,
    SPIN_RIP,
    SWITCH,
    WAKEUP,
    YIELDS,
    Observer,
    nanoseconds,
)
from ple_gym.traces.readers import read_trace
from ple_gym.traces.recording import record, record_pieces
from ple_gym.traces.writers import WRITERS, write_run
from tests import worlds

MIXED = load("Paper8").with_overrides(
    {
        "guest.transactions": 60,
        "guest.locks": 8,
        "guest.start": "convoy",
        "noise.rate_hz": 300,
        "noise.level": "constant 1000",
    }
)  # storms, noise, preemptions and sleeps within 12 ms


class Seen(NamedTuple):
    """One event of a host, in cycles."""

    time: int
    kind: int
    cpu: int
    pid: int
    other: int = -1
    state: int = 0
    reason: int = -1


def plain_host(rows: Ints, scenario: Scenario) -> list[Seen]:
    """What a host sees of a whole run, one row after the other."""
    seen: list[Seen] = []
    asleep: set[int] = set()
    has = [IDLE] * scenario.host.pcpus
    paused = [False] * len(has)  # its vCPU has just exited, and it is not yet known who goes on
    freed: dict[int, int] = {}  # pCPU -> who has left it at this moment: somebody may come

    def switch(time: int, p: int, v: int) -> None:
        before = freed.pop(p) if p in freed else has[p]
        has[p] = v
        if before == v:
            return
        if before >= 0 and before not in asleep and not paused[p]:
            seen.append(Seen(time, EXIT, p, before, reason=INTERRUPT))
        sleeps = before == NOISE or before in asleep
        state = SLEEPS if sleeps else YIELDS if paused[p] or before == IDLE else IS_PREEMPTED
        seen.append(Seen(time, SWITCH, p, before, v, state))
        if v >= 0:
            late = scenario.cost.switch + scenario.cost.exit * paused[p]
            seen.append(Seen(time + late, ENTRY, p, v))
        paused[p] = False

    def settle(time: int, p: int) -> None:
        """Nothing more happens to a pCPU at this moment, or its vCPU exits again."""
        if p in freed:
            switch(time, p, IDLE)
        if paused[p]:
            seen.append(Seen(time + scenario.cost.exit, ENTRY, p, has[p]))
        paused[p] = False

    for time, among in groupby(rows.tolist(), key=itemgetter(0)):
        for _, kind, p, v, _ in among:
            name = KIND_NAMES[kind]
            if name == "PLE":
                settle(time, p)
                seen.append(Seen(time, EXIT, p, v, reason=PAUSE))
                paused[p] = True
            elif name == "BLOCK":
                asleep.add(v)
                if p >= 0 and has[p] == v:
                    seen.append(Seen(time, EXIT, p, v, reason=HALT))
            elif name == "WAKE":
                asleep.discard(v)
                seen.append(Seen(time, ENTRY, p, v) if has[p] == v else Seen(time, WAKEUP, p, has[p], v))
            elif name in ("STOP", "NOISE_END"):
                freed[p] = has[p]
                has[p] = IDLE
            elif name in ("RUN", "NOISE_BEGIN"):
                switch(time, p, v if name == "RUN" else NOISE)
        for p in range(len(has)):
            settle(time, p)
    return sorted(seen, key=attrgetter("time"))


def pid(who: int) -> int:
    return {IDLE: 0, NOISE: NOISE_PID}.get(who, FIRST_VCPU_PID + who)


def observed(rows: Ints, scenario: Scenario, cuts: list[int]) -> np.ndarray:
    observer = Observer(scenario)
    parts = [observer.add(piece).events for piece in np.split(rows, sorted(cuts))]
    return np.concatenate([*parts, observer.end().events])


def check_host(scenario: Scenario, rows: Ints, cuts: list[int]) -> None:
    """Compare what a host sees with the plain version, whatever the pieces."""
    events, expected = observed(rows, scenario, cuts), plain_host(rows, scenario)
    assert (np.diff(events["time"]) >= 0).all()
    told = [
        (int(nanoseconds(np.array([one.time]), scenario.host.tsc_hz)[0]), one.kind, one.cpu, pid(one.pid),
         pid(one.other) if one.kind in (SWITCH, WAKEUP) else -1, one.state, one.reason)
        for one in expected
    ]  # fmt: skip
    names = ["time", "kind", "cpu", "pid", "other", "state", "reason"]
    for p in range(scenario.host.pcpus):  # what happens on several at a time has no order
        assert events[events["cpu"] == p][names].tolist() == [one for one in told if one[2] == p]


@given(worlds.scenarios(), st.sampled_from(["host", "kvm", "xen-4.5", "oracle"]), st.lists(st.integers(0, 2000)))
def test_a_host_sees_of_any_run_what_a_plain_observer_does(scenario: Scenario, policy: str, cuts: list[int]) -> None:
    rows = record(worlds.affordable(scenario, policy, 1), policy, 1)
    check_host(scenario, rows[:3000], cuts)


def test_a_guest_is_entered_before_it_is_left() -> None:
    rows = record(MIXED, "xen-4.5", 0)
    events = observed(rows, MIXED, [])
    assert {HALT, INTERRUPT, PAUSE} <= set(events["reason"].tolist()) and NOISE_PID in events["pid"]
    for vcpu in range(MIXED.vcpus):
        own = events[(events["pid"] == FIRST_VCPU_PID + vcpu) & np.isin(events["kind"], (ENTRY, EXIT))]
        assert len(own) and (own["kind"][::2] == ENTRY).all() and (own["kind"][1::2] == EXIT).all()
    exits = events[events["reason"] == PAUSE]
    assert len(exits) == (rows[:, 1] == PLE).sum()
    assert set((exits["rip"] - np.uint64(SPIN_RIP)).tolist()) == {
        LOCK_BYTES * lock for lock in rows[rows[:, 1] == PLE, 4].tolist()
    }
    changes = occupancy(rows, MIXED.host.pcpus)
    assert (events["kind"] == SWITCH).sum() == (changes[:, 2] >= 0).sum()


def test_numbers_of_vcpus_are_those_within_their_vm() -> None:
    scenario = load("Storm").with_overrides({"guest.transactions": 2})
    scenario = Scenario.from_dict({**scenario.to_dict(), "neighbours": [{"vcpus": 3, "count": 2}]})
    observer = Observer(scenario)
    assert observer.comms[FIRST_VCPU_PID + 32] == "vm1-vcpu0" and observer.comms[FIRST_VCPU_PID + 37] == "vm2-vcpu2"


def test_a_written_run_is_read_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = observed(record(MIXED, "xen-4.5", 0), MIXED, [])
    hz = MIXED.host.tsc_hz
    start, stop = hz // 500, hz // 100
    assert write_run(MIXED, "xen-4.5", 0, tmp_path / "all.ftrace") == len(record(MIXED, "xen-4.5", 0))
    write_run(MIXED, "xen-4.5", 0, tmp_path / "part.txt", start, stop)
    everything, part = read_trace(tmp_path / "all.ftrace"), read_trace(tmp_path / "part.txt")
    assert everything.bad == part.bad == 0
    fields = [name for name in whole.dtype.names or () if name != "reason"]
    assert (everything.trace.events[fields] == whole[fields]).all()
    within = whole[(whole["time"] >= 2_000_000) & (whole["time"] < 10_000_000)]
    assert 0 < len(within) < len(whole) and (part.trace.events[fields] == within[fields]).all()


def test_pieces_are_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[Ints] = []
    record_pieces(MIXED, "xen-4.5", 0, lambda piece: pieces.append(piece.copy()))
    assert (np.concatenate(pieces) == record(MIXED, "xen-4.5", 0)).all()


def test_a_table_has_every_event(tmp_path: Path) -> None:
    scenario = Scenario.from_dict({**load("Tiny").to_dict(), "neighbours": [{"vcpus": 2}]})
    rows, hz = record(scenario, "kvm", 2), scenario.host.tsc_hz
    stop = int(rows[len(rows) // 2, 0])
    assert write_run(scenario, "kvm", 2, tmp_path / "run.csv", 0, stop) == len(window(rows, 0, stop))
    with open(tmp_path / "run.csv", newline="", encoding="ascii") as file:
        assert file.readline() == "# ple_gym\n"
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == writers.CSV_COLUMNS
    number = lambda text: int(text) if text else -1  # noqa: E731
    assert {(row["rule"], row["lock"]) for row in table if row["event"] == "DECIDE"} == {("kvm", "")}
    assert {row["rule"] + row["action"] for row in table if row["event"] != "DECIDE"} == {""}
    assert [
        (
            int(row["tsc"]),
            row["event"],
            *(number(row[name]) for name in ("pcpu", "vcpu", "action" if row["event"] == "DECIDE" else "lock")),
        )
        for row in table
    ] == [(time, KIND_NAMES[kind], *others) for time, kind, *others in window(rows, 0, stop).tolist()]
    for row in table:
        assert int(row["ns"]) == int(row["tsc"]) * 10**9 // hz
        assert number(row["vm"]) == (-1 if not row["vcpu"] else int(int(row["vcpu"]) >= scenario.guest.vcpus))


def test_parquet_has_the_same_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("csv", "parquet"):
        write_run(MIXED, "xen-4.5", 0, tmp_path / f"run.{suffix}", 10**6, 10**7)
    table = parquet.read_table(tmp_path / "run.parquet")
    with open(tmp_path / "run.csv", newline="", encoding="ascii") as file:
        rows = list(csv.DictReader(line for line in file if line[0] != "#"))
    text = {
        name: ["" if value is None else str(value) for value in table[name].to_pylist()] for name in table.schema.names
    }
    assert rows and text == {name: [row[name] for row in rows] for name in writers.CSV_COLUMNS}
    assert table.schema.metadata[b"tsc_hz"] == str(MIXED.host.tsc_hz).encode()


def test_chrome_json_is_that_of_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, hz = record(MIXED, "xen-4.5", 0), MIXED.host.tsc_hz
    write_run(MIXED, "xen-4.5", 0, tmp_path / "run.json", hz // 500, hz // 100)
    text = (tmp_path / "run.json").read_text(encoding="ascii")
    assert text == to_chrome_json(
        window(rows, hz // 500, hz // 100), hz, rule="xen-4.5", origin="ple_gym"
    ) and json.loads(text)
    monkeypatch.setattr(writers, "CHROME_EVENTS", 100)
    with pytest.raises(TraceError, match=r"more than 100 events are too many for \.json"):
        write_run(MIXED, "xen-4.5", 0, tmp_path / "run.json")
    assert os.listdir(tmp_path) == ["run.json"] and (tmp_path / "run.json").read_text(encoding="ascii") == text


SUFFIXES = [suffix for suffix in sorted(WRITERS) if suffix != ".parquet" or find_spec("pyarrow")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_of_a_run_that_is_interrupted(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupted(now: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_run(MIXED, "xen-4.5", 0, f"run{suffix}", progress=interrupted)
    assert os.listdir(tmp_path) == []


def test_the_command_writes_each_kind_and_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in SUFFIXES:
        argv = ["trace", "Tiny", "--policy", "kvm", "--seed", "2", "--window", "0.5:2", "--out", f"run{suffix}"]
        assert cli.main(argv) == 0
        hz = load("Tiny").host.tsc_hz
        count = len(window(record(load("Tiny"), "kvm", 2), hz // 2000, hz // 500))
        assert capsys.readouterr().out == f"{count:,} events of seed 2 under kvm: run{suffix}\n"
    for suffix in SUFFIXES:
        made = (
            f"ple-gym trace Tiny --policy kvm --seed 2 --window 0.5:2 --out run{suffix}; scenario {load('Tiny').digest}"
        )
        assert made.encode() in Path(f"run{suffix}").read_bytes(), suffix
    assert Path("run.csv").read_text(encoding="utf-8").split("\n")[1] == ",".join(writers.CSV_COLUMNS)
    times = read_trace("run.ftrace").trace.events["time"]
    assert times[0] >= 500_000 and times[-1] < 2_000_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "run.xml"), "run.xml: the name must end in .ftrace, .txt, .csv, .json"),
        (("--out", "-"), "--out -: must be a file"),
        (("--out", "no/run.csv"), "no/run.csv: cannot be written: No such file or directory"),
        (("--out", "run.csv", "--window", "3:2"), "--window 3:2: must be FROM:TO in simulated ms, FROM below TO: 10"),
        (("--out", "run.csv", "--window", "0:0"), "--window 0:0: must be FROM:TO"),
        (("--out", "run.csv", "--window", "7"), "--window 7: must be FROM:TO"),
        (("--out", "run.csv", "--window", "nan:"), "--window nan:: must be FROM:TO"),
        (("--out", "run.csv", "--seed", "0:2"), "--seed 0:2: must be one number"),
        (("--out", "run.csv", "--seed", "x"), "seeds = 'x'"),
        (("--out", "run.csv", "--policy", "nope"), "unknown policy 'nope'"),
        (("--out", "run.csv", "--policy", "./agent.py:Agent"), "--policy ./agent.py:Agent: must be a rule or learned"),
        ((), "Missing from ple-gym trace: --out"),
    ],
)
def test_mistakes_give_one_line_and_no_file(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "./agent.py:Agent" in words:
        Path("agent.py").write_text(
            "class Agent:\n    def predict(self, observation, state=None, episode_start=None, deterministic=True):\n"
            "        return 0, None\n"
        )
    before = os.listdir()
    assert cli.main(["trace", "Tiny", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"ple-gym: error: {message}")
    assert sorted(set(os.listdir()) - {"__pycache__"}) == sorted(before)
