"""The view as a compile unit: mask and observation of the decision that is due in a lane."""

from __future__ import annotations

from functools import cache

from ple_gym.sim.memory import grid
from ple_gym.sim.seam import Host
from ple_gym.sim.state import FLOAT32, INT8, open_lane
from ple_gym.sim.units import Unit, sources
from ple_gym.view.observation import HOST_LENGTH, write_mask, write_observation


@cache
def view(host: Host) -> Unit:
    """What writes them under a host's scheduler."""

    def show(description, row, mask, observation):
        """Arguments are addresses. mask: int8 [V + 1]; observation: float32 [features V + host features]."""
        s = open_lane(host, description, row, row, row, 0)
        par = s.par[0]
        write_mask(s, grid(mask, 0, INT8, 1, 1, par.vcpus + 1))
        write_observation(
            s,
            grid(observation, 0, FLOAT32, 4, par.features, par.vcpus),
            grid(observation, 4 * par.vcpus * par.features, FLOAT32, 4, 1, HOST_LENGTH),
        )
        return 0

    return Unit(f"view.{host.name}", show, 4, [*sources("view/*.py", "sim/*.py", "sim/guest/*.py"), *host.sources])
