"""What deciding costs inside the kernel: a learned policy of each kind, beside a rule and beside observing.

Each decides again and again in the same states of `Storm` under random play (`batched.mixed_states`), one state after
the other, and nothing is simulated: so the rows are what a decision adds to the simulation. A network is timed without
the observation that it reads, which has a row of its own. Its weights are random; the cost does not depend on them.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np

from ple_gym.bench.report import Measurement, Seconds, plain, timed
from ple_gym.drive import show
from ple_gym.lanes import NO_TRACE, Lanes
from ple_gym.learned.file import Network, shapes_of
from ple_gym.learned.network import learned
from ple_gym.rules import RULES
from ple_gym.rules.compiled import LEARNED, choose
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.sim.jit import compiled, entry_point, source_fingerprint
from ple_gym.sim.memory import grid, handle, records, row_of
from ple_gym.sim.state import INT8, PARAMETERS, PARAMETERS_BYTES, open_lane

RULE = "spin-age-self"
HIDDEN = {"linear": 0, "set": 32, "mlp": 64}
OBSERVING = -2  # where a rule's code is asked for
STATES = 64  # of 21 kB each
TURNS = 100  # of all states, at a time


def _entry(fingerprint: int) -> Any:
    def decide(
        description: Any, rows: Any, masks: Any, observations: Any, trace: Any, count: int, turns: int, rule: int
    ) -> int:
        """Decide `turns` times in every lane, and change nothing; the sum of the actions."""
        _ = fingerprint  # part of numba's cache key: see sim/jit.py
        par = records(description, 0, PARAMETERS_BYTES, PARAMETERS)[0]
        total = 0
        for _turn in range(turns):
            for e in range(count):
                s = open_lane(description, row_of(rows, e, par.row_bytes), trace, 0)
                mask, observation = row_of(masks, e, par.vcpus + 1), row_of(observations, e, par.observation_bytes)
                if rule == OBSERVING:
                    show(s, mask, observation)
                elif rule == LEARNED:
                    total += learned(s, description, grid(mask, 0, INT8, 1, 1, par.vcpus + 1), observation)
                else:
                    total += choose(s, rule, s.world[0].deciding)
        return total

    return entry_point(decide)


decide = _entry(source_fingerprint())


class Decider:
    """Lanes that stand at a decision each, and who decides: a rule, or a network."""

    def __init__(self, states: list[bytes], rule: int, network: Network | None = None) -> None:
        scenario = SCENARIOS["Storm"]
        standing = Lanes(scenario, len(states), information="hypervisor")
        for lane, saved in enumerate(states):
            standing.restore(lane, saved)
        self.lanes = Lanes(scenario, len(states), information="hypervisor", network=network)
        self.lanes.rows[:], self.lanes.mask[:] = standing.rows, standing.mask
        self.lanes.observation[:, : standing.observation.shape[1]] = standing.observation
        arrays = (self.lanes.description, self.lanes.rows, self.lanes.mask, self.lanes.observation, NO_TRACE.ravel())
        self._fixed = tuple(handle(array) for array in arrays)
        self._decide = compiled(decide, *self._fixed, len(states), 1, rule)
        self.rule, self.count = rule, len(states)

    def run(self, turns: int) -> int:
        """Decide `turns` times in every lane; the sum of the actions."""
        total: int = self._decide(*self._fixed, self.count, turns, self.rule)
        return total

    def time(self) -> Seconds:
        """Time `TURNS` of them."""
        return timed(lambda: self.run(TURNS))


def random_network(kind: str) -> Network:
    """Weights that nobody trained, for `Storm`."""
    vcpus = SCENARIOS["Storm"].guest.vcpus if kind == "mlp" else 0
    size = (kind, "hypervisor", vcpus, HIDDEN[kind])
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes_of(*size).items()}
    return Network(*size, weights, {})


def decision_rows(states: list[bytes], repeats: int) -> list[Measurement]:
    """Nanoseconds per decision, in turns."""
    states = states[:STATES]
    deciders = {
        f"decision, rule {RULE}": Decider(states, RULES[RULE].code),
        "decision, observing": Decider(states, OBSERVING),
    }
    for kind, hidden in HIDDEN.items():
        name = f"decision, learned {kind}" + (f", {hidden} hidden units" if hidden else "") + ", without observing"
        deciders[name] = Decider(states, LEARNED, random_network(kind))
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
