"""Interrupts from a vCPU to its siblings, and timer ticks: sending, handlers, acknowledgements (docs/model.md, 7.10).

Whoever has interrupts to serve is HANDLING, on a pCPU or not: its next work is the handler.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.calendar import find_next_wake, refresh, request
from ple_gym.sim.guest.held import holds_a_lock
from ple_gym.sim.guest.locks import aim
from ple_gym.sim.guest.threads import leave_off
from ple_gym.sim.guest.waits import waits_for
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, settle
from ple_gym.sim.pause_loop import loop_ends, loop_starts
from ple_gym.sim.state import (
    ACKS,
    ANSWERED,
    BENEATH,
    BLOCKED,
    DONE,
    HANDLING,
    HOLD,
    INF,
    INTERRUPTED,
    KERNEL,
    NO_TICK,
    NONE,
    QUEUED,
    RUNNING,
    SENDER_BITS,
    SPIN,
    TICK_PENDING,
    TICK_SERVED,
    TO_ALL,
    TO_RUNNING,
)

# --- the sender -------------------------------------------------------------------------------------------------------


@called
def send(s, v, count, bits, t):
    """v interrupts so many siblings, the drawn one and those behind it, and waits if anybody must answer."""
    vcpu, guest = s.vcpu[v], s.guest[v]
    vm = s.vmp[vcpu.vm]
    own, others = np.int64(v) - vm.first, vm.vcpus - 1
    skipped = (rng.low(bits) * others) >> 32
    for i in range(count):
        number = (own + 1 + (skipped + i) % others) % vm.vcpus
        w = np.uint32(vm.first + number)
        if receives(s, w, s.program[vcpu.vm].ipi_to):
            interrupt(s, v, w, t)
    if s.interrupts[v].missing > 0:
        guest.phase = ACKS
        guest.try_at = t
        guest.acquire_exits = 0
        note(s, t, INTERRUPTED, vcpu.pcpu, v, NONE)


@inlined
def receives(s, w, to):
    """Whether w is interrupted. Of who is DONE or sleeps no memory is in use [Linux: lazy TLB mode]."""
    vcpu = s.vcpu[w]
    if to == TO_RUNNING:
        return vcpu.state == RUNNING
    return vcpu.state != DONE and (to == TO_ALL or vcpu.state != BLOCKED or s.guest[w].halted != 0)


@inlined
def interrupt(s, v, w, t):
    """v interrupts w: at its next instruction it will serve that, or when it has served the one that it is at."""
    vcpu, world = s.vcpu[w], s.world[0]
    own = np.int64(v) - s.vmp[vcpu.vm].first
    s.unanswered[w, own // 64] |= np.int64(1) << (own % 64)
    s.interrupts[v].missing += 1
    world.ipis += 1
    world.ipi_events += vcpu.state != RUNNING
    if s.par[0].ipis_seen > 0:
        notice(s, own, w, t)
    if s.par[0].urgent and vcpu.state == QUEUED:
        request(s, vcpu.pcpu, t)
    if s.guest[w].phase >= 0:
        begin_handler(s, w, t, s.program[vcpu.vm].handler)


@inlined
def notice(s, sender, w, t):
    """The hypervisor sees that the VM's vCPU `sender` interrupts w."""
    seen = s.ipi[w]
    if seen.senders == 0:
        seen.pending_since = t
    seen.senders |= np.int64(1) << (sender % SENDER_BITS)


@called
def first_asleep(s, v):
    """The first behind v that it has interrupted and that sleeps, so must be woken; or NONE."""
    vm = s.vmp[s.vcpu[v].vm]
    own = np.int64(v) - vm.first
    for i in range(1, vm.vcpus):
        w = np.uint32(vm.first + (own + i) % vm.vcpus)
        if s.vcpu[w].state == BLOCKED and waits_for(s, v, w):
            return w
    return NONE


@called
def await_acks(s, p, v, at):
    """v, running on p, starts a spin stretch at time `at`, for its acknowledgements: when is its next event?"""
    guest = s.guest[v]
    guest.exit_at = loop_starts(s, v, at)
    guest.attempt_at = at + s.par[0].line if s.interrupts[v].missing == 0 else INF
    s.clock[p].guest_at = min(guest.attempt_at, guest.exit_at)


