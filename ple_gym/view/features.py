"""The table of features: what an agent sees of every vCPU and of the host, at three information levels.

Everything that must know a feature reads it here: the kernel that writes observations, the spaces, the documents, the
files of learned policies. To add one is to add a row. Which place it has in an observation nobody needs to know: a
policy file names its features, and `table_of` tells the order.

A row that shows more than a hypervisor sees belongs to a higher level; its writer gets words that the lower levels'
writers do not have, so that these cannot peek.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from ple_gym.scenario.model import Scenario
from ple_gym.sim.state import BLOCKED, PLE_YIELD, QUEUED, RUNNING
from ple_gym.view import credit, credit2, fair
from ple_gym.view.record import HYPERVISOR, INTROSPECTION, ORACLE
from ple_gym.view.rows import FLAG, LOGARITHM, PLACE, SHARE, Feature, Table, its_record, joined, merged
from ple_gym.view.scales import FLOAT32, TOP, ZERO, counted, scaled

#: Of every vCPU, whatever the host's scheduler.
NEUTRAL_VCPU = (
    Feature(
        "asker", HYPERVISOR, "it exited and the decision is about its pCPU", FLAG,
        lambda number, asker: number == asker,
    ),
    Feature(
        "queued", HYPERVISOR, "runnable, waiting for a pCPU", FLAG,
        lambda state: state == QUEUED,
    ),
    Feature(
        "running", HYPERVISOR, "on another pCPU", FLAG,
        lambda state, number, asker: FLOAT32(state == RUNNING) * FLOAT32(number != asker),
    ),
    Feature(
        "asleep", HYPERVISOR, "blocked, halted or done", FLAG,
        lambda state: state >= BLOCKED,
    ),
    Feature(
        "here", HYPERVISOR, "waiting in the asking pCPU's own queue", FLAG,
        lambda state, pcpu, p: FLOAT32(state == QUEUED) * FLOAT32(pcpu == p),
    ),
    Feature(
        "sibling", HYPERVISOR, "of the asker's VM", FLAG,
        lambda sibling: sibling,
    ),
    Feature(
        "position", HYPERVISOR, "place in its queue: 0 = head, 1 = as many before it as the machine has vCPUs", SHARE,
        lambda place, per_vcpu: FLOAT32(place) * per_vcpu,
    ),
    Feature(
        "waited", HYPERVISOR, "L(time in the queue)", LOGARITHM,
        lambda state, waited: FLOAT32(state == QUEUED) * waited,
    ),
    Feature(
        "last_run", HYPERVISOR, "L(length of its last dispatch)", LOGARITHM,
        lambda last_run: last_run,
    ),
    Feature(
        "left_in_kernel", HYPERVISOR, "lost its pCPU in kernel mode", FLAG,
        lambda left_kernel: left_kernel,
    ),
    Feature(
        "left_by_exit", HYPERVISOR, "lost its pCPU at a PLE exit", FLAG,
        lambda left_by: left_by == PLE_YIELD,
    ),
    Feature(
        "suspected_spinner", HYPERVISOR, "has not run two windows without an exit since its last one", FLAG,
        lambda suspected: suspected,
    ),
    Feature(
        "exits", HYPERVISOR, "PLE exits since it last made progress, as a count", LOGARITHM,
        lambda exits: counted(exits),
    ),
    Feature(
        "since_exit", HYPERVISOR, "L(time since its last exit); 1.5 if it never had one", LOGARITHM,
        lambda exits, since_exit: since_exit if exits > 0 else TOP,
    ),
    Feature(
        "spin_age", HYPERVISOR, "L(time since its first exit without progress since); 0 if it does not seem to spin",
        LOGARITHM,
        lambda suspected, spin_age: FLOAT32(suspected) * spin_age,
    ),
    Feature(
        "same_code", HYPERVISOR, "its last exit was in the same lock function as the asker's", FLAG,
        lambda exits, code, asker_code: FLOAT32(exits > 0) * FLOAT32(code == asker_code),
    ),
    Feature(
        "pcpu", HYPERVISOR, "number of the pCPU that it runs on, is queued on or last ran on (of all pCPUs)", SHARE,
        lambda pcpu, per_pcpu: FLOAT32(pcpu) * per_pcpu,
    ),
    Feature(
        "lock_known", INTROSPECTION, "the lock it spun on at its last exit is still what it seems to wait for", FLAG,
        lambda suspected: suspected,
    ),
    Feature(
        "same_lock", INTROSPECTION, "and that is the asker's lock", FLAG,
        lambda waits: waits,
    ),
    Feature(
        "line_guess", INTROSPECTION,
        "how many that seem to wait for it began to spin earlier (of all vCPUs); 1.5 if it does not", PLACE,
        lambda waits, earlier, per_vcpu: FLOAT32(earlier) * per_vcpu if waits > 0 else TOP,
    ),
    Feature(
        "holder", ORACLE, "holds the asker's lock, or owes it an acknowledgement", FLAG,
        lambda holder: holder,
    ),
    Feature(
        "next", ORACLE, "the asker's lock is its to take", FLAG,
        lambda next_one: next_one,
    ),
    Feature(
        "line", ORACLE, "place in the ticket line of the asker's lock (of all vCPUs); 1.5 if it is not in it", PLACE,
        lambda place, per_vcpu: FLOAT32(place) * per_vcpu if place >= 0 else TOP,
    ),
    Feature(
        "holds", ORACLE, "holds any lock", FLAG,
        lambda holds: holds,
    ),
    Feature(
        "behind", ORACLE, "waiters behind it in that line (of all vCPUs)", SHARE,
        lambda place, behind, per_vcpu: FLOAT32(behind) * per_vcpu if place >= 0 else ZERO,
    ),
)  # fmt: skip

#: Of every vCPU, where the hypervisor sees interrupts (`Scenario.sees_interrupts`); behind all others of their level.
INTERRUPTS = (
    Feature(
        "interrupted", HYPERVISOR, "has interrupts of siblings to serve", FLAG,
        lambda pending: pending,
    ),
    Feature(
        "interrupted_by_asker", HYPERVISOR, "and one of them is the asker's", FLAG,
        lambda by_asker: by_asker,
    ),
    Feature(
        "interrupt_age", HYPERVISOR, "L(time since the first of them came); 0 if it has none", LOGARITHM,
        lambda pending, age: FLOAT32(pending) * age,
    ),
)  # fmt: skip

#: Of the host and the asker, whatever the scheduler.
NEUTRAL_HOST = (
    Feature(
        "queue", HYPERVISOR, "length of the asking pCPU's queue (of all vCPUs)", SHARE,
        lambda asking, per_vcpu: FLOAT32(asking.queued) * per_vcpu,
    ),
    Feature(
        "ran", HYPERVISOR, "L(time since the asker was switched in)", LOGARITHM,
        lambda later, asking, low, factor: scaled(later - asking.dispatched_at, low, factor),
    ),
    Feature(
        "idle", HYPERVISOR, "share of pCPUs that are idle", SHARE,
        lambda idle, per_pcpu: FLOAT32(idle) * per_pcpu,
    ),
    Feature(
        "noisy", HYPERVISOR, "share of pCPUs that run host noise", SHARE,
        lambda noisy, per_pcpu: FLOAT32(noisy) * per_pcpu,
    ),
    Feature(
        "spinning", HYPERVISOR, "share of pCPUs whose vCPU seems to spin", SHARE,
        lambda spinning, per_pcpu: FLOAT32(spinning) * per_pcpu,
    ),
    Feature(
        "queued", HYPERVISOR, "share of vCPUs that are queued", SHARE,
        lambda queued, per_vcpu: FLOAT32(queued) * per_vcpu,
    ),
    Feature(
        "asleep", HYPERVISOR, "share of vCPUs that are blocked or done", SHARE,
        lambda asleep, per_vcpu: FLOAT32(asleep) * per_vcpu,
    ),
    Feature(
        "queued_spinners", HYPERVISOR, "share of vCPUs that are queued and seem to spin", SHARE,
        lambda queued_spinners, per_vcpu: FLOAT32(queued_spinners) * per_vcpu,
    ),
    Feature(
        "since_decision", HYPERVISOR, "L(time since the previous decision)", LOGARITHM,
        lambda later, decided_at, low, factor: scaled(later - decided_at, low, factor),
    ),
    Feature(
        "since_decision_here", HYPERVISOR, "L(time since the previous decision on this pCPU)", LOGARITHM,
        lambda later, asking, low, factor: scaled(later - asking.decided_at, low, factor),
    ),
    Feature(
        "pcpu", HYPERVISOR, "number of the asking pCPU (of all pCPUs)", SHARE,
        lambda p, per_pcpu: FLOAT32(p) * per_pcpu,
    ),
)  # fmt: skip

#: What host schedulers add, by name. Of any other the neutral features are seen.
OWN: Mapping[str, Table] = {one.NAME: one.OWN for one in (credit, credit2, fair)}


@cache
def table_of(scheduler: str, interrupts: bool = False) -> Table:
    """What is seen of a host with this scheduler; interrupts: that sees these, too."""
    table = joined(NEUTRAL_VCPU, NEUTRAL_HOST, OWN.get(scheduler, Table((), ())))
    return table.with_more(INTERRUPTS) if interrupts else table


def _nothing() -> float:
    """What a scheduler says that has no such feature."""
    return ZERO


@cache
def table_of_all(scheduler: str = "") -> Table:
    """A table that is the same under every scheduler: features of one name share a column, and those that this
    scheduler does not have are 0.
    """
    vcpu = _shared(NEUTRAL_VCPU, [one for own in OWN.values() for one in own.vcpu], scheduler)
    host = _shared(NEUTRAL_HOST, [one for own in OWN.values() for one in own.host], scheduler)
    return Table(vcpu, host, OWN[scheduler].look if scheduler else its_record)


def _shared(neutral: tuple[Feature, ...], own: list[Feature], scheduler: str) -> tuple[Feature, ...]:
    by_name: dict[str, Feature] = {}
    for one in own:
        mine = one.scheduler == scheduler
        if mine or one.name not in by_name:
            by_name[one.name] = one if mine else replace(one, writer=_nothing, scheduler="")
    return merged(neutral, by_name.values())


def seen_in(scenario: Scenario) -> Table:
    """What is seen of a scenario."""
    return table_of(scenario.host.scheduler, scenario.sees_interrupts)


VCPU_FEATURES = table_of(credit.NAME).vcpu_names(HYPERVISOR)
"""Names of the features of a vCPU at level `hypervisor` under Xen's credit scheduler, in their order: F texts.

