"""The machines of `experiments/answer/field.py`: those of people who run hypervisors, as far as their texts tell.

Sizes and settings are those of the sources (docs/field-cases.md). No source says how often its load takes which lock,
so the loads are ours, chosen before anything was run: `light` is that of `Paper8`, `heavy` takes few locks often,
`mild` and `medium` lie between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ple_gym.scenario import Cost, Decision, Host, Limit, Noise, Ple, Scenario, Vm

LOADS: Mapping[str, Vm] = {
    "light": Vm(transactions=0, compute="exponential 145000", lock_probability=0.15, locks=55),
    "mild": Vm(transactions=0, compute="exponential 100000", lock_probability=0.2, locks=32, kernel_share=0.3),
    "medium": Vm(transactions=0, compute="exponential 60000", lock_probability=0.2, locks=16, kernel_share=0.3),
    "heavy": Vm(transactions=0, compute="exponential 30000", lock_probability=0.3, locks=4, kernel_share=0.3),
}
NO_LIMIT = 0


def alike(scenario: Scenario, vms: int) -> Scenario:
    """The same beside others that are like its guest; so many VMs in all."""
    return replace(scenario, neighbours=(scenario.guest,) * (vms - 1))


def build(pcpus: int) -> Scenario:
    """F1: a kernel build in two VMs, each as large as the machine. Xen's gap is 41 cycles."""
    return alike(
        Scenario(
            name=f"FieldBuild{pcpus}",
            host=Host(pcpus=pcpus, ratelimit_us=NO_LIMIT),
            ple=Ple(gap=41),
            limit=Limit(simulated_s=2.0),
            guest=replace(LOADS["light"], vcpus=pcpus, spin_period=40),
        ),
        2,
    )


def pause_filter() -> Scenario:
    """F2: AMD's pause filter, 24 pCPUs, four VMs of 16 vCPUs."""
    return alike(
        Scenario(
            name="FieldFilter24",
            host=Host(pcpus=24, sockets=4, ratelimit_us=NO_LIMIT),
            ple=Ple(kind="count", count=3000),
            limit=Limit(simulated_s=1.0),
            guest=replace(LOADS["light"], vcpus=16, locks=110),
        ),
        4,
    )


def tiles() -> Scenario:
    """F3: six VMs that work, and twelve that wake, work for 20 us and sleep again."""
    works = replace(LOADS["light"], vcpus=2, lock_kind="tas", block_probability=0.3, block="exponential 300000")
    wakes = replace(
        works, vcpus=1, locks=0, sections=1, compute="exponential 53400", kernel_share=0.5,
        lock_probability=0.0, block_probability=1.0, block="exponential 800000",
    )  # fmt: skip
    return Scenario(
        name="FieldTiles", host=Host(pcpus=8), limit=Limit(simulated_s=1.0), guest=works,
        neighbours=(*(works,) * 5, *(wakes,) * 12),
    )  # fmt: skip


def large(vms: int, load: str) -> Scenario:
    """F4, F5, F10, and effects that were published: 32 pCPUs on four sockets, VMs of 32 vCPUs."""
    return alike(
        Scenario(
            name=f"Field32x{vms}-{load}",
            host=Host(pcpus=32, sockets=4, timeslice_ms=5, ratelimit_us=NO_LIMIT),
            cost=Cost(exit=6000),
            decision=Decision(actuator="hint"),
            limit=Limit(simulated_s=0.3),
            guest=replace(LOADS[load], vcpus=32),
        ),
        vms,
    )


def ticket() -> Scenario:
    """F8: two VMs of 8 vCPUs on 8 pCPUs, with few ticket locks."""
    guest = replace(LOADS["heavy"], vcpus=8)
    host = Host(pcpus=8, ratelimit_us=NO_LIMIT)
    return alike(Scenario(name="FieldTicket8", host=host, limit=Limit(simulated_s=1.0), guest=guest), 2)


def shootdown(vcpus: int, vms: int, every_us: int) -> Scenario:
    """Effects that were published of guests that flush the TLBs of all siblings: VMs as large as the machine.

    Each vCPU does so every `every_us` of work: 1350 us is that of ebizzy -m, which maps and unmaps memory for each
    record (16-vCPU VMs, 710 to 775 records/s per vCPU; an upper bound, for not every record reaches every vCPU);
    110 us is assumed.
    """
    work = every_us * 2670
    guest = Vm(
        vcpus=vcpus,
        locks=0,
        transactions=0,
        count=vms,
        program=f"compute exponential {work} kernel 0.3; ipi all",
    )
    host = Host(pcpus=vcpus)
    return Scenario(name=f"FieldShoot{vcpus}x{vms}-{every_us}us", host=host, limit=Limit(simulated_s=1.0), guest=guest)


