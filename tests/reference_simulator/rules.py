"""The rules: what each policy does at a PLE exit (section 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from .draws import POLICY, high
from .guest import waits_in_line
from .ple import suspected_spinner
from .state import OVER, Hint, LeftBy, Mode, Pcpu, Phase, State, Vcpu

if TYPE_CHECKING:
    from .world import World

Rule = Callable[["World", Pcpu, Vcpu], int]  # of the world, the pCPU and the vCPU y of the exit: the action


def candidates(world: World, p: Pcpu) -> list[Vcpu]:
    """C of section 10, ascending."""
    local = world.parameters.actuator == "local"
    return [v for v in world.vcpus if v.state is State.QUEUED and (v.pcpu is p or not local)]


def siblings(world: World, p: Pcpu, y: Vcpu) -> list[Vcpu]:
    return [v for v in candidates(world, p) if v.vm is y.vm and v is not y]


def smallest(vcpus: Iterable[Vcpu], key: Callable[[Vcpu], int]) -> int | None:
    """The index of the vCPU with the smallest key, a tie going to the lowest index; None of nothing."""
    return min(((key(v), v.index) for v in vcpus), default=(0, None))[1]


def host(world: World, p: Pcpu, y: Vcpu) -> int:
    return len(world.vcpus)


def resume(world: World, p: Pcpu, y: Vcpu) -> int:
    return y.index


def random(world: World, p: Pcpu, y: Vcpu) -> int:
    legal = candidates(world, p)
    if not legal:
        return y.index
    x = high(world.draws.draw(POLICY, world.count.exits - 1))
    return legal[x * len(legal) >> 32].index


def round_robin(world: World, p: Pcpu, y: Vcpu) -> int:
    legal = siblings(world, p, y)
    for step in range(1, len(world.vcpus) + 1):
        v = world.vcpus[(world.rr + step) % len(world.vcpus)]
        if v in legal:
            world.rr = v.index
            return v.index
    return y.index


def longest_waiting(world: World, p: Pcpu, y: Vcpu) -> int:
    found = smallest(candidates(world, p), lambda v: v.queued_since)
    return y.index if found is None else found


def paper(world: World, p: Pcpu, y: Vcpu) -> int:
    head = p.queue[0] if p.queue else None
    if head is None or head.priority == OVER:
        sockets = world.parameters.sockets
        for distance in range(sockets):
            for q in world.pcpus:
                if q is p or q.socket != (p.socket + distance) % sockets or not q.queue:
                    continue
                if q.queue[0] in candidates(world, p) and (head is None or q.queue[0].priority > head.priority):
                    return q.queue[0].index
    return len(world.vcpus) if head is None else head.index


def paper_local(world: World, p: Pcpu, y: Vcpu) -> int:
    return p.queue[0].index if p.queue else len(world.vcpus)


def paper_ban(world: World, p: Pcpu, y: Vcpu) -> int:
    since = world.now - 1000 * world.parameters.f // 10**6
    return next((v.index for v in p.queue if v.left_by is not LeftBy.PLE or v.left_at <= since), len(world.vcpus))


def kvm_2012(world: World, p: Pcpu, y: Vcpu) -> int:
    vm, legal = y.vm, siblings(world, p, y)
    first = high(world.draws.draw(POLICY, world.count.exits - 1)) * vm.vcpu_count >> 32
    ring = vm.vcpus[first:] + vm.vcpus[:first]
    return next((v.index for v in ring if v in legal), y.index)


def ring_of(y: Vcpu) -> list[Vcpu]:
    """y's VM in the order that KVM looks at it."""
    start = y.vm.last_boosted + 1
    return y.vm.vcpus[start:] + y.vm.vcpus[:start]


