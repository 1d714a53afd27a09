"""Xen's credit2 scheduler (docs/model.md, section 9b; xen/common/sched/credit2.c of 4.14 to 4.22).

pCPUs share a queue, which is a list of vCPUs in the order of their credit, linked in their records. The queue of a pCPU
is those of the list that ran there last. Credit is in cycles: a vCPU of the largest weight burns one in each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ple_gym.scenario.model import XEN
from ple_gym.sim import rng
from ple_gym.sim.affinity import may_run_on
from ple_gym.sim.calendar import request
from ple_gym.sim.dispatch import socket
from ple_gym.sim.host import runqueue
from ple_gym.sim.host.runqueue import note_queued, put, remove
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.seam import Host
from ple_gym.sim.state import GUEST, IDLE, INF, NONE, QUEUED

#: Which pCPUs share a queue.
PER_CPU, PER_SOCKET, FOR_ALL = 0, 1, 2
_RUNQUEUES = {"cpu": PER_CPU, "socket": PER_SOCKET, "all": FOR_ALL}
MOST_PCPUS = 16  # of a queue [sched_credit2_max_cpus_runqueue]

PARAMETERS = np.dtype(
    [
        ("runqueue", "i8"), ("most_pcpus", "i8"), ("max_weight", "i8"), ("counts_leaving", "i8"), ("ratelimit", "i8"),
        ("credit", "i8"), ("carryover", "i8"), ("shortest", "i8"), ("resist", "i8"), ("bonus", "i8"),
        ("tolerance", "i8"), ("most_credit", "i8"),
    ]
)  # fmt: skip
WORLD = np.dtype(
    [
        ("leaving", "u4"),  # who has left its pCPU and is in no list until the switch is done, or NONE
        ("chosen", "u4"),  # who runs next in its place
    ]
)
PCPU = np.dtype(
    [
        ("leader", "u4"),  # the first pCPU of those that share its queue
        ("first", "u4"),  # of a leader: the head of the list, or NONE
        ("members", "u4"),  # of a leader: how many pCPUs share the queue
        ("unsorted", "u4"),  # of a leader: how many of the list are so
    ]
)  # fmt: skip
VCPU = np.dtype(
    [
        ("credit", "i8"), ("residual", "i8"), ("burned_at", "i8"),
        ("before", "u4"), ("behind", "u4"),  # its neighbours in the list, or NONE
        ("tickled", "u4"),  # pCPU that was asked to run it, or NONE
        ("yielding", "u1"),
        ("unsorted", "u1"), ("pad0", "u2"),  # 1: it was put at the head of the list, or queued while there was one such
    ]
)  # fmt: skip

PHASE_DRAW = np.int64(1) << np.int64(20)  # of the host's stream: those of the pCPUs follow


def describe(scenario):
    """Its parameters, of a scenario: times and credits in cycles."""
    host = scenario.host

    def us(n):
        return n * host.tsc_hz // 10**6

    return {
        "runqueue": _RUNQUEUES[host.runqueue],
        "most_pcpus": host.pcpus // ((host.pcpus - 1) // MOST_PCPUS + 1),
        "max_weight": max(vm.weight for vm in scenario.vms().values()),
        "counts_leaving": XEN.index(host.xen) >= XEN.index("4.21"),  # ae648e9f80
        "ratelimit": us(host.ratelimit_us),
        "credit": us(10_000),  # CSCHED2_CREDIT_INIT, and the longest slice
        "carryover": us(500),
        "shortest": us(500),  # CSCHED2_MIN_TIMER
        "resist": us(500),
        "bonus": us(50),  # CSCHED2_MIGRATE_COMPENSATION
        "tolerance": us(50),
        "most_credit": 2 * host.tsc_hz,
    }


# --- the list ---------------------------------------------------------------------------------------------------------


@inlined
def leader(s, p):
    """The first of the pCPUs that share p's queue."""
    return s.host_pcpu[p].leader


@inlined
def in_order(s, group):
    """Whether the list of a queue (its leader's record) is in the order of credit."""
    return group.unsorted == 0


