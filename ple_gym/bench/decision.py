"""What deciding costs inside the kernel: a learned policy of each kind, beside a rule and beside observing.

Each decides again and again in the same states of `Storm` under random play (`batched.mixed_states`), one state after
the other, while nothing is simulated. So a row is what a decision adds to the simulation. A network is timed without
the observation that it reads, which has a row of its own. Its weights are random; the cost does not depend on them.
"""

from __future__ import annotations

from statistics import median

import numpy as np

from ple_gym.bench.report import Measurement, Seconds, plain, timed
from ple_gym.drive import ASK, OBSERVE
from ple_gym.lanes import Lanes
from ple_gym.learned.file import Network, inputs_of, shapes_of
from ple_gym.scenario.builtin import SCENARIOS

RULE = "spin-age-self"
HIDDEN = {"linear": 0, "set": 32, "mlp": 64}
STATES = 64  # of 8 kB each
TURNS = 100  # of all states, at a time


class Decider:
    """Lanes that stand at a decision each, and who is asked: a rule, a network, or nobody (they are only observed)."""

    def __init__(self, states: list[bytes], policy: str | Network | None = None) -> None:
        scenario = SCENARIOS["Storm"]
        self.lanes = Lanes(scenario, len(states), information="hypervisor", policy=policy)
        standing = Lanes(scenario, len(states), information="hypervisor")
        for lane, saved in enumerate(states):
            standing.restore(lane, saved)
        for name in self.lanes.sections:
            if name != "memory":
                self.lanes.section(name)[:] = standing.section(name)
        self.lanes.mask[:] = standing.mask
        self.lanes.observation[:, : standing.observation.shape[1]] = standing.observation
        self._turn = self.lanes.bind(ASK if policy else OBSERVE, decides=bool(policy), observes=False)

    def run(self, turns: int) -> None:
        """Decide `turns` times in every lane; answers are the lanes' actions."""
        for _ in range(turns):
            self._turn()

    def time(self) -> Seconds:
        """Time `TURNS` of them."""
        return timed(lambda: self.run(TURNS))


def random_network(kind: str) -> Network:
    """Weights that nobody trained, for `Storm`."""
    vcpus = SCENARIOS["Storm"].guest.vcpus if kind == "mlp" else 0
    shapes = shapes_of(kind, vcpus, HIDDEN[kind], inputs_of(kind, "hypervisor"))
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Network(kind, "hypervisor", vcpus, HIDDEN[kind], weights, {})


def decision_rows(states: list[bytes], repeats: int) -> list[Measurement]:
    """Nanoseconds per decision, in turns."""
    states = states[:STATES]
    deciders = {
        f"decision, rule {RULE}": Decider(states, RULE),
        "decision, observing": Decider(states),
    }
    for kind, hidden in HIDDEN.items():
        name = f"decision, learned {kind}" + (f", {hidden} hidden units" if hidden else "") + ", without observing"
        deciders[name] = Decider(states, random_network(kind))
    turns: dict[str, list[Seconds]] = {name: [] for name in deciders}
    for _ in range(repeats):
        for name, decider in deciders.items():
            turns[name].append(decider.time())
    number = TURNS * len(states)
    return [
        plain(
            name, median(one.cpu for one in seconds) / number * 1e9, "ns/decision",
            f"wall {median(one.wall for one in seconds) / number * 1e9:,.0f} ns; Storm, {len(states)} states",
        )
        for name, seconds in turns.items()
    ]  # fmt: skip
