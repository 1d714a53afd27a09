"""Policies that are learned for a certificate, of what a hypervisor sees: by a search, and from a look-ahead's choices.

The search is on the weights of a linear scorer or of a small set network (`learned/search.py`). The probe is a linear
scorer that was fitted to the choices of a look-ahead: what of them can be told from what is seen?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ple_gym.certify.lookahead import Lesson
from ple_gym.course import losses_of
from ple_gym.evaluate.comparison import Run
from ple_gym.learned.file import LEVELS
from ple_gym.learned.network import RANKED
from ple_gym.learned.search import ELITE, NOISE, POPULATION, Distribution, Floats, Form
from ple_gym.scenario.model import Scenario
from ple_gym.view.features import seen_in

WORST = 0.01  # of its work, at least, counts as done in a run that was cut off
STEPS, RATE = 400, 0.05  # of the probe's gradient descent


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
    form: Form, start: Floats | None, generations: int, seed: int, costs: Callable[[Floats, int], Floats]
) -> list[Floats]:
    """Search from some weights on; returns weights to choose from: the mean of the last generation, and its best.

    costs: weights of policies and the number of the generation -> the cost of each, on worlds of that generation.
    """
    draws = np.random.default_rng([seed, len(form.kind)])
    wide = form.deviation()
    around = Distribution(np.zeros_like(wide), wide)
    if start is not None:
        around = Distribution(start.copy(), 0.3 * wide + 0.1 * np.abs(start))
    best = [around.mean]
    for generation in range(generations):
        thetas = around.draw(draws, POPULATION)
        if generation % 4 == 0:
            thetas[0] = around.mean
        noise = NOISE * wide * (1 - (generation + 1) / generations)
        elite = thetas[around.fit(thetas, costs(thetas, generation), ELITE, noise)]
        best = [around.mean, *elite[:3]]
    return best


def probe(form: Form, lessons: Sequence[Lesson]) -> Floats:
    """Weights of a linear scorer whose softmax is fitted to the actions of a look-ahead."""
    table = seen_in(form.scenario)
    names = table.vcpu_names(LEVELS[form.information])
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
