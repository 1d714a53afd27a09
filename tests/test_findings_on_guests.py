"""docs/findings-on-guests.md says what the committed data say."""

from __future__ import annotations

import pytest

from experiments.answer.remedies import BALLOONING, NONE, STRICT, WORLDS, Cell
from experiments.lab.tables import committed
from experiments.pages import findings_on_guests
from ple_gym.evaluate.statistics import Estimate


def test_the_page_is_made_from_the_table() -> None:
    page = findings_on_guests.page(committed("remedies"))
    assert page == findings_on_guests.PAGE.read_text(encoding="utf-8"), "run python -m experiments results"


def change(place: str, remedy: str, rule: str = "host") -> Estimate:
    return Cell(place, remedy, rule).change(committed("remedies"))


@pytest.mark.parametrize("place", WORLDS)
@pytest.mark.parametrize(
    "remedy", ["preemptable ticket locks", "balance scheduling", "relaxed co-scheduling, 3 ms", BALLOONING]
)
def test_these_shorten_the_work(place: str, remedy: str) -> None:
    high = change(place, remedy).high
    assert high is not None and high < 0


@pytest.mark.parametrize("place", WORLDS)
def test_balance_scheduling_mends_less_than_co_scheduling(place: str) -> None:
    together = STRICT if place == "Busy4 twice" else "relaxed co-scheduling, 3 ms"
    assert change(place, "balance scheduling").mean > change(place, together).mean


@pytest.mark.parametrize("place", ["Busy8", "Busy4 twice"])
def test_later_preemption_does_not_mend_what_waiters_cause(place: str) -> None:
    own = change(place, "preemption up to 1 ms later")
    assert own.low is not None and own.high is not None and own.low < 0 < own.high
    assert change(place, NONE, "spin-age-self").mean < -20
