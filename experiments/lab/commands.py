"""The command line: `ple-gym experiments NAME`; from a checkout `python -m experiments NAME` is the same.

Exit codes: 0; 1 if a replay differs; 2 for whatever the user can put right (one line says what); 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.text import Text
from tyro.conf import Positional, arg

import ple_gym
from experiments.lab import results
from experiments.lab.discovery import experiments
from experiments.lab.executors import Where
from experiments.lab.folders import IS_CHECKOUT, PROFILES, RESULTS, SCRATCH, TABLES
from experiments.lab.replay import replay
from experiments.lab.report import Check
from experiments.lab.sweeps import Experiment, Folders, sweep
from experiments.lab.tables import kept
from experiments.learning import trainings
from experiments.paper import fit
from ple_gym import compilation
from ple_gym.cli.outputs import console_for
from ple_gym.cli.parsing import parse
from ple_gym.cli.process import discard_stdout, mistake
from ple_gym.errors import PleError, UsageError
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.files import make_folder, writing
from ple_gym.messages import shown_path
from ple_gym.progress import bar
from ple_gym.scenario.parameters import unknown
from ple_gym.scenario.schedulers import SCHEDULERS

MOST = 10**6  # of what can be counted on the command line
COMMANDS = {
    "list": "the experiments and their questions",
    "all": "every experiment, then RESULTS.md",
    "results": "write RESULTS.md, the pages in docs/ and the pictures from the committed data",
    "train": "train the policies of the leaderboard (agents/checkpoints.tar.xz)",
    "fit": "calibrate: fit the profiles in profiles/ (`--trials`)",
    "replay": "simulate a sample of the committed rows again; exit 1 on any difference",
}


#: What each command makes use of; an experiment takes `EXPERIMENT`.
EXPERIMENT = ("quick", "jobs", "ray", "out")
TAKES = {
    "list": (), "all": EXPERIMENT, "results": (), "train": ("jobs",), "fit": ("quick", "jobs", "ray", "trials"),
    "replay": ("jobs", "ray"),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Rerun the paper's experiments.

    NAME is an experiment or one of: list, all, fit, results, train, replay. What was interrupted goes on when it is
    started again. Example: ple-gym experiments figure2 --jobs 2
    """

    name: Annotated[str, Positional, arg(metavar="NAME", help="what to run")] = "list"
    quick: Annotated[bool, arg(help="few seeds, in seconds; leaves the committed results alone")] = False
    jobs: Annotated[int, arg(metavar="N", help="local processes")] = os.cpu_count() or 1
    ray: Annotated[str, arg(metavar="ADDRESS", help="run on this Ray cluster; 'local' starts one here")] = ""
    trials: Annotated[int, arg(metavar="N", help="parameter sets that `fit` tries for each explanation")] = fit.TRIALS
    out: Annotated[Path, arg(metavar="FOLDER", help="for tables (CSV) and pictures, beside the kept ones")] = TABLES

    def check(self) -> None:
        """Refuse what the command would not make use of.

        Raises:
            UsageError: no such command or experiment, an option that it does not take, or a number too small.
        """
        if self.name not in (*experiments(), *COMMANDS):
            raise unknown("experiment", self.name, [*experiments(), *COMMANDS], True, UsageError)
        if not IS_CHECKOUT and self.name in ("results", "train", "fit", "replay"):
            raise UsageError(f"{self.name}: needs a checkout, for what git keeps; an experiment does not")
        taken = TAKES.get(self.name, EXPERIMENT)
        for option in fields(self)[1:]:
            if getattr(self, option.name) != option.default and option.name not in taken:
                takes = ", ".join(f"--{name}" for name in taken)
                raise UsageError(f"--{option.name}: {self.name} does not take it{f', only {takes}' * bool(takes)}")
        for option, number in (("jobs", self.jobs), ("trials", self.trials)):
            if not 1 <= number <= MOST:
                raise UsageError(f"--{option} {number}: must be 1..{MOST}")
        if not str(self.out).isprintable() or (os.path.exists(self.out) and not os.path.isdir(self.out)):
            raise UsageError(f"--out {shown_path(self.out)}: must be a folder, with a name that can be printed")

    def where(self) -> Where:
        """Where to run."""
        return Where(self.jobs, self.ray)

    def folders(self) -> Folders:
        """Where to write."""
        if self.quick:
            return Folders(SCRATCH / "quick" if self.out == TABLES else self.out, SCRATCH / "quick")
        return Folders(self.out, SCRATCH)

    def kept(self) -> bool:
        """Whether what is measured takes the place of the committed results."""
        return IS_CHECKOUT and not self.quick and self.out == TABLES


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ModuleNotFoundError: a library of an extra is not installed.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments == ["--version"]:
            print(f"ple-gym {ple_gym.__version__}")
            return 0
        options = parse(Options, arguments, "ple-gym experiments")
        if options is None:
            return 0
        options.check()
        code = _run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough
        discard_stdout()
        return 0
    except PleError as error:
        return mistake("experiments", str(error))
    except MemoryError:
        return mistake("experiments", "out of memory")
    except OSError as error:
        return mistake("experiments", f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _run(options: Options) -> int:
    console = console_for()
    if options.name == "list":
        _list(console)
    elif options.name == "replay":
        compilation.warm_up_and_say(*SCHEDULERS)
        differences = replay(RESULTS, console.print, options.where())
        return 1 if differences else 0
    elif options.name == "fit":
        _fit(options, console)
    elif options.name == "train":
        with bar("policies", sum(row.seeds for row in trainings.ALL)) as progress:
            trainings.train_all(options.where().jobs, progress)
    elif options.name == "results":
        results.write()
    else:
        chosen = experiments() if options.name == "all" else {options.name: experiments()[options.name]}
        for experiment in chosen.values():
            _experiment(experiment, options, console)
        if options.kept():
            results.write(measured=chosen)
    return 0


def _experiment(experiment: Experiment, options: Options, console: Console) -> None:
    folders, started = options.folders(), time.perf_counter()
    compilation.warm_up_and_say()
    with bar(experiment.name, len(experiment.tasks(options.quick))) as progress:
        with writing(folders.tables, UsageError):  # rather now than after the work
            make_folder(folders.tables)
        table = sweep(experiment, options.quick, options.where(), folders, progress)
    results.draw(experiment, table, folders.tables)
    if options.kept():
        table.write(kept(experiment.name))
    console.print(Text.assemble((experiment.name, "bold"), f": {experiment.title}"))
    if checks := experiment.checks(table):
        console.print(_lines(checks))
    console.print(
        f"{len(table):,} rows in {time.perf_counter() - started:.0f} s: {folders.tables / experiment.name}.csv\n"
    )


def _fit(options: Options, console: Console) -> None:
    if options.quick:
        scratch = SCRATCH / "quick"
        fit.fit(2, 40, options.where(), scratch, scratch / "profiles", console.print)
    else:
        fit.fit(options.trials, fit.RUNS, options.where(), SCRATCH, PROFILES, console.print)


def _list(console: Console) -> None:
    titles = {name: one.title for name, one in experiments().items()} | COMMANDS
    console.print(Grid(Column("name", list(titles)), [Column("question", list(titles.values()), prose=True)]))


def _lines(checks: list[Check]) -> Grid:
    verdicts = {True: "yes", False: "NO", None: "-"}
    return Grid(
        Column("row", [check.row for check in checks]),
        [
            Column("metric", [check.metric for check in checks], prose=True),
            Column("measured", [check.value for check in checks], prose=True),
            Column("band", [check.band or "-" for check in checks]),
            Column("in band", [verdicts[check.passed] for check in checks]),
        ],
    )
