"""Write docs/for-maintainers.md from the table of `suite`: on which host, with which guests, which rule helps or hurts.

`python -m experiments results` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.answer import suite
from experiments.answer.suite import HOST, SHIPS, Standing
from experiments.lab import Table
from experiments.lab.folders import DOCS
from experiments.pages.suites import interval, listed, markdown
from ple_gym.evaluate import scores
from ple_gym.evaluate.statistics import ENOUGH_DIFFERING
from ple_gym.files import write_whole
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import SCENARIOS, SUITES

TEXT = Path(__file__).with_name("for_maintainers.in.md")
PAGE = DOCS / "for-maintainers.md"
NEEDS = ("suite",)
WORLDS = tuple(name for name, own in SUITES.items() if own != "micro")
VISIBLE = tuple(rule for rule, one in RULES.items() if not one.privileged and rule != HOST)
MOST = 3  # rules that hurt, in a cell


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["suite"]).encode())


def page(table: Table) -> str:
    """The page's text."""
    signs = {rule: [one.sign for one in of(table, WORLDS, rule) if one] for rule in VISIBLE}
    headline = "**Every rule hurts somewhere.**"
    if safe := safest(table, WORLDS):
        rules, change = safe
        headline = (
            f"**{listed(rules)} never hurt{'s' * (len(rules) == 1)}**: on {signs[rules[0]].count(-1)} of {len(WORLDS)} "
            f"worlds clearly faster, on none clearly slower, and {change:+.0f} % on the mean of all."
        )
        if all(RULES[rule].hypothetical for rule in rules):
            headline += " No hypervisor has such a rule."
    hosts: dict[str, list[str]] = {}
    for name in WORLDS:
        hosts.setdefault(host_of(SCENARIOS[name]), []).append(name)
    never = [rule for rule in VISIBLE if -1 not in signs[rule]]
    found = {
        "headline": headline,
        "differing": f"{ENOUGH_DIFFERING}",
        "hosts": "\n".join(f"- {by_host(table, host, names)}" for host, names in hosts.items()),
        "worlds": markdown(*by_world(table), left=5),
        "never": ", ".join(f"`{rule}`" for rule in never),
        "rules": markdown(*by_rule(table, [rule for rule in VISIBLE if rule not in never])),
    }
    return TEXT.read_text(encoding="utf-8").format(**found)


def host_of(scenario: Scenario) -> str:
    """The host's name, version and actuator."""
    host = scenario.host
    groups = {"vm": ", a group per VM", "flat": ", no groups", "vcpu": ", groups per VM and vCPU"}[host.groups]
    own = f"Linux {host.linux}{groups}" if host.scheduler == "fair" else f"Xen {host.xen}, {host.scheduler}"
    return f"{own}, by {scenario.actuator}"


def ships(name: str) -> list[str]:
    """The rules of the hypervisor whose scheduler a scenario has."""
    own = "kvm-" if SCENARIOS[name].host.scheduler == "fair" else "xen-"
    return [rule for rule in SHIPS if rule.startswith(own)]


def safest(table: Table, names: Sequence[str]) -> tuple[list[str], float] | None:
    """The rules with the best mean change, percent, of those that are nowhere clearly slower, nor take from a VM."""
    found = {rule: of(table, names, rule) for rule in VISIBLE}
    means = {
        rule: mean_change([one for one in own if one])
        for rule, own in found.items()
        if all(one and fair(one) and one.sign <= 0 for one in own) and any(one and one.sign < 0 for one in own)
    }
    best = min(means.values(), default=0.0)
    return ([rule for rule, mean in means.items() if mean == best], best) if means else None


def of(table: Table, names: Sequence[str], rule: str) -> list[Standing | None]:
    """How a rule stands on some worlds; None where it does not suit the host."""
    return [suite.standings(table, name).get(rule) for name in names]


def fair(one: Standing) -> bool:
    """Whether every VM keeps its due."""
    return one.kept >= scores.KEPT


def mean_change(own: Sequence[Standing]) -> float:
    """Geometric, percent."""
    return 100 * math.expm1(float(np.mean([math.log1p(one.change.mean / 100) for one in own])))


def by_host(table: Table, host: str, names: Sequence[str]) -> str:
    """What helps everywhere on a host, and what of what ships hurts there."""
    safe = safest(table, names)
    helps = (
        f"{listed(safe[0])}, {safe[1]:+.0f} % on the mean, and nowhere clearly slower" if safe else "nothing is safe"
    )
    places = ", ".join(f"`{name}`" for name in names)
    slower = {
        rule: [one.change.mean for one in of(table, names, rule) if one and one.sign > 0] for rule in ships(names[0])
    }
    hurt = {rule: max(changes) for rule, changes in slower.items() if changes}
    worst = ", ".join(f"`{rule}` {value:+,.0f} %" for rule, value in sorted(hurt.items(), key=lambda one: -one[1]))
    hurts = f"hurts: {worst}" if worst else "nothing clearly hurts"
    return f"**{host}** ({places}): {helps}. Of what ships there {hurts}."


def by_world(table: Table) -> tuple[list[str], list[list[str]]]:
    """A line per world: the best rule, the best that ships, and what hurts most."""
    lines = []
    for name in WORLDS:
        stand, scenario = suite.standings(table, name), SCENARIOS[name]

        def first(rules: Sequence[str], stand: Mapping[str, Standing] = stand) -> str:
            honest = [rule for rule in rules if rule in stand and fair(stand[rule])]
            rule = min(honest, key=lambda one: stand[one].change.mean)
            return f"`{rule}` {percent(stand[rule])}"

        slow = sorted(
            (rule for rule in VISIBLE if rule in stand and stand[rule].sign > 0),
            key=lambda rule: -stand[rule].change.mean,
        )
        more = f" and {len(slow) - MOST} more" if len(slow) > MOST else ""
        hurts = ", ".join(f"`{rule}` {stand[rule].change.mean:+,.0f} %" for rule in slow[:MOST]) + more
        lines.append(
            [host_of(scenario), f"{name}: {scenario.description}", first(VISIBLE), first(ships(name)), hurts or "-"]
        )
    return ["host", "guests", "best rule", "best that ships", "here it hurts"], lines


def by_rule(table: Table, rules: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """A line per rule: its clear changes."""

    def cell(one: Standing | None) -> str:
        if one is None:
            return "-"
        return f"{one.change.mean:+,.0f}{'' if fair(one) else ' (t)'}" if one.sign else ""

    lines = [[f"`{rule}`", *map(cell, of(table, WORLDS, rule))] for rule in rules]
    return ["rule", *WORLDS], lines


def percent(one: Standing) -> str:
    """A change with its interval."""
    return interval(one.change, lambda value: f"{value:+.1f}") + " %"
