"""Predicted against measured: what the `fair` host says of each setting that was run, and how far off it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from statistics import median
from typing import Any

from ple_gym.evaluate import Run, simulate
from ple_gym.reality.distributions import chance, distance
from ple_gym.reality.measured import Costs, Machine, Measured, Result
from ple_gym.reality.settings import Setting
from ple_gym.reality.worlds import POLICIES, world
from ple_gym.scenario.model import Host

STABLE = 1.1
"""A setting is stable if its best repetition made at most so many times the acquisitions of its worst."""
ENOUGH = 100
"""Ended windows, or switches, of a run: with fewer chance alone is more than the bar."""
REPETITIONS = 10
"""Of a setting, from which on the distributions of runs and predictions are compared."""
BUSY_SHARE = 0.97
"""Of the CPUs' time: if the threads had less, other work disturbed them."""

#: What is compared -> how it is got from a result, and from a run's record with how often other tasks ran.
QUANTITIES: Mapping[str, tuple[Callable[[Result], int], Callable[[Run, int], int]]] = {
    "acquisitions": (lambda result: result.acquisitions, lambda run, others: run["acquisitions"]),
    "windows": (lambda result: result.windows, lambda run, others: run["ple_exits"]),
    # Of the threads alone: one that another task interrupts has left once, the CPU has switched twice.
    "switches": (lambda result: result.voluntary + result.involuntary, lambda run, others: run["switches"] - others),
}


