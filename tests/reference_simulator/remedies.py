"""Remedies at the credit scheduler: balance scheduling and co-scheduling (sections 9.12 and 9.13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .state import Pcpu, State, Vcpu

if TYPE_CHECKING:
    from .world import World

RUNNABLE = (State.RUNNING, State.QUEUED)


class Remedies:
    def __init__(self, world: World) -> None:
        self.world = world
        self.gang = len(world.vms) - 1
        self.gang_until = 0

    # 9.12 Balance scheduling

    def siblings(self, p: Pcpu, v: Vcpu) -> int:
        return sum(w is not v and w.state in RUNNABLE and w.pcpu is p for w in v.vm.vcpus)

    def wakes_on(self, v: Vcpu) -> Pcpu:
        if not self.world.parameters.balance_siblings:
            return v.pcpu
        pcpus = self.world.pcpus
        around = pcpus[v.pcpu.index :] + pcpus[: v.pcpu.index]
        return min((p for p in around if p.index in v.allowed), key=lambda p: self.siblings(p, v))

    def may_come(self, v: Vcpu, p: Pcpu) -> bool:
        crowds = self.siblings(p, v) > self.siblings(v.pcpu, v)
        return not (self.world.parameters.balance_siblings and crowds) and self.may_run(v)

    # 9.13 Co-scheduling

    def progress(self, v: Vcpu) -> int:
        if v.state is not State.RUNNING:
            return v.progress
        return v.progress + self.world.now - max(v.pcpu.burned_at, v.pcpu.dispatched_at)

    def lead(self, v: Vcpu) -> int:
        return self.progress(v) - min(self.progress(w) for w in v.vm.vcpus if w is v or w.state in RUNNABLE)

    def wakes(self, v: Vcpu) -> None:
        others = [self.progress(w) for w in v.vm.vcpus if w.state in RUNNABLE]
        if others:
            v.progress = max(v.progress, min(others))

    def may_run(self, v: Vcpu) -> bool:
        kind = self.world.parameters.coscheduling
        if kind == "strict":
            return v.vm.index == self.gang
        return kind == "off" or self.lead(v) < self.world.parameters.skew

    def has_work(self, m: int) -> bool:
        return any(v.state in RUNNABLE for v in self.world.vms[m].vcpus)

    def hold_slot(self, p: Pcpu) -> None:
        world = self.world
        if world.parameters.coscheduling != "strict" or (world.now < self.gang_until and self.has_work(self.gang)):
            return
        count = len(world.vms)
        working = [m for m in ((self.gang + i) % count for i in range(1, count + 1)) if self.has_work(m)]
        if working:
            self.gang, self.gang_until = working[0], world.now + world.parameters.T
            for q in world.pcpus:
                if q is not p:
                    world.host.request(q)

    def look_again(self, p: Pcpu) -> None:
        if self.world.parameters.coscheduling == "relaxed" and p.queue:
            p.resched_at = min(p.resched_at, self.world.now + max(1, self.world.parameters.skew // 10))

    def slice_end(self, end: int) -> int:
        kind, now = self.world.parameters.coscheduling, self.world.now
        if kind == "relaxed":
            return min(end, now + self.world.parameters.skew)
        if kind == "strict":
            return min(end, max(now + 1, self.gang_until))
        return end
