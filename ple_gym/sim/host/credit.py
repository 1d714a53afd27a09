"""Xen's credit scheduler, by version (docs/model.md, section 9; xen/common/sched_credit.c, since 4.13 sched/credit.c).

Runqueues are ordered by priority, FIFO within a priority (9.1); credit is in cycles. What later versions than 4.5 do in
another way is a switch each (`describe`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ple_gym.scenario.model import AS_IN_XEN, XEN
from ple_gym.sim import rng
from ple_gym.sim.affinity import allowed, holds_pcpu, may_run_on, without
from ple_gym.sim.calendar import request
from ple_gym.sim.dispatch import enter, socket
from ple_gym.sim.host import coscheduling, runqueue, siblings
from ple_gym.sim.host.coscheduling import OFF, catch_up, first_in_turn, look_again, may_run, shortened
from ple_gym.sim.host.runqueue import head, note_queued, put, remove
from ple_gym.sim.host.siblings import crowds, loneliest
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.seam import Host
from ple_gym.sim.state import GUEST, IDLE, INF, NOISE, NONE

# priorities (Xen's numbers)
BOOST, UNDER, OVER, NO_VCPU = 0, -1, -2, -64

PARAMETERS = np.dtype(
    [
        ("credit_pcpus", "i8"), ("timeslice", "i8"), ("tick", "i8"), ("ratelimit", "i8"),
        ("yield_bypasses_ratelimit", "i8"), ("fresh_ratelimit_slice", "i8"), ("shortest_slice", "i8"),
        ("boosts_migrants", "i8"), ("tickles_once", "i8"), ("steals_in_turn", "i8"), ("balance_gap", "i8"),
        ("yield_lasts", "i8"),
        ("balance_siblings", "i8"), ("coscheduling", "i8"), ("skew", "i8"),  # remedies (siblings.py, coscheduling.py)
    ]
)  # fmt: skip
WORLD = np.dtype(
    [
        ("credit_balance", "i8"), ("sort_epoch", "i8"),
        ("gang", "i8"), ("gang_until", "i8"),  # strict co-scheduling: the VM whose slot it is, and until when
    ]
)  # fmt: skip
VM = np.dtype([("active", "i8")])  # vCPUs in the accounting's active set
PCPU = np.dtype(
    [
        ("burned_at", "i8"), ("idle_bias", "u4"), ("last_tickle", "u4"), ("sort_seen", "i8"),
        ("balanced_at", "i8"),  # when it last looked for work elsewhere, cycles
        ("balance_bias", "u4"), ("pad0", "u4"),  # of the socket of this number: the pCPU last stolen from
    ]
)  # fmt: skip
VCPU = np.dtype(
    [
        ("credit", "i8"), ("priority", "i1"), ("yielding", "u1"), ("active", "u1"), ("pad0", "u1"), ("pad1", "u4"),
        ("progress", "i8"),  # cycles on pCPUs, for co-scheduling
    ]
)  # fmt: skip

CLOCK_DRAW = np.int64(1) << np.int64(20)  # of the host's stream: of the accounting; those of the pCPUs follow


def describe(scenario):
    """Its parameters, of a scenario: times in cycles."""
    host = scenario.host
    timeslice = host.timeslice_ms * host.tsc_hz // 1000

    def since(version):
        return XEN.index(host.xen) >= XEN.index(version)

    def either(flag, as_in_xen):
        return as_in_xen if flag == AS_IN_XEN else flag

    fresh = either(host.fresh_ratelimit_slice, not since("4.8"))
    as_in_48 = host.fresh_ratelimit_slice == AS_IN_XEN and since("4.8")
    return {
        "credit_pcpus": host.credit_pcpus or host.pcpus,
        "timeslice": timeslice,
        "tick": timeslice // 3 if host.timeslice_ms >= 3 else timeslice,
        "ratelimit": host.ratelimit_us * host.tsc_hz // 10**6,
        "yield_bypasses_ratelimit": either(host.yield_bypasses_ratelimit, since("4.8")),  # 9fdd2f3c9c
        "fresh_ratelimit_slice": fresh,
        "shortest_slice": 100 * host.tsc_hz // 10**6 if as_in_48 else 0,  # 0053127890, CSCHED_MIN_TIMER
        "boosts_migrants": not since("4.8"),  # 66c7449a4d, 4.7
        "tickles_once": since("4.17"),  # 47d5292995, 4.9: who was tickled does not count as idle
        "steals_in_turn": since("4.17"),  # 89216c7999, 4.9
        "balance_gap": host.tsc_hz // 1000 if since("4.17") else 0,  # 58feb9e0ac, 4.18; XCP-ng has it in 4.17
        "yield_lasts": since("4.18"),  # e282067cf2
        "balance_siblings": host.balance_siblings,
        "coscheduling": coscheduling.WORDS.index(host.coscheduling),
        "skew": host.coscheduling_skew_us * host.tsc_hz // 10**6,
    }


# --- queues -----------------------------------------------------------------------------------------------------------


@called
def insert(s, p, v, t):
    """Queue v on p behind its priority; a yielding vCPU goes behind one of lower priority too [__runq_insert]."""
    own = s.host_vcpu[v]
    note_queued(s, p, v, t)
    n = np.int64(s.pcpu[p].queued)
    at = np.int64(0)
    while at < n and s.host_vcpu[np.uint32(s.queue[p, at])].priority >= own.priority:
        at += 1
    if own.yielding and at < n:
        at += 1
    put(s, p, v, at)


@called
def put_first_of_class(s, p, v):
    """Queue v on p in front of its priority: how a directed yield favours it."""
    n = np.int64(s.pcpu[p].queued)
    at = np.int64(0)
    while at < n and s.host_vcpu[np.uint32(s.queue[p, at])].priority > s.host_vcpu[v].priority:
        at += 1
    put(s, p, v, at)


@inlined
def sort(s, p):
    """Move UNDER (and BOOST) ahead of OVER, stably, once after each accounting [csched_runq_sort]."""
    if s.host_pcpu[p].sort_seen == s.host_world[0].sort_epoch:
        return
    s.host_pcpu[p].sort_seen = s.host_world[0].sort_epoch
    n = np.int64(s.pcpu[p].queued)
    front = np.int64(0)
    for i in range(n):
        v = s.queue[p, i]
        if s.host_vcpu[np.uint32(v)].priority >= UNDER:
            for j in range(i, front, -1):
                s.queue[p, j] = s.queue[p, j - 1]
            s.queue[p, front] = v
            front += 1


@inlined
def dequeue(s, p, v):
    """Take v out of p's queue; a yield lasts until then where it is not over when v is queued [__runq_remove, 4.18]."""
    remove(s, p, v)
    s.host_vcpu[v].yielding = 0


