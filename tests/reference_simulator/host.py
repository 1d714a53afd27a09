"""The host: Xen's credit scheduler and host noise (section 9)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .draws import NOISE, UNIT, high, low, sample, table
from .state import (
    BOOST,
    IDLE_PRIORITY,
    INF,
    OVER,
    UNDER,
    LeftBy,
    Mode,
    NoiseState,
    Pcpu,
    Phase,
    State,
    Vcpu,
    Vm,
)

if TYPE_CHECKING:
    from .world import World


def ceil_div(a: int, b: int) -> int:
    assert a >= 0 and b > 0
    return (a + b - 1) // b


def next_after(x: int, pcpus: Iterable[Pcpu]) -> Pcpu:
    """The next cyclically after x: the first of x + 1, x + 2, ..., wrapping, ending with x itself (9.7)."""
    ascending = sorted(pcpus, key=lambda p: p.index)
    return next((p for p in ascending if p.index > x), ascending[0])


class Host:
    def __init__(self, world: World) -> None:
        self.world = world
        self.mean_gap = 0

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

    # 9.2 Leaving the pCPU

    def leave(self, p: Pcpu, why: LeftBy) -> None:
        t, count, v = self.world.now, self.world.count, p.current
        assert v is not None
        involuntary = why in (LeftBy.PREEMPTED, LeftBy.PLE)
        v.left_by = why
        v.left_kernel = involuntary and v.phase is not Phase.USER
        v.left_at = t
        v.last_run = t - p.dispatched_at
        if p.dispatch_exits > 0:
            count.exits_per_dispatch.append(p.dispatch_exits)
            p.dispatch_exits = 0
        if v.phase is Phase.HOLD and involuntary:
            count.lhp_events += 1
        if v.phase is Phase.SPIN and v.vm.fifo and self.world.guest.available(v):
            count.lwp_events += 1

    # 9.3 Burn

    def burn(self, p: Pcpu) -> None:
        assert p.current is not None
        p.current.credit -= self.world.now - p.burned_at
        p.burned_at = self.world.now

    # 9.4 schedule

    def schedule(self, p: Pcpu, for_exit: bool = False) -> None:
        t, parameters = self.world.now, self.world.parameters
        hv = parameters.exit if for_exit else 0
        if p.noise_state is NoiseState.RUNNING:  # 1
            return
        cur = p.current  # 2
        stays = False
        why = LeftBy.PREEMPTED
        if cur is not None:
            self.burn(p)
            stays = cur.state is State.RUNNING and not cur.migrating
            if for_exit:
                why = LeftBy.PLE
            elif cur.state in (State.BLOCKED, State.DONE):
                why = LeftBy.BLOCKED
        if cur is not None and stays and self.rate_limited(p, cur):  # 3
            p.slice_end = (t if parameters.fresh else p.dispatched_at) + parameters.R
            p.entry = t + hv
            self.world.guest.enter(p)
            return
        if cur is not None:
            if stays:  # 4
                self.insert(p, cur)
            cur.yielding = False  # 5
        if p.noise_state is NoiseState.PENDING:  # 6
            if cur is not None:
                self.leave(p, why)
            self.begin_burst(p, hv)
        else:  # 7
            chosen = self.choose(p)
            if chosen is not None and chosen is cur:
                cur.state = State.RUNNING
                p.slice_end = t + parameters.T
                p.entry = t + hv
                self.world.guest.enter(p)
                return
            if cur is not None:
                self.leave(p, why)
            self.switch(p, chosen, hv)
        if cur is not None and cur.migrating:  # 8
            self.migrate(cur)

    def rate_limited(self, p: Pcpu, cur: Vcpu) -> bool:
        limit = self.world.parameters.R
        if limit == 0 or self.world.now - p.dispatched_at >= limit:
            return False
        return not (cur.yielding and self.world.bypass)

    def choose(self, p: Pcpu) -> Vcpu | None:
        """The next vCPU, taken out of its queue."""
        chosen = p.queue[0] if p.queue else None
        if chosen is None or chosen.priority == OVER:
            chosen = self.steal(p, IDLE_PRIORITY if chosen is None else chosen.priority) or chosen
        if chosen is not None:
            chosen.pcpu.queue.remove(chosen)
        return chosen

    def switch(self, p: Pcpu, chosen: Vcpu | None, hv: int) -> None:
        t, parameters, count = self.world.now, self.world.parameters, self.world.count
        p.exit_until = t + hv
        p.current = chosen
        if chosen is None:
            p.mode = Mode.IDLE
            p.slice_end = p.guest_at = INF
            p.entry = t + hv
            return
        count.switches += 1
        if chosen.last_pcpu is p and p.last_vcpu is chosen:
            refill = 0
        elif chosen.last_pcpu is p or chosen.last_pcpu is None:
            refill = parameters.cache
        else:
            count.migrations += 1
            same_socket = chosen.last_pcpu.socket == p.socket
            refill = parameters.migration if same_socket else parameters.remote_migration
        chosen.cold = max(chosen.cold, refill)
        p.last_vcpu = chosen
        chosen.last_pcpu = chosen.pcpu = p
        p.mode = Mode.GUEST
        chosen.state = State.RUNNING
        chosen.dy_eligible = False  # section 11
        p.dispatched_at = p.burned_at = t
        p.slice_end = t + parameters.T
        p.entry = t + hv + parameters.switch
        self.world.guest.enter(p)

    def steal(self, p: Pcpu, priority: int) -> Vcpu | None:
        sockets = self.world.parameters.sockets
        for distance in range(sockets):
            for q in self.world.pcpus:
                if q.socket != (p.socket + distance) % sockets or q is p or q.mode is Mode.IDLE:
                    continue
                if q.queue and q.queue[0].priority > priority:  # the scan stops at the head or takes it
                    self.world.count.steals += 1
                    return q.queue[0]
        return None

    # 9.5 Tick

    def tick(self, p: Pcpu) -> None:
        world, v = self.world, p.current
        p.tick_at += world.parameters.K
        if v is not None:
            if v.priority == BOOST:
                v.priority = UNDER
            self.burn(p)
            if not v.active:
                v.active = True
                v.vm.active += 1
            elif self.pick(p)[0] is not p:
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

    def wake(self, v: Vcpu) -> None:
        assert v.state is State.BLOCKED
        v.wake_at = INF
        if v.halted:
            v.halted = False
            v.halt_left = v.vm.halt
        if v.priority == UNDER:
            v.priority = BOOST
        self.insert(v.pcpu, v)
        self.tickle(v.pcpu, v)

    def priority_at(self, q: Pcpu) -> int:
        if q.mode is Mode.IDLE:
            return IDLE_PRIORITY
        if q.mode is Mode.NOISE:
            return BOOST
        assert q.current is not None
        return q.current.priority

    def tickle(self, q: Pcpu, v: Vcpu) -> None:
        idle = [p for p in self.world.pcpus if p.mode is Mode.IDLE]
        if q.mode is Mode.IDLE or (not idle and v.priority > self.priority_at(q)):
            self.request(q)
        elif idle:
            found = next_after(q.last_tickle, idle)
            q.last_tickle = found.index
            self.request(found)

    def request(self, p: Pcpu) -> None:
        p.resched_at = min(p.resched_at, self.world.now + self.world.parameters.ipi)

    # 9.7 pick and migrate

    def pick(self, p: Pcpu) -> tuple[Pcpu, Pcpu | None]:
        """The best pCPU for the vCPU of p, and the last `nxt` remembered on the way."""
        idlers = [q for q in self.world.pcpus if q.mode is Mode.IDLE or (q is p and not q.queue)]
        cpus = set(idlers)
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
        best, remembered = self.pick(v.pcpu)
        if remembered is not None:
            remembered.idle_bias = best.index
        v.migrating = False
        if v.priority == UNDER:
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

    # 9.9 Host noise

    def start_noise_clock(self) -> None:
        """At time 0: the level of the run and the gap of every pCPU's burst 0."""
        world, parameters = self.world, self.world.parameters
        if parameters.noise_rate_hz == 0:
            return
        level = max(1, sample(table(parameters.noise_level), high(world.draws.draw(NOISE, 0))))
        self.mean_gap = max(
            parameters.f // parameters.noise_rate_hz * 1000 // level,
            parameters.burst * (1000 - parameters.noise_cap) // parameters.noise_cap,
        )
        for p in world.pcpus:
            p.noise_at = self.gap(p)

    def gap(self, p: Pcpu) -> int:
        x = self.world.draws.draw(NOISE, 1 + (p.noise_count * 64 + p.index))
        return max(1, sample(UNIT, high(x)) * self.mean_gap >> 16)

    def length(self, p: Pcpu) -> int:
        x = self.world.draws.draw(NOISE, 1 + (p.noise_count * 64 + p.index))
        return max(1, sample(UNIT, low(x)) * self.world.parameters.burst >> 16)

    def noise(self, p: Pcpu) -> None:
        """`noise_at` is due."""
        t, limit = self.world.now, self.world.parameters.R
        if p.noise_state is NoiseState.RUNNING:
            p.noise_state = NoiseState.WAITING
            p.noise_count += 1
            p.noise_at = t + self.gap(p)
            p.mode = Mode.IDLE
            self.schedule(p)
        elif (
            p.noise_state is NoiseState.WAITING and p.current is not None and limit > 0 and t - p.dispatched_at < limit
        ):
            p.noise_state = NoiseState.PENDING
            p.noise_at = p.dispatched_at + limit
            self.world.guest.enter(p)  # 7.5: every host event that leaves the vCPU running
        else:
            cur = p.current
            if cur is not None:
                self.burn(p)
                self.leave(p, LeftBy.PREEMPTED)
                self.insert(p, cur)
                cur.yielding = False
            self.begin_burst(p, 0)

    def begin_burst(self, p: Pcpu, hv: int) -> None:
        """The burst takes p, whose vCPU has left."""
        t = self.world.now
        p.mode = Mode.NOISE
        p.current = None
        p.noise_state = NoiseState.RUNNING
        p.noise_at = t + self.length(p)
        p.slice_end = p.guest_at = INF
        p.exit_until = p.entry = t + hv
