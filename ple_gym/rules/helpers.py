"""What most rules need: who can be run, who belongs together, who is first.

All take and return int64 numbers. A vCPU that there is not is -1. In rules of your own, decorate a function that a rule
calls with `helper`.
"""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.sim import rng
from ple_gym.sim.decisions import is_candidate
from ple_gym.sim.state import INF, QUEUED, SENDER_BITS


@helper
def may_run(see, v):
    """Whether v can be answered: it is queued, and within the actuator's reach."""
    vcpu = see.vcpu[v]
    return is_candidate(vcpu.state, vcpu.pcpu, see.here, see.actuator)


@helper
def sibling(see, v):
    """Whether v belongs to the asker's VM."""
    return see.vcpu[v].vm == see.vcpu[see.asker].vm


@helper
def runnable_sibling(see, v):
    """Whether v belongs to the asker's VM and can be run here."""
    return may_run(see, v) & sibling(see, v)  # not `and`: so the asker's VM is looked up once for all v


@helper
def candidates(see):
    """The vCPUs that can be run here, by number: `for v in candidates(see)`."""
    for v in range(see.vcpus):
        if may_run(see, v):
            yield v


@helper
def siblings(see):
    """The vCPUs of the asker's VM that can be run here, by number."""
    for v in range(see.vcpus):
        if runnable_sibling(see, v):
            yield v


@helper
def earliest(see, among, when):
    """Of the vCPUs with among(see, v), the first with the least when(see, v); -1 if there is none."""
    best, least = np.int64(-1), INF
    for v in range(see.vcpus):
        if among(see, v):
            time = when(see, v)
            if time < least:
                best, least = v, time
    return best


@helper
def queued_since(see, v):
    """Time at which v was queued, cycles."""
    return see.vcpu[v].queued_since


@helper
def head(see, p):
    """First vCPU of pCPU p's queue; -1 if it is empty."""
    return see.queue[p, 0] if see.pcpu[p].queued > 0 else np.int64(-1)


@helper
def victim(see, v):
    """Who has to go if a hint at v wins: the vCPU that runs where v is queued; -1 if that is nobody, or the asker."""
    there = see.pcpu[see.vcpu[v].pcpu].current
    return there if there != see.asker and see.vcpu[v].state == QUEUED else np.int64(-1)


@helper
def has_interrupt(see, v):
    """Whether v has interrupts of siblings to serve, as far as the hypervisor sees that."""
    return see.ipis_seen > 0 and see.ipi[v].senders != 0


@helper
def interrupted_by(see, v, sender):
    """Whether v has an interrupt of this sibling to serve, as far as the hypervisor sees and remembers that."""
    return (
        has_interrupt(see, v)
        and (see.ipi[v].senders >> ((sender - see.vm[see.vcpu[v].vm].first) % SENDER_BITS)) & 1 != 0
    )


@helper
def pending_since(see, v):
    """Time at which the first interrupt came that v has to serve, cycles; only of who `has_interrupt`."""
    return see.ipi[v].pending_since


@helper
def seems_to_spin(see, v):
    """Whether v, as far as a hypervisor can tell, still spins: it has not run two windows without an exit."""
    vcpu = see.vcpu[v]
    return vcpu.ples > 0 and vcpu.cpu_time - vcpu.cpu_at_ple <= see.vm[vcpu.vm].progress


@helper
def with_window(see, target, window):
    """Where `decision.window` is agent: `target`, and 0: the asker's window is the host's; 1..5: 4^(window-1) bases."""
    return target + (see.defer + 1) * window if target >= 0 else target  # nobody stays nobody


@helper
def socket(see, p):
    """Socket of pCPU p."""
    return p * see.sockets // see.pcpus


@helper
def draw(see):
    """32 random bits of this decision, as a number 0..2^32-1: a function of seed and number of exits."""
    return rng.high(rng.draw(see.random_key, see.exits - 1))
