"""A scenario: the frozen, validated description of one simulated machine, its guests and their work.

Parameters have dotted names (`host.ratelimit_us`, `neighbours.0.weight`); docs/model.md, section 2, says what each one
does. A field's annotation holds its range and its one line of help, and everything else is derived from there:
validation, error messages, reading of typed text, documentation.

The defaults are the paper's machine under Xen 4.5, which is also the profile `westmere-xen-4.5`.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

from ple_gym.errors import PleError, ScenarioError
from ple_gym.files import parse_json, parsing
from ple_gym.messages import plain, show
from ple_gym.scenario import affinity
from ple_gym.scenario.parameters import (
    AFFINITY,
    DISTRIBUTION,
    FLAG,
    MAX_TEXT,
    PROGRAM,
    TEXT,
    Group,
    Kind,
    check,
    check_fields,
    choice,
    flag_or,
    number,
    one_of,
    parameters_of,
    unknown,
    version,
    whole,
)
from ple_gym.scenario.profiles import DIFFERENCES, GUESTS
from ple_gym.scenario.program import ANY_LOCK, Step, parse
from ple_gym.scenario.schedulers import OWN_ACTUATOR, SCHEDULERS
from ple_gym.sim.guest.kinds import HALTING, INTERRUPTIBLE, LOCK_KINDS

__all__ = [
    "PROFILES",
    "Cost",
    "Decision",
    "Host",
    "Limit",
    "Noise",
    "Ple",
    "Scenario",
    "ScenarioError",
    "Vm",
    "describe_parameters",
    "never_decides",
]

MAX_BYTES = 2**20
"""Of a scenario's file."""
MAX_VCPUS = 1024
"""Of all VMs together."""
MAX_THREADS = 4096
"""Of all VMs together, where they are more than vCPUs."""

_LONGEST_BASE_SLICE_US = 3000  # of Linux's own
XEN = ("4.5", "4.8", "4.17", "4.18", "4.21")
"""Versions of Xen whose schedulers differ here (docs/model.md, 9.10 and 9b)."""
AS_IN_XEN = "version"
"""What a flag is that is as `host.xen` says."""

DEFAULT = "default"
"""What `decision.actuator` is that is the host's own where it has one (`Scenario.actuator`)."""

_CYCLES = whole(0, 10**8)


@dataclass(frozen=True, slots=True)
class Host(Group):
    """Physical CPUs and the hypervisor's scheduler."""

    scheduler: Annotated[str, one_of(SCHEDULERS), "the hypervisor's scheduler"] = "credit"
    pcpus: Annotated[int, whole(1, affinity.MAX_PCPU + 1), "physical CPUs"] = 4
    sockets: Annotated[int, whole(1, 64), "sockets the pCPUs are spread over; at most host.pcpus"] = 1
    # Xen hands out the credits of all pCPUs of a cpupool, also of those that the guests are not allowed to run on.
    credit_pcpus: Annotated[
        int, whole(1, 1024, zero="host.pcpus"), "pCPUs whose credit is handed out: those of the scheduler's pool"
    ] = 0
    tsc_hz: Annotated[int, whole(10**8, 10**10), "cycles per second"] = 2_670_000_000
    timeslice_ms: Annotated[int, whole(1, 1000), "time slice, and period of the credit accounting"] = 30
    ratelimit_us: Annotated[
        int, whole(100, 500_000, zero="off"), "time a vCPU runs before it is preempted; at most the time slice"
    ] = 1000
    xen: Annotated[str, version(*XEN), "version of Xen whose scheduler runs; 4.17 as XCP-ng 8.3 ships it"] = "4.5"
    runqueue: Annotated[str, choice("cpu", "socket", "all"), "pCPUs that share a queue, at most 16 (credit2)"] = (
        "socket"
    )
    # One change of Xen's alone, in a version that has it or not.
    yield_bypasses_ratelimit: Annotated[
        bool | str, flag_or(AS_IN_XEN), "a yield ends the rate limit's protection; version: since 4.8"
    ] = AS_IN_XEN
    fresh_ratelimit_slice: Annotated[
        bool | str, flag_or(AS_IN_XEN), "a rate-limited pass grants a new one; version: before 4.8"
    ] = AS_IN_XEN
    placement: Annotated[str, choice("spread", "stacked"), "vCPUs start on pCPUs in turns, or siblings together"] = (
        "spread"
    )
    linux: Annotated[
        str, choice("5.15", "6.6", "6.12", "6.14", "6.18", "6.18.2"), "version of Linux whose rules act (fair)"
    ] = "6.18.2"
    groups: Annotated[
        str, choice("vm", "flat", "vcpu"), "control groups: one per VM, none, or one per vCPU in one per VM (fair)"
    ] = "vm"
    base_slice_us: Annotated[
        int, whole(100, 100_000, zero="Linux's own"), "base slice, or CFS's least granularity (fair)"
    ] = 0
    wakeup_granularity_us: Annotated[
        int, whole(1, 1_000_000, zero="Linux's own"), "lead at which a wake-up preempts, or a hint fails (fair, 5.15)"
    ] = 0
    tick_us: Annotated[int, whole(100, 100_000), "time between two ticks of a pCPU (fair)"] = 4000
    skew_tick: Annotated[bool, FLAG, "the pCPUs' ticks are spread over half a tick (fair)"] = False
    tick_jitter_cycles: Annotated[int, _CYCLES, "a tick comes up to so much late, at most a tick (fair)"] = 0
    migration_cost_us: Annotated[
        int, whole(1, 100_000, zero="none is hot"), "who has run so recently is not moved to another pCPU (fair)"
    ] = 500
    # A remedy of the guest's preempted holders, in no host here as it ships: hypervisor-wide, whatever the scheduler.
    defer_preemption_us: Annotated[
        int, whole(1, 100_000, zero="off"), "a vCPU in kernel mode is preempted when it leaves it, or so much later"
    ] = 0
    # Another one: whoever spins in critical code of the guest is to be back soon, and holds nobody up for long.
    micro_slice_us: Annotated[
        int, whole(10, 100_000, zero="off"), "slice of a vCPU whose last exit was in micro_slice_for, until it goes on"
    ] = 0
    micro_slice_for: Annotated[
        str, choice("all", "locks", "answers"), "waits in which a vCPU's exit makes its next slice short"
    ] = "all"
    balloon_us: Annotated[
        int, whole(100, 1_000_000), "time from one count of the VMs' shares to the next (guest.balloon)"
    ] = 10_000
    # Remedies of the same kind, made for one scheduler: no credit scheduler that ships has them.
    balance_siblings: Annotated[bool, FLAG, "a vCPU wakes and is stolen where fewest siblings are (credit)"] = False
    coscheduling: Annotated[
        str,
        choice("off", "relaxed", "strict"),
        "a VM's vCPUs run at about the same pace, or in its slots only (credit)",
    ] = "off"
    coscheduling_skew_us: Annotated[
        int, whole(100, 1_000_000), "lead over its slowest sibling at which a vCPU waits (coscheduling relaxed)"
    ] = 3000
    load_balance: Annotated[bool, FLAG, "pCPUs even out their queues at ticks, also across sockets (fair)"] = True
    halt_poll_us: Annotated[
        int, whole(1, 1_000_000, zero="off"), "longest time that a pCPU polls for a vCPU that sleeps; KVM: 200 (fair)"
    ] = 0
    # A remedy of hints that are not taken, which was proposed twice for Linux and is in no version of it.
    debooster: Annotated[
        str, choice("off", "ishiguro", "li"), "who hints at a sibling on its own pCPU falls back behind it (fair)"
    ] = "off"
    kick_yields: Annotated[bool, FLAG, "a kick of a halted waiter yields to it; KVM: true (fair)"] = False
    # Posted interrupts, and those that the hardware delivers on its own, are seen by nobody.
    ipi_visible: Annotated[bool, FLAG, "the hypervisor sees which vCPUs have interrupts to serve"] = False
    # A remedy: in no hypervisor here as it ships, whatever the scheduler.
    urgent_ipis: Annotated[bool, FLAG, "a queued vCPU runs as soon as a sibling interrupts it (ipi_visible)"] = False


