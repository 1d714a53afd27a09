"""The guest's program: transactions, sections, and the draws that they are made of (docs/model.md, section 7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.jit import inlined
from ple_gym.sim.metrics import note
from ple_gym.sim.sampling import sample
from ple_gym.sim.state import BLOCKED, DONE, KERNEL, NONE, SLEPT, USER

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
        s.guest[v].step = 0
        s.guest[v].executed = 0


@inlined
def begin_section(s, v, t):
    """Draw the section's compute time; it may have to wait for something first."""
    program = s.program[s.vcpu[v].vm]
    guest = s.guest[v]
    bits = work_draw(s, v, COMPUTE_DRAW)
    guest.remaining = max(1, sample(s.tables, program.compute, rng.high(bits)))
    guest.phase = KERNEL if rng.low(bits) < program.kernel_below else USER
    if program.block_below > 0 and rng.low(work_draw(s, v, HOLD_DRAW)) < program.block_below:
        sleep(s, v, t, sample(s.tables, program.block, rng.high(work_draw(s, v, BLOCK_DRAW))))


@inlined
def sleep(s, v, t, cycles):
    """v sleeps for so long, for a cycle at least."""
    guest = s.guest[v]
    guest.wake_at = t + max(1, cycles)
    s.vcpu[v].state = BLOCKED
    s.world[0].next_wake = min(s.world[0].next_wake, guest.wake_at)
    note(s, t, SLEPT, s.vcpu[v].pcpu, v, NONE)


@inlined
def end_transaction(s, v, t):
    """v has ended a transaction: it takes the next one; DONE if there is none."""
    m = s.vcpu[v].vm
    s.vm[m].completed += 1
    if s.vm[m].completed == s.program[m].transactions:
        s.vm[m].finish = t
        s.world[0].finished_vms += 1
    take_transaction(s, v, t)


@inlined
def next_section(s, v, t):
    """v has ended a section: go on with the next one, or with the next transaction."""
    guest = s.guest[v]
    guest.section += 1
    if guest.section == s.program[s.vcpu[v].vm].sections:
        end_transaction(s, v, t)
        if s.vcpu[v].state == DONE:
            return
    begin_section(s, v, t)


@inlined
def hold_time(s, v):
    """How long v holds its lock in its current section, cycles."""
    return sample(s.tables, s.program[s.vcpu[v].vm].hold, rng.high(work_draw(s, v, HOLD_DRAW)))
