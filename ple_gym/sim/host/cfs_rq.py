"""Queues of Linux's fair scheduler, in virtual time, and what is in them (docs/model.md, 15; kernel/sched/fair.c).

Entities and queues are nodes, records of one kind: a vCPU is an entity, a pCPU's root queue is a queue, and a group, a
VM on a pCPU, is both. `q` and `x` are numbers of nodes, a queue and an entity of it. A queue's entities are chained by
`after`, in no order; what runs is in its queue, too. `nodes` are all of them, `own` are the scheduler's parameters. All
times are cycles, virtual ones of an entity of weight 1024.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import INF, NONE

#: Which rules act, by the version of Linux that brought them: CFS; EEVDF; delayed dequeue; buddies that are eligible;
#: slice protection of its own; a yield that forfeits virtual time.
CFS, E66, E612, E614, E618, E618Y = np.arange(6)
NICE_0 = 1024  # weight of an ordinary thread
LEAST = np.int64(2)  # MIN_SHARES

_NODE = np.dtype(
    [
        # as an entity
        ("vruntime", "i8"), ("deadline", "i8"), ("weight", "i8"), ("vlag", "i8"), ("vprot", "i8"),
        ("ran", "i8"),  # cycles since it was picked
        ("seq", "i8"),  # when it came into the queue's order: of equals the earliest is first
        ("after", "u4"),  # the next entity of its queue, or NONE
        ("on_rq", "u1"), ("delayed", "u1"), ("rel_deadline", "u1"), ("pad0", "u1"),
        # as a queue
        ("min_vruntime", "i8"),
        ("exec_start", "i8"),  # the time up to which its current entity has been charged
        ("nr", "i8"),  # entities
        ("load", "i8"), ("total", "i8"),  # sum of weights; of weighted keys, unless a key has ever been too large
        ("wide", "u4"),  # whether one has
        ("loose", "u4"),  # whether min_vruntime may be behind the least of its entities (EEVDF)
        ("first", "u4"), ("curr", "u4"), ("next", "u4"), ("skip", "u4"),  # of its entities; or NONE
    ],
    align=True,
)  # fmt: skip

#: As a vCPU, which is never a queue: cycles for which its pCPU polls for it, and when it went to sleep, 0 once it has
#: run again.
_AS_VCPU = {"poll": "min_vruntime", "asleep_since": "exec_start"}
NODE = np.dtype(
    {
        "names": [*_NODE.fields, *_AS_VCPU],
        "formats": [*(kind for kind, _ in _NODE.fields.values()), *["i8"] * len(_AS_VCPU)],
        "offsets": [
            *(offset for _, offset in _NODE.fields.values()),
            *(_NODE.fields[at][1] for at in _AS_VCPU.values()),
        ],
        "itemsize": _NODE.itemsize,
    },
    align=True,
)


@inlined
def divided(a, b):
    """a / b, rounded towards zero (div_s64)."""
    return a // b if a >= 0 else -(-a // b)


@inlined
def virtual(cycles, entity):
    """So many cycles of an entity in virtual time [calc_delta_fair]."""
    return cycles if entity.weight == NICE_0 else cycles * NICE_0 // entity.weight


@inlined
def bounded(own, x):
    """x, so near to 0 that sums of weighted keys fit in 64 bits."""
    return max(-own.farthest, min(own.farthest, x))


@inlined
def key(own, nodes, q, x):
    """Virtual time of an entity from its queue's on [entity_key]."""
    return bounded(own, nodes[x].vruntime - nodes[q].min_vruntime)


@inlined
def sums(own, nodes, q):
    """Sum of weights, and of weighted keys, of all entities."""
    queue = nodes[q]
    return queue.load, bounded_total(own, nodes, q) if queue.wide else queue.total


@called
def bounded_total(own, nodes, q):
    """Sum of weighted keys of all entities, where one key or another is too large."""
    total = np.int64(0)
    x = nodes[q].first
    while x != NONE:
        total += nodes[x].weight * key(own, nodes, q, x)
        x = nodes[x].after
    return total


