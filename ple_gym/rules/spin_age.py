"""Rules that guess the line of a lock: who lost its pCPU in kernel mode may hold it, who spins longest may be next.

docs/model.md, section 11.
"""

from __future__ import annotations

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import earliest, head, queued_since, runnable_sibling, seems_to_spin
from ple_gym.rules.registry import rule, whole

READS, SOURCE = "kernel mode, exits", "docs/model.md 11"


@helper
def likely_holder(see, v):
    """Whether v may hold a lock: a sibling that lost its pCPU in kernel mode and does not seem to spin."""
    return runnable_sibling(see, v) and see.vcpu[v].left_kernel and not seems_to_spin(see, v)


@helper
def older_spinner(see, v):
    """Whether v may be before the asker in line: a sibling that seems to spin since before the asker does."""
    return runnable_sibling(see, v) and spins_since(see, v) < spins_since(see, see.asker) and seems_to_spin(see, v)


@helper
def spins_since(see, v):
    """Time of v's first exit without progress since, cycles."""
    return see.vcpu[v].first_ple


@helper
def holder_or_spinner(see):
    """The likely holder that has waited longest, else the oldest spinner; -1 if there is neither."""
    found = earliest(see, likely_holder, queued_since)
    return found if found >= 0 else earliest(see, older_spinner, spins_since)


@rule("spin-age", reads=READS, actuator="pull", source=SOURCE, hypothetical=True, settled=False)
def spin_age(see, asker):
    """Likely holder, oldest spinner, head."""
    found = holder_or_spinner(see)
    if found < 0:
        found = head(see, see.here)
    return found if found >= 0 else asker


@rule(
    "spin-age-self",
    reads=READS,
    actuator="pull",
    source=SOURCE,
    hypothetical=True,
    settled=False,
)
def spin_age_self(see, asker):
    """The same, else resume."""
    found = holder_or_spinner(see)
    return found if found >= 0 else asker


@rule(
    "two-patience",
    reads=READS,
    actuator="pull",
    source=SOURCE,
    hypothetical=True,
    settled=False,
    patience=whole(0, 10_000, default=64, help="exits before a likely holder is run"),
)
def two_patience(see, asker, k):
    """Oldest spinner; holder after 64 (`patience`)."""
    found = earliest(see, older_spinner, spins_since)
    if found < 0 and see.vcpu[asker].ples >= k.patience:
        found = earliest(see, likely_holder, queued_since)
    return found if found >= 0 else asker
