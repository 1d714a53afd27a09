"""The compiled kernel equals, to the cycle, the reference simulator, which was written from docs/model.md alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulator.fair import Fair
from reference_simulator.fair_balance import Balancer, Domain
from reference_simulator.fair_queue import Entity, Thread
from reference_simulator.guest import Guest
from reference_simulator.remedies import Remedies
from reference_simulator.rules import RULES as SPECIFIED
from reference_simulator.state import INF, Hint, Lock, Mode, Node, Pcpu, Phase, Vcpu, Vm
from reference_simulator.world import HOSTS, World, world_of
from worlds import (
    ENDS,
    MORE,
    WORK,
    affordable,
    affordable_events,
    contended_scenarios,
    cut_off,
    extreme_scenarios,
    long_under_fair,
    one_to_one_under_fair,
    scenarios,
    sleepers_under_fair,
    under_fair,
    with_pv_locks,
    with_remedies,
)

from ple_gym.drive import ASK, STEP
from ple_gym.lanes import Lanes
from ple_gym.rules import RULES, Rule
from ple_gym.scenario import Host, Limit, Scenario
from ple_gym.scenario import Vm as ScenarioVm
from ple_gym.scenario.builtin import load
from ple_gym.sim.constants import WINDOWS
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.state import DECIDE

EXAMPLES = (600 if JIT_ENABLED else 60) * MORE  # plain Python is some hundred times slower

rules = st.sampled_from(sorted(SPECIFIED))
seeds = st.integers(0, 2**63 - 1)


def fitting(rule: str, scenario: Scenario) -> str:
    """The rule, or `host` in place of one that reads what another scheduler keeps."""
    return rule if RULES[rule].scheduler in ("", scenario.host.scheduler) else "host"


def agree(scenario: Scenario, rule: str | Rule, seed: int, specified: str = "") -> dict:
    """Check that kernel and reference agree on a run, on what hints did at last, and on windows; returns its totals.

    specified: what the reference calls the rule, if not by its name. Where windows are chosen, they are random.
    """
    name = specified or str(rule)
    lanes, world = Lanes(scenario, 1, policy=rule), world_of(scenario.to_dict(), name, seed)
    if scenario.chooses_windows:
        run_with_windows(lanes, seed)
        world.window = partial(Random(seed).randrange, WINDOWS)
    else:
        lanes.run(0, seed)
    totals = lanes.totals(0)
    assert totals == world.run(name)
    assert [list(Hint)[code] for code in lanes.vcpu["hint"][0]] == [v.hint for v in world.vcpus]
    assert lanes.vcpu[["window", "chosen", "cpu_at_ple"]][0].tolist() == [
        (v.window, v.chosen, v.cpu_at_ple) for v in world.vcpus
    ]
    return totals


def agree_at_random(scenario: Scenario, rule: str, seed: int, work: int = WORK) -> dict:
    """The same in a world at random: it may be cut off, and a rule gives way that reads what its host has not."""
    rule = fitting(rule, scenario)
    scenario = affordable(scenario, rule, seed, work)
    if scenario.chooses_windows:  # those that are drawn can make a run a hundred times as long
        lanes = Lanes(scenario, 1, policy=rule)
        run_with_windows(lanes, seed, affordable_events(scenario, work))
        if lanes.world["status"][0] == DECIDE:
            scenario = cut_off(scenario, lanes)
    return agree(scenario, rule, seed)


def run_with_windows(lanes: Lanes, seed: int, most: float = inf) -> None:
    """Run a world: the lanes' policy says who runs, a draw what becomes of each asker's window; until `most` events."""
    window = partial(Random(seed).randrange, WINDOWS)
    lanes.run(0, seed)
    if lanes.world["exits"][0]:  # else there is nothing to decide, and a reset would go on to another world
        lanes.reset(0, seed)
    while lanes.world["status"][0] == DECIDE and lanes.world["events"][0] < most:
        lanes.drive(0, 1, ASK, decides=True)
        lanes.action[0] += (lanes.vcpus + 1) * window()
        lanes.drive(0, 1, STEP)


class NotedRemedies(Remedies):
    """The reference's remedies; they note what comes to pass."""

    happened: set[str]

    def wakes_on(self, v: Vcpu) -> Pcpu:
        p = super().wakes_on(v)
        if p is not v.pcpu:
            self.happened.add("one wakes away from its siblings")
        return p

    def may_come(self, v: Vcpu, p: Pcpu) -> bool:
        may = super().may_come(v, p)
        if not may and self.may_run(v):
            self.happened.add("one is not stolen, to be nobody's neighbour")
        return may

    def wakes(self, v: Vcpu) -> None:
        before = v.progress
        super().wakes(v)
        if v.progress > before:
            self.happened.add("one catches up in its sleep")

    def may_run(self, v: Vcpu) -> bool:
        may = super().may_run(v)
        if not may:
            self.happened.add("one must wait")
        return may

    def hold_slot(self, p: Pcpu) -> None:
        gang, over = self.gang, self.world.now >= self.gang_until
        super().hold_slot(p)
        if self.gang != gang:
            self.happened.add("a slot ends" if over else "a slot's VM sleeps")

    def look_again(self, p: Pcpu) -> None:
        before = p.resched_at
        super().look_again(p)
        if p.resched_at < before:
            self.happened.add("a pCPU idles beside one that must wait")