@called
def enlist(s, v):
    """Put v into its list, before the first who has less credit [runq_insert]."""
    p, credit = s.vcpu[v].pcpu, s.host_vcpu[v].credit
    group = s.host_pcpu[leader(s, p)]
    before, row = NONE, np.int64(0)
    if in_order(s, group):  # then p's own are, too, and v is behind those of them who have no less
        row = np.int64(s.pcpu[p].queued)
        while row > 0 and s.host_vcpu[np.uint32(s.queue[p, row - 1])].credit < credit:
            row -= 1
        before = np.uint32(s.queue[p, row - 1]) if row > 0 else NONE
    at = group.first if before == NONE else s.host_vcpu[before].behind
    while at != NONE and s.host_vcpu[at].credit >= credit:
        if not in_order(s, group):
            row += s.vcpu[at].pcpu == p
        before, at = at, s.host_vcpu[at].behind
    if not in_order(s, group):
        s.host_vcpu[v].unsorted = 1
        group.unsorted += 1
    link(s, group, before, v, at)
    put(s, p, v, row)


@called
def enlist_ahead(s, v):
    """Put v at the head of its list."""
    p = s.vcpu[v].pcpu
    group = s.host_pcpu[leader(s, p)]
    s.host_vcpu[v].unsorted = 1
    group.unsorted += 1
    link(s, group, NONE, v, group.first)
    put(s, p, v, np.int64(0))


@inlined
def link(s, group, before, v, behind):
    """Let `before`, v, and `behind` follow one another in a list; NONE: there is nobody."""
    s.host_vcpu[v].before = before
    s.host_vcpu[v].behind = behind
    join(s, group, before, v)
    if behind != NONE:
        s.host_vcpu[behind].before = v


@inlined
def join(s, group, before, v):
    """Let v follow `before`, or be the first."""
    if before == NONE:
        group.first = v
    else:
        s.host_vcpu[before].behind = v


@called
def dequeue(s, p, v):
    """Take v out of its list."""
    own, group = s.host_vcpu[v], s.host_pcpu[leader(s, p)]
    join(s, group, own.before, own.behind)
    if own.behind != NONE:
        s.host_vcpu[own.behind].before = own.before
    group.unsorted -= own.unsorted
    own.unsorted = 0
    own.before = NONE
    own.behind = NONE
    remove(s, p, v)


@inlined
def for_another(s, v, p):
    """Whether another pCPU than p has been asked to run v, and will."""
    tickled = s.host_vcpu[v].tickled
    return tickled != NONE and tickled != p and s.pcpu[tickled].resched_at < INF


@called
def candidate(s, p, credit, yields):
    """Who of p's list should run there rather than who has `credit` (or yields), or NONE [runq_candidate]."""
    least = credit + s.host_par[0].resist
    group = s.host_pcpu[leader(s, p)]
    at = group.first
    while at != NONE and (s.host_vcpu[at].credit >= least or not in_order(s, group)):
        v, own = at, s.host_vcpu[at]
        at = own.behind
        if not yields and own.credit <= credit:
            return NONE
        resists = s.vcpu[v].pcpu != p and own.credit < least
        if not resists and not for_another(s, v, p) and may_run_on(s, v, p):
            return v
    if at != NONE:  # from here on only p's own, who may always run there
        for i in range(np.int64(s.pcpu[p].queued)):
            v = np.uint32(s.queue[p, i])
            if not yields and s.host_vcpu[v].credit <= credit:
                return NONE
            if not for_another(s, v, p):
                return v
    return NONE


# --- credit -----------------------------------------------------------------------------------------------------------


@inlined
def burn(s, v, t):
    """v, which runs, pays for its time since it last paid [burn_credits, t2c_update]."""
    own, par = s.host_vcpu[v], s.host_par[0]
    weight = s.vmp[s.vcpu[v].vm].weight
    paid = t - own.burned_at
    if weight != par.max_weight:
        x = paid * par.max_weight + own.residual
        paid = x // weight
        own.residual = x - paid * weight
    own.credit = max(own.credit - paid, -par.credit)
    own.burned_at = t