def _records(cycles: int, under: str) -> str:
    return f"compute exponential {cycles} kernel 0.3; {'lock 0; ipi all; unlock 0' if under else 'ipi all'}"


def ebizzy(vms: int, under: str) -> Scenario:
    """F6: VMs of 80 vCPUs on 80 pCPUs. One alone made 23,520 records/s; who waits for the memory map's lock sleeps."""
    program, halts = _records(8_500_000, under), 2048 * bool(under)
    guest = Vm(vcpus=80, count=vms, locks=1, pv_spin_threshold=halts, transactions=0, program=program)
    host = Host(pcpus=80, sockets=2)
    return Scenario(name=f"FieldEbizzy{under}{vms}", host=host, limit=Limit(simulated_s=0.5), guest=guest)


def beside_tasks(under: str) -> Scenario:
    """F6, on a Haswell: 8 vCPUs on 8 pCPUs beside `stress --cpu 2`, which leaves 1.5 ms for each of 4,000 records/s."""
    return replace(
        ebizzy(1, under),
        name=f"FieldEbizzy{under}8",
        host=Host(pcpus=8),
        guest=replace(ebizzy(1, under).guest, vcpus=8, program=_records(4_000_000, under)),
        neighbours=(Vm(vcpus=2, locks=0, lock_probability=0.0, compute="constant 1000000000", transactions=0),),
    )


def flushing(exits: int) -> str:
    """F15: what each vCPU does, if to send its interrupts takes so many exits of 2,500 cycles."""
    send = f"compute constant {2500 * exits}; " if exits else ""
    return f"compute exponential 3375000 kernel 0.5; lock 0; {send}ipi all; unlock 0; block exponential 8100000"


def shim(vms: int) -> Scenario:
    """F15: a build on 32 vCPUs, whose flushes take turns; it ran for 591 s of 32 x 63 s, and slept else."""
    guest = Vm(vcpus=32, count=vms, locks=1, transactions=2400, program=flushing(0))
    return Scenario(name=f"FieldShim{vms}", host=Host(pcpus=32), limit=Limit(simulated_s=2.0), guest=guest)


def one_to_one() -> Scenario:
    """F11: two VMs of 32 vCPUs on 64 pCPUs, each vCPU pinned to a pCPU of its own."""
    return alike(
        Scenario(
            name="FieldPinned64",
            host=Host(pcpus=64, sockets=4, ratelimit_us=NO_LIMIT),
            decision=Decision(actuator="hint"),
            limit=Limit(simulated_s=0.2),
            guest=replace(LOADS["heavy"], vcpus=32, affinity="pinned"),
        ),
        2,
    )


def web() -> Scenario:
    """F12: one busy VM of 16 vCPUs on 16 pCPUs, which the host takes for itself 20 times a second."""
    return Scenario(
        name="FieldWeb16",
        host=Host(pcpus=16),
        noise=Noise(rate_hz=20, level="constant 1000"),
        limit=Limit(simulated_s=0.4),
        guest=replace(LOADS["medium"], vcpus=16, locks=8),
    )


def firmware(vcpus: int) -> Scenario:
    """F13: on four pCPUs each vCPU in turn holds the one lock for 53.4 million cycles, while the others wait for it."""
    return Scenario(
        name=f"FieldFirmware{vcpus}",
        limit=Limit(simulated_s=2.0),
        guest=Vm(
            vcpus=vcpus,
            transactions=vcpus,
            sections=1,
            compute="constant 1000",
            hold="constant 53400000",
            lock_probability=1.0,
            hot_probability=1.0,
            start="convoy",
        ),
    )


FIELD: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        *(build(pcpus) for pcpus in (2, 8, 32)),
        pause_filter(),
        tiles(),
        *(large(vms, load) for load in ("medium", "heavy") for vms in (1, 2, 3, 4)),
        *(large(vms, "mild") for vms in (1, 2)),
        ticket(),
        *(shootdown(16, vms, every_us) for every_us in (110, 1350) for vms in (1, 2, 3, 4)),
        *(shootdown(8, 4, every_us) for every_us in (110, 1350)),
        *(ebizzy(vms, under) for under in ("", "Lock") for vms in (1, 2, 3)),
        *map(beside_tasks, ("", "Lock")),
        *(shim(vms) for vms in (1, 2)),
        one_to_one(),
        web(),
        *(firmware(vcpus) for vcpus in (8, 16, 32)),
    )
}


def every(name: str, **changes: object) -> dict[str, object]:
    """Overrides that give every VM of a world these settings."""
    return {f"{vm}.{key}": value for vm in FIELD[name].tables() for key, value in changes.items()}
