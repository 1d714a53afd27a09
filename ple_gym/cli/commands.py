"""The commands `ple-gym list | parameters | show | new | measure | simulate | compare | sweep | tune | ...`.

Results go to stdout, or to stderr while `--json -` has stdout; progress and messages go to stderr. Exit codes: 0, 2 for
whatever the user can put right (one line says what), 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from tyro.conf import Positional, UseAppendAction, arg, subcommand
from tyro.constructors import PrimitiveConstructorSpec

import ple_gym
from ple_gym import compilation, evaluate, progress
from ple_gym.certify.catalogue import verdicts
from ple_gym.certify.plan import Plan
from ple_gym.cli import measure, reality
from ple_gym.cli.new import MOST_WORK_MS, check_new, machine, write_new
from ple_gym.cli.outputs import (
    STDOUT,
    check_documents,
    check_outputs,
    check_page,
    check_writable,
    console_for,
    write_csv,
    write_json,
)
from ple_gym.cli.parsing import parse
from ple_gym.cli.process import discard_stdout, missing_library, mistake, open_streams
from ple_gym.cli.timeline import TIMELINE_MS, draw_timeline, write_report
from ple_gym.cli.trace import cycles_of, write_trace
from ple_gym.cli.watch import watch
from ple_gym.cluster import Cluster, connected
from ple_gym.envs.registration import environment_id
from ple_gym.errors import PleError, UsageError
from ple_gym.evaluate.agents import Agent
from ple_gym.evaluate.comparison import Comparison
from ple_gym.evaluate.configurations import Configurations
from ple_gym.evaluate.tables import (
    IDEAL_NOTE,
    RESPONSE_NOTE,
    RUN_NOTE,
    VM_NOTE,
    bench_table,
    better_than_oracle,
    comparison_note,
    comparison_table,
    configuration_note,
    configuration_table,
    ideal_table,
    parameter_table,
    policy_table,
    run_table,
    scenario_table,
    summary,
    vm_table,
)
from ple_gym.files import writing
from ple_gym.messages import plain, shown_path
from ple_gym.policies import Compiled, known_policies
from ple_gym.provenance import told
from ple_gym.reality.tables import DISTRIBUTION_NOTE, NOTE, check_lines, check_table, distribution_table, timeline_table
from ple_gym.rules import RULES, Rule
from ple_gym.rules.documented import rules_page
from ple_gym.rules.header import c_header
from ple_gym.scenario.builtin import SCENARIOS, SUITES, load
from ple_gym.scenario.documented import documented_toml, parameters_named
from ple_gym.scenario.model import Scenario, describe_parameters
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.traces.readers import SOURCES
from ple_gym.traces.writers import WRITERS, writer_of

PLAN = Plan()  # of a certificate
PROGRAM = "ple-gym"
PICTURE = "FILE.png|pdf|svg"
DESCRIPTION = (
    "Hypervisor vCPU scheduling at pause-loop exits: simulate, compare, measure. Version: ple-gym --version. "
    "ple-gym agents trains learners, ple-gym experiments reproduces the results"
)


def _one(texts: Sequence[str]) -> str:
    if not texts[0]:
        raise ValueError("must not be empty")
    return texts[0]


def _some(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        raise ValueError("must be one name at least")
    if "" in texts:
        raise ValueError("must not be empty")
    return tuple(texts)


def _file(metavar: str) -> PrimitiveConstructorSpec[str]:
    """The name of a file, which must not be empty; the default may be, and stands for none."""
    return PrimitiveConstructorSpec(
        nargs=1, metavar=metavar, instance_from_str=_one, is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    )  # fmt: skip


def _names(metavar: str) -> PrimitiveConstructorSpec[tuple[str, ...]]:
    """Some names, one at least; the default may be none, and stands for all."""
    return PrimitiveConstructorSpec(
        nargs="*", metavar=metavar, instance_from_str=_some, is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    )  # fmt: skip


ScenarioName: TypeAlias = Annotated[
    str, Positional, arg(metavar="SCENARIO", help="name, id (PLE/Storm-v1), or .toml or .json file of a scenario")
]
Policies: TypeAlias = Annotated[
    tuple[str, ...],
    _names("NAME ..."),
    arg(
        help="rules, two-patience:patience=16, ./mine.py:rule, ./mine.so:rule, learned:NAME, ./tuned.toml, or agents, "
        "./mine.py:Agent; compared to host, or else to the first",
        help_behavior_hint="(default: all rules)",
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
    str, _file("FILE"), arg(name="json", help="write one JSON document there; - is stdout", help_behavior_hint="")
]
CsvFile: TypeAlias = Annotated[
    str,
    _file("FILE"),
    arg(name="csv", help="write the table's numbers there as CSV; - is stdout", help_behavior_hint=""),
]
TimelineFile: TypeAlias = Annotated[
    str, _file(PICTURE), arg(help=f"draw the {TIMELINE_MS} ms with most PLE exits", help_behavior_hint="")
]
TracedPolicy: TypeAlias = Annotated[
    str, arg(metavar="NAME", help="who decides at a PLE exit: a rule, or a learned policy")
]
OneSeed: TypeAlias = Annotated[str, arg(metavar="N", help="the run")]
Window: TypeAlias = Annotated[
    str, arg(metavar="FROM:TO", help="only these simulated ms; 0.5: is from there to the end")
]
PerVm: TypeAlias = Annotated[bool, arg(help="what each VM got done, and got, in a second table")]
Threads: TypeAlias = Annotated[int, arg(metavar="N", help="worker threads; 0: one per CPU")]


# ------------------------------------------------------------------------------------------------------------ commands


@dataclass(frozen=True)
class List:
    """List the scenarios and the policies.

    Example: ple-gym list --json -
    """

    json_file: JsonFile = ""

    def run(self, argv: Sequence[str]) -> None:
        """Print the tables."""
        check_writable(self.json_file)
        console = console_for(self.json_file)
        console.print(scenario_table(verdicts()))
        console.print()
        console.print(policy_table())
        write_json(self.json_file, _catalogue, argv)


@dataclass(frozen=True)
class Parameters:
    """List the parameters of scenarios, which --set and a scenario's file can change, and what is allowed.

    Example: ple-gym parameters ple host.ratelimit_us
    """

    names: Annotated[
        tuple[str, ...],
        Positional,
        _names("NAME ..."),
        arg(help="groups (host, ple, guest) or parameters", help_behavior_hint="(default: all)"),
    ] = ()
    json_file: JsonFile = ""

    def run(self, argv: Sequence[str]) -> None:
        """Print the table."""
        check_writable(self.json_file)
        names = parameters_named(self.names)
        console_for(self.json_file).print(parameter_table(names))
        write_json(self.json_file, lambda: {"parameters": _described(names)}, argv)


@dataclass(frozen=True)
class Show:
    """Print a scenario as a TOML file to edit: every parameter, what it is and what is allowed.

    Example: ple-gym show PLE/Paper8-v1 > mine.toml
    """

    scenario: ScenarioName
    overrides: Overrides = ()

    def run(self, argv: Sequence[str]) -> None:
        """Print the file."""
        sys.stdout.write(documented_toml(_scenario(self.scenario, self.overrides)))


@dataclass(frozen=True)
class New:
    """Write a scenario file of a machine, with what is most often changed; the rest takes its default.

    Example: ple-gym new box.toml --pcpus 16 --vms 2 --vcpus 16 --locks 8 --set profile=zen-kvm-6.18
    """

    out: Annotated[str, Positional, _file("FILE.toml"), arg(help="the file, which must not be there yet")]
    pcpus: Annotated[int, arg(metavar="N", help="physical CPUs")] = 4
    sockets: Annotated[int, arg(metavar="N", help="sockets that these are spread over")] = 1
    vms: Annotated[int, arg(metavar="N", help="VMs that are alike")] = 1
    vcpus: Annotated[int, arg(metavar="N", help="virtual CPUs of each VM")] = 8
    locks: Annotated[int, arg(metavar="N", help="spinlocks that the vCPUs of a VM share")] = 1
    neighbours: Annotated[int, arg(metavar="N", help="VMs beside them, of as many vCPUs, that only compute")] = 0
    work_ms: Annotated[int, arg(metavar="MS", help="work of the VMs, in ms of the whole machine")] = 250
    overrides: Overrides = ()

    def run(self, argv: Sequence[str]) -> None:
        """Write the file, say what to do with it."""
        check_new(self.out)
        check_writable(self.out)
        if not 1 <= self.work_ms <= MOST_WORK_MS:
            raise UsageError(f"--work-ms {self.work_ms}: must be 1..{MOST_WORK_MS}")
        size = {name: getattr(self, name) for name in ("pcpus", "sockets", "vms", "vcpus", "locks", "neighbours")}
        scenario = machine(Path(self.out).stem, size, self.work_ms, _changes(self.overrides))
        for warning in scenario.warnings():
            _warn(warning)
        print(write_new(self.out, scenario, argv))


@dataclass(frozen=True)
class Measure:
    """Write a scenario file of a machine from what tools have recorded there, and show how it fits.

    Example: ple-gym measure locks.csv host.ftrace --out machine.toml --set profile=zen-kvm-6.18
    """

    files: Annotated[
        tuple[str, ...],
        Positional,
        _names("FILE ..."),
        arg(
            help=f"by their ends, or KIND=FILE: {', '.join(SOURCES)}; docs/howto/measure-your-machine.md",
            help_behavior_hint="(one at least)",
        ),
    ]
    out: Annotated[str, _file("FILE.toml"), arg(help="the file, which must not be there yet")]
    seconds: Annotated[float, arg(metavar="S", help="how long a table of locks has counted; 0: nobody knows")] = 0.0
    picture: Annotated[str, _file(PICTURE), arg(help="draw how it fits", help_behavior_hint="")] = ""
    overrides: Overrides = ()

    def run(self, argv: Sequence[str]) -> None:
        """Measure, write the file, print how much was understood, and how the scenario fits."""
        check_new(self.out)
        check_writable(self.out)
        check_outputs("", self.picture, "--picture")
        changes = _changes(self.overrides)
        files = measure.measured(self.files, changes, self.seconds)
        scenario = measure.write_machine(self.out, files, changes, argv)
        for warning in scenario.warnings():
            _warn(warning)
        lines = [f"{shown_path(one.path)}: {line}" for one in files for line in one.found.told()]
        pairs, hz = measure.runs_like(scenario, files), scenario.host.tsc_hz
        console_for().print(*lines, measure.fit_table(pairs, hz), measure.FIT_NOTE, sep="\n")
        if self.picture:
            console_for().print(measure.draw_fit(self.picture, pairs, hz, argv))
        print(f"{shown_path(self.out)}: {scenario.description}. Now: ple-gym compare {shown_path(self.out)}")


@dataclass(frozen=True)
class Simulate:
    """Run a scenario under one policy, once per seed.

    Example: ple-gym simulate PLE/Paper8-v1 --policy xen-4.5 --seeds 0:16 --set host.ratelimit_us=500 --json runs.json
    """

    scenario: ScenarioName
    policy: Annotated[str, arg(metavar="NAME", help="who decides at a PLE exit: as for compare --policies")] = "host"
    seeds: Seeds = "0:16"
    overrides: Overrides = ()
    per_vm: PerVm = False
    json_file: JsonFile = ""
    timeline: TimelineFile = ""
    threads: Threads = 0

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, print a table, write what is asked for."""
        check_outputs(self.json_file, self.timeline)
        scenario = _scenario(self.scenario, self.overrides)
        policies = _policies([self.policy], self.timeline)
        comparison = _compare([scenario], policies, self.seeds, self.threads)[0]
        runs = comparison.runs[self.policy]
        console = console_for(self.json_file)
        console.print(run_table(runs))
        console.print(RUN_NOTE)
        if scenario.has_goals:
            console.print(RESPONSE_NOTE)
        console.print(comparison_table(comparison) if comparison.endless else summary(comparison.rows()[0]))
        if self.per_vm:
            console.print(vm_table(comparison), VM_NOTE, sep="\n")
        if self.timeline:
            console.print(draw_timeline(self.timeline, comparison, argv))
        write_json(
            self.json_file,
            lambda: {
                "scenario": comparison.scenario.name,
                "policy": self.policy,
                "parameters": comparison.scenario.parameters(),
                "runs": list(runs),
            },
            argv,
            comparison.digests(),
        )


