"""What happens on a pCPU whatever its scheduler: entries, exits, context switches, host noise (docs/model.md, 9)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import refresh_host
from ple_gym.sim.guest.held import holds_a_lock
from ple_gym.sim.guest.interrupts import next_sender, next_tick
from ple_gym.sim.guest.locks import note_away
from ple_gym.sim.guest.running import run_on
from ple_gym.sim.guest.waits import available, waits_in_line
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, settle
from ple_gym.sim.pause_loop import shrink_window, suspected_spinner
from ple_gym.sim.rng import draw, high, low
from ple_gym.sim.sampling import UNIT, sample
from ple_gym.sim.state import (
    BLOCKED,
    BURSTING,
    BY_EXIT,
    BY_TIMER,
    DISPATCH_EXITS,
    DONE,
    FOR_ALL,
    FOR_ANSWERS,
    GUEST,
    HINT_IGNORED,
    HINT_WON,
    IDLE,
    INF,
    NOISE,
    NOISE_BEGAN,
    NOISE_ENDED,
    NONE,
    PENDING,
    PLE_YIELD,
    POLLING,
    PREEMPTED,
    RAN,
    RUNNING,
    STOPPED,
    USER,
    WAITING,
    WENT_TO_SLEEP,
    WOKE,
)

EXACT_DISPATCH_EXITS = 1023  # exits per dispatch are counted one by one below this


@inlined
def socket(s, p):
    """Socket of pCPU p (int64)."""
    return np.int64(p) * s.par[0].sockets // s.par[0].pcpus


@inlined
def enter(s, p, t):
    """VM entry of p's vCPU: every entry restarts the processor's PAUSE loop detection (7.5)."""
    v = s.pcpu[p].current
    s.guest[v].ple_last = -INF
    s.guest[v].ple_used = 0
    run_on(s, p, v, max(t, s.pcpu[p].entry))


@inlined
def leave(s, p, v, t, why):
    """Note that v leaves pCPU p, why, and what that does to whoever waits for it (9.2)."""
    pcpu = s.pcpu[p]
    vcpu = s.vcpu[v]
    world = s.world[0]
    phase = s.guest[v].phase
    asleep = why == WENT_TO_SLEEP
    vcpu.left_by = why
    vcpu.left_kernel = not asleep and phase != USER
    vcpu.left_at = t
    vcpu.last_run = t - pcpu.dispatched_at
    pcpu.deferred_until = 0
    if pcpu.dispatch_exits > 0:
        world.dispatch_exits_max = max(world.dispatch_exits_max, pcpu.dispatch_exits)
        s.histogram[DISPATCH_EXITS, min(EXACT_DISPATCH_EXITS, pcpu.dispatch_exits)] += 1
        pcpu.dispatch_exits = 0
    if holds_a_lock(s, v) and not asleep:
        world.lhp_events += 1
    if waits_in_line(s, v):
        world.lwp_events += available(s, v)
        if s.program[vcpu.vm].early_wait:
            note_away(s, v, t, True)
    if phase < 0 and next_sender(s, v) != NONE:
        world.ipi_events += 1
    note(s, t, STOPPED, p, v, NONE)


@inlined
def run(s, p, v, t, handler, stays):
    """p runs v from now on, after `handler` cycles of a PLE exit: v `stays` there, or a context switch comes first.

    v may be NONE: p idles.
    """
    pcpu = s.pcpu[p]
    pcpu.exit_until = t + handler
    pcpu.entry = t + handler
    if v == NONE:
        pcpu.mode = IDLE
        pcpu.current = NONE
        pcpu.slice_end = INF
        s.clock[p].guest_at = INF
    else:
        if not stays:
            switch(s, p, v, t)
        enter(s, p, t)
    if not stays:
        s.host.switched(s, p, t)


@inlined
def switch(s, p, v, t):
    """The context switch to v on p, and what v will need to fill its caches again."""
    pcpu = s.pcpu[p]
    par = s.par[0]
    vcpu = s.vcpu[v]
    world = s.world[0]
    world.switches += 1
    if vcpu.last_pcpu == p:
        refill = np.int64(0) if pcpu.last_vcpu == v else par.cache
    elif vcpu.last_pcpu == NONE:
        refill = par.cache
    else:
        world.migrations += 1
        refill = par.migration if socket(s, vcpu.last_pcpu) == socket(s, p) else par.remote_migration
    s.guest[v].cold = max(s.guest[v].cold, refill)
    pcpu.mode = GUEST
    pcpu.current = v
    pcpu.last_vcpu = v
    pcpu.dispatched_at = t
    pcpu.slice_end = s.host.set_next(s, p, v, t)
    if par.micro_slice > 0 and is_critical(s, v):
        pcpu.slice_end = min(pcpu.slice_end, t + par.micro_slice)
    pcpu.entry += par.switch
    vm = s.vm[vcpu.vm]
    if t - vcpu.queued_since > vm.longest_steal:
        vm.longest_steal = t - vcpu.queued_since
    vcpu.last_pcpu = p
    vcpu.pcpu = p
    vcpu.state = RUNNING
    vcpu.dispatches += 1
    shrink_window(s, vcpu)
    note(s, t, RAN, p, v, NONE)
    if s.guest[v].away != 0:
        note_away(s, v, t, False)


@called
def is_critical(s, v):
    """Whether v, as far as the hypervisor can tell, spins where slices are to be short (9.14)."""
    vcpu, who = s.vcpu[v], s.par[0].micro_for
    answers = vcpu.pc_class == s.program[vcpu.vm].pc_classes
    listed = who == FOR_ALL or (who == FOR_ANSWERS) == answers
    return listed and suspected_spinner(s.vmp, s.vcpu, v)


@inlined
def answer_hint(s, p, chosen):
    """p has chosen this vCPU, or NONE: note what that means for the one that was favoured there, if there is one."""
    hinted = s.pcpu[p].hinted
    if hinted != NONE:
        s.vcpu[hinted].hint = HINT_WON if chosen == hinted else HINT_IGNORED
        s.pcpu[p].hinted = NONE


@called
def defers(s, p, t):
    """Whether p's vCPU, whom a timer would preempt, goes on for a while since it is in kernel mode (9.11)."""
    pcpu = s.pcpu[p]
    v = pcpu.current
    if v == NONE or s.vcpu[v].state != RUNNING or s.vcpu[v].moving != 0 or s.guest[v].phase == USER:
        return False
    if pcpu.deferred_until == 0:
        pcpu.deferred_until = t + s.par[0].defer_preemption
    if pcpu.deferred_until <= t:
        return False
    pcpu.resched_at = pcpu.deferred_until
    pcpu.slice_end = INF
    run(s, p, v, t, np.int64(0), True)
    return True


