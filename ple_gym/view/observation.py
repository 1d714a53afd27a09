"""Writing what an agent sees of a decision: the legal actions, and every feature of the table (`features.py`).

The information level changes only what is seen. Rows of the `hypervisor` level are written from the visible arrays
alone (`Sight`). A flat observation is feature by feature all vCPUs, then the host's features.

Most of a batched decision is spent here. The records are read once, into rows of words on the stack; then loops without
branches write four features each. That is what the compiler does eight vCPUs at a time: beyond four it gives up,
because it cannot know that the columns do not overlap. (Rows on the stack, it knows, overlap nothing.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ple_gym.sim.decisions import within_reach
from ple_gym.sim.guest.waits import in_line
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.memory import grid, scratch
from ple_gym.sim.sight import sight_of
from ple_gym.sim.state import (
    ADVANCING,
    BLOCKED,
    DECIDE,
    HOLD,
    HYPERVISOR,
    IDLE,
    INF,
    INT8,
    INTROSPECTION,
    NOISE,
    NONE,
    ORACLE,
    QUEUED,
    SPIN,
    UINT16,
)
from ple_gym.sim.state import (
    FLOAT32 as FLOATS,
)
from ple_gym.sim.state import (
    INT32 as INTS,
)
from ple_gym.sim.state import (
    INT64 as TIMES,
)
from ple_gym.view import codes, loops
from ple_gym.view.features import HOST_LENGTH, TABLE
from ple_gym.view.rows import Table
from ple_gym.view.scales import FLOAT32, INT32, ONE, ZERO, byte, coded, halved, scaled

FAR = np.int64(2**31 - 1)  # the largest number of an int32 row


class Here(NamedTuple):
    """The decision that is due: what all its features have in common. Times are cycles."""

    now: np.int64
    later: np.int64  # now + W: `scaled(later - t, low, factor)` is L(now - t)
    decided_at: np.int64  # time of the previous decision
    p: np.int32  # pCPU of the decision
    asker: np.int32  # the vCPU that exited
    asker_code: np.int32  # class of the program counter at its last exit
    low: np.float32  # of the scale of times
    factor: np.float32
    per_vcpu: np.float32  # 1 / vCPUs
    per_pcpu: np.float32


class Count(NamedTuple):
    """How many there are of a kind, int32."""

    idle: np.int32  # pCPUs
    noisy: np.int32
    spinning: np.int32
    queued: np.int32  # vCPUs
    asleep: np.int32
    queued_spinners: np.int32


class Seen(NamedTuple):
    """What a hypervisor sees of all vCPUs, a row [1, V] of each word."""

    flags: Any  # int32: state, left_by and left_kernel, a byte each
    pcpu: Any  # int32
    exits: Any  # int32: since its last progress
    code: Any  # int32: class of the program counter at its last exit
    suspected: Any  # int32, 0 or 1: seems to spin
    sibling: Any  # int32, 0 or 1
    place: Any  # int32: in its queue, 0 elsewhere
    waited: Any  # float32: L(time) since it was queued, also if it is not
    last_run: Any  # float32
    since_exit: Any  # float32, also if it has none
    spin_age: Any  # float32
    own: Any  # float32: features of the host's scheduler, each of all vCPUs, one after the other


class Guessed(NamedTuple):
    """What a hypervisor could read from its guests' registers, a row [1, V] of each word."""

    suspected: Any  # int32, 0 or 1
    waits: Any  # int32, 0 or 1: seems to wait for the asker's lock
    earlier: Any  # int32: how many of those began to spin earlier


class Known(NamedTuple):
    """What only the guest knows, a row [1, V] of each word."""

    place: Any  # int32: in the ticket line of the asker's lock, -1: not in it
    behind: Any  # int32: how many are behind it there
    holder: Any  # int32, 0 or 1
    next_one: Any  # int32, 0 or 1
    holds: Any  # int32, 0 or 1


# --- loops from the table ---------------------------------------------------------------------------------------------

