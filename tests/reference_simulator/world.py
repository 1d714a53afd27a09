"""The world: events in order, time accounting, decisions, start and end (sections 5, 6, 10, 12)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from . import balloon, ple, threads
from .credit import Credit
from .credit2 import Credit2
from .draws import HOST, Draws
from .fair import Fair
from .guest import Guest, RunFinished, check_order, waits_in_line
from .host import Host
from .metrics import report
from .rules import RULES, SETTINGS
from .state import INF, Counters, Hint, LeftBy, Mode, Parameters, Pcpu, Phase, State, Vcpu, Vm

#: The schedulers by name.
HOSTS: dict[str, type[Host]] = {"credit": Credit, "credit2": Credit2, "fair": Fair}
ACCOUNTING, WAKE_UP, PCPU = 0, 1, 2  # the order of simultaneous events (section 5)


def simulate(scenario: dict[str, Any], policy: str, seed: int, index: int = 0) -> dict[str, Any]:
    return world_of(scenario, policy, seed, index).run(policy)


def world_of(scenario: dict[str, Any], policy: str, seed: int, index: int = 0) -> World:
    """The world that a policy runs in."""
    host = {**scenario["host"], **SETTINGS.get(policy, {})}
    return World({**scenario, "host": host}, seed, index)


class World:
    def __init__(self, scenario: dict[str, Any], seed: int, index: int = 0) -> None:
        self.parameters = parameters = Parameters(scenario)
        self.draws = Draws(seed, index)
        self.count = Counters()
        self.guest = Guest(self)
        self.now = 0
        self.acct_at = INF
        self.credit_balance = 0
        self.sort_epoch = 0
        self.counted_at = 0  # 7.12
        self.rule = RULES["host"]
        self.window = lambda: 0  # 10: what is chosen beside whom the rule names

        last = parameters.pcpus - 1
        self.balance_bias: dict[int, Pcpu] = {}  # of each socket the pCPU last stolen from
        self.pcpus = [
            Pcpu(p, p * parameters.sockets // parameters.pcpus, idle_bias=last, last_tickle=last)
            for p in range(parameters.pcpus)
        ]
        tables = [scenario["guest"], *scenario["neighbours"]]
        each = [fields for fields in tables for _ in range(fields.get("count", 1))]
        self.vms = [Vm(m, fields) for m, fields in enumerate(each)]
        self.vcpus: list[Vcpu] = []
        total = sum(vm.vcpu_count for vm in self.vms)
        for vm in self.vms:
            for number in range(vm.vcpu_count):
                i = len(self.vcpus)
                begins = i * parameters.pcpus // total if parameters.stacked else i % parameters.pcpus
                allowed = self.allowed(vm, begins)
                first = sorted(allowed)[i % len(allowed)] if vm.affinity not in ("any", "pinned") else begins
                v = Vcpu(i, vm, number, self.pcpus[first], window=parameters.base, allowed=frozenset(allowed))
                vm.vcpus.append(v)
                self.vcpus.append(v)
        self.rr = len(self.vcpus) - 1
        self.host = HOSTS[scenario["host"].get("scheduler", "credit")](self)
        self.start()

    # 12 Start

    def allowed(self, vm: Vm, begins: int) -> set[int]:
        """The pCPUs that a vCPU of this VM may run on, which would start on pCPU `begins`."""
        if vm.affinity == "any":
            return set(range(self.parameters.pcpus))
        if vm.affinity == "pinned":
            return {begins}
        found: set[int] = set()
        for word in vm.affinity.split():
            first, _, last = word.partition("-")
            found.update(range(int(first), int(last or first) + 1))
        return found

    def start(self) -> None:
        for vm in self.vms:
            self.guest.start_threads(vm)
            for v in vm.vcpus:
                self.start_vcpu(v)
            if vm.threads:
                vm.next_transaction = min(vm.thread_count, vm.transactions or vm.thread_count)
        ready = [v for v in self.vcpus if v.state not in (State.DONE, State.BLOCKED)]
        for v in sorted(ready, key=lambda v: (self.start_key(v), v.index)):
            self.host.insert(v.pcpu, v)

        self.host.start()
        self.host.start_noise_clock()
        for p in self.pcpus:
            self.host.schedule(p)
        self.check_places()

    def start_vcpu(self, v: Vcpu) -> None:
        """The first transaction: from its beginning, or (convoy) from the lock operation of section 0 on lock 0."""
        v.timer_at = self.guest.next_tick(v)
        if not self.guest.take_transaction(v):
            return
        if not v.vm.convoy:
            self.guest.begin(v)
            return
        v.left_kernel = True
        if self.guest.take_ticket(v, v.vm.locks[0]):
            v.left_by = LeftBy.PREEMPTED
            self.guest.acquire(v)
        else:
            v.left_by = LeftBy.PLE
            self.guest.note_away(v, True)
            v.ples = 1
            v.first_ple = v.last_ple = (v.number - v.vm.vcpu_count) * (self.parameters.W + self.parameters.exit)

    def start_key(self, v: Vcpu) -> int:
        return v.vm.vcpu_count - 1 - v.number if v.vm.convoy else self.draws.draw(HOST, v.index) >> 1

    # 5 Events and their order, 12 end

    def run(self, policy: str) -> dict[str, Any]:
        self.rule = RULES[policy]
        finished = False
        while True:
            t, kind, index = self.next_event()
            assert t >= self.now, "time does not go back"
            if t >= self.parameters.limit:
                self.now = self.parameters.limit
                break
            self.now = t
            self.count.events += 1
            try:
                self.serve(kind, index)
            except RunFinished:
                finished = True
                break
            if self.count.events % 64 == 0:
                self.check_places()
        for p in self.pcpus:
            self.settle(p, self.now)
        self.check_places()
        self.check_time()
        return report(self, finished)

    def next_event(self) -> tuple[int, int, int]:
        """Time, kind and number of the next event; of simultaneous ones the first in the order of section 5."""
        first, kind, index = self.acct_at, ACCOUNTING, 0
        for number, sleeper in enumerate(self.sleepers):
            if sleeper.wake_at < first:
                first, kind, index = sleeper.wake_at, WAKE_UP, number
        for p in self.pcpus:
            t = p.event()
            if t < first:
                first, kind, index = t, PCPU, p.index
        return first, kind, index

    @cached_property
    def sleepers(self) -> list[Vcpu | threads.Thread]:
        """Who may sleep, in the order in which simultaneous sleeps end."""
        return [sleeper for vm in self.vms for sleeper in (vm.threads or vm.vcpus)]

    def serve(self, kind: int, index: int) -> None:
        if kind == ACCOUNTING:
            self.host.account()
        elif kind == WAKE_UP:
            sleeper = self.sleepers[index]
            v = threads.sleep_ends(sleeper) if isinstance(sleeper, threads.Thread) else sleeper
            if v is not None and (not v.frozen or balloon.thaws(self, v)):
                self.host.wake(v)
        else:
            self.pcpu_event(self.pcpus[index])

    def pcpu_event(self, p: Pcpu) -> None:
        t = self.now
        self.settle(p, t)
        if p.noise_at <= t:
            self.host.noise(p)
        elif p.resched_at <= t:
            p.resched_at = INF
            self.host.schedule(p)
        elif p.tick_at <= t:
            self.host.tick(p)
        elif p.timer_at() <= t:
            self.guest.tick(p)
        elif p.slice_end <= t:
            p.slice_end = INF
            self.host.schedule(p)
        else:
            assert p.guest_at == t
            self.guest.event(p)

    # 6 Time accounting

    def settle(self, p: Pcpu, t: int) -> None:
        count, since = self.count, p.settled
        d = t - since
        if d == 0:
            return
        if p.exit_until > since or p.entry > since:
            in_exit = max(0, min(t, p.exit_until) - since)
            in_switch = max(0, min(t, p.entry) - since - in_exit)
            count.exit += in_exit
            count.switch += in_switch
            d -= in_exit + in_switch
        p.settled = t
        assert d >= 0
        if p.mode is Mode.GUEST:
            assert p.current is not None
            self.settle_guest(p.current, d)
        elif p.mode is Mode.NOISE:
            count.stolen += d
        else:
            count.idle += d

    def settle_guest(self, v: Vcpu, d: int) -> None:
        v.cpu_time += d
        v.vm.used += d
        serves = v.serves
        if not serves and (v.phase is Phase.SPIN or v.phase is Phase.ACKS):
            self.count.spin += d
            v.spun += d
            if v.vm.halt > 0:
                v.halt_left -= d
            return
        if v.cold > 0:
            c = min(v.cold, d)
            self.count.cache += c
            v.cold -= c
            d -= c
        self.count.useful += d
        v.vm.useful += d
        if serves:
            v.handler -= d
            assert v.handler >= 0
        else:
            v.remaining -= d
            assert v.remaining >= 0

    # 8.3 At the exit

    def spin_exit(self, p: Pcpu, v: Vcpu, notified: bool = False) -> None:
        count = self.count
        count.exits += 1
        p.dispatch_exits += 1
        v.acquire_exits += 1
        if v.phase is Phase.ACKS:
            holder = self.guest.must_answer(v)
        else:
            assert v.lock is not None
            holder = v.lock.holder
        if holder is None:
            count.exits_lock_free += 1
        elif holder.state is State.RUNNING:
            count.exits_holder_running += 1
        else:
            count.exits_holder_off += 1
        ple.note_exit(self.parameters, v, self.now, notified)
        for q in self.pcpus:
            self.settle(q, self.now)
        action = self.meant(v, self.rule(self, p, v))
        if self.parameters.agent_windows:
            ple.choose(self.parameters, v, self.window())
        exit = self.parameters.notify if notified else self.parameters.exit
        p.exit_until = self.now + self.exit_cost(p, v, action, exit)
        self.decide(p, v, action)

    # 10 Decisions

    def meant(self, y: Vcpu, answer: int) -> int:
        """Under `yield` whoever names another vCPU than y yields."""
        return len(self.vcpus) if self.parameters.actuator == "yield" and answer != y.index else answer

    def looked_at(self, y: Vcpu, action: int) -> int:
        """10.1: the candidates until the choice is made."""
        siblings = y.vm.vcpu_count - 1
        if action == len(self.vcpus):
            return 0
        if action == y.index:
            return siblings
        chosen = self.vcpus[action]
        return (chosen.number - y.number) % y.vm.vcpu_count if chosen.vm is y.vm else siblings + 1

    def exit_cost(self, p: Pcpu, y: Vcpu, action: int, exit: int) -> int:
        """10.1, with the wait for the locks."""
        parameters = self.parameters
        cost = exit + parameters.exit_per_candidate * self.looked_at(y, action)
        if parameters.yield_to > 0 and action not in (y.index, len(self.vcpus)):
            cost = self.under_locks(p, self.vcpus[action].pcpu, cost)
        return cost

    def under_locks(self, p: Pcpu, q: Pcpu, cost: int) -> int:
        """10.1: the cost, with the wait for two locks."""
        locked = [self.host.queue_of(one) for one in (p, q)]
        begun = max(self.now + cost, *(one.locked_until for one in locked))
        for one in locked:
            one.locked_until = begun + self.parameters.yield_to
        return locked[0].locked_until - self.now

    def decide(self, p: Pcpu, y: Vcpu, action: int) -> None:
        if action == len(self.vcpus):
            self.defer(p, y)
            return
        v = self.vcpus[action]
        if v is y:
            self.resume(p)
            return
        actuator = self.parameters.actuator
        if v.state is not State.QUEUED or (actuator == "local" and v.pcpu is not p):
            raise ValueError(f"vCPU {v.index} cannot be chosen")
        if actuator != "hint":
            self.pull(p, y, v)
            return
        if self.hint(p, v):
            self.defer(p, y)
        else:
            self.resume(p)

    def hint(self, p: Pcpu, v: Vcpu) -> bool:
        q = v.pcpu
        if not self.host.favour(p, v):
            v.hint = Hint.FAILED
            return False
        self.host.answer_hint(q, None)
        q.hinted, v.hint = v, Hint.PENDING
        return True

    def defer(self, p: Pcpu, y: Vcpu) -> None:
        self.host.yields(y)
        self.host.schedule(p, for_exit=True)

    def resume(self, p: Pcpu) -> None:
        p.entry = p.exit_until
        self.guest.enter(p)

    def pull(self, p: Pcpu, y: Vcpu, v: Vcpu) -> None:
        """Run v here."""
        self.host.charge(p)
        self.host.leave(p, LeftBy.PLE)
        q = v.pcpu
        self.host.take_out(v)
        self.host.yields(y)
        self.host.put_back(q if q is not p and self.parameters.pull_swaps else p, y)
        self.host.switch(p, v, hv=p.exit_until - self.now)

    # Invariants

    def check_places(self) -> None:
        """Every vCPU is in exactly one place, and every lock has the people it says."""
        places: list[Vcpu] = []
        for p in self.pcpus:
            assert (p.mode in (Mode.GUEST, Mode.POLLING)) == (p.current is not None)
            if p.mode is Mode.POLLING:
                assert p.current is not None and p.current.state is State.BLOCKED and p.current.pcpu is p
            elif p.current is not None:
                assert p.current.state is State.RUNNING and p.current.pcpu is p and p.index in p.current.allowed
                places.append(p.current)
            for v in p.queue:
                assert v.state is State.QUEUED and v.pcpu is p and v.wake_at == INF
                places.append(v)
        for v in self.vcpus:
            if v.state in (State.BLOCKED, State.DONE):
                places.append(v)
                asleep = not v.halted and v.state is not State.DONE and not v.vm.threads
                assert (v.wake_at < INF) == asleep or v.frozen
        assert len(places) == len(self.vcpus) == len(set(places)), "each vCPU in exactly one place"
        self.host.check()
        for v in self.vcpus:
            assert v.missing == sum(v in w.unanswered for w in v.vm.vcpus), "no interrupt is lost"
            assert v.phase is Phase.ACKS or not v.missing
            assert not v.serves or v.state in (State.RUNNING, State.QUEUED), "who is interrupted can run"
            assert not v.frozen or v.state is State.BLOCKED
        for vm in self.vms:
            if vm.threads:
                threads.check(vm)
            for lock in vm.locks:
                alive = [v for v in vm.vcpus if v.lock is lock and v.state is not State.DONE]
                holders = [v for v in vm.vcpus if lock in v.held]
                if lock.holder is not None:
                    assert holders == [lock.holder], "one holder per lock"
                spinners = {v for v in alive if v.phase is Phase.SPIN}
                assert set(lock.waiters) == {v for v in spinners if waits_in_line(v)}
                assert len(lock.waiters) == len(set(lock.waiters))
                check_order(lock)

    def check_time(self) -> None:
        """6: P * elapsed = useful + spin + exit + switch + cache + idle + stolen."""
        c = self.count
        assert len(self.pcpus) * self.now == c.useful + c.spin + c.exit + c.switch + c.cache + c.idle + c.stolen
