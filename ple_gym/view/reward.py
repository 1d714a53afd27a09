"""What a decision costs: what has been lost since the one before (docs/model.md, section 12)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined
from ple_gym.view.record import FAIR, RESPONSE, TIME


@inlined
def used(s, m):
    """Cycles that VM m's vCPUs have run."""
    total = np.int64(0)
    for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
        total += s.vcpu[np.uint32(i)].cpu_time
    return total


@inlined
def lateness(s):
    """Cycles by which responses have been late so far, those under way too (docs/model.md, 7.13)."""
    total = s.world[0].lateness
    for m in range(s.par[0].vms):
        vmp, program = s.vmp[m], s.program[m]
        if program.goal > 0:
            first, count = vmp.first, vmp.vcpus
            if program.threads > 0:
                first, count = s.par[0].vcpus + program.first_thread, program.threads
            for i in range(first, first + count):
                asked_at = s.response[i].asked_at
                if asked_at > 0:
                    total += max(np.int64(0), s.world[0].now - asked_at - program.goal)
    return total


@inlined
def lost_cycles(s, reward):
    """What the reward charges, accumulated since time 0, in pCPU cycles (float64).

    Everything that is not guest progress, and how far each endless neighbour is from what weight and number of vCPUs
    entitle it to (as in Xen): more is no use to the machine's owner, less is starvation. `FAIR` adds the largest lag of
    any VM beyond 10 ms, `RESPONSE` the time beyond their goals of all responses, as time of the whole machine.
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
    if reward == RESPONSE:
        lost += np.float64(lateness(s)) * par.pcpus
    return lost
