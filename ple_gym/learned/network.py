"""Learned policies, compiled: a small network scores each vCPU from what `view/` shows, and the best is run.

Numbers are float32 and each sum runs over its inputs in their order, for all vCPUs (or all outputs) side by side: fast,
and the same bits on every machine. `file.py` says what the weights are and reads them from a file.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ple_gym.rules.sight_types import whole_sight_at
from ple_gym.sim import rng
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.memory import grid, records
from ple_gym.sim.state import FLOAT32, INT8
from ple_gym.sim.units import Unit, sources
from ple_gym.view.features import table_of
from ple_gym.view.record import HYPERVISOR

NO_NETWORK, LINEAR, MLP, SET = 0, 1, 2, 3
ZERO, ONE = np.float32(0.0), np.float32(1.0)

#: Features that are also ranked, for networks that score one vCPU at a time: 1 for the vCPU with the highest value, 1/2
#: for the second, and so on. Who is next in line has spun or waited longest, and two that began 2 us apart differ by a
#: thousandth.
RANKED = ("waited", "spin_age")
RANKS = len(RANKED)

#: Quantiles of the standard Gumbel distribution, in multiples of 1/1024 so that they are the same on every machine. The
#: highest of scores + noise is a draw from their softmax, here with probabilities in steps of 1/4096.
NOISE_BITS, ACTIONS_BITS = 12, 11
GUMBEL = (np.rint(-1024 * np.log(-np.log((np.arange(2**NOISE_BITS) + 0.5) / 2**NOISE_BITS))) / 1024).astype(np.float32)


def ranked_at(scheduler: str) -> list[int]:
    """Places of the `RANKED` among the features of a vCPU, where the host has this scheduler."""
    shown = table_of(scheduler).vcpu_names(HYPERVISOR)
    return [shown.index(name) for name in RANKED]


@inlined
def matrix(raw, at, rows, columns):
    """float32 [rows, columns] from byte `at`, and the byte after it."""
    return grid(raw, at, FLOAT32, 4, rows, columns), at + 4 * rows * columns


@called
def each_vcpu(weights, x, start, y, inputs, outputs, vcpus):
    """y [outputs, V] = start [1, outputs] + weights [outputs, inputs] of x [inputs, V]."""
    for k in range(outputs):
        for i in range(vcpus):
            y[k, i] = start[0, k]
    add_each_vcpu(weights, 0, x, y, inputs, outputs, vcpus)


@called
def add_each_vcpu(weights, first, x, y, inputs, outputs, vcpus):
    """y [outputs, V] += weights [outputs, first..first+inputs-1] of x [inputs, V]."""
    for k in range(outputs):
        for j in range(inputs):
            w = weights[k, first + j]
            for i in range(vcpus):
                y[k, i] += w * x[j, i]


@called
def add_ranks(weights, x, s, ranks, y, inputs, outputs, vcpus):
    """y [outputs, V] += weights, behind those of x [inputs, V], of the ranks of x, which go to `ranks` [RANKS, V]."""
    for k in range(RANKS):
        row = s.waited if k == 0 else s.spin_age
        for i in range(vcpus):
            ranks[k, i] = ONE
        for j in range(vcpus):
            other = x[row, j]
            for i in range(vcpus):
                ranks[k, i] += np.float32(other > x[row, i])
        for i in range(vcpus):
            ranks[k, i] = ONE / ranks[k, i]
    add_each_vcpu(weights, inputs, ranks, y, RANKS, outputs, vcpus)


@called
def dense(weights, x, start, y, inputs, outputs):
    """y [1, outputs] = start [1, outputs] + x [1, inputs] times weights [inputs, outputs]."""
    for k in range(outputs):
        y[0, k] = start[0, k]
    for j in range(inputs):
        a = x[0, j]
        for k in range(outputs):
            y[0, k] += a * weights[j, k]


@inlined
def rectify(y, rows, columns):
    """Replace what is negative by zero, in place."""
    for k in range(rows):
        for i in range(columns):
            y[k, i] = max(y[k, i], ZERO)


@called
def score_linear(s, raw, observation, room, scores):
    """A weighted sum of each vCPU's features and ranks; another, of the host's, for deferring."""
    inputs, vcpus, at = s.features, s.vcpus, 0
    x, host_at = matrix(observation, 0, inputs, vcpus)
    host, _ = matrix(observation, host_at, 1, s.host)
    w, at = matrix(raw, at, 1, inputs + RANKS)
    b, at = matrix(raw, at, 1, 1)
    u, at = matrix(raw, at, s.host, 1)
    c, at = matrix(raw, at, 1, 1)
    defer, after = matrix(observation, room, 1, 1)
    ranks, _ = matrix(observation, after, RANKS, vcpus)
    each_vcpu(w, x, b, scores, inputs, 1, vcpus)
    add_ranks(w, x, s, ranks, scores, inputs, 1, vcpus)
    dense(u, host, c, defer, s.host, 1)
    scores[0, vcpus] = defer[0, 0]


@called
def score_mlp(s, raw, observation, room, scores):
    """Two hidden layers over the whole observation; for one number of vCPUs only."""
    inputs, hidden, at = s.vcpus * s.features + s.host, s.hidden, 0
    x, _ = matrix(observation, 0, 1, inputs)
    w1, at = matrix(raw, at, inputs, hidden)
    b1, at = matrix(raw, at, 1, hidden)
    w2, at = matrix(raw, at, hidden, hidden)
    b2, at = matrix(raw, at, 1, hidden)
    w3, at = matrix(raw, at, hidden, s.vcpus + 1)
    b3, at = matrix(raw, at, 1, s.vcpus + 1)
    y1, after = matrix(observation, room, 1, hidden)
    y2, after = matrix(observation, after, 1, hidden)
    dense(w1, x, b1, y1, inputs, hidden)
    rectify(y1, 1, hidden)
    dense(w2, y1, b2, y2, hidden, hidden)
    rectify(y2, 1, hidden)
    dense(w3, y2, b3, scores, hidden, s.vcpus + 1)


@called
def score_set(s, raw, observation, room, scores):
    """One scorer for every vCPU: its features and ranks, then mean, maximum and the asker's of what all came to.

    Equivariant: another order of the vCPUs gives the same scores in that order, and any number of them will do.
    """
    inputs, hidden, vcpus, at = s.features, s.hidden, s.vcpus, 0
    seen = 3 * hidden + s.host
    x, host_at = matrix(observation, 0, inputs, vcpus)
    host, _ = matrix(observation, host_at, 1, s.host)
    w1, at = matrix(raw, at, hidden, inputs + RANKS)
    u1, at = matrix(raw, at, s.host, hidden)
    b1, at = matrix(raw, at, 1, hidden)
    w2, at = matrix(raw, at, hidden, hidden)
    u2, at = matrix(raw, at, seen, hidden)
    b2, at = matrix(raw, at, 1, hidden)
    w3, at = matrix(raw, at, 1, hidden)
    b3, at = matrix(raw, at, 1, 1)
    v1, at = matrix(raw, at, seen, hidden)
    c1, at = matrix(raw, at, 1, hidden)
    v2, at = matrix(raw, at, hidden, 1)
    c2, at = matrix(raw, at, 1, 1)
    ranks, after = matrix(observation, room, RANKS, vcpus)
    y1, after = matrix(observation, after, hidden, vcpus)
    y2, after = matrix(observation, after, hidden, vcpus)
    context, after = matrix(observation, after, 1, seen)
    common, after = matrix(observation, after, 1, hidden)

    dense(u1, host, b1, common, s.host, hidden)
    each_vcpu(w1, x, common, y1, inputs, hidden, vcpus)
    add_ranks(w1, x, s, ranks, y1, inputs, hidden, vcpus)
    rectify(y1, hidden, vcpus)
    asker = s.asker
    for k in range(hidden):
        total, most = ZERO, ZERO
        for i in range(vcpus):
            total += y1[k, i]
            most = max(most, y1[k, i])
        context[0, k] = total / np.float32(vcpus)
        context[0, hidden + k] = most
        context[0, 2 * hidden + k] = y1[k, asker]
    for k in range(s.host):
        context[0, 3 * hidden + k] = host[0, k]
    dense(u2, context, b2, common, seen, hidden)
    each_vcpu(w2, y1, common, y2, hidden, hidden, vcpus)
    rectify(y2, hidden, vcpus)
    each_vcpu(w3, y2, b3, scores, hidden, 1, vcpus)
    dense(v1, context, c1, common, seen, hidden)
    rectify(common, 1, hidden)
    defer, _ = matrix(observation, after, 1, 1)
    dense(v2, common, c2, defer, hidden, 1)
    scores[0, vcpus] = defer[0, 0]


class Asked(NamedTuple):
    """What a network must know beside its weights and what it observes."""

    vcpus: int
    features: int  # per vCPU
    host: int  # features
    waited: int  # places of the ranked features
    spin_age: int
    hidden: int  # units
    asker: int  # vCPU


#: What the parameters of a learned policy hold; its weights come after them.
NETWORK = np.dtype(
    [
        ("kind", "i8"), ("features", "i8"), ("host", "i8"), ("waited", "i8"), ("spin_age", "i8"), ("hidden", "i8"),
        ("temperature", "f8"),
    ]
)  # fmt: skip
NETWORK_BYTES = NETWORK.itemsize


def learned(sight):
    """The legal action with the highest score, the first of equals; `sight`: the address of a sight whose mask and
    observation have been written. At a temperature above 0 it is a draw from the softmax of scores / temperature.

    Behind an observation there is room for scores and what they need.
    """
    see = whole_sight_at(sight)
    own = records(see.parameters, 0, NETWORK_BYTES, NETWORK)[0]
    weights, observation, actions = see.parameters + NETWORK_BYTES, see.observation, see.vcpus + 1
    mask = grid(see.mask, 0, INT8, 1, 1, actions)
    s = Asked(see.vcpus, own.features, own.host, own.waited, own.spin_age, own.hidden, see.asker)
    scores, room = matrix(observation, 4 * (see.vcpus * own.features + own.host), 1, actions)
    if own.kind == LINEAR:
        score_linear(s, weights, observation, room, scores)
    elif own.kind == MLP:
        score_mlp(s, weights, observation, room, scores)
    else:
        score_set(s, weights, observation, room, scores)
    temperature = np.float32(own.temperature)
    if temperature > ZERO:
        for i in range(actions):
            bits = rng.draw(see.random_key, ((see.exits - 1) << ACTIONS_BITS) + i)
            scores[0, i] += temperature * GUMBEL[np.int64(bits >> np.uint64(64 - NOISE_BITS))]
    best = np.int64(-1)
    for i in range(actions):  # to defer, the last, is always legal
        if mask[0, i] != 0 and (best < 0 or scores[0, i] > scores[0, best]):
            best = i
    return best


NETWORKS = Unit("networks", learned, 1, sources("learned/network.py", "rules/sight*.py", "view/*.py", "sim/*.py"))
