"""The worlds that experiments run besides the built-in scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ple_gym.scenario import Host, Limit, Scenario, Vm
from ple_gym.scenarios import load

FITTED = Path(__file__).parent / "calibration" / "paper32-fitted.toml"

WORLDS: Mapping[str, Scenario] = {
    # Figure 1. Each vCPU computes 20 ms or so, then perhaps takes the lock, which it holds for 10 ms: the holder may
    # well lose its pCPU at the end of a time slice. One section each.
    "ThreeVcpus": Scenario(
        name="ThreeVcpus",
        host=Host(pcpus=1),
        limit=Limit(simulated_s=2.0),
        guest=Vm(
            vcpus=3,
            transactions=3,
            sections=1,
            compute="exponential 53400000",
            hold="constant 26700000",
            lock_probability=0.7,
            hot_probability=1.0,
            kernel_share=0.0,
        ),
    ),
    # One preempted holder, and all others in line: `guest.vcpus` and `guest.transactions` are set together. One section
    # each; nothing is random but the time slices' phase.
    "OnePreemption": Scenario(
        name="OnePreemption",
        limit=Limit(simulated_s=5.0),
        guest=Vm(
            vcpus=8,
            transactions=8,
            sections=1,
            compute="constant 20000",
            hold="constant 2000",
            lock_probability=1.0,
            hot_probability=1.0,
            start="convoy",
        ),
    ),
}


def load_world(name: str) -> Scenario:
    """A world of this module, the fitted profile (`fitted`), or a built-in scenario.

    Raises:
        ScenarioError: no such scenario.
    """
    if name == "fitted":
        return load(str(FITTED))
    return WORLDS.get(name) or load(name)
