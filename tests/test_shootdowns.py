"""Interrupts between siblings (docs/model.md, section 7.10): who is sent one, when it is served, who waits for that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, traced
from reference_simulator.guest import Guest
from reference_simulator.rules import RULES as SPECIFIED
from reference_simulator.rules import SETTINGS
from reference_simulator.state import Phase, State, Vcpu
from reference_simulator.world import World
from test_differential import fitting
from test_programs import FREE, makespan
from test_states import flaw, signed
from worlds import MORE, affordable, contended_scenarios, fitted, programs, scenarios, under_fair

from experiments.lab.field import FIELD
from ple_gym.lanes import Lanes
from ple_gym.scenario import Host, Limit, Scenario, ScenarioError, Vm
from ple_gym.scenario.program import parse
from ple_gym.sim import state
from ple_gym.sim.guest.kinds import INTERRUPTIBLE
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.traces import events as tr

rules = st.sampled_from(sorted(SPECIFIED))
seeds = st.integers(0, 2**63 - 1)
HANDLER = 2000
SHOOT = "compute constant 100; ipi all"


def world(program: str, **fields: object) -> Scenario:
    """A machine whose own work costs nothing, with a VM that runs a program."""
    pcpus = int(str(fields.pop("pcpus", 4)))
    vm = Vm(**{"vcpus": 2, "transactions": 2, "locks": 1, "program": program, "ipi_handler": HANDLER, **fields})
    return Scenario(host=Host(pcpus=pcpus), cost=FREE, limit=Limit(simulated_s=10.0), guest=vm)


# ------------------------------------------------------------------------------------------------------------ the text


def test_a_step_is_read_and_written() -> None:
    assert [step.siblings for step in parse("compute constant 1; ipi 3; ipi all; ipi 0012")] == [0, 3, 0, 12]
    assert Vm(program="compute constant 1\nipi 03").program == "compute constant 1; ipi 3"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"program": "compute constant 1; ipi 0"}, "must interrupt 1..1023 siblings, or all, not '0'"),
        ({"program": "compute constant 1; ipi"}, "step 1, 'ipi': must be one of: compute DIST"),
        ({"program": "ipi all"}, "must begin with compute or block, so that it takes time, not with ipi"),
        ({"program": SHOOT.replace("all", "2"), "vcpus": 2}, "'ipi 2': must interrupt fewer than guest.vcpus = 2"),
        ({"program": SHOOT, "lock_kind": "pv"}, "guest.lock_kind = 'pv': must be ticket or mcs or tas with ipi steps"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        Scenario(guest=Vm(**fields))
    assert message in str(error.value)


def test_whoever_sends_interrupts_may_exit() -> None:
    assert not any("nothing is ever decided" in line for line in Scenario(guest=Vm(program=SHOOT)).warnings())


# ----------------------------------------------------------------------------------------------- who waits for how long


def test_a_sender_waits_until_its_siblings_have_served_it() -> None:
    """Both compute 100. The first interrupts the second, which serves that, and then finds its sibling DONE."""
    assert makespan(world(SHOOT)) == 100 + HANDLER
    assert makespan(world(SHOOT, transactions=1)) == 100, "who is DONE is interrupted no more"
    assert makespan(world(SHOOT, ipi_handler=1)) == 101


def test_interrupts_are_served_one_after_the_other() -> None:
    """Three send at once: the last of them has two handlers to run before it can send."""
    assert makespan(world(SHOOT, vcpus=3, transactions=3)) == 100 + 2 * HANDLER


@pytest.mark.parametrize("held", [False, True])
def test_who_computes_or_holds_a_lock_is_delayed_by_a_handler(held: bool) -> None:
    long = "lock 0; compute constant 50000; unlock 0" if held else "compute constant 50000"
    program = f"compute uniform 100 9000; ipi all; {long}"
    for seed in range(5):
        scenario = world(program, ipi_to="running")
        lanes = Lanes(scenario, 1, policy="continue")
        lanes.run(0, seed)
        totals = lanes.totals(0)
        alone = makespan(replace(scenario, guest=replace(scenario.guest, ipi_handler=1)), seed)
        assert totals["ipis"] == 2
        assert makespan(scenario, seed) - alone >= HANDLER - 1


def test_who_sleeps_is_woken_serves_the_interrupt_and_sleeps_on() -> None:
    """The second to wake interrupts nobody: its sibling is DONE. A lazy flush leaves the first sleeper out."""
    program = "block uniform 1 900000; ipi all; compute constant 1"
    for seed in range(8):
        ends = {to: traced(world(program, ipi_to=to), "continue", seed) for to in ("all", "awake", "running")}
        totals = {to: lanes.totals(0) for to, (lanes, _) in ends.items()}
        assert {to: one["ipis"] for to, one in totals.items()} == {"all": 1, "awake": 0, "running": 0}
        assert len({one["now"] for one in totals.values()}) == 1
        slept = {to: int((trace[:, 1] == tr.BLOCK).sum()) for to, (_, trace) in ends.items()}
        assert slept["all"] == slept["awake"] + 1


def shoot_down(rule: str) -> float:
    """Cycles of a shoot-down in which each of four vCPUs on two pCPUs interrupts the three others."""
    vm = Vm(vcpus=4, transactions=100, locks=0, program="compute constant 20000 kernel 1; ipi all")
    scenario = Scenario(host=Host(pcpus=2), limit=Limit(simulated_s=60.0), guest=vm)
    lanes = Lanes(scenario, 1, policy=rule)
    lanes.run(0, 0)
    assert lanes.totals(0)["finished"]
    return int(lanes.world["now"][0]) / 100


def test_a_shoot_down_waits_for_a_slice_or_for_microseconds() -> None:
    """Twice as many vCPUs as pCPUs: under a rule that resumes it takes as long as its siblings' slices."""
    slice_cycles, us = 0.03 * Host().tsc_hz, Host().tsc_hz / 1e6
    assert shoot_down("continue") > 0.2 * slice_cycles
    for rule in ("oracle", "kvm"):
        assert shoot_down(rule) < 100 * us


