"""Transactions that are tables of steps (docs/model.md, section 7.9).

A program that comes here has been looked through (`scenario/program.py`): it ends, and what is held before each of its
steps is known.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.guest.held import held_at, let_go
from ple_gym.sim.guest.interrupts import first_asleep, send
from ple_gym.sim.guest.locks import release, try_lock
from ple_gym.sim.guest.program import end_transaction
from ple_gym.sim.guest.threads import sleep_until
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.sampling import sample
from ple_gym.sim.state import (
    ACKS,
    BLOCK,
    COMPUTE,
    HOLD,
    KERNEL,
    LAST_BACK,
    MOST_STEPS,
    NONE,
    SEND,
    SPIN,
    TAKE,
    UNLOCK,
    USER,
)


@inlined
def step_draw(s, v):
    """Random bits of v's next step: a function of the transaction and of how many steps of it came before."""
    guest = s.guest[v]
    return rng.draw(s.vm[s.vcpu[v].vm].work_key, guest.transaction * MOST_STEPS + np.int64(guest.executed))


@called
def take_steps(s, v, t):
    """Execute v's steps until one takes time, or v waits, sleeps or is DONE.

    Returns who sleeps and must be woken before v goes on, or NONE.
    """
    program = s.program[s.vcpu[v].vm]
    guest = s.guest[v]
    if guest.phase == ACKS:
        return first_asleep(s, v)
    while True:
        if guest.step == program.steps and not end_transaction(s, v, t):
            return NONE
        bits = step_draw(s, v)
        step = s.step[program.first_step + np.int64(guest.step)]
        guest.step += 1
        guest.executed += 1
        if step.kind == COMPUTE:
            guest.remaining = max(1, sample(s.tables, step.table, rng.high(bits)))
            guest.phase = KERNEL if rng.low(bits) < step.below else USER
            if guest.held != 0:
                guest.phase = HOLD
            return NONE
        if step.kind == BLOCK:
            guest.remaining = 0
            guest.phase = USER
            sleep_until(s, v, t, t + max(1, sample(s.tables, step.table, rng.high(bits))))
            return NONE
        if step.kind == TAKE:
            number = step.first + ((rng.low(bits) * step.count) >> 32)
            try_lock(s, v, np.uint32(program.first_lock + number), t)
            if guest.phase == SPIN:
                return NONE
        elif step.kind == UNLOCK:
            lock = np.uint32(held_at(s, v, step.place))
            let_go(s, v, step.place)
            kicked = release(s, v, lock, t)
            if kicked != NONE:
                guest.phase = HOLD if guest.held != 0 else KERNEL
                return kicked
        elif step.kind == SEND:
            send(s, v, step.count, bits, t)
            if guest.phase == ACKS:
                return first_asleep(s, v)
        elif rng.low(bits) < step.below and (step.target >= guest.step or guest.executed <= LAST_BACK):
            guest.step = step.target
