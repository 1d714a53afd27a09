"""What a run amounts to, in units people use: the fields of `ple-gym simulate --json` and of `info["ple_episode"]`."""

from __future__ import annotations

from typing import Any, TypedDict

from ple_gym.lanes import Lanes
from ple_gym.scenario.model import Host, Scenario


class Cycles(TypedDict):
    """Where the time of all pCPUs went, in cycles; the sum is pCPUs x `simulated_s` x `host.tsc_hz`."""

    useful: int
    spin: int
    exit: int
    switch: int
    cache: int
    idle: int
    stolen: int


class WaitsUs(TypedDict):
    """Waits for a lock, over contended acquisitions, in microseconds."""

    p50: float
    p99: float
    max: float


class ExitsPerAcquisition(TypedDict):
    """PLE exits of one contended acquisition."""

    p50: int
    p90: int
    p99: int
    max: int


class ExitsPerDispatch(TypedDict):
    """PLE exits of one dispatch, over dispatches with at least one."""

    max: int
    mode: int


class VmRecord(TypedDict):
    """What became of one VM.

    name: as in `Scenario.vms`; transactions: that it completed; transactions_per_s: the same per second until it was
    done, or until now; finish_s: when it was done, None if it is not; useful_s: CPU seconds of useful work;
    longest_steal_ms: the longest time that a vCPU of it was runnable and off its pCPU; slowdown: against having the
    machine alone, None if it did no useful work; share: of all pCPU time, 0..1.
    """

    name: str
    transactions: int
    transactions_per_s: float
    finish_s: float | None
    useful_s: float
    longest_steal_ms: float
    slowdown: float | None
    share: float


class Record(TypedDict):
    """One run. Counts are docs/model.md, section 13; `makespan_s` is None if the simulated-time limit came first.

    response_p50, response_p99, response_max: of all responses, as shares of their VMs' goals; 0 where there are none.
    """

    finished: bool
    makespan_s: float | None
    simulated_s: float
    ideal_s: float
    decisions: int
    ple_exits: int
    exits_lock_free: int
    exits_holder_off: int
    exits_holder_running: int
    lhp_events: int
    lwp_events: int
    acquisitions: int
    contended: int
    switches: int
    migrations: int
    steals: int
    halts: int
    events: int
    ple_per_acquisition: ExitsPerAcquisition
    ple_per_dispatch: ExitsPerDispatch
    acquire_wait_us: WaitsUs
    responses: int
    responses_late: int
    response_p50: float
    response_p99: float
    response_max: float
    cycles: Cycles
    vm: list[VmRecord]


class Episode(Record):
    """What `info["ple_episode"]` holds: a run's record, and how many of the actions were illegal."""

    illegal_actions: int


def summarise(scenario: Scenario, totals: dict[str, Any]) -> Record:
    """Turn the exact integers of `Lanes.totals` into a run's record."""
    hz = scenario.host.tsc_hz
    pcpus = scenario.host.pcpus
    now = totals["now"]
    waits = totals["acquire_wait"]
    return {
        "finished": totals["finished"],
        "makespan_s": now / hz if totals["finished"] else None,
        "simulated_s": now / hz,
        "ideal_s": totals["cycles"]["useful"] / (pcpus * hz),
        "decisions": totals["exits"],
        "ple_exits": totals["exits"],
        "exits_lock_free": totals["exits_lock_free"],
        "exits_holder_off": totals["exits_holder_off"],
        "exits_holder_running": totals["exits_holder_running"],
        "lhp_events": totals["lhp_events"],
        "lwp_events": totals["lwp_events"],
        "acquisitions": totals["acquisitions"],
        "contended": totals["contended"],
        "switches": totals["switches"],
        "migrations": totals["migrations"],
        "steals": totals["steals"],
        "halts": totals["halts"],
        "events": totals["events"],
        "ple_per_acquisition": totals["ple_per_acquisition"],
        "ple_per_dispatch": totals["ple_per_dispatch"],
        "acquire_wait_us": {"p50": _us(waits["p50"], hz), "p99": _us(waits["p99"], hz), "max": _us(waits["max"], hz)},
        "responses": totals["responses"]["count"],
        "responses_late": totals["responses"]["late"],
        "response_p50": totals["responses"]["p50"] / 1000,
        "response_p99": totals["responses"]["p99"] / 1000,
        "response_max": totals["responses"]["max"] / 1000,
        "cycles": totals["cycles"],
        "vm": [
            _vm_record(scenario.host, now, name, vm.vcpus, own)
            for (name, vm), own in zip(scenario.vms().items(), totals["vms"], strict=True)
        ],
    }


def _vm_record(host: Host, now: int, name: str, vcpus: int, own: dict[str, int]) -> VmRecord:
    elapsed = min(now, own["finish"])
    return {
        "name": name,
        "transactions": own["completed"],
        "transactions_per_s": own["completed"] * host.tsc_hz / elapsed if elapsed else 0.0,
        "finish_s": own["finish"] / host.tsc_hz if own["finish"] <= now else None,
        "useful_s": own["useful"] / host.tsc_hz,
        "longest_steal_ms": own["longest_steal"] * 1e3 / host.tsc_hz,
        "slowdown": _slowdown(elapsed, min(host.pcpus, vcpus), own["useful"]),
        "share": own["used"] / (host.pcpus * now) if now else 0.0,
    }


def episode_of(lanes: Lanes, lane: int) -> Episode:
    """What `info["ple_episode"]` says of the run in a lane: its record so far, and how many actions were illegal."""
    lanes, lane = lanes.alone(lane)
    illegal_actions = int(lanes.world["illegal_actions"][lane])
    return {**summarise(lanes.scenario, lanes.totals(lane)), "illegal_actions": illegal_actions}


def how_far(lanes: Lanes, lane: int, seed: int, policy: str) -> str:
    """What to tell of a run that takes long."""
    scenario = lanes.scenario
    simulated = lanes.world["now"][lane] / scenario.host.tsc_hz
    return f"seed {seed} under {policy}: {simulated:.2f} of at most {scenario.limit.simulated_s:g} s simulated"


def total_cycles(cycles: Cycles) -> int:
    """The time of all pCPUs together."""
    return sum(cycles.values())  # type: ignore[arg-type]  # mypy takes the values of a TypedDict for objects


def _us(cycles: int, hz: int) -> float:
    return cycles * 1e6 / hz


def _slowdown(elapsed: int, most_pcpus: int, useful: int) -> float | None:
    return elapsed * most_pcpus / useful if useful else None
