"""The compiled kernel equals, to the cycle, the reference simulator, which was written from docs/model.md alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator import simulate
from worlds import scenarios

from ple_gym.lanes import Lanes
from ple_gym.policies import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenarios import load
from ple_gym.sim.jit import JIT_ENABLED


def kernel_totals(scenario: Scenario, rule: str, seed: int) -> dict:
    lanes = Lanes(scenario, 1)
    lanes.run(0, seed, RULES[rule].code)
    return lanes.totals(0)


@pytest.mark.kernel
@settings(max_examples=600 if JIT_ENABLED else 150)  # plain Python is some hundred times slower
@given(scenarios(), st.sampled_from(sorted(RULES)), st.integers(0, 2**63 - 1))
def test_random_worlds(scenario: Scenario, rule: str, seed: int) -> None:
    assert kernel_totals(scenario, rule, seed) == simulate(scenario.to_dict(), rule, seed)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("name", ["Tiny", "HolderPreempted", "TicketOrder", "Storm"])
def test_built_in_scenarios(name: str, rule: str) -> None:
    scenario = load(name).with_overrides({"limit.simulated_s": 0.02})
    for seed in (0, 1):
        assert kernel_totals(scenario, rule, seed) == simulate(scenario.to_dict(), rule, seed)


@pytest.mark.parametrize("rule", ["xen-4.5", "xen-4.8", "kvm", "oracle"])
def test_first_milliseconds_of_the_papers_machines(rule: str) -> None:
    for name in ("Paper8", "Paper32"):
        scenario = load(name).with_overrides({"limit.simulated_s": 0.1})
        assert kernel_totals(scenario, rule, 1) == simulate(scenario.to_dict(), rule, 1)
