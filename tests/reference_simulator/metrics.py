"""The metrics: quantiles of the recorded values, and the result of a run (section 13)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .state import State

if TYPE_CHECKING:
    from .state import Vm
    from .world import World


def rounded(x: int) -> int:
    """x rounded down to the lower end of its histogram bin."""
    x = min(x, 2**36 - 1)
    if x < 32:
        return x
    e = x.bit_length() - 6
    return x >> e << e


def quantile(values: list[int], percent: int) -> int:
    """The rounded value of the ceil(q n)-th smallest; 0 of nothing."""
    if not values:
        return 0
    rank = (percent * len(values) + 99) // 100
    return rounded(sorted(values)[rank - 1])


def mode(values: list[int]) -> int:
    """The smallest most frequent count, those above 1022 taken together as 1023; 0 of nothing."""
    frequency = Counter(min(x, 1023) for x in values)
    return min(frequency, key=lambda x: (-frequency[x], x), default=0)


def report(world: World, finished: bool) -> dict[str, Any]:
    c = world.count
    return {
        "finished": finished,
        "now": world.now,
        "exits": c.exits,
        "exits_lock_free": c.exits_lock_free,
        "exits_holder_off": c.exits_holder_off,
        "exits_holder_running": c.exits_holder_running,
        "lhp_events": c.lhp_events,
        "lwp_events": c.lwp_events,
        "acquisitions": c.acquisitions,
        "contended": c.contended,
        "switches": c.switches,
        "migrations": c.migrations,
        "steals": c.steals,
        "halts": c.halts,
        "hints": c.hints,
        "hints_failed": c.hints_failed,
        "hints_ignored": c.hints_ignored,
        "hints_won": c.hints_won,
        "notifications": c.notifications,
        "ipis": c.ipis,
        "ipi_events": c.ipi_events,
        "events": c.events,
        "cycles": {
            "useful": c.useful,
            "spin": c.spin,
            "exit": c.exit,
            "switch": c.switch,
            "cache": c.cache,
            "idle": c.idle,
            "stolen": c.stolen,
        },
        "acquire_wait": {
            "p50": quantile(c.waits, 50),
            "p99": quantile(c.waits, 99),
            "max": max(c.waits, default=0),
        },
        "ple_per_acquisition": {
            "p50": quantile(c.exits_per_acquisition, 50),
            "p90": quantile(c.exits_per_acquisition, 90),
            "p99": quantile(c.exits_per_acquisition, 99),
            "max": max(c.exits_per_acquisition, default=0),
        },
        "responses": responses(world),
        "ple_per_dispatch": {"max": max(c.exits_per_dispatch, default=0), "mode": mode(c.exits_per_dispatch)},
        "vms": [
            {
                "used": vm.used,
                "useful": vm.useful,
                "finish": vm.finish,
                "completed": vm.completed,
                "longest_steal": longest_steal(world, vm),
            }
            for vm in world.vms
        ],
    }


def responses(world: World) -> dict[str, int]:
    """With those under way that are late already."""
    found = list(world.count.responses)
    for vm in world.vms:
        goal = world.parameters.cycles(vm.goal_us)
        under_way = (world.now - h.asked_at for h in vm.threads or vm.vcpus if h.asked_at is not None)
        found += [(took, goal) for took in under_way if took > goal]
    shares = [took * 1000 // goal for took, goal in found]
    return {
        "count": len(found),
        "late": sum(took > goal for took, goal in found),
        "lateness": sum(max(0, took - goal) for took, goal in found),
        "p50": quantile(shares, 50),
        "p99": quantile(shares, 99),
        "max": max(shares, default=0),
    }


def longest_steal(world: World, vm: Vm) -> int:
    """With those that still wait."""
    waiting = [world.now - v.queued_since for v in vm.vcpus if v.state is State.QUEUED]
    return max([vm.longest_steal, *waiting])
