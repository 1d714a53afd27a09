"""484 and 460: what a rate limit holds, or what a paravirtual lock allows before it halts?

Linux 3.19's paravirtual ticket locks spin 2^15 times, then halt until the ticket's turn. With a PAUSE every 58 to 61
cycles that is 460 to 484 windows: the paper's numbers as well. Two readings, then: `limit` (no halting, Xen 4.5's rate
limit) and `halt` (the same machine, and the guest halts). They differ in what the number depends on, in how a row of
exits ends, and in what it is a number of: exits per dispatch, or per acquisition. Both are given the spin period that
the halting needs, 59 cycles.

How many exits a whole run can have does not tell them apart: the load of `Paper32` was fitted to Figure 2 with waiters
that never halt. So the benchmark alone on the machine is run as well, with 150 locks (`limit`), and with 25 or 30
(`halt`): fewer locks make up for the halting.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, totals
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check, within
from experiments.lab.statistics import slope
from experiments.lab.traces import trace_of
from experiments.paper.slope import dear
from ple_gym.traces import events as tr
from ple_gym.traces.pictures import MANY_EXITS

EIGHT, MANY, ALONE = "PLE/Paper8-v0", "PLE/Paper32-v0", "Paper32Alone"
ITERATIONS = 1 << 15  # Linux: SPIN_THRESHOLD
PERIOD = 59
READINGS = {"limit": 0, "halt": ITERATIONS}
BASE = {"host.ratelimit_us": 1000, "ple.window": 4096, "guest.spin_period": PERIOD}
SWEEPS = {"host.ratelimit_us": (500, 1000, 2000), "ple.window": (2048, 4096, 8192), "guest.spin_period": (40, 59, 80)}
FIGURE2_MOST = 250_000  # exits of the paper's fullest runs
BAND = (440, 495)  # exits of a wait that would be read as the paper's 460 and 484, to a few per cent
SHOWN = 2  # waits that Figure 3 shows
STORM = 20_000  # exits of a run
#: The benchmark alone: what is shown as -> reading, locks.
CROWDS = {"limit, 150 locks": ("limit", 150), "halt, 25 locks": ("halt", 25), "halt, 30 locks": ("halt", 30)}
MHZ, EXIT = 2_670, 1_420


def world_of(reading: str, changed: Mapping[str, int] | None = None) -> dict[str, object]:
    return {"guest.spin_period": PERIOD, **(changed or {}), "guest.pv_spin_threshold": READINGS[reading]}


def crowd(name: str) -> dict[str, object]:
    """The benchmark on all 32 vCPUs, each of which takes the locks as often as in `Paper32`."""
    reading, locks = CROWDS[name]
    return {**dear(EXIT), "noise.rate_hz": 5, **world_of(reading), "guest.locks": locks}


def run(quick: bool) -> list[Task]:
    """Both readings in each sweep, both with 32 vCPUs, and both with as many locks as give Figure 2."""
    own = seeds.PAUSE_LOOP[: 8 if quick else 300]
    changes = [{}, *({name: v} for name, values in SWEEPS.items() for v in values if v != BASE[name])]
    worlds = [world_of(reading, change) for reading in READINGS for change in changes]
    wanted = [task for overrides in worlds for task in tasks(EIGHT, "xen-4.5", own, overrides)]
    wide = seeds.PAUSE_LOOP[: 8 if quick else 1_000]
    wanted += [t for reading in READINGS for t in tasks(MANY, "xen-4.5", wide, world_of(reading))]
    alone = seeds.PAUSE_LOOP[: 8 if quick else 700]
    return wanted + [task for name in CROWDS for task in tasks(ALONE, "xen-4.5", alone, crowd(name))]


ENDS = {tr.STOP: "ended_switch", tr.BLOCK: "ended_halt", tr.ACQUIRE: "ended_acquire"}


def measure(task: Task) -> dict[str, int]:
    """Rows of exits (`MANY_EXITS` or more in a dispatch), how they end; exits of waits until they halt or acquire.

    Of the benchmark alone only the time and the exits, without a trace; of the others no time.
    """
    if task.scenario == ALONE:
        run = totals(task)
        return dict.fromkeys(COLUMNS, 0) | {"now": run["now"], "exits": run["exits"]}
    trace = trace_of(task)
    lengths, ends = rows_of_exits(trace)
    rounds = exits_until_halt(trace)
    waits = tr.waits(trace)[:, 4]
    several = waits[waits >= 2]
    return {
        "now": 0,
        "exits": int((trace[:, 1] == tr.PLE).sum()),
        "rows": len(lengths),
        **_mode("row", lengths),
        **{name: int((ends == kind).sum()) for kind, name in ENDS.items()},
        **_mode("round", rounds[rounds >= MANY_EXITS]),
        "most_in_wait": int(waits.max(initial=0)),
        "waits_several": len(several),
        "waits_in_band": int(((several >= BAND[0]) & (several <= BAND[1])).sum()),
        "waits_above": int((several > BAND[1]).sum()),
    }


def _mode(name: str, values: np.ndarray) -> dict[str, int]:
    """The most frequent value and how often it occurs."""
    if not len(values):
        return {f"{name}_mode": 0, f"of_{name}_mode": 0}
    distinct, counts = np.unique(values, return_counts=True)
    return {f"{name}_mode": int(distinct[counts.argmax()]), f"of_{name}_mode": int(counts.max())}


def rows_of_exits(trace: tr.Ints) -> tuple[tr.Ints, tr.Ints]:
    """Exits per dispatch that has at least `MANY_EXITS`, and the kind of the event that ended them, both int64 [n]."""
    lengths, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for vcpu in np.unique(trace[trace[:, 1] == tr.PLE, 3]):
        kind = trace[(trace[:, 3] == vcpu) & np.isin(trace[:, 1], (tr.RUN, tr.PLE, *ENDS)), 1]
        dispatch = np.cumsum(kind == tr.RUN)
        count = np.bincount(dispatch, kind == tr.PLE).astype(np.int64)
        last = np.zeros(len(count), np.int64)
        exits = np.flatnonzero(kind == tr.PLE)
        last[dispatch[exits]] = exits  # of several, the last stays
        many = np.flatnonzero((count >= MANY_EXITS) & (last + 1 < len(kind)))
        lengths.append(count[many])
        ends.append(kind[last[many] + 1])
    return np.concatenate(lengths), np.concatenate(ends)


def exits_until_halt(trace: tr.Ints) -> tr.Ints:
    """Exits from a try, or from the wake-up after a halt, to the next halt or the acquire: int64 [n]."""
    rounds = [np.zeros(0, np.int64)]
    for vcpu in np.unique(trace[trace[:, 1] == tr.PLE, 3]):
        own = trace[(trace[:, 3] == vcpu) & np.isin(trace[:, 1], (tr.TRY, tr.PLE, tr.BLOCK)), 1]
        parts = np.bincount(np.cumsum(own != tr.PLE), own == tr.PLE).astype(np.int64)
        rounds.append(parts[parts > 0])
    return np.concatenate(rounds)


# --------------------------------------------------------------------------------------------------------------- report


def part(table: Table, reading: str, changed: Mapping[str, int] | None = None, scenario: str = EIGHT) -> Table:
    return table.where(scenario=scenario, overrides=overrides_text(world_of(reading, changed)))


def usual(table: Table, name: str) -> int:
    """The most frequent mode of `row` or `round`, each run counted by its own."""
    modes, at = np.unique(table[f"{name}_mode"], return_inverse=True)
    return int(modes[np.bincount(at, table[f"of_{name}_mode"]).argmax()])


def reach(window: int, period: int) -> int:
    return (window // period + 1) * period


def due(reading: str, changed: Mapping[str, int]) -> float:
    """What a reading predicts: exits in a dispatch (`limit`), exits until the halt (`halt`)."""
    now = {**BASE, **changed}
    window, period = now["ple.window"], now["guest.spin_period"]
    if reading == "limit":
        return now["host.ratelimit_us"] * MHZ / (reach(window, period) + EXIT)
    return ITERATIONS * period / reach(window, period)


def checks(table: Table) -> list[Check]:
    """What the two readings predict, and which of it the paper's text speaks of."""
    found = []
    for reading, kind in (("limit", "row"), ("halt", "round")):
        where = "in a dispatch" if kind == "row" else "until the halt"
        for name, values in SWEEPS.items():
            for value in values:
                if value == BASE[name] and name != "host.ratelimit_us":
                    continue
                change = {} if value == BASE[name] else {name: value}
                text = f"{reading}: usual number of exits {where}" + (f", {name} = {value:,}" if change else "")
                number, expected = usual(part(table, reading, change), kind), int(due(reading, change))
                found.append(within("rival", text, number, expected - 1, expected + 1))
    for reading in READINGS:
        own = part(table, reading)
        text = ", ".join(f"{name} {share:.0f} %" for name, share in endings(own).items())
        found.append(Check("rival", f"{reading}: rows of exits end with", text))
        found.append(Check("rival", f"{reading}: most exits in one acquisition", f"{own['most_in_wait'].max():,}"))
        found.append(Check("rival", f"{reading}: most exits in a run of Paper8", f"{own['exits'].max():,}"))
        wide = part(table, reading, scenario=MANY)
        most = int(wide["exits"].max())
        found.append(Check("rival", f"{reading}: most exits in a run of Paper32, of {len(wide):,} runs", f"{most:,}"))
        inside, more = per_acquisition(own)
        text = f"{100 * inside:.1f} % have {BAND[0]} to {BAND[1]}, {100 * more:.1f} % more"
        found.append(Check("rival", f"{reading}: of the waits with two exits or more, Paper8", text))
    ratio = likelihood(table)
    found.append(Check("rival", f"likelihood of {SHOWN} fairly drawn waits in that band, halt / limit", f"{ratio:.0f}"))
    for name in CROWDS:
        found += [
            Check("rival", f"{name}, benchmark alone: {what}", value) for what, value in scatter(table, name).items()
        ]
    needed = [count * reach(4096, PERIOD) / ITERATIONS for count in (460, 484)]
    text = f"{needed[0]:.1f} and {needed[1]:.1f} cycles"
    return [*found, Check("rival", "halt: spin period that gives 460 and 484", text)]


