"""What a run amounts to, in units people use: the fields of `ple-gym simulate --json` and of `info["ple_episode"]`."""

from __future__ import annotations

from typing import Any

from ple_gym.lanes import Lanes
from ple_gym.scenario.model import Scenario


def summarise(scenario: Scenario, totals: dict[str, Any]) -> dict[str, Any]:
    """Turn the exact integers of `Lanes.totals` into a run's record.

    `makespan_s` is None if the simulated-time limit came first. Quantiles are over contended acquisitions, and over
    dispatches with at least one exit (docs/model.md, section 13). A VM's slowdown is against having the machine alone.
    """
    hz = scenario.host.tsc_hz
    pcpus = scenario.host.pcpus
    now = totals["now"]
    useful = totals["cycles"]["useful"]
    return {
        "finished": totals["finished"],
        "makespan_s": now / hz if totals["finished"] else None,
        "simulated_s": now / hz,
        "ideal_s": useful / (pcpus * hz),
        "decisions": totals["exits"],
        "ple_exits": totals["exits"],
        **{name: totals[name] for name in ("exits_lock_free", "exits_holder_off", "exits_holder_running")},
        **{name: totals[name] for name in ("lhp_events", "lwp_events", "acquisitions", "contended")},
        **{name: totals[name] for name in ("switches", "migrations", "steals", "halts", "events")},
        "ple_per_acquisition": totals["ple_per_acquisition"],
        "ple_per_dispatch": totals["ple_per_dispatch"],
        "acquire_wait_us": {name: cycles * 1e6 / hz for name, cycles in totals["acquire_wait"].items()},
        "cycles": totals["cycles"],
        "vm": [
            {
                "slowdown": _slowdown(min(now, vm["finish"]), min(pcpus, vcpus), vm["useful"]),
                "share": vm["used"] / (pcpus * now) if now else 0.0,
            }
            for vm, vcpus in zip(totals["vms"], (vm.vcpus for vm in scenario.vms().values()), strict=True)
        ],
    }


def episode_of(lanes: Lanes, lane: int) -> dict[str, Any]:
    """What `info["ple_episode"]` says of the run in a lane: its record so far, and how many actions were illegal."""
    illegal_actions = int(lanes.world["illegal_actions"][lane])
    return {**summarise(lanes.scenario, lanes.totals(lane)), "illegal_actions": illegal_actions}


def _slowdown(elapsed: int, most_pcpus: int, useful: int) -> float | None:
    return elapsed * most_pcpus / useful if useful else None
