"""What did people see who run hypervisors? Contrasts from commits and reports, run on the hosts of today.

Each case contrasts two settings of one machine on the same seeds. Measured is the throughput: pCPUs that do useful
work, of all VMs. F13 and F15 end: there it is the time taken, in F13 over the time that somebody held the lock.
docs/field-cases.md says what was seen in the field, and what that means here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from experiments.answer.rules import in_percent, percent
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, totals, world
from experiments.lab.field import every, flushing
from experiments.lab.report import Check
from ple_gym.evaluate.statistics import Estimate, Floats, ratio
from ple_gym.rules.own import KVM

Settings = Mapping[str, object]

NO_PLE: Settings = {"ple.gap": 0}
NO_FILTER: Settings = {"ple.count": 0}
NO_REFILL: Settings = {"cost.cache": 0}
LAYOUTS = ("flat", "vm", "vcpu")
FEW, SOME, MANY = 8, 24, 48  # seeds


def linux(version: str, groups: str, **more: object) -> dict[str, object]:
    """A KVM host on a Skylake machine with this version and layout."""
    return {"profile": "skylake-kvm-6.6", "host.linux": version, "host.groups": groups} | more


@dataclass(frozen=True)
class Contrast:
    """Two settings of one machine.

    Attributes:
        case: `F1`, as docs/field-cases.md numbers them.
        what: which of the case's contrasts.
        world: the machine.
        base: settings of both sides.
        change: those of the second side, besides.
        rules: who decides, on the first and on the second side.
        runs: seeds.
    """

    case: str
    what: str
    world: str
    base: Settings = field(default_factory=dict)
    change: Settings = field(default_factory=dict)
    rules: tuple[str, str] = ("host", "host")
    runs: int = SOME

    def sides(self) -> list[tuple[str, str]]:
        """Policy and overrides' text of both sides."""
        settings = ({**self.base}, {**self.base, **self.change})
        return [(rule, overrides_text(own)) for rule, own in zip(self.rules, settings, strict=True)]


@dataclass(frozen=True)
class Turns:
    """F13: holders take turns; how long does it all take?

    Attributes:
        what: the host, and who decides.
        world: the machine.
        settings: of the host.
        rule: who decides.
    """

    what: str
    world: str
    settings: Settings
    rule: str


def _build() -> list[Contrast]:
    cases = [
        Contrast("F1", f"{pcpus} pCPUs, ticket", f"FieldBuild{pcpus}", NO_PLE, {"ple.gap": 41}, runs=MANY)
        for pcpus in (2, 8, 32)
    ]
    unfair = every("FieldBuild8", lock_kind="tas")
    return [*cases, Contrast("F1", "8 pCPUs, test-and-set", "FieldBuild8", {**NO_PLE, **unfair}, {"ple.gap": 41})]


def _filter() -> list[Contrast]:
    both = {"ticket": {}, "test-and-set": every("FieldFilter24", lock_kind="tas")}
    return [
        Contrast("F2", f"24 pCPUs, {kind}", "FieldFilter24", {**NO_FILTER, **own}, {"ple.count": 3000})
        for kind, own in both.items()
    ]


def _limit() -> list[Contrast]:
    none, short, long = ({"host.ratelimit_us": us} for us in (0, 1000, 10_000))
    return [
        Contrast("F3", "1 ms against none", "FieldTiles", none, short, runs=FEW),
        Contrast("F3", "10 ms against 1 ms", "FieldTiles", short, long, runs=FEW),
        Contrast("F3", "1 ms against none, a switch refills 30 us", "FieldTiles",
                 {**none, "cost.cache": 80_100}, {**short, "cost.cache": 80_100}, runs=FEW),
    ]  # fmt: skip


def _halting() -> list[Contrast]:
    machines = {vms: f"Field32x{vms}-medium" for vms in (1, 2, 3, 4)}
    return [
        Contrast("F5", f"{vms}x", name, {}, every(name, pv_spin_threshold=32_768)) for vms, name in machines.items()
    ]


