"""Linux's fair scheduler with KVM on it, CFS or EEVDF by version (docs/model.md, 15; kernel/sched/fair.c).

Each pCPU has a root queue of entities: of vCPUs (`host.groups = flat`), or of groups, each of which has a queue of the
vCPUs of a VM on that pCPU (`vm`, `vcpu`). Who runs stays in these queues; the neutral runqueue, in order of arrival,
has who waits. `cfs_rq.py` has what concerns one queue, `fair_queues.py` a pCPU's, `fair_balance.py` those of several.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.affinity import may_run_on
from ple_gym.sim.calendar import refresh_host, request
from ple_gym.sim.dispatch import enter, socket
from ple_gym.sim.host import cfs_rq, fair_balance, fair_nodes, fair_queues, fair_sound, runqueue
from ple_gym.sim.host.cfs_rq import (
    CFS,
    E612,
    E614,
    E618Y,
    NICE_0,
    NODE,
    advance,
    chain,
    clear_buddies,
    eligible,
    is_ahead,
    lag_behind,
    pick_next_entity,
    requeue_delayed,
    set_next_entity,
    virtual,
)
from ple_gym.sim.host.fair_balance import balance, newidle_balance
from ple_gym.sim.host.fair_nodes import PER_VCPU, count, further, group_of, grouped, queue_of, root_of
from ple_gym.sim.host.fair_queues import (
    check_preempt_wakeup,
    dequeue_task,
    enqueue,
    move,
    next_seq,
    nobody_runs,
    nr_running,
    renormalise,
    share_of,
    take_group_out,
    take_out,
    update_groups,
    update_queue,
    update_shares,
)
from ple_gym.sim.host.fair_sound import sound
from ple_gym.sim.host.runqueue import note_queued, put, remove
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.seam import Host
from ple_gym.sim.state import GUEST, IDLE, INF, NONE, POLLING, QUEUED

PARAMETERS = np.dtype(
    [
        ("version", "i8"), ("groups", "i8"),
        # cycles: base slice (CFS: least granularity), tick, half a latency (CFS), wake-up granularity (CFS)
        ("slice", "i8"), ("tick", "i8"), ("skew", "i8"), ("jitter", "i8"), ("sleeper", "i8"), ("granularity", "i8"),
        ("lag", "i8"), ("migration_cost", "i8"),  # largest lag; who has run so recently is hot
        ("balance", "i8"), ("millisecond", "i8"),  # whether there is periodic balancing; cycles
        ("halt_poll", "i8"), ("first_poll", "i8"),  # cycles: the longest poll for a vCPU that sleeps, the first one
        ("kick_yields", "i8"),  # 15.14
        ("debooster", "i8"), ("rest", "i8"), ("answer", "i8"),  # 15.13; cycles
        ("farthest", "i8"),  # bound of differences of virtual times in sums
    ]
)  # fmt: skip
WORLD = np.dtype([("key", "u8")])  # of the host's stream
VM = np.dtype([("nr", "i8")])  # vCPUs in queues
PCPU = np.dtype(
    [
        ("nr_running", "i8"),  # vCPUs in queues
        ("seq", "i8"),  # how often something was put into a queue
        ("due", "i8"),  # when its next tick would come if none were late
        # of its domains, socket and machine: the tick of the last attempt to balance; how many have failed; whether the
        # last one found all in balance
        ("balanced", "i8", (2,)), ("failed", "i8", (2,)), ("relaxed", "i8", (2,)),
        # of the last directed yield between siblings here: who, to whom, when; when a yielder has fallen back (15.13)
        ("yielder", "u4"), ("yielded_to", "u4"), ("yielded_at", "i8"), ("fell_back_at", "i8"),
    ],
    align=True,
)  # fmt: skip

OFF, ISHIGURO, LI = np.arange(3)  # deboosters
REST_US, ANSWER_US = 6000, 600  # Li's: between two of a pCPU; a yield back within so long is an answer

CLOCK_DRAW = np.int64(1) << np.int64(20)  # of the host's stream: of the ticks; those of each tick follow

MOST_PCPUS = np.int64(1024)  # draws of a tick

FIRST_POLL_US = 10  # halt_poll_ns_grow_start

_VERSIONS = ("5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2")
_GROUPS = ("flat", "vm", "vcpu")
_DEBOOSTERS = ("off", "ishiguro", "li")


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
        "jitter": host.tick_jitter_cycles,
        "sleeper": cycles(4 * slice_us),
        "granularity": cycles(granularity_us),
        "lag": max(2 * cycles(slice_us), cycles(host.tick_us)),
        "migration_cost": cycles(host.migration_cost_us),
        "balance": host.load_balance,
        "millisecond": host.tsc_hz // 1000,
        "halt_poll": cycles(host.halt_poll_us),
        "first_poll": cycles(FIRST_POLL_US),
        "kick_yields": host.kick_yields,
        "debooster": _DEBOOSTERS.index(host.debooster),
        "rest": cycles(REST_US),
        "answer": cycles(ANSWER_US),
        "farthest": 2**61 // heaviest,
    }


# --- picking ----------------------------------------------------------------------------------------------------------


@inlined
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


# --- hooks ------------------------------------------------------------------------------------------------------------


@called
def start(s, key):
    """Who is queued is in its queue at virtual time 0, with half a slice; ticks are in step or skewed."""
    par, own = s.par[0], s.host_par[0]
    first = 1 + rng.share(rng.high(rng.draw(key, CLOCK_DRAW)), own.tick)
    s.host_world[0].key = key
    for i in range(count(s)):
        node = s.host_vcpu[i]
        node.after, node.first, node.curr, node.next, node.skip = NONE, NONE, NONE, NONE, NONE
    for i in range(par.vcpus):
        s.host_vcpu[i].weight = NICE_0 if grouped(s) else 4 * s.vmp[s.vcpu[i].vm].weight
    for i in range(par.pcpus):
        p = np.uint32(i)
        set_tick(s, p, first + own.skew * i)
        s.host_pcpu[p].fell_back_at = -INF
        for j in range(np.int64(s.pcpu[p].queued)):
            fork(s, p, np.uint32(s.queue[p, j]))
    for i in range(par.vcpus + par.pcpus, count(s)):
        group = s.host_vcpu[i]
        group.weight = share_of(s, i)
        group.deadline = virtual(own.slice, group) // 2
        if group.on_rq:
            s.host_vcpu[root_of(s, (i - par.vcpus - par.pcpus) // par.vms)].load += group.weight


@inlined
def fork(s, p, v):
    """v is new on p."""
    q, root = queue_of(s, p, v), root_of(s, p)
    s.host_vcpu[v].deadline = virtual(s.host_par[0].slice, s.host_vcpu[v]) // 2
    s.host_vm[s.vcpu[v].vm].nr += 1
    s.host_pcpu[p].nr_running += 1
    chain(s.host_par[0], s.host_vcpu, q, v, next_seq(s, p))
    if q != root and not s.host_vcpu[q].on_rq:
        chain(s.host_par[0], s.host_vcpu, root, q, next_seq(s, p))


@inlined
def charge(s, p, t):
    """Charge p's vCPU, and its group."""
    update_queue(s, p, queue_of(s, p, s.pcpu[p].current), t)
    update_groups(s, p, t)