@inlined
def may_come(s, v, p):
    """Whether no remedy keeps v, which is queued elsewhere, from p now."""
    own = s.host_par[0]
    return (not own.balance_siblings or not crowds(s, v, p)) and (own.coscheduling == OFF or may_run(s, v))


@inlined
def to_steal(s, p, q, priority):
    """The first of q's queue that may be stolen for p, of strictly higher priority, or NONE [csched_runq_steal]."""
    for j in range(np.int64(s.pcpu[q].queued)):
        v = np.uint32(s.queue[q, j])
        if s.host_vcpu[v].priority <= priority:
            break
        if not s.host_vcpu[v].yielding and may_run_on(s, v, p) and may_come(s, v, p):
            return v
    return NONE


@called
def steal(s, p, priority):
    """A queued vCPU of strictly higher priority from another busy pCPU, own socket first, or NONE."""
    par = s.par[0]
    own = socket(s, p)
    for turn in range(par.sockets):
        where = (own + turn) % par.sockets
        first = 1 + np.int64(s.host_pcpu[where].balance_bias) if s.host_par[0].steals_in_turn else np.int64(0)
        for i in range(par.pcpus):
            at = first + i
            q = np.uint32(at if at < par.pcpus else at - par.pcpus)
            if q != p and socket(s, q) == where and s.pcpu[q].mode != IDLE:
                v = to_steal(s, p, q, priority)
                if v != NONE:
                    dequeue(s, q, v)
                    s.host_pcpu[where].balance_bias = q
                    s.world[0].steals += 1
                    return v
    return NONE


