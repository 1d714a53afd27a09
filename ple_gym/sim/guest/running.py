"""A vCPU that runs: what it does next, and when (docs/model.md, section 7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.guest.held import let_go
from ple_gym.sim.guest.interrupts import await_acks, end_handler, see_acks
from ple_gym.sim.guest.locks import acquire, begin_spin, release, try_lock
from ple_gym.sim.guest.program import LOCK_DRAW, begin_section, next_section, work_draw
from ple_gym.sim.guest.steps import take_steps
from ple_gym.sim.jit import inlined
from ple_gym.sim.state import ACKS, HOLD, NONE, SPIN


@inlined
def run_on(s, p, v, at):
    """v goes on in its phase at time `at` on p: when is its next event?"""
    if s.guest[v].phase == SPIN:
        begin_spin(s, p, v, at)
    elif s.guest[v].phase == ACKS:
        await_acks(s, p, v, at)
    else:
        s.clock[p].guest_at = at + s.guest[v].cold + s.guest[v].remaining


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
def end_hold(s, v, t):
    """v gives its lock up and goes on. Returns the halted waiter that must be woken, or NONE."""
    let_go(s, v, 0)
    kicked = release(s, v, s.guest[v].lock, t)
    next_section(s, v, t)
    return kicked


@inlined
def begin_transaction(s, v, t):
    """v begins the transaction that it has taken."""
    if s.program[s.vcpu[v].vm].steps > 0:
        take_steps(s, v, t)  # the first one takes time
    else:
        begin_section(s, v, t)


@inlined
def work_ends(s, v, t):
    """v has computed, or handled, as long as it had to. Returns the halted waiter that must be woken, or NONE."""
    if s.guest[v].phase < 0:
        end_handler(s, v, t)
        return NONE
    if s.program[s.vcpu[v].vm].steps > 0:
        return take_steps(s, v, t)
    if s.guest[v].phase == HOLD:
        return end_hold(s, v, t)
    lock_operation(s, v, t)
    return NONE


@inlined
def spin_ends(s, v, t):
    """v gets what it has waited for: the lock, or all acknowledgements. Returns as `work_ends`."""
    if s.guest[v].phase == ACKS:
        see_acks(s, v, t)
    else:
        acquire(s, v, t)
    return next_steps(s, v, t)


@inlined
def next_steps(s, v, t):
    """v, whose step is done, goes on with the next one if its transaction has steps. Returns as `work_ends`."""
    if s.program[s.vcpu[v].vm].steps > 0:
        return take_steps(s, v, t)
    return NONE
