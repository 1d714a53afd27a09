"""The built-in scenarios, and reading one from a file.

Each number that is not a default stands here once, with the reason for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ple_gym.errors import ScenarioError
from ple_gym.files import read_text, reading
from ple_gym.scenario import fleet
from ple_gym.scenario.core import CORE
from ple_gym.scenario.deployments import DEPLOYMENTS
from ple_gym.scenario.model import MAX_BYTES, Cost, Host, Limit, Noise, Scenario, Vm
from ple_gym.scenario.parameters import unknown

_PAPER8 = Scenario(
    name="Paper8",
    description="The paper's section 4.1: a VM with 8 vCPUs on 4 pCPUs (Figures 3 to 6)",
    # Two of the machine's six pCPUs are dom0's; how they are kept from the guest is not said. With dom0 pinned and the
    # guest's affinity set, as is usual, Xen hands out the credits of all six.
    host=Host(credit_pcpus=6),
    guest=Vm(
        vcpus=8,
        # 10,000 requests [paper]; 11 sections of 145,000 cycles: 1.49 s of work for each of the 4 pCPUs.
        transactions=10_000,
        sections=11,
        compute="exponential 145000",
        # A vCPU takes one given lock every 20 ms of its CPU time: locks * 145,000 / 0.15 = 53.4 M cycles.
        lock_probability=0.15,
        locks=55,
    ),
)

_ALL = (
    # Small, with a known best answer -----------------------------------------------------------------------------
    Scenario(
        name="Tiny",
        description="Three vCPUs share one pCPU and one hot lock: small enough to search for the best schedule",
        host=Host(pcpus=1),
        limit=Limit(simulated_s=1.0),
        guest=Vm(
            vcpus=3,
            transactions=100,
            sections=5,
            # 500 sections of 110,000 cycles: 20.6 ms of work. Every section takes the one lock, so that the line
            # formed at the start never dissolves.
            compute="exponential 100000",
            hold="constant 10000",
            lock_probability=1.0,
            hot_probability=1.0,
            start="convoy",
        ),
    ),
    Scenario(
        name="HolderPreempted",
        description="The lock holder is off its only pCPU while the other vCPU spins: run the holder",
        host=Host(pcpus=1),
        limit=Limit(simulated_s=0.1),
        guest=Vm(
            vcpus=2,
            # A convoy starts with vCPU 0 holding the lock and vCPU 1 on the pCPU. One section each; nothing is random.
            transactions=2,
            sections=1,
            compute="constant 20000",
            hold="constant 2000",
            lock_probability=1.0,
            hot_probability=1.0,
            start="convoy",
        ),
    ),
    Scenario(
        name="TicketOrder",
        description="Six vCPUs on two pCPUs queue for one hot lock: run them in the order of their tickets",
        host=Host(pcpus=2),
        # Moving costs nothing and a hold outlasts four exits, so that only the order counts.
        cost=Cost(cache=0, migration=0),
        limit=Limit(simulated_s=2.0),
        guest=Vm(
            vcpus=6,
            # Four rounds of one section each; nothing is random.
            transactions=24,
            sections=1,
            compute="constant 20000",
            hold="constant 20000",
            lock_probability=1.0,
            hot_probability=1.0,
            start="convoy",
        ),
    ),
    # For speed and for training ----------------------------------------------------------------------------------
    Scenario(
        name="Storm",
        description="32 vCPUs start in line for one of four busy locks on 4 pCPUs: short and full of decisions",
        limit=Limit(simulated_s=0.1),
        guest=Vm(
            vcpus=32,
            locks=4,
            # 450 * 8 sections of 30,000 cycles: 10.1 ms of work for each of the 4 pCPUs.
            transactions=450,
            sections=8,
            compute="exponential 30000",
            # Not from a source. Chosen for about 750 decisions under `oracle`, 1,250 under `kvm` and 10,000 under
            # `xen-4.8`; twice the probability doubles those under `kvm`.
            lock_probability=0.05,
            start="convoy",
        ),
    ),
    replace(
        _PAPER8,
        name="Busy8",
        description="Paper8's VM with eight busy locks: every run has long waits",
        # Not from a source. Each vCPU takes one given lock every 2.9 ms of its CPU time, and holds it for 20 us.
        guest=replace(_PAPER8.guest, transactions=1000, locks=8, hold="exponential 53400"),
    ),
    # The paper's experiments -------------------------------------------------------------------------------------
    _PAPER8,
    Scenario(
        name="Paper32",
        description="After the paper's section 3.2: 32 busy vCPUs on 4 pCPUs, 24 of them the benchmark's (Figure 2)",
        # Set A24 of the calibration against the paper's Figure 2, which was made with the credits of these four pCPUs:
        # 5 bursts/s of 2.3 ms; the level is the default's.
        noise=Noise(rate_hz=5, burst_us=2300, cap_permille=180),
        guest=Vm(
            vcpus=24,
            # 10,000 requests, as section 4.1 says of sysbench; 3.2 says only "the same benchmark, 10,000 times", and
            # nothing of 24 vCPUs or of a neighbour: both are assumed. 10 sections of 110,000 cycles: 1.03 s of work for
            # each of the 4 pCPUs, 1.37 s at a share of 24 / 32, and about 1.5 s with the round of busy neighbours that
            # the last requests wait for.
            transactions=10_000,
            sections=10,
            compute="exponential 110000",
            # A vCPU takes one given lock every 56 ms of its CPU time.
            lock_probability=0.11,
            locks=150,
        ),
        neighbours=(
            # Busy without end and without locks. Long sections, because their number has no meaning here.
            Vm(
                vcpus=8,
                transactions=0,
                sections=1,
                compute="constant 2670000000",
                kernel_share=0.0,
                locks=0,
                lock_probability=0.0,
            ),
        ),
    ),
    # Where there is something to learn -------------------------------------------------------------------------------
    *CORE,
    # Hosts and guests that people run ------------------------------------------------------------------------------
    *DEPLOYMENTS,
)

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({scenario.name: scenario for scenario in _ALL})
"""The built-in scenarios by name, in a mapping that cannot be changed, each in its newest version.

