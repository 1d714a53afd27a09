"""What a hypervisor sees of a lane: handed to rules and observations instead of the whole, so that they cannot peek."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ple_gym.sim.jit import inlined
from ple_gym.sim.state import LOCAL, QUEUED


class Sight(NamedTuple):
    """What the hypervisor sees at an exit, and what rules remember."""

    par: np.ndarray  # PARAMETERS [1]
    vmp: np.ndarray  # VM_PARAMETERS [M]
    pcpu: np.ndarray  # PCPU [P]
    vcpu: np.ndarray  # VCPU [V]
    queue: np.ndarray  # uint16 [P, V]
    memory: np.ndarray  # MEMORY [M]


@inlined
def sight_of(s):
    """The visible part of a lane."""
    return Sight(s.par, s.vmp, s.pcpu, s.vcpu, s.queue, s.memory)


@inlined
def may_run(see, p, v):
    """Whether v can be run on p: queued, and within reach of the actuator."""
    return see.vcpu[v].state == QUEUED and (see.par[0].actuator != LOCAL or see.vcpu[v].pcpu == p)
