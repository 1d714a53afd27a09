"""The guest: transactions, sections, spinlocks (docs/model.md, section 7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.calendar import refresh
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, record_value
from ple_gym.sim.pause_loop import loop_ends, loop_starts
from ple_gym.sim.sampling import sample
from ple_gym.sim.state import (
    ACQUIRE_EXITS,
    ACQUIRED,
    BLOCKED,
    DONE,
    HOLD,
    INF,
    KERNEL,
    NONE,
    QUEUED,
    RELEASED,
    RUNNING,
    SLEPT,
    SPIN,
    TAS,
    TICKET,
    TRIED,
    USER,
    WAITS,
)

COMPUTE_DRAW, LOCK_DRAW, HOLD_DRAW, BLOCK_DRAW = np.arange(4)  # high bits: how long, which; low bits: mode, lock, block


@inlined
def work_draw(s, v, j):
    """Random bits number j of v's current section: a function of the transaction, not of who runs it or when."""
    guest = s.guest[v]
    return rng.draw(s.vm[s.vcpu[v].vm].work_key, (guest.transaction * 64 + guest.section) * 4 + j)


@inlined
def take_transaction(s, v, t):
    """Take the next transaction of the VM's pool; DONE if there is none."""
    m = s.vcpu[v].vm
    n = s.vm[m].next_transaction
    if 0 < s.program[m].transactions <= n:
        s.vcpu[v].state = DONE
        note(s, t, SLEPT, s.vcpu[v].pcpu, v, NONE)
    else:
        s.vm[m].next_transaction = n + 1
        s.guest[v].transaction = n
        s.guest[v].section = 0


@inlined
def begin_section(s, v, t):
    """Draw the section's compute time; it may have to wait for something first."""
    program = s.program[s.vcpu[v].vm]
    guest = s.guest[v]
    bits = work_draw(s, v, COMPUTE_DRAW)
    guest.remaining = max(1, sample(s.tables, program.compute, rng.high(bits)))
    guest.phase = KERNEL if rng.low(bits) < program.kernel_below else USER
    if program.block_below > 0 and rng.low(work_draw(s, v, HOLD_DRAW)) < program.block_below:
        guest.wake_at = t + max(1, sample(s.tables, program.block, rng.high(work_draw(s, v, BLOCK_DRAW))))
        s.vcpu[v].state = BLOCKED
        s.world[0].next_wake = min(s.world[0].next_wake, guest.wake_at)
        note(s, t, SLEPT, s.vcpu[v].pcpu, v, NONE)


@inlined
def next_section(s, v, t):
    """v has ended a section: go on with the next one, or with the next transaction."""
    m = s.vcpu[v].vm
    guest = s.guest[v]
    guest.section += 1
    if guest.section == s.program[m].sections:
        s.vm[m].completed += 1
        if s.vm[m].completed == s.program[m].transactions:
            s.vm[m].finish = t
            s.world[0].finished_vms += 1
        take_transaction(s, v, t)
        if s.vcpu[v].state == DONE:
            return
    begin_section(s, v, t)


@inlined
def available(s, v):
    """Whether the lock that v waits for is v's to take."""
    lock = s.lock[s.guest[v].lock]
    return lock.holder == NONE and (s.program[lock.vm].lock_kind == TAS or lock.head == v)


@inlined
def spins_on(s, p, lock):
    """Whether pCPU p's current vCPU spins on this lock."""
    v = s.pcpu[p].current
    return v != NONE and s.guest[v].phase == SPIN and s.guest[v].lock == lock and s.vcpu[v].state == RUNNING


@inlined
def handover(s, lock):
    """Cycles until a running waiter sees that the lock is its own.

    All waiters of a ticket lock read one cache line, which travels to each of them; an MCS waiter has its own.
    """
    cost = s.par[0].line
    if s.program[s.lock[lock].vm].lock_kind == TICKET:
        readers = 0
        for i in range(s.par[0].pcpus):
            if spins_on(s, np.uint32(i), lock):
                readers += 1
        cost *= readers
    return cost


@called
def begin_spin(s, p, v, at):
    """v, running on p, starts a spin stretch at time `at` (section 7.3): when is its next event?"""
    guest = s.guest[v]
    guest.exit_at = loop_starts(s, v, at)
    guest.attempt_at = INF
    event = guest.exit_at
    if available(s, v):
        guest.attempt_at = at + handover(s, guest.lock)
        event = min(event, guest.attempt_at)
    elif s.program[s.vcpu[v].vm].halt > 0:
        event = min(event, at + guest.halt_left)
    s.clock[p].guest_at = event


@inlined
def run_on(s, p, v, at):
    """v goes on in its phase at time `at` on p: when is its next event?"""
    if s.guest[v].phase == SPIN:
        begin_spin(s, p, v, at)
    else:
        s.clock[p].guest_at = at + s.guest[v].cold + s.guest[v].remaining


