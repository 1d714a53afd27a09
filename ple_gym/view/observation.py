"""What an agent sees, at three information levels: float32 features of vCPUs and host, and the legal actions.

The level changes only what is seen. Rows of the `hypervisor` level are written from the visible arrays alone (`Sight`).
Features are clipped to [-1, 1.5] and need no running normaliser, so that a policy means the same in every scenario:

* times are `L(x) = log(1 + x / W) / log(1 + 100 ms / W)`, W the PLE window: 0 for nothing, 1 for 100 ms;
* counts are `log(1 + n) / log(1001)`; the logarithm is the piecewise linear one that a float's bits are.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim import state
from ple_gym.sim.description import float_bits
from ple_gym.sim.guest.waits import in_line
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.memory import scratch
from ple_gym.sim.sight import sight_of
from ple_gym.sim.state import (
    ADVANCING,
    BLOCKED,
    DECIDE,
    HOLD,
    IDLE,
    INF,
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
INTS, FLOATS, TIMES = state.INT32, state.FLOAT32, state.INT64  # kinds of scratch rows
FAR = np.int64(2**31 - 1)  # the largest number of an int32 row
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
def scaled(time, low, factor):
    """L(x), for time = x + W."""
    return min(TOP, (log_bits(time) - low) * factor)


@inlined
def byte(word, number):
    """Byte `number` of an int32, as an int32. (Sums of int32 are int64 to numba, which the vector units dislike.)"""
    return INT32((word >> INT32(8 * number)) & INT32(255))


@inlined
def write_mask(s, mask):
    """Legal actions of the decision that is due: int8 grid [1, V + 1]; all ones when there is none to take."""
    p = s.world[0].deciding
    over = s.world[0].status != DECIDE
    anywhere = s.par[0].actuator != LOCAL
    for i in range(s.par[0].vcpus):  # `rules.may_run`, of all of them
        look = s.vcpu[i].look
        queued_in_reach = ((look & 255) == QUEUED) & (anywhere | (look >> 32 == np.int64(p)))
        mask[0, i] = over | queued_in_reach
    if not over:
        mask[0, np.int64(s.pcpu[p].current)] = 1
    mask[0, s.par[0].vcpus] = 1


@inlined
def write_observation(s, columns, host):
    """The observation of the decision that is due: float32 grids [F, V] and [1, G].

    When the run has ended, the view from the pCPU that decided last, for a value function; zeros if it is idle, or if
    no run has begun.
    """
    par = s.par[0]
    world = s.world[0]
    p = world.deciding
    if world.status == ADVANCING or s.pcpu[p].current == NONE:
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

    Most of a batched decision is spent here. The records are read once, into rows; then a loop without branches writes
    at most four features. That is what the compiler does eight vCPUs at a time: beyond four it gives up, because it
    cannot know that the columns do not overlap. (Rows on the stack, it knows, overlap nothing.)
    """
    par = see.par[0]
    pcpu = see.pcpu[p]
    me = np.int64(pcpu.current)
    my_vm, my_code = see.vcpu[me].vm, INT32(see.vcpu[me].pc_class)
    window = par.scale_window
    later = now + window
    low, factor = FLOAT32(par.scale_low), FLOAT32(par.scale_factor)
    vcpus, pcpus = par.vcpus, par.pcpus
    per_vcpu = ONE / FLOAT32(vcpus)
    per_pcpu = ONE / FLOAT32(pcpus)
    per_slice = ONE / FLOAT32(see.host_par[0].timeslice)
    flags, where, priority = scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus)
    exits, suspected = scratch(INTS, vcpus), scratch(INTS, vcpus)
    sibling, same_code = scratch(FLOATS, vcpus), scratch(FLOATS, vcpus)
    waited, last_run, credit = scratch(FLOATS, vcpus), scratch(FLOATS, vcpus), scratch(FLOATS, vcpus)
    since_exit, spin_age = scratch(FLOATS, vcpus), scratch(FLOATS, vcpus)
    for m in range(par.vms):
        vm = see.vmp[m]
        progress, ours = vm.progress, FLOAT32(np.uint32(m) == my_vm)
        for i in range(vm.first, vm.first + vm.vcpus):
            vcpu = see.vcpu[i]
            look, spun = vcpu.look, vcpu.exits
            flags[0, i] = INT32(look)
            where[0, i] = INT32(look >> 32)
            exits[0, i] = INT32(spun)
            suspected[0, i] = INT32((INT32(spun) > 0) & (vcpu.cpu_time - vcpu.cpu_at_ple <= progress))
            sibling[0, i] = ours
            same_code[0, i] = FLOAT32(INT32(spun >> 32) == my_code)
            waited[0, i] = scaled(later - vcpu.queued_since, low, factor)
            last_run[0, i] = scaled(vcpu.last_run + window, low, factor)
            credit[0, i] = max(-ONE, min(ONE, FLOAT32(see.host_vcpu[i].credit) * per_slice))
            priority[0, i] = INT32(see.host_vcpu[i].priority)
            since_exit[0, i] = scaled(later - vcpu.last_ple, low, factor)
            spin_age[0, i] = scaled(later - vcpu.first_ple, low, factor)
    queued, asleep, spinners = INT32(0), INT32(0), INT32(0)
    for i in range(vcpus):
        now_is = byte(flags[0, i], 0)
        columns[0, i] = ZERO
        columns[1, i] = FLOAT32(now_is == QUEUED)
        columns[2, i] = FLOAT32(now_is == RUNNING)
        columns[3, i] = FLOAT32(now_is >= BLOCKED)
        queued += INT32(now_is == QUEUED)
        asleep += INT32(now_is >= BLOCKED)
        spinners += INT32(INT32(now_is == QUEUED) & suspected[0, i])
    columns[0, me] = ONE
    columns[2, me] = ZERO
    for i in range(vcpus):
        waits = FLOAT32(byte(flags[0, i], 0) == QUEUED)
        columns[4, i] = waits * FLOAT32(where[0, i] == INT32(p))
        columns[5, i] = sibling[0, i]
        columns[6, i] = ZERO
        columns[7, i] = waits * waited[0, i]
    for i in range(vcpus):
        columns[8, i] = last_run[0, i]
        columns[9, i] = credit[0, i]
        columns[10, i] = FLOAT32(INT32(priority[0, i] + INT32(1)))
        columns[11, i] = FLOAT32(byte(flags[0, i], 2))
    for i in range(vcpus):
        columns[12, i] = FLOAT32(byte(flags[0, i], 1) == PLE_YIELD)
        columns[13, i] = FLOAT32(suspected[0, i])
        columns[14, i] = min(TOP, (log_bits(INT32(exits[0, i] + INT32(1))) - COUNT_LOW) * COUNT_SCALE)
        columns[15, i] = since_exit[0, i] if exits[0, i] > 0 else TOP
    for i in range(vcpus):
        columns[16, i] = FLOAT32(suspected[0, i]) * spin_age[0, i]
        columns[17, i] = same_code[0, i] if exits[0, i] > 0 else ZERO
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
    host[0, 2] = scaled(later - pcpu.dispatched_at, low, factor)
    host[0, 3] = FLOAT32(now - pcpu.dispatched_at < see.host_par[0].ratelimit)
    host[0, 4] = FLOAT32(idle) * per_pcpu
    host[0, 5] = FLOAT32(noisy) * per_pcpu
    host[0, 6] = FLOAT32(spinning) * per_pcpu
    host[0, 7] = FLOAT32(queued) * per_vcpu
    host[0, 8] = FLOAT32(asleep) * per_vcpu
    host[0, 9] = FLOAT32(spinners) * per_vcpu
    host[0, 10] = scaled(later - decided_at, low, factor)
    host[0, 11] = scaled(later - pcpu.decided_at, low, factor)
    host[0, 12] = FLOAT32(p) * per_pcpu


