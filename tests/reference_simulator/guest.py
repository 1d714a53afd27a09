"""The guests: their work, locks and spinning, and their events (section 7)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from . import balloon, ple, threads
from .draws import high, low, sample
from .program import ENOUGH
from .state import INF, Lock, Mode, Node, Pcpu, Phase, State, Vcpu, Vm
from .threads import Place, Thread

if TYPE_CHECKING:
    from .world import World


class SpinEvent(IntEnum):
    """The events of a spin stretch, in the order they are served at equal times (7.3)."""

    ATTEMPT = 0
    HALT = 1  # or notify (8.5)
    EXIT = 2


class RunFinished(Exception):
    """The last VM has its finish: nothing more happens (section 12)."""


# 7.2: what tells one kind of lock from another. All of it is here.


def in_line(vm: Vm) -> bool:
    """Whether the waiters of the VM's locks stand in line."""
    return vm.lock_kind in ("ticket", "mcs", "preemptable-ticket", "pv")


def waits_in_line(v: Vcpu) -> bool:
    """Whether v, which waits, stands in line."""
    return in_line(v.vm) and not (v.vm.lock_kind == "pv" and v.node is Node.ASIDE)


def stand(v: Vcpu, lock: Lock) -> None:
    """v begins to wait, in line if there is one."""
    if v.vm.lock_kind == "pv":
        stand_pv(v, lock)
    elif in_line(v.vm):
        lock.waiters.append(v)


def asks(lock: Lock) -> bool:
    """7.7: whether there is a head that does not let others steal."""
    return bool(lock.waiters) and lock.waiters[0].node in (Node.ASKING, Node.KICKED)


def stand_pv(v: Vcpu, lock: Lock) -> None:
    """7.7: v lines up, unless it may steal."""
    if not lock.waiters:
        v.node = Node.ASKING
    elif asks(lock):
        v.node = Node.QUEUEING
    else:
        v.node = Node.ASIDE
        return
    lock.waiters.append(v)


def missing(v: Vcpu, lock: Lock) -> int:
    """7.8: so much longer must v, which waits in line, spin until it may take the free lock."""
    return max(0, lock.waiters.index(v) * v.vm.overtake - v.spun)


def may_take(v: Vcpu, lock: Lock) -> bool:
    """Whether v, a waiter or newly come, may take the free lock."""
    if v.vm.lock_kind == "pv" and v not in lock.waiters and not asks(lock):
        return True
    if v.vm.overtake and v in lock.waiters:
        return missing(v, lock) == 0
    return v.vm.lock_kind == "tas" or not lock.waiters or lock.waiters[0] is v


def may_lose(vm: Vm) -> bool:
    """Whether who was told of a free lock may find it taken."""
    return vm.lock_kind in ("tas", "preemptable-ticket", "pv")


def check_order(lock: Lock) -> None:
    if any(v.vm.lock_kind == "pv" for v in lock.waiters):
        assert not any(v.node is Node.ASIDE for v in lock.waiters)
        assert not any(v.node in (Node.ASKING, Node.KICKED) for v in lock.waiters[1:]), "only the head asks"
        return  # who stood aside came earlier
    tries = [v.try_at for v in lock.waiters]
    assert tries == sorted(tries), "FIFO"


