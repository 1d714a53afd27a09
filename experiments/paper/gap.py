"""PLE_Gap: is it a switch, and does PLE fire at the first PAUSE after the window?

Section 2.2: with a gap of 32 cycles there is no PLE at all. The gap is compared with the time from PAUSE to PAUSE,
which is 50 cycles here (the paper bounds it to more than 32 and at most 128): below it every PAUSE starts a
loop anew. Beside the count in storms, the time from VM entry to exit is measured, to the cycle, where a waiter
is resumed at every exit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, world
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check, exactly, within
from experiments.lab.traces import trace_of
from ple_gym.scenario.builtin import load
from ple_gym.traces import events as tr

STORM, STALL = "PLE/Storm-v0", "PLE/HolderPreempted-v0"
GAPS = (16, 32, 40, 48, 49, 50, 51, 64, 96, 128, 192, 256)
WINDOWS = (512, 1024, 4096, 8192, 100_000)
PERIODS = (10, 50, 128)  # cycles from PAUSE to PAUSE
PERIOD = load(STORM).guest.spin_period


def run(quick: bool) -> list[Task]:
    """Storms for each gap; a stalled waiter for each window and period."""
    wanted = [
        t for gap in GAPS for t in tasks(STORM, "xen-4.8", seeds.PAUSE_LOOP[: 10 if quick else 100], {"ple.gap": gap})
    ]
    return wanted + [
        t
        for w in WINDOWS
        for g in PERIODS
        for t in tasks(STALL, "continue", [0], {"ple.window": w, "guest.spin_period": g})
    ]


def measure(task: Task) -> dict[str, int]:
    """Exits, and the shortest and the most frequent time from VM entry to exit, in cycles (0 if never resumed)."""
    trace = trace_of(task)
    exits = trace[trace[:, 1] == tr.PLE]
    # Of two exits of a vCPU in a row without a switch, the second comes its window after the first has been served.
    events = trace[np.isin(trace[:, 1], (tr.RUN, tr.PLE))]
    again = np.zeros(0, np.int64)
    for p in np.unique(events[:, 2]):
        time, kind = events[events[:, 2] == p, :2].T
        again = np.append(again, np.diff(time)[(kind[1:] == tr.PLE) & (kind[:-1] == tr.PLE)])
    again -= world(task.scenario, task.overrides).cost.exit
    values, counts = np.unique(again, return_counts=True)
    return {
        "exits": len(exits),
        "shortest": int(values[0]) if len(values) else 0,
        "usual": int(values[counts.argmax()]) if len(values) else 0,
    }


def checks(table: Table) -> list[Check]:
    """R1 and R2."""
    exact = 0
    for w in WINDOWS:
        for g in PERIODS:
            row = table.where(scenario=STALL, overrides=overrides_text({"ple.window": w, "guest.spin_period": g}))
            exact += int(row["shortest"][0]) == int(row["usual"][0]) == (w // g + 1) * g
    pairs = len(WINDOWS) * len(PERIODS)
    metric = f"windows x spin periods in which PLE comes exactly at the first PAUSE beyond the window, of {pairs}"
    found = [exactly("R1", metric, exact, pairs)]
    counts = storms(table)
    off = [counts[gap] for gap in GAPS if gap < PERIOD]
    on = [counts[gap] for gap in GAPS if gap >= PERIOD]
    found += [
        exactly("R2", "PLE with gap 32", counts[32], 0),
        exactly("R2", f"PLE with a gap below {PERIOD}, all together", sum(off), 0),
        within("R2", f"PLE with a gap of {PERIOD} and more, least / most", min(on) / max(on), 0.98, 1.0),
        Check("R2", "PLE with gap 128", f"{counts[128]:,}"),
    ]
    return found


def storms(table: Table) -> dict[int, int]:
    """Exits of all storms by gap."""
    return {gap: int(table.where(overrides=overrides_text({"ple.gap": gap}))["exits"].sum()) for gap in GAPS}


def draw(table: Table, path: Path) -> None:
    """Exits against the gap."""
    counts = storms(table)
    with picture(path, 7, 3.5) as (_, axes):
        axes.plot(GAPS, [counts[gap] / 1000 for gap in GAPS], "o-", color=COLOURS[0])
        axes.axvline(PERIOD, color="0.6", linestyle="--", linewidth=0.8)
        axes.annotate(f"a PAUSE every {PERIOD} cycles", (PERIOD, 0), (6, 6), textcoords="offset points")
        axes.set(xlabel="PLE_Gap, cycles", ylabel="PLE exits in 100 storms, thousands", title="The gap is a switch")


COLUMNS = ("exits", "shortest", "usual")
EXPERIMENT = Experiment("gap", __doc__, COLUMNS, run, checks, draw, measure)