@dataclass(frozen=True, slots=True)
class Noise(Group):
    """Bursts of host work (dom0, say) that take a pCPU."""

    rate_hz: Annotated[int, whole(1, 10**6, zero="off"), "bursts per second and pCPU at level 1000"] = 0
    # Shorter than a second, so that the gap between bursts fits in 64 bits at every other setting.
    burst_us: Annotated[int, whole(1, 10**6), "mean length of a burst"] = 2300
    # exp(1.8 z) for a normal z: the quantiles at 0.0001 and 0.9999 stand for the ends.
    level: Annotated[str, DISTRIBUTION, "multiplies the rate, one draw a run; per mille"] = (
        "knots 0:1 0.01:15 0.05:52 0.1:100 0.25:297 0.5:1000 0.75:3367 0.9:10042 0.95:19312 0.975:34054 0.99:65853 "
        "0.995:103182 0.999:260452 1:807731"
    )
    cap_permille: Annotated[int, whole(1, 999), "largest share of a pCPU's time that noise takes"] = 180


@dataclass(frozen=True, slots=True)
class Cost(Group):
    """What the machine's own work costs, in cycles."""

    exit: Annotated[int, whole(1, 10**8), "PLE exit and its handler, without a switch; cycles"] = 1420
    exit_per_candidate: Annotated[int, _CYCLES, "for each candidate that the handler looks at; cycles"] = 0
    yield_to: Annotated[int, _CYCLES, "running or favouring another vCPU, under two queues' locks; cycles"] = 0
    switch: Annotated[int, _CYCLES, "context switch; cycles"] = 3000
    cache: Annotated[int, _CYCLES, "cache refill after a switch on the same pCPU; cycles"] = 26_700
    migration: Annotated[int, _CYCLES, "cache refill after a move to another pCPU of the socket; cycles"] = 80_100
    remote_migration: Annotated[int, _CYCLES, "cache refill after a move to another socket; cycles"] = 267_000
    ipi: Annotated[int, _CYCLES, "from a reschedule request to its arrival; cycles"] = 2600
    line: Annotated[int, _CYCLES, "transfer of a lock's cache line; cycles"] = 80
    notify: Annotated[int, whole(1, 10**8, zero="cost.exit"), "long-spin notification and its handler; cycles"] = 0


