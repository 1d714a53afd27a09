"""The published rules, compiled into the kernel (docs/model.md, section 11; `catalog.py` has their names and sources).

All but the oracle are handed a `Sight`: what a hypervisor sees. They cannot read locks, tickets, guest phases or the
future, because those arrays are not passed to them.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.host.credit import socket
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.locks import available
from ple_gym.sim.pause_loop import suspected_spinner
from ple_gym.sim.sight import may_run, sight_of
from ple_gym.sim.state import INF, NO_VCPU, NONE, OVER, PLE_YIELD, PREEMPTED, RUNNING, TAS

HOST, CONTINUE, RANDOM, ROUND_ROBIN, LONGEST_WAITING, XEN_45, XEN_48, PAPER, KVM = range(9)
SPIN_AGE, SPIN_AGE_SELF, TWO_PATIENCE, ORACLE_RULE = 9, 10, 11, 12
LEARNED = 13  # the network in the description (network.py)
EXTERNAL = -1  # the caller decides

PATIENCE = 64  # exits before two-patience runs a vCPU that lost its pCPU in kernel mode (reference/scenarios.md, 0.3)


@inlined
def own_head(see, p, otherwise):
    """First vCPU of p's own queue."""
    return np.int64(see.queue[p, 0]) if see.pcpu[p].queued > 0 else np.int64(otherwise)


@called
def random_candidate(see, p, y, bits):
    """Any vCPU that can be run here, uniformly."""
    count = np.int64(0)
    for i in range(see.par[0].vcpus):
        count += may_run(see, p, np.uint32(i))
    if count == 0:
        return np.int64(y)
    nth = (bits * count) >> 32
    for i in range(see.par[0].vcpus):
        if may_run(see, p, np.uint32(i)):
            if nth == 0:
                return i
            nth -= 1
    return np.int64(y)


@called
def round_robin(see, p, y):
    """The next runnable sibling by number."""
    n = see.par[0].vcpus
    for i in range(1, n + 1):
        v = np.uint32((np.int64(see.memory[0].round_robin) + i) % n)
        if may_run(see, p, v) and see.vcpu[v].vm == see.vcpu[y].vm:
            see.memory[0].round_robin = v
            return np.int64(v)
    return np.int64(y)


@called
def longest_waiting(see, p, y):
    """The vCPU that has been queued for longest, anywhere."""
    best, since = np.int64(y), INF
    for i in range(see.par[0].vcpus):
        v = np.uint32(i)
        if may_run(see, p, v) and see.vcpu[v].queued_since < since:
            best, since = i, see.vcpu[v].queued_since
    return best


@called
def paper(see, p):
    """The head of the own queue, never the asker; if that is OVER or missing, work from elsewhere first, as in Xen."""
    par = see.par[0]
    own = see.pcpu[p].queued > 0
    least = np.int64(see.vcpu[np.uint32(see.queue[p, 0])].priority) if own else np.int64(NO_VCPU)
    if least <= OVER:
        for turn in range(par.sockets):
            for i in range(par.pcpus):
                q = np.uint32(i)
                if q == p or see.pcpu[q].queued == 0 or socket(see, q) != (socket(see, p) + turn) % par.sockets:
                    continue
                v = np.uint32(see.queue[q, 0])
                if may_run(see, p, v) and see.vcpu[v].priority > least:
                    return np.int64(v)
    return np.int64(see.queue[p, 0]) if own else par.vcpus


@called
def kvm(see, p, y):
    """kvm_vcpu_on_spin: the next sibling preempted in kernel mode; one that left by a PLE exit every other time."""
    m = see.vcpu[y].vm
    first, n = see.vmp[m].first, see.vmp[m].vcpus
    see.vcpu[y].dy_eligible = 0
    for i in range(1, n + 1):
        number = (np.int64(see.memory[m].last_boosted) + i) % n
        v = np.uint32(first + number)
        if v == y or not may_run(see, p, v):
            continue
        vcpu = see.vcpu[v]
        if (vcpu.left_by == PREEMPTED or vcpu.left_by == PLE_YIELD) and not vcpu.left_kernel:
            continue
        if vcpu.left_by == PLE_YIELD:
            eligible = vcpu.dy_eligible
            vcpu.dy_eligible = 1 - eligible
            if not eligible:
                continue
        see.memory[m].last_boosted = number
        return np.int64(v)
    return np.int64(y)


