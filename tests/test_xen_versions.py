"""What Xen's versions do differently (docs/model.md, 9.10): small cases with known numbers, and long runs."""

from __future__ import annotations

import copy
from functools import cache

import pytest
from machine import Machine, traced
from reference_simulator import World
from reference_simulator.state import BOOST, INF, OVER, UNDER, Mode, Pcpu, State
from test_reference import CONVOY, changed

from ple_gym.scenario import Scenario, ScenarioError
from ple_gym.scenario.builtin import load
from ple_gym.sim.host.credit import OVER as OVER_CODE
from ple_gym.traces import events as tr

VERSIONS = ("4.5", "4.8", "4.17", "4.18")
US = 1_000  # cycles; the small cases have a clock of 1 GHz


def world(version: str, pcpus: int = 4, vcpus: int = 8, sockets: int = 1) -> World:
    """A world of the reference simulator at time 0, in which nobody locks; all vCPUs but those that run are queued."""
    host = {"xen": version, "yield_bypasses_ratelimit": "version", "fresh_ratelimit_slice": "version"}
    scenario = changed(
        copy.deepcopy(CONVOY),
        host={**host, "pcpus": pcpus, "sockets": sockets},
        guest={"vcpus": vcpus, "transactions": 0, "locks": 0, "start": "fresh"},
    )
    return World(scenario, 1)


# --------------------------------------------------------------------------------------------------------- small cases


@pytest.mark.parametrize(
    ("version", "ran", "left"),
    [
        ("4.5", 0, 1000 * US), ("4.5", 400 * US, 1000 * US),  # a fresh limit
        ("4.8", 99_999, 100 * US), ("4.8", 100_000, 900 * US), ("4.8", 400 * US, 600 * US),
        ("4.18", 99_999, 100 * US), ("4.18", 999_999, 1),
    ],
)  # fmt: skip
def test_what_a_rate_limited_pass_grants(version: str, ran: int, left: int) -> None:
    """0053127890: what is left of the limit, but 100 us of who has run for less than 100 us."""
    w = world(version)
    p = w.pcpus[0]
    w.now = p.dispatched_at + ran
    assert w.host.holds(p)
    assert p.slice_end - w.now == left


@pytest.mark.parametrize("version", VERSIONS)
def test_a_yield_skips_the_rate_limit_since_48(version: str) -> None:
    w = world(version)
    p = w.pcpus[0]
    w.host.yields(p.current)
    assert w.host.holds(p) == (version == "4.5")


@pytest.mark.parametrize("version", VERSIONS)
def test_who_migrates_is_boosted_in_45_alone(version: str) -> None:
    w = world(version)
    v = w.pcpus[0].queue.pop()
    v.priority = UNDER
    w.host.migrate(v)
    assert v.priority == (BOOST if version == "4.5" else UNDER)
    w.host.take_out(v)
    v.priority, v.state = UNDER, State.BLOCKED
    w.host.wake(v)
    assert v.priority == BOOST


def idle(p: Pcpu) -> Pcpu:
    """Empty a pCPU."""
    p.mode, p.current = Mode.IDLE, None
    return p


@pytest.mark.parametrize("version", VERSIONS)
def test_the_second_of_two_that_wake_finds_another_pcpu_since_49(version: str) -> None:
    """47d5292995: who has been tickled does not count as idle. Here there is one idler, so the second preempts."""
    w = world(version)
    busy, idler = w.pcpus[0], idle(w.pcpus[3])
    first, second = busy.queue.pop(0), w.pcpus[1].queue.pop(0)
    second.pcpu = busy
    for v in (first, second):
        v.state, v.priority = State.BLOCKED, UNDER
        w.host.wake(v)
    assert idler.resched_at == w.parameters.ipi
    assert busy.resched_at == (INF if version in ("4.5", "4.8") else w.parameters.ipi)


