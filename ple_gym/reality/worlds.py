"""The worlds of the reality check as scenarios of the `fair` host."""

from __future__ import annotations

from math import expm1

from ple_gym.reality.machine import rules_of
from ple_gym.reality.measured import Costs, Machine
from ple_gym.reality.settings import Setting
from ple_gym.scenario.model import Scenario

GAP = 2000
"""Cycles without a PAUSE after which a window starts anew: `GAP` of spinners.c."""
TICK_JITTER = 1000
"""Cycles: an interrupt comes so late where the kernel has just switched them off, for a system call's short sections.

A program that watched the TSC on the development machine saw successive ticks 500 to 1,200 cycles more or less than a
period apart (medians, beside other work). It matters that this is not 0, more than how much it is: a line of spinners
does not fall into lock-step with the ticks then.
"""
HOPELESS = 40
"""Interrupts in a window, on average: with so many it never ends, and the scenario's range says so."""
POLICIES = {"yield": "host", "spin": "continue"}
"""Reaction to the end of a window -> the policy that does the same at an exit."""

SCHEDULER = "fair"
"""Of the host that stands for the kernel."""


def world(setting: Setting, machine: Machine, costs: Costs, seconds: float) -> Scenario:
    """The same threads on the same machine: threads are vCPUs, CPUs pCPUs, groups VMs, and the end of a window an exit.

    Nothing is fitted: numbers are those of the machine. Going on after a window costs a thread nothing. The last VM, if
    the machine has other tasks, has a vCPU on each CPU, which sleeps, and wakes for a moment as often as they do. What
    interrupts take is too short and too frequent to be anybody's turn: work takes longer by its share (`_stretch`).

    Raises:
        ScenarioError: a number is out of the simulator's range.
    """
    linux, slice_us = rules_of(machine.release)
    factor = min(machine.online, 8).bit_length()  # 1 + floor(log2), docs/model.md, 15.1
    host = {
        "scheduler": SCHEDULER,
        "pcpus": len(machine.cpus),
        "tsc_hz": costs.tsc_hz,
        "linux": linux,
        "groups": "vm" if machine.groups == "autogroup" else "flat",
        "base_slice_us": slice_us * factor,
        "wakeup_granularity_us": 1000 * factor,
        "tick_us": machine.tick_ns // 1000,
        "tick_jitter_cycles": TICK_JITTER,
    }
    cost = {
        "exit": costs.yield_ if setting.reaction == "yield" else 1,
        "switch": max(0, costs.yield_switch - costs.yield_),
        # A look at an unfair lock whose line comes after the window's end still takes it, and no window ends: the
        # simulator would end one, so that for these locks the line takes no time. Few acquisitions wait for it.
        "line": costs.line if setting.fifo else 0,
        # The threads touch next to no memory, and send no interrupts.
        **dict.fromkeys(("cache", "migration", "remote_migration", "ipi"), 0),
    }
    members = _shares(setting)
    return Scenario.from_dict(
        {
            "name": "reality",
            "host": host,
            "cost": cost,
            "decision": {"actuator": "hint"},
            "ple": {"kind": "window", "window": _window(setting.window, costs), "gap": max(GAP, costs.pause)},
            "limit": {"simulated_s": seconds},
            "guest": _vm(setting, costs, members[0], machine),
            "neighbours": [
                *(_vm(setting, costs, vcpus, machine) for vcpus in members[1:]),
                *([_others(len(machine.cpus), costs)] if costs.others_every else []),
            ],
        }
    )


def _shares(setting: Setting) -> list[int]:
    """How many threads each group has: thread i is in group i * groups // threads, as in spinners.c."""
    groups = [i * setting.groups // setting.threads for i in range(setting.threads)]
    return [groups.count(group) for group in sorted(set(groups))]


def _stretch(cycles: int, costs: Costs) -> int:
    """How long a thread needs for so many cycles of its own, if it keeps its CPU but for interrupts."""
    return round(cycles * costs.lost_every / (costs.lost_every - costs.lost_take)) if costs.lost_every else cycles


def _window(cycles: int, costs: Costs) -> int:
    """The mean time in which a window ends that starts anew after each interrupt, if these come by chance."""
    if not costs.lost_every:
        return cycles
    windows = min(cycles / (costs.lost_every - costs.lost_take), HOPELESS)
    return round(costs.lost_every * expm1(windows))


def _early(setting: Setting, costs: Costs, cpus: int) -> int:
    """By how much a hold's clock starts before the lock is the holder's, on average; 0 where holders hand it on.

    The processor reads the clock while the line is under way, if another CPU had that last. No program here measures by
    how much: the line's own time is taken for it.
    """
    return 0 if setting.fifo else min(costs.line, setting.hold) * (cpus - 1) // cpus


def _vm(setting: Setting, costs: Costs, vcpus: int, machine: Machine) -> dict[str, object]:
    early = _early(setting, costs, len(machine.cpus))
    least = max(1, setting.think // 2) + costs.own + early
    return {
        "vcpus": vcpus,
        "affinity": "any" if setting.threads % len(machine.cpus) else "pinned",  # as in spinners.c
        "locks": 1,
        "lock_kind": setting.lock,
        "transactions": 0,
        "sections": 1,
        "compute": f"uniform {_stretch(least, costs)} {_stretch(least + setting.think, costs)}",
        "hold": f"constant {_stretch(setting.hold - early, costs)}",
        "lock_probability": 1.0,
        "spin_period": costs.pause,
    }


def _others(cpus: int, costs: Costs) -> dict[str, object]:
    return {
        "vcpus": cpus,
        "affinity": "pinned",
        "locks": 0,
        "transactions": 0,
        "sections": 1,
        "compute": f"exponential {max(1, costs.others_take)}",
        "block_probability": 1.0,
        "block": f"exponential {max(1, costs.others_every - costs.others_take)}",
    }
