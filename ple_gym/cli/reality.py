"""`ple-gym reality`: what was measured, now or before, and what is predicted of it, with bars while it takes long."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ple_gym import progress
from ple_gym.compilation import warm_up_and_say
from ple_gym.errors import RealityError, UsageError
from ple_gym.files import read_bytes, read_text, reading, write_whole, writing
from ple_gym.messages import plain
from ple_gym.provenance import told
from ple_gym.reality import timeline
from ple_gym.reality.comparison import Check, compare
from ple_gym.reality.measured import MAX_BYTES, Measured, from_line, from_text, joined, to_line, to_text
from ple_gym.reality.program import check_machine, check_perf, measure, record
from ple_gym.reality.settings import Setting, bistable_settings, quick_settings, standard_settings
from ple_gym.reality.worlds import SCHEDULER
from ple_gym.traces import readers

USUAL_CPUS = 2
TELLING = Setting(4)
"""Its timeline is drawn unless another setting is run alone."""


def chosen(quick: bool, bistable: bool, changes: Mapping[str, object]) -> list[Setting]:
    """The settings that are asked for; `changes`: of one alone, by name.

    Raises:
        UsageError: two sets are, or there is no such setting.
    """
    if quick and bistable:
        raise UsageError("--bistable: not with --quick")
    if changes:
        if quick or bistable:
            raise UsageError("--setting: not with --quick or --bistable")
        return [_setting(changes)]
    return quick_settings() if quick else bistable_settings() if bistable else standard_settings()


def measure_here(settings: Sequence[Setting], repetitions: int, seconds: float, cpus: int, with_perf: bool) -> Measured:
    """Measure on this machine. The simulator is compiled before, so that an interrupt loses as little as may be.

    Raises:
        UsageError: an argument is out of its range.
        RealityError: nothing can be measured here.
    """
    _check_range("--repetitions", repetitions, 1, 1000)
    _check_range("--seconds", seconds, 0.01, 60)
    if cpus:
        _check_range("--cpus", cpus, 1, len(os.sched_getaffinity(0)))
    check_machine()
    if with_perf:
        check_perf()
    warm_up_and_say(SCHEDULER)
    cpus = cpus or min(USUAL_CPUS, len(os.sched_getaffinity(0)))
    with progress.bar("measuring", len(settings) * repetitions) as report:
        return measure(settings, repetitions, seconds, cpus, report)


def _setting(changes: Mapping[str, object]) -> Setting:
    usual = dict(pair.split("=") for pair in to_line(TELLING).split()[1:])
    for name in changes:
        if name not in usual:
            raise UsageError(f"--setting {plain(name)}: must be {', '.join(usual)}")
    values = usual | dict(changes)
    try:
        return from_line(Setting, " ".join(["setting", *(f"{name}={value}" for name, value in values.items())]))
    except RealityError as wrong:
        raise UsageError(f"--setting: {wrong}") from None


def recorded(measured: Measured, settings: Sequence[Setting], path: str) -> bytes:
    """What perf records of one more run, which is kept; without settings what was kept.

    Raises:
        RealityError: it cannot be recorded, or read.
        UsageError: it cannot be kept.
    """
    if not settings:
        with reading(path, RealityError, "what ple-gym reality --trace keeps"):
            return read_bytes(path, readers.MAX_BYTES)
    setting = settings[0] if len(settings) == 1 else TELLING
    with progress.waiting("recording a timeline"):
        events = record(setting, measured.machine, timeline.SECONDS)
    if path:
        with writing(path, UsageError):
            write_whole(path, events)
    return events


def timelines(events: bytes, measured: Measured) -> tuple[timeline.Timeline, timeline.Timeline]:
    """What was recorded, and the same simulated.

    Raises:
        RealityError: it is something else.
        ScenarioError: the simulator cannot have a world like this.
    """
    try:
        found = timeline.measured(events, measured.machine)
    except RealityError as wrong:
        raise RealityError(f"the trace: {wrong}") from None
    with progress.waiting("simulating the timeline"):
        return found, timeline.simulated(found.setting, measured.machine, measured.costs)


def measured_before(paths: Sequence[str]) -> Measured:
    """What `keep` has kept, in one file or in several of one machine.

    Raises:
        RealityError: a file is something else, or they are of different machines.
    """
    several = []
    for path in paths:
        with reading(path, RealityError, "what ple-gym reality --out keeps"):
            several.append(from_text(read_text(path, MAX_BYTES)))
    try:
        return joined(several)
    except RealityError as wrong:
        raise RealityError(f"--measured: {wrong}") from None


def keep(path: str, measured: Measured) -> None:
    """Write what was measured.

    Raises:
        UsageError: it cannot be written.
    """
    with writing(path, UsageError):
        write_whole(path, to_text(measured).encode())


def predict(measured: Measured, seeds: int) -> Check:
    """Predict what was measured.

    Raises:
        UsageError: too many seeds, or none.
        ScenarioError: the simulator cannot have a world like this.
    """
    _check_range("--seeds", seeds, 1, 1000)
    with progress.bar("predicting", len(measured.by_setting())) as report:
        return compare(measured, seeds, report)


def draw(path: str, check: Check, argv: Sequence[str]) -> None:
    """Draw the picture.

    Raises:
        UsageError: it cannot be written.
    """
    from ple_gym.reality.pictures import check_figure
    from ple_gym.traces.pictures import save_figure

    with writing(path, UsageError), progress.waiting("drawing the picture"):
        save_figure(check_figure(check), path, told(argv))


def draw_timelines(
    path: str, both: tuple[timeline.Timeline, timeline.Timeline], measured: Measured, argv: Sequence[str]
) -> None:
    """Draw who had the CPUs.

    Raises:
        UsageError: it cannot be written.
    """
    from ple_gym.reality.pictures import timeline_figure
    from ple_gym.traces.pictures import save_figure

    with writing(path, UsageError), progress.waiting("drawing the timeline"):
        save_figure(timeline_figure(*both, measured.machine.cpus), path, told(argv))


def _check_range(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} {value:g}: must be {low:g}..{high:g}")