@inlined
def may_look_elsewhere(s, p, t):
    """Whether p, which would run somebody OVER or nobody, may look for better work now; notes that it does."""
    gap = s.host_par[0].balance_gap
    if gap == 0:
        return True
    if t - s.host_pcpu[p].balanced_at <= gap:
        return False
    s.host_pcpu[p].balanced_at = t
    return True


@inlined
def is_idler(s, p):
    """Whether p counts as idle; since 4.9 not while it has been asked to reschedule."""
    return s.pcpu[p].mode == IDLE and (not s.host_par[0].tickles_once or s.pcpu[p].resched_at == INF)


@inlined
def next_idler(s, after, pcpus):
    """The first idler of a set of pCPUs cyclically after `after` (ending with itself), or NONE."""
    n = s.par[0].pcpus
    for i in range(1, n + 1):
        p = np.uint32((np.int64(after) + i) % n)
        if holds_pcpu(pcpus, p) and is_idler(s, p):
            return p
    return NONE


# --- hooks ------------------------------------------------------------------------------------------------------------


@inlined
def start(s, key):
    """Everybody has no credit yet, and each timer its own phase."""
    par, own = s.par[0], s.host_par[0]
    s.host_world[0].gang = par.vms - 1  # the first slot is VM 0's
    s.world[0].period_at = 1 + rng.share(rng.high(rng.draw(key, CLOCK_DRAW)), own.timeslice)
    for i in range(par.vcpus):
        s.host_vcpu[i].priority = UNDER
    for i in range(par.pcpus):
        s.host_pcpu[i].idle_bias = par.pcpus - 1
        s.host_pcpu[i].last_tickle = par.pcpus - 1
        s.host_pcpu[i].balanced_at = -INF
        s.host_pcpu[i].balance_bias = (i * par.pcpus + par.sockets - 1) // par.sockets if i < par.sockets else 0
        s.pcpu[i].tick_at = 1 + rng.share(rng.high(rng.draw(key, CLOCK_DRAW + 1 + i)), own.tick)


@inlined
def charge(s, p, t):
    """Charge p's vCPU for the time since it was last charged [burn_credits]."""
    own, ran = s.host_vcpu[s.pcpu[p].current], t - s.host_pcpu[p].burned_at
    own.credit -= ran
    if s.host_par[0].coscheduling != OFF:
        own.progress += ran
    s.host_pcpu[p].burned_at = t


@inlined
def holds(s, p, t):
    """Whether the rate limit lets p's vCPU go on."""
    pcpu, own = s.pcpu[p], s.host_par[0]
    yielding = s.host_vcpu[pcpu.current].yielding
    ran = t - pcpu.dispatched_at
    if ran >= own.ratelimit or (own.yield_bypasses_ratelimit and yielding):
        return False
    if own.fresh_ratelimit_slice:
        pcpu.slice_end = t + own.ratelimit
    elif ran < own.shortest_slice:
        pcpu.slice_end = t + own.shortest_slice
    else:
        pcpu.slice_end = pcpu.dispatched_at + own.ratelimit
    return True


@inlined
def put_prev(s, p, v, t, stays):
    """Queue v, behind one of lower priority if it yields."""
    if stays:
        insert(s, p, v, t)
    if not (stays and s.host_par[0].yield_lasts):
        s.host_vcpu[v].yielding = 0


@inlined
def pick_next(s, p, t):
    """The head of p's queue; if that is OVER or missing, work from elsewhere first [csched_schedule]."""
    together = s.host_par[0].coscheduling != OFF
    upcoming = first_in_turn(s, p, t) if together else head(s, p)
    if (upcoming == NONE or s.host_vcpu[upcoming].priority == OVER) and may_look_elsewhere(s, p, t):
        stolen = steal(s, p, NO_VCPU if upcoming == NONE else np.int64(s.host_vcpu[upcoming].priority))
        if stolen != NONE:
            return stolen
    if upcoming != NONE:
        dequeue(s, p, upcoming)
    elif together:
        look_again(s, p, t)
    return upcoming


