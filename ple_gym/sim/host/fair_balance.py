"""vCPUs of Linux's fair scheduler change their pCPU while they wait: idle pulls, balancing (docs/model.md, 15.8, 15.9).

A domain of a pCPU is its socket, or (`far`) the machine. Its parts, between which load is evened out, are pCPUs, or
sockets. Spans of pCPUs are given by the first, and the one after the last. [kernel/sched/fair.c]
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.affinity import may_run_on
from ple_gym.sim.dispatch import socket
from ple_gym.sim.host.cfs_rq import E618, eligible
from ple_gym.sim.host.fair_nodes import grouped, queue_of, root_of
from ple_gym.sim.host.fair_queues import check_preempt_wakeup, move, nr_running
from ple_gym.sim.host.runqueue import put, remove
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import IDLE, NONE, POLLING

BUSY_FACTOR = 16  # a busy pCPU balances so many times less often than an idle one
IMBALANCE = 117  # percent: who has less than this has no more than the other
MOST_EXAMINED = 32  # sysctl_sched_nr_migrate
MOST_HALVINGS = np.int64(62)


@inlined
def hot(s, v, t):
    """Whether v has run so recently that its cache is worth more than another pCPU [task_hot]."""
    return s.vcpu[v].dispatches > 0 and t - s.vcpu[v].left_at < s.host_par[0].migration_cost


# --- idle pull --------------------------------------------------------------------------------------------------------


@inlined
def has_some_for(s, q, p):
    """Whether somebody in q's queue may run on p."""
    found = False
    for j in range(np.int64(s.pcpu[q].queued)):
        found = found or may_run_on(s, np.uint32(s.queue[q, j]), p)
    return found


@inlined
def first_cold(s, q, p, t):
    """The first of q's queue that may be moved to p, or NONE."""
    for j in range(np.int64(s.pcpu[q].queued)):
        v = np.uint32(s.queue[q, j])
        if not hot(s, v, t) and may_run_on(s, v, p):
            return v
    return NONE


@called
def newidle_balance(s, p, t):
    """Who comes to p, which has nothing to do, from the busiest pCPU: of its socket, then of all; or NONE."""
    for near in (True, False):
        busiest, most = NONE, np.int64(1)
        for i in range(s.par[0].pcpus):
            q = np.uint32(i)
            there = q != p and (not near or socket(s, q) == socket(s, p))
            if there and nr_running(s, q) > most and has_some_for(s, q, p):
                busiest, most = q, nr_running(s, q)
        if busiest != NONE:
            v = first_cold(s, busiest, p, t)
            if v != NONE:
                s.world[0].steals += 1
                return v
    return NONE


# --- balancing --------------------------------------------------------------------------------------------------------


@inlined
def first_of(s, k):
    """The first pCPU of socket k."""
    par = s.par[0]
    return (k * par.pcpus + par.sockets - 1) // par.sockets


@inlined
def domain(s, p, far):
    """p's socket, or the machine."""
    if far:
        return np.int64(0), s.par[0].pcpus
    return first_of(s, socket(s, p)), first_of(s, socket(s, p) + 1)


@inlined
def part(s, p, far):
    """p's part of its domain."""
    if far:
        return first_of(s, socket(s, p)), first_of(s, socket(s, p) + 1)
    return np.int64(p), np.int64(p) + 1


@inlined
def load_of(s, p):
    """The weight of all that is in p's queues."""
    return s.host_vcpu[root_of(s, p)].load


@called
def load(s, first, end):
    """The mean load of some pCPUs."""
    total = np.int64(0)
    for i in range(first, end):
        total += load_of(s, np.uint32(i))
    return total // (end - first)


@called
def tasks(s, first, end):
    """How many tasks some pCPUs have."""
    total = np.int64(0)
    for i in range(first, end):
        total += nr_running(s, np.uint32(i))
    return total


@called
def leads(s, p, first, end):
    """Whether p balances for its part: the first that is idle, or else the first of all [should_we_balance]."""
    for i in range(first, end):
        if nr_running(s, np.uint32(i)) == 0:
            return i == np.int64(p)
    return first == np.int64(p)


@called
def busiest_part(s, p, far):
    """The first pCPU of the part with the largest load but p's, of those with more tasks than pCPUs; or NONE."""
    own, _ = part(s, p, far)
    first, end = domain(s, p, far)
    busiest, most = NONE, np.int64(-1)
    while first < end:
        begin, first = part(s, np.uint32(first), far)
        if begin != own and tasks(s, begin, first) > first - begin and load(s, begin, first) > most:
            busiest, most = np.uint32(begin), load(s, begin, first)
    return busiest


@called
def busiest_pcpu(s, first, end, by_tasks):
    """The pCPU with the most tasks, or the largest load, of those with two tasks and more."""
    busiest, most = np.uint32(first), np.int64(-1)
    for i in range(first, end):
        q = np.uint32(i)
        size = nr_running(s, q) if by_tasks else load_of(s, q)
        if nr_running(s, q) > 1 and size > most:
            busiest, most = q, size
    return busiest


