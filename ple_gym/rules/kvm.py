"""KVM's choice at a pause-loop exit (virt/kvm/kvm_main.c, kvm_vcpu_on_spin), by version, under the scenario's actuator.

KVM's own actuator is a hint, which may fail, on a host with Linux's scheduler. `kvm` is the order of candidates alone.
"""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import draw, has_interrupt, interrupted_by, may_run
from ple_gym.rules.registry import rule
from ple_gym.sim.state import IDLE, PLE_YIELD, PREEMPTED

_MEMORY = {"vm": ("next",), "vcpu": ("eligible", "dispatches")}
_STRICT_MEMORY = {"vm": ("next",), "vcpu": ("eligible", "dispatches", "seen_by", "seen_in")}
_MARKS = 62  # askers that a word of memory can tell apart
_READS = "kernel mode, exits, queue lengths"


@helper
def preempted(see, v):
    """Whether v lost its pCPU, and did not go to sleep."""
    return see.vcpu[v].left_by == PREEMPTED or see.vcpu[v].left_by == PLE_YIELD


@helper
def boostable(see, v, woken, served):
    """Whether v was preempted in kernel mode; or, with `woken`, woken; or, with `served`, has an interrupt to serve."""
    if not preempted(see, v):
        return woken
    return see.vcpu[v].left_kernel == 1 or (served and has_interrupt(see, v))


@helper
def eligible(see, v, memory):
    """Whether v did not leave by an exit; if it did, every other time."""
    vcpu, own = see.vcpu[v], memory.vcpu[v]
    if vcpu.left_by != PLE_YIELD:
        return True
    ready = own.eligible == 1 and own.dispatches == vcpu.dispatches
    own.eligible = 0 if ready else 1
    own.dispatches = vcpu.dispatches
    return ready


@helper
def fails(see, v):
    """Whether there is nobody else here, and v is alone on an idle pCPU: yield_to's -ESRCH."""
    there = see.pcpu[see.vcpu[v].pcpu]
    return see.pcpu[see.here].queued == 0 and there.mode == IDLE and there.queued == 1


@helper
def around(number, n):
    """A vCPU's number within its VM of n, counted on past the last one, at most once: cheaper than a division."""
    return number - n if number >= n else number


@helper
def scan(see, asker, memory, tries, counts, woken, served):
    """The first candidate from where the last scan of this VM ended; the asker if there is none.

    `tries`: a yield may fail; if all did, the last of them is the answer. `counts`: the next scan starts as many vCPUs
    after the first as this one has passed over. `woken`, `served`: see `boostable`.
    """
    m = see.vcpu[asker].vm
    first, n = see.vm[m].first, see.vm[m].vcpus
    memory.vcpu[asker].eligible = 0
    start = memory.vm[m].next % n
    failed, left = asker, np.int64(3)
    for i in range(n):
        number = around(start + i, n)
        v = first + number
        if v == asker or not may_run(see, v) or not boostable(see, v, woken, served) or not eligible(see, v, memory):
            continue
        if tries and fails(see, v):
            failed = v
            left -= 1
            if left == 0:
                break
            continue
        memory.vm[m].next = i + 1 if counts else number + 1
        return v
    return failed


@rule(
    "kvm",
    reads="kernel mode, exits",
    actuator="pull",
    source="order of kvm_vcpu_on_spin",
    memory=_MEMORY,
    settled=False,
)
def kvm(see, asker, memory):
    """KVM's candidate order under this scenario's actuator.

    The next sibling preempted in kernel mode; one that left by a PLE exit only every other time (`eligible`, which
    holds from one dispatch of that vCPU to the next).
    """
    return scan(see, asker, memory, False, False, True, False)


@rule("kvm-2012", reads="-", actuator="hint", source="217ece6129f2, RFC of 2012-07-10", settled=False)
def kvm_2012(see, asker):
    """KVM until 3.5: the next sibling that can be run, whatever it did, from a random one on."""
    vcpu = see.vcpu[asker]
    first, n = see.vm[vcpu.vm].first, see.vm[vcpu.vm].vcpus
    start = draw(see) * n >> 32
    for i in range(n):
        v = first + around(start + i, n)
        if v != asker and may_run(see, v):
            return v
    return asker


@rule("kvm-5.2", reads=_READS, actuator="hint", source="before d73eb57b80b9", memory=_MEMORY, settled=False)
def kvm_5_2(see, asker, memory):
    """KVM 5.2: `kvm-5.4`, but who slept, and was woken, is passed over."""
    return scan(see, asker, memory, True, False, False, False)


@rule("kvm-5.4", reads=_READS, actuator="hint", source="kvm_vcpu_on_spin, 5.4", memory=_MEMORY, settled=False)
def kvm_5_4(see, asker, memory):
    """KVM 5.4: `kvm`, and a yield that would find no other task on either pCPU fails; it gives up after three."""
    return scan(see, asker, memory, True, False, True, False)


@rule("kvm-5.13", reads=_READS, actuator="hint", source="52acd22faa1a", memory=_MEMORY, settled=False)
def kvm_5_13(see, asker, memory):
    """KVM 5.13 to 6.12: also who has an interrupt to serve, where the hypervisor sees that."""
    return scan(see, asker, memory, True, False, True, True)


@rule("kvm-6.13", reads=_READS, actuator="hint", source="7e513617da71", memory=_MEMORY, settled=False)
def kvm_6_13(see, asker, memory):
    """KVM 6.13 to 6.18.0: it remembers how far it looked instead of whom it found, and starts there."""
    return scan(see, asker, memory, True, True, True, True)


@rule("kvm-6.18", reads=_READS, actuator="hint", source="32bd348be3fa", memory=_MEMORY, settled=False)
def kvm_6_18(see, asker, memory):
    """KVM since 6.19, and later 6.18: it remembers whom it found again, as `kvm-5.13` does."""
    return scan(see, asker, memory, True, False, True, True)


@helper
def seen_before(see, v, asker, memory):
    """Whether the asker has looked at v before since v ran; it has now."""
    vcpu, own = see.vcpu[v], memory.vcpu[v]
    if own.seen_in != vcpu.dispatches:
        own.seen_by = 0
        own.seen_in = vcpu.dispatches
    mark = np.int64(1) << np.int64((asker - see.vm[vcpu.vm].first) % _MARKS)
    seen = own.seen_by & mark
    own.seen_by |= mark
    return seen != 0


@rule(
    "strict-boost",
    reads="kernel mode, exits",
    actuator="hint",
    source="Ishiguro, RFC PATCH 2/2 of 2021-04-21, LKML",
    memory=_STRICT_MEMORY,
    settled=False,
)
def strict_boost(see, asker, memory):
    """`kvm`; who slept, or was preempted in user mode, only at the asker's second look, or if it has interrupted it.

    The patch notes interrupts that are sent to who is off its pCPU; here all that wait to be served count.
    """
    m = see.vcpu[asker].vm
    first, n = see.vm[m].first, see.vm[m].vcpus
    memory.vcpu[asker].eligible = 0
    start = memory.vm[m].next % n
    for i in range(n):
        number = around(start + i, n)
        v = first + number
        if v == asker or not may_run(see, v):
            continue
        in_kernel = preempted(see, v) and see.vcpu[v].left_kernel == 1
        if not in_kernel and not interrupted_by(see, v, asker) and not seen_before(see, v, asker, memory):
            continue
        if eligible(see, v, memory):
            memory.vm[m].next = number + 1
            return v
    return asker