@inlined
def is_far(own, nodes, q, x):
    """Whether the key of an entity is too large."""
    distance = nodes[x].vruntime - nodes[q].min_vruntime
    return distance > own.farthest or distance < -own.farthest


@inlined
def is_wide(own, nodes, q, x):
    """Whether the sum of weighted keys is not kept, because this entity's or another's has ever been too large."""
    if is_far(own, nodes, q, x):
        catch_up(nodes, q)
        nodes[q].wide |= is_far(own, nodes, q, x)
    return nodes[q].wide != 0


@inlined
def count_in(own, nodes, q, x):
    """An entity counts in its queue's sums."""
    nodes[q].load += nodes[x].weight
    if not is_wide(own, nodes, q, x):
        nodes[q].total += nodes[x].weight * (nodes[x].vruntime - nodes[q].min_vruntime)


@inlined
def count_out(nodes, q, x):
    """An entity does not count any more."""
    queue = nodes[q]
    queue.load -= nodes[x].weight
    if not queue.wide:
        queue.total -= nodes[x].weight * (nodes[x].vruntime - queue.min_vruntime)


@inlined
def advance(own, nodes, q, x, time):
    """An entity of a queue has had so much virtual time."""
    nodes[x].vruntime += time
    if not is_wide(own, nodes, q, x):
        nodes[q].total += nodes[x].weight * time


