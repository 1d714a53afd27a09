"""The guests: their work, locks and spinning, and their events (section 7)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from . import ple, threads
from .draws import high, low, sample
from .program import ENOUGH
from .state import INF, Lock, Mode, Pcpu, Phase, State, Vcpu, Vm
from .threads import Place, Thread

if TYPE_CHECKING:
    from .world import World


class SpinEvent(IntEnum):
    """The events of a spin stretch, in the order they are served at equal times (7.3)."""

    ATTEMPT = 0
    HALT = 1
    EXIT = 2


class RunFinished(Exception):
    """The last VM has its finish: nothing more happens (section 12)."""


# 7.2: what tells one kind of lock from another. All of it is here.


def in_line(vm: Vm) -> bool:
    """Whether the waiters of the VM's locks stand in line."""
    return vm.lock_kind in ("ticket", "mcs")


def stand(v: Vcpu, lock: Lock) -> None:
    """v begins to wait, in line if there is one."""
    if in_line(v.vm):
        lock.waiters.append(v)


def may_take(v: Vcpu, lock: Lock) -> bool:
    """Whether v, a waiter or newly come, may take the free lock."""
    return v.vm.lock_kind == "tas" or not lock.waiters or lock.waiters[0] is v


def may_lose(vm: Vm) -> bool:
    """Whether who was told of a free lock may find it taken."""
    return vm.lock_kind == "tas"


def check_order(lock: Lock) -> None:
    tries = [v.try_at for v in lock.waiters]
    assert tries == sorted(tries), "FIFO"


