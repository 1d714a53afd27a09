"""Results as tables and lines for people, in plain ASCII. Computes nothing that `comparison` and `bench` have not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from ple_gym.envs.registration import environment_id
from ple_gym.episode import Cycles, total_cycles
from ple_gym.evaluate.agents import LANES
from ple_gym.evaluate.comparison import HOST, Comparison, Outcome, Row, Run, VmNumber
from ple_gym.evaluate.configurations import Configurations
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.statistics import ENOUGH_DIFFERING, ENOUGH_RUNS, ENOUGH_TAIL, Estimate, Ratio, estimate
from ple_gym.evaluate.tabular import table_of
from ple_gym.learned.file import PREFIX
from ple_gym.policies import Compiled, known_policies
from ple_gym.rules import Rule
from ple_gym.rules.registry import ACTUATORS
from ple_gym.scenario.builtin import SCENARIOS, SUITES
from ple_gym.scenario.model import Scenario, describe_parameters

if TYPE_CHECKING:
    from ple_gym.bench import Report

MOST_RUNS = 20  # that `run_table` shows
FEW = "~"  # behind an interval that rests on few runs
VISIBLE = 0.00005  # what a remark with two decimals of a percent can show

RUN_NOTE = """\
Times in ms. ideal: useful work / pCPUs. exits: at pause loops, most: of one acquisition. p99, max: waits for a lock.
LHP, LWP: holder, next waiter preempted. waste: percent of pCPU time in spin and exit. *: cut off at the limit."""
RESPONSE_NOTE = "response: the 99 % quantile of responses, in goals (response_goal_us)."

IDEAL_NOTE = """\
Percent above the ideal makespan (useful work / pCPUs), geometric mean over the seeds.
*n: n runs were cut off at limit.simulated_s, which counts as their makespan (ideal: of the work done until then).
<: a shorter makespan than `oracle` on the same seeds, which is a privileged rule and not a bound."""


_CERTAINTY = (
    "[ ]: 95 % interval over the seeds (Student's t).",
    f"{FEW}: rests on few: {ENOUGH_DIFFERING} seeds should differ, {ENOUGH_RUNS} be run, {10 * ENOUGH_TAIL} for "
    "CVaR10, or the truth is outside more often than it should be.",
)


def scenario_table(verdicts: Mapping[str, str]) -> Grid:
    """Every built-in scenario; verdicts: of their certificates, by name."""
    scenarios = SCENARIOS.values()
    return Grid(
        Column("scenario", [environment_id(name) for name in SCENARIOS]),
        [
            Column("suite", [SUITES[name] for name in SCENARIOS]),
            Column("verdict", [verdicts[name] for name in SCENARIOS]),
            Column("pCPUs", [str(scenario.host.pcpus) for scenario in scenarios], right=True),
            Column("vCPUs", [str(scenario.vcpus) for scenario in scenarios], right=True),
            Column("what it is", [scenario.description for scenario in scenarios], prose=True),
        ],
    )


def policy_table() -> Grid:
    """Everything that can be named as a policy."""
    rules = known_policies()
    return Grid(
        Column("policy", [rule.name for rule in rules]),
        [
            Column("what it does", [rule.summary for rule in rules], prose=True),
            Column("information", [rule.information for rule in rules]),
            Column("reads", [rule.reads for rule in rules], prose=True),
            Column("actuator", [ACTUATORS[rule.actuator] for rule in rules]),
            Column("hypothetical", ["yes" if rule.hypothetical else "" for rule in rules]),
            Column("parameters", [_parameters(rule) for rule in rules], prose=True),
            Column("source", [rule.source for rule in rules], prose=True),
        ],
    )


def _parameters(policy: Compiled) -> str:
    """The parameters of a policy with their defaults, as they are typed."""
    own = policy.parameters if isinstance(policy, Rule) else {}
    return ",".join(f"{name}={one.default}" for name, one in own.items())


def parameter_table(names: Sequence[str]) -> Grid:
    """These parameters of a scenario, with their defaults."""
    described, defaults = describe_parameters(), Scenario().parameters()
    return Grid(
        Column("parameter", names),
        [
            Column("default", [_default(defaults[name]) for name in names], prose=True),
            Column("allowed", [described[name][0] for name in names], prose=True),
            Column("what it is", [described[name][1] for name in names], prose=True),
        ],
    )


def run_table(runs: Sequence[Run]) -> Grid:
    """A line per run, of the first `MOST_RUNS`; times in ms unless the head says otherwise."""
    shown = runs[:MOST_RUNS]
    left = len(runs) - len(shown)

    def column(head: str, cell: Callable[[Run], str]) -> Column:
        return Column(head, [*map(cell, shown), *([""] if left else [])], right=True)

    return Grid(
        Column("seed", [*(str(run["seed"]) for run in shown), *([f"and {left} more"] if left else [])], right=True),
        [
            column("makespan", lambda run: number(run["simulated_s"] * 1e3) + ("" if run["finished"] else " *")),
            column("ideal", lambda run: number(run["ideal_s"] * 1e3)),
            column("exits", lambda run: f"{run['ple_exits']:,}"),
            column("most", lambda run: f"{run['ple_per_acquisition']['max']:,}"),
            column("LHP", lambda run: f"{run['lhp_events']:,}"),
            column("LWP", lambda run: f"{run['lwp_events']:,}"),
            column("p99 us", lambda run: number(run["acquire_wait_us"]["p99"])),
            column("max us", lambda run: number(run["acquire_wait_us"]["max"])),
            column("waste", lambda run: f"{100 * _wasted(run['cycles']):.2f}"),
            *([column("response", lambda run: number(run["response_p99"]))] if any(map(_responds, shown)) else []),
        ],
    )


def _responds(run: Run) -> bool:
    return run["responses"] > 0


def summary(row: Row) -> str:
    """One rule's runs in a line."""
    capped = f", {row.capped} of {row.runs} capped" if row.capped else ""
    return (
        f"{row.policy}: makespan {interval(row.makespan_s, 1e3)} ms, p95 {number(row.p95_s.mean * 1e3)} ms, "
        f"{percent(row.ideal_percent)} % from the ideal, {count(row.ple_exits)} PLE exits per run{capped}"
    )


