"""Programs: transactions as tables of steps (docs/model.md, section 7.9), from their text to what their vCPUs do."""

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
from test_states import flaw
from worlds import MORE, WORK, affordable, contended_scenarios, fitted, programs, scenarios

from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario import Cost, Host, Limit, Ple, Scenario, ScenarioError, Vm
from ple_gym.scenario.program import MAX_STEPS, parse
from ple_gym.sim import state
from ple_gym.sim.guest.kinds import INTERRUPTIBLE
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.traces import events as tr

rules = st.sampled_from(sorted(SPECIFIED))
seeds = st.integers(0, 2**63 - 1)
FREE = Cost(exit=1, switch=0, cache=0, migration=0, remote_migration=0, ipi=0, line=0)


def world(program: str, **fields: object) -> Scenario:
    """A machine whose own work costs nothing, with a VM that runs a program."""
    pcpus = int(str(fields.pop("pcpus", 4)))
    vm = Vm(**{"vcpus": 1, "transactions": 1, "locks": 4, "program": program, **fields})
    return Scenario(host=Host(pcpus=pcpus), cost=FREE, limit=Limit(simulated_s=1.0), guest=vm)


def makespan(scenario: Scenario, seed: int = 0, rule: str = "continue") -> int:
    lanes = Lanes(scenario, 1, policy=rule)
    lanes.run(0, seed)
    assert lanes.totals(0)["finished"]
    return int(lanes.world["now"][0])


# ------------------------------------------------------------------------------------------------------------ the text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (" \n ; ", ""),
        ("compute constant 5 kernel 0.50", "compute constant 5 kernel 0.5"),
        ("compute uniform 5 5 kernel 0\nblock  constant 7", "compute constant 5; block constant 7"),
        ("compute constant 1; lock 2-2; unlock 2", "compute constant 1; lock 2; unlock 2"),
        ("compute constant 1; jump end with 1", "compute constant 1; jump end"),
        ("block constant 1;\njump 0 with .000000000001\n", "block constant 1; jump 0 with 0.000000000001"),
    ],
)
def test_a_program_is_kept_in_one_form(text: str, canonical: str) -> None:
    scenario = Scenario(guest=Vm(program=text, locks=3))
    assert scenario.guest.program == canonical
    assert Scenario.from_toml(scenario.to_toml()) == scenario
    assert parse(canonical) == parse(text)


def test_a_program_stands_in_a_file_on_lines_of_its_own() -> None:
    text = '[guest]\nprogram = """\ncompute constant 9\nlock any\nunlock any\n"""\n'
    assert Scenario.from_toml(text).guest.program == "compute constant 9; lock any; unlock any"


C = "compute constant 1; "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jump", "step 0, 'jump': must be one of: compute DIST"),
        ("compute exponential", "step 0, 'compute exponential': must be constant C"),
        ("compute constant 1 kernel 2", "must have a probability 0..1 (up to 12 decimals), not '2'"),
        (
            "lock 0; compute constant 1; unlock 0",
            "must begin with compute or block, so that it takes time",
        ),
        (C + "lock 3-1; unlock 3-1", "step 1, 'lock 3-1': must be a lock 0..4095, some such as 1-3, or any, not '3-1'"),
        (C + "lock 0; lock 0; unlock 0", "step 2, 'lock 0': must be above every lock that is held here"),
        (C + "lock 1-2; lock 2; unlock 2; unlock 1-2", "step 2, 'lock 2': must be above every lock"),
        (C + "lock 1; lock any; unlock any; unlock 1", "so that nobody waits in a circle; held is lock 1"),
        (C + "lock 0; lock 1; lock 2; lock 3; lock 4", "step 5, 'lock 4': must be one of at most 4 locks"),
        (C + "unlock 0", "step 1, 'unlock 0': must be held here, written as in its lock; held is no lock"),
        (C + "lock 0-1; unlock 0", "step 2, 'unlock 0': must be held here, written as in its lock; held is lock 0-1"),
        (C + "lock 0", "must hold nothing at its end, not lock 0"),
        (C + "lock 0; block constant 1; unlock 0", "step 2, 'block constant 1': must hold nothing while it sleeps"),
        (
            C + "lock 0; compute constant 1 kernel 1; unlock 0",
            "kernel 1': must have no kernel share",
        ),
        (C + "jump 2", "step 1, 'jump 2': must jump to a step 0..1 or to the end, not '2'"),
        (C + "jump -1", "must jump to a step 0..1 or to the end, not '-1'"),
        (C + "jump 0", "step 0, 'compute constant 1': must lead to the end, but no way leads there"),
        (C + "jump 3; compute constant 2; compute constant 3", "step 2, 'compute constant 2': must be reached"),
        (C + "jump 3 with 0; compute constant 1; jump 1 with 1; block constant 1", "must lead to the end"),
        (
            C + "jump 3 with 0.5; lock 0; compute constant 1; unlock 0",
            "step 3, 'compute constant 1': must hold the same",
        ),
        (C + "lock 0; jump 0 with 0.5; unlock 0", "step 0, 'compute constant 1': must hold the same locks"),
        (C * (MAX_STEPS + 1), f"must have at most {MAX_STEPS} steps, not {MAX_STEPS + 1}"),
        (" " * 100_001, "must be at most 100000 characters, not 100001"),
        (7, "must be empty, or up to 32 steps"),
    ],
)
def test_what_is_refused_is_named_in_one_line(text: object, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        Scenario.from_dict({"guest": {"program": text}})
    assert str(error.value).startswith("guest.program") and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"locks": 2, "program": C + "lock 1-2; unlock 1-2"},
            "step 1, 'lock 1-2': its lock must be below guest.locks",
        ),
        ({"locks": 0, "program": C + "lock any; unlock any"}, "'lock any': its lock must be none with guest.locks = 0"),
        ({"threads": 9, "program": C}, "guest.threads = 9: must be 0 with guest.program"),
        ({"start": "convoy", "program": C}, "guest.start = 'convoy': must be fresh with guest.program"),
    ],
)
def test_what_does_not_fit_the_vm_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        Scenario(guest=Vm(**fields))
    assert message in str(error.value)


