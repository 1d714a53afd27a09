"""Spinlocks: taking one, spinning for it, giving it up (docs/model.md, section 7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import refresh
from ple_gym.sim.guest.held import hold
from ple_gym.sim.guest.program import hold_time
from ple_gym.sim.guest.waits import available, depart, in_line, join
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, record_value
from ple_gym.sim.pause_loop import loop_ends, loop_starts
from ple_gym.sim.state import ACQUIRE_EXITS, ACQUIRED, HOLD, INF, NONE, QUEUED, RELEASED, RUNNING, SPIN, TRIED, WAITS


@inlined
def spins_on(s, p, lock):
    """Whether pCPU p's current vCPU spins on this lock."""
    v = s.pcpu[p].current
    return v != NONE and s.guest[v].phase == SPIN and s.guest[v].lock == lock and s.vcpu[v].state == RUNNING


@inlined
def handover(s, lock):
    """Cycles until a running waiter sees that the lock is its own.

    Where all waiters read one cache line (ticket locks) it travels to each of them; else (MCS) each has its own.
    """
    cost = s.par[0].line
    if s.program[s.lock[lock].vm].shared_line:
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
        depart(s, v)
        wait = t - guest.try_at
        world.contended += 1
        world.wait_max = max(world.wait_max, wait)
        world.acquire_exits_max = max(world.acquire_exits_max, guest.acquire_exits)
        record_value(s, WAITS, wait)
        record_value(s, ACQUIRE_EXITS, guest.acquire_exits)
    lock.holder = v
    world.acquisitions += 1
    guest.phase = HOLD
    program = s.program[s.vcpu[v].vm]
    if program.steps > 0:
        hold(s, v, s.step[program.first_step + np.int64(guest.step) - 1].place)
    else:
        hold(s, v, 0)
        guest.remaining = max(1, hold_time(s, v))
    note(s, t, ACQUIRED, where(s, v), v, guest.lock)


@inlined
def try_lock(s, v, lock, t):
    """v's attempt to take a shared lock: at once if it is v's to take, else v waits."""
    guest = s.guest[v]
    guest.lock = lock
    guest.try_at = t
    guest.acquire_exits = 0
    note(s, t, TRIED, where(s, v), v, lock)
    if available(s, v):
        acquire(s, v, t)
    else:
        join(s, v)


@inlined
def release(s, v, number, t):
    """v gives a lock up. Returns the halted waiter that must be woken, or NONE."""
    lock = s.lock[number]
    lock.holder = NONE
    note(s, t, RELEASED, s.vcpu[v].pcpu, v, number)
    kicked = NONE
    if not in_line(s, lock.vm):
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
