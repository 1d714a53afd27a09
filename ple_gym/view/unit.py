"""The view as a compile unit: mask and observation of the decision that is due in a lane."""

from __future__ import annotations

from functools import cache

from ple_gym.sim.seam import Host
from ple_gym.sim.state import open_lane
from ple_gym.sim.units import Unit, sources
from ple_gym.view.features import INTERRUPTS, table_of, table_of_all
from ple_gym.view.observation import show_of


@cache
def view(host: Host, dtype: str, room: int = 0) -> Unit:
    """What writes them under a host's scheduler; dtype: `float32`, `float16` or `uint8`.

    room: vCPUs that there is room for, in the form that all schedulers have in common (`table_of_all`); 0: those of the
    scenario, in the scheduler's own form.
    """
    show = show_of(table_of_all(host.name) if room else table_of(host.name), INTERRUPTS, dtype, room)

    def entry(description, row, mask, observation):
        """Arguments are addresses. mask: int8 [V + 1]; observation: as `features.py` and `codes.py` say."""
        show(open_lane(host, description, row, row, row, 0), description, mask, observation)
        return 0

    made_of = [*sources("view/*.py", "sim/*.py", "sim/guest/*.py"), *host.sources]
    return Unit(f"view.{host.name}.{dtype}" + (f".{room}" if room else ""), entry, 4, made_of)
