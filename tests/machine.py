"""One simulated machine, stepped decision by decision, with all of its state in view."""

from __future__ import annotations

import numpy as np

from ple_gym.drive import ASK, MAX_REPLACEMENTS, RESET, STEP
from ple_gym.lanes import Lanes
from ple_gym.rules import Rule
from ple_gym.scenario import Scenario
from ple_gym.sim import state
from ple_gym.traces.events import Ints


class Machine:
    """A lane and its records; `world`, `pcpu`, ... are views, so that they always show the present."""

    def __init__(
        self, scenario: Scenario, seed: int = 0, lanes: Lanes | None = None, policy: str | None = None
    ) -> None:
        self.scenario = scenario
        self.lanes = lanes or Lanes(scenario, 1, policy=policy)
        self.world = self.lanes.world[0]
        self.vm, self.pcpu, self.vcpu, self.guest = (
            records[0] for records in (self.lanes.vm, self.lanes.pcpu, self.lanes.vcpu, self.lanes.guest)
        )
        self.clock, self.lock, self.thread, self.queues = (
            self.lanes.section(name)[0] for name in ("clock", "lock", "thread", "queue")
        )
        self.host_vm, self.host_pcpu, self.host_vcpu = (
            self.lanes.section(name)[0] for name in ("host_vm", "host_pcpu", "host_vcpu")
        )
        self.askers: dict[str, Lanes] = {}
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start world `seed` and go on to its first decision or its end."""
        self.world["seed"] = seed
        self.world["index"] = MAX_REPLACEMENTS  # a world without a decision is not replaced: its end is of interest too
        self.lanes.drive(0, 1, RESET)

    def step(self, action: int) -> None:
        """Take an action, and go on to the next decision or the end."""
        self.lanes.action[0] = action
        self.lanes.drive(0, 1, STEP)

    def step_until(self, condition, action=None, most: int = 10_000) -> None:
        """Take `action()` (resume, if there is none) until `condition()` holds at a decision."""
        for _ in range(most):
            assert self.deciding, "the world ended first"
            if condition():
                return
            self.step(action() if action else self.asker)
        raise AssertionError("it did not happen")

    def leave_to_policy(self, action: int) -> None:
        """Take an action, and let the lane's policy decide to the end."""
        self.lanes.action[0] = action
        self.lanes.drive(0, 1, STEP, decides=True)

    def consult(self, rule: str, lanes: Lanes | None = None) -> int:
        """What a rule answers here (or in these lanes), as one that has been asked before remembers it."""
        if rule not in self.askers:
            self.askers[rule] = Lanes(self.scenario, 1, policy=rule)
        asker = self.askers[rule]
        for name in set(asker.sections) - {"memory"}:
            asker.section(name)[:] = (lanes or self.lanes).section(name)
        asker.drive(0, 1, ASK, decides=True)
        return int(asker.action[0])

    def held(self, v: int) -> set[int]:
        """The locks that a vCPU holds, by their numbers among those of all VMs."""
        numbers = [int(self.guest["held"][v]) >> 16 * place & 0xFFFF for place in range(4)]
        before = sum(vm.locks for vm in list(self.scenario.vms().values())[: int(self.vcpu["vm"][v])])
        return {before + number - 1 for number in numbers if number}

    def waits_for(self, u: int, v: int) -> bool:
        """Whether u waits for v to acknowledge its interrupt."""
        same, word = self.vcpu["vm"][u] == self.vcpu["vm"][v], self.lanes.section("unanswered")[0][v]
        number = u - int(np.flatnonzero(self.vcpu["vm"] == self.vcpu["vm"][u])[0])
        return bool(same and int(word[number // 64]) >> number % 64 & 1)

    @property
    def deciding(self) -> bool:
        return bool(self.world["status"] == state.DECIDE)

    @property
    def here(self) -> int:
        """The pCPU of the decision that is due."""
        return int(self.world["deciding"])

    @property
    def asker(self) -> int:
        """The vCPU that has exited."""
        return int(self.pcpu["current"][self.here])

    @property
    def defer(self) -> int:
        return self.lanes.vcpus

    def queue(self, p: int) -> list[int]:
        """The vCPUs queued on a pCPU, head first."""
        return self.queues[p, : self.pcpu["queued"][p]].tolist()

    def candidates(self) -> list[int]:
        """The queued vCPUs that may be run here, ascending."""
        local = self.scenario.actuator == "local"
        return sorted(v for p in range(self.lanes.pcpus) if p == self.here or not local for v in self.queue(p))

    def legal_actions(self) -> list[int]:
        chosen = self.candidates() if self.scenario.actuator != "yield" else []
        return [*chosen, self.asker, self.defer]

    def meant(self, answer: int) -> int:
        """The action that a rule's answer stands for: under `yield` whoever names a vCPU but its asker yields."""
        return self.defer if self.scenario.actuator == "yield" and answer != self.asker else answer

    def waiters(self, lock: int) -> list[int]:
        """The line of a ticket or MCS lock, head first."""
        line, v = [], int(self.lock["head"][lock])
        while v != state.NONE:
            line.append(v)
            assert len(line) <= self.lanes.vcpus, "the line goes round in circles"
            v = int(self.guest["next_waiter"][v])
        return line


def totals(scenario: Scenario, rule: str | Rule, seed: int = 0) -> dict:
    """Every metric of one run under a compiled rule."""
    lanes = Lanes(scenario, 1, policy=rule)
    lanes.run(0, seed)
    return lanes.totals(0)


def traced(scenario: Scenario, rule: str, seed: int = 0, events: int = 100_000) -> tuple[Lanes, Ints]:
    """One run under a compiled rule, and everything that happened in it: int64 [n, 5]; run again if it is more."""
    lanes = Lanes(scenario, 1, policy=rule)
    buffer = np.empty((events, state.TRACE_WIDTH), np.int64)
    lanes.run(0, seed, buffer)
    count = int(lanes.world["traced"][0])
    return (lanes, buffer[:count]) if count <= events else traced(scenario, rule, seed, count)