@dataclass(frozen=True)
class Compare:
    """Compare policies on one scenario, or also several scenarios with each other, on the same seeds.

    Example: ple-gym compare PLE/Paper8-v1 --policies xen-4.5 paper oracle --seeds 0:20 --timeline timeline.png
    """

    scenarios: Annotated[
        tuple[str, ...],
        Positional,
        _names("SCENARIO ..."),
        arg(help="names, ids or files; compared to the first", help_behavior_hint="(one at least)"),
    ]
    policies: Policies = ()
    seeds: Seeds = "0:20"
    overrides: Overrides = ()
    against: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="NAME=VALUE ...", help="compare also to the scenario so changed", help_behavior_hint=""),
    ] = ()
    per_vm: PerVm = False
    json_file: JsonFile = ""
    csv_file: CsvFile = ""
    timeline: TimelineFile = ""
    threads: Threads = 0

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, print a table, write what is asked for."""
        check_documents(self.json_file, self.csv_file)
        check_outputs(self.json_file, self.timeline)
        if len(self.scenarios) > 1 or self.against:
            self._compare_configurations(argv)
            return
        scenario = _scenario(self.scenarios[0], self.overrides)
        policies = _policies(self.policies, self.timeline)
        comparison = _compare([scenario], policies, self.seeds, self.threads)[0]
        console = console_for(self.json_file, self.csv_file)
        console.print(comparison_table(comparison))
        console.print(comparison_note(comparison))
        if self.per_vm:
            console.print(vm_table(comparison), VM_NOTE, sep="\n")
        if self.timeline:
            console.print(draw_timeline(self.timeline, comparison, argv))
        write_json(self.json_file, comparison.to_dict, argv, comparison.digests())
        write_csv(self.csv_file, comparison, argv)

    def _compare_configurations(self, argv: Sequence[str]) -> None:
        """Do the same with several scenarios, or with one in two ways."""
        for option, asked in (("--timeline", self.timeline), ("--per-vm", self.per_vm)):
            if asked:
                raise UsageError(f"{option}: takes one scenario, and no --against")
        names, changes, other = self.scenarios, _changes(self.overrides), _changes(self.against, "--against")
        if self.against and len(names) > 1:
            raise UsageError(f"--against: takes one scenario, not {len(names)}")
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{plain(name)}: is named {names.count(name)} times, must be once")
        scenarios = {name: load(name).with_overrides(changes) for name in names}
        if other:
            told = " ".join(f"{name}={value}" for name, value in other.items())
            scenarios[told] = load(names[0]).with_overrides({**changes, **other})
        _run_configurations(
            lambda policies, seeds, threads: evaluate.compare_configurations(scenarios, policies, seeds, True, threads),
            self, argv,
        )  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Write one HTML page of a comparison: tables, distributions, and timelines to zoom into.

    Example: ple-gym report PLE/Paper8-v1 --policies xen-4.5 paper oracle --seeds 0:20 --out report.html
    """

    scenario: ScenarioName
    out: Annotated[str, _file("FILE.html"), arg(help="the page")]
    policies: Policies = ()
    seeds: Seeds = "0:20"
    overrides: Overrides = ()
    window: Annotated[
        str, _file("FROM:TO"), arg(help=f"ms that timelines show, not the {TIMELINE_MS} with most exits")
    ] = ""
    threads: Threads = 0

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, write the page, say where it is."""
        check_page(self.out)
        scenario = _scenario(self.scenario, self.overrides)
        window = cycles_of(self.window, scenario.host.tsc_hz) if self.window else None
        comparison = _compare([scenario], _policies(self.policies), self.seeds, self.threads)[0]
        print(write_report(self.out, comparison, window, argv))


@dataclass(frozen=True)
class Sweep:
    """Try values of one or two parameters under some policies, on the same seeds.

    Example: ple-gym sweep Storm --sweep ple.window=1024,4096,16384 --policies host kvm --picture windows.png
    """

    scenario: ScenarioName
    sweep: Annotated[
        tuple[str, ...],
        UseAppendAction,
        arg(
            metavar="NAME=V,V,...", help="a parameter, or profile, and its values", help_behavior_hint="(once or twice)"
        ),
    ] = ()
    policies: Policies = ()
    seeds: Seeds = "0:20"
    overrides: Overrides = ()
    json_file: JsonFile = ""
    csv_file: CsvFile = ""
    picture: Annotated[str, _file(PICTURE), arg(help="draw what is compared", help_behavior_hint="")] = ""
    threads: Threads = 0

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, print a table, write what is asked for."""
        check_documents(self.json_file, self.csv_file)
        check_outputs("", self.picture, "--picture")
        if len(self.sweep) not in (1, 2):
            raise UsageError(f"--sweep: must be given once or twice, not {len(self.sweep)} times")
        changes, values = _changes(self.overrides), _changes([self.sweep], "--sweep", "NAME=VALUE,VALUE,...")
        for name in values:
            if name in changes:
                raise UsageError(f"--sweep {plain(name)}: must not also be in --set")
        result = _run_configurations(
            lambda policies, seeds, threads: evaluate.sweep(
                self.scenario, {name: str(text).split(",") for name, text in values.items()}, policies, seeds, changes,
                True, threads,
            ),
            self, argv,
        )  # fmt: skip
        if self.picture:
            with writing(self.picture, UsageError), progress.waiting("drawing the sweep"):
                from ple_gym.evaluate.pictures import sweep_figure
                from ple_gym.traces.pictures import save_figure

                save_figure(sweep_figure(result), self.picture, told(argv, result.digests()))


