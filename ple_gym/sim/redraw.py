"""Other futures of a lane: all that will be drawn, and what is left of what was drawn, is drawn anew.

A rollout on an exact copy of a lane is clairvoyant: it knows how long each section will be. Here a copy gets what a
decider could at most expect: work to come, host noise and the policy's own draws become those of another stream; what
is left of each compute, hold and sleep is drawn from its distribution, given how long it has lasted. What a hypervisor
sees stays as it is, and so do the locks: who holds them, and who waits.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ple_gym.sim import rng
from ple_gym.sim.calendar import find_next_wake, refresh, refresh_host
from ple_gym.sim.dispatch import burst_length, noise_gap
from ple_gym.sim.guest.program import BLOCK_DRAW, COMPUTE_DRAW, HOLD_DRAW
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.memory import grid, records
from ple_gym.sim.sampling import sample
from ple_gym.sim.seam import Host
from ple_gym.sim.state import (
    BENEATH,
    BLOCK,
    BLOCKED,
    BURSTING,
    COMPUTE,
    DONE,
    HOLD,
    INF,
    INT64,
    MOST_STEPS,
    ON_VCPU,
    PLACE,
    PLACE_BYTES,
    READY,
    RUNNING,
    SLEEPING,
    SPIN,
    WAITING,
    open_lane,
)
from ple_gym.sim.units import Unit, sources

# which of a vCPU's or thread's draws
_WORK, _SLEEP = np.arange(2)
_WHOLE = np.int64(1) << np.int64(32)


@called
def left_anew(s, table, drawn, left, bits):
    """What is left of a time of which `left` is left, drawn anew by random bits.

    table: row of the table that it is from; drawn: its 32 bits, int64. A time that lasts longer than its table says
    stays as it is.
    """
    passed = max(1, sample(s.tables, table, drawn)) - left
    if passed < 0 or max(1, sample(s.tables, table, _WHOLE - 1)) <= passed:
        return left
    short, longer = np.int64(-1), _WHOLE - 1  # at the first it would be over by now, at the second not yet
    while longer - short > 1:
        middle = (short + longer) >> 1
        if max(1, sample(s.tables, table, middle)) > passed:
            longer = middle
        else:
            short = middle
    x = longer + rng.share(rng.low(bits), _WHOLE - longer)
    return max(1, sample(s.tables, table, x)) - passed


@called
def step_left(s, v, kind, key, transaction, left, bits):
    """What is left of the step of a program that v is at, if it is of that kind: drawn anew."""
    guest = s.guest[v]
    if guest.step == 0:
        return left
    step = s.step[s.program[s.vcpu[v].vm].first_step + np.int64(guest.step) - 1]
    if step.kind != kind:
        return left
    drawn = rng.draw(key, transaction * MOST_STEPS + np.int64(guest.executed) - 1)
    return left_anew(s, np.int64(step.table), rng.high(drawn), left, bits)


@called
def work_left(s, m, key, phase, transaction, section, v, left, bits):
    """What is left of a compute or hold of VM m, whose draws were those of `key`: drawn anew. v: of a program."""
    program = s.program[m]
    if program.steps > 0:
        return step_left(s, v, COMPUTE, key, transaction, left, bits)
    number = HOLD_DRAW if phase == HOLD else COMPUTE_DRAW
    table = program.hold if phase == HOLD else program.compute
    return left_anew(s, table, rng.high(rng.draw(key, (transaction * 64 + section) * 4 + number)), left, bits)


@called
def sleep_left(s, m, key, transaction, section, v, left, bits):
    """What is left of a sleep of VM m, whose draws were those of `key`: drawn anew. v: of a program."""
    program = s.program[m]
    if program.steps > 0:
        return step_left(s, v, BLOCK, key, transaction, left, bits)
    drawn = rng.draw(key, (transaction * 64 + section) * 4 + BLOCK_DRAW)
    return left_anew(s, program.block, rng.high(drawn), left, bits)


@inlined
def ask_at(s, v, who, until):
    """If responses of v's VM are counted, the next of `who` begins when its sleep ends now (7.13)."""
    if s.program[s.vcpu[v].vm].goal > 0:
        s.response[who].asked_at = until


