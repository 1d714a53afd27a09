"""What a vCPU waits for, as the rest of the machine asks it: is its wait over, who can end it, who is before whom.

What differs from kind to kind is in `kinds.py`. Nobody outside the guest asks what kind of lock it is.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.constants import ASIDE
from ple_gym.sim.guest.kinds import MAY_TAKE, STAND
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import ACKS, BENEATH, NONE, RUNNING, SPIN


def one_of(functions, number=0):
    """Functions (s, lock, v) as one, compiled: (place of the function, s, lock, v)."""
    own = inlined(functions[number])
    others = one_of(functions, number + 1) if number + 1 < len(functions) else None

    @inlined
    def last(place, s, lock, v):
        return own(s, lock, v)

    @inlined
    def chosen(place, s, lock, v):
        if place == number:
            return own(s, lock, v)
        return others(place, s, lock, v)

    return chosen if others else last


stand = one_of(STAND)
may_take = one_of(MAY_TAKE)


@inlined
def in_line(s, vm):
    """Whether the waiters of this VM's locks stand in line."""
    return s.program[vm].in_line != 0


@inlined
def waits_in_line(s, v):
    """Whether v stands in a line."""
    program = s.program[s.vcpu[v].vm]
    return (
        s.guest[v].phase & BENEATH == SPIN
        and program.in_line != 0
        and (program.stolen == 0 or s.guest[v].node != ASIDE)
    )


@inlined
def available(s, v):
    """Whether what v waits for, or has come for, is v's to take."""
    lock = s.lock[s.guest[v].lock]
    return lock.holder == NONE and may_take(s.program[lock.vm].may_take, s, lock, v)


@inlined
def who_can_end(s, v):
    """Who must do something before v's wait can end, or NONE: the holder, or where that one waits, who can end this.

    It is who has not answered, where somebody on this way waits for acknowledgements. Whoever holds a lock waits for
    one with a higher number only, so that the search ends.
    """
    if s.guest[v].phase == ACKS:
        return must_answer(s, v)
    number = s.guest[v].lock
    u = s.lock[number].holder
    while u != NONE and s.guest[u].phase & BENEATH == SPIN and s.guest[u].lock > number and not available(s, u):
        number = s.guest[u].lock
        lock = s.lock[number]
        u = lock.holder if lock.holder != NONE else lock.head
    if u != NONE and s.guest[u].phase & BENEATH == ACKS and s.interrupts[u].missing > 0:
        return must_answer(s, u)
    return u


@inlined
def waits_for(s, u, v):
    """Whether u waits for its sibling v to acknowledge its interrupt."""
    number = np.int64(u) - s.vmp[s.vcpu[v].vm].first
    return (s.unanswered[v, number // 64] >> (number % 64)) & 1 != 0


@called
def must_answer(s, v):
    """The first behind v whose acknowledgement it lacks, and that does not run; if all run, the first; or NONE."""
    vm = s.vmp[s.vcpu[v].vm]
    first = NONE
    for i in range(1, vm.vcpus):
        w = np.uint32(vm.first + (np.int64(v) - vm.first + i) % vm.vcpus)
        if waits_for(s, v, w):
            if s.vcpu[w].state != RUNNING:
                return w
            if first == NONE:
                first = w
    return first


@inlined
def first_before(s, v):
    """The first of the line in which v stands; v itself if nobody is before it."""
    return s.lock[s.guest[v].lock].head


@inlined
def next_behind(s, v):
    """Who stands behind v in its line, or NONE."""
    return s.guest[v].next_waiter


@inlined
def join(s, v):
    """v begins to wait for its lock."""
    guest = s.guest[v]
    lock = s.lock[guest.lock]
    guest.phase = SPIN
    guest.halt_left = s.program[lock.vm].halt
    stand(s.program[lock.vm].stand, s, lock, v)


@inlined
def depart(s, v):
    """v's wait is over; in line it was the first, or has overtaken those before it."""
    lock = s.lock[s.guest[v].lock]
    if waits_in_line(s, v):
        s.guest[v].node = ASIDE
        if lock.head != v:
            step_out(s, lock, v)
            return
        lock.head = s.guest[v].next_waiter
        if lock.head == NONE:
            lock.tail = NONE


@called
def step_out(s, lock, v):
    """v, which is not the head, leaves the line."""
    w = lock.head
    while s.guest[w].next_waiter != v:
        w = s.guest[w].next_waiter
    s.guest[w].next_waiter = s.guest[v].next_waiter
    if lock.tail == v:
        lock.tail = w
