"""Write docs/learnable.md from the table of `learnable`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from experiments.answer import in_kernel, learnable
from experiments.answer.learnable import (
    NEXT,
    ORACLE,
    PLAN,
    SEARCHED,
    SEEDS,
    WORLDS,
    best_rule,
    change,
    finished,
    found,
    kept,
)
from experiments.answer.rules import whole_percent
from experiments.lab import Table, world
from experiments.lab.folders import DOCS
from ple_gym.certify.catalogue import certificate
from ple_gym.certify.certificate import AHEAD, LEARNED, MEAN, PRIVILEGED, RULE, Certificate, told
from ple_gym.evaluate.scores import KEPT
from ple_gym.evaluate.statistics import Estimate
from ple_gym.files import write_whole
from ple_gym.learned.search import POPULATION
from ple_gym.rules.own import own_rule
from ple_gym.scenario.builtin import load

TEXT = Path(__file__).with_name("learnable.in.md")
PAGE = DOCS / "learnable.md"
#: What `ple-gym certify` found of worlds that stood out, by name.
CERTIFICATES = Path(learnable.__file__).with_name("certificates")
NEEDS = ("learnable",)
READ_OFF = "Fleet-18"  # whose searched policy became a rule
SHOWN = (LEARNED, RULE, PRIVILEGED, AHEAD)  # kinds of rows
ENDS = 0.9  # share of runs, at least, that end under the best rule, or a world says nothing


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["learnable"]).encode())


@dataclass(frozen=True)
class World:
    """What the table says of a world."""

    table: Table
    name: str

    @cached_property
    def rule(self) -> str:
        """The best rule."""
        return best_rule(self.table, self.name)

    @cached_property
    def searched(self) -> Estimate:
        """The searched policy against it, percent."""
        return change(self.table, self.name, SEARCHED, self.rule)

    @cached_property
    def kept(self) -> float:
        """What the searched policy leaves the worst off VM."""
        return kept(self.table, self.name, SEARCHED)

    @cached_property
    def own(self) -> Estimate:
        """The best rule against the host's own, percent."""
        return change(self.table, self.name, self.rule, own_rule(world(self.name, "")))

    @cached_property
    def oracle(self) -> Estimate:
        """The oracle against the best rule, percent."""
        return change(self.table, self.name, ORACLE, self.rule)

    @property
    def host(self) -> str:
        """Scheduler and actuator."""
        scenario = world(self.name, "")
        return f"`{scenario.host.scheduler}`, `{scenario.actuator}`"

    @property
    def wins(self) -> bool:
        """Whether the searched policy is clearly faster, and fair."""
        high = self.searched.high
        return self.kept >= KEPT and high is not None and high < 0

    @property
    def loses(self) -> bool:
        """Whether it is clearly slower, or unfair."""
        return self.kept < KEPT or (self.searched.low or 0.0) > 0

    @property
    def ends(self) -> bool:
        """Whether runs end under the best rule."""
        return finished(self.table, self.name, self.rule) >= ENDS


def page(table: Table) -> str:
    """Its text."""
    every = [World(table, name) for name in WORLDS if name in found()]
    worlds = [one for one in every if one.ends]
    winning = [one for one in worlds if one.wins]
    much = [one for one in winning if one.searched.mean <= -MEAN]
    best = min(winning or worlds, key=lambda one: one.searched.mean)
    first = (
        f"**In {len(winning)} of {len(worlds)} worlds it is clearly faster than the best rule, tuned or not, in "
        f"{len(much)} by {MEAN:g} % or more; it is clearly slower or unfair in {sum(one.loses for one in worlds)}.**"
    )
    lines = [
        f"- Of {len(every)} worlds, {len(every) - len(worlds)} end too seldom under any rule to say something.",
        f"- The searched policy takes {mean(worlds, 'searched'):+.1f} % against the best rule of each world, the "
        f"geometric mean of all; the best rule takes {mean(worlds, 'own'):+.1f} % against the host's own.",
        f"- It gains most in *{best.name}*: {whole_percent(best.searched)}.",
        f"- The oracle takes {mean(worlds, 'oracle'):+.1f} % against the best rule: to know the holder is not to know "
        "whom to run.",
    ]
    return TEXT.read_text(encoding="utf-8").format(
        first=first, count=len(every), validation=PLAN.validation, restarts=PLAN.restarts, trials=PLAN.trials,
        training=PLAN.training, rules=NEXT + 1, population=POPULATION, generations=PLAN.generations,
        worlds=PLAN.worlds, seeds=SEEDS, summary="\n".join(lines), groups=groups(worlds), table=rows(every),
        example=best.name, before=f"{before(READ_OFF):.0f}",
        certified="\n\n".join(map(certified, certificates())) or "No world yet.",
    )  # fmt: skip


