"""Threads of a VM that has more of them than vCPUs (section 7.6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .state import INF, Phase, State, Vcpu

if TYPE_CHECKING:
    from .state import Vm

Place = Enum("Place", "ON READY SLEEPING DONE")


@dataclass(eq=False)
class Thread:
    number: int  # within the VM
    vcpu: Vcpu
    place: Place = Place.ON
    # While it is on no vCPU.
    transaction: int = 0
    section: int = 0
    phase: Phase = Phase.USER
    remaining: int = 0
    wake_at: int = INF
    asked_at: int | None = None  # 7.13

    def sleep_until(self, t: int) -> None:
        self.place = Place.SLEEPING
        self.wake_at = t


def keep(v: Vcpu) -> None:
    """v's thread leaves it."""
    h = v.thread
    assert h is not None and v.phase in (Phase.USER, Phase.KERNEL), "whoever spins or holds keeps its vCPU"
    h.transaction, h.section, h.phase, h.remaining = v.transaction, v.section, v.phase, v.remaining


def take(v: Vcpu, h: Thread) -> None:
    """v goes on with h."""
    if h.place is Place.READY:
        v.vm.ready.remove(h)
    h.place = Place.ON
    h.vcpu = v
    v.transaction, v.section, v.phase, v.remaining = h.transaction, h.section, h.phase, h.remaining
    if v.thread is not h:
        v.cold += v.vm.thread_switch
        v.thread = h


def next_thread(v: Vcpu) -> bool:
    """v's thread sleeps or is DONE: returns whether v goes on with another one."""
    if v.vm.ready:
        take(v, v.vm.ready[0])
        return True
    v.phase = Phase.USER
    return False


def goes_to_sleep(v: Vcpu) -> None:
    """v's thread is SLEEPING."""
    keep(v)
    if not next_thread(v):
        v.state = State.BLOCKED


def ends(v: Vcpu) -> None:
    """v's thread is DONE."""
    if not next_thread(v):
        alive = [h for h in v.vm.threads if h.place is not Place.DONE]
        left = [w for w in v.vm.vcpus if w.state is not State.DONE]
        v.state = State.DONE if len(alive) < len(left) else State.BLOCKED


def lies_idle(v: Vcpu) -> bool:
    return v.state is State.BLOCKED and not v.halted


def sleep_ends(h: Thread) -> Vcpu | None:
    """h can run again: returns the vCPU to be woken, if there is one for it."""
    assert h.place is Place.SLEEPING
    h.wake_at = INF
    idle = [v for v in (h.vcpu, *h.vcpu.vm.vcpus) if lies_idle(v)]
    if idle:
        take(idle[0], h)
        return idle[0]
    h.place = Place.READY
    h.vcpu.vm.ready.append(h)
    return None


def check(vm: Vm) -> None:
    """Each thread is in exactly one place, and no vCPU lies idle beside one that is ready."""
    on = {v.thread for v in vm.vcpus if v.state is not State.DONE and not lies_idle(v)}
    assert on == {h for h in vm.threads if h.place is Place.ON}
    assert all(h.vcpu.thread is h for h in on if h is not None)
    assert [h.place for h in vm.ready] == [Place.READY] * len(vm.ready)
    assert set(vm.ready) == {h for h in vm.threads if h.place is Place.READY} and len(set(vm.ready)) == len(vm.ready)
    assert all((h.place is Place.SLEEPING) == (h.wake_at < INF) for h in vm.threads)
    assert all(v.wake_at == INF for v in vm.vcpus)
    if vm.ready:
        assert not any(lies_idle(v) or v.state is State.DONE for v in vm.vcpus), "nobody is ready beside an idle vCPU"