@dataclass(frozen=True, slots=True)
class Ple(Group):
    """Pause-loop exiting of the processor."""

    kind: Annotated[str, choice("window", "count"), "Intel's or AMD's form"] = "window"
    gap: Annotated[int, whole(1, 10**6, zero="off"), "longest time between two PAUSEs of one loop; cycles"] = 128
    window: Annotated[int, whole(1, 10**9), "time in one loop before the exit (kind window); cycles"] = 4096
    count: Annotated[int, whole(1, 10**6, zero="off"), "PAUSEs before the exit (kind count)"] = 3000
    # Linux's KVM: grow 2, shrink 0; of the count likewise, with a maximum of 65535. Xen's window stays.
    window_grow: Annotated[
        int,
        whole(1, 10**9, zero="not"),
        "factor of a vCPU's window (count) at its exits; what is added if not below the window",
    ] = 0
    window_shrink: Annotated[
        int, whole(1, 10**9, zero="at once"), "divisor of it at a dispatch; what is subtracted if not below the window"
    ] = 0
    window_max: Annotated[int, whole(1, 2**32 - 1), "what a window (count) grows to at most"] = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Decision(Group):
    """What a decision at a PLE exit can do."""

    actuator: Annotated[
        str,
        choice(DEFAULT, "hint", "yield", "local", "pull"),
        "favour a vCPU, yield or go on, run one queued here, or run any (hypothetical); default: fair: hint, else pull",
    ] = DEFAULT
    pull_swaps: Annotated[bool, FLAG, "the vCPU that exited takes the pulled one's place in its queue"] = False
    window: Annotated[
        str, choice("host", "agent"), "who sets the PLE window of a vCPU that exits; agent: an action has two parts"
    ] = "host"


@dataclass(frozen=True, slots=True)
class Limit(Group):
    """When a run is cut off."""

    simulated_s: Annotated[float, number(0, 3600, above_low=True), "cap on simulated time"] = 60.0


