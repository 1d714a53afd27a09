"""Whether a state that comes from outside may enter a lane.

The kernel trusts its state: it uses what stands there as indices, follows a lock's line to its end, and takes a vCPU
out of the queue that it says it is in. A checksum proves only that a state is as somebody wrote it. So it is looked
through before it is used.
"""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import guest_timer
from ple_gym.sim.constants import ASIDE, KICKED
from ple_gym.sim.guest.held import PLACES, held_at, holds_a_lock
from ple_gym.sim.guest.threads import lies_idle
from ple_gym.sim.guest.waits import available, in_line, waits_for, waits_in_line
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.memory import scratch
from ple_gym.sim.state import (
    ACKS,
    ADVANCING,
    BENEATH,
    BLOCK,
    BLOCKED,
    BURSTING,
    COMPUTE,
    CUT_OFF,
    DECIDE,
    DONE,
    FIRST,
    GUEST,
    HINT_WON,
    HOLD,
    INF,
    INT32,
    KERNEL,
    MAX_EVENTS,
    MOST_STEPS,
    NO_TICK,
    NOISE,
    NONE,
    ON_VCPU,
    POLLING,
    QUEUED,
    READY,
    RUNNING,
    SEND,
    SENDER_BITS,
    SLEEPING,
    SPIN,
    STORM,
    TAKE,
    THREAD_DONE,
    TICK_PENDING,
    TICK_SERVED,
    UNLOCK,
    USER,
    WENT_TO_SLEEP,
)

LONG = np.int64(1) << np.int64(51)  # cycles; longer than everything but INF: the longest run is 3.6e13

#: What a state can be wrong about; a flaw is a place in this list.
FLAWS = (
    "",
    "its run",
    "a pCPU",
    "a vCPU",
    "a lock",
    "a runqueue",
    "a line of waiters",
    "a record of the scheduler",
    "a thread",
    "an interrupt",
    "a response",
)
SOUND, RUN, PCPU, VCPU, LOCK, RUNQUEUE, LINE, SCHEDULER, THREAD, INTERRUPT, RESPONSE = range(len(FLAWS))


@called
def flaw(s):
    """What is wrong with a lane's state, as a place in FLAWS; 0 if nothing is that the kernel could stumble over."""
    world = s.world[0]
    if world.status < ADVANCING or world.status > CUT_OFF or (world.start != FIRST and world.start != STORM):
        return RUN
    if world.deciding >= s.par[0].pcpus or world.now < 0 or world.now > s.par[0].limit:
        return RUN
    if world.traced < 0 or world.events < 0 or world.events > MAX_EVENTS:
        return RUN
    if world.status == ADVANCING:
        return SOUND  # not begun, or interrupted: nothing else of it is looked at
    found = indices(s)
    if found == SOUND:
        found = lines(s)
    if found == SOUND and world.status == DECIDE:
        found = places(s)
    return found


