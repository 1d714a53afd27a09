"""The command line: `python -m experiments NAME`, from a checkout.

Exit codes: 0; 1 if a replay differs; 2 for whatever the user can put right (one line says what); 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Lines
from tyro.conf import FlagCreatePairsOff, Positional, arg

from experiments import best_policy, catalog, findings, fit, leaderboard_page, trainings
from experiments.executors import Where
from experiments.lab import HERE, RESULTS, SCRATCH, Experiment, Folders, Table, sweep
from experiments.replay import replay
from experiments.report import Check, results_page
from experiments.worlds import PROFILES
from ple_gym.files import write_whole
from ple_gym.scenario import ScenarioError

QUIET_S = 10.0  # between two lines of progress where there is no terminal for a bar
COMMANDS = {
    "list": "the experiments and their questions",
    "all": "every experiment, then RESULTS.md",
    "results": "write RESULTS.md, the pages in docs/ and the pictures from the committed data",
    "train": "train the policies of the leaderboard (agents/checkpoints/)",
    "fit": "calibrate: fit the profiles in profiles/ (`--trials`)",
    "replay": "simulate a sample of the committed rows again; exit 1 on any difference",
}


@dataclass(frozen=True)
class Options:
    """Rerun the paper's experiments.

    NAME is an experiment or one of: list, all, fit, results, replay. What was interrupted goes on when it is started
    again. Example: python -m experiments figure2 --jobs 2
    """

    name: Annotated[str, Positional, arg(metavar="NAME", help="what to run")] = "list"
    quick: Annotated[bool, arg(help="few seeds, in seconds; leaves the committed results alone")] = False
    jobs: Annotated[int, arg(metavar="N", help="local processes")] = os.cpu_count() or 1
    ray: Annotated[str, arg(metavar="ADDRESS", help="run on this Ray cluster; 'local' starts one here")] = ""
    trials: Annotated[int, arg(metavar="N", help="parameter sets that `fit` tries for each explanation")] = fit.TRIALS
    out: Annotated[Path, arg(metavar="FOLDER", help="where tables and pictures are written")] = RESULTS

    def where(self) -> Where:
        """Where to run."""
        if self.jobs < 1:
            raise ScenarioError(f"--jobs = {self.jobs}: must be at least 1")
        return Where(self.jobs, self.ray)

    def folders(self) -> Folders:
        """Where to write."""
        if self.quick:
            return Folders(SCRATCH / "quick", SCRATCH / "quick")
        return Folders(self.out, SCRATCH)


def main(arguments: list[str] | None = None) -> int:
    """Run one command."""
    options = tyro.cli(Options, prog="python -m experiments", args=arguments, config=(FlagCreatePairsOff,))
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except ScenarioError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2


def _run(options: Options) -> int:
    console = Console()
    if options.name == "list":
        _list(console)
    elif options.name == "replay":
        differences = replay(RESULTS, console.print)
        return 1 if differences else 0
    elif options.name == "fit":
        _fit(options, console)
    elif options.name == "train":
        if options.quick or options.ray:
            raise ScenarioError("train: takes neither --quick nor --ray, only --jobs")
        with _progress("policies", sum(row.seeds for row in trainings.ALL)) as progress:
            trainings.train_all(options.where().jobs, progress)
    elif options.name == "results":
        write_results()
    elif options.name == "all" or options.name in catalog.NAMES:
        for name in catalog.NAMES if options.name == "all" else [options.name]:
            _experiment(catalog.load(name), options, console)
        if not options.quick and options.out == RESULTS:
            write_results(draw=False)
    else:
        raise ScenarioError(f"no experiment {options.name!r}; there are {', '.join([*catalog.NAMES, *COMMANDS])}")
    return 0


def _experiment(experiment: Experiment, options: Options, console: Console) -> None:
    folders, started = options.folders(), time.perf_counter()
    with _progress(experiment.name, len(experiment.tasks(options.quick))) as progress:
        table = sweep(experiment, options.quick, options.where(), folders, progress)
    _draw(experiment, table, folders.results)
    console.print(f"[bold]{experiment.name}[/]: {experiment.title}")
    console.print(_lines(experiment.checks(table)))
    console.print(
        f"{len(table):,} rows in {time.perf_counter() - started:.0f} s: {folders.results / experiment.name}.csv\n"
    )


def _fit(options: Options, console: Console) -> None:
    if options.quick:
        scratch = SCRATCH / "quick"
        fit.fit(2, 40, options.where(), scratch, scratch / "profiles", console.print)
    else:
        fit.fit(options.trials, fit.RUNS, options.where(), SCRATCH, PROFILES, console.print)


def write_results(draw: bool = True) -> None:
    """Write RESULTS.md, the pictures and, where no table is missing, the pages in docs/."""
    tables = {name: Table.read(_csv(name)) for name in catalog.NAMES if _csv(name).exists()}
    if draw:
        for name, table in tables.items():
            _draw(catalog.load(name), table, RESULTS)
    write_whole(HERE / "RESULTS.md", results_text(tables).encode())
    if tables.keys() >= set(findings.SOURCES):
        findings.write()
    if tables.keys() >= set(leaderboard_page.NAMES):
        leaderboard_page.write()
    if tables.keys() >= set(best_policy.NAMES):
        best_policy.write()


def results_text(tables: dict[str, Table]) -> str:
    """RESULTS.md from the tables of the experiments."""
    sections = []
    for name, table in tables.items():
        experiment = catalog.load(name)
        links = f"{len(table):,} rows: [results/{name}.csv](results/{name}.csv)"
        links += f", picture: [results/{name}.png](results/{name}.png)" if experiment.draw else ""
        sections.append((name, experiment.title, links, experiment.checks(table)))
    return results_page(sections)


def _csv(name: str) -> Path:
    return RESULTS / f"{name}.csv"


def _draw(experiment: Experiment, table: Table, folder: Path) -> None:
    if experiment.draw:
        experiment.draw(table, folder / f"{experiment.name}.png")


def _list(console: Console) -> None:
    lines = Lines("name", "question", box=None)
    for name in catalog.NAMES:
        lines.add_row(name, catalog.load(name).title)
    for name, text in COMMANDS.items():
        lines.add_row(name, text)
    console.print(lines)


def _lines(checks: list[Check]) -> Lines:
    lines = Lines("row", "metric", "measured", "band", "in band", box=None)
    for check in checks:
        verdict = {True: "yes", False: "NO", None: "-"}[check.passed]
        lines.add_row(check.row, check.metric, check.value, check.band or "-", verdict)
    return lines


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line now and then. Yields what to call."""
    if not sys.stderr.isatty():
        told = time.monotonic()

        def report(done: int) -> None:
            nonlocal told
            if time.monotonic() - told >= QUIET_S:
                told = time.monotonic()
                print(f"{name}: {done} of {total}", file=sys.stderr)

        yield report
        return
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)


if __name__ == "__main__":
    sys.exit(main())