def boostable(world: World, p: Pcpu, y: Vcpu, v: Vcpu, served: bool = False, woken: bool = True) -> bool:
    """KVM's filters; they toggle `dy_eligible`. `served`: an interrupt that is to be served counts as kernel mode."""
    if v not in siblings(world, p, y):
        return False
    if v.left_by not in (LeftBy.PREEMPTED, LeftBy.PLE):
        return woken
    if not v.left_kernel and not (served and v.unanswered):
        return False
    if v.left_by is LeftBy.PLE:
        v.dy_eligible = not v.dy_eligible
        return not v.dy_eligible
    return True


def kvm(world: World, p: Pcpu, y: Vcpu) -> int:
    y.dy_eligible = False
    for v in ring_of(y):
        if boostable(world, p, y, v):
            y.vm.last_boosted = v.number
            return v.index
    return y.index


def kvm_that_fails(
    world: World, p: Pcpu, y: Vcpu, stores_the_turn: bool = False, served: bool = False, woken: bool = True
) -> int:
    """kvm, when a yield fails between two pCPUs that have one vCPU each."""
    y.dy_eligible = False
    tries, failed = 3, y
    for i, v in enumerate(ring_of(y)):
        if not boostable(world, p, y, v, served, woken):
            continue
        if not p.queue and v.pcpu.mode is Mode.IDLE and v.pcpu.queue == [v]:
            failed = v
            tries -= 1
            if tries == 0:
                break
        else:
            y.vm.last_boosted = i if stores_the_turn else v.number
            return v.index
    return failed.index


def kvm_5_2(world: World, p: Pcpu, y: Vcpu) -> int:
    return kvm_that_fails(world, p, y, woken=False)


def kvm_6_13(world: World, p: Pcpu, y: Vcpu) -> int:
    return kvm_that_fails(world, p, y, True, served=world.parameters.ipi_visible)


def kvm_5_13(world: World, p: Pcpu, y: Vcpu) -> int:
    return kvm_that_fails(world, p, y, served=world.parameters.ipi_visible)


def likely_holders(world: World, p: Pcpu, y: Vcpu) -> list[Vcpu]:
    return [v for v in siblings(world, p, y) if v.left_kernel and not suspected_spinner(world.parameters, v)]


def kernel_leaver(world: World, p: Pcpu, y: Vcpu) -> int | None:
    """(a) of spin-age."""
    return smallest(likely_holders(world, p, y), lambda v: v.queued_since)


def older_spinner(world: World, p: Pcpu, y: Vcpu) -> int | None:
    """(b) of spin-age."""
    found = [v for v in siblings(world, p, y) if suspected_spinner(world.parameters, v) and v.first_ple < y.first_ple]
    return smallest(found, lambda v: v.first_ple)


def first_of(*choices: int | None) -> int:
    return next(choice for choice in choices if choice is not None)


def spin_age(world: World, p: Pcpu, y: Vcpu) -> int:
    head = p.queue[0].index if p.queue else None
    return first_of(kernel_leaver(world, p, y), older_spinner(world, p, y), head, y.index)


def spin_age_self(world: World, p: Pcpu, y: Vcpu) -> int:
    return first_of(kernel_leaver(world, p, y), older_spinner(world, p, y), y.index)


def two_patience(world: World, p: Pcpu, y: Vcpu) -> int:
    patience_is_over = y.ples >= 64
    return first_of(older_spinner(world, p, y), kernel_leaver(world, p, y) if patience_is_over else None, y.index)


def who_can_end(world: World, y: Vcpu) -> Vcpu | None:
    """7.9: the holder of what y waits for; while that one itself waits, who can end this."""
    if y.phase is Phase.ACKS:
        return world.guest.must_answer(y)
    assert y.lock is not None
    u = y.lock.holder
    while u is not None and u.phase is Phase.SPIN and not world.guest.available(u):
        assert u.lock is not None
        u = u.lock.holder or u.lock.waiters[0]
    if u is not None and u.phase is Phase.ACKS and u.missing:
        return world.guest.must_answer(u)
    return u