@dataclass(frozen=True, slots=True)
class Rates:
    """The same of several runs, per second.

    Attributes:
        middle: the median.
        low, high: the smallest and the largest.
        least: the smallest count of one run.
        all: of each run, in increasing order.
    """

    middle: float
    low: float
    high: float
    least: int
    all: tuple[float, ...]

    @classmethod
    def of(cls, counts: Sequence[int], seconds: Sequence[float]) -> Rates:
        """Those of the counts of some runs that lasted so long; at least one."""
        rates = sorted(count / lasted for count, lasted in zip(counts, seconds, strict=True))
        return cls(median(rates), rates[0], rates[-1], min(counts), tuple(rates))

    def quantile(self, percent: int) -> float:
        """The ceil(percent * n / 100)-th smallest of n."""
        return self.all[max(1, -(-percent * len(self.all) // 100)) - 1]


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting: what was measured, what was predicted, a `Rates` of each quantity.

    Attributes:
        setting: what the threads do.
        measured, predicted: by the names in `QUANTITIES`.
        share: of the CPUs' time, what the threads had in the worst repetition, 0..1.
        steal_ms: what a hypervisor took, in the worst repetition.
        wait_p99_us: predicted 99 % quantile of contended waits, the median of the runs, in microseconds.
        measured_wait_p99_us: the ends of the power of two that it lies in, over all repetitions; None without a wait.
    """

    setting: Setting
    measured: Mapping[str, Rates]
    predicted: Mapping[str, Rates]
    share: float
    steal_ms: int
    wait_p99_us: float
    measured_wait_p99_us: tuple[float, float] | None

    @property
    def stable(self) -> bool:
        """Whether the repetitions agree, so that one number can be predicted."""
        found = self.measured["acquisitions"]
        return 0 < found.high <= STABLE * found.low

    def overlaps(self, quantity: str = "acquisitions") -> bool:
        """Whether the measured and the predicted range have something in common."""
        found, said = self.measured[quantity], self.predicted[quantity]
        return found.low <= said.high and said.low <= found.high

    @property
    def apart(self) -> tuple[float, float]:
        """How far measured and predicted acquisitions are apart as distributions, 0..1.

        The second: if values count as the same that are so near that a setting with them would be `stable`.
        """
        found, said = self.measured["acquisitions"].all, self.predicted["acquisitions"].all
        return distance(found, said), distance(found, said, STABLE)

    @property
    def apart_by_chance(self) -> float:
        """What the first of `apart` would stay within if runs and predictions came from one distribution."""
        return chance(self.measured["acquisitions"].all, self.predicted["acquisitions"].all)

    def error(self, quantity: str = "acquisitions") -> float | None:
        """How far the predicted median is off, as a share of the measured one; None if that is 0."""
        found = self.measured[quantity].middle
        return self.predicted[quantity].middle / found - 1 if found else None


@dataclass(frozen=True, slots=True)
class Check:
    """A whole check.

    Attributes:
        machine, costs: where it was measured.
        host: of all worlds.
        cells: one for each setting, in the order in which they were measured.
    """

    machine: Machine
    costs: Costs
    host: Host
    cells: Sequence[Cell]

    @property
    def stable(self) -> list[Cell]:
        """The settings of which one number can be predicted."""
        return [cell for cell in self.cells if cell.stable]

    @property
    def distributed(self) -> list[Cell]:
        """The settings that are not stable, and were run so often that distributions can be compared."""
        return [
            cell for cell in self.cells if not cell.stable and len(cell.measured["acquisitions"].all) >= REPETITIONS
        ]

    def counted(self, quantity: str) -> list[Cell]:
        """The stable settings of which enough windows, or switches, were counted in each repetition."""
        return [cell for cell in self.stable if cell.measured[quantity].least >= ENOUGH]

    def errors(self) -> list[float]:
        """How far off the acquisitions of each stable setting are, as shares without sign."""
        errors = [cell.error() for cell in self.stable]
        return [abs(error) for error in errors if error is not None]

    @property
    def busy(self) -> bool:
        """Whether other work had so much of the CPUs that the numbers mean little."""
        return min(cell.share for cell in self.cells) < BUSY_SHARE

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "machine": asdict(self.machine),
            "costs": {name.removesuffix("_"): value for name, value in asdict(self.costs).items()},
            "host": asdict(self.host),
            "settings": [
                asdict(cell)
                | {"stable": cell.stable, "overlaps": cell.overlaps(), "error": cell.error()}
                | {"apart": cell.apart, "apart_by_chance": cell.apart_by_chance}
                for cell in self.cells
            ],
        }


def compare(measured: Measured, seeds: int, announce: Callable[[int], None] = lambda done: None) -> Check:
    """Predict every setting that was measured.

    Args:
        measured: the runs.
        seeds: runs of the simulator for each setting, from seed 0.
        announce: called with the number of settings that are done.

    Raises:
        ScenarioError: the simulator cannot have a world like this.
    """
    cells: list[Cell] = []
    for setting, results in measured.by_setting().items():
        announce(len(cells))
        cells.append(_cell(setting, results, measured.machine, measured.costs, range(seeds)))
    host = world(cells[0].setting, measured.machine, measured.costs, 1.0).host
    return Check(measured.machine, measured.costs, host, cells)


def _cell(setting: Setting, results: Sequence[Result], machine: Machine, costs: Costs, seeds: range) -> Cell:
    """Predict a setting: of each run from its start, what it has counted when the warm-up is over is taken away."""
    hz, cpus, policy = costs.tsc_hz, len(machine.cpus), POLICIES[setting.reaction]
    lasted = [result.cycles / hz for result in results]
    warm_up = median(result.warm_up for result in results) / hz
    runs = simulate(world(setting, machine, costs, warm_up + median(lasted)), policy, seeds)
    befores = simulate(world(setting, machine, costs, warm_up), policy, seeds) if warm_up else []
    simulated = [run["simulated_s"] - warm_up for run in runs]

    def counted(said: Callable[[Run, int], int]) -> list[int]:
        until, before = ([said(run, _others(run, setting)) for run in some] for some in (runs, befores))
        return [count - less for count, less in zip(until, before or repeat(0), strict=False)]

    return Cell(
        setting,
        {name: Rates.of([real(one) for one in results], lasted) for name, (real, _) in QUANTITIES.items()},
        {name: Rates.of(counted(said), simulated) for name, (_, said) in QUANTITIES.items()},
        share=min(one.cpu_us / (1e6 * time * cpus) for one, time in zip(results, lasted, strict=True)),
        steal_ms=max(result.steal_ms for result in results),
        wait_p99_us=median(run["acquire_wait_us"]["p99"] for run in runs),
        measured_wait_p99_us=_wait_bounds(results, hz, 99),
    )


def _others(run: Run, setting: Setting) -> int:
    """How often other tasks ran; theirs is the VM behind those of the threads."""
    return sum(vm["transactions"] for vm in run["vm"][setting.groups :])


def _wait_bounds(results: Sequence[Result], hz: int, percent: int) -> tuple[float, float] | None:
    """The power of two in which a quantile of all contended waits lies, in microseconds."""
    waits = [sum(counts) for counts in zip(*(result.waits for result in results), strict=True)]
    rank = -(-percent * sum(waits) // 100)
    below = 0
    for power, count in enumerate(waits):
        below += count
        if count and below >= rank:
            return 2**power * 1e6 / hz, 2 ** (power + 1) * 1e6 / hz
    return None
