"""What `ple-gym bench` measures: speed, beside what it has to be.

A shared machine disturbs every number, so that alternatives are measured in turns, each number is a median, kernel
costs are CPU time of the thread (the wall's beside it), and the load average is printed. A rate says little alone:
events per decision and per simulated second stand beside it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import gymnasium
import numba
import numpy as np

from ple_gym.drive import drive
from ple_gym.lanes import Lanes
from ple_gym.policies import RULES
from ple_gym.registration import environment_id
from ple_gym.scenario import Scenario
from ple_gym.scenarios import SCENARIOS

ENV_ID = environment_id("Storm")
RULE = "kvm"  # of the compiled rules the one whose events per simulated second are nearest the targets' (438,000)

_FIRST_STEP = f"""
import time
started = time.perf_counter()
import gymnasium, ple_gym
env = gymnasium.make("{ENV_ID}")
env.reset(seed=0)
env.step(int(env.action_space.n) - 1)
print(time.perf_counter() - started)
"""
_FIRST_RUN = """
import time
started = time.perf_counter()
from ple_gym import evaluate
evaluate.warm_up()
print(time.perf_counter() - started)
"""
_IMPORT = """
import time
started = time.perf_counter()
import ple_gym
print(time.perf_counter() - started)
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number; None if it could not be measured, `note` then says why. `met` is None without a target."""

    name: str
    value: float | None
    unit: str
    target: str
    met: bool | None
    note: str


@dataclass(frozen=True, slots=True)
class Report:
    """All numbers, and the machine they are from."""

    rows: list[Measurement]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a JSON-able dict."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}

    def machine_line(self) -> str:
        """The machine in a line."""
        load = [" ".join(f"{one:.2f}" for one in self.machine[when]) for when in ("load_before", "load_after")]
        versions = ", ".join(f"{name} {self.machine[name]}" for name in ("python", "numba", "numpy", "gymnasium"))
        return (
            f"kernel rows: under {RULE}, CPU time, resets included; load average before {load[0]}, after {load[1]}; "
            f"{self.machine['cpus']} CPUs; {versions}"
        )


def measure(quick: bool = False, announce: Callable[[str], None] = lambda name: None) -> Report:
    """Measure everything (about a minute and a half; `quick`: some seconds, without a cold compilation).

    Args:
        quick: fewer repetitions.
        announce: called with what is measured next.
    """
    before = os.getloadavg()
    announce("kernel")
    rows = _kernel_rows(repeats=3 if quick else 9, seconds=0.02 if quick else 0.1)
    announce("single steps through Python")
    rows += _step_rows(repeats=3 if quick else 9)
    rows.append(_signatures_row())  # after everything that might have compiled another
    announce("fresh processes" if quick else "fresh processes, one of which compiles")
    rows += _process_rows(quick)
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "load_before": before,
        "load_after": os.getloadavg(),
    }
    return Report(rows, machine)


def _at_most(name: str, value: float | None, unit: str, limit: float, note: str = "") -> Measurement:
    return Measurement(name, value, unit, f"<= {limit:g}", None if value is None else value <= limit, note)


def _at_least(name: str, value: float | None, unit: str, limit: float, note: str = "") -> Measurement:
    return Measurement(name, value, unit, f">= {limit:,g}", None if value is None else value >= limit, note)


# -------------------------------------------------------------------------------------------------------------- kernel


@dataclass(frozen=True, slots=True)
class _Batch:
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


def _kernel_rows(repeats: int, seconds: float) -> list[Measurement]:
    scenarios = {
        "4x8": storm(4, 8),
        "4x32": storm(4, 32),
        "4x64": storm(4, 64),
        "16x64": storm(16, 64),
        "Paper32": SCENARIOS["Paper32"],
    }
    lanes = {name: Lanes(scenario, 1) for name, scenario in scenarios.items()}
    count = {name: _runs_that_last(one, seconds) for name, one in lanes.items()}
    batches: dict[str, list[_Batch]] = {name: [] for name in lanes}
    for _ in range(repeats):
        for name, one in lanes.items():
            batches[name].append(_run_batch(one, count[name]))

    rows = []
    for name, limit in (("4x8", 30.0), ("4x32", 45.0), ("16x64", 90.0), ("Paper32", None)):
        title = f"kernel, {name}" if limit is None else f"kernel, Storm {name}"
        cost, note = _cost(batches[name]), _beside(batches[name])
        rows.append(
            Measurement(title, cost, "ns/event", "", None, note)
            if limit is None
            else _at_most(title, cost, "ns/event", limit, note)
        )
    flat = _cost(batches["16x64"]) / _cost(batches["4x64"])
    rows.append(Measurement("kernel, Storm 16x64 : 4x64, cost per event", flat, "", "nearly flat", None, ""))
    pace = median(batch.simulated / batch.wall for batch in batches["4x32"])
    rows.append(_at_least("kernel, Storm 4x32, per core", pace, "simulated s/wall s", 40))
    return rows


def _runs_that_last(lanes: Lanes, seconds: float) -> int:
    """How many runs take that long; a power of two."""
    runs = 1
    while _run_batch(lanes, runs).wall < seconds:
        runs *= 2
    return runs


def _run_batch(lanes: Lanes, runs: int) -> _Batch:
    """Run seeds 0..runs-1, resets included."""
    rule, world = RULES[RULE].code, lanes.world
    events = decisions = now = 0
    wall, cpu = time.perf_counter(), time.thread_time()
    for seed in range(runs):
        lanes.run(0, seed, rule)
        events += int(world["events"][0])
        decisions += int(world["exits"][0])
        now += int(world["now"][0])
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return _Batch(events, decisions, now / lanes.scenario.host.tsc_hz, wall, cpu)


def _cost(batches: Sequence[_Batch]) -> float:
    """CPU time per event, nanoseconds."""
    return median(batch.cpu / batch.events for batch in batches) * 1e9


def _beside(batches: Sequence[_Batch]) -> str:
    wall = median(batch.wall / batch.events for batch in batches) * 1e9
    one = batches[0]
    per_decision = f"{one.events / one.decisions:,.1f}" if one.decisions else "no"
    return f"wall {wall:.1f} ns; {per_decision} events/decision; {one.events / one.simulated:,.0f} events/simulated s"


def _signatures_row() -> Measurement:
    signatures = getattr(drive, "signatures", None)
    name = "compiled variants after all these sizes"
    if signatures is None:
        return Measurement(name, None, "", "<= 1", None, "the JIT is off")
    return _at_most(name, len(signatures), "", 1)


# --------------------------------------------------------------------------------------------------------- single steps

Environment: TypeAlias = "gymnasium.Env[Any, Any]"
Episode: TypeAlias = tuple[int, list[int]]  # seed, actions


def _step_rows(repeats: int) -> list[Measurement]:
    """`Env.step` as users call it, in turns with CartPole's."""
    names = ("single Env.step, Storm", "single Env.step, Storm : CartPole")
    try:
        env = gymnasium.make(ENV_ID)
    except gymnasium.error.Error:
        reason = f"{ENV_ID} is not registered"
        return [_at_least(names[0], None, "1/s", 300_000, reason), _at_least(names[1], None, "", 4, reason)]
    cart = gymnasium.make("CartPole-v1")
    ours, theirs = _episodes(env, 20_000), _episodes(cart, 5_000)
    pairs = [(_rate(env, ours), _rate(cart, theirs)) for _ in range(repeats)]
    steps, yardstick = (median(rates) for rates in zip(*pairs, strict=True))
    bare = median(_rate(env.unwrapped, ours) for _ in range(repeats))
    note = f"random legal actions; without Gymnasium's wrappers {bare:,.0f}/s"
    return [
        _at_least(names[0], steps, "1/s", 300_000, note),
        _at_least(names[1], median(a / b for a, b in pairs), "", 4, f"CartPole-v1: {yardstick:,.0f}/s"),
    ]