@inlined
def set_next(s, p, v, t):
    """A whole slice; the first one of a run has its own phase."""
    own = s.host_par[0]
    s.host_pcpu[p].burned_at = t
    if t == 0:
        world = s.world[0]
        key = rng.stream_key(rng.world_key(world.seed, world.index), rng.STREAM_HOST)
        first = 1 + rng.share(rng.low(rng.draw(key, CLOCK_DRAW + 1 + np.int64(p))), own.timeslice)
        return first if own.coscheduling == OFF else shortened(s, t, first)
    return t + own.timeslice if own.coscheduling == OFF else shortened(s, t, t + own.timeslice)


@inlined
def yield_now(s, p, v):
    """v goes behind one of lower priority when it is queued next."""
    s.host_vcpu[v].yielding = 1


@inlined
def yield_to(s, p, q, v, t):
    """Put v in front of its priority, and let q look at once if that is not below what it runs."""
    remove(s, q, v)
    put_first_of_class(s, q, v)
    if q != p and s.host_vcpu[v].priority >= priority_on(s, q):
        request(s, q, t)
    return True


@inlined
def priority_on(s, p):
    """Priority of what runs on p: host noise counts as BOOST, nothing as NO_VCPU."""
    if s.pcpu[p].mode == IDLE:
        return np.int64(NO_VCPU)
    if s.pcpu[p].mode == NOISE:
        return np.int64(BOOST)
    return np.int64(s.host_vcpu[s.pcpu[p].current].priority)


@called
def place(s, p, v, t, boosted):
    """Queue a waking or migrating vCPU on p, perhaps boosted, and tickle [csched_vcpu_wake, __runq_tickle]."""
    if boosted and s.host_vcpu[v].priority == UNDER:
        s.host_vcpu[v].priority = BOOST
    insert(s, p, v, t)
    idler = next_idler(s, s.host_pcpu[p].last_tickle, allowed(s, v))
    if s.pcpu[p].mode == IDLE or (idler == NONE and s.host_vcpu[v].priority > priority_on(s, p)):
        request(s, p, t)
    elif idler != NONE:
        s.host_pcpu[p].last_tickle = idler
        request(s, idler, t)


@inlined
def wake(s, v, t):
    """v wakes where it ran last."""
    own = s.host_par[0]
    if own.coscheduling != OFF:
        catch_up(s, v, t)
    place(s, loneliest(s, v) if own.balance_siblings else s.vcpu[v].pcpu, v, t, np.int64(1))


@inlined
def candidate(s, q, p, best, left):
    """Whether q is still among the pCPUs that `pick` considers: idle (or p with an empty queue), not yet ruled out."""
    idler = is_idler(s, q) or (q == p and s.pcpu[p].queued == 0)
    return idler and holds_pcpu(left, q) and q != best


@called
def pick(s, v):
    """Where v would best run [_csched_cpu_pick without SMT]; on its pCPU unless an idler is better.

    Second, the pCPU whose `idle_bias` becomes the answer if the vCPU really moves, or NONE.
    """
    n = s.par[0].pcpus
    p = s.vcpu[v].pcpu
    left = allowed(s, v)  # pCPUs not ruled out yet
    best = p
    if not (is_idler(s, p) or s.pcpu[p].queued == 0):
        idler = next_idler(s, p, left)
        if idler == NONE:
            return p, NONE
        best = idler
    left = without(left, best)
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
            left = without(left, nxt)
            continue
        here, there = 0, 0
        for i in range(n):
            q = np.uint32(i)
            if is_idler(s, q) or (q == p and s.pcpu[p].queued == 0):
                here += socket(s, q) == socket(s, best)
                there += socket(s, q) == socket(s, nxt)
        if 2 * here < there:
            bias = nxt
            where = socket(s, nxt)
            for i in range(1, n + 1):
                q = np.uint32((np.int64(s.host_pcpu[nxt].idle_bias) + i) % n)
                if socket(s, q) == where and candidate(s, q, p, best, left):
                    best = q
                    break
            left = without(left, best)
        else:
            for i in range(n):
                if socket(s, np.uint32(i)) == socket(s, nxt):
                    left = without(left, i)
    return best, bias


@called
def migrate(s, v, t):
    """Move a vCPU that was marked for migration to the pCPU picked for it; Xen wakes it there, so 4.5 boosts it."""
    best, bias = pick(s, v)
    if bias != NONE:
        s.host_pcpu[bias].idle_bias = best
    place(s, best, v, t, s.host_par[0].boosts_migrants)


