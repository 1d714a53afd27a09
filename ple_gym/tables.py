"""Results as tables and lines for people, in plain ASCII. Computes nothing that `comparison` and `bench` have not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions
from rich.table import Table

from ple_gym.comparison import HOST, Comparison, Row, Run
from ple_gym.policies import RULES
from ple_gym.registration import environment_id
from ple_gym.scenario import Scenario
from ple_gym.scenarios import SCENARIOS, SUITES
from ple_gym.statistics import Estimate

if TYPE_CHECKING:
    from ple_gym.bench import Report

MOST_RUNS = 20  # that `run_table` shows
VISIBLE = 0.00005  # what a remark with two decimals of a percent can show

RUN_NOTE = """\
Times in ms. ideal: useful work / pCPUs. exits: at pause loops, most: of one acquisition. p99, max: waits for a lock.
LHP, LWP: holder, next waiter preempted. waste: percent of pCPU time in spin and exit. *: cut off at the limit."""

IDEAL_NOTE = """\
Percent above the ideal makespan (useful work / pCPUs), geometric mean over the seeds.
*n: n runs were cut off at limit.simulated_s, which counts as their makespan (ideal: of the work done until then).
<: a shorter makespan than `oracle` on the same seeds, which is a privileged rule and not a bound."""


# Only a line below the heads; ASCII, so that it can be printed anywhere.
RULE_UNDER_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def vcpus(scenario: Scenario) -> int:
    """VCPUs of all VMs."""
    return sum(vm.vcpus for vm in scenario.vms().values())


def scenario_table() -> Table:
    """Every built-in scenario."""
    table = _table("scenario", "suite", ">pCPUs", ">vCPUs", "what it is", wide=["what it is"])
    for name, scenario in SCENARIOS.items():
        size = (str(scenario.host.pcpus), str(vcpus(scenario)))
        table.add_row(environment_id(name), SUITES[name], *size, scenario.description)
    return table


def policy_table() -> Table:
    """Every compiled rule."""
    table = _table(
        "policy", "what it does", "information", "actuator", "source", wide=["what it does", "information", "source"]
    )
    for rule in RULES.values():
        table.add_row(rule.name, rule.summary, rule.information, rule.actuator, rule.source)
    return table


def run_table(runs: Sequence[Run]) -> Table:
    """A line per run, of the first `MOST_RUNS`; times in ms unless the head says otherwise."""
    table = _table(
        ">seed", ">makespan", ">ideal", ">exits", ">most", ">LHP", ">LWP", ">p99 us", ">max us", ">waste"
    )  # fmt: skip
    for run in runs[:MOST_RUNS]:
        wait, cycles = run["acquire_wait_us"], run["cycles"]
        table.add_row(
            str(run["seed"]),
            number(run["simulated_s"] * 1e3) + ("" if run["finished"] else " *"),
            number(run["ideal_s"] * 1e3),
            f"{run['ple_exits']:,}",
            f"{run['ple_per_acquisition']['max']:,}",
            f"{run['lhp_events']:,}",
            f"{run['lwp_events']:,}",
            number(wait["p99"]),
            number(wait["max"]),
            f"{100 * (cycles['spin'] + cycles['exit']) / sum(cycles.values()):.2f}",
        )
    if len(runs) > MOST_RUNS:
        table.add_row("...", f"{len(runs) - MOST_RUNS} more")
    return table


def summary(row: Row) -> str:
    """One rule's runs in a line."""
    capped = f", {row.capped} of {row.runs} capped" if row.capped else ""
    return (
        f"{row.policy}: makespan {interval(row.makespan_s, 1e3)} ms, p95 {number(row.p95_s * 1e3)} ms, "
        f"{percent(row.ideal_percent)} % from the ideal, {count(row.ple_exits)} PLE exits per run{capped}"
    )


