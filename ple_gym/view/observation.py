"""Writing what an agent sees of a decision: the legal actions, and every feature of a table (`features.py`).

The information level changes only what is seen. Rows of the `hypervisor` level are written from the visible arrays
alone (`Sight`). A flat observation is feature by feature all vCPUs, then the host's features.

Most of a batched decision is spent here. The records are read once, into rows of words on the stack; then loops without
branches write four features each. That is what the compiler does eight vCPUs at a time: beyond four it gives up,
because it cannot know that the columns do not overlap. (Rows on the stack, it knows, overlap nothing.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ple_gym.sim.decisions import within_reach
from ple_gym.sim.guest.held import holds_a_lock
from ple_gym.sim.guest.waits import in_line, waits_for
from ple_gym.sim.jit import JIT_ENABLED, called, inlined
from ple_gym.sim.memory import grid, records, scratch
from ple_gym.sim.sight import sight_of
from ple_gym.sim.state import (
    ACKS,
    ADVANCING,
    BENEATH,
    BLOCKED,
    DECIDE,
    HOLD,
    IDLE,
    INF,
    INT8,
    NOISE,
    NONE,
    QUEUED,
    SENDER_BITS,
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
from ple_gym.view.record import HYPERVISOR, INTROSPECTION, ORACLE, VIEW, VIEW_BYTES
from ple_gym.view.rows import Feature, Table
from ple_gym.view.scales import FLOAT32, INT32, ONE, byte, scaled

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


class Interrupts(NamedTuple):
    """What a hypervisor that sees interrupts sees of them, a row [1, V] of each word."""

    pending: Any  # int32, 0 or 1: has some to serve
    by_asker: Any  # int32, 0 or 1: and one of the asker
    age: Any  # float32: L(time) since the first came, also if it has none


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
OF_INTERRUPTS = _rows(Interrupts)
OF_A_RECORD = {name: name for name in ("own", "host_par", "see")} | {"asker": "np.uint32(here.asker)"}
OF_THE_HOST = _HERE | {name: f"count.{name}" for name in Count._fields}
OF_THE_HOST |= {"asking": "asking", "see": "see", "host_par": "see.host_par[0]"}


class Writers(NamedTuple):
    """Compiled functions that a table of features was turned into; `loops.py` has their arguments."""

    columns: dict[int, Callable[..., None]]  # by level
    keep: Callable[..., None]
    host: Callable[..., None]
    own: int  # features of the host's scheduler that each vCPU has


def writers_of(table: Table, dtype: str = "float32", room: int = 0) -> Writers:
    """Turn a table of features into compiled functions that write observations of this type."""
    own = [feature for feature in table.vcpu if feature.scheduler]
    return Writers(
        {level: loops.columns(table.added(level), words, dtype, room) for level, words in WORDS.items()},
        loops.kept(own, OF_A_RECORD, table.look, room),
        loops.numbers(table.host, OF_THE_HOST, dtype),
        len(own),
    )


# --- gathering --------------------------------------------------------------------------------------------------------


@inlined
def here_of(see, view, p, now, decided_at):
    """The decision that is due on pCPU p."""
    par, asker = see.par[0], see.pcpu[p].current
    return Here(
        now,
        now + view.window,
        decided_at,
        INT32(p),
        INT32(asker),
        INT32(see.vcpu[asker].pc_class),
        FLOAT32(view.low),
        FLOAT32(view.factor),
        ONE / FLOAT32(par.vcpus),
        ONE / FLOAT32(par.pcpus),
    )


@inlined
def seems_to_spin(exits, vcpu, progress):
    """Whether a vCPU that had `exits` has not run for `progress` cycles without one since the last."""
    return (exits > 0) & (vcpu.cpu_time - vcpu.cpu_at_ple <= progress)


@inlined
def look_at_all(see, here, rows, own, keep, mask):
    """Gather what a hypervisor sees, from nothing but that: fill `rows` (with `own` features of the host's scheduler),
    write the legal actions, and count."""
    par, later, low, factor, vcpus = see.par[0], here.later, here.low, here.factor, see.par[0].vcpus
    window, my_vm = later - here.now, see.vcpu[np.uint32(here.asker)].vm
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
            keep(rows.own, vcpus, i, see, here)
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
    return Count(INT32(idle), INT32(noisy), INT32(spinning), INT32(queued), INT32(asleep), INT32(queued_spinners))


@inlined
def look_at_interrupts(see, here, rows):
    """Fill `rows` with what is seen of interrupts."""
    asker = np.uint32(here.asker)
    ours = see.vmp[see.vcpu[asker].vm]
    sender = (np.int64(here.asker) - ours.first) % SENDER_BITS
    for i in range(see.par[0].vcpus):
        ipi = see.ipi[i]
        rows.pending[0, i] = INT32(ipi.senders != 0)
        rows.by_asker[0, i] = INT32(0)
        rows.age[0, i] = scaled(here.later - ipi.pending_since, here.low, here.factor)
    for i in range(ours.first, ours.first + ours.vcpus):
        rows.by_asker[0, i] = INT32((see.ipi[i].senders >> sender) & 1)


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


@inlined
def guess_of_all(s, rows, began, after):
    """Fill `rows` with what the introspection level adds, from the lock address that was in a register at a vCPU's last
    exit. began, after: room for vcpus + 3 numbers, int64 and int32."""
    vcpus = s.par[0].vcpus
    mine = s.guest[s.pcpu[s.world[0].deciding].current].exit_lock
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


@called
def know_who_answers(s, rows, asker):
    """`know_of_all` of an asker that waits for acknowledgements: whoever has not answered is a holder to it."""
    vm = s.vmp[s.vcpu[asker].vm]
    for i in range(s.par[0].vcpus):
        rows.place[0, i] = INT32(-1)
        rows.next_one[0, i] = INT32(0)
        rows.behind[0, i] = INT32(0)
        rows.holder[0, i] = INT32(0)
        rows.holds[0, i] = INT32(holds_a_lock(s, i))
    for i in range(vm.first, vm.first + vm.vcpus):
        rows.holder[0, i] = INT32(waits_for(s, asker, i))


@inlined
def know_of_all(s, rows):
    """Fill `rows` with what the oracle level adds: holder and ticket order of the asker's lock, which only the guest
    knows."""
    vcpus = s.par[0].vcpus
    asker = s.pcpu[s.world[0].deciding].current
    if s.guest[asker].phase == ACKS:
        know_who_answers(s, rows, asker)
        return
    mine = s.guest[asker].lock
    lock = s.lock[mine]
    free = lock.holder == NONE
    polls = not in_line(s, lock.vm)
    for i in range(vcpus):
        guest = s.guest[i]
        rows.place[0, i] = INT32(-1)
        rows.holder[0, i] = INT32(0)
        rows.next_one[0, i] = INT32(polls & free & (guest.phase & BENEATH == SPIN) & (guest.lock == mine))
        rows.holds[0, i] = INT32((guest.phase == HOLD) | (guest.held != 0))
    if not free:
        rows.holder[0, np.int64(lock.holder)] = INT32(1)
    last = INT32(-1)
    if not polls:
        w = lock.head
        if free and w != NONE:
            rows.next_one[0, np.int64(w)] = INT32(s.guest[w].phase & BENEATH == SPIN and s.guest[w].lock == mine)
        while w != NONE:
            last = INT32(last + INT32(1))
            rows.place[0, np.int64(w)] = last
            w = s.guest[w].next_waiter
    for i in range(vcpus):
        rows.behind[0, i] = INT32(last - rows.place[0, i])


# --- the entry --------------------------------------------------------------------------------------------------------

#: How many bytes a number of each type has, and what the kernel takes it for.
NUMBERS = {"float32": (4, FLOATS), "float16": (2, UINT16), "uint8": (1, np.dtype(np.uint8))}


def nothing(features: Sequence[Feature], dtype: str) -> Any:
    """What stands for 0 in an observation of this type, of each feature: [F]."""
    zeros = np.zeros((1, len(features)), np.float32)
    return codes.encode(zeros, features)[0] if dtype == "uint8" else zeros[0].astype(NUMBERS[dtype][1])


def show_of(table: Table, interrupts: tuple[Feature, ...], dtype: str, room: int = 0) -> Callable[..., None]:
    """The compiled function show(s, view, mask, observation) for a table of features and a type of observations;
    interrupts: features that are shown besides where the view says so.

    room: if not 0, observation and mask have room for so many vCPUs, and for the features of interrupts in any case; of
    what there is not, the observation says nothing, and the mask that it cannot be chosen.

    It writes the decision that is due to two addresses: its legal actions, int8 [V + 1], and its observation, [length
    of the table]. When there is nothing to decide, all actions are legal. When the run has ended, the view is from the
    pCPU that decided last, for a value function; zeros if it is idle, or if no run has begun.
    """
    columns, keep, write_host, own = writers_of(table, dtype, room)
    write_seen, write_guessed, write_known = (columns[level] for level in (HYPERVISOR, INTROSPECTION, ORACLE))
    size, numbers = NUMBERS[dtype]
    write_interrupts = loops.columns(interrupts, OF_INTERRUPTS, dtype, room)
    host_length, more = len(table.host), len(interrupts)
    lengths = np.array([len(table.of_vcpu(level)) for level in range(ORACLE + 1)])
    no_host, no_vcpu = nothing(table.host, dtype), np.zeros((2, len(table.vcpu) + more), NUMBERS[dtype][1])
    no_vcpu[0, : len(table.vcpu)] = nothing(table.vcpu, dtype)
    no_vcpu[1] = nothing(table.with_more(interrupts).vcpu, dtype)

    @inlined
    def space(par):
        """VCPUs that a column has room for."""
        return room if room > 0 else par.vcpus

    @inlined
    def written(par):
        """VCPUs that the loops go over: eight at a time where there is room, and `pad` puts right what was too much."""
        return (par.vcpus + 7) & -8 if room > 0 and JIT_ENABLED else par.vcpus

    @inlined
    def added(view):
        """How many features of interrupts there is room for."""
        return more if room > 0 else view.interrupts * more

    @called
    def write_nothing(flat, par, view, begin, end):
        """Zeros for features begin..end-1 of all vCPUs."""
        columns, sees = space(par), np.int64(added(view) > 0)
        for k in range(begin, end):
            for i in range(columns):
                flat[0, k * columns + i] = no_vcpu[sees, k]

    @inlined
    def pad(par, features, actions, flat):
        """Say nothing of vCPUs that there are not, and put the action that defers behind them."""
        for k in range(features):
            for i in range(par.vcpus, room):
                flat[0, k * room + i] = no_vcpu[1, k]
        for i in range(par.vcpus, room):
            actions[0, i] = 0
        actions[0, room] = 1

    @called
    def write_interrupted(see, view, p, now, decided_at, flat):
        """What is seen of interrupts."""
        vcpus, here = written(see.par[0]), here_of(see, view, p, now, decided_at)
        rows = Interrupts(scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(FLOATS, vcpus))
        look_at_interrupts(see, here, rows)
        write_interrupts(flat, vcpus, lengths[HYPERVISOR], rows, here)

    @inlined
    def write_visible(see, view, p, now, decided_at, mask, flat):
        """The legal actions, the hypervisor level and the host's features, from nothing but what a hypervisor sees."""
        vcpus, here = written(see.par[0]), here_of(see, view, p, now, decided_at)
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
            scratch(FLOATS, space(see.par[0]) * own),
        )
        count = look_at_all(see, here, rows, own, keep, mask)
        write_seen(flat, vcpus, 0, rows, here)
        features = lengths[view.information] + added(view)
        write_host(flat, space(see.par[0]) * features, here, count, see.pcpu[p], see)
        if view.interrupts != 0:
            write_interrupted(see, view, p, now, decided_at, flat)
        elif added(view) > 0:
            write_nothing(flat, see.par[0], view, lengths[HYPERVISOR], lengths[HYPERVISOR] + more)

    @called
    def write_introspection(s, view, p, flat):
        """What the introspection level adds."""
        vcpus, world = written(s.par[0]), s.world[0]
        rows = Guessed(scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus))
        guess_of_all(s, rows, scratch(TIMES, vcpus + 3), scratch(INTS, vcpus + 3))
        first = lengths[HYPERVISOR] + added(view)
        write_guessed(flat, vcpus, first, rows, here_of(sight_of(s), view, p, world.now, world.decided_at))

    @called
    def write_hidden(s, view, p, flat):
        """What the oracle level adds."""
        vcpus, world = written(s.par[0]), s.world[0]
        rows = Known(
            scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus), scratch(INTS, vcpus)
        )
        know_of_all(s, rows)
        first = lengths[INTROSPECTION] + added(view)
        write_known(flat, vcpus, first, rows, here_of(sight_of(s), view, p, world.now, world.decided_at))

    @inlined
    def show(s, description, mask, observation):
        """Write mask and observation of the decision that is due, at these addresses."""
        par, world = s.par[0], s.world[0]
        view = records(description, par.view_at, par.view_at + VIEW_BYTES, VIEW)[0]
        features, p = lengths[view.information] + added(view), world.deciding
        actions = grid(mask, 0, INT8, 1, 1, space(par) + 1)
        flat = grid(observation, 0, numbers, size, 1, space(par) * features + host_length)
        if world.status == ADVANCING or s.pcpu[p].current == NONE:
            write_nothing(flat, par, view, 0, features)
            for k in range(host_length):
                flat[0, space(par) * features + k] = no_host[k]
        else:
            write_visible(sight_of(s), view, p, world.now, world.decided_at, actions, flat)
            if view.information >= INTROSPECTION:
                write_introspection(s, view, p, flat)
            if view.information == ORACLE:
                if par.locks > 0 or s.guest[s.pcpu[p].current].phase == ACKS:
                    write_hidden(s, view, p, flat)
                else:
                    write_nothing(flat, par, view, lengths[INTROSPECTION] + added(view), features)
        if world.status != DECIDE:
            for i in range(par.vcpus + 1):
                actions[0, i] = 1
        if room > 0:
            pad(par, features, actions, flat)

    return show