@inlined
def holds(s, p, t):
    """Whoever is asked to go goes; it may be picked again."""
    return False


@inlined
def polls(s, p, v, t):
    """p polls for v, which has gone to sleep, while there is nobody else [kvm_vcpu_halt, kvm_vcpu_can_poll]."""
    own, node = s.host_par[0], s.host_vcpu[v]
    if own.halt_poll == 0 or s.pcpu[p].mode == POLLING:
        return False
    node.asleep_since = t
    node.poll = min(node.poll, own.halt_poll)
    s.pcpu[p].slice_end = t + node.poll
    return node.poll > 0 and nr_running(s, p) == 1


@called
def adapt_poll(own, nodes, v, t):
    """v runs again: poll longer for it where that would do, and less, or not at all, where it would not."""
    node = nodes[v]
    slept = t - node.asleep_since
    node.asleep_since = 0
    if node.poll > 0 and slept > own.halt_poll:
        node.poll = node.poll // 2 if own.version >= E612 else np.int64(0)
        if node.poll < own.first_poll:
            node.poll = 0
    elif node.poll < slept and slept < own.halt_poll:
        node.poll = max(2 * node.poll, own.first_poll)


@inlined
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


@inlined
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


@inlined
def set_next(s, p, v, t):
    """v runs: its protection begins, unless it goes on. Slices end at ticks."""
    if s.vcpu[v].pcpu != p:
        move(s, v, p, t)
        s.vcpu[v].pcpu = p
    if s.host_par[0].halt_poll > 0 and s.host_vcpu[v].asleep_since > 0:
        adapt_poll(s.host_par[0], s.host_vcpu, v, t)
    q, root = queue_of(s, p, v), root_of(s, p)
    if s.host_vcpu[q].curr == v:
        return INF
    clear_buddies(s.host_vcpu, root_of(s, p), q, v)
    if q != root and s.host_vcpu[root].curr != q:
        nobody_runs(s, p)
        set_next_entity(s.host_vcpu, root, q, t)
    set_next_entity(s.host_vcpu, q, v, t)
    return INF


