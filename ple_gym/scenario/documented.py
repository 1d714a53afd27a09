"""Parameters by name, and a scenario as a file to edit: every one with its value, what it is, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ple_gym.scenario.model import DEFAULT, Scenario, describe_parameters
from ple_gym.scenario.parameters import unknown


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


def documented_toml(scenario: Scenario) -> str:
    """The TOML document of a scenario, with a comment above every parameter (once, where VMs share it).

    It reads back as the same scenario.
    """
    described = describe_parameters()
    lines = ["# A scenario of ple_gym. What is left out takes its default: ple-gym parameters"]
    group = explained = ""
    for line in scenario.to_toml().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
            if line == "[[neighbours]]" != explained:
                lines += ["# Another VM; its parameters are those of [guest]. Each VM has such a table.", line]
                explained = line
                continue
        elif line and group != "neighbours":
            name = line.partition(" = ")[0]
            allowed, text = described[f"{group}.{name}" if group else name]
            lines.append(f"# {text}: {allowed}")
            if f"{group}.{name}" == "decision.actuator" and scenario.decision.actuator == DEFAULT:
                line += f"  # here {scenario.actuator}"
        lines.append(line)
    return "\n".join(lines) + "\n"
