"""How many exits fit into one dispatch, and what sets the number?

Figure 3's counts, per dispatch: if they are what one rate limit holds, the number is R / (W + C_exit), W up to the
next PAUSE: proportional to the rate limit, falling with the window and with the cost of an exit, and about one under
Xen 4.8, where a yield bypasses the limit. The cost of an exit, 1,420 cycles, was chosen to give 484 (1,708 would give
460); the rest is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.lab import Experiment, Table, Task, overrides_text, run_of, seeds, tasks, world
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import FITTED, PREDICTED, Check, within
from ple_gym.sim import state

WORLD = "PLE/Paper8-v0"
LIMITS_US = (100, 250, 500, 1000, 2000)
WINDOWS = (2048, 4096, 8192, 16384, 32768)
EXIT_COSTS = (710, 1420, 1708, 2840)
SWEEPS = {"host.ratelimit_us": LIMITS_US, "ple.window": WINDOWS, "cost.exit": EXIT_COSTS}
DEFAULTS = {"host.ratelimit_us": 1000, "ple.window": 4096, "cost.exit": 1420}
OFF = {"host.ratelimit_us": 0}


def run(quick: bool) -> list[Task]:
    """Each sweep around the paper's machine, the limit switched off, and Xen 4.8."""
    count = 25 if quick else 300
    own = seeds.PAUSE_LOOP[:count]
    wanted = tasks(WORLD, ("xen-4.5", "xen-4.8"), own) + tasks(WORLD, "xen-4.5", own, OFF)
    for name, values in SWEEPS.items():
        for value in values:
            if value != DEFAULTS[name]:
                wanted += tasks(WORLD, "xen-4.5", own, {name: value})
    return wanted


def measure(task: Task) -> dict[str, int]:
    """Dispatches with at least one exit, how many exits most of those with more than one have, and the maximum."""
    lanes = run_of(task)
    counts = lanes.histogram[0, state.DISPATCH_EXITS]
    several = counts.copy()
    several[:2] = 0
    mode = int(several.argmax())
    return {
        "exits": int(lanes.world["exits"][0]),
        "dispatches": int(counts.sum()),
        "single": int(counts[1]),
        "mode": mode,
        "of_mode": int(counts[mode]) if mode else 0,
        "most": int(lanes.world["dispatch_exits_max"][0]),
    }


def mode(table: Table) -> int:
    """The most frequent mode of these runs, each counted by its dispatches; 0 if no dispatch has several exits."""
    modes, at = np.unique(table["mode"], return_inverse=True)
    return int(modes[np.bincount(at, table["of_mode"]).argmax()])


def predicted(changed: Mapping[str, int]) -> float:
    """R / (W + C_exit) for a change of the defaults."""
    value = {**DEFAULTS, **changed}
    scenario = world(WORLD, "")
    period = scenario.guest.spin_period
    reach = (value["ple.window"] // period + 1) * period
    return value["host.ratelimit_us"] * (scenario.host.tsc_hz // 10**6) / (reach + value["cost.exit"])


def measured(table: Table, name: str) -> list[tuple[int, int, float]]:
    """(value, mode, prediction) of one sweep."""
    own = table.where(policy="xen-4.5")
    changes = {value: "" if value == DEFAULTS[name] else overrides_text({name: value}) for value in SWEEPS[name]}
    return [(v, mode(own.where(overrides=text)), predicted({name: v})) for v, text in changes.items()]


def checks(table: Table) -> list[Check]:
    """R11, per dispatch."""
    own = table.where(policy="xen-4.5", overrides="")
    several = own["dispatches"].sum() - own["single"].sum()
    at_484 = own["of_mode"][own["mode"] == mode(own)].sum()
    found = [
        within("R11", "usual number of PLE in a dispatch with several", mode(own), 440, 500, kind=FITTED),
        Check("R11", "share of these dispatches that have it", f"{at_484 / max(1, several):.0%}"),
        Check("R11", "most PLE in one dispatch (a vCPU alone on its pCPU)", f"{own['most'].max():,}"),
    ]
    for name in SWEEPS:
        for value, usual, due in measured(table, name):
            if value == DEFAULTS[name]:
                continue
            kind = FITTED if (name, value) == ("cost.exit", 1708) else PREDICTED
            metric = f"the usual number with {name} = {value:,}"
            found.append(within("R11", metric, usual, int(due) - 1, int(due) + 1, kind=kind))
    bypassed = {
        "under xen-4.8": table.where(policy="xen-4.8"),
        "without a rate limit": table.where(overrides=overrides_text(OFF)),
    }
    for text, part in bypassed.items():
        share = 100 * part["single"].sum() / max(1, part["dispatches"].sum())
        found.append(Check("R11", f"share of dispatches with one PLE, of those with any, {text}", f"{share:.1f} %"))
        mean = part["exits"].sum() / max(1, part["dispatches"].sum())
        found.append(within("R11", f"PLE in a dispatch, mean, {text}", mean, None, 0.05 * 484, "", 2))
    return found


def draw(table: Table, path: Path) -> None:
    """Exits per dispatch against rate limit, window and exit cost, with the prediction."""
    labels = ("rate limit, µs", "PLE_Window, cycles", "cost of an exit, cycles")
    with picture(path, 11, 3.6, ncols=3) as (_, axes):
        for axis, (name, label) in zip(axes, zip(SWEEPS, labels, strict=True), strict=True):
            values, usual, due = zip(*measured(table, name), strict=True)
            axis.plot(values, due, "-", color="0.6", label="R / (W + C)")
            axis.plot(values, usual, "o", color=COLOURS[0], label="simulated, usual number")
            for count in (484, 460):
                axis.axhline(count, color=COLOURS[1], linewidth=0.7, linestyle="--")
            axis.set(xlabel=label, ylim=(0, None))
        axes[0].set_ylabel("exits in one dispatch")
        axes[0].legend(frameon=False)
        axes[1].set_xscale("log", base=2)
        axes[1].set_xticks(WINDOWS, [f"{w:,}" for w in WINDOWS])


COLUMNS = ("exits", "dispatches", "single", "mode", "of_mode", "most")
EXPERIMENT = Experiment("dispatch", __doc__, COLUMNS, run, checks, draw, measure)
