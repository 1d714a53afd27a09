"""Xen's credit scheduler (section 9)."""

from __future__ import annotations

from collections.abc import Iterable

from .draws import HOST, high, low
from .host import Host
from .remedies import Remedies
from .state import BOOST, IDLE_PRIORITY, INF, OVER, UNDER, Mode, Pcpu, State, Vcpu, Vm


def ceil_div(a: int, b: int) -> int:
    assert a >= 0 and b > 0
    return (a + b - 1) // b


def next_after(x: int, pcpus: Iterable[Pcpu]) -> Pcpu:
    """The next cyclically after x: the first of x + 1, x + 2, ..., wrapping, ending with x itself (9.7)."""
    ascending = sorted(pcpus, key=lambda p: p.index)
    return next((p for p in ascending if p.index > x), ascending[0])


class Credit(Host):
    def start(self) -> None:
        self.remedies = Remedies(self.world)
        draws, timeslice, period = self.world.draws, self.world.parameters.T, self.world.parameters.K
        for p in reversed(self.world.pcpus):
            self.world.balance_bias[p.socket] = p
        self.world.acct_at = 1 + (high(draws.draw(HOST, 2**20)) * timeslice >> 32)
        for p in self.world.pcpus:
            p.tick_at = 1 + (high(draws.draw(HOST, 2**20 + 1 + p.index)) * period >> 32)

    def begins(self, p: Pcpu) -> int:
        timeslice = self.world.parameters.T
        if self.world.now == 0:  # 12
            first = 1 + (low(self.world.draws.draw(HOST, 2**20 + 1 + p.index)) * timeslice >> 32)
            return self.remedies.slice_end(first)
        return self.remedies.slice_end(self.world.now + timeslice)

    def yields(self, v: Vcpu) -> None:
        v.yielding = True

    def has_yielded(self, v: Vcpu) -> None:
        if not (self.world.parameters.since("4.18") and v.state is State.QUEUED):
            v.yielding = False

    def take_out(self, v: Vcpu) -> None:
        v.pcpu.queue.remove(v)
        v.yielding = False

    # 9.1 Insert

    def insert(self, p: Pcpu, v: Vcpu) -> None:
        v.pcpu = p
        v.state = State.QUEUED
        v.queued_since = self.world.now
        position = 0
        while position < len(p.queue) and p.queue[position].priority >= v.priority:
            position += 1
        if v.yielding and position < len(p.queue):
            position += 1
        p.queue.insert(position, v)

    # 9.3 Burn

    def charge(self, p: Pcpu) -> None:
        assert p.current is not None
        ran = self.world.now - max(p.burned_at, p.dispatched_at)
        p.current.credit -= ran
        p.current.progress += ran
        p.burned_at = self.world.now

    # 9.4 schedule

    def holds(self, p: Pcpu) -> bool:
        t, parameters, cur = self.world.now, self.world.parameters, p.current
        assert cur is not None
        if parameters.R == 0 or t - p.dispatched_at >= parameters.R or (cur.yielding and parameters.bypass):
            return False
        if parameters.fresh:
            p.slice_end = t + parameters.R
        elif t - p.dispatched_at < parameters.shortest:
            p.slice_end = t + parameters.shortest
        else:
            p.slice_end = p.dispatched_at + parameters.R
        return True

    def protected_until(self, p: Pcpu) -> int:
        return p.dispatched_at + self.world.parameters.R

    def choose(self, p: Pcpu) -> Vcpu | None:
        """The next vCPU, taken out of its queue."""
        self.remedies.hold_slot(p)
        chosen = next(filter(self.remedies.may_run, p.queue), None)
        if (chosen is None or chosen.priority == OVER) and self.may_balance(p):
            chosen = self.steal(p, IDLE_PRIORITY if chosen is None else chosen.priority) or chosen
        if chosen is not None:
            self.take_out(chosen)
        else:
            self.remedies.look_again(p)
        return chosen

    def may_balance(self, p: Pcpu) -> bool:
        """Since 58feb9e0ac a pCPU looks elsewhere at most once in a millisecond."""
        if not self.world.parameters.since("4.17"):
            return True
        if self.world.now - p.balanced_at <= self.world.parameters.f // 1000:
            return False
        p.balanced_at = self.world.now
        return True

    def steal(self, p: Pcpu, priority: int) -> Vcpu | None:
        world, sockets = self.world, self.world.parameters.sockets
        for distance in range(sockets):
            socket = (p.socket + distance) % sockets
            for q in self.peers(socket):
                if q is p or q.mode is Mode.IDLE:
                    continue
                movable = (v for v in q.queue if v.priority <= priority or self.may_steal(p, v))
                found = next(movable, None)
                if found is not None and found.priority > priority:
                    world.count.steals += 1
                    world.balance_bias[socket] = q
                    return found
        return None

    def may_steal(self, p: Pcpu, v: Vcpu) -> bool:
        return not v.yielding and p.index in v.allowed and self.remedies.may_come(v, p)

    def peers(self, socket: int) -> list[Pcpu]:
        """The pCPUs of a socket in the order of a scan: since 4.9 after the one last stolen from."""
        peers = [q for q in self.world.pcpus if q.socket == socket]
        if not self.world.parameters.since("4.17"):
            return peers
        bias = peers.index(self.world.balance_bias[socket])
        return peers[bias + 1 :] + peers[: bias + 1]

    # 9.5 Tick

    def tick(self, p: Pcpu) -> None:
        world, v = self.world, p.current
        p.tick_at += world.parameters.K
        if v is not None:
            if v.priority == BOOST:
                v.priority = UNDER
            self.charge(p)
            if not v.active:
                v.active = True
                v.vm.active += 1
            elif self.pick(p, v)[0] is not p:
                v.migrating = True
        if p.sort_seen != world.sort_epoch:
            p.queue.sort(key=lambda queued: queued.priority < UNDER)  # stable
            p.sort_seen = world.sort_epoch
        if v is not None:
            if v.migrating:
                self.schedule(p)
            else:
                world.guest.enter(p)

    # 9.6 Wake

    def woken(self, v: Vcpu) -> None:
        if v.priority == UNDER:
            v.priority = BOOST
        self.remedies.wakes(v)
        self.insert(self.remedies.wakes_on(v), v)
        self.tickle(v.pcpu, v)

    def priority_at(self, q: Pcpu) -> int:
        if q.mode is Mode.IDLE:
            return IDLE_PRIORITY
        if q.mode is Mode.NOISE:
            return BOOST
        assert q.current is not None
        return q.current.priority

    def is_idler(self, p: Pcpu) -> bool:
        """Since 4.9 (47d5292995) who has been asked to reschedule is none."""
        asked = self.world.parameters.since("4.17") and p.resched_at < INF
        return p.mode is Mode.IDLE and not asked

    def tickle(self, q: Pcpu, v: Vcpu) -> None:
        idle = [p for p in self.world.pcpus if self.is_idler(p) and p.index in v.allowed]
        if q.mode is Mode.IDLE or (not idle and v.priority > self.priority_at(q)):
            self.request(q)
        elif idle:
            found = next_after(q.last_tickle, idle)
            q.last_tickle = found.index
            self.request(found)

    # 9.7 pick and migrate

    def pick(self, p: Pcpu, v: Vcpu) -> tuple[Pcpu, Pcpu | None]:
        """The best pCPU for v of p, and the last `nxt` remembered on the way."""
        idlers = [q for q in self.world.pcpus if self.is_idler(q) or (q is p and not q.queue)]
        cpus = {q for q in idlers if q.index in v.allowed}
        best, remembered = p, None
        if p not in cpus and cpus:
            best = next_after(p.index, cpus)
        cpus.discard(best)
        while cpus:
            nxt = next_after(best.index, cpus)
            if nxt.socket == best.socket:
                cpus.discard(nxt)
                continue
            here = sum(q.socket == best.socket for q in idlers)
            there = sum(q.socket == nxt.socket for q in idlers)
            if 2 * here < there:
                best = next_after(nxt.idle_bias, [q for q in cpus if q.socket == nxt.socket])
                cpus.discard(best)
                remembered = nxt
            else:
                cpus = {q for q in cpus if q.socket != nxt.socket}
        return best, remembered

    def migrate(self, v: Vcpu) -> None:
        best, remembered = self.pick(v.pcpu, v)
        if remembered is not None:
            remembered.idle_bias = best.index
        v.migrating = False
        if v.priority == UNDER and not self.world.parameters.since("4.8"):
            v.priority = BOOST
        self.insert(best, v)
        self.tickle(best, v)

    # 9.8 Accounting

    def account(self) -> None:
        world = self.world
        world.acct_at += world.parameters.T
        weight_total = sum(vm.weight * vm.active for vm in world.vms)
        if weight_total == 0:
            world.credit_balance = 0
            return
        debt = max(0, -world.credit_balance)
        total = world.parameters.credit_pcpus * world.parameters.T + debt
        left = weight_total
        balance = 0
        for vm in world.vms:
            if vm.active == 0:
                continue
            active = vm.active
            weight = vm.weight * active
            left -= weight
            peak = active * world.parameters.T + ceil_div(debt * weight, weight_total)
            fair = ceil_div(total * weight, weight_total)
            if fair >= peak:
                if left > 0:
                    total += ceil_div((fair - peak) * weight_total, left)
                fair = peak
            balance += self.pay(vm, ceil_div(fair, active))
        world.credit_balance = balance
        world.sort_epoch += 1

    def pay(self, vm: Vm, each: int) -> int:
        """Credit for the active vCPUs of a VM; returns what they have then."""
        timeslice = self.world.parameters.T
        balance = 0
        for v in vm.vcpus:
            if not v.active:
                continue
            v.credit += each
            if v.credit < 0:
                v.priority = OVER
                v.credit = max(v.credit, -timeslice)
            else:
                v.priority = UNDER
                if v.credit > timeslice:
                    v.active = False
                    vm.active -= 1
                    v.credit //= 2
            balance += v.credit
        return balance

    # 10 Decisions

    def favour(self, p: Pcpu, v: Vcpu) -> bool:
        q = v.pcpu
        q.queue.remove(v)
        position = next((i for i, w in enumerate(q.queue) if w.priority <= v.priority), len(q.queue))
        q.queue.insert(position, v)
        if q is not p and v.priority >= self.priority_at(q):
            self.request(q)
        return True

    def check(self) -> None:
        for vm in self.world.vms:
            assert vm.active == sum(v.active for v in vm.vcpus)
