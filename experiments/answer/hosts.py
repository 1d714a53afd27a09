"""Which signs stay on other hosts? The rules against the host's own yield, on Xen and Linux schedulers by version.

`robustness` varies one host, Xen 4.5's. Here the host is another: credit by version, with the credits of four or of six
pCPUs, credit2, and Linux's fair scheduler by version, with groups or without. On each a rule does what it names by
running the vCPU here (with the spinner in its place, or not), or by a hint. The worlds are those in which a rule
matters. Linux's rows are there twice: a switch makes the next vCPU refill its cache, also behind one that has only spun
for a few microseconds; if that costs nothing, the other extreme is shown.

A row holds one seed under every rule: the time under the host's own yield, and how much longer it is under the others,
in microseconds. A run is cut off after half a second, which is then its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.answer.answer import IN_LINE
from experiments.answer.field import NO_REFILL
from experiments.answer.robustness import sign
from experiments.answer.rules import PAIRED, in_percent, paired
from experiments.lab import Experiment, Table, Task, overrides_text, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.evaluate.statistics import Estimate, ratio
from ple_gym.rules.own import KVM

Settings = Mapping[str, object]

BASE = "host"
PROPOSAL = "proposal"
OTHERS = (PROPOSAL, "kvm-2012", "kvm", "spin-age-self", "longest-waiting", "oracle")
SEEDS = 24
REFILL_FREE = ", no refill"

#: What is shown as -> scenario and overrides.
WORLDS: Mapping[str, tuple[str, Settings]] = {
    "Busy8": ("Busy8-v1", {}),
    "Paper8 in line": ("Paper8-v1", IN_LINE),
    "Paper32 in line": ("Paper32-v1", IN_LINE),
}
ACTUATORS: Mapping[str, Settings] = {
    "hint": {"decision.actuator": "hint"},
    "pull": {"decision.actuator": "pull"},
    "pull, swap": {"decision.actuator": "pull", "decision.pull_swaps": "true"},
}
OTHER_POOL = ", other pool"
#: How many pCPUs earn credit on a host with the other pool than a world ships with.
POOLS: Mapping[str, int] = {"Busy8": 4, "Paper8 in line": 4, "Paper32 in line": 6}
XEN: Mapping[str, Settings] = {
    **{f"Xen {version}": {"host.xen": version} for version in ("4.5", "4.8", "4.17", "4.18")},
    **{f"Xen {version}{OTHER_POOL}": {"host.xen": version} for version in ("4.5", "4.18")},
    "credit2": {"host.scheduler": "credit2", "host.xen": "4.18"},
}


def _linux() -> Iterator[tuple[str, Settings]]:
    for version in KVM:
        for groups in ("vm", "flat", "vcpu") if version in ("5.15", "6.6", "6.18.2") else ("vm",):
            host = {"host.scheduler": "fair", "host.linux": version, "host.groups": groups, "ple.window_grow": 2}
            yield f"Linux {version}, {groups}", host
            yield f"Linux {version}, {groups}{REFILL_FREE}", {**host, **NO_REFILL}


HOSTS: Mapping[str, Settings] = {**XEN, **dict(_linux())}


def cells() -> list[tuple[str, str]]:
    """Host and actuator of every column of the grid; a spinner that is displaced goes elsewhere on Xen only."""
    return [(host, actuator) for host in HOSTS for actuator in ACTUATORS if host in XEN or actuator != "pull, swap"]


def overrides(place: str, host: str, actuator: str) -> dict[str, object]:
    """Of a world on a host with an actuator."""
    pool = {"host.credit_pcpus": POOLS[place]} if host.endswith(OTHER_POOL) else {}
    return {**WORLDS[place][1], **HOSTS[host], **pool, **ACTUATORS[actuator], "limit.simulated_s": 0.5}


def run(quick: bool) -> list[Task]:
    """Every world on every host with every actuator."""
    own = seeds.HOSTS[: 1 if quick else SEEDS]
    return [
        task
        for place, (scenario, _) in WORLDS.items()
        for host, actuator in cells()
        for task in tasks(scenario, PAIRED, own, overrides(place, host, actuator))
    ]


def measure(task: Task) -> dict[str, int]:
    """One seed under every rule; the paper's proposal brings work only as credit does, by a steal."""
    proposal = "paper" if world(task.scenario, task.overrides).host.scheduler == "credit" else "paper-local"
    found = paired(task, (BASE, *(proposal if rule == PROPOSAL else rule for rule in OTHERS)), bits=13)
    return {**found, PROPOSAL: found[proposal]}


def change(table: Table, place: str, host: str, actuator: str, rule: str) -> Estimate:
    """Of the makespan under a rule against the host's own yield, in percent."""
    part = rows(table, place, host, actuator)
    return in_percent(ratio(np.log1p(part[rule] / part[BASE])))


def rows(table: Table, place: str, host: str, actuator: str) -> Table:
    """Of a cell: a row per seed."""
    return table.where(scenario=WORLDS[place][0], overrides=overrides_text(overrides(place, host, actuator)))


@dataclass(frozen=True)
class Claim:
    """Who, by what: it says that the work takes less time than under the host's own yield."""

    text: str
    rule: str
    actuator: str


CLAIMS = (
    Claim("A likely holder or the oldest spinner of the asker's VM, run here at once", "spin-age-self", "pull"),
    Claim("KVM's candidate, run here at once", "kvm", "pull"),
    Claim("Whoever has waited longest, of any VM, run here at once", "longest-waiting", "pull"),
    Claim("The paper's proposal", PROPOSAL, "pull"),
    Claim("The same, where the spinner takes the place of whom it displaces", PROPOSAL, "pull, swap"),
    Claim("Any sibling, favoured by a hint (KVM until 3.5)", "kvm-2012", "hint"),
    Claim("KVM's candidate, favoured by a hint", "kvm", "hint"),
    Claim("A likely holder or the oldest spinner, favoured by a hint", "spin-age-self", "hint"),
    Claim("The blocker itself, favoured by a hint (the oracle)", "oracle", "hint"),
)


def families() -> dict[str, list[str]]:
    """Xen's hosts; Linux's, where a switch costs a refill; the same without."""
    linux = [host for host in HOSTS if host not in XEN]
    free = [host for host in linux if host.endswith(REFILL_FREE)]
    return {"Xen": list(XEN), "Linux": [host for host in linux if host not in free], "Linux, no refill": free}


def counts(table: Table, claim: Claim, hosts: Sequence[str]) -> tuple[int, int, int]:
    """In how many worlds on these hosts the work is clearly done sooner, unclear, clearly later."""
    own = [host for host, actuator in cells() if actuator == claim.actuator and host in hosts]
    signs = [sign(change(table, place, host, claim.actuator, claim.rule)) for place in WORLDS for host in own]
    return signs.count(-1), signs.count(0), signs.count(1)


def checks(table: Table) -> list[Check]:
    """In how many cells each claim holds, reported only; docs/findings-on-hosts.md has every cell."""
    return [
        Check("hosts", f"{claim.text}, {name}", "{} clearly sooner, {} unclear, {} clearly later".format(*found))
        for claim in CLAIMS
        for name, hosts in families().items()
        if any(found := counts(table, claim, hosts))
    ]


EXPERIMENT = Experiment("hosts", __doc__, (BASE, *OTHERS, "unfinished"), run, checks, measure=measure)
