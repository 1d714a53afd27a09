"""docs/findings-on-guests.md says what the committed data say."""

from __future__ import annotations

import pytest

from experiments.answer import assumed, published
from experiments.answer.field import change as change_of_throughput
from experiments.answer.field import sides
from experiments.answer.remedies import BALLOONING, LATER, NONE, SHORT, STRICT, Cell
from experiments.lab.tables import committed
from experiments.pages import findings_on_guests
from ple_gym.evaluate.statistics import Estimate


def test_the_page_is_made_from_the_table() -> None:
    page = findings_on_guests.page(committed("assumed"), committed("remedies"))
    assert page == findings_on_guests.PAGE.read_text(encoding="utf-8"), "run python -m experiments results"


def change(place: str, remedy: str, rule: str = "host") -> Estimate:
    return Cell(place, remedy, rule).change(committed("remedies"))


#: Worlds whose vCPUs never sleep, and spin on locks.
SPINNING = ("Busy8", "Busy4 twice", "Paper8")


@pytest.mark.parametrize("place", SPINNING)
@pytest.mark.parametrize(
    "remedy", ["preemptable ticket locks", "balance scheduling", "relaxed co-scheduling, 3 ms", SHORT, BALLOONING]
)
def test_these_shorten_the_work_and_in_paper8_two_are_unclear(place: str, remedy: str) -> None:
    own = change(place, remedy)
    assert own.low is not None and own.high is not None and own.low < 0
    assert (own.high < 0) is not (place == "Paper8" and remedy in ("balance scheduling", SHORT))


def test_what_leaves_small_vms_pcpus_idle_harms_them_and_so_do_short_slices() -> None:
    for remedy, least in ((STRICT, 400), (BALLOONING, 5), (SHORT, 20)):
        low = change("Consolidated", remedy).low
        assert low is not None and low > least, remedy
    assert change("Consolidated", SHORT, "spin-age-self").mean < change("Consolidated", NONE, "spin-age-self").mean


def test_who_waits_for_answers_needs_fewer_vcpus_and_no_later_preemption() -> None:
    low, high = change("KvmEbizzy", LATER).low, change("KvmEbizzy", BALLOONING).high
    assert low is not None and low > 20 and high is not None and high < -40


@pytest.mark.parametrize("place", SPINNING)
def test_balance_scheduling_mends_less_than_co_scheduling(place: str) -> None:
    together = STRICT if place == "Busy4 twice" else "relaxed co-scheduling, 3 ms"
    assert change(place, "balance scheduling").mean > change(place, together).mean


@pytest.mark.parametrize("every_us", published.EVERY_US)
def test_to_see_interrupts_or_to_look_twice_gains_from_three_vms_on(every_us: int) -> None:
    gains = {
        key: change_of_throughput(committed("published"), one) for key, one in published.AWARENESS[every_us].items()
    }
    for vms in (3, 4):
        for way in (published.BLIND, published.BOTH, published.SEEING):
            low = gains[way, vms].low
            assert low is not None and low > 10, (way, vms)
        assert abs(gains[published.AWARE, vms].mean) < 0.5, "it is no better than who sees interrupts"
    for way in (published.BLIND, published.BOTH, published.SEEING):
        assert -1 < gains[way, 2].mean < 3 and gains[way, 2].mean < gains[way, 4].mean, "not as published"


def test_at_twice_the_vcpus_little_is_lost_and_at_four_times_half() -> None:
    for every_us in published.EVERY_US:
        for vms, least, most in ((2, 0.97, 1.0), (4, 0.4, 0.6)):
            base, _ = sides(committed("published"), published.AWARENESS[every_us][published.BLIND, vms])
            assert least < float(published.throughput(base).mean()) / 16 < most


@pytest.mark.parametrize(("every_us", "least"), [(110, 70), (1350, 95)])
def test_strict_boost_avoids_exits(every_us: int, least: float) -> None:
    base, strict = sides(committed("published"), published.STRICT[every_us])
    assert 100 * (1 - strict["exits"].sum() / base["exits"].sum()) > least


@pytest.mark.parametrize("place", ["Busy8", "Busy4 twice"])
def test_later_preemption_does_not_mend_what_waiters_cause(place: str) -> None:
    own = change(place, LATER)
    assert own.low is not None and own.high is not None and own.low < 0 < own.high
    assert change(place, NONE, "spin-age-self").mean < -15


def test_the_machines_own_rule_stands_under_kvm_and_not_under_xen() -> None:
    table = committed("assumed")

    def sooner(name: str, rule: str) -> list[bool]:
        changes = [assumed.change(table, setting, rule) for setting in assumed.settings() if setting[0] == name]
        return [one.high is not None and one.high < 0 and not one.few for one in changes]

    often = {(name, rule) for name in assumed.VARIED for rule in assumed.OTHERS if sum(sooner(name, rule)) > 1}
    assert {pair for pair in often if pair[0].startswith("Kvm")} == {("KvmDbench-v0", "continue")}
    for name in ("XcpWindows-v1", "Consolidated-v1"):
        for setting in (one for one in assumed.settings() if one[0] == name):
            high = assumed.change(table, setting, "two-patience").high
            nothing_at_stake = abs(assumed.change(table, setting, "continue").mean) < 1
            assert nothing_at_stake or (high is not None and high < 0), setting
