"""`ple-gym reality`: what was measured, now or before, and what is predicted of it, with bars while it takes long."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ple_gym import progress
from ple_gym.compilation import compiling, is_warm, warm_up
from ple_gym.errors import RealityError, UsageError
from ple_gym.files import read_text, reading, write_whole, writing
from ple_gym.reality.comparison import Check, compare
from ple_gym.reality.measured import MAX_BYTES, Measured, from_text, joined, to_text
from ple_gym.reality.program import check_machine, measure
from ple_gym.reality.settings import Setting, bistable_settings, quick_settings, standard_settings

USUAL_CPUS = 2


def chosen(quick: bool, bistable: bool) -> list[Setting]:
    """The settings that are asked for.

    Raises:
        UsageError: two sets are.
    """
    if quick and bistable:
        raise UsageError("--bistable: not with --quick")
    return quick_settings() if quick else bistable_settings() if bistable else standard_settings()


def measure_here(settings: Sequence[Setting], repetitions: int, seconds: float, cpus: int) -> Measured:
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
    if not is_warm():
        with progress.waiting(compiling):
            warm_up()
    cpus = cpus or min(USUAL_CPUS, len(os.sched_getaffinity(0)))
    with progress.bar("measuring", len(settings) * repetitions) as report:
        return measure(settings, repetitions, seconds, cpus, report)


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


def draw(path: str, check: Check) -> None:
    """Draw the picture.

    Raises:
        UsageError: it cannot be written.
    """
    from ple_gym.reality.pictures import check_figure

    with writing(path, UsageError), progress.waiting("drawing the picture"):
        check_figure(check, path)


def _check_range(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} {value:g}: must be {low:g}..{high:g}")
