"""Worlds of the hosts and guests that people run: what is published of them, and what had to be assumed.

Machines are those of `profiles.py` (docs/hosts/profiles.md), guest kernels likewise (docs/guests.md). No source says
how often a load takes which lock, and few how often it interrupts its siblings: such numbers are marked *assumed*.
"""

from __future__ import annotations

from ple_gym.scenario.model import PROFILES, Host, Scenario, Vm
from ple_gym.scenario.profiles import GUESTS

MS = 2_500_000
"""Cycles of a millisecond on the newer machines."""


def _flushing(every_us: int) -> str:
    """Compute so long, then flush the TLBs of all siblings and spin until they have (Linux, `flush_tlb_mm_range`)."""
    return f"compute exponential {every_us * MS // 1000} kernel 0.3; ipi all"


def _locking(vcpus: int) -> Vm:
    """Two guests with four busy spinlocks, held for 1 us; each vCPU takes one every 40 us or so. All assumed."""
    return Vm(
        vcpus=vcpus,
        count=2,
        locks=4,
        transactions=200 * vcpus,
        sections=20,
        compute="exponential 30000",
        hold="exponential 2500",
        lock_probability=0.3,
        kernel_share=0.3,
    )


_COMPUTING = Vm(
    vcpus=16,
    transactions=0,
    sections=1,
    compute="constant 2500000000",
    kernel_share=0.0,
    locks=0,
    lock_probability=0.0,
)
"""A VM that computes without end. Long sections, because their number has no meaning here."""


def _on(profile: str, scenario: Scenario, kernel: str = "") -> Scenario:
    """The scenario on a machine of `profiles.py`, its guest with a kernel of there; it may last two seconds.

    What the scenario itself says of its machine, it keeps.
    """
    usual = Scenario().parameters()
    own = {name: value for name, value in scenario.parameters().items() if value != usual.get(name, value)}
    waits = {f"guest.{name}": value for name, value in GUESTS[kernel].items()} if kernel else {}
    return scenario.with_overrides({**PROFILES[profile], **own, **waits, "limit.simulated_s": 2.0})


DEPLOYMENTS = (
    # Siblings that interrupt each other. Without IPI virtualisation a sender's write exits, so that KVM sees it.
    _on(
        "skylake-kvm-6.6",
        Scenario(
            name="KvmEbizzy",
            description="ebizzy -m in two VMs of 16 vCPUs on 16 pCPUs under KVM: each record flushes siblings' TLBs",
            host=Host(pcpus=16, ipi_visible=True),
            # VMs as large as the machine, 1 to 4 of them, are published (W. Li, KVM, 2019 and 2025). It takes no lock.
            # A VM of 16 vCPUs makes 11,400 to 12,400 records/s if it has its pCPUs to itself, each with an mmap and an
            # munmap (L. Dufour, LKML 2017 and 2018): one in 1,350 us of a vCPU. That each reaches all vCPUs is an upper
            # bound.
            guest=Vm(vcpus=16, count=2, locks=0, program=_flushing(1350), transactions=1200),
        ),
    ),
    _on(
        "skylake-kvm-6.6",
        Scenario(
            name="KvmShootdown",
            description="A guest of 16 vCPUs that flushes TLBs often, beside one that computes, on 16 pCPUs under KVM",
            host=Host(pcpus=16, ipi_visible=True),
            # After dedup and vips of PARSEC: a flush takes 28 and 55 us alone, and 6 and 15 ms beside another VM (Ahn
            # et al., EuroSys 2018, on Xen). 1,000 flushes/s of each vCPU are assumed.
            guest=Vm(vcpus=16, locks=0, program=_flushing(1000), transactions=1600),
            neighbours=(_COMPUTING,),
        ),
    ),
    # Siblings that wait for locks.
    _on(
        "skylake-kvm-6.6",
        Scenario(
            name="KvmDbench",
            description="A file server's busy spinlocks in two Linux VMs of 16 vCPUs on 16 pCPUs under KVM",
            # dbench in VMs as large as the machine, 1 to 4 of them: Raghavendra K T, PV ticketlocks V12, 2013.
            host=Host(pcpus=16),
            guest=_locking(16),
        ),
        "linux-pv",
    ),
    _on(
        "skylake-kvm-6.6",
        Scenario(
            name="KvmWindows",
            description="Busy spinlocks in two Windows VMs on 8 pCPUs under KVM, which they tell of 8,191 retries",
            host=Host(pcpus=8),
            guest=_locking(8),
        ),
        "windows",
    ),
    _on(
        "xcp-ng-8.3",
        Scenario(
            name="XcpWindows",
            description="The same VMs under XCP-ng 8.3, which they tell of 2,047 retries",
            # Windows at 2:1 is what a patch in it was measured with (Xen 58feb9e0ac, 128 CPUs); 8 are assumed.
            host=Host(pcpus=8),
            guest=_locking(8),
        ),
        "windows-xen",
    ),
    _on(
        "westmere-xen-4.5",
        Scenario(
            name="Consolidated",
            description="48 small VMs on 16 pCPUs, three for each pCPU (the paper's section 3.1)",
            host=Host(pcpus=16),  # "40 to 60 VMs", on a machine with 16 cores "two to four of them on a pCPU" [paper]
            guest=Vm(
                # Locks, held for 1 us, and a sleep of 1 ms before every 50th section are assumed. If a vCPU had a pCPU
                # to itself it would sleep two thirds of its time; twelve for each pCPU keep these busy.
                vcpus=4,
                count=48,
                locks=2,
                transactions=120,
                sections=20,
                compute="exponential 30000",
                hold="exponential 2700",
                lock_probability=0.3,
                kernel_share=0.3,
                block_probability=0.02,
                block="exponential 2900000",
            ),
        ),
    ),
)