@called
def reset(s, p, v, t):
    """Everybody of p's queue gets credit, because v, which has the most, has none [reset_credit]."""
    par = s.host_par[0]
    group = leader(s, p)
    more = par.credit if s.host_vcpu[v].credit > -par.credit else 2 * par.credit
    for i in range(s.par[0].pcpus):
        if s.host_pcpu[i].leader == group and s.pcpu[i].mode == GUEST:
            burn(s, s.pcpu[i].current, t)
    for i in range(s.par[0].vcpus):
        if leader(s, s.vcpu[i].pcpu) == group:
            own = s.host_vcpu[i]
            own.credit = min(own.credit + more, par.credit + par.carryover)
            own.burned_at = t


@inlined
def begin(s, p, v, t):
    """v runs on p from now on, or goes on there: the epoch may end, and the others give it up [csched2_schedule]."""
    own = s.host_vcpu[v]
    first = s.host_pcpu[leader(s, p)].first
    own.burned_at = t
    own.tickled = NONE
    top = own.credit if first == NONE else max(own.credit, s.host_vcpu[first].credit)
    if top <= 0:
        reset(s, p, v, t)


@called
def runtime(s, p, v, least):
    """Cycles until v must have somebody else looked for, at least so many [csched2_runtime]."""
    par = s.host_par[0]
    first, leaving = s.host_pcpu[leader(s, p)].first, s.host_world[0].leaving
    waiting = np.int64(0)
    if first != NONE:
        waiting = max(waiting, s.host_vcpu[first].credit)
    if par.counts_leaving and leaving != NONE and leader(s, s.vcpu[leaving].pcpu) == leader(s, p):
        waiting = max(waiting, s.host_vcpu[leaving].credit)
    time, weight = max(np.int64(0), s.host_vcpu[v].credit - waiting), s.vmp[s.vcpu[v].vm].weight
    if weight != par.max_weight:
        time = time * weight // par.max_weight
    least = max(par.shortest, least)
    return least if time < least else min(time, par.credit)


# --- tickling ---------------------------------------------------------------------------------------------------------


@inlined
def is_protected(s, q, t):
    """Whether who runs on q does so by the rate limit."""
    par = s.host_par[0]
    return (par.ratelimit > par.tolerance) & (t - s.pcpu[q].dispatched_at <= par.ratelimit - par.tolerance)


@inlined
def score(s, q, v, t):
    """By how much v should rather run on q than who does; 0 or less: it should not [tickle_score]."""
    par, pcpu = s.host_par[0], s.pcpu[q]
    if pcpu.mode != GUEST or is_protected(s, q, t) or not may_tickle(s, q, v):
        return np.int64(0)
    burn(s, pcpu.current, t)
    more = s.host_vcpu[v].credit - s.host_vcpu[pcpu.current].credit
    return more if s.vcpu[v].pcpu == q else more - par.resist


@inlined
def may_tickle(s, q, v):
    """Whether q is in v's queue, may run it, and has not been asked to reschedule yet."""
    return leader(s, q) == leader(s, s.vcpu[v].pcpu) and may_run_on(s, v, q) and s.pcpu[q].resched_at == INF


@called
def to_tickle(s, v, t):
    """Which pCPU should look at v, which has been queued, or NONE [runq_tickle]: an idle one, its own, another."""
    n = s.par[0].pcpus
    own = s.vcpu[v].pcpu
    everybody = True
    for i in range(n):
        turn = np.int64(own) + i
        q = np.uint32(turn if turn < n else turn - n)
        everybody &= is_protected(s, q, t)
        if s.pcpu[q].mode == IDLE and may_tickle(s, q, v):
            return q
    if everybody:  # is protected, as ever in a storm of yields
        return NONE
    if score(s, own, v, t) > 0:
        return own
    best, found = np.int64(0), NONE
    for i in range(n):
        q = np.uint32(i)
        gain = score(s, q, v, t) if q != own else np.int64(0)
        if gain > best:
            best, found = gain, q
    return found


