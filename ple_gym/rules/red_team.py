"""Rules that try to cheat a score: a benchmark in which one of them wins measures the wrong thing.

None is built in, so that no comparison of all rules has them: name them as `ple_gym.rules.red_team:starve`. What they
gain, others lose: look at `--per-vm`.
"""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import earliest, may_run, queued_since, runnable_sibling
from ple_gym.rules.patience import puts_off_stranger
from ple_gym.rules.registry import rule

SOURCE = "red team"


@rule("red-hold", reads="VMs", actuator="resume", source=SOURCE, hypothetical=True, settled=False)
def hold(see, asker):
    """Red team: the first VM's vCPUs are resumed, so that hogs wait; all others yield."""
    return asker if see.vcpu[asker].vm == 0 else see.defer


@helper
def robs(see, v):
    """Whether v is a sibling that waits where a stranger runs."""
    return runnable_sibling(see, v) and puts_off_stranger(see, v)


@rule(
    "red-starve", reads="who runs where siblings wait", actuator="pull", source=SOURCE, hypothetical=True, settled=False
)
def starve(see, asker):
    """Red team: the sibling that puts off a stranger, else any; a pCPU is never left to another VM."""
    found = earliest(see, robs, queued_since)
    if found < 0:
        found = earliest(see, runnable_sibling, queued_since)
    return found if found >= 0 else asker


@helper
def favoured(see, v):
    """Whether v belongs to the first VM, whoever asks."""
    return may_run(see, v) and see.vcpu[v].vm == 0


@rule("red-favour", reads="VMs", actuator="pull", source=SOURCE, hypothetical=True, settled=False)
def favour(see, asker):
    """Red team: the first VM's longest queued vCPU, whoever asks; that VM itself gives nothing back."""
    found = earliest(see, favoured, queued_since)
    if found >= 0:
        return found
    return asker if see.vcpu[asker].vm == 0 else np.int64(see.defer)