def _flushing() -> list[Contrast]:
    steps = {"woken": ("Lock", ("kvm-5.2", "kvm-5.4")), "interrupted": ("", ("kvm-5.4", "kvm-5.13"))}
    host = linux("5.15", "vm", **{"host.ipi_visible": True})
    found = [
        Contrast("F6", f"{whom}, {vms}x", f"FieldEbizzy{under}{vms}", host, {}, rules, runs)
        for whom, (under, rules) in steps.items() for vms, runs in ((1, 2), (2, FEW), (3, FEW))
    ]  # fmt: skip
    found += [
        Contrast("F6", f"{whom}, beside tasks", f"FieldEbizzy{under}8", host, {}, rules)
        for whom, (under, rules) in steps.items()
    ]
    xen, call = {"profile": "xen-4.20-credit2"}, {"guest.ipi_to": "running"}
    one_by_one, at_once = ({"guest.program": flushing(exits)} for exits in (31, 1))
    return [
        *found,
        *(Contrast("F15", f"{vms}x", f"FieldShim{vms}", xen, call, runs=FEW) for vms in (1, 2)),
        Contrast("F15", "1x, an exit each", "FieldShim1", {**xen, **one_by_one}, {**call, **at_once}, runs=FEW),
    ]


def _unfair() -> list[Contrast]:
    name = "FieldTicket8"
    unfair, halts = every(name, lock_kind="tas"), every(name, pv_spin_threshold=2048)
    never = every(name, lock_kind="tas", pv_spin_threshold=0)
    hot = {**NO_PLE, **every(name, locks=2, lock_probability=0.6)}
    return [
        Contrast("F8", "without PLE", name, NO_PLE, unfair, runs=MANY),
        Contrast("F8", "without PLE, two hot locks", name, hot, unfair, runs=MANY),
        Contrast("F8", "with PLE", name, {}, unfair, runs=MANY),
        Contrast("F8", "without PLE, from ticket locks that halt", name, {**NO_PLE, **halts}, never),
    ]


def _candidates() -> list[Contrast]:
    cases = []
    for version, own in KVM.items():
        for groups in ("flat", "vm"):
            window = {"ple.window_grow": 0} if version == "5.15" else {}
            for load in ("mild", "medium"):
                name, host = f"Field32x2-{load}", linux(version, groups, **window)
                where = f"{version}, {groups}, {load}"
                others = {"F4": ("kvm-2012", own), "F4 yield": ("host", own), "F10": (own, "oracle")}
                cases += [Contrast(case, where, name, host, {}, rules) for case, rules in others.items()]
    return cases


#: Cycles that the handler spends for each sibling that it looks at: nothing, a few lines, two queues' locks.
LOOKS = (0, 100, 2000)


def _one_to_one() -> list[Contrast]:
    cases = []
    for cycles in LOOKS:
        for kind in ("ticket", "tas"):
            own = every("FieldPinned64", lock_kind=kind) | {"cost.exit_per_candidate": cycles}
            host = {**linux("5.15", "vm"), "ple.window_grow": 0, **own}
            rules = ("kvm-2012", "kvm-2012")
            what = f"{kind}, {cycles:,} cycles a sibling"
            cases.append(Contrast("F11", what, "FieldPinned64", host, NO_PLE, rules))
    return cases


def _web() -> list[Contrast]:
    cases = []
    for version in ("5.15", "6.18.2"):
        for locks, own in (("8 locks", {}), ("one hot lock", {"guest.hot_probability": 1.0})):
            rules = (KVM[version], KVM[version])
            host = {**linux(version, "vm"), **own}
            cases.append(Contrast("F12", f"{version}, {locks}", "FieldWeb16", host, NO_PLE, rules))
    return cases


CONTRASTS = (
    *_build(), *_filter(), *_limit(), *_candidates(), *_halting(), *_unfair(), *_one_to_one(), *_web(), *_flushing()
)  # fmt: skip

XEN: Mapping[str, Settings] = {
    "Xen 4.5": {},
    "Xen 4.8": {"host.xen": "4.8"},
    "Xen 4.18": {"host.xen": "4.18"},
    "credit2": {"profile": "xen-4.20-credit2"},
}


