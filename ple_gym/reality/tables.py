"""The reality check as a table and lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.tables import count, number
from ple_gym.reality.comparison import BUSY_SHARE, ENOUGH, STABLE, Cell, Check, Rates
from ple_gym.reality.distributions import CONFIDENCE
from ple_gym.reality.settings import Setting
from ple_gym.reality.timeline import Timeline

NOTE = f"""\
Per second: the median of the runs, [ ] the smallest and the largest. off: predicted against measured, in percent;
unstable: the repetitions differ by more than {STABLE - 1:.0%}, so that only ranges can be compared.
windows: of waiting, that ended. p99: of contended waits, in us; measured as the power of two that it lies in."""


def check_table(check: Check) -> Grid:
    """A line per setting: measured and predicted, side by side."""

    def column(head: str, cell: Callable[[Cell], str]) -> Column:
        return Column(head, [cell(one) for one in check.cells], right=True)

    return Grid(
        Column("setting", [setting_name(cell.setting) for cell in check.cells]),
        [
            column("measured", lambda cell: _rates(cell.measured["acquisitions"])),
            column("predicted", lambda cell: _rates(cell.predicted["acquisitions"])),
            column("off", _off),
        ],
        [
            column("windows", lambda cell: _rate(cell.measured["windows"])),
            column("predicted", lambda cell: _rate(cell.predicted["windows"])),
            column("switches", lambda cell: _rate(cell.measured["switches"])),
            column("predicted", lambda cell: _rate(cell.predicted["switches"])),
            column("p99", _wait),
            column("predicted", lambda cell: number(cell.wait_p99_us)),
        ],
        title=f"{len(check.cells)} settings, acquisitions of locks per second",
    )


DISTRIBUTION_NOTE = f"""\
Smallest, quartiles and largest of the runs. apart: the largest difference between the shares of measured and predicted
runs at or below a value (Kolmogorov and Smirnov), 0..1. by more: the same if values within {STABLE - 1:.0%} of each
other count as one. by chance: what 'apart' stays within in {CONFIDENCE:.0%} of cases if nothing tells them apart."""


def distribution_table(check: Check) -> Grid:
    """A line per setting that is not stable and was run often: the distributions, measured and predicted."""
    cells = check.distributed

    def column(head: str, cell: Callable[[Cell], str]) -> Column:
        return Column(head, [cell(one) for one in cells], right=True)

    return Grid(
        Column("setting", [setting_name(cell.setting) for cell in cells]),
        [
            column("measured", lambda cell: _quartiles(cell.measured["acquisitions"])),
            column("predicted", lambda cell: _quartiles(cell.predicted["acquisitions"])),
            column("apart", lambda cell: f"{cell.apart[0]:.2f}"),
            column("by more", lambda cell: f"{cell.apart[1]:.2f}"),
            column("by chance", lambda cell: f"{cell.apart_by_chance:.2f}"),
        ],
        title=f"{len(cells)} settings that are not stable, acquisitions of locks per second",
    )


def setting_name(setting: Setting) -> str:
    """A setting in a few words; what most settings have is left out."""
    usual = Setting(setting.threads)
    words = [f"{setting.threads} {setting.lock} {setting.reaction}"]
    words += [f"{name}={getattr(setting, name)}" for name in ("window", "hold", "think", "groups")
              if getattr(setting, name) != getattr(usual, name)]  # fmt: skip
    return " ".join(words)


def timeline_table(measured: Timeline, simulated: Timeline) -> Grid:
    """Numbers of both."""
    rows = [dict(timeline_numbers(one)) for one in (measured, simulated)]
    columns = [
        Column(head, [*row.values()], right=True) for head, row in zip(("measured", "simulated"), rows, strict=True)
    ]
    return Grid(Column("", [*rows[0]]), columns, title=f"{setting_name(measured.setting)}: who had the CPUs")


def timeline_numbers(of: Timeline) -> Iterator[tuple[str, str]]:
    """The numbers in words."""
    for name, value in of.numbers().items():
        yield (
            name.replace("_percent", ", %").replace("_", " "),
            count(value),
        )


def check_lines(check: Check) -> Iterator[str]:
    """What a check amounts to: the machine, how many settings are predicted how well, and what disturbed it."""
    machine, costs, host = check.machine, check.costs, check.host
    yield (
        f"Linux {machine.release}, rules of {host.linux}: {len(machine.cpus)} CPUs of {costs.tsc_hz / 1e9:.3f} GHz, "
        f"tick {host.tick_us / 1000:g} ms, slice {host.base_slice_us / 1000:g} ms, groups: {machine.groups}."
    )
    yield (
        f"Costs in cycles: yield {costs.yield_}, with a switch {costs.yield_switch}, line {costs.line}, "
        f"PAUSE {costs.pause}, a round's own work {costs.own}."
    )
    for who, every, take in (
        ("Other tasks", costs.others_every, costs.others_take),
        ("Interrupts, or a hypervisor beneath,", costs.lost_every, costs.lost_take),
    ):
        if every:
            rate, us = costs.tsc_hz / every, 1e6 * take / costs.tsc_hz
            yield f"{who} took each CPU {rate:,.1f} times a second, for {us:,.1f} us on average: {take / every:.1%}."
    if errors := check.errors():
        worst = max((cell for cell in check.stable), key=lambda cell: abs(cell.error() or 0))
        yield (
            f"{len(errors)} settings are stable: median error {median(errors):.1%}, "
            f"{_within(errors, 0.1)} within 10 %, the worst {worst.error() or 0:+.1%} ({setting_name(worst.setting)})."
        )
    if unstable := [cell for cell in check.cells if not cell.stable]:
        yield f"{len(unstable)} are not: of {sum(cell.overlaps() for cell in unstable)} the ranges overlap."
    if often := check.distributed:
        exactly, nearly = (sum(cell.apart[i] <= cell.apart_by_chance for cell in often) for i in (0, 1))
        yield (
            f"Of {exactly} of {len(often)} that were run often the distributions are no further apart than by chance; "
            f"of {nearly} if {STABLE - 1:.0%} off counts as the same."
        )
    for quantity, what in (("windows", "ended windows"), ("switches", "context switches")):
        if cells := check.counted(quantity):
            others = [cell for cell in cells if abs(cell.error(quantity) or 0) > 0.2]
            overlap = sum(cell.overlaps(quantity) for cell in others)
            yield (
                f"{what} of stable settings with {ENOUGH} at least: {len(cells) - len(others)} of {len(cells)} within "
                f"20 %; of {len(others)} others the ranges of {overlap} overlap."
            )
    steal = max(cell.steal_ms for cell in check.cells)
    yield f"Steal time of a run: at most {steal} ms. The threads had at least {_least_share(check):.0%} of the CPUs."
    if check.busy:
        yield f"Other work ran: below {BUSY_SHARE:.0%} the numbers say little. Repeat it on a quiet machine."


def _least_share(check: Check) -> float:
    return min(cell.share for cell in check.cells)


def _within(errors: list[float], bar: float) -> str:
    return f"{sum(error <= bar for error in errors)} of {len(errors)}"


def _rates(rates: Rates) -> str:
    return f"{_rate(rates)} [{rates.low:,.0f}, {rates.high:,.0f}]"


def _rate(rates: Rates) -> str:
    return f"{rates.middle:,.0f}"


def _quartiles(rates: Rates) -> str:
    return " ".join(f"{rates.quantile(percent):,.0f}" for percent in (0, 25, 50, 75, 100))


def _off(cell: Cell) -> str:
    error = cell.error()
    if not cell.stable or error is None:
        return "unstable"
    return f"{100 * error:+.1f}"


def _wait(cell: Cell) -> str:
    bounds = cell.measured_wait_p99_us
    return "-" if bounds is None else f"{number(bounds[0])}..{number(bounds[1])}"