@dataclass(frozen=True, slots=True)
class Vm(Group):
    """One virtual machine and its work, or `count` that are alike. Distributions are as in `distributions.parse`."""

    vcpus: Annotated[int, whole(1, 1024), "virtual CPUs; all VMs together have at most 1024"] = 8
    weight: Annotated[int, whole(1, 65_535), "the VM's credit weight, per active vCPU"] = 256
    affinity: Annotated[str, AFFINITY, "pCPUs that its vCPUs may run on; pinned: each only where it starts"] = (
        affinity.ANY
    )
    locks: Annotated[int, whole(1, 4096, zero="none"), "shared spinlocks"] = 1
    lock_kind: Annotated[str, choice(*LOCK_KINDS), "kind of the shared locks"] = "ticket"
    transactions: Annotated[int, whole(1, 10**9, zero="endless"), "size of the pool the vCPUs share"] = 100
    sections: Annotated[int, whole(1, 64), "sections (compute, then a lock operation) per transaction"] = 10
    compute: Annotated[str, DISTRIBUTION, "computing time of a section; cycles"] = "exponential 110000"
    # The paper gives 99.5 % at most 2048 cycles, and up to 20 us; the other knots are an assumed shape.
    hold: Annotated[str, DISTRIBUTION, "time a shared lock is held; cycles"] = (
        "knots 0:120 0.1:260 0.25:390 0.5:600 0.75:860 0.9:1180 0.97:1560 0.995:2048 0.9975:4000 0.999:11000 "
        "0.9997:27000 1:53400"
    )
    block: Annotated[str, DISTRIBUTION, "length of a blocking wait; cycles"] = "exponential 2670000"
    kernel_share: Annotated[float, number(0, 1), "probability that a section computes in kernel mode"] = 0.1
    lock_probability: Annotated[float, number(0, 1), "probability that a section takes a shared lock"] = 0.1
    hot_probability: Annotated[float, number(0, 1), "probability that a shared lock taken is lock 0"] = 0.0
    block_probability: Annotated[float, number(0, 1), "probability that a section blocks first"] = 0.0
    spin_period: Annotated[int, whole(1, 10**6), "time from PAUSE to PAUSE in the spin loop; cycles"] = 50
    spin_in_user_mode: Annotated[bool, FLAG, "spins in user mode, where PLE does not look"] = False
    pv_spin_threshold: Annotated[
        int, whole(1, 10**9, zero="never"), f"loop iterations before a waiter halts ({HALTING} only)"
    ] = 0
    pv_early_wait: Annotated[
        bool, FLAG, "a waiter halts behind one that is off its pCPU, too: Linux 4.11 to 5.3 (pv only)"
    ] = False
    overtake_after: Annotated[
        int, whole(1, 10**9), "loop iterations, per waiter before it, until one may overtake (preemptable-ticket)"
    ] = 64
    notify_after: Annotated[
        int, whole(1, 10**9, zero="never"), "retries of a spin before each long-spin notification (Windows)"
    ] = 0
    pc_classes: Annotated[int, whole(1, 4096), "lock functions; lock l spins in function l % pc_classes"] = 3
    start: Annotated[str, choice("fresh", "convoy"), "vCPUs start at their work, or all at lock 0"] = "fresh"
    threads: Annotated[
        int, whole(1, MAX_THREADS, zero="one per vCPU"), f"threads that share the vCPUs; all VMs: at most {MAX_THREADS}"
    ] = 0
    thread_switch: Annotated[int, _CYCLES, "a vCPU's switch to another thread, with its cache refill; cycles"] = 3000
    count: Annotated[int, whole(1, 1024), "VMs like this one; all VMs together have at most 1024 vCPUs"] = 1
    program: Annotated[str, PROGRAM, "a transaction's steps; empty: sections, of the parameters above"] = ""
    # flush_tlb_func takes 0.3 to 2 us.
    ipi_handler: Annotated[int, whole(1, 10**8), "time that serving an interrupt takes (ipi steps); cycles"] = 2000
    ipi_to: Annotated[
        str, choice("all", "awake", "running"), "whom ipi steps interrupt: all, none that sleeps, who is on a pCPU"
    ] = "all"
    tick_us: Annotated[int, whole(100, 100_000, zero="none"), "time between two ticks of an awake vCPU's timer"] = 0
    tick_handler: Annotated[int, whole(1, 10**8), "time that serving a timer tick takes; cycles"] = 5000
    # A remedy in guest and host: as many vCPUs as can run, so that none of them waits for a pCPU.
    balloon: Annotated[bool, FLAG, "between transactions vCPUs beyond the VM's share of the pCPUs go to sleep"] = False
    response_goal_us: Annotated[
        int, whole(1, 10**7, zero="none"), "99 % of responses (sleep's end to the next sleep) should take no longer"
    ] = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of its program; none where a transaction is made of sections."""
        return parse(self.program)

    @property
    def sends_interrupts(self) -> bool:
        """Whether a step of its program interrupts siblings."""
        return any(step.verb == "ipi" for step in self.steps)

    @property
    def sleeps(self) -> bool:
        """Whether its program ever sleeps."""
        return any(step.verb == "block" for step in self.steps) if self.program else self.block_probability > 0

    @property
    def is_interrupted(self) -> bool:
        """Whether its vCPUs have interrupts to serve."""
        return self.sends_interrupts or self.tick_us > 0

    @property
    def takes_locks(self) -> bool:
        """Whether a vCPU ever takes a shared lock."""
        if self.program:
            return any(step.verb == "lock" for step in self.steps)
        return self.locks > 0 and (self.lock_probability > 0 or self.start == "convoy")


_GROUPS: Mapping[str, type[Group]] = MappingProxyType(
    {"host": Host, "noise": Noise, "cost": Cost, "ple": Ple, "decision": Decision, "limit": Limit, "guest": Vm}
)
#: Parameters that came when digests had been kept: at their defaults they are in none.
_LATER = (("decision", "window"), ("guest", "response_goal_us"))
_GroupT = TypeVar("_GroupT", bound=Group)


def _build(group: type[_GroupT], prefix: str, table: object) -> _GroupT:
    """Return the group that a table describes; `prefix` is its dotted name."""
    if not isinstance(table, Mapping):
        raise ScenarioError(f"{prefix} = {show(table)}: must be a table of parameters")
    rules = parameters_of(group)
    for key in table:
        if key not in rules:
            raise unknown("parameter", f"{prefix}.{key}", [f"{prefix}.{name}" for name in rules])
    return group(**{key: check(f"{prefix}.{key}", rules[key][0], value) for key, value in table.items()})


def _build_neighbours(tables: object) -> tuple[Vm, ...]:
    if not isinstance(tables, list | tuple):
        raise ScenarioError(f"neighbours = {show(tables)}: must be a list of tables of parameters")
    if len(tables) >= MAX_VCPUS:
        raise ScenarioError(f"neighbours: must be at most {MAX_VCPUS - 1}, not {len(tables)}")
    return tuple(_build(Vm, f"neighbours.{i}", vm) for i, vm in enumerate(tables))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One machine, its guest and the guest's neighbours. Every instance is valid: creating a wrong one raises.

    Raises:
        ScenarioError: a value is out of range, or two values do not fit together.

    Examples:
        >>> pair = ple_gym.Scenario(name="Pair").with_overrides({"host.pcpus": 2, "guest.vcpus": 4})
        >>> pair.vcpus, pair.host.ratelimit_us  # the last in microseconds
        (4, 1000)
        >>> ple_gym.Scenario.from_toml(pair.to_toml()) == pair
        True
    """

    name: Annotated[str, TEXT, "name"] = "custom"
    description: Annotated[str, TEXT, "what it is for"] = ""
    host: Host = Host()
    noise: Noise = Noise()
    cost: Cost = Cost()
    ple: Ple = Ple()
    decision: Decision = Decision()
    limit: Limit = Limit()
    guest: Vm = Vm()
    neighbours: tuple[Vm, ...] = ()

    def __post_init__(self) -> None:
        """Check what the groups cannot see on their own."""
        check_fields(self, "")
        for name, group in _GROUPS.items():
            if not isinstance(getattr(self, name), group):
                raise ScenarioError(f"{name} = {show(getattr(self, name))}: must be a {group.__name__}")
        if not isinstance(self.neighbours, tuple | list) or not all(isinstance(vm, Vm) for vm in self.neighbours):
            raise ScenarioError(f"neighbours = {show(self.neighbours)}: must be a tuple of Vm")
        object.__setattr__(self, "neighbours", tuple(self.neighbours))
        _check_together(self)

    def tables(self) -> dict[str, Vm]:
        """Return what is said of the VMs, by dotted name: `guest`, `neighbours.0`, ... Each stands for `count` VMs."""
        return {"guest": self.guest} | {f"neighbours.{i}": vm for i, vm in enumerate(self.neighbours)}

    def vms(self) -> dict[str, Vm]:
        """Return every VM by name, in the simulator's order: `guest`, `neighbours.0#0`, `neighbours.0#1`, ..."""
        return {
            name if vm.count == 1 else f"{name}#{number}": vm
            for name, vm in self.tables().items()
            for number in range(vm.count)
        }

    @property
    def vcpus(self) -> int:
        """Virtual CPUs of all VMs."""
        return sum(vm.count * vm.vcpus for vm in self.tables().values())

    @property
    def endless(self) -> bool:
        """Whether no VM ever has done all its work, so that every run lasts until `limit.simulated_s`."""
        return not any(vm.transactions for vm in self.tables().values())

    @property
    def has_goals(self) -> bool:
        """Whether the responses of some VM are counted (`response_goal_us`)."""
        return any(vm.response_goal_us for vm in self.tables().values())

    @property
    def sees_interrupts(self) -> bool:
        """Whether the hypervisor sees interrupts among siblings: some VM sends them, and they are visible."""
        return self.host.ipi_visible and any(vm.sends_interrupts for vm in self.tables().values())

    @property
    def actuator(self) -> str:
        """What a decision does: `decision.actuator`, or where that is `default`, the host's own, or else `pull`."""
        if self.decision.actuator != DEFAULT:
            return self.decision.actuator
        return OWN_ACTUATOR.get(self.host.scheduler, "pull")

    @property
    def chooses_windows(self) -> bool:
        """Whether an action says, too, what becomes of the asker's PLE window."""
        return self.decision.window == "agent"

    def parameters(self) -> dict[str, int | float | bool | str]:
        """Return all values by dotted name."""
        return {name: value for name, (value, _) in self._flat().items()}

    def with_overrides(self, overrides: Mapping[str, object]) -> Self:
        """Return the scenario with some parameters changed, all at once.

        Args:
            overrides: dotted name -> value, or the value's text as typed in a shell (`true`, `1_000`, `2e-3`). The
                key `profile` applies a profile before all others, wherever it stands; so does the `profile` of a VM,
                as `neighbours.0.profile`, with a guest kernel (`GUESTS`).

        Raises:
            ScenarioError: an unknown name, a wrong value, or values that do not fit together.
        """
        if not overrides:
            return self  # nothing can change it
        changes = dict(overrides)
        if "profile" in changes:
            changes = {**_profile(changes.pop("profile")), **changes}
        for vm in self.tables():
            if f"{vm}.profile" in changes:
                kernel = _guest_profile(f"{vm}.profile", changes.pop(f"{vm}.profile"))
                changes = {**{f"{vm}.{name}": value for name, value in kernel.items()}, **changes}
        flat = self._flat()
        data = self.to_dict()
        for name, value in changes.items():
            if name not in flat:
                raise self._no_such(name)
            *path, key = name.split(".")
            node: Any = data
            for part in path:
                node = node[int(part) if isinstance(node, list) else part]
            node[key] = flat[name][1].read(value)
        return self.from_dict(data)

    def with_profile(self, name: str) -> Self:
        """Return a copy on the machine and hypervisor of a profile (`PROFILES`); guests and sizes stay.

        Raises:
            ScenarioError: no such profile.
        """
        return self.with_overrides({"profile": name})

    def warnings(self) -> tuple[str, ...]:
        """Return what is legal but probably not meant, one line each."""
        return tuple(_doubts(self))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that are the same for scenarios that differ in name and description at most."""
        data = {name: value for name, value in self.to_dict().items() if name not in parameters_of(type(self))}
        for group, name in _LATER:
            for one in (data[group], *(data["neighbours"] if group == "guest" else ())):
                if one[name] == getattr(_GROUPS[group](), name):
                    del one[name]
        return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario as nested dicts and lists of plain values."""
        data = asdict(self)
        return {**data, "neighbours": list(data["neighbours"])}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the scenario that nested dicts describe; what is left out takes its default.

        Raises:
            ScenarioError: an unknown key, a wrong value, or values that do not fit together.
        """
        if not isinstance(data, Mapping):
            raise ScenarioError(f"scenario = {show(data)}: must be a table of parameters")
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key in _GROUPS:
                values[key] = _build(_GROUPS[key], key, value)
            elif key == "neighbours":
                values[key] = _build_neighbours(value)
            elif key in parameters_of(cls):
                values[key] = value
            else:
                raise unknown("parameter", key, [*parameters_of(cls), *_GROUPS, "neighbours"])
        return cls(**values)

    def to_json(self) -> str:
        """Return the scenario as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the scenario that a JSON document describes.

        Raises:
            ScenarioError: the text is not JSON, or see `from_dict`.
        """
        return cls.from_dict(_parsed(text, "JSON", parse_json))

    def to_toml(self) -> str:
        """Return the scenario as a TOML document."""
        data = self.to_dict()
        lines = _toml({name: data[name] for name in parameters_of(type(self))})
        for group in _GROUPS:
            lines += ["", f"[{group}]", *_toml(data[group])]
        for neighbour in data["neighbours"]:
            lines += ["", "[[neighbours]]", *_toml(neighbour)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Return the scenario that a TOML document describes.

        Raises:
            ScenarioError: the text is not TOML, or see `from_dict`.
        """
        return cls.from_dict(_parsed(text, "TOML", tomllib.loads))

    def _flat(self) -> dict[str, tuple[Any, Kind]]:
        """Return value and kind of every parameter by dotted name."""
        groups: dict[str, object] = {"": self} | {name: getattr(self, name) for name in _GROUPS} | self.tables()
        return {
            f"{prefix}.{name}" if prefix else name: (getattr(group, name), kind)
            for prefix, group in groups.items()
            for name, (kind, _) in parameters_of(type(group)).items()
        }

    def _no_such(self, name: object) -> PleError:
        """Return the error for a dotted name that this scenario does not have."""
        count = len(self.neighbours)
        match = re.fullmatch(r"neighbours\.0*([0-9]+)\..*", str(name))
        if match and (len(match[1]) > len(str(count)) or int(match[1]) >= count):
            numbered = f", numbered 0..{count - 1}" if count else ""
            return ScenarioError(f"{plain(name)}: no such neighbour; this scenario has {count}{numbered}")
        near = match[1] if match else 0  # of many neighbours only one is worth looking at
        others = [one for one in self._flat() if not one.startswith("neighbours.")]
        others += [f"neighbours.{near}.{key}" for key in parameters_of(Vm) if count]
        return unknown("parameter", name, others)


