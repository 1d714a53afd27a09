"""Rules that need one look: the host's own yield, resuming, and three ways to take turns."""

from __future__ import annotations

from ple_gym.rules.helpers import candidates, draw, earliest, may_run, queued_since, sibling
from ple_gym.rules.registry import rule, settings


@rule("host", reads="none", actuator="yield", source="the scenario's host", settled=False)
def host(see, asker):
    """Yield as the scenario's scheduler does."""
    return see.defer


@rule("continue", reads="none", actuator="resume", source="-", settled=False)
def resume(see, asker):
    """Resume the spinner."""
    return asker


@rule("random", reads="runnable vCPUs", actuator="pull", source="van Riel, 2011", settled=False)
def random(see, asker):
    """Any queued vCPU, uniformly."""
    count = 0
    for _ in candidates(see):
        count += 1
    nth = (draw(see) * count) >> 32
    for v in candidates(see):
        if nth == 0:
            return v
        nth -= 1
    return asker


@rule("round-robin", reads="siblings", actuator="pull", source="-", memory={"vm": ("next",)}, settled=False)
def round_robin(see, asker, memory):
    """The next queued sibling by number."""
    first = memory.vm[0].next  # of the machine, not of the VM
    for i in range(see.vcpus):
        v = (first + i) % see.vcpus
        if may_run(see, v) and sibling(see, v):
            memory.vm[0].next = v + 1
            return v
    return asker


@rule("longest-waiting", reads="waiting times", actuator="pull", source="-", settled=False)
def longest_waiting(see, asker):
    """The longest queued vCPU of any VM."""
    found = earliest(see, may_run, queued_since)
    return found if found >= 0 else asker


#: Xen's versions are settings of the host, under its own rule.
_BYPASSES = "host.yield_bypasses_ratelimit"
xen_45 = settings("xen-4.5", host, "Xen 4.5, csched_schedule", "yield, but not in the first ms", {_BYPASSES: False})
xen_48 = settings("xen-4.8", host, "Xen 9fdd2f3c9c, 2016", "yield at once", {_BYPASSES: True})
