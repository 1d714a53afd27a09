"""Rules for the choice at a PLE exit: `RULES` names them, `compiled.py` holds the compiled ones."""

from ple_gym.rules.catalog import RULES, Rule, known_policies, load_rule

__all__ = ["RULES", "Rule", "known_policies", "load_rule"]