_HERE = {name: f"here.{name}" for name in Here._fields}
_FLAGS = ("state", "left_by", "left_kernel")  # the bytes of `flags`
_NUMBER = {"number": "INT32(i)"}


def _rows(words: type) -> dict[str, str]:
    return _NUMBER | _HERE | {name: f"rows.{name}[0, i]" for name in words._fields}


#: What the writers of each level may ask for: of a vCPU, of a vCPU's record, of the host.
WORDS = {
    HYPERVISOR: {name: f"byte(rows.flags[0, i], {place})" for place, name in enumerate(_FLAGS)} | _rows(Seen),
    INTROSPECTION: _rows(Guessed),
    ORACLE: _rows(Known),
}
OF_A_RECORD = {name: name for name in ("own", "host_par")}
OF_THE_HOST = _HERE | {name: f"count.{name}" for name in Count._fields} | {"asking": "asking", "host_par": "host_par"}


class Writers(NamedTuple):
    """Compiled functions that a table of features was turned into; `loops.py` has their arguments."""

    columns: dict[int, Callable[..., None]]  # by level
    keep: Callable[..., None]
    host: Callable[..., None]
    own: int  # features of the host's scheduler that each vCPU has


def writers_of(table: Table) -> Writers:
    """Turn a table of features into compiled functions."""
    own = [feature for feature in table.vcpu if feature.scheduler]
    return Writers(
        {
            level: loops.columns(table.added(level), len(table.of_vcpu(level - 1)), words)
            for level, words in WORDS.items()
        },
        loops.kept(own, OF_A_RECORD),
        loops.numbers(table.host, OF_THE_HOST),
        len(own),
    )


_WRITERS = writers_of(TABLE)
_write_seen, _write_guessed, _write_known = _WRITERS.columns.values()
_keep, _write_host, OWN = _WRITERS.keep, _WRITERS.host, _WRITERS.own


# --- gathering --------------------------------------------------------------------------------------------------------


@inlined
def here_of(see, p, now, decided_at):
    """The decision that is due on pCPU p."""
    par, asker = see.par[0], see.pcpu[p].current
    return Here(
        now,
        now + par.scale_window,
        decided_at,
        INT32(p),
        INT32(asker),
        INT32(see.vcpu[asker].pc_class),
        FLOAT32(par.scale_low),
        FLOAT32(par.scale_factor),
        ONE / FLOAT32(par.vcpus),
        ONE / FLOAT32(par.pcpus),
    )


@inlined
def seems_to_spin(exits, vcpu, progress):
    """Whether a vCPU that had `exits` has not run for `progress` cycles without one since the last."""
    return (exits > 0) & (vcpu.cpu_time - vcpu.cpu_at_ple <= progress)


@inlined
def write_observation(s, mask, flat):
    """The decision that is due: its legal actions, int8 grid [1, V + 1], and its observation, float32 grid
    [1, `features.observation_length`].

    When there is nothing to decide, all actions are legal. When the run has ended, the view is from the pCPU that
    decided last, for a value function; zeros if it is idle, or if no run has begun.
    """
    par = s.par[0]
    world = s.world[0]
    p = world.deciding
    nobody = world.status == ADVANCING or s.pcpu[p].current == NONE
    if nobody:
        for i in range(par.vcpus * par.features + HOST_LENGTH):
            flat[0, i] = ZERO
    else:
        write_visible(sight_of(s), p, world.now, world.decided_at, mask, flat)
        if par.information >= INTROSPECTION:
            write_introspection(s, p, flat)
        if par.information == ORACLE and par.locks > 0:
            write_hidden(s, p, flat)
    if world.status != DECIDE:
        for i in range(par.vcpus + 1):
            mask[0, i] = 1


