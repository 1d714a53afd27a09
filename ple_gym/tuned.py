"""Tuned rules: what `ple-gym tune` found, `./mine.toml` or `tuned:FILE` wherever a policy is named."""

from __future__ import annotations

import tomllib

from ple_gym.errors import PolicyError, ScenarioError
from ple_gym.files import read_text, reading
from ple_gym.learned.cards import TEXT, list_of, record
from ple_gym.rules import RULES
from ple_gym.scenario.parameters import number

PREFIX = "tuned:"
MAX_BYTES = 2**16
_PERCENT = list_of(number(-1e300, 1e300), 0, 3)
#: What a file has: the rule with its values as a policy's name, and what the search was. All must be there.
FIELDS = {
    **dict.fromkeys(("policy", "scenario", "digest", "objective", "search", "own", "best_builtin", "made_by"), TEXT),
    **dict.fromkeys(("vs_defaults", "vs_own", "vs_best_builtin"), _PERCENT),  # mean, and interval, percent
}


def is_tuned(name: str) -> bool:
    """Whether a policy's name is that of a file with a tuned rule."""
    return name.startswith(PREFIX) or name.endswith(".toml")


def policy_in(name: str) -> str:
    """The built-in rule with its values in the file that a name stands for.

    Raises:
        PolicyError: the file cannot be read, has what it must not have, or lacks something; or its rule is not built
            in: one of somebody's own is code, which no file of numbers may load.
    """
    path = name.removeprefix(PREFIX)
    with reading(path, PolicyError, "a tuned rule"):
        document = tomllib.loads(read_text(path, MAX_BYTES))
        if "vs_host" in document and "own" not in document:  # older: against `host`, whatever the host's own rule was
            document |= {"own": "host", "vs_own": document.pop("vs_host")}
        try:
            found = record(FIELDS).check(document)
        except (ValueError, ScenarioError) as wrong:
            raise PolicyError(str(wrong)) from None
        policy: str = {name: found[name] for name in FIELDS}["policy"]
        if policy.partition(":")[0] not in RULES:
            raise PolicyError("policy: must be a built-in rule")
        return policy
