"""Files of a machine, measured one by one; a scenario made of them that says where each value is from; how it fits.

What several files tell is taken from the first one that tells it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np

from ple_gym.errors import TraceError
from ple_gym.measure.guest import SAMPLES, VmMeasures, exit_period, has_switches, measure_events, noise
from ple_gym.measure.host import HostMeter
from ple_gym.messages import escaped, plain
from ple_gym.scenario.distributions import MAX_VALUE, QUANTILES, quantile_table
from ple_gym.scenario.model import Scenario, Vm
from ple_gym.traces.events import RUN, STOP, Ints
from ple_gym.traces.exit_tables import ExitTable
from ple_gym.traces.hosts import Reading
from ple_gym.traces.lock_tables import LockTable
from ple_gym.traces.readers import Source
from ple_gym.traces.recording import Progress, record_pieces
from ple_gym.traces.tables import EventTable

WORK_MS = 250  # of the guest, in ms of the whole machine
PATIENCE = 20  # a run is cut off after so many times its work
MOST_EVENTS = 2_000_000  # of a run that is compared, 80 MB: a storm has more than anybody needs
DEFAULT = "default: not in your files"
SHARES = (0.5, 0.9, 0.99)  # quantiles that are compared
#: Probabilities of the knots; those of the tail only where ten values lie beyond.
_KNOTS = (
    0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.998, 0.999,
)  # fmt: skip
_CONTESTED = 20  # acquisitions, from which on their order tells something
_IN_ORDER, _IN_NO_ORDER = 0.05, 0.25  # up to, and from, which share of them is out of order; logs are not exact

#: A parameter's value, and the statistic that it comes from.
Told: TypeAlias = tuple[Any, str]


@dataclass
class Measured:
    """What one file tells: of the machine, by dotted names; of VMs (`vms`), by names in a table, and `sleeps`: how many
    they sleep in a cycle of computing.
    """

    path: str
    found: Source
    machine: dict[str, Told] = field(default_factory=dict)
    guests: list[dict[str, Told]] = field(default_factory=list)
    vms: list[VmMeasures] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name, as it may stand in a line."""
        return plain(PurePath(self.path).name)

    def told(self, values: Mapping[str, Told]) -> dict[str, Told]:
        """The same, with the file's name before each statistic."""
        return {key: (value, f"{self.name}: {why}") for key, (value, why) in values.items()}


def measure(path: str, found: Source, scenario: Scenario, seconds: float = 0.0) -> Measured:
    """Measure what was found in a file.

    scenario: what is known of the machine: costs, clock, sockets, the PLE window; seconds: how long a table of locks
    has counted, 0 if nobody knows.

    Raises:
        TraceError: no vCPU is in it.
        ScenarioError: it has more pCPUs than a scenario may have.
    """
    one = Measured(path, found)
    if isinstance(found, EventTable):
        _events(one, found, scenario)
    elif isinstance(found, Reading):
        _host(one, found, scenario)
    elif isinstance(found, ExitTable):
        _exits(one, found, scenario)
    else:
        _locks(one, found, scenario, seconds)
    return one


