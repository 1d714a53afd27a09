"""Files of a machine, measured one by one and put together into a scenario in which every line says where it is from.

What several files tell is taken from the first one that tells it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from ple_gym.errors import TraceError
from ple_gym.measure.guest import GuestMeter, Noise, VmMeasures, exit_period
from ple_gym.measure.host import HostMeter
from ple_gym.messages import escaped, plain, shown_path
from ple_gym.scenario.distributions import MAX_VALUE, QUANTILES, quantile_table
from ple_gym.scenario.model import Scenario, Vm
from ple_gym.traces.events import NOISE_BEGIN, RUN, STOP
from ple_gym.traces.lock_tables import LockTable
from ple_gym.traces.readers import Reading
from ple_gym.traces.sources import Found, read_source
from ple_gym.traces.tables import EventTable

WORK_MS = 250  # of the guest, in ms of the whole machine
PATIENCE = 20  # a run is cut off after so many times its work
DEFAULT = "default: not in your files"
#: Probabilities of the knots; one of the tail is left out where fewer than ten values lie beyond it.
_PROBABILITIES = (
    0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.998, 0.999,
)  # fmt: skip
#: What stands in the file even if it is in no file of the user's, as it matters and somebody may know it.
SHOWN = (
    "name", "description", "host.scheduler", "host.pcpus", "host.sockets", "host.tsc_hz", "host.timeslice_ms",
    "host.ratelimit_us", "cost.exit", "cost.switch", "cost.cache", "cost.migration", "ple.kind", "ple.gap",
    "ple.window", "limit.simulated_s", "guest.vcpus", "guest.count", "guest.locks", "guest.lock_kind",
    "guest.transactions", "guest.sections", "guest.compute", "guest.hold", "guest.block", "guest.kernel_share",
    "guest.lock_probability", "guest.hot_probability", "guest.block_probability", "guest.spin_period",
)  # fmt: skip

#: A parameter's value and the statistic that it comes from.
Told: TypeAlias = tuple[Any, str]


@dataclass
class Measured:
    """What one file tells.

    path: the file; found: what was read; machine: parameters of the machine by dotted name; vms: what was measured of
    its VMs, largest part first; guests: parameters of these by their names in a VM's table; sleeps: how often a vCPU
    sleeps in a cycle of its guest's time; switches: whether events tell who has a pCPU; seconds: how long a table of
    locks has counted, 0 if nobody knows.
    """

    path: str
    found: Found
    machine: dict[str, Told] = field(default_factory=dict)
    vms: list[VmMeasures] = field(default_factory=list)
    guests: list[dict[str, Told]] = field(default_factory=list)
    sleeps: list[Told] = field(default_factory=list)
    switches: bool = True
    seconds: float = 0.0


def measure_file(path: str, scenario: Scenario, seconds: float = 0.0, form: str = "") -> Measured:
    """Read a file and measure what it tells.

    Args:
        path: the file.
        scenario: what is known of the machine: costs, clock, sockets, the PLE window.
        seconds: how long a table of locks has counted; 0: unknown.
        form: its kind, a name in `ple_gym.traces.sources.SOURCES`; empty: its suffix says it.

    Raises:
        TraceError: it cannot be read, nothing is in it, or no vCPU.
    """
    found = read_source(path, form)
    name = plain(PurePath(path).name)
    measured = Measured(path, found, seconds=seconds)
    if isinstance(found, EventTable):
        _measure_events(measured, found, scenario, name)
    elif isinstance(found, Reading):
        _measure_host(measured, found, scenario, name)
    else:
        _measure_locks(measured, found, scenario, name)
    return measured


# ---------------------------------------------------------------------------------------------------- each kind of file


def _measure_events(measured: Measured, found: EventTable, scenario: Scenario, name: str) -> None:
    rows, machine = found.rows, measured.machine
    kinds = rows[:, 1]
    if not len(found.vm_of):
        raise TraceError(f"{shown_path(measured.path)}: no vCPU in it")
    switches = measured.switches = bool(np.isin(kinds, (RUN, STOP)).any())
    if found.hz:
        machine["host.tsc_hz"] = found.hz, f"{name}: tsc against ns"
    pcpus = len(np.unique(rows[rows[:, 2] >= 0, 2]))
    if pcpus:
        machine["host.pcpus"] = pcpus, f"{name}: pCPUs with events"
    gap, count = exit_period(rows)
    window, what = _window(scenario)
    if count and not scenario.ple.window_grow and 1 <= gap - window <= 10**8:
        why = f"{name}: median of {count:,} times from exit to exit, {gap:,.0f}, less the window's {window:,} ({what})"
        machine["cost.exit"] = round(gap - window), why
    known = scenario.with_overrides({key: value for key, (value, _) in machine.items() if key != "host.tsc_hz"})
    meter = GuestMeter(known, found.vm_of, switches)
    meter.add(rows)
    measured.vms = meter.vms()
    if (kinds == NOISE_BEGIN).any() and pcpus:
        _tell_noise(machine, meter.noise(pcpus), found.hz or scenario.host.tsc_hz, f"{name}: NOISE_BEGIN to NOISE_END")
    how = "guest time" if switches else "time of the clock, with preemptions: it has no switches"
    for vm in measured.vms:
        told, samples = _sizes(vm, name), vm.samples
        computed = sum(samples["compute"])
        if computed:
            stretches = len(samples["compute"])
            told["compute"] = (
                distribution(samples["compute"]),
                (f"{name}: {stretches:,} stretches without lock or sleep, {how}"),
            )
            told["lock_probability"] = _share(vm.asked, stretches), f"{name}: stretches that end at a lock"
            measured.sleeps.append((len(samples["block"]) / computed, f"{name}: {len(samples['block']):,} sleeps"))
        else:
            measured.sleeps.append((0.0, ""))
            if switches and not vm.tries:
                told["compute"] = "constant 1000000000", f"{name}: it has neither lock nor sleep"
                told["lock_probability"] = 0.0, f"{name}: it has no lock"
        if samples["hold"]:
            told["hold"] = distribution(samples["hold"]), f"{name}: {len(samples['hold']):,} holds, {how}"
        _tell_locks(told, vm.locks, name)
        if found.pcs:
            told["pc_classes"] = min(found.pcs, 4096), f"{name}: different addresses of exits"
        measured.guests.append(told)


def _measure_host(measured: Measured, found: Reading, scenario: Scenario, name: str) -> None:
    meter, machine = HostMeter(found.trace, scenario.host.tsc_hz), measured.machine
    measured.vms = meter.vms()
    if not measured.vms:
        raise TraceError(
            f"{shown_path(measured.path)}: no vCPU in it: no kvm_entry, kvm_exit, or task that is called CPU 0/KVM"
        )
    machine["host.scheduler"] = "fair", f"{name}: Linux made it"
    if meter.pcpus:
        machine["host.pcpus"] = meter.pcpus, f"{name}: CPUs that vCPUs ran on"
    for parameter, values, what in (
        ("cost.exit", meter.exits, "kvm_exit for PAUSE to kvm_entry"),
        ("cost.switch", meter.switches, "sched_switch to kvm_entry"),
    ):
        if values:
            median = min(10**8, max(1, round(float(np.median(np.array(values))))))
            machine[parameter] = median, f"{name}: median of {len(values):,} from {what}"
    _tell_noise(machine, meter.noise(), scenario.host.tsc_hz, f"{name}: other tasks on these CPUs")
    for vm in measured.vms:
        measured.guests.append(_sizes(vm, name))
        count = len(vm.samples["block"])
        measured.sleeps.append((count / vm.ran if vm.ran else 0.0, f"{name}: {count:,} sleeps"))


def _measure_locks(measured: Measured, found: LockTable, scenario: Scenario, name: str) -> None:
    told: dict[str, Told] = {}
    hz, classes, seconds = scenario.host.tsc_hz, found.classes, measured.seconds
    acquired = sum(one.acquired for one in classes)
    held = [one for one in classes if one.held >= 0]
    times = sum(one.acquired for one in held)
    hold = 0.0
    if times:
        hold = sum(one.held for one in held) / times * hz / 1e9
        told["hold"] = f"exponential {_whole(hold)}", f"{name}: mean of {times:,} holds; its shape is assumed"
    if seconds and acquired:
        vcpus = scenario.guest.vcpus * scenario.guest.count
        busy = vcpus * seconds * hz
        told["compute"] = (
            f"exponential {_whole(busy / acquired - hold)}",
            (f"{name}: {acquired:,} acquisitions in {seconds:g} s of {vcpus} busy vCPUs; its shape is assumed"),
        )
        told["lock_probability"] = 1.0, f"{name}: a stretch ends at a lock"
    _tell_locks(told, [{one.name: one.acquired for one in classes if one.acquired}], name)
    measured.guests = [told]


def _sizes(vm: VmMeasures, name: str) -> dict[str, Told]:
    told: dict[str, Told] = {"vcpus": (vm.vcpus, f"{name}: vCPUs"), "count": (vm.count, f"{name}: VMs of this kind")}
    if vm.samples["block"]:
        count = len(vm.samples["block"])
        told["block"] = distribution(vm.samples["block"]), f"{name}: {count:,} sleeps, until the wake-up"
    return told


def _tell_locks(told: dict[str, Told], vms: Sequence[Mapping[Any, int]], name: str) -> None:
    """How many locks there are, and whether one is hot: more often asked for than chance has it."""
    total = sum(sum(locks.values()) for locks in vms)
    if not total:
        return
    count = max(1, min(4096, round(sum(map(len, vms)) / len(vms))))
    told["locks"] = count, f"{name}: different locks of a VM"
    most, even = sum(max(locks.values(), default=0) for locks in vms), total / count
    if count > 1:
        hot = (most - even) / (total - even) if most > even + 4 * (even * len(vms)) ** 0.5 else 0.0
        told["hot_probability"] = float(f"{hot:.6g}"), f"{name}: {most:,} of {total:,} asked for the busiest lock"


def _tell_noise(machine: dict[str, Told], noise: Noise, hz: int, why: str) -> None:
    if not noise.begun or noise.open <= 0:
        return
    total, count = sum(noise.bursts), len(noise.bursts)
    rate, burst = noise.begun * hz / noise.open, total / max(1, count) * 1e6 / hz
    how = "at least, as they wait for the rate limit" if noise.waited else "in the time in which they may begin"
    share = rate * burst / (10**6 + rate * burst)
    machine["noise.rate_hz"] = min(10**6, max(1, round(rate))), f"{why}: {noise.begun:,}, {how}"
    machine["noise.burst_us"] = min(10**6, max(1, round(burst))), f"{why}: mean of {count:,}"
    machine["noise.level"] = "constant 1000", f"{why}: the rate is that of the file"
    machine["noise.cap_permille"] = min(999, max(180, round(1100 * share))), f"{why}: a tenth above it, or the default"


def _window(scenario: Scenario) -> tuple[int, str]:
    """Cycles from exit to exit of a vCPU that only spins (docs/model.md, 8.3), and what says it."""
    ple, g = scenario.ple, scenario.guest.spin_period
    return (ple.count * g, "ple.count") if ple.kind == "count" else ((ple.window // g + 1) * g, "ple.window")


# --------------------------------------------------------------------------------------------------------- all together


@dataclass(frozen=True)
class Machine:
    """The scenario, and where each of its parameters comes from, by dotted name."""

    scenario: Scenario
    notes: Mapping[str, str]

    def to_toml(self, head: Sequence[str] = ()) -> str:
        """The scenario's file; `head`: lines of comments that come first."""
        lines = [*head, "# What is left out takes its default, too: ple-gym show FILE"]
        usual, title = Scenario(neighbours=(Vm(),) * len(self.scenario.neighbours)).parameters(), ""
        for name, line in _toml_lines(self.scenario):
            if not name:
                title = line
                continue
            note, default = self.notes.get(name, ""), self.scenario.parameters()[name] == usual[name]
            if note or not default or name.replace(name.rpartition(".")[0], _table(name), 1) in SHOWN:
                lines += ["", title] if title else []
                title = ""
                lines.append(f"{line}  # {note or (DEFAULT if default else '--set')}")
        return "\n".join(lines) + "\n"