@called
def runs_urgent(s, p, t):
    """Run the first of p's queue that has interrupts to serve, in place of one that has none; whether there is one."""
    current = s.pcpu[p].current
    if current == NONE or s.vcpu[current].state != RUNNING or s.vcpu[current].moving or s.ipi[current].senders != 0:
        return False
    for i in range(np.int64(s.pcpu[p].queued)):
        v = np.uint32(s.queue[p, i])
        if s.ipi[v].senders != 0:
            s.host.dequeue(s, p, v)
            s.host.charge(s, p, t)
            leave(s, p, current, t, PREEMPTED)
            s.host.put_prev(s, p, current, t, True)
            run(s, p, v, t, np.int64(0), False)
            return True
    return False


@inlined
def schedule(s, p, t, cause):
    """Let the host choose who runs on p now; `cause`: BY_TIMER; BY_EXIT or BY_KICK, whose cost is in `exit_until`."""
    pcpu = s.pcpu[p]
    if pcpu.noise_state == BURSTING:
        return
    if s.par[0].defer_preemption > 0:
        if cause == BY_TIMER and defers(s, p, t):
            return
        pcpu.deferred_until = 0
    if s.par[0].urgent and cause == BY_TIMER and runs_urgent(s, p, t):
        return
    handler = pcpu.exit_until - t if cause != BY_TIMER else np.int64(0)
    current = pcpu.current
    upcoming = current
    stays = holds = moves = False
    why = PLE_YIELD if cause == BY_EXIT else PREEMPTED
    if current != NONE:
        vcpu = s.vcpu[current]
        s.host.charge(s, p, t)
        moves = vcpu.moving != 0
        stays = vcpu.state == RUNNING and not moves
        if vcpu.state == BLOCKED or vcpu.state == DONE:
            why = WENT_TO_SLEEP
        if vcpu.state == BLOCKED and s.host.polls(s, p, current, t):
            pcpu.mode = POLLING
            s.clock[p].guest_at = INF
            return
        holds = stays and s.host.holds(s, p, t)
        if not holds:
            s.host.put_prev(s, p, current, t, stays)
    bursts = pcpu.noise_state == PENDING and not holds
    if not (holds or bursts):
        upcoming = s.host.pick_next(s, p, t)
        answer_hint(s, p, upcoming)
        stays = stays and upcoming == current
        if stays:
            s.vcpu[current].state = RUNNING
            pcpu.slice_end = s.host.set_next(s, p, current, t)
    if current != NONE and (bursts or not stays):
        leave(s, p, current, t, why)
    if bursts:
        begin_burst(s, p, t, handler)
    else:
        run(s, p, upcoming, t, handler, stays)
    if moves:
        s.vcpu[current].moving = 0
        s.host.migrate(s, current, t)


