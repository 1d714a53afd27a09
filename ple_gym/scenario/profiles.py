"""Machines with their hypervisors, as differences from the paper's machine: docs/hosts/profiles.md has every source.

Times of the two newer machines are cycles of 2.5 GHz.
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
