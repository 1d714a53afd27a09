"""Rules for the choice at a PLE exit: one function each, in one file per family.

`rule` makes a rule of a function, `helpers.py` has what most of them need, `RULES` are the built-in ones by name: those
of every module here. A new family is a file in this folder (docs/howto/add-a-rule.md).

Examples:
    >>> kvm = ple_gym.rules.RULES["kvm"]
    >>> kvm.information, kvm.actuator
    ('hypervisor', 'pull')
"""

from importlib import import_module
from pkgutil import iter_modules

from ple_gym.rules.compiling import helper
from ple_gym.rules.files import c_rule
from ple_gym.rules.helpers import (
    candidates,
    draw,
    earliest,
    has_interrupt,
    head,
    interrupted_by,
    may_run,
    pending_since,
    queued_since,
    runnable_sibling,
    seems_to_spin,
    sibling,
    siblings,
    socket,
    victim,
    with_window,
)
from ple_gym.rules.registry import Registry, Rule, choice, number, rule, whole
from ple_gym.sim.description import Memory
from ple_gym.sim.state import (
    BLOCKED,
    DONE,
    GUEST,
    HINT,
    HINT_FAILED,
    HINT_IGNORED,
    HINT_PENDING,
    HINT_WON,
    IDLE,
    LOCAL,
    NEVER_HINTED,
    NEVER_RAN,
    NOISE,
    PLE_YIELD,
    POLLING,
    PREEMPTED,
    PULL,
    QUEUED,
    RUNNING,
    WENT_TO_SLEEP,
    YIELD_ONLY,
)

#: The families that are listed first, in this order. Others follow by name, what knows more than a hypervisor at last.
_FIRST = ["simple", "paper", "kvm", "spin_age"]
#: Families that are no baselines: `ple_gym.rules.red_team:starve` names a rule of one.
_BY_NAME_ONLY = ["red_team"]


def _families() -> list[list[Rule]]:
    """The rules of each module of this folder that has some."""
    families = {}
    for module in iter_modules(__path__):
        if module.name in _BY_NAME_ONLY:
            continue
        content = vars(import_module(f"{__name__}.{module.name}")).values()
        families[module.name] = [value for value in content if isinstance(value, Rule)]

    def place(name: str) -> tuple[bool, int, str]:
        return any(one.privileged for one in families[name]), (*_FIRST, name).index(name), name

    return [families[name] for name in sorted(families, key=place)]


#: Every built-in rule by name, in the order in which they are listed.
RULES = Registry(*dict.fromkeys(one for family in _families() for one in family))

__all__ = [
    "BLOCKED",
    "DONE",
    "GUEST",
    "HINT",
    "HINT_FAILED",
    "HINT_IGNORED",
    "HINT_PENDING",
    "HINT_WON",
    "IDLE",
    "LOCAL",
    "NEVER_HINTED",
    "NEVER_RAN",
    "NOISE",
    "PLE_YIELD",
    "POLLING",
    "PREEMPTED",
    "PULL",
    "QUEUED",
    "RULES",
    "RUNNING",
    "WENT_TO_SLEEP",
    "YIELD_ONLY",
    "Memory",
    "Rule",
    "c_rule",
    "candidates",
    "choice",
    "draw",
    "earliest",
    "has_interrupt",
    "head",
    "helper",
    "interrupted_by",
    "may_run",
    "number",
    "pending_since",
    "queued_since",
    "rule",
    "runnable_sibling",
    "seems_to_spin",
    "sibling",
    "siblings",
    "socket",
    "victim",
    "whole",
    "with_window",
]