class Guest:
    def __init__(self, world: World) -> None:
        self.world = world

    # 7.1 Work

    def take_transaction(self, v: Vcpu) -> bool:
        """The next transaction of the VM's pool; False if the pool is used up (v is then DONE)."""
        vm = v.vm
        v.transaction = vm.next_transaction
        v.section = v.step = v.executed = 0
        vm.next_transaction += 1
        if vm.transactions > 0 and v.transaction >= vm.transactions:
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

    def draw_section(self, v: Vcpu) -> int:
        """The section's compute; returns how long it blocks first, or 0."""
        compute = self.work_draw(v, 0)
        v.remaining = max(1, sample(v.vm.compute, high(compute)))
        v.phase = Phase.KERNEL if low(compute) < v.vm.kernel_threshold else Phase.USER
        if low(self.work_draw(v, 2)) < v.vm.block_threshold:
            return max(1, sample(v.vm.block, high(self.work_draw(v, 3))))
        return 0

    def block(self, v: Vcpu, wait: int) -> None:
        if v.thread is None:
            v.state = State.BLOCKED
            v.wake_at = self.world.now + wait
        else:
            v.thread.sleep_until(self.world.now + wait)
            threads.goes_to_sleep(v)

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
                raise RunFinished
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

    # 7.7 Programs

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
                v.phase, v.remaining, v.state = Phase.USER, 0, State.BLOCKED
                v.wake_at = self.world.now + max(1, sample(step.time, high(x)))
                return
            if step.verb == "lock":
                number = step.locks[low(x) * len(step.locks) >> 32]
                assert all(number > lock.number for lock in v.held), "in ascending order"
                self.try_lock(v, v.vm.locks[number])
                if v.phase is Phase.SPIN:
                    return
            elif step.verb == "unlock":
                self.give_up(v, next(lock for lock in v.held if lock.number in step.locks))
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
            if in_line(v.vm):
                assert lock.waiters[0] is v, "the head"
                lock.waiters.pop(0)
            ple.stretch_ends(v, t)
            count.contended += 1
            count.waits.append(t - v.try_at)
            count.exits_per_acquisition.append(v.acquire_exits)
        v.phase = Phase.HOLD
        v.held.append(lock)
        if not v.vm.steps:
            v.remaining = max(1, sample(v.vm.hold, high(self.work_draw(v, 2))))

    def available(self, v: Vcpu) -> bool:
        """Could v have its lock now?"""
        lock = v.lock
        assert lock is not None
        return lock.holder is None and may_take(v, lock)

    def release(self, v: Vcpu) -> None:
        assert v.lock is not None
        self.give_up(v, v.lock)
        self.next_section(v)

    def give_up(self, v: Vcpu, lock: Lock) -> None:
        assert lock.holder is v
        v.held.remove(lock)
        lock.holder = None
        if not in_line(v.vm):
            self.tell_spinners(lock, v.vm)
        elif lock.waiters:
            self.tell_head(lock.waiters[0], lock)

    def tell_head(self, w: Vcpu, lock: Lock) -> None:
        """In line: the lock goes to the head, whether it runs or not."""
        if w.state is State.RUNNING:
            w.attempt_at = max(self.world.now, w.pcpu.entry) + self.handover(lock, w.vm)
            w.pcpu.guest_at = self.spin_event(w)[0]
        else:
            assert w.state is State.QUEUED or w.halted
            self.world.count.lwp_events += 1
            if w.halted:
                self.world.host.wake(w)

    def tell_spinners(self, lock: Lock, vm: Vm) -> None:
        """No line: every running spinner sees the free lock at its next look."""
        t, line, g = self.world.now, self.world.parameters.line, vm.spin_period
        for p, w in self.running_spinners(lock):
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
            and p.current.lock is lock
        ]

    def handover(self, lock: Lock, vm: Vm) -> int:
        line = self.world.parameters.line
        return line * len(self.running_spinners(lock)) if vm.lock_kind == "ticket" else line

    # 7.3 Spinning

    def begin_spin(self, v: Vcpu, s: int) -> None:
        """A spin stretch starts at s."""
        assert v.lock is not None
        v.spin_from = s
        v.attempt_at = s + self.handover(v.lock, v.vm) if self.available(v) else INF
        v.halt_at = s + v.halt_left if v.vm.halt > 0 else INF
        ple.stretch_begins(self.world.parameters, v, s)

    def spin_event(self, v: Vcpu) -> tuple[int, SpinEvent]:
        """The next event of the spin stretch."""
        return min(
            (v.attempt_at, SpinEvent.ATTEMPT),
            (INF if self.available(v) else v.halt_at, SpinEvent.HALT),
            (v.exit_at, SpinEvent.EXIT),
        )

    def attempt(self, v: Vcpu) -> None:
        if self.available(v):
            self.acquire(v)
            if v.vm.steps:
                self.take_steps(v)
        else:
            assert may_lose(v.vm)
            v.attempt_at = INF

    def halt(self, v: Vcpu) -> None:
        assert v.halt_left == 0
        v.state = State.BLOCKED
        v.wake_at = INF
        v.halted = True
        self.world.count.halts += 1

    # 7.4 The guest's event

    def event(self, p: Pcpu) -> None:
        v = p.current
        assert v is not None and v.state is State.RUNNING
        if v.phase is Phase.SPIN:
            due, what = self.spin_event(v)
            assert due == self.world.now
            if what is SpinEvent.EXIT:
                self.world.pause_loop_exit(p, v)
                return
            elif what is SpinEvent.ATTEMPT:
                self.attempt(v)
            else:
                self.halt(v)
        else:
            self.compute_ends(v)
        if v.state is State.RUNNING and p.deferred_until > 0 and v.phase is Phase.USER:
            self.world.host.schedule(p)
        elif v.state is State.RUNNING:
            p.guest_at = self.next_event(v, self.world.now)
        else:
            self.world.host.schedule(p)

    def next_event(self, v: Vcpu, t: int) -> int:
        """`guest_at` of a vCPU that goes on at t."""
        return self.spin_event(v)[0] if v.phase is Phase.SPIN else t + v.cold + v.remaining

    # 7.5 VM entry

    def enter(self, p: Pcpu) -> None:
        v = p.current
        assert v is not None and p.mode is Mode.GUEST and v.state is State.RUNNING and v.pcpu is p
        e = max(self.world.now, p.entry)
        v.ple_last = -INF
        v.ple_used = 0
        if v.phase is Phase.SPIN:
            self.begin_spin(v, e)
        p.guest_at = self.next_event(v, e)
