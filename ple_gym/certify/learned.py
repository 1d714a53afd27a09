"""Policies that are learned for a certificate, of what a hypervisor sees: by a search, and from a look-ahead's choices.

The search is the cross-entropy method (Rubinstein 1999) on the weights of a linear scorer or of a small set network:
each generation draws policies from a normal distribution, runs them on the same worlds, and fits it to the best. The
probe is a linear scorer that was fitted to the choices of a look-ahead: what of them can be told from what is seen?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ple_gym.certify.lookahead import Lesson
from ple_gym.evaluate.comparison import Run
from ple_gym.learned.file import LEVELS, Network, for_hosts_like, inputs_of, shapes_of
from ple_gym.learned.network import RANKED
from ple_gym.learned.policy import LearnedPolicy
from ple_gym.scenario.model import Scenario
from ple_gym.tuning import losses_of
from ple_gym.view.features import seen_in

Floats = npt.NDArray[np.float64]

LEVEL = "hypervisor"
POPULATION, ELITE = 40, 8
WORST = 0.01  # of its work, at least, counts as done in a run that was cut off
NOISE = 0.1  # added to every deviation, falling to nothing, so that the search does not settle too early
STEPS, RATE = 400, 0.05  # of the probe's gradient descent


@dataclass(frozen=True)
class Form:
    """A kind of network for a scenario, and its weights as one vector.

    Attributes:
        scenario: what it is for.
        kind, hidden: as in a `Network`.
    """

    scenario: Scenario
    kind: str
    hidden: int = 0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of weights."""
        inputs = inputs_of(self.kind, LEVEL, **for_hosts_like(self.scenario))
        return shapes_of(self.kind, self.scenario.vcpus, self.hidden, inputs)

    def deviation(self) -> Floats:
        """How far weights are drawn from 0 at first: so that each layer's sums are about as large as its inputs."""
        linear = self.kind == "linear"
        parts = [np.full(math.prod(shape), 1.0 if linear else max(shape) ** -0.5) for shape in self.shapes.values()]
        return np.concatenate(parts)

    def policy(self, theta: Floats, name: str) -> LearnedPolicy:
        """The policy with these weights."""
        weights, at = {}, 0
        for array, (rows, columns) in self.shapes.items():
            part = theta[at : at + rows * columns].astype(np.float32)
            weights[array] = part.reshape(rows, columns)
            at += rows * columns
        vcpus = self.scenario.vcpus if self.kind == "mlp" else 0
        network = Network(self.kind, LEVEL, vcpus, self.hidden, weights, {}, 0.0, **for_hosts_like(self.scenario))
        return LearnedPolicy(name, network, f"{self.kind} network")


def cost(scenario: Scenario, runs: Sequence[Run], allowance: float) -> float:
    """What the search makes small: the mean loss, where a run that was cut off counts with the time that all work takes
    at its pace. allowance: as of `losses_of`."""
    losses = losses_of(scenario, runs, allowance)
    if not scenario.endless:
        for place, run in enumerate(runs):
            vms = zip(scenario.vms().values(), run["vm"], strict=True)
            done = min(record["transactions"] / vm.transactions for vm, record in vms if vm.transactions)
            losses[place] -= math.log(max(done, WORST))
    return float(np.mean(losses))


def climb(
    form: Form,
    start: Floats | None,
    generations: int,
    seed: int,
    costs: Callable[[Sequence[LearnedPolicy], int], Floats],
) -> list[Floats]:
    """Search from some weights on; returns weights to choose from: the mean of the last generation, and its best.

    costs: policies and the number of the generation -> the mean cost of each, on worlds of that generation.
    """
    draws = np.random.default_rng([seed, len(form.kind)])
    deviation = form.deviation()
    mean = np.zeros_like(deviation)
    if start is not None:
        mean, deviation = start.copy(), 0.3 * deviation + 0.1 * np.abs(start)
    best = [mean]
    for generation in range(generations):
        thetas = mean + deviation * draws.normal(size=(POPULATION, len(mean)))
        if generation % 4 == 0:
            thetas[0] = mean
        found = costs([form.policy(theta, f"{form.kind} {k}") for k, theta in enumerate(thetas)], generation)
        elite = thetas[np.argsort(found, kind="stable")[:ELITE]]
        mean = elite.mean(axis=0)
        deviation = elite.std(axis=0) + NOISE * form.deviation() * (1 - (generation + 1) / generations)
        best = [mean, *elite[:3]]
    return best


def probe(form: Form, lessons: Sequence[Lesson]) -> Floats:
    """Weights of a linear scorer whose softmax is fitted to the actions of a look-ahead."""
    table = seen_in(form.scenario)
    names = table.vcpu_names(LEVELS[LEVEL])
    vcpus, features, host = form.scenario.vcpus, len(names), len(table.host)
    seen = np.array([lesson.observation[: vcpus * features + host] for lesson in lessons], np.float32)
    x = seen[:, : vcpus * features].reshape(-1, features, vcpus)
    ranks = [
        1 / (1 + (row[:, :, None] < row[:, None, :]).sum(axis=2)) for row in (x[:, names.index(n)] for n in RANKED)
    ]
    x = np.concatenate([x, np.stack(ranks, axis=1).astype(np.float32)], axis=1)
    g, legal = seen[:, vcpus * features :], np.array([lesson.legal for lesson in lessons])
    taken = np.zeros(legal.shape, np.float32)
    taken[np.arange(len(lessons)), [lesson.action for lesson in lessons]] = 1
    sizes = (features + len(RANKED), 1, host, 1)
    theta, first, second = (np.zeros(sum(sizes)) for _ in range(3))
    for step in range(1, STEPS + 1):
        w, b, u, c = np.split(theta, np.cumsum(sizes)[:-1])
        scores = np.concatenate([np.einsum("nfv,f->nv", x, w) + b, (g @ u + c)[:, None]], axis=1)
        scores = np.where(legal, scores, -np.inf)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = (odds / odds.sum(axis=1, keepdims=True) - taken) / len(lessons)
        slope = np.concatenate(
            [np.einsum("nfv,nv->f", x, error[:, :-1]), [error[:, :-1].sum()], g.T @ error[:, -1], [error[:, -1].sum()]]
        )
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        theta = theta - RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return theta
