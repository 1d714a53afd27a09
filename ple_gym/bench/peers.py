"""The same run's measurements of others: EnvPool, Gymnasium's own vector environment, our model written with SimPy.

Each is measured in turns with ours, and what counts is the median of the ratios. Other environments do other work: a
CartPole is 4 numbers in lock-step, a lane of `Storm` is a machine with 36 CPUs and some events between two decisions.
"""

from __future__ import annotations

import time
import warnings
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt

from ple_gym.bench.batched import SCENARIO, Replay
from ple_gym.bench.report import Measurement, Seconds, at_least, plain, timed
from ple_gym.lanes import Lanes
from ple_gym.scenario.builtin import SCENARIOS

CARTPOLE_LANES = (64, 256, 1024, 4096)
ENVPOOL_LANES = (64, 256, 1024)
SIMPY_RULE = "xen-4.8"
RUNS_AGAIN = 50  # of the kernel, which needs under a millisecond for what SimPy needs 100
SIMPY_MODEL = "experiments.peers.simpy_model"  # found in a checkout

Actions: TypeAlias = npt.NDArray[np.integer[Any]]


def cartpole_rows(ours: Replay, repeats: int) -> list[Measurement]:
    """Gymnasium's native `CartPoleVectorEnv`, to know where we are."""
    rows = []
    for lanes in CARTPOLE_LANES:
        envs = gymnasium.make_vec("CartPole-v1", num_envs=lanes)
        envs.reset(seed=0)
        actions = _pushes(100, lanes, np.int64)
        pairs = [
            (_rate(ours.step(), ours.decisions), _rate(_steps(envs, actions), actions.size)) for _ in range(repeats)
        ]
        note = f"Storm, {len(ours.begin):,} lanes : this = {median(a / b for a, b in pairs):.2f}"
        rows.append(
            plain(f"Gymnasium's CartPole-v1, vector, {lanes:,} lanes", median(b for _, b in pairs), "1/s", note)
        )
    return rows


def envpool_row(ours: Replay, repeats: int) -> Measurement:
    """EnvPool's CartPole with one thread at its best number of lanes: CPU time of all its threads."""
    name, target = f"batched, {SCENARIO} : EnvPool CartPole-v1, one core", 1.5
    try:
        envpool = import_module("envpool")
    except ImportError:
        return at_least(name, None, "", target, "EnvPool is not installed (extra peers)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the precision of its own spaces
        pools = {lanes: _envpool(envpool, lanes) for lanes in ENVPOOL_LANES}
        actions = {lanes: _pushes(100_000 // lanes, lanes, np.int32) for lanes in pools}
        cost = {lanes: _all_threads(pool, actions[lanes]) / actions[lanes].size for lanes, pool in pools.items()}
        best = min(cost, key=lambda lanes: cost[lanes])
        pairs = [
            (_rate(ours.step(), ours.decisions), actions[best].size / _all_threads(pools[best], actions[best]))
            for _ in range(repeats)
        ]
    we, they = (median(rates) for rates in zip(*pairs, strict=True))
    note = f"{we:,.0f}/s at {len(ours.begin):,} lanes, {they:,.0f}/s at {best:,}; envpool {envpool.__version__}"
    return at_least(name, median(a / b for a, b in pairs), "", target, note)


def simpy_row(repeats: int) -> Measurement:
    """Events per second of the kernel and of our model in SimPy, in the same worlds."""
    name, target = f"kernel : SimPy, events per second, {SCENARIO} under {SIMPY_RULE}", 50
    try:
        model_of = import_module(SIMPY_MODEL).SimpyModel
    except ImportError as error:
        missing = (
            "SimPy is not installed (extra peers)" if error.name == "simpy" else f"needs a checkout ({SIMPY_MODEL})"
        )
        return at_least(name, None, "", target, missing)
    scenario, pairs = SCENARIOS[SCENARIO], []
    lanes = Lanes(scenario, 1, policy=SIMPY_RULE)
    for seed in range(repeats):
        model = model_of(scenario, seed, SIMPY_RULE)
        theirs = timed(model.run).cpu
        ours = timed(partial(_run_again, lanes, seed)).cpu / RUNS_AGAIN
        events = int(lanes.world["events"][0])
        if (model.events, model.now) != (events, int(lanes.world["now"][0])):
            raise RuntimeError(f"seed {seed}: the model in SimPy does not agree with the kernel")
        pairs.append((events / ours, events / theirs))
    we, they = (median(rates) for rates in zip(*pairs, strict=True))
    return at_least(name, median(a / b for a, b in pairs), "", target, f"{we:,.0f}/s, {they:,.0f}/s; the same events")


def _run_again(lanes: Lanes, seed: int) -> None:
    for _ in range(RUNS_AGAIN):
        lanes.run(0, seed)


def _pushes(steps: int, lanes: int, dtype: npt.DTypeLike) -> Actions:
    """Random actions for CartPoles: [steps, lanes]."""
    pushes: Actions = np.random.default_rng(0).integers(2, size=(steps, lanes)).astype(dtype)
    return pushes


def _steps(envs: Any, actions: Actions) -> Seconds:
    def steps() -> None:
        for one in actions:
            envs.step(one)

    return timed(steps)


def _rate(seconds: Seconds, decisions: int) -> float:
    return decisions / seconds.cpu


def _envpool(envpool: Any, lanes: int) -> Any:
    pool = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=lanes, num_threads=1, seed=0)
    pool.reset()
    return pool


def _all_threads(pool: Any, actions: Actions) -> float:
    """CPU seconds, those of the pool's thread included."""
    before = time.process_time()
    _steps(pool, actions)
    return time.process_time() - before