@inlined
def where(s, v):
    """The pCPU that v is on, or NONE: a convoy is in line, and one of it holds the lock, before anybody runs."""
    return s.vcpu[v].pcpu if s.vcpu[v].state == RUNNING else NONE


@inlined
def acquire(s, v, t):
    """v takes the lock; if it had to spin, its wait ends here."""
    guest = s.guest[v]
    world = s.world[0]
    lock = s.lock[guest.lock]
    if guest.phase == SPIN:
        loop_ends(s, v, t)
        if s.program[lock.vm].lock_kind != TAS:
            lock.head = guest.next_waiter
            if lock.head == NONE:
                lock.tail = NONE
        wait = t - guest.try_at
        world.contended += 1
        world.wait_max = max(world.wait_max, wait)
        world.acquire_exits_max = max(world.acquire_exits_max, guest.acquire_exits)
        record_value(s, WAITS, wait)
        record_value(s, ACQUIRE_EXITS, guest.acquire_exits)
    lock.holder = v
    world.acquisitions += 1
    guest.phase = HOLD
    guest.remaining = max(1, sample(s.tables, s.program[lock.vm].hold, rng.high(work_draw(s, v, HOLD_DRAW))))
    note(s, t, ACQUIRED, where(s, v), v, guest.lock)


@inlined
def wait_in_line(s, v):
    """v joins the waiters of its lock and spins."""
    guest = s.guest[v]
    lock = s.lock[guest.lock]
    guest.phase = SPIN
    guest.halt_left = s.program[lock.vm].halt
    if s.program[lock.vm].lock_kind != TAS:
        guest.next_waiter = NONE
        if lock.tail == NONE:
            lock.head = v
        else:
            s.guest[lock.tail].next_waiter = v
        lock.tail = v


@inlined
def try_lock(s, v, lock, t):
    """v's attempt to take a shared lock: at once if it is free and nobody waits, else in line."""
    guest = s.guest[v]
    guest.lock = lock
    guest.try_at = t
    guest.acquire_exits = 0
    note(s, t, TRIED, where(s, v), v, lock)
    if s.lock[lock].holder == NONE and s.lock[lock].head == NONE:
        acquire(s, v, t)
    else:
        wait_in_line(s, v)


@inlined
def lock_operation(s, v, t):
    """The end of a section's compute: a shared lock, or a private one that nobody contends for."""
    program = s.program[s.vcpu[v].vm]
    bits = work_draw(s, v, LOCK_DRAW)
    x = rng.high(bits)
    if program.locks == 0 or x >= program.lock_below:
        s.world[0].acquisitions += 1
        next_section(s, v, t)
    elif x < program.hot_below:
        try_lock(s, v, np.uint32(program.first_lock), t)
    else:
        try_lock(s, v, np.uint32(program.first_lock + ((rng.low(bits) * program.locks) >> 32)), t)


@inlined
def release(s, v, t):
    """v gives its lock up. Returns the halted waiter that must be woken, or NONE."""
    number = s.guest[v].lock
    lock = s.lock[number]
    lock.holder = NONE
    note(s, t, RELEASED, s.vcpu[v].pcpu, v, number)
    kicked = NONE
    if s.program[lock.vm].lock_kind == TAS:
        pollers_try(s, number, t)
    elif lock.head != NONE:
        w = lock.head
        if s.vcpu[w].state == RUNNING:
            s.guest[w].attempt_at = max(t, s.pcpu[s.vcpu[w].pcpu].entry) + handover(s, number)
            aim(s, w)
        else:
            s.world[0].lwp_events += 1  # the next in line is not running: lock-waiter preemption
            if s.vcpu[w].state != QUEUED:
                kicked = w
    next_section(s, v, t)
    return kicked


@inlined
def aim(s, w):
    """A running spinner has been given something to attempt: its next event is that or its PLE exit (no halt)."""
    p = s.vcpu[w].pcpu
    s.clock[p].guest_at = min(s.guest[w].attempt_at, s.guest[w].exit_at)
    refresh(s, p)


@inlined
def pollers_try(s, lock, t):
    """A test-and-set lock became free: each running spinner tries at its next poll."""
    for i in range(s.par[0].pcpus):
        q = np.uint32(i)
        if spins_on(s, q, lock):
            w = s.pcpu[q].current
            guest = s.guest[w]
            if s.pcpu[q].entry > t:
                poll = s.pcpu[q].entry
            else:
                period = s.program[s.vcpu[w].vm].spin_period
                poll = guest.spin_from + (t - guest.spin_from + period - 1) // period * period
            guest.attempt_at = poll + s.par[0].line
            aim(s, w)