def _table(name: str) -> str:
    table = name.rpartition(".")[0]
    return "guest" if table.startswith("neighbours.") else table


def _toml_lines(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Lines of its TOML with the dotted names of what they set; empty for heads."""
    prefix, number = "", -1
    for line in scenario.to_toml().splitlines():
        if line.startswith("[["):
            number += 1
            prefix = f"neighbours.{number}."
            yield "", line
        elif line.startswith("["):
            prefix = f"{line.strip('[]')}."
            yield "", line
        elif line:
            yield f"{prefix}{line.partition(' = ')[0]}", line


def assemble(name: str, files: Sequence[Measured], changes: Mapping[str, object]) -> Machine:
    """The scenario of what was measured.

    Args:
        name: of the scenario.
        files: what was measured; the first that tells something is believed.
        changes: overrides, which come last; a profile comes first.

    Raises:
        ScenarioError: the values do not fit together, or an override is wrong.
    """
    told, several, first = _first_told(files)
    if "profile" in changes:
        told.pop("host.scheduler", None)
    start = Scenario(neighbours=(Vm(),) * (len(several) - 1))
    tables = list(start.tables())
    for table, guest in zip(tables, several, strict=True):
        told |= {f"{table}.{key}": value for key, value in guest.items()}

    def changed() -> Scenario:
        return start.with_overrides({**{key: value for key, (value, _) in told.items()}, **changes})

    scenario = changed()
    for number, table in enumerate(tables):
        rates = [one.sleeps[number] for one in (files if not number else [first]) if number < len(one.sleeps)]
        rate, why = next((one for one in rates if one[0]), (0.0, ""))
        if rate:
            share = min(1.0, rate * mean_of(scenario.tables()[table].compute))
            told[f"{table}.block_probability"] = float(f"{share:.6g}"), f"{why}, per time to compute"
    told |= _work(scenario)
    sizes = ", ".join(f"{vm.count} x {vm.vcpus}" for vm in scenario.tables().values())
    about = f"VMs x vCPUs: {sizes}, on {scenario.host.pcpus} pCPUs: {scenario.vcpus / scenario.host.pcpus:.3g} per pCPU"
    told |= {"name": (name, "the file's name"), "description": (about, "sizes, and overcommit")}
    notes = {key: why for key, (_, why) in told.items() if key not in changes} | dict.fromkeys(changes, "--set")
    return Machine(changed(), {key: escaped(why) for key, why in notes.items()})


def _first_told(files: Sequence[Measured]) -> tuple[dict[str, Told], list[dict[str, Told]], Measured]:
    """What is told of the machine and of each VM by the first file that tells it, and which file told of the VMs."""
    machine: dict[str, Told] = {}
    first = next((one for one in files if one.vms), files[0])
    several = [dict(guest) for guest in first.guests]
    for one in files:
        machine = one.machine | machine
        several[0] = one.guests[0] | several[0]
    for guest in several:
        if "compute" in guest:
            guest["sections"] = 1, "a stretch is a transaction"
    return machine, several, first


def _work(scenario: Scenario) -> dict[str, Told]:
    """How much the guest does; neighbours work without end."""
    host, guest = scenario.host, scenario.guest
    section = mean_of(guest.compute) + guest.lock_probability * mean_of(guest.hold) * bool(guest.locks)
    cycles = WORK_MS * host.tsc_hz // 1000 * min(host.pcpus, guest.count * guest.vcpus)
    count = min(10**9, max(1, round(cycles / (guest.count * guest.sections * section))))
    chosen = f"chosen: work of {WORK_MS} ms of the whole machine"
    told: dict[str, Told] = {
        "guest.transactions": (count, chosen),
        "limit.simulated_s": (WORK_MS * PATIENCE / 1000, f"chosen: {PATIENCE} times the work"),
    }
    for table in list(scenario.tables())[1:]:
        told[f"{table}.transactions"] = 0, "chosen: no end"
    return told


# -------------------------------------------------------------------------------------------------------- distributions


def quantile(values: array[int], share: float) -> int:
    """The smallest value that this share of the values does not exceed."""
    return int(np.quantile(np.array(values), share, method="inverted_cdf"))


def distribution(values: array[int]) -> str:
    """Measured durations, one at least, as a distribution of a scenario."""
    ordered = np.sort(np.clip(np.array(values), 1, MAX_VALUE))
    if ordered[0] == ordered[-1]:
        return f"constant {ordered[0]}"
    shares = [share for share in _PROBABILITIES if len(ordered) * (1 - share) >= 10] or [0.5]
    inner = np.quantile(ordered, shares, method="inverted_cdf").tolist()
    pairs = [(0.0, ordered[0]), *zip(shares, inner, strict=True), (1.0, ordered[-1])]
    return "knots " + " ".join(f"{share:.6g}:{value}" for share, value in pairs)


def mean_of(text: str) -> float:
    """The mean of a distribution."""
    table = quantile_table(text)
    steps = [float(high - low) for low, high in pairwise(QUANTILES)]
    return max(1.0, sum(step * (low + high) / 2 for step, (low, high) in zip(steps, pairwise(table), strict=True)))


def _whole(value: float) -> int:
    return min(MAX_VALUE, max(1, round(value)))


def _share(part: int, total: int) -> float:
    return float(f"{part / total:.6g}")
