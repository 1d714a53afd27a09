"""Xen's credit2 scheduler (section 9b)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .draws import HOST, low
from .host import Host
from .state import INF, Mode, Pcpu, State, Vcpu

if TYPE_CHECKING:
    from .world import World


class Queue:
    """pCPUs that share a list of vCPUs."""

    def __init__(self, first: Pcpu) -> None:
        self.pcpus = [first]
        self.list: list[Vcpu] = []


class Credit2(Host):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.queues: list[Queue] = []
        self.of: dict[Pcpu, Queue] = {}
        self.leaving: Vcpu | None = None
        self.chosen: Vcpu | None = None
        self.f = world.parameters.f
        self.init, self.shortest, self.carryover, self.resist = map(self.us, (10_000, 500, 500, 500))
        self.bonus = self.tolerance = self.us(50)
        self.R = world.parameters.R
        self.max_weight = 0

    def us(self, n: int) -> int:
        return n * self.f // 10**6

    # 9b.1 Queues

    def group(self) -> None:
        pcpus = self.world.pcpus
        most = len(pcpus) // ((len(pcpus) - 1) // 16 + 1)
        for p in pcpus:
            open_to_p = [q for q in self.queues if len(q.pcpus) < most and self.may_join(p, q)]
            if open_to_p:
                queue = min(open_to_p, key=lambda q: len(q.pcpus))
                queue.pcpus.append(p)
            else:
                queue = Queue(p)
                self.queues.append(queue)
            self.of[p] = queue

    def may_join(self, p: Pcpu, queue: Queue) -> bool:
        how = self.world.parameters.runqueue
        return how == "all" or (how == "socket" and queue.pcpus[0].socket == p.socket)

    def queue_of(self, p: Pcpu) -> Pcpu:
        return self.of[p].pcpus[0]

    def start(self) -> None:
        self.group()
        self.max_weight = max(vm.weight for vm in self.world.vms)
        for v in self.world.vcpus:
            v.credit = self.init
        for queue in self.queues:
            for turn in range(len(self.world.vcpus)):
                queue.list += [p.queue[turn] for p in queue.pcpus if turn < len(p.queue)]

    def list_of(self, v: Vcpu) -> list[Vcpu]:
        return self.of[v.pcpu].list

    def show(self, v: Vcpu) -> None:
        """The queue of v's pCPU, as others see it."""
        v.pcpu.queue[:] = [w for w in self.list_of(v) if w.pcpu is v.pcpu]

    # 9b.2 Credit

    def burn(self, v: Vcpu) -> None:
        x = (self.world.now - v.burned_at) * self.max_weight + v.residual
        v.credit = max(v.credit - x // v.vm.weight, -self.init)
        v.residual = x % v.vm.weight
        v.burned_at = self.world.now

    def charge(self, p: Pcpu) -> None:
        assert p.current is not None
        self.burn(p.current)

    def enlist(self, v: Vcpu) -> None:
        queued = self.list_of(v)
        place = next((i for i, w in enumerate(queued) if w.credit < v.credit), len(queued))
        queued.insert(place, v)
        self.show(v)

    def take_out(self, v: Vcpu) -> None:
        self.list_of(v).remove(v)
        self.show(v)

    # 9b.3 Who runs

    def candidate(self, p: Pcpu, credit: int, yields: bool) -> Vcpu | None:
        for v in self.of[p].list:
            if not yields and v.credit <= credit:
                return None
            reserved = v.tickled is not None and v.tickled is not p and v.tickled.resched_at < INF
            resists = v.pcpu is not p and v.credit < credit + self.resist
            if p.index in v.allowed and not reserved and not resists:
                return v
        return None

    def holds(self, p: Pcpu) -> bool:
        cur, ran = p.current, self.world.now - p.dispatched_at
        assert cur is not None
        yields, cur.yielding = cur.yielding, False
        self.chosen = self.candidate(p, cur.credit, yields) if yields or ran >= self.R else None
        if self.chosen is not None:
            return False
        self.begin(p, cur)
        p.slice_end = self.world.now + self.runtime(p, cur, self.R - ran)
        return True

    def insert(self, p: Pcpu, v: Vcpu) -> None:
        v.state, v.pcpu, v.queued_since = State.QUEUED, p, self.world.now
        if self.queues:
            self.leaving = v
        else:
            p.queue.append(v)  # 12: before the start

    def choose(self, p: Pcpu) -> Vcpu | None:
        found = self.chosen if self.leaving is not None else self.candidate(p, -self.init - 1, False)
        if found is not None:
            self.world.count.steals += found.pcpu is not p
            self.take_out(found)
        return found

    def begins(self, p: Pcpu) -> int:
        v, last = p.current, p.came_from
        assert v is not None
        self.begin(p, v)
        if last is not p:
            v.credit = min(v.credit + self.bonus, 2 * self.f)
        end = self.world.now + self.runtime(p, v, self.R)
        if self.world.now == 0:
            end += low(self.world.draws.draw(HOST, 2**20 + 1 + p.index)) * self.init >> 32
        return end

    def begin(self, p: Pcpu, v: Vcpu) -> None:
        v.burned_at = self.world.now
        v.tickled = None
        if max([v.credit, *(w.credit for w in self.of[p].list[:1])]) > 0:
            return
        more = 2 * self.init if v.credit == -self.init else self.init
        for w in self.world.vcpus:
            if self.of[w.pcpu] is self.of[p]:
                if w.pcpu.current is w:
                    self.burn(w)
                w.credit = min(w.credit + more, self.init + self.carryover)
                w.burned_at = self.world.now

    def runtime(self, p: Pcpu, v: Vcpu, least: int) -> int:
        waiting = [0, *(w.credit for w in self.of[p].list[:1])]
        leaving = self.leaving
        if self.world.parameters.since("4.21") and leaving is not None and self.of[leaving.pcpu] is self.of[p]:
            waiting.append(leaving.credit)
        time = max(0, v.credit - max(waiting)) * v.vm.weight // self.max_weight
        least = max(self.shortest, least)
        return least if time < least else min(time, self.init)

    def switched(self, p: Pcpu) -> None:
        v, self.leaving = self.leaving, None
        if v is not None:
            self.enlist(v)
            self.tickle(v)

    def yields(self, v: Vcpu) -> None:
        v.yielding = True

    def has_yielded(self, v: Vcpu) -> None:
        v.yielding = False

    # 9b.4 Tickling, waking

    def woken(self, v: Vcpu) -> None:
        v.state, v.queued_since = State.QUEUED, self.world.now
        self.enlist(v)
        self.tickle(v)

    def tickle(self, v: Vcpu) -> None:
        pcpus = self.world.pcpus
        around = pcpus[v.pcpu.index :] + pcpus[: v.pcpu.index]
        mine = [q for q in around if self.of[q] is self.of[v.pcpu] and q.index in v.allowed and q.resched_at == INF]
        x = next((q for q in mine if q.mode is Mode.IDLE), None)
        if x is None and v.pcpu in mine and self.score(v, v.pcpu) > 0:
            x = v.pcpu
        if x is None:
            others = sorted((q for q in mine if q is not v.pcpu), key=lambda q: q.index)
            scores = {q: self.score(v, q) for q in others}
            if others and max(scores.values()) > 0:
                x = max(others, key=lambda q: scores[q])  # the first of equals
        if x is not None:
            v.tickled = x
            self.request(x)

    def score(self, v: Vcpu, q: Pcpu) -> int:
        ran = self.world.now - q.dispatched_at
        if q.mode is not Mode.GUEST or (self.tolerance < self.R and ran <= self.R - self.tolerance):
            return 0
        assert q.current is not None
        self.burn(q.current)
        return v.credit - q.current.credit - (self.resist if q is not v.pcpu else 0)

    # 9b.5 The rest

    def favour(self, p: Pcpu, v: Vcpu) -> bool:
        self.take_out(v)
        self.list_of(v).insert(0, v)
        self.show(v)
        self.tickle(v)
        return True

    def protected_until(self, p: Pcpu) -> int:
        return p.dispatched_at + self.R

    def check(self) -> None:
        for queue in self.queues:
            for v in queue.list:
                assert v.state is State.QUEUED and self.of[v.pcpu] is queue
            for p in queue.pcpus:
                assert p.queue == [v for v in queue.list if v.pcpu is p]
        assert self.leaving is None
