"""The reality check: what is measured is read strictly, becomes the same world, and refusals are one line each."""

from __future__ import annotations

import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from ple_gym import cli
from ple_gym.errors import RealityError, ScenarioError
from ple_gym.evaluate import simulate
from ple_gym.files import read_packed
from ple_gym.reality import machine, program
from ple_gym.reality.comparison import REPETITIONS, compare
from ple_gym.reality.distributions import chance, distance
from ple_gym.reality.machine import autogroup, rules_of
from ple_gym.reality.measured import (
    BINS,
    MAX_BYTES,
    Costs,
    Machine,
    Measured,
    Result,
    from_line,
    from_text,
    joined,
    to_line,
    to_text,
)
from ple_gym.reality.pictures import timeline_figure
from ple_gym.reality.program import built, check_perf, measure, record
from ple_gym.reality.settings import (
    LOCKS,
    REACTIONS,
    Setting,
    bistable_settings,
    quick_settings,
    standard_settings,
)
from ple_gym.reality.tables import check_lines, check_table, distribution_table
from ple_gym.reality.timeline import measured
from ple_gym.reality.worlds import GAP, POLICIES, world
from ple_gym.sim.jit import JIT_ENABLED

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "tests" / "kept" / "reality.tar.xz"
HERE = Machine("6.18.44-x", 2, (0, 1), 4_000_000, "autogroup")
COSTS = Costs(2_600_000_000, pause=50, yield_=1414, yield_switch=3814, line=150)
WAITS = (0,) * 12 + (90, 9, 1) + (0,) * (BINS - 15)
RESULT = Result(260_000_000, 2_600_000_000, 80_000, 100, 5000, 3, 497, 1_990_000, 4, WAITS, ("/autogroup-7",))
MEASURED = Measured(HERE, COSTS, ((Setting(2), RESULT), (Setting(4, lock="tas"), RESULT), (Setting(2), RESULT)))

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
compiled = pytest.mark.skipif(not JIT_ENABLED, reason="long runs: not under make nojit")

# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_whole_check_has_sixty_settings_and_more_and_none_twice() -> None:
    settings = standard_settings()
    assert len(set(settings)) == len(settings) >= 60
    assert set(quick_settings()) <= set(settings)
    assert {one.threads for one in settings} == {2, 3, 4, 8, 16}
    assert {one.window for one in settings} == {1024, 4096, 16_384}
    assert {one.hold for one in settings} == {200, 2000, 20_000}
    assert {(one.lock, one.reaction, one.groups) for one in settings} == {
        (lock, reaction, groups) for lock in LOCKS for reaction in REACTIONS for groups in (1, 2)
    }


def test_bistable_are_fifo_locks_that_are_spun_on_or_held_shortly() -> None:
    settings = bistable_settings()
    assert len(settings) == 17 and set(settings) < set(standard_settings())
    assert all(one.lock == "ticket" and one.threads > 2 for one in settings)
    assert {(one.reaction, one.hold) for one in settings} == {
        ("spin", 200), ("spin", 2000), ("spin", 20_000), ("yield", 200),
    }  # fmt: skip


# --- what was measured, as text ---------------------------------------------------------------------------------------


def test_what_was_measured_reads_back_as_itself() -> None:
    assert from_text(to_text(MEASURED)) == MEASURED
    assert "yield=1414 yield_switch=3814" in to_text(MEASURED)
    assert MEASURED.by_setting() == {Setting(2): [RESULT, RESULT], Setting(4, lock="tas"): [RESULT]}


def test_several_checks_of_one_machine_are_one() -> None:
    later = replace(MEASURED, costs=replace(COSTS, yield_=1500, line=160), runs=MEASURED.runs[:1])
    both = joined([MEASURED, later])
    assert both.runs == (*MEASURED.runs, *later.runs)
    assert both.costs == replace(COSTS, yield_=1457, line=155)
    assert joined([MEASURED]) == MEASURED
    with pytest.raises(RealityError, match=r"^of 2 different machines: machine release=.* online=2 .* online=3 "):
        joined([MEASURED, replace(MEASURED, machine=replace(HERE, online=3))])


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("reality 2", "reality 1", "line 1: must be 'reality 2', not 'reality 1'"),
        ("pause=50", "pause=050", "line 3: pause = '050': must be a whole number"),
        ("pause=50", "pause=-5", "line 3: pause = '-5': must be a whole number"),
        (
            "pause=50 ",
            "",
            "line 3: must be costs tsc_hz=... pause=... yield=... yield_switch=... line=... own=... "
            "others_every=... others_take=... lost_every=... lost_take=..., not",
        ),
        ("tsc_hz=2600000000", "tsc_hz=0", "line 3: tsc_hz = 0: must be 100000000..10000000000"),
        ("others_take=0", "others_take=1", "line 3: others_take = 1: must be 0..0"),
        ("lost_every=0 lost_take=0", "lost_every=9 lost_take=5", "line 3: lost_take = 5: must be 0..4"),
        ("threads=2", "threads=65", "line 4: threads = 65: must be 1..64"),
        ("threads=2 ", "threads=2  ", "line 4: must be setting threads=..."),
        ("groups=1", "groups=3", "line 4: groups = 3: must be 1..2"),
        ("lock=ticket", "lock=mcs", "line 4: lock = 'mcs': must be ticket or tas"),
        ("reaction=yield", "reaction=", "line 4: reaction = '': must be a word"),
        ("cycles=2600000000", "cycles=0", "line 5: cycles = 0: must be 1.."),
        ("waits=0,", "waits=", "line 5: waits = 63: must be 64..64"),
        ("groups=autogroup", "groups=some", "line 2: groups = 'some': must be autogroup or none"),
        ("cpus=0,1", "cpus=0,,1", "line 2: cpus = '': must be a whole number"),
        ("tick_ns=4000000", "tick_ns=1", "line 2: tick_ns = 1: must be 100000..100000000"),
        ("result warm_up", "result  warm_up", "line 5: must be result warm_up=..."),
    ],
)
def test_a_damaged_line_is_refused_with_its_number(right: str, wrong: str, told: str) -> None:
    text = to_text(MEASURED)
    assert right in text
    with pytest.raises(RealityError) as caught:
        from_text(text.replace(right, wrong, 1))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("lines", [0, 1, 3, 4, 6])
