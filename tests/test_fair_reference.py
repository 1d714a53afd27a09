"""What Linux's fair scheduler must do with a few vCPUs on one pCPU, in microseconds; the reference simulator does it.

The expected times were worked out by hand from the rules of each version of Linux, not by this simulator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from reference_simulator import World
from reference_simulator.fair import VERSIONS, Fair
from reference_simulator.state import State
from test_reference import CONVOY

CFS, E66, E612, E614, E618, FORFEITS = VERSIONS
EEVDF = (E66, E612, E614, E618, FORFEITS)
SLICES = {CFS: 3000, E66: 3000, E612: 3000, E614: 3000, E618: 2800, FORFEITS: 2800}


class Cpu:
    """A pCPU with vCPUs A, B, ... of given virtual times, each of which computes for ever; a cycle is a microsecond."""

    def __init__(
        self, linux: str, *virtual: int, tick: int = 4000, slice_us: int = 0, groups: str = "flat", split: int = 0
    ) -> None:
        scenario = copy.deepcopy(CONVOY)
        scenario["host"].update(scheduler="fair", linux=linux, groups=groups, tsc_hz=10**6, tick_us=tick)
        scenario["host"].update(base_slice_us=slice_us or SLICES[linux], wakeup_granularity_us=4000)
        scenario["cost"] = dict.fromkeys(scenario["cost"], 0)
        scenario["limit"] = {"simulated_s": 1000.0}
        vm = {**scenario["guest"], "start": "fresh", "locks": 0, "transactions": 0, "compute": "constant 1000000000"}
        scenario["guest"] = {**vm, "vcpus": split or len(virtual)}
        scenario["neighbours"] = [{**vm, "vcpus": len(virtual) - split}] if split else []
        self.world = World(scenario, 0)
        assert isinstance(self.world.host, Fair)
        self.host = self.world.host
        self.pcpu = self.world.pcpus[0]
        self.host.set_tick(self.pcpu, tick)
        self.threads = [self.host.threads[v] for v in self.world.vcpus]
        assert self.pcpu.current is not None
        self.host.put_back(self.pcpu, self.pcpu.current)
        for thread, v in zip(self.threads, virtual, strict=True):
            thread.v = v
            thread.d = v + self.host.slice
        self.pcpu.current = self.host.runqueues[self.pcpu].curr = self.host.runqueues[self.pcpu].group = None
        self.host.schedule(self.pcpu)
        self.starts = [self.running]

    @property
    def running(self) -> str:
        """Who has been running since when."""
        v = self.pcpu.current
        return "idle" if v is None else f"{chr(ord('A') + v.index)}@{self.pcpu.dispatched_at}"

    def at(self, t: int, action: Callable[[], object] = lambda: None) -> None:
        """Let what is due before t happen, and then the action."""
        while (due := self.world.next_event())[0] < t:
            self.world.now = due[0]
            self.world.serve(*due[1:])
            self.note()
        self.world.now = t
        self.world.settle(self.pcpu, t)
        action()
        self.note()

    def note(self) -> None:
        if self.running != self.starts[-1]:
            self.starts.append(self.running)

    def yields(self) -> None:
        assert self.pcpu.current is not None
        self.world.defer(self.pcpu, self.pcpu.current)

    def schedule(self) -> None:
        self.host.schedule(self.pcpu)

    def hint(self, name: str) -> None:
        """What a directed yield from elsewhere does here."""
        assert self.host.favour(self.pcpu, self.world.vcpus[ord(name) - ord("A")])
        self.schedule()

    def block(self) -> None:
        """Who runs blocks, until it is woken."""
        assert self.pcpu.current is not None
        self.pcpu.current.state = State.BLOCKED
        self.schedule()

    def wake(self, name: str) -> None:
        self.host.wake(self.world.vcpus[ord(name) - ord("A")])

    def starts_until(self, t: int) -> list[str]:
        self.at(t)
        return self.starts


@pytest.mark.parametrize("linux", VERSIONS)
def test_hogs_take_turns(linux: str) -> None:
    long = linux == CFS
    expected = ["A@0", "B@16000", "A@32000"] if long else ["A@0", "B@4000", "A@8000", "B@12000"]
    assert Cpu(linux, 0, 1).starts_until(expected_end(expected)) == expected
    expected = ["A@0", "B@13000", "A@26000"] if long else ["A@0", "B@3000", "A@6000"]
    assert Cpu(linux, 0, 1, tick=1000).starts_until(expected_end(expected)) == expected
    expected = ["A@0", "B@12000", "C@24000", "A@36000"] if long else ["A@0", "B@4000", "C@8000", "A@12000"]
    assert Cpu(linux, 0, 1, 2).starts_until(expected_end(expected)) == expected


def expected_end(starts: list[str]) -> int:
    return int(starts[-1].partition("@")[2]) + 1


@pytest.mark.parametrize("linux", VERSIONS)
def test_a_yield(linux: str) -> None:
    """An ineligible yielder pays nothing where a yield forfeits virtual time, and so returns earlier."""
    cpu = Cpu(linux, 0, 1, 2)
    cpu.at(1000, cpu.yields)
    expected = {
        CFS: ["A@0", "B@1000", "C@12000", "A@24000"],
        FORFEITS: ["A@0", "B@1000", "A@4000", "C@8000", "B@12000"],
    }
    wanted = expected.get(linux, ["A@0", "B@1000", "C@4000", "A@8000", "B@16000"])
    assert cpu.starts_until(expected_end(wanted)) == wanted


@pytest.mark.parametrize(
    ("linux", "expected"),
    [
        (CFS, ["A@0", "B@500", "A@12000"]),
        (E66, ["A@0", "B@20000"]),  # each yield has put off its deadline
        (E612, ["A@0", "B@4000", "A@8000", "B@24000"]),
        (E614, ["A@0", "B@4000", "A@8000", "B@24000"]),
        (E618, ["A@0", "B@4000", "A@8000", "B@24000"]),
        (FORFEITS, ["A@0", "B@501", "A@4000", "B@8000"]),
    ],
)
def test_yields_of_one_that_is_eligible(linux: str, expected: list[str]) -> None:
    cpu = Cpu(linux, 0, 3999)
    for t in range(500, 505):
        if cpu.running == "A@0":
            cpu.at(t, cpu.yields)
    assert cpu.starts_until(expected_end(expected)) == expected


@pytest.mark.parametrize("linux", VERSIONS)
def test_a_hint_between_two(linux: str) -> None:
    """EEVDF takes the one that is behind, hint or no hint."""
    cpu = Cpu(linux, 0, 3999)
    cpu.at(1000, lambda: cpu.hint("B"))
    assert cpu.starts_until(4001) == ["A@0", "B@1000" if linux == CFS else "B@4000"]
    cpu = Cpu(linux, 0, 1)
    cpu.at(1000, lambda: cpu.hint("B"))
    assert cpu.starts == ["A@0", "B@1000"]
    cpu = Cpu(linux, 0, 1)
    cpu.at(1000, cpu.schedule)
    assert cpu.starts == ["A@0", "B@1000"]


@pytest.mark.parametrize("linux", VERSIONS)
def test_a_hint_among_three(linux: str) -> None:
    cpu = Cpu(linux, 0, 1, 2)
    cpu.at(1000, lambda: cpu.hint("C"))
    if linux in (E66, E612):
        assert cpu.starts_until(8001) == ["A@0", "B@1000", "A@4000", "C@8000"]
    else:
        assert cpu.starts == ["A@0", "C@1000"]


@pytest.mark.parametrize("linux", VERSIONS)
def test_a_hint_that_is_not_eligible_stays(linux: str) -> None:
    cpu = Cpu(linux, 0, 2000, 4001, slice_us=3000)
    cpu.at(1000, lambda: cpu.hint("C"))
    if linux == CFS:
        assert cpu.starts == ["A@0", "C@1000"]
    elif linux in (E66, E612):
        assert cpu.starts_until(12001) == ["A@0", "B@4000", "A@8000", "C@12000"]
    else:
        assert cpu.starts_until(12001) == ["A@0", "B@4000", "C@8000", "A@12000"]


def test_a_hint_that_is_too_far_ahead_under_cfs() -> None:
    cpu = Cpu(CFS, 0, 5000)
    cpu.at(1000, lambda: cpu.hint("B"))
    assert cpu.starts == ["A@0", "B@1000"]
    cpu = Cpu(CFS, 0, 5001)
    cpu.at(1000, lambda: cpu.hint("B"))
    assert cpu.starts_until(16001) == ["A@0", "B@16000"]


@pytest.mark.parametrize("linux", VERSIONS)
def test_a_sleep_with_negative_lag(linux: str) -> None:
    cpu = Cpu(linux, 0, 1)
    a, b = cpu.threads
    cpu.at(2000, cpu.block)
    cpu.at(7999)
    assert a.delayed == (linux not in (CFS, E66))
    cpu.at(8001)
    assert not a.queued and (linux in (CFS, E66) or a.vlag == 0)
    cpu.at(21_000, lambda: cpu.wake("A"))
    assert b.v == 19_001
    assert a.v == {CFS: 7001, E66: 21_001}.get(linux, 19_001)
    again = 21_000 if linux == CFS else 24_000
    assert cpu.starts_until(again + 1) == ["A@0", "B@2000", f"A@{again}"]


@pytest.mark.parametrize(("linux", "v"), [(E66, 3001), (E612, 2000), (E614, 2000), (E618, 2000), (FORFEITS, 2000)])
def test_who_is_woken_before_its_lag_is_paid_keeps_it(linux: str, v: int) -> None:
    cpu = Cpu(linux, 0, 1)
    cpu.at(2000, cpu.block)
    cpu.at(3000, lambda: cpu.wake("A"))
    assert cpu.threads[0].v == v


@pytest.mark.parametrize("linux", EEVDF)
def test_lag_is_kept_when_others_are_there(linux: str) -> None:
    cpu = Cpu(linux, 10_000, 10_000, 0)
    wakee, root = cpu.threads[2], cpu.host.runqueues[cpu.pcpu].root
    cpu.host.remove(wakee, moves=False)
    for vlag, v in ((1500, 7750), (-1500, 12_250)):
        wakee.vlag = vlag
        cpu.host.place(root, wakee, wakes=True)
        assert wakee.v == v


def yields_of(cpu: Cpu, until: int) -> int:
    """How often A yields, if it does so after every microsecond that it has run."""
    count = 0
    while cpu.world.now < until:
        cpu.at((cpu.world.now if cpu.running.startswith("A") else cpu.world.next_event()[0]) + 1)
        if cpu.running.startswith("A"):
            cpu.yields()
            count += 1
    return count


@pytest.mark.parametrize(("hogs", "expected"), [(1, 357), (2, 179), (3, 120)])
def test_yields_in_a_loop_forfeit_time(hogs: int, expected: int) -> None:
    assert abs(yields_of(Cpu(FORFEITS, 0, *range(1, hogs + 1)), 10**6) - expected) <= 1


@pytest.mark.parametrize("linux", [E66, E612, E614, E618])
def test_yields_in_a_loop_keep_half_the_time(linux: str) -> None:
    assert yields_of(Cpu(linux, 0, 1), 40_000) == 20_000


def test_who_is_alone_in_its_group_gives_up_nothing() -> None:
    """An EEVDF yield acts on the vCPU's own queue, not on the groups."""
    assert yields_of(Cpu(FORFEITS, 0, 1, groups="vm", split=1), 40_000) == 20_000
    assert yields_of(Cpu(FORFEITS, 0, 1, groups="vcpu"), 40_000) == 20_000, "libvirt's: siblings, too"
    assert yields_of(Cpu(FORFEITS, 0, 1, groups="vm"), 40_000) < 20