@called
def redraw_vcpu(s, v, key, salt):
    """What is left of what v is at."""
    vcpu, guest, now = s.vcpu[v], s.guest[v], s.world[0].now
    if vcpu.state == DONE or guest.frozen != 0:
        return
    threads = s.program[vcpu.vm].threads > 0
    if threads and s.thread[guest.thread].place != ON_VCPU:
        return
    m, n = np.int64(vcpu.vm), np.int64(guest.section)
    work, sleep = rng.draw(salt, np.int64(v) * 2 + _WORK), rng.draw(salt, np.int64(v) * 2 + _SLEEP)
    serves, phase = guest.phase < 0, guest.phase & BENEATH
    if phase < SPIN:
        before = s.interrupts[v].put_off if serves else guest.remaining
        left = work_left(s, m, key, phase, guest.transaction, n, v, before, work)
        if serves:
            s.interrupts[v].put_off = left
        else:
            guest.remaining = left
            if vcpu.state == RUNNING:
                s.clock[vcpu.pcpu].guest_at += left - before
                refresh(s, vcpu.pcpu)
    if threads or guest.halted != 0:
        return
    if vcpu.state == BLOCKED and not serves and now < guest.wake_at < INF:
        guest.wake_at = now + sleep_left(s, m, key, guest.transaction, n, v, guest.wake_at - now, sleep)
        ask_at(s, v, np.int64(v), guest.wake_at)
    if serves and s.interrupts[v].sleep_until > now:
        left = s.interrupts[v].sleep_until - now
        s.interrupts[v].sleep_until = now + sleep_left(s, m, key, guest.transaction, n, v, left, sleep)
        ask_at(s, v, np.int64(v), s.interrupts[v].sleep_until)


@called
def redraw_thread(s, h, key, salt):
    """What is left of what a thread is at that is on no vCPU; it has not begun to compute."""
    thread, now = s.thread[h], s.world[0].now
    if thread.place != SLEEPING and thread.place != READY:
        return
    m, n, number = np.int64(s.vcpu[thread.vcpu].vm), np.int64(thread.section), np.int64(s.par[0].vcpus) + np.int64(h)
    bits = rng.draw(salt, number * 2 + _WORK)
    thread.remaining = work_left(s, m, key, thread.phase, thread.transaction, n, thread.vcpu, thread.remaining, bits)
    if thread.place == SLEEPING and now < thread.wake_at < INF:
        bits, left = rng.draw(salt, number * 2 + _SLEEP), thread.wake_at - now
        thread.wake_at = now + sleep_left(s, m, key, thread.transaction, n, thread.vcpu, left, bits)
        ask_at(s, thread.vcpu, number, thread.wake_at)


@called
def redraw(s, salt):
    """Give a lane, whose accounts are up to date, one of its other futures: the one that salt (uint64) names."""
    par, world = s.par[0], s.world[0]
    for m in range(par.vms):
        key = s.vm[m].work_key
        s.vm[m].work_key = rng.stream_key(key, salt)
        for i in range(s.vmp[m].first, s.vmp[m].first + s.vmp[m].vcpus):
            redraw_vcpu(s, np.uint32(i), key, salt)
        for h in range(s.program[m].first_thread, s.program[m].first_thread + s.program[m].threads):
            redraw_thread(s, np.uint32(h), key, salt)
    find_next_wake(s)
    world.policy_key = rng.stream_key(world.policy_key, salt)
    world.noise_key = rng.stream_key(world.noise_key, salt)
    if par.noise_rate_hz > 0:
        for i in range(par.pcpus):
            redraw_noise(s, np.uint32(i))


@inlined
def redraw_noise(s, p):
    """When p's next burst begins, or the one that it is in ends: both are exponential, so the past does not matter."""
    if s.pcpu[p].noise_state == WAITING:
        s.clock[p].noise_at = s.world[0].now + noise_gap(s, p)
    elif s.pcpu[p].noise_state == BURSTING:
        s.clock[p].noise_at = s.world[0].now + burst_length(s, p)
    refresh_host(s, p)


@cache
def redrawer(host: Host) -> Unit:
    """What redraws lanes under a host's scheduler."""

    def redraw_lanes(places, begin, end, salts):
        """Redraw lanes begin..end-1 of those whose PLACEs are at an address, by the salts (int64 each) at another."""
        place, salt = records(places, 0, PLACE_BYTES * end, PLACE), grid(salts, 0, INT64, 8, 1, end)
        for e in range(begin, end):
            s = open_lane(host, place[e].description, place[e].row, place[e].histogram, np.int64(0), np.int64(0))
            redraw(s, np.uint64(salt[0, e]))
        return np.int64(end - begin)

    made_of = [*sources("sim/*.py", "sim/guest/*.py"), *host.sources]
    return Unit(f"redraw.{host.name}", redraw_lanes, 4, made_of, boxed=True)
