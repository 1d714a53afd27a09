"""Rules that wait for some exits, then choose by class of candidate: one for many short rules, made to be tuned.

docs/model.md, section 11; `ple-gym tune` searches its parameters.
"""

from __future__ import annotations

import numpy as np

from ple_gym.rules.compiling import helper
from ple_gym.rules.helpers import (
    draw,
    earliest,
    has_interrupt,
    may_run,
    pending_since,
    queued_since,
    runnable_sibling,
    socket,
    victim,
)
from ple_gym.rules.registry import choice, rule, whole
from ple_gym.rules.spin_age import likely_holder, older_spinner, spins_since
from ple_gym.sim.state import HINT_FAILED, HINT_IGNORED, INF

COMMON = {"source": "docs/model.md 11", "hypothetical": True, "settled": False}
KERNEL, SPINNER, INTERRUPT, ANYONE = range(4)  # classes of candidates
OLDEST, LATEST, RANDOM, NEXT = range(4)  # orders within a class
ANY, SPARE, STRANGER = range(3)  # who may be put off; where, in words of the parameter `socket`: any, first, same
FIRST, SAME = 1, 2
RESUME, DEFER = 0, 1


@helper
def puts_off_stranger(see, v):
    """Whether a hint at v puts off a vCPU of another VM."""
    there = victim(see, v)
    return there >= 0 and see.vcpu[there].vm != see.vcpu[v].vm


@helper
def spares(see, v, k):
    """Whether v may be chosen for whom that puts off."""
    if k.victim == ANY:
        return True
    return puts_off_stranger(see, v) or (k.victim == SPARE and victim(see, v) < 0)


@helper
def tried_in_vain(see, v):
    """Whether the last hint at v did nothing."""
    return see.vcpu[v].hint == HINT_FAILED or see.vcpu[v].hint == HINT_IGNORED


@helper
def in_class(see, v, kind):
    """Whether a sibling that can be run here is in a class."""
    if kind == KERNEL:
        return likely_holder(see, v)
    if kind == SPINNER:
        return older_spinner(see, v)
    return kind == ANYONE or has_interrupt(see, v)


@helper
def since(see, v, kind):
    """Since when v is what its class says, cycles."""
    if kind == SPINNER:
        return spins_since(see, v)
    return pending_since(see, v) if kind == INTERRUPT else queued_since(see, v)


@helper
def chosen(see, k, kind, near):
    """Of a class the candidate that comes first, on the asker's socket if `near`; -1 if there is none."""
    m = see.vcpu[see.asker].vm
    first, n = see.vm[m].first, see.vm[m].vcpus
    reach = min(n, k.reach + 1) if k.reach > 0 else n
    ripe = see.now - k.ripe_us * see.tsc_hz // 1_000_000
    count, turn = np.int64(0), np.int64(-1)
    while True:
        found, least = np.int64(-1), INF
        for i in range(1, reach):
            v = first + (see.asker - first + i) % n
            if not runnable_sibling(see, v) or not in_class(see, v, kind) or not spares(see, v, k):
                continue
            if see.vcpu[v].queued_since > ripe or (k.retry == 0 and tried_in_vain(see, v)):
                continue
            if near and socket(see, see.vcpu[v].pcpu) != socket(see, see.here):
                continue
            if count == turn:
                return v
            count += 1
            time = since(see, v, kind)
            place = i if k.order == NEXT else (-time if k.order == LATEST else time)
            if found < 0 or place < least or (place == least and v < found):
                found, least = v, place
        if k.order != RANDOM or count == 0:
            return found
        count, turn = np.int64(0), draw(see) * count >> 32


_RANK = "0: never; else its turn"
_AFTER = "exits before that"


@rule(
    "patience", reads="kernel mode, exits, interrupts, hints, victims, waiting times", actuator="hint", **COMMON,
    kernel=whole(0, 4, default=2, help=f"likely holder: {_RANK}"),
    kernel_after=whole(0, 1000, default=64, help=_AFTER),
    spinner=whole(0, 4, default=1, help=f"who spins since before the asker: {_RANK}"),
    spinner_after=whole(0, 1000, default=0, help=_AFTER),
    interrupt=whole(0, 4, default=0, help=f"who has an interrupt to serve: {_RANK}"),
    interrupt_after=whole(0, 1000, default=0, help=_AFTER),
    anyone=whole(0, 4, default=0, help=f"any sibling: {_RANK}"),
    anyone_after=whole(0, 1000, default=0, help=_AFTER),
    order=choice("oldest", "latest", "random", "next", default="oldest", help="who is first in a class"),
    victim=choice("any", "spare", "stranger", default="any", help="spare: puts off no sibling; stranger: only others"),
    socket=choice("any", "first", "same", default="any", help="the asker's first, or only"),
    reach=whole(0, 255, default=0, help="siblings that are looked at, from the asker on"),
    ripe_us=whole(0, 10_000, default=0, help="for how long a candidate must have waited"),
    ran_us=whole(0, 10_000, default=0, help="for how long an asker runs before that"),
    retry=whole(0, 1, default=1, help="1: also whose last hint failed or was ignored"),
    count=choice("progress", "dispatch", default="progress", help="exits are counted since then"),
    fallback=choice("resume", "defer", "longest", default="resume", help="where nobody is found"),
    fallback_after=whole(0, 1000, default=0, help=_AFTER),
)  # fmt: skip
def patience(see, asker, k):
    """By class of candidate, each after some exits; else resume, defer or longest waiting."""
    if see.now - see.pcpu[see.here].dispatched_at < k.ran_us * see.tsc_hz // 1_000_000:
        return asker
    exits = see.vcpu[asker].ples if k.count == 0 else see.pcpu[see.here].dispatch_exits
    ranks = (k.kernel, k.spinner, k.interrupt, k.anyone)
    after = (k.kernel_after, k.spinner_after, k.interrupt_after, k.anyone_after)
    for rank in range(1, 5):
        for kind in range(4):
            if ranks[kind] != rank or exits < after[kind]:
                continue
            for far in range(k.socket == FIRST, -1, -1):
                found = chosen(see, k, kind, far == 1 or k.socket == SAME)
                if found >= 0:
                    return found
    if k.fallback == RESUME or exits < k.fallback_after:
        return asker
    if k.fallback == DEFER:
        return see.defer
    found = earliest(see, may_run, queued_since)
    return found if found >= 0 else asker


@rule(
    "resume-then-defer", reads="exits", actuator="yield", **COMMON,
    after=whole(0, 10_000, default=7, help="exits that are resumed; 0 is `host`"),
)  # fmt: skip
def resume_then_defer(see, asker, k):
    """Resume 7 times (`after`), then defer to the host."""
    return asker if see.vcpu[asker].ples <= k.after else see.defer
