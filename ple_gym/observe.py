"""What an agent sees, at three information levels: float32 features of vCPUs and host, and the legal actions.

The level changes only what is seen. Rows of the `hypervisor` level are written from the visible arrays alone (`Sight`).
Features are clipped to [-1, 1.5] and need no running normaliser, so that a policy means the same in every scenario:

* times are `L(x) = log(1 + x / W) / log(1 + 100 ms / W)`, W the PLE window: 0 for nothing, 1 for 100 ms;
* counts are `log(1 + n) / log(1001)`; the logarithm is the piecewise linear one that a float's bits are.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.description import float_bits
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.locks import available
from ple_gym.sim.pause_loop import suspected_spinner
from ple_gym.sim.sight import may_run, sight_of
from ple_gym.sim.state import (
    BLOCKED,
    DECIDE,
    HOLD,
    IDLE,
    INTROSPECTION,
    NOISE,
    NONE,
    NOTHING,
    ORACLE,
    PLE_YIELD,
    QUEUED,
    RUNNING,
    SPIN,
    TAS,
)

#: Features of one vCPU, in order; each level adds to the one before.
VCPU_FEATURES = (
    "asker",  # it exited and the decision is about its pCPU
    "queued",  # runnable, waiting for a pCPU
    "running",  # on another pCPU
    "asleep",  # blocked, halted or done
    "here",  # waiting in the asking pCPU's own queue
    "sibling",  # of the asker's VM
    "position",  # place in its queue: 0 = head, 1 = as many before it as the machine has vCPUs
    "waited",  # L(time in the queue)
    "last_run",  # L(length of its last dispatch)
    "credit",  # of one timeslice, -1..1
    "priority",  # -1 OVER, 0 UNDER, 1 BOOST
    "left_in_kernel",  # lost its pCPU in kernel mode
    "left_by_exit",  # lost its pCPU at a PLE exit
    "suspected_spinner",  # has not run two windows without an exit since its last one
    "exits",  # PLE exits since it last made progress, as a count
    "since_exit",  # L(time since its last exit); 1.5 if it never had one
    "spin_age",  # L(time since its first exit without progress since); 0 if it does not seem to spin
    "same_code",  # its last exit was in the same lock function as the asker's
    "pcpu",  # number of the pCPU that it runs on, is queued on or last ran on (of all pCPUs)
)
INTROSPECTION_FEATURES = (
    "lock_known",  # the lock it spun on at its last exit is still what it seems to wait for
    "same_lock",  # and that is the asker's lock
    "line_guess",  # how many that seem to wait for it began to spin earlier (of all vCPUs); 1.5 if it does not
)
ORACLE_FEATURES = (
    "holder",  # holds the asker's lock
    "next",  # the asker's lock is its to take
    "line",  # place in the ticket line of the asker's lock (of all vCPUs); 1.5 if it is not in it
    "holds",  # holds any lock
    "behind",  # waiters behind it in that line (of all vCPUs)
)
#: Features of the host and the asker.
HOST_FEATURES = (
    "queue",  # length of the asking pCPU's queue (of all vCPUs)
    "slice_left",  # of the timeslice
    "ran",  # L(time since the asker was switched in)
    "rate_limited",  # the host's rate limit still holds
    "idle",  # share of pCPUs that are idle
    "noisy",  # share of pCPUs that run host noise
    "spinning",  # share of pCPUs whose vCPU seems to spin
    "queued",  # share of vCPUs that are queued
    "asleep",  # share of vCPUs that are blocked or done
    "queued_spinners",  # share of vCPUs that are queued and seem to spin
    "since_decision",  # L(time since the previous decision)
    "since_decision_here",  # L(time since the previous decision on this pCPU)
    "pcpu",  # number of the asking pCPU (of all pCPUs)
)

HOST_LENGTH = len(HOST_FEATURES)
LOW, HIGH = -1.0, 1.5
FLOAT32, INT32 = np.float32, np.int32
LEVELS = (0, len(VCPU_FEATURES), len(INTROSPECTION_FEATURES), len(ORACLE_FEATURES))


def vcpu_features(level: int) -> int:
    """Features per vCPU at an information level (`state.NOTHING` .. `state.ORACLE`)."""
    return sum(LEVELS[: level + 1])


def observation_length(level: int, vcpus: int) -> int:
    """Length of a flat observation: feature by feature all vCPUs, then the host row."""
    return 0 if level == NOTHING else vcpus * vcpu_features(level) + len(HOST_FEATURES)


COUNT_LOW = np.float32(float_bits(1.0))
COUNT_SCALE = np.float32(1.0 / (float_bits(1001.0) - float_bits(1.0)))
TOP = np.float32(HIGH)
ONE, ZERO = np.float32(1.0), np.float32(0.0)


@inlined
def log_bits(x):
    """Bits of x (int64 >= 1) as float32, as a float32: a piecewise linear logarithm up to scale and offset."""
    return FLOAT32(FLOAT32(x).view(INT32))


@inlined
def seems_to_wait_for(s, v, lock):
    """Whether v, as far as introspection can tell, waits for a lock: it spun on it at its last exit and since."""
    return suspected_spinner(s.vmp, s.vcpu, v) and s.guest[v].exit_lock == lock


@inlined
def write_mask(s, mask):
    """Legal actions of the decision that is due: int8 grid [1, V + 1]; all ones when there is none to take."""
    see = sight_of(s)
    p = s.world[0].deciding
    over = s.world[0].status != DECIDE
    for i in range(s.par[0].vcpus):
        mask[0, i] = 1 if over or may_run(see, p, np.uint32(i)) else 0
    if not over:
        mask[0, np.int64(s.pcpu[p].current)] = 1
    mask[0, s.par[0].vcpus] = 1


@inlined
def write_observation(s, columns, host):
    """The observation of the decision that is due: float32 grids [F, V] and [1, G].

    When the run has ended, the view from the pCPU that decided last, for a value function; zeros if it is idle.
    """
    par = s.par[0]
    world = s.world[0]
    p = world.deciding
    if s.pcpu[p].current == NONE:
        for i in range(par.vcpus):
            for j in range(par.features):
                columns[j, i] = ZERO
        for j in range(HOST_LENGTH):
            host[0, j] = ZERO
        return
    write_visible(sight_of(s), p, world.now, world.decided_at, columns, host)
    if par.information >= INTROSPECTION:
        write_introspection(s, p, columns)
    if par.information == ORACLE and par.locks > 0:
        write_hidden(s, p, columns)


@called
def write_visible(see, p, now, decided_at, columns, host):
    """The hypervisor level: columns [19, V] and the host row, from nothing but what the hypervisor sees.

    Two thirds of a batched decision are spent here. One short loop per feature, without branches, is what the compiler
    can do eight vCPUs at a time.
    """
    par = see.par[0]
    pcpu = see.pcpu[p]
    me = pcpu.current
    my_vm, my_code = see.vcpu[me].vm, see.vcpu[me].pc_class
    window = par.scale_window
    low, factor = FLOAT32(par.scale_low), FLOAT32(par.scale_factor)
    vcpus, pcpus = par.vcpus, par.pcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    per_pcpu = ONE / FLOAT32(pcpus)
    per_slice = ONE / FLOAT32(par.timeslice)
    queued, asleep, spinners = ZERO, ZERO, ZERO
    for i in range(vcpus):
        state = see.vcpu[np.uint32(i)].state
        columns[0, i] = ZERO
        columns[1, i] = FLOAT32(state == QUEUED)
        columns[2, i] = FLOAT32(state == RUNNING)
        columns[3, i] = FLOAT32(state >= BLOCKED)
        columns[6, i] = ZERO
    columns[0, np.int64(me)] = ONE
    columns[2, np.int64(me)] = ZERO
    for i in range(vcpus):
        where = see.vcpu[np.uint32(i)].pcpu
        columns[4, i] = columns[1, i] * FLOAT32(where == p)
        columns[18, i] = FLOAT32(where) * per_pcpu
    for i in range(vcpus):
        columns[5, i] = FLOAT32(see.vcpu[np.uint32(i)].vm == my_vm)
    for i in range(vcpus):
        waited = min(TOP, (log_bits(now - see.vcpu[np.uint32(i)].queued_since + window) - low) * factor)
        columns[7, i] = columns[1, i] * waited
    for i in range(vcpus):
        columns[8, i] = min(TOP, (log_bits(see.vcpu[np.uint32(i)].last_run + window) - low) * factor)
    for i in range(vcpus):
        columns[9, i] = max(-ONE, min(ONE, FLOAT32(see.vcpu[np.uint32(i)].credit) * per_slice))
    for i in range(vcpus):
        vcpu = see.vcpu[np.uint32(i)]
        columns[10, i] = FLOAT32(vcpu.priority + 1)
        columns[11, i] = FLOAT32(vcpu.left_kernel)
        columns[12, i] = FLOAT32(vcpu.left_by == PLE_YIELD)
    for i in range(vcpus):
        columns[13, i] = FLOAT32(suspected_spinner(see.vmp, see.vcpu, np.uint32(i)))
    for i in range(vcpus):
        columns[14, i] = min(TOP, (log_bits(see.vcpu[np.uint32(i)].ples + 1) - COUNT_LOW) * COUNT_SCALE)
    for i in range(vcpus):
        since = min(TOP, (log_bits(now - see.vcpu[np.uint32(i)].last_ple + window) - low) * factor)
        columns[15, i] = since if columns[14, i] > ZERO else TOP
    for i in range(vcpus):
        age = min(TOP, (log_bits(now - see.vcpu[np.uint32(i)].first_ple + window) - low) * factor)
        columns[16, i] = columns[13, i] * age
    for i in range(vcpus):
        same = FLOAT32(see.vcpu[np.uint32(i)].pc_class == my_code)
        columns[17, i] = same if columns[14, i] > ZERO else ZERO
    for i in range(vcpus):
        queued += columns[1, i]
        asleep += columns[3, i]
        spinners += columns[1, i] * columns[13, i]
    idle, noisy, spinning = ZERO, ZERO, ZERO
    for i in range(pcpus):
        q = np.uint32(i)
        other = see.pcpu[q]
        for j in range(1, np.int64(other.queued)):
            columns[6, np.int64(see.queue[q, j])] = FLOAT32(j) * per_vcpu
        idle += FLOAT32(other.mode == IDLE)
        noisy += FLOAT32(other.mode == NOISE)
        if other.current != NONE:
            spinning += FLOAT32(suspected_spinner(see.vmp, see.vcpu, other.current))
    host[0, 0] = FLOAT32(pcpu.queued) * per_vcpu
    host[0, 1] = max(ZERO, min(ONE, FLOAT32(pcpu.slice_end - now) * per_slice))
    host[0, 2] = min(TOP, (log_bits(now - pcpu.dispatched_at + window) - low) * factor)
    host[0, 3] = FLOAT32(now - pcpu.dispatched_at < par.ratelimit)
    host[0, 4] = idle * per_pcpu
    host[0, 5] = noisy * per_pcpu
    host[0, 6] = spinning * per_pcpu
    host[0, 7] = queued * per_vcpu
    host[0, 8] = asleep * per_vcpu
    host[0, 9] = spinners * per_vcpu
    host[0, 10] = min(TOP, (log_bits(now - decided_at + window) - low) * factor)
    host[0, 12] = FLOAT32(p) * per_pcpu
    host[0, 11] = min(TOP, (log_bits(now - pcpu.decided_at + window) - low) * factor)


@called
def write_introspection(s, p, columns):
    """Columns 19..21: the lock address that was in a register at a vCPU's last exit."""
    vcpus = s.par[0].vcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    mine = s.guest[s.pcpu[p].current].exit_lock
    for i in range(vcpus):
        v = np.uint32(i)
        columns[19, i] = FLOAT32(suspected_spinner(s.vmp, s.vcpu, v))
        columns[20, i] = ZERO
        columns[21, i] = TOP
        if not seems_to_wait_for(s, v, mine):
            continue
        before = ZERO
        for j in range(vcpus):
            w = np.uint32(j)
            if s.vcpu[w].first_ple < s.vcpu[v].first_ple and seems_to_wait_for(s, w, mine):
                before += ONE
        columns[20, i] = ONE
        columns[21, i] = before * per_vcpu


@called
def write_hidden(s, p, columns):
    """Columns 22..26: holder and ticket order of the asker's lock, which only the guest knows."""
    vcpus = s.par[0].vcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    mine = s.guest[s.pcpu[p].current].lock
    lock = s.lock[mine]
    for i in range(vcpus):
        v = np.uint32(i)
        guest = s.guest[v]
        columns[22, i] = FLOAT32(lock.holder == v)
        columns[23, i] = FLOAT32(guest.phase == SPIN and guest.lock == mine and available(s, v))
        columns[24, i] = TOP
        columns[25, i] = FLOAT32(guest.phase == HOLD)
        columns[26, i] = ZERO
    if s.vmp[lock.vm].lock_kind != TAS:
        length = np.int64(0)
        w = lock.head
        while w != NONE:
            columns[24, np.int64(w)] = FLOAT32(length) * per_vcpu
            length += 1
            w = s.guest[w].next_waiter
        w = lock.head
        while w != NONE:
            length -= 1
            columns[26, np.int64(w)] = FLOAT32(length) * per_vcpu
            w = s.guest[w].next_waiter