@dataclass(frozen=True)
class Tune:
    """Search the parameters of a rule on one scenario, or on a fleet; all built-in rules are in the race.

    Example: ple-gym tune patience PLE/Storm-v1 --out storm.toml
    """

    rule: Annotated[str, Positional, arg(metavar="RULE", help="a rule; values given, two-patience:patience=8, stay")]
    scenario: ScenarioName
    overrides: Overrides = ()
    out: Annotated[str, _file("FILE.toml"), arg(help="keep there what was found: a policy's name")] = ""
    study: Annotated[str, _file("FILE"), arg(help="keep runs there, and go on from them", help_behavior_hint="")] = ""
    trials: Annotated[int, arg(metavar="N", help="proposals of each restart")] = 150
    restarts: Annotated[int, arg(metavar="N", help="searches that begin anew")] = 4
    training: Annotated[int, arg(metavar="N", help="seeds of each proposal: 0 on")] = 28
    validation: Annotated[int, arg(metavar="N", help="seeds of the race: 1,000,000 on")] = 128
    seed: Annotated[int, arg(metavar="N", help="of the search")] = 0
    threads: Threads = 0
    ray: Annotated[
        str, arg(metavar="ADDRESS", help="run on this Ray cluster; 'local' starts one here, of --threads workers")
    ] = ""

    def run(self, argv: Sequence[str]) -> None:
        """Search, print the race, write what was found."""
        from ple_gym.cli import tune
        from ple_gym.course import Course, FleetCourse
        from ple_gym.scenario.fleet import SPLITS, is_fleet
        from ple_gym.tuning import Search

        if self.out and not self.out.endswith(".toml"):
            raise UsageError(f"--out {plain(self.out)}: the name must end in .toml")
        check_writable(self.out)
        threads = _workers(self.threads)
        split = is_fleet(self.scenario)
        if split and (split != SPLITS[0] or self.overrides):
            raise UsageError(f"{split}: a rule is tuned on {SPLITS[0]}, validated on {SPLITS[1]}, without --set")
        rule = tune.rule_named(self.rule)
        with _cluster(self.ray, threads) as cluster:
            if split:
                course: Course = FleetCourse(threads=threads, cluster=cluster)
            else:
                course = Course(_scenario(self.scenario, self.overrides), self.training, threads, cluster)
            search = Search(course, rule, self.restarts, self.trials, self.training, self.validation, self.seed)
            found = tune.search_and_tell(search, self.study or (f"{self.out}.study" if self.out else ""))
        console_for().print(tune.race_table(found), tune.verdict(found), sep="\n")
        if self.out:
            print(tune.keep(self.out, found, argv))


