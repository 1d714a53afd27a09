"""The guest's program: transactions, sections, and the draws that they are made of (docs/model.md, section 7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.guest.balloon import call_sibling, goes_to_sleep
from ple_gym.sim.guest.threads import no_more_work, sleep_until
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.sampling import sample
from ple_gym.sim.state import BLOCKED, INF, KERNEL, USER

COMPUTE_DRAW, LOCK_DRAW, HOLD_DRAW, BLOCK_DRAW = np.arange(4)  # high bits: how long, which; low bits: mode, lock, block


@inlined
def work_draw(s, v, j):
    """Random bits number j of v's current section: a function of the transaction, not of who runs it or when."""
    guest = s.guest[v]
    return rng.draw(s.vm[s.vcpu[v].vm].work_key, (guest.transaction * 64 + guest.section) * 4 + j)


@inlined
def take_transaction(s, v, t):
    """Take the next transaction of the VM's pool. Returns whether there was one."""
    m = s.vcpu[v].vm
    n = s.vm[m].next_transaction
    if 0 < s.program[m].transactions <= n:
        no_more_work(s, v, t)
        return False
    s.vm[m].next_transaction = n + 1
    s.guest[v].transaction = n
    s.guest[v].section = 0
    s.guest[v].step = 0
    s.guest[v].executed = 0
    return True


@inlined
def draw_section(s, v):
    """Draw the section's compute time. Returns how long it must wait for something first, or 0."""
    program = s.program[s.vcpu[v].vm]
    guest = s.guest[v]
    bits = work_draw(s, v, COMPUTE_DRAW)
    guest.remaining = max(1, sample(s.tables, program.compute, rng.high(bits)))
    guest.phase = KERNEL if rng.low(bits) < program.kernel_below else USER
    if program.block_below > 0 and rng.low(work_draw(s, v, HOLD_DRAW)) < program.block_below:
        return max(1, sample(s.tables, program.block, rng.high(work_draw(s, v, BLOCK_DRAW))))
    return np.int64(0)


@inlined
def begin_section(s, v, t):
    """v's thread begins a section, or waits for something first."""
    wait = draw_section(s, v)
    if wait > 0:
        sleep_until(s, v, t, t + wait)
        if s.program[s.vcpu[v].vm].balloon:
            call_sibling(s, v, t)


@inlined
def end_transaction(s, v, t):
    """v has ended a transaction and takes the next one. Returns whether there was one for it."""
    m = s.vcpu[v].vm
    s.vm[m].completed += 1
    if s.vm[m].completed == s.program[m].transactions:
        s.vm[m].finish = t
        s.world[0].finished_vms += 1
    if s.program[m].balloon and goes_to_sleep(s, v, t):
        return False
    return take_transaction(s, v, t)


@called
def thaw(s, v, t):
    """v, which was beyond its VM's share, takes a transaction again. Returns whether it can run."""
    s.guest[v].frozen = 0
    s.guest[v].wake_at = INF
    if take_transaction(s, v, t):
        begin_section(s, v, t)
    return s.vcpu[v].state == BLOCKED and s.guest[v].wake_at == INF


@inlined
def next_section(s, v, t):
    """v has ended a section: go on with the next one, or with the next transaction."""
    guest = s.guest[v]
    guest.section += 1
    if guest.section == s.program[s.vcpu[v].vm].sections and not end_transaction(s, v, t):
        return
    begin_section(s, v, t)


@inlined
def hold_time(s, v):
    """How long v holds its lock in its current section, cycles."""
    return sample(s.tables, s.program[s.vcpu[v].vm].hold, rng.high(work_draw(s, v, HOLD_DRAW)))
