"""Runqueues: one per pCPU, ordered by priority, FIFO within a priority (docs/model.md, section 9.1)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import NONE, QUEUED, UNDER


@inlined
def head(s, p):
    """First vCPU of p's queue, or NONE."""
    if s.pcpu[p].queued == 0:
        return NONE
    return np.uint32(s.queue[p, 0])


@inlined
def put(s, p, v, at):
    """Place v at position `at` (int64) of p's queue."""
    n = np.int64(s.pcpu[p].queued)
    i = n
    while i > at:
        s.queue[p, i] = s.queue[p, i - 1]
        i -= 1
    s.queue[p, at] = v
    s.pcpu[p].queued = n + 1


@called
def insert(s, p, v, t):
    """Queue v on p behind its priority; a yielding vCPU goes behind one of lower priority too [__runq_insert]."""
    vcpu = s.vcpu[v]
    vcpu.pcpu = p
    vcpu.state = QUEUED
    vcpu.queued_since = t
    n = np.int64(s.pcpu[p].queued)
    at = np.int64(0)
    while at < n and s.vcpu[np.uint32(s.queue[p, at])].priority >= vcpu.priority:
        at += 1
    if vcpu.yielding and at < n:
        at += 1
    put(s, p, v, at)


@called
def put_first_of_class(s, p, v):
    """Queue v on p in front of its priority: how a directed yield favours it."""
    n = np.int64(s.pcpu[p].queued)
    at = np.int64(0)
    while at < n and s.vcpu[np.uint32(s.queue[p, at])].priority > s.vcpu[v].priority:
        at += 1
    put(s, p, v, at)


@called
def remove(s, p, v):
    """Take v out of p's queue."""
    n = np.int64(s.pcpu[p].queued)
    i = np.int64(0)
    while s.queue[p, i] != v:
        i += 1
    while i < n - 1:
        s.queue[p, i] = s.queue[p, i + 1]
        i += 1
    s.pcpu[p].queued = n - 1


@inlined
def sort(s, p):
    """Move UNDER (and BOOST) ahead of OVER, stably, once after each accounting [csched_runq_sort]."""
    if s.pcpu[p].sort_seen == s.world[0].sort_epoch:
        return
    s.pcpu[p].sort_seen = s.world[0].sort_epoch
    n = np.int64(s.pcpu[p].queued)
    front = np.int64(0)
    for i in range(n):
        v = s.queue[p, i]
        if s.vcpu[np.uint32(v)].priority >= UNDER:
            for j in range(i, front, -1):
                s.queue[p, j] = s.queue[p, j - 1]
            s.queue[p, front] = v
            front += 1
