"""The locks that a vCPU holds: up to four at once, packed into one word (docs/model.md, section 7.9).

Bits 16 k and up of `held` are the lock in place k, numbered within its VM from 1; 0: none is there.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import inlined

PLACES = 4
PLACE_BITS = 16
PLACE_MASK = (1 << PLACE_BITS) - 1


@inlined
def holds_a_lock(s, v):
    """Whether v holds a lock, whatever else it does."""
    return s.guest[v].held != 0


@inlined
def held_at(s, v, place):
    """The lock in a place (its global number, int64), or -1."""
    number = (s.guest[v].held >> (PLACE_BITS * np.int64(place))) & PLACE_MASK
    return s.program[s.vcpu[v].vm].first_lock + number - 1 if number > 0 else -1


@inlined
def hold(s, v, place):
    """v holds the lock that it has tried."""
    guest = s.guest[v]
    number = np.int64(guest.lock) - s.program[s.vcpu[v].vm].first_lock + 1
    guest.held |= number << (PLACE_BITS * np.int64(place))


@inlined
def let_go(s, v, place):
    """v no longer holds the lock in a place."""
    s.guest[v].held &= ~(PLACE_MASK << (PLACE_BITS * np.int64(place)))