@inlined
def tickle(s, v, t):
    """Ask a pCPU to look at v, if one should."""
    q = to_tickle(s, v, t)
    if q != NONE:
        s.host_vcpu[v].tickled = q
        request(s, q, t)


# --- hooks ------------------------------------------------------------------------------------------------------------


@inlined
def shares(s, q, p):
    """Whether p may join the queue that q is the leader of."""
    own = s.host_par[0]
    if s.host_pcpu[q].leader != q or s.host_pcpu[q].members >= own.most_pcpus:
        return False
    return own.runqueue == FOR_ALL or (own.runqueue == PER_SOCKET and socket(s, q) == socket(s, p))


@called
def group_pcpus(s):
    """Which pCPUs share a queue: each joins the smallest that it may, the first of equals [cpu_add_to_runqueue]."""
    for i in range(s.par[0].pcpus):
        found = np.uint32(i)
        for j in range(i):
            q = np.uint32(j)
            fewer = found == i or s.host_pcpu[q].members < s.host_pcpu[found].members
            if shares(s, q, np.uint32(i)) and fewer:
                found = q
        s.host_pcpu[i].leader = found
        s.host_pcpu[i].first = NONE
        s.host_pcpu[found].members += 1


@inlined
def start(s, key):
    """Everybody has the credit of an epoch; a list is the first of each of its pCPUs, then the second of each, ..."""
    s.host_world[0].leaving = NONE
    group_pcpus(s)
    for i in range(s.par[0].vcpus):
        s.host_vcpu[i].credit = s.host_par[0].credit
        s.host_vcpu[i].before = NONE
        s.host_vcpu[i].behind = NONE
        s.host_vcpu[i].tickled = NONE
    for turn in range(s.par[0].vcpus, 0, -1):
        for i in range(s.par[0].pcpus - 1, -1, -1):
            p = np.uint32(i)
            if s.pcpu[p].queued >= turn:
                group = s.host_pcpu[leader(s, p)]
                link(s, group, NONE, np.uint32(s.queue[p, turn - 1]), group.first)


@inlined
def charge(s, p, t):
    """p's vCPU pays."""
    burn(s, s.pcpu[p].current, t)


@inlined
def holds(s, p, t):
    """Whether p's vCPU goes on: by the rate limit, which a yield ends, or because nobody is better."""
    pcpu, own = s.pcpu[p], s.host_par[0]
    current = s.host_vcpu[pcpu.current]
    yields = current.yielding != 0
    current.yielding = 0
    ran = t - pcpu.dispatched_at
    if yields or ran >= own.ratelimit:
        s.host_world[0].chosen = candidate(s, p, current.credit, yields)
        if s.host_world[0].chosen != NONE:
            return False
    begin(s, p, pcpu.current, t)
    pcpu.slice_end = t + runtime(s, p, pcpu.current, own.ratelimit - ran)
    return True


@inlined
def put_prev(s, p, v, t, stays):
    """v waits for the end of the switch."""
    s.host_vcpu[v].yielding = 0
    if stays:
        note_queued(s, p, v, t)
        s.host_world[0].leaving = v


@inlined
def switched(s, p, t):
    """Who left, and stays runnable, is queued by its credit, and may preempt somebody [csched2_context_saved]."""
    v = s.host_world[0].leaving
    if v != NONE:
        s.host_world[0].leaving = NONE
        enlist(s, v)
        tickle(s, v, t)


@inlined
def pick_next(s, p, t):
    """Whom `holds` has found better; if p has nobody who stays, the first that may run here."""
    if s.host_world[0].leaving != NONE:
        found = s.host_world[0].chosen
    else:
        found = candidate(s, p, -s.host_par[0].credit - 1, False)
    if found != NONE:
        s.world[0].steals += s.vcpu[found].pcpu != p
        dequeue(s, s.vcpu[found].pcpu, found)
    return found


