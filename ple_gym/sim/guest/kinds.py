"""The kinds of locks: what a scenario calls them, and what each is. Nothing compiled is loaded to read a scenario."""

from __future__ import annotations

from typing import NamedTuple

#: Kinds of wait: first come, first served; or whoever looks first.
LINE, POLL = 0, 1


class LockKind(NamedTuple):
    """What tells one kind of lock from another.

    Attributes:
        wait: `LINE` or `POLL`.
        shared_line: whether all waiters read one cache line.
        halts: whether a waiter may halt: somebody wakes it.
    """

    wait: int
    shared_line: bool
    halts: bool


#: By the name that a scenario uses.
LOCK_KINDS = {
    "ticket": LockKind(LINE, shared_line=True, halts=True),
    "mcs": LockKind(LINE, shared_line=False, halts=True),
    "tas": LockKind(POLL, shared_line=False, halts=False),
}
HALTING = " and ".join(name for name, kind in LOCK_KINDS.items() if kind.halts)
