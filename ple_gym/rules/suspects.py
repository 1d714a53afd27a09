"""Rules that pick a sibling by one sign that it may hold the lock, or be next for it (docs/model.md, 11)."""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import earliest, queued_since, runnable_sibling, seems_to_spin
from ple_gym.rules.registry import rule, whole
from ple_gym.rules.spin_age import likely_holder, older_spinner, spins_since

SOURCE = "docs/model.md 11"
_COMMON = {"actuator": "hint", "hypothetical": True, "settled": False}


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