def _turns() -> list[Turns]:
    found = []
    for vcpus in (8, 16, 32):
        name = f"FieldFirmware{vcpus}"
        found.append(Turns("no PLE", name, NO_PLE, "host"))
        found += [Turns(host, name, settings, "host") for host, settings in XEN.items()]
    for version, own in KVM.items():
        for groups in LAYOUTS:
            for refill, cost in (("", {}), (", no refill", NO_REFILL)):
                for rule in ("host", own):
                    host = linux(version, groups, **cost)
                    found.append(Turns(f"{version}, {groups}{refill}", "FieldFirmware16", host, rule))
    for groups in LAYOUTS:
        host: Settings = {"profile": "zen-kvm-6.18", "host.groups": groups}
        found += [Turns(f"zen 6.18.2, {groups}", "FieldFirmware16", host, rule) for rule in ("host", "kvm-6.18")]
    return found


TURNS = tuple(_turns())
COLUMNS = ("finished", "now_us", "useful_us", "switches", "exits")


def measure(task: Task) -> dict[str, int]:
    """A run in microseconds; useful ones of all pCPUs together."""
    run = totals(task)
    useful_us = run["useful"] * 1_000_000 // world(task.scenario, task.overrides).host.tsc_hz
    kept = {name: run[name] for name in ("finished", "now_us", "switches", "exits")}
    return {**kept, "useful_us": useful_us}


def run(quick: bool) -> list[Task]:
    """Both sides of every contrast, and the turns."""
    wanted = []
    for one in CONTRASTS:
        for policy, overrides in one.sides():
            wanted += [
                task._replace(overrides=overrides)
                for task in tasks(one.world, policy, seeds.HOSTS[: 1 if quick else one.runs])
            ]
    for turn in TURNS[::8] if quick else TURNS:
        wanted += tasks(turn.world, turn.rule, seeds.HOSTS[: 1 if quick else 4], turn.settings)
    return wanted


def rows(table: Table, name: str, policy: str, overrides: str) -> Table:
    """The runs of a machine under a rule and settings."""
    return table.where(scenario=name, policy=policy, overrides=overrides)


def sides(table: Table, one: Contrast) -> list[Table]:
    """The runs of both sides, on the same seeds."""
    found = [rows(table, one.world, *side) for side in one.sides()]
    shared = np.intersect1d(*(side["seed"] for side in found))[: one.runs]
    return [side.select(np.isin(side["seed"], shared)) for side in found]


def throughput(side: Table) -> Floats:
    """pCPUs that do useful work, per run."""
    useful: Floats = side["useful_us"] / side["now_us"]
    return useful


def change(table: Table, one: Contrast) -> Estimate:
    """Of the throughput, in percent; in F15, of the time until all is done, or the run was cut off."""
    first, second = (side["now_us"] if one.case == "F15" else throughput(side) for side in sides(table, one))
    return in_percent(ratio(np.log(second / first)))


def per_second(side: Table, what: str) -> float:
    """Switches or exits of a second."""
    return 1e6 * float((side[what] / side["now_us"]).mean())


def times(table: Table, turn: Turns) -> tuple[float, bool]:
    """Time over work of the turns, mean over runs, and whether all runs came to their end."""
    own = rows(table, turn.world, turn.rule, overrides_text(turn.settings))
    return float((own["now_us"] / np.maximum(1, own["useful_us"])).mean()), bool(own["finished"].all())


def told(times_: float, ended: bool) -> str:
    """A ratio of times; `or more` if a run was cut off."""
    return f"{times_:.2f}" if ended else f"more than {times_:.1f}" if times_ < 20 else f"more than {times_:,.0f}"


def checks(table: Table) -> list[Check]:
    """Every contrast with its interval, and the turns that were run; reported only, tests say what must hold."""
    found = []
    for one in CONTRASTS:
        first, second = sides(table, one)
        text = percent(change(table, one))
        text += f"; {per_second(first, 'switches'):,.0f} -> {per_second(second, 'switches'):,.0f} switches a second"
        found.append(Check("field", f"{one.case}, {one.what}", text))
    for turn in (turn for turn in TURNS if len(rows(table, turn.world, turn.rule, overrides_text(turn.settings)))):
        found.append(Check("field", f"F13, {turn.world}, {turn.what}, `{turn.rule}`", told(*times(table, turn))))
    return found


EXPERIMENT = Experiment("field", __doc__, COLUMNS, run, checks, measure=measure)