def test_a_text_that_ends_too_early_is_refused(lines: int) -> None:
    with pytest.raises(RealityError):
        from_text("".join(to_text(MEASURED).splitlines(keepends=True)[:lines]))


# --- this machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "rules"),
    [
        ("4.19.0", ("5.15", 750)),
        ("5.15.0-91-generic", ("5.15", 750)),
        ("6.5.13", ("5.15", 750)),
        ("6.6", ("6.6", 750)),
        ("6.11.9", ("6.6", 750)),
        ("6.12.12", ("6.12", 750)),
        ("6.12.13", ("6.14", 750)),
        ("6.12.63-rt", ("6.18.2", 700)),
        ("6.13.1", ("6.12", 750)),
        ("6.14.0", ("6.14", 750)),
        ("6.16.3", ("6.14", 700)),
        ("6.17.0", ("6.18", 700)),
        ("6.18.1", ("6.18", 700)),
        ("6.18.44-fc", ("6.18.2", 700)),
        ("7.0-rc1", ("6.18.2", 700)),
    ],
)
def test_a_release_has_the_rules_of_its_version(release: str, rules: tuple[str, int]) -> None:
    assert rules_of(release) == rules


def test_a_release_that_is_no_version_is_refused() -> None:
    with pytest.raises(RealityError, match=r"^release = 'custom': must begin with a version, as 6\.18\.44 does$"):
        rules_of("custom")


@pytest.mark.parametrize(
    ("enabled", "cgroup", "weighted", "expected"),
    [
        ("1", "0::/", "", True),
        ("0", "0::/", "", False),
        ("", "0::/", "", False),
        ("1", "3:cpu,cpuacct:/\n0::/", "", True),
        ("1", "3:cpu,cpuacct:/user\n0::/", "", False),
        ("1", "2:cpuset:/user\n0::/", "", True),
        ("1", "0::/user.slice/session", "", True),
        ("1", "0::/user.slice/session", "user.slice/session", False),
        ("1", "0::/user.slice/session", "user.slice", False),
        ("1", "0::/user.slice/session", "system.slice", True),
    ],
)
def test_autogroups_act_if_they_are_on_and_no_cgroup_overrides_them(
    enabled: str, cgroup: str, weighted: str, expected: bool, tmp_path: Path
) -> None:
    files = {"proc/self/cgroup": cgroup}
    files |= {"proc/sys/kernel/sched_autogroup_enabled": enabled} if enabled else {}
    files |= {f"sys/fs/cgroup/{weighted}/cpu.weight": "100"} if weighted else {}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert autogroup(tmp_path) == expected


# --- the same world ---------------------------------------------------------------------------------------------------


def test_a_setting_becomes_a_world_of_the_fair_host() -> None:
    made = world(Setting(4, window=1024, hold=200, lock="tas"), HERE, COSTS, 0.3)
    assert (made.host.scheduler, made.host.linux, made.host.groups) == ("fair", "6.18.2", "vm")
    assert (made.host.pcpus, made.host.tsc_hz, made.host.tick_us) == (2, 2_600_000_000, 4000)
    assert made.host.base_slice_us == 1400  # 700 us, twice as long with two CPUs
    assert (made.cost.exit, made.cost.switch) == (1414, 2400)
    assert (made.cost.cache, made.cost.migration, made.cost.remote_migration) == (0, 0, 0)
    assert (made.ple.kind, made.ple.window) == ("window", 1024)
    guest = made.guest
    assert (guest.vcpus, guest.locks, guest.lock_kind, guest.transactions, guest.sections) == (4, 1, "tas", 0, 1)
    assert (guest.compute, guest.hold, guest.lock_probability) == ("uniform 30075 90075", "constant 125", 1.0)
    assert guest.spin_period == 50 <= made.ple.gap
    assert made.limit.simulated_s == 0.3
    assert made.neighbours == ()


