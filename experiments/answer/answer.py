"""Does the paper's proposal work? Eight rules on the paper's two machines, on the same seeds.

Section 4.4 proposes not to run the same vCPU again after a PLE, and leaves the evaluation open. Here the rule `paper`
is compared with Xen 4.5 (the paper's system), Xen 4.8 (whose yield is no longer held up by the rate limit), and rules
that use more of what a hypervisor can see, up to an oracle that knows holder and tickets.

Most runs have no storm at all, so a second set starts in one: all vCPUs in line for one lock, a tenth of the work.
"""

from __future__ import annotations

from pathlib import Path

from experiments.answer.rules import BASE, COLUMNS, RULES, Comparison, compare_all, direction, dots
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check

WORLDS = ("Paper8-v1", "Paper32-v1")
IN_LINE = {"guest.start": "convoy", "guest.transactions": 1000}
STARTS = {"": "", overrides_text(IN_LINE): ", started in line"}


def run(quick: bool) -> list[Task]:
    """Both machines, both starts."""
    whole, short = (seeds.ANSWER[:12], seeds.ANSWER[:12]) if quick else (seeds.ANSWER[:600], seeds.ANSWER[:200])
    wanted = [task for world in WORLDS for task in tasks(world, RULES, whole)]
    return wanted + [task for world in WORLDS for task in tasks(world, RULES, short, IN_LINE)]


def parts(table: Table) -> dict[str, Table]:
    """The rows of each machine and start, by what they are called."""
    return {
        f"{world}{name}": table.where(scenario=world, overrides=overrides)
        for overrides, name in STARTS.items()
        for world in WORLDS
    }


def checks(table: Table) -> list[Check]:
    """R18, and every rule against Xen 4.5."""
    found = [check for name, part in parts(table).items() for check in direction(part, name)]
    for name, part in parts(table).items():
        found += [Check("answer", f"{name}: `{one.rule}`", one.text()) for one in compare_all(part)]
    return found


def draw(table: Table, path: Path) -> None:
    """Makespan against Xen 4.5, and PLE per run, for every rule."""
    with picture(path, 11, 5.5, nrows=2, ncols=4, sharey=True) as (_, axes):
        for column, (name, part) in enumerate(parts(table).items()):
            compared = compare_all(part)
            upper, lower = axes[:, column]
            upper.set_title(name, fontsize="medium")
            dots(upper, compared, COLOURS[0])
            upper.set_xlabel(f"makespan against {BASE}, %")
            exits(lower, compared)


def exits(axes, compared: list[Comparison]) -> None:
    """PLE per run, on a logarithmic scale."""
    axes.barh(range(len(compared)), [max(0.5, one.exits) for one in reversed(compared)], 0.6, color=COLOURS[1])
    axes.set(xscale="log", xlabel="PLE per run", xlim=(0.5, None))


EXPERIMENT = Experiment("answer", __doc__, COLUMNS, run, checks, draw)
