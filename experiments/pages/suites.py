"""Write docs/suites.md, and docs/rules.md with where each rule wins, from the table of `suite`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.answer import suite
from experiments.answer.suite import MORE_OR_FEWER, RED, SEEDS, SHIPS, Standing
from experiments.lab import Table
from experiments.lab.folders import DOCS
from ple_gym.evaluate import scores
from ple_gym.evaluate.scores import suite_score
from ple_gym.evaluate.statistics import Estimate
from ple_gym.evaluate.tables import FEW
from ple_gym.files import write_whole
from ple_gym.rules import RULES
from ple_gym.rules.documented import rules_page
from ple_gym.scenario.builtin import SCENARIOS, SUITES

TEXT = Path(__file__).with_name("suites.in.md")
PAGE = DOCS / "suites.md"
RULES_PAGE = DOCS / "rules.md"
NEEDS = ("suite",)
ALL = tuple(dict.fromkeys(SUITES.values()))


def write(tables: Mapping[str, Table]) -> None:
    """Write both pages."""
    write_whole(PAGE, page(tables["suite"]).encode())
    write_whole(RULES_PAGE, page_of_rules(tables["suite"]).encode())


def page(table: Table) -> str:
    """docs/suites.md."""
    left_out = [name for name in SCENARIOS if not counts(table, name)]
    others = ", ".join(f"{seeds} of `{name}`" for name, seeds in MORE_OR_FEWER.items())
    found = {
        "winners": "\n".join(f"- {winner(table, one)}" for one in ALL),
        "runs": f"{len(table):,}",
        "seeds": f"{SEEDS} seeds of each scenario, {others}",
        "kept": f"{scores.KEPT:g}",
        "near": f"{100 * scores.NEAR:g}",
        "left_out": ", ".join(f"`{name}`" for name in left_out) or "none",
        "red": markdown(*red_team(table)),
        "tables": "\n\n".join(f"## {one}\n\n{markdown(*rows(table, one))}" for one in ALL),
    }
    return TEXT.read_text(encoding="utf-8").format(**found)


def counts(table: Table, name: str) -> bool:
    """Whether a scenario counts in its suite's score."""
    return scores.has_room(suite.host_sample(table, name))


def winner(table: Table, name: str) -> str:
    """A sentence: who won a suite, and by how much."""
    order = [rule for rule in suite.ranking(table, name) if not RULES[rule].privileged]
    first = suite.worlds(table, name, order[0])
    ahead = {rule: suite_score(first, than=suite.worlds(table, name, rule)) for rule in order[1:]}
    equal = [rule for rule, one in ahead.items() if one and one.mean == 0]
    other = next(rule for rule in order[1:] if rule not in equal)
    lead, oracle = ahead[other], suite_score(suite.worlds(table, name, "oracle"))
    assert lead and lead.low is not None
    names = listed((order[0], *equal))
    wins = "wins" if lead.low > 0 else "is ahead on"
    ships = next(rule for rule in order if rule in SHIPS)
    return (
        f"**{names} {wins if not equal else wins.replace('wins', 'win').replace('is', 'are')} `{name}`**: "
        f"{world_interval(suite_score(first))} of the way from the host's own rule to the ideal, by "
        f"{world_interval(lead)} before `{other}`, which is {'clear' if lead.low > 0 else 'not clear'}. "
        f"Of Xen's and KVM's own `{ships}` is best, "
        f"{world_interval(suite_score(suite.worlds(table, name, ships)))}; the oracle gets {world_interval(oracle)}."
    )


def listed(rules: Sequence[str]) -> str:
    """Names in a sentence."""
    *most, last = (f"`{rule}`" for rule in rules)
    return f"{', '.join(most)} and {last}" if most else last


