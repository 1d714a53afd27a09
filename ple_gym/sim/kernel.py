"""Start, event loop, decisions, end (docs/model.md, sections 5, 7.4, 10 and 12)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.affinity import holds_pcpu, listed
from ple_gym.sim.calendar import earliest, find_next_wake, guest_timer, refresh, refresh_host
from ple_gym.sim.decisions import kick
from ple_gym.sim.dispatch import noise_event, noise_gap, schedule, wake
from ple_gym.sim.guest.interrupts import next_tick, tick
from ple_gym.sim.guest.locks import lose_attempt, out_of_patience, park, try_lock
from ple_gym.sim.guest.program import draw_section, take_transaction, thaw
from ple_gym.sim.guest.running import begin_transaction, next_steps, run_on, spin_ends, work_ends
from ple_gym.sim.guest.threads import end_of_sleep, keep, line_up, respond
from ple_gym.sim.guest.waits import available, must_answer
from ple_gym.sim.host.runqueue import put
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, settle
from ple_gym.sim.pause_loop import record_exit
from ple_gym.sim.sampling import sample
from ple_gym.sim.state import (
    ACKS,
    ADVANCING,
    BLOCKED,
    BY_KICK,
    BY_TIMER,
    DECIDE,
    EXITED,
    FINISHED,
    HOLD,
    IDLE,
    INF,
    MAX_EVENTS,
    NEVER_RAN,
    NONE,
    NOT_CALLED,
    ON_VCPU,
    PLE_YIELD,
    PREEMPTED,
    QUEUED,
    RUNNING,
    SLEEPING,
    SLEPT,
    SPIN,
    THREAD_DONE,
    TIMED_OUT,
    USER,
)

# --- start ------------------------------------------------------------------------------------------------------------


@called
def start_world(s):
    """Time 0 (section 12): every vCPU takes its first work, is queued, and each pCPU chooses who runs."""
    world = s.world[0]
    par = s.par[0]
    key = rng.world_key(world.seed, world.index)
    host = rng.stream_key(key, rng.STREAM_HOST)
    world.noise_key = rng.stream_key(key, rng.STREAM_NOISE)
    world.policy_key = rng.stream_key(key, rng.STREAM_POLICY)
    world.next_wake = INF
    world.period_at = INF
    if par.noise_rate_hz > 0:
        level = max(1, sample(s.tables, par.noise_level_table, rng.high(rng.draw(world.noise_key, 0))))
        gap = par.tsc_hz // par.noise_rate_hz * 1000 // level
        quietest = par.noise_burst * (1000 - par.noise_cap_permille) // par.noise_cap_permille
        world.noise_gap = max(gap, quietest)
    for i in range(par.locks):
        lock = s.lock[np.uint32(i)]
        lock.holder = NONE
        lock.head = NONE
        lock.tail = NONE
    for m in range(par.vms):
        vm = s.vm[m]
        vm.work_key = rng.stream_key(key, rng.STREAM_WORK + np.uint64(m))
        vm.finish = INF
        vm.share = s.vmp[m].vcpus
        for i in range(s.program[m].locks):
            s.lock[np.uint32(s.program[m].first_lock + i)].vm = m
        start_threads(s, m)
        for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
            v = np.uint32(i)
            s.vcpu[v].vm = m
            s.vcpu[v].state = QUEUED
            s.vcpu[v].pcpu = first_pcpu(s, v)
            s.vcpu[v].last_pcpu = NONE
            s.vcpu[v].left_by = NEVER_RAN
            s.vcpu[v].window = par.least_window
            s.guest[v].wake_at = INF
            s.guest[v].ple_last = -INF
            s.guest[v].next_waiter = NONE
            if s.par[0].senders > 0:
                s.interrupts[v].timer_at = next_tick(s, m, np.int64(0))
            if take_transaction(s, v, np.int64(0)):
                if s.program[m].convoy:
                    join_convoy(s, v)
                else:
                    begin_transaction(s, v, np.int64(0))
        if s.program[m].threads > 0:
            vm.next_transaction = first_not_taken(s, m)
    for i in range(par.vcpus):
        v = np.uint32(i)
        if s.vcpu[v].state == QUEUED:
            queue_at_start(s, v, host)
    for i in range(par.pcpus):
        p = np.uint32(i)
        pcpu = s.pcpu[p]
        pcpu.mode = IDLE
        pcpu.current = NONE
        pcpu.last_vcpu = NONE
        pcpu.hinted = NONE
        pcpu.resched_at = INF
        pcpu.slice_end = INF
        pcpu.tick_at = INF
        s.clock[p].guest_at = INF
        s.clock[p].noise_at = noise_gap(s, p) if par.noise_rate_hz > 0 else INF
    s.host.start(s, host)
    for i in range(par.pcpus):
        p = np.uint32(i)
        schedule(s, p, np.int64(0), BY_TIMER)
        refresh_host(s, p)


@inlined
def first_not_taken(s, m):
    """The transaction that is next once each of a VM's threads has taken one at the start (7.6)."""
    program = s.program[m]
    return min(program.threads, program.transactions) if program.transactions > 0 else program.threads


