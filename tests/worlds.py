"""Random scenarios for property-based tests: every mechanism of docs/model.md in runs of a few milliseconds, and every
parameter at both ends of its range.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from ple_gym.lanes import Lanes
from ple_gym.rules import RULES
from ple_gym.scenario import Cost, Decision, Host, Limit, Noise, Ple, Scenario, ScenarioError, Vm, describe_parameters
from ple_gym.scenario.model import AS_IN_XEN, XEN
from ple_gym.scenario.program import MAX_HELD, MAX_STEPS
from ple_gym.sim.guest.kinds import INTERRUPTIBLE, LOCK_KINDS
from ple_gym.sim.jit import JIT_ENABLED

#: The rules that can decide under Xen's credit scheduler, the default.
ON_CREDIT = sorted(name for name, rule in RULES.items() if rule.scheduler in ("", "credit"))

#: Whether `make explore` looks for what the fixed examples do not show, and how many times as many are drawn then.
EXPLORING = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
MORE = 3 if EXPLORING else 1

#: Plain Python is some hundred times slower.
LIMITS_S = [0.001, 0.004] if JIT_ENABLED else [0.0001, 0.0004]

TSC_HZ = 100_000_000  # the slowest allowed clock: milliseconds of scheduling in few cycles

_durations = st.sampled_from(
    ["constant 1", "constant 3000", "uniform 1 5000", "exponential 2000", "exponential 40000", "exponential 300000"]
)
_holds = st.sampled_from(
    ["constant 1", "exponential 500", "exponential 20000", "knots 0:120 0.5:600 0.995:2048 1:200000"]
)
_probabilities = st.sampled_from([0.0, 0.1, 0.5, 1.0])

hosts = st.builds(
    Host,
    pcpus=st.integers(1, 5),
    sockets=st.just(1),
    credit_pcpus=st.sampled_from([0, 0, 1, 8]),
    tsc_hz=st.just(TSC_HZ),
    timeslice_ms=st.sampled_from([1, 2, 3, 10]),
    ratelimit_us=st.sampled_from([0, 100, 500, 1000]),
    xen=st.sampled_from(XEN),
    runqueue=st.sampled_from(["cpu", "socket", "all"]),
    yield_bypasses_ratelimit=st.sampled_from([AS_IN_XEN, AS_IN_XEN, False, True]),
    fresh_ratelimit_slice=st.sampled_from([AS_IN_XEN, AS_IN_XEN, False, True]),
    defer_preemption_us=st.sampled_from([0, 0, 30, 1000]),
    micro_slice_us=st.sampled_from([0, 0, 0, 10, 100]),
    micro_slice_for=st.sampled_from(["all", "locks", "answers"]),
    balloon_us=st.sampled_from([100, 300, 10_000]),
    ipi_visible=st.booleans(),
)
noises = st.builds(
    Noise,
    rate_hz=st.sampled_from([0, 0, 500, 3000]),
    burst_us=st.sampled_from([20, 300]),
    level=st.sampled_from(["constant 1000", "knots 0:100 0.5:1000 1:20000"]),
    cap_permille=st.sampled_from([50, 300]),
)
costs = st.builds(
    Cost,
    exit=st.sampled_from([20, 142, 1420]),
    exit_per_candidate=st.sampled_from([0, 0, 7, 100]),
    yield_to=st.sampled_from([0, 0, 50, 3000]),
    switch=st.sampled_from([0, 300]),
    cache=st.sampled_from([0, 2670]),
    migration=st.sampled_from([0, 8010]),
    remote_migration=st.sampled_from([0, 26700]),
    ipi=st.sampled_from([0, 260]),
    line=st.sampled_from([0, 80]),
    notify=st.sampled_from([0, 10, 2000]),
)
ples = st.builds(
    Ple,
    kind=st.sampled_from(["window", "window", "count"]),
    gap=st.sampled_from([0, 32, 128, 5000]),
    window=st.sampled_from([1, 512, 4096]),
    count=st.sampled_from([0, 1, 40, 300]),
    window_grow=st.sampled_from([0, 2, 2, 3, 1000]),
    window_shrink=st.sampled_from([0, 0, 2, 700]),
    window_max=st.sampled_from([2**32 - 1, 2**32 - 1, 600, 65_535]),
)


class _Writer:
    """Writes random programs that fit a VM with so many locks and siblings of each vCPU (docs/model.md, 7.9).

    `contended`: there is hardly any pause. No siblings: no interrupts.
    """

    def __init__(self, choice: Callable[..., Any], locks: int, siblings: int, contended: bool) -> None:
        self.choice, self.locks, self.siblings = choice, locks, siblings
        short, long = ["constant 1", "constant 3000", "exponential 2000"], ["exponential 20000", "exponential 100000"]
        self.computes, self.holds = (short, long) if contended else ([*short, *long], [*short, *long])
        self.parts = ["lock"] * (6 if contended else 2) + ["compute", "block", "loop", "skip", "leave", "chain"]
        self.parts += ["ipi"] * (3 if siblings else 0)
        self.steps = [f"compute {choice(self.computes)} kernel {choice(['0', '0.3', '1'])}"]
        for _ in range(choice([1, 2, 3, 4])):
            self.part(-1)
        if contended:
            self.lock(-1, 0, 0)

    def compute(self, highest: int) -> None:
        times = self.computes if highest < 0 else self.holds
        kernel = self.choice(["", "", " kernel 0.5"]) if highest < 0 else ""
        self.steps.append(f"compute {self.choice(times)}{kernel}")

    def lock(self, highest: int, first: int, last: int) -> None:
        """One of some locks is taken, something is done with it, and it is given back."""
        text = self.choice([f"{first}-{last}", f"{first}-{last}", "any" if highest < 0 else f"{last}"])
        self.steps.append(f"lock {text}")
        self.compute(last)
        if text != "any" and last + 1 < self.locks and self.choice([True, False]):
            self.lock(last, last + 1, last + 1)
        elif self.choice([True, False, False]):
            self.part(self.locks if text == "any" else last)
        self.steps.append(f"unlock {text}")

    def part(self, highest: int) -> None:
        """Steps that leave held what was held before, locks up to `highest` (-1: none)."""
        kind = self.choice(self.parts)
        here = len(self.steps)
        share = self.choice(["0.1", "0.5", "0.9"])
        if here > MAX_STEPS - 21:
            return
        if kind in ("lock", "chain") and highest + 1 < self.locks:
            first = self.choice(range(highest + 1, self.locks))
            if kind == "chain" and first + 1 < self.locks:  # hand over hand
                self.steps += [f"lock {first}", f"lock {first + 1}", f"unlock {first}"]
                self.compute(first)
                self.steps.append(f"unlock {first + 1}")
            else:
                self.lock(highest, first, self.choice(range(first, self.locks)))
        elif kind == "ipi":
            self.steps.append(f"ipi {self.choice(['all', 1, self.siblings, self.choice(range(self.siblings)) + 1])}")
        elif kind == "block" and highest < 0:
            self.steps.append(f"block {self.choice(self.computes)}")
        elif kind == "loop":
            self.compute(highest)
            self.part(highest)
            self.steps.append(f"jump {here} with {share}")
        elif kind == "skip":
            self.steps.append("")
            self.part(highest)
            self.compute(highest)
            self.steps[here] = f"jump {len(self.steps)} with {share}"
            self.compute(highest)  # so that there is a step to jump to
        elif kind == "leave" and highest < 0:
            self.steps += [f"jump end with {share}", f"compute {self.choice(self.computes)}"]
        else:
            self.compute(highest)


@st.composite
def programs(draw: st.DrawFn, locks: int, siblings: int, contended: bool = False, seldom: bool = True) -> str:
    """A program; none for most VMs if `seldom`."""
    choice = draw(st.randoms(use_true_random=True)).choice
    steps = _Writer(choice, locks, choice([0, siblings]), contended).steps
    return "; ".join(steps) if len(steps) <= MAX_STEPS and choice([True, not seldom, not seldom, not seldom]) else ""


def threads(vcpus: int) -> st.SearchStrategy[int]:
    """How many threads a VM with at most seven vCPUs has: often none but those."""
    return st.sampled_from([0, 0, vcpus, vcpus + 1, 15])


def fitted(vm: Vm, **fields: object) -> Vm:
    """The VM with other values; what does not go with them is off."""
    if fields.get("threads"):
        fields = {"program": "", **fields}
    if fields.get("program"):
        fields = {"threads": 0, "start": "fresh", **fields}
    fewest = max((step.siblings or 1 for step in vm.steps if step.verb == "ipi"), default=0) + 1
    if vm.sends_interrupts and (
        fields.get("vcpus", vm.vcpus) < fewest or fields.get("lock_kind", vm.lock_kind) not in INTERRUPTIBLE
    ):
        fields = {"program": "", **fields}
    kind = fields.get("lock_kind", vm.lock_kind)
    if kind != "pv":
        fields = {"pv_early_wait": False, **fields}
    if kind not in INTERRUPTIBLE:
        fields = {"tick_us": 0, **fields}
    if any(fields.get(name, getattr(vm, name)) for name in ("threads", "program")):
        fields = {"balloon": False, **fields}
    return with_goal(replace(vm, **fields), vm.response_goal_us)


def with_goal(vm: Vm, us: int) -> Vm:
    """The VM with a goal for its responses, if it ever sleeps."""
    return replace(vm, response_goal_us=us if vm.sleeps else 0)


def with_locks(scenario: Scenario, kind: str, early: bool) -> Scenario:
    """The world with a guest whose locks are of this kind; `early`: where PV waiters have an early halt, with it."""
    guest, locks = scenario.guest, LOCK_KINDS[kind]
    halts, notify = guest.pv_spin_threshold * locks.halts, guest.notify_after * (not locks.overtakes)
    early &= kind == "pv"
    settings = {"lock_kind": kind, "pv_spin_threshold": halts, "notify_after": notify, "pv_early_wait": early}
    return replace(scenario, guest=fitted(guest, **settings))


@st.composite
def vms(draw: st.DrawFn, endless: bool = False) -> Vm:
    """A VM; an endless one is a busy neighbour that may still use locks."""
    locks = draw(st.integers(0, 4))
    kind = draw(st.sampled_from(["ticket", *LOCK_KINDS]))
    user, halts = draw(st.sampled_from([False] * 3 + [True] * 2)), draw(st.sampled_from([0, 0, 5, 200, 600]))
    halts *= LOCK_KINDS[kind].halts
    vcpus = draw(st.integers(1, 7))
    program = draw(programs(locks, vcpus - 1 if kind in INTERRUPTIBLE else 0))
    several = 0 if program else draw(threads(vcpus))
    vm = Vm(
        vcpus=vcpus,
        weight=draw(st.sampled_from([64, 256, 1000])),
        locks=locks,
        lock_kind=kind,
        transactions=0 if endless else draw(st.integers(1, 60)),
        sections=draw(st.integers(1, 5)),
        compute=draw(_durations),
        hold=draw(_holds),
        block=draw(_durations),
        kernel_share=draw(_probabilities),
        lock_probability=draw(_probabilities),
        hot_probability=draw(_probabilities),
        block_probability=draw(st.sampled_from([0.0, 0.0, 0.2])),
        spin_period=draw(st.sampled_from([1, 50, 100])),
        spin_in_user_mode=user,
        pv_spin_threshold=halts,
        overtake_after=draw(st.sampled_from([1, 5, 64, 500])),
        notify_after=0 if user or halts or LOCK_KINDS[kind].overtakes else draw(st.sampled_from([0, 0, 1, 20, 200])),
        pc_classes=draw(st.integers(1, 3)),
        start=draw(st.sampled_from(["fresh", "convoy"])) if locks and not program else "fresh",
        threads=several,
        thread_switch=draw(st.sampled_from([0, 300])),
        count=draw(st.sampled_from([1, 1, 1, 1, 1, 2, 3])),
        program=program,
        ipi_handler=draw(st.sampled_from([1, 300, 2000, 50_000])),
        ipi_to=draw(st.sampled_from(["all", "all", "awake", "running"])),
        tick_us=draw(st.sampled_from([0, 0, 0, 100, 400])) if kind in INTERRUPTIBLE else 0,
        tick_handler=draw(st.sampled_from([1, 300, 3000])),
        balloon=not (program or several) and draw(st.sampled_from([False, False, True])),
    )
    return with_goal(vm, draw(st.sampled_from([0, 1, 40, 500])))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A whole world; its guest's pool is finite, a neighbour's may be."""
    host = draw(hosts)
    guest, neighbours = draw(vms()), draw(st.lists(vms() | vms(endless=True), max_size=2))
    decision = Decision(
        actuator=draw(st.sampled_from(["default", "pull", "local", "hint", "yield"])),
        pull_swaps=draw(st.booleans()),
        window=draw(st.sampled_from(["host", "host", "agent"])),
    )
    if decision.actuator not in ("default", "pull") and draw(st.booleans()):
        last = host.pcpus - 1
        affinities = st.sampled_from(["any", "pinned", "pinned", "0", f"{last}", f"0 {last}", f"{last // 2}-{last}"])
        guest, *neighbours = (replace(vm, affinity=draw(affinities)) for vm in (guest, *neighbours))
    return Scenario(
        name="random",
        description="",
        host=replace(
            host, sockets=draw(st.integers(1, host.pcpus)), urgent_ipis=host.ipi_visible and draw(st.booleans())
        ),
        noise=draw(noises),
        cost=draw(costs),
        ple=draw(ples),
        decision=decision,
        limit=Limit(simulated_s=draw(st.sampled_from(LIMITS_S))),
        guest=guest,
        neighbours=tuple(neighbours),
    )