def test_an_unfair_lock_is_held_for_less_than_its_holder_counts_and_handed_on_by_nobody() -> None:
    unfair, fifo = (world(Setting(4, lock=lock), HERE, COSTS, 0.3) for lock in ("tas", "ticket"))
    assert (unfair.cost.line, fifo.cost.line) == (0, 150)
    assert (unfair.guest.hold, fifo.guest.hold) == ("constant 1925", "constant 2000")  # half of the line's way
    alone = world(Setting(4, lock="tas"), replace(HERE, cpus=(0,)), COSTS, 0.3)
    assert alone.guest.hold == "constant 2000"


def test_a_thread_that_spins_on_pays_nothing_for_it() -> None:
    assert POLICIES == {"yield": "host", "spin": "continue"}
    assert world(Setting(4, reaction="spin"), HERE, COSTS, 0.3).cost.exit == 1


def test_other_tasks_become_a_vm_that_wakes_for_a_moment() -> None:
    costs = replace(COSTS, own=150, others_every=160_000_000, others_take=90_000)
    scenario = world(Setting(4, groups=2), HERE, costs, 1.0)
    assert scenario.guest.compute == "uniform 30150 90150"
    group, others = scenario.neighbours
    assert group.compute == scenario.guest.compute
    assert (others.vcpus, others.affinity, others.locks, others.transactions) == (2, "pinned", 0, 0)
    assert (others.compute, others.block) == ("exponential 90000", "exponential 159910000")
    assert others.block_probability == 1.0
    assert world(Setting(4), HERE, COSTS, 1.0).neighbours == ()


def test_work_takes_longer_by_what_interrupts_take() -> None:
    costs = replace(COSTS, own=150, lost_every=160_000, lost_take=8000)
    scenario = world(Setting(4, window=16_384, hold=1900), HERE, costs, 1.0)
    assert scenario.guest.compute == "uniform 31737 94895"
    assert scenario.guest.hold == "constant 2000"
    # A run of the window's 16,384 cycles alone, among interrupts 152,000 apart: 160,000 (exp(0.10779) - 1).
    assert scenario.ple.window == 18_210


def test_a_window_that_no_thread_can_reach_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"ple\.window"):
        world(Setting(4, window=2**30), HERE, replace(COSTS, lost_every=10, lost_take=5), 1.0)


def test_what_other_tasks_do_is_no_switch_of_the_threads() -> None:
    """Two threads with a CPU each are never switched but by other tasks, each of which takes it from one, once."""
    costs = replace(COSTS, others_every=26_000_000, others_take=90_000)
    check = compare(Measured(HERE, costs, ((Setting(2), RESULT),)), 3)
    (cell,) = check.cells
    assert cell.predicted["switches"].middle == pytest.approx(2 * 100, rel=0.25)
    assert "Other tasks took each CPU 100.0 times a second, for 34.6 us on average: 0.3%." in [*check_lines(check)]


def test_the_program_and_the_world_have_the_same_gap() -> None:
    assert f"    GAP = {GAP}, " in (ROOT / "ple_gym" / "reality" / program.SOURCE).read_text()


def test_threads_may_move_only_if_the_cpus_cannot_have_as_many_each() -> None:
    """As in spinners.c, whose threads begin on CPU i % n; vCPU i begins on pCPU i % n."""
    places = [world(Setting(threads), HERE, COSTS, 0.3).guest.affinity for threads in (1, 2, 3, 4, 16)]
    assert places == ["any", "pinned", "any", "pinned", "pinned"]
    assert "if (world.threads % cpu_count)" in (ROOT / "ple_gym" / "reality" / program.SOURCE).read_text()


def test_two_groups_are_two_vms_with_a_lock_each() -> None:
    made = world(Setting(5, groups=2), HERE, COSTS, 0.3)
    assert [(vm.vcpus, vm.locks) for vm in made.vms().values()] == [(3, 1), (2, 1)]
    assert world(Setting(4), replace(HERE, groups="none"), COSTS, 0.3).host.groups == "flat"


@pytest.mark.parametrize(("online", "factor"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (96, 4)])
def test_slices_grow_with_the_cpus_of_the_machine(online: int, factor: int) -> None:
    made = world(Setting(2), replace(HERE, online=online, release="5.15.1"), COSTS, 0.3)
    assert (made.host.linux, made.host.base_slice_us, made.host.wakeup_granularity_us) == (
        "5.15", 750 * factor, 1000 * factor,
    )  # fmt: skip


