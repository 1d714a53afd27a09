"""Do effects come out that people have published of KVM? Signs and orders; nothing is fitted to their sizes.

5.1 is the RFC that let KVM pass over vCPUs which had just left by an exit themselves (Raghavendra K T, 2012-07-10), 5.2
the ticket locks that halt (V12, 545ac13892ab, 2013). Both had hosts with 32 pCPUs and VMs of 32 vCPUs. No source says
how often its load takes which lock, so the loads are ours (experiments/lab/field.py), and each effect is looked for
under two of them. The host is Linux 5.15, as no older one is modelled.

5.3 is the kick that yields (266e85a5ec9f, 2019; 1 to 3 VMs, the model, 15.14), beside KVM's exits or without any.

5.4 is what Linux 5.4 took back: waiters that halt behind one that is off its pCPU (three VMs of 80 vCPUs, 80 pCPUs).

5.5 is the choice of candidates that knows of interrupts (Li, v2 of 2025-12-18; PARSEC's dedup and vips in VMs of 16
vCPUs on 16 pCPUs, on 6.19-rc1), 5.6 the strict boost (Ishiguro et al., 2021; four VMs of 8 vCPUs, on 5.6). Their guests
interrupt all siblings again and again here, since no source says how often those did. Both come with a debooster (the
model, 15.13); Li's was measured with dbench, for which `KvmDbench` stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments.answer.field import Contrast, Settings, change, linux, sides, throughput
from experiments.lab import Experiment, Table, Task, seeds, tasks, totals, world
from experiments.lab.field import every
from experiments.lab.report import Check, within
from ple_gym.evaluate.statistics import Estimate

HOST: Settings = linux("5.15", "vm", **{"ple.window_grow": 0})
NEWEST: Settings = linux("6.18.2", "vm")
RUNS = 12  # seeds
SIZES = (1, 2, 3, 4)  # VMs: how often each pCPU is promised
CLIFF = 40
"""Percent of the throughput alone: at 2x a VM has clearly less, though its fair share is half."""
FAIR = 2
"""Percent of its fair share by which a VM may be off."""
SEES_WHO_RUNS = "with a pCPU for each vCPU nobody is queued, and a rule sees that: there is nothing to pass over"
NOT_KNOWN = "why is not known (docs/field-cases.md, F4)"
NO_FADING = "at 2x KVM's own choice leaves nothing to gain here, 97 % of the pCPUs' time is useful; at 4x half of it is"
FEW_BESIDE = "it acts where a hint is at a sibling on the asker's own pCPU: few are"
WIDE = "the mean is above 0; runs differ by more than that"
STOLEN = "thieves use the lock meanwhile: more than 92 % of the time is useful without it"
EXITS_FIRST = "few waiters halt: one looks after 12,800 cycles of spinning, and exits after 4,096"
THE_LOAD = "it is the load: with fewer locks, taken more often, it comes out (heavy)"


def _skipping(load: str) -> Mapping[int, Contrast]:
    rules = ("kvm-2012", "kvm-5.4")
    return {vms: Contrast("5.1", f"{load}, {vms}x", f"Field32x{vms}-{load}", HOST, {}, rules, RUNS) for vms in (1, 2)}


def _halting(load: str) -> Mapping[int, Contrast]:
    names, rules = {vms: f"Field32x{vms}-{load}" for vms in SIZES}, ("kvm-5.4", "kvm-5.4")
    return {
        vms: Contrast("5.2", f"{load}, {vms}x", name, HOST, every(name, pv_spin_threshold=32_768), rules, RUNS)
        for vms, name in names.items()
    }


def _patient(load: str) -> Contrast:
    name, rules = f"Field32x3-{load}", ("kvm-5.4", "kvm-5.4")
    early = every(name, lock_kind="pv", pv_spin_threshold=32_768, pv_early_wait=True)
    return Contrast("5.4", load, name, {**HOST, **early}, every(name, pv_early_wait=False), rules, RUNS)


def _kicking(settings: Settings, **guest: object) -> Mapping[int, Contrast]:
    names, rules = {vms: f"Field32x{vms}-heavy" for vms in SIZES[:3]}, ("kvm-5.4", "kvm-5.4")
    host, pv = linux("5.15", "vm", **settings), {"lock_kind": "pv", "pv_spin_threshold": 32_768, **guest}
    return {
        vms: Contrast("5.3", f"{vms}x", name, {**host, **every(name, **pv)}, {"host.kick_yields": True}, rules, RUNS)
        for vms, name in names.items()
    }


KICKING = {"heavy": _kicking({}), "one lock, no exits": _kicking({"ple.gap": 0}, locks=1)}
PATIENT = {load: _patient(load) for load in ("medium", "heavy")}
SKIPPING = {load: _skipping(load) for load in ("mild", "medium")}


def _aware(every_us: int) -> Mapping[tuple[str, int], Contrast]:
    """KVM's choice against Li's, or against itself, where the hypervisor sees interrupts, or does not."""
    sees: Settings = {"host.ipi_visible": True}
    ways: Mapping[str, tuple[Settings, Settings, str]] = {
        BLIND: ({}, {}, "ipi-aware"), BOTH: ({}, sees, "ipi-aware"), SEEING: ({}, sees, "kvm-6.18"),
        AWARE: (sees, {}, "ipi-aware"),
    }  # fmt: skip
    return {
        (way, vms): Contrast(
            "5.5", f"{way}, {every_us} us, {vms}x", f"FieldShoot16x{vms}-{every_us}us", {**NEWEST, **base}, change,
            ("kvm-6.18", rule), RUNS,
        )
        for way, (base, change, rule) in ways.items() for vms in SIZES[1:]
    }  # fmt: skip


def _deboosted(placement: str) -> Mapping[int, Contrast]:
    """Two to four VMs of `KvmDbench`, whose siblings start on different pCPUs or together on a few, without an end."""
    endless: Settings = {"guest.transactions": 0, "limit.simulated_s": 0.3, "host.placement": placement}
    rules = ("kvm-6.18", "kvm-6.18")
    return {
        vms: Contrast(
            "5.5", f"debooster, {placement}, {vms}x", "KvmDbench", {**NEWEST, **endless, "guest.count": vms},
            {"host.debooster": "li"}, rules, RUNS,
        )
        for vms in SIZES[1:]
    }  # fmt: skip


def _strict(every_us: int, **change: object) -> Contrast:
    name, sees = f"FieldShoot8x4-{every_us}us", {**HOST, "host.ipi_visible": True}
    return Contrast("5.6", f"{every_us} us", name, sees, change, ("kvm-5.4", "strict-boost"), RUNS)


HALTING = {load: _halting(load) for load in ("medium", "heavy")}
BLIND = "its second round alone, nothing seen"
SEEING = "KVM's own choice, once it sees interrupts"
BOTH = "both"
AWARE = "its choice, where both see interrupts"
EVERY_US = (110, 1350)
AWARENESS = {every_us: _aware(every_us) for every_us in EVERY_US}
DEBOOSTED = {placement: _deboosted(placement) for placement in ("spread", "stacked")}
STRICT = {every_us: _strict(every_us) for every_us in EVERY_US}
STICKY = {every_us: _strict(every_us, **{"host.debooster": "ishiguro"}) for every_us in EVERY_US}
CONTRASTS = [
    *(one for group in (SKIPPING, HALTING) for own in group.values() for one in own.values()),
    *(one for own in AWARENESS.values() for one in own.values()),
    *(one for own in KICKING.values() for one in own.values()),
    *PATIENT.values(),
    *(one for own in DEBOOSTED.values() for one in own.values()),
    *STRICT.values(),
    *STICKY.values(),
]
COLUMNS = ("now_us", "useful_us", "exits", "share_ppm")


def measure(task: Task) -> dict[str, int]:
    """A run in microseconds; and what the first VM used, of its fair share, in millionths."""
    run, scenario = totals(task), world(task.scenario, task.overrides)
    used = [run[f"used_{vm}"] for vm in range(len(scenario.vms()))]
    useful_us = run["useful"] * 1_000_000 // scenario.host.tsc_hz
    return {
        "now_us": run["now_us"],
        "useful_us": useful_us,
        "exits": run["exits"],
        "share_ppm": 1_000_000 * len(used) * used[0] // max(1, sum(used)),
    }


def run(quick: bool) -> list[Task]:
    """Both sides of every contrast, each once."""
    wanted = {(one.world, policy, overrides) for one in CONTRASTS for policy, overrides in one.sides()}
    return [
        task._replace(overrides=overrides)
        for name, policy, overrides in sorted(wanted)
        for task in tasks(name, policy, seeds.HOSTS[: 1 if quick else RUNS])
    ]


def above(row: str, metric: str, gain: Estimate, reason: str) -> Check:
    """A gain in percent, which is one if its whole interval lies above 0."""
    low, high = gain.low, gain.high
    ends = "" if low is None or high is None else f" [{low:+.1f}, {high:+.1f}]"
    passed = low is not None and low > 0
    return Check(row, metric, f"{gain.mean:+.1f}{ends} %", "above 0 %", passed, reason="" if passed else reason)


def of_a_vm(side: Table, vms: int) -> float:
    """Throughput of each of so many VMs, mean over runs."""
    return float(throughput(side).mean()) / vms


def _skipped(table: Table, load: str) -> list[Check]:
    gains = {vms: change(table, one) for vms, one in SKIPPING[load].items()}
    more = gains[1].mean - gains[2].mean
    return [
        above("5.1", f"{load}: passing over spinners gains at 1x", gains[1], SEES_WHO_RUNS),
        above("5.1", f"{load}: the same at 2x", gains[2], NOT_KNOWN),
        within("5.1", f"{load}: 1x gains more than 2x", more, 0, None, "points", 1, reason=SEES_WHO_RUNS),
    ]


def _halted(table: Table, load: str) -> list[Check]:
    alone, *shared = (of_a_vm(sides(table, one)[0], vms) for vms, one in HALTING[load].items())
    rest = [100 * throughput_ / alone for throughput_ in shared]
    gains = {vms: change(table, one) for vms, one in HALTING[load].items()}
    more = gains[2].mean - max(gains[vms].mean for vms in SIZES if vms != 2)
    left = [
        within(
            "5.2", f"{load}: throughput of a VM at {vms}x, of that at 1x", part, None, least, "%", 1, reason=THE_LOAD
        )
        for vms, part, least in zip(SIZES[1:], rest, (CLIFF, 100 // 3, 100 // 4), strict=True)
    ]
    return [
        *left,
        *(Check("5.2", f"{load}: halting gains at {vms}x", f"{gain.mean:+.1f} %") for vms, gain in gains.items()),
        within("5.2", f"{load}: 2x gains more than any other", more, 0, None, "points", 1, reason=THE_LOAD),
    ]


def _kicked(table: Table, load: str) -> list[Check]:
    first, *gains = (change(table, one) for one in KICKING[load].values())
    found = [above("5.3", f"{load}: a kick yields, at {vms}x", gain, STOLEN) for vms, gain in enumerate(gains, 2)]
    return [*found, Check("5.3", f"{load}: a kick yields, at 1x", f"{first.mean:+.1f} %")]


def _made_patient(table: Table, load: str) -> Check:
    early, patient = (throughput(side).mean() for side in sides(table, PATIENT[load]))
    what = f"{load}: throughput at 3x without the early halt, of that with it"
    return within("5.4", what, float(patient / early), 3, None, "times", 2, reason=EXITS_FIRST)


def _made_aware(table: Table, every_us: int) -> list[Check]:
    gains = {key: change(table, one) for key, one in AWARENESS[every_us].items()}
    found = [above("5.5", f"{every_us} us: {BOTH}, at {vms}x", gains[BOTH, vms], "") for vms in SIZES[1:]]
    least = gains[BOTH, 2].mean - gains[BOTH, 4].mean
    found.append(within("5.5", f"{every_us} us: 2x gains more than 4x", least, 0, None, "points", 1, reason=NO_FADING))
    return found + [
        Check("5.5", f"{every_us} us: {way}, at {vms}x", f"{gain.mean:+.1f} %")
        for (way, vms), gain in gains.items()
        if way != BOTH
    ]


def _made_to_stick(table: Table, placement: str) -> list[Check]:
    gains = {vms: change(table, one) for vms, one in DEBOOSTED[placement].items()}
    found = [
        above("5.5", f"debooster, {placement}, at {vms}x", gain, WIDE if gain.mean > 0 else FEW_BESIDE)
        for vms, gain in gains.items()
    ]
    more = gains[2].mean - gains[4].mean
    fades = within(
        "5.5", f"debooster, {placement}: 2x gains more than 4x", more, 0, None, "points", 1, reason=FEW_BESIDE
    )
    return [*found, fades]


def _made_strict(table: Table, what: str, one: Contrast) -> Check:
    before, after = sides(table, one)
    fewer = 100 * (1 - after["exits"].sum() / max(1, before["exits"].sum()))
    return within("5.6", f"{one.what}: exits that {what} avoids", fewer, 50, None, "%", 1)


def checks(table: Table) -> list[Check]:
    """The published signs and orders, and the sizes beside them."""
    found = [check for load in SKIPPING for check in _skipped(table, load)]
    found += [check for load in HALTING for check in _halted(table, load)]
    found += [check for load in KICKING for check in _kicked(table, load)]
    found += [_made_patient(table, load) for load in PATIENT]
    found += [check for every_us in EVERY_US for check in _made_aware(table, every_us)]
    found += [check for placement in DEBOOSTED for check in _made_to_stick(table, placement)]
    found += [_made_strict(table, "strict boost", one) for one in STRICT.values()]
    found += [_made_strict(table, "strict boost with the debooster", one) for one in STICKY.values()]
    off = [_off_its_share(table, one) for own in HALTING.values() for one in own.values()]
    found.append(within("shares", "a VM's mean share off its fair one, the worst world", max(off), None, FAIR, "%", 2))
    return found


def _off_its_share(table: Table, one: Contrast) -> float:
    """In percent; of the side on which nobody sleeps, so that every VM wants all that it can get."""
    shares = sides(table, one)[0]["share_ppm"]
    return abs(float(shares.mean()) / 1e6 - 1) * 100


EXPERIMENT = Experiment("published", __doc__, COLUMNS, run, checks, measure=measure)
