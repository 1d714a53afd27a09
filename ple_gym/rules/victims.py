"""Rules that ask what an answer costs: whom a hint puts off, and what a yield forfeits (docs/model.md, 11)."""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import draw, runnable_sibling
from ple_gym.rules.patience import COMMON, puts_off_stranger
from ple_gym.rules.registry import choice, rule, whole

MOST = 2**34  # cycles of virtual time that two vCPUs are apart, at most, in a sum


@rule("victim-aware", reads="who runs where siblings wait", actuator="hint", **COMMON)
def victim_aware(see, asker):
    """Any sibling that waits where a stranger runs; else defer."""
    m = see.vcpu[asker].vm
    first, n = see.vm[m].first, see.vm[m].vcpus
    count, turn = np.int64(0), np.int64(-1)
    while True:
        for i in range(1, n):
            v = first + (asker - first + i) % n
            if runnable_sibling(see, v) and puts_off_stranger(see, v):
                if count == turn:
                    return v
                count += 1
        if count == 0:
            return see.defer
        count, turn = np.int64(0), draw(see) * count >> 32


@helper
def eligible(see, asker, scheduler, whole_pcpu):
    """Whether the asker has had no more than its share among who is in its queue."""
    own, total = scheduler.vcpu[asker].vruntime, np.int64(0)
    for v in range(see.vcpus):
        one = scheduler.vcpu[v]
        same_vm = see.vcpu[v].vm == see.vcpu[asker].vm
        if one.on_rq == 1 and see.vcpu[v].pcpu == see.here and (whole_pcpu or same_vm):
            total += one.weight * max(-MOST, min(MOST, one.vruntime - own))
    return total >= 0


@rule(
    "yield-if-cheap", reads="virtual times", actuator="yield", scheduler="fair", **COMMON,
    us=whole(0, 1_000_000, default=700, help="of virtual time that a yield may forfeit"),
    queue=choice("pcpu", "vm", default="pcpu", help="who shares the asker's queue: as host.groups = flat, or vm"),
)  # fmt: skip
def yield_if_cheap(see, asker, scheduler, k):
    """Defer if that forfeits at most 700 us (`us`) of virtual time; else resume."""
    forfeit = scheduler.vcpu[asker].deadline - scheduler.vcpu[asker].vruntime
    if forfeit <= k.us * see.tsc_hz // 1_000_000 or not eligible(see, asker, scheduler, k.queue == 0):
        return see.defer
    return asker
