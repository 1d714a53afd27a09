"""`ple-gym measure`: a scenario file of a machine, from what tools have recorded there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ple_gym import progress
from ple_gym.cli.new import SHOWN
from ple_gym.compilation import warm_up_and_say
from ple_gym.errors import UsageError
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.tables import number
from ple_gym.files import write_whole, writing
from ple_gym.measure.machine import DEFAULT, SHARES, Measured, assemble, like, measure, quantities, simulated
from ple_gym.messages import shown_path
from ple_gym.provenance import comment_lines, provenance, told
from ple_gym.scenario.affinity import MAX_PCPU
from ple_gym.scenario.documented import documented_toml
from ple_gym.scenario.model import Scenario
from ple_gym.traces.readers import SOURCES, read_source

LONGEST_S = 10**7
FIT_NOTE = """\
measured / simulated, of guest, times in us: the second from a run of the new scenario under host. Computes and holds
are time of the guest where the file tells it; waits and stays are time of the clock, and depend on the host."""


def measured(files: Sequence[str], changes: Mapping[str, object], seconds: float) -> list[Measured]:
    """What the files tell; each may have its kind before it, as `lock_stat=FILE`."""
    if not 0 <= seconds <= LONGEST_S:
        raise UsageError(f"--seconds {seconds:g}: must be 0..{LONGEST_S:,}")
    own = {name: value for name, value in changes.items() if not name.startswith("neighbours.")}
    # How many pCPUs there are is only seen in the files; as many as may be fit all that is known.
    scenario, result = Scenario().with_overrides({"host.pcpus": MAX_PCPU + 1, **own}), []
    for text in files:
        form, separator, path = text.partition("=")
        if not separator or form not in SOURCES:
            form, path = "", text
        with progress.waiting(f"reading {shown_path(path)}"):
            result.append(measure(path, read_source(path, form), scenario, seconds))
    return result


def write_machine(path: str, files: Sequence[Measured], changes: Mapping[str, object], argv: Sequence[str]) -> Scenario:
    """Write the scenario's file, and return it."""
    scenario, notes = assemble(Path(path).stem, files, changes)
    found = {name for name, why in notes.items() if why != DEFAULT}
    shown = {f"neighbours.{name.split('.')[2]}" if name.startswith("neighbours.") else name for name in found}
    text = documented_toml(scenario, {*SHOWN, *shown}, notes)
    with writing(path, UsageError):
        write_whole(path, "\n".join([*comment_lines(provenance(argv)), text]).encode())
    return scenario


def runs_like(scenario: Scenario, files: Sequence[Measured]) -> list[tuple[Measured, Measured]]:
    """Run the scenario; each file, and the run measured as that was."""
    warm_up_and_say(scenario.host.scheduler)
    hz = scenario.host.tsc_hz
    with progress.bar("simulating", round(scenario.limit.simulated_s * hz), "%") as report:
        run = simulated(scenario, report)
    return [(one, like(one, scenario, run)) for one in files]


def fit_table(pairs: Sequence[tuple[Measured, Measured]], hz: int) -> Grid:
    """A line for each quantity of a file."""
    rows: list[list[str]] = []
    for one, run in pairs:
        others = {name: values for name, *values in quantities(run, hz)}
        for name, count, *values in quantities(one, hz):
            other = others.get(name, [0] + ["-"] * len(values))
            cells = [f"{number(a)} / {b if b == '-' else number(b)}" for a, b in zip(values, other[1:], strict=False)]
            rows.append([name, one.name, f"{count:,} / {other[0]:,}", *cells, *[""] * (1 + len(SHARES) - len(cells))])
    heads = ("quantity", "file", "number", "mean", *(f"{share:.0%}" for share in SHARES))
    columns = [Column(head, cells, right=True) for head, *cells in zip(heads, *rows, strict=True)]
    return Grid(columns[0], columns[1:], title="Fit")


def draw_fit(path: str, pairs: Sequence[tuple[Measured, Measured]], hz: int, argv: Sequence[str]) -> str:
    """Draw the quantiles of both; what to tell of it."""
    from ple_gym.measure.pictures import fit_figure
    from ple_gym.traces.pictures import save_figure

    figure = fit_figure(pairs, hz)
    if figure is None:
        return "no picture: no file has durations"
    with writing(path, UsageError), progress.waiting("drawing the fit"):
        save_figure(figure, path, told(argv))
    return f"fit: {shown_path(path)}"