@st.composite
def contended_scenarios(draw: st.DrawFn) -> Scenario:
    """A random world in which the guest's vCPUs fight for locks and spinning is noticed: there is much to decide."""
    scenario = draw(scenarios())
    halts = scenario.guest.pv_spin_threshold
    vcpus, locks = draw(st.integers(4, 7)), draw(st.integers(1, 3))
    siblings = vcpus - 1 if scenario.guest.lock_kind in INTERRUPTIBLE else 0
    guest = fitted(
        scenario.guest,
        vcpus=vcpus,
        threads=0 if scenario.guest.program else draw(threads(vcpus)),
        locks=locks,
        program=draw(programs(locks, siblings, contended=True, seldom=False)) if scenario.guest.program else "",
        hold=draw(
            st.sampled_from(["exponential 20000", "exponential 100000", "knots 0:120 0.5:600 0.995:2048 1:200000"])
        ),
        compute=draw(st.sampled_from(["constant 1", "constant 3000", "exponential 2000", "exponential 40000"])),
        lock_probability=draw(st.sampled_from([0.5, 1.0])),
        hot_probability=draw(st.sampled_from([0.5, 1.0])),
        pv_spin_threshold=max(200, halts) if halts else 0,
        spin_in_user_mode=False,
        transactions=60,
    )
    gap, window = draw(st.sampled_from([128, 5000])), draw(st.sampled_from([1, 512, 512, 4096]))
    ple = replace(scenario.ple, gap=gap, window=window, count=draw(st.sampled_from([1, 40])))
    return replace(scenario, guest=guest, ple=ple)