@table_of.register
def comparison_table(comparison: Comparison) -> Grid:
    """A line per row of a comparison: what came out and how long it took, the tails, and how it compares."""
    if comparison.endless:
        return configuration_table(alone(comparison))
    rows = comparison.rows()
    runs = len(comparison.seeds)

    def column(head: str, cell: Callable[[Row], str]) -> Column:
        return Column(head, [cell(row) for row in rows], right=True)

    outcome = [
        column("makespan", lambda row: interval(row.makespan_s, 1e3)),
        column("waste/s", lambda row: f"{row.waste_ms_per_s:,.1f}"),
        column("exits", lambda row: count(row.ple_exits)),
    ]
    if any(row.capped for row in rows):
        outcome.append(column("capped", lambda row: str(row.capped)))
    if comparison.scenario.has_goals:
        outcome.append(column("response", lambda row: number(comparison.response_p99(row.policy))))
    outcome.append(column("wall s", lambda row: f"{row.wall_s:,.2f}"))
    if comparison.asked:
        outcome.append(column("us/decision", lambda row: "-" if row.decision_us is None else number(row.decision_us)))
    tails = [
        column("p95", lambda row: interval(row.p95_s, 1e3)),
        column("p99", lambda row: interval(row.p99_s, 1e3)),
        column("CVaR10", lambda row: interval(row.cvar10_s, 1e3)),
    ]
    compared = [
        column(_against(comparison), lambda row: ratio(row.log_ratio)),
        column("vs best", lambda row: ratio(row.best_ratio)),
        column("differ", lambda row: "-" if row.log_ratio is None else str(row.log_ratio.differing)),
        column("score", lambda row: "-" if row.score is None else _with_ends(row.score, _score)),
    ]
    title = f"{comparison.scenario.name}: {runs} seed{'s'[: runs > 1]}, times in ms"
    names = _policy_column([row.policy for row in rows], [_trainings(row) for row in rows])
    return Grid(names, outcome, tails, compared, title=title)


