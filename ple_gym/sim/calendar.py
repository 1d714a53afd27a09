"""When things happen: each pCPU's next event, and the search for the earliest (docs/model.md, section 5).

A linear scan over pCPUs beats a heap up to 16 of them and keeps the order of simultaneous events obvious.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import GUEST, INF, NONE


@called
def guest_timer(s, p):
    """When the timer of the guest on p is due (7.11); INF if none runs there."""
    if s.pcpu[p].mode != GUEST:
        return INF
    return s.interrupts[s.pcpu[p].current].timer_at


@inlined
def refresh_host(s, p):
    """Bring the host's next event on p up to date. A timer that falls into an exit or a switch waits for its end."""
    pcpu = s.pcpu[p]
    clock = s.clock[p]
    timer = min(min(clock.noise_at, pcpu.resched_at), min(pcpu.tick_at, pcpu.slice_end))
    if s.par[0].ticks:
        timer = min(timer, guest_timer(s, p))
    clock.host_at = max(timer, pcpu.entry)
    refresh(s, p)


@inlined
def refresh(s, p):
    """Bring p's entry in the calendar up to date; only the guest's next event has changed."""
    s.clock[p].event_at = min(s.clock[p].host_at, s.clock[p].guest_at)


@inlined
def request(s, p, t):
    """Ask pCPU p to reschedule; the interrupt takes a while (Xen: SCHEDULE_SOFTIRQ by IPI)."""
    s.pcpu[p].resched_at = min(s.pcpu[p].resched_at, t + s.par[0].ipi)
    refresh_host(s, p)


@inlined
def earliest(s):
    """Time of the next event and the pCPU it belongs to (NONE: the host's period or a wake-up)."""
    time = min(s.world[0].period_at, s.world[0].next_wake)
    where = NONE
    for i in range(s.par[0].pcpus):
        p = np.uint32(i)
        at = s.clock[p].event_at
        if at < time:
            time = at
            where = p
    return time, where


@inlined
def find_next_wake(s):
    """Recompute the earliest wake-up after one was served."""
    soonest = INF
    for i in range(s.par[0].vcpus):
        soonest = min(soonest, s.guest[np.uint32(i)].wake_at)
    for i in range(s.par[0].threads):
        soonest = min(soonest, s.thread[np.uint32(i)].wake_at)
    s.world[0].next_wake = soonest
