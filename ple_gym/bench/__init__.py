"""What `ple-gym bench` measures: speed, beside what it has to be.

A shared machine disturbs every number. So alternatives are measured in turns, each number is a median, the work of one
thread is measured in its CPU time (with the wall time beside it), and the load average is printed. A rate says little
alone: events per decision and per simulated second stand beside it. docs/speed.md explains the rows.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from ple_gym.bench.batched import (
    FLOOR_LANES,
    LANES,
    NARROW,
    Replay,
    batched_rows,
    fleet_row,
    memory_row,
    mixed_states,
    threads_row,
)
from ple_gym.bench.decision import call_row, decision_rows
from ple_gym.bench.hosts import host_rows
from ple_gym.bench.kernel import kernel_rows, signatures_row, storm
from ple_gym.bench.peers import cartpole_rows, envpool_row, simpy_row
from ple_gym.bench.processes import process_rows
from ple_gym.bench.report import Measurement, Report, at_most
from ple_gym.bench.single import single_rows

__all__ = ["Measurement", "Report", "measure", "storm", "subjects"]

COMPARED_LANES = 64  # of ours, beside others: where a decision is cheapest
FLEET_LANES = 256
TRAINING = "environment's share of MaskablePPO, 64 lanes"
PACKAGES = ("numba", "numpy", "gymnasium", "envpool", "simpy", "sb3-contrib", "torch")


def subjects(quick: bool = False) -> list[str]:
    """What `measure` announces, in this order."""
    names = ["kernel", "single steps through Python", "many lanes together", "decisions of learned policies", "peers"]
    if quick:
        return [*names, "fresh processes"]
    return [*names, "other hosts, and big machines", "training", "fresh processes, one of which compiles"]


def measure(quick: bool = False, announce: Callable[[str], None] = lambda name: None) -> Report:
    """Measure everything, which takes about three minutes.

    Args:
        quick: take some seconds: fewer repetitions and lanes, no training, no cold compilation.
        announce: called with what is measured next (`subjects`).
    """
    before, names = os.getloadavg(), iter(subjects(quick))
    announce(next(names))
    rows = kernel_rows(repeats=3 if quick else 9, seconds=0.02 if quick else 0.1)
    announce(next(names))
    rows += single_rows(repeats=3 if quick else 9)
    announce(next(names))
    states, decisions, repeats = mixed_states(), 16_384 if quick else 131_072, 3 if quick else 7
    replays = {lanes: Replay(lanes, states, decisions) for lanes in (FLOOR_LANES if quick else LANES)}
    narrow = [] if quick else [Replay(n, states, decisions, dtype) for dtype, lanes in NARROW.items() for n in lanes]
    rows += batched_rows([*replays.values(), *narrow], repeats)
    rows += [threads_row(replays[lanes], repeats) for lanes in sorted({1024, max(replays)})]
    rows.append(fleet_row(replays[FLEET_LANES], decisions, repeats))
    rows.append(memory_row(4096))
    announce(next(names))
    rows += [*decision_rows(states, repeats), call_row(states, 5 * repeats)]
    announce(next(names))
    ours = replays[COMPARED_LANES]
    rows += [envpool_row(ours, repeats), *cartpole_rows(ours, repeats), simpy_row(repeats)]
    rows.append(signatures_row())  # after everything that might have compiled another
    replays.clear()
    if not quick:
        announce(next(names))
        rows += host_rows(repeats=7, seconds=0.1)
        announce(next(names))
    rows.append(_training_row(quick))
    announce(next(names))
    rows += process_rows(quick)
    return Report(rows, _machine() | {"load_before": before, "load_after": os.getloadavg()})


def _training_row(quick: bool) -> Measurement:
    if quick:
        return at_most(TRAINING, None, "%", 5, "left out by --quick")
    try:
        from ple_gym.bench.training import training_row
    except ImportError:
        return at_most(TRAINING, None, "%", 5, "Stable-Baselines3 is not installed (extra agents)")
    return training_row(TRAINING, repeats=3)


def _machine() -> dict[str, Any]:
    """What the numbers depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"cpus": os.cpu_count(), "processor": _processor(), "python": platform.python_version(), **versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
