"""What a measurement is, and the report of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

RULE = "kvm"  # of the compiled rules the one whose events per simulated second are nearest the targets' (438,000)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number; None if it could not be measured, `note` then says why. `met` is None without a target."""

    name: str
    value: float | None
    unit: str
    target: str
    met: bool | None
    note: str


@dataclass(frozen=True, slots=True)
class Report:
    """All numbers, and the machine they are from."""

    rows: list[Measurement]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a JSON-able dict."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}

    def machine_line(self) -> str:
        """The machine in a line."""
        load = [" ".join(f"{one:.2f}" for one in self.machine[when]) for when in ("load_before", "load_after")]
        versions = ", ".join(f"{name} {self.machine[name]}" for name in ("python", "numba", "numpy", "gymnasium"))
        return (
            f"one thread: CPU time; kernel rows: under {RULE}, resets included; "
            f"load average before {load[0]}, after {load[1]}; "
            f"{self.machine['cpus']} CPUs, {self.machine['processor']}; {versions}"
        )


def at_most(name: str, value: float | None, unit: str, limit: float, note: str = "") -> Measurement:
    """A number that should not be above the limit."""
    return Measurement(name, value, unit, f"<= {limit:g}", None if value is None else value <= limit, note)


def at_least(name: str, value: float | None, unit: str, limit: float, note: str = "") -> Measurement:
    """A number that should not be below the limit."""
    return Measurement(name, value, unit, f">= {limit:,}", None if value is None else value >= limit, note)


def plain(name: str, value: float | None, unit: str, note: str = "") -> Measurement:
    """A number without a target."""
    return Measurement(name, value, unit, "", None, note)


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long something took: on the clock, and on the CPU in this thread."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Seconds:
    """Do some work once."""
    wall, cpu = time.perf_counter(), time.thread_time()
    work()
    return Seconds(time.perf_counter() - wall, time.thread_time() - cpu)
