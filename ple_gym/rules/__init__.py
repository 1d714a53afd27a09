"""Rules for the choice at a PLE exit: one function each, in one file per family.

`rule` makes a rule of a function, `helpers.py` has what most of them need, `RULES` are the built-in ones by name.
"""

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import (
    candidates,
    draw,
    earliest,
    head,
    may_run,
    queued_since,
    runnable_sibling,
    seems_to_spin,
    sibling,
    siblings,
    socket,
)
from ple_gym.rules.kvm import kvm
from ple_gym.rules.oracle import oracle
from ple_gym.rules.paper import paper
from ple_gym.rules.registry import Registry, Rule, choice, number, rule, whole
from ple_gym.rules.simple import host, longest_waiting, random, resume, round_robin, xen_45, xen_48
from ple_gym.rules.spin_age import spin_age, spin_age_self, two_patience

#: Every built-in rule by name, in the order in which they are listed.
RULES = Registry(
    host, resume, random, round_robin, longest_waiting, xen_45, xen_48, paper, kvm, spin_age, spin_age_self,
    two_patience, oracle,
)  # fmt: skip

__all__ = [
    "RULES",
    "Rule",
    "candidates",
    "choice",
    "draw",
    "earliest",
    "head",
    "helper",
    "may_run",
    "number",
    "queued_since",
    "rule",
    "runnable_sibling",
    "seems_to_spin",
    "sibling",
    "siblings",
    "socket",
    "whole",
]
