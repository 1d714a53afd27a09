"""The worlds that experiments run, by name: the built-in scenarios and others.

A built-in scenario's name means its first version here, of which the committed results are and for which the committed
policies were trained; `Storm-v1` names another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from experiments.lab.field import FIELD
from experiments.lab.folders import PROFILES
from experiments.lab.searched import SEARCHED
from ple_gym.scenario import Host, Limit, Scenario, Vm
from ple_gym.scenario.builtin import VERSIONS, load

WORLDS: Mapping[str, Scenario] = {
    # Figure 2 without the busy neighbour: the benchmark's VM has all 32 vCPUs.
    "Paper32Alone": replace(
        load("Paper32-v1"), name="Paper32Alone", guest=replace(load("Paper32-v1").guest, vcpus=32), neighbours=()
    ),
    # The same beside a VM that only computes.
    "Busy8Hog": replace(
        load("Busy8-v1"), name="Busy8Hog", neighbours=(replace(load("Paper32-v1").neighbours[0], vcpus=4),)
    ),
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
    **FIELD,
    **SEARCHED,
}


def load_world(name: str) -> Scenario:
    """A world of this module, a fitted profile (`fitted`, `dear-exits`), or a built-in scenario.

    Raises:
        ScenarioError: no such scenario.
    """
    profile = PROFILES / f"{name}.toml"
    if name in WORLDS:
        return WORLDS[name]
    if profile.exists():
        return load(str(profile))
    return load(f"{name}-v0" if name in VERSIONS else name)
