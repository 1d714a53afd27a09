"""Linux's fair scheduler evens out the queues of its pCPUs (15.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .fair_queue import Entity
from .state import INF, Mode, Pcpu, Vcpu

if TYPE_CHECKING:
    from .fair import Fair


@dataclass
class Domain:
    """A domain, as one of its pCPUs has it."""

    parts: list[list[Pcpu]]
    tries: int  # failed attempts after which it does not matter that a vCPU is hot
    last: int = 0
    failed: int = 0
    relaxed: bool = False

    @property
    def pcpus(self) -> list[Pcpu]:
        return [p for part in self.parts for p in part]


class Balancer:
    def __init__(self, host: Fair) -> None:
        self.host = host
        self.world = host.world
        sockets: dict[int, list[Pcpu]] = {}
        for p in self.world.pcpus:
            sockets.setdefault(p.socket, []).append(p)
        self.domains: dict[Pcpu, list[Domain]] = {}
        for p in self.world.pcpus:
            near = Domain([[q] for q in sockets[p.socket]], tries=1)
            far = Domain(list(sockets.values()), tries=2)
            self.domains[p] = [domain for domain in (near, far) if len(domain.parts) > 1]

    def load(self, pcpus: list[Pcpu]) -> int:
        return sum(self.host.runqueues[p].root.W for p in pcpus) // len(pcpus)

    def tasks(self, pcpus: list[Pcpu]) -> int:
        return sum(self.host.running(p) for p in pcpus)

    def balance(self, p: Pcpu, due: int, over: bool) -> bool:
        for domain in self.domains[p]:
            if due - domain.last >= self.interval(p, domain):
                domain.last = due
                over = self.even_out(p, domain, over)
        return over

    def interval(self, p: Pcpu, domain: Domain) -> int:
        parameters = self.world.parameters
        ms = len(domain.pcpus) * (2 if domain.relaxed else 1)
        cycles = parameters.f // 1000
        if self.host.running(p) > 0:
            ticks = -(-16 * ms * cycles // parameters.tick) - 1
        else:
            ticks = -(-ms * cycles // parameters.tick)
        longest = 100 * parameters.pcpus * cycles // parameters.tick
        return max(1, min(ticks, longest)) * parameters.tick

    def even_out(self, p: Pcpu, domain: Domain, over: bool) -> bool:
        running = self.host.running
        mine = next(part for part in domain.parts if p in part)
        leader = next((q for q in mine if running(q) == 0), mine[0])
        crowded = [part for part in domain.parts if part is not mine and self.tasks(part) > len(part)]
        left, room, q = 0, self.tasks(mine) < len(mine), p
        if leader is p and crowded:
            busiest = max(crowded, key=self.load)  # of equals the first
            sources = [one for one in busiest if running(one) >= 2]
            if room:
                q = max(sources, key=running)
                left = (running(q) - running(p)) // 2
            else:
                q = max(sources, key=lambda one: self.load([one]))
                left = self.imbalance(mine, busiest, domain)
        domain.relaxed = left <= 0
        if left <= 0:
            domain.failed = 0
            return over
        came, over = self.pull(p, q, domain, room, left, over)
        domain.failed = 0 if came else domain.failed + 1
        return over

    def imbalance(self, mine: list[Pcpu], busiest: list[Pcpu], domain: Domain) -> int:
        here, there, mean = self.load(mine), self.load(busiest), self.load(domain.pcpus)
        if here >= there:
            return 0
        if self.tasks(mine) > len(mine) and 100 * there <= 117 * here:
            return 0
        return min((there - mean) * len(busiest), (mean - here) * len(mine))

    def pull(self, p: Pcpu, q: Pcpu, domain: Domain, room: bool, left: int, over: bool) -> tuple[int, bool]:
        came = 0
        for v in q.queue[:32]:
            if left <= 0:
                break
            size = 1 if room else self.size(v)
            if not self.may_come(v, p, domain) or size >> min(domain.failed, 62) > left:
                continue
            q.queue.remove(v)
            self.host.move(v, p)
            v.pcpu = p
            p.queue.append(v)
            if not over:
                asked = p.mode is Mode.GUEST and p.resched_at == INF
                over = p.mode in (Mode.IDLE, Mode.POLLING) or (asked and self.host.preempts(p, v))
            self.world.count.steals += 1
            left -= size
            came += 1
        return came, over

    def size(self, v: Vcpu) -> int:
        thread = self.host.threads[v]
        if self.host.flat:
            return thread.w
        group = thread.home.group
        assert group is not None
        return max(1, thread.w * group.w // group.members.W)

    def may_come(self, v: Vcpu, p: Pcpu, domain: Domain) -> bool:
        thread: Entity = self.host.threads[v]
        q = thread.home
        if p.index not in v.allowed:
            return False
        if domain.failed <= domain.tries:
            if self.host.hot(v):
                return False
            if self.host.running(p) > 0 and q.next is thread:
                return False
        if self.host.since("6.18") and domain.failed == 0 and self.host.runqueues[p].place_of(v).entities:
            return q.eligible(thread)
        return True
