"""Spinlocks: taking one, spinning for it, giving it up (docs/model.md, section 7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import refresh
from ple_gym.sim.constants import ASIDE, ASKING, KICKED, PARKED, QUEUEING
from ple_gym.sim.guest.held import hold
from ple_gym.sim.guest.program import hold_time
from ple_gym.sim.guest.waits import available, depart, in_line, join, waits_in_line
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, record_value, settle
from ple_gym.sim.pause_loop import loop_ends, loop_starts
from ple_gym.sim.state import ACQUIRE_EXITS, ACQUIRED, HOLD, INF, NONE, QUEUED, RELEASED, RUNNING, SPIN, TRIED, WAITS

LOOK = 256  # PAUSEs from look to look at whether the one ahead has halted [Linux: PV_PREV_CHECK_MASK + 1]


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


@inlined
def until_halt(s, v):
    """Cycles of spinning until v's patience ends; INF if it does not. Behind one that has halted: until it looks."""
    guest = s.guest[v]
    program = s.program[s.vcpu[v].vm]
    left = max(np.int64(0), guest.halt_left)
    if program.stolen:
        if guest.node == ASIDE or guest.node == KICKED:
            return INF
        if guest.node == QUEUEING and (s.guest[guest.ahead].node == PARKED or s.guest[guest.ahead].away != 0):
            return left % (LOOK * program.spin_period)
    return left


@inlined
def begin_spin(s, p, v, at):
    """v, running on p, starts a spin stretch at time `at` (section 7.3): when is its next event?"""
    guest = s.guest[v]
    if s.program[s.vcpu[v].vm].stolen:
        come_back(s, v, s.world[0].now)
    guest.exit_at = loop_starts(s, v, at)
    guest.attempt_at = INF
    event = guest.exit_at
    if available(s, v):
        guest.attempt_at = at + handover(s, guest.lock)
        event = min(event, guest.attempt_at)
    elif s.program[s.vcpu[v].vm].overtake > 0 and s.lock[guest.lock].holder == NONE:
        guest.attempt_at = at + until_patient(s, v) + handover(s, guest.lock)
        event = min(event, guest.attempt_at)
    elif s.program[s.vcpu[v].vm].halt > 0:
        event = min(event, at + until_halt(s, v))
    s.clock[p].guest_at = event


@inlined
def lose_attempt(s, p, v, t):
    """v, which was told of a free lock, has found it taken at time t: it spins on."""
    guest = s.guest[v]
    guest.attempt_at = INF
    event = guest.exit_at
    if s.program[s.vcpu[v].vm].halt > 0:
        event = min(event, t + until_halt(s, v))
    s.clock[p].guest_at = event


@inlined
def out_of_patience(s, v, t):
    """Whether v, whose spin has an end at time t that is no attempt, halts or notifies: that comes before its exit."""
    guest = s.guest[v]
    halts = s.program[s.vcpu[v].vm].halt > 0 and guest.attempt_at == INF and until_halt(s, v) == 0
    return guest.exit_at > t or (halts and guest.phase == SPIN)


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
    if s.program[lock.vm].stolen:
        promote(s, lock.head, t)
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
            if s.guest[w].phase == SPIN:  # else it serves an interrupt, and looks at the lock after that
                s.guest[w].attempt_at = max(t, s.pcpu[s.vcpu[w].pcpu].entry) + handover(s, number)
                aim(s, w)
        else:
            s.world[0].lwp_events += 1  # the next in line is not running: lock-waiter preemption
            if s.vcpu[w].state != QUEUED:
                kicked = w
            if s.program[lock.vm].stolen and s.guest[w].node < ASKING:
                pollers_try(s, number, t)
        if s.program[lock.vm].overtake > 0:
            others_try(s, number, t)
    return kicked


@inlined
def aim(s, w):
    """A running spinner has been given something to attempt: its next event is that or its PLE exit (no halt)."""
    p = s.vcpu[w].pcpu
    s.clock[p].guest_at = min(s.guest[w].attempt_at, s.guest[w].exit_at)
    refresh(s, p)


