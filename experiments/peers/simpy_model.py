"""The project's model written with SimPy: a yardstick for the compiled kernel.

The part of docs/model.md that `Storm` needs: one VM whose vCPUs take ticket locks, pause-loop exiting by `window`,
Xen's credit scheduler on one socket, and the rules `xen-4.5` and `xen-4.8`, which defer at every exit. Left out are
noise, neighbours, blocking, halting, the other locks and rules, and the accounts of where the cycles went. Nothing
wakes up here, so a pCPU is idle only when all queues are empty, and nobody is ever boosted, tickled or moved by a
tick. The rest is exact: it gives the integers of `tests/reference_simulator`. Numbers in parentheses are sections of
that page.

Each pCPU is a SimPy process that sleeps until its next event; a release interrupts the one that it concerns. Random
numbers are drawn before the run, so that a timed `run()` is events and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import simpy

from experiments.peers.work import HOST, draw_work, draws
from ple_gym.scenario import Scenario
from ple_gym.scenario.model import AS_IN_XEN

UNDER, OVER, IDLE = -1, -2, -64  # priorities
COMPUTE, SPIN, HOLD = range(3)  # phases
INF = 2**62
BYPASSES = {"xen-4.5": False, "xen-4.8": True}  # does a yield end the rate limit's protection?


@dataclass(eq=False, slots=True)
class Lock:
    holder: Vcpu | None = None
    waiters: list[Vcpu] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Vcpu:
    index: int
    pcpu: Pcpu  # where it runs, is queued or last ran
    last_pcpu: Pcpu | None = None
    priority: int = UNDER
    credit: int = 0
    yielding: bool = False
    active: bool = False
    done: bool = False
    phase: int = COMPUTE
    remaining: int = 0  # cycles of compute or hold
    cold: int = 0  # cycles of cache refill
    transaction: int = 0
    section: int = 0
    lock: Lock | None = None
    spin_from: int = 0
    ple_first: int = 0
    ple_last: int = -INF
    attempt_at: int = INF
    exit_at: int = INF


@dataclass(eq=False, slots=True)
class Pcpu:
    index: int
    current: Vcpu | None = None
    queue: list[Vcpu] = field(default_factory=list)
    last_vcpu: Vcpu | None = None
    settled: int = 0
    entry: int = 0  # when the hypervisor is done
    dispatched_at: int = 0
    burned_at: int = 0
    sort_seen: int = 0
    tick_at: int = INF
    slice_end: int = INF
    guest_at: int = INF
    process: simpy.Process | None = None


class At(simpy.Event):
    """Happens at a time; of those at the same time the lowest rank comes first (5)."""

    def __init__(self, env: simpy.Environment, time: int, rank: int) -> None:
        super().__init__(env)
        self._ok, self._value = True, None  # as in simpy.Timeout, which has no rank
        env.schedule(self, priority=simpy.events.NORMAL + rank, delay=time - env.now)


class SimpyModel:
    """One world, of index 0. After `run()`: `now` (the makespan if `finished`), `exits`, `acquisitions`, `events`, ...

    Raises:
        ValueError: the scenario has what is left out here.
    """

    def __init__(self, scenario: Scenario, seed: int, rule: str = "xen-4.8") -> None:
        host, guest = scenario.host, scenario.guest
        if (
            len(scenario.vms()) > 1 or scenario.noise.rate_hz or host.sockets > 1 or scenario.ple.kind != "window"
            or guest.lock_kind != "ticket" or guest.block_probability or guest.pv_spin_threshold
            or guest.spin_in_user_mode or not guest.transactions or rule not in BYPASSES
            or host.scheduler != "credit" or host.xen != "4.5" or host.placement != "spread" or guest.affinity != "any"
            or guest.threads or guest.program or guest.notify_after or guest.tick_us or guest.balloon
            or guest.response_goal_us
            or host.defer_preemption_us or host.micro_slice_us
            or scenario.decision.window != "host" or scenario.ple.window_grow
            or scenario.cost.exit_per_candidate or scenario.cost.yield_to
        ):  # fmt: skip
            raise ValueError(f"{scenario.name} under {rule}: there is more in it than in this model")
        self.env = simpy.Environment(0)
        self.guest, self.cost, self.ple = guest, scenario.cost, scenario.ple
        self.bypass, self.fresh = BYPASSES[rule], host.fresh_ratelimit_slice in (True, AS_IN_XEN)  # of Xen 4.5
        self.timeslice = host.timeslice_ms * host.tsc_hz // 1000
        self.tick_period = self.timeslice // 3 if host.timeslice_ms >= 3 else self.timeslice
        self.ratelimit = host.ratelimit_us * host.tsc_hz // 10**6
        self.limit = round(scenario.limit.simulated_s * host.tsc_hz)
        self.locks = [Lock() for _ in range(guest.locks)]
        self.pcpus = [Pcpu(p) for p in range(host.pcpus)]
        self.credit_pcpus = host.credit_pcpus or host.pcpus
        self.vcpus = [Vcpu(v, self.pcpus[v % host.pcpus]) for v in range(guest.vcpus)]
        self.compute, self.lock_of, self.hold = (draw.tolist() for draw in draw_work(scenario, seed))
        self.exits = self.acquisitions = self.contended = self.switches = self.events = 0
        self.completed = self.next_transaction = self.credit_balance = self.sort_epoch = self.now = 0
        self.finished = False
        self.start(seed)

    def run(self) -> None:
        """Run the world to its end."""
        while not self.finished:
            if self.env.peek() >= self.limit:
                self.now = self.limit
                return
            self.env.step()
        self.now = self.env.now

    def start(self, seed: int) -> None:
        """Time 0 (12)."""
        convoy, count = self.guest.start == "convoy", len(self.vcpus)
        for v in self.vcpus:
            if self.take_transaction(v) and convoy:
                self.lock_operation(v, self.locks[0])
            elif not v.done:
                self.begin_section(v)
        order = (draws(seed, HOST, np.arange(count)) >> 1).tolist()
        for v in sorted(self.vcpus, key=lambda v: count - v.index if convoy else order[v.index]):
            if not v.done:
                self.insert(v.pcpu, v)
        accounting, *phases = (int(x) for x in draws(seed, HOST, 2**20 + np.arange(1 + len(self.pcpus))))
        for p, x in zip(self.pcpus, phases, strict=True):
            self.schedule(p)
            p.tick_at = 1 + ((x >> 32) * self.tick_period >> 32)
            if p.current is not None:
                p.slice_end = 1 + ((x & 0xFFFFFFFF) * self.timeslice >> 32)
        self.env.process(self.account(1 + ((accounting >> 32) * self.timeslice >> 32)))
        for p in self.pcpus:
            p.process = self.env.process(self.serve(p))

    def serve(self, p: Pcpu) -> Iterator[simpy.Event]:
        """The events of a pCPU (5): the hypervisor is not preempted, so timers wait for the guest's entry."""
        while True:
            try:
                yield At(self.env, min(max(min(p.tick_at, p.slice_end), p.entry), p.guest_at), rank=1 + p.index)
            except simpy.Interrupt:
                continue
            self.events += 1
            t, v = self.env.now, p.current
            ran = max(0, t - max(p.settled, p.entry))  # (6)
            p.settled = t
            if v is not None and v.phase != SPIN:
                refill = min(v.cold, ran)
                v.cold -= refill
                v.remaining -= ran - refill
            if p.tick_at <= t:
                self.tick(p)
            elif p.slice_end <= t:
                self.schedule(p)
            else:
                self.guest_event(p)

    # Guest (7)

    def take_transaction(self, v: Vcpu) -> bool:
        v.transaction, v.section = self.next_transaction, 0
        self.next_transaction += 1
        v.done = v.transaction >= self.guest.transactions
        return not v.done

    def begin_section(self, v: Vcpu) -> None:
        v.phase, v.remaining = COMPUTE, self.compute[v.transaction][v.section]

    def next_section(self, v: Vcpu) -> None:
        v.section += 1
        if v.section == self.guest.sections:
            self.completed += 1
            self.finished = self.completed == self.guest.transactions
            if self.finished or not self.take_transaction(v):
                return
        self.begin_section(v)

    def guest_event(self, p: Pcpu) -> None:
        v = p.current
        if v.phase == SPIN and v.exit_at < v.attempt_at:  # pause-loop exit: defer to the host
            self.exits += 1
            v.yielding = True
            self.schedule(p, self.cost.exit)
            return
        if v.phase == SPIN:
            self.acquire(v)
        elif v.phase == HOLD:
            self.release(v)
        elif (lock := self.lock_of[v.transaction][v.section]) >= 0:
            if not self.lock_operation(v, self.locks[lock]):
                self.spin(v, self.env.now)
        else:  # a private lock
            self.acquisitions += 1
            self.next_section(v)
        if v.done:
            self.schedule(p)
        elif not self.finished:
            p.guest_at = self.next_guest_event(v, self.env.now)

    def next_guest_event(self, v: Vcpu, t: int) -> int:
        return min(v.attempt_at, v.exit_at) if v.phase == SPIN else t + v.cold + v.remaining

    def lock_operation(self, v: Vcpu, lock: Lock) -> bool:
        """Whether v has the lock at once; otherwise it waits in line."""
        v.lock = lock
        if lock.holder is None and not lock.waiters:
            self.acquire(v)
            return True
        lock.waiters.append(v)
        v.phase = SPIN
        return False

    def acquire(self, v: Vcpu) -> None:
        v.lock.holder = v
        self.acquisitions += 1
        if v.phase == SPIN:
            v.lock.waiters.pop(0)
            self.contended += 1
            period = self.guest.spin_period
            v.ple_last = v.spin_from + (self.env.now - v.spin_from) // period * period
        v.phase, v.remaining = HOLD, self.hold[v.transaction][v.section]

    def release(self, v: Vcpu) -> None:
        lock = v.lock
        lock.holder = None
        head = lock.waiters[0] if lock.waiters else None
        if head is not None and head.pcpu.current is head:
            head.attempt_at = max(self.env.now, head.pcpu.entry) + self.handover(lock)
            head.pcpu.guest_at = min(head.attempt_at, head.exit_at)
            head.pcpu.process.interrupt()
        self.next_section(v)

    def handover(self, lock: Lock) -> int:
        spinners = [p for p in self.pcpus if p.current and p.current.phase == SPIN and p.current.lock is lock]
        return self.cost.line * len(spinners)

    def spin(self, v: Vcpu, s: int) -> None:
        """A stretch of PAUSEs begins at s (7.3, 8.1)."""
        free = v.lock.holder is None and v.lock.waiters[0] is v
        v.spin_from, v.attempt_at, v.exit_at = s, s + self.handover(v.lock) if free else INF, INF
        begins_loop = s - v.ple_last > self.ple.gap
        if begins_loop:
            v.ple_first = s
        if (period := self.guest.spin_period) <= self.ple.gap:
            v.exit_at = s + max(begins_loop, (v.ple_first + self.ple.window - s) // period + 1) * period

    def enter(self, p: Pcpu) -> None:
        """VM entry: the PLE loop starts anew (7.5)."""
        v, e = p.current, max(self.env.now, p.entry)
        v.ple_last = -INF
        if v.phase == SPIN:
            self.spin(v, e)
        p.guest_at = self.next_guest_event(v, e)

    # Host (9)

    def insert(self, p: Pcpu, v: Vcpu) -> None:
        v.pcpu = p
        at = next((i for i, other in enumerate(p.queue) if other.priority < v.priority), len(p.queue))
        p.queue.insert(at + v.yielding, v)

    def burn(self, p: Pcpu) -> None:
        p.current.credit -= self.env.now - p.burned_at
        p.burned_at = self.env.now

    def schedule(self, p: Pcpu, exit_cost: int = 0) -> None:
        t, leaving = self.env.now, p.current
        p.entry = t + exit_cost
        if leaving is not None:
            self.burn(p)
            protected = t - p.dispatched_at < self.ratelimit and not (leaving.yielding and self.bypass)
            if protected and not leaving.done:
                p.slice_end = (t if self.fresh else p.dispatched_at) + self.ratelimit
                self.enter(p)
                return
            if not leaving.done:
                self.insert(p, leaving)
            leaving.yielding = False
        chosen = p.queue[0] if p.queue else None
        if chosen is None or chosen.priority == OVER:
            chosen = self.steal(p, chosen.priority if chosen else IDLE) or chosen
        if chosen is not None:
            chosen.pcpu.queue.remove(chosen)
            p.slice_end = t + self.timeslice
            if chosen is not leaving:
                self.switch(p, chosen)
            self.enter(p)
        else:
            p.current, p.slice_end, p.guest_at = None, INF, INF

    def switch(self, p: Pcpu, v: Vcpu) -> None:
        self.switches += 1
        moved = v.last_pcpu not in (p, None)
        if moved or p.last_vcpu is not v:
            v.cold = max(v.cold, self.cost.migration if moved else self.cost.cache)
        p.current = p.last_vcpu = v
        v.pcpu = v.last_pcpu = p
        p.dispatched_at = p.burned_at = self.env.now
        p.entry += self.cost.switch

    def steal(self, p: Pcpu, priority: int) -> Vcpu | None:
        heads = (q.queue[0] for q in self.pcpus if q is not p and q.current is not None and q.queue)
        return next((v for v in heads if v.priority > priority), None)

    def tick(self, p: Pcpu) -> None:
        p.tick_at += self.tick_period
        if p.current is not None:
            self.burn(p)
            p.current.active = True
        if p.sort_seen != self.sort_epoch:
            p.queue.sort(key=lambda v: v.priority == OVER)
            p.sort_seen = self.sort_epoch
        if p.current is not None:
            self.enter(p)

    def account(self, at: int) -> Iterator[simpy.Event]:
        """Credit of the one VM (9.8): what the machine gives, but no more than the active vCPUs can use."""
        while True:
            yield At(self.env, at, rank=0)
            self.events += 1
            at += self.timeslice
            active = [v for v in self.vcpus if v.active]
            given = min(self.credit_pcpus, len(active)) * self.timeslice + max(0, -self.credit_balance)
            for v in active:
                v.credit += -(-given // len(active))
                v.priority = OVER if v.credit < 0 else UNDER
                v.credit = max(v.credit, -self.timeslice)
                if v.credit > self.timeslice:
                    v.active = False
                    v.credit //= 2
            self.credit_balance = sum(v.credit for v in active)
            self.sort_epoch += bool(active)
