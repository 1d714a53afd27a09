"""Runqueues: a row of vCPUs per pCPU, head first. In which order, each scheduler says."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import NONE, QUEUED


@inlined
def head(s, p):
    """First vCPU of p's queue, or NONE."""
    if s.pcpu[p].queued == 0:
        return NONE
    return np.uint32(s.queue[p, 0])


@inlined
def note_queued(s, p, v, t):
    """Note that v is queued on p from now on."""
    vcpu = s.vcpu[v]
    vcpu.pcpu = p
    vcpu.state = QUEUED
    vcpu.queued_since = t


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