#: Acquisitions in a second, medians of three runs on a machine like HERE: ten settings are steady there.
STEADY = {
    (2, "ticket", "spin"): 82_894,
    (2, "ticket", "yield"): 82_918,
    (2, "tas", "spin"): 83_233,
    (2, "tas", "yield"): 83_358,
    (4, "ticket", "yield"): 69_168,
    (4, "tas", "spin"): 77_750,
    (4, "tas", "yield"): 83_080,
    (8, "ticket", "yield"): 59_531,
    (8, "tas", "spin"): 69_763,
    (8, "tas", "yield"): 83_363,
}
#: Smallest and largest of three where FIFO locks spin on: by chance a convoy forms, or none.
UNSTEADY = {4: (5464, 16_317), 8: (252, 13_505)}
SEEDS = range(5)


@compiled
@pytest.mark.parametrize(("threads", "lock", "reaction"), STEADY)
def test_a_steady_setting_is_predicted_within_seven_percent(threads: int, lock: str, reaction: str) -> None:
    made = world(Setting(threads, lock=lock, reaction=reaction), HERE, COSTS, 1.0)
    predicted = median(run["acquisitions"] for run in simulate(made, POLICIES[reaction], SEEDS))
    assert predicted == pytest.approx(STEADY[threads, lock, reaction], rel=0.07)


@compiled
@pytest.mark.parametrize("threads", UNSTEADY)
def test_a_fifo_lock_that_spins_on_is_predicted_to_lose_four_fifths_and_to_vary(threads: int) -> None:
    made = world(Setting(threads, reaction="spin"), HERE, COSTS, 1.0)
    predicted = [run["acquisitions"] for run in simulate(made, "continue", SEEDS)]
    low, high = UNSTEADY[threads]
    assert min(predicted) <= high and max(predicted) >= low
    assert max(predicted) > 2 * min(predicted)
    assert median(predicted) < STEADY[2, "ticket", "spin"] / 5


@compiled
def test_a_line_of_spinners_does_not_fall_into_lock_step_with_the_ticks() -> None:
    """Eight threads that hold for long made 120 to 250 acquisitions a second; if each tick comes on time, 500."""
    setting = Setting(8, hold=20_000, reaction="spin")
    first, both = (simulate(world(setting, HERE, COSTS, time), "continue", SEEDS) for time in (0.5, 1.5))
    made = [after["acquisitions"] - before["acquisitions"] for before, after in zip(first, both, strict=True)]
    assert 120 <= median(made) <= 250


# --- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "apart", "by_more"),
    [
        ([1, 2, 3], [3, 1, 2], 0, 0),
        ([1, 2], [30, 40], 1, 1),
        ([1, 1, 1, 100], [1, 100, 100, 100], 0.5, 0.5),  # two modes, met more or less often
        ([100, 100], [105, 105, 105], 1, 0),  # one mode, a little off
        ([100, 100, 200], [109, 115, 220], pytest.approx(2 / 3), pytest.approx(1 / 3)),
        ([5], [5, 5, 6], pytest.approx(1 / 3), pytest.approx(1 / 3)),
    ],
)
def test_how_far_samples_are_apart(one: list[float], other: list[float], apart: float, by_more: float) -> None:
    for left, right in ((one, other), (other, one)):
        assert distance(left, right) == apart
        assert distance(left, right, 1.1) == by_more


def test_chance_is_what_nineteen_of_twenty_samples_of_one_distribution_stay_within() -> None:
    """Known: 1.36 sqrt(1/n + 1/m) for large samples (Smirnov, 1948)."""
    drawn = random.Random(1)
    one, other = ([drawn.lognormvariate(0, 1) for _ in range(n)] for n in (200, 50))
    assert chance(one, other) == pytest.approx(1.36 * (1 / 200 + 1 / 50) ** 0.5, abs=0.02)
    within = 0
    for _ in range(100):
        one, other = ([drawn.choice([1.0, 50.0, 51.0]) for _ in range(n)] for n in (10, 20))
        within += distance(one, other) <= chance(one, other)
    assert within >= 90, "equal values, too"


@compiled
def test_distributions_are_compared_where_runs_differ_and_are_many() -> None:
    unlike = [(Setting(2), replace(RESULT, acquisitions=n)) for n in range(60_000, 100_000, 4000)]
    few, alike = [(Setting(1), one) for _, one in unlike[1:]], [(Setting(4, lock="tas"), RESULT)] * REPETITIONS
    check = compare(Measured(HERE, COSTS, (*unlike, *few, *alike)), seeds=4)
    (cell,) = check.distributed
    assert cell.setting == Setting(2) and cell.measured["acquisitions"].all == tuple(range(60_000, 100_000, 4000))
    assert cell.apart == (pytest.approx(0.6, abs=0.11), pytest.approx(0.4, abs=0.11))
    (line,) = distribution_table(check).lines(200)[3:]
    assert line.split()[:8] == ["2", "ticket", "yield", "60,000", "68,000", "76,000", "88,000", "96,000"]
    assert "Of 1 of 1 that were run often" in "\n".join(check_lines(check))
    told = check.to_dict()["settings"][0]
    assert told["apart"] == cell.apart and told["apart_by_chance"] == cell.apart_by_chance
    assert not compare(Measured(HERE, COSTS, tuple(few)), seeds=1).distributed


