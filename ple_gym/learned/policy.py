"""Learned policies as the simulator asks them: as it asks a rule, after it has written what they observe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ple_gym.learned.file import LEVELS, Network
from ple_gym.learned.network import NETWORK, NETWORKS, ranked_at
from ple_gym.scenario.model import Scenario
from ple_gym.sim.description import Memory
from ple_gym.view.features import table_of


@dataclass(frozen=True, eq=False)
class LearnedPolicy:
    """A network that decides; attributes and methods are those of a rule (`rules/registry.py`)."""

    name: str
    network: Network
    summary: str

    reads = "its observation"
    actuator = "pull"
    source = "agents/checkpoints.tar.xz"
    where = "a network"
    hypothetical = False
    settled = True  # who seems to spin depends on how long it has run by now
    words = Memory()

    @property
    def information(self) -> str:
        """Level of what it observes."""
        return self.network.information

    @property
    def privileged(self) -> bool:
        """Whether it is told the guest's state."""
        return self.information == "oracle"

    @property
    def address(self) -> int:
        """What the simulator calls."""
        return NETWORKS.address

    @cached_property
    def block(self) -> npt.NDArray[np.uint8]:
        """Sizes and weights, as the compiled networks read them."""
        record: Any = np.zeros(1, NETWORK)
        network = self.network
        shown = table_of(network.scheduler, network.interrupts)
        record["kind"], record["hidden"] = network.code, network.hidden
        record["features"], record["host"] = len(shown.of_vcpu(LEVELS[self.information])), len(shown.host)
        record["waited"], record["spin_age"] = ranked_at(network.scheduler)
        record["temperature"] = network.temperature
        return np.concatenate([record.view(np.uint8), self.network.flat().view(np.uint8)])

    def world(self, scenario: Scenario) -> Scenario:
        """The scenario that it runs in."""
        return scenario