@inlined
def avg_vruntime(own, nodes, q):
    """The queue's virtual time V."""
    weight, total = sums(own, nodes, q)
    return nodes[q].min_vruntime + (total // weight if weight > 0 else np.int64(0))


@inlined
def eligible(own, nodes, q, x):
    """Whether an entity has had no more than its share [entity_eligible]."""
    weight, total = sums(own, nodes, q)
    return key(own, nodes, q, x) * weight <= total


@called
def update_min_vruntime(nodes, q):
    """The least virtual time of all entities, which never goes back."""
    least = INF
    x = nodes[q].first
    while x != NONE:
        least = min(least, nodes[x].vruntime)
        x = nodes[x].after
    queue = nodes[q]
    if queue.nr > 0 and least > queue.min_vruntime:
        if not queue.wide:
            queue.total -= queue.load * (least - queue.min_vruntime)
        queue.min_vruntime = least
    queue.loose = 0


@inlined
def lag_behind(own, nodes, q):
    """An entity has had time: min_vruntime is updated later if V, which does not depend on it, is all that counts."""
    if own.version == CFS or nodes[q].wide:
        update_min_vruntime(nodes, q)
    else:
        nodes[q].loose = 1


@inlined
def catch_up(nodes, q):
    """Update min_vruntime if that has been put off: an entity comes or goes."""
    if nodes[q].loose:
        update_min_vruntime(nodes, q)


@inlined
def update_curr(own, nodes, q, t):
    """Charge what has run in a queue up to t; returns whether its turn is over."""
    queue = nodes[q]
    x, ran = queue.curr, t - queue.exec_start
    queue.exec_start = t
    e = nodes[x]
    advance(own, nodes, q, x, virtual(ran, e))
    e.ran += ran
    over = False
    if own.version != CFS and e.vruntime >= e.deadline:
        e.deadline = e.vruntime + virtual(own.slice, e)
        over = True
    lag_behind(own, nodes, q)
    if own.version == CFS or queue.nr == 1:
        return False
    if own.version >= E618:
        return over or e.vruntime >= e.vprot
    if own.version >= E612:
        return over or (e.vprot != e.deadline and not eligible(own, nodes, q, x))
    return over


@inlined
def clear_buddies(nodes, root, q, x):
    """Entity x of queue q is no longer anybody's buddy, on the pCPU with this root queue."""
    if nodes[q].next == x:
        nodes[q].next = NONE
        if nodes[root].next == q:
            nodes[root].next = NONE
    if nodes[q].skip == x:
        nodes[q].skip = NONE
        if nodes[root].skip == q:
            nodes[root].skip = NONE


@called
def charge_queue(own, nodes, root, q, t):
    """Charge what has run in queue q up to t; returns whether its turn is over, and it is no buddy any more."""
    x = nodes[q].curr
    over = update_curr(own, nodes, q, t)
    if over:
        clear_buddies(nodes, root, q, x)
    return over


@inlined
def is_ahead(own, nodes, q, x, ideal):
    """Whether an entity, which runs, is more than `ideal` ahead of the first of its queue (CFS)."""
    e = nodes[x]
    return e.ran >= own.slice and e.vruntime - nodes[foremost(nodes, q, NONE)].vruntime > ideal


# --- coming and going -------------------------------------------------------------------------------------------------


@inlined
def chain(own, nodes, q, x, seq):
    """Put an entity into a queue."""
    queue, e = nodes[q], nodes[x]
    catch_up(nodes, q)
    e.after = queue.first
    e.on_rq = 1
    e.seq = seq
    queue.first = x
    queue.nr += 1
    count_in(own, nodes, q, x)


@called
def unchain(nodes, q, x):
    """Take an entity out of its queue."""
    queue, e = nodes[q], nodes[x]
    catch_up(nodes, q)
    count_out(nodes, q, x)
    if queue.first == x:
        queue.first = e.after
    else:
        y = queue.first
        while nodes[y].after != x:
            y = nodes[y].after
        nodes[y].after = e.after
    e.after = NONE
    e.on_rq = 0
    queue.nr -= 1
    if queue.nr == 0:
        queue.total, queue.wide = 0, 0


@called
def place_entity(own, nodes, q, x, wakes):
    """Give an entity its virtual time before it comes into a queue."""
    queue, e = nodes[q], nodes[x]
    if own.version == CFS:
        if wakes:
            e.vruntime = max(e.vruntime, queue.min_vruntime - own.sleeper)
        return
    weight, total = sums(own, nodes, q)
    e.vruntime = queue.min_vruntime
    if weight > 0:
        e.vruntime += total // weight - e.vlag - divided(e.vlag * e.weight, weight)
    if e.rel_deadline:
        e.deadline += e.vruntime
        e.rel_deadline = 0
    else:
        e.deadline = e.vruntime + virtual(own.slice, e)


@called
def detach(own, nodes, q, x, moves):
    """Take an entity out of its queue; it keeps its lag, and if it moves its deadline, too."""
    e = nodes[x]
    if own.version != CFS:
        limit = virtual(own.lag, e)
        e.vlag = max(-limit, min(limit, avg_vruntime(own, nodes, q) - e.vruntime))
        if e.delayed:
            e.vlag = min(e.vlag, 0)
        elif moves and own.version >= E612:
            e.deadline -= e.vruntime
            e.rel_deadline = 1
    e.delayed = 0
    unchain(nodes, q, x)
    lag_behind(own, nodes, q)


@called
def requeue_delayed(own, nodes, q, x, seq):
    """An entity, whose dequeue was delayed, can run again."""
    e = nodes[x]
    e.delayed = 0
    e.seq = seq
    if avg_vruntime(own, nodes, q) > e.vruntime:
        unchain(nodes, q, x)
        e.vlag = 0
        place_entity(own, nodes, q, x, True)
        chain(own, nodes, q, x, seq)


@called
def reweight(own, nodes, q, x, weight):
    """Give an entity another weight [reweight_entity]; since 6.12 its lag stays."""
    e = nodes[x]
    old = e.weight
    if not e.on_rq:
        e.weight = weight
        if own.version != CFS:
            e.vlag = divided(e.vlag * old, weight)
        return
    origin = avg_vruntime(own, nodes, q) if own.version >= E612 else e.vruntime
    catch_up(nodes, q)
    count_out(nodes, q, x)
    e.weight = weight
    if own.version == CFS:
        count_in(own, nodes, q, x)
        return
    protection = bounded(own, e.vprot - e.vruntime)
    e.deadline = origin + divided(bounded(own, e.deadline - origin) * old, weight)
    e.vruntime = origin - divided(bounded(own, origin - e.vruntime) * old, weight)
    if own.version >= E618:
        e.vprot = e.vruntime + divided(protection * old, weight)
    count_in(own, nodes, q, x)
    lag_behind(own, nodes, q)


# --- picking ----------------------------------------------------------------------------------------------------------


@called
def foremost(nodes, q, but):
    """The entity with the least virtual time, but for one (CFS)."""
    found = NONE
    x = nodes[q].first
    while x != NONE:
        if x != but and (found == NONE or before(nodes[x], nodes[found])):
            found = x
        x = nodes[x].after
    return found


@inlined
def before(a, b):
    """Whether entity a is before b in virtual time [entity_before]."""
    return a.vruntime < b.vruntime or (a.vruntime == b.vruntime and a.seq < b.seq)


@inlined
def near(own, nodes, a, b):
    """Whether a is at most the wake-up granularity behind b [wakeup_preempt_entity(a, b) < 1]."""
    e = nodes[b]
    return nodes[a].vruntime - e.vruntime <= virtual(own.granularity, e)


@inlined
def pick_cfs(own, nodes, q):
    """The leftmost entity, or a buddy that is near enough [pick_next_entity, 5.15]."""
    queue = nodes[q]
    left = foremost(nodes, q, NONE)
    chosen = left
    if queue.skip == left:
        second = foremost(nodes, q, left)
        if second != NONE and near(own, nodes, second, left):
            chosen = second
    if queue.next != NONE and near(own, nodes, queue.next, left):
        chosen = queue.next
    return chosen


@inlined
def protected(own, nodes, x):
    """Whether what runs may finish its slice [RUN_TO_PARITY]."""
    e = nodes[x]
    return e.vruntime < e.vprot if own.version >= E618 else e.vprot == e.deadline


@inlined
def pick_eevdf(own, nodes, q):
    """Who runs next of a queue that is not empty, whatever its buddies (EEVDF)."""
    if nodes[q].nr == 1:
        return nodes[q].first
    weight, total = sums(own, nodes, q)
    return earliest(own, nodes, q, weight, total)


@called
def earliest(own, nodes, q, weight, total):
    """The eligible entity with the earliest deadline; what runs first, if it is eligible and protected.

    `weight` and `total` are the queue's sums.
    """
    queue = nodes[q]
    curr = queue.curr
    goes_on = curr != NONE and key(own, nodes, q, curr) * weight <= total
    if goes_on and protected(own, nodes, curr):
        return curr
    share = total // weight
    limit = queue.min_vruntime + share if share < own.farthest else INF  # of who is eligible
    best, deadline, seq = NONE, INF, INF
    x = queue.first
    while x != NONE:
        e = nodes[x]
        due = (e.deadline < deadline) | ((e.deadline == deadline) & (e.seq < seq))
        if due & (e.vruntime <= limit) & (x != curr):  # at once: nobody can guess these one by one
            best, deadline, seq = x, e.deadline, e.seq
        x = e.after
    if goes_on and nodes[curr].deadline < deadline:
        return curr
    return best if best != NONE else queue.first


@called
def pick_next_entity(own, nodes, q):
    """Who runs next of a queue that is not empty."""
    queue = nodes[q]
    if queue.nr == 1:
        return queue.first
    if own.version == CFS:
        return pick_cfs(own, nodes, q)
    weight, total = sums(own, nodes, q)
    if own.version >= E614 and queue.next != NONE and key(own, nodes, q, queue.next) * weight <= total:
        return queue.next
    return earliest(own, nodes, q, weight, total)


@called
def set_next_entity(nodes, q, x, t):
    """An entity runs from t on."""
    queue, e = nodes[q], nodes[x]
    queue.next = NONE if queue.next == x else queue.next
    queue.skip = NONE if queue.skip == x else queue.skip
    queue.curr = x
    queue.exec_start = t
    e.ran = 0
    e.vprot = e.deadline
