"""Several configurations of a machine under the same policies on the same seeds: what a change of the machine changes.

Compared are makespans or, where no VM ever ends and so every run lasts until the limit, the throughput of each VM.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ple_gym.errors import ArgumentError, ScenarioError
from ple_gym.evaluate.comparison import Comparison, Outcome
from ple_gym.evaluate.policies import Policy
from ple_gym.evaluate.runs import Group, Progress, Seeds, compare_all, suiting
from ple_gym.evaluate.tabular import FlatRecord, Tabular, flat_records
from ple_gym.messages import plain, show
from ple_gym.scenario.builtin import load
from ple_gym.scenario.model import Scenario

Policies: TypeAlias = "Iterable[Policy | Group] | Policy | Group | None"


@dataclass(frozen=True, repr=False)
class Configurations(Tabular):
    """Comparisons on several configurations, with what is set in each; the first is what the others are compared to."""

    settings: tuple[Mapping[str, object], ...]
    comparisons: tuple[Comparison, ...]

    @property
    def endless(self) -> bool:
        """Whether throughput is compared."""
        return self.comparisons[0].endless

    @property
    def labels(self) -> list[str]:
        """A short name of each configuration: its values."""
        return [", ".join(map(_text, setting.values())) for setting in self.settings]

    def rows(self) -> list[Outcome]:
        """The outcomes, by configuration, policy and VM."""
        pairs, first = zip(self.settings, self.comparisons, strict=True), self.comparisons[0]
        return [row for setting, one in pairs for row in one.outcomes(setting, None if one is first else first)]

    def records(self) -> list[FlatRecord]:
        """A flat record per outcome; see `Outcome` for the names."""
        return flat_records(self.rows())

    def digests(self) -> dict[str, str]:
        """`Scenario.digest` of each configuration, by its values."""
        return {label: one.scenario.digest for label, one in zip(self.labels, self.comparisons, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a JSON-able dict."""
        pairs = zip(self.settings, self.comparisons, strict=True)
        return {
            "rows": self.records(),
            "configurations": [{"setting": dict(setting), **one.to_dict()} for setting, one in pairs],
        }

    def __repr__(self) -> str:
        return f"<Configurations {', '.join(self.settings[0])}: {'; '.join(self.labels)}>"


def compare_configurations(
    configurations: Mapping[str, str | Scenario],
    policies: Policies = None,
    seeds: Seeds = range(20),
    progress: Progress | bool = False,
    threads: int | None = None,
) -> Configurations:
    """Run several scenarios, by name, under the same policies and on the same seeds; the rest is as in `compare`.

    Raises:
        ScenarioError, PolicyError, ArgumentError: as `compare`; or some run ends in one scenario, and none in another.
    """
    settings = [{"configuration": name} for name in configurations]
    return _compared(settings, list(configurations.values()), policies, seeds, progress, threads)


def sweep(
    scenario: str | Scenario,
    parameters: Mapping[str, Sequence[object]],
    policies: Policies = None,
    seeds: Seeds = range(20),
    overrides: Mapping[str, object] | None = None,
    progress: Progress | bool = False,
    threads: int | None = None,
) -> Configurations:
    """Run a scenario with every combination of values of some parameters (or profiles); the rest is as in `compare`.

    Raises:
        ScenarioError, PolicyError, ArgumentError: as `compare`; or a parameter has no value, or one of them twice.

    Examples:
        >>> found = ple_gym.evaluate.sweep("TicketOrder", {"ple.window": [2048, 8192]}, ["xen-4.8", "kvm"], range(2))
        >>> [(row.setting["ple.window"], row.policy, row.ple_exits) for row in found.rows()]
        [(2048, 'xen-4.8', 286.0), (2048, 'kvm', 57.0), (8192, 'xen-4.8', 83.0), (8192, 'kvm', 51.0)]
    """
    world = load(scenario) if isinstance(scenario, str) else scenario
    points = [dict(zip(parameters, values, strict=True)) for values in itertools.product(*parameters.values())]
    if not points or not parameters:
        raise ArgumentError("sweep: there must be a parameter, and a value of each")
    worlds = [world.with_overrides({**(overrides or {}), **point}) for point in points]
    settings = [
        {name: one.parameters().get(name, value) for name, value in point.items()}
        for one, point in zip(worlds, points, strict=True)
    ]
    for setting in settings:
        if settings.count(setting) > 1:
            told = " ".join(f"{plain(name)}={_text(value)}" for name, value in setting.items())
            raise ArgumentError(f"sweep: {plain(told)} is there {settings.count(setting)} times, must be once")
    return _compared(settings, worlds, policies, seeds, progress, threads)


def _compared(
    settings: Sequence[Mapping[str, object]], scenarios: Sequence[str | Scenario], policies: Any, *others: Any
) -> Configurations:
    seeds, progress, threads = others
    worlds = [load(one) if isinstance(one, str) else one for one in scenarios]
    for setting, world in zip(settings, worlds, strict=True):
        if world.endless != worlds[0].endless:
            told = show(_text(next(iter(setting.values()))))
            raise ScenarioError(f"configuration {told}: a run must have an end in all configurations, or in none")
    chosen = suiting(*worlds) if policies is None else policies
    return Configurations(tuple(settings), tuple(compare_all(worlds, chosen, seeds, None, progress, threads)))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
