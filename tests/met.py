"""What the random worlds have met: the features of a run, how many runs had each, and whether these are enough.

Every parameter of a scenario is counted by itself; what else is to be met is one line in `FEATURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from reference_simulator.rules import RULES as SPECIFIED
from worlds import ENDS

from ple_gym.scenario import Scenario
from ple_gym.sim.guest.kinds import LOCK_KINDS

ALL, EXITS = "all worlds", "exits > 0"
SHARE = 2 / 3
"""Of the worlds, in which somebody exits at a PAUSE loop: no rule is asked in others."""
ACTUATORS = [word for word in ENDS["decision.actuator"] if word != "default"]
DEFAULTS = Scenario().parameters()
RANDOM_RULES = sorted(SPECIFIED)


@dataclass(frozen=True, slots=True)
class Met:
    """A run that kernel and reference agree on.

    Attributes:
        scenario, rule: what ran.
        totals: what came of it, as `Lanes.totals` has it.
        noted: what has come to pass in the reference simulator on the way.
        values: the scenario's parameters by dotted name.
    """

    scenario: Scenario
    rule: str
    totals: Mapping[str, Any]
    noted: frozenset[str] = frozenset()
    values: Mapping[str, object] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", self.scenario.parameters())


Feature = Callable[[Met], bool]
Features = dict[str, Feature]


def words(parameter: str, *schedulers: str) -> Features:
    """A feature for each word that a parameter may be, under those schedulers that read it; none named: under all."""

    def has(word: object) -> Feature:
        return lambda met: (
            met.values[parameter] == word and (not schedulers or met.values["host.scheduler"] in schedulers)
        )

    return {f"{parameter} = {word}": has(word) for word in ENDS[parameter]}


def counted(*names: str) -> Features:
    """A feature for each total of a run that may be more than 0."""

    def has(name: str) -> Feature:
        return lambda met: met.totals[name] > 0

    return {f"{name} > 0": has(name) for name in names}


def spent(*names: str) -> Features:
    """A feature for each way in which pCPUs may spend time."""

    def has(name: str) -> Feature:
        return lambda met: met.totals["cycles"][name] > 0

    return {f"cycles.{name} > 0": has(name) for name in names}


def changed(*names: str) -> Features:
    """A feature for each parameter: it is not what it is by default. (Of `guest`, the first VM alone.)"""

    def has(name: str) -> Feature:
        return lambda met: met.values[name] != DEFAULTS[name]

    return {f"{name} changed": has(name) for name in names}


def under(rule: str) -> Feature:
    return lambda met: met.rule == rule


#: Feature -> whether a run has it. `make explore` must meet each in 300 worlds.
FEATURES: Features = {
    **words("host.scheduler"),
    **words("host.xen", "credit", "credit2"),
    **words("host.runqueue", "credit2"),
    **words("host.coscheduling", "credit"),
    **words("host.linux", "fair"),
    **words("host.groups", "fair"),
    **words("host.placement", "fair"),
    **words("host.load_balance", "fair"),
    **words("host.debooster", "fair"),
    **words("ple.kind"),
    **words("decision.actuator"),
    **words("guest.lock_kind"),
    **words("guest.start"),
    **words("guest.ipi_to"),
    **{f"rule {rule}": under(rule) for rule in RANDOM_RULES},
    **changed(*ENDS),
    **counted("exits", "exits_holder_off", "exits_holder_running", "exits_lock_free", "lhp_events", "lwp_events"),
    **counted("steals", "migrations", "halts", "notifications", "ipis", "ipi_events", "finished"),
    **counted("hints", "hints_failed", "hints_ignored", "hints_won"),
    **spent("useful", "spin", "exit", "switch", "cache", "idle", "stolen"),
    "neighbours": lambda met: bool(met.scenario.neighbours),
    "different weights": lambda met: len({vm.weight for vm in met.scenario.vms().values()}) > 1,
    "pinned": lambda met: any(vm.affinity == "pinned" for vm in met.scenario.vms().values()),
    "more threads than vCPUs": lambda met: any(vm.threads > vm.vcpus for vm in met.scenario.vms().values()),
    "as many pCPUs as vCPUs": lambda met: met.scenario.host.pcpus >= met.scenario.vcpus,
    "windows grow": lambda met: met.scenario.ple.window_grow > 1 and met.totals["exits"] > 0,
    "windows are chosen": lambda met: met.scenario.chooses_windows and met.totals["exits"] > 0,
    "kicks that yield": lambda met: "a kick yields" in met.noted,
    "responses": lambda met: met.totals["responses"]["count"] > 0,
    "late responses": lambda met: met.totals["responses"]["late"] > 0,
    "hints take locks": lambda met: met.scenario.cost.yield_to > 0 and met.totals["hints"] > 0,
}


def combination(*parts: object) -> str:
    return " x ".join(map(str, parts))


COMBINATIONS = [combination(*parts) for parts in product(ENDS["host.scheduler"], ACTUATORS, LOCK_KINDS)]


def met_in(met: Met) -> Iterator[str]:
    """The features of a run, its combination of host, actuator and lock, what was noted of it, and `ALL`."""
    yield ALL
    yield from (name for name, has in FEATURES.items() if has(met))
    yield combination(met.scenario.host.scheduler, met.scenario.actuator, met.scenario.guest.lock_kind)
    yield from met.noted


def lacking(counts: Mapping[str, int], least: int) -> list[str]:
    """What too few worlds had: features, combinations (a tenth of `least`), and exits."""
    enough = dict.fromkeys(FEATURES, least) | dict.fromkeys(COMBINATIONS, least // 10)
    enough[EXITS] = round(SHARE * counts[ALL])
    return [f"{name}: {counts.get(name, 0)}, not {most}" for name, most in enough.items() if counts.get(name, 0) < most]


def report(counts: Mapping[str, int]) -> Iterator[str]:
    """A line for all worlds, and one for whatever was met, the rarest first."""
    yield f"{counts[ALL]:,} random worlds in which kernel and reference agree; how many had what:"
    for name, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        yield f"{count:7,}  {name}"