@called
def likely_holder(see, p, y):
    """The sibling that lost its pCPU in kernel mode longest ago and does not seem to spin; -1 if none."""
    best, since = np.int64(-1), INF
    for i in range(see.par[0].vcpus):
        v = np.uint32(i)
        if (
            may_run(see, p, v)
            and see.vcpu[v].vm == see.vcpu[y].vm
            and see.vcpu[v].left_kernel
            and see.vcpu[v].queued_since < since
            and not suspected_spinner(see.vmp, see.vcpu, v)
        ):
            best, since = i, see.vcpu[v].queued_since
    return best


@called
def oldest_spinner(see, p, y):
    """The sibling that seems to spin since before the asker does, oldest first: a guess of ticket order; -1 if none."""
    best, since = np.int64(-1), see.vcpu[y].first_ple
    for i in range(see.par[0].vcpus):
        v = np.uint32(i)
        if (
            may_run(see, p, v)
            and see.vcpu[v].vm == see.vcpu[y].vm
            and see.vcpu[v].first_ple < since
            and suspected_spinner(see.vmp, see.vcpu, v)
        ):
            best, since = i, see.vcpu[v].first_ple
    return best


@inlined
def spin_age(see, p, y, fallback):
    """A likely holder, else an older spinner, else the fallback."""
    found = likely_holder(see, p, y)
    if found < 0:
        found = oldest_spinner(see, p, y)
    return found if found >= 0 else fallback


@inlined
def two_patience(see, p, y):
    """An older spinner at once; a likely holder only after many exits; else go on."""
    found = oldest_spinner(see, p, y)
    if found < 0 and see.vcpu[y].ples >= PATIENCE:
        found = likely_holder(see, p, y)
    return found if found >= 0 else np.int64(y)


@called
def oracle(s, see, p, y):
    """Privileged: bring back whoever the line waits for, and let the last of the line make room for it.

    Whoever leaves becomes the next hole in the ticket queue, so an asker with running waiters behind it stays.
    """
    lock = s.lock[s.guest[y].lock]
    if s.vmp[lock.vm].lock_kind == TAS:
        return np.int64(lock.holder) if lock.holder != NONE and may_run(see, p, lock.holder) else np.int64(y)
    if available(s, y):
        return np.int64(y)
    target = NONE
    if lock.holder != NONE and may_run(see, p, lock.holder):
        target = lock.holder
    w = lock.head
    while w != y:
        if target == NONE and may_run(see, p, w):
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


@called
def choose(s, rule, p):
    """The action of a compiled rule for the exit on pCPU p (int64)."""
    see = sight_of(s)
    y = s.pcpu[p].current
    defer = s.par[0].vcpus
    me = np.int64(y)
    if rule == CONTINUE:
        return me
    if rule == RANDOM:
        world = s.world[0]
        return random_candidate(see, p, y, rng.high(rng.draw(world.policy_key, world.exits - 1)))
    if rule == ROUND_ROBIN:
        return round_robin(see, p, y)
    if rule == LONGEST_WAITING:
        return longest_waiting(see, p, y)
    if rule == PAPER:
        return paper(see, p)
    if rule == KVM:
        return kvm(see, p, y)
    if rule == SPIN_AGE:
        return spin_age(see, p, y, own_head(see, p, me))
    if rule == SPIN_AGE_SELF:
        return spin_age(see, p, y, me)
    if rule == TWO_PATIENCE:
        return two_patience(see, p, y)
    if rule == ORACLE_RULE:
        return oracle(s, see, p, y)
    return defer
