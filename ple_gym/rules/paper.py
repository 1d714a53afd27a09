"""The founding paper's proposal (Yamasaki and Kono, section 4.4), read as what Xen would run, but not the asker."""

from __future__ import annotations

from ple_gym.rules.helpers import head, may_run, socket
from ple_gym.rules.registry import rule
from ple_gym.sim.host.credit import NO_VCPU, OVER


@rule("paper", reads="queue", actuator="local", source="Yamasaki and Kono, 4.4", scheduler="credit", settled=False)
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