@called
def end_poll(s, p, v, t):
    """v wakes while p polls for it: it goes on at once."""
    pcpu = s.pcpu[p]
    settle(s, p, t)
    pcpu.mode = GUEST
    s.vcpu[v].state = RUNNING
    pcpu.slice_end = s.host.set_next(s, p, v, t)
    enter(s, p, t)
    refresh_host(s, p)


@inlined
def wake(s, v, t):
    """A blocked or halted vCPU becomes runnable."""
    guest = s.guest[v]
    guest.wake_at = INF
    if guest.halted:
        guest.halted = 0
        guest.halt_left = s.program[s.vcpu[v].vm].halt
    if s.par[0].ticks and s.interrupts[v].timer_at <= t:
        s.interrupts[v].timer_at = next_tick(s, s.vcpu[v].vm, t)
    p = s.vcpu[v].pcpu
    note(s, t, WOKE, p, v, NONE)
    if s.pcpu[p].mode == POLLING and s.pcpu[p].current == v:
        end_poll(s, p, v, t)
    else:
        s.host.wake(s, v, t)


# --- host noise (9.9) -------------------------------------------------------------------------------------------------


@inlined
def burst_draw(s, p):
    """Random bits of pCPU p's current burst: its gap (high) and its length (low)."""
    of_all = 64 if s.par[0].pcpus <= 64 else 256
    return draw(s.world[0].noise_key, 1 + s.clock[p].noise_count * of_all + np.int64(p))


@inlined
def noise_gap(s, p):
    """Cycles until p's current burst begins."""
    return max(1, (sample(s.tables, UNIT, high(burst_draw(s, p))) * s.world[0].noise_gap) >> 16)


@inlined
def burst_length(s, p):
    """How long p's current burst is, cycles."""
    return max(1, (sample(s.tables, UNIT, low(burst_draw(s, p))) * s.par[0].noise_burst) >> 16)


@called
def begin_burst(s, p, t, handler):
    """Host noise takes pCPU p; its vCPU has been queued."""
    pcpu = s.pcpu[p]
    pcpu.mode = NOISE
    pcpu.current = NONE
    pcpu.noise_state = BURSTING
    pcpu.slice_end = INF
    pcpu.exit_until = t + handler
    pcpu.entry = t + handler
    s.clock[p].noise_at = t + burst_length(s, p)
    s.clock[p].guest_at = INF
    note(s, t, NOISE_BEGAN, p, NONE, NONE)
    s.host.switched(s, p, t)


@inlined
def noise_event(s, p, t):
    """A burst of host work wakes, starts or ends on p; returns whether p must choose a vCPU now."""
    pcpu = s.pcpu[p]
    if pcpu.noise_state == BURSTING:
        s.clock[p].noise_count += 1
        s.clock[p].noise_at = t + noise_gap(s, p)
        pcpu.noise_state = WAITING
        pcpu.mode = IDLE
        note(s, t, NOISE_ENDED, p, NONE, NONE)
        return True
    current = pcpu.current
    if current != NONE:
        until = s.host.protected_until(s, p)
        if pcpu.noise_state == WAITING and t < until:
            pcpu.noise_state = PENDING
            s.clock[p].noise_at = until
            enter(s, p, t)
            return False
        s.host.charge(s, p, t)
        polls = pcpu.mode == POLLING
        leave(s, p, current, t, WENT_TO_SLEEP if polls else PREEMPTED)
        s.host.put_prev(s, p, current, t, not polls)
    begin_burst(s, p, t, np.int64(0))
    return False