`load("Storm-v0")` returns an earlier one.

Raises:
    KeyError: there is no such name.

Examples:
    >>> ple_gym.SCENARIOS["Storm"].vcpus, ple_gym.SCENARIOS["Storm"].host.pcpus
    (32, 4)
"""

# What version 0 set otherwise. A pulled vCPU's place was taken by the asker, as neither Xen nor the paper does.
_SWAPPING = {"decision.pull_swaps": True}
_FOUR_EARN = _SWAPPING | {"host.credit_pcpus": 0}
_V0: Mapping[str, Mapping[str, object]] = {
    "TicketOrder": _SWAPPING,
    "Storm": _SWAPPING,
    "Busy8": _FOUR_EARN,
    # 5 bursts/s of 2.3 ms, times exp(1.6 z) for a normal z of the run, at most 20 %: set C of the calibration against
    # the paper's Figure 2. The quantiles at 0.0001 and 0.9999 stand for the ends. Section 4.1 excludes such noise: dom0
    # has pCPUs of its own.
    "Paper8": _FOUR_EARN
    | {
        "noise.rate_hz": 5,
        "noise.burst_us": 2300,
        "noise.level": "knots 0:3 0.01:24 0.05:72 0.1:129 0.25:340 0.5:1000 0.75:2942 0.9:7772 0.95:13898 0.975:23010 "
        "0.99:41353 0.995:61641 0.999:140383 1:383917",
        "noise.cap_permille": 200,
    },
    "Paper32": _SWAPPING,
    "XcpWindows": _SWAPPING,
    "Consolidated": _SWAPPING,
}

VERSIONS: Mapping[str, int] = MappingProxyType({name: int(name in _V0) for name in SCENARIOS})
"""The newest version of each built-in scenario; what one computes changes only with its version."""

EARLIER: Mapping[str, Scenario] = MappingProxyType(
    {f"{name}-v0": replace(SCENARIOS[name].with_overrides(_V0[name]), name=f"{name}-v0") for name in _V0}
)
"""Earlier versions of built-in scenarios, as `Storm-v0`. They stay what they were."""

#: What each is for: small with a known best answer, speed and training, reproducing the paper, something to learn, or
#: machines of today.
SUITES: Mapping[str, str] = MappingProxyType(
    {
        "Tiny": "micro",
        "HolderPreempted": "micro",
        "TicketOrder": "micro",
        "Storm": "train",
        "Busy8": "train",
        "Paper8": "repro",
        "Paper32": "repro",
        **{scenario.name: "core" for scenario in CORE},
        **{scenario.name: "deploy" for scenario in DEPLOYMENTS},
    }
)


def load(name: str) -> Scenario:
    """Return a built-in scenario, or the one in a .toml or .json file.

    Args:
        name: `Paper8` (the newest version), `Paper8-v0`, the Gymnasium id `PLE/Paper8-v0`, a world of a fleet
            (`FleetTest-17`), or a path.

    Raises:
        ScenarioError: no such scenario, or the file cannot be read or is wrong.

    Examples:
        >>> ple_gym.load("Paper8") == ple_gym.load("PLE/Paper8-v1")
        True
        >>> ple_gym.load("Paper8-v0").noise.rate_hz
        5
    """
    readers = {".toml": Scenario.from_toml, ".json": Scenario.from_json}
    path = Path(name)
    if path.suffix in readers:
        with reading(path, ScenarioError, "a scenario"):
            return readers[path.suffix](read_text(path, MAX_BYTES))
    newest = {f"{known}-v{VERSIONS[known]}": scenario for known, scenario in SCENARIOS.items()}
    found = {**SCENARIOS, **newest, **EARLIER}.get(name.removeprefix("PLE/")) or fleet.named(name.removeprefix("PLE/"))
    if found is None:
        raise unknown("scenario", name, SCENARIOS, list_all=True)
    return found