@compiled
def test_distributions_of_five_checks_together_are_predicted() -> None:
    """Those of docs/reality.md, fifteen runs of each setting: one number where they agree, else the distribution."""
    kept = [from_text(read_packed(KEPT / f"run-{run}.txt", MAX_BYTES).decode()) for run in range(1, 6)]
    check = compare(joined(kept), 10)
    assert len(check.stable) == 32 and median(check.errors()) <= 0.005 and max(check.errors()) <= 0.02
    assert all(cell.overlaps() for cell in check.distributed)
    for quantity, wrong in (("windows", 0), ("switches", 2)):
        assert sum(abs(cell.error(quantity) or 0) > 0.2 for cell in check.counted(quantity)) <= wrong
    assert len(check.distributed) + len(check.stable) == len(check.cells)
    alike = [cell for cell in check.distributed if cell.apart[1] <= cell.apart_by_chance]
    assert len(alike) >= 0.8 * len(check.distributed)


@compiled
def test_distributions_of_ten_runs_are_predicted() -> None:
    """Those in which a convoy forms by chance: most are near, and all ranges overlap."""
    check = compare(from_text(read_packed(KEPT / "bistable.txt", MAX_BYTES).decode()), 20)
    assert len(check.cells) == 17 and len(check.distributed) >= 16
    assert sum(cell.overlaps() for cell in check.cells) >= 16
    alike = [cell for cell in check.distributed if cell.apart[1] <= cell.apart_by_chance]
    assert len(alike) >= 13


# --- side by side -----------------------------------------------------------------------------------------------------


@compiled
def test_a_check_says_how_far_off_each_setting_is() -> None:
    alone = Setting(1, think=24_000)
    slower = replace(RESULT, acquisitions=60_000)
    check = compare(Measured(HERE, COSTS, ((alone, RESULT), (Setting(2), slower), (Setting(2), RESULT))), seeds=2)
    one, two = check.cells
    assert (one.setting, one.stable, one.measured["acquisitions"].middle) == (alone, True, 80_000)
    assert one.error() == pytest.approx(0.25, rel=0.01)  # 2.6e9 / 26,000 acquisitions instead of 80,000
    assert (one.measured["windows"].middle, one.measured["switches"].middle) == (5000, 500)
    assert one.measured_wait_p99_us == (2**13 / 2600, 2**14 / 2600)
    assert one.share == pytest.approx(0.995) and one.steal_ms == 4
    assert not two.stable and (two.measured["acquisitions"].low, two.measured["acquisitions"].high) == (60_000, 80_000)
    assert check.errors() == [pytest.approx(0.25, rel=0.01)] and not check.busy
    table = "\n".join(check_table(check).lines(200))
    assert "80,000 [80,000, 80,000]" in table and "unstable" in table and "+25.0" in table
    lines = "\n".join(check_lines(check))
    assert "rules of 6.18.2" in lines and "1 settings are stable" in lines and "at most 4 ms" in lines
    assert "Other work" not in lines
    assert check.to_dict()["settings"][0]["setting"]["threads"] == 1
    shifted = replace(one, predicted={**one.predicted, "windows": replace(one.measured["windows"], middle=9000)})
    lines = "\n".join(check_lines(replace(check, cells=[shifted])))
    for what, overlap in (("ended windows", 1), ("context switches", 0)):
        said = f"{what} of stable settings with 100 at least: 0 of 1 within 20 %; of 1 others the ranges of {overlap} "
        assert said in lines


@compiled
def test_a_busy_machine_is_told() -> None:
    check = compare(Measured(HERE, COSTS, ((Setting(2), replace(RESULT, cpu_us=1_000_000)),)), seeds=1)
    assert check.busy
    assert "Other work ran" in "\n".join(check_lines(check))


@compiled
def test_what_was_kept_is_compared_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no compiler
    kept, picture, document = (tmp_path / name for name in ("runs.txt", "picture.png", "check.json"))
    kept.write_text(to_text(MEASURED))
    words = ["--measured", str(kept), "--seeds", "1", "--picture", str(picture), "--json", str(document)]
    assert cli.main(["reality", *words]) == 0
    assert "2 settings, acquisitions of locks per second" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    check = json.loads(document.read_text())
    assert set(check) == {"machine", "costs", "host", "settings", "provenance"}
    assert check["costs"]["yield"] == 1414 and check["host"]["linux"] == "6.18.2"
    assert [one["measured"]["acquisitions"]["middle"] for one in check["settings"]] == [80_000, 80_000]


# --- timelines --------------------------------------------------------------------------------------------------------

RECORDED = lzma.decompress((ROOT / "tests" / "data" / "spinners.perf.xz").read_bytes())
SHARES = {"thread_0": 87.6, "thread_1": 0, "thread_2": 12.4, "thread_3": 8.0, "other_tasks": 92.0, "idle": 0}