def test_the_oracle_runs_who_has_not_answered() -> None:
    m = Machine(world(SHOOT, vcpus=6, transactions=200, pcpus=2), policy="oracle")
    for _ in range(300):
        if not m.deciding:
            break
        y = m.asker
        if m.guest["phase"][y] == state.ACKS and (late := waiting_for(m, y)):
            off = [v for v in late if m.vcpu["state"][v] != state.RUNNING]
            assert m.consult("oracle") in (off or [y])
        m.step(m.consult("oracle"))
    assert m.world["exits"] > 20


# ------------------------------------------------------------------------------------------------- no interrupt is lost


def waiting_for(m: Machine, u: int) -> list[int]:
    """The vCPUs whose acknowledgement u lacks."""
    first = int(np.flatnonzero(m.vcpu["vm"] == m.vcpu["vm"][u])[0])
    word, bit = divmod(u - first, 64)
    words = m.lanes.section("unanswered")[0][:, word]
    own = m.vcpu["vm"] == m.vcpu["vm"][u]
    return np.flatnonzero(((words.astype(np.uint64) >> np.uint64(bit)) & np.uint64(1)).astype(bool) & own).tolist()


@st.composite
def worlds_of_interrupts(draw: st.DrawFn) -> Scenario:
    """A random world whose guest has a program with an ipi step."""
    contended = draw(st.booleans())
    scenario = draw(st.one_of(contended_scenarios(), under_fair(contended_scenarios())) if contended else scenarios())
    choice = draw(st.randoms(use_true_random=True)).choice
    kind = choice(INTERRUPTIBLE)
    guest = fitted(scenario.guest, vcpus=max(2, scenario.guest.vcpus), lock_kind=kind, notify_after=0, program="")
    halts = 0 if kind == "tas" else choice([0, 5, 200])
    written = programs(guest.locks, guest.vcpus - 1, contended and guest.locks > 0, seldom=False)
    guest = fitted(guest, pv_spin_threshold=halts, program=draw(written.filter(lambda text: "ipi" in text)))
    return replace(scenario, guest=guest)


