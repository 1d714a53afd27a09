"""What Xen's credit2 scheduler adds to an observation: credit, what is asked of whom, and who shares the queue."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ple_gym.sim.host.credit2 import for_another
from ple_gym.sim.jit import inlined
from ple_gym.sim.state import NONE
from ple_gym.view.record import HYPERVISOR
from ple_gym.view.rows import FLAG, SHARE, SIGNED, Feature, Table
from ple_gym.view.scales import FLOAT32, ONE, ZERO, within

NAME = "credit2"


class Account(NamedTuple):
    """What the scheduler knows of a vCPU."""

    credit: Any  # cycles
    yielding: Any  # 0 or 1
    tickled: Any  # whether a pCPU has been asked to look at it, and will
    shares: Any  # whether its queue is the asking pCPU's


def look(see, number, here):
    """The scheduler's records of vCPU `number`."""
    v, p = np.uint32(number), np.uint32(here.p)
    own = see.host_vcpu[v]
    shares = see.host_pcpu[see.vcpu[v].pcpu].leader == see.host_pcpu[p].leader
    return Account(own.credit, own.yielding, for_another(see, v, NONE), shares)


@inlined
def of_credit(cycles, host_par):
    """Cycles as a share of the credit that an epoch begins with, which is also the longest slice."""
    return FLOAT32(cycles) * (ONE / FLOAT32(host_par.credit))


OWN = Table(
    vcpu=(
        Feature(
            "credit", HYPERVISOR, "as of when it last paid, of the 10 ms that an epoch begins with", SIGNED,
            lambda own, host_par: within(of_credit(own.credit, host_par), -ONE, ONE),
            NAME, after="last_run",
        ),
        Feature(
            "yielding", HYPERVISOR, "it has yielded, and its pCPU has not chosen since", FLAG,
            lambda own: own.yielding,
            NAME, after="last_run",
        ),
        Feature(
            "tickled", HYPERVISOR, "a pCPU has been asked to look at it, and has not yet", FLAG,
            lambda own: own.tickled,
            NAME, after="last_run",
        ),
        Feature(
            "same_queue", HYPERVISOR, "the pCPU that it is on, or last was on, shares the asking pCPU's queue", FLAG,
            lambda own: own.shares,
            NAME, after="last_run",
        ),
    ),
    host=(
        Feature(
            "slice_left", HYPERVISOR, "of 10 ms, the longest slice", SHARE,
            lambda asking, now, host_par: within(of_credit(asking.slice_end - now, host_par), ZERO, ONE),
            NAME, after="queue",
        ),
        Feature(
            "rate_limited", HYPERVISOR, "the host's rate limit still holds", FLAG,
            lambda asking, now, host_par: now - asking.dispatched_at < host_par.ratelimit,
            NAME, after="ran",
        ),
    ),
    look=look,
)  # fmt: skip
