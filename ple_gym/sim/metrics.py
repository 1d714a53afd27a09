"""Where pCPU time goes, event recording, histograms (docs/model.md, sections 6 and 13) and the cost of a decision."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import GUEST, HISTOGRAM_BINS, NOISE, NONE, SPIN


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
        if guest.phase >= SPIN:
            world.cycles_spin += d
            guest.halt_left -= d
        else:
            refill = min(guest.cold, d)
            guest.cold -= refill
            guest.remaining -= d - refill
            world.cycles_cache += refill
            s.vm[vcpu.vm].useful += d - refill
    elif pcpu.mode == NOISE:
        world.cycles_stolen += d
    else:
        world.cycles_idle += d


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
