"""What deciding costs inside the kernel: a learned policy of each kind, beside a rule and beside observing.

Each decides again and again in the same states of `Storm` under random play (`batched.mixed_states`), one state after
the other, while nothing is simulated. So a row is what a decision adds to the simulation. A network is timed without
the observation that it reads, which has a row of its own. Its weights are random; the cost does not depend on them.

A rule is called by its address. What that costs is the difference of two loops over the sights of these states: one
calls the rule as the simulator does, the other has it inlined.
"""

from __future__ import annotations

import ctypes
from statistics import median

import numpy as np

from ple_gym.bench.report import Measurement, Seconds, at_most, plain, timed
from ple_gym.drive import ASK, OBSERVE, SIGHT_AT
from ple_gym.lanes import Lanes
from ple_gym.learned.file import Network, inputs_of, shapes_of
from ple_gym.rules import RULES
from ple_gym.rules.compiling import entry_of, helper
from ple_gym.rules.sight import SIGHT_BYTES
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.units import Unit, invoke

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

    def sight(self) -> bytes:
        """What the rule saw in the last lane; its addresses are good as long as this object lives."""
        self.run(1)
        call: int = self._turn.args[0]  # type: ignore[attr-defined]
        return ctypes.string_at(call + SIGHT_AT, SIGHT_BYTES)

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


class Callers:
    """A rule that is asked for each of some sights, again and again: by its address, and inlined."""

    def __init__(self, states: list[bytes], rule: str) -> None:
        self._deciders = [Decider([state], rule) for state in states]
        self._sights = np.frombuffer(b"".join(decider.sight() for decider in self._deciders), np.uint8)
        self.address, body = RULES[rule].address, helper(entry_of(RULES[rule], plain=False))

        def through(address, first, count, turns):  # type: ignore[no-untyped-def]
            answers = 0
            for _ in range(turns):
                for i in range(count):
                    answers += invoke(address, (first + i * SIGHT_BYTES,))  # type: ignore[call-arg]
            return answers

        def inlined(address, first, count, turns):  # type: ignore[no-untyped-def]
            answers = 0
            for _ in range(turns):
                for i in range(count):
                    answers += body(first + i * SIGHT_BYTES)
            return answers

        self.loops = [Unit("bench", loop, 4, None, boxed=True) for loop in (through, inlined)]

    def run(self, turns: int) -> list[int]:
        """The sum of all answers, of each loop."""
        first, count = self._sights.ctypes.data, len(self._deciders)
        return [loop.entry(self.address, first, count, turns) for loop in self.loops]

    def time(self) -> list[Seconds]:
        """Time `TURNS` of all sights, of each loop."""
        first, count = self._sights.ctypes.data, len(self._deciders)
        return [timed(lambda: loop.entry(self.address, first, count, TURNS)) for loop in self.loops]  # noqa: B023


def call_row(states: list[bytes], repeats: int) -> Measurement:
    """What a call of a rule by its address costs more than the same rule inlined."""
    name = f"decision, rule {RULE}, called by its address : inlined"
    if not JIT_ENABLED:
        return at_most(name, None, "ns", 10, "the JIT is off")
    callers = Callers(states[:STATES], RULE)
    callers.run(1)  # compiled now
    turns = [callers.time() for _ in range(repeats)]
    number = TURNS * len(states[:STATES]) / 1e9
    cost = median(through.cpu - inlined.cpu for through, inlined in turns) / number
    through, inlined = (median(one.cpu for one in loop) / number for loop in zip(*turns, strict=True))
    return at_most(name, cost, "ns", 10, f"{through:.1f} ns, {inlined:.1f} ns")
