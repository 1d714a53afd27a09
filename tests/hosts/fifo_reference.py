"""The scheduler of `fifo.py` once more, for the reference simulator."""

from __future__ import annotations

from reference_simulator.host import Host
from reference_simulator.state import Mode, Pcpu, State, Vcpu


class Fifo(Host):
    def insert(self, p: Pcpu, v: Vcpu) -> None:
        v.pcpu, v.state, v.queued_since = p, State.QUEUED, self.world.now
        p.queue.append(v)

    def choose(self, p: Pcpu) -> Vcpu | None:
        return p.queue.pop(0) if p.queue else None

    def begins(self, p: Pcpu) -> int:
        return self.world.now + self.world.parameters.T

    def favour(self, p: Pcpu, v: Vcpu) -> bool:
        v.pcpu.queue.remove(v)
        v.pcpu.queue.insert(0, v)
        return True

    def woken(self, v: Vcpu) -> None:
        self.insert(v.pcpu, v)
        if v.pcpu.mode is Mode.IDLE:
            self.request(v.pcpu)