@inlined
def set_next(s, p, v, t):
    """A slice until v's credit is that of the next; the first one of a run has its own phase."""
    own = s.host_par[0]
    moved = s.vcpu[v].pcpu != p
    s.vcpu[v].pcpu = p
    begin(s, p, v, t)
    if moved:
        s.host_vcpu[v].credit = min(s.host_vcpu[v].credit + own.bonus, own.most_credit)
    slice_end = t + runtime(s, p, v, own.ratelimit)
    if t == 0:
        world = s.world[0]
        key = rng.stream_key(rng.world_key(world.seed, world.index), rng.STREAM_HOST)
        slice_end += rng.share(rng.low(rng.draw(key, PHASE_DRAW + 1 + np.int64(p))), own.credit)
    return slice_end


@inlined
def yield_now(s, p, v):
    """v gives up the rate limit, and is passed over in the next choice."""
    s.host_vcpu[v].yielding = 1


@inlined
def yield_to(s, p, q, v, t):
    """v goes to the head of its list, and a pCPU is asked as if it had woken."""
    dequeue(s, q, v)
    enlist_ahead(s, v)
    tickle(s, v, t)
    return True


@inlined
def wake(s, v, t):
    """v is queued by its credit, and a pCPU asked to look at it: nobody is boosted [csched2_unit_wake]."""
    note_queued(s, s.vcpu[v].pcpu, v, t)
    enlist(s, v)
    tickle(s, v, t)


@inlined
def migrate(s, v, t):
    """Nobody is marked."""


@inlined
def tick(s, p, t):
    """There is none."""
    return False


@inlined
def period(s):
    """There is none."""


@inlined
def protected_until(s, p):
    """The end of the rate limit."""
    return s.pcpu[p].dispatched_at + s.host_par[0].ratelimit


@called
def sound(s):
    """Whether its records can be those of a run: every list holds its queued vCPUs, each once."""
    par, own = s.par[0], s.host_par[0]
    if s.host_world[0].leaving != NONE:
        return False
    queued = 0
    for i in range(par.pcpus):
        group = s.host_pcpu[i].leader
        if group > i or s.host_pcpu[group].leader != group:
            return False
        queued += np.int64(s.pcpu[i].queued)
    for i in range(par.vcpus):
        vcpu = s.host_vcpu[i]
        if (vcpu.behind != NONE and vcpu.behind >= par.vcpus) or (vcpu.tickled != NONE and vcpu.tickled >= par.pcpus):
            return False
        if vcpu.credit < -own.credit or vcpu.credit > own.most_credit or vcpu.yielding > 1:
            return False
        if vcpu.residual < 0 or vcpu.residual >= s.vmp[s.vcpu[i].vm].weight or vcpu.burned_at > s.world[0].now:
            return False
        if vcpu.burned_at < 0:
            return False
    for i in range(par.pcpus):
        before, at, unsorted = NONE, s.host_pcpu[i].first, np.int64(0)
        while at != NONE:
            queued -= 1
            if at >= par.vcpus or queued < 0 or s.vcpu[at].state != QUEUED or leader(s, s.vcpu[at].pcpu) != i:
                return False
            if s.host_vcpu[at].before != before or s.host_vcpu[at].unsorted > 1:
                return False
            unsorted += s.host_vcpu[at].unsorted
            before, at = at, s.host_vcpu[at].behind
        if s.host_pcpu[i].unsorted != unsorted:
            return False
    return queued == 0


@inlined
def queue_of(s, p):
    """Whose queue p uses, and whose lock."""
    return leader(s, p)


HOST = Host(
    name="credit2",
    describe=describe,
    sources=(Path(__file__), Path(runqueue.__file__)),
    start=start,
    charge=charge,
    holds=holds,
    put_prev=put_prev,
    switched=switched,
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
    queue_of=queue_of,
    sound=sound,
    PARAMETERS=PARAMETERS,
    WORLD=WORLD,
    PCPU=PCPU,
    VCPU=VCPU,
)
