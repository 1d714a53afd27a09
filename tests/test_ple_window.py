"""The window of a vCPU, as KVM grows and shrinks it (docs/model.md, 8.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine import Machine, traced

from ple_gym.scenario import Cost, Host, Limit, Ple, Scenario, Vm
from ple_gym.traces import events as tr

EXIT, SWITCH, PERIOD = 1000, 3000, 64  # cycles
GROWING = Ple(window_grow=2)


def stalled(ple: Ple, vcpus: int = 2) -> Scenario:
    """One pCPU: somebody spins for a lock whose holder waits for the pCPU, and no timer comes for long."""
    return Scenario(
        host=Host(pcpus=1, timeslice_ms=1000, ratelimit_us=0),
        cost=Cost(exit=EXIT, switch=SWITCH),
        ple=ple,
        limit=Limit(simulated_s=0.001),
        guest=Vm(vcpus=vcpus, locks=1, spin_period=PERIOD, transactions=vcpus, start="convoy"),
    )


def exits(ple: Ple) -> list[int]:
    """Times of the exits of a stalled spinner in a millisecond, from its entry."""
    _, trace = traced(stalled(ple), "continue")
    return [int(row[0]) - SWITCH for row in trace if row[1] == tr.PLE]


def test_a_stalled_spinner_exits_ever_more_rarely() -> None:
    """With KVM's values the k-th exit is over 4096 (2^k - 1) + k C after the entry: nine in a millisecond."""
    found = exits(GROWING)
    assert [t + EXIT for t in found] == [4096 * (2**k - 1) + k * (PERIOD + EXIT) for k in range(1, 10)]
    assert exits(Ple()) == list(range(4096 + PERIOD, 2_670_000 - SWITCH, 4096 + PERIOD + EXIT)), "without growth"


@pytest.mark.parametrize("rule", ["continue", "host", "kvm-6.18"])
@pytest.mark.parametrize("linux", ["5.15", "6.6", "6.18.2"])
def test_a_yield_after_which_the_same_vcpu_goes_on_is_no_switch(linux: str, rule: str) -> None:
    """On Linux, alone on its pCPU, while the holder runs on another one: as if it had not yielded."""
    world = stalled(GROWING).with_overrides(
        {"host.scheduler": "fair", "host.linux": linux, "host.pcpus": 2, "guest.hold": "constant 100000000000"}
    )
    _, trace = traced(world, rule)
    found = [int(row[0]) - SWITCH + EXIT for row in trace if row[1] == tr.PLE]
    assert found == [4096 * (2**k - 1) + k * (PERIOD + EXIT) for k in range(1, 10)]


def test_a_count_grows_likewise() -> None:
    found = exits(Ple(kind="count", count=100, window_grow=3, window_max=65_535))
    assert [t + EXIT for t in found] == [
        sum(100 * 3**i - 1 for i in range(k)) * PERIOD + k * EXIT for k in range(1, len(found) + 1)
    ]
    assert len(found) == 6


@pytest.mark.parametrize(
    ("ple", "windows"),
    [
        (Ple(), [4096, 4096, 4096]),
        (replace(GROWING, window_max=10_000), [8192, 10_000, 10_000]),
        (Ple(window_grow=4096), [8192, 12_288, 16_384]),  # not less than the window itself: it is added
        (Ple(window_grow=4095), [4096 * 4095, 2**32 - 1]),
        (replace(GROWING, window_max=100), [100, 100, 100]),
    ],
)
def test_how_a_window_grows(ple: Ple, windows: list[int]) -> None:
    m = Machine(stalled(ple).with_overrides({"limit.simulated_s": 1}))
    found = []
    for _ in windows:
        found.append(int(m.vcpu["window"][m.asker]))
        m.step(m.asker)
    assert found == windows


@pytest.mark.parametrize(
    ("shrink", "window"),
    [(0, 4096), (1, 65_536), (2, 32_768), (4, 16_384), (100, 4096), (5000, 60_536), (30_000, 35_536), (10**9, 4096)],
)
def test_how_a_window_shrinks_when_a_vcpu_is_switched_in(shrink: int, window: int) -> None:
    m = Machine(stalled(replace(GROWING, window_shrink=shrink), vcpus=3).with_overrides({"limit.simulated_s": 1}))
    one, other = m.asker, m.queue(0)[0]
    for _ in range(3):
        m.step(one)
    assert m.vcpu["window"][[one, other]].tolist() == [65_536, 4096]
    m.step(other)
    assert m.asker == other
    m.step(one)
    assert (m.asker, m.vcpu["window"][one]) == (one, 2 * window), "it has grown again by the exit that followed"


def test_a_long_window_is_not_progress() -> None:
    m = Machine(stalled(GROWING).with_overrides({"limit.simulated_s": 0.01}))
    spinner, count = m.asker, 1
    while m.deciding:
        assert m.asker == spinner and m.vcpu["ples"][spinner] == 1 + count  # it starts with one (12)
        count += 1
        m.step(m.asker)
    assert count > 10
