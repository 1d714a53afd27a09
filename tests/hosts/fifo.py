"""The least that a host's scheduler can be: a queue per pCPU, first in, first out, with slices of equal length.

Who yields goes to the end of its queue, who is yielded to goes to the front of its own. Nobody is ever moved.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ple_gym.sim.calendar import request
from ple_gym.sim.host import runqueue
from ple_gym.sim.host.runqueue import head, note_queued, put, remove
from ple_gym.sim.jit import inlined
from ple_gym.sim.seam import Host
from ple_gym.sim.state import IDLE, NONE

PARAMETERS = np.dtype([("timeslice", "i8")])


def describe(scenario):
    """The length of a slice, cycles."""
    return {"timeslice": scenario.host.timeslice_ms * scenario.host.tsc_hz // 1000}


@inlined
def start(s, key):
    """There are no timers."""


@inlined
def charge(s, p, t):
    """Nobody pays."""


@inlined
def holds(s, p, t):
    """Whoever is asked to go goes."""
    return False


@inlined
def put_prev(s, p, v, t, stays):
    """v goes to the end of p's queue."""
    if stays:
        note_queued(s, p, v, t)
        put(s, p, v, np.int64(s.pcpu[p].queued))


@inlined
def pick_next(s, p, t):
    """The head of p's queue."""
    upcoming = head(s, p)
    if upcoming != NONE:
        remove(s, p, upcoming)
    return upcoming


@inlined
def set_next(s, p, v, t):
    """A whole slice."""
    return t + s.host_par[0].timeslice


@inlined
def yield_now(s, p, v):
    """It is queued at the end in any case."""


@inlined
def yield_to(s, p, q, v, t):
    """v goes to the front of its queue."""
    remove(s, q, v)
    put(s, q, v, np.int64(0))
    return True


@inlined
def wake(s, v, t):
    """v goes to the end of the queue where it ran last."""
    p = s.vcpu[v].pcpu
    note_queued(s, p, v, t)
    put(s, p, v, np.int64(s.pcpu[p].queued))
    if s.pcpu[p].mode == IDLE:
        request(s, p, t)


@inlined
def migrate(s, v, t):
    """Nobody is ever moved."""


@inlined
def tick(s, p, t):
    """There is no tick."""
    return False


@inlined
def period(s):
    """There is none."""


@inlined
def protected_until(s, p):
    """Nobody is protected."""
    return np.int64(0)


@inlined
def sound(s):
    """There are no records."""
    return True


HOST = Host(
    name="fifo",
    describe=describe,
    sources=(Path(__file__), Path(runqueue.__file__)),
    start=start,
    charge=charge,
    holds=holds,
    put_prev=put_prev,
    pick_next=pick_next,
    set_next=set_next,
    dequeue=remove,
    yield_now=yield_now,
    yield_to=yield_to,
    wake=wake,
    migrate=migrate,
    tick=tick,
    period=period,
    protected_until=protected_until,
    sound=sound,
    PARAMETERS=PARAMETERS,
)