@settings(max_examples=(100 if JIT_ENABLED else 10) * MORE)
@given(worlds_of_interrupts(), seeds, rules)
def test_whoever_waits_is_waited_for(scenario: Scenario, seed: int, rule: str) -> None:
    """At each decision; and the hypervisor sees what is pending, or nothing."""
    m = Machine(scenario, seed, policy=fitting(rule, scenario))
    for turn in range(40):
        if not m.deciding:
            break
        assert flaw(m.lanes) == ""
        late = [waiting_for(m, u) for u in range(m.lanes.vcpus)]
        handling, asked = m.guest["phase"] < 0, {v for those in late for v in those}
        assert set(np.flatnonzero(handling)) == asked | set(np.flatnonzero(m.lanes.section("interrupts")[0]["tick"]))
        assert m.lanes.section("interrupts")[0]["missing"].tolist() == [len(those) for those in late]
        waits = (m.guest["phase"] & state.BENEATH) == state.ACKS
        assert not (np.array([len(those) for those in late]) > 0)[~waits].any()
        assert not (handling & ~np.isin(m.vcpu["state"], (state.RUNNING, state.QUEUED))).any(), "it can run"
        seen = m.lanes.section("ipi")[0]
        assert len(seen) == (m.lanes.vcpus if scenario.host.ipi_visible else 0)
        for v, one in enumerate(seen):
            numbers = [u - int(np.flatnonzero(m.vcpu["vm"] == m.vcpu["vm"][u])[0]) for u in range(m.lanes.vcpus)]
            marks = {numbers[u] % 62 for u in range(m.lanes.vcpus) if v in late[u]}
            assert marks <= {bit for bit in range(62) if int(one["senders"]) >> bit & 1}
            assert (one["senders"] != 0) == (v in asked) and one["pending_since"] <= m.world["now"]
        m.step(m.legal_actions()[turn % len(m.legal_actions())])


def test_each_interrupt_costs_one_handler_whatever_is_decided() -> None:
    program = "compute exponential 9000 kernel 0.3; ipi all; lock any; compute exponential 3000; unlock any; ipi 2"
    useful = set()
    for rule in ("xen-4.5", "kvm", "random", "oracle"):
        for to in ("all", "running"):
            lanes = Lanes(world(program, vcpus=6, transactions=60, pcpus=2, ipi_to=to), 1, policy=rule)
            lanes.run(0, 5)
            totals = lanes.totals(0)
            assert totals["finished"] and totals["ipis"] > 0
            useful.add(totals["cycles"]["useful"] - HANDLER * totals["ipis"])
    assert len(useful) == 1


def test_a_shootdown_beside_another_vm_waits_for_a_slice_or_for_the_rule() -> None:
    """Who resumes spins until the receivers' turns come; who runs them has all answers at once."""
    scenario = FIELD["FieldShoot8x4-1350us"].with_overrides(
        {"guest.count": 2, "host.scheduler": "fair", "host.ipi_visible": True, "limit.simulated_s": 0.3}
    )
    median = {}
    for rule in ("continue", "kvm-6.18", "ipi-aware"):
        found = tr.acknowledgements(traced(scenario, rule, 1)[1])
        median[rule] = np.median(found[:, 2] - found[:, 1]) * 1e6 / scenario.host.tsc_hz
    assert median["continue"] > 1000
    assert max(median["kvm-6.18"], median["ipi-aware"]) < 10


