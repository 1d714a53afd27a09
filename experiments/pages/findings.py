"""Write docs/findings.md: the text of `findings.in.md` with every number filled in from `results/`.

`python -m experiments results` calls it. A name in braces in the text is one of the numbers below; each must be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from string import Formatter

import numpy as np

from experiments.answer import answer, harm, overcommit, ratelimit, robustness
from experiments.answer.rules import compare, milliseconds, percent
from experiments.lab import Table
from experiments.lab.folders import DOCS
from experiments.lab.worlds import load_world
from experiments.paper import (
    calibration,
    dispatch,
    figure1,
    figure2,
    figure3,
    figure4,
    fit,
    gap,
    lock_kinds,
    rival,
    slope,
    vcpus,
    window,
)
from ple_gym.evaluate import Estimate
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("findings.in.md")
PAGE = DOCS / "findings.md"
MS = 2_670_000  # cycles
STORM = 1000  # exits in a run, above which it has a storm

Numbers = dict[str, str]


def of_figure1(table: Table) -> Numbers:
    rows = {policy: table.where(policy=policy) for policy in figure1.POLICIES}
    exits = {policy: f"{row['exits_0'][0]} and {row['exits_1'][0]}" for policy, row in rows.items()}
    return {
        "story_events": f"{rows['xen-4.8']['as_told'][0]}",
        "story_48": exits["xen-4.8"],
        "story_45": exits["xen-4.5"],
    }


def of_vcpus(table: Table) -> Numbers:
    old, new = (dict(zip(vcpus.VCPUS, vcpus.per_preemption(table, rule), strict=True)) for rule in vcpus.POLICIES)
    return {
        "one_8": f"{old[8]:,.0f}",
        "one_32": f"{old[32]:,.0f}",
        "one_48_8": f"{new[8]:,.0f}",
        "one_48_32": f"{new[32]:,.0f}",
    }


def of_gap(table: Table) -> Numbers:
    counts = gap.storms(table)
    return {"period": str(gap.PERIOD), "gap_32": str(counts[32]), "gap_128": f"{counts[128]:,}"}


def of_window(table: Table) -> Numbers:
    best = window.best_window(table)

    def change(cycles: int) -> str:
        return milliseconds(window.above(table, cycles, best), 0)

    def stormy(cycles: int) -> str:
        part = window.part(table, cycles)
        return f"{100 * (part['exits'] > 0).mean():.0f} %"

    unfair = window.ABLATIONS["unfair locks"]
    difference = 1e3 * float((window.makespans(table, 512, unfair) - window.makespans(table, 65_536, unfair)).mean())
    return {
        "best_window": f"{best:,}",
        "above_512": change(512),
        "above_4096": change(4096),
        "above_never": change(10**8),
        "stormy_512": stormy(512),
        "stormy_4096": stormy(4096),
        "unfair_512": f"{abs(difference):.1f} ms",
        "false_512": f"{window.false_share(table, 512, window.STORM):.1f} %",
        "false_1m": f"{window.false_share(table, 10**6, window.STORM):.1f} %",
        "delay_512": f"{window.delay(table, 512):,}",
        "delay_1m": f"{window.delay(table, 10**6):,}",
        "window_runs": f"{len(window.part(table, 512)) // 2:,}",
    }


def of_holds(table: Table) -> Numbers:
    medians = table["preempted_median"][table["preempted"] > 0] / MS
    return {
        "held_short": f"{100 * table['up_to_2048'].sum() / table['holds'].sum():.1f} %",
        "held_off": f"{np.median(medians):.1f} ms",
        "held_longest": f"{table['preempted_longest'].max() / MS:.0f} ms",
        "preempted": f"{table['preempted'].sum():,}",
        "holds": f"{table['holds'].sum() / 1e6:.1f} million",
    }


def of_figure3(table: Table) -> Numbers:
    best = figure3.best_row(table)
    return {
        "pair": f"{best['exits_0']} and {best['exits_1']}",
        "searched": f"{len(table):,}",
        "one_round": f"{table['one_round'].sum():,}",
    }


def of_dispatch(table: Table) -> Numbers:
    def row(name: str) -> str:
        return ", ".join(f"{usual}" for _, usual, _ in dispatch.measured(table, name))

    new = table.where(policy="xen-4.8")
    return {
        "by_limit": row("host.ratelimit_us"),
        "by_window": row("ple.window"),
        "by_cost": row("cost.exit"),
        "single_48": f"{100 * new['single'].sum() / new['dispatches'].sum():.0f} %",
    }


def of_figure4(table: Table) -> Numbers:
    best = figure4.best_row(table)
    storms = table.select(table["exits"] > figure4.STORM)
    return {
        "storms": f"{len(storms)}",
        "crowd": str(table["crowd"].max()),
        "figure5": f"{(storms['off_spinners'] >= figure4.OTHERS).sum()}",
        "figure6": f"{(storms['free_spinners'] >= figure4.OTHERS).sum()}",
        "off_ms": f"{(best['off_to'] - best['off_from']) / MS:.0f} ms",
        "free_ms": f"{(best['free_to'] - best['free_from']) / MS:.1f} ms",
    }


def of_lock_kinds(table: Table) -> Numbers:
    makespans = {kind: lock_kinds.of(table, kind)["now_us"].mean() / 1e6 for kind in lock_kinds.KINDS}
    unfair = lock_kinds.of(table, "tas")
    return {
        "free_ticket": f"{lock_kinds.shares(table, 'ticket')['exits_lock_free']:.1f} %",
        "off_ticket": f"{lock_kinds.shares(table, 'ticket')['exits_holder_off']:.1f} %",
        "free_mcs": f"{lock_kinds.shares(table, 'mcs')['exits_lock_free']:.1f} %",
        "free_tas": f"{unfair['exits_lock_free'].sum()} of {unfair['exits'].sum():,}",
        "free_tas_cycles": str(unfair["free_for"].max()),
        "makespan_ticket": f"{makespans['ticket']:.3f} s",
        "makespan_tas": f"{makespans['tas']:.3f} s",
    }


def of_rival(table: Table) -> Numbers:
    halt = rival.part(table, "halt")
    limit = rival.part(table, "limit")
    wide = {reading: rival.part(table, reading, scenario=rival.MANY) for reading in rival.READINGS}

    def sweep(reading: str, kind: str, name: str) -> str:
        changes = [{} if v == rival.BASE[name] else {name: v} for v in rival.SWEEPS[name]]
        return ", ".join(str(rival.usual(rival.part(table, reading, change), kind)) for change in changes)

    found = {
        f"{reading}_{short}": sweep(reading, kind, name)
        for reading, kind in (("limit", "row"), ("halt", "round"))
        for name, short in (("host.ratelimit_us", "r"), ("ple.window", "w"), ("guest.spin_period", "g"))
    }
    return found | {
        "limit_switch": f"{rival.endings(limit)['switch']:.0f} %",
        "halt_halt": f"{rival.endings(halt)['halt']:.0f} %",
        "limit_wait": f"{limit['most_in_wait'].max():,}",
        "halt_wait": f"{halt['most_in_wait'].max():,}",
        "band": f"{rival.BAND[0]} to {rival.BAND[1]}",
        "likelihood": f"{rival.likelihood(table):,.0f}",
        "limit_half": found["limit_r"].split(",")[0],
        "halt_half": found["halt_r"].split(",")[0],
        **_acquisitions("limit", limit),
        **_acquisitions("halt", halt),
        **_crowds(table),
        "halt_most": f"{wide['halt']['exits'].max():,}",
        "rival_runs": f"{len(wide['halt']):,}",
    }


def _acquisitions(reading: str, table: Table) -> Numbers:
    inside, more = rival.per_acquisition(table)
    return {f"{reading}_band": f"{100 * inside:.1f} %", f"{reading}_above": f"{100 * more:.1f} %"}


def _crowds(table: Table) -> Numbers:
    """A line per number, a column per world."""
    columns = [rival.scatter(table, name) for name in rival.CROWDS]
    runs = {column.pop("runs") for column in columns}
    lines = [f"| {what} | {' | '.join(column[what] for column in columns)} |" for what in columns[0]]
    return {"crowds": "\n".join(lines), "crowd_runs": " or ".join(runs)}


def of_figure2(table: Table) -> Numbers:
    n = figure2.statistics(table.where(overrides=""))
    return {
        "runs2": f"{len(table.where(overrides='')):,}",
        "mode": f"{n['mode']:.2f} s",
        "near_mode": f"{n['near_mode']:.0f} %",
        "most": f"{n['most']:,.0f}",
        "no_ple": f"{100 * (table.where(overrides='')['exits'] == 0).mean():.0f} %",
        "delayed": f"{100 * n['delayed_of_top']:.0f} %",
        "storms_s": f"{n['storms_s']:.2f} s",
        "spearman": f"{n['spearman']:.2f}",
        "slow_few": f"{n['slow_few']:.1f} %",
        "ple_share": f"{n['ple_share']:.0f} %",
        "mode_of_dispatch": f"{n['dispatch_mode']:.0f}",
    }


def of_slope(table: Table) -> Numbers:
    by_share = slope.delays(table, "Paper32", "guest.vcpus")
    by_cost = slope.delays(table, "Paper32Alone", "cost.exit")
    return {
        "alone_s": f"{by_cost[1420]:.2f} s",
        "shared_s": f"{by_share[24]:.2f} s",
        "dear_s": f"{by_cost[7000]:.2f} s",
    }


RULES = {
    "new": "xen-4.8",
    "paper": "paper",
    "kvm": "kvm",
    "age": "spin-age-self",
    "longest": "longest-waiting",
    "oracle": "oracle",
}


def of_answer(table: Table) -> Numbers:
    found: Numbers = {}
    for short, part in zip(("p8", "p32", "l8", "l32"), answer.parts(table).values(), strict=True):
        compared = {name: compare(part, rule) for name, rule in RULES.items()}
        found |= {f"{short}_{name}": percent(one.change) for name, one in compared.items()}
        found["seeds" if short.startswith("p") else "line_seeds"] = str(len(part.distinct("seed")))
        found[f"{short}_wait"] = milliseconds(compared["paper"].wait_change_ms)
        if short.startswith("p"):
            found |= {f"{short}_ple_{name}": f"{one.exits:,.0f}" for name, one in compared.items()}
            found |= {f"{short}_ple_old": f"{compare(part, 'xen-4.5').exits:,.0f}"}
    return found | _storms(answer.parts(table)[answer.WORLDS[0]])


def _storms(part: Table) -> Numbers:
    """Whole runs of `Paper8` with a storm under Xen 4.5, and what becomes of them under the proposal."""
    old, new = (part.where(policy=rule) for rule in ("xen-4.5", "paper"))
    storm = (old["exits"] > STORM) & (new["exits"] > STORM)
    changes = new["now_us"] / old["now_us"] - 1
    slowest = (f"{np.percentile(one['now_us'], 99) / 1e6:.2f} s" for one in (old, new))
    return {
        "storms_both": f"{storm.sum()}",
        "storms_longer": f"{(storm & (changes > 0)).sum()}",
        "storms_shorter": f"{(storm & (changes < 0)).sum()}",
        **dict(zip(("p99_old", "p99_paper"), slowest, strict=True)),
    }


def _about(change: Estimate) -> str:
    return f"{change.mean:+.0f} %"


def of_harm(table: Table) -> Numbers:
    def change(condition: str) -> str:
        return _about(compare(harm.part(table, condition), "paper").change)

    return {
        "harm_8": change("8 vCPUs"),
        "harm_5": change("5 vCPUs"),
        "harm_slice": change("time slice 5 ms"),
        "harm_unfair": change("unfair lock (test and set)"),
        "harm_beside": change("Paper32 in line"),
        "harm_alone": change("Paper32 in line, alone"),
        "harm_seeds": str(len(harm.part(table, "8 vCPUs").distinct("seed"))),
    }


def of_ratelimit(table: Table) -> Numbers:
    return {
        f"{short}_off": _about(compare(ratelimit.part(table, world, 0), "paper").change)
        for short, world in zip(("l8", "l32"), answer.WORLDS, strict=True)
    }


def of_robustness(table: Table) -> Numbers:
    def change(rule: str, world: str, variant: str) -> str:
        return percent(robustness.grid(table, rule).changes[world, variant])

    def ple(variant: str) -> str:
        return f"{robustness.part(table, 'Paper8', variant)['exits'].mean():,.0f}"

    def listed(kept: bool) -> str:
        lines = [robustness.told(table, one) for one in robustness.CLAIMS if robustness.survives(table, one) == kept]
        return "\n".join(f"- {line[0].upper()}{line[1:]}" for line in lines)

    shipped = robustness.SHIPPED
    worlds = dict(zip(("8", "32", "l8", "l32"), robustness.WORLDS, strict=False))
    return {
        "findings": listed(True),
        "depends": listed(False),
        "grids": "\n\n".join(_grid(table, rule) for rule in robustness.OTHERS),
        "whole_seeds": str(robustness.WHOLE),
        "short_seeds": str(robustness.SHORT),
        "cut_off": str(robustness.CUT_OFF["limit.simulated_s"]),
        **{f"no_ple_{short}": change(robustness.NO_PLE, world, shipped) for short, world in worlds.items()},
        "age_l8": change("spin-age-self", "Paper8 in line", shipped),
        "oracle_l8": change("oracle", "Paper8 in line", shipped),
        "busy_swap": change("paper", "Busy8", "swap"),
        "busy_pool": change("paper", "Busy8", "pool of 4"),
        "busy_both": change("paper", "Busy8", "swap, pool of 4"),
        "busy_local": change("paper", "Busy8", "local"),
        "age_linux": change("spin-age-self", "Busy8", "Linux 5.15"),
        "oracle_linux": change("oracle", "Busy8", "Linux 5.15"),
        "ple_base": ple(shipped),
        "ple_tas": ple("unfair locks"),
        "ple_halt": ple("MCS locks that halt"),
        "ple_block": ple("2 % of sections block"),
    }


def _grid(table: Table, rule: str) -> str:
    """One rule: variants down, worlds across."""
    changes = robustness.grid(table, rule).changes
    name = rule if rule == robustness.NO_PLE else f"`{rule}`"
    lines = [f"| {name} | {' | '.join(robustness.WORLDS)} |", "|---" * (1 + len(robustness.WORLDS)) + "|"]
    for variant in robustness.VARIANTS:
        cells = [percent(changes[world, variant]).removesuffix(" %") for world in robustness.WORLDS]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def of_overcommit(table: Table) -> Numbers:
    return {
        f"over_{times}": f"{compare(overcommit.part(table, 4 * times), 'spin-age-self').change.mean:+.1f} %"
        for times in (2, 4, 8)
    }


def of_calibration(table: Table) -> Numbers:
    found: Numbers = {}
    for short, name in (("shared", "fitted"), ("dear", "dear-exits")):
        n = figure2.statistics(table.where(scenario=name))
        missed = fit.misses(n, fit.EXPLANATIONS[name].judged_by_figure3)
        found[f"{short}_loss"] = f"{sum(miss**2 for miss in missed.values()):.1f}"
        found[f"{short}_delayed"] = f"{100 * n['delayed_of_top']:.0f} %"
        apart = [check.value for check in calibration.apart(table.where(scenario=name), name)]
        found |= {f"{short}_{what}": value for what, value in zip(("cycles", "mode", "others"), apart, strict=False)}
    profile = load_world("fitted")
    return found | {
        "shared_neighbours": f"{profile.neighbours[0].vcpus} of {profile.neighbours[0].vcpus + profile.guest.vcpus}",
        "dear_cost": f"{load_world('dear-exits').cost.exit:,}",
    }


SOURCES: dict[str, Callable[[Table], Numbers]] = {
    "figure1": of_figure1,
    "vcpus": of_vcpus,
    "gap": of_gap,
    "window": of_window,
    "holds": of_holds,
    "figure3": of_figure3,
    "dispatch": of_dispatch,
    "figure4": of_figure4,
    "lock_kinds": of_lock_kinds,
    "rival": of_rival,
    "figure2": of_figure2,
    "slope": of_slope,
    "calibration": of_calibration,
    "answer": of_answer,
    "harm": of_harm,
    "ratelimit": of_ratelimit,
    "overcommit": of_overcommit,
    "robustness": of_robustness,
}


NEEDS = tuple(SOURCES)


def numbers(tables: Mapping[str, Table]) -> Numbers:
    """Every number of the page, by its name in the text."""
    found: Numbers = {}
    for name, source in SOURCES.items():
        own = source(tables[name])
        assert not found.keys() & own.keys(), f"{name}: {found.keys() & own.keys()} are other numbers' names"
        found |= own
    return found


def page(tables: Mapping[str, Table]) -> str:
    """The page; a name in the text that is no number is a KeyError."""
    return TEXT.read_text(encoding="utf-8").format(**numbers(tables))


def unused(tables: Mapping[str, Table]) -> set[str]:
    """Numbers that the text does not use."""
    return set(numbers(tables)) - {
        name for _, name, _, _ in Formatter().parse(TEXT.read_text(encoding="utf-8")) if name
    }


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables).encode())
