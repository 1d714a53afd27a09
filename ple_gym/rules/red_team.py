"""Rules that try to cheat a score: where one of them wins, it measures the wrong thing.

No comparison of all rules has them: name them as `ple_gym.rules.red_team:starve`.
"""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import earliest, may_run, queued_since, runnable_sibling
from ple_gym.rules.patience import puts_off_stranger
from ple_gym.rules.registry import rule

_COMMON = {"source": "red team", "hypothetical": True, "settled": False}


@rule("red-hold", reads="VMs", actuator="resume", **_COMMON)
def hold(see, asker):
    """The first VM's vCPUs are resumed; all others yield."""
    return asker if see.vcpu[asker].vm == 0 else see.defer


@helper
def robs(see, v):
    """Whether v is a sibling that waits where a stranger runs."""
    return runnable_sibling(see, v) and puts_off_stranger(see, v)


@rule("red-starve", reads="who runs where siblings wait", actuator="pull", **_COMMON)
def starve(see, asker):
    """A sibling that puts off a stranger, else any; no pCPU is left to another VM."""
    found = earliest(see, robs, queued_since)
    if found < 0:
        found = earliest(see, runnable_sibling, queued_since)
    return found if found >= 0 else asker


@helper
def favoured(see, v):
    """Whether v belongs to the first VM, whoever asks."""
    return may_run(see, v) and see.vcpu[v].vm == 0


@rule("red-favour", reads="VMs", actuator="pull", **_COMMON)
def favour(see, asker):
    """The first VM's longest queued vCPU, whoever asks."""
    found = earliest(see, favoured, queued_since)
    if found >= 0:
        return found
    return asker if see.vcpu[asker].vm == 0 else np.int64(see.defer)