class Guest:
    def __init__(self, world: World) -> None:
        self.world = world
        self.yields = False  # 15.14

    # 7.1 Work

    def take_transaction(self, v: Vcpu) -> bool:
        """The next transaction of the VM's pool; False if the pool is used up (v is then DONE)."""
        vm = v.vm
        v.transaction = vm.next_transaction
        v.section = v.step = v.executed = 0
        vm.next_transaction += 1
        if vm.transactions > 0 and v.transaction >= vm.transactions:
            self.respond(v.thread or v, None)
            if v.thread is None:
                v.state = State.DONE
            else:
                v.thread.place = Place.DONE
                threads.ends(v)
            return False
        return True

    def work_draw(self, v: Vcpu, j: int) -> int:
        return self.world.draws.work(v.vm.index, v.transaction, v.section, j)

    def begin_section(self, v: Vcpu) -> None:
        wait = self.draw_section(v)
        if wait > 0:
            self.block(v, wait)
            if v.vm.balloon:
                balloon.call_sibling(self.world, v)

    def draw_section(self, v: Vcpu) -> int:
        """The section's compute; returns how long it blocks first, or 0."""
        compute = self.work_draw(v, 0)
        v.remaining = max(1, sample(v.vm.compute, high(compute)))
        v.phase = Phase.KERNEL if low(compute) < v.vm.kernel_threshold else Phase.USER
        if low(self.work_draw(v, 2)) < v.vm.block_threshold:
            return max(1, sample(v.vm.block, high(self.work_draw(v, 3))))
        return 0

    def block(self, v: Vcpu, wait: int) -> None:
        self.respond(v.thread or v, self.world.now + wait)
        if v.thread is None:
            v.state = State.BLOCKED
            v.wake_at = self.world.now + wait
        else:
            v.thread.sleep_until(self.world.now + wait)
            threads.goes_to_sleep(v)

    def respond(self, h: Vcpu | Thread, until: int | None) -> None:
        """7.13: h begins to sleep, or has no work any more."""
        vm = h.vm if isinstance(h, Vcpu) else h.vcpu.vm
        if vm.goal_us == 0:
            return
        if h.asked_at is not None:
            assert h.asked_at <= self.world.now
            self.world.count.responses.append((self.world.now - h.asked_at, self.world.parameters.cycles(vm.goal_us)))
        h.asked_at = until

    def start_threads(self, vm: Vm) -> None:
        """7.6, the start: the threads that have no vCPU of their own; then each vCPU has its own."""
        vm.threads = [Thread(number, vm.vcpus[number % vm.vcpu_count]) for number in range(vm.thread_count)]
        for h in vm.threads:
            if 0 < vm.transactions <= h.number:
                h.place = Place.DONE
            elif h.number >= vm.vcpu_count:
                self.start_thread(h)
        for v, h in zip(vm.vcpus, vm.threads, strict=False):
            v.thread = h

    def start_thread(self, h: Thread) -> None:
        """h, which has no vCPU, begins; what is drawn is drawn on its vCPU, which has not begun yet."""
        v = h.vcpu
        v.thread, v.transaction, v.section = h, h.number, 0
        wait = self.draw_section(v)
        threads.keep(v)
        if wait > 0:
            self.respond(h, wait)
            h.sleep_until(wait)
        else:
            h.place = Place.READY
            v.vm.ready.append(h)

    def next_section(self, v: Vcpu) -> None:
        v.section += 1
        if v.section == v.vm.sections and not self.end_transaction(v):
            return
        self.begin_section(v)

    def end_transaction(self, v: Vcpu) -> bool:
        """The transaction is complete; whether there is another one for v."""
        vm = v.vm
        vm.completed += 1
        if vm.completed == vm.transactions:
            vm.finish = self.world.now
            if all(other.finish < INF for other in self.world.vms if other.transactions > 0):
                self.respond(v.thread or v, None)
                raise RunFinished
        if vm.balloon and balloon.goes_to_sleep(self.world, v):
            return False
        return self.take_transaction(v)

    def lock_operation(self, v: Vcpu) -> None:
        """The end of compute."""
        assert v.remaining == 0 and v.cold == 0
        lock = self.drawn_lock(v)
        if lock is None:
            self.world.count.acquisitions += 1
            self.next_section(v)
        else:
            self.try_lock(v, lock)

    def drawn_lock(self, v: Vcpu) -> Lock | None:
        """The shared lock of the section, None for a private one."""
        vm, x = v.vm, self.work_draw(v, 1)
        if not vm.locks:
            return None
        if high(x) < vm.hot_threshold:
            return vm.locks[0]
        if high(x) < vm.lock_threshold:
            return vm.locks[low(x) * len(vm.locks) >> 32]
        return None

    # 7.9 Programs

    def begin(self, v: Vcpu) -> None:
        """The transaction that v has taken begins."""
        if v.vm.steps:
            self.take_steps(v)
        else:
            self.begin_section(v)

    def take_steps(self, v: Vcpu) -> None:
        """Steps, until one takes time or v waits, sleeps or is DONE."""
        while True:
            if v.step == len(v.vm.steps):
                assert not v.held, "a transaction gives its locks back"
                if not self.end_transaction(v):
                    return
            step = v.vm.steps[v.step]
            x = self.world.draws.step(v.vm.index, v.transaction, v.executed)
            v.step += 1
            v.executed += 1
            if step.verb == "compute":
                v.remaining = max(1, sample(step.time, high(x)))
                v.phase = Phase.HOLD if v.held else Phase.KERNEL if low(x) < step.below else Phase.USER
                return
            if step.verb == "block":
                assert not v.held, "nobody sleeps with a lock"
                v.phase, v.remaining = Phase.USER, 0
                self.block(v, max(1, sample(step.time, high(x))))
                return
            if step.verb == "lock":
                number = step.locks[low(x) * len(step.locks) >> 32]
                assert all(number > lock.number for lock in v.held), "in ascending order"
                self.try_lock(v, v.vm.locks[number])
                if v.phase is Phase.SPIN:
                    return
            elif step.verb == "ipi":
                self.send(v, step.siblings, low(x))
                if v.phase is Phase.ACKS:
                    return
            elif step.verb == "unlock":
                sleeper = self.give_up(v, next(lock for lock in v.held if lock.number in step.locks))
                if sleeper is not None:
                    v.phase = Phase.HOLD if v.held else Phase.KERNEL
                    self.kick(v, sleeper)
                    if self.yields:
                        return
            elif low(x) < step.below and (step.target >= v.step or v.executed <= ENOUGH):
                v.step = step.target

    def compute_ends(self, v: Vcpu) -> None:
        assert v.remaining == 0 and v.cold == 0
        if v.vm.steps:
            self.take_steps(v)
        elif v.phase is Phase.HOLD:
            self.release(v)
        else:
            self.lock_operation(v)

    # 7.10 Interrupts

    def send(self, v: Vcpu, siblings: int | None, x: int) -> None:
        ring = v.ring()
        first = x * len(ring) >> 32
        for w in (ring[first:] + ring[:first])[:siblings]:
            asleep = w.state is State.BLOCKED and not w.halted
            left_out = {"all": False, "awake": asleep, "running": w.state is not State.RUNNING}[v.vm.ipi_to]
            if w.state is not State.DONE and not left_out:
                self.interrupt(v, w)
        if v.missing:
            v.phase, v.try_at, v.acquire_exits = Phase.ACKS, self.world.now, 0
            self.begin_spin(v, self.world.now)
            for w in ring:
                if v in w.unanswered and w.state is State.BLOCKED:
                    self.world.host.wake(w)

    def interrupt(self, v: Vcpu, w: Vcpu) -> None:
        t, count = self.world.now, self.world.count
        count.ipis += 1
        v.missing += 1
        if w.state is not State.RUNNING:
            count.ipi_events += 1
        if not w.unanswered:
            w.pending_since = t
        if not w.serves:
            self.begin_handler(w, w.vm.ipi_handler)
        w.unanswered.add(v)
        w.senders.add(v.number % 62)
        if self.world.parameters.urgent and w.state is State.QUEUED:
            self.world.host.request(w.pcpu)

    def begin_handler(self, w: Vcpu, cycles: int) -> None:
        """What w does next is to serve an interrupt."""
        w.handler = cycles
        if w.state is State.RUNNING:
            q = w.pcpu
            self.world.settle(q, self.world.now)
            begins = max(self.world.now, q.entry)
            if w.phase in (Phase.SPIN, Phase.ACKS):
                ple.stretch_ends(w, begins)
            q.guest_at = begins + w.cold + w.handler
        elif w.state is State.BLOCKED and not w.halted:
            w.sleep_until = w.wake_at

    def acknowledge(self, v: Vcpu) -> None:
        t = self.world.now
        u = next(u for u in v.ring() if u in v.unanswered)
        v.unanswered.remove(u)
        u.missing -= 1
        if u.missing == 0 and u.state is State.RUNNING and not u.serves:
            assert u.phase is Phase.ACKS
            u.attempt_at = max(t, u.pcpu.entry) + self.world.parameters.line
            u.pcpu.guest_at = self.spin_event(u)[0]

    def handler_ends(self, v: Vcpu) -> None:
        t = self.world.now
        assert v.handler == 0 and v.cold == 0
        if v.serves_tick:
            v.ticks = v.serves_tick = False
        else:
            self.acknowledge(v)
        if v.unanswered:
            v.handler = v.vm.ipi_handler
            return
        if self.world.parameters.urgent and v.senders and v.pcpu.dispatched_at >= v.pending_since:
            self.world.host.request(v.pcpu)
        v.senders.clear()
        if v.ticks:
            v.serves_tick, v.handler = True, v.vm.tick_handler
            return
        if v.sleep_until > t:
            v.state, v.wake_at = State.BLOCKED, v.sleep_until
        elif v.phase in (Phase.SPIN, Phase.ACKS):
            self.begin_spin(v, t)
        v.sleep_until = 0

    # 7.11 Timer ticks

    def next_tick(self, v: Vcpu) -> int:
        if v.vm.tick_us == 0:
            return INF
        period, now = self.world.parameters.cycles(v.vm.tick_us), self.world.now
        due = v.vm.index * period // len(self.world.vms)
        return due + (now - due) // period * period + period

    def tick(self, p: Pcpu) -> None:
        v = p.current
        assert v is not None and v.state is State.RUNNING
        v.timer_at = self.next_tick(v)
        if not v.serves:
            self.begin_handler(v, v.vm.tick_handler)
            v.serves_tick = True
        v.ticks = True

    def must_answer(self, v: Vcpu) -> Vcpu | None:
        """Of those whose acknowledgement v lacks the first that does not run, or else the first."""
        late = [w for w in v.ring() if v in w.unanswered]
        return next((w for w in late if w.state is not State.RUNNING), late[0] if late else None)

    # 7.2 Locks

    def try_lock(self, v: Vcpu, lock: Lock) -> None:
        if self.take_ticket(v, lock):
            self.acquire(v)
        else:
            self.begin_spin(v, self.world.now)

    def take_ticket(self, v: Vcpu, lock: Lock) -> bool:
        """The try itself: True if the lock is v's at once, otherwise v is a spinner from here on."""
        v.lock = lock
        v.try_at = self.world.now
        v.acquire_exits = 0
        v.spun = 0
        if self.available(v):
            return True
        stand(v, lock)
        v.phase = Phase.SPIN
        v.halt_left = v.vm.halt
        return False

    def acquire(self, v: Vcpu) -> None:
        t, count, lock = self.world.now, self.world.count, v.lock
        assert lock is not None and lock.holder is None, "one holder per lock"
        lock.holder = v
        count.acquisitions += 1
        if v.phase is Phase.SPIN:
            if v in lock.waiters:
                assert lock.waiters[0] is v or v.vm.overtake, "the head"
                lock.waiters.remove(v)
                v.node = Node.ASIDE
            else:
                assert may_lose(v.vm)
            ple.stretch_ends(v, t)
            count.contended += 1
            count.waits.append(t - v.try_at)
            count.exits_per_acquisition.append(v.acquire_exits)
        v.phase = Phase.HOLD
        v.held.append(lock)
        if not v.vm.steps:
            v.remaining = max(1, sample(v.vm.hold, high(self.work_draw(v, 2))))
        if v.vm.lock_kind == "pv" and lock.waiters and lock.waiters[0].state is State.RUNNING:
            self.ask(lock.waiters[0], lock)

    def available(self, v: Vcpu) -> bool:
        """Could v have its lock now?"""
        lock = v.lock
        assert lock is not None
        return lock.holder is None and may_take(v, lock)

    def release(self, v: Vcpu) -> None:
        assert v.lock is not None
        sleeper = self.give_up(v, v.lock)
        self.next_section(v)
        if sleeper is not None:
            self.kick(v, sleeper)

    def kick(self, v: Vcpu, sleeper: Vcpu) -> None:
        self.world.host.wake(sleeper)
        self.yields = v.state is State.RUNNING and self.world.host.kicked(v.pcpu, sleeper)

    def give_up(self, v: Vcpu, lock: Lock) -> Vcpu | None:
        """The lock is free for others; returns who must be woken for it."""
        assert lock.holder is v
        v.held.remove(lock)
        lock.holder = None
        sleeper = None
        if not in_line(v.vm):
            self.tell_spinners(lock, v.vm)
        elif lock.waiters:
            sleeper = self.tell_head(lock.waiters[0], lock)
            if v.vm.lock_kind == "pv" and not asks(lock):
                self.tell_spinners(lock, v.vm)
            if v.vm.overtake:
                self.tell_the_patient(lock, v.vm)
        return sleeper

    def tell_head(self, w: Vcpu, lock: Lock) -> Vcpu | None:
        """In line: the lock goes to the head, whether it runs or not; returns it if it must be woken."""
        if w.state is State.RUNNING:
            if not w.serves:
                w.attempt_at = max(self.world.now, w.pcpu.entry) + self.handover(lock, w.vm)
                w.pcpu.guest_at = self.spin_event(w)[0]
        else:
            assert w.state is State.QUEUED or w.halted
            self.world.count.lwp_events += 1
            if w.halted:
                return w
        return None

    def tell_the_patient(self, lock: Lock, vm: Vm) -> None:
        """7.8: who is not the head has to wait for its time."""
        t = self.world.now
        for p, w in self.running_spinners(lock):
            if w is not lock.waiters[0]:
                self.world.settle(p, t)
                w.attempt_at = max(t, p.entry) + missing(w, lock) + self.handover(lock, vm)
                p.guest_at = self.spin_event(w)[0]

    def tell_spinners(self, lock: Lock, vm: Vm) -> None:
        """No line: every running spinner sees the free lock at its next look."""
        t, line, g = self.world.now, self.world.parameters.line, vm.spin_period
        for p, w in self.running_spinners(lock):
            if w in lock.waiters:
                continue
            if p.entry > t:
                w.attempt_at = p.entry + line
            else:
                w.attempt_at = w.spin_from + (t - w.spin_from + g - 1) // g * g + line
            p.guest_at = self.spin_event(w)[0]

    def running_spinners(self, lock: Lock) -> list[tuple[Pcpu, Vcpu]]:
        return [
            (p, p.current)
            for p in self.world.pcpus
            if p.current is not None
            and p.mode is Mode.GUEST
            and p.current.phase is Phase.SPIN
            and not p.current.serves
            and p.current.lock is lock
        ]

    def handover(self, lock: Lock, vm: Vm) -> int:
        line = self.world.parameters.line
        return line * len(self.running_spinners(lock)) if "ticket" in vm.lock_kind else line

    # 7.3 Spinning

    def begin_spin(self, v: Vcpu, s: int) -> None:
        """A spin stretch starts at s."""
        if v.phase is Phase.ACKS:
            v.spin_from, v.halt_at = s, INF
            v.attempt_at = s + self.world.parameters.line if v.missing == 0 else INF
            ple.stretch_begins(self.world.parameters, v, s)
            return
        assert v.lock is not None
        if v.vm.lock_kind == "pv":
            self.goes_on(v, v.lock)
        v.spin_from = s
        v.attempt_at = s + self.handover(v.lock, v.vm) if self.available(v) else INF
        if v.vm.overtake and v.lock.holder is None:
            v.attempt_at = s + missing(v, v.lock) + self.handover(v.lock, v.vm)
        self.arm_halt(v, s)
        ple.stretch_begins(self.world.parameters, v, s)

    def arm_halt(self, v: Vcpu, t: int) -> None:
        """When v's patience ends, if it spins on from t and is told of no free lock."""
        v.halt_at = t + self.patience(v) if v.vm.halt > 0 and v.node is not Node.KICKED else INF

    def patience(self, v: Vcpu) -> int:
        """Cycles of spinning that are left to v until it halts."""
        assert v.lock is not None
        if v.vm.lock_kind == "pv":
            if v not in v.lock.waiters:
                return INF
            place = v.lock.waiters.index(v)
            before = v.lock.waiters[place - 1]
            if place > 0 and (before.node is Node.PARKED or before.away):
                return v.halt_left % (256 * v.vm.spin_period)
        return max(0, v.halt_left)

    # 7.7 Locks that can be stolen

    def goes_on(self, v: Vcpu, lock: Lock) -> None:
        """A waiter begins a spin stretch."""
        if v.node is Node.ASIDE:
            stand_pv(v, lock)
            v.halt_left = v.vm.halt
        elif v is lock.waiters[0]:
            self.ask(v, lock)

    def ask(self, v: Vcpu, lock: Lock) -> None:
        """The head, which runs, does not let others steal from now on."""
        if asks(lock):
            return
        v.node = Node.KICKED if v.node is Node.PARKED else Node.ASKING
        self.world.settle(v.pcpu, self.world.now)
        v.halt_left = v.vm.halt
        self.rearm(v)
        if len(lock.waiters) > 1:
            self.rearm(lock.waiters[1])
        for _, w in self.running_spinners(lock):
            if w not in lock.waiters:
                stand_pv(w, lock)
                self.world.settle(w.pcpu, self.world.now)
                w.halt_left = w.vm.halt
                w.attempt_at = INF
                self.rearm(w)

    def note_away(self, v: Vcpu, away: bool) -> None:
        """v has left its pCPU, or runs again."""
        if v.vm.early_wait and v.lock is not None and v in v.lock.waiters:
            v.away = away
            for w in v.lock.waiters[v.lock.waiters.index(v) + 1 :][:1]:
                self.rearm(w)

    def rearm(self, w: Vcpu) -> None:
        """What ends w's patience has changed."""
        if w.state is State.RUNNING:
            self.world.settle(w.pcpu, self.world.now)
            self.arm_halt(w, max(self.world.now, w.pcpu.entry))
            w.pcpu.guest_at = self.spin_event(w)[0]

    def spin_event(self, v: Vcpu) -> tuple[int, SpinEvent]:
        """The next event of the spin stretch."""
        due, what = v.attempt_at, SpinEvent.ATTEMPT
        if v.halt_at < due == INF:
            due, what = v.halt_at, SpinEvent.HALT
        return (v.exit_at, SpinEvent.EXIT) if v.exit_at < due else (due, what)

    def attempt(self, v: Vcpu) -> None:
        if v.phase is Phase.ACKS:
            assert v.missing == 0
            ple.stretch_ends(v, self.world.now)
            v.phase = Phase.HOLD if v.held else Phase.KERNEL
            self.take_steps(v)
        elif self.available(v):
            self.acquire(v)
            if v.vm.steps:
                self.take_steps(v)
        else:
            assert may_lose(v.vm)
            v.attempt_at = INF
            self.arm_halt(v, self.world.now)

    def halt(self, v: Vcpu) -> None:
        assert self.patience(v) == 0 and not self.available(v)
        v.state = State.BLOCKED
        v.wake_at = INF
        v.halted = True
        if v.vm.lock_kind == "pv":
            assert v.lock is not None
            v.node = Node.PARKED
            behind = v.lock.waiters[v.lock.waiters.index(v) + 1 :]
            if behind:
                self.rearm(behind[0])
        self.world.count.halts += 1

    # 7.4 The guest's event

    def event(self, p: Pcpu) -> None:
        v = p.current
        assert v is not None and v.state is State.RUNNING
        self.yields = False
        if v.serves:
            self.handler_ends(v)
        elif v.phase in (Phase.SPIN, Phase.ACKS):
            due, what = self.spin_event(v)
            assert due == self.world.now
            if what is SpinEvent.EXIT:
                self.world.spin_exit(p, v)
                return
            elif what is SpinEvent.HALT and v.vm.notifies:
                v.halt_left = v.vm.halt
                self.world.count.notifications += 1
                self.world.spin_exit(p, v, notified=True)
                return
            elif what is SpinEvent.ATTEMPT:
                self.attempt(v)
            else:
                self.halt(v)
        else:
            self.compute_ends(v)
        if self.yields:
            self.world.host.schedule(p, for_kick=True)
        elif v.state is State.RUNNING and p.deferred_until > 0 and self.world.host.is_safe(p):
            self.world.host.schedule(p)
        elif v.state is State.RUNNING:
            p.guest_at = self.next_event(v, self.world.now)
        else:
            self.world.host.schedule(p)

    def next_event(self, v: Vcpu, t: int) -> int:
        """`guest_at` of a vCPU that goes on at t."""
        if v.serves:
            return t + v.cold + v.handler
        return self.spin_event(v)[0] if v.phase in (Phase.SPIN, Phase.ACKS) else t + v.cold + v.remaining

    # 7.5 VM entry

    def enter(self, p: Pcpu) -> None:
        v = p.current
        assert v is not None and p.mode is Mode.GUEST and v.state is State.RUNNING and v.pcpu is p
        e = max(self.world.now, p.entry)
        v.ple_last = -INF
        v.ple_used = 0
        if v.phase in (Phase.SPIN, Phase.ACKS) and not v.serves:
            self.begin_spin(v, e)
        p.guest_at = self.next_event(v, e)
