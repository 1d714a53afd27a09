"""Co-scheduling, a remedy at the credit scheduler: a VM's vCPUs run together, or nearly so (docs/model.md, 9.13).

Relaxed: a vCPU that is too far ahead of its slowest sibling must wait. Strict: all pCPUs are one VM's, slot after slot.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import request
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import NONE, QUEUED, RUNNING

OFF, RELAXED, STRICT = np.arange(3)
WORDS = ("off", "relaxed", "strict")
LOOKS = 10  # of an idle pCPU, in the time of a skew


@inlined
def runnable(s, v):
    """Whether v runs or waits for a pCPU."""
    return s.vcpu[v].state == RUNNING or s.vcpu[v].state == QUEUED


@inlined
def progress(s, v, t):
    """How long v has been on pCPUs, cycles; what it slept through counts as its slowest sibling's."""
    done = s.host_vcpu[v].progress
    return done + t - s.host_pcpu[s.vcpu[v].pcpu].burned_at if s.vcpu[v].state == RUNNING else done


@called
def slowest(s, v, t):
    """The least progress of v and its runnable siblings."""
    vmp = s.vmp[s.vcpu[v].vm]
    least = progress(s, v, t)
    for i in range(vmp.first, vmp.first + vmp.vcpus):
        if runnable(s, np.uint32(i)):
            least = min(least, progress(s, np.uint32(i), t))
    return least


@called
def catch_up(s, v, t):
    """v wakes, and is no further behind than its slowest sibling that has been runnable."""
    vmp = s.vmp[s.vcpu[v].vm]
    least, found = np.int64(0), False
    for i in range(vmp.first, vmp.first + vmp.vcpus):
        if runnable(s, np.uint32(i)):
            own = progress(s, np.uint32(i), t)
            least = min(least, own) if found else own
            found = True
    if found:
        s.host_vcpu[v].progress = max(s.host_vcpu[v].progress, least)


@called
def may_run(s, v):
    """Whether co-scheduling lets v, which is queued, run now."""
    own, t = s.host_par[0], s.world[0].now
    if own.coscheduling == STRICT:
        return np.int64(s.vcpu[v].vm) == s.host_world[0].gang
    return own.coscheduling == OFF or progress(s, v, t) - slowest(s, v, t) < own.skew


@called
def first_in_turn(s, p, t):
    """The first of p's queue that may run now, or NONE."""
    if s.host_par[0].coscheduling == STRICT:
        hold_slot(s, p, t)
    for i in range(np.int64(s.pcpu[p].queued)):
        v = np.uint32(s.queue[p, i])
        if may_run(s, v):
            return v
    return NONE


@inlined
def look_again(s, p, t):
    """p has found nobody; if somebody must wait there, it looks again soon."""
    own = s.host_par[0]
    if own.coscheduling == RELAXED and s.pcpu[p].queued > 0:
        s.pcpu[p].resched_at = min(s.pcpu[p].resched_at, t + max(1, own.skew // LOOKS))


@inlined
def has_work(s, m):
    """Whether a vCPU of VM m is runnable."""
    found = False
    for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
        found = found or runnable(s, np.uint32(i))
    return found


@called
def hold_slot(s, p, t):
    """If the slot is over, or its VM sleeps, the next VM that has work gets one, and all other pCPUs look at once."""
    world, vms = s.host_world[0], s.par[0].vms
    if t < world.gang_until and has_work(s, world.gang):
        return
    for i in range(1, vms + 1):
        m = (world.gang + i) % vms
        if has_work(s, m):
            world.gang = m
            world.gang_until = t + s.host_par[0].timeslice
            for q in range(s.par[0].pcpus):
                if q != p:
                    request(s, np.uint32(q), t)
            return


@inlined
def shortened(s, t, slice_end):
    """When a slice that begins at t ends under co-scheduling."""
    own = s.host_par[0]
    if own.coscheduling == RELAXED:
        return min(slice_end, t + own.skew)
    if own.coscheduling == STRICT:
        return min(slice_end, max(t + 1, s.host_world[0].gang_until))
    return slice_end
