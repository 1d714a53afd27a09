"""Files of a machine become a scenario: what the simulator wrote gives its parameters back, and no file does harm."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ple_gym import cli
from ple_gym.cli.measure import measured as measured_by_command
from ple_gym.errors import PleError, TraceError
from ple_gym.measure.fit import fit
from ple_gym.measure.guest import GuestMeter
from ple_gym.measure.machine import DEFAULT, assemble, distribution, mean_of, measure_file, quantile
from ple_gym.scenario import Scenario, Vm
from ple_gym.scenario.builtin import load
from ple_gym.scenario.distributions import QUANTILES, quantile_table
from ple_gym.traces.events import ACQUIRE, BLOCK, PLE, RELEASE, RUN, STOP, TRY, WAKE
from ple_gym.traces.lines import MAX_LINE
from ple_gym.traces.lock_tables import LockClass, LockTable
from ple_gym.traces.sources import SOURCES, read_source
from ple_gym.traces.tables import EventTable, read_table
from ple_gym.traces.writers import write_run

DATA = Path(__file__).parent / "data"
SHARES = (0.5, 0.9, 0.99)
ALWAYS = {"guest.lock_probability": 1.0}
#: Scenario, changes, policy; what is known beforehand of each are its costs, but for that of an exit.
WORLDS = {
    "sleeps and noise": (
        "Paper8",
        ALWAYS | {"guest.transactions": 4000, "guest.block_probability": 0.3, "noise.rate_hz": 1000,
                  "noise.burst_us": 100, "noise.level": "constant 1000"},
        "xen-4.5",
    ),
    "a storm": ("Storm", ALWAYS | {"guest.transactions": 2000, "guest.start": "fresh"}, "xen-4.5"),
    "neighbours": ("Paper32", ALWAYS | {"guest.transactions": 3000, "noise.rate_hz": 0}, "kvm"),
    "many VMs, private locks": ("Consolidated", {"guest.transactions": 300}, "kvm"),
    "Linux": ("KvmDbench", {"guest.hot_probability": 0.2}, "host"),
}  # fmt: skip


def world(name: str) -> tuple[Scenario, str]:
    scenario, changes, policy = WORLDS[name]
    return load(scenario).with_overrides(changes), policy


def known(scenario: Scenario) -> Scenario:
    """What somebody knows of the machine who measures: not how many pCPUs it has, nor what is in the trace."""
    return Scenario(
        host=replace(scenario.host, pcpus=256),
        cost=replace(scenario.cost, exit=1),
        ple=scenario.ple,
        guest=Vm(spin_period=scenario.guest.spin_period),
    )


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def at(text: str, share: float) -> float:
    return float(np.interp(share, [float(one) for one in QUANTILES], quantile_table(text)))


def close(a: float, b: float, percent: float) -> bool:
    return abs(a / b - 1) <= percent / 100


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORLDS)
def test_what_the_simulator_wrote_gives_its_parameters_back(name: str) -> None:
    scenario, policy = world(name)
    write_run(scenario, policy, 0, "run.csv")
    one = measure_file("run.csv", known(scenario))
    machine = assemble("again", [one], {})
    again, true, vm = machine.scenario, scenario.guest, one.vms[0]
    lock, sleep = true.lock_probability, true.block_probability
    # Nobody sees private locks: a stretch is what is computed between the events that are seen.
    stretch = mean_of(true.compute) / (1 - (1 - lock) * (1 - sleep))
    texts = {"compute": f"exponential {round(stretch)}", "hold": true.hold, "block": true.block}
    for key, text in texts.items():
        if key == "block" and not sleep:
            continue
        for share in SHARES:
            assert close(at(getattr(again.guest, key), share), at(text, share), 5), (key, share)
    computed = sum(vm.samples["compute"])
    assert close(vm.asked / computed, lock / mean_of(true.compute), 3)
    assert close(again.guest.lock_probability / mean_of(again.guest.compute), lock / mean_of(true.compute), 3)
    rates = again.guest.block_probability / mean_of(again.guest.compute), sleep / mean_of(true.compute)
    assert close(*rates, 3) if sleep else not rates[0]
    assert (again.guest.vcpus, again.guest.count, again.guest.locks) == (true.vcpus, true.count, true.locks)
    assert abs(again.guest.hot_probability - true.hot_probability) < 0.01
    assert [(one.vcpus, one.count, one.takes_locks) for one in again.neighbours] == [
        (one.vcpus, one.count, one.takes_locks) for one in scenario.neighbours
    ]
    assert (again.host.pcpus, again.host.tsc_hz) == (scenario.host.pcpus, scenario.host.tsc_hz)
    assert again.cost.exit == (scenario.cost.exit if "cost.exit" in machine.notes else Scenario().cost.exit)
    assert ("cost.exit" in machine.notes) == (name in ("a storm", "many VMs, private locks"))
    if scenario.noise.rate_hz:
        assert close(again.noise.rate_hz, scenario.noise.rate_hz, 3)
        assert close(again.noise.burst_us, scenario.noise.burst_us, 3)


def test_what_a_linux_host_sees_gives_its_part_back() -> None:
    scenario, policy = world("sleeps and noise")
    write_run(scenario, policy, 0, "run.ftrace")
    hz = {"host.tsc_hz": scenario.host.tsc_hz}
    one = measure_file("run.ftrace", Scenario().with_overrides(hz))
    again = assemble("again", [one], hz).scenario
    for share in SHARES:
        assert close(at(again.guest.block, share), at(scenario.guest.block, share), 5)
    assert close(again.cost.switch, scenario.cost.switch, 7) and again.host.scheduler == "fair"  # with the ns' rounding
    assert close(again.noise.burst_us, 100, 3) and (again.host.pcpus, again.guest.vcpus) == (4, 8)
    guest = scenario.guest
    whole = mean_of(guest.compute) + mean_of(guest.hold)
    assert close(
        one.sleeps[0][0], guest.block_probability / whole, 15
    )  # in it are refills of caches, which nobody sees
    write_run(*world("many VMs, private locks"), 0, "more.ftrace")
    more = assemble("more", [measure_file("more.ftrace", Scenario())], {}).scenario
    assert (more.guest.vcpus, more.guest.count, more.host.pcpus) == (4, 48, 16)
    assert close(more.cost.exit, Scenario().cost.exit, 7)  # KVM's handler there looks at no candidate


def test_the_new_scenario_behaves_as_what_was_measured() -> None:
    write_run(*world("sleeps and noise"), 0, "run.csv")
    one = measure_file("run.csv", Scenario())
    rows = {row.what: row for row in fit(assemble("again", [one], {}).scenario, [one])}
    for what in ("computes", "holds", "sleeps"):
        measured, simulated = rows[what].measured, rows[what].simulated
        assert measured and simulated
        assert all(close(a, b, 7) for a, b in zip(simulated.quantiles, measured.quantiles, strict=True)), what
    locks = rows["locks per s of computing"]
    assert locks.measured and locks.simulated and close(locks.measured.mean, locks.simulated.mean, 3)


@given(st.lists(st.integers(-5, 10**12), min_size=1, max_size=200))
def test_any_durations_are_a_distribution_between_their_extremes(values: list[int]) -> None:
    table = quantile_table(distribution(array("q", values)))
    clipped = [min(max(value, 1), 10**11) for value in values]
    assert (table[0], table[-1]) == (min(clipped), max(clipped))


def test_a_measured_distribution_has_the_values_and_the_mean() -> None:
    values = array("q", np.random.default_rng(1).exponential(100_000, 30_000).astype(np.int64).tolist())
    text = distribution(values)
    assert all(close(at(text, share), quantile(values, share), 1) for share in SHARES)
    assert close(mean_of(text), sum(values) / len(values), 1)
    assert distribution(array("q", [7, 7])) == "constant 7"


# --- in time of the guest ---------------------------------------------------------------------------------------------


def test_time_off_the_pcpu_and_what_switches_cost_are_not_the_guests() -> None:
    scenario = Scenario().with_overrides(
        {"cost.switch": 10, "cost.cache": 100, "cost.migration": 200, "cost.exit": 30, "host.pcpus": 2}
    )
    events = [
        (0, RUN, 0, 0, -1), (0, RUN, 1, 1, -1), (500, TRY, 0, 0, 7), (500, ACQUIRE, 0, 0, 7),
        (700, STOP, 0, 0, -1), (700, RUN, 0, 2, -1), (5000, STOP, 1, 1, -1), (5000, RUN, 1, 0, -1),
        (5400, RELEASE, 1, 0, 7),  # held for 200, and for 400 less a switch and a refill
        (5500, TRY, 1, 0, 7), (5500, ACQUIRE, 1, 0, 7), (5600, RELEASE, 1, 0, 7), (5650, BLOCK, 1, 0, -1),
        (5650, STOP, 1, 0, -1), (6000, WAKE, 1, 0, -1), (6100, RUN, 1, 0, -1), (6200, TRY, 1, 0, 8),
        (6300, PLE, 1, 0, 8), (6430, PLE, 1, 0, 8), (6430, STOP, 1, 0, -1), (6430, RUN, 1, 1, -1),
    ]  # fmt: skip
    meter = GuestMeter(scenario, [0, 0, 0])
    meter.add(np.array(events[:9]))
    meter.add(np.array(events[9:]))
    (vm,) = meter.vms()
    assert list(vm.samples["hold"]) == [200 + 400 - 10 - 200, 100]
    assert list(vm.samples["compute"]) == [100, 50, 6200 - 6100 - 10]  # nobody knows when the first one began
    assert list(vm.samples["block"]) == [350] and (vm.asked, vm.tries, vm.exits) == (2, 3, 2)


def test_a_halt_while_it_waits_and_the_end_of_work_are_no_sleeps() -> None:
    events = [(10, TRY, 0, 0, 1), (20, BLOCK, 0, 0, 1), (60, WAKE, 0, 0, 1), (70, ACQUIRE, 0, 0, 1),
              (80, RELEASE, 0, 0, 1), (90, BLOCK, 0, 0, -1)]  # fmt: skip
    meter = GuestMeter(Scenario(), [0], switches=False)
    meter.add(np.array(events))
    (vm,) = meter.vms()
    assert {key: list(values) for key, values in vm.samples.items()} == {
        "compute": [], "hold": [10], "block": [], "wait": [60], "run": [],
    }  # fmt: skip


# --- tables that others write -----------------------------------------------------------------------------------------


def read(name: str) -> EventTable | LockTable:
    found = read_source(DATA / name)
    assert isinstance(found, EventTable | LockTable)
    return found


def test_the_papers_kind_of_table_is_read() -> None:
    holds = read("paper-holds.csv")
    assert isinstance(holds, EventTable) and holds.vm_of == (0, 0) and holds.hz == 0
    assert [number for number, _ in holds.lines.shown] == [6, 8]  # released before it is acquired; too few words
    assert len(holds.rows) == 12 and holds.rows[0].tolist() == [1000, TRY, -1, 0, 0]
    exits = read("paper-exits.csv")
    assert (
        isinstance(exits, EventTable) and exits.pcs == 2 and exits.told()[1] == "line 6: '19560,,1,0xffffffff8119fd90'"
    )
    files = [measure_file(str(DATA / name), Scenario()) for name in ("paper-holds.csv", "paper-exits.csv")]
    machine = assemble("paper", files, {})
    assert machine.scenario.guest.hold == "knots 0:500 0.5:600 1:800"
    assert machine.scenario.cost.exit == 1420 and machine.scenario.guest.pc_classes == 2
    assert machine.notes["guest.hold"].startswith("paper-holds.csv: 4 holds, time of the clock")


def test_events_may_have_names_of_any_kind_and_stand_in_any_order() -> None:
    text = "vcpu,event,lock,tsc\nfirst, release ,a,30\nfirst,TRY,a,10\nfirst,acquire,a,20\nsecond,exit,b,40\n"
    found = read_table(text.encode())
    assert found.rows[:, [0, 1, 3, 4]].tolist() == [[10, TRY, 0, 0], [20, ACQUIRE, 0, 0], [30, RELEASE, 0, 0],
                                                   [40, PLE, 1, 1]]  # fmt: skip


def test_tables_of_locks_are_read() -> None:
    stat, report = read("guest.lock_stat"), read("guest.perf-lock")
    assert isinstance(stat, LockTable) and isinstance(report, LockTable)
    assert stat.classes == (
        LockClass("&a->first_lock", 300_000, 1000, 2_000_000, 300_000_000),
        LockClass("second_lock-R", 100_000, 0, 0, 50_000_000),
    )
    assert report.classes[0] == LockClass("&a->first_lock", 300_000, 1000, 2_000_000)
    assert [one.name for one in report.classes] == ["&a->first_lock", "&(ei->i_block_re..."]
    assert [stat.lines.bad, report.lines.bad] == [1, 1]
    old = b"Name acquired contended avg wait (ns) total wait (ns) max wait (ns) min wait (ns)\nfs->lock 64 2 5 10 7 3\n"
    (lock,) = SOURCES["perf-lock"].read(old).classes  # type: ignore[union-attr]
    assert lock == LockClass("fs->lock", 64, 2, 10)


def test_a_table_of_locks_gives_means_and_a_rate() -> None:
    one = measure_file(str(DATA / "guest.lock_stat"), Scenario(), seconds=2.0)
    machine = assemble("locks", [one], {})
    guest, us = machine.scenario.guest, 2670
    hold = 350_000 / 400_000 * us
    assert guest.hold == f"exponential {round(hold)}" and (guest.locks, guest.hot_probability) == (2, 0.5)
    assert mean_of(guest.compute) == pytest.approx(8 * 2.0 * 2.67e9 / 400_000 - hold, rel=1e-3)
    rows = {row.what: row for row in fit(machine.scenario, [one])}
    assert rows["holds"].measured and close(rows["holds"].measured.mean, 0.875, 0.1)
    assert rows["holds"].simulated and close(rows["holds"].simulated.mean, 0.875, 5)
    assert "guest.compute" not in assemble("locks", [measure_file(str(DATA / "guest.lock_stat"), Scenario())], {}).notes


def test_the_first_file_that_tells_is_believed() -> None:
    write_run(*world("many VMs, private locks"), 0, "host.ftrace", stop=10**8)
    files = [measure_file(name, Scenario(), 1.0) for name in ("host.ftrace", str(DATA / "guest.lock_stat"))]
    machine = assemble("both", files, {"profile": "zen-kvm-6.18", "guest.weight": 512})
    notes = machine.notes
    assert notes["guest.vcpus"].startswith("host.ftrace: ") and notes["guest.hold"].startswith("guest.lock_stat: ")
    assert notes["guest.weight"] == "--set" and machine.scenario.guest.weight == 512
    assert machine.scenario.guest.block_probability > 0 and machine.scenario.ple.kind == "count"


# --- what strangers write ---------------------------------------------------------------------------------------------


def checked(found: EventTable) -> None:
    rows = found.rows
    assert (np.diff(rows[:, 0]) >= 0).all() and ((rows[:, 0] >= 0) & (rows[:, 0] < 10**18)).all()
    assert (rows[:, 3] < len(found.vm_of)).all() and (rows[:, 2:] >= -1).all()


@given(st.binary(max_size=300))
@pytest.mark.parametrize("form", sorted(SOURCES))
def test_whatever_is_in_a_file_nothing_is_raised(form: str, data: bytes) -> None:
    found = SOURCES[form].read(data)
    assert found.told() and (isinstance(found, EventTable) is False or checked(found) is None)


RUN_CSV = (
    "tsc,ns,event,pcpu,vm,vcpu,lock\n0,0,RUN,0,0,0,\n90,33,TRY,0,0,0,1\n90,33,ACQUIRE,0,0,0,1\n190,71,RELEASE,0,0,0,1\n"
    "400,149,TRY,0,0,0,2\n410,153,ACQUIRE,0,0,0,2\n500,187,RELEASE,0,0,0,2\n600,224,PLE,0,0,0,\n700,262,STOP,0,0,0,\n"
    "700,262,NOISE_BEGIN,0,,,\n800,299,NOISE_END,0,,,\n900,337,RUN,0,1,1,\n950,355,IPI,0,1,1,\n960,359,ACK,0,1,1,\n"
)


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize(
    "name", ["run.csv", "paper-holds.csv", "guest.lock_stat", "guest.perf-lock", "trace-cmd-kvm.txt"]
)
def test_a_damaged_file_makes_a_scenario_or_ends_in_one_line(name: str, data: st.DataObject) -> None:
    content = bytearray(RUN_CSV.encode() if name == "run.csv" else (DATA / name).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=10)):
        content[place] = data.draw(st.sampled_from(b"0123456789,-. \nRUNx"))
    Path(name).write_bytes(bytes(content))
    try:
        machine = assemble("x", [measure_file(name, Scenario(), 1.0)], {})
    except PleError as error:
        assert "\n" not in str(error)
    else:
        assert Scenario.from_toml(machine.to_toml()) == machine.scenario


def test_sizes_are_bounded() -> None:
    lines = "".join(f"{number},{number}\n" for number in range(5000))
    found = read_table(f"tsc,vcpu\n{lines}{'9' * 19},0\n1,{' ' * MAX_LINE}\n".encode())
    assert (len(found.rows), found.lines.bad) == (4096, 906)


# --- the command ------------------------------------------------------------------------------------------------------


def run_trace() -> None:
    assert cli.main(["trace", "Tiny", "--policy", "kvm", "--out", "run.csv"]) == 0


def test_every_line_of_the_file_says_where_it_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    run_trace()
    assert cli.main(["measure", "run.csv", "--out", "machine.toml", "--set", "cost.cache=0", "--json", "out.json"]) == 0
    out = capsys.readouterr().out
    assert "0 lines not understood" in out and "holds" in out and out.endswith("Now: ple-gym compare machine.toml\n")
    text = Path("machine.toml").read_text()
    lines = [line for line in text.splitlines() if " = " in line]
    assert len(lines) > 25 and all(
        line.partition("  # ")[2].startswith(
            (DEFAULT, "run.csv: ", "--set", "chosen: ", "the file", "sizes", "a stretch")
        )
        for line in lines
    )
    assert f"timeslice_ms = 30  # {DEFAULT}" in lines and "cache = 0  # --set" in lines
    scenario = load("machine.toml")
    assert (scenario.name, scenario.guest.vcpus, scenario.host.pcpus, scenario.guest.locks) == ("machine", 3, 1, 1)
    document = json.loads(Path("out.json").read_text())
    assert document["sources"]["host.pcpus"] == "run.csv: pCPUs with events"
    assert {row["quantity"] for row in document["fit"]} >= {"computes", "holds", "waits"}
    assert cli.main(["compare", "machine.toml", "--policies", "host", "kvm", "--seeds", "0:2"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.csv"], "missing.csv: No such file or directory"),
        (
            ["empty.csv"],
            "empty.csv: no event (the first line must name tsc, event, vcpu; or try, acquire, release) in it",
        ),
        (["run.dat"], "run.dat: name its form, csv or lock_stat or perf-lock or ftrace or perf, or let it end in .csv"),
        (["run.csv", "--seconds", "-1"], "--seconds -1: must be 0..10,000,000"),
        (["run.csv", "--set", "guest.hold=x"], "guest.hold = 'x': must be "),
        (["noise.csv"], "noise.csv: no vCPU in it"),
        (["host.txt"], "host.txt: none of sched_switch"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.csv").write_text(RUN_CSV)
    Path("empty.csv").write_text("a,b\n1,2\n")
    Path("noise.csv").write_text("tsc,event,vcpu\n1,NOISE_BEGIN,\n")
    Path("host.txt").write_text("x\n")
    assert cli.main(["measure", *words, "--out", "machine.toml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"ple-gym: error: {message}") and err.count("\n") == 1
    assert not Path("machine.toml").exists()


def test_a_kind_that_is_named_is_taken_and_no_file_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("numbers.txt").write_bytes((DATA / "guest.lock_stat").read_bytes())
    (one,) = measured_by_command(["lock_stat=numbers.txt"], {"host.sockets": 8}, 1.0)
    assert isinstance(one.found, LockTable) and one.path == "numbers.txt"
    with pytest.raises(TraceError, match="form = 'xen'"):
        read_source("numbers.txt", "xen")
    Path("machine.toml").write_text("mine")
    assert cli.main(["measure", "lock_stat=numbers.txt", "--out", "machine.toml"]) == 2
    assert "is there already" in capsys.readouterr().err and Path("machine.toml").read_text() == "mine"


def test_a_name_that_no_line_can_hold_is_escaped() -> None:
    name = "a\nb = 1 #.csv"
    Path(name).write_text(RUN_CSV)
    machine = assemble("x", [measure_file(name, Scenario())], {})
    assert Scenario.from_toml(machine.to_toml()) == machine.scenario and "\\n" in machine.to_toml()