@inlined
def count_earlier(times, before, vcpus):
    """before, int32 [1, V]: how many of `times` [1, V + 3] are less than that of each vCPU; the last three are never.

    Every one is compared with every one, four at a time: without branches that is faster than sorting.
    """
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
    began, after, before = scratch(TIMES, vcpus + 3), scratch(INTS, vcpus + 3), scratch(INTS, vcpus)
    earliest, latest = INF, -INF
    for i in range(vcpus):  # when it began to spin: never, if it does not seem to wait for this lock
        waits = (columns[13, i] > ZERO) & (s.guest[i].exit_lock == mine)
        first = s.vcpu[i].first_ple
        began[0, i] = first if waits else INF
        earliest = min(earliest, first if waits else INF)
        latest = max(latest, first if waits else -INF)
    for i in range(vcpus, vcpus + 3):
        began[0, i] = INF
    if latest - earliest < FAR:  # almost always; shorter numbers are compared twice as fast
        for i in range(vcpus + 3):
            after[0, i] = INT32(min(began[0, i] - earliest, FAR))
        count_earlier(after, before, vcpus)
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
    free = lock.holder == NONE
    tas = not in_line(s, lock.vm)
    place = scratch(INTS, vcpus)  # in the ticket line; -1: not in it
    for i in range(vcpus):
        place[0, i] = INT32(-1)
        columns[23, i] = ZERO
    last = INT32(-1)
    if tas:
        for i in range(vcpus):
            guest = s.guest[i]
            columns[23, i] = FLOAT32(free & (guest.phase == SPIN) & (guest.lock == mine))
    else:
        w = lock.head
        if free and w != NONE:
            columns[23, np.int64(w)] = FLOAT32(s.guest[w].phase == SPIN and s.guest[w].lock == mine)
        while w != NONE:
            last = INT32(last + INT32(1))
            place[0, np.int64(w)] = last
            w = s.guest[w].next_waiter
    for i in range(vcpus):
        columns[22, i] = ZERO
        columns[24, i] = FLOAT32(place[0, i]) * per_vcpu if place[0, i] >= 0 else TOP
        columns[26, i] = FLOAT32(INT32(last - place[0, i])) * per_vcpu if place[0, i] >= 0 else ZERO
    if not free:
        columns[22, np.int64(lock.holder)] = ONE
    for i in range(vcpus):
        columns[25, i] = FLOAT32(s.guest[i].phase == HOLD)
