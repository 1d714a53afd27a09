"""Policies by name: rules, with or without parameters, and learned ones."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeAlias

from ple_gym.errors import PolicyError
from ple_gym.learned.file import PREFIX, Network, learned_names, load_network
from ple_gym.learned.policy import LearnedPolicy
from ple_gym.messages import plain, show
from ple_gym.rules import RULES, Rule
from ple_gym.rules.files import from_file, prepare
from ple_gym.scenario.parameters import unknown
from ple_gym.tuned import is_tuned, policy_in

#: What the simulator asks by itself.
Compiled: TypeAlias = Rule | LearnedPolicy

#: Somebody's own: WHERE:NAME or WHERE:NAME:VALUES.
_BROUGHT = re.compile(r"(?P<where>.+\.(py|so)|[\w.]+):(?P<name>[^:=,]+)(:(?P<values>.*))?", re.DOTALL)


def load_compiled(name: object) -> Compiled:
    """The policy of that name; a policy is itself, and a network a policy.

    `kvm` is a rule, `two-patience:patience=16` one with a parameter, `./mine.py:patient` one of a user's file (in C:
    `./mine.so:patient`; of a module: `package.module:patient`), `learned:NAME` or `learned:FILE.npz` a learned policy,
    `./mine.toml` or `tuned:FILE` what `ple-gym tune` has found.

    Raises:
        PolicyError: unknown name; the message lists all. Or a parameter that the rule does not have or allow.
    """
    if isinstance(name, Rule):
        prepare(name)
    if isinstance(name, Rule | LearnedPolicy):
        return name
    if isinstance(name, Network):
        return LearnedPolicy("a network", name, f"{name.kind} network")
    if not isinstance(name, str):
        raise PolicyError(f"policy {show(name)}: must be the name of a rule, or learned:NAME or learned:FILE.npz")
    if name.startswith(PREFIX):
        network = load_network(name)
        summary = f"{network.kind} network, trained on {plain(network.card.get('scenario', 'an unnamed scenario'))}"
        return LearnedPolicy(name, network, summary)
    if is_tuned(name):
        return replace(load_compiled(policy_in(name)), name=name)
    base, colon, text = name.partition(":")
    if base in RULES:
        return RULES[base].with_values(_values(name, text)) if colon else RULES[base]
    found = load_brought(name)
    if found is None:
        raise unknown("policy", name, [*RULES, *learned_names()], True, PolicyError)
    if not isinstance(found, Rule):
        raise PolicyError(f"{plain(name)}: is no rule: decorate its function with ple_gym.rules.rule")
    return found


def load_brought(name: str) -> object:
    """What somebody's own file or module calls so, a rule or anything else: None if the name is not of that form.

    A rule has the whole name, so that rows of a table differ where its parameters do.

    Raises:
        PolicyError: there is no such thing, or it cannot be loaded or compiled; or a parameter is wrong.
    """
    brought = _BROUGHT.fullmatch(name)
    if brought is None:
        return None
    found, values = from_file(brought["where"], brought["name"]), brought["values"]
    if not isinstance(found, Rule):
        if values is not None:
            raise PolicyError(f"policy {plain(name)}: only a rule has parameters")
        return found
    return replace(found if values is None else found.with_values(_values(name, values)), name=name)


def _values(name: str, text: str) -> dict[str, str]:
    """The parameters after a rule's name: `patience=16,other=2`."""
    values: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise PolicyError(f"policy {plain(name)}: after the rule's name must stand NAME=VALUE,...")
        if key in values:
            raise PolicyError(f"policy {plain(name)}: {plain(key)} is set twice")
        values[key] = value
    return values


def known_policies() -> list[Compiled]:
    """Every policy that has a name: the rules, and the learned ones that are shipped."""
    return [*RULES.values(), *(load_compiled(name) for name in learned_names())]
