"""The state of a world (section 4) and its parameters as integers (section 2): plain objects without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from .draws import table
from .program import steps_of

if TYPE_CHECKING:
    from .threads import Thread

INF = 1 << 62

XEN = ("4.5", "4.8", "4.17", "4.18", "4.21")

# Priorities. A pCPU without work counts as IDLE.
BOOST, UNDER, OVER, IDLE_PRIORITY = 0, -1, -2, -64

Mode = Enum("Mode", "IDLE GUEST NOISE POLLING")
State = Enum("State", "RUNNING QUEUED BLOCKED DONE")
Phase = Enum("Phase", "USER KERNEL SPIN HOLD ACKS")
LeftBy = Enum("LeftBy", "NEVER PREEMPTED PLE BLOCKED")
Hint = Enum("Hint", "NEVER FAILED PENDING IGNORED WON")
Node = Enum("Node", "ASIDE QUEUEING PARKED ASKING KICKED")  # 7.7
NoiseState = Enum("NoiseState", "WAITING PENDING RUNNING")


@dataclass(eq=False)
class Vcpu:
    index: int
    vm: Vm
    number: int  # within the VM
    pcpu: Pcpu
    # Visible to the hypervisor.
    state: State = State.QUEUED
    last_pcpu: Pcpu | None = None
    priority: int = UNDER
    credit: int = 0
    yielding: bool = False
    residual: int = 0  # 9b
    burned_at: int = 0
    tickled: Pcpu | None = None
    migrating: bool = False
    active: bool = False
    dy_eligible: bool = False
    queued_since: int = 0
    left_by: LeftBy = LeftBy.NEVER
    left_kernel: bool = False
    left_at: int = 0
    last_run: int = 0
    ples: int = 0
    first_ple: int = 0
    last_ple: int = 0
    cpu_at_ple: int = 0
    pc_class: int = 0
    cpu_time: int = 0
    window: int = 0  # 8.4: cycles, or PAUSEs
    chosen: bool = False  # 8.4
    hint: Hint = Hint.NEVER  # 10: what the last one at it did
    allowed: frozenset[int] = frozenset()  # pCPUs
    # Hidden in the guest.
    phase: Phase = Phase.USER
    away: bool = False  # 7.7
    remaining: int = 0
    cold: int = 0
    transaction: int = 0
    section: int = 0
    step: int = 0  # 7.9: the next one
    executed: int = 0
    held: list[Lock] = field(default_factory=list)  # in the order they were taken
    lock: Lock | None = None
    try_at: int = 0
    acquire_exits: int = 0
    spin_from: int = 0
    ple_first: int = 0
    ple_last: int = -INF
    ple_used: int = 0
    attempt_at: int = INF
    halt_at: int = INF  # when the present spin stretch halts: spin_from + halt_left as it was at spin_from
    exit_at: int = INF  # when the present spin stretch makes its PLE exit
    halt_left: int = 0
    wake_at: int = INF
    halted: bool = False
    node: Node = Node.ASIDE
    spun: int = 0  # since its try (7.8)
    thread: Thread | None = None  # 7.6: which it runs, or ran last
    progress: int = 0  # 9.13
    seen_by: set[int] = field(default_factory=set)  # 11: strict-boost
    unanswered: set[Vcpu] = field(default_factory=set)  # 7.10: who has interrupted it
    missing: int = 0
    senders: set[int] = field(default_factory=set)  # what the hypervisor sees of it, as numbers mod 62
    pending_since: int = 0
    handler: int = 0
    sleep_until: int = 0
    timer_at: int = INF  # 7.11
    ticks: bool = False  # a tick is due, or at work
    serves_tick: bool = False
    frozen: bool = False  # 7.12
    asked_at: int | None = None  # 7.13

    @property
    def serves(self) -> bool:
        """Whether it has an interrupt to serve."""
        return bool(self.unanswered) or self.ticks

    def ring(self) -> list[Vcpu]:
        """Its siblings, cyclically from the next on."""
        return self.vm.vcpus[self.number + 1 :] + self.vm.vcpus[: self.number]


@dataclass(eq=False)
class Pcpu:
    index: int
    socket: int
    idle_bias: int
    last_tickle: int
    mode: Mode = Mode.IDLE
    current: Vcpu | None = None
    queue: list[Vcpu] = field(default_factory=list)
    settled: int = 0
    exit_until: int = 0
    entry: int = 0
    dispatched_at: int = 0
    burned_at: int = 0
    noise_at: int = INF
    resched_at: int = INF
    tick_at: int = INF
    slice_end: int = INF
    guest_at: int = INF
    noise_state: NoiseState = NoiseState.WAITING
    noise_count: int = 0
    last_vcpu: Vcpu | None = None
    hinted: Vcpu | None = None  # 10
    sort_seen: int = 0
    balanced_at: int = -INF
    dispatch_exits: int = 0
    locked_until: int = 0
    deferred_until: int = 0  # 9.11; 0: nothing is deferred
    came_from: Pcpu | None = None  # of the vCPU that is switched in: 9b.3

    def timer_at(self) -> int:
        """7.11: of the vCPU that runs here."""
        return self.current.timer_at if self.current is not None and self.mode is Mode.GUEST else INF

    def event(self) -> int:
        """Section 5: the hypervisor is not preempted, so timers wait for the guest's entry."""
        timer = min(self.noise_at, self.resched_at, self.tick_at, self.timer_at(), self.slice_end)
        return min(max(timer, self.entry), self.guest_at)