@pytest.mark.parametrize("version", VERSIONS)
def test_where_the_next_scan_begins(version: str) -> None:
    """89216c7999: since 4.9 a scan begins after the pCPU last stolen from; each socket has its own."""
    w = world(version, pcpus=6, vcpus=24, sockets=2)
    w.now = 50_000_000
    thief, stolen_from = w.pcpus[1], []
    for _ in range(6):
        v = w.host.steal(thief, OVER - 1)
        assert v is not None
        stolen_from.append(v.pcpu.index)
        w.host.take_out(v)
    assert stolen_from == ([0, 0, 0, 2, 2, 2] if version in ("4.5", "4.8") else [2, 0, 2, 0, 2, 0])
    assert [w.host.steal(thief, OVER - 1).pcpu.index] == ([3] if version in ("4.5", "4.8") else [4])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pcpu_that_has_looked_in_vain_goes_idle(version: str) -> None:
    """58feb9e0ac: within a millisecond after a scan a pCPU takes its own head, and is idle if it has none."""
    w = world(version)
    p = w.pcpus[0]
    p.queue.clear()
    limited = version in ("4.17", "4.18")
    p.balanced_at, w.now = 0, 1_000_000
    assert (w.host.choose(p) is None) == limited
    w.now = 1_000_001
    assert w.host.choose(p) is not None
    assert p.balanced_at == (1_000_001 if limited else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_yield_lasts_in_418(version: str) -> None:
    """e282067cf2: nobody steals who has yielded and waits; whoever is behind may be stolen."""
    w = world(version)
    thief, other = w.pcpus[0], w.pcpus[1]
    yielder, behind = other.current, other.queue[0]
    assert yielder is not None
    yielder.priority, behind.priority = UNDER, OVER
    w.now = 2_000_000
    w.host.yields(yielder)
    other.current = None
    w.host.insert(other, yielder)
    w.host.has_yielded(yielder)
    for p in w.pcpus[2:]:
        p.queue.clear()
    other.current, other.mode = w.pcpus[2].current, Mode.GUEST
    assert other.queue == [behind, yielder]  # behind one of lower priority
    behind.priority = UNDER
    assert w.host.steal(thief, OVER) is behind
    w.host.take_out(behind)
    assert w.host.steal(thief, OVER) is (None if version == "4.18" else yielder)
    w.host.take_out(yielder)
    assert not yielder.yielding


# ----------------------------------------------------------------------------------------------------------- long runs


@cache
def spinning(version: str) -> tuple[list[tuple[int, int, int, int]], Scenario]:
    """A run of eight vCPUs that wait in line on four pCPUs: what ran, stopped and exited, (time, kind, pCPU, vCPU)."""
    changes = {"guest.start": "convoy", "guest.transactions": 1000, "host.xen": version}
    overrides = {**changes, "host.credit_pcpus": 4}  # with more nobody is ever OVER, and so nobody is stolen
    scenario = load("Paper8").with_overrides(overrides)
    _, trace = traced(scenario, "host", seed=4)
    return [tuple(row[:4]) for row in trace.tolist() if row[1] in (tr.RUN, tr.STOP, tr.PLE)], scenario


def moves(version: str) -> list[tuple[int, int, int, bool]]:
    """Who was stolen: time, thief, vCPU, whether it had left its pCPU by an exit. (Here nobody ever sleeps.)"""
    stopped: dict[int, tuple[int, bool]] = {}
    exited, found = (-1, -1), []
    for t, kind, p, v in spinning(version)[0]:
        if kind == tr.PLE:
            exited = (t, v)
        elif kind == tr.STOP:
            stopped[v] = (p, exited == (t, v))
        elif v in stopped and stopped[v][0] != p:
            found.append((t, p, v, stopped[v][1]))
    return found


def test_nobody_steals_who_has_yielded_in_418() -> None:
    yielded = {version: [v for *_, v, by_exit in moves(version) if by_exit] for version in VERSIONS}
    assert not yielded["4.18"]
    assert all(len(yielded[version]) > 20 for version in ("4.5", "4.8", "4.17"))
    assert moves("4.18"), "nobody was stolen at all"


def test_a_pcpu_steals_once_a_millisecond_since_417() -> None:
    for version in VERSIONS:
        last: dict[int, int] = {}
        gaps = []
        for t, thief, *_ in moves(version):
            if thief in last:
                gaps.append(t - last[thief])
            last[thief] = t
        millisecond = spinning(version)[1].host.tsc_hz // 1000
        assert all(gap > millisecond for gap in gaps) == (version in ("4.17", "4.18")), version
        assert len(gaps) > 20 or version == "4.18", version  # there hardly anybody is left to be stolen


def share_over(credit_pcpus: int) -> float:
    """Share of vCPUs that are OVER, at the decisions of the paper's machine in a storm."""
    overrides = {"guest.start": "convoy", "guest.transactions": 0, "noise.rate_hz": 0, "limit.simulated_s": 0.2}
    m = Machine(load("Paper8").with_overrides({**overrides, "host.credit_pcpus": credit_pcpus}), seed=4)
    over = decisions = 0
    while m.deciding:
        over += int((m.host_vcpu["priority"] == OVER_CODE).sum())
        decisions += 1
        m.step(m.defer)
    assert decisions > 20_000
    return over / (8 * decisions)


def test_a_credit_pool_of_six_leaves_hardly_anybody_over() -> None:
    """Xen hands out the credits of all pCPUs of the pool, also of those that the guest may not run on."""
    assert share_over(6) < 0.01
    assert share_over(4) > 0.1


# ------------------------------------------------------------------------------------------------------------ settings


def test_a_version_may_be_written_as_a_number() -> None:
    assert load("Tiny").with_overrides({"host.xen": 4.18}).host.xen == "4.18"
    with pytest.raises(ScenarioError, match=r"host.xen = 4.6: must be 4.5, 4.8, 4.17, 4.18 or 4.21"):
        load("Tiny").with_overrides({"host.xen": 4.6})


def test_a_flag_puts_one_change_into_a_version() -> None:
    for flag, exits in (("false", 2), ("version", 1)):
        m = Machine(load("Tiny").with_overrides({"host.xen": "4.18", "host.yield_bypasses_ratelimit": flag}))
        m.step(m.defer)
        assert m.pcpu["dispatch_exits"][0] == exits, "of the dispatch; the first yield was in vain, or it was not"
    with pytest.raises(ScenarioError, match=r"fresh_ratelimit_slice = 'no': must be version, true or false"):
        load("Tiny").with_overrides({"host.fresh_ratelimit_slice": "no"})
