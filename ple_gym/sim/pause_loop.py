"""Pause-loop exiting: when a spinning vCPU exits (docs/model.md, section 8) and what the hypervisor learns from it."""

from __future__ import annotations

import numpy as np

from ple_gym.sim.jit import called, inlined
from ple_gym.sim.state import ACKS, INF, NONE, PLE_WINDOW, RUNNING


@inlined
def loop_starts(s, v, at):
    """Start a spin stretch of v at time `at`: decide whether the processor sees a new PAUSE loop; time of its PLE exit.

    Intel: SDM 25.1.3, PLE_Gap and PLE_Window. AMD: APM, pause filter count and threshold.
    """
    par = s.par[0]
    guest = s.guest[v]
    program = s.program[s.vcpu[v].vm]
    period = program.spin_period
    window = np.int64(s.vcpu[v].window)
    guest.spin_from = at
    apart = guest.ple_last == -INF or at - guest.ple_last > par.gap
    if par.ple_kind == PLE_WINDOW:
        if apart:
            guest.ple_first = at
        if par.gap == 0 or par.gap < period or (program.user_spin and guest.phase != ACKS):
            return INF
        if apart and window == par.window:
            return at + program.reach
        left = window - (at - guest.ple_first)
        return at + (left // period + 1) * period if left >= 0 else at
    if apart and (par.gap > 0 or guest.ple_last == -INF):
        guest.ple_used = 0
    if par.count == 0 or (program.user_spin and guest.phase != ACKS) or (par.gap > 0 and period > par.gap):
        return INF
    return at + max(0, window - guest.ple_used - 1) * period


@inlined
def loop_ends(s, v, t):
    """v's spin ends at t by acquiring: the next spin may continue the same PAUSE loop if it comes within the gap."""
    guest = s.guest[v]
    period = s.program[s.vcpu[v].vm].spin_period
    pauses = (t - guest.spin_from) // period + 1
    guest.ple_last = guest.spin_from + (pauses - 1) * period
    guest.ple_used += pauses


@inlined
def record_exit(s, p, v, t, notified, lock, holder):
    """Count v's exit on p at t, and update what the hypervisor believes about its progress (sections 8.3 and 8.5).

    lock, holder: what v spins on, and whom it waits for; or NONE.
    """
    world = s.world[0]
    guest = s.guest[v]
    vcpu = s.vcpu[v]
    program = s.program[vcpu.vm]
    world.exits += 1
    s.pcpu[p].dispatch_exits += 1
    guest.acquire_exits += 1
    if holder == NONE:
        world.exits_lock_free += 1
    elif s.vcpu[holder].state == RUNNING:
        world.exits_holder_running += 1
    else:
        world.exits_holder_off += 1
    if vcpu.ples == 0 or vcpu.cpu_time - vcpu.cpu_at_ple > s.vmp[vcpu.vm].progress:
        vcpu.ples = 0
        vcpu.first_ple = t
    vcpu.ples += 1
    vcpu.last_ple = t
    vcpu.cpu_at_ple = vcpu.cpu_time
    if s.par[0].windows_differ:
        grow_window(s, vcpu, not notified)
    guest.exit_lock = lock
    vcpu.pc_class = (lock - program.first_lock) % program.pc_classes if lock != NONE else program.pc_classes


# --- a window of each vCPU's own (8.4) --------------------------------------------------------------------------------


@inlined
def reach(s, vcpu, window):
    """Cycles from the start of a PAUSE loop to its exit, with such a window or count (8.3: We)."""
    period = s.program[vcpu.vm].spin_period
    return (window // period + 1) * period if s.par[0].ple_kind == PLE_WINDOW else window * period


@called
def grow_window(s, vcpu, grows):
    """The window of a vCPU that exits grows, and so does what it may run until the next one [KVM: grow_ple_window]."""
    par = s.par[0]
    window, by = np.int64(vcpu.window), par.window_grow
    grown = window
    if grows and by > 0:
        grown = min(par.window_max, window * by if by < par.least_window else window + by)
    set_window(s, vcpu, grown)


@inlined
def set_window(s, vcpu, window):
    """The window of a vCPU that has just exited."""
    vcpu.window = window
    vcpu.cpu_at_ple = vcpu.cpu_time + reach(s, vcpu, window) - reach(s, vcpu, s.par[0].least_window)


@called
def choose_window(s, vcpu, window):
    """What a decision does with the window of the vCPU that has exited: 0: it is the host's; 1..: it is chosen."""
    par = s.par[0]
    vcpu.chosen = window > 0
    if window > 0:
        set_window(s, vcpu, min(par.window_max, par.least_window << (2 * (window - 1))))


@inlined
def shrink_window(s, vcpu):
    """The window of a vCPU that is switched in shrinks [KVM: shrink_ple_window]."""
    par = s.par[0]
    window, by = np.int64(vcpu.window), par.window_shrink
    if window == par.least_window or vcpu.chosen:
        return
    shrunk = par.least_window
    if by > 0:
        shrunk = max(shrunk, window // by if by < par.least_window else window - by)
    vcpu.window = shrunk


@inlined
def suspected_spinner(vmp, vcpu, v):
    """Whether v, as far as the hypervisor can tell, still spins: it has not run two windows without an exit."""
    return vcpu[v].ples > 0 and vcpu[v].cpu_time - vcpu[v].cpu_at_ple <= vmp[vcpu[v].vm].progress
