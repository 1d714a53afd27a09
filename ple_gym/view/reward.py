"""What a decision costs: what has been lost since the one before (docs/model.md, section 12)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined
from ple_gym.view.record import FAIR, TIME


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
