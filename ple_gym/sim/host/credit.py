"""Xen's credit scheduler as of 4.5, 4.8's yield as a switch (docs/model.md, section 9; xen/common/sched_credit.c)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import request
from ple_gym.sim.host.runqueue import head, insert, remove, sort
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.locks import available, run_on
from ple_gym.sim.metrics import note
from ple_gym.sim.rng import draw, high, low
from ple_gym.sim.sampling import UNIT, sample
from ple_gym.sim.state import (
    BLOCKED,
    BOOST,
    BURSTING,
    BY_EXIT,
    DISPATCH_EXITS,
    DONE,
    GUEST,
    HOLD,
    IDLE,
    INF,
    NO_VCPU,
    NOISE,
    NOISE_BEGAN,
    NOISE_ENDED,
    NONE,
    OVER,
    PENDING,
    PLE_YIELD,
    PREEMPTED,
    RAN,
    RUNNING,
    SPIN,
    STOPPED,
    TAS,
    UNDER,
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


# --- dispatching ------------------------------------------------------------------------------------------------------


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
    if pcpu.dispatch_exits > 0:
        world.dispatch_exits_max = max(world.dispatch_exits_max, pcpu.dispatch_exits)
        s.histogram[DISPATCH_EXITS, min(EXACT_DISPATCH_EXITS, pcpu.dispatch_exits)] += 1
        pcpu.dispatch_exits = 0
    if phase == HOLD and not asleep:
        world.lhp_events += 1
    elif phase == SPIN and s.program[vcpu.vm].lock_kind != TAS and available(s, v):
        world.lwp_events += 1
    note(s, t, STOPPED, p, v, NONE)


@inlined
def burn(s, p, t):
    """Charge p's vCPU for the time since it was last charged [burn_credits]; credit is in cycles."""
    s.vcpu[s.pcpu[p].current].credit -= t - s.pcpu[p].burned_at
    s.pcpu[p].burned_at = t


@called
def switch(s, p, v, t, handler):
    """Context switch on p to v, or to nothing if NONE; `handler` cycles of a PLE exit come before it."""
    pcpu = s.pcpu[p]
    pcpu.exit_until = t + handler
    pcpu.entry = t + handler
    if v == NONE:
        pcpu.mode = IDLE
        pcpu.current = NONE
        pcpu.slice_end = INF
        s.clock[p].guest_at = INF
        return
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
    pcpu.burned_at = t
    pcpu.slice_end = t + par.timeslice
    pcpu.entry += par.switch
    vcpu.last_pcpu = p
    vcpu.pcpu = p
    vcpu.state = RUNNING
    vcpu.dispatches += 1
    note(s, t, RAN, p, v, NONE)
    enter(s, p, t)


@inlined
def steal(s, p, priority):
    """A queued vCPU of strictly higher priority from another busy pCPU, own socket first, or NONE."""
    par = s.par[0]
    own = socket(s, p)
    for turn in range(par.sockets):
        where = (own + turn) % par.sockets
        for i in range(par.pcpus):
            q = np.uint32(i)
            if q != p and socket(s, q) == where and s.pcpu[q].mode != IDLE:
                v = head(s, q)
                if v != NONE and s.vcpu[v].priority > priority:
                    remove(s, q, v)
                    s.world[0].steals += 1
                    return v
    return NONE


@called
def schedule(s, p, t, cause):
    """Choose who runs on p now [csched_schedule]; `cause`: BY_TIMER or BY_EXIT."""
    par = s.par[0]
    pcpu = s.pcpu[p]
    if pcpu.noise_state == BURSTING:
        return
    handler = par.exit if cause == BY_EXIT else np.int64(0)
    current = pcpu.current
    stays = False
    why = PLE_YIELD if cause == BY_EXIT else PREEMPTED
    migrating = False
    if current != NONE:
        vcpu = s.vcpu[current]
        burn(s, p, t)
        migrating = vcpu.migrating != 0
        stays = vcpu.state == RUNNING and not migrating
        if vcpu.state == BLOCKED or vcpu.state == DONE:
            why = WENT_TO_SLEEP
        ran = t - pcpu.dispatched_at
        if stays and ran < par.ratelimit and not (par.yield_bypasses_ratelimit and vcpu.yielding):
            pcpu.slice_end = t + par.ratelimit if par.fresh_ratelimit_slice else pcpu.dispatched_at + par.ratelimit
            pcpu.exit_until = t + handler
            pcpu.entry = t + handler
            enter(s, p, t)
            return
        if stays:
            insert(s, p, current, t)
        vcpu.yielding = 0
    if pcpu.noise_state == PENDING:
        if current != NONE:
            leave(s, p, current, t, why)
        begin_burst(s, p, t, handler)
    else:
        upcoming = head(s, p)
        if upcoming == NONE or s.vcpu[upcoming].priority == OVER:
            stolen = steal(s, p, NO_VCPU if upcoming == NONE else np.int64(s.vcpu[upcoming].priority))
            if stolen != NONE:
                upcoming = stolen
            elif upcoming != NONE:
                remove(s, p, upcoming)
        else:
            remove(s, p, upcoming)
        if stays and upcoming == current:
            s.vcpu[current].state = RUNNING
            pcpu.slice_end = t + par.timeslice
            pcpu.exit_until = t + handler
            pcpu.entry = t + handler
            enter(s, p, t)
        else:
            if current != NONE:
                leave(s, p, current, t, why)
            switch(s, p, upcoming, t, handler)
    if migrating:
        migrate(s, current, t)


