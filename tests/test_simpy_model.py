"""The model in SimPy gives the integers of the reference simulator, wherever it dares to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator import simulate
from worlds import contended_scenarios

from ple_gym.scenario import Noise, Scenario
from ple_gym.scenario.builtin import SCENARIOS

pytest.importorskip("simpy")

from experiments.peers.simpy_model import BYPASSES, SimpyModel

COMPARED = ("finished", "now", "exits", "acquisitions", "contended", "switches", "events")


def with_simpy(scenario: Scenario, seed: int, rule: str) -> dict[str, Any]:
    model = SimpyModel(scenario, seed, rule)
    model.run()
    return {name: getattr(model, name) for name in COMPARED}


def by_reference(scenario: Scenario, seed: int, rule: str) -> dict[str, Any]:
    totals = simulate(scenario.to_dict(), rule, seed)
    return {name: totals[name] for name in COMPARED}


@st.composite
def simple_scenarios(draw: st.DrawFn) -> Scenario:
    """Random worlds of the part of the model that is written with SimPy; long enough for credit to run out."""
    scenario = draw(contended_scenarios())
    off = {"block_probability": 0.0, "pv_spin_threshold": 0, "notify_after": 0, "threads": 0, "count": 1, "program": ""}
    off |= {"tick_us": 0, "balloon": False, "response_goal_us": 0}
    guest = replace(scenario.guest, lock_kind="ticket", affinity="any", **off)
    host = replace(scenario.host, sockets=1, xen="4.5", placement="spread", defer_preemption_us=0, micro_slice_us=0)
    return replace(
        scenario,
        noise=Noise(),
        host=replace(host, timeslice_ms=draw(st.integers(1, 3))),
        cost=replace(scenario.cost, exit_per_candidate=0, yield_to=0),
        ple=replace(scenario.ple, kind="window", window_grow=0),
        decision=replace(scenario.decision, window="host"),
        limit=replace(scenario.limit, simulated_s=0.01),
        guest=replace(guest, transactions=draw(st.sampled_from([1, 5, 60, 500]))),
        neighbours=(),
    )


@pytest.mark.parametrize(("name", "rule"), [("Storm", "xen-4.8"), ("Tiny", "xen-4.8"), ("HolderPreempted", "xen-4.5")])
def test_built_in_scenarios_agree(name: str, rule: str) -> None:
    found = with_simpy(SCENARIOS[name], 3, rule)
    assert found == by_reference(SCENARIOS[name], 3, rule)
    assert found["finished"]
    assert found["exits"] > 0


def test_credit_runs_out_often() -> None:
    """Much accounting: vCPUs of both priorities wait, and queues are put in order again."""
    scenario = SCENARIOS["Storm"].with_overrides({"host.timeslice_ms": 1})
    assert with_simpy(scenario, 0, "xen-4.8") == by_reference(scenario, 0, "xen-4.8")


@settings(max_examples=40)
@given(scenario=simple_scenarios(), seed=st.integers(0, 2**63 - 1), rule=st.sampled_from(sorted(BYPASSES)))
def test_random_scenarios_agree(scenario: Scenario, seed: int, rule: str) -> None:
    assert with_simpy(scenario, seed, rule) == by_reference(scenario, seed, rule)


@pytest.mark.parametrize(
    ("name", "rule", "overrides"),
    [
        ("Paper32", "xen-4.8", {}),
        ("Storm", "oracle", {}),
        ("Storm", "xen-4.8", {"guest.lock_kind": "mcs"}),
        ("Storm", "xen-4.8", {"guest.block_probability": 0.1}),
        ("Storm", "xen-4.8", {"host.xen": "4.8"}),
        ("Storm", "xen-4.8", {"host.scheduler": "credit2"}),
        ("Storm", "xen-4.8", {"ple.window_grow": 2}),
        ("Storm", "xen-4.8", {"decision.window": "agent"}),
        ("Storm", "xen-4.8", {"cost.yield_to": 1}),
        ("Storm", "xen-4.8", {"guest.threads": 32}),
        ("Storm", "xen-4.8", {"guest.program": "compute constant 1", "guest.start": "fresh"}),
        ("Storm", "xen-4.8", {"guest.notify_after": 2047}),
        ("Storm", "xen-4.8", {"host.defer_preemption_us": 30}),
        ("Storm", "xen-4.8", {"host.micro_slice_us": 30}),
        ("Storm", "xen-4.8", {"guest.tick_us": 1000}),
        ("Storm", "xen-4.8", {"guest.balloon": True}),
        ("Storm", "xen-4.8", {"guest.response_goal_us": 1, "guest.block_probability": 0.1}),
    ],
)
def test_what_is_left_out_is_refused(name: str, rule: str, overrides: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="more in it than in this model"):
        SimpyModel(SCENARIOS[name].with_overrides(overrides), 0, rule)
