"""What an event costs in the compiled simulator, at several sizes, where a compiled rule decides."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ple_gym.bench.report import RULE, Measurement, at_least, at_most
from ple_gym.drive import simulator
from ple_gym.lanes import Lanes
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.scenario.model import Scenario
from ple_gym.sim.seam import host_of


@dataclass(frozen=True, slots=True)
class Batch:
    """Some runs: what they held, and the seconds they took."""

    events: int
    decisions: int
    simulated: float
    wall: float
    cpu: float


def storm(pcpus: int, vcpus: int) -> Scenario:
    """`Storm` at another size: the same work, and the same number of locks, for each pCPU."""
    base = SCENARIOS["Storm"]
    return base.with_overrides(
        {
            "host.pcpus": pcpus,
            "guest.vcpus": vcpus,
            "guest.locks": base.guest.locks * pcpus // base.host.pcpus,
            "guest.transactions": base.guest.transactions * pcpus // base.host.pcpus,
        }
    )


def kernel_rows(repeats: int, seconds: float) -> list[Measurement]:
    """Cost per event at each size, and the pace of the simulation."""
    scenarios = {
        "4x8": storm(4, 8),
        "4x32": storm(4, 32),
        "4x64": storm(4, 64),
        "16x64": storm(16, 64),
        "Paper32": SCENARIOS["Paper32"],
    }
    batches = take_turns(scenarios, RULE, repeats, seconds)
    rows = []
    for name, limit in (("4x8", 30.0), ("4x32", 45.0), ("16x64", 90.0), ("Paper32", None)):
        title = f"kernel, {name}" if limit is None else f"kernel, Storm {name}"
        ns, note = cost(batches[name]), _beside(batches[name])
        rows.append(
            Measurement(title, ns, "ns/event", "", None, note)
            if limit is None
            else at_most(title, ns, "ns/event", limit, note)
        )
    flat = cost(batches["16x64"]) / cost(batches["4x64"])
    rows.append(Measurement("kernel, Storm 16x64 : 4x64, cost per event", flat, "", "nearly flat", None, ""))
    pace = median(batch.simulated / batch.wall for batch in batches["4x32"])
    rows.append(at_least("kernel, Storm 4x32, per core", pace, "simulated s/wall s", 40))
    return rows


def take_turns(scenarios: Mapping[str, Scenario], rule: str, repeats: int, seconds: float) -> dict[str, list[Batch]]:
    """Batches of runs of each scenario, of about so many seconds each, in turns."""
    lanes = {name: Lanes(scenario, 1, policy=rule) for name, scenario in scenarios.items()}
    count = {name: _runs_that_last(one, seconds) for name, one in lanes.items()}
    batches: dict[str, list[Batch]] = {name: [] for name in lanes}
    for _ in range(repeats):
        for name, one in lanes.items():
            batches[name].append(_run_batch(one, count[name]))
    return batches


def _runs_that_last(lanes: Lanes, seconds: float) -> int:
    """How many runs take that long; a power of two."""
    runs = 1
    while _run_batch(lanes, runs).wall < seconds:
        runs *= 2
    return runs


def _run_batch(lanes: Lanes, runs: int) -> Batch:
    """Run seeds 0..runs-1, resets included."""
    world = lanes.world
    events = decisions = now = 0
    wall, cpu = time.perf_counter(), time.thread_time()
    for seed in range(runs):
        lanes.run(0, seed)
        events += int(world["events"][0])
        decisions += int(world["exits"][0])
        now += int(world["now"][0])
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return Batch(events, decisions, now / lanes.scenario.host.tsc_hz, wall, cpu)


def cost(batches: Sequence[Batch]) -> float:
    """CPU time per event, nanoseconds."""
    return median(batch.cpu / batch.events for batch in batches) * 1e9


def _beside(batches: Sequence[Batch]) -> str:
    wall = median(batch.wall / batch.events for batch in batches) * 1e9
    one = batches[0]
    per_decision = f"{one.events / one.decisions:,.1f}" if one.decisions else "no"
    return f"wall {wall:.1f} ns; {per_decision} events/decision; {one.events / one.simulated:,.0f} events/simulated s"


def signatures_row() -> Measurement:
    """How often the entry point has been compiled; measure it last."""
    signatures = getattr(simulator(host_of("credit")).dispatcher, "signatures", None)
    name = "compiled variants after all these sizes"
    if signatures is None:
        return Measurement(name, None, "", "<= 1", None, "the JIT is off")
    return at_most(name, len(signatures), "", 1)
