"""How does it depend on overcommitment? One to eight vCPUs per pCPU.

4 to 32 vCPUs in `Paper8`, with three tenths of its work, and in `Busy8`, where every run has long waits. Each vCPU
takes a given lock as often as before. Published gains of better yields are largest at about two vCPUs per pCPU.
"""

from __future__ import annotations

from pathlib import Path

from experiments.answer.rules import BASE, COLUMNS, compare
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check

PCPUS = 4
VCPUS = (4, 6, 8, 12, 16, 24, 32)
RULES = (BASE, "xen-4.8", "paper", "kvm", "spin-age-self", "oracle")
SMALL, BUSY = "Paper8-v1", "Busy8-v1"
WORLDS = {SMALL: {"guest.transactions": 3000}, BUSY: {}}


def size(vcpus: int, world: str = SMALL) -> dict[str, object]:
    """The guest has this many vCPUs."""
    return WORLDS[world] | {"guest.vcpus": vcpus}


def run(quick: bool) -> list[Task]:
    """Every size under every rule."""
    counts = {SMALL: 3, BUSY: 2} if quick else {SMALL: 200, BUSY: 60}
    return [
        task
        for world, count in counts.items()
        for vcpus in VCPUS
        for task in tasks(world, RULES, seeds.ANSWER[:count], size(vcpus, world))
    ]


def part(table: Table, vcpus: int, world: str = SMALL) -> Table:
    """The rows of a size."""
    return table.where(scenario=world, overrides=overrides_text(size(vcpus, world)))


def checks(table: Table) -> list[Check]:
    """Every rule at every size."""
    return [
        Check(
            "answer",
            f"{world}, {vcpus / PCPUS:g} vCPUs per pCPU: `{rule}`",
            compare(part(table, vcpus, world), rule).text(),
        )
        for world in WORLDS
        for vcpus in VCPUS
        for rule in RULES
    ]


def draw(table: Table, path: Path) -> None:
    """Makespan against Xen 4.5, over overcommitment."""
    with picture(path, 9.5, 4, ncols=2, sharex=True) as (_, panels):
        for axes, world in zip(panels, WORLDS, strict=True):
            for colour, rule in zip(COLOURS, RULES[1:], strict=False):
                compared = [compare(part(table, vcpus, world), rule) for vcpus in VCPUS]
                times = [1 + one.change.mean / 100 for one in compared]
                style = "--" if rule in ("oracle", "spin-age-self") else "-"  # these lie on those of `kvm`
                axes.plot([n / PCPUS for n in VCPUS], times, style, marker="o", markersize=4, color=colour, label=rule)
            axes.axhline(1, color="0.5", linewidth=0.8)
            axes.set(title=world, xlabel="vCPUs per pCPU", ylabel=f"makespan, times that of {BASE}")
        panels[1].set_yscale("log", base=2)
        panels[1].yaxis.set_major_formatter("{x:g}")
        panels[0].legend(frameon=False, fontsize="small")


EXPERIMENT = Experiment("overcommit", __doc__, COLUMNS, run, checks, draw)