@inlined
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
        advance(own, s.host_vcpu, q, v, e.deadline - e.vruntime)
    e.deadline += virtual(own.slice, e)
    lag_behind(own, s.host_vcpu, q)


@inlined
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
    elif s.host_par[0].debooster != OFF and s.vcpu[v].vm == s.vcpu[s.pcpu[p].current].vm:
        deboost(s, p, v, t)
    return True


@inlined
def kick_yields(s, p, v, t):
    """p's vCPU yields to v, which waits, if it is not alone here [kvm_sched_yield]."""
    return s.host_par[0].kick_yields != 0 and s.vcpu[v].state == QUEUED and nr_running(s, p) > 1


@called
def deboost(s, p, v, t):
    """p's vCPU, which yields to its sibling v in the same queue, falls back there, so that v may be taken (15.13)."""
    own, y = s.host_par[0], s.pcpu[p].current
    charge(s, p, t)
    q, e = queue_of(s, p, y), s.host_vcpu[y]
    back = penalty(s, p, y, v, t) if own.debooster == LI else s.host_vcpu[v].vruntime - e.vruntime
    if back > 0:
        advance(own, s.host_vcpu, q, y, back)
        e.deadline += back
        lag_behind(own, s.host_vcpu, q)


@inlined
def penalty(s, p, y, v, t):
    """How far y falls back that yields to v: less the longer the queue, and in answer to a yield of v's; at times 0."""
    own, pcpu = s.host_par[0], s.host_pcpu[p]
    answers = pcpu.yielder == v and pcpu.yielded_to == y and t - pcpu.yielded_at <= own.answer
    pcpu.yielder = y
    pcpu.yielded_to = v
    pcpu.yielded_at = t
    if t - pcpu.fell_back_at < own.rest:
        return np.int64(0)
    pcpu.fell_back_at = t
    tenths = 10 if answers else max(10, 70 - 5 * s.host_vcpu[queue_of(s, p, y)].nr)
    return virtual(own.slice, s.host_vcpu[y]) * tenths // 10


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
        if idle(s, q) and socket(s, q) == socket(s, prev) and may_run_on(s, v, q):
            return q
    return prev


