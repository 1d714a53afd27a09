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
from ple_gym.sim.memory import scratch
from ple_gym.sim.pause_loop import suspected_spinner
from ple_gym.sim.sight import sight_of
from ple_gym.sim.state import (
    BLOCKED,
    DECIDE,
    HOLD,
    IDLE,
    INF,
    INT64,
    INTROSPECTION,
    LOCAL,
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

INT32_T, FLOAT32_T = np.dtype(np.int32), np.dtype(np.float32)
FAR = np.int64(2**31 - 1)
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
    anything, anywhere = np.uint8(over), np.uint8(see.par[0].actuator != LOCAL)
    for i in range(s.par[0].vcpus):
        look = see.vcpu[i].look
        here = anywhere | np.uint8(look >> 32 == np.int64(p))
        mask[0, i] = np.int8(anything | (np.uint8((look & 255) == QUEUED) & here))
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


@inlined
def scaled(x, low, factor):
    """L(x - window) of the module's text, for x = a time + window."""
    return min(TOP, (log_bits(x) - low) * factor)


@called
def write_visible(see, p, now, decided_at, columns, host):
    """The hypervisor level: columns [19, V] and the host row, from nothing but what the hypervisor sees.

    Two thirds of a batched decision are spent here. One short loop per feature, without branches, is what the compiler
    can do eight vCPUs at a time; what several features need is first gathered from the records into rows.
    """
    par = see.par[0]
    pcpu = see.pcpu[p]
    me = np.int64(pcpu.current)
    my_vm, my_code = see.vcpu[me].vm, INT32(see.vcpu[me].pc_class)
    window = par.scale_window
    low, factor = FLOAT32(par.scale_low), FLOAT32(par.scale_factor)
    vcpus, pcpus = par.vcpus, par.pcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    per_pcpu = ONE / FLOAT32(pcpus)
    per_slice = ONE / FLOAT32(par.timeslice)
    since_window = now + window
    flags, where, same = scratch(INT32_T, vcpus), scratch(INT32_T, vcpus), scratch(FLOAT32_T, vcpus)
    sibling, exits = scratch(FLOAT32_T, vcpus), scratch(INT32_T, vcpus)
    suspected = scratch(INT32_T, vcpus)
    wait, length, money = scratch(FLOAT32_T, vcpus), scratch(FLOAT32_T, vcpus), scratch(FLOAT32_T, vcpus)
    since, age = scratch(FLOAT32_T, vcpus), scratch(FLOAT32_T, vcpus)
    for m in range(par.vms):
        vm = see.vmp[m]
        progress = vm.progress
        akin = FLOAT32(np.uint32(m) == my_vm)
        for i in range(vm.first, vm.first + vm.vcpus):
            vcpu = see.vcpu[i]
            look, spun = vcpu.look, vcpu.exits
            flags[0, i] = INT32(look)
            where[0, i] = INT32(look >> 32)
            exits[0, i] = INT32(spun)
            same[0, i] = FLOAT32(INT32(spun >> 32) == my_code)
            sibling[0, i] = akin
            suspected[0, i] = INT32((vcpu.cpu_time - vcpu.cpu_at_ple <= progress) & (INT32(spun) > 0))
            wait[0, i] = scaled(since_window - vcpu.queued_since, low, factor)
            length[0, i] = scaled(vcpu.last_run + window, low, factor)
            money[0, i] = max(-ONE, min(ONE, FLOAT32(vcpu.credit) * per_slice))
            since[0, i] = scaled(since_window - vcpu.last_ple, low, factor)
            age[0, i] = scaled(since_window - vcpu.first_ple, low, factor)
    queued, asleep, spinners = INT32(0), INT32(0), INT32(0)
    for i in range(vcpus):
        state = INT32(flags[0, i] & INT32(255))
        queued += INT32(state == QUEUED)
        asleep += INT32(state >= BLOCKED)
        spinners += INT32(INT32(state == QUEUED) & suspected[0, i])
    for i in range(vcpus):
        state = INT32(flags[0, i] & INT32(255))
        columns[0, i] = ZERO
        columns[1, i] = FLOAT32(state == QUEUED)
        columns[2, i] = FLOAT32(state == RUNNING)
        columns[3, i] = FLOAT32(state >= BLOCKED)
    columns[0, me] = ONE
    columns[2, me] = ZERO
    for i in range(vcpus):
        waiting = FLOAT32(INT32(flags[0, i] & INT32(255)) == QUEUED)
        columns[4, i] = waiting * FLOAT32(where[0, i] == INT32(p))
        columns[5, i] = sibling[0, i]
        columns[6, i] = ZERO
        columns[7, i] = waiting * wait[0, i]
    for i in range(vcpus):
        columns[8, i] = length[0, i]
        columns[9, i] = money[0, i]
        columns[10, i] = FLOAT32(INT32((flags[0, i] >> INT32(24)) + INT32(1)))
        columns[11, i] = FLOAT32(INT32((flags[0, i] >> INT32(16)) & INT32(255)))
    for i in range(vcpus):
        columns[12, i] = FLOAT32(INT32((flags[0, i] >> INT32(8)) & INT32(255)) == INT32(PLE_YIELD))
        columns[13, i] = FLOAT32(suspected[0, i])
        columns[14, i] = min(TOP, (log_bits(INT32(exits[0, i] + INT32(1))) - COUNT_LOW) * COUNT_SCALE)
        columns[15, i] = since[0, i] if exits[0, i] > 0 else TOP
    for i in range(vcpus):
        columns[16, i] = FLOAT32(suspected[0, i]) * age[0, i]
        columns[17, i] = same[0, i] if exits[0, i] > 0 else ZERO
        columns[18, i] = FLOAT32(where[0, i]) * per_pcpu
    idle, noisy, spinning = INT32(0), INT32(0), INT32(0)
    for i in range(pcpus):
        q = np.uint32(i)
        other = see.pcpu[q]
        for j in range(1, np.int64(other.queued)):
            columns[6, np.int64(see.queue[q, j])] = FLOAT32(j) * per_vcpu
        idle += INT32(other.mode == IDLE)
        noisy += INT32(other.mode == NOISE)
        if other.current != NONE:
            spinning += suspected[0, np.int64(other.current)]
    host[0, 0] = FLOAT32(pcpu.queued) * per_vcpu
    host[0, 1] = max(ZERO, min(ONE, FLOAT32(pcpu.slice_end - now) * per_slice))
    host[0, 2] = scaled(since_window - pcpu.dispatched_at, low, factor)
    host[0, 3] = FLOAT32(now - pcpu.dispatched_at < par.ratelimit)
    host[0, 4] = FLOAT32(idle) * per_pcpu
    host[0, 5] = FLOAT32(noisy) * per_pcpu
    host[0, 6] = FLOAT32(spinning) * per_pcpu
    host[0, 7] = FLOAT32(queued) * per_vcpu
    host[0, 8] = FLOAT32(asleep) * per_vcpu
    host[0, 9] = FLOAT32(spinners) * per_vcpu
    host[0, 10] = scaled(since_window - decided_at, low, factor)
    host[0, 11] = scaled(since_window - pcpu.decided_at, low, factor)
    host[0, 12] = FLOAT32(p) * per_pcpu


@inlined
def count_earlier(times, before, vcpus):
    """How many of a row of times (three more than there are vCPUs) are less than that of each vCPU: int32 [1, V]."""
    for i in range(vcpus):
        before[0, i] = INT32(0)
    for j in range(0, vcpus, 4):
        a, b, c, d = times[0, j], times[0, j + 1], times[0, j + 2], times[0, j + 3]
        for i in range(vcpus):
            t = times[0, i]
            before[0, i] = INT32(before[0, i] + INT32(a < t) + INT32(b < t) + INT32(c < t) + INT32(d < t))


@called
def write_introspection(s, p, columns):
    """Columns 19..21: the lock address that was in a register at a vCPU's last exit."""
    vcpus = s.par[0].vcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    mine = s.guest[s.pcpu[p].current].exit_lock
    began, spun = scratch(INT64, vcpus + 3), scratch(INT32_T, vcpus + 3)
    earliest, latest = INF, -INF
    for i in range(vcpus):  # when it began to spin; never if it does not seem to wait for this lock
        waits = (columns[13, i] > ZERO) & (s.guest[i].exit_lock == mine)
        first = s.vcpu[i].first_ple
        began[0, i] = first if waits else INF
        earliest = min(earliest, first if waits else INF)
        latest = max(latest, first if waits else -INF)
    for i in range(3):
        began[0, vcpus + i] = INF
    for i in range(vcpus + 3):
        spun[0, i] = INT32(min(began[0, i] - earliest, FAR))
    before = scratch(INT32_T, vcpus)
    if latest - earliest < FAR:
        count_earlier(spun, before, vcpus)
    else:
        count_earlier(began, before, vcpus)
    for i in range(vcpus):
        waits = began[0, i] < INF
        columns[19, i] = columns[13, i]
        columns[20, i] = FLOAT32(waits)
        columns[21, i] = FLOAT32(before[0, i]) * per_vcpu if waits else TOP


@called
def write_hidden(s, p, columns):
    """Columns 22..26: holder and ticket order of the asker's lock, which only the guest knows."""
    vcpus = s.par[0].vcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    mine = s.guest[s.pcpu[p].current].lock
    lock = s.lock[mine]
    tas = s.vmp[lock.vm].lock_kind == TAS
    place = scratch(INT32_T, vcpus)
    for i in range(vcpus):
        place[0, i] = INT32(-1)
    waiters = INT32(0)
    if tas:
        for i in range(vcpus):
            guest = s.guest[i]
            takes = (guest.phase == SPIN) & (guest.lock == mine) & (lock.holder == NONE)
            columns[23, i] = FLOAT32(takes)
    else:
        for i in range(vcpus):
            columns[23, i] = ZERO
        w = lock.head
        if w != NONE and lock.holder == NONE:
            columns[23, np.int64(w)] = FLOAT32(s.guest[w].phase == SPIN and s.guest[w].lock == mine)
        while w != NONE:
            place[0, np.int64(w)] = waiters
            waiters = INT32(waiters + INT32(1))
            w = s.guest[w].next_waiter
    last = INT32(waiters - INT32(1))
    for i in range(vcpus):
        columns[22, i] = ZERO
        columns[24, i] = FLOAT32(place[0, i]) * per_vcpu if place[0, i] >= 0 else TOP
        columns[26, i] = FLOAT32(INT32(last - place[0, i])) * per_vcpu if place[0, i] >= 0 else ZERO
    for i in range(vcpus):
        columns[25, i] = FLOAT32(s.guest[i].phase == HOLD)
    if lock.holder != NONE:
        columns[22, np.int64(lock.holder)] = ONE
