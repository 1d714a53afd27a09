"""What a rule could do that was told who holds the lock and who is next: for comparison only (docs/model.md, 11)."""

from __future__ import annotations

import numpy as np

from ple_gym.rules.registry import privileged
from ple_gym.sim.decisions import within_reach
from ple_gym.sim.jit import inlined
from ple_gym.sim.locks import available
from ple_gym.sim.state import NONE, RUNNING, TAS


@inlined
def may_run(s, p, v):
    """Whether v can be run on p."""
    return within_reach(s.vcpu[v].state, s.vcpu[v].pcpu, p, s.par[0].actuator)


@privileged("oracle", reads="holder, tickets", source="docs/model.md 11")
def oracle(see, asker, lane):
    """Whoever the line waits for.

    The last of the line makes room for it. Whoever leaves becomes the next hole in the ticket queue, so an asker with
    running waiters behind it stays.
    """
    s = lane
    p, y = np.uint32(see.here), np.uint32(asker)
    lock = s.lock[s.guest[y].lock]
    if s.program[lock.vm].lock_kind == TAS:
        return np.int64(lock.holder) if lock.holder != NONE and may_run(s, p, lock.holder) else np.int64(y)
    if available(s, y):
        return np.int64(y)
    target = NONE
    if lock.holder != NONE and may_run(s, p, lock.holder):
        target = lock.holder
    w = lock.head
    while w != y:
        if target == NONE and may_run(s, p, w):
            target = w
        w = s.guest[w].next_waiter
    if target == NONE:
        return np.int64(y)
    w = s.guest[y].next_waiter
    while w != NONE:
        if s.vcpu[w].state == RUNNING:
            return np.int64(y)
        w = s.guest[w].next_waiter
    return np.int64(target)
