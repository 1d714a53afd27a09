"""What rules could do that were told who holds the lock and who is next: for comparison only (docs/model.md, 11)."""

from __future__ import annotations

import numpy as np

from ple_gym.rules.registry import privileged
from ple_gym.sim.decisions import is_candidate
from ple_gym.sim.guest.waits import available, first_before, next_behind, waits_in_line, who_can_end
from ple_gym.sim.jit import inlined
from ple_gym.sim.state import NONE, RUNNING


@inlined
def may_run(s, p, v):
    """Whether v can be run on p."""
    return is_candidate(s.vcpu[v].state, s.vcpu[v].pcpu, p, s.par[0].actuator)


@privileged("queue-head", reads="holder, tickets", source="266e85a5ec9f (KVM_HC_KICK_CPU)")
def queue_head(see, asker, lane):
    """The head of a line that nobody holds up.

    KVM yields to the waiter that an unlock kicks. Here it is at an exit that somebody notices whose turn it is.
    """
    s = lane
    p, y = np.uint32(see.here), np.uint32(asker)
    if not waits_in_line(s, y) or available(s, y) or who_can_end(s, y) != NONE:
        return np.int64(y)
    head = first_before(s, y)
    return np.int64(head) if may_run(s, p, head) else np.int64(y)


@privileged("holder", reads="holder", source="s390 diag 9c; POWER H_CONFER")
def holder_alone(see, asker, lane):
    """The holder, whom a lock's word names to a guest that asks for it to be run; else resume."""
    s = lane
    p, y = np.uint32(see.here), np.uint32(asker)
    holder = who_can_end(s, y)
    return np.int64(holder) if holder != NONE and may_run(s, p, holder) else np.int64(y)


@privileged("oracle", reads="holder, tickets", source="docs/model.md 11")
def oracle(see, asker, lane):
    """Whoever the line waits for.

    The last of the line makes room for it. Whoever leaves becomes the next hole in the ticket queue, so an asker with
    running waiters behind it stays.
    """
    s = lane
    p, y = np.uint32(see.here), np.uint32(asker)
    holder = who_can_end(s, y)
    if not waits_in_line(s, y):
        return np.int64(holder) if holder != NONE and may_run(s, p, holder) else np.int64(y)
    if available(s, y):
        return np.int64(y)
    target = holder if holder != NONE and may_run(s, p, holder) else NONE
    w = first_before(s, y)
    while w != y:
        if target == NONE and may_run(s, p, w):
            target = w
        w = next_behind(s, w)
    if target == NONE:
        return np.int64(y)
    w = next_behind(s, y)
    while w != NONE:
        if s.vcpu[w].state == RUNNING:
            return np.int64(y)
        w = next_behind(s, w)
    return np.int64(target)
