"""What a decision does: the actuator that a scenario has by default, and each of them on every host."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, totals
from reference_simulator.rules import RULES as SPECIFIED
from test_differential import agree, fitting
from worlds import contended_scenarios, under_fair

from ple_gym import cli, simulate
from ple_gym.errors import PolicyError
from ple_gym.lanes import Lanes
from ple_gym.rules import RULES, YIELD_ONLY, candidates, rule
from ple_gym.scenario import SCENARIOS, Decision, Scenario, load
from ple_gym.scenario.profiles import DIFFERENCES
from ple_gym.scenario.schedulers import SCHEDULERS

ACTUATORS = ("hint", "yield", "local", "pull")
CROWDED = {"guest.start": "convoy", "host.pcpus": 2, "limit.simulated_s": 0.05}


def test_by_default_a_decision_is_a_hint_under_linux_and_a_pull_elsewhere() -> None:
    assert {name: Scenario().with_overrides({"host.scheduler": name}).actuator for name in SCHEDULERS} == {
        "credit": "pull",
        "credit2": "pull",
        "fair": "hint",
    }
    assert all(scenario.actuator == "pull" for scenario in SCENARIOS.values())
    kvm = {name for name in DIFFERENCES if load("Storm").with_profile(name).actuator == "hint"}
    assert kvm == {"skylake-kvm-5.15", "skylake-kvm-6.6", "zen-kvm-6.18"}


@pytest.mark.parametrize("actuator", ACTUATORS)
def test_a_scenario_that_names_its_actuator_keeps_it(actuator: str) -> None:
    named = load("Storm").with_overrides({"decision.actuator": actuator})
    for scheduler in SCHEDULERS:
        assert named.with_overrides({"host.scheduler": scheduler}).actuator == actuator
    assert Scenario.from_toml(named.to_toml()).actuator == actuator


def test_show_tells_which_actuator_the_default_is(capsys: pytest.CaptureFixture[str]) -> None:
    for scheduler, actuator in (("credit", "pull"), ("fair", "hint")):
        assert cli.main(["show", "Storm", "--set", f"host.scheduler={scheduler}"]) == 0
        assert f'actuator = "default"  # here {actuator}\n' in capsys.readouterr().out
    assert cli.main(["show", "Storm", "--set", "decision.actuator=yield"]) == 0
    assert 'actuator = "yield"\n' in capsys.readouterr().out


def test_a_pull_is_called_hypothetical_where_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["list"], ["rules"], ["list", "--parameters"]):
        assert cli.main(argv) == 0
        assert "(hypothetical)" in capsys.readouterr().out


# --- yield ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_whoever_names_a_vcpu_yields_as_the_host_does(scheduler: str) -> None:
    """A rule that always names somebody is the host's own rule; who goes on, goes on."""

    @rule("names", reads="-", actuator="pull", source="mine")
    def names(see, asker):
        """The first vCPU that may be named."""
        for v in candidates(see):
            return v
        return see.defer

    world = load("Paper8").with_overrides({**CROWDED, "host.scheduler": scheduler})
    yielding = world.with_overrides({"decision.actuator": "yield"})
    own = totals(yielding, "host")
    assert own["exits"] > 10 and totals(yielding, "continue") != own
    assert totals(yielding, names) == own == totals(world, "host") != totals(world, names)


def test_who_steps_an_environment_may_yield_or_go_on() -> None:
    storm = load("Storm").with_overrides({"decision.actuator": "yield"})
    m = Machine(storm, 0, Lanes(storm, 1, information="hypervisor"))
    for _ in range(50):
        assert m.candidates() and np.flatnonzero(m.lanes.mask[0]).tolist() == [m.asker, m.defer]
        m.step(m.defer)


def test_a_rule_may_not_name_whom_it_could_not_have_run() -> None:
    """Under `yield` an answer is checked as under the other actuators."""

    @rule("wrong", reads="-", actuator="pull", source="mine")
    def wrong(see, asker):
        """Somebody who runs elsewhere."""
        for p in range(see.pcpus):
            if p != see.here and see.pcpu[p].current >= 0:
                return see.pcpu[p].current
        return asker if see.actuator == YIELD_ONLY else see.defer

    with pytest.raises(PolicyError, match="is not legal"):
        simulate("Storm", wrong, 1, {"decision.actuator": "yield", "limit.simulated_s": 0.01})


# --- kernel and specification -----------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_kernel_and_reference_agree_under_every_actuator(scheduler: str) -> None:
    worlds = Counter()

    def run(scenario: Scenario, name: str, seed: int) -> None:
        scenario = replace(scenario, host=replace(scenario.host, scheduler=scheduler))
        for actuator in ("default", *ACTUATORS):
            guests = scenario.vms().values()
            if Scenario(decision=Decision(actuator=actuator), host=scenario.host).actuator == "pull":
                guests = (replace(vm, affinity="any") for vm in guests)
            guest, *others = guests
            decision = Decision(actuator=actuator, pull_swaps=scenario.decision.pull_swaps)
            world = replace(scenario, decision=decision, guest=guest, neighbours=tuple(others))
            worlds[actuator] += agree(world, fitting(name, world), seed)["exits"] > 0

    anywhere = under_fair(contended_scenarios()) if scheduler == "fair" else contended_scenarios()
    settings(max_examples=40)(given(anywhere, st.sampled_from(sorted(SPECIFIED)), st.integers(0, 2**63 - 1))(run))()
    assert min(worlds[actuator] for actuator in ("default", *ACTUATORS)) >= 20


def test_actuators_differ_and_the_default_is_one_of_them() -> None:
    """On every host each gives a run of its own."""
    for scheduler, name in product(SCHEDULERS, ("kvm", "longest-waiting")):
        assert not RULES[name].scheduler
        world = load("Paper8").with_overrides({**CROWDED, "host.scheduler": scheduler, "host.ratelimit_us": 0})
        found = {one: totals(world.with_overrides({"decision.actuator": one}), name) for one in ACTUATORS}
        assert totals(world, name) == found[world.actuator]
        assert len({str(one) for one in found.values()}) == len(ACTUATORS), (scheduler, name)
