"""Linux's fair scheduler (section 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .draws import HOST, high
from .fair_balance import Balancer
from .fair_queue import Entity, Group, Queue, Thread, toward_zero
from .host import Host
from .state import INF, LeftBy, Mode, NoiseState, Pcpu, State, Vcpu, Vm

if TYPE_CHECKING:
    from .world import World

VERSIONS = ["5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2"]


class Runqueue:
    """What a pCPU has for this scheduler."""

    def __init__(self, root: Queue, groups: dict[Vm, Group]) -> None:
        self.root = root
        self.groups = groups  # by VM; none if there are no groups
        self.curr: Thread | None = None
        self.group: Group | None = None
        self.tasks = 0
        self.due = 0  # 15.9
        self.seq = 0
        self.last_yield: tuple[Vcpu, Vcpu, int] | None = None  # 15.13
        self.fell_back: int | None = None

    def number(self, x: Entity) -> None:
        """x has a new seq."""
        self.seq += 1
        x.seq = self.seq

    def place_of(self, v: Vcpu) -> Queue:
        """The queue of v here."""
        return self.groups[v.vm].members if self.groups else self.root

    def current(self, q: Queue) -> Entity | None:
        """The current entity of a queue."""
        if q is self.root and self.groups:
            return self.group
        return self.curr if self.curr is not None and self.curr.queue is q else None


class Fair(Host):
    # 15.1 Entities and queues

    def __init__(self, world: World) -> None:
        super().__init__(world)
        parameters = world.parameters
        self.version = VERSIONS.index(parameters.linux)
        self.cfs = not self.since("6.6")
        self.flat = parameters.groups == "flat"
        self.per_vcpu = parameters.groups == "vcpu"

        factor = min(parameters.pcpus, 8).bit_length()
        base = parameters.base_slice_us or (700 if self.since("6.18") else 750) * factor
        granularity = parameters.wakeup_granularity_us or 1000 * factor
        self.slice = parameters.cycles(base)
        self.gran = parameters.cycles(granularity)
        self.nap = parameters.cycles(4 * base)
        self.most_lag = max(2 * self.slice, parameters.tick)
        self.most = 2**61 // sum(max(4 * vm.weight, 1024) * vm.vcpu_count for vm in world.vms)

        self.queued_vcpus = dict.fromkeys(world.vms, 0)
        self.threads = {v: Thread(4 * v.vm.weight if self.flat else 1024, vcpu=v) for v in world.vcpus}
        self.runqueues = {p: self.runqueue() for p in world.pcpus}
        self.balancer = Balancer(self)

    def since(self, version: str) -> bool:
        return self.version >= VERSIONS.index(version)

    def bound(self, c: int) -> int:
        return max(-self.most, min(self.most, c))

    def runqueue(self) -> Runqueue:
        root = Queue(self.bound)
        groups = {} if self.flat else {vm: Group(0, members=Queue(self.bound, root=root)) for vm in self.queued_vcpus}
        for group in groups.values():
            group.members.group = group
        return Runqueue(root, groups)

    def weight(self, p: Pcpu, vm: Vm) -> int:
        """The weight of a VM's group on p."""
        here = len(self.runqueues[p].groups[vm].members.entities)
        return max(2, 4 * vm.weight * here // max(1, self.queued_vcpus[vm]))

    def place_in(self, v: Vcpu) -> Pcpu:
        """The pCPU in whose queues v is."""
        queue = self.threads[v].queue
        return next(p for p, rq in self.runqueues.items() if queue is rq.place_of(v))

    # 15.2 Charging

    def charge_one(self, q: Queue, x: Entity) -> bool:
        c = self.world.now - q.start
        if c <= 0:
            return False
        q.start = self.world.now
        x.v += x.vt(c)
        x.ran += c
        over = False
        if not self.cfs and x.v >= x.d:
            x.d = x.v + x.vt(self.slice)
            over = True
        q.lowest()
        if self.cfs or q.alone(x):
            return False
        if self.since("6.18"):
            over = over or x.v >= x.prot
        elif self.since("6.12"):
            over = over or (x.prot != x.d and not q.eligible(x))
        if over:
            q.forget(x)
        return over

    def charge_vcpu(self, p: Pcpu, v: Vcpu) -> bool:
        """Charge who runs on p if it runs in the queue of v there."""
        rq = self.runqueues[p]
        if p.current is not None and rq.curr is not None and (self.flat or rq.curr.vcpu.vm is v.vm):
            return self.charge_one(rq.curr.home, rq.curr)
        return False

    def charge_group(self, p: Pcpu) -> bool:
        rq = self.runqueues[p]
        if p.current is not None and rq.group is not None:
            return self.charge_one(rq.root, rq.group)
        return False

    def charge(self, p: Pcpu) -> None:
        assert p.current is not None
        self.charge_vcpu(p, p.current)
        self.charge_group(p)

    # 15.3 Coming and going

    def place(self, q: Queue, x: Entity, wakes: bool) -> None:
        if self.cfs:
            if wakes:
                x.v = max(x.v, q.m - self.nap)
            return
        x.v = q.m
        if q.entities:
            x.v = q.V - (x.vlag + toward_zero(x.vlag * x.w, q.W))
        if x.relative:
            x.d += x.v
            x.relative = False
        else:
            x.d = x.v + x.vt(self.slice)

    def remove(self, x: Entity, moves: bool) -> None:
        q = x.home
        if not self.cfs:
            most = x.vt(self.most_lag)
            x.vlag = max(-most, min(most, q.V - x.v))
            if x.delayed:
                x.vlag = min(x.vlag, 0)
            elif moves and self.since("6.12"):
                x.d -= x.v
                x.relative = True
        x.delayed = False
        q.take(x)
        q.lowest()

    def enqueue(self, p: Pcpu, v: Vcpu, wakes: bool) -> bool:
        """v comes; returns whether what runs on p must go."""
        rq, thread = self.runqueues[p], self.threads[v]
        over = self.charge_vcpu(p, v)
        rq.tasks += 1
        self.queued_vcpus[v.vm] += 1
        self.place(rq.place_of(v), thread, wakes)
        rq.place_of(v).put(thread)
        rq.number(thread)
        if self.flat:
            return over
        group = rq.groups[v.vm]
        if group.queued:
            if group.delayed:
                self.undelay(rq, group)
            return self.reshare(p, v.vm) or over
        over = self.charge_group(p) or over
        self.reshare(p, v.vm)
        self.place(rq.root, group, True)
        rq.root.put(group)
        rq.number(group)
        return over

    def dequeue(self, p: Pcpu, v: Vcpu, sleeps: bool) -> bool:
        """v goes; returns whether what runs on p must go."""
        thread = self.threads[v]
        over = self.charge_vcpu(p, v)
        thread.home.forget(thread)
        if sleeps and self.since("6.12") and not thread.home.eligible(thread):
            thread.delayed = True
            if self.per_vcpu:
                self.runqueues[p].tasks -= 1
            return over
        return self.take_away(p, v, sleeps) or over

    def take_away(self, p: Pcpu, v: Vcpu, sleeps: bool) -> bool:
        rq, thread = self.runqueues[p], self.threads[v]
        if not (self.per_vcpu and thread.delayed):
            rq.tasks -= 1
        self.queued_vcpus[v.vm] -= 1
        self.remove(thread, moves=not sleeps)
        over = False
        if not self.flat:
            group = rq.groups[v.vm]
            if group.members.entities:
                if sleeps and (self.cfs or self.since("6.14")):
                    rq.root.next = group
                over = self.reshare(p, v.vm)
            else:
                over = self.charge_group(p)
                rq.root.forget(group)
                if self.since("6.12") and not rq.root.eligible(group):
                    group.delayed = True
                else:
                    self.drop(rq, group)
        if rq.curr is thread:
            rq.curr = None
        return over

    def drop(self, rq: Runqueue, group: Group) -> None:
        """A group without entities leaves the root queue."""
        self.remove(group, moves=False)
        if rq.group is group:
            rq.group = None

    def undelay(self, rq: Runqueue, x: Entity) -> None:
        q = x.home
        x.delayed = False
        rq.number(x)
        if x.v < q.V:
            q.take(x)
            x.vlag = 0
            self.place(q, x, True)
            q.put(x)

    def reshare(self, p: Pcpu, vm: Vm) -> bool:
        """The group's weight follows its share of the VM; returns whether what runs on p must go."""
        rq = self.runqueues[p]
        g = rq.groups[vm]
        new = self.weight(p, vm)
        if new == g.w:
            return False
        over = rq.group is g and self.charge_group(p)
        old = g.w
        o = rq.root.V if g.queued and self.since("6.12") else g.v
        g.w = new
        if not self.cfs:
            if g.queued:
                protection = self.bound(g.prot - g.v)
                g.d = o + toward_zero(self.bound(g.d - o) * old, new)
                g.v = o - toward_zero(self.bound(o - g.v) * old, new)
                if self.since("6.18"):
                    g.prot = g.v + toward_zero(protection * old, new)
                rq.root.lowest()
            else:
                g.vlag = toward_zero(g.vlag * old, new)
        return over

    def move(self, v: Vcpu, q: Pcpu) -> None:
        p = self.place_in(v)
        if self.dequeue(p, v, sleeps=False):
            self.request(p)
        self.change_clock(v, p, q)
        if self.enqueue(q, v, wakes=False):
            self.request(q)

    def change_clock(self, v: Vcpu, p: Pcpu, q: Pcpu) -> None:
        """Under CFS a virtual time is relative to the queue."""
        if self.cfs:
            self.threads[v].v += self.runqueues[q].place_of(v).m - self.runqueues[p].place_of(v).m

    # 15.4 Picking

    def pick_from(self, q: Queue, current: Entity | None) -> Entity:
        if not self.cfs:
            if self.since("6.14") and q.next is not None and q.eligible(q.next):
                return q.next
            return self.earliest(q, current)
        left, *others = sorted(q.entities, key=lambda x: (x.v, x.seq))
        chosen = left
        if q.skip is left and others and self.near(others[0], left):
            chosen = others[0]
        if q.next is not None and self.near(q.next, left):
            chosen = q.next
        return chosen

    def near(self, a: Entity, b: Entity) -> bool:
        return a.v - b.v <= b.vt(self.gran)

    def earliest(self, q: Queue, current: Entity | None) -> Entity:
        if len(q.entities) == 1:
            return q.entities[0]
        c = current if current is not None and q.eligible(current) else None
        if c is not None and self.protected(c):
            return c
        eligible = [x for x in q.entities if x is not current and q.eligible(x)]
        best = min(eligible, key=lambda x: (x.d, x.seq), default=None)
        if best is None or (c is not None and c.d < best.d):
            assert c is not None, "somebody is always eligible"
            return c
        return best

    def protected(self, c: Entity) -> bool:
        return c.v < c.prot if self.since("6.18") else c.prot == c.d

    def pick(self, p: Pcpu) -> Vcpu | None:
        rq = self.runqueues[p]
        while rq.root.entities:
            x = self.pick_from(rq.root, rq.current(rq.root))
            if isinstance(x, Group):
                if not x.members.entities:
                    rq.root.forget(x)
                    self.drop(rq, x)
                    continue
                x = self.pick_from(x.members, rq.current(x.members))
            assert isinstance(x, Thread)
            if not x.delayed:
                return x.vcpu
            x.home.forget(x)
            self.take_away(p, x.vcpu, sleeps=True)
        return None

    # 15.5 schedule

    def schedule(self, p: Pcpu, for_exit: bool = False, for_kick: bool = False) -> None:
        if p.noise_state is NoiseState.RUNNING or self.defers(p, for_exit or for_kick):
            return
        if not (for_exit or for_kick) and self.runs_urgent(p):
            return
        hv = p.exit_until - self.world.now if for_exit or for_kick else 0
        cur = p.current
        why = LeftBy.PLE if for_exit else LeftBy.PREEMPTED
        if cur is not None:
            self.charge(p)
            if cur.state is State.RUNNING:
                self.put_back(p, cur)
            elif self.polls(p, cur):
                p.mode = Mode.POLLING
                p.guest_at = INF
                return
            else:
                why = LeftBy.BLOCKED
                self.sleeps(p, cur)
        chosen = self.choose(p)
        self.answer_hint(p, chosen)
        if chosen is not None and chosen is cur:
            cur.state = State.RUNNING
            p.slice_end = self.begins(p)
            p.entry = self.world.now + hv
            self.world.guest.enter(p)
            return
        if cur is not None:
            self.leave(p, why)
        self.switch(p, chosen, hv)

    def sleeps(self, p: Pcpu, v: Vcpu) -> None:
        self.dequeue(p, v, sleeps=True)

    def put_back(self, p: Pcpu, v: Vcpu) -> None:
        rq = self.runqueues[p]
        if self.place_in(v) is not p:
            self.move(v, p)
        rq.number(self.threads[v])
        if not self.flat:
            rq.number(rq.groups[v.vm])
        self.insert(p, v)

    def insert(self, p: Pcpu, v: Vcpu) -> None:
        v.pcpu = p
        v.state = State.QUEUED
        v.queued_since = self.world.now
        p.queue.append(v)

    def choose(self, p: Pcpu) -> Vcpu | None:
        rq, count = self.runqueues[p], self.world.count
        p.resched_at = INF
        if p.current is None:
            rq.curr = rq.group = None
        v = self.pick(p)
        if v is None:
            v = self.idle_pull(p)
        if p.hinted is not None:
            if v is p.hinted:
                count.hints_won += 1
            else:
                count.hints_ignored += 1
        if v is None:
            rq.curr = None
            return None
        q = v.pcpu
        q.queue.remove(v)
        if q is not p:
            self.move(v, p)
        return v

    def begins(self, p: Pcpu) -> int:
        assert p.current is not None
        self.adapt_poll(self.threads[p.current])
        self.run(p, p.current)
        return INF

    def run(self, p: Pcpu, v: Vcpu) -> None:
        """p's queues take v for the running one."""
        rq, thread = self.runqueues[p], self.threads[v]
        if self.place_in(v) is not p:
            self.move(v, p)
        if rq.curr is thread:
            return
        thread.home.forget(thread)
        rq.curr = thread
        self.begin(thread)
        if not self.flat and rq.group is not rq.groups[v.vm]:
            rq.group = rq.groups[v.vm]
            self.begin(rq.group)

    def begin(self, x: Entity) -> None:
        q = x.home
        if q.next is x:
            q.next = None
        if q.skip is x:
            q.skip = None
        q.start = self.world.now
        x.ran = 0
        x.prot = x.d

    # 15.6 Yield and hint

    def running(self, p: Pcpu) -> int:
        """rq(p): who runs on p or waits for it."""
        return self.runqueues[p].tasks + (p.mode is Mode.NOISE)

    def yields(self, v: Vcpu) -> None:
        p, thread = v.pcpu, self.threads[v]
        rq = self.runqueues[p]
        if self.running(p) == 1:
            return
        q = thread.home
        q.forget(thread)
        self.charge(p)
        if self.cfs:
            q.skip = thread
            if not self.flat:
                rq.root.skip = rq.groups[v.vm]
            return
        if self.per_vcpu:
            return
        if self.since("6.18.2"):
            if not q.eligible(thread):
                return
            thread.v = thread.d
        thread.d += thread.vt(self.slice)
        q.lowest()

    def favour(self, p: Pcpu, v: Vcpu) -> bool:
        count, q = self.world.count, v.pcpu
        rq = self.runqueues[q]
        count.hints += 1
        if self.running(p) == 1 and self.running(q) == 1:
            count.hints_failed += 1
            return False
        if q.hinted is not None:
            count.hints_ignored += 1
        rq.place_of(v).next = self.threads[v]
        if not self.flat:
            rq.root.next = rq.groups[v.vm]
        if q is not p:
            self.request(q)
        else:
            self.deboost(p, v)
        return True

    # 15.13 Deboosters

    def deboost(self, p: Pcpu, v: Vcpu) -> None:
        y, rq, kind = p.current, self.runqueues[p], self.world.parameters.debooster
        if kind == "off" or y is None or y.vm is not v.vm:
            return
        self.charge(p)
        q, mine, theirs = rq.place_of(y), self.threads[y], self.threads[v]
        back = max(0, theirs.v - mine.v) if kind == "ishiguro" else self.penalty(rq, q, y, v)
        if back > 0:
            mine.v += back
            mine.d += back
            q.lowest()

    def penalty(self, rq: Runqueue, q: Queue, y: Vcpu, v: Vcpu) -> int:
        now, cycles = self.world.now, self.world.parameters.cycles
        last, rq.last_yield = rq.last_yield, (y, v, now)
        if rq.fell_back is not None and now - rq.fell_back < cycles(6000):
            return 0
        rq.fell_back = now
        answers = last is not None and last[:2] == (v, y) and now - last[2] <= cycles(600)
        tenths = 10 if answers else max(10, 70 - 5 * len(q.entities))
        return self.threads[y].vt(self.slice) * tenths // 10

    # 15.14 A kick that yields

    def kicked(self, p: Pcpu, v: Vcpu) -> bool:
        if not self.world.parameters.kick_yields or v.state is not State.QUEUED or self.running(p) == 1:
            return False
        p.exit_until = self.world.now + self.world.under_locks(p, v.pcpu, 0)
        assert p.current is not None and self.world.hint(p, v)
        self.yields(p.current)
        return True

    # 15.7 Wake

    def woken(self, v: Vcpu) -> None:
        p, thread = v.pcpu, self.threads[v]
        over = False
        if thread.delayed:
            if self.per_vcpu:
                self.runqueues[p].tasks += 1
            self.undelay(self.runqueues[p], thread)
        else:
            q = self.idle_neighbour(v, p)
            self.change_clock(v, p, q)
            over = self.enqueue(q, v, wakes=True)
            p = q
        self.insert(p, v)
        if p.mode is Mode.GUEST and p.resched_at == INF and not over:
            over = self.preempts(p, v)
        if p.mode is Mode.POLLING:
            p.resched_at = self.world.now
        elif p.mode is Mode.IDLE or over:
            self.request(p)

    def idle_neighbour(self, v: Vcpu, p: Pcpu) -> Pcpu:
        """Where v, which was on p, wakes."""
        pcpus = self.world.pcpus
        for q in pcpus[p.index :] + pcpus[: p.index]:
            if q.index in v.allowed and q.socket == p.socket and q.mode is Mode.IDLE and self.runqueues[q].tasks == 0:
                return q
        return p

    def preempts(self, p: Pcpu, v: Vcpu) -> bool:
        rq = self.runqueues[p]
        q: Queue
        x: Entity
        if self.flat or rq.group is rq.groups[v.vm]:
            q, x = rq.place_of(v), self.threads[v]
            over = self.charge_vcpu(p, v)
        else:
            q, x = rq.root, rq.groups[v.vm]
            over = self.charge_group(p)
        if over:
            return True
        c = rq.current(q)
        assert c is not None
        if not self.cfs:
            return self.earliest(q, c) is x
        if c.v - x.v > x.vt(self.gran):
            q.next = x
            if not self.flat:
                rq.root.next = rq.groups[v.vm]
            return True
        return False

    # 15.8 Idle pull

    def idle_pull(self, p: Pcpu) -> Vcpu | None:
        for near in (True, False):
            others = [q for q in self.world.pcpus if q is not p and (q.socket == p.socket or not near)]
            busy = [q for q in others if self.running(q) >= 2 and any(p.index in v.allowed for v in q.queue)]
            if not busy:
                continue
            for v in max(busy, key=self.running).queue:  # of equals the first
                if not self.hot(v) and p.index in v.allowed:
                    self.world.count.steals += 1
                    return v
        return None

    def hot(self, v: Vcpu) -> bool:
        return v.last_pcpu is not None and self.world.now - v.left_at < self.world.parameters.migration_cost

    # 15.9 Tick

    def tick(self, p: Pcpu) -> None:
        due = self.runqueues[p].due
        self.set_tick(p, due + self.world.parameters.tick)
        over = p.current is not None and self.turn_ends(p, p.current)
        if self.world.parameters.load_balance:
            over = self.balancer.balance(p, due, over)
        if over:
            self.schedule(p)
        elif p.mode is Mode.GUEST:
            self.world.guest.enter(p)

    def turn_ends(self, p: Pcpu, v: Vcpu) -> bool:
        rq, thread = self.runqueues[p], self.threads[v]
        q = thread.home
        over = self.charge_vcpu(p, v)
        period = max(8, rq.tasks) * self.slice
        if self.flat:
            over = self.late(thread, period * thread.w // q.W) or over
        else:
            g = rq.groups[v.vm]
            over = self.late(thread, period * thread.w // q.W * g.w // rq.root.W) or over
            over = self.charge_group(p) or over
            over = self.reshare(p, v.vm) or over
            over = self.late(g, period * g.w // rq.root.W) or over
        return over

    def set_tick(self, p: Pcpu, due: int) -> None:
        """p's next tick comes at `due`, or later."""
        parameters = self.world.parameters
        self.runqueues[p].due = p.tick_at = due
        if parameters.jitter > 0:
            x = self.world.draws.draw(HOST, 2**20 + 1 + due // parameters.tick * 1024 + p.index)
            p.tick_at += high(x) * (parameters.jitter + 1) >> 32

    def late(self, x: Entity, c: int) -> bool:
        """CFS: x, which is not alone, has run for longer than its share c, or is too far ahead."""
        q = x.home
        if not self.cfs or q.alone(x):
            return False
        c = max(self.slice, c)
        if x.ran > c:
            q.forget(x)
            return True
        return x.ran >= self.slice and x.v - min(y.v for y in q.entities) > c

    # 15.10 Start

    def start(self) -> None:
        draws, parameters = self.world.draws, self.world.parameters
        skew = parameters.tick // 2 // parameters.pcpus if parameters.skew_tick else 0
        for p in self.world.pcpus:
            self.set_tick(p, 1 + (high(draws.draw(HOST, 2**20)) * parameters.tick >> 32) + p.index * skew)
            for v in p.queue:
                self.start_vcpu(p, v)
        for p, rq in self.runqueues.items():
            for vm, group in rq.groups.items():
                group.w = self.weight(p, vm)
                group.d = group.vt(self.slice) // 2

    def start_vcpu(self, p: Pcpu, v: Vcpu) -> None:
        rq, thread = self.runqueues[p], self.threads[v]
        thread.d = thread.vt(self.slice) // 2
        rq.tasks += 1
        self.queued_vcpus[v.vm] += 1
        rq.place_of(v).put(thread)
        rq.number(thread)
        if not self.flat and not rq.groups[v.vm].queued:
            rq.root.put(rq.groups[v.vm])
            rq.number(rq.groups[v.vm])

    # 15.12 Halt polling

    def polls(self, p: Pcpu, v: Vcpu) -> bool:
        """Whether p, on which v has gone to sleep, waits for it; then `slice_end` says until when."""
        thread, now = self.threads[v], self.world.now
        if v.state is State.DONE or p.mode is Mode.POLLING:
            return False
        thread.asleep_since = now
        thread.poll = min(thread.poll, self.world.parameters.halt_poll)
        if thread.poll == 0 or self.running(p) > 1:
            return False
        p.slice_end = now + thread.poll
        return True

    def adapt_poll(self, thread: Thread) -> None:
        """It runs again."""
        if thread.asleep_since is None:
            return
        most, first = self.world.parameters.halt_poll, self.world.parameters.cycles(10)
        slept = self.world.now - thread.asleep_since
        thread.asleep_since = None
        if thread.poll > 0 and slept > most:
            thread.poll = thread.poll // 2 if self.since("6.12") else 0
            if thread.poll < first:
                thread.poll = 0
        elif thread.poll < slept < most:
            thread.poll = max(2 * thread.poll, first)

    # Invariants

    def check(self) -> None:
        for vm, queued in self.queued_vcpus.items():
            assert queued == sum(self.threads[v].queued for v in vm.vcpus)
        for v, thread in self.threads.items():
            assert thread.queued or not thread.delayed
            if v.state in (State.RUNNING, State.QUEUED) or v.pcpu.current is v:
                assert not thread.delayed and self.place_in(v) is v.pcpu
            else:
                assert thread.delayed == thread.queued
        for p in self.world.pcpus:
            self.check_pcpu(p)

    def check_pcpu(self, p: Pcpu) -> None:
        rq = self.runqueues[p]
        queues = [rq.root, *(group.members for group in rq.groups.values())]
        for q in queues:
            assert all(x.queue is q for x in q.entities)
            assert q.next is None or q.next.queue is q
            assert q.skip is None or q.skip.queue is q
            assert not q.entities or any(q.eligible(x) for x in q.entities)
        for group in rq.groups.values():
            assert group.delayed == (group.queued and not group.members.entities)
            assert group.queued or not group.members.entities
        threads = [x for q in queues for x in q.entities if isinstance(x, Thread)]
        assert rq.tasks == sum(not (self.per_vcpu and x.delayed) for x in threads)
        if p.current is not None:
            assert rq.curr is not None and rq.curr.vcpu is p.current
            assert self.flat or rq.group is rq.groups[rq.curr.vcpu.vm]
        elif p.mode is Mode.IDLE:
            assert rq.curr is None and rq.group is None
