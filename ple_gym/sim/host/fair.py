"""Linux's fair scheduler with KVM on it, CFS or EEVDF by version (docs/model.md, 15; kernel/sched/fair.c).

Each pCPU has a root queue of entities: of vCPUs (`host.groups = flat`), or of groups, each of which has a queue of the
vCPUs of a VM on that pCPU (`vm`, `vcpu`). `cfs_rq.py` has what concerns one queue. Who runs stays in these queues; the
neutral runqueue, in order of arrival, has who waits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.calendar import request
from ple_gym.sim.dispatch import enter, socket
from ple_gym.sim.host import cfs_rq, fair_nodes, fair_sound, runqueue
from ple_gym.sim.host.cfs_rq import (
    CFS,
    E612,
    E614,
    E618Y,
    LEAST,
    NICE_0,
    NODE,
    chain,
    charge_queue,
    clear_buddies,
    detach,
    eligible,
    is_ahead,
    pick_eevdf,
    pick_next_entity,
    place_entity,
    requeue_delayed,
    reweight,
    set_next_entity,
    sums,
    update_min_vruntime,
    virtual,
)
from ple_gym.sim.host.fair_nodes import PER_VCPU, count, further, group_of, grouped, queue_of, root_of
from ple_gym.sim.host.fair_sound import sound
from ple_gym.sim.host.runqueue import note_queued, put, remove
from ple_gym.sim.jit import apart, inlined
from ple_gym.sim.seam import Host
from ple_gym.sim.state import GUEST, IDLE, INF, NOISE, NONE

PARAMETERS = np.dtype(
    [
        ("version", "i8"), ("groups", "i8"),
        # cycles: base slice (CFS: least granularity), tick, half a latency (CFS), wake-up granularity (CFS)
        ("slice", "i8"), ("tick", "i8"), ("skew", "i8"), ("sleeper", "i8"), ("granularity", "i8"),
        ("lag", "i8"), ("migration_cost", "i8"),  # largest lag; who has run so recently is hot
        ("farthest", "i8"),  # bound of differences of virtual times in sums
    ]
)  # fmt: skip
VM = np.dtype([("nr", "i8")])  # vCPUs in queues
PCPU = np.dtype(
    [
        ("nr_running", "i8"),  # vCPUs in queues
        ("seq", "i8"),  # how often something was put into a queue
    ],
    align=True,
)  # fmt: skip

CLOCK_DRAW = np.int64(1) << np.int64(20)  # of the host's stream: of the ticks

_VERSIONS = ("5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2")
_GROUPS = ("flat", "vm", "vcpu")


def describe(scenario):
    """Its parameters, of a scenario: times in cycles."""
    host = scenario.host
    version = _VERSIONS.index(host.linux)
    factor = 1 + (min(host.pcpus, 8).bit_length() - 1)  # get_update_sysctl_factor
    slice_us = host.base_slice_us or (750 if version <= E614 else 700) * factor
    granularity_us = host.wakeup_granularity_us or 1000 * factor

    def cycles(us):
        return us * host.tsc_hz // 10**6

    heaviest = sum(max(4 * vm.weight, int(NICE_0)) * vm.vcpus for vm in scenario.vms().values())
    return {
        "version": version,
        "groups": _GROUPS.index(host.groups),
        "slice": cycles(slice_us),
        "tick": cycles(host.tick_us),
        "skew": cycles(host.tick_us) // 2 // host.pcpus if host.skew_tick else 0,
        "sleeper": cycles(4 * slice_us),
        "granularity": cycles(granularity_us),
        "lag": max(2 * cycles(slice_us), cycles(host.tick_us)),
        "migration_cost": cycles(host.migration_cost_us),
        "farthest": 2**61 // heaviest,
    }


# --- levels -----------------------------------------------------------------------------------------------------------


@inlined
def next_seq(s, p):
    """The next place in p's order of arrival."""
    s.host_pcpu[p].seq += 1
    return s.host_pcpu[p].seq


@inlined
def nr_running(s, p):
    """Tasks of p, host noise included [rq->nr_running]."""
    return s.host_pcpu[p].nr_running + (s.pcpu[p].mode == NOISE)


@inlined
def update_queue(s, p, q, t):
    """Charge what runs in queue q of p; returns whether its turn is over."""
    queue = s.host_vcpu[q]
    if queue.curr == NONE or t <= queue.exec_start or s.pcpu[p].mode != GUEST:
        return False
    return charge_queue(s.host_par[0], s.host_vcpu, root_of(s, p), q, t)


