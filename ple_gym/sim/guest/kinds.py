"""The kinds of locks: all that tells one from another, so that to add one is to edit this file alone.

The functions are plain Python, so that nothing compiled is loaded to read a scenario; `waits.py` compiles them. `s` is
the lane, `lock` the lock's record, `v` a vCPU; what they may look at is in `sim/state.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ple_gym.sim.constants import ASIDE, ASKING, NONE, QUEUEING

# --- where who begins to wait will stand: the line goes from `head` along `next_waiter` to `tail` ---------------------


def stand_last(s, lock, v):
    """First come, first served."""
    s.guest[v].next_waiter = NONE
    if lock.tail == NONE:
        lock.head = v
    else:
        s.guest[lock.tail].next_waiter = v
    lock.tail = v


def stand_last_or_aside(s, lock, v):
    """First come, first served; but who comes while the head does not spin stands aside, to steal the lock."""
    guest = s.guest[v]
    guest.next_waiter = NONE
    if lock.head == NONE:
        guest.node = ASKING
        lock.head = v
    elif s.guest[lock.head].node >= ASKING:
        guest.node = QUEUEING
        guest.ahead = lock.tail
        s.guest[lock.tail].next_waiter = v
    else:
        guest.node = ASIDE
        return
    lock.tail = v


def stand_nowhere(s, lock, v):
    """There is no line: whoever looks first gets it."""


# --- who may take the lock while nobody holds it: a waiter, or who comes and has not waited yet -----------------------


def the_first(s, lock, v):
    """The head of the line, or who comes while nobody waits."""
    return lock.head == v or lock.head == NONE


def the_first_or_a_thief(s, lock, v):
    """The head of the line; or who comes or stands aside, while nobody waits or the head does not spin."""
    if lock.head == v or lock.head == NONE:
        return True
    return s.guest[v].node == ASIDE and s.guest[lock.head].node < ASKING


def the_first_or_the_patient(s, lock, v):
    """The head of the line; or who has spun for a unit of time for each one before it."""
    if lock.head == v or lock.head == NONE:
        return True
    due, w = s.program[lock.vm].overtake, s.guest[lock.head].next_waiter
    while w != v and w != NONE:
        due += s.program[lock.vm].overtake
        w = s.guest[w].next_waiter
    return w == v and s.guest[v].halt_left <= -due


def anybody(s, lock, v):
    """Whoever tries."""
    return True


class LockKind(NamedTuple):
    """What tells one kind of lock from another.

    Attributes:
        stand: (s, lock, v): put v into the line; it begins to wait.
        may_take: (s, lock, v) -> whether the lock, which nobody holds, is v's to take.
        shared_line: whether all waiters read one cache line.
        halts: whether a waiter may halt: somebody wakes it, and nobody is served before it who came later.
        stolen: whether who comes later may be served first while the head of the line does not spin (7.7); who waits
            behind one that has halted halts early, and who was woken does not halt again.
        overtakes: whether a waiter may take the lock out of order when it has spun for long enough (7.8).
    """

    stand: Callable[..., Any]
    may_take: Callable[..., Any]
    shared_line: bool
    halts: bool
    stolen: bool = False
    overtakes: bool = False

    @property
    def in_line(self) -> bool:
        """Whether waiters stand in a line. Then a release tells its head alone, else everybody who spins."""
        return self.stand is not stand_nowhere

    @property
    def interruptible(self) -> bool:
        """Whether it is said what an interrupt of a sibling does to a waiter (7.10)."""
        return not (self.stolen or self.overtakes)


#: By the name that a scenario uses.
LOCK_KINDS = {
    "ticket": LockKind(stand_last, the_first, shared_line=True, halts=True),
    "mcs": LockKind(stand_last, the_first, shared_line=False, halts=True),
    "preemptable-ticket": LockKind(stand_last, the_first_or_the_patient, shared_line=True, halts=False, overtakes=True),
    "pv": LockKind(stand_last_or_aside, the_first_or_a_thief, shared_line=False, halts=True, stolen=True),
    "tas": LockKind(stand_nowhere, anybody, shared_line=False, halts=False),
}
#: The different functions of all kinds, by their name in the row; a VM's program has their places (`PROGRAM`).
STAND = tuple(dict.fromkeys(kind.stand for kind in LOCK_KINDS.values()))
MAY_TAKE = tuple(dict.fromkeys(kind.may_take for kind in LOCK_KINDS.values()))
HALTING = " and ".join(name for name, kind in LOCK_KINDS.items() if kind.halts)
INTERRUPTIBLE = tuple(name for name, kind in LOCK_KINDS.items() if kind.interruptible)
