"""The view as a compile unit: mask and observation of the decision that is due in a lane."""

from __future__ import annotations

from functools import cache

from ple_gym.errors import ScenarioError
from ple_gym.sim.seam import Host
from ple_gym.sim.state import open_lane
from ple_gym.sim.units import Unit, sources
from ple_gym.view import credit
from ple_gym.view.observation import show


@cache
def view(host: Host) -> Unit:
    """What writes them under a host's scheduler.

    Raises:
        ScenarioError: nothing shows this scheduler to agents yet.
    """
    if host.name != credit.NAME:
        raise ScenarioError(f"host.scheduler = {host.name}: it cannot be observed: only {credit.NAME} has features")

    def entry(description, row, mask, observation):
        """Arguments are addresses. mask: int8 [V + 1]; observation: as `features.py` and `codes.py` say."""
        show(open_lane(host, description, row, row, row, 0), mask, observation)
        return 0

    made_of = [*sources("view/*.py", "sim/*.py", "sim/guest/*.py"), *host.sources]
    return Unit(f"view.{host.name}", entry, 4, made_of)
