"""Write docs/certificates.md from the kept certificates and the table of `core`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from experiments.answer import core, headroom
from experiments.answer.learnable import change, kept
from experiments.answer.robustness import sign
from experiments.answer.rules import whole_percent
from experiments.answer.suite import members, scenario_id
from experiments.lab import Table
from experiments.lab.folders import DOCS
from experiments.pages.suites import markdown
from ple_gym.certify.catalogue import certificate, certificates
from ple_gym.certify.certificate import AHEAD, LEARNABLE, LEARNED, MEAN, told
from ple_gym.evaluate.scores import KEPT
from ple_gym.evaluate.statistics import Estimate
from ple_gym.files import write_whole
from ple_gym.rules.own import own_rule
from ple_gym.scenario.builtin import SCENARIOS

TEXT = Path(__file__).with_name("certificates.in.md")
PAGE = DOCS / "certificates.md"
#: Certificates of worlds that a search had found, and that do not belong to the suite.
REFUSED = Path(headroom.__file__).with_name("certificates") / "refused"
NEEDS = ("core",)
Gains: TypeAlias = Mapping[str, Mapping[str, Estimate]]


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["core"]).encode())


def page(every: Table) -> str:
    """Its text."""
    table = core.part(every, core.AS_IT_IS)
    found, won = certificates(), gains(every)
    example = members("core")[0]
    return TEXT.read_text(encoding="utf-8").format(
        first=first(table), mean=f"{MEAN:g}", table=in_columns([row(name) for name in found]), seeds=core.SEEDS,
        core=in_columns([world(table, name) for name in members("core")]), example=scenario_id(example),
        refused="\n".join(refused()), responses=f"{served(table):.0f}", example_own=own_rule(SCENARIOS[example]),
        example_policy=core.LEARNED[example], variants=in_columns(variants(every, won)), survives=survives(won),
        fewer=core.FEWER,
    )  # fmt: skip


def first(table: Table) -> str:
    """The sentence that says it all."""
    found, own = certificates(), members("core")
    gains = [learned(table, name).mean for name in own]
    others = [name for name in found if found[name].verdict != LEARNABLE]
    return (
        f"**In {len(own)} worlds under Linux/KVM a policy that sees what a hypervisor sees beats every rule, tuned or "
        f"not, by {-max(gains):.0f} to {-min(gains):.0f} % ([core](#the-worlds-of-core)); in the other "
        f"{len(others)} none does by {MEAN:g} %.**"
    )


def refused() -> list[str]:
    """What a search with fewer seeds had found, and a certificate has not."""
    places = {place.scenario.digest: place.text for place in headroom.places()}
    lines = []
    for one in map(certificate, sorted(REFUSED.glob("*.json"))):
        why = one.why.replace(one.bar, short(one.bar))
        lines.append(f"- *{places[one.digest]}* was refused: it is *{one.verdict}*, as {why}.")
    return lines


def served(table: Table) -> float:
    """How many responses a run has where there is a server."""
    names = [scenario_id(name) for name in members("core") if SCENARIOS[name].has_goals]
    return float(table.select(np.isin(table["scenario"], names))["responses"].mean())


def learned(table: Table, name: str) -> Estimate:
    """The shipped policy against the best rule, percent."""
    return change(table, scenario_id(name), core.LEARNED[name], core.best_rule(table, name))


def row(name: str) -> dict[str, str]:
    """What a certificate says."""
    one = certificates()[name]
    host = next(each for each in one.rows if each.name == one.own)
    policies = [each for each in one.rows if each.kind == LEARNED]
    best = min(policies, key=lambda each: each.percent[0])
    count = sum(each.beats(MEAN) for each in policies)
    return {
        "world": scenario_id(name),
        "verdict": f"*{one.verdict}*",
        "decisions": f"{one.decisions:,.0f}",
        "the bar": short(one.bar),
        "host's own": f"`{one.own}` {told(host.percent)}",
        "learned": f"{told(best.percent)}, {count} of {len(policies)}",
        "look-ahead": told(next(each for each in one.rows if each.kind == AHEAD).percent),
        "`oracle`": told(next(each for each in one.rows if each.name == core.ORACLE).percent),
    }


def world(table: Table, name: str) -> dict[str, str]:
    """A world of `core`, on seeds of its own."""
    one, policy, rule, own = (
        scenario_id(name),
        core.LEARNED[name],
        core.best_rule(table, name),
        own_rule(SCENARIOS[name]),
    )
    means = {
        column: [table.where(scenario=one, policy=each)[column].mean() / 1000 for each in (own, rule, policy)]
        for column in ("now_us", "response")
    }
    return {
        "world": f"[{name}](environments/{name}.md)",
        "policy": f"`{policy}`",
        "best rule": short(rule),
        "policy against it": whole_percent(learned(table, name)),
        "policy against the host's own": whole_percent(change(table, one, policy, own)),
        "kept": f"{kept(table, one, policy):.2f}",
        "makespan, ms": ", ".join(f"{each:.1f}" for each in means["now_us"]),
        "p99, goals": ", ".join(f"{each:.2f}" for each in means["response"]) if SCENARIOS[name].has_goals else "-",
        "`oracle` against the best rule": whole_percent(change(table, one, core.ORACLE, rule)),
    }


def gains(every: Table) -> Gains:
    """Variant -> world -> the shipped policy against the best rule there, percent."""
    found = {}
    for variant in core.VARIANTS:
        rows = core.part(every, variant)
        found[variant] = {name: learned(rows, name) for name in core.changed(variant)}
    return found


def variants(every: Table, won: Gains) -> list[dict[str, str]]:
    """A line for each."""
    lines = []
    for variant, worlds in won.items():
        rows = core.part(every, variant)
        shares = {name: kept(rows, scenario_id(name), core.LEARNED[name]) for name in worlds}
        cells = {name: whole_percent(one) + unfair(shares[name]) for name, one in worlds.items()}
        lines.append({"changed": variant, **{name: cells.get(name, "-") for name in members("core")}})
    return lines


def unfair(share: float) -> str:
    """What is said of a policy that leaves the worst off VM so much of what it is due."""
    return "" if share >= KEPT else f", kept {share:.2f}"


def survives(won: Gains) -> str:
    """A sentence: in how many cells the policy is clearly before the best rule, where what is assumed is another."""
    assumed = [one for one in core.VARIANTS if one not in (core.AS_IT_IS, *core.OTHERS)]
    cells = [one for variant in assumed for one in won[variant].values()]
    faster, slower = (sum(sign(one) == wanted for one in cells) for wanted in (-1, 1))
    return (
        f"Where an assumed number is another, the policy is clearly faster than the best rule in {faster} of "
        f"{len(cells)} cells, and clearly slower in {slower or 'none'}"
    )


def short(rule: str) -> str:
    """A rule's name, and whether it was tuned."""
    name, _, values = rule.partition(":")
    return f"`{name}`{', tuned' if values else ''}"


def in_columns(lines: list[dict[str, str]]) -> str:
    """A table with these columns."""
    return markdown(list(lines[0]), [list(line.values()) for line in lines], words=True)