@dataclass(frozen=True)
class Certify:
    """Certify whether there is anything to learn in a scenario: rules tuned, bounds by look-ahead, learned policies.

    Example: ple-gym certify PLE/TicketOrder-v1 --out order.json
    """

    scenario: ScenarioName
    overrides: Overrides = ()
    out: Annotated[str, _file("FILE.json"), arg(help="write the certificate there")] = ""
    parts: Annotated[
        str,
        _file("FILE"),
        arg(help="keep there what is done, and go on from it", help_behavior_hint="(default: OUT.parts)"),
    ] = ""
    policy: Annotated[str, _file("FILE.npz"), arg(help="write the best policy that was learned there")] = ""
    quick: Annotated[bool, arg(help="little of everything: to see how it goes")] = False
    seeds: Annotated[int, arg(metavar="N", help="fresh seeds of rules and learned policies")] = PLAN.seeds
    tuned: Annotated[int, arg(metavar="N", help="rules that are tuned")] = PLAN.tuned
    restarts: Annotated[int, arg(metavar="N", help="searches of each tuning")] = PLAN.restarts
    trials: Annotated[int, arg(metavar="N", help="proposals of each of these")] = PLAN.trials
    ahead: Annotated[int, arg(metavar="N", help="fresh seeds of the look-aheads")] = PLAN.ahead
    samples: Annotated[int, arg(metavar="N", help="futures in which an action is judged")] = PLAN.samples
    horizon_us: Annotated[int, arg(metavar="US", help="how far they look; 0: to the end")] = PLAN.horizon_us
    learners: Annotated[int, arg(metavar="N", help="searches for each kind of network")] = PLAN.learners
    generations: Annotated[int, arg(metavar="N", help="generations of each of these")] = PLAN.generations
    worlds: Annotated[int, arg(metavar="N", help="training seeds of each generation")] = PLAN.worlds
    lessons: Annotated[
        int, arg(metavar="N", help="training seeds whose look-ahead one of them learns from first; 0: none does")
    ] = PLAN.lessons
    threads: Threads = 0

    def run(self, argv: Sequence[str]) -> None:
        """Do the work, print the rows and the verdict, write the certificate."""
        from ple_gym.cli import certify

        for path in (self.out, self.policy):
            check_writable(path)
        sizes = {name: getattr(self, name) for name in certify.SIZES}
        plan = certify.plan(sizes, self.quick)
        found = certify.work(
            _scenario(self.scenario, self.overrides), plan, self.parts or (f"{self.out}.parts" if self.out else ""),
            _workers(self.threads), argv, self.policy,
        )  # fmt: skip
        console_for(self.out).print(certify.table(found), certify.verdict(found), sep="\n")
        certify.keep(self.out, found)