@inlined
def pollers_try(s, lock, t):
    """A lock became free: each running spinner that stands in no line tries at its next poll."""
    for i in range(s.par[0].pcpus):
        q = np.uint32(i)
        if spins_on(s, q, lock) and not waits_in_line(s, s.pcpu[q].current):
            w = s.pcpu[q].current
            guest = s.guest[w]
            if s.pcpu[q].entry > t:
                poll = s.pcpu[q].entry
            else:
                period = s.program[s.vcpu[w].vm].spin_period
                poll = guest.spin_from + (t - guest.spin_from + period - 1) // period * period
            guest.attempt_at = poll + s.par[0].line
            aim(s, w)


# --- locks that can be stolen: PV queued spinlocks (7.7) --------------------------------------------------------------


@inlined
def spins_otherwise(s, w, t):
    """When w, which spins on and is told of no free lock, stops has changed: its next event."""
    q = s.vcpu[w].pcpu
    event = s.guest[w].exit_at
    if s.program[s.vcpu[w].vm].halt > 0:
        event = min(event, max(t, s.pcpu[q].entry) + until_halt(s, w))
    s.clock[q].guest_at = event
    refresh(s, q)


@inlined
def tell_behind(s, v, t):
    """v has halted, or goes on: that changes how long the one behind it spins."""
    w = s.guest[v].next_waiter
    if w != NONE and s.vcpu[w].state == RUNNING:
        settle(s, s.vcpu[w].pcpu, t)
        spins_otherwise(s, w, t)


@called
def note_away(s, v, t, away):
    """v, which stands in line, has left its pCPU, or runs again: that changes how long the one behind it spins."""
    s.guest[v].away = away
    tell_behind(s, v, t)


@inlined
def line_up(s, lock, t):
    """The head has set the pending bit: who spins aside stands in line from now on."""
    for i in range(s.par[0].pcpus):
        q = np.uint32(i)
        if spins_on(s, q, lock) and s.guest[s.pcpu[q].current].node == ASIDE:
            settle(s, q, t)
            w = s.pcpu[q].current
            join(s, w)
            s.guest[w].attempt_at = INF
            spins_otherwise(s, w, t)


@called
def come_back(s, v, t):
    """v, a waiter, goes on: as head it sets the pending bit; from aside it lines up if it may not steal any more."""
    guest = s.guest[v]
    lock = s.lock[guest.lock]
    if guest.node == ASIDE:
        join(s, v)
    elif lock.head == v and guest.node < ASKING:
        guest.node = KICKED if guest.node == PARKED else ASKING
        guest.halt_left = s.program[lock.vm].halt
        tell_behind(s, v, t)
        line_up(s, guest.lock, t)


@called
def promote(s, w, t):
    """w is the head now, if it is anybody: if it runs, it sets the pending bit."""
    if w != NONE and s.vcpu[w].state == RUNNING and s.guest[w].node == QUEUEING:
        settle(s, s.vcpu[w].pcpu, t)
        come_back(s, w, t)
        spins_otherwise(s, w, t)


@called
def park(s, v, t):
    """v halts: the one behind it will halt at its next look."""
    s.guest[v].node = PARKED
    tell_behind(s, v, t)


# --- locks whose waiters may overtake: preemptable ticket spinlocks (7.8) ---------------------------------------------


@called
def until_patient(s, v):
    """Cycles of spinning until v, which is in line, may take the free lock out of order; its account is up to date."""
    lock = s.lock[s.guest[v].lock]
    due, w = np.int64(0), lock.head
    while w != v:
        due += s.program[lock.vm].overtake
        w = s.guest[w].next_waiter
    return max(np.int64(0), due + s.guest[v].halt_left)


@called
def others_try(s, number, t):
    """The lock became free: each running spinner but the head tries when it has been patient for long enough."""
    cost = handover(s, number)
    for i in range(s.par[0].pcpus):
        q = np.uint32(i)
        if spins_on(s, q, number) and s.pcpu[q].current != s.lock[number].head:
            settle(s, q, t)
            w = s.pcpu[q].current
            s.guest[w].attempt_at = max(t, s.pcpu[q].entry) + until_patient(s, w) + cost
            aim(s, w)