def oracle(world: World, p: Pcpu, y: Vcpu) -> int:
    legal, lock = candidates(world, p), y.lock
    ender = who_can_end(world, y)
    if y.phase is Phase.ACKS or not waits_in_line(y):
        return ender.index if ender in legal and ender is not None else y.index
    assert lock is not None
    if world.guest.available(y):
        return y.index
    place = lock.waiters.index(y)
    chain = ([] if ender is None else [ender]) + lock.waiters[:place]
    target = next((v for v in chain if v in legal), None)
    if target is None or any(v.state is State.RUNNING for v in lock.waiters[place + 1 :]):
        return y.index
    return target.index


def strict_boost(world: World, p: Pcpu, y: Vcpu) -> int:
    y.dy_eligible = False
    for v in ring_of(y):
        if v not in siblings(world, p, y):
            continue
        if v.left_by not in (LeftBy.PREEMPTED, LeftBy.PLE) or not v.left_kernel:
            mark = y.number % 62
            if not (world.parameters.ipi_visible and mark in v.senders):
                seen = mark in v.seen_by
                v.seen_by.add(mark)
                if not seen:
                    continue
        if v.left_by is LeftBy.PLE:
            v.dy_eligible = not v.dy_eligible
            if v.dy_eligible:
                continue
        y.vm.last_boosted = v.number
        return v.index
    return y.index


def ipi_aware(world: World, p: Pcpu, y: Vcpu) -> int:
    legal, visible = siblings(world, p, y), world.parameters.ipi_visible
    y.dy_eligible = False
    tries, failed = 3, y
    ring = [v for v in ring_of(y) if v in legal]
    for relaxed in (False, True):
        for v in ring:
            preempted = v.left_by in (LeftBy.PREEMPTED, LeftBy.PLE)
            if relaxed:
                if not preempted:
                    continue
            else:
                if not (visible and v.unanswered) and not (preempted and v.left_kernel):
                    continue
                if v.left_by is LeftBy.PLE:
                    v.dy_eligible = not v.dy_eligible
                    if v.dy_eligible:
                        continue
            if not p.queue and v.pcpu.mode is Mode.IDLE and v.pcpu.queue == [v]:
                failed = v
                tries -= 1
                if tries == 0:
                    return failed.index
            else:
                y.vm.last_boosted = v.number
                return v.index
    return failed.index


def oldest_interrupt(world: World, p: Pcpu, y: Vcpu) -> int:
    pending = [v for v in siblings(world, p, y) if v.unanswered and world.parameters.ipi_visible]
    return first_of(smallest(pending, lambda v: v.pending_since), spin_age_self(world, p, y))


def queue_head(world: World, p: Pcpu, y: Vcpu) -> int:
    lock = y.lock
    if y.phase is Phase.ACKS or not waits_in_line(y):
        return y.index
    assert lock is not None
    if lock.holder is not None or world.guest.available(y) or lock.waiters[0] not in candidates(world, p):
        return y.index
    return lock.waiters[0].index


def holder(world: World, p: Pcpu, y: Vcpu) -> int:
    ender = who_can_end(world, y)
    return ender.index if ender is not None and ender in candidates(world, p) else y.index


def resume_then_defer(world: World, p: Pcpu, y: Vcpu) -> int:
    return y.index if y.ples <= 7 else len(world.vcpus)


def longest_sibling(world: World, p: Pcpu, y: Vcpu) -> int:
    return first_of(smallest(siblings(world, p, y), lambda v: v.queued_since), y.index)


def oldest_spinner(world: World, p: Pcpu, y: Vcpu) -> int:
    return first_of(older_spinner(world, p, y), y.index)


def latest_in_kernel(world: World, p: Pcpu, y: Vcpu) -> int:
    return first_of(smallest(likely_holders(world, p, y), lambda v: -v.left_at), y.index)