def alone(comparison: Comparison) -> Configurations:
    """A comparison as the only configuration there is."""
    return Configurations(({},), (comparison,))


@table_of.register
def configuration_table(result: Configurations) -> Grid:
    """A line per configuration, row of its comparison and, where none ever ends, VM."""
    rows, first = result.rows(), result.comparisons[0]
    names = [
        (*(str(value) for value in row.setting.values()), row.policy, *([row.vm] if row.vm else [])) for row in rows
    ]

    def column(head: str, cell: Callable[[Outcome], str]) -> Column:
        return Column(head, [cell(row) for row in rows], right=True)

    def compared(head: str, of: Callable[[Outcome], Ratio | None]) -> list[Column]:
        differing = [str(one.differing) if one else "-" for one in map(of, rows)]
        return [column(head, lambda row: ratio(of(row))), Column("differ", differing, right=True)]

    what = "per s" if result.endless else "makespan"
    outcome = [
        column(what, lambda row: interval(row.makespan_s, 1e3) if row.makespan_s else _throughput(row)),
        column("waste/s", lambda row: f"{row.waste_ms_per_s:,.1f}"),
        column("exits", lambda row: count(row.ple_exits)),
    ]
    if any(row.capped for row in rows) and not result.endless:
        outcome.append(column("capped", lambda row: str(row.capped)))
    groups = [outcome, compared(f"vs {_baselines(result)}", lambda row: row.vs_baseline)]
    if len(result.comparisons) > 1:
        groups.append(compared(f"vs {result.labels[0]}", lambda row: row.vs_first))
    head = ", ".join([*result.settings[0], "policy", *(["VM"] if result.endless else [])])
    title = ", ".join(dict.fromkeys(comparison.scenario.name for comparison in result.comparisons))
    unit = "transactions per simulated second" if result.endless else "times in ms"
    key = Column(head, [", ".join(name) for name in names])
    return Grid(key, *groups, title=f"{title}: {len(first.seeds)} seed{'s'[: len(first.seeds) > 1]}, {unit}")


def _throughput(row: Outcome) -> str:
    return interval(row.transactions_per_s) if row.transactions_per_s else "-"


def configuration_note(result: Configurations) -> str:
    """What the columns of `configuration_table` mean."""
    what, better = ("throughput", "more") if result.endless else ("makespan", "less")
    lines = [f"vs {_baselines(result)}: {what} in percent, in the same configuration; {better} is better."]
    if len(result.comparisons) > 1:
        lines.append(f"vs {result.labels[0]}: the same against that configuration under the same policy.")
    return "\n".join(
        [*lines, "Both: geometric mean over paired seeds. differ: seeds on which it is another at all.", *_CERTAINTY]
    )


def _baselines(result: Configurations) -> str:
    """What the others are compared to, which may depend on the host of a configuration."""
    return " or ".join(dict.fromkeys(one.baseline for one in result.comparisons))


def vm_table(comparison: Comparison) -> Grid:
    """A line per row of a comparison and VM: what each VM got done, and got."""
    rows = [(name, place) for name in comparison.members for place in range(len(comparison.scenario.vms()))]

    def column(head: str, cell: Callable[[str, int], str]) -> Column:
        return Column(head, [cell(name, place) for name, place in rows], right=True)

    def mean(key: VmNumber, scale: float = 1.0) -> Callable[[str, int], str]:
        return lambda name, place: interval(estimate(comparison.of_vm(name, place, key)), scale)

    longest = column("steal", lambda name, place: number(comparison.of_vm(name, place, "longest_steal_ms").max()))
    vms = list(comparison.scenario.vms())
    return Grid(
        _policy_column([name for name, _ in rows]),
        [Column("VM", [vms[place] for _, place in rows])],
        [column("done", mean("transactions")), column("per s", mean("transactions_per_s"))],
        [column("share", mean("share", 100.0)), longest],
        title=f"{comparison.scenario.name}: its VMs",
    )