@called
def imbalance(s, p, busiest, far):
    """How much load p's part should take from the busiest one; 0 or less: none [calculate_imbalance]."""
    here, until = part(s, p, far)
    there, limit = part(s, busiest, far)
    first, end = domain(s, p, far)
    mine, its, average = load(s, here, until), load(s, there, limit), load(s, first, end)
    if mine >= its or (tasks(s, here, until) > until - here and 100 * its <= IMBALANCE * mine):
        return np.int64(0)
    return min((its - average) * (limit - there), (average - mine) * (until - here))


@inlined
def task_load(s, v):
    """v's part of the load of its pCPU [task_h_load]."""
    weight = s.host_vcpu[v].weight
    if grouped(s):
        g = queue_of(s, s.vcpu[v].pcpu, v)
        weight = weight * s.host_vcpu[g].weight // s.host_vcpu[g].load
    return max(np.int64(1), weight)


@inlined
def sticks(s, v, p, t, failed, far):
    """Whether v, which waits elsewhere, does not come to p after so many attempts that failed [can_migrate_task]."""
    q = queue_of(s, s.vcpu[v].pcpu, v)
    if not may_run_on(s, v, p):
        return True
    if failed <= 1 + far and (hot(s, v, t) or (nr_running(s, p) > 0 and s.host_vcpu[q].next == v)):
        return True
    if s.host_par[0].version < E618 or failed > 0 or s.host_vcpu[queue_of(s, p, v)].nr == 0:
        return False
    return not eligible(s.host_par[0], s.host_vcpu, q, v)


@called
def pull_tasks(s, p, q, t, far, by_tasks, left, over):
    """Move vCPUs of q's queue to p, from the head, until `left` is used up; returns how many came, and whether what
    runs on p must go [detach_tasks, attach_tasks].
    """
    failed = s.host_pcpu[p].failed[far]
    came, at = np.int64(0), np.int64(0)
    for _ in range(min(MOST_EXAMINED, np.int64(s.pcpu[q].queued))):
        if left <= 0:
            break
        v = np.uint32(s.queue[q, at])
        size = np.int64(1) if by_tasks else task_load(s, v)
        if sticks(s, v, p, t, failed, far) or size >> min(failed, MOST_HALVINGS) > left:
            at += 1
            continue
        remove(s, q, v)
        move(s, v, p, t)
        s.vcpu[v].pcpu = p
        put(s, p, v, np.int64(s.pcpu[p].queued))
        waits = s.pcpu[p].mode == IDLE or s.pcpu[p].mode == POLLING
        over = over or waits or check_preempt_wakeup(s, p, v, t)
        left -= size
        came += 1
    s.world[0].steals += came
    return came, over


@called
def even_out(s, p, t, far, over):
    """p takes load from the busiest part of its domain; returns whether what runs on p must go [sched_balance_rq]."""
    own = s.host_pcpu[p]
    here, until = part(s, p, far)
    busiest = busiest_part(s, p, far) if leads(s, p, here, until) else NONE
    left, by_tasks, q = np.int64(0), tasks(s, here, until) < until - here, busiest
    if busiest != NONE:
        there, limit = part(s, busiest, far)
        q = busiest_pcpu(s, there, limit, by_tasks)
        left = (nr_running(s, q) - nr_running(s, p)) // 2 if by_tasks else imbalance(s, p, busiest, far)
    own.relaxed[far] = left <= 0
    if left <= 0:
        own.failed[far] = 0
        return over
    came, over = pull_tasks(s, p, q, t, far, by_tasks, left, over)
    own.failed[far] = 0 if came > 0 else own.failed[far] + 1
    return over


@inlined
def interval(s, p, far):
    """Cycles between two attempts: more if the last one found nothing to do [get_sd_balance_interval]."""
    own = s.host_par[0]
    first, end = domain(s, p, far)
    busy = nr_running(s, p) > 0
    ms = (end - first) * (1 + s.host_pcpu[p].relaxed[far]) * (BUSY_FACTOR if busy else 1)
    ticks = (ms * own.millisecond + own.tick - 1) // own.tick - busy
    return max(1, min(ticks, 100 * s.par[0].pcpus * own.millisecond // own.tick)) * own.tick


@called
def balance(s, p, t, due, over):
    """At a tick that was due then, even out the domains whose time has come; returns whether what runs on p must go,
    which may be known already [sched_balance_domains].
    """
    own = s.host_pcpu[p]
    for i in range(2):
        first, end = domain(s, p, i)
        exists = s.par[0].sockets > 1 if i else end - first > 1
        if exists and due - own.balanced[i] >= interval(s, p, i):
            own.balanced[i] = due
            over = even_out(s, p, t, i, over)
    return over
