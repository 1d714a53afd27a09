"""When does the proposal hurt?

A small world with busy locks (`Busy8`), in which every run has long waits: 8 locks, held 20 us on average, each taken
by one vCPU every 3 ms of its CPU time. One thing at a time is changed: how many vCPUs there are, how long a lock is
held (so that the holder is often running elsewhere), a neighbour that only computes, a shorter time slice, an unfair
lock. `Paper32`, started in line, is run with a shorter slice, too, and alone on the machine with all its 32 vCPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.answer.answer import IN_LINE
from experiments.answer.rules import BASE, COLUMNS, PROPOSAL, compare, percent
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, totals
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check

RULES = (BASE, "xen-4.8", PROPOSAL, "kvm", "spin-age-self", "oracle")


def held(us: int, probability: float = 0.15) -> dict[str, object]:
    """Locks are held this long on average."""
    return {"guest.hold": f"exponential {us * 2670}", "guest.lock_probability": probability}


CONDITIONS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "8 vCPUs": ("Busy8-v1", {}),
    "5 vCPUs": ("Busy8-v1", {"guest.vcpus": 5}),
    "12 vCPUs": ("Busy8-v1", {"guest.vcpus": 12}),
    "held 100 us": ("Busy8-v1", held(100)),
    "held 300 us, taken less": ("Busy8-v1", held(300, 0.05)),
    "held 300 us, taken less, 5 vCPUs": ("Busy8-v1", {"guest.vcpus": 5} | held(300, 0.05)),
    "4 busy vCPUs of a neighbour": ("Busy8Hog", {}),
    "8 busy vCPUs of a neighbour": ("Busy8Hog", {"neighbours.0.vcpus": 8}),
    "time slice 5 ms": ("Busy8-v1", {"host.timeslice_ms": 5}),
    "unfair lock (test and set)": ("Busy8-v1", {"guest.lock_kind": "tas"}),
    "Paper32 in line": ("Paper32-v1", IN_LINE),
    "Paper32 in line, alone": ("Paper32Alone", IN_LINE),
    "Paper32 in line, time slice 5 ms": ("Paper32-v1", IN_LINE | {"host.timeslice_ms": 5}),
}
WHY = ("exits_lock_free", "exits_holder_running", "switches", "steals")


def run(quick: bool) -> list[Task]:
    """Every condition under every rule."""
    own = seeds.ANSWER[: 4 if quick else 100]
    return [task for world, changes in CONDITIONS.values() for task in tasks(world, RULES, own, changes)]


def measure(task: Task) -> dict[str, int]:
    """The totals; what happens at the PLE is kept where nothing is changed, and 0 elsewhere."""
    unchanged = (task.scenario, task.overrides) == ("Busy8-v1", "")
    return totals(task) | ({} if unchanged else dict.fromkeys(WHY, 0))


def part(table: Table, condition: str) -> Table:
    """The rows of a condition."""
    world, changes = CONDITIONS[condition]
    return table.where(scenario=world, overrides=overrides_text(changes))


def checks(table: Table) -> list[Check]:
    """Every rule under every condition, and what happens at the PLE of the first three."""
    found = []
    for condition in CONDITIONS:
        own = part(table, condition)
        found += [Check("answer", f"{condition}: `{rule}`", compare(own, rule).text()) for rule in RULES]
    own = part(table, "8 vCPUs")
    for rule in RULES[:3]:
        rows = own.where(policy=rule)
        free, running, switches, steals = (rows[name].sum() / max(1, rows["exits"].sum()) for name in WHY)
        text = f"lock free at {free:.1%}, holder running at {running:.1%}"
        text += f"; {switches:.2f} switches and {steals:.2f} steals each"
        found.append(Check("answer", f"8 vCPUs: PLE under `{rule}`", text))
    beside, alone = (compare(part(table, name), PROPOSAL) for name in ("Paper32 in line", "Paper32 in line, alone"))
    text = f"{percent(beside.change)} beside VMs that compute, {percent(alone.change)} alone"
    found.append(Check("answer", "makespan under `paper`: what the harm depends on, Paper32 in line", text))
    return found


def draw(table: Table, path: Path) -> None:
    """Makespan against Xen 4.5 per condition."""
    shown = RULES[1:]
    with picture(path, 9, 5) as (_, axes):
        for number, (colour, rule) in enumerate(zip(COLOURS, shown, strict=False)):
            for row, condition in enumerate(CONDITIONS):
                change = compare(part(table, condition), rule).change
                height = len(CONDITIONS) - 1 - row + 0.12 * (2 - number)
                if change.low is not None and change.high is not None:
                    ends = [1 + change.low / 100, 1 + change.high / 100]
                    axes.plot(ends, [height] * 2, color=colour, linewidth=1.2)
                name = rule if row == 0 else None
                axes.plot(1 + change.mean / 100, height, "o", markersize=4, color=colour, label=name)
        axes.axvline(1, color="0.5", linewidth=0.8)
        axes.set_yticks(range(len(CONDITIONS)), list(reversed(CONDITIONS)))
        axes.set_xscale("log")
        ticks = [0.25, 0.5, 1, 2, 4, 8]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"makespan, times that of {BASE}")
        axes.legend(frameon=False, fontsize="small", loc="lower right")


EXPERIMENT = Experiment("harm", __doc__, (*COLUMNS, *WHY), run, checks, draw, measure)
