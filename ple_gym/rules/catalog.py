"""The rules by name: what each one knows, how it acts, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ple_gym.learned.file import PREFIX, Network, learned_names, load_network
from ple_gym.messages import plain
from ple_gym.rules import compiled as rules
from ple_gym.scenario.parameters import unknown


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule.

    Attributes:
        name: what users type.
        code: its number in the kernel.
        reads: what it decides by.
        actuator: `yield` (the host's own scheduler picks), `resume` (never switches), `local` (own queue, and work
            from elsewhere only where the host itself would bring it) or `pull`.
        source: where the rule was published.
        summary: what it does, in a line.
        network: of a learned policy.
        privileged: it is told the guest's state, which no hypervisor sees: for comparison only.
    """

    name: str
    code: int
    reads: str
    actuator: str
    source: str
    summary: str
    network: Network | None = None
    privileged: bool = False

    @property
    def information(self) -> str:
        """The level that it needs: `hypervisor`, `introspection` or `oracle`, as of an environment's observations."""
        if self.network:
            return self.network.information
        return "oracle" if self.privileged else "hypervisor"


_ALL = (
    Rule("host", rules.HOST, "none", "yield", "the scenario's host", "yield as the scenario's scheduler does"),
    Rule("continue", rules.CONTINUE, "none", "resume", "-", "resume the spinner"),
    Rule("random", rules.RANDOM, "runnable vCPUs", "pull", "van Riel, 2011", "any queued vCPU, uniformly"),
    Rule("round-robin", rules.ROUND_ROBIN, "siblings", "pull", "-", "the next queued sibling by number"),
    Rule("longest-waiting", rules.LONGEST_WAITING, "waiting times", "pull", "-", "the longest queued vCPU of any VM"),
    Rule(
        "xen-4.5",
        rules.XEN_45,
        "run time, queue",
        "yield",
        "Xen 4.5, csched_schedule",
        "yield, but not in the first ms",
    ),
    Rule("xen-4.8", rules.XEN_48, "queue", "yield", "Xen 9fdd2f3c9c, 2016", "yield at once"),
    Rule(
        "paper", rules.PAPER, "queue", "local", "Yamasaki and Kono, 4.4", "the head of the queue, never the same vCPU"
    ),
    # Only the order is KVM's: its yield_to hints, on the target's own pCPU, and may fail.
    Rule(
        "kvm",
        rules.KVM,
        "kernel mode, exits",
        "pull",
        "order of kvm_vcpu_on_spin",
        "KVM's candidate order under this scenario's actuator",
    ),
    Rule(
        "spin-age",
        rules.SPIN_AGE,
        "kernel mode, exits",
        "pull",
        "docs/model.md 11",
        "likely holder, oldest spinner, head",
    ),
    Rule(
        "spin-age-self", rules.SPIN_AGE_SELF, "kernel mode, exits", "pull", "docs/model.md 11", "the same, else resume"
    ),
    Rule(
        "two-patience",
        rules.TWO_PATIENCE,
        "kernel mode, exits",
        "pull",
        "docs/model.md 11",
        "oldest spinner; holder after 64",
    ),
    Rule(
        "oracle",
        rules.ORACLE_RULE,
        "holder, tickets",
        "pull",
        "docs/model.md 11",
        "whoever the line waits for",
        privileged=True,
    ),
)

#: Every compiled rule by name.
RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _ALL})


def load_rule(name: str) -> Rule:
    """The rule of that name; `learned:NAME` is a learned policy (`exported.py`).

    Raises:
        ScenarioError: unknown name; the message lists all.
    """
    if name.startswith(PREFIX):
        network = load_network(name)
        summary = f"{network.kind} network, trained on {plain(network.card.get('scenario', 'an unnamed scenario'))}"
        privileged = network.information == "oracle"
        return Rule(name, rules.LEARNED, "its observation", "pull", "agents/checkpoints", summary, network, privileged)
    if name not in RULES:
        raise unknown("policy", name, [*RULES, *learned_names()], list_all=True)
    return RULES[name]


def known_policies() -> list[Rule]:
    """Every policy that has a name: the rules, and the learned ones that are shipped."""
    return [*RULES.values(), *(load_rule(name) for name in learned_names())]