@st.composite
def with_pv_locks(draw: st.DrawFn) -> Scenario:
    """A contended world whose guest has PV queued spinlocks; most of its waiters halt sooner or later."""
    scenario = draw(contended_scenarios())
    choice = draw(st.randoms(use_true_random=True)).choice
    halts, early = choice([0, 200, 600, 600, 1000]), choice([False, False, True])
    return replace(
        scenario,
        guest=fitted(scenario.guest, lock_kind="pv", notify_after=0, pv_spin_threshold=halts, pv_early_wait=early),
    )


@st.composite
def with_remedies(draw: st.DrawFn, worlds: st.SearchStrategy[Scenario]) -> Scenario:
    """A world of `worlds` whose credit scheduler has remedies; more of its vCPUs sleep, so that many wake."""
    scenario = draw(worlds)
    choice = draw(st.randoms(use_true_random=True)).choice
    pcpus = max(2, scenario.host.pcpus)
    kind = choice(["off", "off", "relaxed", "relaxed", "strict", "strict"])
    host = replace(
        scenario.host,
        pcpus=pcpus,
        balance_siblings=kind == "off" or choice([False, True]),
        coscheduling=kind,
        coscheduling_skew_us=choice([100, 100, 300, 3000]),
    )
    most = pcpus if kind == "strict" else 7
    vms = [
        fitted(
            vm,
            vcpus=min(vm.vcpus, most),
            block_probability=choice([0.0, 0.05, 0.2]),
            block="exponential 40000",
        )
        for vm in scenario.tables().values()
    ]
    return replace(scenario, host=host, guest=vms[0], neighbours=tuple(vms[1:]))


