"""Write docs/for-maintainers.md from the table of `suite`: on which host, with which guests, which rule helps or hurts.

`python -m experiments results` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.answer import fleet, suite
from experiments.answer.suite import SHIPS, Standing
from experiments.lab import Table
from experiments.lab.folders import DOCS
from experiments.pages import in_kernel
from experiments.pages.suites import interval, listed, markdown
from ple_gym.evaluate import scores
from ple_gym.evaluate.statistics import ENOUGH_DIFFERING
from ple_gym.files import write_whole
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import SCENARIOS, SUITES
from ple_gym.scenario.fleet import AXES
from ple_gym.tuned import policy_in

TEXT = Path(__file__).with_name("for_maintainers.in.md")
PAGE = DOCS / "for-maintainers.md"
NEEDS = ("suite", "fleet", "in_kernel")
WORLDS = tuple(name for name, own in SUITES.items() if own != "micro")
VISIBLE = tuple(rule for rule, one in RULES.items() if not one.privileged)
WITHOUT_PULL = ("yield", "resume", "local")
SMALL = 2  # percent
MOST = 3  # rules that hurt, in a cell


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(*(tables[name] for name in NEEDS)).encode())


def page(table: Table, of_fleet: Table, of_kernel: Table) -> str:
    """The page's text."""
    hosts: dict[str, list[str]] = {}
    for name in WORLDS:
        hosts.setdefault(host_of(SCENARIOS[name]), []).append(name)
    signs = {rule: [one.sign for one in of(table, WORLDS, rule) if one] for rule in VISIBLE}
    never = [rule for rule in VISIBLE if -1 not in signs[rule]]
    found = {
        "hosts": "\n".join(f"- {by_host(table, host, names)}" for host, names in hosts.items()),
        "single": single(of_fleet),
        "in_kernel": in_kernel.headline(of_kernel),
        "differing": f"{ENOUGH_DIFFERING}",
        "worlds": "\n\n".join(
            f"## {host}\n\n{markdown(*by_world(table, names), words=True)}" for host, names in hosts.items()
        ),
        "own": ", ".join(f"`{suite.own(names[0])}` on {host}" for host, names in hosts.items()),
        "never": ", ".join(f"`{rule}`" for rule in never),
        "rules": markdown(*by_rule(table, [rule for rule in VISIBLE if rule not in never])),
    }
    return TEXT.read_text(encoding="utf-8").format(**found)


def single(table: Table) -> str:
    """The best rule for all worlds of the fleet, and what it gains on what each world's host has."""
    rule = fleet.single(table)
    every, *gains = [one for one in fleet.gains(table, rule) if one.name in ("all", *AXES)]
    by = ", ".join(f"{fleet.percent(one.found)} under `{one.name}`" for one in gains)
    name = policy_in(str(fleet.TUNED_FILE)) if fleet.POLICIES[rule] == fleet.TUNED else fleet.POLICIES[rule]
    return (
        f"`{name}`: {fleet.percent(every.found)} against the rule that the host has, on {every.worlds} worlds that "
        f"share no combination of version, layout and guest kernel with those that it was tuned and chosen on ({by})"
    )


def host_of(scenario: Scenario) -> str:
    """The host's name and version."""
    host = scenario.host
    groups = {"vm": ", a group per VM", "flat": ", no groups", "vcpu": ", groups per VM and vCPU"}[host.groups]
    return f"Linux {host.linux}{groups}" if host.scheduler == "fair" else f"Xen {host.xen}, {host.scheduler}"


def feasible(names: Sequence[str]) -> list[str]:
    """The rules that the host of these scenarios could have: all where answers are hints, else those without pull."""
    hints = SCENARIOS[names[0]].actuator == "hint"
    return [rule for rule in VISIBLE if hints or RULES[rule].actuator in WITHOUT_PULL]


def ships(name: str) -> list[str]:
    """The rules of the hypervisor whose scheduler a scenario has."""
    own = "kvm-" if SCENARIOS[name].host.scheduler == "fair" else "xen-"
    return [rule for rule in SHIPS if rule.startswith(own)]


def safest(table: Table, names: Sequence[str], rules: Sequence[str]) -> tuple[list[str], float] | None:
    """Of the rules that are nowhere clearly slower, nor take from a VM, those with the best mean change, percent."""
    found = {rule: of(table, names, rule) for rule in rules}
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
    own, rules = suite.own(names[0]), feasible(names)
    could, pulled = (use(table, names, each) for each in (rules, VISIBLE))
    lines = [f"**{host}** ({listed(names)}; its own rule is `{own}`): {could or 'nothing that it could have is safe'}."]
    if pulled and pulled != could:
        lines.append(f"With a pull, which it has not: {pulled}.")
    slower = {
        rule: {
            name: one.change.mean
            for name, one in zip(names, of(table, names, rule), strict=True)
            if one and one.sign > 0
        }
        for rule in dict.fromkeys(("host", *ships(names[0])))
    }
    worst = {rule: max(found, key=lambda name: found[name]) for rule, found in slower.items() if found}
    order = sorted(worst, key=lambda rule: -slower[rule][worst[rule]])
    hurt = ", ".join(f"`{rule}` {slower[rule][worst[rule]]:+,.0f} % on `{worst[rule]}`" for rule in order)
    return " ".join([*lines, f"Here it hurts: {hurt}." if hurt else "Nothing that ships hurts."])


def use(table: Table, names: Sequence[str], rules: Sequence[str]) -> str:
    """The safest of some rules, and by how much."""
    if not (safe := safest(table, names, rules)):
        return ""
    best, change = safe
    faster = [one.sign for one in of(table, names, best[0]) if one].count(-1)
    little = "little is to be won safely: " if change > -SMALL else ""
    worlds = f"{faster} of {len(names)} world{'s'[: len(names) > 1]}"
    return (
        f"{little}{listed(best)} {'is' if len(best) == 1 else 'are'} clearly faster on {worlds}, clearly slower on "
        f"none, and {change:+.{1 if little else 0}f} % on the mean"
    )


def by_world(table: Table, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """A line per world of a host: the best rule that it could have, that ships, and at all; and what hurts most."""
    lines = []
    rules, hints = feasible(names), SCENARIOS[names[0]].actuator == "hint"
    for name in names:
        stand = suite.standings(table, name)

        def first(rules: Sequence[str], stand: Mapping[str, Standing] = stand) -> str:
            faster = [rule for rule in rules if rule in stand and fair(stand[rule]) and stand[rule].sign < 0]
            rule = min(faster, key=lambda one: stand[one].change.mean, default=None)
            return f"`{rule}` {percent(stand[rule])}" if rule else "-"

        slow = sorted(
            (rule for rule in rules if rule in stand and stand[rule].sign > 0),
            key=lambda rule: -stand[rule].change.mean,
        )
        more = f" and {len(slow) - MOST} more" if len(slow) > MOST else ""
        hurts = ", ".join(f"`{rule}` {stand[rule].change.mean:+,.0f} %" for rule in slow[:MOST]) + more
        best = [first(rules), first(ships(name)), *([] if hints else [first(VISIBLE)])]
        lines.append([f"{name}: {SCENARIOS[name].description}", *best, hurts or "-"])
    return ["guests", "best", "best that ships", *([] if hints else ["best by pull"]), "here it hurts"], lines


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
