"""Rules that look at interrupts among siblings, as far as the hypervisor sees them (docs/model.md, 7.10 and 11).

Without `host.ipi_visible`, or where no guest sends any, they are what they fall back on.
"""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import earliest, has_interrupt, may_run, pending_since, runnable_sibling
from ple_gym.rules.kvm import around, eligible, fails, preempted
from ple_gym.rules.registry import rule
from ple_gym.rules.spin_age import holder_or_spinner

_SOURCE = "Li, PATCH v2 8/9 of 2025-12-18, LKML"


@helper
def good_candidate(see, v):
    """Whether running v may end a wait: it has an interrupt to serve, or lost its pCPU in kernel mode."""
    return has_interrupt(see, v) or (preempted(see, v) and see.vcpu[v].left_kernel == 1)


@rule(
    "ipi-aware",
    reads="kernel mode, exits, queue lengths, interrupts",
    actuator="hint",
    source=_SOURCE,
    memory={"vm": ("next",), "vcpu": ("eligible", "dispatches")},
    settled=False,
)
def ipi_aware(see, asker, memory):
    """`kvm-6.18`, for who has an interrupt to serve, or was preempted in kernel mode; else for anybody preempted."""
    m = see.vcpu[asker].vm
    first, n = see.vm[m].first, see.vm[m].vcpus
    memory.vcpu[asker].eligible = 0
    start = memory.vm[m].next % n
    failed, left = asker, np.int64(3)
    for i in range(2 * n):
        number = around(around(start + i, n), n)
        v = first + number
        if v == asker or not may_run(see, v):
            continue
        good = good_candidate(see, v) and eligible(see, v, memory) if i < n else preempted(see, v)
        if not good:
            continue
        if not fails(see, v):
            memory.vm[m].next = number + 1
            return v
        failed = v
        left -= 1
        if left == 0:
            break
    return failed


@helper
def interrupted_sibling(see, v):
    """Whether v is a sibling that can be run here, and has interrupts to serve."""
    return runnable_sibling(see, v) and has_interrupt(see, v)


@rule(
    "oldest-interrupt",
    reads="kernel mode, exits, interrupts",
    actuator="pull",
    source="docs/model.md 11",
    hypothetical=True,
    settled=False,
)
def oldest_interrupt(see, asker):
    """The sibling whose interrupt has waited longest, else `spin-age-self`."""
    found = earliest(see, interrupted_sibling, pending_since)
    if found < 0:
        found = holder_or_spinner(see)
    return found if found >= 0 else asker
