"""What the kernel shows of every vCPU and of the host equals, to the bit, a plain computation from the whole state."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine
from worlds import contended_scenarios, scenarios, under_fair

from ple_gym.drive import OBSERVE
from ple_gym.lanes import Lanes
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim import state
from ple_gym.sim.guest.kinds import LOCK_KINDS
from ple_gym.sim.host import credit, fair
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.view import features as observe
from ple_gym.view import record

F = np.float32
SEEN = ("hypervisor", "introspection", "oracle")
TOP = F(1.5)


def bits(x: int) -> np.float32:
    """The piecewise linear logarithm: a float's bits, as a number."""
    return F(F(x).view(np.int32))


def ratio(x: int, whole: int, low: int = -1) -> np.float32:
    """x as a share of a whole, low..1, as the kernel rounds it."""
    return max(F(low), min(F(1), F(x) * (F(1) / F(whole))))


class Credit2Sight:
    """What Xen's credit2 adds."""

    def __init__(self, m: Machine, y: int, p: int, spins: object, time: object) -> None:
        self.m, self.p = m, p
        self.ms = m.scenario.host.tsc_hz // 1000

    def of_vcpu(self, v: int) -> dict[str, float]:
        m, h = self.m, self.m.host_vcpu[v]
        leader = m.host_pcpu["leader"]
        return {
            "credit": ratio(int(h["credit"]), 10 * self.ms),
            "yielding": h["yielding"],
            "tickled": h["tickled"] != state.NONE and m.pcpu["resched_at"][h["tickled"]] < state.INF,
            "same_queue": leader[m.vcpu["pcpu"][v]] == leader[self.p],
        }

    def of_host(self) -> dict[str, float]:
        now, here = int(self.m.world["now"]), self.m.pcpu[self.p]
        limit = self.m.scenario.host.ratelimit_us * self.m.scenario.host.tsc_hz // 10**6
        return {
            "slice_left": ratio(int(here["slice_end"]) - now, 10 * self.ms, 0),
            "rate_limited": now - int(here["dispatched_at"]) < limit,
        }