@dataclass(frozen=True)
class Tabulate:
    """Print how far every policy is from the ideal (useful work / pCPUs) on every scenario.

    Example: ple-gym table --seeds 0:20
    """

    scenarios: Annotated[
        tuple[str, ...],
        _names("SCENARIO ..."),
        arg(help="names, ids or files", help_behavior_hint="(default: all)"),
    ] = ()
    policies: Policies = ()
    seeds: Seeds = "0:20"
    json_file: JsonFile = ""
    threads: Threads = 0

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, print the table and what it says about the oracle."""
        check_writable(self.json_file)
        scenarios = [_scenario(name, ()) for name in self.scenarios] or list(SCENARIOS.values())
        comparisons = _compare(scenarios, _policies(self.policies), self.seeds, self.threads)
        console = console_for(self.json_file)
        console.print(ideal_table(comparisons))
        console.print(IDEAL_NOTE)
        for line in better_than_oracle(comparisons):
            console.print(line)
        digests = {name: digest for comparison in comparisons for name, digest in comparison.digests().items()}
        write_json(
            self.json_file, lambda: {"scenarios": [comparison.to_dict() for comparison in comparisons]}, argv, digests
        )


@dataclass(frozen=True)
class Trace:
    """Write what happened in one run to a file for other tools: ftrace text, Perfetto, CSV, ..., by the name's end.

    Example: ple-gym trace PLE/Paper8-v1 --policy xen-4.5 --seed 3 --window 10:15 --out run.ftrace
    """

    scenario: ScenarioName
    out: Annotated[str, _file("FILE"), arg(help=f"its name ends in {', '.join(WRITERS)}; docs/howto/export-a-trace.md")]
    policy: TracedPolicy = "host"
    seed: OneSeed = "0"
    window: Window = ":"
    overrides: Overrides = ()

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, write the file, say what is in it."""
        if self.out == STDOUT:
            raise UsageError("--out -: must be a file")
        writer_of(self.out)
        check_writable(self.out)
        scenario = _scenario(self.scenario, self.overrides)
        print(write_trace(self.out, scenario, self.policy, _traced(self.policy, self.seed), self.window, argv))