def endings(table: Table) -> dict[str, float]:
    """Percent of the rows of exits by what ends them."""
    ended = {name.removeprefix("ended_"): int(table[name].sum()) for name in ENDS.values()}
    return {name: 100 * count / max(1, sum(ended.values())) for name, count in ended.items()}


def per_acquisition(table: Table) -> tuple[float, float]:
    """Of the waits with two exits or more, the shares that have as many as the paper shows, and more."""
    several = max(1, int(table["waits_several"].sum()))
    return table["waits_in_band"].sum() / several, table["waits_above"].sum() / several


def likelihood(table: Table) -> float:
    """How much likelier the paper's waits are if waiters halt, were they drawn fairly from the waits with several."""
    (halting, _), (limited, _) = (per_acquisition(part(table, reading)) for reading in ("halt", "limit"))
    return float((halting / max(1e-9, limited)) ** SHOWN)


def scatter(table: Table, name: str) -> dict[str, str]:
    """What Figure 2 shows, of the benchmark alone."""
    own = table.where(scenario=ALONE, overrides=overrides_text(crowd(name)))
    seconds, exits = own["now"] / (MHZ * 1e6), own["exits"]
    many = (exits >= 200_000) & (exits < 300_000)
    later = seconds[many].mean() / np.median(seconds[exits == 0]) if many.any() and (exits == 0).any() else np.nan
    return {
        "runs": f"{len(own)}",
        f"with more than {STORM:,} exits": f"{100 * (exits > STORM).mean():.1f} %",
        "99 % quantile of exits": f"{np.quantile(exits, 0.99, method='inverted_cdf'):,.0f}",
        "most exits": f"{exits.max():,}",
        "delay per 250,000 exits": f"{slope(exits, seconds) * 250_000:.2f} s",
        "time at 200,000 to 300,000 exits, that without any = 1": f"{later:.2f} ({many.sum()} runs)",
    }