# --- waking -----------------------------------------------------------------------------------------------------------


@inlined
def next_idle(s, after):
    """The first idle pCPU cyclically after `after` (ending with itself), or NONE."""
    n = s.par[0].pcpus
    for i in range(1, n + 1):
        p = np.uint32((np.int64(after) + i) % n)
        if s.pcpu[p].mode == IDLE:
            return p
    return NONE


@inlined
def priority_on(s, p):
    """Priority of what runs on p: host noise counts as BOOST, nothing as NO_VCPU."""
    if s.pcpu[p].mode == IDLE:
        return np.int64(NO_VCPU)
    if s.pcpu[p].mode == NOISE:
        return np.int64(BOOST)
    return np.int64(s.vcpu[s.pcpu[p].current].priority)


@called
def place(s, p, v, t):
    """Queue a waking or migrating vCPU on p, boosted, and tickle [csched_vcpu_wake, __runq_tickle]."""
    if s.vcpu[v].priority == UNDER:
        s.vcpu[v].priority = BOOST
    insert(s, p, v, t)
    idler = next_idle(s, s.pcpu[p].last_tickle)
    if s.pcpu[p].mode == IDLE or (idler == NONE and s.vcpu[v].priority > priority_on(s, p)):
        request(s, p, t)
    elif idler != NONE:
        s.pcpu[p].last_tickle = idler
        request(s, idler, t)


@inlined
def wake(s, v, t):
    """A blocked or halted vCPU becomes runnable."""
    guest = s.guest[v]
    guest.wake_at = INF
    if guest.halted:
        guest.halted = 0
        guest.halt_left = s.program[s.vcpu[v].vm].halt
    note(s, t, WOKE, s.vcpu[v].pcpu, v, NONE)
    place(s, s.vcpu[v].pcpu, v, t)


@inlined
def candidate(s, q, p, best, left):
    """Whether q is still among the pCPUs that `pick` considers: idle (or p with an empty queue), not yet ruled out."""
    idler = s.pcpu[q].mode == IDLE or (q == p and s.pcpu[p].queued == 0)
    return idler and (left >> np.int64(q)) & 1 != 0 and q != best


@called
def pick(s, p):
    """Where a vCPU of pCPU p would best run [_csched_cpu_pick without SMT]; p unless an idler is better.

    Second, the pCPU whose `idle_bias` becomes the answer if the vCPU really moves, or NONE.
    """
    n = s.par[0].pcpus
    left = np.int64(-1)  # bit set of pCPUs not ruled out yet
    best = p
    if not (s.pcpu[p].mode == IDLE or s.pcpu[p].queued == 0):
        idler = next_idle(s, p)
        if idler == NONE:
            return p, NONE
        best = idler
    left &= ~(np.int64(1) << np.int64(best))
    bias = NONE
    while True:
        nxt = NONE
        for i in range(1, n + 1):
            q = np.uint32((np.int64(best) + i) % n)
            if candidate(s, q, p, best, left):
                nxt = q
                break
        if nxt == NONE:
            break
        if socket(s, nxt) == socket(s, best):
            left &= ~(np.int64(1) << np.int64(nxt))
            continue
        here, there = 0, 0
        for i in range(n):
            q = np.uint32(i)
            if s.pcpu[q].mode == IDLE or (q == p and s.pcpu[p].queued == 0):
                here += socket(s, q) == socket(s, best)
                there += socket(s, q) == socket(s, nxt)
        if 2 * here < there:
            bias = nxt
            where = socket(s, nxt)
            for i in range(1, n + 1):
                q = np.uint32((np.int64(s.pcpu[nxt].idle_bias) + i) % n)
                if socket(s, q) == where and candidate(s, q, p, best, left):
                    best = q
                    break
            left &= ~(np.int64(1) << np.int64(best))
        else:
            for i in range(n):
                if socket(s, np.uint32(i)) == socket(s, nxt):
                    left &= ~(np.int64(1) << np.int64(i))
    return best, bias