@dataclass(eq=False)
class Lock:
    number: int
    holder: Vcpu | None = None
    waiters: list[Vcpu] = field(default_factory=list)  # the head first


def threshold(*probabilities: float) -> int:
    product = 1.0
    for p in probabilities:
        product *= p
    return round(product * 2**32)


class Vm:
    def __init__(self, index: int, fields: dict[str, Any]) -> None:
        self.index = index
        self.vcpu_count = int(fields["vcpus"])
        self.weight = int(fields["weight"])
        self.affinity = str(fields["affinity"])
        self.locks = [Lock(number) for number in range(int(fields["locks"]))]
        self.lock_kind = str(fields["lock_kind"])
        self.transactions = int(fields["transactions"])
        self.sections = int(fields["sections"])
        self.compute = table(fields["compute"])
        self.hold = table(fields["hold"])
        self.block = table(fields["block"])
        self.kernel_threshold = threshold(fields["kernel_share"])
        self.lock_threshold = threshold(fields["lock_probability"])
        self.hot_threshold = threshold(fields["lock_probability"], fields["hot_probability"])
        self.block_threshold = threshold(fields["block_probability"])
        self.spin_period = int(fields["spin_period"])
        self.spin_in_user_mode = bool(fields["spin_in_user_mode"])
        self.early_wait = bool(fields.get("pv_early_wait"))
        retries = int(fields.get("notify_after", 0))
        self.notifies = retries > 0
        patience = retries + 1 if self.notifies else int(fields["pv_spin_threshold"])
        preemptable = self.lock_kind == "preemptable-ticket"
        self.overtake = int(fields.get("overtake_after", 64)) * self.spin_period if preemptable else 0
        self.halt = patience * self.spin_period
        self.pc_classes = int(fields["pc_classes"])
        self.convoy = fields["start"] == "convoy"
        self.thread_count = int(fields.get("threads", 0))
        self.thread_switch = int(fields.get("thread_switch", 0))
        self.ipi_handler = int(fields.get("ipi_handler", 0))
        self.ipi_to = str(fields.get("ipi_to", "all"))
        self.tick_us = int(fields.get("tick_us", 0))
        self.tick_handler = int(fields.get("tick_handler", 0))
        self.balloon = bool(fields.get("balloon"))
        self.goal_us = int(fields.get("response_goal_us", 0))
        self.steps = steps_of(fields.get("program", ""), len(self.locks))

        self.vcpus: list[Vcpu] = []
        self.threads: list[Thread] = []  # 7.6; none if each vCPU is its own only one
        self.ready: list[Thread] = []
        self.next_transaction = 0
        self.completed = 0
        self.finish = INF
        self.active = 0
        self.last_boosted = self.vcpu_count - 1  # a number within the VM
        self.used = 0
        self.used_before = 0  # 7.12
        self.share = self.vcpu_count
        self.useful = 0
        self.longest_steal = 0