def test_a_recorded_run_tells_who_had_the_cpus_in_numbers_and_a_picture() -> None:
    timeline = measured(RECORDED, HERE)
    found = timeline.numbers()
    assert found["switches_per_second"] == 5 / 0.05
    assert found["stay_us_p50"] == pytest.approx(3996.066) and found["stay_us_p90"] == pytest.approx(4000.923)
    assert {name: round(found[f"{name}_percent"], 1) for name in SHARES} == SHARES
    axes = timeline_figure(timeline, timeline, HERE.cpus).axes
    assert [one.get_title("left") for one in axes] == ["measured", "simulated"]
    for one in axes:
        assert one.get_xlim() == (0, 50) and [y.get_text() for y in one.get_yticklabels()] == ["CPU 0", "CPU 1"]
        assert "87.6  thread 0, %" in one.texts[0].get_text()
        assert sum(len(bars.get_paths()) for bars in one.collections) == 9


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        (b"# setting", b"#", "line 1: must be '# setting ... seed=...', not "),
        (b"threads=4", b"threads=5", "not all of 5 threads are in it"),
        (b"prev_state=R ", b"", "line 2: "),
        (b"==> next_comm=spinners next_pid=24332", b"==> next_comm=spinners next_pid=9", "perf has lost events, at 1 "),
    ],
)
def test_a_trace_that_is_damaged_is_refused(right: bytes, wrong: bytes, told: str) -> None:
    with pytest.raises(RealityError) as caught:
        measured(RECORDED.replace(right, wrong), HERE)
    assert str(caught.value).startswith(told)


@compiled
def test_a_kept_trace_is_drawn_beside_the_simulated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no perf
    kept, trace, picture, document = (tmp_path / name for name in ("runs.txt", "a.perf", "a.png", "a.json"))
    kept.write_text(to_text(replace(MEASURED, costs=replace(COSTS, others_every=26_000_000, others_take=260_000))))
    trace.write_bytes(RECORDED)
    words = ["--measured", str(kept), "--seeds", "1", "--trace", str(trace)]
    assert cli.main(["reality", *words, "--timeline", str(picture), "--json", str(document)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    for numbers in json.loads(document.read_text())["timeline"].values():
        assert sum(numbers[f"{name}_percent"] for name in SHARES) == pytest.approx(200)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["reality", *argv]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ple-gym: error: ") and told.count("\n") == 1
    return told.removeprefix("ple-gym: error: ").removesuffix("\n")


def test_another_machine_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.platform, "machine", lambda: "aarch64")
    assert refusal(capsys) == "the reality check needs Linux on x86-64; this is Linux on aarch64"


def test_without_a_compiler_nothing_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert refusal(capsys) == "the reality check needs a C compiler: gcc or clang; none is in PATH"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--repetitions", "0"), "--repetitions 0: must be 1..1000"),
        (("--seconds", "0"), "--seconds 0: must be 0.01..60"),
        (("--seconds", "nan"), "--seconds nan: must be 0.01..60"),
        (("--cpus", "-1"), "--cpus -1: must be 1.."),
        (("--quick", "--bistable"), "--bistable: not with --quick"),
        (("--measured", "none.txt"), "none.txt: No such file or directory"),
        (("--measured", ""), "Error parsing --measured: must not be empty"),
        (("--measured", "none.txt", "--out", "b.txt"), "--out b.txt: nothing is measured with --measured"),
        (("--out", "no/where.txt"), "no/where.txt: cannot be written: No such file or directory"),
        (("--quick", "--setting", "threads=4"), "--setting: not with --quick or --bistable"),
        (("--setting", "threads=65"), "--setting: threads = 65: must be 1..64"),
        (("--setting", "threads=1", "groups=2"), "--setting: groups = 2: must be 1..1"),
        (("--setting", "x=1"), "--setting x: must be threads, groups, window, hold, think, lock, reaction"),
        (("--measured", "a.txt", "--timeline", "a.png"), "--timeline a.png: takes --trace, too, with --measured"),
        (("--picture", "x.jpg"), "--picture x.jpg: the name must end in .png"),
    ],
)
def test_a_wrong_argument_is_refused(
    argv: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, *argv).startswith(told)


def test_a_damaged_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "runs.txt"
    kept.write_bytes(b"\xff")
    assert f"{kept}: not what ple-gym reality --out keeps, or damaged" in refusal(capsys, "--measured", str(kept))
    kept.write_text(to_text(MEASURED).replace("pause=50", "pause=0"))
    assert "guest.spin_period = 0: must be 1.." in refusal(capsys, "--measured", str(kept))
    kept.write_text(to_text(MEASURED))
    assert refusal(capsys, "--measured", str(kept), "--seeds", "0") == "--seeds 0: must be 1..1000"