@pytest.mark.kernel
def test_random_worlds_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_simulator.credit.Remedies", NotedRemedies)
    happened = Counter()

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        NotedRemedies.happened = set()
        agree_at_random(scenario, rule, seed)
        happened.update(NotedRemedies.happened)

    settings(max_examples=EXAMPLES)(given(with_remedies(contended_scenarios()), rules, seeds)(run))()
    settings(max_examples=EXAMPLES // 2)(given(with_remedies(scenarios()), rules, seeds)(run))()
    if JIT_ENABLED:
        assert len(happened) == 7 and min(happened.values()) >= 5, happened


class NotedGuest(Guest):
    """The reference's guest; it notes what comes to pass at PV locks."""

    happened: set[str]

    def acquire(self, v: Vcpu) -> None:
        if v.lock.waiters and v.lock.waiters[0] is not v:
            self.happened.add("one aside steals the lock" if v.phase is Phase.SPIN else "a newcomer steals the lock")
        super().acquire(v)

    def goes_on(self, v: Vcpu, lock: Lock) -> None:
        before = v.node
        super().goes_on(v, lock)
        if v.node is Node.KICKED and lock.holder is not None:
            self.happened.add("a woken head finds the lock stolen")
        if before is Node.ASIDE and v.node is not Node.ASIDE:
            self.happened.add("one lines up at an entry")
        elif v.node is Node.ASIDE:
            self.happened.add("one stands aside")

    def ask(self, v: Vcpu, lock: Lock) -> None:
        waiters = len(lock.waiters)
        super().ask(v, lock)
        if len(lock.waiters) > waiters:
            self.happened.add("who stood aside lines up")

    def halt(self, v: Vcpu) -> None:
        if v.halt_left > 0:
            self.happened.add("one halts early")
        elif v is v.lock.waiters[0]:
            self.happened.add("a head halts")
        before = v.lock.waiters[: v.lock.waiters.index(v)][-1:] if v in v.lock.waiters else []
        if any(u.away and u.node is not Node.PARKED for u in before):
            self.happened.add("one halts behind one that is off its pCPU")
        super().halt(v)


@pytest.mark.kernel
def test_random_worlds_of_pv_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_simulator.world.Guest", NotedGuest)
    happened = Counter()

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        NotedGuest.happened = set()
        agree_at_random(scenario, rule, seed)
        happened.update(NotedGuest.happened)

    settings(max_examples=EXAMPLES // 2)(given(with_pv_locks(), rules, seeds)(run))()
    if JIT_ENABLED:
        assert len(happened) == 9 and min(happened.values()) >= 5, happened


class NotedBalancer(Balancer):
    """The reference's balancing; it notes what has come to pass in a world."""

    def pull(self, p: Pcpu, q: Pcpu, domain: Domain, room: bool, left: int, over: bool) -> tuple[int, bool]:
        far = "sockets" if len(domain.parts[0]) > 1 or len({part[0].socket for part in domain.parts}) > 1 else "pCPUs"
        how = "by number" if room else "by load"
        came, over = super().pull(p, q, domain, room, left, over)
        Noted.happened.add(f"{far} are evened out {how}" if came else f"nobody comes, {how}")
        return came, over

    def may_come(self, v: Vcpu, p: Pcpu, domain: Domain) -> bool:
        comes = super().may_come(v, p, domain)
        if not comes and p.index in v.allowed and not self.host.hot(v):
            Noted.happened.add("one that has had its share stays")
        return comes


class Noted(Fair):
    """The reference's fair scheduler; it notes what has come to pass in a world."""

    happened: set[str]

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.balancer = NotedBalancer(self)

    def take_away(self, p: Pcpu, v: Vcpu, sleeps: bool) -> bool:
        delayed = "a delayed vCPU goes" if self.threads[v].delayed else ""
        over = super().take_away(p, v, sleeps)
        alone = not self.flat and self.runqueues[p].groups[v.vm].delayed
        self.happened |= {delayed, "a group is delayed" if alone else ""}
        return over

    def undelay(self, rq, x: Entity) -> None:
        v = x.v
        super().undelay(rq, x)
        self.happened |= {f"a delayed {type(x).__name__} wakes", "one is placed anew" if x.v != v else ""}

    def place(self, q, x: Entity, wakes: bool) -> None:
        self.happened |= {"a deadline moves" if x.relative else "", "lag is kept" if x.vlag else ""}
        super().place(q, x, wakes)

    def reshare(self, p: Pcpu, vm: Vm) -> bool:
        group = self.runqueues[p].groups[vm]
        old = group.w
        over = super().reshare(p, vm)
        self.happened |= {"a queued group weighs anew" if group.w != old and group.queued else ""}
        return over

    def pick_from(self, q, current: Entity | None) -> Entity:
        x = super().pick_from(q, current)
        if q.next is not None:
            self.happened.add("a buddy is taken" if x is q.next else "a buddy is passed over")
        if q.skip is not None and x is not q.skip and q.skip is min(q.entities, key=lambda y: (y.v, y.seq)):
            self.happened.add("a yielder is passed over")
        return x

    def preempts(self, p: Pcpu, v: Vcpu) -> bool:
        wins = super().preempts(p, v)
        self.happened.add("a wake-up preempts" if wins else "a wake-up waits")
        return wins

    def late(self, x: Entity, c: int) -> bool:
        late = super().late(x, c)
        self.happened.add("a CFS slice ends" if late else "")
        return late

    def hot(self, v: Vcpu) -> bool:
        hot = super().hot(v)
        self.happened.add("a hot vCPU stays" if hot else "")
        return hot

    def polls(self, p: Pcpu, v: Vcpu) -> bool:
        if p.mode is Mode.POLLING:
            self.happened.add("a poll is in vain" if p.slice_end == INF else "a task ends a poll")
        return super().polls(p, v)

    def goes_on(self, p: Pcpu, v: Vcpu) -> None:
        super().goes_on(p, v)
        self.happened.add("a wake-up ends a poll")

    def sleeps(self, p: Pcpu, v: Vcpu) -> None:
        super().sleeps(p, v)
        self.happened.add("noise ends a poll" if p.mode is Mode.POLLING and p.noise_at <= self.world.now else "")

    def deboost(self, p: Pcpu, v: Vcpu) -> None:
        y = p.current
        before = self.threads[y].d if y is not None else 0
        super().deboost(p, v)
        fell = y is not None and self.threads[y].d > before
        self.happened.add(f"a yielder falls back ({self.world.parameters.debooster})" if fell else "")

    def kicked(self, p: Pcpu, v: Vcpu) -> bool:
        yields = super().kicked(p, v)
        self.happened.add("a kick yields" if yields else "")
        return yields

    def adapt_poll(self, thread: Thread) -> None:
        poll = thread.poll
        super().adapt_poll(thread)
        self.happened.add("a poll grows" if thread.poll > poll else "a poll shrinks" if thread.poll < poll else "")


#: What must come to pass in the random worlds under the fair scheduler: by the totals, and by what `Noted` notes.
COUNTED = ("exits", "steals", "halts", "migrations", "hints", "hints_failed", "hints_ignored", "hints_won")
NOTED = {
    "a delayed vCPU goes", "a group is delayed", "a delayed Thread wakes", "a delayed Group wakes",
    "one is placed anew", "a deadline moves", "lag is kept", "a queued group weighs anew",
    "a buddy is taken", "a buddy is passed over", "a yielder is passed over",
    "a wake-up preempts", "a wake-up waits", "a CFS slice ends", "a hot vCPU stays",
    "a wake-up ends a poll", "a poll is in vain", "a task ends a poll", "noise ends a poll",
    "a poll grows", "a poll shrinks", "a yielder falls back (ishiguro)", "a yielder falls back (li)",
    "a kick yields",
}  # fmt: skip


@pytest.mark.kernel
def test_random_worlds_under_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOSTS, "fair", Noted)
    worlds, exits = Counter(), Counter()

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        Noted.happened = set()
        totals = agree_at_random(scenario, rule, seed)
        host = scenario.host
        exits[totals["exits"] > 0] += 1
        worlds.update(name for name in COUNTED if totals[name] > 0)
        worlds.update(Noted.happened)
        worlds.update([(host.linux, host.groups), scenario.decision.actuator, host.placement])

    settings(max_examples=EXAMPLES // 8)(given(under_fair(scenarios()), rules, seeds)(run))()
    settings(max_examples=EXAMPLES - EXAMPLES // 8)(given(under_fair(contended_scenarios()), rules, seeds)(run))()
    settings(max_examples=EXAMPLES // 8)(given(one_to_one_under_fair(), rules, seeds)(run))()
    assert exits[True] >= (2 / 3 if JIT_ENABLED else 1 / 3) * exits.total(), "the rules hardly ever ran"
    settings(max_examples=EXAMPLES // 6)(given(sleepers_under_fair(), rules, seeds)(run))()  # who hardly ever spin
    if JIT_ENABLED:
        kinds = {*product(ENDS["host.linux"], ENDS["host.groups"]), *ENDS["decision.actuator"], *ENDS["host.placement"]}
        missing = {*COUNTED, *NOTED, *kinds} - worlds.keys()
        assert not missing


#: What must come to pass in worlds that last for some intervals between two attempts to balance.
BALANCED = {
    *(f"{what} are evened out {how}" for what in ("pCPUs", "sockets") for how in ("by number", "by load")),
    "nobody comes, by number", "nobody comes, by load", "one that has had its share stays",
}  # fmt: skip


@pytest.mark.kernel
def test_random_worlds_that_linux_balances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOSTS, "fair", Noted)
    happened = Counter()

    @settings(max_examples=EXAMPLES // 4)
    @given(long_under_fair(), rules, seeds)
    def run(scenario: Scenario, rule: str, seed: int) -> None:
        Noted.happened = set()
        agree_at_random(scenario, rule, seed, 5 * WORK if JIT_ENABLED else WORK)  # to balance takes time
        happened.update(Noted.happened)

    run()
    if JIT_ENABLED:
        assert not BALANCED - happened.keys()


@pytest.mark.parametrize("linux", ["6.6", "6.14", "6.18.2"])
def test_a_key_that_is_out_of_bounds(linux: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A light VM beside a heavy one, with long ticks: sums of keys in bounds are kept, others are made anew (15.1)."""
    bound, met = Fair.bound, set()

    def noting(self: Fair, c: int) -> int:
        met.add(abs(c) > self.most)
        return bound(self, c)

    monkeypatch.setattr(Fair, "bound", noting)
    hog = ScenarioVm(locks=0, transactions=0, compute="exponential 1000000000", block="exponential 1000000000")
    kinds = ((200, 65_535, 0.1), (2, 1, 0.1), (2, 65_535, 0.5))
    vms = [replace(hog, vcpus=n, weight=weight, block_probability=share) for n, weight, share in kinds]
    host = Host(scheduler="fair", linux=linux, pcpus=2, tsc_hz=10**10, timeslice_ms=1)
    host = replace(host, base_slice_us=100, tick_us=100_000)
    limit = Limit(simulated_s=20.0)
    agree(Scenario(host=host, limit=limit, guest=vms[0], neighbours=tuple(vms[1:])), "host", 0)
    assert met == {False, True}


def check_end(name: str, end: object, run: Callable[[Scenario, str, int], None]) -> set[object]:
    """Run a few worlds in which a parameter is at an end of its range; returns the values that it had."""
    met = set()

    @settings(max_examples=3)
    @given(extreme_scenarios((name, end)), rules, seeds)
    def at_end(scenario: Scenario, rule: str, seed: int) -> None:
        met.add(scenario.parameters()[name])
        run(scenario, rule, seed)

    at_end()
    return met


def test_worlds_at_the_ends_of_every_range() -> None:
    exits = Counter()

    def run(scenario: Scenario, rule: str, seed: int) -> None:
        exits[agree_at_random(scenario, rule, seed, WORK // 4)["exits"] > 0] += 1

    settings(max_examples=EXAMPLES // 2)(given(extreme_scenarios(), rules, seeds)(run))()
    assert exits[True] >= 2 / 3 * exits.total(), "the rules hardly ever ran"
    for name, ends in ENDS.items():
        for end in ends:
            met = check_end(name, end, run)
            assert end in met, f"{name} = {end} fits no world"
    # At many an end (of the gap, of the holds, of the locks, of the ticks) nobody ever exits.
    assert exits[True] >= exits.total() / 2, "the rules hardly ever ran"


@pytest.mark.parametrize("rule", sorted(SPECIFIED))
@pytest.mark.parametrize("name", ["Tiny", "HolderPreempted", "TicketOrder", "Storm"])
def test_built_in_scenarios(name: str, rule: str) -> None:
    scenario = load(name).with_overrides({"limit.simulated_s": 0.02})
    for seed in (0, 1):
        agree(scenario, fitting(rule, scenario), seed)


@pytest.mark.parametrize("rule", ["xen-4.5", "xen-4.8", "kvm", "oracle"])
def test_first_milliseconds_of_the_papers_machines(rule: str) -> None:
    for name in ("Paper8", "Paper32"):
        agree(load(name).with_overrides({"limit.simulated_s": 0.1}), rule, 1)
