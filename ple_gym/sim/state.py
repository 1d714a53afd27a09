"""Every array of the simulator, field by field, and how one lane's state lies in memory.

A lane (one simulated machine) is one row of bytes: copying the row copies the whole state, exactly. Compiled code sees
the row as a handful of structured arrays (`Lane`). What all lanes share (the scenario, as integers) is a second row of
bytes, the description (`description.py`).

What the hypervisor sees of a vCPU and what only its guest knows are two arrays, so that a rule that is not handed the
second one cannot peek (`rules/`, `view/`).

Constants that are passed to functions are numpy integers: of Python's, numba would compile one variant per value.

Times are int64 TSC cycles. Indices are uint32 (numba checks signed indices for wrap-around, which costs 15-50 %).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ple_gym.sim.constants import INF as INF
from ple_gym.sim.constants import NONE as NONE
from ple_gym.sim.jit import inlined
from ple_gym.sim.memory import grid, records
from ple_gym.sim.seam import Host

MAX_EVENTS = np.int64(2 * 10**9)  # of a run, so that every count of events fits in 32 bits
TABLE_KNOTS = 505  # length of a quantile table

# pCPU modes; POLLING: its current vCPU sleeps, and the host waits for it, busy
IDLE, GUEST, NOISE, POLLING = 0, 1, 2, 3
# noise states
WAITING, PENDING, BURSTING = 0, 1, 2
# vCPU states
RUNNING, QUEUED, BLOCKED, DONE = 0, 1, 2, 3
# guest phases; from SPIN on it spins, for a lock or acknowledgements; below 0 it runs a handler, and goes on with the
# phase beneath after that
USER, KERNEL, HOLD, SPIN, ACKS = 0, 1, 2, 3, 4
HANDLING, BENEATH = -128, 127  # sign of a phase; mask: the phase whatever it handles
# steps of a program
COMPUTE, TAKE, UNLOCK, BLOCK, JUMP, SEND = 0, 1, 2, 3, 4, 5
MOST_STEPS = np.int64(1024)  # that a transaction executes
LAST_BACK = MOST_STEPS - 32  # after so many none jumps back: what is left is at most the table
# whom an interrupt of all siblings is sent to: all that are not DONE, those that do not sleep, those on a pCPU
TO_ALL, TO_AWAKE, TO_RUNNING = 0, 1, 2
# whose slices are short (9.14); of a vCPU's tick: none is due, it waits for another handler's end, it is being served
FOR_ALL, FOR_LOCKS, FOR_ANSWERS = 0, 1, 2
NO_TICK, TICK_PENDING, TICK_SERVED = 0, 1, 2
# thread places
ON_VCPU, READY, SLEEPING, THREAD_DONE = np.arange(4)
# why a vCPU left its pCPU
NEVER_RAN, PREEMPTED, PLE_YIELD, WENT_TO_SLEEP = np.arange(4)
# what the last hint at a vCPU did; HINT_PENDING: its pCPU has not chosen since
NEVER_HINTED, HINT_FAILED, HINT_PENDING, HINT_IGNORED, HINT_WON = np.arange(5)
# why schedule() is called, if it is
NOT_CALLED, BY_TIMER, BY_EXIT, BY_KICK = np.arange(4)
# PLE kinds
PLE_WINDOW, PLE_COUNT = 0, 1
# actuators
PULL, LOCAL, HINT, YIELD_ONLY = 0, 1, 2, 3
# run status; CUT_OFF: the caller has ended it
ADVANCING, DECIDE, FINISHED, TIMED_OUT, CUT_OFF = np.arange(5)
# where an environment starts: at a world's first decision, or inside a storm of exits
FIRST, STORM = 0, 1

# what a trace row records, and its columns: time, kind, pCPU, vCPU, lock (-1: none); of a decision its action instead
RAN, STOPPED, TRIED, ACQUIRED, RELEASED, EXITED, SLEPT, WOKE, NOISE_BEGAN, NOISE_ENDED, THREAD_TAKEN = np.arange(11)
INTERRUPTED, ANSWERED, DECIDED = np.arange(11, 14)
TRACE_WIDTH = 5

#: Parts of a lane's row, in their order; `description.lane_sections` says how long each of them is.
SECTIONS = (
    "world", "vm", "memory", "pcpu", "host_world", "host_vm", "host_pcpu", "clock", "vcpu", "host_vcpu", "guest",
    "lock", "thread", "interrupts", "unanswered", "ipi", "response", "queue",
)  # fmt: skip

# --- what all lanes share: the scenario as integers ------------------------------------------------------------------

PARAMETERS = np.dtype(
    [
        # sizes, and where the sections of a lane's row start (bytes)
        ("pcpus", "i8"), ("vcpus", "i8"), ("vms", "i8"), ("locks", "i8"), ("sockets", "i8"), ("tables", "i8"),
        ("threads", "i8"),  # of all VMs; 0: none has more than vCPUs
        ("finite_vms", "i8"),  # VMs with a finite pool: the run ends when all of these are done
        *((f"{name}_at", "i8") for name in SECTIONS),
        ("row_bytes", "i8"),
        ("host_parameters_at", "i8"), ("vm_parameters_at", "i8"), ("programs_at", "i8"), ("steps_at", "i8"),
        ("tables_at", "i8"),
        ("view_at", "i8"),  # what is there, the simulator does not know (view/record.py)
        ("tsc_hz", "i8"),  # cycles in a second
        # costs, cycles
        ("exit", "i8"), ("exit_per_candidate", "i8"), ("yield_to", "i8"),
        ("switch", "i8"), ("cache", "i8"), ("migration", "i8"), ("remote_migration", "i8"),
        ("ipi", "i8"), ("line", "i8"), ("notify", "i8"),
        ("defer_preemption", "i8"),  # cycles, 0: not at all (9.11)
        ("micro_slice", "i8"), ("micro_for", "i8"),  # cycles, 0: no micro-slices; FOR_ALL, ... (9.14)
        ("balloon", "i8"),  # cycles from one count of the VMs' shares to the next (7.12)
        # pause-loop exiting: cycles, cycles, PAUSEs
        ("ple_kind", "i8"), ("gap", "i8"), ("window", "i8"), ("count", "i8"),
        ("stacked", "i8"),  # whether vCPUs start in blocks of siblings, or in turns (12)
        ("least_window", "i8"),  # of a vCPU: window or count, by the kind
        ("window_grow", "i8"), ("window_shrink", "i8"), ("window_max", "i8"),
        ("windows_differ", "i8"),  # whether vCPUs may have windows of their own
        # decisions
        ("actuator", "i8"), ("pull_swaps", "i8"),
        ("last_action", "i8"),  # the largest; more than V: an action chooses a window, too (10)
        ("storm_span", "i8"), ("storm_exits", "i8"),  # so many exits within so many cycles are a storm (12.1)
        # host noise: 0 = none; cycles; cycles; table row
        ("noise_rate_hz", "i8"), ("noise_burst", "i8"), ("noise_cap_permille", "i8"), ("noise_level_table", "i8"),
        ("limit", "i8"),  # simulated-time cap, cycles
        ("senders", "i8"),  # words of a set of vCPUs of one VM, where one is interrupted (7.10, 7.11); 0: none is
        ("ipis_seen", "i8"),  # vCPUs whose interrupts the hypervisor sees: all, or none
        ("ticks", "i8"),  # whether a VM has timer ticks (7.11)
        ("urgent", "i8"),  # whether who is interrupted while it is queued runs at once (9.15)
    ],
    align=True,
)  # fmt: skip

AFFINITY = ("affinity", "affinity_64", "affinity_128", "affinity_192")  # the first pCPU's bit is in which word
#: What the hypervisor knows of a VM.
VM_PARAMETERS = np.dtype(
    [
        ("first", "i8"), ("vcpus", "i8"),  # vCPUs first .. first + vcpus - 1
        ("weight", "i8"),
        ("roams", "i8"), ("pinned", "i8"),  # 1: its vCPUs may run anywhere; each only where it starts
        *((name, "i8") for name in AFFINITY),  # a set of pCPUs that they may run on (affinity.py)
        ("progress", "i8"),  # cycles; who has run longer than this without an exit does not spin any more (8.3: 2 We)
    ],
    align=True,
)  # fmt: skip

#: What a VM's guest does.
PROGRAM = np.dtype(
    [
        ("first_lock", "i8"), ("locks", "i8"),  # locks first_lock .. first_lock + locks - 1
        ("stand", "i8"), ("may_take", "i8"),  # of the kind of its locks: places in STAND, MAY_TAKE (guest/kinds.py);
        ("in_line", "i8"), ("shared_line", "i8"),  # whether waiters stand in line; whether they read one cache line
        ("pc_classes", "i8"), ("convoy", "i8"), ("user_spin", "i8"),
        ("transactions", "i8"), ("sections", "i8"),  # transactions 0: endless
        ("compute", "i8"), ("hold", "i8"), ("block", "i8"),  # rows of quantile tables
        ("kernel_below", "i8"), ("lock_below", "i8"), ("hot_below", "i8"), ("block_below", "i8"),  # of 2^32
        ("spin_period", "i8"), ("halt", "i8"),  # cycles; halt: of spinning, until a waiter halts or notifies, 0: never
        ("reach", "i8"),  # cycles from the start of a PAUSE loop to its exit (8.1, 8.2)
        ("stolen", "i8"),  # whether the lock can be stolen while the head of its line does not spin (7.7)
        ("early_wait", "i8"),  # whether a waiter halts early behind one that is off its pCPU (7.7)
        ("overtake", "i8"),  # cycles of spinning for each one before it, until a waiter may overtake (7.8); 0: never
        ("notifies", "i8"),  # whether a waiter whose patience ends notifies the hypervisor (8.5), instead of halting
        ("first_thread", "i8"), ("threads", "i8"),  # first_thread .. first_thread + threads - 1; 0: one per vCPU (7.6)
        ("thread_switch", "i8"),  # cycles of a vCPU's switch to another of them
        ("first_step", "i8"), ("steps", "i8"),  # its program: first_step .. first_step + steps - 1; 0: it has sections
        ("handler", "i8"), ("ipi_to", "i8"),  # cycles of a handler, 0: no step sends interrupts; TO_ALL, ... (7.10)
        ("tick", "i8"), ("tick_handler", "i8"),  # cycles from tick to tick, 0: none; of serving one (7.11)
        ("balloon", "i8"),  # whether vCPUs beyond its share sleep (7.12)
        ("goal", "i8"),  # cycles that a response should take at most (7.13); 0: none is counted
    ],
    align=True,
)  # fmt: skip

#: A step of a program (7.9).
STEP = np.dtype(
    [
        ("kind", "u1"), ("place", "u1"),  # what it does; of its lock among those that are held
        ("held", "u1"), ("target", "u1"),  # places that are taken before it, as bits; step that is jumped to
        ("table", "u4"),  # row of a quantile table
        ("first", "i8"), ("count", "i8"),  # locks that one is drawn from, numbered within the VM; siblings interrupted
        ("below", "i8"),  # of 2^32: kernel mode, or the jump is taken
    ],
    align=True,
)  # fmt: skip

# --- one lane ---------------------------------------------------------------------------------------------------------

HINTS = ("hints", "hints_failed", "hints_ignored", "hints_won")
RARE = (*HINTS, "notifications", "ipis", "ipi_events")  # counters that most worlds never touch
LATE = ("responses_late", "lateness", "response_max")  # number; cycles beyond goals; thousandths of a goal (7.13)
COUNTERS = (
    "exits", "exits_lock_free", "exits_holder_off", "exits_holder_running", "lhp_events", "lwp_events", "acquisitions",
    "contended", "switches", "migrations", "steals", "halts", *HINTS, "notifications", "ipis", "ipi_events", "events",
)  # fmt: skip
CYCLES = ("useful", "spin", "exit", "switch", "cache", "idle", "stolen")

WORLD = np.dtype(
    [
        ("seed", "u8"), ("index", "u8"),  # name of the world; index counts replacements (12)
        ("start", "i8"),  # where its environment starts in the world that is reset next: FIRST, STORM
        ("millisecond", "i8"), ("exits_before", "i8"),  # of the search for a storm: the present one, exits before it
        ("noise_key", "u8"), ("policy_key", "u8"),  # streams
        ("now", "i8"), ("period_at", "i8"), ("next_wake", "i8"),  # cycles; next_wake = min of all wake_at
        ("counted_at", "i8"),  # when the VMs' shares were counted last (7.12)
        ("noise_gap", "i8"),  # mean gap between bursts of this run, cycles
        ("action", "i8"),  # the caller's action, read by the next step
        ("illegal_actions", "i8"),  # actions of the caller that were taken as `defer`, so far
        ("decided_at", "i8"), ("lost_before", "f8"),  # time of the previous decision; cycles lost that were reported
        ("interrupted", "i8"),  # what a command was about that must go on (drive.py: CONTINUE), as bits
        ("status", "i4"), ("deciding", "u4"),  # run status; pCPU of the decision that is due
        ("finished_vms", "i8"),
        ("traced", "i8"),  # events written to the trace so far
        *((name, "i8") for name in COUNTERS if name not in RARE),
        *((f"cycles_{name}", "i8") for name in CYCLES[1:]),  # useful cycles are counted per VM
        ("wait_max", "i8"), ("acquire_exits_max", "i8"), ("dispatch_exits_max", "i8"),
        *((name, "i8") for name in RARE),  # at the end: where there are no hints, say, nobody reads or writes them
        *((name, "i8") for name in LATE),
    ],
    align=True,
)  # fmt: skip

VM = np.dtype(
    [
        ("work_key", "u8"),  # stream of its transactions
        ("next_transaction", "i8"), ("completed", "i8"),
        ("finish", "i8"),  # cycles, INF while unfinished
        ("useful", "i8"),  # cycles of progress of its vCPUs
        ("ready_head", "u4"), ("ready_tail", "u4"),  # its threads that wait for a vCPU, along `next`, or NONE
        ("longest_steal", "i8"),  # cycles that one of its vCPUs was queued before it ran again, at most (13)
        ("share", "i8"), ("used_before", "i8"),  # vCPUs that may be awake; CPU time at the last count (7.12)
    ],
    align=True,
)  # fmt: skip

#: What the hypervisor knows of a pCPU.
PCPU = np.dtype(
    [
        ("mode", "u1"), ("noise_state", "u1"),
        ("notified", "u1"), ("pad0", "u1"),  # whether the exit that is due here is a notification (8.5)
        ("current", "u4"), ("last_vcpu", "u4"), ("queued", "u4"),  # vCPU or NONE; whose cache; length of the queue
        ("dispatch_exits", "i4"),
        ("hinted", "u4"),  # the vCPU that was favoured here since the last choice, or NONE
        ("settled", "i8"), ("exit_until", "i8"), ("entry", "i8"), ("dispatched_at", "i8"),
        ("resched_at", "i8"), ("tick_at", "i8"), ("slice_end", "i8"),  # timers, INF: not set
        ("decided_at", "i8"),  # time of the last decision here
        ("locked_until", "i8"),  # when the last decision lets go of its runqueue's lock (10.1)
        ("deferred_until", "i8"),  # when the preemption that is deferred must take place; 0: none is (9.11)
    ],
    align=True,
)  # fmt: skip

#: What will happen next on a pCPU: the future, hence hidden.
CLOCK = np.dtype(
    [
        ("event_at", "i8"),  # min(host_at, guest_at): what the event search compares
        ("host_at", "i8"),  # next host timer, not before the guest's entry
        ("guest_at", "i8"),  # next event of the guest here
        ("noise_at", "i8"), ("noise_count", "i8"),
    ],
    align=True,
)  # fmt: skip

_VCPU = np.dtype(
    [
        ("state", "u1"), ("left_by", "u1"), ("left_kernel", "u1"), ("moving", "u1"), ("pcpu", "u4"),  # look
        ("ples", "i4"), ("pc_class", "u4"),  # exits
        ("vm", "u2"), ("hint", "u1"), ("chosen", "u1"),  # what the last one did; whether its window was chosen (8.4)
        ("last_pcpu", "u4"), ("dispatches", "i4"),
        ("window", "u4"),  # its window, cycles, or its count of PAUSEs (8.4)
        ("first_ple", "i8"), ("last_ple", "i8"), ("cpu_at_ple", "i8"),  # since its last progress, like ples
        ("cpu_time", "i8"), ("queued_since", "i8"), ("left_at", "i8"), ("last_run", "i8"),  # cycles
    ],
    align=True,
)  # fmt: skip

#: What the hypervisor knows of a vCPU. `look` and `exits` are its first two words, for those who read much at once
#: (view/): state, left_by, left_kernel, moving and pcpu; ples and pc_class; the lowest bits first.
VCPU = np.dtype(
    {
        "names": [*_VCPU.fields, "look", "exits"],
        "formats": [*(kind for kind, _ in _VCPU.fields.values()), "i8", "i8"],
        "offsets": [*(offset for _, offset in _VCPU.fields.values()), 0, 8],
        "itemsize": _VCPU.itemsize,
    },
    align=True,
)

#: What only the guest knows of a vCPU.
VCPU_GUEST = np.dtype(
    [
        ("phase", "i1"), ("halted", "u1"),
        ("node", "u1"), ("step", "u1"),  # how it waits for a PV lock (7.7); of its program the next step (7.9)
        ("lock", "u4"), ("exit_lock", "u4"), ("next_waiter", "u4"), ("section", "i4"),  # locks: global numbers
        ("ahead", "u4"),  # who stood before it when it began to queue (7.7)
        ("thread", "u4"),  # where its VM has more of them than vCPUs: which it runs, or ran last
        ("transaction", "i8"), ("remaining", "i8"), ("cold", "i8"),
        ("try_at", "i8"), ("acquire_exits", "i8"), ("attempt_at", "i8"), ("exit_at", "i8"),
        ("spin_from", "i8"), ("ple_first", "i8"), ("ple_last", "i8"), ("ple_used", "i8"),  # 8
        ("halt_left", "i8"), ("wake_at", "i8"),
        ("held", "i8"),  # the locks that it holds (guest/held.py)
        ("executed", "u4"),  # steps of the transaction so far
        ("away", "u1"),  # whether it stands in line and is off its pCPU, where others halt for that (7.7)
        ("frozen", "u1"),  # whether it sleeps since it is beyond its VM's share (7.12)
    ],
    align=True,
)  # fmt: skip

#: A thread of a VM that has more of them than vCPUs. What it is doing stands here while it is on no vCPU.
THREAD = np.dtype(
    [
        ("place", "u1"), ("phase", "i1"), ("pad0", "u2"),
        ("vcpu", "u4"), ("next", "u4"), ("section", "i4"),  # where it runs or ran last; who is ready after it, or NONE
        ("transaction", "i8"), ("remaining", "i8"), ("wake_at", "i8"),
    ],
    align=True,
)  # fmt: skip

#: Of each vCPU, where one is interrupted (7.10, 7.11); `unanswered` has the senders that wait for it, as bits.
INTERRUPTS = np.dtype(
    [
        ("put_off", "i8"),  # `remaining` of what its handler interrupts
        ("sleep_until", "i8"),  # when the sleep ends that it interrupts; 0: none
        ("missing", "i8"),  # acknowledgements of its own interrupts
        ("timer_at", "i8"),  # its next tick, INF: none
        ("tick", "i8"),  # NO_TICK, TICK_PENDING, TICK_SERVED
    ],
    align=True,
)  # fmt: skip

#: What the hypervisor knows of a vCPU's interrupts, where it sees them (7.10).
IPI = np.dtype(
    [
        ("senders", "i8"),  # of those that it has to serve, bit n % 62: sender n of the VM; 0: it has none
        ("pending_since", "i8"),  # when the first of these came; the last such time if it has none
    ],
    align=True,
)  # fmt: skip
SENDER_BITS = 62

#: Of each vCPU, and behind them of each thread, where a VM's responses are counted (7.13): when its last sleep ended,
#: or will end; 0: it has not slept, or has no work any more.
RESPONSE = np.dtype([("asked_at", "i8")], align=True)

LOCK = np.dtype([("holder", "u4"), ("head", "u4"), ("tail", "u4"), ("vm", "u4")], align=True)  # vCPUs or NONE; its VM

HISTOGRAM_BINS = 1024
HISTOGRAMS = 4
WAITS, ACQUIRE_EXITS, DISPATCH_EXITS, RESPONSES = np.arange(4)  # rows of the histograms

#: What a step reports, a row of each: reward, status, cycles since the previous decision, whether it was illegal.
RESULT_REWARD, RESULT_STATUS, RESULT_ELAPSED, RESULT_ILLEGAL = 0, 1, 2, 3
RESULTS = 4

# --- a call of the compiled entry point -------------------------------------------------------------------------------

#: Where a lane is: addresses. Lanes may have different descriptions.
PLACE = np.dtype([("description", "i8"), ("row", "i8"), ("histogram", "i8")])

INT64, INT32, UINT16, INT8, UINT8 = map(np.dtype, (np.int64, np.int32, np.uint16, np.int8, np.uint8))
FLOAT64, FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
PARAMETERS_BYTES = PARAMETERS.itemsize
PLACE_BYTES = PLACE.itemsize


class Lane(NamedTuple):
    """One simulated machine, as compiled code sees it."""

    host: Host  # the scheduler (seam.py)
    par: np.ndarray  # PARAMETERS [1], shared
    host_par: np.ndarray  # the scheduler's PARAMETERS [1], shared
    vmp: np.ndarray  # VM_PARAMETERS [M], shared
    program: np.ndarray  # PROGRAM [M], shared
    step: np.ndarray  # STEP [of all programs], shared
    tables: np.ndarray  # int64 [tables, 505], shared
    world: np.ndarray  # WORLD [1]
    vm: np.ndarray  # VM [M]
    pcpu: np.ndarray  # PCPU [P]
    host_world: np.ndarray  # the scheduler's WORLD [1]
    host_vm: np.ndarray  # the scheduler's VM [M]
    host_pcpu: np.ndarray  # the scheduler's PCPU [P]
    clock: np.ndarray  # CLOCK [P]
    vcpu: np.ndarray  # VCPU [V]
    host_vcpu: np.ndarray  # the scheduler's VCPU [V, and as many more as it needs]
    guest: np.ndarray  # VCPU_GUEST [V]
    lock: np.ndarray  # LOCK [L]
    thread: np.ndarray  # THREAD [threads]
    interrupts: np.ndarray  # INTERRUPTS [V, or 0]
    unanswered: np.ndarray  # int64 [V, senders]: bit i % 64 of word i // 64: the VM's vCPU i waits for this one
    ipi: np.ndarray  # IPI [V, or 0]
    response: np.ndarray  # RESPONSE [V + threads, or 0]
    queue: np.ndarray  # uint16 [P, V]: runqueue of each pCPU, head first
    histogram: np.ndarray  # int32 [4, 1024]
    trace: np.ndarray  # int64 [n, 5]: ring of events for pictures (traces/)
    trace_rows: int  # n; 0: not recorded


@inlined
def open_lane(host, description, row, histogram, trace, trace_rows):
    """The lane at these addresses, under a scheduler; trace: int64 [trace_rows, 5]."""
    par = records(description, 0, PARAMETERS_BYTES, PARAMETERS)
    at = par[0]
    return Lane(
        host,
        par,
        records(description, at.host_parameters_at, at.vm_parameters_at, host.PARAMETERS),
        records(description, at.vm_parameters_at, at.programs_at, VM_PARAMETERS),
        records(description, at.programs_at, at.steps_at, PROGRAM),
        records(description, at.steps_at, at.tables_at, STEP),
        grid(description, at.tables_at, INT64, 8, at.tables, TABLE_KNOTS),
        records(row, at.world_at, at.vm_at, WORLD),
        records(row, at.vm_at, at.memory_at, VM),
        records(row, at.pcpu_at, at.host_world_at, PCPU),
        records(row, at.host_world_at, at.host_vm_at, host.WORLD),
        records(row, at.host_vm_at, at.host_pcpu_at, host.VM),
        records(row, at.host_pcpu_at, at.clock_at, host.PCPU),
        records(row, at.clock_at, at.vcpu_at, CLOCK),
        records(row, at.vcpu_at, at.host_vcpu_at, VCPU),
        records(row, at.host_vcpu_at, at.guest_at, host.VCPU),
        records(row, at.guest_at, at.lock_at, VCPU_GUEST),
        records(row, at.lock_at, at.thread_at, LOCK),
        records(row, at.thread_at, at.interrupts_at, THREAD),
        records(row, at.interrupts_at, at.unanswered_at, INTERRUPTS),
        grid(row, at.unanswered_at, INT64, 8, at.vcpus, at.senders),
        records(row, at.ipi_at, at.response_at, IPI),
        records(row, at.response_at, at.queue_at, RESPONSE),
        grid(row, at.queue_at, UINT16, 2, at.pcpus, at.vcpus),
        grid(histogram, 0, INT32, 4, HISTOGRAMS, HISTOGRAM_BINS),
        grid(trace, 0, INT64, 8, trace_rows, TRACE_WIDTH),
        trace_rows,
    )
