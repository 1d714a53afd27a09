"""How a scenario fits the files that it was made of: what was measured, beside the same in a run of it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from ple_gym.measure.guest import SAMPLES, GuestMeter, VmMeasures
from ple_gym.measure.host import HostMeter
from ple_gym.measure.machine import Measured, quantile
from ple_gym.messages import plain
from ple_gym.scenario.model import Scenario
from ple_gym.traces.events import RUN, STOP, Ints
from ple_gym.traces.linux import HostTrace, Observer
from ple_gym.traces.lock_tables import LockTable
from ple_gym.traces.readers import Reading
from ple_gym.traces.recording import Progress, record_pieces

POLICY = "host"
SEED = 0
MOST_EVENTS = 2_000_000  # of a run, 80 MB
SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Side:
    """Some durations in us, or a rate: how many there were, their mean (or the rate), and quantiles at `SHARES`."""

    count: int
    mean: float
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One quantity of one file; None: there was none of it."""

    what: str
    file: str
    measured: Side | None
    simulated: Side | None


def fit(scenario: Scenario, files: Sequence[Measured], progress: Progress = lambda now: None) -> list[Row]:
    """Run the scenario once, under `POLICY`, and measure the run as the files were."""
    rows = _recorded(scenario, progress)
    sizes = [(table, vm.count * vm.vcpus) for table, vm in scenario.tables().items()]
    tables = [table for table, _ in sizes]
    vm_of = [number for number, (_, size) in enumerate(sizes) for _ in range(size)]
    first = next((one for one in files if one.vms), None)
    result: list[Row] = []
    for one in files:
        simulated = _metered(one, rows, vm_of, scenario)
        name, hz = plain(PurePath(one.path).name), scenario.host.tsc_hz
        if isinstance(one.found, LockTable):
            result += _of_locks(one, simulated[0], name, hz)
        for number, vm in enumerate(one.vms[: len(tables) if one is first else 1]):
            prefix = "" if len(tables) == 1 else f"{tables[number]}: "
            other = simulated[number] if number < len(simulated) else VmMeasures()
            for what, key in zip(_NAMES, SAMPLES, strict=True):
                row = Row(prefix + what, name, _side(vm.samples[key], hz), _side(other.samples[key], hz))
                result += [row] if row.measured else []
            for what, rate in _RATES.items():
                row = Row(prefix + what, name, rate(vm, hz), rate(other, hz))
                result += [row] if row.measured else []
    return result


class _EnoughError(Exception):
    """A storm has more events than anybody needs."""


def _recorded(scenario: Scenario, progress: Progress) -> Ints:
    """The run's events, about `MOST_EVENTS` at most."""
    pieces: list[Ints] = []

    def use(piece: Ints) -> None:
        pieces.append(piece)
        if sum(map(len, pieces)) > MOST_EVENTS:
            raise _EnoughError

    with suppress(_EnoughError):
        record_pieces(scenario, POLICY, SEED, use, progress)
    return np.concatenate(pieces)


_NAMES = ("computes", "holds", "sleeps", "waits", "stays on a pCPU")


def _metered(one: Measured, rows: Ints, vm_of: Sequence[int], scenario: Scenario) -> list[VmMeasures]:
    """The run, as it would be measured in such a file."""
    if isinstance(one.found, Reading):
        observer = Observer(scenario)
        parts = [observer.add(rows), observer.end()]
        events = np.concatenate([part.events for part in parts])
        return HostMeter(HostTrace(events, observer.comms, parts[0].reasons), scenario.host.tsc_hz).vms()
    meter = GuestMeter(scenario, vm_of, one.switches)
    meter.add(rows if one.switches else rows[~np.isin(rows[:, 1], (RUN, STOP))])
    return meter.each


def _side(values: array[int], hz: int) -> Side | None:
    if not values:
        return None
    us = 1e6 / hz
    return Side(len(values), sum(values) / len(values) * us, tuple(quantile(values, share) * us for share in SHARES))


def _asked(vm: VmMeasures, hz: int) -> Side | None:
    return _rate(vm.asked, sum(vm.samples["compute"]), hz)


def _exits(vm: VmMeasures, hz: int) -> Side | None:
    return _rate(vm.exits, vm.ran, hz)


def _rate(count: int, cycles: int, hz: int) -> Side | None:
    return Side(count, count * hz / cycles) if count and cycles else None


#: Rates by name.
_RATES: dict[str, Callable[[VmMeasures, int], Side | None]] = {
    "locks per s of computing": _asked,
    "exits per s of guest time": _exits,
}


def _of_locks(one: Measured, simulated: VmMeasures, name: str, hz: int) -> Iterator[Row]:
    """A table of locks tells means."""
    assert isinstance(one.found, LockTable)
    classes = one.found.classes
    acquired, contended = sum(lock.acquired for lock in classes), sum(lock.contended for lock in classes)
    held = [lock for lock in classes if lock.held >= 0 and lock.acquired]
    times, holds = sum(lock.acquired for lock in held), simulated.samples["hold"]
    if times:
        mean = sum(lock.held for lock in held) / times / 1000
        yield Row("holds", name, Side(times, mean), Side(len(holds), sum(holds) / max(1, len(holds)) * 1e6 / hz))
    if acquired:
        waits, tries = len(simulated.samples["wait"]), simulated.tries
        contention = Side(tries, 100 * waits / max(1, tries))
        yield Row("contended, percent", name, Side(acquired, 100 * contended / acquired), contention)
