"""KVM's candidate order (virt/kvm/kvm_main.c, kvm_vcpu_on_spin), under the scenario's own actuator.

Only the order is KVM's: its yield_to hints, on the target's own pCPU, and may fail.
"""

from __future__ import annotations

from ple_gym.rules.helpers import may_run
from ple_gym.rules.registry import rule
from ple_gym.sim.state import PLE_YIELD, PREEMPTED


@rule(
    "kvm",
    reads="kernel mode, exits",
    actuator="pull",
    source="order of kvm_vcpu_on_spin",
    memory={"vm": ("next",), "vcpu": ("eligible", "dispatches")},
    settled=False,
)
def kvm(see, asker, memory):
    """KVM's candidate order under this scenario's actuator.

    The next sibling preempted in kernel mode; one that left by a PLE exit only every other time (`eligible`, which
    holds from one dispatch of that vCPU to the next).
    """
    m = see.vcpu[asker].vm
    first, n = see.vm[m].first, see.vm[m].vcpus
    memory.vcpu[asker].eligible = 0
    start = memory.vm[m].next
    for i in range(n):
        number = (start + i) % n
        v = first + number
        if v == asker or not may_run(see, v):
            continue
        vcpu, own = see.vcpu[v], memory.vcpu[v]
        spun = vcpu.left_by == PLE_YIELD
        if (vcpu.left_by == PREEMPTED or spun) and not vcpu.left_kernel:
            continue
        if spun:
            eligible = own.eligible == 1 and own.dispatches == vcpu.dispatches
            own.eligible = 0 if eligible else 1
            own.dispatches = vcpu.dispatches
            if not eligible:
                continue
        memory.vm[m].next = number + 1
        return v
    return asker
