"""`ple-gym measure`: a scenario file of a machine, from what other tools have recorded there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ple_gym import progress
from ple_gym.compilation import compiling, is_warm, warm_up
from ple_gym.errors import UsageError
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.tables import number
from ple_gym.files import write_whole, writing
from ple_gym.measure.fit import SHARES, Row, Side, fit
from ple_gym.measure.machine import Machine, Measured, assemble, measure_file
from ple_gym.messages import plain, shown_path
from ple_gym.provenance import comment_lines, provenance
from ple_gym.scenario.affinity import MAX_PCPU
from ple_gym.scenario.model import Scenario
from ple_gym.traces.sources import SOURCES

LONGEST_S = 10**7
FIT_NOTE = """\
measured / simulated, times in us: the second from one run of the new scenario under host. Computes and holds are time
of the guest where the file tells it; waits and stays are time of the clock, and depend on the host."""


def measured(files: Sequence[str], changes: Mapping[str, object], seconds: float) -> list[Measured]:
    """What the files tell; each may have its kind before it, as `lock_stat=FILE`.

    Raises:
        UsageError: `seconds` is out of range.
        TraceError: a file cannot be read, or tells nothing.
        ScenarioError: a change is wrong.
    """
    if not 0 <= seconds <= LONGEST_S:
        raise UsageError(f"--seconds {seconds:g}: must be 0..{LONGEST_S:,}")
    own = {name: value for name, value in changes.items() if not name.startswith("neighbours.")}
    # How many pCPUs there are is seen later, and must not be less than what else is known allows.
    scenario, result = Scenario().with_overrides({"host.pcpus": MAX_PCPU + 1, **own}), []
    for text in files:
        form, separator, path = text.partition("=")
        if not separator or form not in SOURCES:
            form, path = "", text
        with progress.waiting(f"reading {shown_path(path)}"):
            result.append(measure_file(path, scenario, seconds, form))
    return result


def write_machine(path: str, files: Sequence[Measured], changes: Mapping[str, object], argv: Sequence[str]) -> Machine:
    """Write the scenario's file."""
    machine = assemble(Path(path).stem, files, changes)
    with writing(path, UsageError):
        write_whole(path, machine.to_toml(comment_lines(provenance(argv))).encode())
    return machine


def fitted(machine: Machine, files: Sequence[Measured]) -> list[Row]:
    """How it fits."""
    if not is_warm():
        with progress.waiting(compiling):
            warm_up()
    scenario = machine.scenario
    end = round(scenario.limit.simulated_s * scenario.host.tsc_hz)
    with progress.bar("simulating", end, "%") as report:
        return fit(scenario, files, report)


def told(files: Sequence[Measured]) -> list[str]:
    """How much of the files was understood, in lines."""
    return [f"{shown_path(one.path)}: {line}" for one in files for line in one.found.told()]


def fit_table(rows: Sequence[Row]) -> Grid:
    """A line per quantity and file."""

    def both(row: Row, value: int) -> str:
        def cell(side: Side | None) -> str:
            if side is None or value > len(side.quantiles):
                return "-"
            return number(side.quantiles[value - 1] if value else side.mean)

        cells = cell(row.measured), cell(row.simulated)
        return "" if cells[0] == "-" else " / ".join(cells)

    def count(side: Side | None) -> str:
        return f"{side.count:,}" if side else "0"

    heads = ("mean", *(f"{share:.0%}" for share in SHARES))
    return Grid(
        Column("quantity", [row.what for row in rows]),
        [
            Column("file", [plain(row.file) for row in rows]),
            Column("number", [f"{count(row.measured)} / {count(row.simulated)}" for row in rows], right=True),
            *(Column(head, [both(row, value) for row in rows], right=True) for value, head in enumerate(heads)),
        ],
        title="Fit",
    )


def document(machine: Machine, rows: Sequence[Row]) -> dict[str, Any]:
    """The scenario, where it is from, and how it fits, as JSON has it."""

    return {
        "parameters": machine.scenario.parameters(),
        "sources": dict(machine.notes),
        "fit": [
            {"quantity": row.what, "file": row.file}
            | {name: one and asdict(one) for name, one in (("measured", row.measured), ("simulated", row.simulated))}
            for row in rows
        ],
    }