def certificates() -> list[Certificate]:
    """The kept ones."""
    return [*map(certificate, sorted(CERTIFICATES.glob("*.json")))]


def before(read_off: str) -> float:
    """By how much the best learned policy was before all rules but the one that was read off from it, percent."""
    one = next(one for one in certificates() if one.scenario == read_off)
    rows = [row for row in one.rows if row.kind in (LEARNED, RULE) and not row.name.startswith(in_kernel.RULE)]
    learned, rule = (min(row.percent[0] for row in rows if row.kind == kind) for kind in (LEARNED, RULE))
    return 100 - 100 * (1 + learned / 100) / (1 + rule / 100)


def certified(one: Certificate) -> str:
    """What a certificate says, and the best of each kind in it."""
    scenario, learned = load(one.scenario), [row for row in one.rows if row.kind == LEARNED]
    vms = " and ".join(f"{vm.vcpus} vCPUs" for vm in scenario.vms().values())
    ahead = sum(row.beats(MEAN) for row in learned)
    lines = [["kind", "the best", "seeds", "against the bar", "kept"], ["---"] * 5]
    for kind in SHOWN:
        row = min((row for row in one.rows if row.kind == kind), key=lambda row: row.percent[0])
        lines.append([kind, f"`{row.name}`", str(row.seeds), told(row.percent), f"{row.kept:.2f}"])
    return (
        f"**{one.scenario}**, {vms} on {scenario.host.pcpus} pCPUs with {one.decisions:,.0f} decisions a run, is "
        f"*{one.verdict}*: {one.why}. The bar, `{one.bar}`, is the best of all rules on validation seeds; "
        f"{ahead} of {len(learned)} searches are clearly {MEAN:g} % before it on fresh ones.\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
    )


def mean(worlds: Sequence[World], what: str) -> float:
    """The geometric mean over worlds of a change, percent."""
    return float(100 * np.expm1(np.mean([np.log1p(getattr(one, what).mean / 100) for one in worlds])))


def groups(worlds: Sequence[World]) -> str:
    """A line for each scheduler with each actuator."""
    lines = [["host", "worlds", "best rule against the host", "searched against the best rule", "clearly faster",
              f"by {MEAN:g} % or more", "clearly slower or unfair", "`oracle` against the best rule"]]  # fmt: skip
    lines.append(["---", *["---:"] * 7])
    for host in sorted({one.host for one in worlds}):
        own = [one for one in worlds if one.host == host]
        much = sum(one.wins and one.searched.mean <= -MEAN for one in own)
        lines.append(
            [host, str(len(own)), f"{mean(own, 'own'):+.1f}", f"{mean(own, 'searched'):+.1f}",
             str(sum(one.wins for one in own)), str(much), str(sum(one.loses for one in own)),
             f"{mean(own, 'oracle'):+.1f}"]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows(worlds: Sequence[World]) -> str:
    """The table of all worlds."""
    lines = [["world", "host", "version, layout, guest", "pCPUs, vCPUs", "decisions", "best rule", "against the host",
              "searched", "kept", "`oracle`", "end"]]  # fmt: skip
    lines.append(["---"] * 3 + ["---:"] * 2 + ["---"] + ["---:"] * 5)
    for one in worlds:
        scenario = world(one.name, "")
        drawn = scenario.description.partition("split: ")[2].partition(", ")[2]
        short = f"`{one.rule}`" if ":" not in one.rule else f"`{one.rule.partition(':')[0]}`, tuned"
        lines.append(
            [one.name, one.host, drawn, f"{scenario.host.pcpus}, {scenario.vcpus}",
             f"{found()[one.name].decisions:,.0f}", short, whole_percent(one.own), whole_percent(one.searched),
             f"{one.kept:.2f}" + ("" if one.kept >= KEPT else ": unfair"), whole_percent(one.oracle),
             f"{finished(one.table, one.name, one.rule):.0%}"]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
