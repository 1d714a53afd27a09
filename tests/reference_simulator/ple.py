"""Pause-loop exiting: what the processor does with the PAUSEs of a spin stretch (section 8)."""

from __future__ import annotations

from .state import INF, Parameters, Phase, Vcpu


def stretch_begins(parameters: Parameters, v: Vcpu, s: int) -> None:
    """A stretch of PAUSEs at s, s + g, s + 2g, ... begins: set `exit_at`, the time of its exit."""
    if parameters.ple_kind == "window":
        v.exit_at = window_exit(parameters, v, s)
    else:
        v.exit_at = count_exit(parameters, v, s)


def window_exit(parameters: Parameters, v: Vcpu, s: int) -> int:
    """8.1 [Intel]"""
    g, gap, window = v.vm.spin_period, parameters.G, v.window
    starts_loop = v.ple_last == -INF or s - v.ple_last > gap
    if starts_loop:
        v.ple_first = s
    if gap == 0 or gap < g or in_user_mode(v):
        return INF
    i = 1 if starts_loop else 0
    too_early = v.ple_first + window - (s + i * g)  # PAUSE i exits only if this is negative
    if too_early >= 0:
        i += too_early // g + 1
    return s + i * g


def in_user_mode(v: Vcpu) -> bool:
    """Whether v spins at CPL 3; the wait for acknowledgements is the kernel's."""
    return v.phase is Phase.SPIN and v.vm.spin_in_user_mode


def count_exit(parameters: Parameters, v: Vcpu, s: int) -> int:
    """8.2 [AMD]"""
    g, gap, count = v.vm.spin_period, parameters.G, v.window
    if v.ple_last == -INF or (gap > 0 and s - v.ple_last > gap):
        v.ple_used = 0
    if count == 0 or in_user_mode(v) or (gap > 0 and g > gap):
        return INF
    return s + max(0, count - v.ple_used - 1) * g


def stretch_ends(v: Vcpu, t: int) -> None:
    """7.3: a spin ends by an acquisition at t; note what the processor remembers of its PAUSEs."""
    n = (t - v.spin_from) // v.vm.spin_period + 1
    v.ple_last = v.spin_from + (n - 1) * v.vm.spin_period
    v.ple_used += n


def pauses(parameters: Parameters, v: Vcpu, window: int) -> int:
    """8.3: We, the spinning between two exits of a vCPU that only spins, with such a window or count."""
    g = v.vm.spin_period
    return (window // g + 1) * g if parameters.ple_kind == "window" else window * g


def estimate(parameters: Parameters, v: Vcpu) -> int:
    """8.3: We, with 8.5: where waiters notify, it is how often they do if that is sooner, or if PLE sees nothing."""
    we, g, gap = pauses(parameters, v, parameters.base), v.vm.spin_period, parameters.G
    if not v.vm.notifies:
        return we
    blind = gap < g and (parameters.ple_kind == "window" or gap > 0)
    blind = blind or (parameters.ple_kind == "count" and parameters.N == 0)
    return v.vm.halt if blind or v.vm.halt < we else we


def grow(parameters: Parameters, v: Vcpu) -> None:
    """8.4: the window of a vCPU that exits."""
    if parameters.grow == 0:
        return
    grown = v.window * parameters.grow if parameters.grow < parameters.base else v.window + parameters.grow
    v.window = min(grown, parameters.window_max)


def choose(parameters: Parameters, v: Vcpu, k: int) -> None:
    """8.4: what a decision does with the window of a vCPU that exits."""
    v.chosen = k > 0
    if v.chosen:
        v.window = min(parameters.window_max, parameters.base * 4 ** (k - 1))
        note_window(parameters, v)


def note_window(parameters: Parameters, v: Vcpu) -> None:
    """8.4: a long window is not progress."""
    v.cpu_at_ple = v.cpu_time + pauses(parameters, v, v.window) - pauses(parameters, v, parameters.base)


def shrink(parameters: Parameters, v: Vcpu) -> None:
    """8.4: the window of a vCPU that is switched in."""
    if v.chosen:
        return
    if parameters.shrink == 0 or v.window == parameters.base:
        v.window = parameters.base
        return
    shrunk = v.window // parameters.shrink if parameters.shrink < parameters.base else v.window - parameters.shrink
    v.window = max(shrunk, parameters.base)


def note_exit(parameters: Parameters, v: Vcpu, t: int, notified: bool) -> None:
    """8.3: what the hypervisor remembers of an exit."""
    if v.ples == 0 or v.cpu_time - v.cpu_at_ple > 2 * estimate(parameters, v):
        v.ples = 0
        v.first_ple = t
    v.ples += 1
    v.last_ple = t
    if not notified:
        grow(parameters, v)
    note_window(parameters, v)
    if v.phase is Phase.ACKS:
        v.pc_class = v.vm.pc_classes
    else:
        assert v.lock is not None
        v.pc_class = v.lock.number % v.vm.pc_classes


def suspected_spinner(parameters: Parameters, v: Vcpu) -> bool:
    return v.ples > 0 and v.cpu_time - v.cpu_at_ple <= 2 * estimate(parameters, v)
