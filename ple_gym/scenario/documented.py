"""Parameters by name, and a scenario as a file to edit: every one with its value, what it is, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ple_gym.scenario.model import DEFAULT, Scenario, Vm, describe_parameters
from ple_gym.scenario.parameters import unknown

_NEIGHBOUR = "[[neighbours]]"
_USUAL = Scenario(neighbours=(Vm(),))


def parameters_named(names: Sequence[str] = ()) -> list[str]:
    """The parameters that are named, alone (`ple.window`) or by their group (`ple`), in the model's order; all if none.

    A neighbour's (`neighbours.0.vcpus`, `neighbours`) are those of `guest`.

    Raises:
        ScenarioError: there is none of a name.
    """
    known = list(describe_parameters())
    wanted = set() if names else set(known)
    for name in names:
        one = re.sub(r"^neighbours(\.[0-9]+)?(?=\.|$)", "guest", name)
        found = [parameter for parameter in known if parameter == one or parameter.startswith(f"{one}.")]
        if not found:
            raise unknown("parameter", name, known)
        wanted.update(found)
    return [name for name in known if name in wanted]


def documented_toml(
    scenario: Scenario, names: Collection[str] | None = None, notes: Mapping[str, str] | None = None
) -> str:
    """The TOML document of a scenario, with a comment above every parameter (once, where VMs share it).

    names: leave out what has its default and is not one of these; all if None. notes: what stands behind each line, by
    the parameter's dotted name.

    It reads back as the same scenario.
    """
    described = describe_parameters()
    usual = set() if names is None else {pair for pair in _lines(_USUAL) if pair[0] not in names}
    lines = ["# A scenario of ple_gym. What is left out takes its default: ple-gym parameters"]
    head, explained, number = "", set[str](), -1
    for name, line in _lines(scenario):
        if not name and line == _NEIGHBOUR:  # also one in which nothing is to be said is a VM
            note = "# Another VM; its parameters are those of [guest]. Each VM has such a table."
            lines += ["", *([note] if line not in explained else []), line]
            explained.add(line)
            head, number = "", number + 1
        elif not name:
            head = line
        if not name or (name, line) in usual:
            continue
        if head:
            lines += ["", head]
            head = ""
        known = name.replace("neighbours.", "guest.")
        if known not in explained:
            allowed, text = described[known]
            lines.append(f"# {text}: {allowed}")
            explained.add(known)
        if name == "decision.actuator" and scenario.decision.actuator == DEFAULT:
            line += f"  # here {scenario.actuator}"
        if notes:
            line += f"  # {notes[name.replace('neighbours.', f'neighbours.{number}.')]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _lines(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each line of its TOML document with the parameter it sets, `neighbours.vcpus` of any; empty for heads."""
    group = ""
    for line in scenario.to_toml().splitlines():
        if line.startswith("["):
            group = f"{line.strip('[]')}."
            yield "", line
        elif line:
            yield f"{group}{line.partition(' = ')[0]}", line
