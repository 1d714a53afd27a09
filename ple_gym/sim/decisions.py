"""Decisions: which actions are legal, and what each of them does (docs/model.md, section 10)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import refresh_host
from ple_gym.sim.dispatch import go_on, leave, schedule, switch
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import ADVANCING, BY_EXIT, HINT, LOCAL, PLE_YIELD, QUEUED


@inlined
def within_reach(state, pcpu, here, actuator):
    """Whether a vCPU in this state, on or last on this pCPU, can be run for an exit on pCPU `here`.

    Legality is written here and nowhere else: rules and masks ask this, too.
    """
    return (state == QUEUED) & ((actuator != LOCAL) | (pcpu == here))


@inlined
def legal(s, p, action):
    """Whether the action (int64) may be taken for the exit on p."""
    if action == s.par[0].vcpus or action == np.int64(s.pcpu[p].current):
        return True
    if action < 0 or action > s.par[0].vcpus:
        return False
    v = np.uint32(action)
    return within_reach(s.vcpu[v].state, s.vcpu[v].pcpu, p, s.par[0].actuator)


@called
def carry_out(s, action):
    """Carry out a decision (section 10), whose legality the caller has checked, for the exit that is due."""
    p = s.world[0].deciding
    t = s.world[0].now
    s.world[0].status = ADVANCING
    if yields(s, p, t, action):
        schedule(s, p, t, BY_EXIT)
    refresh_host(s, p)


@inlined
def yields(s, p, t, action):
    """Resume or switch as `action` says, or prepare the host's own yield; returns whether that must follow."""
    par = s.par[0]
    y = s.pcpu[p].current
    if action == np.int64(y):
        go_on(s, p, t, par.exit)
        return False
    if action < par.vcpus:
        v = np.uint32(action)
        q = s.vcpu[v].pcpu
        s.host.dequeue(s, q, v)
        if par.actuator != HINT:
            s.host.charge(s, p, t)
            leave(s, p, y, t, PLE_YIELD)
            s.host.yield_now(s, p, y)
            s.host.put_prev(s, q if par.pull_swaps else p, y, t, True)
            switch(s, p, v, t, par.exit)
            return False
        s.host.yield_to(s, p, q, v, t)
    s.host.yield_now(s, p, y)
    return True
