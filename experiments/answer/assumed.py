"""What hangs on the numbers that no source gives? The worlds of today, each assumed number smaller and larger.

Rules are compared with what the machine itself does: a plain yield under Xen, KVM's choice under KVM.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.answer.rules import PAIRED, in_percent, paired, percent
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, world
from experiments.lab.report import Check
from ple_gym.evaluate.statistics import Estimate, ratio

YIELD, KVM = "host", "kvm-5.13"
OTHERS = ("continue", KVM, "spin-age-self", "two-patience")
SEEDS = 20
_HOLDS = ("exponential 250", "exponential 25000")
_INTERRUPTS = {"guest.ipi_handler": (500, 8000), "host.ipi_visible": ("false",), "guest.tick_us": (1000, 4000)}
_FLUSHES = tuple(f"compute exponential {cycles} kernel 0.3; ipi all" for cycles in (500_000, 12_500_000))
_LOCKS = {"guest.locks": (1, 16), "guest.hold": _HOLDS, "guest.lock_probability": (0.1, 0.9)}
#: World -> parameter -> values besides its own, all of them assumed.
VARIED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "KvmEbizzy-v0": {"guest.count": (1, 3), **_INTERRUPTS},
    "KvmShootdown-v0": {"guest.program": _FLUSHES, **_INTERRUPTS},
    "KvmDbench-v0": _LOCKS,
    "KvmWindows-v0": _LOCKS,
    "XcpWindows-v1": _LOCKS,
    "Consolidated-v1": {"guest.block_probability": (0.005, 0.1), "guest.hold": _HOLDS},
}


def settings() -> list[tuple[str, str]]:
    """World and overrides of every row; each world as it is comes first."""
    return [
        (name, text)
        for name, varied in VARIED.items()
        for text in ("", *(overrides_text({one: value}) for one, values in varied.items() for value in values))
    ]


def own(name: str) -> str:
    """What the machine itself does."""
    return YIELD if world(name, "").host.scheduler == "credit" else KVM


def run(quick: bool) -> list[Task]:
    """Every setting; the rules run within a task."""
    first = seeds.HOSTS[: 1 if quick else SEEDS]
    return [Task(name, text, PAIRED, seed) for name, text in settings() for seed in first]


def measure(task: Task) -> dict[str, int]:
    """One seed under every rule: microseconds."""
    return paired(task, (YIELD, *OTHERS))


def makespans(table: Table, setting: tuple[str, str], rule: str) -> np.ndarray:
    """Of every seed, microseconds."""
    rows = table.where(scenario=setting[0], overrides=setting[1])
    return rows[YIELD] + (0 if rule == YIELD else rows[rule])


def change(table: Table, setting: tuple[str, str], rule: str) -> Estimate:
    """Of the makespan under a rule against that of the machine itself, in percent."""
    base = makespans(table, setting, own(setting[0]))
    return in_percent(ratio(np.log(makespans(table, setting, rule) / base)))


def checks(table: Table) -> list[Check]:
    """Every rule in every setting."""
    return [
        Check("assumed", f"{name} {text}: `{rule}`", percent(change(table, (name, text), rule)))
        for name, text in settings()
        for rule in (YIELD, *OTHERS)
        if rule != own(name)
    ]


EXPERIMENT = Experiment("assumed", __doc__, (YIELD, *OTHERS, "unfinished"), run, checks, measure=measure)
