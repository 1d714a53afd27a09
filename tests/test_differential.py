"""The compiled kernel equals, to the cycle, the reference simulator, which was written from docs/model.md alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator import simulate
from reference_simulator.rules import RULES as SPECIFIED
from worlds import ENDS, MORE, affordable, contended_scenarios, extreme_scenarios, scenarios

from ple_gym.lanes import Lanes
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim.jit import JIT_ENABLED

EXAMPLES = (600 if JIT_ENABLED else 60) * MORE  # plain Python is some hundred times slower

rules = st.sampled_from(sorted(SPECIFIED))
seeds = st.integers(0, 2**63 - 1)


def kernel_totals(scenario: Scenario, rule: str, seed: int) -> dict:
    lanes = Lanes(scenario, 1, policy=rule)
    lanes.run(0, seed)
    return lanes.totals(0)


def agree(scenario: Scenario, rule: str, seed: int) -> dict:
    """Check that kernel and reference agree on a run; returns its totals."""
    totals = kernel_totals(scenario, rule, seed)
    assert totals == simulate(scenario.to_dict(), rule, seed)
    return totals


@pytest.mark.kernel
def test_random_worlds() -> None:
    exits = Counter()

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        exits[agree(scenario, rule, seed)["exits"] > 0] += 1

    # One world in eight is any. (If Hypothesis mixes the two, it draws the one or the other far more often than asked.)
    settings(max_examples=EXAMPLES // 8)(given(scenarios(), rules, seeds)(run))()
    settings(max_examples=EXAMPLES - EXAMPLES // 8)(given(contended_scenarios(), rules, seeds)(run))()
    assert exits[True] >= (2 / 3 if JIT_ENABLED else 1 / 3) * exits.total(), "the rules hardly ever ran"


def check_end(name: str, end: object, run: Callable[[Scenario, str, int], None]) -> set[object]:
    """Run a few worlds in which a parameter is at an end of its range; returns the values that it had."""
    met = set()

    @settings(max_examples=3)
    @given(extreme_scenarios((name, end)), rules, seeds)
    def at_end(scenario: Scenario, rule: str, seed: int) -> None:
        met.add(scenario.parameters()[name])
        run(scenario, rule, seed)

    at_end()
    return met


def test_worlds_at_the_ends_of_every_range() -> None:
    exits = Counter()

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        exits[agree(affordable(scenario, rule, seed), rule, seed)["exits"] > 0] += 1

    settings(max_examples=EXAMPLES // 2)(given(extreme_scenarios(), rules, seeds)(run))()
    assert exits[True] >= 2 / 3 * exits.total(), "the rules hardly ever ran"
    for name, ends in ENDS.items():
        for end in ends:
            met = check_end(name, end, run)
            assert end in met, f"{name} = {end} fits no world"
    # At many an end (of the gap, of the holds, of the locks) nobody ever exits.
    assert exits[True] >= exits.total() / 2, "the rules hardly ever ran"


@pytest.mark.parametrize("rule", sorted(SPECIFIED))
@pytest.mark.parametrize("name", ["Tiny", "HolderPreempted", "TicketOrder", "Storm"])
def test_built_in_scenarios(name: str, rule: str) -> None:
    scenario = load(name).with_overrides({"limit.simulated_s": 0.02})
    for seed in (0, 1):
        agree(scenario, rule, seed)


@pytest.mark.parametrize("rule", ["xen-4.5", "xen-4.8", "kvm", "oracle"])
def test_first_milliseconds_of_the_papers_machines(rule: str) -> None:
    for name in ("Paper8", "Paper32"):
        agree(load(name).with_overrides({"limit.simulated_s": 0.1}), rule, 1)
