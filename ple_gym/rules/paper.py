"""The founding paper's proposal (Yamasaki and Kono, section 4.4): no timeslice for the same vCPU.

It can be read in three ways, and all are here: what Xen would run, but not the asker; the head of the own queue; nobody
who has just spun.
"""

from __future__ import annotations

from ple_gym.rules.helpers import head, may_run, socket
from ple_gym.rules.registry import rule, whole
from ple_gym.sim.host.credit import NO_VCPU, OVER
from ple_gym.sim.state import PLE_YIELD

SOURCE = "Yamasaki and Kono, 4.4"


@rule("paper", reads="queue", actuator="local", source=SOURCE, scheduler="credit", settled=False)
def paper(see, asker, scheduler):
    """The head of the queue, never the same vCPU.

    If that is OVER or missing, work from elsewhere comes first, as in Xen.
    """
    own = head(see, see.here)
    least = scheduler.vcpu[own].priority if own >= 0 else NO_VCPU
    if least <= OVER:
        for turn in range(see.sockets):
            for q in range(see.pcpus):
                v = head(see, q)
                if q == see.here or v < 0 or socket(see, q) != (socket(see, see.here) + turn) % see.sockets:
                    continue
                if may_run(see, v) and scheduler.vcpu[v].priority > least:
                    return v
    return own if own >= 0 else see.defer


@rule("paper-local", reads="queue", actuator="local", source=SOURCE, settled=False)
def paper_local(see, asker):
    """The head of the own queue, whatever others wait elsewhere."""
    own = head(see, see.here)
    return own if own >= 0 else see.defer


@rule(
    "paper-ban",
    reads="queue, exits",
    actuator="local",
    source=SOURCE,
    settled=False,
    us=whole(1, 1_000_000, default=1000, help="for how long nobody runs again who left by an exit"),
)
def paper_ban(see, asker, k):
    """The first of the own queue who has not left by an exit for 1000 us (`us`)."""
    since = see.now - k.us * see.tsc_hz // 1_000_000
    for place in range(see.pcpu[see.here].queued):
        v = see.queue[see.here, place]
        if see.vcpu[v].left_by != PLE_YIELD or see.vcpu[v].left_at <= since:
            return v
    return see.defer
