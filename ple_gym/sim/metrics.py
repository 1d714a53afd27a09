"""Where pCPU time goes, event recording, histograms (docs/model.md, sections 6 and 13) and the cost of a decision."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import FAIR, GUEST, HISTOGRAM_BINS, IDLE, NONE, SPIN, TIME


@inlined
def settle(s, p, t):
    """Attribute pCPU p's time up to t, and let its vCPU's work progress by it."""
    pcpu = s.pcpu[p]
    world = s.world[0]
    since = pcpu.settled
    if since >= t:
        return
    pcpu.settled = t
    if since < pcpu.entry:
        if since < pcpu.exit_until:
            until = min(t, pcpu.exit_until)
            world.cycles_exit += until - since
            since = until
        until = max(since, min(t, pcpu.entry))
        world.cycles_switch += until - since
        since = until
        if since >= t:
            return
    d = t - since
    if pcpu.mode == GUEST:
        v = pcpu.current
        vcpu = s.vcpu[v]
        guest = s.guest[v]
        vcpu.cpu_time += d
        if guest.phase == SPIN:
            world.cycles_spin += d
            guest.halt_left -= d
        else:
            refill = min(guest.cold, d)
            guest.cold -= refill
            guest.remaining -= d - refill
            world.cycles_cache += refill
            s.vm[vcpu.vm].useful += d - refill
    elif pcpu.mode == IDLE:
        world.cycles_idle += d
    else:
        world.cycles_stolen += d


@inlined
def note(s, t, kind, p, v, lock):
    """Append an event to the trace ring, if one is kept (traces/events.py: time, kind, pCPU, vCPU, lock)."""
    if s.trace_rows > 0:
        row = s.world[0].traced % s.trace_rows
        s.trace[row, 0] = t
        s.trace[row, 1] = kind
        s.trace[row, 2] = -1 if p == NONE else np.int64(p)
        s.trace[row, 3] = -1 if v == NONE else np.int64(v)
        s.trace[row, 4] = -1 if lock == NONE else np.int64(lock)
        s.world[0].traced += 1


@called
def rounded_bin(value):
    """Histogram bin of a value: exact below 32, then 32 bins per power of two. (No run has a negative one.)"""
    if value < 32:
        return max(np.int64(0), value)
    exponent = 0
    while value >> exponent >= 64:
        exponent += 1
    return min(HISTOGRAM_BINS - 1, 32 * exponent + (value >> exponent))


@inlined
def record_value(s, row, value):
    """Count a value in one of the log-binned histograms."""
    s.histogram[row, rounded_bin(value)] += 1


@inlined
def used(s, m):
    """Cycles that VM m's vCPUs have run."""
    total = np.int64(0)
    for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
        total += s.vcpu[np.uint32(i)].cpu_time
    return total


@inlined
def lost_cycles(s, reward):
    """What the reward charges, accumulated since time 0, in pCPU cycles (float64).

    Everything that is not guest progress, and how far each endless neighbour is from what weight and number of vCPUs
    entitle it to (as in Xen): more is no use to the machine's owner, less is starvation. `FAIR` adds the largest lag of
    any VM beyond 10 ms.
    """
    world = s.world[0]
    par = s.par[0]
    if reward == TIME:
        return np.float64(world.now) * par.pcpus
    lost = np.float64(
        world.cycles_spin + world.cycles_exit + world.cycles_switch + world.cycles_cache + world.cycles_idle
    )
    if par.vms > 1 or reward == FAIR:
        weights = np.int64(0)
        for m in range(par.vms):
            weights += s.vmp[m].weight * s.vmp[m].vcpus
        machine = np.float64(world.now) * par.pcpus - world.cycles_stolen
        slack = np.float64(par.tsc_hz) / 100.0
        worst = 0.0
        for m in range(par.vms):
            if s.vm[m].finish <= world.now:
                continue
            weight = np.float64(s.vmp[m].weight * s.vmp[m].vcpus)
            entitled = min(machine * weight / np.float64(weights), np.float64(world.now) * s.vmp[m].vcpus)
            lag = entitled - used(s, m)
            worst = max(worst, lag - slack)
            if s.program[m].transactions == 0:
                lost += abs(lag)
        if reward == FAIR:
            lost += worst
    return lost