def longest_in_kernel(
    world: World, p: Pcpu, y: Vcpu, halvings: int = 1, place: str = "number", vms: str = "any",
    ripe_us: int = 0, spared_us: int = 200, fallback: str = "defer",
) -> int:  # fmt: skip
    def places(v: Vcpu) -> int:
        return v.pcpu.index if place == "number" else (v.pcpu.index - p.index) % len(world.pcpus)

    def halved(v: Vcpu) -> int:
        return min(2**42, world.now - v.queued_since) * 2**20 // 2 ** min(62, places(v) * halvings)

    def long_enough(since: int, us: int) -> bool:
        return world.now - since >= us * world.parameters.f // 10**6

    found = [v for v in candidates(world, p) if v.left_kernel and v.left_by in (LeftBy.PREEMPTED, LeftBy.PLE)]
    found = [v for v in found if (vms == "any" or v.vm is y.vm) and long_enough(v.queued_since, ripe_us)]
    found = [v for v in found if victim_of(y, v) is None or long_enough(v.pcpu.dispatched_at, spared_us)]
    nobody = len(world.vcpus) if fallback == "defer" else y.index
    return first_of(smallest(found, lambda v: -halved(v)), nobody)


def quiet_sibling(world: World, p: Pcpu, y: Vcpu) -> int:
    since = world.now - 1000 * world.parameters.f // 10**6
    found = [v for v in siblings(world, p, y) if v.ples == 0 or v.last_ple <= since]
    return first_of(smallest(found, lambda v: v.queued_since), y.index)


def outside_group(world: World, p: Pcpu, y: Vcpu) -> int:
    def inside(v: Vcpu) -> bool:
        return v.pc_class == y.pc_class and suspected_spinner(world.parameters, v)

    return first_of(smallest([v for v in siblings(world, p, y) if not inside(v)], lambda v: v.queued_since), y.index)


def nth(world: World, found: list[Vcpu]) -> Vcpu:
    return found[high(world.draws.draw(POLICY, world.count.exits - 1)) * len(found) >> 32]


def victim_of(y: Vcpu, v: Vcpu) -> Vcpu | None:
    return None if v.pcpu.current is y else v.pcpu.current


def robs_a_stranger(y: Vcpu, v: Vcpu) -> bool:
    victim = victim_of(y, v)
    return victim is not None and victim.vm is not y.vm


def victim_aware(world: World, p: Pcpu, y: Vcpu) -> int:
    legal = siblings(world, p, y)
    found = [v for v in y.ring() if v in legal and robs_a_stranger(y, v)]
    return nth(world, found).index if found else len(world.vcpus)


def yield_if_cheap(world: World, p: Pcpu, y: Vcpu, us: int = 700, queue: str = "pcpu") -> int:
    threads = world.host.threads  # type: ignore[attr-defined]  # of the fair scheduler
    own = threads[y]
    if own.d - own.v <= us * world.parameters.f // 10**6:
        return len(world.vcpus)
    here = [threads[v] for v in world.vcpus if threads[v].queued and v.pcpu is p and (queue == "pcpu" or v.vm is y.vm)]
    lag = sum(x.w * max(-(2**34), min(2**34, x.v - own.v)) for x in here)
    return len(world.vcpus) if lag < 0 else y.index


#: Of patience; what is not here is 0, or the first of its words.
DEFAULTS = {"kernel": 2, "kernel_after": 64, "spinner": 1, "retry": 1}


