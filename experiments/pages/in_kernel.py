"""Write docs/in-kernel.md from the table of `in_kernel`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments.answer import fleet
from experiments.answer.in_kernel import (
    BASE,
    LINUX,
    OTHERS,
    PARTS,
    RULE,
    SEEDS,
    TUNED,
    Place,
    against_best,
    gained,
    inputs,
    lost,
    places,
)
from experiments.answer.learnable import SEARCHED
from experiments.answer.rules import in_percent, whole_percent
from experiments.lab import Table
from experiments.lab.folders import DOCS
from ple_gym.evaluate.statistics import Estimate, ratio
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("in_kernel.in.md")
PAGE = DOCS / "in-kernel.md"
NEEDS = ("in_kernel", "fleet")
MISSED = 6  # inputs that are shown
#: What the page calls the tuned rule and its parts.
NAMED = dict(
    zip(
        (TUNED, *PARTS, RULE),
        ("as tuned", "the same, siblings only", "the same, in no order of pCPUs",
         "the same, counted from the asker's pCPU on", "with its defaults"),
        strict=True,
    )
)  # fmt: skip


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["in_kernel"], tables["fleet"]).encode())


def page(table: Table, of_fleet: Table) -> str:
    """Its text."""
    every = list(places())
    base = every[0]
    missed = sorted(((lost(table, name), name) for name in inputs()), key=lambda pair: -pair[0].mean)
    return TEXT.read_text(encoding="utf-8").format(
        first=f"**{headline(table)}**", base=BASE, inputs=len(missed), seeds=len(SEEDS), others=len(OTHERS) + 1,
        values=TUNED.partition(":")[2],
        searched=whole_percent(in_base(table, base, SEARCHED)), against=whole_percent(against_searched(table, base)),
        missed=lines([f"`{name.partition(' ')[2]}`, of the {name.partition(' ')[0]}", whole_percent(one)]
                     for one, name in missed[:MISSED]),
        sibling=whole_percent(lost(table, "vcpu sibling")),
        parts=lines(map(partial(part, table, base), NAMED)),
        summary="\n".join(summary(table, [one for one in every if one.linux == linux]) for linux in LINUX),
        tables="\n\n".join(of_linux(table, linux, [one for one in every if one.linux == linux]) for linux in LINUX),
        **{name: f"{gain:+.0f}" for name, gain in fleet_gains(of_fleet).items()},
    )  # fmt: skip


def headline(table: Table) -> str:
    """What the rule gains around the world that it comes from, and what its fair form does for both VMs."""
    every = list(places())
    old, later = ([one for one in every if (one.linux == LINUX[0]) == first] for first in (True, False))
    faster, later_too = (sum(clearly(against_best(table, one)) < 0 for one in some) for some in (old, later))
    return (
        f"Under Linux {LINUX[0]} it takes {-mean(table, old, TUNED):.0f} % less than KVM's own rule, the geometric "
        f"mean of {len(old)} worlds, and is clearly faster than every other rule in {faster} of them; under later "
        f"versions in {later_too} of {len(later)}. With pCPUs counted from the asker's on it favours neither VM, and "
        f"both end more transactions: {' and '.join(whole_percent(gained(table, PARTS[-1], vm)) for vm in range(2))}."
    )


def part(table: Table, base: Place, rule: str) -> list[str]:
    """What the rule, or a part of it, takes in the base, and what each VM gains of it without end."""
    changes = [base.change(table, rule, base.own), *(gained(table, rule, vm) for vm in range(2))]
    return [NAMED[rule], *map(whole_percent, changes)]


def in_base(table: Table, base: Place, policy: str) -> Estimate:
    """What was searched against the host's own rule, percent: the base is the first world, with a limit of its own."""
    own = np.log(table.where(scenario=BASE, overrides="", policy=policy)["now_us"] / 1000)
    return in_percent(ratio(own - np.log(base.times(table, base.own))))


def against_searched(table: Table, base: Place) -> Estimate:
    """The tuned rule against what it was read off from, percent."""
    own = np.log(table.where(scenario=BASE, overrides="", policy=SEARCHED)["now_us"] / 1000)
    return in_percent(ratio(np.log(base.times(table, TUNED)) - own))


def clearly(one: Estimate) -> int:
    """-1: clearly less than nothing; 1: clearly more; 0: neither."""
    return int((one.low or 0.0) > 0) - int((one.high or 0.0) < 0)


def mean(table: Table, worlds: Sequence[Place], policy: str, base: str = "") -> float:
    """The geometric mean over worlds of what a policy takes against another, or the host's own, percent."""
    found = [np.log1p(one.change(table, policy, base or one.own).mean / 100) for one in worlds]
    return float(100 * np.expm1(np.mean(found)))


def summary(table: Table, worlds: Sequence[Place]) -> str:
    """A line of a version of Linux."""
    signs = [clearly(against_best(table, one)) for one in worlds]
    best = [np.log1p(against_best(table, one).mean / 100) for one in worlds]
    return (
        f"- Linux {worlds[0].linux}, {len(worlds)} worlds: against the host's own rule the tuned one takes "
        f"{mean(table, worlds, TUNED):+.0f} %, with its defaults {mean(table, worlds, RULE):+.0f} %. Against the best "
        f"other of each world it takes {100 * np.expm1(np.mean(best)):+.0f} %, is clearly faster in {signs.count(-1)} "
        f"and clearly slower in {signs.count(1)}."
    )


def of_linux(table: Table, linux: str, worlds: Sequence[Place]) -> str:
    """A version's worlds."""
    head = ["world", "host's own, ms", "best other", "it against the host", "tuned against the host",
            "tuned against the best other", "defaults against the host"]  # fmt: skip
    rows = []
    for one in worlds:
        best = one.best(table)
        short = f"`{best}`" if ":" not in best else f"`{best.partition(':')[0]}`, tuned in the fleet"
        rows.append(
            [one.varied, f"{np.exp(np.log(one.times(table, one.own)).mean()):,.0f}", short,
             whole_percent(one.change(table, best, one.own)), whole_percent(one.change(table, TUNED, one.own)),
             whole_percent(against_best(table, one)), whole_percent(one.change(table, RULE, one.own))]
        )  # fmt: skip
    rule = ["---", "---:", "---", *["---:"] * 4]
    return f"### Linux {linux}\n\n{lines([head, rule, *rows])}"


def fleet_gains(table: Table) -> dict[str, float]:
    """What the rule takes with its defaults against each host's own, percent, by scheduler, in worlds to judge on."""
    gains = fleet.against_own(table, fleet.POLICIES.index(RULE))
    hosts = np.array([one.host.scheduler for one in fleet.judged_worlds(table)])
    return {str(host): float(100 * np.expm1(gains[hosts == host].mean())) for host in np.unique(hosts)}


def lines(rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
