"""Where the fair scheduler's nodes (`cfs_rq.py`) are: in `s.host_vcpu`, first vCPUs, then root queues, then groups."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined

FLAT, PER_VM, PER_VCPU = np.arange(3)  # control groups: none, one per VM, and within it one per vCPU


def further(scenario):
    """How many nodes there are beside the vCPUs."""
    pcpus = scenario.host.pcpus
    return pcpus if scenario.host.groups == "flat" else pcpus * (1 + len(scenario.vms()))


@inlined
def grouped(s):
    """Whether vCPUs are in groups."""
    return s.host_par[0].groups != FLAT


@inlined
def root_of(s, p):
    """p's root queue."""
    return np.uint32(s.par[0].vcpus + np.int64(p))


@inlined
def group_of(s, p, v):
    """The group of v's VM on p."""
    par = s.par[0]
    return np.uint32(par.vcpus + par.pcpus + np.int64(p) * par.vms + np.int64(s.vcpu[v].vm))


@inlined
def queue_of(s, p, v):
    """The queue of p that v is in, or comes into."""
    return group_of(s, p, v) if grouped(s) else root_of(s, p)


@inlined
def count(s):
    """The number of nodes."""
    par = s.par[0]
    return par.vcpus + (par.pcpus * (1 + par.vms) if grouped(s) else par.pcpus)
