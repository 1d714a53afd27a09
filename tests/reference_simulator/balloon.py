"""Ballooning (section 7.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .state import INF, State, Vcpu, Vm

if TYPE_CHECKING:
    from .world import World


def goes_to_sleep(world: World, v: Vcpu) -> bool:
    """v has ended a transaction; whether it sleeps, since too many of its VM are runnable."""
    if world.now - world.counted_at >= world.parameters.balloon:
        count_shares(world)
    if runnable(v.vm) > v.vm.share:
        v.frozen, v.state = True, State.BLOCKED
        world.guest.respond(v, None)
        return True
    call_sibling(world, v)
    return False


def call_sibling(world: World, v: Vcpu) -> None:
    """v has ended a transaction, or gone to sleep; a frozen sibling wakes if too few are runnable."""
    asleep = [w for w in v.ring() if w.frozen and w.wake_at == INF]
    if runnable(v.vm) < v.vm.share and asleep:
        asleep[0].wake_at = world.now


def runnable(vm: Vm) -> int:
    return sum(v.state in (State.RUNNING, State.QUEUED) or (v.frozen and v.wake_at < INF) for v in vm.vcpus)


def thaws(world: World, v: Vcpu) -> bool:
    """v is called again; whether it can run."""
    v.frozen, v.wake_at, v.remaining = False, INF, 0
    if world.guest.take_transaction(v):
        world.guest.begin_section(v)
    return v.state is State.BLOCKED and v.wake_at == INF


def count_shares(world: World) -> None:
    """In thousandths of a pCPU: to each VM its own, and what others leave of theirs to those that want more."""
    for p in world.pcpus:
        world.settle(p, world.now)
    span, machine = world.now - world.counted_at, 1000 * len(world.pcpus)
    weights = {vm: vm.weight * vm.vcpu_count for vm in world.vms}
    used = {vm: 1000 * (vm.used - vm.used_before) // span for vm in world.vms}
    fair = {vm: machine * weights[vm] // sum(weights.values()) for vm in world.vms}
    wanting = [vm for vm in world.vms if 8 * used[vm] >= 7 * fair[vm]]
    left = sum(max(0, fair[vm] - used[vm]) for vm in world.vms if vm not in wanting)

    def share(vm: Vm) -> int:
        more = left * weights[vm] // sum(weights[other] for other in wanting) if vm in wanting else 0
        return fair[vm] + more

    for vm in world.vms:
        whole, rest = divmod(share(vm), 1000)
        vm.share = max(1, whole + (rest > 125))
        vm.used_before = vm.used
    world.counted_at = world.now
