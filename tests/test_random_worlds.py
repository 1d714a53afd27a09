"""Kernel and reference agree on random worlds of every host, actuator and kind of lock; `make explore`: on 10,000.

Each rule is a test of its own, so that several processes share them. conftest.py adds up what the worlds have met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from met import ALL, COMBINATIONS, EXITS, FEATURES, RANDOM_RULES, Met, lacking, met_in, report
from reference_simulator.world import HOSTS
from test_differential import Noted, agree, seeds
from worlds import (
    EXPLORING,
    affordable,
    contended_scenarios,
    kicks_under_fair,
    long_under_fair,
    one_to_one_under_fair,
    scenarios,
    sleepers_under_fair,
    under_fair,
    with_locks,
    with_remedies,
)

from ple_gym.rules import RULES
from ple_gym.scenario import Limit, Scenario
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.guest.kinds import LOCK_KINDS
from ple_gym.sim.jit import JIT_ENABLED

WORLDS = 460 if EXPLORING else 28 if JIT_ENABLED else 3  # of each rule
LONGER = [1, 4, 16] if JIT_ENABLED else [1]

#: Kinds of worlds under the fair scheduler and under the others, as often as they stand here.
FAIR = [
    *[under_fair(contended_scenarios())] * 12,
    *[one_to_one_under_fair()] * 12,
    *[kicks_under_fair()] * 5,
    *(under_fair(scenarios()), long_under_fair(), sleepers_under_fair()),
]
OTHERS = [contended_scenarios()] * 14 + [scenarios()] * 2
CREDIT = OTHERS + [with_remedies(contended_scenarios())] * 8


@st.composite
def worlds(draw: st.DrawFn, rule: str) -> Scenario:
    """A world in which a rule can decide; all hosts are as likely."""
    choice: Callable = draw(st.randoms(use_true_random=True)).choice
    scheduler = RULES[rule].scheduler or choice(sorted(SCHEDULERS))
    scenario = draw(choice(FAIR if scheduler == "fair" else CREDIT if scheduler == "credit" else OTHERS))
    if choice([True, False]):  # Hypothesis draws some kinds much more often than others
        scenario = with_locks(scenario, choice(list(LOCK_KINDS)), choice([True, False]))
    limit = Limit(simulated_s=scenario.limit.simulated_s * choice(LONGER))
    return replace(scenario, host=replace(scenario.host, scheduler=scheduler), limit=limit)


@pytest.mark.kernel
@pytest.mark.parametrize("rule", RANDOM_RULES)
def test_kernel_and_reference_agree(
    rule: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(HOSTS, "fair", Noted)
    counts: Counter[str] = Counter()

    def run(scenario: Scenario, number: int) -> None:
        scenario = affordable(scenario, rule, number)
        Noted.happened = set()
        totals = agree(scenario, rule, number)
        counts.update(met_in(Met(scenario, rule, totals, frozenset(Noted.happened - {""}))))

    first = int(request.config.getoption("--hypothesis-seed") or 0)  # each rule has worlds of its own
    number = first * len(RANDOM_RULES) + RANDOM_RULES.index(rule)
    seeded(number)(settings(max_examples=WORLDS)(given(worlds(rule), seeds)(run)))()
    record_property("met", dict(counts))


def test_what_too_few_worlds_have_met_is_told() -> None:
    counts = {ALL: 10_000, **dict.fromkeys(FEATURES, 300), **dict.fromkeys(COMBINATIONS, 30), EXITS: 6667}
    assert lacking(counts, 300) == []
    scarce = {EXITS: 6666, "rule kvm": 299, "credit2 x local x tas": 29}
    assert set(lacking(counts | scarce, 300)) == {
        "exits > 0: 6666, not 6667",
        "rule kvm: 299, not 300",
        "credit2 x local x tas: 29, not 30",
    }
    del counts["cost.line changed"]
    assert lacking(counts, 1) == ["cost.line changed: 0, not 1"]
    assert [*report(counts | scarce)][1] == "     29  credit2 x local x tas"
