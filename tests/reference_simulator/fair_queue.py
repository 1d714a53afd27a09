"""What the fair scheduler keeps in order of virtual time: entities, and queues of them (15.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .state import Vcpu


def toward_zero(a: int, b: int) -> int:
    """a / b (b > 0) rounded towards zero."""
    return a // b if a >= 0 else -(-a // b)


@dataclass(eq=False)
class Entity:
    """What waits in a queue: a vCPU or a group."""

    w: int  # weight
    v: int = 0  # virtual time
    d: int = 0  # deadline
    vlag: int = 0
    prot: int = 0
    ran: int = 0
    seq: int = 0
    queue: Queue | None = None  # the one that it is in
    delayed: bool = False
    relative: bool = False

    @property
    def queued(self) -> bool:
        return self.queue is not None

    @property
    def home(self) -> Queue:
        """The queue that it is in; there must be one."""
        assert self.queue is not None
        return self.queue

    def vt(self, cycles: int) -> int:
        return cycles * 1024 // self.w


@dataclass(eq=False)
class Thread(Entity):
    """A vCPU, as its scheduler sees it."""

    vcpu: Vcpu = field(kw_only=True)
    poll: int = 0  # 15.12
    asleep_since: int | None = None


@dataclass(eq=False)
class Group(Entity):
    """A VM on one pCPU."""

    members: Queue = field(kw_only=True)


@dataclass(eq=False)
class Queue:
    bound: Callable[[int], int]
    group: Group | None = None  # whose members these are; none of the root queue
    root: Queue | None = None  # the one that its group is in
    entities: list[Entity] = field(default_factory=list)
    m: int = 0  # the least virtual time
    start: int = 0  # up to here the current entity is charged
    next: Entity | None = None
    skip: Entity | None = None

    def key(self, x: Entity) -> int:
        return self.bound(x.v - self.m)

    @property
    def W(self) -> int:
        return sum(x.w for x in self.entities)

    @property
    def S(self) -> int:
        return sum(x.w * self.key(x) for x in self.entities)

    @property
    def V(self) -> int:
        return self.m + self.S // self.W if self.entities else self.m

    def eligible(self, x: Entity) -> bool:
        return self.key(x) * self.W <= self.S

    def alone(self, x: Entity) -> bool:
        return self.entities == [x]

    def put(self, x: Entity) -> None:
        assert not x.queued
        self.entities.append(x)
        x.queue = self

    def take(self, x: Entity) -> None:
        self.entities.remove(x)
        x.queue = None

    def lowest(self) -> None:
        if self.entities:
            self.m = max(self.m, min(x.v for x in self.entities))

    def forget(self, x: Entity) -> None:
        """15.2: x is nobody's buddy any more."""
        if self.next is x:
            self.next = None
            if self.root is not None and self.root.next is self.group:
                self.root.next = None
        if self.skip is x:
            self.skip = None
            if self.root is not None and self.root.skip is self.group:
                self.root.skip = None
