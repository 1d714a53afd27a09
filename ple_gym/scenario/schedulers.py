"""The host's schedulers by name: `host.scheduler` is one of these. To add one is to add its file and a line here."""

from __future__ import annotations

#: Name -> the module whose `HOST` it is; loaded when a scenario needs it.
SCHEDULERS: dict[str, str] = {
    "credit": "ple_gym.sim.host.credit",
    "credit2": "ple_gym.sim.host.credit2",
    "fair": "ple_gym.sim.host.fair",
}
#: What a decision does by default (`decision.actuator`) where that is not `pull`: what the host has itself.
OWN_ACTUATOR = {"fair": "hint"}
