"""Rules for the choice at a PLE exit: `RULES` names them, `rules.py` holds the compiled ones."""

from ple_gym.policies.catalog import RULES, Rule, known_policies, load_rule

__all__ = ["RULES", "Rule", "known_policies", "load_rule"]
