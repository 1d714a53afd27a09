"""The command line: `ple-gym list | simulate | compare | table | bench | warmup`.

Results go to stdout, or to stderr while `--json -` has stdout; progress and messages go to stderr. Exit codes: 0, 2 for
whatever the user can put right (one line says what), 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg, subcommand

from ple_gym import evaluate
from ple_gym.comparison import Comparison
from ple_gym.files import check_writable, write_whole, writing
from ple_gym.messages import plain
from ple_gym.policies import RULES
from ple_gym.registration import environment_id
from ple_gym.scenario import Scenario, ScenarioError
from ple_gym.scenarios import SCENARIOS, SUITES, load
from ple_gym.tables import (
    IDEAL_NOTE,
    RUN_NOTE,
    ComparisonTable,
    bench_table,
    better_than_oracle,
    comparison_note,
    ideal_table,
    policy_table,
    run_table,
    scenario_table,
    summary,
    vcpus,
)
from ple_gym.trace import window

STDOUT = "-"
TIMELINE_MS = 5
WIDTH = 160  # of tables that do not go to a terminal
QUIET_S = 10.0  # between two lines of progress where there is no terminal for a bar
PATIENCE_S = 3.0  # before a compilation is announced

ScenarioName: TypeAlias = Annotated[
    str, Positional, arg(metavar="SCENARIO", help="name, id (PLE/Storm-v0), or .toml or .json file of a scenario")
]
Policies: TypeAlias = Annotated[
    tuple[str, ...],
    arg(
        metavar="NAME ...",
        help="rules or learned:NAME; compared to host, or else to the first",
        help_behavior_hint="(default: all)",
    ),
]
Seeds: TypeAlias = Annotated[str, arg(metavar="START:STOP", help="seeds, without STOP; or one number")]
Overrides: TypeAlias = Annotated[
    tuple[tuple[str, ...], ...],
    UseAppendAction,
    arg(
        name="set", metavar="NAME=VALUE ...", help="parameters to change: host.ratelimit_us=500", help_behavior_hint=""
    ),
]
JsonFile: TypeAlias = Annotated[
    str, arg(name="json", metavar="FILE", help="write one JSON document there; - is stdout", help_behavior_hint="")
]
TimelineFile: TypeAlias = Annotated[
    str, arg(metavar="FILE.png", help=f"draw the {TIMELINE_MS} ms with most PLE exits", help_behavior_hint="")
]
Threads: TypeAlias = Annotated[int, arg(metavar="N", help="worker threads; 0: one per CPU")]


class UsageError(Exception):
    """The user can put this right; the message says how, in one line."""


# ------------------------------------------------------------------------------------------------------------ commands


@dataclass(frozen=True)
class List:
    """List the scenarios and the policies.

    Example: ple-gym list --json -
    """

    json_file: JsonFile = ""

    def run(self) -> None:
        """Print both tables."""
        _check_writable(self.json_file)
        console = _console(self.json_file)
        console.print(scenario_table())
        console.print()
        console.print(policy_table())
        _write_json(self.json_file, _catalogue)


@dataclass(frozen=True)
class Simulate:
    """Run a scenario under one policy, once per seed.

    Example: ple-gym simulate PLE/Paper8-v0 --policy xen-4.5 --seeds 0:16 --set host.ratelimit_us=500 --json runs.json
    """

    scenario: ScenarioName
    policy: Annotated[str, arg(metavar="NAME", help="the rule that decides at a PLE exit")] = "host"
    seeds: Seeds = "0:16"
    overrides: Overrides = ()
    json_file: JsonFile = ""
    timeline: TimelineFile = ""
    threads: Threads = 0

    def run(self) -> None:
        """Simulate, print a table, write what is asked for."""
        _check_outputs(self.json_file, self.timeline)
        scenario, seeds = _scenario(self.scenario, self.overrides), evaluate.parse_seeds(self.seeds)
        with _progress(len(seeds)) as progress:
            comparison = evaluate.compare(
                scenario, [self.policy], seeds, progress=progress, threads=self.threads or None
            )
        runs = comparison.runs[self.policy]
        console = _console(self.json_file)
        console.print(run_table(runs))
        console.print(RUN_NOTE)
        console.print(summary(comparison.rows()[0]))
        _draw(self.timeline, comparison, console)
        _write_json(
            self.json_file,
            lambda: {
                "scenario": scenario.name,
                "policy": self.policy,
                "parameters": scenario.parameters(),
                "runs": list(runs),
            },
        )


@dataclass(frozen=True)
class Compare:
    """Compare policies on one scenario, on the same seeds.

    Example: ple-gym compare PLE/Paper8-v0 --policies xen-4.5 paper oracle --seeds 0:20 --timeline timeline.png
    """

    scenario: ScenarioName
    policies: Policies = ()
    seeds: Seeds = "0:20"
    overrides: Overrides = ()
    json_file: JsonFile = ""
    timeline: TimelineFile = ""
    threads: Threads = 0

    def run(self) -> None:
        """Simulate, print a table, write what is asked for."""
        _check_outputs(self.json_file, self.timeline)
        scenario, seeds = _scenario(self.scenario, self.overrides), evaluate.parse_seeds(self.seeds)
        policies = self.policies or tuple(RULES)
        with _progress(len(policies) * len(seeds)) as progress:
            comparison = evaluate.compare(scenario, policies, seeds, progress=progress, threads=self.threads or None)
        console = _console(self.json_file)
        console.print(ComparisonTable(comparison))
        console.print(comparison_note(comparison))
        _draw(self.timeline, comparison, console)
        _write_json(self.json_file, comparison.to_dict)


@dataclass(frozen=True)
class Tabulate:
    """Print how far every policy is from the ideal (useful work / pCPUs) on every scenario.

    Example: ple-gym table --seeds 0:20
    """

    scenarios: Annotated[
        tuple[str, ...], arg(metavar="SCENARIO ...", help="names, ids or files", help_behavior_hint="(default: all)")
    ] = ()
    policies: Annotated[
        tuple[str, ...], arg(metavar="NAME ...", help="rules", help_behavior_hint="(default: all)")
    ] = ()
    seeds: Seeds = "0:20"
    json_file: JsonFile = ""
    threads: Threads = 0

    def run(self) -> None:
        """Simulate, print the table and what it says about the oracle."""
        _check_writable(self.json_file)
        scenarios = [load(name) for name in self.scenarios or SCENARIOS]
        policies = self.policies or tuple(RULES)
        seeds = evaluate.parse_seeds(self.seeds)
        with _progress(len(scenarios) * len(policies) * len(seeds)) as progress:
            comparisons = evaluate.compare_all(
                scenarios, policies, seeds, progress=progress, threads=self.threads or None
            )
        console = _console(self.json_file)
        console.print(ideal_table(comparisons))
        console.print(IDEAL_NOTE)
        for line in better_than_oracle(comparisons):
            console.print(line)
        _write_json(self.json_file, lambda: {"scenarios": [comparison.to_dict() for comparison in comparisons]})


@dataclass(frozen=True)
class Bench:
    """Measure speed, next to what it should be.

    Example: ple-gym bench --quick
    """

    quick: Annotated[bool, arg(help="fewer repetitions and lanes; no training, no cold compilation")] = False
    json_file: JsonFile = ""

    def run(self) -> None:
        """Measure, print a table."""
        from ple_gym import bench

        _check_writable(self.json_file)
        with _announced():
            evaluate.warm_up()
        report = bench.measure(self.quick, lambda name: print(f"measuring: {name}", file=sys.stderr))
        _console(self.json_file).print(bench_table(report), report.machine_line(), sep="\n")
        _write_json(self.json_file, report.to_dict)


@dataclass(frozen=True)
class Warmup:
    """Compile the simulator once, so that nothing later has to wait for it.

    Example: ple-gym warmup
    """

    def run(self) -> None:
        """Compile, say how long it took and where the result is kept."""
        with _announced():
            seconds = evaluate.warm_up()
        print(f"ready after {seconds:.1f} s; cache: {evaluate.cache_folder() or 'none (no folder can be written to)'}")


Command: TypeAlias = (
    Annotated[List, subcommand(name="list")]
    | Annotated[Simulate, subcommand(name="simulate")]
    | Annotated[Compare, subcommand(name="compare")]
    | Annotated[Tabulate, subcommand(name="table")]
    | Annotated[Bench, subcommand(name="bench")]
    | Annotated[Warmup, subcommand(name="warmup")]
)

# ---------------------------------------------------------------------------------------------------------------- main


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process if None) and return its exit code."""
    try:
        command = _parse(argv)
        if command is not None:
            command.run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("ple-gym: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        _discard_stdout()
        return 0
    except (UsageError, ScenarioError) as error:
        return _fail(str(error))
    except OSError as error:
        _discard_stdout()
        return _fail(f"{error.filename or 'stdout'}: {error.strerror or error}")
    return 0


def _discard_stdout() -> None:
    """Let what is still buffered vanish; it could not be written, and Python would complain once more at its exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    print(f"ple-gym: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parse(argv: Sequence[str] | None) -> Any:
    """The command that the arguments stand for; None if they asked for help, which has then been printed."""
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                Command,
                args=argv,
                prog="ple-gym",
                description="Hypervisor vCPU scheduling at pause-loop exits: simulate, compare, measure.",
                config=(OmitArgPrefixes, FlagCreatePairsOff),
            )
    except SystemExit as end:
        if end.code:
            raise UsageError(_unboxed(boxed.getvalue())) from None
        return None


def _unboxed(text: str) -> str:
    """Of a title and some paragraphs in a box (of lines or, in ASCII, of rules): the first paragraph, as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    _title, *lines = (line.strip("╭╮╰╯│─ ") for line in plain.splitlines())
    body = itertools.dropwhile(_is_rule, lines)
    return f"{' '.join(itertools.takewhile(lambda line: not _is_rule(line), body))} (see ple-gym --help)"


def _is_rule(line: str) -> bool:
    return not line.strip("-")


def _scenario(name: str, overrides: Sequence[Sequence[str]]) -> Scenario:
    """The scenario with its overrides; what it warns of goes to stderr."""
    changes: dict[str, object] = {}
    for text in (text for texts in overrides for text in texts):
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {plain(text)}: must be NAME=VALUE")
        if key in changes:
            raise UsageError(f"--set {plain(text)}: {plain(key)} is set twice")
        changes[key] = value
    scenario = load(name).with_overrides(changes)
    for warning in scenario.warnings():
        print(f"ple-gym: warning: {warning}", file=sys.stderr)
    return scenario


# ------------------------------------------------------------------------------------------------------------- outputs


def _check_outputs(json_file: str, timeline: str) -> None:
    """Raise UsageError before the long work if its results could not be kept."""
    _check_writable(json_file)
    if not timeline:
        return
    if not timeline.endswith(".png"):
        raise UsageError(f"--timeline {timeline}: the name must end in .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--timeline needs matplotlib: pip install 'ple-gym[viz]'")
    _check_writable(timeline)


def _check_writable(name: str) -> None:
    """Raise UsageError if `write_whole` could not make this file; empty and - need none."""
    if name not in ("", STDOUT):
        with writing(name, UsageError):
            check_writable(name)


def _write_json(name: str, document: Callable[[], Mapping[str, Any]]) -> None:
    """Write the document, which is only made if somebody wants it."""
    if not name:
        return
    text = json.dumps(document(), indent=2, allow_nan=False) + "\n"
    if name == STDOUT:
        sys.stdout.write(text)
        return
    with writing(name, UsageError):
        write_whole(name, text.encode())


def _console(json_file: str) -> Console:
    """Where tables go: stdout, unless the JSON document has it."""
    file = sys.stderr if json_file == STDOUT else sys.stdout
    width = None if file.isatty() or "COLUMNS" in os.environ else WIDTH
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


@contextlib.contextmanager
def _announced(say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)) -> Iterator[None]:
    """Say so if the simulator turns out to need compiling."""

    def announce() -> None:
        if not evaluate.is_warm():
            say("compiling the simulator: about half a minute, once")

    timer = threading.Timer(PATIENCE_S, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line every ten seconds. Yields what to call."""
    if not sys.stderr.isatty():
        with _announced():
            yield _progress_lines(total)
        return
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=total)
        with _announced(bar.console.print):
            yield lambda done: bar.update(task, completed=done)


def _progress_lines(total: int) -> Callable[[int], None]:
    told = time.monotonic()

    def report(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= QUIET_S:
            told = time.monotonic()
            print(f"{done} of {total} runs", file=sys.stderr)

    return report


def _draw(path: str, comparison: Comparison, console: Console) -> None:
    """Draw the busiest milliseconds of the first rule's seed with most exits."""
    if not path:
        return
    from ple_gym.render import timeline_figure

    scenario, policy = comparison.scenario, comparison.baseline
    worst = max(comparison.runs[policy], key=lambda run: run["ple_exits"])
    hz = scenario.host.tsc_hz
    trace = evaluate.record(scenario, policy, worst["seed"])
    start, stop = evaluate.busiest_window(trace, TIMELINE_MS * hz // 1000)
    stop = min(stop, max(round(worst["simulated_s"] * hz), start + 1))
    title = f"{scenario.name} under {policy}, seed {worst['seed']}: the {TIMELINE_MS} ms with most PLE exits"
    # Half a second of the past is enough to know what everybody was doing at the left edge.
    shown = window(trace, start - hz // 2, stop)
    with writing(path, UsageError):
        timeline_figure(shown, scenario.host.pcpus, vcpus(scenario), start, stop, hz, title, path)
    console.print(f"Timeline of seed {worst['seed']} under {policy}: {path}")


def _catalogue() -> dict[str, Any]:
    """What `list --json` prints. Verdicts and red teams are yet to come."""
    scenarios = [
        {
            "id": environment_id(name),
            "suite": SUITES[name],
            "pcpus": scenario.host.pcpus,
            "vcpus": vcpus(scenario),
            "verdict": None,
        }
        for name, scenario in SCENARIOS.items()
    ]
    policies = [
        {
            "name": rule.name,
            "information": rule.information,
            "actuator": rule.actuator,
            "red_team": None,
            "source": rule.source,
        }
        for rule in RULES.values()
    ]
    return {"scenarios": scenarios, "policies": policies}


if __name__ == "__main__":
    sys.exit(main())