def test_who_is_seen_to_have_an_interrupt_is_boosted_in_user_mode() -> None:
    """KVM since 5.13; where interrupts are posted, it cannot see them."""
    program = "compute exponential 5000000; ipi all"
    differ = {}
    for visible in (False, True):
        scenario = world(program, vcpus=6, transactions=200, pcpus=2)
        host = replace(scenario.host, timeslice_ms=1, ratelimit_us=0, ipi_visible=visible)
        m = Machine(replace(scenario, host=host))
        found = 0
        for _ in range(400):
            if not m.deciding:
                break
            found += m.consult("kvm-5.4") != m.consult("kvm-5.13")
            m.step(m.defer)
        differ[visible] = found
    assert differ[False] == 0 < differ[True]


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("interrupts", "missing", 0),
        ("interrupts", "missing", 7),
        ("interrupts", "put_off", -5),
        ("interrupts", "sleep_until", 2**60),
        ("guest", "phase", state.SPIN),
        ("guest", "phase", state.HANDLING),
        ("guest", "phase", 100),
        ("ipi", "senders", 1),
        ("ipi", "senders", -1),
        ("ipi", "pending_since", -1),
        ("ipi", "pending_since", 2**60),
        ("unanswered", "", 0),
        ("unanswered", "", -1),
    ],
)
def test_a_forged_interrupt_is_refused(section: str, field: str, value: int) -> None:
    scenario = world(SHOOT, vcpus=6, transactions=200, pcpus=2)
    m = Machine(scenario.with_overrides({"host.ipi_visible": True}))
    m.step_until(lambda: bool(waiting_for(m, m.asker)))
    y = m.asker
    right = m.lanes.rows.copy()
    records = m.lanes.section(section)[0]
    v = waiting_for(m, y)[0] if section == "unanswered" or field == "put_off" else y
    if field:
        records[field][v] = value
    else:
        records[v] = value
    wrong = m.lanes.rows[0].copy()
    m.lanes.rows[:] = right
    with pytest.raises(ValueError, match="the saved state is damaged: "):
        m.lanes.restore(0, signed(m.lanes, wrong))


# ----------------------------------------------------------------------------------------------- against the reference


class NotedGuest(Guest):
    """The reference's guests; they note what comes to pass."""

    happened: set[str]

    def interrupt(self, v: Vcpu, w: Vcpu) -> None:
        where = "halted" if w.halted else w.state.name
        self.happened.add(f"{w.phase.name}, {where}" if where == "RUNNING" else where)
        self.happened.add("in a handler" if w.unanswered else "in none")
        self.happened.add("before its entry" if w.state is State.RUNNING and w.pcpu.entry > self.world.now else "")
        super().interrupt(v, w)

    def handler_ends(self, v: Vcpu) -> None:
        super().handler_ends(v)
        self.happened.add("sleeps on" if v.state is State.BLOCKED else "goes on")
        self.happened.add("a holder waits" if any(u.held and u.phase is Phase.ACKS for u in v.vm.vcpus) else "")


class NotedWorld(World):
    """The reference's world with such guests."""

    def __init__(self, scenario: dict, seed: int) -> None:
        NotedGuest.happened = self.happened = set()
        super().__init__(scenario, seed)

    def start(self) -> None:
        self.guest = NotedGuest(self)
        super().start()

    def spin_exit(self, p, v, notified: bool = False) -> None:
        self.happened.add("exits" if v.phase is Phase.ACKS else "")
        super().spin_exit(p, v, notified)


HAPPENS = {
    *(f"{phase}, RUNNING" for phase in ("USER", "KERNEL", "SPIN", "HOLD", "ACKS")), "QUEUED", "BLOCKED", "halted",
    "in a handler", "in none", "before its entry", "sleeps on", "goes on", "a holder waits", "exits",
}  # fmt: skip


@pytest.mark.kernel
def test_random_interrupts_are_as_the_reference_has_them() -> None:
    happened: Counter[str] = Counter()

    @settings(max_examples=(400 if JIT_ENABLED else 30) * MORE)
    @given(worlds_of_interrupts(), rules, seeds)
    def run(scenario: Scenario, rule: str, seed: int) -> None:
        rule = fitting(rule, scenario)
        scenario = affordable(scenario, rule, seed)
        lanes = Lanes(scenario, 1, policy=rule)
        lanes.run(0, seed)
        host = {**scenario.to_dict()["host"], **SETTINGS.get(rule, {})}
        noted = NotedWorld({**scenario.to_dict(), "host": host}, seed)
        totals = lanes.totals(0)
        assert totals == noted.run(rule)
        if not totals["finished"]:
            handling = lanes.guest["phase"][0] < 0
            assert handling.tolist() == [v.serves for v in noted.vcpus]
        happened.update(noted.happened)

    run()
    if JIT_ENABLED:
        assert not HAPPENS - happened.keys(), (HAPPENS - happened.keys(), happened)
