"""Files of a machine become a scenario: what the simulator wrote gives its parameters back, and no file does harm."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ple_gym import cli
from ple_gym.cli.measure import measured
from ple_gym.errors import PleError
from ple_gym.measure.guest import VmMeasures, measure_events
from ple_gym.measure.machine import (
    DEFAULT,
    Measured,
    _order,
    assemble,
    distribution,
    like,
    mean_of,
    measure,
    quantities,
)
from ple_gym.measure.machine import simulated as run_of
from ple_gym.scenario import Scenario, Vm
from ple_gym.scenario.builtin import load
from ple_gym.scenario.distributions import QUANTILES, quantile_table
from ple_gym.scenario.documented import documented_toml
from ple_gym.traces import tables
from ple_gym.traces.events import ACQUIRE, BLOCK, PLE, RELEASE, RUN, STOP, TRY, WAKE
from ple_gym.traces.exit_tables import ExitClass, ExitTable
from ple_gym.traces.lock_tables import LockClass, LockTable
from ple_gym.traces.readers import SOURCES, read_source
from ple_gym.traces.tables import EventTable
from ple_gym.traces.writers import write_run

DATA = Path(__file__).parent / "data"
SHARES = (0.5, 0.9, 0.99)
ALWAYS: dict[str, object] = {"guest.lock_probability": 1.0}
#: Built-in scenario, changes, policy.
WORLDS: dict[str, tuple[str, dict[str, object], str]] = {
    "sleeps": ("Paper8", ALWAYS | {"guest.transactions": 4000, "guest.block_probability": 0.3}, "xen-4.5"),
    "a storm": (
        "Storm",
        ALWAYS | {"guest.transactions": 20_000, "guest.sections": 1, "guest.start": "fresh", "limit.simulated_s": 2.0},
        "kvm",
    ),
    "neighbours": ("Paper32", ALWAYS | {"guest.transactions": 3000}, "kvm"),
    "many VMs, private locks": ("Consolidated", {"guest.transactions": 300}, "kvm"),
    "Linux, a hot lock": ("KvmDbench", {"guest.hot_probability": 0.2}, "host"),
}


def written(name: str, path: str) -> Scenario:
    """Write a run to a file; return its scenario."""
    builtin, changes, policy = WORLDS[name]
    scenario = load(builtin).with_overrides(changes)
    write_run(scenario, policy, 0, path)
    return scenario


def read(path: str, known: Scenario | None = None, seconds: float = 0.0) -> Measured:
    return measure(path, read_source(path), known or Scenario(), seconds)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def at(text: str, share: float) -> float:
    return float(np.interp(share, [float(one) for one in QUANTILES], quantile_table(text)))


def near(true: float, percent: float) -> Any:
    return pytest.approx(true, rel=percent / 100)


@pytest.mark.parametrize("name", WORLDS)
def test_what_the_simulator_wrote_gives_its_parameters_back(name: str) -> None:
    scenario = written(name, "run.csv")
    true, spin = scenario.guest, Vm(spin_period=scenario.guest.spin_period)
    known = Scenario(  # of the machine: neither its pCPUs nor what an exit costs
        host=replace(scenario.host, pcpus=256), cost=replace(scenario.cost, exit=1), ple=scenario.ple, guest=spin
    )
    again, notes = assemble("again", [read("run.csv", known)], {})
    lock, sleep = true.lock_probability, true.block_probability
    # Nobody sees private locks: a stretch is what is computed between the events that are seen.
    stretch = mean_of(true.compute) / (1 - (1 - lock) * (1 - sleep))
    for share in SHARES:
        assert at(again.guest.compute, share) == near(at(f"exponential {round(stretch)}", share), 5)
        assert at(again.guest.hold, share) == near(at(true.hold, share), 5)
        assert not sleep or at(again.guest.block, share) == near(at(true.block, share), 5)
    for rate, true_rate in ((again.guest.lock_probability, lock), (again.guest.block_probability, sleep)):
        assert rate / mean_of(again.guest.compute) == near(true_rate / mean_of(true.compute), 3)
    assert again.guest.hot_probability == pytest.approx(true.hot_probability, abs=0.01)
    assert [(vm.vcpus, vm.count, vm.takes_locks) for vm in again.tables().values()] == [
        (vm.vcpus, vm.count, vm.takes_locks) for vm in scenario.tables().values()
    ]
    assert again.guest.locks == true.locks
    assert (again.host.pcpus, again.host.tsc_hz) == (scenario.host.pcpus, scenario.host.tsc_hz)
    assert (notes["cost.exit"] != DEFAULT) == (name in ("a storm", "many VMs, private locks"))
    assert again.cost.exit == 1420


def test_what_a_linux_host_sees_gives_its_part_back() -> None:
    scenario = written("sleeps", "run.ftrace")
    one = read("run.ftrace", Scenario().with_overrides({"host.tsc_hz": scenario.host.tsc_hz}))
    again = assemble("again", [one], {"cost.cache": 1})[0]
    for share in SHARES:
        assert at(again.guest.block, share) == near(at(scenario.guest.block, share), 5)
    assert again.cost.switch == near(scenario.cost.switch, 1) and again.host.scheduler == "fair"
    section = mean_of(scenario.guest.compute) + mean_of(scenario.guest.hold) + 0.3 * scenario.cost.cache  # seen as one
    assert one.guests[0]["sleeps"][0] == near(0.3 / section, 3)
    written("many VMs, private locks", "more.ftrace")
    more = assemble("more", [read("more.ftrace")], {})[0]
    assert (more.guest.vcpus, more.guest.count, more.host.pcpus) == (4, 48, 16)
    assert more.cost.exit == near(1420, 1)


QUIET: dict[str, object] = {"noise.level": "constant 1000"}
#: Built-in scenario, changes, policy.
NOISY: dict[str, tuple[str, dict[str, object], str]] = {
    "short bursts": ("KvmDbench", QUIET | {"noise.rate_hz": 500, "noise.burst_us": 100}, "host"),
    "more than is usual": (
        "KvmDbench", QUIET | {"noise.rate_hz": 400, "noise.burst_us": 2000, "noise.cap_permille": 700}, "host",
    ),
    "a rate limit": (
        "Paper8", QUIET | {"guest.transactions": 6000, "noise.rate_hz": 200, "noise.burst_us": 300}, "xen-4.5",
    ),
    "none": ("TicketOrder", {}, "kvm"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOISY)
def test_what_the_host_takes_for_itself_is_given_back(name: str) -> None:
    builtin, changes, policy = NOISY[name]
    scenario = load(builtin).with_overrides(changes)
    for path in ("run.csv", "run.ftrace"):
        write_run(scenario, policy, 0, path)
        one = read(path, Scenario().with_overrides({"host.tsc_hz": scenario.host.tsc_hz}))
        again, notes = assemble("again", [one], {})
        true = scenario.noise
        rate = again.noise.rate_hz * mean_of(again.noise.level) / 1000
        assert rate == near(true.rate_hz, 10) and notes["noise.rate_hz"].startswith(f"{path}: ")
        if true.rate_hz:
            share = rate * again.noise.burst_us / (10**6 + rate * again.noise.burst_us)
            assert again.noise.burst_us == near(true.burst_us, 10) and 1000 * share <= again.noise.cap_permille


@pytest.mark.parametrize("kind", ["ticket", "mcs", "tas", "pv", "preemptable-ticket"])
def test_the_order_of_waiters_tells_the_kind_of_lock(kind: str) -> None:
    changes = {"guest.lock_kind": kind, "guest.pv_spin_threshold": 512 if kind == "pv" else 0}
    for builtin in ("TicketOrder", "Storm")[kind == "pv" :]:
        write_run(load(builtin).with_overrides(changes), "kvm", 0, "run.csv")
        one = read("run.csv")
        again, notes = assemble("again", [one], {})
        contested, overtook = one.vms[0].contested, one.vms[0].overtook
        assert notes["guest.lock_kind"].startswith(f"run.csv: {overtook:,} of {contested:,} acquisitions overtook")
        assert again.guest.lock_kind == {"mcs": "ticket", "preemptable-ticket": "tas"}.get(kind, kind)
    # The paper's kind of table, made of the same run.
    events = read_source("run.csv")
    assert isinstance(events, EventTable)
    lines, began = ["try,acquire,release,vcpu,lock"], dict[tuple[int, int], list[int]]()
    for time, event, _, vcpu, lock in events.rows.tolist():
        if event == TRY:
            began[vcpu, lock] = [time]
        elif event in (ACQUIRE, RELEASE) and (vcpu, lock) in began:
            began[vcpu, lock].append(time)
            if event == RELEASE:
                lines.append(",".join(map(str, [*began.pop((vcpu, lock)), vcpu, lock])))
    Path("holds.csv").write_text("\n".join(lines))
    assert assemble("holds", [read("holds.csv")], {})[0].guest.lock_kind == (
        "tas" if kind == "pv" else again.guest.lock_kind
    )


def test_too_few_or_mixed_acquisitions_tell_no_kind_of_lock() -> None:
    for count, overtakes in ((19, 0), (40, 4), (40, 9)):
        vm = VmMeasures(contested=count, overtook=overtakes)
        assert _order(vm) == {}, (count, overtakes)


def test_the_new_scenario_behaves_as_what_was_measured() -> None:
    written("sleeps", "run.csv")
    one = read("run.csv")
    again = assemble("again", [one], {})[0]
    run = {name: values for name, *values in quantities(like(one, again, run_of(again)), again.host.tsc_hz)}
    for name, _, *values in quantities(one, again.host.tsc_hz):
        if name in ("computes", "holds", "sleeps", "locks per s of computing"):
            assert run[name][1:] == [near(value, 7) for value in values], name


@given(st.lists(st.integers(-5, 10**12), min_size=1, max_size=200))
def test_any_durations_are_a_distribution_between_their_extremes(values: list[int]) -> None:
    table = quantile_table(distribution(array("q", values)))
    assert (table[0], table[-1]) == tuple(min(max(end, 1), 10**11) for end in (min(values), max(values)))


def test_time_off_the_pcpu_and_what_switches_cost_are_not_the_guests() -> None:
    costs = {"cost.switch": 10, "cost.cache": 100, "cost.migration": 200, "cost.exit": 30, "host.pcpus": 2}
    events = [
        (0, RUN, 0, 0), (0, RUN, 1, 1), (500, TRY, 0, 0), (500, ACQUIRE, 0, 0), (700, STOP, 0, 0), (700, RUN, 0, 2),
        (5000, STOP, 1, 1), (5000, RUN, 1, 0), (5400, RELEASE, 1, 0), (5500, TRY, 1, 0), (5500, ACQUIRE, 1, 0),
        (5600, RELEASE, 1, 0), (5650, BLOCK, 1, 0), (5650, STOP, 1, 0), (6000, WAKE, 1, 0), (6100, RUN, 1, 0),
        (6200, TRY, 1, 0), (6300, PLE, 1, 0), (6430, PLE, 1, 0), (6430, STOP, 1, 0), (6430, RUN, 1, 1),
    ]  # fmt: skip
    (vm,) = measure_events(Scenario().with_overrides(costs), [0, 0, 0], np.array([(*event, 7) for event in events]))
    assert list(vm.samples["hold"]) == [200 + 400 - 10 - 200, 100]  # less a switch and a refill
    assert list(vm.samples["compute"]) == [100, 50, 6200 - 6100 - 10]  # nobody knows when the first one began
    assert list(vm.samples["block"]) == [350] and (vm.asked, vm.tries, vm.exits) == (2, 3, 2)
    halts = [(10, TRY), (20, BLOCK), (60, WAKE), (70, ACQUIRE), (80, RELEASE), (90, BLOCK)]  # and no work is left
    (vm,) = measure_events(Scenario(), [0], np.array([(*event, 0, 0, 1) for event in halts]))
    assert [list(vm.samples[name]) for name in ("compute", "hold", "block", "wait")] == [[], [10], [], [60]]


def test_the_papers_numbers_give_what_they_tell_of_its_machine_and_no_more() -> None:
    page = (Path(__file__).parents[1] / "docs/howto/measure-your-machine.md").read_text("utf-8")
    exec(page.split("<<'END'\n")[1].split("\nEND")[0], {})
    true, hz = load("Paper8"), 2_670_000_000
    files = [read(name, Scenario().with_overrides({"host.tsc_hz": hz})) for name in ("section4.csv", "figure3.csv")]
    made, notes = assemble("paper", files, {"host.tsc_hz": hz})
    assert made.cost.exit == near(true.cost.exit, 0.3) and f"`cost.exit = {made.cost.exit}`" in page
    assert made.guest.vcpus == true.guest.vcpus and at(made.guest.hold, 0.995) == near(at(true.guest.hold, 0.995), 0.2)
    told = {key for key, why in notes.items() if why != DEFAULT and not why.startswith(("chosen", "--set"))}
    assert told == {"name", "description", "cost.exit"} | {
        f"guest.{key}" for key in ("vcpus", "count", "locks", "hot_probability", "hold")
    }


def test_the_papers_kind_of_table_is_read() -> None:
    files = [read(str(DATA / name)) for name in ("paper-holds.csv", "paper-exits.csv")]
    assert [one.found.shown for one in files] == [
        ((6, "5000,4000,6000,0,0xffff88001"), (8, "20000,20010,20510,0")), ((6, "19560,,1,0xffffffff8119fd90"),)
    ]  # fmt: skip
    scenario, notes = assemble("paper", files, {})
    assert scenario.guest.hold == "knots 0:500 0.5:600 1:800" and scenario.cost.exit == 1420
    assert notes["guest.hold"] == "paper-holds.csv: 4 holds, of the clock, preemptions too"
    table = EventTable(b"vcpu,event,lock,tsc\na, release ,x,30\na,TRY,x,10\nb,exit,y,40\n")
    assert table.rows[:, [0, 1, 3, 4]].tolist() == [[10, TRY, 0, 0], [30, RELEASE, 0, 0], [40, PLE, 1, 1]]
    lines = "".join(f"{number},{number}\n" for number in range(5000))
    table = EventTable(f"tsc,vcpu\n{lines}{'9' * 19},0\n1,{' ' * 2000}\n".encode())
    assert (len(table.rows), table.bad) == (4096, 906)


@pytest.mark.parametrize("window", [2, 8, 1 << 18])
def test_events_are_in_order_however_far_their_lines_are_out_of_it(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_WINDOW", window)
    for far in (1, 3, 1000):
        draws = np.random.default_rng(far)
        lines = [(int(place + draws.integers(0, far)), place % 7) for place in range(200)]
        text = "tsc,vcpu\n" + "".join(f"{time},{vcpu}\n" for time, vcpu in lines)
        found = EventTable(text.encode()).rows[:, [0, 3]].tolist()
        assert found == [list(row) for row in sorted(lines, key=lambda row: row[0])]


def test_tables_of_locks_give_means_and_with_their_time_a_rate() -> None:
    stat, report = (read_source(DATA / f"guest.{form}") for form in ("lock_stat", "perf-lock"))
    assert isinstance(stat, LockTable) and isinstance(report, LockTable) and stat.bad == report.bad == 1
    assert stat.classes == [
        LockClass("&a->first_lock", 300_000, 1000, 300_000_000), LockClass("second_lock-R", 100_000, 0, 50_000_000)
    ]  # fmt: skip
    assert report.classes == [LockClass("&a->first_lock", 300_000, 1000), LockClass("&(ei->i_block_re...", 100_000, 0)]
    assert LockTable(b"fs->lock 64 2 5 10 7 3\n").classes == [LockClass("fs->lock", 64, 2)]
    guest = assemble("locks", [read(str(DATA / "guest.lock_stat"), seconds=2.0)], {})[0].guest
    hold = 350_000 / 400_000 * 2670
    assert guest.hold == f"exponential {round(hold)}" and (guest.locks, guest.hot_probability) == (2, 0.5)
    assert guest.compute == f"exponential {round(8 * 2.0 * 2.67e9 / 400_000 - hold)}"


def test_tables_of_waits_and_of_exits_tell_what_can_be_compared() -> None:
    waits, exits = read(str(DATA / "guest.perf-contention")), read(str(DATA / "kvm.kvm-stat"))
    assert isinstance(waits.found, LockTable) and waits.found.bad == 0
    assert waits.found.classes[0] == LockClass("rwsem:W __x64_sys_munmap+0x17", -1, 42, waited=1_130_000_000)
    (row,) = quantities(waits, 10**9)
    assert row == [
        "waits",
        98,
        pytest.approx((1.13e6 + 259.92e3 + 256.86e3 + 52.92 + 22.31 + 18.46 + 14.68 + 13.67 + 13.42 + 6.94) / 98),
    ]
    assert waits.guests == [{}] and assemble("waits", [waits], {})[0].guest == assemble("none", [exits], {})[0].guest
    others = (
        b"  5  12.00 us  9 ns  1.00 m   ffff98d7031fb498   &task_struct (mutex)\n 1 3 ns 3 ns 3 ns 3 ns 1950 nv_queue\n"
    )
    assert [one[2:] for one in LockTable(others).classes] == [(5, -1, 12_000), (1, -1, 3)]
    bpf, csv = (LockTable((DATA / f"{name}.perf-contention").read_bytes()) for name in ("bpf", "bpf-csv"))
    assert (bpf.bad, csv.bad) == (1, 1) and csv.shown == ((9, "12| 880000"),)
    assert [(one.name, one.contended, one.waited) for one in bpf.classes] == [
        ("spinlock raw_spin_rq_lock_nested+0x1b", 31, 1_520_000), ("rwlock:W do_epoll_wait+0x248", 2, 884_000),
        ("ffffffff851c0940 pack_mutex (mutex)", 3, 14_990), ("ffff98d7031fb498 (spinlock)", 2, 953),
        ("-1 Unknown", 12, 120 * 10**9), ("/system.slice/vm 1.scope", 1, 7520),
    ]  # fmt: skip
    assert [(one.name, one.contended, one.waited) for one in csv.classes] == [
        ("spinlock raw_spin_rq_lock_nested+0x1b", 31, 1_520_000), ("ffffffff851c0940 pack_mutex mutex", 3, 14_990),
        ("1111111111111111 spinlock", 2, 953), ("4242 CPU 3/KVM", 12, 880_000),
    ]  # fmt: skip
    assert isinstance(exits.found, ExitTable) and exits.found.bad == 1 and len(exits.found.exits) == 3
    assert exits.found.pause == ExitClass("PAUSE_INSTRUCTION", 1000, 800, 1_490_190, 12_250)
    assert exits.machine["cost.exit"] == (
        2136, "shortest of 1,000 for PAUSE; their mean, 12.25 us, has time off the pCPU, too"
    )  # fmt: skip


def test_a_trace_of_xen_gives_its_sizes_and_costs() -> None:
    one = read(str(DATA / "xen.xentrace"))
    scenario, notes = assemble("xen", [one], {})
    assert (scenario.host.scheduler, scenario.host.pcpus) == ("credit", 2)
    assert scenario.cost.exit == 1520 and notes["cost.exit"] == "xen.xentrace: median of 1 from exit for PAUSE to entry"
    assert [(vm.vcpus, vm.exits, list(vm.samples["block"])) for vm in one.vms] == [(2, 2, [101_040]), (1, 0, [])]


def test_the_first_file_that_tells_is_believed() -> None:
    written("many VMs, private locks", "host.ftrace")
    files = measured(["host.ftrace", f"lock_stat={DATA / 'guest.lock_stat'}"], {"host.sockets": 8}, 1.0)
    scenario, notes = assemble("both", files, {"profile": "zen-kvm-6.18", "guest.weight": 512})
    assert [notes[f"guest.{name}"].partition(":")[0] for name in ("vcpus", "hold", "weight")] == [
        "host.ftrace", "guest.lock_stat", "--set"
    ]  # fmt: skip
    assert scenario.guest.block_probability > 0 and (scenario.guest.weight, scenario.ple.kind) == (512, "count")


@given(st.binary(max_size=300))
@pytest.mark.parametrize("form", sorted(SOURCES))
def test_whatever_is_in_a_file_nothing_is_raised(form: str, data: bytes) -> None:
    assert SOURCES[form].read(data).told()


RUN_CSV = """tsc,ns,event,pcpu,vm,vcpu,lock
0,0,RUN,0,0,0,\n90,33,TRY,0,0,0,1\n90,33,ACQUIRE,0,0,0,1\n190,71,RELEASE,0,0,0,1\n400,149,TRY,0,0,0,2
410,153,ACQUIRE,0,0,0,2\n500,187,RELEASE,0,0,0,2\n600,224,PLE,0,0,0,\n700,262,STOP,0,0,0,\n700,262,NOISE_BEGIN,0,,,
900,337,RUN,0,1,1,\n950,355,IPI,0,1,1,\n960,359,ACK,0,1,1,
"""


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize(
    "name",
    [
        "run.csv",
        "paper-holds.csv",
        "guest.lock_stat",
        "trace-cmd-kvm.txt",
        "xen.xentrace",
        "kvm.kvm-stat",
        "guest.perf-contention",
        "bpf-csv.perf-contention",
    ],
)
def test_a_damaged_file_makes_a_scenario_or_ends_in_one_line(name: str, data: st.DataObject) -> None:
    content = bytearray(RUN_CSV.encode() if name == "run.csv" else (DATA / name).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=10)):
        content[place] = data.draw(st.sampled_from(b"0123456789,-. \nRUNx"))
    path = f"a\nb = 1 #{name}"
    Path(path).write_bytes(bytes(content))
    try:
        scenario, notes = assemble("x", [read(path, seconds=1.0)], {})
    except PleError as error:
        assert "\n" not in str(error)
    else:
        assert Scenario.from_toml(documented_toml(scenario, (), notes)) == scenario


def test_the_fit_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["trace", "Tiny", "--policy", "kvm", "--out", "run.csv"]) == 0
    argv = ["measure", "run.csv", str(DATA / "paper-exits.csv"), "--out", "m.toml", "--picture", "fit.svg"]
    assert cli.main(argv) == 0
    assert "\nfit: fit.svg\n" in capsys.readouterr().out
    text = Path("fit.svg").read_text()
    for word in ("computes, us", "holds, us", "waits, us", "measured", "simulated", "run.csv"):
        assert f"<!-- {word}" in text or f"{word} -->" in text, word
    assert "command: ple-gym measure run.csv" in text and "<!-- sleeps" not in text
    assert cli.main(["measure", str(DATA / "kvm.kvm-stat"), "--out", "k.toml", "--picture", "no.png"]) == 0
    assert "no picture: no file has durations" in capsys.readouterr().out and not Path("no.png").exists()
    assert cli.main(["measure", "run.csv", "--out", "n.toml", "--picture", "n.txt"]) == 2
    assert not Path("n.toml").exists()


def test_every_line_of_the_file_says_where_it_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "Tiny", "--policy", "kvm", "--out", "run.csv"]) == 0
    assert cli.main(["measure", "run.csv", "--out", "machine.toml", "--set", "cost.cache=0"]) == 0
    out = capsys.readouterr().out
    assert "; 0 lines not understood\n" in out and "holds" in out and out.endswith(": ple-gym compare machine.toml\n")
    lines = [line for line in Path("machine.toml").read_text().splitlines() if " = " in line]
    whys = (DEFAULT, "run.csv: ", "--set", "chosen: ", "the file", "sizes", "a stretch")
    assert len(lines) > 20 and all(line.rpartition("  # ")[2].startswith(whys) for line in lines)
    assert f"timeslice_ms = 30  # {DEFAULT}" in lines and "cache = 0  # --set" in lines
    assert load("machine.toml").guest.vcpus == 3
    assert cli.main(["compare", "machine.toml", "--policies", "host", "kvm", "--seeds", "0:2"]) == 0
    assert cli.main(["measure", "run.csv", "--out", "machine.toml"]) == 2
    assert "is there already" in capsys.readouterr().err


BAD = {
    "missing.csv": "missing.csv: No such file or directory",
    "empty.csv": "empty.csv: nothing that is known in 2 lines; line 1: 'a,b'",
    "run.dat": "run.dat: name its form, csv or lock_stat or perf-lock or perf-contention or ",
    "run.csv --seconds -1": "--seconds -1: must be 0..10,000,000",
    "run.csv --set guest.hold=x": "guest.hold = 'x': must be ",
    "host.script": "host.script: no vCPU: ",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_ends_in_one_line_and_writes_nothing(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.csv").write_text(RUN_CSV)
    Path("empty.csv").write_text("a,b\n1,2\n")
    Path("host.script").write_bytes((DATA / "perf-sched.perf").read_bytes())
    assert cli.main(["measure", *words.split(), "--out", "machine.toml"]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reading ")]
    assert len(err) == 1 and err[0].startswith(f"ple-gym: error: {BAD[words]}") and not Path("machine.toml").exists()