# --- timers -----------------------------------------------------------------------------------------------------------


@inlined
def tick(s, p, t):
    """The 10 ms tick of p [csched_tick]; returns whether p must reschedule because its vCPU migrates."""
    pcpu = s.pcpu[p]
    pcpu.tick_at += s.host_par[0].tick
    moving = False
    if pcpu.mode == GUEST:
        vcpu, own = s.vcpu[pcpu.current], s.host_vcpu[pcpu.current]
        if own.priority == BOOST:
            own.priority = UNDER
        charge(s, p, t)
        if not own.active:
            own.active = 1
            s.host_vm[vcpu.vm].active += 1
        elif pick(s, pcpu.current)[0] != p:
            vcpu.moving = 1
            moving = True
    sort(s, p)
    if pcpu.mode == GUEST and not moving:
        enter(s, p, t)
    return moving


@called
def period(s):
    """Hand out the credits of one accounting period and set priorities [csched_acct]; credits in cycles."""
    par = s.par[0]
    own, world = s.host_par[0], s.host_world[0]
    s.world[0].period_at += own.timeslice
    total_weight = np.int64(0)
    for i in range(par.vms):
        total_weight += s.vmp[i].weight * s.host_vm[i].active
    if total_weight == 0:
        world.credit_balance = 0
        return
    deficit = max(np.int64(0), -world.credit_balance)
    total = own.credit_pcpus * own.timeslice + deficit
    left = total_weight
    balance = np.int64(0)
    for i in range(par.vms):
        active = s.host_vm[i].active
        if active == 0:
            continue
        weight = s.vmp[i].weight * active
        left -= weight
        peak = active * own.timeslice + (deficit * weight + total_weight - 1) // total_weight
        fair = (total * weight + total_weight - 1) // total_weight
        if fair >= peak:
            if left > 0:
                total += ((fair - peak) * total_weight + left - 1) // left
            fair = peak
        each = (fair + active - 1) // active
        for j in range(s.vmp[i].first, s.vmp[i].first + s.vmp[i].vcpus):
            vcpu = s.host_vcpu[np.uint32(j)]
            if not vcpu.active:
                continue
            vcpu.credit += each
            if vcpu.credit < 0:
                vcpu.priority = OVER
                vcpu.credit = max(vcpu.credit, -own.timeslice)
            else:
                vcpu.priority = UNDER
                if vcpu.credit > own.timeslice:
                    vcpu.active = 0
                    s.host_vm[i].active -= 1
                    vcpu.credit //= 2
            balance += vcpu.credit
    world.credit_balance = balance
    world.sort_epoch += 1


@inlined
def protected_until(s, p):
    """The end of the rate limit."""
    return s.pcpu[p].dispatched_at + s.host_par[0].ratelimit


@called
def sound(s):
    """Whether its records can be those of a run."""
    par = s.par[0]
    if s.host_world[0].gang < 0 or s.host_world[0].gang >= par.vms:
        return False
    for i in range(par.pcpus):
        pcpu = s.host_pcpu[i]
        if pcpu.idle_bias >= par.pcpus or pcpu.last_tickle >= par.pcpus or pcpu.balance_bias >= par.pcpus:
            return False
        if pcpu.balanced_at > s.world[0].now or pcpu.balanced_at < -INF:
            return False
    for m in range(par.vms):
        active = 0
        for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
            own = s.host_vcpu[i]
            if own.priority > BOOST or own.priority < OVER or own.active > 1 or own.yielding > 1:
                return False
            active += own.active
        if s.host_vm[m].active != active:
            return False
    return True


HOST = Host(
    name="credit",
    describe=describe,
    sources=tuple(Path(part.__file__) for part in (sys.modules[__name__], runqueue, siblings, coscheduling)),
    start=start,
    charge=charge,
    holds=holds,
    put_prev=put_prev,
    pick_next=pick_next,
    set_next=set_next,
    dequeue=dequeue,
    yield_now=yield_now,
    yield_to=yield_to,
    wake=wake,
    migrate=migrate,
    tick=tick,
    period=period,
    protected_until=protected_until,
    sound=sound,
    PARAMETERS=PARAMETERS,
    WORLD=WORLD,
    VM=VM,
    PCPU=PCPU,
    VCPU=VCPU,
)
