"""Machines with their hypervisors, and guest kernels, each as a set of parameters.

Machines are differences from the paper's: docs/hosts/profiles.md has every source. Times of the two newer ones are
cycles of 2.5 GHz. Guest kernels say how a VM waits for its locks: docs/guests.md has every source.
"""

from __future__ import annotations

from collections.abc import Mapping

Overrides = Mapping[str, object]

_SKYLAKE: Overrides = {
    "host.tsc_hz": 2_500_000_000,
    "cost.exit": 2500,
    "cost.switch": 4000,
    "cost.cache": 25_000,
    "cost.migration": 125_000,
    "cost.remote_migration": 250_000,
    "cost.ipi": 2500,
    "cost.line": 70,
}
_ZEN: Overrides = {**_SKYLAKE, "cost.remote_migration": 200_000, "cost.line": 60}

_KVM: Overrides = {
    "host.scheduler": "fair",
    "host.groups": "vcpu",
    "host.tick_us": 4000,
    "ple.window_grow": 2,
}
_AMD: Overrides = {"ple.kind": "count", "ple.count": 3000, "ple.window_max": 65_535}

#: By name. What one does not name is as on the paper's machine; sizes, guests and noise stay those of the scenario.
DIFFERENCES: Mapping[str, Overrides] = {
    "westmere-xen-4.5": {},
    "xen-4.8": {"host.xen": "4.8"},
    "xcp-ng-8.3": {**_SKYLAKE, "host.xen": "4.17"},
    "xen-4.20-credit2": {**_SKYLAKE, "host.scheduler": "credit2", "host.xen": "4.18", "host.runqueue": "socket"},
    "skylake-kvm-5.15": {**_SKYLAKE, **_KVM, "host.linux": "5.15"},
    "skylake-kvm-6.6": {**_SKYLAKE, **_KVM, "host.linux": "6.6"},
    "zen-kvm-6.18": {**_ZEN, **_KVM, **_AMD, "host.linux": "6.18.2"},
}

_SPINS: Overrides = {"pv_spin_threshold": 0, "pv_early_wait": False, "notify_after": 0}

#: Guest kernels by name: the parameters of a VM that say how it waits for its locks. All else stays the scenario's.
GUESTS: Mapping[str, Overrides] = {
    "linux-ticket": {**_SPINS, "lock_kind": "ticket"},
    "linux-ticket-pv": {**_SPINS, "lock_kind": "ticket", "pv_spin_threshold": 2**15},
    "linux-tas": {**_SPINS, "lock_kind": "tas"},
    "linux-queued": {**_SPINS, "lock_kind": "mcs"},
    "linux-pv": {**_SPINS, "lock_kind": "pv", "pv_spin_threshold": 2**15},
    "linux-pv-4.15": {**_SPINS, "lock_kind": "pv", "pv_spin_threshold": 2**15, "pv_early_wait": True},
    "windows": {**_SPINS, "lock_kind": "mcs", "notify_after": 8191},
    "windows-xen": {**_SPINS, "lock_kind": "mcs", "notify_after": 2047},
}