@st.composite
def under_fair(draw: st.DrawFn, worlds: st.SearchStrategy[Scenario]) -> Scenario:
    """A world of `worlds` under Linux's fair scheduler: ticks and slices are short, and more vCPUs sleep."""
    scenario = draw(worlds)
    # Hypothesis often repeats what it has drawn before; a generator makes all combinations as likely.
    choice = draw(st.randoms(use_true_random=True)).choice
    pcpus = min(scenario.host.pcpus, choice([2, 5]))  # siblings and other VMs meet in one queue
    host = replace(
        scenario.host,
        scheduler="fair",
        pcpus=pcpus,
        sockets=min(scenario.host.sockets, pcpus),
        placement=choice(["spread", "stacked"]),
        linux=choice(ENDS["host.linux"]),
        groups=choice(ENDS["host.groups"]),
        base_slice_us=choice([0, 100, 300, 700]),
        wakeup_granularity_us=choice([0, 1, 50, 300]),
        tick_us=choice([100, 250, 1000]),
        tick_jitter_cycles=choice([0, 0, 300, 10_000]),
        skew_tick=choice([False, True]),
        migration_cost_us=choice([0, 1, 50, 500]),
        load_balance=choice([True, True, False]),
        halt_poll_us=choice([0, 20, 200, 1000]),
        kick_yields=choice([False, True]),
        debooster=choice(["off", "off", "ishiguro", "li"]),
    )
    cost = replace(scenario.cost, ipi=choice([0, 260, 5000]))
    decision = replace(scenario.decision, actuator=choice(["default", "hint", "hint", "pull", "local", "yield"]))
    guest, *neighbours = scenario.tables().values()
    if decision.actuator == "pull" or pcpus < scenario.host.pcpus:
        guest, *neighbours = (replace(vm, affinity="any") for vm in (guest, *neighbours))
    if decision.actuator != "pull":
        affinities = ["any", "any", "any", "pinned", "0", f"{pcpus - 1}", f"{pcpus // 2}-{pcpus - 1}"]
        guest, *neighbours = (replace(vm, affinity=choice(affinities)) for vm in (guest, *neighbours))
    guest = fitted(guest, block_probability=choice([0.0, 0.0, 0.05, 0.2]))
    return replace(scenario, host=host, cost=cost, decision=decision, guest=guest, neighbours=tuple(neighbours))