@inlined
def write_visible(see, p, now, decided_at, mask, flat):
    """The legal actions, the hypervisor level and the host's features, from nothing but what the hypervisor sees."""
    here = here_of(see, p, now, decided_at)
    par, later, low, factor = see.par[0], here.later, here.low, here.factor
    vcpus, window = par.vcpus, par.scale_window
    my_vm = see.vcpu[see.pcpu[p].current].vm
    rows = Seen(
        scratch(INTS, vcpus),
        scratch(INTS, vcpus),
        scratch(INTS, vcpus),
        scratch(INTS, vcpus),
        scratch(INTS, vcpus),
        scratch(INTS, vcpus),
        scratch(INTS, vcpus),
        scratch(FLOATS, vcpus),
        scratch(FLOATS, vcpus),
        scratch(FLOATS, vcpus),
        scratch(FLOATS, vcpus),
        scratch(FLOATS, vcpus * OWN),
    )
    for m in range(par.vms):
        vm = see.vmp[m]
        progress, ours = vm.progress, INT32(np.uint32(m) == my_vm)
        for i in range(vm.first, vm.first + vm.vcpus):
            vcpu = see.vcpu[i]
            look, exits = vcpu.look, vcpu.exits
            rows.flags[0, i] = INT32(look)
            rows.pcpu[0, i] = INT32(look >> 32)
            rows.exits[0, i] = INT32(exits)
            rows.code[0, i] = INT32(exits >> 32)
            rows.suspected[0, i] = INT32(seems_to_spin(INT32(exits), vcpu, progress))
            rows.sibling[0, i] = ours
            rows.place[0, i] = INT32(0)
            rows.waited[0, i] = scaled(later - vcpu.queued_since, low, factor)
            rows.last_run[0, i] = scaled(vcpu.last_run + window, low, factor)
            rows.since_exit[0, i] = scaled(later - vcpu.last_ple, low, factor)
            rows.spin_age[0, i] = scaled(later - vcpu.first_ple, low, factor)
            _keep(rows.own, vcpus, i, see.host_vcpu[i], see.host_par[0])
    for i in range(vcpus):
        mask[0, i] = within_reach(byte(rows.flags[0, i], 0), rows.pcpu[0, i], here.p, par.actuator)
    mask[0, np.int64(here.asker)] = 1
    mask[0, vcpus] = 1
    queued, asleep, queued_spinners = INT32(0), INT32(0), INT32(0)
    for i in range(vcpus):
        now_is = byte(rows.flags[0, i], 0)
        queued += INT32(now_is == QUEUED)
        asleep += INT32(now_is >= BLOCKED)
        queued_spinners += INT32(INT32(now_is == QUEUED) & rows.suspected[0, i])
    idle, noisy, spinning = INT32(0), INT32(0), INT32(0)
    for i in range(par.pcpus):
        q = np.uint32(i)
        other = see.pcpu[q]
        for j in range(1, np.int64(other.queued)):
            rows.place[0, np.int64(see.queue[q, j])] = INT32(j)
        idle += INT32(other.mode == IDLE)
        noisy += INT32(other.mode == NOISE)
        if other.current != NONE:
            spinning += rows.suspected[0, np.int64(other.current)]
    count = Count(INT32(idle), INT32(noisy), INT32(spinning), INT32(queued), INT32(asleep), INT32(queued_spinners))
    _write_seen(flat, vcpus, rows, here)
    _write_host(flat, vcpus * par.features, here, count, see.pcpu[p], see.host_par[0])


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
def write_introspection(s, p, flat):
    """What the introspection level adds: from the lock address that was in a register at a vCPU's last exit."""
    vcpus = s.par[0].vcpus
    mine = s.guest[s.pcpu[p].current].exit_lock
    began, after = scratch(TIMES, vcpus + 3), scratch(INTS, vcpus + 3)
    rows = Guessed(scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus))
    earliest, latest = INF, -INF
    for m in range(s.par[0].vms):
        vm = s.vmp[m]
        for i in range(vm.first, vm.first + vm.vcpus):
            suspected = seems_to_spin(s.vcpu[i].ples, s.vcpu[i], vm.progress)
            waits, first = suspected & (s.guest[i].exit_lock == mine), s.vcpu[i].first_ple
            rows.suspected[0, i] = INT32(suspected)
            rows.waits[0, i] = INT32(waits)
            began[0, i] = first if waits else INF
            earliest = min(earliest, first if waits else INF)
            latest = max(latest, first if waits else -INF)
    for i in range(vcpus, vcpus + 3):
        began[0, i] = INF
    if latest - earliest < FAR:  # almost always; shorter numbers are compared twice as fast
        for i in range(vcpus + 3):
            after[0, i] = INT32(min(began[0, i] - earliest, FAR))
        count_earlier(after, rows.earlier, vcpus)
    else:
        count_earlier(began, rows.earlier, vcpus)
    _write_guessed(flat, vcpus, rows, here_of(sight_of(s), p, s.world[0].now, s.world[0].decided_at))


