"""What a decision does: the actuator that a scenario has by default, and each of them on every host."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, totals
from reference_simulator.rules import RULES as SPECIFIED
from test_differential import agree_at_random
from test_fair import US, Stage, hogs
from worlds import contended_scenarios, under_fair

from ple_gym import cli, simulate
from ple_gym.errors import PolicyError
from ple_gym.lanes import Lanes
from ple_gym.rules import (
    HINT_FAILED,
    HINT_IGNORED,
    HINT_PENDING,
    HINT_WON,
    IDLE,
    NEVER_HINTED,
    QUEUED,
    RULES,
    YIELD_ONLY,
    candidates,
    rule,
)
from ple_gym.scenario import SCENARIOS, Decision, Scenario, load
from ple_gym.scenario.profiles import DIFFERENCES
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.state import NONE

ACTUATORS = ("hint", "yield", "local", "pull")
CROWDED = {"guest.start": "convoy", "host.pcpus": 2, "limit.simulated_s": 0.05}


def test_by_default_a_decision_is_a_hint_under_linux_and_a_pull_elsewhere() -> None:
    assert {name: Scenario().with_overrides({"host.scheduler": name}).actuator for name in SCHEDULERS} == {
        "credit": "pull",
        "credit2": "pull",
        "fair": "hint",
    }
    linux = {name for name, scenario in SCENARIOS.items() if scenario.host.scheduler == "fair"}
    assert {name for name, scenario in SCENARIOS.items() if scenario.actuator != "pull"} == linux
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
    for argv in (["list"], ["rules"], ["parameters"]):
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


# --- what a hint did --------------------------------------------------------------------------------------------------

#: By the rules of 15: CFS takes who is within the granularity, 6.6 has no buddies, 6.18.2 takes who is eligible.
OUTCOMES = [("5.15", 1, HINT_WON), ("6.6", 1, HINT_IGNORED), ("6.18.2", 1, HINT_WON), ("6.18.2", 9000, HINT_IGNORED)]


@pytest.mark.parametrize(("linux", "behind", "outcome"), OUTCOMES)
def test_a_hint_is_pending_until_its_pcpu_chooses(linux: str, behind: int, outcome: int) -> None:
    scenario = hogs(linux, 6, **{"host.pcpus": 2, "cost.ipi": 700 * US, "ple.window": 500 * US})
    stage = Stage(scenario, [0, 0, behind], exit_on=1)
    target = stage.cast[2]
    assert stage.vcpu["hint"].tolist() == [NEVER_HINTED] * 6
    stage.step(target)
    assert (stage.vcpu["hint"][target], stage.pcpu["hinted"][0]) == (HINT_PENDING, target)
    stage.step_until(lambda: stage.pcpu["hinted"][0] == NONE)
    assert stage.vcpu["hint"][target] == outcome
    assert (outcome == HINT_WON) == (stage.pcpu["current"][0] == target)


def test_a_hint_fails_where_nobody_else_is_on_either_pcpu() -> None:
    stage = Stage(hogs("6.18.2", 2, **{"host.pcpus": 2, "cost.ipi": 700 * US}), [0], exit_on=1)
    idle, runs = 0, stage.cast[0]
    stage.pcpu["current"][idle] = NONE  # as if it had just been woken there
    stage.pcpu["mode"][idle] = IDLE
    stage.vcpu["state"][runs], stage.pcpu["queued"][idle], stage.queues[idle, 0] = QUEUED, 1, runs
    asker = stage.asker
    stage.step(runs)
    assert stage.vcpu["hint"][runs] == HINT_FAILED and stage.pcpu["hinted"][idle] == NONE
    assert stage.pcpu["current"][1] == asker and stage.lanes.totals(0)["hints_failed"] == 1


def test_a_second_hint_takes_the_place_of_the_first() -> None:
    stage = Stage(hogs("5.15", 6, **{"host.pcpus": 2, "cost.ipi": 5000 * US}), [0, 1, 2], exit_on=1)
    first, second = stage.cast[1:]
    stage.step(first)
    stage.step_until(lambda: stage.here == 1)
    assert stage.vcpu["hint"][first] == HINT_PENDING
    stage.step(second)
    assert stage.vcpu["hint"][first] == HINT_IGNORED
    assert (stage.vcpu["hint"][second], stage.pcpu["hinted"][0]) == (HINT_PENDING, second)


HEEDS = '''"""A rule that learns from what its hints did."""

from ple_gym.rules import HINT_FAILED, HINT_IGNORED, rule, seems_to_spin, siblings, victim


@rule("heeds", reads="outcomes of hints, who would go", actuator="hint", source="mine")
def heeds(see, asker):
    """A sibling whose last hint was not in vain, and that puts nobody off but a spinner."""
    for v in siblings(see):
        vain = see.vcpu[v].hint == HINT_FAILED or see.vcpu[v].hint == HINT_IGNORED
        goes = victim(see, v)
        if not vain and (goes < 0 or seems_to_spin(see, goes)):
            return v
    return see.defer
'''


def heeded(m: Machine) -> int:
    """What `heeds` answers, from the records."""
    guest = m.scenario.guest
    progress = 2 * (m.scenario.ple.window // guest.spin_period + 1) * guest.spin_period
    spins = (m.vcpu["ples"] > 0) & (m.vcpu["cpu_time"] - m.vcpu["cpu_at_ple"] <= progress)
    for v in m.candidates():
        runs = int(m.pcpu["current"][m.vcpu["pcpu"][v]])
        spared = runs in (NONE, m.asker) or spins[runs]
        if m.vcpu["vm"][v] == m.vcpu["vm"][m.asker] and m.vcpu["hint"][v] not in (HINT_FAILED, HINT_IGNORED) and spared:
            return v
    return m.defer


@pytest.mark.kernel
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_users_rule_reads_the_last_hint_and_its_victim(scheduler: str, tmp_path: Path) -> None:
    file = tmp_path / "heeds.py"
    file.write_text(HEEDS, encoding="utf-8")
    world = load("Paper8").with_overrides({**CROWDED, "host.scheduler": scheduler, "decision.actuator": "hint"})
    m = Machine(
        world.with_overrides({"guest.compute": "exponential 3000", "host.linux": "6.14", "host.ratelimit_us": 0})
    )
    seen, answers = set(), set()
    for _ in range(300 if JIT_ENABLED else 30):
        if not m.deciding:
            break
        answer = m.consult(f"{file}:heeds")
        assert answer == heeded(m)
        seen |= set(m.vcpu["hint"].tolist())
        answers.add(answer == m.defer)
        m.step(answer)
    if JIT_ENABLED:
        assert {NEVER_HINTED, HINT_WON} <= seen
        assert scheduler != "fair" or (HINT_IGNORED in seen and answers == {True, False})


# --- kernel and specification -----------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_kernel_and_reference_agree_under_every_actuator(scheduler: str) -> None:
    worlds = Counter()

    def run(scenario: Scenario, name: str, seed: int) -> None:
        scenario = replace(scenario, host=replace(scenario.host, scheduler=scheduler))
        for actuator in ("default", *ACTUATORS):
            guests = scenario.tables().values()
            if Scenario(decision=Decision(actuator=actuator), host=scenario.host).actuator == "pull":
                guests = (replace(vm, affinity="any") for vm in guests)
            guest, *others = guests
            decision = Decision(actuator=actuator, pull_swaps=scenario.decision.pull_swaps)
            world = replace(scenario, decision=decision, guest=guest, neighbours=tuple(others))
            worlds[actuator] += agree_at_random(world, name, seed)["exits"] > 0

    anywhere = under_fair(contended_scenarios()) if scheduler == "fair" else contended_scenarios()
    settings(max_examples=40)(given(anywhere, st.sampled_from(sorted(SPECIFIED)), st.integers(0, 2**63 - 1))(run))()
    enough = 20 if JIT_ENABLED else 10  # of 40; uncompiled worlds are shorter
    assert min(worlds[actuator] for actuator in ("default", *ACTUATORS)) >= enough


def test_actuators_differ_and_the_default_is_one_of_them() -> None:
    """On every host each gives a run of its own."""
    for scheduler, name in product(SCHEDULERS, ("kvm", "longest-waiting")):
        assert not RULES[name].scheduler
        world = load("Paper8").with_overrides({**CROWDED, "host.scheduler": scheduler, "host.ratelimit_us": 0})
        found = {one: totals(world.with_overrides({"decision.actuator": one}), name) for one in ACTUATORS}
        assert totals(world, name) == found[world.actuator]
        assert len({str(one) for one in found.values()}) == len(ACTUATORS), (scheduler, name)