def draw(table: Table, path: Path) -> None:
    """What the usual number depends on under each reading, and the exits of whole runs."""
    labels = ("rate limit, µs", "PLE_Window, cycles", "spin period, cycles")
    counted = {"limit": ("row", "in a dispatch"), "halt": ("round", "until the halt")}
    with picture(path, 11, 6.4, nrows=2, ncols=3) as (_, axes):
        for axis, (name, label) in zip(axes[0], zip(SWEEPS, labels, strict=True), strict=True):
            for (reading, (kind, where)), colour in zip(counted.items(), COLOURS, strict=False):
                values = SWEEPS[name]
                changes = [{} if v == BASE[name] else {name: v} for v in values]
                axis.plot(values, [due(reading, change) for change in changes], "-", color=colour, alpha=0.4)
                numbers = [usual(part(table, reading, change), kind) for change in changes]
                axis.plot(values, numbers, "o", color=colour, label=f"{reading}: exits {where}")
            axis.axhspan(460, 484, color="0.85", zorder=0)
            axis.set(xlabel=label, ylim=(0, None), xticks=values)
        axes[0, 0].set_ylabel("usual number of exits")
        axes[0, 0].legend(frameon=False, fontsize=8)
        for i, (reading, colour) in enumerate(zip(READINGS, COLOURS, strict=False)):
            own, wide = part(table, reading), part(table, reading, scenario=MANY)
            ends = endings(own)
            axes[1, 0].bar(np.arange(3) + 0.4 * i, list(ends.values()), 0.4, color=colour, label=reading)
            for axis, runs, column in ((axes[1, 1], own, "most_in_wait"), (axes[1, 2], wide, "exits")):
                ordered = np.sort(runs[column])[::-1]
                axis.plot(np.arange(1, len(ordered) + 1), np.maximum(ordered, 1), color=colour, label=reading)
        axes[1, 0].set(xticks=np.arange(3) + 0.2, xticklabels=list(ends), ylabel="rows of exits that end so, %")
        axes[1, 1].set(xlabel="Paper8 runs, ordered", ylabel="most exits in one acquisition")
        axes[1, 2].set(xlabel="Paper32 runs, ordered", ylabel="exits in a run")
        for axis in axes[1, 1:]:
            axis.set(xscale="log", yscale="log")
        axes[1, 2].axhline(FIGURE2_MOST, color="0.6", linestyle="--", linewidth=0.8)


COLUMNS = (
    "now", "exits", "rows", "row_mode", "of_row_mode", *ENDS.values(), "round_mode", "of_round_mode", "most_in_wait",
    "waits_several", "waits_in_band", "waits_above",
)  # fmt: skip
EXPERIMENT = Experiment("rival", __doc__, COLUMNS, run, checks, draw, measure)
