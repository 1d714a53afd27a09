"""What a hypervisor sees of a lane: all that the observations of its level are written from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ple_gym.sim.jit import inlined


class Sight(NamedTuple):
    """What the hypervisor sees at an exit."""

    par: np.ndarray  # PARAMETERS [1]
    vmp: np.ndarray  # VM_PARAMETERS [M]
    pcpu: np.ndarray  # PCPU [P]
    vcpu: np.ndarray  # VCPU [V]
    queue: np.ndarray  # uint16 [P, V]
    ipi: np.ndarray  # IPI [V, or 0]
    host_par: np.ndarray  # the scheduler's PARAMETERS [1]
    host_pcpu: np.ndarray  # the scheduler's PCPU [P]
    host_vcpu: np.ndarray  # the scheduler's VCPU [V]


@inlined
def sight_of(s):
    """The visible part of a lane."""
    return Sight(s.par, s.vmp, s.pcpu, s.vcpu, s.queue, s.ipi, s.host_par, s.host_pcpu, s.host_vcpu)
