"""What a vCPU waits for, as the rest of the machine asks it: is its wait over, who can end it, who is before whom.

Two kinds of wait: in a line (first come, first served: `LINE`) and by polling (whoever looks first: `POLL`). Nobody
outside the guest asks what kind of lock it is.
"""

from __future__ import annotations

from ple_gym.sim.guest.kinds import LINE, POLL
from ple_gym.sim.jit import inlined
from ple_gym.sim.state import NONE, SPIN


@inlined
def in_line(s, vm):
    """Whether the waiters of this VM's locks stand in line."""
    return s.program[vm].wait == LINE


@inlined
def waits_in_line(s, v):
    """Whether v stands in a line."""
    return s.guest[v].phase == SPIN and in_line(s, s.vcpu[v].vm)


@inlined
def available(s, v):
    """Whether what v waits for is v's to take."""
    lock = s.lock[s.guest[v].lock]
    return lock.holder == NONE and (s.program[lock.vm].wait == POLL or lock.head == v)


@inlined
def who_can_end(s, v):
    """Who must do something before v's wait can end: the holder, or NONE."""
    return s.lock[s.guest[v].lock].holder


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
    """v begins to wait for its lock; in line it is the last."""
    guest = s.guest[v]
    lock = s.lock[guest.lock]
    guest.phase = SPIN
    guest.halt_left = s.program[lock.vm].halt
    if in_line(s, lock.vm):
        guest.next_waiter = NONE
        if lock.tail == NONE:
            lock.head = v
        else:
            s.guest[lock.tail].next_waiter = v
        lock.tail = v


@inlined
def depart(s, v):
    """v's wait is over."""
    lock = s.lock[s.guest[v].lock]
    if in_line(s, lock.vm):
        lock.head = s.guest[v].next_waiter
        if lock.head == NONE:
            lock.tail = NONE