@dataclass(frozen=True)
class Watch:
    """Show a run in the terminal, slowed down: who runs where, and who holds and waits for each lock. Ctrl-C ends it.

    Example: ple-gym watch PLE/Storm-v1 --policy xen-4.8 --window 2: --speed 0.5
    """

    scenario: ScenarioName
    policy: TracedPolicy = "host"
    seed: OneSeed = "0"
    window: Window = ":"
    speed: Annotated[float, arg(metavar="MS", help="simulated ms in a second")] = 1.0
    overrides: Overrides = ()

    def run(self, argv: Sequence[str]) -> None:
        """Simulate, show."""
        if not 0 < self.speed <= 1e6:
            raise UsageError(f"--speed {self.speed:g}: must be above 0, at most 1000000")
        scenario = _scenario(self.scenario, self.overrides)
        seed = _traced(self.policy, self.seed)
        start, stop = cycles_of(self.window, scenario.host.tsc_hz)
        compilation.warm_up_and_say(scenario.host.scheduler)
        watch(scenario, self.policy, seed, start, stop, self.speed, console_for())


@dataclass(frozen=True)
class Rules:
    """Print a page for those who write rules: the built-in ones, what a rule sees, and what helps.

    Example: ple-gym rules > rules.md
    """

    def run(self, argv: Sequence[str]) -> None:
        """Print the page."""
        sys.stdout.write(rules_page(RULES))


@dataclass(frozen=True)
class Header:
    """Print the C header that a rule in C includes.

    Example: ple-gym header > ple_gym.h
    """

    def run(self, argv: Sequence[str]) -> None:
        """Print the header."""
        sys.stdout.write(c_header())


@dataclass(frozen=True)
class Bench:
    """Measure speed, next to what it should be.

    Example: ple-gym bench --quick
    """

    quick: Annotated[bool, arg(help="fewer repetitions and lanes; no training, no cold compilation")] = False
    json_file: JsonFile = ""

    def run(self, argv: Sequence[str]) -> None:
        """Measure, print a table."""
        check_writable(self.json_file)
        with progress.waiting(compilation.compiling):
            compilation.warm_up()
            from ple_gym import bench
        with progress.steps("measuring", len(bench.subjects(self.quick))) as announce:
            report = bench.measure(self.quick, announce)
        console_for(self.json_file).print(bench_table(report), report.machine_line(), sep="\n")
        write_json(self.json_file, report.to_dict, argv)