@called
def indices(s):
    """Whether every number that is used as an index, or chooses a case, is in its range."""
    par = s.par[0]
    events = s.world[0].events
    for i in range(par.pcpus):
        pcpu = s.pcpu[i]
        if pcpu.mode > POLLING or pcpu.noise_state > BURSTING or pcpu.queued > par.vcpus:
            return PCPU
        if pcpu.notified > 1:
            return PCPU
        if pcpu.dispatch_exits < 0 or pcpu.dispatch_exits > events:
            return PCPU
        if pcpu.locked_until < 0 or not near(s, pcpu.locked_until):
            return PCPU
        if pcpu.deferred_until < 0 or pcpu.deferred_until > s.world[0].now + par.defer_preemption:
            return PCPU
        if (pcpu.current != NONE) & (pcpu.current >= par.vcpus):
            return PCPU
        if (pcpu.last_vcpu != NONE) & (pcpu.last_vcpu >= par.vcpus):
            return PCPU
        if (pcpu.hinted != NONE) & (pcpu.hinted >= par.vcpus):
            return PCPU
        for j in range(np.int64(pcpu.queued)):
            if s.queue[i, j] >= par.vcpus:
                return RUNQUEUE
    for m in range(par.vms):
        vmp, program = s.vmp[m], s.program[m]
        for i in range(vmp.first, vmp.first + vmp.vcpus):
            vcpu, guest = s.vcpu[i], s.guest[i]
            if vcpu.vm != m or vcpu.pcpu >= par.pcpus or ((vcpu.last_pcpu != NONE) & (vcpu.last_pcpu >= par.pcpus)):
                return VCPU
            if vcpu.state > DONE or vcpu.left_by > WENT_TO_SLEEP or vcpu.hint > HINT_WON or vcpu.chosen > 1:
                return VCPU
            if vcpu.ples < 0 or vcpu.ples > events + 1 or guest.acquire_exits < 0 or guest.acquire_exits > events:
                return VCPU
            handles = program.handler > 0 or program.tick > 0
            if guest.lock >= max(1, par.locks) or (guest.phase < 0 and not handles):
                return VCPU
            if (guest.phase & BENEATH > SPIN and program.handler == 0) or guest.frozen > program.balloon:
                return VCPU
            if guest.phase & BENEATH > ACKS:
                return VCPU
            if guest.node > KICKED or guest.ahead >= par.vcpus:
                return VCPU
            if guest.step > program.steps or guest.executed > MOST_STEPS:
                return VCPU
            if (guest.next_waiter != NONE) & (guest.next_waiter >= par.vcpus):
                return VCPU
        for i in range(program.first_lock, program.first_lock + program.locks):
            lock = s.lock[i]
            if lock.vm != m or ((lock.holder != NONE) & (lock.holder >= par.vcpus)):
                return LOCK
            if ((lock.head != NONE) & (lock.head >= par.vcpus)) | ((lock.tail != NONE) & (lock.tail >= par.vcpus)):
                return LOCK
        if program.threads > 0 and not numbers_threads(s, m):
            return THREAD
    return SOUND


@inlined
def one_of(number, first, count):
    """Whether a number is one of first .. first + count - 1."""
    return np.int64(number) >= first and np.int64(number) < first + count


@called
def numbers_threads(s, m):
    """Whether the numbers in the records of a VM's threads are in their ranges."""
    vm, vmp, program = s.vm[m], s.vmp[m], s.program[m]
    first, count = program.first_thread, program.threads
    for end in (vm.ready_head, vm.ready_tail):
        if end != NONE and not one_of(end, first, count):
            return False
    for i in range(vmp.first, vmp.first + vmp.vcpus):
        if not one_of(s.guest[i].thread, first, count):
            return False
    for i in range(first, first + count):
        thread = s.thread[i]
        if (
            thread.place > THREAD_DONE
            or thread.phase < USER
            or thread.phase > KERNEL
            or not one_of(thread.vcpu, vmp.first, vmp.vcpus)
        ):
            return False
        if thread.next != NONE and not one_of(thread.next, first, count):
            return False
    return True


@called
def places_threads(s, m):
    """Whether each of a VM's threads is in one place, as it is at a decision, and none is ready beside an idle vCPU."""
    vm, vmp, program = s.vm[m], s.vmp[m], s.program[m]
    first, count = program.first_thread, program.threads
    unseen = np.int64(0)  # who must be on a vCPU or in the line, less those that are found there
    for i in range(first, first + count):
        thread = s.thread[i]
        asleep = thread.place == SLEEPING
        unseen += thread.place == ON_VCPU or thread.place == READY
        if (
            thread.wake_at < s.world[0].now
            or (thread.wake_at < INF) != asleep
            or (asleep and not near(s, thread.wake_at))
        ):
            return False
        if (asleep or thread.place == READY) and not (
            thread.section >= 0
            and thread.section < program.sections
            and thread.remaining > 0
            and thread.remaining <= LONG
            and thread.transaction >= 0
        ):
            return False
    for i in range(vmp.first, vmp.first + vmp.vcpus):
        if s.guest[i].wake_at != INF:
            return False
        if s.vcpu[i].state == DONE or lies_idle(s, i):
            if vm.ready_head != NONE or (s.vcpu[i].state != DONE and s.guest[i].phase != USER):
                return False
        else:
            thread = s.thread[s.guest[i].thread]
            if thread.place != ON_VCPU or thread.vcpu != i:
                return False
            unseen -= 1
    last, h = NONE, vm.ready_head
    while h != NONE and unseen > 0:
        if s.thread[h].place != READY:
            return False
        unseen -= 1
        last, h = h, s.thread[h].next
    return h == NONE and unseen == 0 and vm.ready_tail == last