VM_NOTE = """\
done, per s: transactions of a run, and per simulated second until the VM is done. share: percent of all pCPU time.
steal: the longest time, in ms, that a vCPU of the VM was runnable and off its pCPU, of all runs."""


def comparison_note(comparison: Comparison) -> str:
    """What the columns of `comparison_table` mean, and how long the runs took."""
    if comparison.endless:
        return configuration_note(alone(comparison))
    baseline, best = comparison.baseline, comparison.best_rule
    rule = f"{best}, the best rule here that knows no more than a hypervisor" if best else "no rule, as none is here"
    lines = [
        f"{_against(comparison)}, vs best: makespan in percent against {_told(comparison)} and against {rule}; "
        "geometric mean over paired seeds.",
        f"score: 0 = {baseline}, 1 = the ideal (useful work / pCPUs, out of reach), on mean log-makespan.",
        "CVaR10: mean of the worst tenth. waste/s: pCPU time in spin and exit per simulated second. "
        "exits: mean per run; each is a decision.",
        "differ: seeds on which the makespan is another at all.",
        *_CERTAINTY,
    ]
    if any(len(policies) > 1 for policies in comparison.members.values()):
        lines.append("Rows of several trainings: [ ] over both trainings and seeds.")
    if any(comparison.capped(name) for name in comparison.members):
        lines.append("capped: runs cut off at limit.simulated_s, which then counts as their makespan.")
    if comparison.scenario.has_goals:
        lines.append(f"{RESPONSE_NOTE[:-1]}, mean; what is beyond 1 counts as time in the score.")
    if comparison.asked:
        lines.append(f"us/decision: wall time of an agent's predict per decision, asked for up to {LANES} at once.")
    runs = len(comparison.seeds) * len(comparison.runs)
    lines.append(f"{runs:,} runs took {sum(comparison.wall_s.values()):.1f} s, added up over threads.")
    return "\n".join(lines)


def ideal_table(comparisons: Sequence[Comparison]) -> Grid:
    """Rules down, scenarios across: percent above the ideal."""
    policies = list(dict.fromkeys(name for comparison in comparisons for name in comparison.members))
    columns = [
        Column(comparison.scenario.name, [_ideal_cell(comparison, policy) for policy in policies], right=True)
        for comparison in comparisons
    ]
    return Grid(_policy_column(policies), columns)


def better_than_oracle(comparisons: Iterable[Comparison]) -> list[str]:
    """A remark per rule and scenario where the mean makespan is shorter than under `oracle`."""
    remarks = []
    for comparison in comparisons:
        for policy in comparison.members:
            if _beats_oracle(comparison, policy):
                against = comparison.log_ratio(policy, "oracle")
                sure = "" if against.high is not None and against.high < 0 else " (the interval includes no difference)"
                remarks.append(
                    f"{comparison.scenario.name}: {policy} beats oracle, makespan {ratio(against, 2)} %{sure}"
                )
    return remarks


def bench_table(report: Report) -> Grid:
    """A line per measurement."""
    rows, met = report.rows, {None: "", True: "yes", False: "NO"}
    return Grid(
        Column("measured", [row.name for row in rows], prose=True),
        [
            Column("value", ["-" if row.value is None else number(row.value) for row in rows], right=True),
            Column("unit", [row.unit for row in rows]),
            Column("target", [row.target for row in rows], right=True),
            Column("met", [met[row.met] for row in rows]),
            Column("beside it", [row.note for row in rows], prose=True),
        ],
    )