@dataclass(frozen=True)
class Reality:
    """Run threads that spin on a lock under this machine's kernel, beside what the fair host predicts of them.

    Example: ple-gym reality --out runs.txt --picture reality.png
    """

    quick: Annotated[bool, arg(help="12 settings instead of 64")] = False
    bistable: Annotated[bool, arg(help="17 settings, in which a convoy forms by chance; with --repetitions 10")] = False
    setting: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(
            metavar="NAME=VALUE ...",
            help="alone threads=4 groups=1 window=4096 hold=2000 think=60000 lock=ticket reaction=yield, changed",
            help_behavior_hint="",
        ),
    ] = ()
    repetitions: Annotated[int, arg(metavar="N", help="runs of each setting")] = 3
    seconds: Annotated[float, arg(metavar="S", help="length of a run")] = 0.3
    cpus: Annotated[int, arg(metavar="N", help="CPUs that the threads have; 0: two, or one if there is no more")] = 0
    seeds: Annotated[int, arg(metavar="N", help="runs of the simulator for each setting")] = 10
    out: Annotated[str, _file("FILE.txt"), arg(help="keep there what was measured", help_behavior_hint="")] = ""
    measured: Annotated[
        tuple[str, ...],
        _names("FILE.txt ..."),
        arg(help="compare with what --out has kept, all runs together; run nothing", help_behavior_hint=""),
    ] = ()
    json_file: JsonFile = ""
    picture: Annotated[str, _file(PICTURE), arg(help="draw predicted against measured", help_behavior_hint="")] = ""
    timeline: Annotated[str, _file(PICTURE), arg(help="draw who had the CPUs (perf)", help_behavior_hint="")] = ""
    trace: Annotated[
        str, _file("FILE.perf"), arg(help="keep what perf recorded, or with --measured read it", help_behavior_hint="")
    ] = ""

    def run(self, argv: Sequence[str]) -> None:
        """Measure, predict, print a table, write what is asked for."""
        check_outputs(self.json_file, self.picture, "--picture")
        check_outputs("", self.timeline)
        check_writable(self.out)
        settings, with_perf = [], bool(self.timeline or self.trace)
        if self.out and self.measured:
            raise UsageError(f"--out {plain(self.out)}: nothing is measured with --measured")
        if self.measured and self.timeline and not self.trace:
            raise UsageError(f"--timeline {plain(self.timeline)}: takes --trace, too, with --measured")
        if self.measured:
            measured = reality.measured_before(self.measured)
        else:
            check_writable(self.trace)
            settings = reality.chosen(self.quick, self.bistable, _changes(self.setting, "--setting"))
            measured = reality.measure_here(settings, self.repetitions, self.seconds, self.cpus, with_perf)
        if self.out:
            reality.keep(self.out, measured)
        if with_perf:
            events = reality.recorded(measured, settings, self.trace)
        check = reality.predict(measured, self.seeds)
        document = check.to_dict()
        console = console_for(self.json_file)
        console.print(check_table(check), NOTE, sep="\n")
        if check.distributed:
            console.print(distribution_table(check), DISTRIBUTION_NOTE, sep="\n")
        console.print(*check_lines(check), sep="\n")
        if self.picture:
            reality.draw(self.picture, check, argv)
        if with_perf:
            both = reality.timelines(events, measured)
            console.print(timeline_table(*both))
            document["timeline"] = {"measured": both[0].numbers(), "simulated": both[1].numbers()}
            if self.timeline:
                reality.draw_timelines(self.timeline, both, measured, argv)
        write_json(self.json_file, lambda: document, argv)


@dataclass(frozen=True)
class Warmup:
    """Compile the simulators of all hosts once, so that nothing later has to wait for them.

    Example: ple-gym warmup
    """

    def run(self, argv: Sequence[str]) -> None:
        """Compile, say how long it took and where the result is kept."""
        seconds = compilation.warm_up_and_say(*SCHEDULERS)
        cache = compilation.loaded_from() or compilation.cache_folder() or f"none ({compilation.NO_CACHE})"
        print(f"ready after {seconds:.1f} s; cache: {cache}")


Command: TypeAlias = (
    Annotated[List, subcommand(name="list")]
    | Annotated[Parameters, subcommand(name="parameters")]
    | Annotated[Show, subcommand(name="show")]
    | Annotated[New, subcommand(name="new")]
    | Annotated[Measure, subcommand(name="measure")]
    | Annotated[Simulate, subcommand(name="simulate")]
    | Annotated[Compare, subcommand(name="compare")]
    | Annotated[Report, subcommand(name="report")]
    | Annotated[Sweep, subcommand(name="sweep")]
    | Annotated[Tune, subcommand(name="tune")]
    | Annotated[Certify, subcommand(name="certify")]
    | Annotated[Tabulate, subcommand(name="table")]
    | Annotated[Trace, subcommand(name="trace")]
    | Annotated[Watch, subcommand(name="watch")]
    | Annotated[Rules, subcommand(name="rules")]
    | Annotated[Header, subcommand(name="header")]
    | Annotated[Bench, subcommand(name="bench")]
    | Annotated[Reality, subcommand(name="reality")]
    | Annotated[Warmup, subcommand(name="warmup")]
)

# ---------------------------------------------------------------------------------------------------------------- main


def execute(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process if None) and return its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not open_streams():
        return mistake(PROGRAM, "stdout: is closed")
    try:
        if arguments == ["--version"]:
            print(f"{PROGRAM} {ple_gym.__version__}")
        elif (command := parse(Command, arguments, PROGRAM, DESCRIPTION)) is not None:
            command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        discard_stdout()
        return 0
    except PleError as error:
        return mistake(PROGRAM, str(error))
    except MemoryError:
        return mistake(PROGRAM, "out of memory")
    except ModuleNotFoundError as error:
        return mistake(PROGRAM, missing_library(error))
    except OSError as error:
        discard_stdout()
        return mistake(PROGRAM, f"{error.filename or 'stdout'}: {error.strerror or error}")
    return 0


# ------------------------------------------------------------------------------------------------------------- the work


def _scenario(name: str, overrides: Sequence[Sequence[str]]) -> Scenario:
    """The scenario with its overrides; what it warns of goes to stderr."""
    changes = _changes(overrides)
    scenario = load(name)
    if scenario == Scenario():
        _warn(f"{name}: changes no parameter: every one has its default (ple-gym parameters)")
    scenario = scenario.with_overrides(changes)
    for warning in scenario.warnings():
        _warn(warning)
    return scenario


