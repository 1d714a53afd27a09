"""What the program itself tells about files: the parameters of scenarios, and a whole scenario file."""

from __future__ import annotations

from ple_gym.scenario import Scenario, describe_parameters
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.scenario.documented import documented_toml

PARAMETERS = """# Parameters of a scenario

This page lists everything that `--set NAME=VALUE`, `overrides=` and a scenario's file can change, with its default.
Parameters of `guest` are those of every neighbour, too: `neighbours.0.weight`.
[The model](../model.md#2-parameters) says what each one does.

"""
WHOLE = """
## A whole file

`ple-gym show {name}` prints this file. What is left out of a file takes its default.

```toml
{toml}```

## Where to go next

[Describe your machine](../howto/describe-your-machine.md) · [Profiles of machines](../hosts/profiles.md) ·
[Profiles of guests](../guests.md)
"""


def pages() -> dict[str, str]:
    """Page -> Markdown."""
    defaults = Scenario().parameters()
    groups: dict[str, list[str]] = {}
    for name, (allowed, text) in describe_parameters().items():
        default = defaults.get(name, "")
        row = f"| `{name}` | {_cell(allowed)} | {_cell(str(default))} | {_cell(text)} |"
        groups.setdefault(name.rpartition(".")[0], []).append(row)
    head = "| name | allowed | default | meaning |\n| --- | --- | --- | --- |\n"
    tables = [f"## {group or 'The scenario'}\n\n{head}" + "\n".join(rows) + "\n" for group, rows in groups.items()]
    whole = WHOLE.format(name="Storm", toml=documented_toml(SCENARIOS["Storm"]))
    return {"reference/parameters.md": PARAMETERS + "\n".join(tables) + whole}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