@called
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
    if s.pcpu[p].mode == POLLING:
        s.pcpu[p].resched_at = t
        refresh_host(s, p)
    elif s.pcpu[p].mode == IDLE or over or check_preempt_wakeup(s, p, v, t):
        request(s, p, t)


@inlined
def undelay(s, p, v, t):
    """v wakes before its dequeue was due."""
    s.host_pcpu[p].nr_running += s.host_par[0].groups == PER_VCPU
    requeue_delayed(s.host_par[0], s.host_vcpu, queue_of(s, p, v), v, next_seq(s, p))


@inlined
def migrate(s, v, t):
    """Nobody is marked to be moved."""


@inlined
def set_tick(s, p, due):
    """p's next tick is due then; it comes so much late as interrupts are off, say."""
    own = s.host_par[0]
    s.host_pcpu[p].due = due
    s.pcpu[p].tick_at = due
    if own.jitter > 0:
        bits = rng.draw(s.host_world[0].key, CLOCK_DRAW + 1 + due // own.tick * MOST_PCPUS + np.int64(p))
        s.pcpu[p].tick_at += rng.share(rng.high(bits), own.jitter + 1)


@called
def tick(s, p, t):
    """p's tick: the turn of its vCPU may be over, and p may balance; whether it must choose anew [sched_tick]."""
    own, due = s.host_par[0], s.host_pcpu[p].due
    set_tick(s, p, due + own.tick)
    over = s.pcpu[p].current != NONE and turn_is_over(s, p, t)
    if own.balance:
        over = balance(s, p, t, due, over)
    if not over and s.pcpu[p].mode == GUEST:
        enter(s, p, t)
    return over


@called
def turn_is_over(s, p, t):
    """Whether the turn of p's vCPU, or of its group, is over at a tick [task_tick_fair]."""
    own, root, v = s.host_par[0], root_of(s, p), s.pcpu[p].current
    q = queue_of(s, p, v)
    over = update_queue(s, p, q, t)
    if own.version == CFS:
        over = is_late(s, p, q, v, part(s, p, q, v)) or over
    if q != root:
        over = update_queue(s, p, root, t) or over
        over = update_shares(s, p, q, t) or over
        if own.version == CFS:
            over = is_late(s, p, root, q, part(s, p, root, q)) or over
    return over


@called
def is_late(s, p, q, x, ideal):
    """Whether entity x of queue q, which runs, must make room for another (CFS) [check_preempt_tick]."""
    if s.host_vcpu[q].nr == 1:
        return False
    if s.host_vcpu[x].ran > ideal:
        clear_buddies(s.host_vcpu, root_of(s, p), q, x)
        return True
    return is_ahead(s.host_par[0], s.host_vcpu, q, x, ideal)


@called
def part(s, p, q, x):
    """How long entity x of queue q may run on p at a time (CFS) [sched_slice]."""
    own, root = s.host_par[0], root_of(s, p)
    time = max(np.int64(8), s.host_pcpu[p].nr_running) * own.slice
    time = time * s.host_vcpu[x].weight // s.host_vcpu[q].load
    if q != root:
        time = time * s.host_vcpu[q].weight // s.host_vcpu[root].load
    return max(own.slice, time)


@inlined
def period(s):
    """There is none."""


@inlined
def protected_until(s, p):
    """Nobody is protected."""
    return np.int64(0)


_MODULES = (cfs_rq, fair_balance, fair_nodes, fair_queues, fair_sound, runqueue)
HOST = Host(
    name="fair",
    describe=describe,
    sources=tuple(Path(str(file)) for file in (__file__, *(module.__file__ for module in _MODULES))),
    start=start,
    charge=charge,
    holds=holds,
    polls=polls,
    put_prev=put_prev,
    pick_next=pick_next,
    set_next=set_next,
    dequeue=remove,
    yield_now=yield_now,
    yield_to=yield_to,
    kick_yields=kick_yields,
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
    VCPU=NODE,
    further=further,
)