@called
def migrate(s, v, t):
    """Move a vCPU that was marked for migration to the pCPU picked for it; Xen wakes it there, so 4.5 boosts it."""
    best, bias = pick(s, s.vcpu[v].pcpu)
    if bias != NONE:
        s.pcpu[bias].idle_bias = best
    s.vcpu[v].migrating = 0
    place(s, best, v, t)


# --- timers -----------------------------------------------------------------------------------------------------------


@inlined
def tick(s, p, t):
    """The 10 ms tick of p [csched_tick]; returns whether p must reschedule because its vCPU migrates."""
    pcpu = s.pcpu[p]
    pcpu.tick_at += s.par[0].tick
    moving = False
    if pcpu.mode == GUEST:
        vcpu = s.vcpu[pcpu.current]
        if vcpu.priority == BOOST:
            vcpu.priority = UNDER
        burn(s, p, t)
        if not vcpu.active:
            vcpu.active = 1
            s.vm[vcpu.vm].active += 1
        elif pick(s, p)[0] != p:
            vcpu.migrating = 1
            moving = True
    sort(s, p)
    if pcpu.mode == GUEST and not moving:
        enter(s, p, t)
    return moving


@called
def account(s):
    """Hand out the credits of one accounting period and set priorities [csched_acct]; credits in cycles."""
    par = s.par[0]
    world = s.world[0]
    world.acct_at += par.timeslice
    total_weight = np.int64(0)
    for i in range(par.vms):
        total_weight += s.vmp[i].weight * s.vm[i].active
    if total_weight == 0:
        world.credit_balance = 0
        return
    deficit = max(np.int64(0), -world.credit_balance)
    total = par.credit_pcpus * par.timeslice + deficit
    left = total_weight
    balance = np.int64(0)
    for i in range(par.vms):
        active = s.vm[i].active
        if active == 0:
            continue
        weight = s.vmp[i].weight * active
        left -= weight
        peak = active * par.timeslice + (deficit * weight + total_weight - 1) // total_weight
        fair = (total * weight + total_weight - 1) // total_weight
        if fair >= peak:
            if left > 0:
                total += ((fair - peak) * total_weight + left - 1) // left
            fair = peak
        each = (fair + active - 1) // active
        for j in range(s.vmp[i].first, s.vmp[i].first + s.vmp[i].vcpus):
            vcpu = s.vcpu[np.uint32(j)]
            if not vcpu.active:
                continue
            vcpu.credit += each
            if vcpu.credit < 0:
                vcpu.priority = OVER
                vcpu.credit = max(vcpu.credit, -par.timeslice)
            else:
                vcpu.priority = UNDER
                if vcpu.credit > par.timeslice:
                    vcpu.active = 0
                    s.vm[i].active -= 1
                    vcpu.credit //= 2
            balance += vcpu.credit
    world.credit_balance = balance
    world.sort_epoch += 1


# --- host noise (9.9) -------------------------------------------------------------------------------------------------


@inlined
def burst_draw(s, p):
    """Random bits of pCPU p's current burst: its gap (high) and its length (low)."""
    return draw(s.world[0].noise_key, 1 + s.clock[p].noise_count * 64 + np.int64(p))


@inlined
def noise_gap(s, p):
    """Cycles until p's current burst begins."""
    return max(1, (sample(s.tables, UNIT, high(burst_draw(s, p))) * s.world[0].noise_gap) >> 16)


@called
def begin_burst(s, p, t, handler):
    """Host noise takes pCPU p; its vCPU has been queued."""
    pcpu = s.pcpu[p]
    length = max(1, (sample(s.tables, UNIT, low(burst_draw(s, p))) * s.par[0].noise_burst) >> 16)
    pcpu.mode = NOISE
    pcpu.current = NONE
    pcpu.noise_state = BURSTING
    pcpu.slice_end = INF
    pcpu.exit_until = t + handler
    pcpu.entry = t + handler
    s.clock[p].noise_at = t + length
    s.clock[p].guest_at = INF
    note(s, t, NOISE_BEGAN, p, NONE, NONE)


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
        if pcpu.noise_state == WAITING and t - pcpu.dispatched_at < s.par[0].ratelimit:
            pcpu.noise_state = PENDING
            s.clock[p].noise_at = pcpu.dispatched_at + s.par[0].ratelimit
            enter(s, p, t)
            return False
        burn(s, p, t)
        leave(s, p, current, t, PREEMPTED)
        insert(s, p, current, t)
        s.vcpu[current].yielding = 0
    begin_burst(s, p, t, np.int64(0))
    return False
