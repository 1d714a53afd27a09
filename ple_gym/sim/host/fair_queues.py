"""Linux's fair scheduler: entities come and go at every level of a pCPU's queues (docs/model.md, 15.2, 15.3, 15.7)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import request
from ple_gym.sim.host.cfs_rq import (
    CFS,
    E612,
    E614,
    LEAST,
    chain,
    charge_queue,
    clear_buddies,
    detach,
    eligible,
    pick_eevdf,
    place_entity,
    requeue_delayed,
    reweight,
    virtual,
)
from ple_gym.sim.host.fair_nodes import PER_VCPU, group_of, grouped, queue_of, root_of
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import GUEST, INF, NOISE, NONE

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
    if queue.curr == NONE or t <= queue.exec_start or s.pcpu[p].current == NONE:
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


@called
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


@called
def enqueue(s, p, v, t, wakes):
    """v comes into p's queues; returns whether what runs there must go [enqueue_task_fair]."""
    q, root = queue_of(s, p, v), root_of(s, p)
    over = update_queue(s, p, q, t)
    s.host_pcpu[p].nr_running += 1
    s.host_vm[s.vcpu[v].vm].nr += 1
    place_entity(s.host_par[0], s.host_vcpu, q, v, wakes)
    chain(s.host_par[0], s.host_vcpu, q, v, next_seq(s, p))
    if q == root:
        return over
    if s.host_vcpu[q].on_rq:
        if s.host_vcpu[q].delayed:
            requeue_delayed(s.host_par[0], s.host_vcpu, root, q, next_seq(s, p))
        return update_shares(s, p, q, t) or over
    over = update_queue(s, p, root, t) or over
    update_shares(s, p, q, t)
    place_entity(s.host_par[0], s.host_vcpu, root, q, True)
    chain(s.host_par[0], s.host_vcpu, root, q, next_seq(s, p))
    return over


@called
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


@called
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


@called
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


@called
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
