"""A scenario as a file to edit: every parameter with its value, what it is, and what is allowed."""

from __future__ import annotations

from ple_gym.scenario.model import DEFAULT, Scenario, describe_parameters


def documented_toml(scenario: Scenario) -> str:
    """The TOML document of a scenario, with a comment above every parameter (once, where VMs share it).

    It reads back as the same scenario.
    """
    described = describe_parameters()
    lines = ["# A scenario of ple_gym. What is left out takes its default: ple-gym list --parameters"]
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