@pytest.mark.parametrize(
    ("perf", "told"),
    [
        ("", "a timeline needs perf"),
        ("#!/bin/sh\necho no >&2; exit 1", "perf: no; to record sched_switch takes root, or "),
    ],
)
def test_without_perf_nothing_is_measured(
    perf: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("gcc", "#!/bin/sh"), ("perf", perf)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755 if text else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(capsys, "--trace", str(tmp_path / "a.perf")).startswith(told)


def test_more_cpus_than_there_are_are_refused() -> None:
    most = min(64, len(os.sched_getaffinity(0)))
    with pytest.raises(RealityError, match=f"^cpus = {most + 1}: must be 1..{most}, which this process may use$"):
        machine.this_machine(most + 1)


@pytest.mark.parametrize(
    ("compiler", "told"),
    [
        ("echo 'no such flag' >&2; exit 1", "gcc: no such flag"),
        ("exit 1", "gcc: exit code 1"),
        ("true", "spinners: cannot be run: No such file or directory"),
    ],
)
def test_a_compiler_that_fails_is_told(
    compiler: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gcc").write_text(f"#!/bin/sh\n{compiler}\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RealityError) as caught:
        measure([Setting(2)], 1, 0.05, 1, lambda done: None)
    assert str(caught.value) == told


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spinners() -> Iterator[Path]:
    with built() as path:
        yield path


def run(spinners: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([spinners, *map(str, words)], capture_output=True, text=True, timeout=60)


def cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:2]


@needs_gcc
def test_the_source_has_no_warnings(tmp_path: Path) -> None:
    source = ROOT / "ple_gym" / "reality" / program.SOURCE
    command = ["gcc", *program.FLAGS, "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "spinners", source]
    subprocess.run(command, check=True, timeout=60)


@needs_gcc
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("reaction", REACTIONS)
def test_a_short_run_counts_what_happens(spinners: Path, groups: int, lock: str, reaction: str) -> None:
    done = run(spinners, "run", 4, groups, 1024, 500, 3000, lock, reaction, 20_000, 200_000, 1, *cpus())
    result = from_line(Result, done.stdout.removesuffix("\n"))
    assert to_line(result) + "\n" == done.stdout
    assert result.warm_up > 2_000_000 and result.cycles > 20_000_000  # 20 and 200 ms of a slow TSC
    assert sum(result.waits) == result.contended <= result.acquisitions + 4  # who holds a lock at the end
    assert result.acquisitions > 0 or (lock, reaction) == ("ticket", "spin")  # where a convoy may stand still
    assert result.cpu_us > 0 and result.involuntary > 0
    assert len(result.groups) == groups
    if autogroup():
        assert len(set(result.groups)) == groups


@needs_gcc
def test_of_the_warm_up_nothing_is_counted(spinners: Path) -> None:
    """For as long as is counted others may have the CPUs, if that is only 10 ms."""
    done = run(spinners, "run", 2, 1, 4096, 500, 3000, "tas", "yield", 1_000_000, 100_000, 1, *cpus())
    result = from_line(Result, done.stdout.removesuffix("\n"))
    most = len(cpus()) * result.cycles / (500 + 3000 / 2)
    assert 0 < result.acquisitions < most


@needs_gcc
def test_perf_records_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        check_perf()
    except RealityError as failure:
        pytest.skip(f"no perf: {failure}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    here = machine.this_machine(len(cpus()))
    for _ in range(5):  # perf loses events now and then where others want the CPUs, too
        recorded = record(Setting(4), here, 0.05)
        try:
            numbers = measured(recorded, here).numbers()
            break
        except RealityError as failure:
            assert str(failure).startswith("perf has lost events")
    else:
        pytest.skip("no perf that keeps up with this machine's switches")
    shares = [numbers[f"{name}_percent"] for name in SHARES]
    assert sum(shares) == pytest.approx(100 * len(cpus())) and sum(shares[:4]) > 0
    assert list(tmp_path.iterdir()) == []


@needs_gcc
def test_costs_are_measured(spinners: Path) -> None:
    done = run(spinners, "costs", *cpus())
    assert done.stderr == ""
    costs = from_line(Costs, done.stdout.removesuffix("\n"))
    assert 10 < costs.pause < 1000
    assert 50 < costs.yield_ < costs.yield_switch < 1_000_000
    assert costs.line > 20 or len(cpus()) == 1
    assert 0 <= costs.own < 10_000
    assert 2000 <= costs.lost_take <= costs.lost_every / 2  # there are ticks at least
    alone = from_line(Costs, run(spinners, "costs", cpus()[0]).stdout.removesuffix("\n"))
    assert alone.line == 0
    assert alone.tsc_hz == pytest.approx(costs.tsc_hz, rel=0.001)


@needs_gcc
def test_other_tasks_are_noticed(spinners: Path) -> None:
    """One that never waits takes the CPU for a slice, again and again."""
    cpu = cpus()[0]
    hog = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", hog]) as other:
        try:
            costs = from_line(Costs, run(spinners, "costs", cpu).stdout.removesuffix("\n"))
        finally:
            other.kill()
    assert 100_000 < costs.others_take <= costs.others_every < costs.tsc_hz


@needs_gcc
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("costs",),
        ("both", 0),
        ("run", 4, 1, 1024),
        ("run", 65, 1, 1024, 500, 3000, "tas", "spin", 0, 50_000, 1, 0),
        ("run", 4, 3, 1024, 500, 3000, "tas", "spin", 0, 50_000, 1, 0),
        ("run", 4, 1, "1024x", 500, 3000, "tas", "spin", 0, 50_000, 1, 0),
        ("run", 4, 1, 1024, 500, 3000, "mcs", "spin", 0, 50_000, 1, 0),
        ("run", 4, 1, 1024, 500, 3000, "tas", "spin", 0, 50_000, 1),
    ],
)
def test_the_program_refuses_what_it_does_not_know(spinners: Path, words: tuple[object, ...]) -> None:
    done = run(spinners, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usage: spinners costs CPU")


@needs_gcc
def test_the_program_fails_on_a_cpu_that_is_not_there(spinners: Path) -> None:
    done = run(spinners, "run", 2, 1, 1024, 500, 3000, "tas", "spin", 0, 50_000, 1, 1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert "sched_setaffinity: Invalid argument" in done.stderr


@needs_gcc
def test_no_process_outlives_the_first(spinners: Path) -> None:
    words = ("run", 4, 2, 1024, 500, 3000, "ticket", "spin", 0, 50_000_000, 1, *cpus())
    process = subprocess.Popen([spinners, *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        assert patient(lambda: len(running(spinners)) == 3)
    finally:
        process.kill()
        process.wait()
    assert patient(lambda: running(spinners) == [], seconds=20)


@needs_gcc
@compiled
def test_an_interrupt_ends_everything_within_a_second(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "ple_gym.cli", "reality", "--seconds", "30"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert patient(lambda: len([name for name in running(tmp_path) if " run " in name]) > 1)
        began = time.monotonic()
        started.send_signal(signal.SIGINT)  # to the command alone: it must end the others
        _, told = started.communicate(timeout=60)
        assert patient(lambda: running(tmp_path) == [])
        assert time.monotonic() - began < max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    finally:
        started.kill()
        started.communicate()
    assert started.returncode == 130
    assert told.splitlines()[-1] == "ple-gym: interrupted"
    assert list(tmp_path.iterdir()) == []


#: Of each run how many settings are stable, and off by more than 10 %, and than 20 %; how many have wrong windows, and
#: wrong switches: docs/reality.md has the rest.
PREDICTED = [(1, 45, 1, 0, 9, 2), (2, 39, 0, 0, 4, 1), (3, 44, 1, 1, 8, 3), (4, 44, 1, 1, 8, 3), (5, 44, 3, 1, 7, 3)]


@compiled
@pytest.mark.parametrize(("run", "stable", "off", "far", "windows", "switches"), PREDICTED)
def test_runs_on_a_real_kernel_are_predicted(
    run: int, stable: int, off: int, far: int, windows: int, switches: int
) -> None:
    """Those of docs/reality.md, with its seeds: the order of the strongest pair, and the errors of all."""
    measured = from_text(read_packed(KEPT / f"run-{run}.txt", MAX_BYTES).decode())
    check = compare(measured, 10)
    errors = check.errors()
    assert len(errors) == stable and median(errors) <= 0.015
    assert sum(error > 0.1 for error in errors) <= off and sum(error > 0.2 for error in errors) <= far
    for quantity, wrong in (("windows", windows), ("switches", switches)):
        assert sum(abs(cell.error(quantity) or 0) > 0.2 for cell in check.counted(quantity)) <= wrong
    found = {cell.setting: cell for cell in check.cells}
    fifo, unfair = found[Setting(8, lock="ticket", reaction="spin")], found[Setting(8, lock="tas", reaction="yield")]
    for told in ("measured", "predicted"):
        best, worst = (getattr(cell, told)["acquisitions"].middle for cell in (unfair, fifo))
        assert best > 2 * worst, told


@needs_gcc
def test_a_fifo_lock_that_spins_on_is_worse_than_an_unfair_one_that_yields() -> None:
    """The strongest pair of all, on a real kernel; as a ratio, so that other work on the machine matters little."""
    if len(cpus()) < 2:
        pytest.skip("gcc alone is not enough: it takes two CPUs")
    pair = [Setting(8, think=10_000, lock="ticket", reaction="spin"), Setting(8, think=10_000, lock="tas")]
    found = measure(pair, 3, 0.5, 2, lambda done: None).by_setting()
    fifo, unfair = (median(one.acquisitions for one in found[setting]) for setting in pair)
    assert unfair > 3 * fifo


def patient(holds: object, seconds: float = 60) -> bool:
    """Whether something comes true in time."""
    assert callable(holds)
    end = time.monotonic() + seconds
    while not (so := bool(holds())) and time.monotonic() < end:
        time.sleep(0.02)
    return so


def running(below: Path) -> list[str]:
    """Command lines of the processes that have been started from a folder, or from a file."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].decode(errors="replace").startswith(str(below)):
            found.append(b" ".join(words).decode(errors="replace"))
    return found
