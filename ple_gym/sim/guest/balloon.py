"""Ballooning: as many vCPUs of a VM are runnable as its share of the pCPUs comes to (docs/model.md, section 7.12)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.guest.threads import leave_off, respond
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import settle
from ple_gym.sim.state import BLOCKED, INF, USER

FULL = 1000  # a pCPU, in thousandths


@called
def goes_to_sleep(s, v, t):
    """v, which has ended a transaction, sleeps if too many of its VM are runnable; if too few are, a sibling wakes."""
    if t - s.world[0].counted_at >= s.par[0].balloon:
        count_shares(s, t)
    if runnable(s, s.vcpu[v].vm) <= s.vm[s.vcpu[v].vm].share:
        call_sibling(s, v, t)
        return False
    s.guest[v].frozen = 1
    s.guest[v].phase = USER
    s.guest[v].section = 0
    respond(s, v, t, np.int64(0))
    leave_off(s, v, t, BLOCKED)
    return True


@called
def call_sibling(s, v, t):
    """If too few of v's VM are runnable, the next that is frozen wakes."""
    m = s.vcpu[v].vm
    if runnable(s, m) >= s.vm[m].share:
        return
    vmp, own = s.vmp[m], np.int64(v) - s.vmp[m].first
    for i in range(1, vmp.vcpus):
        w = np.uint32(vmp.first + (own + i) % vmp.vcpus)
        if s.guest[w].frozen != 0 and s.guest[w].wake_at == INF:
            s.guest[w].wake_at = t
            s.world[0].next_wake = t
            return


@inlined
def runnable(s, m):
    """How many vCPUs of a VM can run, or are about to wake from being frozen."""
    count = np.int64(0)
    for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
        count += s.vcpu[i].state < BLOCKED or (s.guest[i].frozen != 0 and s.guest[i].wake_at < INF)
    return count


@called
def count_shares(s, t):
    """How many vCPUs of each VM the pCPUs have time for: its own share, and its part of what others leave of theirs."""
    par, world = s.par[0], s.world[0]
    for i in range(par.pcpus):
        settle(s, np.uint32(i), t)
    weights = wanting = left = np.int64(0)
    for m in range(par.vms):
        weights += weight(s, m)
    for m in range(par.vms):
        fair = FULL * par.pcpus * weight(s, m) // weights
        if wants_more(s, m, fair, t):
            wanting += weight(s, m)
        else:
            left += max(np.int64(0), fair - used(s, m, t))
    for m in range(par.vms):
        share = FULL * par.pcpus * weight(s, m) // weights
        if wants_more(s, m, share, t):
            share += left * weight(s, m) // wanting
        s.vm[m].share = max(1, -((FULL // 8 - share) // FULL))
    for m in range(par.vms):
        s.vm[m].used_before = cpu_time(s, m)
    world.counted_at = t


@inlined
def weight(s, m):
    """A VM's weight among all."""
    return s.vmp[m].weight * s.vmp[m].vcpus


@called
def cpu_time(s, m):
    """CPU time of a VM, cycles."""
    total = np.int64(0)
    for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
        total += s.vcpu[i].cpu_time
    return total


@inlined
def used(s, m, t):
    """What a VM has used since the last count, thousandths of a pCPU."""
    return FULL * (cpu_time(s, m) - s.vm[m].used_before) // (t - s.world[0].counted_at)


@inlined
def wants_more(s, m, fair, t):
    """Whether a VM has used about all that was its own."""
    return 8 * used(s, m, t) >= 7 * fair
