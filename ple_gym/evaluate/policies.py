"""What can be compared, from what a caller names or hands over: rules, learned policies, agents."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TypeAlias

from ple_gym.errors import PolicyError
from ple_gym.evaluate.agents import Agent, Predicts
from ple_gym.learned.file import PREFIX
from ple_gym.messages import plain, show, shown_path
from ple_gym.objects import blame
from ple_gym.policies import Compiled, load_brought, load_compiled
from ple_gym.rules import RULES
from ple_gym.tuned import is_tuned

#: A name as on the command line; a rule; an agent, under its own name or that of its class; or a pair of a name and any
#: of these.
Policy: TypeAlias = "str | Compiled | Agent | Predicts | tuple[str, str | Compiled | Agent | Predicts]"


def load_policy(policy: object) -> Compiled | Agent:
    """The policy that is meant.

    A text names a rule, with parameters or without; a learned policy, `learned:NAME` or `learned:FILE.npz`; a tuned
    rule, `./mine.toml` or `tuned:FILE`; or what somebody brings, `package.module:Object` or `./file.py:Object`: a rule,
    or an agent, where a class or function is called without arguments.

    Raises:
        PolicyError: there is none of that name, or it is no policy.
    """
    if isinstance(policy, str):
        return _named(policy)
    if isinstance(policy, Compiled):
        return load_compiled(policy)
    if isinstance(policy, Agent):
        return policy
    if isinstance(policy, tuple) and len(policy) == 2 and isinstance(policy[0], str):
        return _renamed(policy[0], policy[1])
    return _agent("", policy)


def is_free(name: str) -> bool:
    """Whether a row may have this name: it can be printed, and is not a rule's or a learned policy's."""
    return bool(name) and name.isprintable() and name not in RULES and not name.startswith(PREFIX)


def _named(text: str) -> Compiled | Agent:
    if text.endswith(".zip"):
        raise PolicyError(
            f"{shown_path(text)}: a saved model is not loaded by itself, as that may run what is hidden in it. If you "
            f"trust it, write mine.py with: from sb3_contrib import MaskablePPO; agent = MaskablePPO.load("
            f"{show(text)}); and name ./mine.py:agent"
        )
    if text.partition(":")[0] in RULES or text.startswith(PREFIX) or is_tuned(text):
        return load_compiled(text)
    found = load_brought(text)
    if found is None or isinstance(found, Compiled):
        return load_compiled(found or text)
    if not hasattr(found, "predict") and not callable(found):
        raise PolicyError(f"policy {plain(text)}: {show(found)} is neither a rule nor an object with predict")
    return _agent(text, found)


def _renamed(name: str, policy: object) -> Compiled | Agent:
    loaded = load_policy(policy)
    if name == loaded.name:
        return loaded
    if not is_free(name):
        raise PolicyError(f"policy {show(name)}: the name must not be empty, a rule's or a learned policy's")
    return replace(loaded, name=name)


def _agent(name: str, thing: object) -> Agent:
    """An agent from an object, or from a class or function that makes one."""
    name = name or _own_name(thing)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        try:
            thing = thing()
        except Exception as failure:
            raise PolicyError(f"agent {plain(name)}: calling it without arguments raised {blame(failure)}") from failure
    if not is_free(name):
        raise PolicyError(f"agent {show(name)}: the name must not be empty, a rule's or a learned policy's")
    return Agent(name, thing)  # type: ignore[arg-type]  # it checks that


def _own_name(thing: object) -> str:
    """The `name` of an object, or that of its class or function."""
    own = getattr(thing, "name", None)
    return own if isinstance(own, str) else getattr(thing, "__name__", type(thing).__name__)
