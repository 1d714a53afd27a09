"""What a hypervisor sees of a lane: all that the observations of its level are written from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ple_gym.sim.jit import inlined


class Hints(NamedTuple):
    """Hints of this run so far, on all pCPUs; those that no pCPU has answered are in `given` alone."""

    given: np.int64
    failed: np.int64
    ignored: np.int64
    won: np.int64


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
    hints: Hints  # numbers, as most of the world's record is hidden


@inlined
def sight_of(s):
    """The visible part of a lane."""
    world = s.world[0]
    hints = Hints(world.hints, world.hints_failed, world.hints_ignored, world.hints_won)
    return Sight(s.par, s.vmp, s.pcpu, s.vcpu, s.queue, s.ipi, s.host_par, s.host_pcpu, s.host_vcpu, hints)