@st.composite
def kicks_under_fair(draw: st.DrawFn) -> Scenario:
    """A world under Linux's fair scheduler in which waiters soon halt, and kicks yield."""
    scenario = draw(under_fair(with_pv_locks()))
    guest = replace(scenario.guest, affinity="any", pv_spin_threshold=5)
    host = replace(scenario.host, pcpus=min(2, scenario.host.pcpus), sockets=1, halt_poll_us=0, kick_yields=True)
    return replace(scenario, host=host, guest=guest, neighbours=())


@st.composite
def long_under_fair(draw: st.DrawFn) -> Scenario:
    """A world under Linux's fair scheduler that lasts for several intervals of its balancing, and has few events."""
    scenario = draw(under_fair(scenarios()))
    choice = draw(st.randoms(use_true_random=True)).choice
    pcpus = choice([2, 3, 4, 6])
    host = replace(scenario.host, pcpus=pcpus, sockets=choice([1, 2, min(3, pcpus)]), tick_us=choice([1000, 4000]))
    host = replace(host, load_balance=choice([True] * 5 + [False]), halt_poll_us=choice([0, 0, 0, 200]))
    long = {"compute": "exponential 300000", "hold": "exponential 20000", "block": "exponential 300000"}
    places = ["any"] if scenario.decision.actuator == "pull" else ["any", "any", "any", "any", "0-1", "pinned"]
    vms = [
        fitted(
            vm,
            **long,
            count=1,
            vcpus=choice([1, 3, 7]),
            threads=choice([0, 0, 0, 0, 7]),
            transactions=0,
            affinity=choice(places),
        )
        for vm in scenario.tables().values()
    ]
    limit = Limit(simulated_s=0.15 if JIT_ENABLED else 0.05)
    return replace(scenario, host=host, limit=limit, guest=vms[0], neighbours=tuple(vms[1:]))