def test_whether_anything_is_ever_decided_is_read_in_the_steps() -> None:
    without, takes = Vm(program=C, lock_probability=1), Vm(program=C + "lock 0; unlock 0", lock_probability=0)
    assert any("no VM ever takes a shared lock" in line for line in Scenario(guest=without).warnings())
    assert not any("no VM ever takes a shared lock" in line for line in Scenario(guest=takes).warnings())


# ------------------------------------------------------------------------------------------------------- what steps do


@pytest.mark.parametrize(
    ("program", "cycles"),
    [
        ("compute constant 70", 70),
        ("compute constant 70; lock 1; compute constant 5; lock 3; compute constant 600; unlock 1; unlock 3", 675),
        ("block constant 1000; compute constant 20", 1020),
        ("compute constant 3; block constant 1000", 1003),
        # Probabilities that are rounded to 0 and 1; after 992 steps none jumps back.
        ("compute constant 3; jump 3 with 0.000000000001; compute constant 2; compute constant 40", 45),
        ("compute constant 3; jump 3 with 0.999999999999; compute constant 2; compute constant 40", 43),
        ("compute constant 3; jump end with 0.999999999999; compute constant 2", 3),
        ("compute constant 3; jump 0 with 0.999999999999; compute constant 1", 497 * 3 + 1),
        ("compute constant 3; jump 1 with 0.999999999999; compute constant 1", 4),
    ],
)
def test_steps_take_their_time(program: str, cycles: int) -> None:
    assert makespan(world(program)) == cycles


def test_locks_exclude_whoever_else_wants_them_for_as_long_as_they_are_held() -> None:
    """Hand over hand: each computes 100 in lock 0, 10 in both, 1000 in lock 1; the second one waits for lock 0."""
    program = "compute constant 1; lock 0; compute constant 100; lock 1; compute constant 10; unlock 0; "
    program += "compute constant 1000; unlock 1"
    assert makespan(world(program)) == 1 + 100 + 10 + 1000
    # The second has lock 0 at 111 and wants lock 1 at 211, which it gets at 1111.
    assert makespan(world(program, vcpus=2, transactions=2)) == 1111 + 10 + 1000


def test_each_transaction_is_the_same_whatever_was_decided() -> None:
    """The useful work of a pool depends on the world alone, not on who ran it, when, or in which order."""
    program = "compute exponential 9000 kernel 0.3; lock any; compute exponential 3000; unlock any; jump 0 with 0.8"
    scenario = world(program, vcpus=6, transactions=40, pcpus=2)
    useful = set()
    for rule in ("continue", "xen-4.5", "random", "oracle"):
        lanes = Lanes(scenario, 1, policy=rule)
        lanes.run(0, 5)
        totals = lanes.totals(0)
        useful.add((totals["cycles"]["useful"], totals["acquisitions"]))
        assert totals["finished"]
    assert len(useful) == 1


def test_locks_that_are_drawn_are_as_likely_and_loops_as_long_as_they_say() -> None:
    program = "compute constant 1; lock 1-3; compute constant 1; unlock 1-3; jump 0 with 0.75"
    many = 2500 if JIT_ENABLED else 100
    _, trace = traced(world(program, transactions=many), "continue", 3)
    taken = np.bincount(trace[trace[:, 1] == tr.ACQUIRE][:, 4], minlength=4)
    assert taken[0] == 0
    assert abs(taken.sum() / many - 4) < 5 * (12 / many) ** 0.5  # geometric: mean 4, variance 12
    assert (np.abs(taken[1:] / taken.sum() - 1 / 3) < 5 * (2 / 9 / taken.sum()) ** 0.5).all()


