"""Rules that need one look: the host's own yield, resuming, and three ways to take turns."""

from __future__ import annotations

from ple_gym.rules.helpers import candidates, draw, earliest, may_run, queued_since, sibling
from ple_gym.rules.registry import rule, settings
from ple_gym.scenario.model import AS_IN_XEN


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


#: Xen's versions are settings of the host, under its own rule. `xen-4.8` is 4.5 but for one change of 4.8.
_BYPASSES, _FRESH = "host.yield_bypasses_ratelimit", "host.fresh_ratelimit_slice"
_WHOLE = {_BYPASSES: AS_IN_XEN, _FRESH: AS_IN_XEN}
xen_45 = settings(
    "xen-4.5", host, "Xen 4.5, csched_schedule", "yield, but not in the first ms", {"host.xen": "4.5", _BYPASSES: False}
)
xen_48 = settings("xen-4.8", host, "Xen 9fdd2f3c9c, 2016", "yield at once", {"host.xen": "4.5", _BYPASSES: True})
xen_417 = settings(
    "xen-4.17", host, "XCP-ng 8.3, 2024", "as Xen 4.17 and XCP-ng 8.3: yield at once, steal once a ms",
    {"host.xen": "4.17", **_WHOLE},
)  # fmt: skip
xen_418 = settings(
    "xen-4.18", host, "Xen e282067cf2, 2023", "the same, and nobody steals who has yielded",
    {"host.xen": "4.18", **_WHOLE},
)  # fmt: skip