class ComparisonTable:
    """A line per row of a comparison; where that is too wide, two tables below each other, with half the columns each.

    What came out is in the first; how it compares, and how long it took, in the second.
    """

    def __init__(self, comparison: Comparison) -> None:
        rows = comparison.rows()
        runs = len(comparison.seeds)
        self.title = f"{comparison.scenario.name}: {runs} seed{'s'[: runs > 1]}, times in ms"
        names = ["policy", *(_name(row) for row in rows)]
        self.outcome = [
            names,
            [">makespan", *(interval(row.makespan_s, 1e3) for row in rows)],
            [">p95", *(number(row.p95_s * 1e3) for row in rows)],
            [">p99", *(number(row.p99_s * 1e3) for row in rows)],
            [">CVaR10", *(number(row.cvar10_s * 1e3) for row in rows)],
            [">waste/s", *(f"{row.waste_ms_per_s:,.1f}" for row in rows)],
            [">exits", *(count(row.ple_exits) for row in rows)],
        ]
        if any(row.capped for row in rows):
            self.outcome.append([">capped", *(str(row.capped) for row in rows)])
        self.compared = [
            names,
            [f">{_against(comparison)}", *(ratio(row.log_ratio) for row in rows)],
            [">vs best", *(ratio(row.best_ratio) for row in rows)],
            [">score", *("-" if row.score is None else f"{round(row.score.mean, 2) + 0.0:.2f}" for row in rows)],
            [">wall s", *(f"{row.wall_s:.2f}" for row in rows)],
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        whole = self.outcome + self.compared[1:]
        if sum(max(map(len, column)) + 1 for column in whole) - 1 <= options.max_width:
            yield self._table(whole, self.title)
        else:
            yield self._table(self.outcome, self.title)
            yield ""
            yield self._table(self.compared)

    @staticmethod
    def _table(columns: Sequence[Sequence[str]], title: str | None = None) -> Table:
        heads = [column[0] for column in columns]
        table = _table(
            *heads, wide=[heads[0], *(head[1:] for head in heads if head[1:].startswith(("vs", "makespan")))]
        )
        table.title = title
        for cells in zip(*(column[1:] for column in columns), strict=True):
            table.add_row(*cells)
        return table


def comparison_note(comparison: Comparison) -> str:
    """What the columns of `ComparisonTable` mean, and how long the runs took."""
    baseline, best = comparison.baseline, comparison.best_rule
    who = "the scenario's own scheduler" if baseline == HOST else baseline
    rule = f"{best}, the best rule here that knows no more than a hypervisor" if best else "no rule, as none is here"
    lines = [
        f"{_against(comparison)}, vs best: makespan in percent against {who} and against {rule}; geometric mean over "
        "paired seeds.",
        f"score: 0 = {baseline}, 1 = the ideal (useful work / pCPUs, out of reach), on mean log-makespan.",
        "CVaR10: mean of the worst tenth. waste/s: pCPU time in spin and exit per simulated second. "
        "exits: mean per run; each is a decision.",
        "[ ]: 95 % bootstrap interval over the seeds.",
    ]
    if any(len(policies) > 1 for policies in comparison.members.values()):
        lines.append("Rows of several trainings: [ ] over both trainings and seeds.")
    if any(comparison.capped(name) for name in comparison.members):
        lines.append("capped: runs cut off at limit.simulated_s, which then counts as their makespan.")
    runs = len(comparison.seeds) * len(comparison.runs)
    lines.append(f"{runs:,} runs took {sum(comparison.wall_s.values()):.1f} s, added up over threads.")
    return "\n".join(lines)


def ideal_table(comparisons: Sequence[Comparison]) -> Table:
    """Rules down, scenarios across: percent above the ideal."""
    names = [comparison.scenario.name for comparison in comparisons]
    table = _table("policy", *(f">{name}" for name in names), wide=names)
    for policy in comparisons[0].members:
        table.add_row(policy, *(_ideal_cell(comparison, policy) for comparison in comparisons))
    return table


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


def bench_table(report: Report) -> Table:
    """A line per measurement."""
    table = _table("measured", ">value", "unit", ">target", "met", "beside it", wide=["measured", "beside it"])
    for row in report.rows:
        met = {None: "", True: "yes", False: "NO"}[row.met]
        table.add_row(row.name, "-" if row.value is None else number(row.value), row.unit, row.target, met, row.note)
    return table


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
    if value.low is None or value.high is None:
        return number(value.mean * scale)
    return f"{number(value.mean * scale)} [{number(value.low * scale)}, {number(value.high * scale)}]"


def ratio(value: Estimate | None, decimals: int = 1) -> str:
    """Mean and interval of a logarithm as percent of change: `-12.3 [-15.0, -9.9]`; - for None."""
    if value is None:
        return "-"
    texts = [
        f"{100 * math.expm1(one):+,.{decimals}f}" for one in (value.mean, value.low, value.high) if one is not None
    ]
    return texts[0] if len(texts) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _name(row: Row) -> str:
    """A row's, and how many trained policies it stands for."""
    return row.policy if len(row.members) == 1 else f"{row.policy} ({len(row.members)} trainings)"


def _against(comparison: Comparison) -> str:
    """Head of the column that compares with the baseline."""
    return "vs host" if comparison.baseline == HOST else "vs first"


def _beats_oracle(comparison: Comparison, policy: str) -> bool:
    if policy == "oracle" or "oracle" not in comparison.members:
        return False
    return comparison.log_ratio(policy, "oracle").mean < -VISIBLE


def _ideal_cell(comparison: Comparison, policy: str) -> str:
    capped = comparison.capped(policy)
    better = "<" if _beats_oracle(comparison, policy) else ""
    return f"{better}{percent(comparison.ideal_percent(policy))}" + (f" *{capped}" if capped else "")


def _table(*heads: str, wide: Sequence[str] = ()) -> Table:
    """A table with these columns; > before a head aligns it to the right, and only the wide ones give way."""
    style: dict[str, Any] = {"title_justify": "left", "title_style": "bold"}
    table = Table(box=RULE_UNDER_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), **style)
    for head in heads:
        name = head.lstrip(">")
        table.add_column(
            name,
            justify="right" if head.startswith(">") else "left",
            no_wrap=name not in wide,
            overflow="fold",  # an ellipsis would cut a number off, and is not ASCII
        )
    return table
