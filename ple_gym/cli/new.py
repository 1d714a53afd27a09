"""`ple-gym new`: a scenario file of a machine, from the few numbers that say most of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ple_gym.errors import UsageError
from ple_gym.files import write_whole, writing
from ple_gym.messages import plain, shown_path
from ple_gym.provenance import comment_lines, provenance
from ple_gym.scenario.documented import documented_toml
from ple_gym.scenario.model import Scenario, Vm

COMPUTE = 100_000  # mean cycles of a section
SECTIONS = 10
MOST_WORK_MS = 10_000
PATIENCE = 20  # a run is cut off after so many times its work
#: What stands in the file even where it has its default, as somebody will want to change it.
SHOWN = (
    "name", "description", "host.scheduler", "host.pcpus", "host.sockets", "host.tsc_hz", "host.timeslice_ms",
    "host.ratelimit_us", "ple.kind", "ple.gap", "ple.window", "ple.count", "limit.simulated_s", "guest.vcpus",
    "guest.count", "guest.locks", "guest.lock_kind", "guest.transactions", "guest.sections", "guest.compute",
    "guest.hold", "guest.lock_probability",
)  # fmt: skip


def check_new(path: str) -> None:
    """Raise UsageError if a new scenario file of this name could not be made, or is there already."""
    if Path(path).suffix != ".toml":
        raise UsageError(f"{shown_path(path)}: the name must end in .toml")
    if os.path.lexists(path):
        raise UsageError(f"{shown_path(path)}: is there already, and is not written over")


def machine(name: str, size: Mapping[str, int], work_ms: int, changes: Mapping[str, object]) -> Scenario:
    """The scenario of a machine.

    Args:
        name: of the scenario.
        size: pcpus and sockets; vms that are alike, and the vcpus and locks of each; neighbours that only compute.
        work_ms: work of all vms together, in ms of the whole machine.
        changes: overrides, which come last.

    Raises:
        ScenarioError: a number is not allowed.
    """
    beside = size["neighbours"]
    told = f"{size['vms']} VM{'s'[: size['vms'] > 1]} of {size['vcpus']} vCPUs on {size['pcpus']} pCPUs"
    busy = Vm(vcpus=max(1, size["vcpus"]), transactions=0, lock_probability=0.0, kernel_share=0.0)
    start = Scenario(neighbours=(busy,) if beside else ())
    first = {
        "name": name,
        "description": told + (f", beside {beside} that only compute{'s'[beside > 1 :]}" if beside else ""),
        "host.pcpus": size["pcpus"],
        "host.sockets": size["sockets"],
        "guest.vcpus": size["vcpus"],
        "guest.count": size["vms"],
        "guest.locks": size["locks"],
        "guest.sections": SECTIONS,
        "guest.compute": f"exponential {COMPUTE}",
        **({"neighbours.0.count": beside} if beside else {}),
    }
    scenario = start.with_overrides({**first, **changes})
    cycles = work_ms * scenario.host.tsc_hz // 1000 * size["pcpus"]
    work = {
        "guest.transactions": max(1, cycles // (size["vms"] * SECTIONS * COMPUTE)),
        "limit.simulated_s": work_ms * PATIENCE / 1000,
    }
    return scenario.with_overrides({name: value for name, value in work.items() if name not in changes})


def write_new(path: str, scenario: Scenario, argv: Sequence[str]) -> str:
    """Write the file; what to tell of it."""
    with writing(path, UsageError):
        write_whole(path, "\n".join([*comment_lines(provenance(argv)), documented_toml(scenario, SHOWN)]).encode())
    return f"{shown_path(path)}: {plain(scenario.description)}. Now: ple-gym compare {shown_path(path)}"