def _changes(overrides: Sequence[Sequence[str]], option: str = "--set", form: str = "NAME=VALUE") -> dict[str, object]:
    """What an option changes, by name."""
    changes: dict[str, object] = {}
    if () in overrides:
        raise UsageError(f"{option}: must be {form}")
    for text in (text for texts in overrides for text in texts):
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageError(f"{option} {plain(text)}: must be {form}")
        if key in changes:
            raise UsageError(f"{option} {plain(text)}: {plain(key)} is set twice")
        changes[key] = value
    return changes


#: By their names; None: all rules that suit the scenario.
Chosen: TypeAlias = Sequence[tuple[str, Compiled | Agent]] | None


def _policies(names: Sequence[str], timeline: str = "") -> Chosen:
    """The policies of these names, if there are any; for a timeline one of them must be compiled."""
    if not names:
        return None
    policies = [(name, evaluate.load_policy(name)) for name in names]
    if timeline and all(isinstance(policy, Agent) for _, policy in policies):
        raise UsageError("--timeline: one policy must be a rule or a learned one, as no agent's run is drawn")
    return policies


def _traced(policy: str, seed: str) -> int:
    """The seed of a run that is to be traced under this policy."""
    if isinstance(evaluate.load_policy(policy), Agent):
        raise UsageError(f"--policy {plain(policy)}: must be a rule or learned; an agent's run has no trace")
    seeds = evaluate.parse_seeds(seed)
    if len(seeds) > 1:
        raise UsageError(f"--seed {plain(seed)}: must be one number")
    return seeds[0]


def _compare(scenarios: Sequence[Scenario], policies: Chosen, seeds: str, threads: int) -> list[Comparison]:
    """Run everything with a bar; what the results warn of goes to stderr."""
    numbers = evaluate.parse_seeds(seeds)
    comparisons = evaluate.compare_all(scenarios, policies, numbers, progress=True, threads=_workers(threads))
    for comparison in comparisons:
        for warning in evaluate.doubts(comparison):
            _warn(warning)
    _tell_left_out(policies, comparisons)
    return comparisons


def _tell_left_out(policies: Chosen, comparisons: Sequence[Comparison]) -> None:
    """Which rules are missing where all were asked for."""
    for comparison in comparisons if policies is None else ():
        missing = [name for name in RULES if name not in comparison.members]
        if missing:
            names = ", ".join(missing)
            _warn(f"{comparison.scenario.name}: left out what reads another scheduler's records: {names}")


def _run_configurations(
    run: Callable[[Chosen, range, int | None], Configurations],
    asked: Compare | Sweep,
    argv: Sequence[str],
) -> Configurations:
    """Run several configurations with a bar, print their table, and write what is asked for."""
    policies = _policies(asked.policies)
    result = run(policies, evaluate.parse_seeds(asked.seeds), _workers(asked.threads))
    _tell_left_out(policies, result.comparisons[:1])
    warnings = [text for one in result.comparisons for text in (*one.scenario.warnings(), *evaluate.doubts(one))]
    for warning in dict.fromkeys(warnings):
        _warn(warning)
    console = console_for(asked.json_file, asked.csv_file)
    console.print(configuration_table(result), configuration_note(result), sep="\n")
    write_json(asked.json_file, result.to_dict, argv, result.digests())
    write_csv(asked.csv_file, result, argv)
    return result


def _workers(threads: int) -> int | None:
    if threads < 0:
        raise UsageError(f"--threads {threads}: must be 0 (one per CPU) or more")
    return threads or None


@contextmanager
def _cluster(address: str, workers: int | None) -> Iterator[Cluster | None]:
    """The Ray cluster at an address; None if there is no address."""
    if not address:
        yield None
        return
    with connected(address, workers or os.cpu_count() or 1) as cluster:
        yield cluster


def _warn(text: str) -> None:
    print(f"{PROGRAM}: warning: {text}", file=sys.stderr)


def _catalogue() -> dict[str, Any]:
    """What `list --json` prints."""
    return {
        "scenarios": [
            {
                "id": environment_id(name),
                "suite": SUITES[name],
                "verdict": verdicts()[name],
                "pcpus": scenario.host.pcpus,
                "vcpus": scenario.vcpus,
                "description": scenario.description,
            }
            for name, scenario in SCENARIOS.items()
        ],
        "policies": [
            {
                "name": rule.name,
                "summary": rule.summary,
                "information": rule.information,
                "reads": rule.reads,
                "actuator": rule.actuator,
                "source": rule.source,
                "hypothetical": rule.hypothetical,
                "parameters": [
                    {"name": name, "default": one.default, "allowed": one.kind.allowed, "help": one.help}
                    for name, one in (rule.parameters.items() if isinstance(rule, Rule) else ())
                ],
            }
            for rule in known_policies()
        ],
    }


def _described(names: Sequence[str]) -> list[dict[str, Any]]:
    """What `parameters --json` prints."""
    described, defaults = describe_parameters(), Scenario().parameters()
    return [
        {"name": name, "default": defaults[name], "allowed": allowed, "help": text}
        for name in names
        for allowed, text in [described[name]]
    ]