def number(value: float) -> str:
    """Four significant digits at least, or a whole number; no exponent."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), 6)}f}"


def count(mean: float) -> str:
    """A mean of whole numbers."""
    return f"{mean:,.0f}" if mean >= 1000 else f"{mean:.1f}"


def percent(value: float | None) -> str:
    """One decimal and a sign; - for None."""
    return "-" if value is None else f"{value:+,.1f}"


def interval(value: Estimate, scale: float = 1.0) -> str:
    """Mean and interval: `3.10 [2.90, 3.30]`."""
    return _with_ends(value, lambda one: number(one * scale))


def ratio(value: Estimate | None, decimals: int = 1) -> str:
    """Mean and interval of a logarithm as percent of change: `-12.3 [-15.0, -9.9]`; - for None."""
    if value is None:
        return "-"
    return _with_ends(value, lambda one: f"{100 * math.expm1(one):+,.{decimals}f}")


def _score(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"


def _with_ends(value: Estimate, text: Callable[[float], str]) -> str:
    """A value and its interval, if there is one, marked if that rests on few runs."""
    if value.low is None or value.high is None:
        return text(value.mean)
    return f"{text(value.mean)} [{text(value.low)}, {text(value.high)}]{FEW if value.few else ''}"


def short_names(names: Sequence[str]) -> list[str]:
    """Names for narrow tables: of a learned policy's file, as much of the end of its path as tells it from the others.

    `learned:runs/a/policy.npz` becomes `learned:a/policy`, as `policy` alone says nothing; others stay as they are.
    """
    files = {name: PurePath(name.removeprefix(PREFIX)).with_suffix("").parts for name in names if _is_file(name)}
    taken = {name for name in names if not _is_file(name)}
    short = {}
    for name, parts in files.items():
        others = [other for known, other in files.items() if known != name]
        ends = (parts[-length:] for length in range(1 + (parts[-1] == "policy"), len(parts) + 1))
        tellings = (
            PREFIX + "/".join(end)
            for end in ends
            if PREFIX + "/".join(end) not in taken and all(other[-len(end) :] != end for other in others)
        )
        short[name] = next(tellings, name)
    return [short.get(name, name) for name in names]


def _is_file(name: str) -> bool:
    """Whether a policy is named by its file."""
    return name.startswith(PREFIX) and PurePath(name.removeprefix(PREFIX)).suffix == ".npz"


def _policy_column(names: Sequence[str], notes: Sequence[str] = ()) -> Column:
    """The first column of a table with a row per policy; a note follows each name."""
    notes = notes or [""] * len(names)
    full, short = (
        [name + note for name, note in zip(each, notes, strict=True)] for each in (names, short_names(names))
    )
    return Column("policy", full, short=short)


def _trainings(row: Row) -> str:
    """How many trained policies a row stands for."""
    return "" if len(row.members) == 1 else f" ({len(row.members)} trainings)"


def _wasted(cycles: Cycles) -> float:
    """Share of pCPU time in spin and exit; 0 of a run that ended before its first cycle."""
    return (cycles["spin"] + cycles["exit"]) / (total_cycles(cycles) or 1)


def _default(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "-"


def _against(comparison: Comparison) -> str:
    """Head of the column that compares with the baseline."""
    baseline = comparison.baseline
    return f"vs {baseline}" if baseline in (HOST, comparison.own_rule) else "vs first"


def _told(comparison: Comparison) -> str:
    """What the baseline is."""
    baseline, own = comparison.baseline, comparison.own_rule
    if baseline == own:
        return "the host's own rule"
    return f"a plain yield (the host's own rule, {own}, is not here)" if baseline == HOST else baseline


def _beats_oracle(comparison: Comparison, policy: str) -> bool:
    if policy == "oracle" or "oracle" not in comparison.members:
        return False
    return comparison.log_ratio(policy, "oracle").mean < -VISIBLE


def _ideal_cell(comparison: Comparison, policy: str) -> str:
    if policy not in comparison.members:
        return "-"
    capped = comparison.capped(policy)
    better = "<" if _beats_oracle(comparison, policy) else ""
    return f"{better}{percent(comparison.ideal_percent(policy))}" + (f" *{capped}" if capped else "")