class FairSight:
    """What Linux's fair scheduler adds: virtual times from all vCPUs and groups, not from chains."""

    def __init__(self, m: Machine, y: int, p: int, spins: Callable[[int], bool], time: Callable[[int], float]) -> None:
        self.m, self.y, self.p, self.spins, self.time = m, y, p, spins, time
        self.vms = len(m.scenario.vms())
        self.cfs = m.scenario.host.linux == "5.15"
        self.grouped = m.scenario.host.groups != "flat"
        self.slice = fair.describe(m.scenario)["slice"]

    def root(self, p: int) -> int:
        return self.m.lanes.vcpus + p

    def group(self, v: int) -> int:
        p, vm = int(self.m.vcpu["pcpu"][v]), int(self.m.vcpu["vm"][v])
        return self.m.lanes.vcpus + self.m.lanes.pcpus + p * self.vms + vm

    def virtual_time(self, q: int, entities: list[int]) -> int:
        """Of the queue with these entities."""
        nodes = self.m.host_vcpu
        least, entities = int(nodes["min_vruntime"][q]), [x for x in entities if nodes["on_rq"][x]]
        weights = [int(nodes["weight"][x]) for x in entities]
        keys = [int(nodes["vruntime"][x]) - least for x in entities]
        if self.cfs or not entities:
            return least
        return least + sum(w * k for w, k in zip(weights, keys, strict=True)) // sum(weights)

    def of_vcpu(self, v: int) -> dict[str, float]:
        m, nodes, everybody = self.m, self.m.host_vcpu, range(self.m.lanes.vcpus)
        p, vm = m.vcpu["pcpu"][v], m.vcpu["vm"][v]
        q = self.group(v) if self.grouped else self.root(p)
        inside = [u for u in everybody if m.vcpu["pcpu"][u] == p and (not self.grouped or m.vcpu["vm"][u] == vm)]
        groups = [m.lanes.vcpus + m.lanes.pcpus + p * self.vms + k for k in range(self.vms)]
        mine, its = nodes[v], nodes[q]
        now = self.virtual_time(q, inside)
        lag = (now - int(mine["vruntime"])) * int(mine["on_rq"])
        in_root = self.grouped and its["on_rq"]
        group_lag = self.virtual_time(self.root(p), groups) - int(its["vruntime"]) if in_root else 0
        ple, runs = m.scenario.ple, int(m.pcpu["current"][p])
        base = ple.window if ple.kind == "window" else ple.count
        displaces = m.vcpu["state"][v] == state.QUEUED and runs not in (state.NONE, self.y)
        hint = m.vcpu["hint"][v]
        asleep = m.vcpu["state"][v] in (state.BLOCKED, state.DONE)
        does_the_last_work = m.vcpu["state"][v] == state.DONE and v in m.pcpu["current"]  # nothing is dequeued after it
        return {
            "lag": ratio(lag, self.slice),
            "eligible": not self.cfs and mine["on_rq"] and mine["vruntime"] <= now,
            "deadline": ratio(int(mine["deadline"]) - now, self.slice) if mine["on_rq"] and not self.cfs else 0,
            "group_lag": ratio(group_lag, self.slice),
            "group_eligible": not self.cfs and in_root and group_lag >= 0,
            "buddy": its["next"] == v,
            "group_buddy": self.grouped and nodes["next"][self.root(p)] == q,
            "delayed": mine["on_rq"] and asleep and not does_the_last_work,
            "window_growth": counted(max(0, min(2**30, int(m.vcpu["window"][v]) // max(1, base)) - 1)),
            "hint_failed": hint == state.HINT_FAILED,
            "hint_ignored": hint == state.HINT_IGNORED,
            "hint_won": hint == state.HINT_WON,
            "displaces": displaces,
            "displaces_sibling": displaces and m.vcpu["vm"][runs] == m.vcpu["vm"][self.y],
            "displaces_spinner": displaces and self.spins(runs),
        }

    def of_host(self) -> dict[str, float]:
        m, e, now = self.m, self.m.host_vcpu[self.y], int(self.m.world["now"])
        queue = self.group(self.y) if self.grouped else self.root(self.p)
        ran = now - int(m.host_vcpu["exec_start"][queue])
        protected = m.scenario.host.linux.startswith("6.18") or e["vprot"] == e["deadline"]
        left = int(e["vprot"]) - int(e["vruntime"]) - ran * 1024 // int(e["weight"])
        tick = int(m.pcpu["tick_at"][self.p])
        hints = {name: F(m.world[name]) / F(max(1, m.world["hints"])) for name in state.HINTS[1:]}
        return hints | {
            "protected": ratio(left, self.slice, 0) if protected and not self.cfs else 0,
            "alone": m.host_pcpu["nr_running"][self.p] == 1,
            "to_tick": self.time(max(0, tick - now)),
        }


def counted(n: int) -> np.float32:
    """A count on its scale."""
    return min(TOP, (bits(n + 1) - bits(1)) * F(1.0 / (int(F(1001).view(np.int32)) - int(F(1).view(np.int32)))))


def plain(m: Machine, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of all vCPUs, float32 [V, F], and of the host, float32 [G], one by one."""
    par, world, vms = m.lanes.layout, m.world, [*m.scenario.vms().values()]
    now, p = int(world["now"]), m.here
    pcpu, y = m.pcpu[p], m.asker
    table = observe.seen_in(m.scenario)
    names = table.vcpu_names(level)
    if y == state.NONE:
        return np.zeros((m.lanes.vcpus, len(names)), F), np.zeros(len(table.host), F)
    own = credit.describe(m.scenario) if m.scenario.host.scheduler == "credit" else None
    window = m.scenario.ple.window
    range_ = 1.0 / (int(F(window + m.scenario.host.tsc_hz // 10).view(np.int32)) - int(F(window).view(np.int32)))
    per_vcpu, per_pcpu = (F(1) / F(n) for n in (m.lanes.vcpus, m.lanes.pcpus))
    per_slice = F(1) / F(own["timeslice"] if own else 1)

    def time(x: int) -> np.float32:
        return min(TOP, (bits(x + window) - bits(window)) * F(range_))

    def share(count: int) -> np.float32:
        return F(count) * per_vcpu

    def spins(v: int) -> bool:
        w, ple = m.vcpu[v], m.scenario.ple
        vm = vms[w["vm"]]
        period, counts = vm.spin_period, ple.kind == "count"
        between = (ple.count if counts else -(-(ple.window + 1) // period)) * period
        if vm.notify_after:
            patience = (vm.notify_after + 1) * period
            seen = between > 0 and (period <= ple.gap or (counts and ple.gap == 0))
            between = min(between, patience) if seen else patience
        return bool(w["ples"] > 0 and w["cpu_time"] - w["cpu_at_ple"] <= 2 * between)

    others = {"fair": FairSight, "credit2": Credit2Sight}.get(m.scenario.host.scheduler)
    further = others(m, y, p, spins, time) if others else None

    def seems_to_wait(v: int) -> bool:
        return spins(v) and m.guest["exit_lock"][v] == m.guest["exit_lock"][y]

    everybody = range(m.lanes.vcpus)
    queues = [m.queue(q) for q in range(m.lanes.pcpus)]
    waiting = [v for v in everybody if m.vcpu["state"][v] == state.QUEUED]
    asleep = [v for v in everybody if m.vcpu["state"][v] in (state.BLOCKED, state.DONE)]
    awaits = level == record.ORACLE and m.guest["phase"][y] == state.ACKS
    hidden = level == record.ORACLE and par["locks"] > 0 and not awaits
    lock = m.lock[m.guest["lock"][y]] if hidden else None
    polls = hidden and not LOCK_KINDS[vms[lock["vm"]].lock_kind].in_line
    line = m.waiters(m.guest["lock"][y]) if hidden and not polls else []

    def features(v: int) -> dict[str, float]:
        w, g, h = m.vcpu[v], m.guest[v], m.host_vcpu[v]
        place = next((q.index(v) for q in queues if v in q), 0)
        found = {
            "asker": v == y,
            "queued": v in waiting,
            "running": w["state"] == state.RUNNING and v != y,
            "asleep": v in asleep,
            "here": v in queues[p],
            "sibling": w["vm"] == m.vcpu["vm"][y],
            "position": share(place),
            "waited": time(now - int(w["queued_since"])) if v in waiting else 0,
            "last_run": time(int(w["last_run"])),
            "left_in_kernel": w["left_kernel"],
            "left_by_exit": w["left_by"] == state.PLE_YIELD,
            "suspected_spinner": spins(v),
            "exits": counted(int(w["ples"])),
            "since_exit": time(now - int(w["last_ple"])) if w["ples"] > 0 else TOP,
            "spin_age": time(now - int(w["first_ple"])) if spins(v) else 0,
            "same_code": w["ples"] > 0 and w["pc_class"] == m.vcpu["pc_class"][y],
            "pcpu": F(w["pcpu"]) * per_pcpu,
            "lock_known": spins(v),
            "same_lock": seems_to_wait(v),
            "line_guess": TOP,
        }
        if m.scenario.sees_interrupts:
            ipi, first = m.lanes.section("ipi")[0], min(u for u in everybody if m.vcpu["vm"][u] == m.vcpu["vm"][y])
            senders = int(ipi["senders"][v])
            found["interrupted"] = senders != 0
            found["interrupted_by_asker"] = found["sibling"] and bool(senders >> (y - first) % 62 & 1)
            found["interrupt_age"] = time(now - int(ipi["pending_since"][v])) if senders else 0
        if own:
            found["credit"] = max(F(-1), min(F(1), F(h["credit"]) * per_slice))
            found["priority"] = int(h["priority"]) + 1
        if further:
            found |= further.of_vcpu(v)
        if level >= record.INTROSPECTION and seems_to_wait(v):
            earlier = [u for u in everybody if seems_to_wait(u) and m.vcpu["first_ple"][u] < w["first_ple"]]
            found["line_guess"] = share(len(earlier))
        if hidden:
            mine = g["phase"] & state.BENEATH == state.SPIN and g["lock"] == m.guest["lock"][y]
            found |= {
                "holder": lock["holder"] == v,
                "next": mine and lock["holder"] == state.NONE and (polls or line[:1] == [v]),
                "line": share(line.index(v)) if v in line else TOP,
                "holds": g["phase"] == state.HOLD or g["held"] != 0,
                "behind": share(len(line) - 1 - line.index(v)) if v in line else 0,
            }
        if awaits:
            owes = m.waits_for(y, v)
            found |= {"holder": owes, "next": False, "line": TOP, "holds": g["held"] != 0, "behind": 0}
        return found

    vcpus = np.array([[found.get(name, 0) for name in names] for found in map(features, everybody)], F)
    spinning = [int(v) for v in m.pcpu["current"] if v != state.NONE and spins(v)]
    host = {
        "queue": share(len(queues[p])),
        "ran": time(now - int(pcpu["dispatched_at"])),
        "idle": F((m.pcpu["mode"] == state.IDLE).sum()) * per_pcpu,
        "noisy": F((m.pcpu["mode"] == state.NOISE).sum()) * per_pcpu,
        "spinning": F(len(spinning)) * per_pcpu,
        "queued": share(len(waiting)),
        "asleep": share(len(asleep)),
        "queued_spinners": share(sum(spins(v) for v in waiting)),
        "since_decision": time(now - int(world["decided_at"])),
        "since_decision_here": time(now - int(pcpu["decided_at"])),
        "pcpu": F(p) * per_pcpu,
    }
    if own:
        host["slice_left"] = max(F(0), min(F(1), F(int(pcpu["slice_end"]) - now) * per_slice))
        host["rate_limited"] = now - int(pcpu["dispatched_at"]) < own["ratelimit"]
    if further:
        host |= further.of_host()
    return vcpus, np.array([host[name] for name in table.host_names], F)


def check(m: Machine) -> None:
    """Have the present written again, and compare."""
    m.lanes.observation[:] = m.lanes.mask[:] = 7
    m.lanes.drive(0, 1, OBSERVE)
    vcpus, host = plain(m, m.lanes.level)
    written = m.lanes.observation[0]
    for number, (was, should) in enumerate(zip(written[: vcpus.size].reshape(vcpus.shape[::-1]), vcpus.T, strict=True)):
        assert was.tobytes() == should.tobytes(), f"feature {number}: {was} should be {should}"
    assert written[vcpus.size :].tobytes() == host.tobytes(), f"host: {written[vcpus.size :]} should be {host}"
    legal = np.isin(np.arange(m.lanes.vcpus + 1), m.legal_actions()) if m.deciding else np.True_
    assert (m.lanes.mask[0, : m.lanes.vcpus + 1] == legal).all()


#: Features that were not 0 in some world.
MET: set[str] = set()


def nonzero(m: Machine) -> set[str]:
    """Names of the features that are not 0 here."""
    table, (vcpus, host) = observe.seen_in(m.scenario), plain(m, record.HYPERVISOR)
    shown = zip((*table.vcpu_names(record.HYPERVISOR), *table.host_names), (*vcpus.T, *host), strict=True)
    return {name for name, values in shown if np.any(values)}


def walk_and_check(information: str, scenario: Scenario, seed: int, decisions: int) -> Machine:
    """A random world after some random decisions, maybe at its end."""
    m = Machine(scenario, seed, Lanes(scenario, 1, information=information))
    choice = random.Random(seed)
    for _ in range(decisions):
        if not m.deciding:
            break
        m.step(choice.choice(m.legal_actions()))
    check(m)
    return m


worlds = given(
    scenario=contended_scenarios() | scenarios(), seed=st.integers(0, 2**63 - 1), decisions=st.integers(0, 60)
)


@pytest.mark.kernel
@settings(max_examples=5)
@worlds
@pytest.mark.parametrize("information", SEEN)
def test_every_feature_without_the_jit_too(information: str, scenario: Scenario, seed: int, decisions: int) -> None:
    walk_and_check(information, scenario, seed, decisions // 4)


@settings(max_examples=100)
@worlds
@pytest.mark.parametrize("information", SEEN)
def test_every_feature_of_every_level(information: str, scenario: Scenario, seed: int, decisions: int) -> None:
    walk_and_check(information, scenario, seed, decisions)


@settings(max_examples=100 if JIT_ENABLED else 5)
@given(under_fair(contended_scenarios()), st.integers(0, 2**63 - 1), st.integers(0, 60))
def under_linux(scenario: Scenario, seed: int, decisions: int) -> None:
    MET.update(nonzero(walk_and_check("hypervisor", scenario, seed, decisions if JIT_ENABLED else decisions // 4)))


@settings(max_examples=100 if JIT_ENABLED else 5)
@given(contended_scenarios(), st.integers(0, 2**63 - 1), st.integers(0, 60))
def under_credit2(scenario: Scenario, seed: int, decisions: int) -> None:
    scenario = replace(scenario, host=replace(scenario.host, scheduler="credit2"))
    MET.update(nonzero(walk_and_check("hypervisor", scenario, seed, decisions if JIT_ENABLED else decisions // 4)))


@pytest.mark.kernel
@pytest.mark.parametrize(("scheduler", "worlds"), [("fair", under_linux), ("credit2", under_credit2)])
def test_every_feature_of_a_scheduler_s_own(scheduler: str, worlds: Callable[[], None]) -> None:
    """In worlds in which each of them is something."""
    MET.clear()
    worlds()
    scenario = load("Paper8").with_overrides({"host.scheduler": scheduler, "guest.start": "convoy"})
    m = Machine(scenario, 3, Lanes(scenario, 1, information="hypervisor"))
    m.vcpu["hint"] = np.arange(m.lanes.vcpus) % 5  # what is rare is put there
    if scheduler == "fair":
        last = m.lanes.vcpus - 1
        m.vcpu["state"][last], m.host_vcpu["on_rq"][last], m.host_vcpu["delayed"][last] = state.BLOCKED, 1, 1
        for name, count in zip(state.HINTS, (7, 1, 2, 3), strict=True):
            m.world[name] = count
    if scheduler == "credit2":
        m.host_vcpu["yielding"][::2] = 1
        m.host_vcpu["tickled"][:3], m.pcpu["resched_at"][1] = [0, 1, state.NONE], m.world["now"]
    check(m)
    MET.update(nonzero(m))
    own = {one.name for one in (*observe.OWN[scheduler].vcpu, *observe.OWN[scheduler].host)}
    assert not JIT_ENABLED or own <= MET, own - MET


#: Worlds in which hints win, are ignored, and fail since who has just woken waits for its own pCPU, which is idle.
HINTED: dict[str, dict[str, object]] = {
    "hints_won": {"host.linux": "5.15"},
    "hints_ignored": {"host.linux": "6.6"},
    "hints_failed": {"host.pcpus": 8, "guest.affinity": "pinned", "guest.block_probability": 0.9, "cost.ipi": 2600}
    | {"guest.block": "exponential 30000", "guest.compute": "exponential 40000"},
}


@pytest.mark.kernel
@pytest.mark.parametrize("most", HINTED)
def test_what_came_of_all_hints_is_what_came_of_each(most: str) -> None:
    """Each hint is followed until it is answered; the counts of the world itself are not looked at."""
    machine = {"host.scheduler": "fair", "guest.start": "convoy", "guest.transactions": 0}
    scenario = load("Paper8").with_overrides(machine | HINTED[most])
    m, choice = Machine(scenario, 3, Lanes(scenario, 1, information="hypervisor")), random.Random(3)
    names, pending = observe.table_of("fair").host_names, dict[int, int]()
    came = {state.HINT_FAILED: 0, state.HINT_IGNORED: 0, state.HINT_WON: 0}
    for _ in range(300 if JIT_ENABLED else 20):
        for p in [p for p in pending if m.pcpu["hinted"][p] == state.NONE]:
            came[int(m.vcpu["hint"][pending.pop(p)])] += 1
        seen = dict(zip(names, m.lanes.observation[0, -len(names) :], strict=True))
        given = F(max(1, sum(came.values()) + len(pending)))
        assert [seen[name] for name in state.HINTS[1:]] == [F(count) / given for count in came.values()]
        waiting = m.candidates()
        if not waiting:
            m.step(m.asker)
            continue
        v = choice.choice(waiting)
        p = int(m.vcpu["pcpu"][v])
        m.step(v)
        if m.vcpu["hint"][v] == state.HINT_FAILED:
            came[state.HINT_FAILED] += 1
            continue
        came[state.HINT_IGNORED] += p in pending
        pending[p] = v
    assert seen[most] > 0.3 or not JIT_ENABLED


@pytest.mark.parametrize("information", SEEN)
def test_many_vcpus_that_all_spin(information: str) -> None:
    scenario = load("Storm")
    m = Machine(scenario, 3, Lanes(scenario, 1, information=information))
    choice = random.Random(3)
    for _ in range(60):
        m.step(choice.choice(m.legal_actions()))
        check(m)


@pytest.mark.parametrize("information", SEEN)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_host_can_be_seen(scheduler: str, information: str) -> None:
    """Its neutral features, and its own where it has any."""
    scenario = load("Paper8").with_overrides({"host.scheduler": scheduler, "guest.start": "convoy"})
    m = Machine(scenario, 3, Lanes(scenario, 1, information=information))
    choice = random.Random(3)
    for _ in range(200):
        m.step(choice.choice(m.legal_actions()))
        check(m)


@pytest.mark.parametrize("information", SEEN)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_interrupts_where_the_host_sees_them(scheduler: str, information: str) -> None:
    """And nothing of them where it does not: the observation is shorter by their features, and else the same."""
    shown, met = [one.name for one in observe.INTERRUPTS], set()
    settings = {"host.scheduler": scheduler, "host.pcpus": 4, "guest.vcpus": 4, "limit.simulated_s": 0.1}
    scenario = load("KvmEbizzy").with_overrides(settings)
    blind = scenario.with_overrides({"host.ipi_visible": False})
    m, other = (Machine(each, 3, Lanes(each, 1, information=information)) for each in (scenario, blind))
    names = observe.seen_in(scenario).vcpu_names(m.lanes.level)
    assert tuple(name for name in names if name not in shown) == observe.seen_in(blind).vcpu_names(m.lanes.level)
    common = [name not in shown for name in names for _ in range(m.lanes.vcpus)]
    common += [True] * (m.lanes.observation.shape[1] - len(common))
    choice = random.Random(3)
    for _ in range(300):
        check(m)
        met |= nonzero(m)
        assert m.lanes.observation[0][common].tobytes() == other.lanes.observation[0].tobytes()
        action = choice.choice(m.legal_actions())
        m.step(action)
        other.step(action)
    assert met >= set(shown)


def test_spinners_that_began_further_apart_than_32_bits_tell() -> None:
    scenario = load("Storm")
    m = Machine(scenario, 3, Lanes(scenario, 1, information="introspection"))
    m.vcpu["first_ple"][::2] -= np.arange(len(m.vcpu[::2])) << 33
    m.vcpu["first_ple"][1::4] = m.vcpu["first_ple"][0]  # and ties
    check(m)
    at = observe.names_at("introspection").index("line_guess") * m.lanes.vcpus
    line = m.lanes.observation[0, at : at + m.lanes.vcpus]
    assert len(set(line.tolist())) > 10
