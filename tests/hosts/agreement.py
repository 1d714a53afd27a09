"""Kernel and reference under a host's scheduler, on random worlds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator import simulate
from reference_simulator.rules import RULES as SPECIFIED
from worlds import MORE, WORK, affordable, contended_scenarios, scenarios

from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.sim.jit import JIT_ENABLED

seeds = st.integers(0, 2**63 - 1)
rules = st.sampled_from(sorted(name for name, rule in RULES.items() if not rule.scheduler and name in SPECIFIED))


def under(scheduler: str, scenario: Scenario) -> Scenario:
    return replace(scenario, host=replace(scenario.host, scheduler=scheduler))


def check_agreement(scheduler: str) -> None:
    """Every integer of 300 runs is the same, and the rules have something to decide in enough of them."""
    exits, worlds = Counter(), (300 if JIT_ENABLED else 30) * MORE

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        scenario = affordable(under(scheduler, scenario), rule, seed, WORK)
        lanes = Lanes(scenario, 1, policy=rule)
        lanes.run(0, seed)
        totals = lanes.totals(0)
        assert totals == simulate(scenario.to_dict(), rule, seed)
        exits[totals["exits"] > 0] += 1

    settings(max_examples=worlds // 8)(given(scenarios(), rules, seeds)(run))()
    settings(max_examples=worlds - worlds // 8)(given(contended_scenarios(), rules, seeds)(run))()
    assert exits[True] >= (1 / 2 if JIT_ENABLED else 1 / 3) * exits.total(), "the rules hardly ever ran"