def spelled_out(vm: Vm) -> str:
    """The program that says what a VM's sections say, if its hot lock is none and nobody blocks."""
    steps: list[str] = []
    for number in range(vm.sections):
        following = len(steps) + 5 if number + 1 < vm.sections else "end"
        steps += [f"compute {vm.compute} kernel {vm.kernel_share}", f"jump {following} with {1 - vm.lock_probability}"]
        steps += ["lock any", f"compute {vm.hold}", "unlock any"]
    return "; ".join(steps)


@pytest.mark.parametrize("kind", ["ticket", "tas"])
def test_a_program_that_spells_out_sections_gives_the_same_results(kind: str) -> None:
    """Means over many worlds agree within five standard errors: work, waits, exits, holders off their pCPUs, time."""
    vm = Vm(
        vcpus=6, locks=2, lock_kind=kind, transactions=60, sections=5, compute="exponential 20000",
        hold="exponential 9000", kernel_share=0.4, lock_probability=0.6,
    )  # fmt: skip
    host = Host(pcpus=3, tsc_hz=10**8, timeslice_ms=1, ratelimit_us=100)
    worlds = 300 if JIT_ENABLED else 4
    seen = []
    for program in ("", spelled_out(vm)):
        guest = Vm(**{**{name: getattr(vm, name) for name in vm.__slots__}, "program": program})
        scenario = Scenario(host=host, limit=Limit(simulated_s=10.0), guest=guest)
        lanes = Lanes(scenario, 1, policy="xen-4.5")
        rows = []
        for seed in range(worlds):
            lanes.run(0, seed)
            totals = lanes.totals(0)
            names = ("now", "acquisitions", "contended", "exits", "lhp_events", "lwp_events", "switches")
            rows.append([totals[name] for name in names] + [totals["cycles"]["useful"], totals["cycles"]["spin"]])
        seen.append(np.array(rows, dtype=float))
    sections, steps = seen
    # A private lock operation counts as an acquisition, and steps have none.
    sections[:, 1] = steps[:, 1] = 0
    error = np.sqrt((sections.var(0) + steps.var(0)) / worlds)
    assert (np.abs(sections.mean(0) - steps.mean(0)) <= 5 * error + 1e-9).all()
    if JIT_ENABLED:
        assert (error[[0, 2, 3, 4]] < 0.05 * sections.mean(0)[[0, 2, 3, 4]]).all(), "too few worlds to tell"


# ----------------------------------------------------------------------------------------------- against the reference


class NotedGuest(Guest):
    """The reference's guests; they note what comes to pass."""

    happened: set[str]

    def take_steps(self, v: Vcpu) -> None:
        before = v.step
        super().take_steps(v)
        if v.held:
            self.happened.add("spins with a lock" if v.phase is Phase.SPIN else "computes with a lock")
            self.happened.add("holds several" if len(v.held) > 1 else "holds one")
        if v.step < before and v.step > 1:
            self.happened.add("jumps back")
        if v.state is State.BLOCKED:
            self.happened.add("sleeps in a step")

    def halt(self, v: Vcpu) -> None:
        super().halt(v)
        self.happened.add("halts with a lock" if v.held else "halts with none")


class NotedWorld(World):
    """The reference's world with such guests."""

    def __init__(self, scenario: dict, seed: int) -> None:
        NotedGuest.happened = self.happened = set()
        super().__init__(scenario, seed)

    def start(self) -> None:
        self.guest = NotedGuest(self)
        super().start()

    def spin_exit(self, p, v, notified: bool = False) -> None:
        self.happened.add("exits with a lock" if v.held else "exits with none")
        super().spin_exit(p, v, notified)


HAPPENS = {
    "spins with a lock", "computes with a lock", "holds several", "holds one", "jumps back", "sleeps in a step",
    "exits with a lock", "exits with none",
}  # fmt: skip


@st.composite
def worlds_of_programs(draw: st.DrawFn) -> Scenario:
    """A random world whose guest has a program."""
    contended = draw(st.booleans())
    scenario = draw(contended_scenarios() if contended else scenarios())
    guest = scenario.guest
    siblings = guest.vcpus - 1 if guest.lock_kind in INTERRUPTIBLE else 0
    program = draw(programs(guest.locks, siblings, contended, seldom=False).filter(bool))
    return replace(scenario, guest=fitted(scenario.guest, program=program))


