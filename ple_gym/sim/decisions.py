"""Decisions: which actions are legal, and what each of them does (docs/model.md, section 10)."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.calendar import refresh_host
from ple_gym.sim.dispatch import answer_hint, leave, run, schedule
from ple_gym.sim.jit import called, inlined
from ple_gym.sim.pause_loop import choose_window
from ple_gym.sim.state import (
    ADVANCING,
    BY_EXIT,
    HINT,
    HINT_FAILED,
    HINT_PENDING,
    LOCAL,
    NONE,
    PLE_YIELD,
    QUEUED,
    YIELD_ONLY,
)


@inlined
def is_candidate(state, pcpu, here, actuator):
    """Whether a rule may name a vCPU in this state, on or last on this pCPU, at an exit on pCPU `here`.

    Legality is written here and in the next two functions, and nowhere else: rules and masks ask them, too.
    """
    return (state == QUEUED) & ((actuator != LOCAL) | (pcpu == here))


@inlined
def within_reach(state, pcpu, here, actuator):
    """Whether an action may be to run or to favour it: under YIELD_ONLY nobody can be chosen."""
    return is_candidate(state, pcpu, here, actuator) & (actuator != YIELD_ONLY)


@inlined
def target_of(par, action):
    """The part of an action that names who runs; `action // (V + 1)` is a window (10)."""
    return action % (par.vcpus + 1) if par.vcpus < action <= par.last_action else action


@inlined
def meant(s, p, answer):
    """The action (int64) that a rule's answer stands for: under YIELD_ONLY whoever names a candidate yields."""
    par = s.par[0]
    target = target_of(par, answer)
    if par.actuator != YIELD_ONLY or target < 0 or target >= par.vcpus or target == s.pcpu[p].current:
        return answer
    v = np.uint32(target)
    yields_to = is_candidate(s.vcpu[v].state, s.vcpu[v].pcpu, p, YIELD_ONLY)
    return answer - target + par.vcpus if yields_to else answer


@inlined
def legal(s, p, action):
    """Whether the action (int64) may be taken for the exit on p."""
    target = target_of(s.par[0], action)
    if target == s.par[0].vcpus or target == np.int64(s.pcpu[p].current):
        return True
    if target < 0 or target > s.par[0].vcpus:
        return False
    v = np.uint32(target)
    return within_reach(s.vcpu[v].state, s.vcpu[v].pcpu, p, s.par[0].actuator)


@inlined
def carry_out(s, action):
    """Carry out a decision (section 10), whose legality the caller has checked, for the exit that is due."""
    p = s.world[0].deciding
    t = s.world[0].now
    s.world[0].status = ADVANCING
    target = action if s.par[0].last_action == s.par[0].vcpus else take_window(s, p, action)
    if yields(s, p, t, target):
        schedule(s, p, t, BY_EXIT)
    refresh_host(s, p)


@called
def take_window(s, p, action):
    """Do what an action says of its asker's window; returns the other part."""
    choose_window(s, s.vcpu[s.pcpu[p].current], action // (s.par[0].vcpus + 1))
    return target_of(s.par[0], action)


@inlined
def looked_at(s, y, action):
    """How many candidates the handler of y's exit looks at, from y's next sibling on, until it has made this choice."""
    par = s.par[0]
    if action == par.vcpus:
        return np.int64(0)
    vm = s.vmp[s.vcpu[y].vm]
    if action >= vm.first and action < vm.first + vm.vcpus and action != np.int64(y):
        return (action - np.int64(y)) % vm.vcpus
    return vm.vcpus - (action == np.int64(y))


@called
def exit_cost(s, p, t, action):
    """Cycles from the exit on p until its decision is carried out, with the wait for two runqueues' locks (10.1)."""
    par = s.par[0]
    y = s.pcpu[p].current
    cost = (par.notify if s.pcpu[p].notified else par.exit) + par.exit_per_candidate * looked_at(s, y, action)
    s.pcpu[p].notified = 0
    if par.yield_to > 0 and action < par.vcpus and action != np.int64(y):
        cost = under_locks(s, p, s.vcpu[np.uint32(action)].pcpu, t + cost) - t
    return cost


@inlined
def under_locks(s, p, q, t):
    """When it is done that a vCPU of q is favoured from p, by who comes for both queues' locks at t."""
    here, there = s.pcpu[s.host.queue_of(s, p)], s.pcpu[s.host.queue_of(s, q)]
    done = max(t, max(here.locked_until, there.locked_until)) + s.par[0].yield_to
    here.locked_until = done
    there.locked_until = done
    return done


@inlined
def note_hint(s, q, v):
    """v is favoured on q, in place of whoever was there."""
    answer_hint(s, q, NONE)
    s.pcpu[q].hinted = v
    s.vcpu[v].hint = HINT_PENDING


@inlined
def hint(s, p, v, t):
    """p's vCPU yields to v if the host can; returns whether p must choose anew."""
    q = s.vcpu[v].pcpu
    if s.host.yield_to(s, p, q, v, t):
        note_hint(s, q, v)
        s.host.yield_now(s, p, s.pcpu[p].current)
        return True
    s.vcpu[v].hint = HINT_FAILED
    return False


@called
def kick(s, p, v, t):
    """p's vCPU has kicked v, and may yield to it (15.14). Returns whether p must choose anew."""
    if not s.host.kick_yields(s, p, v, t):
        return False
    s.pcpu[p].exit_until = under_locks(s, p, s.vcpu[v].pcpu, t)
    return hint(s, p, v, t)


@inlined
def yields(s, p, t, action):
    """Resume or switch as `action` says, or prepare the host's own yield; returns whether that must follow."""
    par = s.par[0]
    y = s.pcpu[p].current
    plain = par.exit_per_candidate == 0 and par.yield_to == 0 and s.pcpu[p].notified == 0
    handler = par.exit if plain else exit_cost(s, p, t, action)
    s.pcpu[p].exit_until = t + handler
    v = y
    stays = True
    if action == par.vcpus:
        s.host.yield_now(s, p, y)
        return True
    if action != np.int64(y):
        v = np.uint32(action)
        q = s.vcpu[v].pcpu
        if par.actuator == HINT:
            if hint(s, p, v, t):
                return True
            v = y
        else:
            stays = False
            s.host.dequeue(s, q, v)
            s.host.charge(s, p, t)
            leave(s, p, y, t, PLE_YIELD)
            s.host.yield_now(s, p, y)
            s.host.put_prev(s, q if par.pull_swaps else p, y, t, True)
    run(s, p, v, t, handler, stays)
    return False