def _episodes(env: Environment, steps: int) -> list[Episode]:
    """Random legal actions for this many steps, to be replayed without the time it takes to choose them."""
    generator = np.random.default_rng(0)
    episodes: list[Episode] = []
    while steps > 0:
        seed, actions, ended = len(episodes), [], False
        _, info = env.reset(seed=seed)
        while not ended and steps > 0:
            mask = info.get("action_mask", np.ones(env.action_space.n))  # type: ignore[attr-defined]
            actions.append(int(generator.choice(np.flatnonzero(mask))))
            _, _, terminated, truncated, info = env.step(actions[-1])
            ended = terminated or truncated
            steps -= 1
        episodes.append((seed, actions))
    return episodes


def _rate(env: Environment, episodes: Sequence[Episode]) -> float:
    """Steps per second over the episodes, without their resets."""
    step, seconds = env.step, 0.0
    for seed, actions in episodes:
        env.reset(seed=seed)
        started = time.perf_counter()
        for action in actions:
            step(action)
        seconds += time.perf_counter() - started
    return sum(len(actions) for _, actions in episodes) / seconds


# ------------------------------------------------------------------------------------------------------ fresh processes


def _process_rows(quick: bool) -> list[Measurement]:
    registered = ENV_ID in gymnasium.registry
    script, note = (_FIRST_STEP, "") if registered else (_FIRST_RUN, f"first run; {ENV_ID} is not registered")
    if quick:
        cold, warm, imported = None, _seconds(script), _seconds(_IMPORT)
    else:
        with tempfile.TemporaryDirectory() as cache:
            cold = _seconds(script, NUMBA_CACHE_DIR=cache)
            warm = median(_seconds(script, NUMBA_CACHE_DIR=cache) for _ in range(5))
            imported = median(_seconds(_IMPORT, NUMBA_CACHE_DIR=cache) for _ in range(5))
    return [
        _at_most("import ple_gym, warm", imported, "s", 1),
        _at_most("import to first step, warm", warm, "s", 1.5, note),
        _at_most("import to first step, cold", cold, "s", 45, "left out by --quick" if quick else note),
    ]


def _seconds(script: str, **variables: str) -> float:
    """What the script prints, run in a fresh process that imports this very package."""
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr}")
    return float(done.stdout)