@called
def start_threads(s, m):
    """The VM's threads begin, where they are more than vCPUs (7.6): those without a vCPU sleep, or are ready."""
    program, vmp = s.program[m], s.vmp[m]
    s.vm[m].ready_head = NONE
    s.vm[m].ready_tail = NONE
    for h in range(program.threads):
        v = np.uint32(vmp.first + h % vmp.vcpus)
        number = np.uint32(program.first_thread + h)
        thread = s.thread[number]
        thread.wake_at = INF
        thread.vcpu = v
        thread.next = NONE
        thread.place = ON_VCPU if h < first_not_taken(s, m) else THREAD_DONE
        s.vcpu[v].vm = m
        s.guest[v].thread = number
        if h < vmp.vcpus or thread.place == THREAD_DONE:
            continue
        # Its work is drawn in the record of a vCPU that has not begun yet.
        s.guest[v].transaction = h
        s.guest[v].section = 0
        wait = draw_section(s, v)
        keep(s, v, SLEEPING)
        if wait > 0:
            thread.wake_at = wait
            respond(s, v, np.int64(0), wait)
            s.world[0].next_wake = min(s.world[0].next_wake, wait)
        else:
            line_up(s, number)
    for i in range(vmp.vcpus):
        s.guest[np.uint32(vmp.first + i)].thread = program.first_thread + i


