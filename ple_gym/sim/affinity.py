"""Sets of pCPUs, and on which of them a vCPU may run.

A set is four words of 64 bits, a bit for each pCPU.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined


@inlined
def word_of(pcpus, p):
    """The word of a set that has pCPU p's bit."""
    low, high = pcpus[0] if p < 64 else pcpus[1], pcpus[2] if p < 192 else pcpus[3]
    return low if p < 128 else high


@inlined
def holds_pcpu(pcpus, p):
    """Whether pCPU p is in a set."""
    return (word_of(pcpus, p) >> np.int64(p & 63)) & 1 != 0


@inlined
def only(p):
    """The set of pCPU p."""
    bit, word = np.int64(1) << np.int64(p & 63), np.int64(p) >> 6
    return bit * (word == 0), bit * (word == 1), bit * (word == 2), bit * (word == 3)


@inlined
def without(pcpus, p):
    """A set but for pCPU p."""
    gone = only(p)
    return pcpus[0] & ~gone[0], pcpus[1] & ~gone[1], pcpus[2] & ~gone[2], pcpus[3] & ~gone[3]


@inlined
def listed(vm):
    """The set in a VM's parameters."""
    return vm.affinity, vm.affinity_64, vm.affinity_128, vm.affinity_192


@called
def allowed(s, v):
    """The set of pCPUs that v may run on."""
    vm = s.vmp[s.vcpu[v].vm]
    return only(s.vcpu[v].pcpu) if vm.pinned != 0 else listed(vm)


@called
def is_listed(s, v, p):
    """Whether v, which may not run anywhere, may run on p."""
    return holds_pcpu(allowed(s, v), p)


@inlined
def may_run_on(s, v, p):
    """Whether v may run on p."""
    return s.vmp[s.vcpu[v].vm].roams != 0 or is_listed(s, v, p)