@pytest.mark.kernel
def test_random_programs_run_as_the_reference_runs_them() -> None:
    happened: Counter[str] = Counter()

    @settings(max_examples=(200 if JIT_ENABLED else 40) * MORE)
    @given(worlds_of_programs(), rules, seeds)
    def run(scenario: Scenario, rule: str, seed: int) -> None:
        rule = rule if RULES[rule].scheduler in ("", scenario.host.scheduler) else "host"
        scenario = affordable(scenario, rule, seed, WORK)
        lanes = Lanes(scenario, 1, policy=rule)
        lanes.run(0, seed)
        host = {**scenario.to_dict()["host"], **SETTINGS.get(rule, {})}
        noted = NotedWorld({**scenario.to_dict(), "host": host}, seed)
        totals = lanes.totals(0)
        assert totals == noted.run(rule)
        for v, ours in zip(noted.vcpus, lanes.guest[0], strict=True):
            if v.state is not State.DONE and not totals["finished"]:
                assert bool(v.held) == (ours["held"] != 0)
                assert (v.step, v.executed) == (ours["step"], ours["executed"])
        happened.update(noted.happened)

    run()
    if JIT_ENABLED:
        assert not HAPPENS - happened.keys()


@settings(max_examples=150 * MORE)
@given(worlds_of_programs(), seeds)
def test_nobody_waits_for_ever(scenario: Scenario, seed: int) -> None:
    """Given time, every pool is worked off, and nobody has a lock left."""
    few = {f"{name}.transactions": 5 for name in scenario.tables()}
    # A window that is shorter than a poll ends every spin before its attempt: such a wait has no end.
    scenario = scenario.with_overrides({"limit.simulated_s": 3600, "ple.window": 4096, "ple.count": 4096, **few})
    lanes = Lanes(scenario, 1, policy="host")
    lanes.run(0, seed)
    assert lanes.totals(0)["finished"]
    assert not lanes.guest["held"][0].any(), "locks are given back"
    assert lanes.vm["completed"][0].tolist() == [5] * len(scenario.vms())


# --------------------------------------------------------------------------- whoever spins may hold a lock for others


def chain(rule: str) -> Machine:
    """On one pCPU: A holds lock 0 and waits for lock 1, which B holds; C waits for lock 0."""
    program = "compute uniform 1 90000; lock 0; compute uniform 1 90000; lock 1; compute constant 90000; unlock 0; "
    program += "compute constant 90000; unlock 1"
    host = Host(pcpus=1, tsc_hz=10**8, timeslice_ms=1, ratelimit_us=0)
    vm = Vm(vcpus=3, transactions=100, locks=2, program=program)
    scenario = Scenario(
        host=host,
        cost=FREE,
        ple=Ple(window=512),
        limit=Limit(simulated_s=1.0),
        guest=vm,
    )
    return Machine(scenario, 1, policy=rule)


def test_the_oracle_runs_who_can_end_the_wait_not_who_waits_itself() -> None:
    m = chain("oracle")
    met = 0
    for _ in range(2000):
        if not m.deciding:
            break
        y = m.asker
        holder = int(m.lock["holder"][m.guest["lock"][y]])
        if holder != state.NONE and m.guest["phase"][holder] == state.SPIN:
            other = int(m.lock["holder"][m.guest["lock"][holder]])
            if other != state.NONE:
                met += 1
                assert m.consult("oracle") == other
        m.step(m.defer)
    assert met > 10


def test_who_leaves_its_pcpu_spinning_with_a_lock_is_a_preempted_holder() -> None:
    m = chain("host")
    for _ in range(2000):
        y, before = m.asker, int(m.world["lhp_events"])
        if m.held(y):
            m.step(m.defer)
            assert m.world["lhp_events"] > before
            return
        m.step(m.defer)
    raise AssertionError("nobody spun with a lock")


def test_a_circle_of_waits_is_refused_and_nobody_searches_it_for_ever() -> None:
    """Forged: the asker waits for its own lock; or for one whose holder waits for one of the asker's."""
    m = chain("oracle")
    y = m.asker
    lock = int(m.guest["lock"][y])
    m.lock["holder"][lock] = y
    assert m.consult("oracle") in m.legal_actions()
    assert flaw(m.lanes) == "a lock"
    m.guest["held"][y] = lock + 1
    assert flaw(m.lanes) == "a lock"
    other = (y + 1) % 3
    m.guest["held"][y], m.guest["held"][other] = 2 - lock, lock + 1
    m.lock["holder"][lock], m.lock["holder"][1 - lock] = other, y
    m.guest["phase"][other], m.guest["lock"][other] = state.SPIN, 1 - lock
    assert m.consult("oracle") in m.legal_actions()
    assert flaw(m.lanes) != ""