def rows(table: Table, name: str) -> tuple[list[str], list[list[str]]]:
    """The table of a suite, from the best rule to the worst."""
    names = suite.members(name)
    stand = {one: suite.standings(table, one) for one in names}
    ranked = suite.ranking(table, name)
    order = [*ranked, *(rule for rule in RULES if rule not in ranked and any(rule in stand[one] for one in names))]
    several = any(len(SCENARIOS[one].vms()) > 1 for one in names)
    statistics = [one for one in scores.STATISTICS if several or one != "worst VM"]
    heads = ["rule", *names, *statistics, *(["kept"] if several else []), "capped"]
    zeros = [f"`{suite.own(one)}`{'' if counts(table, one) else ', left out'}" for one in names]
    lines: dict[tuple[str, ...], list[str]] = {}
    for rule in order:
        worlds = suite.worlds(table, name, rule)
        own = [stand[one][rule] for one in names if rule in stand[one]]
        summary = [world_interval(suite_score(worlds, statistic)) if worlds else "-" for statistic in statistics]
        kept = [f"{min(one.kept for one in own):.2f}"] if several else []
        capped = sum(one.capped for one in own)
        cells = [interval(stand[one][rule].score) if rule in stand[one] else "-" for one in names]
        lines.setdefault((*cells, *summary, *kept, str(capped or "")), []).append(told(rule))
    first = ["*score 0*", *zeros, *[""] * (len(heads) - len(names) - 1)]
    return heads, [first, *([", ".join(rules), *cells] for cells, rules in lines.items())]


def red_team(table: Table) -> tuple[list[str], list[list[str]]]:
    """What those who cheat get."""
    names = [name for name, scenario in SCENARIOS.items() if len(scenario.vms()) > 1]

    def cell(one: Standing) -> str:
        return f"{interval(one.score)}, kept {one.kept:.2f}"

    lines = [[name, *(cell(suite.standings(table, name)[rule]) for rule in RED)] for name in names]
    return ["world", *(f"`{rule.partition(':')[2]}`" for rule in RED)], lines


def told(rule: str) -> str:
    """A rule's name, and whether it is one of a hypervisor."""
    return f"`{rule}`" + (" (oracle)" if RULES[rule].privileged else "")


def page_of_rules(table: Table) -> str:
    """docs/rules.md."""
    won, alike = wins(table)
    most = max((rule for rule in won if not RULES[rule].privileged), key=lambda rule: len(won[rule]))
    words = [
        f"**`{most}` wins most often**, on {len(won[most])} of {len(SCENARIOS)} worlds; {len(RULES) - len(won)} of the",
        f"{len(RULES)} rules win nowhere. *Where it wins*, with its [score](suites.md): it is clearly faster than the",
        "host's own rule, no rule that knows as much is clearly faster, and every VM keeps its due. Several may win;",
        f"where most rules do ({listed(alike)}) it is not listed.",
    ]
    return rules_page(RULES, "\n\n" + "\n".join(words), {rule: ", ".join(places) for rule, places in won.items()})


def wins(table: Table) -> tuple[dict[str, list[str]], list[str]]:
    """Rule -> where it wins, with its score; and the scenarios on which more than half of the rules do."""
    found: dict[str, list[str]] = {}
    alike = []
    for name in SCENARIOS:
        won = {rule: one.score for rule, one in suite.standings(table, name).items() if one.wins and one.score}
        if 2 * len(won) > len(RULES):
            alike.append(name)
            continue
        for rule, value in won.items():
            found.setdefault(rule, []).append(f"{name} {value.mean:.2f}")
    return found, alike


def interval(value: Estimate | None, text: Callable[[float], str] = lambda one: f"{round(one, 2) + 0.0:.2f}") -> str:
    """A value and its interval."""
    if value is None:
        return "-"
    if value.low is None or value.high is None:
        return text(value.mean)
    low, high, mean = text(value.low), text(value.high), text(value.mean)
    return mean if low == high else f"{mean} [{low}, {high}]{FEW * value.few}"


def world_interval(value: Estimate | None) -> str:
    """The same of a suite, whose worlds are always few."""
    return interval(value and replace(value, few=False))


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]], words: bool = False) -> str:
    """A table; all but its first column are flush right, unless they are words."""
    marks = ["---", *["---" if words else "---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, marks, *lines))
