"""Which features does the best policy live by? It is run on `Storm` with one feature hidden at a time.

A feature is hidden by setting its weights to zero, so that the policy acts as if it were 0 for every vCPU; nothing is
trained again. A last row is the policy that takes its best action always, instead of drawing. The best policy is the
one of the set policy's trainings on `Storm` that did best on validation worlds. Runs are cut off at 30 ms, three times
the ideal.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from agents.torch_policy import read_policy
from experiments.lab import CHECKPOINTS, Experiment, Table, Task, overrides_text, seeds, tasks
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check
from experiments.learning import trained, trainings
from experiments.learning.trained import COLUMNS
from experiments.learning.trainings import file_of
from ple_gym.errors import PolicyError
from ple_gym.evaluate import Comparison
from ple_gym.lanes import Lanes
from ple_gym.learned.file import Network
from ple_gym.learned.network import RANKED
from ple_gym.view.features import HOST_FEATURES, VCPU_FEATURES

WORLD = trainings.QUICK_START.world
SHORT = {"limit.simulated_s": 0.03}
WITHOUT = " without "
ROWS = (*VCPU_FEATURES, *(f"rank of {name}" for name in RANKED))  # of the weights of a vCPU's features
HOST = tuple(f"host's {name}" for name in HOST_FEATURES)
DRAWING = "drawing"  # not a feature: the policy takes its best action always
FEATURES = (*ROWS, *HOST, DRAWING)


def best() -> str:
    """The best policy on validation worlds of the ten of the quick start."""
    found = trainings.finished(trainings.QUICK_START)
    if not found:
        raise PolicyError("agents/checkpoints.tar.xz: no policy of set-ppo on Storm; run: python -m experiments train")
    return min(found, key=lambda name: read_policy(file_of(name)).card["validation"]["above_ideal_percent"])


def hidden(network: Network, feature: str) -> Network:
    """The policy with the weights of one feature set to zero, or without drawing."""
    if feature == DRAWING:
        return replace(network, temperature=0.0)
    weights = {name: array.copy() for name, array in network.weights.items()}
    if feature in ROWS:
        weights["vcpu1"][:, ROWS.index(feature)] = 0
    else:
        row = HOST.index(feature)
        weights["host1"][row] = 0
        for name in ("context2", "defer1"):
            weights[name][3 * network.hidden + row] = 0
    return replace(network, weights=weights)


def measure(task: Task) -> dict[str, int]:
    """As `trained.measure`, for `POLICY without FEATURE` too."""
    policy, _, feature = task.policy.partition(WITHOUT)
    if not feature:
        return trained.measure(task)
    network = read_policy(file_of(policy))
    assert isinstance(network, Network)
    lanes = Lanes(trained.world(task.scenario, task.overrides), 1, policy=hidden(network, feature))
    lanes.run(0, task.seed)
    return trained.since(trained.NOTHING, lanes.totals(0), lanes.scenario.host.tsc_hz)


def run(quick: bool) -> list[Task]:
    """The policy as it is, and without each feature."""
    own = seeds.LEADERBOARD[: 1 if quick else 20]
    policies = [best(), *(f"{best()}{WITHOUT}{feature}" for feature in FEATURES)]
    return tasks(WORLD, policies, own, SHORT)


def compared(table: Table) -> Comparison:
    """Every row against the policy as it is, which comes first."""
    policies = table.distinct("policy")
    return trained.comparison(table, WORLD, overrides_text(SHORT), {policy: [policy] for policy in policies})


def costs(table: Table) -> dict[str, tuple[float, int]]:
    """Feature -> how much longer runs take without it, in percent, and how many were cut off; the dearest first."""
    rows = [row for row in compared(table).rows() if WITHOUT in row.policy and row.log_ratio]
    found = {
        row.policy.partition(WITHOUT)[2]: (100 * float(np.expm1(row.log_ratio.mean)), row.capped)
        for row in rows
        if row.log_ratio
    }
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def checks(table: Table) -> list[Check]:
    """What hiding each feature costs."""
    return [
        Check("features", f"{WORLD} without `{feature}`", f"{cost:+.1f} %" + (f", {capped} cut off" if capped else ""))
        for feature, (cost, capped) in costs(table).items()
    ]


def draw(table: Table, path: Path) -> None:
    """Cost of hiding each feature."""
    found = dict(reversed(costs(table).items()))
    with picture(path, 8, 7.5) as (_, axis):
        colours = [COLOURS[1] if capped else COLOURS[0] for _, capped in found.values()]
        axis.barh(range(len(found)), [max(0.0, cost) for cost, _ in found.values()], 0.7, color=colours)
        axis.set_yticks(range(len(found)), list(found), fontsize="small")
        axis.set_xscale("symlog", linthresh=1)
        axis.set(xlabel="makespan without the feature, %, red: some runs were cut off", xlim=(0, None))


EXPERIMENT = Experiment("features", __doc__, COLUMNS, run, checks, draw, measure, (CHECKPOINTS,))
