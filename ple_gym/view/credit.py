"""What Xen's credit scheduler adds to an observation: credit, priority, and what is left of slice and rate limit."""

from __future__ import annotations

from ple_gym.sim.jit import inlined
from ple_gym.view.record import HYPERVISOR
from ple_gym.view.rows import FLAG, SHARE, SIGNED, Feature, Table
from ple_gym.view.scales import FLOAT32, INT32, ONE, ZERO, within

NAME = "credit"


@inlined
def of_slice(cycles, host_par):
    """Cycles as a share of the timeslice."""
    return FLOAT32(cycles) * (ONE / FLOAT32(host_par.timeslice))


OWN = Table(
    vcpu=(
        Feature(
            "credit", HYPERVISOR, "of one timeslice, -1..1", SIGNED,
            lambda own, host_par: within(of_slice(own.credit, host_par), -ONE, ONE),
            NAME, after="last_run",
        ),
        Feature(
            "priority", HYPERVISOR, "-1 OVER, 0 UNDER, 1 BOOST", SIGNED,
            lambda own: INT32(own.priority + 1),
            NAME, after="last_run",
        ),
    ),
    host=(
        Feature(
            "slice_left", HYPERVISOR, "of the timeslice", SHARE,
            lambda asking, now, host_par: within(of_slice(asking.slice_end - now, host_par), ZERO, ONE),
            NAME, after="queue",
        ),
        Feature(
            "rate_limited", HYPERVISOR, "the host's rate limit still holds", FLAG,
            lambda asking, now, host_par: now - asking.dispatched_at < host_par.ratelimit,
            NAME, after="ran",
        ),
    ),
)  # fmt: skip
