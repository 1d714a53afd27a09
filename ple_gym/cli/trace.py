"""`ple-gym trace`: one run as a file of events."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ple_gym import progress
from ple_gym.errors import UsageError
from ple_gym.files import writing
from ple_gym.messages import escaped, plain, shown_path
from ple_gym.provenance import provenance
from ple_gym.scenario.model import Scenario
from ple_gym.traces.events import NEVER
from ple_gym.traces.writers import write_run

_MS = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"


def write_trace(path: str, scenario: Scenario, policy: str, seed: int, window: str, argv: Sequence[str]) -> str:
    """Write the milliseconds `window` of a run; what to tell of it.

    Raises:
        UsageError: the window is none, or the file cannot be written.
        TraceError: it cannot hold so many events.
    """
    hz = scenario.host.tsc_hz
    start, stop = cycles_of(window, hz)
    end = min(stop, round(scenario.limit.simulated_s * hz))
    made = provenance(argv)
    origin = escaped(f"ple_gym {made['ple_gym']}, {made['date']}: {made['command']}; scenario {scenario.digest}")
    with writing(path, UsageError), progress.bar(f"writing, of at most {end / hz:g} s", end, "%") as report:
        count = write_run(scenario, policy, seed, path, start, stop, origin, report)
    return f"{count:,} events of seed {seed} under {policy}: {shown_path(path)}"


def cycles_of(window: str, hz: int) -> tuple[int, int]:
    """The cycles start..stop-1 that FROM:TO stands for, in ms."""
    match = re.fullmatch(rf"({_MS})?:({_MS})?", window)
    start, stop = (round(float(ms) * hz / 1000) if ms else None for ms in (match.groups() if match else ("", "")))
    if not match or (stop is not None and stop <= (start or 0)):
        raise UsageError(f"--window {plain(window)}: must be FROM:TO in simulated ms, FROM below TO: 10:12.5")
    return start or 0, NEVER if stop is None else stop