@called
def sees_interrupts(s, v, unanswered):
    """Whether what the hypervisor sees of v's interrupts may be so."""
    vmp, seen, now = s.vmp[s.vcpu[v].vm], s.ipi[v], s.world[0].now
    for u in range(vmp.first, vmp.first + vmp.vcpus):
        if waits_for(s, u, v) and (seen.senders >> ((u - vmp.first) % SENDER_BITS)) & 1 == 0:
            return False
    return (seen.senders != 0) == unanswered and 0 <= seen.pending_since <= now


@inlined
def ticks_rightly(s, m, own, senders):
    """Whether a vCPU with so many senders may be so far with its timer's ticks."""
    period = s.program[m].tick
    if period == 0:
        return own.tick == NO_TICK and own.timer_at == INF
    due = own.tick == TICK_SERVED or (own.tick == TICK_PENDING and senders > 0) or own.tick == NO_TICK
    return due and own.timer_at > 0 and own.timer_at <= s.world[0].now + period


@called
def places_interrupts(s, m):
    """Whether each interrupt of a VM has a sender that waits for it and a receiver that serves it next, or is at it."""
    vmp = s.vmp[m]
    for v in range(vmp.first, vmp.first + vmp.vcpus):
        vcpu, guest, own = s.vcpu[v], s.guest[v], s.interrupts[v]
        senders, missing = np.int64(0), np.int64(0)
        for u in range(vmp.first, vmp.first + vmp.vcpus):
            senders += waits_for(s, u, v)
            missing += waits_for(s, v, u)
        for i in range(vmp.vcpus, 64 * s.par[0].senders):
            if (s.unanswered[v, i // 64] >> (i % 64)) & 1 != 0:
                return False
        handling = guest.phase < 0
        if waits_for(s, v, v) or own.missing != missing or (senders > 0 or own.tick != NO_TICK) != handling:
            return False
        if s.par[0].ipis_seen > 0 and not sees_interrupts(s, v, senders > 0):
            return False
        if not ticks_rightly(s, m, own, senders):
            return False
        if missing > 0 and (guest.phase & BENEATH != ACKS or vcpu.state == DONE):
            return False
        if handling and (vcpu.state == BLOCKED or vcpu.state == DONE or own.put_off < 0 or own.put_off > LONG):
            return False
        if own.sleep_until < 0 or own.sleep_until > LONG or (own.sleep_until > 0 and not handling):
            return False
    return True


@called
def sleeps_until(s, v):
    """When the sleep of a vCPU that is its own only thread ends, or has ended while it serves; INF if it is in none."""
    vcpu, guest, program = s.vcpu[v], s.guest[v], s.program[s.vcpu[v].vm]
    if vcpu.state == BLOCKED:
        return guest.wake_at if guest.frozen == 0 else INF
    serves = (program.handler > 0 or program.tick > 0) and s.interrupts[v].sleep_until > 0
    return s.interrupts[v].sleep_until if serves else INF


@called
def responds_rightly(s, m):
    """Whether whoever of a VM sleeps responds to what comes then, and everybody else to what has come."""
    vmp, program = s.vmp[m], s.program[m]
    threads = program.threads > 0
    first, count = (program.first_thread, program.threads) if threads else (vmp.first, vmp.vcpus)
    for i in range(first, first + count):
        until = s.thread[i].wake_at if threads else sleeps_until(s, i)
        asked_at = s.response[s.par[0].vcpus + i if threads else i].asked_at
        if asked_at < 0 or (asked_at != until if until < INF else asked_at > s.world[0].now):
            return False
    return True


@inlined
def clear(row, count):
    """Put zeros into a row of scratch."""
    for i in range(count):
        row[0, i] = 0


@called
def lines(s):
    """Whether each lock's line holds its waiters, each once, and everybody that waits in line is in its lock's."""
    par = s.par[0]
    seen = scratch(INT32, par.vcpus)
    clear(seen, par.vcpus)
    for i in range(par.locks):
        lock = s.lock[i]
        if not in_line(s, lock.vm):
            if lock.head != NONE or lock.tail != NONE:
                return LINE
            continue
        last, w = NONE, lock.head
        while w != NONE:
            if (
                seen[0, np.int64(w)] != 0
                or s.guest[w].phase & BENEATH != SPIN
                or s.guest[w].lock != i
                or s.vcpu[w].vm != lock.vm
            ):
                return LINE
            if s.program[lock.vm].stolen and s.guest[w].node == ASIDE:
                return LINE
            seen[0, np.int64(w)] = 1
            last, w = w, s.guest[w].next_waiter
        if lock.tail != last:
            return LINE
    for i in range(par.vcpus):
        if s.vcpu[i].state != DONE and waits_in_line(s, i) and seen[0, i] == 0:
            return LINE
    return SOUND


@inlined
def near(s, time):
    """Whether a time is one of this run, so that nothing overflows."""
    return time > -LONG and time < s.world[0].now + LONG


@called
def runs_backwards(s, p):
    """Whether an event of pCPU p lies in the past, or is not the one that its timers and its vCPU's work make."""
    pcpu, clock = s.pcpu[p], s.clock[p]
    now = s.world[0].now
    timer = min(min(clock.noise_at, pcpu.resched_at), min(pcpu.tick_at, pcpu.slice_end))
    if s.par[0].ticks:
        timer = min(timer, guest_timer(s, p))
    if clock.host_at != max(timer, pcpu.entry) or clock.event_at != min(clock.host_at, clock.guest_at):
        return True
    if pcpu.settled != now or pcpu.exit_until < 0 or pcpu.exit_until > pcpu.entry:
        return True
    if pcpu.mode == GUEST:
        guest = s.guest[pcpu.current]
        if guest.phase < SPIN and clock.guest_at != max(now, pcpu.entry) + guest.cold + guest.remaining:
            return True
    elif clock.guest_at != INF:
        return True
    if clock.event_at < now or pcpu.tick_at < now - (1 << 32) or pcpu.dispatched_at > now:
        return True
    ticks = pcpu.tick_at == INF or near(s, pcpu.tick_at)
    return not (near(s, pcpu.dispatched_at) and near(s, pcpu.entry) and ticks)


@called
def spins_backwards(s, v):
    """Whether waiter v's spin has an end in the past."""
    vcpu, guest = s.vcpu[v], s.guest[v]
    now = s.world[0].now
    if guest.try_at > now:
        return True
    if vcpu.state == RUNNING and (guest.exit_at < now or guest.attempt_at < now):
        return True
    halts = guest.phase == SPIN and s.program[vcpu.vm].halt > 0 and not guest.halted
    return halts and not available(s, v) and (guest.halt_left < -LONG or guest.halt_left > LONG)


@called
def places(s):
    """Whether everybody is in the one place that is theirs, as it is at a decision."""
    par = s.par[0]
    world = s.world[0]
    seen = scratch(INT32, par.vcpus)
    clear(seen, par.vcpus)
    for i in range(par.pcpus):
        pcpu = s.pcpu[i]
        polls = pcpu.mode == POLLING
        if (pcpu.mode == GUEST or polls) != (pcpu.current != NONE) or runs_backwards(s, np.uint32(i)):
            return PCPU
        if (pcpu.mode == NOISE) != (pcpu.noise_state == BURSTING):
            return PCPU
        if pcpu.current != NONE:
            v = pcpu.current
            state = BLOCKED if polls else RUNNING
            if seen[0, np.int64(v)] != 0 or s.vcpu[v].state != state or s.vcpu[v].pcpu != i:
                return PCPU
            seen[0, np.int64(v)] = not polls
        for j in range(np.int64(pcpu.queued)):
            v = np.uint32(s.queue[i, j])
            if seen[0, np.int64(v)] != 0 or s.vcpu[v].state != QUEUED or s.vcpu[v].pcpu != i:
                return RUNQUEUE
            seen[0, np.int64(v)] = 1
    asker = s.pcpu[world.deciding].current
    if asker == NONE or s.guest[asker].phase < SPIN or world.period_at < world.now:
        return RUN
    if world.counted_at < 0 or world.counted_at > world.now:
        return RUN
    soonest = INF
    for m in range(par.vms):
        vmp, program = s.vmp[m], s.program[m]
        for i in range(vmp.first, vmp.first + vmp.vcpus):
            vcpu, guest = s.vcpu[i], s.guest[i]
            placed = vcpu.state == RUNNING or vcpu.state == QUEUED
            if placed != (seen[0, i] == 1) or vcpu.moving != 0:
                return VCPU
            if guest.wake_at < world.now or (guest.wake_at < INF and vcpu.state != BLOCKED):
                return VCPU
            if guest.frozen and (vcpu.state != BLOCKED or guest.halted):
                return VCPU
            if guest.remaining < 0 or guest.remaining > LONG or guest.cold < 0 or guest.cold > LONG:
                return VCPU
            last = program.sections - (vcpu.state != DONE)  # who is done has left the last one
            if guest.section < 0 or guest.section > last or not near(s, guest.ple_first):
                return VCPU
            if guest.ple_last != -INF and not near(s, guest.ple_last):
                return VCPU
            if guest.ple_used < 0 or guest.ple_used > world.now + world.events + 1:
                return VCPU
            if vcpu.state != DONE and guest.phase >= SPIN and spins_backwards(s, np.uint32(i)):
                return VCPU
            soonest = min(soonest, guest.wake_at)
            ours = guest.lock >= program.first_lock and guest.lock < program.first_lock + program.locks
            if vcpu.state != DONE and not ours and guest.phase & BENEATH in (SPIN, HOLD):
                return LOCK
            if holds_wrongly(s, np.uint32(i)):
                return LOCK
        if program.threads > 0 and not places_threads(s, m):
            return THREAD
        if (program.handler > 0 or program.tick > 0) and not places_interrupts(s, m):
            return INTERRUPT
        if program.goal > 0 and not responds_rightly(s, m):
            return RESPONSE
        for i in range(program.first_thread, program.first_thread + program.threads):
            soonest = min(soonest, s.thread[i].wake_at)
    if world.next_wake != soonest:
        return RUN
    if not s.host.sound(s):
        return SCHEDULER
    for i in range(par.locks):
        holder = s.lock[i].holder
        if holder != NONE and not is_held_by(s, i, holder):
            return LOCK
    return SOUND


@inlined
def is_held_by(s, lock, v):
    """Whether v has this lock among those that it holds."""
    found = False
    for place in range(PLACES):
        found |= held_at(s, v, place) == lock
    return found


@called
def holds_wrongly(s, v):
    """Whether what v holds is not what it may hold where it is in its transaction, or is not held by it.

    A lock that it waits for is above those that it holds, so that who follows waits from one to the next comes to an
    end.
    """
    guest, program = s.guest[v], s.program[s.vcpu[v].vm]
    below = guest.phase & BENEATH
    places = 0
    for place in range(PLACES):
        lock = held_at(s, v, place)
        if lock != -1:
            if lock < program.first_lock or lock >= program.first_lock + program.locks or s.lock[lock].holder != v:
                return True
            if below == SPIN and lock >= guest.lock:
                return True
            places |= 1 << place
    if s.vcpu[v].state == DONE:
        return places != 0
    if below != SPIN and below != ACKS and holds_a_lock(s, v) != (below == HOLD):
        return True
    if program.steps == 0:  # it holds the one lock that it tried last
        held = -1 if below != HOLD else np.int64(guest.lock)
        return places > 1 or held_at(s, v, 0) != held
    if guest.step == 0:
        return True
    step = s.step[program.first_step + np.int64(guest.step) - 1]
    if below in (SPIN, ACKS):
        return places != step.held or step.kind != (TAKE if below == SPIN else SEND)
    if step.kind == UNLOCK:  # it has kicked (15.14)
        return places != step.held & ~(1 << step.place)
    return places != step.held or (step.kind != COMPUTE and step.kind != BLOCK)