@inlined
def update_groups(s, p, t):
    """Charge the group that runs on p; returns whether its turn is over."""
    return grouped(s) and update_queue(s, p, root_of(s, p), t)


@inlined
def nobody_runs(s, p):
    """Let p's queues know that none of theirs runs."""
    root = s.host_vcpu[root_of(s, p)]
    if grouped(s) and root.curr != NONE:
        s.host_vcpu[root.curr].curr = NONE
    root.curr = NONE


@inlined
def share_of(s, g):
    """Group g's part of its VM's shares [calc_group_shares]."""
    m = (np.int64(g) - s.par[0].vcpus - s.par[0].pcpus) % s.par[0].vms
    return max(LEAST, 4 * s.vmp[m].weight * s.host_vcpu[g].nr // max(1, s.host_vm[m].nr))


@apart
def update_shares(s, p, g, t):
    """Give group g on p its weight; returns whether what runs must go [update_cfs_group]."""
    weight = share_of(s, g)
    if weight == s.host_vcpu[g].weight:
        return False
    root = root_of(s, p)
    over = s.host_vcpu[root].curr == g and update_queue(s, p, root, t)
    reweight(s.host_par[0], s.host_vcpu, root, g, weight)
    return over


# --- coming and going -------------------------------------------------------------------------------------------------


@apart
def enqueue(s, p, v, t, wakes):
    """v comes into p's queues; returns whether what runs there must go [enqueue_task_fair]."""
    q, root = queue_of(s, p, v), root_of(s, p)
    over = update_queue(s, p, q, t)
    s.host_pcpu[p].nr_running += 1
    s.host_vm[s.vcpu[v].vm].nr += 1
    place_entity(s.host_par[0], s.host_vcpu, q, v, wakes)
    chain(s.host_vcpu, q, v, next_seq(s, p))
    if q == root:
        return over
    if s.host_vcpu[q].on_rq:
        if s.host_vcpu[q].delayed:
            requeue_delayed(s.host_par[0], s.host_vcpu, root, q, next_seq(s, p))
        return update_shares(s, p, q, t) or over
    over = update_queue(s, p, root, t) or over
    update_shares(s, p, q, t)
    place_entity(s.host_par[0], s.host_vcpu, root, q, True)
    chain(s.host_vcpu, root, q, next_seq(s, p))
    return over


@apart
def dequeue_task(s, p, v, t, sleeps):
    """v leaves p's queues, or its dequeue is delayed; returns whether what runs must go [dequeue_task_fair]."""
    own, q = s.host_par[0], queue_of(s, p, v)
    over = update_queue(s, p, q, t)
    clear_buddies(s.host_vcpu, root_of(s, p), q, v)
    if sleeps and own.version >= E612 and not eligible(s.host_par[0], s.host_vcpu, q, v):
        s.host_vcpu[v].delayed = 1
        s.host_pcpu[p].nr_running -= own.groups == PER_VCPU
        return over
    return take_out(s, p, v, t, sleeps) or over


@apart
def take_out(s, p, v, t, sleeps):
    """v leaves p's queues, and so does its group if v was the last in it."""
    version, q, root = s.host_par[0].version, queue_of(s, p, v), root_of(s, p)
    s.host_pcpu[p].nr_running -= not (s.host_par[0].groups == PER_VCPU and s.host_vcpu[v].delayed)
    s.host_vm[s.vcpu[v].vm].nr -= 1
    detach(s.host_par[0], s.host_vcpu, q, v, not sleeps)
    queue = s.host_vcpu[q]
    queue.curr = NONE if queue.curr == v else queue.curr
    if q == root:
        return False
    if queue.nr > 0:
        if sleeps and (version == CFS or version >= E614):
            s.host_vcpu[root].next = q
        return update_shares(s, p, q, t)
    over = update_queue(s, p, root, t)
    clear_buddies(s.host_vcpu, root, root, q)
    if version >= E612 and not eligible(s.host_par[0], s.host_vcpu, root, q):
        queue.delayed = 1
    else:
        take_group_out(s, root, q)
    return over


@inlined
def take_group_out(s, root, g):
    """Group g, of which nobody is left, leaves its root queue."""
    detach(s.host_par[0], s.host_vcpu, root, g, False)
    queue = s.host_vcpu[root]
    queue.curr = NONE if queue.curr == g else queue.curr


@apart
def move(s, v, q, t):
    """v leaves its pCPU's queues for q's; pCPUs whose current vCPU's turn is over are asked to reschedule."""
    p = s.vcpu[v].pcpu
    if dequeue_task(s, p, v, t, False):
        request(s, p, t)
    renormalise(s, v, p, q)
    if enqueue(s, q, v, t, False):
        request(s, q, t)


@inlined
def renormalise(s, v, p, q):
    """Under CFS v's virtual time is that of its queue on q from now on, not of that on p."""
    if s.host_par[0].version == CFS:
        there, here = s.host_vcpu[queue_of(s, q, v)].min_vruntime, s.host_vcpu[queue_of(s, p, v)].min_vruntime
        s.host_vcpu[v].vruntime += there - here


# --- picking ----------------------------------------------------------------------------------------------------------


@apart
def pick_task(s, p, t):
    """Who runs next on p, or NONE; whose delayed dequeue is due goes on the way [pick_task_fair]."""
    root = root_of(s, p)
    while s.host_vcpu[root].nr > 0:
        x = pick_next_entity(s.host_par[0], s.host_vcpu, root)
        if grouped(s):
            if s.host_vcpu[x].nr == 0:
                clear_buddies(s.host_vcpu, root, root, x)
                take_group_out(s, root, x)
                continue
            x = pick_next_entity(s.host_par[0], s.host_vcpu, x)
        if not s.host_vcpu[x].delayed:
            return x
        clear_buddies(s.host_vcpu, root_of(s, p), queue_of(s, p, x), x)
        take_out(s, p, x, t, True)
    return NONE


@inlined
def hot(s, v, t):
    """Whether v has run so recently that its cache is worth more than an idle pCPU [task_hot]."""
    return s.vcpu[v].dispatches > 0 and t - s.vcpu[v].left_at < s.host_par[0].migration_cost


@inlined
def first_cold(s, q, t):
    """The first of q's queue that may be moved, or NONE."""
    for j in range(np.int64(s.pcpu[q].queued)):
        v = np.uint32(s.queue[q, j])
        if not hot(s, v, t):
            return v
    return NONE


@apart
def newidle_balance(s, p, t):
    """Who comes to p, which has nothing to do, from the busiest pCPU: of its socket, then of all; or NONE."""
    for near in (True, False):
        busiest, most = NONE, np.int64(1)
        for i in range(s.par[0].pcpus):
            q = np.uint32(i)
            if q != p and nr_running(s, q) > most and (not near or socket(s, q) == socket(s, p)):
                busiest, most = q, nr_running(s, q)
        if busiest != NONE:
            v = first_cold(s, busiest, t)
            if v != NONE:
                s.world[0].steals += 1
                return v
    return NONE


# --- hooks ------------------------------------------------------------------------------------------------------------


@apart
def start(s, key):
    """Who is queued is in its queue at virtual time 0, with half a slice; ticks are in step or skewed."""
    par, own = s.par[0], s.host_par[0]
    tick_at = 1 + rng.share(rng.high(rng.draw(key, CLOCK_DRAW)), own.tick)
    for i in range(count(s)):
        node = s.host_vcpu[i]
        node.after, node.first, node.curr, node.next, node.skip = NONE, NONE, NONE, NONE, NONE
    for i in range(par.vcpus):
        s.host_vcpu[i].weight = NICE_0 if grouped(s) else 4 * s.vmp[s.vcpu[i].vm].weight
    for i in range(par.pcpus):
        p = np.uint32(i)
        s.pcpu[p].tick_at = tick_at + own.skew * i
        for j in range(np.int64(s.pcpu[p].queued)):
            fork(s, p, np.uint32(s.queue[p, j]))
    for i in range(par.vcpus + par.pcpus, count(s)):
        group = s.host_vcpu[i]
        group.weight = share_of(s, i)
        group.deadline = virtual(own.slice, group) // 2


@inlined
def fork(s, p, v):
    """v is new on p."""
    q, root = queue_of(s, p, v), root_of(s, p)
    s.host_vcpu[v].deadline = virtual(s.host_par[0].slice, s.host_vcpu[v]) // 2
    s.host_vm[s.vcpu[v].vm].nr += 1
    s.host_pcpu[p].nr_running += 1
    chain(s.host_vcpu, q, v, next_seq(s, p))
    if q != root and not s.host_vcpu[q].on_rq:
        chain(s.host_vcpu, root, q, next_seq(s, p))


@inlined
def charge(s, p, t):
    """Charge p's vCPU, and its group."""
    update_queue(s, p, queue_of(s, p, s.pcpu[p].current), t)
    update_groups(s, p, t)


@inlined
def holds(s, p, t):
    """Whoever is asked to go goes; it may be picked again."""
    return False


@apart
def put_prev(s, p, v, t, stays):
    """v waits, last in order of arrival; or it sleeps, and leaves its queues if they let it."""
    home = s.vcpu[v].pcpu
    if not stays:
        dequeue_task(s, home, v, t, True)
        return
    if home != p:
        move(s, v, p, t)
    s.host_vcpu[v].seq = next_seq(s, p)
    if grouped(s):
        s.host_vcpu[group_of(s, p, v)].seq = next_seq(s, p)
    note_queued(s, p, v, t)
    put(s, p, v, np.int64(s.pcpu[p].queued))


@apart
def pick_next(s, p, t):
    """The choice of p's queues; an idle pCPU looks elsewhere. Whatever was asked of p is done."""
    s.pcpu[p].resched_at = INF
    if s.pcpu[p].current == NONE:
        nobody_runs(s, p)
    v = pick_task(s, p, t)
    if v == NONE:
        v = newidle_balance(s, p, t)
    hinted = s.pcpu[p].hinted
    if hinted != NONE:
        s.world[0].hints_won += v == hinted
        s.world[0].hints_ignored += v != hinted
    if v == NONE:
        return v
    if s.vcpu[v].pcpu == p:
        remove(s, p, v)
    else:
        remove(s, s.vcpu[v].pcpu, v)
        move(s, v, p, t)
        s.vcpu[v].pcpu = p
    return v


@apart
def set_next(s, p, v, t):
    """v runs: its protection begins, unless it goes on. Slices end at ticks."""
    if s.vcpu[v].pcpu != p:
        move(s, v, p, t)
        s.vcpu[v].pcpu = p
    q, root = queue_of(s, p, v), root_of(s, p)
    if s.host_vcpu[q].curr == v:
        return INF
    clear_buddies(s.host_vcpu, root_of(s, p), q, v)
    if q != root and s.host_vcpu[root].curr != q:
        nobody_runs(s, p)
        set_next_entity(s.host_vcpu, root, q, t)
    set_next_entity(s.host_vcpu, q, v, t)
    return INF


@apart
def yield_now(s, p, v):
    """v yields in its own queue, if p has another task at all [yield_task_fair]."""
    own, q = s.host_par[0], queue_of(s, p, v)
    if nr_running(s, p) == 1:
        return
    clear_buddies(s.host_vcpu, root_of(s, p), q, v)
    charge(s, p, s.world[0].now)
    if own.version == CFS:
        s.host_vcpu[q].skip = v
        if grouped(s):
            s.host_vcpu[root_of(s, p)].skip = q
        return
    if own.groups == PER_VCPU:
        return  # it is alone in its queue
    e = s.host_vcpu[v]
    if own.version == E618Y:
        if not eligible(s.host_par[0], s.host_vcpu, q, v):
            return
        e.vruntime = e.deadline
    e.deadline += virtual(own.slice, e)
    update_min_vruntime(s.host_vcpu, q)


@apart
def yield_to(s, p, q, v, t):
    """v is the next buddy at every level on q, which must choose anew [yield_to, yield_to_task_fair].

    It fails where there is nobody else on either pCPU.
    """
    world = s.world[0]
    world.hints += 1
    if nr_running(s, p) == 1 and nr_running(s, q) == 1:
        world.hints_failed += 1
        return False
    world.hints_ignored += s.pcpu[q].hinted != NONE
    set_next_buddy(s, q, v)
    if q != p:
        request(s, q, t)
    return True


@inlined
def set_next_buddy(s, p, v):
    """v is the next buddy on p, at every level."""
    s.host_vcpu[queue_of(s, p, v)].next = v
    if grouped(s):
        s.host_vcpu[root_of(s, p)].next = group_of(s, p, v)


@inlined
def idle(s, p):
    """Whether p has nothing to do, now or soon [available_idle_cpu]."""
    return s.pcpu[p].mode == IDLE and s.host_pcpu[p].nr_running == 0


@inlined
def select_task_rq(s, v):
    """Where v wakes: where it ran if that is idle, else on an idle pCPU of that socket, else where it ran."""
    prev = s.vcpu[v].pcpu
    n = s.par[0].pcpus
    for i in range(n):
        q = np.uint32((np.int64(prev) + i) % n)
        if idle(s, q) and socket(s, q) == socket(s, prev):
            return q
    return prev


@apart
def wake(s, v, t):
    """v wakes where its dequeue is delayed, or on an idle pCPU; it may preempt who runs there."""
    p = s.vcpu[v].pcpu
    over = False
    if s.host_vcpu[v].delayed:
        undelay(s, p, v, t)
    else:
        q = select_task_rq(s, v)
        renormalise(s, v, p, q)
        over = enqueue(s, q, v, t, True)
        p = q
    note_queued(s, p, v, t)
    put(s, p, v, np.int64(s.pcpu[p].queued))
    if s.pcpu[p].mode == IDLE or over or check_preempt_wakeup(s, p, v, t):
        request(s, p, t)


@inlined
def undelay(s, p, v, t):
    """v wakes before its dequeue was due."""
    s.host_pcpu[p].nr_running += s.host_par[0].groups == PER_VCPU
    requeue_delayed(s.host_par[0], s.host_vcpu, queue_of(s, p, v), v, next_seq(s, p))


@apart
def check_preempt_wakeup(s, p, v, t):
    """Whether v, which has been queued on p, preempts who runs there: at the level where their ways part."""
    if s.pcpu[p].mode != GUEST or s.pcpu[p].resched_at != INF:
        return False
    root, q, x = root_of(s, p), queue_of(s, p, v), v
    if q != root and s.host_vcpu[root].curr != q:
        q, x = root, q
    if update_queue(s, p, q, t):
        return True
    if s.host_par[0].version != CFS:
        return pick_eevdf(s.host_par[0], s.host_vcpu, q) == x
    ahead = s.host_vcpu[s.host_vcpu[q].curr].vruntime - s.host_vcpu[x].vruntime
    if ahead <= virtual(s.host_par[0].granularity, s.host_vcpu[x]):
        return False
    s.host_vcpu[q].next = x
    if grouped(s):
        s.host_vcpu[root].next = group_of(s, p, v)
    return True


@inlined
def migrate(s, v, t):
    """Nobody is marked to be moved."""


@apart
def tick(s, p, t):
    """p's tick: whether the turn of its vCPU, or of its group, is over [task_tick_fair]."""
    own, pcpu, root = s.host_par[0], s.pcpu[p], root_of(s, p)
    pcpu.tick_at += own.tick
    if pcpu.mode != GUEST:
        return False
    v = pcpu.current
    q = queue_of(s, p, v)
    over = update_queue(s, p, q, t)
    if own.version == CFS:
        over = is_late(s, p, q, v, part(s, p, q, v)) or over
    if q != root:
        over = update_queue(s, p, root, t) or over
        over = update_shares(s, p, q, t) or over
        if own.version == CFS:
            over = is_late(s, p, root, q, part(s, p, root, q)) or over
    if not over:
        enter(s, p, t)
    return over


@apart
def is_late(s, p, q, x, ideal):
    """Whether entity x of queue q, which runs, must make room for another (CFS) [check_preempt_tick]."""
    if s.host_vcpu[q].nr == 1:
        return False
    if s.host_vcpu[x].ran > ideal:
        clear_buddies(s.host_vcpu, root_of(s, p), q, x)
        return True
    return is_ahead(s.host_par[0], s.host_vcpu, q, x, ideal)


@apart
def part(s, p, q, x):
    """How long entity x of queue q may run on p at a time (CFS) [sched_slice]."""
    own, root = s.host_par[0], root_of(s, p)
    time = max(np.int64(8), s.host_pcpu[p].nr_running) * own.slice
    time = time * s.host_vcpu[x].weight // sums(s.host_par[0], s.host_vcpu, q)[0]
    if q != root:
        time = time * s.host_vcpu[q].weight // sums(s.host_par[0], s.host_vcpu, root)[0]
    return max(own.slice, time)


@inlined
def period(s):
    """There is none."""


@inlined
def protected_until(s, p):
    """Nobody is protected."""
    return np.int64(0)


_SOURCES = (__file__, cfs_rq.__file__, fair_nodes.__file__, fair_sound.__file__, runqueue.__file__)
HOST = Host(
    name="fair",
    describe=describe,
    sources=tuple(Path(str(file)) for file in _SOURCES),
    start=start,
    charge=charge,
    holds=holds,
    put_prev=put_prev,
    pick_next=pick_next,
    set_next=set_next,
    dequeue=remove,
    yield_now=yield_now,
    yield_to=yield_to,
    wake=wake,
    migrate=migrate,
    tick=tick,
    period=period,
    protected_until=protected_until,
    sound=sound,
    PARAMETERS=PARAMETERS,
    VM=VM,
    PCPU=PCPU,
    VCPU=NODE,
    further=further,
)