# --- text -------------------------------------------------------------------------------------------------------------

#: What may be a long dotted key, of bare or quoted parts: tomllib's time grows with the square of their number.
_DOTTED = re.compile(r"""(?:(?<![\w-])(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16,}+""", re.ASCII)
_MAX_DOTTED = 10**6  # sum of the squares; a name and a description of nothing but dots stay below
#: What may be a long number, for which tomllib takes 120 times its length in memory.
_LONG_WORD = re.compile(rf"(?<!\w)\w{{{MAX_TEXT + 1}}}", re.ASCII)


def _parsed(text: str, language: str, parse: Callable[[str], Any]) -> Any:
    """What a document says, or the error that it is not of this language; limits come first.

    Raises:
        ScenarioError: it is too large, or not of this language.
    """
    if len(text) > MAX_BYTES:
        raise ScenarioError(f"a scenario has at most {MAX_BYTES:,} characters, not {len(text):,}")
    with parsing(ScenarioError, f"not {language}"):
        if language == "TOML":
            _check_toml(text)
        return parse(text)


def _check_toml(text: str) -> None:
    """Raise ValueError if tomllib would need too long or too much memory."""
    if sum(match[0].count(".") ** 2 for match in _DOTTED.finditer(text)) > _MAX_DOTTED:
        raise ValueError("a key has too many parts")
    if _LONG_WORD.search(text):
        raise ValueError(f"a word has more than {MAX_TEXT} characters")


