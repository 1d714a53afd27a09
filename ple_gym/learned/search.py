"""A search for the weights of a network without gradients: the cross-entropy method (Rubinstein 1999).

Each generation draws weights from a normal distribution, runs these policies on the same worlds, and fits it to the
best of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ple_gym.learned.file import Network, for_hosts_like, inputs_of, shapes_of
from ple_gym.learned.policy import LearnedPolicy
from ple_gym.scenario.model import Scenario

Floats = npt.NDArray[np.float64]

POPULATION, ELITE = 40, 8
NOISE = 0.1  # added to every deviation, falling to nothing, so that the search does not settle too early


@dataclass(frozen=True)
class Form:
    """A kind of network for a scenario, and its weights as one vector.

    Attributes:
        scenario: what it is for.
        kind, hidden, information, temperature: as in a `Network`.
        still: names of arrays that stay 0 and are not in the vector.
    """

    scenario: Scenario
    kind: str
    hidden: int = 0
    information: str = "hypervisor"
    temperature: float = 0.0
    still: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array of weights."""
        inputs = inputs_of(self.kind, self.information, **for_hosts_like(self.scenario))
        return shapes_of(self.kind, self.scenario.vcpus, self.hidden, inputs)

    def deviation(self) -> Floats:
        """How far weights are drawn from 0 at first: so that each layer's sums are about as large as its inputs."""
        shapes = [shape for name, shape in self.shapes.items() if name not in self.still]
        far = [1.0 if self.kind == "linear" else max(shape) ** -0.5 for shape in shapes]
        return np.concatenate([np.full(math.prod(shape), x) for shape, x in zip(shapes, far, strict=True)])

    def network(self, theta: Floats) -> Network:
        """The network with these weights."""
        weights, rest = {}, theta.astype(np.float32)
        for name, shape in self.shapes.items():
            if name in self.still:
                weights[name] = np.zeros(shape, np.float32)
            else:
                part, rest = np.split(rest, [math.prod(shape)])
                weights[name] = part.reshape(shape)
        vcpus, like = self.scenario.vcpus if self.kind == "mlp" else 0, for_hosts_like(self.scenario)
        return Network(self.kind, self.information, vcpus, self.hidden, weights, {}, self.temperature, **like)

    def policy(self, theta: Floats, name: str) -> LearnedPolicy:
        """The policy with these weights."""
        return LearnedPolicy(name, self.network(theta), f"{self.kind} network")


@dataclass
class Distribution:
    """The normal distribution that weights are drawn from: float64 [weights] each."""

    mean: Floats
    deviation: Floats

    def draw(self, draws: np.random.Generator, count: int) -> Floats:
        """So many vectors of weights."""
        return self.mean + self.deviation * draws.normal(size=(count, len(self.mean)))

    def fit(self, thetas: Floats, costs: npt.ArrayLike, elite: int, noise: float | Floats) -> npt.NDArray[np.intp]:
        """Fit it to the best of some weights, and add noise to its deviation; return their places, the best first."""
        order = np.argsort(costs, kind="stable")[:elite]
        self.mean = thetas[order].mean(axis=0)
        self.deviation = thetas[order].std(axis=0) + noise
        return order