@called
def write_hidden(s, p, flat):
    """What the oracle level adds: holder and ticket order of the asker's lock, which only the guest knows."""
    vcpus = s.par[0].vcpus
    mine = s.guest[s.pcpu[p].current].lock
    lock = s.lock[mine]
    free = lock.holder == NONE
    polls = not in_line(s, lock.vm)
    rows = Known(
        scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus)
    )
    for i in range(vcpus):
        guest = s.guest[i]
        rows.place[0, i] = INT32(-1)
        rows.holder[0, i] = INT32(0)
        rows.next_one[0, i] = INT32(polls & free & (guest.phase == SPIN) & (guest.lock == mine))
        rows.holds[0, i] = INT32(guest.phase == HOLD)
    if not free:
        rows.holder[0, np.int64(lock.holder)] = INT32(1)
    last = INT32(-1)
    if not polls:
        w = lock.head
        if free and w != NONE:
            rows.next_one[0, np.int64(w)] = INT32(s.guest[w].phase == SPIN and s.guest[w].lock == mine)
        while w != NONE:
            last = INT32(last + INT32(1))
            rows.place[0, np.int64(w)] = last
            w = s.guest[w].next_waiter
    for i in range(vcpus):
        rows.behind[0, i] = INT32(last - rows.place[0, i])
    _write_known(flat, vcpus, rows, here_of(sight_of(s), p, s.world[0].now, s.world[0].decided_at))


# --- the entry --------------------------------------------------------------------------------------------------------

UINT8 = np.dtype(np.uint8)
_LOWS, _STEPS = codes.lows(TABLE.vcpu), codes.steps(TABLE.vcpu)
_HOST_LOWS, _HOST_STEPS = codes.lows(TABLE.host), codes.steps(TABLE.host)


@inlined
def write_codes(par, flat, observation):
    """The codes (`codes.py`) of a flat observation: uint8 grid [1, length]."""
    vcpus, at = par.vcpus, par.vcpus * par.features
    for k in range(par.features):
        low, step = _LOWS[k], _STEPS[k]
        for i in range(k * vcpus, (k + 1) * vcpus):
            observation[0, i] = coded(flat[0, i], low, step)
    for k in range(HOST_LENGTH):
        observation[0, at + k] = coded(flat[0, at + k], _HOST_LOWS[k], _HOST_STEPS[k])


@inlined
def show(s, mask, observation):
    """Write mask and observation of the decision that is due, at these addresses."""
    par = s.par[0]
    actions = grid(mask, 0, INT8, 1, 1, par.vcpus + 1)
    length = par.vcpus * par.features + HOST_LENGTH
    if par.observation_form == codes.AS_FLOAT32:
        write_observation(s, actions, grid(observation, 0, FLOATS, 4, 1, length))
        return
    flat = scratch(FLOATS, length)
    write_observation(s, actions, flat)
    if par.observation_form == codes.AS_FLOAT16:
        halves = grid(observation, 0, UINT16, 2, 1, length)
        for i in range(length):
            halves[0, i] = halved(flat[0, i])
    else:
        write_codes(par, flat, grid(observation, 0, UINT8, 1, 1, length))
