"""`patience` and `longest-in-kernel` with any parameters, rules that ask for virtual times, and those that cheat."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine
from reference_simulator.rules import RULES as SPECIFIED
from reference_simulator.rules import longest_in_kernel, patience, yield_if_cheap
from test_differential import agree
from test_policies import decisions, seeds
from worlds import contended_scenarios, under_fair

from ple_gym import compare
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim.jit import JIT_ENABLED

MANY = 200 if JIT_ENABLED else 20
worlds = st.one_of(contended_scenarios(), under_fair(contended_scenarios()))


def values(rule: str, most: int) -> st.SearchStrategy[dict[str, object]]:
    """Of each parameter of a rule a value, whole numbers up to the most."""
    return st.fixed_dictionaries(
        {
            name: st.sampled_from(one.words) if one.words else st.integers(0, min(most, int(one.bounds[1])))
            for name, one in RULES[rule].parameters.items()
        }
    )


@pytest.mark.kernel
def test_patience_with_any_parameters_is_as_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = set()

    def run(scenario: Scenario, given: dict[str, object], seed: int) -> None:
        rule = RULES["patience"].with_values(given)
        monkeypatch.setitem(SPECIFIED, "patience as given", partial(patience, given=given))
        answers.add(agree(scenario, rule, seed, "patience as given")["switches"])

    settings(max_examples=MANY)(given(worlds, values("patience", 12), seeds)(run))()
    assert len(answers) > MANY / 10


@pytest.mark.kernel
def test_longest_in_kernel_with_any_parameters_is_as_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = set()

    def run(scenario: Scenario, given: dict[str, object], seed: int) -> None:
        rule = RULES["longest-in-kernel"].with_values(given)
        monkeypatch.setitem(SPECIFIED, "longest as given", partial(longest_in_kernel, **given))  # type: ignore[arg-type]
        answers.add(agree(scenario, rule, seed, "longest as given")["switches"])

    settings(max_examples=MANY)(given(worlds, values("longest-in-kernel", 300), seeds)(run))()
    assert len(answers) > MANY / 10


@pytest.mark.kernel
@pytest.mark.parametrize("queue", ["pcpu", "vm"])
def test_yield_if_cheap_is_as_specified_under_fair(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(scenario: Scenario, us: int, seed: int) -> None:
        monkeypatch.setitem(SPECIFIED, "yield as given", partial(yield_if_cheap, us=us, queue=queue))
        rule = RULES["yield-if-cheap"].with_values({"us": us, "queue": queue})
        totals = agree(scenario, rule, seed, "yield as given")
        exits.append(totals["exits"])

    exits: list[int] = []
    settings(max_examples=MANY // 2)(given(under_fair(contended_scenarios()), st.integers(0, 3000), seeds)(run))()
    some = len(exits) / (3 if JIT_ENABLED else 5)  # plain Python's worlds are shorter
    assert sum(count > 0 for count in exits) > some


#: What `patience` is with some values.
SAME = {
    "two-patience": "patience",
    "resume-then-defer": "patience:spinner=0,kernel=0,fallback=defer,fallback_after=8",
    "host": "patience:spinner=0,kernel=0,fallback=defer",
    "continue": "patience:spinner=0,kernel=0",
    "longest-sibling": "patience:spinner=0,kernel=0,anyone=1",
    "longest-waiting": "patience:spinner=0,kernel=0,fallback=longest",
    "oldest-spinner": "patience:kernel=0",
    "spin-age-self": "patience:kernel=1,spinner=2,kernel_after=0",
    "oldest-interrupt": "patience:interrupt=1,kernel=2,spinner=3,kernel_after=0",
    "victim-aware": "patience:spinner=0,kernel=0,anyone=1,order=random,victim=stranger,fallback=defer",
}


@settings(max_examples=150)
@given(decisions)
def test_short_rules_are_patience_with_some_values(m: Machine) -> None:
    for short, name in SAME.items():
        assert m.lanes.ask(short)[0] == m.lanes.ask(name)[0], short


RED = [f"ple_gym.rules.red_team:{name}" for name in ("hold", "starve", "favour")]


def test_what_rules_of_the_red_team_gain_another_vm_loses() -> None:
    """Of two VMs with a hot lock only the first one's work is to be done."""
    assert not any("red" in name for name in RULES)
    guest = replace(load("Storm").guest, vcpus=8, locks=1, lock_probability=0.3, transactions=600)
    world = replace(load("Storm"), guest=guest, neighbours=(replace(guest, transactions=0, start="fresh"),))
    changes = {"limit.simulated_s": 0.2, "decision.actuator": "pull"}
    fair, credit = (
        compare(world, ["host", *RED], range(4), {**changes, "host.scheduler": it}) for it in ("fair", "credit")
    )
    assert fair.makespans(RED[2]).mean() < 0.95 * fair.makespans("host").mean(), "it does not even cheat"
    for comparison, rule in ((fair, RED[2]), (credit, RED[0])):
        host, red = (comparison.of_vm(name, 1, "share").mean() for name in ("host", rule))
        assert red < 0.8 * host, rule