class Parameters:
    """Section 2 except for the VMs."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        host, noise, cost, ple = scenario["host"], scenario["noise"], scenario["cost"], scenario["ple"]
        self.pcpus = int(host["pcpus"])
        self.credit_pcpus = int(host["credit_pcpus"]) or self.pcpus
        self.sockets = int(host["sockets"])
        self.f = int(host["tsc_hz"])
        self.T: int = host["timeslice_ms"] * self.f // 1000
        self.K = self.T // 3 if host["timeslice_ms"] >= 3 else self.T
        self.R: int = host["ratelimit_us"] * self.f // 10**6
        self.xen = XEN.index(host["xen"])
        self.runqueue = host["runqueue"]
        bypass, fresh = host["yield_bypasses_ratelimit"], host["fresh_ratelimit_slice"]
        self.bypass = self.since("4.8") if bypass == "version" else bool(bypass)
        self.fresh = not self.since("4.8") if fresh == "version" else bool(fresh)
        self.shortest = 100 * self.f // 10**6 if fresh == "version" else 0

        self.balance_siblings = bool(host.get("balance_siblings"))
        self.coscheduling = str(host.get("coscheduling", "off"))
        self.skew = self.cycles(host.get("coscheduling_skew_us", 3000))

        self.stacked = host.get("placement") == "stacked"
        self.linux = str(host.get("linux", "6.18.2"))
        self.groups = str(host.get("groups", "vm"))
        self.base_slice_us = int(host.get("base_slice_us", 0))
        self.wakeup_granularity_us = int(host.get("wakeup_granularity_us", 0))
        self.tick = self.cycles(host.get("tick_us", 4000))
        self.skew_tick = bool(host.get("skew_tick"))
        self.load_balance = bool(host.get("load_balance", True))
        self.kick_yields = bool(host.get("kick_yields"))
        self.debooster = str(host.get("debooster", "off"))
        self.jitter = int(host.get("tick_jitter_cycles", 0))
        self.migration_cost = self.cycles(host.get("migration_cost_us", 500))
        self.halt_poll = self.cycles(host.get("halt_poll_us", 0))

        self.noise_rate_hz = int(noise["rate_hz"])
        self.noise_level = noise["level"]
        self.noise_cap = int(noise["cap_permille"])
        self.burst = self.cycles(noise["burst_us"])

        self.exit = int(cost["exit"])
        self.exit_per_candidate = int(cost["exit_per_candidate"])
        self.yield_to = int(cost["yield_to"])
        self.switch = int(cost["switch"])
        self.cache = int(cost["cache"])
        self.migration = int(cost["migration"])
        self.remote_migration = int(cost["remote_migration"])
        self.ipi = int(cost["ipi"])
        self.line = int(cost["line"])
        self.notify = int(cost.get("notify", 0)) or self.exit
        self.micro_slice = self.cycles(host.get("micro_slice_us", 0))
        self.micro_slice_for = str(host.get("micro_slice_for", "all"))
        self.balloon = self.cycles(host.get("balloon_us", 10_000))
        self.defer_preemption = int(host.get("defer_preemption_us", 0)) * self.f // 10**6

        self.ple_kind = ple["kind"]
        self.G = int(ple["gap"])
        self.W = int(ple["window"])
        self.N = int(ple["count"])
        self.base = self.W if self.ple_kind == "window" else self.N
        self.grow, self.shrink = int(ple["window_grow"]), int(ple["window_shrink"])
        self.window_max = int(ple["window_max"])

        self.agent_windows = scenario["decision"].get("window", "host") == "agent"
        self.actuator = scenario["decision"]["actuator"]
        if self.actuator == "default":
            self.actuator = "hint" if host.get("scheduler") == "fair" else "pull"
        self.pull_swaps = bool(scenario["decision"]["pull_swaps"])
        self.ipi_visible = bool(host.get("ipi_visible"))
        self.urgent = bool(host.get("urgent_ipis"))
        self.limit = round(scenario["limit"]["simulated_s"] * self.f)

    def cycles(self, us: int) -> int:
        return us * self.f // 10**6

    def since(self, version: str) -> bool:
        """Whether Xen's credit scheduler is of this version or a later one."""
        return self.xen >= XEN.index(version)


class Counters:
    """Section 13: counters, cycles and recorded values."""

    def __init__(self) -> None:
        self.exits = self.exits_lock_free = self.exits_holder_off = self.exits_holder_running = 0
        self.lhp_events = self.lwp_events = self.acquisitions = self.contended = 0
        self.switches = self.migrations = self.steals = self.halts = self.events = 0
        self.notifications = self.ipis = self.ipi_events = 0
        self.hints = self.hints_failed = self.hints_ignored = self.hints_won = 0
        self.useful = self.spin = self.exit = self.switch = self.cache = self.idle = self.stolen = 0
        self.waits: list[int] = []
        self.exits_per_acquisition: list[int] = []
        self.exits_per_dispatch: list[int] = []
        self.responses: list[tuple[int, int]] = []  # and the goal (7.13)
