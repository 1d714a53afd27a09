"""Which rule a host itself has for a pause-loop exit."""

from __future__ import annotations

from collections.abc import Mapping

from ple_gym.scenario.model import Scenario

#: Version of Linux -> KVM's rule of that time (`kvm_vcpu_on_spin`).
KVM: Mapping[str, str] = {
    "5.15": "kvm-5.13", "6.6": "kvm-5.13", "6.12": "kvm-5.13", "6.14": "kvm-6.13", "6.18": "kvm-6.13",
    "6.18.2": "kvm-6.18",
}  # fmt: skip


def own_rule(scenario: Scenario) -> str:
    """The name of the rule that the scenario's host has: of KVM where its vCPUs can be favoured, else to yield (Xen).

    Examples:
        >>> from ple_gym.rules.own import own_rule
        >>> own_rule(ple_gym.load("KvmEbizzy")), own_rule(ple_gym.load("Paper8"))
        ('kvm-5.13', 'host')
    """
    if scenario.host.scheduler == "fair" and scenario.actuator == "hint":
        return KVM[scenario.host.linux]
    return "host"
