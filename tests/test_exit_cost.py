"""What an exit costs (docs/model.md, 10.1)."""

from __future__ import annotations

import pytest
from machine import Machine

from ple_gym.scenario import Cost, Decision, Host, Limit, Scenario, Vm

EXIT, CANDIDATE, YIELD_TO, IPI = 1000, 10, 300, 5


def world(pcpus: int = 1, vcpus: int = 4, neighbours: int = 0, **costs: int) -> Scenario:
    """Everybody stands in line for a lock whose holder waits for a pCPU, and no timer comes for long."""
    return Scenario(
        host=Host(pcpus=pcpus, timeslice_ms=1000, ratelimit_us=0),
        cost=Cost(exit=EXIT, switch=0, cache=0, migration=0, ipi=IPI, **costs),
        decision=Decision(actuator="hint"),
        limit=Limit(simulated_s=0.1),
        guest=Vm(vcpus=vcpus, locks=1, transactions=vcpus, start="convoy"),
        neighbours=tuple(Vm(vcpus=1, locks=0, transactions=0) for _ in range(neighbours)),
    )


def cost(m: Machine, action: int) -> int:
    """Cycles of the exit that is due, if this is decided."""
    here, now = m.here, int(m.world["now"])
    m.step(action)
    return int(m.pcpu["exit_until"][here]) - now


@pytest.mark.parametrize(
    ("choice", "candidates"),
    [("itself", 3), ("next", 1), ("after next", 2), ("before", 3), ("stranger", 4), ("defer", 0)],
)
def test_the_handler_looks_at_one_sibling_after_another(choice: str, candidates: int) -> None:
    m = Machine(world(neighbours=1, exit_per_candidate=CANDIDATE))
    m.step_until(lambda: m.asker < 4 and len(m.queue(0)) == 4)
    y = m.asker
    actions = {"itself": y, "stranger": 4, "defer": m.defer}
    actions |= {"next": (y + 1) % 4, "after next": (y + 2) % 4, "before": (y + 3) % 4}
    assert cost(m, actions[choice]) == EXIT + candidates * CANDIDATE


def test_who_runs_or_favours_another_takes_two_locks() -> None:
    m = Machine(world(pcpus=2, vcpus=6, yield_to=YIELD_TO))
    first, now = m.here, int(m.world["now"])
    second = 1 - first
    found = [cost(m, m.queue(first)[-1])]
    assert (m.here, int(m.world["now"])) == (second, now), "the other one exits at the same time"
    found.append(cost(m, m.queue(first)[0]))
    assert found == [EXIT + YIELD_TO, EXIT + 2 * YIELD_TO]
    assert m.pcpu["locked_until"].tolist() == [now + EXIT + 2 * YIELD_TO] * 2


def test_locks_of_other_pcpus_are_free() -> None:
    m = Machine(world(pcpus=2, vcpus=6, yield_to=YIELD_TO))
    now = int(m.world["now"])
    assert [cost(m, m.queue(m.here)[-1]) for _ in range(2)] == [EXIT + YIELD_TO] * 2
    assert m.pcpu["decided_at"].tolist() == [now] * 2


def test_who_names_nobody_takes_no_lock() -> None:
    m = Machine(world(pcpus=2, vcpus=6, yield_to=YIELD_TO))
    assert cost(m, m.asker) == EXIT
    assert cost(m, m.defer) == EXIT
    assert m.pcpu["locked_until"].tolist() == [0, 0]