def _events(one: Measured, found: EventTable, scenario: Scenario) -> None:
    if found.hz:
        one.machine["host.tsc_hz"] = found.hz, "tsc against ns"
    if pcpus := len(np.unique(found.rows[found.rows[:, 2] >= 0, 2])):
        one.machine["host.pcpus"] = pcpus, "pCPUs with events"
    gap, count = exit_period(found.rows)
    ple, g = scenario.ple, scenario.guest.spin_period
    window = ple.count * g if ple.kind == "count" else (ple.window // g + 1) * g  # docs/model.md, 8.3
    if count and not ple.window_grow and 1 <= gap - window <= 10**8:
        why = f"median of {count:,} times from exit to exit, {gap:,.0f}, less a window of {window:,}"
        one.machine["cost.exit"] = round(gap - window), why
    known = scenario.with_overrides({key: value for key, (value, _) in one.machine.items()})
    if has_switches(found.rows):
        one.machine |= _noise(*noise(found.rows), known.host.tsc_hz, "the host's own work")
    one.vms = measure_events(known, found.vm_of, found.rows)
    switches = has_switches(found.rows)
    how = "guest time" if switches else "of the clock, preemptions too"
    for vm in one.vms:
        stretches, holds = vm.samples["compute"], vm.samples["hold"]
        told = _sizes(vm, sum(stretches)) | _kinds(vm.locks) | _order(vm)
        if stretches:
            told["compute"] = distribution(stretches), f"{len(stretches):,} stretches, {how}"
            told["lock_probability"] = _digits(vm.asked / len(stretches)), "stretches that end at a lock"
        elif switches and not vm.tries:
            told |= {"compute": (f"constant {10**9}", "no lock, no sleep"), "lock_probability": (0.0, "no lock")}
        if holds:
            told["hold"] = distribution(holds), f"{len(holds):,} holds, {how}"
        one.guests.append(told)


def _host(one: Measured, found: Reading, scenario: Scenario) -> None:
    meter = HostMeter(found.trace, scenario.host.tsc_hz, found.cycles)
    one.vms = meter.vms
    if not one.vms:
        raise TraceError(f"{one.name}: no vCPU: no entry to a guest, and no task 'CPU 0/KVM' or 'd1v0'")
    if found.scheduler:
        one.machine["host.scheduler"] = found.scheduler
    one.machine["host.pcpus"] = max(1, len(meter.cpus)), "CPUs of vCPUs"
    for name, values, what in (
        ("cost.exit", meter.exits, "exit for PAUSE"), ("cost.switch", meter.switches, "switch"),
    ):  # fmt: skip
        if values:
            median = min(10**8, max(1, quantile(values, 0.5)))
            one.machine[name] = median, f"median of {len(values):,} from {what} to entry"
    if not found.cycles:  # of Xen's trace all tasks are vCPUs, dom0's too
        whose = f"other tasks, {meter.displaced:,} of which took the CPU from a vCPU"
        one.machine |= _noise(meter.bursts, meter.beside, scenario.host.tsc_hz, whose)
    one.guests = [_sizes(vm, vm.ran) for vm in one.vms]


def _exits(one: Measured, found: ExitTable, scenario: Scenario) -> None:
    one.guests = [{}]
    if (pause := found.pause) and pause.shortest:
        why = (
            f"shortest of {pause.number:,} for PAUSE; their mean, {pause.mean / 1000:g} us, has time off the pCPU, too"
        )
        one.machine["cost.exit"] = min(10**8, _whole(pause.shortest * scenario.host.tsc_hz / 1e9)), why


def _locks(one: Measured, found: LockTable, scenario: Scenario, seconds: float) -> None:
    vcpus, hz = scenario.guest.vcpus, scenario.host.tsc_hz  # of the one guest whose table it is
    told = _kinds([{lock.name: lock.acquired for lock in found.classes if lock.acquired > 0}])
    number = _acquired(found)
    hold = _held_us(found) * hz / 1e6
    if hold:
        told["hold"] = f"exponential {_whole(hold)}", "mean; its shape is assumed"
    if seconds and number:
        why = f"{number:,} locks taken in {seconds:g} s by {vcpus} busy vCPUs; its shape is assumed"
        told["compute"] = f"exponential {_whole(vcpus * seconds * hz / number - hold)}", why
        told["lock_probability"] = 1.0, "a stretch ends at a lock"
    one.guests = [told]


def _held_us(table: LockTable) -> float:
    """Mean hold in us; 0 if the table does not say it."""
    held = [lock for lock in table.classes if lock.held >= 0]
    return sum(lock.held for lock in held) / max(1, sum(lock.acquired for lock in held)) / 1000


def _acquired(table: LockTable) -> int:
    return sum(max(0, lock.acquired) for lock in table.classes)


def _sizes(vm: VmMeasures, cycles: int) -> dict[str, Told]:
    told: dict[str, Told] = {"vcpus": (vm.vcpus, "vCPUs"), "count": (vm.count, "VMs alike")}
    if (blocks := vm.samples["block"]) and cycles:
        told["block"] = distribution(blocks), f"{len(blocks):,} sleeps, until the wake-up"
        told["sleeps"] = len(blocks) / cycles, f"{len(blocks):,} sleeps in the time to compute"
    return told


def _noise(bursts: array[int], beside: int, hz: int, whose: str) -> dict[str, Told]:
    """How often they come in the time beside them, and how long they are, in cycles."""
    if beside <= 0:
        return {}
    seconds = beside / hz
    rate, share = len(bursts) / seconds, sum(bursts) / (beside + sum(bursts))
    why = f"{len(bursts):,} bursts of {whose}, in {seconds:.3g} s beside them"
    whole = min(10**6, max(1, round(rate))) if bursts else 0
    told: dict[str, Told] = {"noise.rate_hz": (whole, why)}
    if bursts:
        told["noise.level"] = f"constant {max(1, round(1000 * rate / whole))}", f"so that it is {rate:.4g} Hz"
        mean = sum(bursts) / len(bursts) / hz * 1e6
        told["noise.burst_us"] = min(10**6, _whole(mean)), "their mean; the model's shape is assumed"
        if (cap := math.ceil(1000 * share)) > Scenario().noise.cap_permille:
            told["noise.cap_permille"] = min(999, cap), "their share of the time"
    return told


def _order(vm: VmMeasures) -> dict[str, Told]:
    """The kind of lock, if the order in which waiters get it tells that; of those that overtake, `pv` alone halts."""
    share = vm.overtook / max(1, vm.contested)
    if vm.contested < _CONTESTED or _IN_ORDER < share < _IN_NO_ORDER:
        return {}
    kind = "ticket" if share <= _IN_ORDER else "pv" if vm.halts else "tas"
    halts = f"{vm.halts:,} waiters halted (guest.pv_spin_threshold)" if vm.halts else "no waiter halted"
    return {
        "lock_kind": (kind, f"{vm.overtook:,} of {vm.contested:,} acquisitions overtook an earlier waiter, {halts}")
    }


def _kinds(vms: Sequence[Mapping[Any, int]]) -> dict[str, Told]:
    """How many locks there are, and whether one is hot: more often asked for than chance has it."""
    total = sum(sum(locks.values()) for locks in vms)
    count = min(4096, round(sum(map(len, vms)) / len(vms)))
    if not total or not count:
        return {}
    most, even = sum(max(locks.values(), default=0) for locks in vms), total / count
    hot = (most - even) / (total - even) if count > 1 and most > even + 4 * (even * len(vms)) ** 0.5 else 0.0
    why = f"{most:,} of {total:,} asked for the busiest"
    return {"locks": (count, "different locks of a VM"), "hot_probability": (_digits(hot), why)}


def assemble(name: str, files: Sequence[Measured], changes: Mapping[str, object]) -> tuple[Scenario, dict[str, str]]:
    """The scenario `name` of what was measured, and where the value of each parameter is from, by dotted name.

    changes: overrides, which come last; a profile comes first.

    Raises:
        ScenarioError: the values do not fit together, or an override is wrong.
    """
    first = next((one for one in files if one.vms), files[0])
    several = [first.told(guest) for guest in first.guests]
    told: dict[str, Told] = {}
    for one in files:
        told = one.told(one.machine) | told
        several[0] = one.told(one.guests[0]) | several[0]
    if "profile" in changes:
        told.pop("host.scheduler", None)
    start = Scenario(neighbours=(Vm(),) * (len(several) - 1))
    sleeps = [values.pop("sleeps", (0.0, "")) for values in several]
    for table, values in zip(start.tables(), several, strict=True):
        if "compute" in values:
            values["sections"] = 1, "a stretch is a transaction"
        if table != "guest":
            values["transactions"] = 0, "chosen: no end"
        told |= {f"{table}.{key}": value for key, value in values.items()}

    def changed() -> Scenario:
        return start.with_overrides({**{key: value for key, (value, _) in told.items()}, **changes})

    scenario = changed()
    for (table, vm), (rate, why) in zip(scenario.tables().items(), sleeps, strict=True):
        if rate:
            told[f"{table}.block_probability"] = _digits(min(1.0, rate * mean_of(vm.compute))), why
    host, guest = scenario.host, scenario.guest
    section = mean_of(guest.compute) + guest.lock_probability * mean_of(guest.hold)
    work = WORK_MS * host.tsc_hz // 1000 * min(host.pcpus, guest.count * guest.vcpus)
    sizes = ", ".join(f"{vm.count} x {vm.vcpus}" for vm in scenario.tables().values())
    about = f"VMs x vCPUs: {sizes}; {scenario.vcpus / host.pcpus:.3g} vCPUs per pCPU"
    told |= {
        "name": (name, "the file's name"),
        "description": (about, "sizes, and overcommit"),
        "guest.transactions": (
            max(1, round(work / (guest.count * guest.sections * section))),
            f"chosen: work of {WORK_MS} ms of the whole machine",
        ),
        "limit.simulated_s": (WORK_MS * PATIENCE / 1000, f"chosen: {PATIENCE} times the work"),
    }
    scenario, usual = changed(), start.parameters()
    notes = {key: DEFAULT if value == usual[key] else "--set" for key, value in scenario.parameters().items()}
    notes |= {key: escaped(why) for key, (_, why) in told.items()}
    return scenario, notes | {key: "--set" for key in changes if key in notes}


def simulated(scenario: Scenario, progress: Progress = lambda now: None) -> Ints:
    """The events of one run, seed 0 under `host`, `MOST_EVENTS` or a few more at most."""
    pieces: list[Ints] = []

    def use(piece: Ints) -> None:
        pieces.append(piece)
        if sum(map(len, pieces)) > MOST_EVENTS:
            raise StopIteration

    with suppress(StopIteration):
        record_pieces(scenario, "host", 0, use, progress)
    return np.concatenate(pieces)


def like(one: Measured, scenario: Scenario, rows: Ints) -> Measured:
    """The run of a scenario, measured as this file was."""
    vm_of = [number for number, vm in enumerate(scenario.vms().values()) for _ in range(vm.vcpus)]
    if isinstance(one.found, EventTable) and not has_switches(one.found.rows):
        rows = rows[~np.isin(rows[:, 1], (RUN, STOP))]
    return Measured("", EventTable(), vms=measure_events(scenario, vm_of, rows))


def quantities(one: Measured, hz: int) -> Iterator[list[Any]]:
    """What can be compared of the guest: name, number, mean in us or rate, and quantiles at `SHARES` in us or none."""
    us = 1e6 / hz
    for vm in one.vms[:1]:
        for name, key in zip(("computes", "holds", "sleeps", "waits", "stays on a pCPU"), SAMPLES, strict=True):
            if values := vm.samples[key]:
                shares = [quantile(values, share) * us for share in SHARES]
                yield [name, len(values), sum(values) / len(values) * us, *shares]
        if computed := sum(vm.samples["compute"]):
            yield ["locks per s of computing", vm.asked, vm.asked * hz / computed]
        if vm.exits:
            yield ["exits per s of guest time", vm.exits, vm.exits * hz / max(1, vm.ran)]
        if vm.contested:
            yield ["waiters overtaken, percent", vm.contested, 100 * vm.overtook / vm.contested]
        if vm.tries and not one.path:  # of a run: in a file no wait is 0
            yield ["contended, percent", vm.tries, 100 * len(vm.samples["wait"]) / vm.tries]
    if isinstance(one.found, LockTable):
        number, hold = _acquired(one.found), _held_us(one.found)
        if hold:
            yield ["holds", number, hold]
        waits = [lock for lock in one.found.classes if lock.waited >= 0]
        if contended := sum(lock.contended for lock in waits):
            yield ["waits", contended, sum(lock.waited for lock in waits) / contended / 1000]
        if number:
            yield ["contended, percent", number, 100 * sum(lock.contended for lock in one.found.classes) / number]


def quantile(values: array[int], share: float) -> int:
    """The smallest value that this share of the values does not exceed."""
    return int(np.quantile(np.array(values), share, method="inverted_cdf"))


def distribution(values: array[int]) -> str:
    """Measured durations, one at least, as a distribution of a scenario."""
    ordered = np.sort(np.clip(np.array(values), 1, MAX_VALUE))
    low, high = int(ordered[0]), int(ordered[-1])
    if low == high:
        return f"constant {low}"
    shares = [share for share in _KNOTS if len(ordered) * (1 - share) >= 10] or [0.5]
    inner = zip(shares, np.quantile(ordered, shares, method="inverted_cdf").tolist(), strict=True)
    return " ".join(["knots", f"0:{low}", *(f"{share}:{value}" for share, value in inner), f"1:{high}"])


def mean_of(text: str) -> float:
    """The mean of a distribution."""
    steps = [float(high - low) for low, high in pairwise(QUANTILES)]
    return sum(step * sum(ends) / 2 for step, ends in zip(steps, pairwise(quantile_table(text)), strict=True))


def _whole(value: float) -> int:
    return min(MAX_VALUE, max(1, round(value)))


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