def describe_parameters() -> dict[str, tuple[str, str]]:
    """Return what is allowed and one line of help for every parameter; `neighbours.N` has the parameters of `guest`."""
    groups: dict[str, type] = {"": Scenario, **_GROUPS}
    return {
        f"{prefix}.{name}" if prefix else name: (kind.allowed, text)
        for prefix, group in groups.items()
        for name, (kind, text) in parameters_of(group).items()
    }


# --- rules across parameters ------------------------------------------------------------------------------------------


def _check_together(scenario: Scenario) -> None:
    """Raise ScenarioError if values do not fit together that are fine on their own."""
    host, vms = scenario.host, scenario.tables()
    if host.sockets > host.pcpus:
        raise ScenarioError(f"host.sockets = {host.sockets}: must be at most host.pcpus = {host.pcpus}")
    if host.ratelimit_us > host.timeslice_ms * 1000:
        raise ScenarioError(
            f"host.ratelimit_us = {host.ratelimit_us}: must be at most the time slice, "
            f"host.timeslice_ms = {host.timeslice_ms} ({host.timeslice_ms * 1000} us)"
        )
    if host.tick_jitter_cycles > host.tick_us * host.tsc_hz // 10**6:
        raise ScenarioError(
            f"host.tick_jitter_cycles = {host.tick_jitter_cycles}: must be at most a tick, "
            f"host.tick_us = {host.tick_us} ({host.tick_us * host.tsc_hz // 10**6} cycles)"
        )
    if host.halt_poll_us and host.scheduler != "fair":
        raise ScenarioError(
            f"host.halt_poll_us = {host.halt_poll_us}: must be 0 (off) with host.scheduler = {host.scheduler!r}; "
            "KVM polls, under 'fair'"
        )
    _check_remedies(host, vms)
    vcpus = scenario.vcpus
    if vcpus > MAX_VCPUS:
        name, vm = max(vms.items(), key=lambda item: item[1].count * item[1].vcpus)
        times = f" in {vm.count} VMs" if vm.count > 1 else ""
        raise ScenarioError(
            f"{name}.vcpus = {vm.vcpus}{times}: all VMs together must have 1..{MAX_VCPUS} vCPUs, not {vcpus}"
        )
    threads = sum(vm.count * vm.threads for vm in vms.values())
    if threads > MAX_THREADS:
        name, vm = max(vms.items(), key=lambda item: item[1].threads)
        raise ScenarioError(
            f"{name}.threads = {vm.threads}: all VMs together must have at most {MAX_THREADS}, not {threads}"
        )
    for name, vm in vms.items():
        if 0 < vm.threads < vm.vcpus:
            raise ScenarioError(
                f"{name}.threads = {vm.threads}: must be 0 (one per vCPU) or at least {name}.vcpus = {vm.vcpus}"
            )
        if vm.pv_spin_threshold and not LOCK_KINDS[vm.lock_kind].halts:
            raise ScenarioError(
                f"{name}.pv_spin_threshold = {vm.pv_spin_threshold}: must be 0 (never) with "
                f"{name}.lock_kind = {vm.lock_kind!r}; waiters halt on {HALTING} locks only"
            )
        if vm.pv_early_wait and vm.lock_kind != "pv":
            raise ScenarioError(
                f"{name}.pv_early_wait = true: must be false with {name}.lock_kind = {vm.lock_kind!r}; only 'pv' has it"
            )
        if vm.notify_after and vm.pv_spin_threshold:
            raise ScenarioError(
                f"{name}.notify_after = {vm.notify_after}: must be 0 (never) with "
                f"{name}.pv_spin_threshold = {vm.pv_spin_threshold}; waiters halt or notify, not both"
            )
        if vm.notify_after and LOCK_KINDS[vm.lock_kind].overtakes:
            raise ScenarioError(
                f"{name}.notify_after = {vm.notify_after}: must be 0 (never) with {name}.lock_kind = {vm.lock_kind!r}"
            )
        if vm.notify_after and vm.spin_in_user_mode:
            raise ScenarioError(
                f"{name}.notify_after = {vm.notify_after}: must be 0 (never) with {name}.spin_in_user_mode = true; "
                "only kernel mode makes hypercalls"
            )
        if vm.affinity != affinity.ANY:
            _check_affinity(scenario, f"{name}.affinity = {vm.affinity!r}", affinity.pcpus_of(vm.affinity))
        if vm.start == "convoy" and not vm.locks:
            raise ScenarioError(f"{name}.start = 'convoy': must be fresh with {name}.locks = 0, there is no lock 0")
        _check_program(name, vm)
        _check_interrupts(name, vm, host)
        if vm.response_goal_us and not vm.sleeps:
            never = f"{name}.program without a block step" if vm.program else f"{name}.block_probability = 0"
            raise ScenarioError(
                f"{name}.response_goal_us = {vm.response_goal_us}: must be 0 (none) with {never}; "
                "a response begins when a sleep ends"
            )
    # The accounting multiplies credits by weights; this bounds every product and keeps it in 64 bits.
    timeslice = host.timeslice_ms * host.tsc_hz // 1000
    most = 2**62 // (((host.credit_pcpus or host.pcpus) + vcpus) * timeslice)
    weights = sum(vm.count * vm.weight * vm.vcpus for vm in vms.values())
    if weights > most:
        name, vm = max(vms.items(), key=lambda item: item[1].weight)
        raise ScenarioError(
            f"{name}.weight = {vm.weight}: weight x vcpus of all VMs must add up to at most {most} on this host, "
            f"not {weights}"
        )
    if host.scheduler == "fair" and host.groups == "flat":
        # Each yield may add a slice to a virtual time, in units of weight 256; a run has at most 2 * 10^9 events.
        slice_us = host.base_slice_us or _LONGEST_BASE_SLICE_US
        least = -(-slice_us * host.tsc_hz * 256 * 2 * 10**9 // (10**6 * 2**62))
        name, vm = min(vms.items(), key=lambda item: item[1].weight)
        if vm.weight < least:
            raise ScenarioError(
                f"{name}.weight = {vm.weight}: must be at least {least} with host.groups = 'flat' and slices of "
                f"{slice_us} us on this host"
            )


def _check_remedies(host: Host, vms: Mapping[str, Vm]) -> None:
    """Raise ScenarioError if a remedy is asked for where there is none."""
    only = {"balance_siblings": "credit", "coscheduling": "credit", "debooster": "fair", "kick_yields": "fair"}
    for name, scheduler in only.items():
        value, off = (getattr(part, name) for part in (host, Host()))
        if value != off and host.scheduler != scheduler:
            raise ScenarioError(
                f"host.{name} = {show(value)}: must be {show(off)} with host.scheduler = {host.scheduler!r}; "
                f"only {scheduler!r} has it"
            )
    if host.urgent_ipis and not host.ipi_visible:
        raise ScenarioError("host.urgent_ipis = true: must be false with host.ipi_visible = false: nobody would know")
    if host.coscheduling == "strict":
        for name, vm in vms.items():
            if vm.vcpus > host.pcpus:
                raise ScenarioError(
                    f"host.coscheduling = 'strict': {name}.vcpus = {vm.vcpus} must be at most host.pcpus = {host.pcpus}"
                )


def _check_affinity(scenario: Scenario, setting: str, pcpus: tuple[int, ...]) -> None:
    """Raise ScenarioError if vCPUs cannot be kept on these pCPUs (none: where they start)."""
    host = scenario.host
    if pcpus and pcpus[-1] >= host.pcpus:
        raise ScenarioError(f"{setting}: must be pCPUs 0..{host.pcpus - 1}; host.pcpus = {host.pcpus}")
    if scenario.actuator == "pull":
        raise ScenarioError(f"{setting}: must be any with decision.actuator = 'pull', which runs a vCPU on any pCPU")


def _check_program(name: str, vm: Vm) -> None:
    """Raise ScenarioError if a VM's program does not fit its other parameters."""
    if vm.program and vm.threads:
        raise ScenarioError(f"{name}.threads = {vm.threads}: must be 0 with {name}.program")
    if vm.program and vm.start == "convoy":
        raise ScenarioError(f"{name}.start = 'convoy': must be fresh with {name}.program, which begins at step 0")
    for i, step in enumerate(vm.steps):
        if step.verb == "ipi" and step.siblings >= vm.vcpus:
            raise ScenarioError(
                f"{name}.program: step {i}, {show(step.text(0))}: must interrupt fewer than {name}.vcpus = {vm.vcpus}"
            )
        last = 0 if step.locks == ANY_LOCK else step.locks.last
        if step.verb == "lock" and last >= vm.locks:
            allowed = f"below {name}.locks = {vm.locks}" if vm.locks else f"none with {name}.locks = 0"
            raise ScenarioError(f"{name}.program: step {i}, {show(step.text(0))}: its lock must be {allowed}")


def _check_interrupts(name: str, vm: Vm, host: Host) -> None:
    """Raise ScenarioError if a VM's interrupts do not fit its locks, or its ticks and its balloon the rest."""
    if vm.is_interrupted and vm.lock_kind not in INTERRUPTIBLE:
        by = "ipi steps in its program" if vm.sends_interrupts else f"{name}.tick_us = {vm.tick_us}"
        raise ScenarioError(f"{name}.lock_kind = {vm.lock_kind!r}: must be {' or '.join(INTERRUPTIBLE)} with {by}")
    tick = vm.tick_us * host.tsc_hz // 10**6
    if vm.tick_us and vm.tick_handler >= tick:
        raise ScenarioError(
            f"{name}.tick_handler = {vm.tick_handler}: must be below a tick, {name}.tick_us = {vm.tick_us} "
            f"({tick} cycles)"
        )
    if vm.balloon and (vm.program or vm.threads):
        other = "program" if vm.program else f"threads = {vm.threads}"
        raise ScenarioError(f"{name}.balloon = true: must be false with {name}.{other}")


def _doubts(scenario: Scenario) -> Iterable[str]:
    """Yield the warnings of a scenario."""
    host, ple, vms = scenario.host, scenario.ple, scenario.tables()
    timeslice = host.timeslice_ms * host.tsc_hz // 1000
    if getattr(ple, _switch(ple)) == 0 and not _notifies(scenario):
        yield f"{_OFF.format(_switch(ple))}, nothing is ever decided"
    elif ple.kind == "window" and ple.window >= timeslice:
        yield f"ple.window = {ple.window}: not shorter than a time slice ({timeslice} cycles), PLE is silently dead"
    alike: dict[Vm, list[str]] = {}
    for name, vm in vms.items():
        alike.setdefault(vm, []).append(name)
    for vm, names in alike.items():
        if not vm.locks:
            continue
        others = vm.count * len(names) - 1
        name = f"{names[0]} (and {others} like it)" if others else names[0]
        halt = vm.pv_spin_threshold * vm.spin_period
        if vm.spin_period > ple.gap > 0:
            yield f"{name}.spin_period = {vm.spin_period}: longer than ple.gap = {ple.gap}, PLE is silently dead"
        elif ple.kind == "window" and 0 < halt <= ple.window:
            yield (
                f"{name}.pv_spin_threshold = {vm.pv_spin_threshold}: waiters halt after {halt} cycles, "
                f"within ple.window = {ple.window}, PLE is silently dead"
            )
        if vm.spin_in_user_mode:
            yield f"{name}.spin_in_user_mode = true: PLE does not look at user mode, PLE is silently dead"
    if not any(vm.takes_locks or vm.sends_interrupts for vm in vms.values()):
        yield "no VM ever takes a shared lock: nothing is ever decided"
    if 0 < host.ratelimit_us == host.timeslice_ms * 1000:
        yield f"host.ratelimit_us = {host.ratelimit_us}: as long as the time slice, a vCPU is never preempted earlier"
    if scenario.vcpus <= host.pcpus:
        yield f"host.pcpus = {host.pcpus}: no fewer than there are vCPUs, there is rarely another vCPU to run"
    if scenario.endless:
        yield "no VM has a finite number of transactions: every run lasts until limit.simulated_s"


def never_decides(scenario: Scenario) -> str | None:
    """Why nothing can ever be decided in a scenario, whatever its seed; None if something may be."""
    ple = scenario.ple
    if getattr(ple, _switch(ple)) == 0 and not _notifies(scenario):
        return _OFF.format(_switch(ple))
    reasons = [_never_exits(name, vm, ple) for name, vm in scenario.tables().items()]
    if all(reasons):
        return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and no other VM ever exits either)"
    never_seen = ple.kind == "window" and not _notifies(scenario)
    if never_seen and round(scenario.limit.simulated_s * scenario.host.tsc_hz) < ple.window:
        return (
            f"limit.simulated_s = {scenario.limit.simulated_s}: over before a loop has lasted ple.window = {ple.window}"
        )
    return None