def patience(world: World, p: Pcpu, y: Vcpu, given: Mapping[str, int | str] | None = None) -> int:
    f = world.parameters.f
    values: dict[str, int | str] = {**DEFAULTS, **(given or {})}

    def number(name: str) -> int:
        return int(values.get(name, 0))

    if world.now - p.dispatched_at < number("ran_us") * f // 10**6:
        return y.index
    exits = p.dispatch_exits if values.get("count") == "dispatch" else y.ples
    legal = siblings(world, p, y)
    ring = [v for v in y.ring()[: number("reach") or None] if v in legal]
    ring = [v for v in ring if world.now - v.queued_since >= number("ripe_us") * f // 10**6]
    ring = [v for v in ring if number("retry") or v.hint not in (Hint.FAILED, Hint.IGNORED)]
    if values.get("victim") == "stranger":
        ring = [v for v in ring if robs_a_stranger(y, v)]
    if values.get("victim") == "spare":
        ring = [v for v in ring if robs_a_stranger(y, v) or victim_of(y, v) is None]

    def spins(v: Vcpu) -> bool:
        return suspected_spinner(world.parameters, v)

    members: dict[str, tuple[Callable[[Vcpu], bool], Callable[[Vcpu], int]]] = {
        "kernel": (lambda v: v.left_kernel and not spins(v), lambda v: v.queued_since),
        "spinner": (lambda v: spins(v) and v.first_ple < y.first_ple, lambda v: v.first_ple),
        "interrupt": (lambda v: bool(v.unanswered) and world.parameters.ipi_visible, lambda v: v.pending_since),
        "anyone": (lambda v: True, lambda v: v.queued_since),
    }
    for _, _, name in sorted((number(name), place, name) for place, name in enumerate(members) if number(name)):
        if exits < number(f"{name}_after"):
            continue
        belongs, since = members[name]
        found = [v for v in ring if belongs(v)]
        near = [v for v in found if v.pcpu.socket == p.socket]
        if values.get("socket") == "same" or (values.get("socket") == "first" and near):
            found = near
        if not found:
            continue
        if values.get("order") == "next":
            return found[0].index
        if values.get("order") == "random":
            return nth(world, found).index
        sign = -1 if values.get("order") == "latest" else 1
        return first_of(smallest(found, lambda v: sign * since(v)))  # noqa: B023  it is used at once
    if exits >= number("fallback_after"):
        if values.get("fallback") == "defer":
            return len(world.vcpus)
        if values.get("fallback") == "longest":
            return longest_waiting(world, p, y)
    return y.index


RULES: dict[str, Rule] = {
    "host": host,
    "continue": resume,
    "random": random,
    "round-robin": round_robin,
    "longest-waiting": longest_waiting,
    "xen-4.5": host,
    "xen-4.8": host,
    "xen-4.17": host,
    "xen-4.18": host,
    "paper": paper,
    "paper-local": paper_local,
    "paper-ban": paper_ban,
    "kvm": kvm,
    "kvm-2012": kvm_2012,
    "kvm-5.2": kvm_5_2,
    "kvm-5.4": kvm_that_fails,
    "kvm-5.13": kvm_5_13,
    "kvm-6.13": kvm_6_13,
    "kvm-6.18": kvm_5_13,
    "spin-age": spin_age,
    "spin-age-self": spin_age_self,
    "two-patience": two_patience,
    "strict-boost": strict_boost,
    "ipi-aware": ipi_aware,
    "oldest-interrupt": oldest_interrupt,
    "patience": patience,
    "resume-then-defer": resume_then_defer,
    "longest-sibling": longest_sibling,
    "oldest-spinner": oldest_spinner,
    "latest-in-kernel": latest_in_kernel,
    "longest-in-kernel": longest_in_kernel,
    "quiet-sibling": quiet_sibling,
    "outside-group": outside_group,
    "victim-aware": victim_aware,
    "yield-if-cheap": yield_if_cheap,
    "holder": holder,
    "oracle": oracle,
    "queue-head": queue_head,
}

#: What these rules put in place of the scenario's settings of the host.
SETTINGS: dict[str, dict[str, object]] = {
    "xen-4.5": {"xen": "4.5", "yield_bypasses_ratelimit": False},
    "xen-4.8": {"xen": "4.5", "yield_bypasses_ratelimit": True},
    **{
        f"xen-{version}": {
            "xen": version,
            "yield_bypasses_ratelimit": "version",
            "fresh_ratelimit_slice": "version",
        }
        for version in ("4.17", "4.18")
    },
}