@st.composite
def one_to_one_under_fair(draw: st.DrawFn) -> Scenario:
    """A world under Linux's fair scheduler in which each vCPU has a pCPU of its own, slow to wake: hints fail."""
    scenario = draw(under_fair(contended_scenarios()))
    vcpus = max(scenario.host.pcpus, 4)
    guest = fitted(
        scenario.guest,
        vcpus=vcpus,
        threads=draw(threads(vcpus)),
        affinity="pinned",
        hold="exponential 100000",
        compute="exponential 2000",
        block_probability=draw(st.sampled_from([0.2, 0.5])),
        block="exponential 2000",
        count=1,
        program="",
    )
    return replace(
        scenario,
        host=replace(scenario.host, pcpus=vcpus),
        cost=replace(scenario.cost, ipi=draw(st.sampled_from([5000, 100_000]))),
        decision=replace(scenario.decision, actuator="hint"),
        ple=replace(scenario.ple, gap=5000, window=64, count=1),
        guest=guest,
        neighbours=(),
    )


@st.composite
def sleepers_under_fair(draw: st.DrawFn) -> Scenario:
    """A world under Linux's fair scheduler with few vCPUs, which often sleep for a short time: pCPUs poll for them."""
    scenario = draw(under_fair(scenarios()))
    choice = draw(st.randoms(use_true_random=True)).choice
    host = replace(scenario.host, pcpus=2, sockets=1, halt_poll_us=choice([20, 200, 200, 1000]))
    places = ["any"] if scenario.decision.actuator == "pull" else ["any", "any", "pinned", "0"]
    vms = [
        fitted(
            vm,
            count=1,
            vcpus=choice([1, 2]),
            threads=choice([0, 0, 2, 3]),
            compute=choice(["constant 3000", "exponential 2000", "exponential 40000"]),
            block=choice(["exponential 2000", "uniform 1 5000", "exponential 40000"]),
            block_probability=0.5,
            transactions=0,
            affinity=choice(places),
        )
        for vm in scenario.tables().values()
    ]
    noise = replace(scenario.noise, rate_hz=choice([0, 3000]), burst_us=20)
    return replace(scenario, host=host, noise=noise, guest=vms[0], neighbours=tuple(vms[1:2]))


# --- both ends of every range -----------------------------------------------------------------------------------------

