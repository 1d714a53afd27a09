"""What Linux's fair scheduler adds to an observation: virtual times, buddies, hints and whom they would put off.

Virtual times stand as they were when their queue was last charged, at the last tick, switch or yield there, as the
scheduler itself has them. CFS has no lag, no deadline and nobody who is eligible.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ple_gym.sim.host.cfs_rq import CFS, E618, avg_vruntime, virtual
from ple_gym.sim.host.fair_nodes import grouped, queue_of, root_of
from ple_gym.sim.jit import inlined
from ple_gym.sim.pause_loop import suspected_spinner
from ple_gym.sim.state import HINT_FAILED, HINT_IGNORED, HINT_WON, NONE, QUEUED
from ple_gym.view.record import HYPERVISOR
from ple_gym.view.rows import FLAG, LOGARITHM, SHARE, SIGNED, Feature, Table
from ple_gym.view.scales import FLOAT32, INT32, ONE, ZERO, counted, scaled, within

NAME = "fair"
MOST_GROWTH = np.int64(2**30)


class Entity(NamedTuple):
    """What the scheduler and KVM know of a vCPU. Virtual times are cycles."""

    lag: Any  # by how much its virtual time is behind that of its queue; 0 if it is in none
    deadline: Any  # its deadline less its queue's virtual time
    eligible: Any
    group_lag: Any  # as lag, of its group in the root queue
    group_eligible: Any
    buddy: Any  # whether it is the next buddy of its queue
    group_buddy: Any
    delayed: Any  # 0 or 1
    growth: Any  # int32: its PLE window, in windows as they begin, less one
    hint: Any  # what the last one at it did
    displaced: Any  # the vCPU that a hint at it would put off; itself if there is none
    displaces: Any  # whether there is one


@inlined
def virtual_time(own, nodes, q):
    """Of a queue: its average, or under CFS the least."""
    return nodes[q].min_vruntime if own.version == CFS else avg_vruntime(own, nodes, q)


@inlined
def growth_of(see, v):
    """How often v's PLE window holds the one that it began with, less one."""
    return INT32(max(0, min(MOST_GROWTH, np.int64(see.vcpu[v].window) // max(1, see.par[0].least_window)) - 1))


def look(see, number, here):
    """The scheduler's and KVM's records of vCPU `number`."""
    v, asker = np.uint32(number), np.uint32(here.asker)
    vcpu, own, nodes = see.vcpu[v], see.host_par[0], see.host_vcpu
    q, root = queue_of(see, vcpu.pcpu, v), root_of(see, vcpu.pcpu)
    time, queued = virtual_time(own, nodes, q), np.int64(nodes[v].on_rq)
    lag, deadline = (time - nodes[v].vruntime) * queued, (nodes[v].deadline - time) * queued
    group_lag, in_root = np.int64(0), np.int64(0)
    if grouped(see):
        in_root = np.int64(nodes[q].on_rq)
        group_lag = (virtual_time(own, nodes, root) - nodes[q].vruntime) * in_root
    fair = own.version != CFS
    there = see.pcpu[vcpu.pcpu].current
    displaces = vcpu.state == QUEUED and there != NONE and there != asker
    return Entity(
        lag,
        deadline if fair else np.int64(0),
        fair and queued == 1 and lag >= 0,
        group_lag,
        fair and in_root == 1 and group_lag >= 0,
        nodes[q].next == v,
        grouped(see) and nodes[root].next == q,
        nodes[v].delayed,
        growth_of(see, v),
        vcpu.hint,
        there if displaces else v,
        displaces,
    )


@inlined
def of_slice(cycles, host_par):
    """Cycles as a share of the base slice, -1..1."""
    return within(FLOAT32(cycles) * (ONE / FLOAT32(host_par.slice)), -ONE, ONE)


@inlined
def protection(see, p, now):
    """Virtual time for which the asker is protected from now on, in its queue; 0 or less: it is not (CFS: never)."""
    own, nodes, v = see.host_par[0], see.host_vcpu, see.pcpu[p].current
    e = nodes[v]
    time = e.vruntime + virtual(now - nodes[queue_of(see, p, v)].exec_start, e)
    if own.version == CFS or (own.version < E618 and e.vprot != e.deadline):
        return np.int64(0)
    return e.vprot - time


@inlined
def of_hints(count, hints):
    """A count of hints as a share of all so far, 0..1; 0 if there are none."""
    return within(FLOAT32(count) / FLOAT32(max(1, hints.given)), ZERO, ONE)


OWN = Table(
    vcpu=(
        Feature(
            "lag", HYPERVISOR, "its virtual time behind its queue's (CFS: the least), in slices; else 0", SIGNED,
            lambda own, host_par: of_slice(own.lag, host_par),
            NAME, after="last_run",
        ),
        Feature(
            "eligible", HYPERVISOR, "it has had no more than its share in its queue (not under CFS)", FLAG,
            lambda own: own.eligible,
            NAME, after="last_run",
        ),
        Feature(
            "deadline", HYPERVISOR, "its deadline after its queue's virtual time, in slices (not under CFS)", SIGNED,
            lambda own, host_par: of_slice(own.deadline, host_par),
            NAME, after="last_run",
        ),
        Feature(
            "group_lag", HYPERVISOR, "as lag, of its group in its pCPU's root queue", SIGNED,
            lambda own, host_par: of_slice(own.group_lag, host_par),
            NAME, after="last_run",
        ),
        Feature(
            "group_eligible", HYPERVISOR, "as eligible, of that group", FLAG,
            lambda own: own.group_eligible,
            NAME, after="last_run",
        ),
        Feature(
            "buddy", HYPERVISOR, "it is the next buddy of its queue: somebody hinted at it", FLAG,
            lambda own: own.buddy,
            NAME, after="last_run",
        ),
        Feature(
            "group_buddy", HYPERVISOR, "its group is the next buddy of the root queue", FLAG,
            lambda own: own.group_buddy,
            NAME, after="last_run",
        ),
        Feature(
            "delayed", HYPERVISOR, "it sleeps, and its dequeue is delayed", FLAG,
            lambda own: own.delayed,
            NAME, after="last_run",
        ),
        Feature(
            "window_growth", HYPERVISOR, "its PLE window (or count) in windows as they begin, less one, as a count",
            LOGARITHM,
            lambda own: counted(own.growth),
            NAME, after="exits",
        ),
        Feature(
            "hint_failed", HYPERVISOR, "the last hint at it found nobody else on either pCPU", FLAG,
            lambda own: own.hint == HINT_FAILED,
            NAME, after="pcpu",
        ),
        Feature(
            "hint_ignored", HYPERVISOR, "its pCPU chose another after the last hint at it", FLAG,
            lambda own: own.hint == HINT_IGNORED,
            NAME, after="pcpu",
        ),
        Feature(
            "hint_won", HYPERVISOR, "its pCPU chose it after the last hint at it", FLAG,
            lambda own: own.hint == HINT_WON,
            NAME, after="pcpu",
        ),
        Feature(
            "displaces", HYPERVISOR, "somebody but the asker runs on its pCPU, whom a hint at it would put off", FLAG,
            lambda own: own.displaces,
            NAME, after="pcpu",
        ),
        Feature(
            "displaces_sibling", HYPERVISOR, "and who is of the asker's VM", FLAG,
            lambda own, see, asker: own.displaces & (see.vcpu[own.displaced].vm == see.vcpu[asker].vm),
            NAME, after="pcpu",
        ),
        Feature(
            "displaces_spinner", HYPERVISOR, "and who seems to spin", FLAG,
            lambda own, see: own.displaces & suspected_spinner(see.vmp, see.vcpu, own.displaced),
            NAME, after="pcpu",
        ),
    ),
    host=(
        Feature(
            "protected", HYPERVISOR, "how long the asker's turn is protected in its queue, in slices; CFS: 0", SHARE,
            lambda see, p, now, host_par: max(ZERO, of_slice(protection(see, np.uint32(p), now), host_par)),
            NAME, after="queue",
        ),
        Feature(
            "alone", HYPERVISOR, "nobody else is on the asking pCPU: a yield does nothing, and a hint may fail", FLAG,
            lambda see, p: see.host_pcpu[np.uint32(p)].nr_running == 1,
            NAME, after="queue",
        ),
        Feature(
            "to_tick", HYPERVISOR, "L(time to the asking pCPU's next tick)", LOGARITHM,
            lambda asking, now, later, low, factor: scaled(max(later, asking.tick_at + later - now) - now, low, factor),
            NAME, after="ran",
        ),
        Feature(
            "hints_failed", HYPERVISOR, "share of all hints so far that found nobody else on either pCPU", SHARE,
            lambda see: of_hints(see.hints.failed, see.hints),
            NAME, after="queued_spinners",
        ),
        Feature(
            "hints_ignored", HYPERVISOR, "share of all hints so far after which the pCPU chose another", SHARE,
            lambda see: of_hints(see.hints.ignored, see.hints),
            NAME, after="queued_spinners",
        ),
        Feature(
            "hints_won", HYPERVISOR, "share of all hints so far after which the pCPU chose that vCPU", SHARE,
            lambda see: of_hints(see.hints.won, see.hints),
            NAME, after="queued_spinners",
        ),
    ),
    look=look,
)  # fmt: skip
