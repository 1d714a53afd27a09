"""Tuned rules as files: what `ple-gym tune` found, `./mine.toml` or `tuned:FILE` wherever a policy is named."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ple_gym.errors import PolicyError, ScenarioError
from ple_gym.files import read_text, reading
from ple_gym.learned.cards import TEXT, list_of, record
from ple_gym.rules import RULES, Rule
from ple_gym.scenario.parameters import MAX_SEED, number, unknown, whole

PREFIX, SUFFIX = "tuned:", ".toml"
MAX_BYTES = 2**16
WHAT = "a tuned rule"

_COUNT = whole(0, MAX_SEED)
_SEEDS = list_of(_COUNT, 2, 2)
_PERCENT = number(-1e300, 1e300)
_NUMBERS = list_of(_PERCENT, 3, 3)
#: What stands in a file besides `parameters`, which the rule itself checks.
FIELDS = {
    "format": whole(1, 1),
    "rule": TEXT,
    "scenario": TEXT,
    "digest": TEXT,
    "search": record(
        {
            "searched": list_of(TEXT, 1, 100),
            "restarts": _COUNT,
            "trials": _COUNT,
            "seed": _COUNT,
            "training_seeds": _SEEDS,
            "validation_seeds": _SEEDS,
        }
    ),
    "validation": record(
        {
            "objective": TEXT,
            "best_builtin": TEXT,
            "defaults_percent": _NUMBERS,
            "host_percent": _NUMBERS,
            "best_builtin_percent": _NUMBERS,
        }
    ),
    "made_by": record(dict.fromkeys(("ple_gym", "command", "date", "commit"), TEXT)),
}


@dataclass(frozen=True)
class Tuned:
    """A rule with the values that a search has found, and what is said of the search.

    Attributes:
        rule: the rule without values; `values`: of its parameters.
        about: what the file says besides, by field: see `FIELDS`.
    """

    rule: str
    values: Mapping[str, Any]
    about: Mapping[str, Any]

    def to_toml(self) -> str:
        """The content of a file."""
        tables = {"parameters": self.values} | {k: v for k, v in self.about.items() if isinstance(v, Mapping)}
        lines = [*_lines({"format": 1, "rule": self.rule})]
        lines += _lines({k: v for k, v in self.about.items() if not isinstance(v, Mapping)})
        for name, table in tables.items():
            lines += ["", f"[{name}]", *_lines(table)]
        return "\n".join([*lines, ""])


def _lines(table: Mapping[str, Any]) -> Sequence[str]:
    return [f"{name} = {json.dumps(value, ensure_ascii=True)}" for name, value in table.items()]


def is_tuned(name: str) -> bool:
    """Whether a policy's name is that of a file with a tuned rule."""
    return name.startswith(PREFIX) or name.endswith(SUFFIX)


def load_tuned(name: str) -> Rule:
    """The rule in the file that a name stands for, under this name.

    Raises:
        PolicyError: the file cannot be read, has what it must not have, or lacks something; or its rule is not built in
            (a rule of somebody's own is code, which no file of numbers may load), or does not take these values.
    """
    path = name.removeprefix(PREFIX)
    with reading(path, PolicyError, WHAT):
        document = tomllib.loads(read_text(path, MAX_BYTES))
        values = document.pop("parameters")
        try:
            record(FIELDS).check(document)
        except (ValueError, ScenarioError) as wrong:
            raise PolicyError(str(wrong)) from None
        base = {field: document[field] for field in FIELDS}["rule"]  # all must be there
        if base not in RULES:
            raise unknown("rule", base, RULES, error=PolicyError)
        if not isinstance(values, Mapping) or not values:
            raise PolicyError("parameters: must be a table of values")
        return replace(RULES[base].with_values(values), name=name)