_OFF = "ple.{} = 0: pause-loop exiting is off"


def _switch(ple: Ple) -> str:
    """The parameter that turns pause-loop exiting off where it is 0."""
    return "gap" if ple.kind == "window" else "count"


def _notifies(scenario: Scenario) -> bool:
    """Whether a VM has waiters that notify the hypervisor, whether PLE sees them or not."""
    return any(vm.notify_after for vm in scenario.tables().values())


def _never_exits(name: str, vm: Vm, ple: Ple) -> str | None:
    """Why no vCPU of a VM ever makes a pause-loop exit; None if one may."""
    if not vm.takes_locks and not vm.sends_interrupts:
        return f"{name} never takes a shared lock"
    if vm.vcpus == 1:
        return f"{name}.vcpus = 1: there is nobody to wait for"
    if vm.notify_after and vm.takes_locks:
        return None
    if vm.spin_in_user_mode and not vm.sends_interrupts:
        return f"{name}.spin_in_user_mode = true: PLE does not look at user mode"
    if getattr(ple, _switch(ple)) == 0:
        return _OFF.format(_switch(ple))
    if 0 < ple.gap < vm.spin_period:
        return f"{name}.spin_period = {vm.spin_period}: longer than ple.gap = {ple.gap}"
    return None


def _toml(table: Mapping[str, int | float | bool | str]) -> list[str]:
    """Return TOML lines. JSON writes these values the way TOML does, given text without control characters."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]


# --- profiles ---------------------------------------------------------------------------------------------------------

_WESTMERE: Mapping[str, object] = {
    name: value
    for name, value in Scenario().parameters().items()
    if name.split(".")[0] in ("host", "cost", "ple") and name not in ("host.pcpus", "host.sockets", "host.credit_pcpus")
}

#: Machines and hypervisors, as overrides that apply to any scenario. They leave its size, guests and noise alone.
PROFILES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {name: {**_WESTMERE, **differences} for name, differences in DIFFERENCES.items()}
)


def _profile(name: object) -> Mapping[str, object]:
    """Return the overrides of a profile."""
    if not isinstance(name, str) or name not in PROFILES:
        raise unknown("profile", name, PROFILES, list_all=True)
    return PROFILES[name]


def _guest_profile(key: str, name: object) -> Mapping[str, object]:
    """Return the parameters of a guest kernel."""
    if not isinstance(name, str) or name not in GUESTS:
        raise unknown(key, name, GUESTS, list_all=True)
    return GUESTS[name]
