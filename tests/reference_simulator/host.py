"""The host: what happens on a pCPU whatever its scheduler, and host noise (section 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import ple
from .draws import NOISE, UNIT, high, low, sample, table
from .guest import waits_in_line
from .state import (
    INF,
    Hint,
    LeftBy,
    Mode,
    NoiseState,
    Pcpu,
    Phase,
    State,
    Vcpu,
)

if TYPE_CHECKING:
    from .world import World


class Host:
    def __init__(self, world: World) -> None:
        self.world = world
        self.mean_gap = 0

    # 9.2 Leaving the pCPU

    def leave(self, p: Pcpu, why: LeftBy) -> None:
        t, count, v = self.world.now, self.world.count, p.current
        assert v is not None
        involuntary = why in (LeftBy.PREEMPTED, LeftBy.PLE)
        v.left_by = why
        v.left_kernel = involuntary and not self.is_safe(p)
        v.left_at = t
        v.last_run = t - p.dispatched_at
        p.deferred_until = 0
        if p.dispatch_exits > 0:
            count.exits_per_dispatch.append(p.dispatch_exits)
            p.dispatch_exits = 0
        if v.held and involuntary:
            count.lhp_events += 1
        if v.phase is Phase.SPIN and waits_in_line(v) and self.world.guest.available(v):
            count.lwp_events += 1
        self.world.guest.note_away(v, True)
        if v.unanswered:
            count.ipi_events += 1

    # 9.4 schedule

    def schedule(self, p: Pcpu, for_exit: bool = False, for_kick: bool = False) -> None:
        t = self.world.now
        hv = p.exit_until - t if for_exit else 0
        if p.noise_state is NoiseState.RUNNING:  # 1
            return
        if self.defers(p, for_exit) or (not for_exit and self.runs_urgent(p)):
            return
        cur = p.current  # 2
        stays = False
        why = LeftBy.PREEMPTED
        if cur is not None:
            self.charge(p)
            stays = cur.state is State.RUNNING and not cur.migrating
            if for_exit:
                why = LeftBy.PLE
            elif cur.state in (State.BLOCKED, State.DONE):
                why = LeftBy.BLOCKED
        if cur is not None and stays and self.holds(p):  # 3
            p.entry = t + hv
            self.world.guest.enter(p)
            return
        if cur is not None:
            if stays:  # 4, 5
                self.insert(p, cur)
            self.has_yielded(cur)
        if p.noise_state is NoiseState.PENDING:  # 6
            if cur is not None:
                self.leave(p, why)
            self.begin_burst(p, hv)
        else:  # 7
            chosen = self.choose(p)
            self.answer_hint(p, chosen)
            if chosen is not None and chosen is cur:
                cur.state = State.RUNNING
                p.slice_end = self.begins(p)
                p.entry = t + hv
                self.world.guest.enter(p)
                return
            if cur is not None:
                self.leave(p, why)
            self.switch(p, chosen, hv)
        if cur is not None and cur.migrating:  # 8
            self.migrate(cur)

    # 9.11 Deferred preemption

    def defers(self, p: Pcpu, for_exit: bool) -> bool:
        t, most = self.world.now, self.world.parameters.defer_preemption
        v = p.current
        running = v is not None and v.state is State.RUNNING and not v.migrating
        if most > 0 and running and not for_exit and not self.is_safe(p):
            if p.deferred_until == 0:
                p.deferred_until = t + most
            if t < p.deferred_until:
                p.resched_at, p.slice_end = p.deferred_until, INF
                p.exit_until = p.entry = t
                self.world.guest.enter(p)
                return True
        p.deferred_until = 0
        return False

    def is_safe(self, p: Pcpu) -> bool:
        """Whether p's vCPU is in user mode."""
        return p.current is not None and p.current.phase is Phase.USER and not p.current.serves

    # 9.14 Micro-slices

    def is_critical(self, v: Vcpu) -> bool:
        """Whether v, when it last ran, exited in a spin of the listed kind, and has not got on since."""
        listed = self.world.parameters.micro_slice_for
        answers = v.pc_class == v.vm.pc_classes
        return ple.suspected_spinner(self.world.parameters, v) and listed in ("all", "answers" if answers else "locks")

    # 9.15 Urgent interrupts

    def runs_urgent(self, p: Pcpu) -> bool:
        cur = p.current
        if not self.world.parameters.urgent or cur is None or cur.state is not State.RUNNING:
            return False
        waiting = [v for v in p.queue if v.unanswered]
        if cur.migrating or cur.unanswered or not waiting:
            return False
        self.charge(p)
        self.leave(p, LeftBy.PREEMPTED)
        self.take_out(waiting[0])
        self.put_back(p, cur)
        self.switch(p, waiting[0], 0)
        return True

    def answer_hint(self, p: Pcpu, chosen: Vcpu | None) -> None:
        """10: p has chosen."""
        if p.hinted is not None:
            p.hinted.hint = Hint.WON if p.hinted is chosen else Hint.IGNORED
            p.hinted = None

    def switch(self, p: Pcpu, chosen: Vcpu | None, hv: int) -> None:
        t, parameters, count = self.world.now, self.world.parameters, self.world.count
        p.exit_until = t + hv
        p.current = chosen
        if chosen is None:
            p.mode = Mode.IDLE
            p.slice_end = p.guest_at = INF
            p.entry = t + hv
            self.switched(p)
            return
        count.switches += 1
        if chosen.last_pcpu is p and p.last_vcpu is chosen:
            refill = 0
        elif chosen.last_pcpu is p or chosen.last_pcpu is None:
            refill = parameters.cache
        else:
            count.migrations += 1
            same_socket = chosen.last_pcpu.socket == p.socket
            refill = parameters.migration if same_socket else parameters.remote_migration
        chosen.cold = max(chosen.cold, refill)
        chosen.vm.longest_steal = max(chosen.vm.longest_steal, t - chosen.queued_since)  # 13
        p.last_vcpu = chosen
        p.came_from = chosen.pcpu
        chosen.last_pcpu = chosen.pcpu = p
        p.mode = Mode.GUEST
        chosen.state = State.RUNNING
        chosen.dy_eligible = False  # section 11
        chosen.seen_by.clear()
        ple.shrink(parameters, chosen)
        p.dispatched_at = t
        p.slice_end = self.begins(p)
        if parameters.micro_slice > 0 and self.is_critical(chosen):
            p.slice_end = min(p.slice_end, t + parameters.micro_slice)
        p.entry = t + hv + parameters.switch
        self.world.guest.note_away(chosen, False)
        self.world.guest.enter(p)
        self.switched(p)

    # What each scheduler does in its own way

    def start(self) -> None:
        """Time 0: its timers."""

    def charge(self, p: Pcpu) -> None:
        """Account for the time that p's vCPU has run."""

    def holds(self, p: Pcpu) -> bool:
        """Whether p's vCPU must go on; then `slice_end` says until when."""
        return False

    def insert(self, p: Pcpu, v: Vcpu) -> None:
        """Queue v on p."""
        raise NotImplementedError

    def put_back(self, p: Pcpu, v: Vcpu) -> None:
        """Queue v, which has lost its pCPU, on p."""
        self.insert(p, v)
        self.has_yielded(v)

    def sleeps(self, p: Pcpu, v: Vcpu) -> None:
        """v, for which p has polled, is off."""
        raise NotImplementedError

    def switched(self, p: Pcpu) -> None:
        """The switch on p is done."""

    def queue_of(self, p: Pcpu) -> Pcpu:
        """The first of the pCPUs that share p's queue."""
        return p

    def choose(self, p: Pcpu) -> Vcpu | None:
        """The next vCPU of p, taken out of its queue."""
        raise NotImplementedError

    def take_out(self, v: Vcpu) -> None:
        """Take v out of its queue."""
        v.pcpu.queue.remove(v)

    def begins(self, p: Pcpu) -> int:
        """p runs its current vCPU from now on; returns when its slice ends."""
        raise NotImplementedError

    def yields(self, v: Vcpu) -> None:
        """v yields: it is inserted, or goes on, next."""

    def has_yielded(self, v: Vcpu) -> None:
        """v is queued, or sleeps."""

    def favour(self, p: Pcpu, v: Vcpu) -> bool:
        """p's vCPU yields to v, which is queued; returns whether it may, or else it is resumed."""
        raise NotImplementedError

    def kicked(self, p: Pcpu, v: Vcpu) -> bool:
        """p's vCPU has kicked v; returns whether it yields."""
        return False

    def woken(self, v: Vcpu) -> None:
        """v, which can run again, is queued, and pCPUs are asked to reschedule."""
        raise NotImplementedError

    def migrate(self, v: Vcpu) -> None:
        """v, which was marked, has left its pCPU."""
        raise NotImplementedError

    def tick(self, p: Pcpu) -> None:
        """`tick_at` of p is due."""
        raise NotImplementedError

    def account(self) -> None:
        """`acct_at` is due."""
        raise NotImplementedError

    def protected_until(self, p: Pcpu) -> int:
        """Until when a burst of noise may not preempt p's vCPU."""
        return 0

    def check(self) -> None:
        """Its invariants."""

    def request(self, p: Pcpu) -> None:
        p.resched_at = min(p.resched_at, self.world.now + self.world.parameters.ipi)

    # 9.6 Wake

    def wake(self, v: Vcpu) -> None:
        assert v.state is State.BLOCKED
        v.wake_at = INF
        if v.halted:
            v.halted = False
            v.halt_left = v.vm.halt
        if v.timer_at <= self.world.now:
            v.timer_at = self.world.guest.next_tick(v)
        if v.pcpu.mode is Mode.POLLING and v.pcpu.current is v:
            self.goes_on(v.pcpu, v)
        else:
            self.woken(v)

    def goes_on(self, p: Pcpu, v: Vcpu) -> None:
        """15.12: p has polled for v."""
        self.world.settle(p, self.world.now)
        p.mode = Mode.GUEST
        v.state = State.RUNNING
        p.slice_end = self.begins(p)
        self.world.guest.enter(p)

    # 9.9 Host noise

    def start_noise_clock(self) -> None:
        """At time 0: the level of the run and the gap of every pCPU's burst 0."""
        world, parameters = self.world, self.world.parameters
        if parameters.noise_rate_hz == 0:
            return
        level = max(1, sample(table(parameters.noise_level), high(world.draws.draw(NOISE, 0))))
        self.mean_gap = max(
            parameters.f // parameters.noise_rate_hz * 1000 // level,
            parameters.burst * (1000 - parameters.noise_cap) // parameters.noise_cap,
        )
        for p in world.pcpus:
            p.noise_at = self.gap(p)

    def gap(self, p: Pcpu) -> int:
        x = self.world.draws.draw(NOISE, 1 + (p.noise_count * (64 if len(self.world.pcpus) <= 64 else 256) + p.index))
        return max(1, sample(UNIT, high(x)) * self.mean_gap >> 16)

    def length(self, p: Pcpu) -> int:
        x = self.world.draws.draw(NOISE, 1 + (p.noise_count * (64 if len(self.world.pcpus) <= 64 else 256) + p.index))
        return max(1, sample(UNIT, low(x)) * self.world.parameters.burst >> 16)

    def noise(self, p: Pcpu) -> None:
        """`noise_at` is due."""
        t = self.world.now
        if p.noise_state is NoiseState.RUNNING:
            p.noise_state = NoiseState.WAITING
            p.noise_count += 1
            p.noise_at = t + self.gap(p)
            p.mode = Mode.IDLE
            self.schedule(p)
        elif p.noise_state is NoiseState.WAITING and p.current is not None and t < self.protected_until(p):
            p.noise_state = NoiseState.PENDING
            p.noise_at = self.protected_until(p)
            self.world.guest.enter(p)  # 7.5: every host event that leaves the vCPU running
        else:
            cur = p.current
            if cur is not None:
                self.charge(p)
                if p.mode is Mode.POLLING:
                    self.leave(p, LeftBy.BLOCKED)
                    self.sleeps(p, cur)
                else:
                    self.leave(p, LeftBy.PREEMPTED)
                    self.put_back(p, cur)
            self.begin_burst(p, 0)

    def begin_burst(self, p: Pcpu, hv: int) -> None:
        """The burst takes p, whose vCPU has left."""
        t = self.world.now
        p.mode = Mode.NOISE
        p.current = None
        p.noise_state = NoiseState.RUNNING
        p.noise_at = t + self.length(p)
        p.slice_end = p.guest_at = INF
        p.exit_until = p.entry = t + hv
        self.switched(p)