@called
def first_pcpu(s, v):
    """Where v starts: on the pCPUs that its VM may run on in turns."""
    count = s.par[0].pcpus
    vm = s.vmp[s.vcpu[v].vm]
    if vm.roams != 0 or vm.pinned != 0:
        return np.uint32(np.int64(v) * count // s.par[0].vcpus if s.par[0].stacked else np.int64(v) % count)
    own = np.int64(0)
    for p in range(count):
        own += holds_pcpu(listed(vm), p)
    turn = np.int64(v) % own
    for p in range(count):
        turn -= holds_pcpu(listed(vm), p)
        if turn < 0:
            return np.uint32(p)
    return np.uint32(0)


@inlined
def join_convoy(s, v):
    """v starts at the first lock: its holder, preempted, or a waiter that has spun for a window and yielded."""
    vcpu = s.vcpu[v]
    vmp, program = s.vmp[vcpu.vm], s.program[vcpu.vm]
    try_lock(s, v, np.uint32(program.first_lock), np.int64(0))
    vcpu.left_kernel = 1
    if s.guest[v].phase == HOLD:
        vcpu.left_by = PREEMPTED
    else:
        vcpu.left_by = PLE_YIELD
        vcpu.ples = 1
        s.guest[v].away = program.early_wait
        # They came in ticket order, one window and exit apart, before time 0.
        vcpu.first_ple = (np.int64(v) - vmp.first - vmp.vcpus) * (s.par[0].window + s.par[0].exit)
        vcpu.last_ple = vcpu.first_ple


@inlined
def start_key(s, v, host):
    """Place of v in its first queue: by a draw; in a convoy the last in line first."""
    m = s.vcpu[v].vm
    if s.program[m].convoy:
        return s.vmp[m].vcpus - 1 - (np.int64(v) - s.vmp[m].first)
    return np.int64(rng.draw(host, np.int64(v)) >> np.uint64(1))


@inlined
def queue_at_start(s, v, host):
    """Insert v into its pCPU's queue in the order of start keys, ties by index."""
    p = s.vcpu[v].pcpu
    key = start_key(s, v, host)
    at = np.int64(0)
    while at < s.pcpu[p].queued and start_key(s, np.uint32(s.queue[p, at]), host) <= key:
        at += 1
    put(s, p, v, at)


# --- the event loop ---------------------------------------------------------------------------------------------------


@inlined
def leave_spin(s, p, v, t, notified):
    """v, which spins on p, exits to the hypervisor: a decision is due (8.3)."""
    lock = s.guest[v].lock if s.guest[v].phase == SPIN else NONE
    record_exit(s, p, v, t, notified, lock, s.lock[lock].holder if lock != NONE else must_answer(s, v))
    note(s, t, EXITED, p, v, lock)
    s.world[0].deciding = p
    s.world[0].status = DECIDE


@called
def notify(s, p, v, t):
    """v has spun for long and tells the hypervisor (8.5)."""
    s.guest[v].halt_left = s.program[s.vcpu[v].vm].halt
    s.pcpu[p].notified = 1
    s.world[0].notifications += 1
    leave_spin(s, p, v, t, True)


@inlined
def guest_event(s, p, t):
    """The next event of p's guest (7.4). Returns why p must reschedule; sets status DECIDE for a spin's exit."""
    v = s.pcpu[p].current
    guest = s.guest[v]
    if guest.phase < SPIN:
        kicked = work_ends(s, v, t)
    elif guest.attempt_at <= t:
        if guest.phase == SPIN and not available(s, v):  # a poller: somebody was faster
            lose_attempt(s, p, v, t)
            return NOT_CALLED
        kicked = spin_ends(s, v, t)
    elif not out_of_patience(s, v, t):
        leave_spin(s, p, v, t, False)
        return NOT_CALLED
    elif s.program[s.vcpu[v].vm].notifies:
        notify(s, p, v, t)
        return NOT_CALLED
    else:
        guest.halted = 1
        guest.wake_at = INF
        s.vcpu[v].state = BLOCKED
        s.world[0].halts += 1
        if s.program[s.vcpu[v].vm].stolen:
            park(s, v, t)
        note(s, t, SLEPT, p, v, guest.lock)
        return BY_TIMER
    while kicked != NONE:
        wake(s, kicked, t)
        if guest.phase != ACKS and s.vcpu[v].state == RUNNING and kick(s, p, kicked, t):
            return BY_KICK
        kicked = next_steps(s, v, t)
    if s.vcpu[v].state != RUNNING or (s.pcpu[p].deferred_until != 0 and guest.phase == USER):
        return BY_TIMER
    run_on(s, p, v, t)
    return NOT_CALLED


@inlined
def advance(s, most):
    """Serve at most so many events, until a decision is due (status DECIDE) or the run ends (FINISHED, TIMED_OUT).

    Returns how many more it might have served. If the status is still ADVANCING, it must be called again.
    """
    world = s.world[0]
    until = world.events + most
    last = min(until, MAX_EVENTS)
    while world.status == ADVANCING:
        if world.events >= last:
            if last == MAX_EVENTS:
                finish(s, world.now, TIMED_OUT)
            break
        t, p = earliest(s)
        if t >= s.par[0].limit:
            finish(s, s.par[0].limit, TIMED_OUT)
            break
        world.now = t
        world.events += 1
        if p == NONE:
            if world.period_at <= t:
                s.host.period(s)
            else:
                wake_earliest(s, t)
            continue
        settle(s, p, t)
        by_host = s.clock[p].host_at <= t
        cause = (BY_TIMER if host_event(s, p, t) else NOT_CALLED) if by_host else guest_event(s, p, t)
        if s.par[0].finite_vms == world.finished_vms and world.finished_vms > 0:
            finish(s, t, FINISHED)
            break
        if cause != NOT_CALLED:
            schedule(s, p, t, cause)
        if cause != NOT_CALLED or by_host:
            refresh_host(s, p)
        else:
            refresh(s, p)
    return until - world.events


@inlined
def host_event(s, p, t):
    """Serve the first host timer that is due on p; returns whether p must reschedule."""
    pcpu = s.pcpu[p]
    if s.clock[p].noise_at <= t:
        return noise_event(s, p, t)
    if pcpu.resched_at <= t:
        pcpu.resched_at = INF
        return True
    if pcpu.tick_at <= t:
        return s.host.tick(s, p, t)
    if s.par[0].ticks and guest_timer(s, p) <= t:
        tick(s, p, t)
        return False
    pcpu.slice_end = INF
    return True


@inlined
def wake_earliest(s, t):
    """End the first wait that is due: a blocked vCPU is woken, or a thread is ready again."""
    v = NONE
    if s.par[0].threads > 0:
        v = end_of_sleep(s, t)
    else:
        for i in range(s.par[0].vcpus):
            if s.guest[np.uint32(i)].wake_at <= t:
                v = np.uint32(i)
                break
    if v != NONE and (s.guest[v].frozen == 0 or thaw(s, v, t)):
        wake(s, v, t)
    find_next_wake(s)


@inlined
def settle_all(s, t):
    """Bring the accounts of all pCPUs up to t."""
    for i in range(s.par[0].pcpus):
        settle(s, np.uint32(i), t)


@called
def finish(s, t, status):
    """The run is over at t."""
    s.world[0].now = t
    settle_all(s, t)
    s.world[0].status = status
