"""Rules that pick a vCPU by one sign that it may hold the lock, or be next for it (docs/model.md, 11)."""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import earliest, may_run, queued_since, runnable_sibling, seems_to_spin, sibling, victim
from ple_gym.rules.kvm import preempted
from ple_gym.rules.registry import choice, rule, whole
from ple_gym.rules.spin_age import likely_holder, older_spinner, spins_since

SOURCE = "docs/model.md 11"
_COMMON = {"actuator": "hint", "hypothetical": True, "settled": False}
_LONGEST, _MOST_HALVINGS = 2**42, 62  # cycles that a wait counts, at most; more halvings leave nothing of it


@rule("longest-sibling", reads="waiting times", source="-", **_COMMON)
def longest_sibling(see, asker):
    """The longest queued sibling."""
    found = earliest(see, runnable_sibling, queued_since)
    return found if found >= 0 else asker


@rule("oldest-spinner", reads="exits", source=SOURCE, **_COMMON)
def oldest_spinner(see, asker):
    """Who spins longest, before the asker does; else resume."""
    found = earliest(see, older_spinner, spins_since)
    return found if found >= 0 else asker


@helper
def most_recent(see, v):
    """The less, the later v left its pCPU."""
    return -see.vcpu[v].left_at


@rule("latest-in-kernel", reads="kernel mode, exits", source=SOURCE, **_COMMON)
def latest_in_kernel(see, asker):
    """The likely holder that lost its pCPU last; else resume."""
    found = earliest(see, likely_holder, most_recent)
    return found if found >= 0 else asker


@rule(
    "quiet-sibling", reads="exits", source=SOURCE,
    us=whole(0, 1_000_000, default=1000, help="without an exit, by the clock"), **_COMMON,
)  # fmt: skip
def quiet_sibling(see, asker, k):
    """The longest queued sibling without an exit for 1000 us (`us`); else resume."""
    since, found = see.now - k.us * see.tsc_hz // 1_000_000, np.int64(-1)
    for v in range(see.vcpus):
        quiet = see.vcpu[v].ples == 0 or see.vcpu[v].last_ple <= since
        longer = found < 0 or see.vcpu[v].queued_since < see.vcpu[found].queued_since
        if runnable_sibling(see, v) and quiet and longer:
            found = v
    return found if found >= 0 else asker


@helper
def outside(see, v):
    """Whether v is a sibling that does not spin in the asker's code."""
    same = see.vcpu[v].pc_class == see.vcpu[see.asker].pc_class
    return runnable_sibling(see, v) and not (same and seems_to_spin(see, v))


@rule("outside-group", reads="class of code, exits", source=SOURCE, **_COMMON)
def outside_group(see, asker):
    """The longest queued sibling that does not spin in the asker's code; else resume."""
    found = earliest(see, outside, queued_since)
    return found if found >= 0 else asker


@rule(
    "longest-in-kernel", reads="kernel mode, waiting times", source="read off from a learned policy", **_COMMON,
    halvings=whole(0, 20, default=1, help="how often each place of a pCPU halves the time waited there"),
    place=choice("number", "distance", default="number", help="its number, or counted from the asker's pCPU"),
    vms=choice("any", "own", default="any", help="whose vCPUs"),
    ripe_us=whole(0, 10_000, default=0, help="for how long a candidate must have waited"),
    spared_us=whole(0, 10_000, default=200, help="for how long a vCPU runs before a hint may put it off"),
    fallback=choice("resume", "defer", default="defer", help="where nobody is found"),
)  # fmt: skip
def longest_in_kernel(see, asker, k):
    """Who waits longest since it was preempted in kernel mode, of any VM, pCPUs of low numbers first; else defer.

    Spinners of every VM look after the vCPUs on pCPUs of low numbers, first of all: a priority among VMs, by where they
    stand. Places counted from the asker's pCPU favour nobody (docs/in-kernel.md).
    """
    ripe = see.now - k.ripe_us * see.tsc_hz // 1_000_000
    spared = see.now - k.spared_us * see.tsc_hz // 1_000_000
    found, longest = np.int64(-1), np.int64(-1)
    for v in range(see.vcpus):
        one = see.vcpu[v]
        if not may_run(see, v) or not preempted(see, v) or one.left_kernel == 0 or one.queued_since > ripe:
            continue
        if (k.vms == 1 and not sibling(see, v)) or (victim(see, v) >= 0 and see.pcpu[one.pcpu].dispatched_at > spared):
            continue
        place = one.pcpu if k.place == 0 else (one.pcpu - see.here) % see.pcpus
        waited = min(_LONGEST, see.now - one.queued_since) << 20 >> min(_MOST_HALVINGS, place * k.halvings)
        if waited > longest:
            found, longest = v, waited
    if found >= 0:
        return found
    return see.defer if k.fallback == 1 else asker