_LONGEST = 10**11  # the largest value of a distribution
_LONGEST_PROGRAM = "; ".join(
    [f"compute exponential {_LONGEST}", *(f"lock {i}" for i in range(MAX_HELD)), "compute constant 1"]
    + [f"unlock {i}" for i in range(MAX_HELD)]
    + ["compute constant 1 kernel 1", "jump end with 0.000000000001"] * ((MAX_STEPS - 2 * MAX_HELD - 2) // 2 - 1)
    + ["jump 0 with 0.999999999999", "block constant 1"]
)
_DISTRIBUTIONS = ("constant 1", f"constant {_LONGEST}", f"exponential {_LONGEST}", f"uniform 1 {_LONGEST}")


def ends_of(allowed: str) -> tuple[object, ...]:
    """The values at the ends of what is allowed (a parameter's documentation): zero, lowest, highest; or every word."""
    if allowed.startswith("constant"):
        return _DISTRIBUTIONS
    if allowed.startswith("empty, or up to"):
        return ("", _LONGEST_PROGRAM)
    if allowed.startswith("any, pinned"):
        return ("any", "pinned", "0")
    if span := re.fullmatch(r"(0 \(.+\) or )?([0-9]+)\.\.([0-9]+)", allowed):
        return (*([0] if span[1] else []), int(span[2]), int(span[3]))
    if above := re.fullmatch(r"above 0 and at most ([0-9]+)", allowed):
        return (1e-7, float(above[1]))
    flags = {"true": True, "false": False}
    return tuple(flags.get(word, word) for word in allowed.replace(" or ", ", ").split(", "))


#: Parameter -> the values at the ends of its range. Shares are documented as 0..1 too.
ENDS: dict[str, tuple[object, ...]] = {
    name: ends_of(allowed) for name, (allowed, _) in describe_parameters().items() if "." in name
}

#: The parameters that only the fair scheduler reads.
FAIR = {name for name, (_, meaning) in describe_parameters().items() if "(fair" in meaning}
#: Those that only the credit scheduler may have.
CREDIT = {name for name, (_, meaning) in describe_parameters().items() if "(credit)" in meaning}


@st.composite
def values(draw: st.DrawFn, ends: tuple[object, ...]) -> object:
    """An end of a range, or of whole numbers one in between, of any order of magnitude."""
    value = draw(st.sampled_from(ends))
    numbers = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    if not numbers or draw(st.booleans()):
        return value
    low, high = max(1, min(numbers)), max(numbers)
    return max(low, min(high, int(draw(st.floats(1, 9.99)) * 10 ** draw(st.integers(0, len(str(high)) - 1)))))


@st.composite
def extreme_scenarios(draw: st.DrawFn, wanted: tuple[str, object] | None = None) -> Scenario:
    """A contended world of up to four VMs; a few parameters are anywhere in their range, mostly at its ends.

    `wanted`: a parameter, and the value that it has in any case.
    """
    name = wanted[0] if wanted else ""
    fair = name in FAIR or (name not in CREDIT and draw(st.booleans()))
    scenario = draw(under_fair(contended_scenarios()) if fair else contended_scenarios())
    # Either end of the clock in half of all worlds: what overflows does so where it meets another end.
    host = replace(scenario.host, tsc_hz=draw(st.sampled_from(ENDS["host.tsc_hz"])))
    scenario = replace(scenario, host=host, limit=Limit(simulated_s=10.0))
    if draw(st.booleans()):
        more = draw(st.lists(vms(), max_size=3 - len(scenario.neighbours)))
        scenario = replace(scenario, neighbours=(*scenario.neighbours, *more))
    for name in draw(st.lists(st.sampled_from(sorted(ENDS)), min_size=1, max_size=3, unique=True)):
        group, _, field = name.partition(".")
        one = draw(st.sampled_from(sorted(scenario.tables()))) if group == "guest" else group
        scenario = _changed(scenario, f"{one}.{field}", draw(values(ENDS[name])))
    return _changed(scenario, *wanted) if wanted else scenario


def _changed(scenario: Scenario, name: str, value: object) -> Scenario:
    """The scenario with another value, and with what that value needs; as it is if nothing makes it fit."""
    for overrides in _with(scenario, name, value):
        with contextlib.suppress(ScenarioError):
            return scenario.with_overrides(overrides)
    return scenario


def _with(scenario: Scenario, name: str, value: object) -> Iterator[dict[str, object]]:
    """Overrides that set a parameter: alone, and with what some values need."""
    yield {name: value}
    yield {"host.ratelimit_us": 0, "host.sockets": 1, name: value}
    yield {"decision.actuator": "hint", name: value}  # a vCPU that is pinned cannot be pulled
    yield {**{f"{vm}.affinity": "any" for vm in scenario.tables()}, name: value}
    yield {"host.timeslice_ms": 1000, "host.pcpus": 256, name: value}
    yield {"host.tick_us": 100_000, "host.tsc_hz": 10**10, name: value}
    yield {"host.tick_jitter_cycles": 0, name: value}
    yield {**{f"{vm}.threads": 0 for vm in scenario.tables()}, name: value}
    off: dict[str, object] = {"host.halt_poll_us": 0, "host.debooster": "off", "host.kick_yields": False}
    yield {**off, name: value}  # only the fair scheduler has these
    vm = name.rpartition(".")[0]
    if vm in scenario.tables():
        yield {f"{vm}.locks": 1, f"{vm}.lock_kind": "ticket", name: value}
        yield {f"{vm}.pv_spin_threshold": 0, f"{vm}.pv_early_wait": False, f"{vm}.notify_after": 0, name: value}
        yield {f"{vm}.pv_spin_threshold": 0, f"{vm}.spin_in_user_mode": False, name: value}
        yield {f"{vm}.lock_kind": "pv", f"{vm}.program": "", f"{vm}.notify_after": 0, name: value}
        yield {f"{vm}.start": "fresh", name: value}
        yield {f"{vm}.start": "fresh", f"{vm}.locks": MAX_HELD, f"{vm}.threads": 0, name: value}
        yield {f"{vm}.program": "", name: value}
        yield {f"{vm}.response_goal_us": 0, name: value}
        yield {f"{vm}.program": "", f"{vm}.block_probability": 0.1, name: value}
        alone = {f"{other}.{field}": 1 for other in scenario.tables() for field in ("vcpus", "weight", "count")}
        yield {**alone, **{f"{other}.threads": 0 for other in scenario.tables()}, name: value}


#: Of a world in which kernel and reference are compared (`affordable`): few last for longer, and would take most of
#: the time of all.
WORK = 330_000 if JIT_ENABLED else 75_000


class TooLong(Exception):
    """A run has more events than one call of the kernel serves."""


def affordable(scenario: Scenario, rule: str, seed: int, work: int = 75_000) -> Scenario:
    """The scenario, cut off so early that the reference simulator runs it in a fraction of a second."""

    def too_long(lane: int) -> None:
        raise TooLong

    with patch("ple_gym.lanes.EVENTS_PER_CALL", affordable_events(scenario, work)):
        lanes = Lanes(scenario, 1, policy=rule)
        try:
            lanes.run(0, seed, between=too_long)
        except TooLong:
            return cut_off(scenario, lanes)
    return scenario


def affordable_events(scenario: Scenario, work: int) -> int:
    """How many events of a run that may take so much work: the reference takes for each 8 us, and half of one more for
    each vCPU, thread and pCPU."""
    threads = sum(vm.threads for vm in scenario.vms().values())
    return max(150, work // (16 + scenario.vcpus + threads + scenario.host.pcpus))


def cut_off(scenario: Scenario, lanes: Lanes) -> Scenario:
    """The scenario, whose runs end where that of the first of `lanes` is now."""
    end = max(1, int(lanes.world["now"][0]))
    return scenario.with_overrides({"limit.simulated_s": end / scenario.host.tsc_hz})