@called
def see_acks(s, v, t):
    """v has all of its acknowledgements: its wait ends."""
    loop_ends(s, v, t)
    s.guest[v].phase = HOLD if holds_a_lock(s, v) else KERNEL
    note(s, t, ANSWERED, s.vcpu[v].pcpu, v, NONE)


# --- the receiver -----------------------------------------------------------------------------------------------------


@called
def begin_handler(s, w, t, cycles):
    """w's next work is a handler that takes so long: if it runs, at once."""
    vcpu, guest, own = s.vcpu[w], s.guest[w], s.interrupts[w]
    begins = t
    if vcpu.state == RUNNING:
        settle(s, vcpu.pcpu, t)
        begins = max(t, s.pcpu[vcpu.pcpu].entry)
        if guest.phase >= SPIN:
            loop_ends(s, w, begins)
    elif vcpu.state == BLOCKED and guest.halted == 0:
        own.sleep_until = guest.wake_at
        guest.wake_at = INF
        find_next_wake(s)
    own.put_off = guest.remaining
    guest.remaining = cycles
    guest.phase |= HANDLING
    if vcpu.state == RUNNING:
        s.clock[vcpu.pcpu].guest_at = begins + guest.cold + guest.remaining
        refresh(s, vcpu.pcpu)


@called
def next_sender(s, v):
    """The first behind v that waits for it, or NONE."""
    vm = s.vmp[s.vcpu[v].vm]
    own = np.int64(v) - vm.first
    for i in range(1, vm.vcpus):
        u = np.uint32(vm.first + (own + i) % vm.vcpus)
        if waits_for(s, u, v):
            return u
    return NONE


@called
def end_handler(s, v, t):
    """v has served an interrupt: it acknowledges that one, and serves the next, or goes on with what it was at."""
    vcpu, guest, own = s.vcpu[v], s.guest[v], s.interrupts[v]
    if own.tick == TICK_SERVED:
        own.tick = NO_TICK
    else:
        answer(s, v, next_sender(s, v), t)
    if next_sender(s, v) != NONE:
        guest.remaining = s.program[vcpu.vm].handler
        return
    if s.par[0].ipis_seen > 0:
        seen = s.ipi[v]
        if s.par[0].urgent and seen.senders != 0 and s.pcpu[vcpu.pcpu].dispatched_at >= seen.pending_since:
            request(s, vcpu.pcpu, t)
        seen.senders = 0
    if own.tick == TICK_PENDING:
        own.tick = TICK_SERVED
        guest.remaining = s.program[vcpu.vm].tick_handler
        return
    guest.phase &= BENEATH
    guest.remaining = own.put_off
    if own.sleep_until > t:
        guest.wake_at = own.sleep_until
        s.world[0].next_wake = min(s.world[0].next_wake, guest.wake_at)
        leave_off(s, v, t, BLOCKED)
    own.sleep_until = 0


@inlined
def answer(s, v, u, t):
    """v acknowledges u's interrupt; if u spins for nothing else, it sees that as soon as the line has travelled."""
    number = np.int64(u) - s.vmp[s.vcpu[v].vm].first
    s.unanswered[v, number // 64] &= ~(np.int64(1) << (number % 64))
    s.interrupts[u].missing -= 1
    if s.interrupts[u].missing == 0 and s.vcpu[u].state == RUNNING and s.guest[u].phase == ACKS:
        s.guest[u].attempt_at = max(t, s.pcpu[s.vcpu[u].pcpu].entry) + s.par[0].line
        aim(s, u)


# --- timer ticks (7.11) -----------------------------------------------------------------------------------------------


@inlined
def next_tick(s, m, t):
    """When the first tick of VM m after t is due, INF if it has none; VMs tick one after another."""
    period = s.program[m].tick
    if period == 0:
        return INF
    first = np.int64(m) * period // s.par[0].vms
    return first + ((t - first) // period + 1) * period


@called
def tick(s, p, t):
    """The timer of p's guest interrupts it: at once, or when it has served the interrupt that it is at."""
    v = s.pcpu[p].current
    own = s.interrupts[v]
    own.timer_at = next_tick(s, s.vcpu[v].vm, t)
    if s.guest[v].phase < 0:
        own.tick += own.tick == NO_TICK
    else:
        own.tick = TICK_SERVED
        begin_handler(s, v, t, s.program[s.vcpu[v].vm].tick_handler)