Under other schedulers, and at other levels, `names_at` says them. docs/observation.md has ranges and units.

Examples:
    >>> queued = ple_gym.VCPU_FEATURES.index("queued")
    >>> observation, info = ple_gym.PleEnv("TicketOrder", observation="tokens").reset(seed=0)
    >>> observation["vcpus"][:, queued]
    array([1., 1., 1., 1., 0., 0.], dtype=float32)
"""

HOST_FEATURES = table_of(credit.NAME).host_names
"""Names of the features of the host under Xen's credit scheduler, in their order: G texts.

Examples:
    >>> idle = ple_gym.HOST_FEATURES.index("idle")
    >>> observation, info = ple_gym.PleEnv("TicketOrder", observation="tokens").reset(seed=0)
    >>> float(observation["host"][idle])  # a share of all pCPUs
    0.0
"""


def names_at(information: str, scheduler: str = credit.NAME, interrupts: bool = False) -> tuple[str, ...]:
    """Names of the features of a vCPU at an information level: `hypervisor`, `introspection` or `oracle`; in order.

    interrupts: of a host that sees them (`Scenario.sees_interrupts`).
    """
    levels = {"hypervisor": HYPERVISOR, "introspection": INTROSPECTION, "oracle": ORACLE}
    return table_of(scheduler, interrupts).vcpu_names(levels[information])


def _where(feature: Feature) -> str:
    return "sees interrupts" if feature in INTERRUPTS else feature.scheduler or "any"


def feature_table() -> str:
    """All features as two Markdown tables, for docs/observation.md."""
    levels = {HYPERVISOR: "hypervisor", INTROSPECTION: "introspection", ORACLE: "oracle"}
    vcpu = Table(merged(NEUTRAL_VCPU, (one for own in OWN.values() for one in own.vcpu)), ()).with_more(INTERRUPTS).vcpu
    host = merged(NEUTRAL_HOST, (feature for own in OWN.values() for feature in own.host))
    parts = []
    for whose, features in (("of every vCPU", vcpu), ("of the host and the asker", host)):
        rows = [
            f"| `{one.name}` | {levels[one.level]} | {one.range[0]:g}..{one.range[1]:g} | {_where(one)} "
            f"| {one.meaning} |"
            for one in features
        ]
        parts.append("\n".join([f"| {whose} | level | range | host | meaning |", "|---|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"
