"""Whether the records of Linux's fair scheduler can be those of a run, in a state that comes from outside."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.host.cfs_rq import LEAST, NICE_0, key
from ple_gym.sim.host.fair_nodes import PER_VCPU, count, group_of, grouped, queue_of, root_of
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.memory import scratch
from ple_gym.sim.state import BLOCKED, DONE, INT32, NONE, POLLING

FAR = np.int64(1) << np.int64(60)  # virtual time; sums and differences of two such fit in 64 bits


@called
def sound(s):
    """Whether its records can be those of a run: all entities are in their queues, once, and nothing can overflow."""
    par = s.par[0]
    seen = scratch(INT32, count(s))
    for x in range(count(s)):
        seen[0, x] = 0
        if not plausible(s, x):
            return False
    for i in range(par.pcpus):
        p = np.uint32(i)
        if not whole(s, p, root_of(s, p), seen):
            return False
        if grouped(s):
            for m in range(par.vms):
                if not whole(s, p, group_of(s, p, np.uint32(s.vmp[m].first)), seen):
                    return False
        if not agrees(s, p):
            return False
    for m in range(par.vms):
        queued = 0
        for x in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
            node = s.host_vcpu[x]
            where = s.pcpu[s.vcpu[x].pcpu]
            polls = where.mode == POLLING and where.current == x
            asleep = (s.vcpu[x].state == BLOCKED or s.vcpu[x].state == DONE) and not polls
            if node.on_rq != seen[0, x] or node.delayed != (asleep and node.on_rq == 1):
                return False
            if not asleep and node.on_rq == 0:
                return False
            queued += node.on_rq
        if s.host_vm[m].nr != queued:
            return False
    for x in range(par.vcpus + par.pcpus, count(s)):
        if s.host_vcpu[x].on_rq != seen[0, x] or (s.host_vcpu[x].nr > 0 and s.host_vcpu[x].on_rq == 0):
            return False
    return True


@inlined
def plausible(s, x):
    """Whether the numbers of a node are such that nothing overflows, and that no weight is 0."""
    node, par = s.host_vcpu[x], s.par[0]
    for number in (node.vruntime, node.deadline, node.vlag, node.vprot, node.ran, node.min_vruntime, node.exec_start):
        if number > FAR or number < -FAR:
            return False
    if node.on_rq > 1 or node.delayed > node.on_rq or node.rel_deadline > 1 or node.nr < 0 or node.nr > par.vcpus:
        return False
    if x < par.vcpus:
        return node.weight == (NICE_0 if grouped(s) else 4 * s.vmp[s.vcpu[x].vm].weight)
    if x < par.vcpus + par.pcpus:
        return True
    m = (x - par.vcpus - par.pcpus) % par.vms
    return node.weight >= LEAST and node.weight <= max(LEAST, 4 * s.vmp[m].weight * s.vmp[m].vcpus)


@inlined
def belongs(s, p, q, x):
    """Whether entity x, if there is one, is one of queue q of p."""
    par = s.par[0]
    if np.int64(x) < par.vcpus:
        return s.vcpu[x].pcpu == p and queue_of(s, p, x) == q
    first = par.vcpus + par.pcpus + np.int64(p) * par.vms
    return grouped(s) and q == root_of(s, p) and first <= np.int64(x) and np.int64(x) < first + par.vms


@called
def whole(s, p, q, seen):
    """Whether a queue's chain has its entities, each once, and those that it knows apart are some of them."""
    queue = s.host_vcpu[q]
    x = queue.first
    weight, total = np.int64(0), np.int64(0)
    for _ in range(queue.nr):
        if x == NONE or not belongs(s, p, q, x) or seen[0, np.int64(x)] != 0:
            return False
        seen[0, np.int64(x)] = 1
        node = s.host_vcpu[x]
        weight += node.weight
        total += node.weight * key(s.host_par[0], s.host_vcpu, q, x)
        distance = node.vruntime - queue.min_vruntime
        if not queue.wide and (distance > s.host_par[0].farthest or distance < -s.host_par[0].farthest):
            return False
        x = node.after
    if x != NONE or queue.load != weight or (queue.wide == 0 and queue.total != total):
        return False
    if queue.wide > 1 or queue.loose > 1:
        return False
    for x in (queue.curr, queue.next, queue.skip):
        if x != NONE and not (belongs(s, p, q, x) and seen[0, np.int64(x)] == 1):
            return False
    return True


@inlined
def agrees(s, p):
    """Whether what p's queues take for running is what runs, and whether its counts are right."""
    own, root = s.host_pcpu[p], root_of(s, p)
    if own.seq < 0 or own.seq > FAR:
        return False
    if own.due < 0 or own.due > s.pcpu[p].tick_at or s.pcpu[p].tick_at - own.due > s.host_par[0].jitter:
        return False
    for i in range(2):
        if own.balanced[i] < 0 or own.balanced[i] > own.due or own.failed[i] < 0 or own.failed[i] > FAR:
            return False
        if own.relaxed[i] != 0 and own.relaxed[i] != 1:
            return False
    if s.pcpu[p].current != NONE:
        v = s.pcpu[p].current
        q = queue_of(s, p, v)
        if s.host_vcpu[q].curr != v or (q != root and s.host_vcpu[root].curr != q):
            return False
    tasks = 0
    for i in range(s.par[0].vcpus):
        if s.vcpu[i].pcpu == p and s.host_vcpu[i].on_rq == 1:
            tasks += not (s.host_par[0].groups == PER_VCPU and s.host_vcpu[i].delayed == 1)
    return own.nr_running == tasks
