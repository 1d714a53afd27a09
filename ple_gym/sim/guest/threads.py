"""Threads: who sleeps gives its vCPU to the next one, in a VM that has more threads than vCPUs (docs/model.md, 7.6).

Elsewhere a vCPU is its own only thread, and `s.thread` is empty.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.metrics import note, record_value
from ple_gym.sim.state import (
    BLOCKED,
    DONE,
    INF,
    NONE,
    ON_VCPU,
    READY,
    RESPONSES,
    RUNNING,
    SLEEPING,
    SLEPT,
    THREAD_DONE,
    THREAD_TAKEN,
    USER,
)

# --- what a program asks for ------------------------------------------------------------------------------------------


@inlined
def sleep_until(s, v, t, until):
    """v's thread sleeps: the vCPU does if it is its only one, or if no other is ready."""
    s.world[0].next_wake = min(s.world[0].next_wake, until)
    respond(s, v, t, until)
    if s.program[s.vcpu[v].vm].threads > 0:
        keep(s, v, SLEEPING)
        s.thread[s.guest[v].thread].wake_at = until
        next_thread(s, v, t, BLOCKED)
    else:
        s.guest[v].wake_at = until
        leave_off(s, v, t, BLOCKED)


@inlined
def no_more_work(s, v, t):
    """v's thread has found no transaction: it is done, and so is the vCPU if it is not needed any more."""
    respond(s, v, t, np.int64(0))
    if s.program[s.vcpu[v].vm].threads > 0:
        s.thread[s.guest[v].thread].place = THREAD_DONE
        next_thread(s, v, t, DONE if too_many_vcpus(s, s.vcpu[v].vm) else BLOCKED)
    else:
        leave_off(s, v, t, DONE)


# --- responses (7.13) -------------------------------------------------------------------------------------------------


@inlined
def respond(s, v, t, until):
    """v's thread has done what it was asked for when its last sleep ended. It sleeps until then, or (0) has no work."""
    if s.program[s.vcpu[v].vm].goal > 0:
        count_response(s, v, t, until)


@called
def count_response(s, v, t, until):
    """If v was asked for something, its response is counted: in thousandths of its VM's goal."""
    world, program = s.world[0], s.program[s.vcpu[v].vm]
    own = s.response[s.par[0].vcpus + np.int64(s.guest[v].thread) if program.threads > 0 else np.int64(v)]
    if own.asked_at > 0:
        took = t - own.asked_at
        share = took * 1000 // program.goal
        record_value(s, RESPONSES, share)
        world.response_max = max(world.response_max, share)
        if took > program.goal:
            world.responses_late += 1
            world.lateness += took - program.goal
    own.asked_at = until


# --- a vCPU and its threads -------------------------------------------------------------------------------------------


@inlined
def leave_off(s, v, t, state):
    """v has nothing to run: it is BLOCKED, or DONE."""
    s.vcpu[v].state = state
    note(s, t, SLEPT, s.vcpu[v].pcpu, v, NONE)


@called
def keep(s, v, place):
    """v's thread leaves it; note what it is doing."""
    guest = s.guest[v]
    thread = s.thread[guest.thread]
    thread.place = place
    thread.phase = guest.phase
    thread.section = guest.section
    thread.transaction = guest.transaction
    thread.remaining = guest.remaining


@called
def take(s, v, h, t):
    """v goes on with thread h."""
    guest = s.guest[v]
    thread = s.thread[h]
    thread.place = ON_VCPU
    thread.vcpu = v
    guest.phase = thread.phase
    guest.section = thread.section
    guest.transaction = thread.transaction
    guest.remaining = thread.remaining
    if guest.thread != h:
        guest.cold += s.program[s.vcpu[v].vm].thread_switch
        guest.thread = h
    where = s.vcpu[v].pcpu if s.vcpu[v].state == RUNNING else NONE
    note(s, t, THREAD_TAKEN, where, v, h - np.uint32(s.program[s.vcpu[v].vm].first_thread))


@called
def next_thread(s, v, t, state):
    """v's thread has left it: the next that is ready takes its place, or else v has nothing to run and is `state`."""
    vm = s.vm[s.vcpu[v].vm]
    h = vm.ready_head
    if h != NONE:
        vm.ready_head = s.thread[h].next
        if vm.ready_head == NONE:
            vm.ready_tail = NONE
        take(s, v, h, t)
    else:
        s.guest[v].phase = USER
        s.guest[v].section = 0
        leave_off(s, v, t, state)


@called
def too_many_vcpus(s, m):
    """Whether fewer threads of a VM than vCPUs can still have something to do."""
    vmp, program = s.vmp[m], s.program[m]
    surplus = np.int64(0)
    for v in range(vmp.first, vmp.first + vmp.vcpus):
        surplus += s.vcpu[v].state != DONE
    for h in range(program.first_thread, program.first_thread + program.threads):
        surplus -= s.thread[h].place != THREAD_DONE
    return surplus > 0


@called
def line_up(s, h):
    """Thread h is ready: it is the last of its VM's that wait for a vCPU."""
    vm = s.vm[s.vcpu[s.thread[h].vcpu].vm]
    s.thread[h].place = READY
    s.thread[h].next = NONE
    if vm.ready_tail == NONE:
        vm.ready_head = h
    else:
        s.thread[vm.ready_tail].next = h
    vm.ready_tail = h


# --- wake-ups ---------------------------------------------------------------------------------------------------------


@inlined
def lies_idle(s, v):
    """Whether v, of a VM with more threads than vCPUs, has no thread but may get one."""
    return s.vcpu[v].state == BLOCKED and s.guest[v].halted == 0


@called
def end_of_sleep(s, t):
    """The first sleep that is due ends: of a vCPU, or of a thread. Returns the vCPU that must be woken, or NONE."""
    for m in range(s.par[0].vms):
        vmp, program = s.vmp[m], s.program[m]
        for v in range(vmp.first, vmp.first + vmp.vcpus):
            if s.guest[v].wake_at <= t:
                return np.uint32(v)
        for h in range(program.first_thread, program.first_thread + program.threads):
            if s.thread[h].wake_at <= t:
                s.thread[h].wake_at = INF
                return vcpu_for(s, np.uint32(h), vmp, t)
    return NONE


@called
def vcpu_for(s, h, vmp, t):
    """The vCPU on which thread h, which can run again, goes on; NONE if all are busy: then it waits for one."""
    v = s.thread[h].vcpu
    if not lies_idle(s, v):
        v = NONE
        for i in range(vmp.first, vmp.first + vmp.vcpus):
            if lies_idle(s, i):
                v = np.uint32(i)
                break
    if v == NONE:
        line_up(s, h)
    else:
        take(s, v, h, t)
    return v
