"""Balance scheduling, a remedy at the credit scheduler: siblings are on different queues (docs/model.md, 9.12)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.affinity import may_run_on
from ple_gym.sim.jit import called
from ple_gym.sim.state import QUEUED, RUNNING


@called
def siblings(s, p, v):
    """How many vCPUs of v's VM, other than v, run or are queued on p."""
    vmp = s.vmp[s.vcpu[v].vm]
    many = np.int64(0)
    for i in range(vmp.first, vmp.first + vmp.vcpus):
        other = s.vcpu[np.uint32(i)]
        many += i != v and other.pcpu == p and (other.state == RUNNING or other.state == QUEUED)
    return many


@called
def loneliest(s, v):
    """Of the pCPUs that v may run on the one with the fewest siblings: its own, else the next of them cyclically."""
    n, home = s.par[0].pcpus, s.vcpu[v].pcpu
    best, fewest = home, siblings(s, home, v)
    for i in range(1, n):
        p = np.uint32((np.int64(home) + i) % n)
        if may_run_on(s, v, p):
            many = siblings(s, p, v)
            if many < fewest:
                best, fewest = p, many
    return best


@called
def crowds(s, v, p):
    """Whether v, which is queued elsewhere, would find more siblings on p."""
    return siblings(s, p, v) > siblings(s, s.vcpu[v].pcpu, v)
