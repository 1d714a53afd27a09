"""A scenario as integers: the bytes that all lanes share, and how long a lane's row is (docs/model.md, section 2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ple_gym.scenario import affinity
from ple_gym.scenario.distributions import quantile_table
from ple_gym.sim.constants import WINDOWS
from ple_gym.sim.guest.kinds import LOCK_KINDS, MAY_TAKE, STAND
from ple_gym.sim.seam import Host
from ple_gym.sim.state import (
    AFFINITY,
    BLOCK,
    CLOCK,
    COMPUTE,
    FOR_ALL,
    FOR_ANSWERS,
    FOR_LOCKS,
    HINT,
    INT64,
    INTERRUPTS,
    IPI,
    JUMP,
    LOCAL,
    LOCK,
    PARAMETERS,
    PCPU,
    PLE_COUNT,
    PLE_WINDOW,
    PROGRAM,
    PULL,
    RESPONSE,
    SECTIONS,
    SEND,
    STEP,
    TAKE,
    THREAD,
    TO_ALL,
    TO_AWAKE,
    TO_RUNNING,
    UINT16,
    UNLOCK,
    VCPU,
    VCPU_GUEST,
    VM,
    VM_PARAMETERS,
    WORLD,
    YIELD_ONLY,
)

if TYPE_CHECKING:
    from ple_gym.scenario.model import Ple, Scenario, Vm

_PLE_KINDS = {"window": PLE_WINDOW, "count": PLE_COUNT}
_ACTUATORS = {"pull": PULL, "local": LOCAL, "hint": HINT, "yield": YIELD_ONLY}
_STEPS = {"compute": COMPUTE, "lock": TAKE, "unlock": UNLOCK, "block": BLOCK, "jump": JUMP, "ipi": SEND}
_RECEIVERS = {"all": TO_ALL, "awake": TO_AWAKE, "running": TO_RUNNING}
_CRITICAL = {"all": FOR_ALL, "locks": FOR_LOCKS, "answers": FOR_ANSWERS}
_UNIT_EXPONENTIAL = "exponential 65536"  # sampling.UNIT is its row
_CACHE_LINE = 64


class _Tables:
    """Quantile tables by text, each kept once; row 0 is the unit exponential."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {_UNIT_EXPONENTIAL: 0}

    def row(self, distribution: str) -> int:
        """Row of a distribution's table."""
        return self.rows.setdefault(distribution, len(self.rows))

    def array(self) -> np.ndarray:
        """All tables: int64 [n, 505]."""
        return np.array([quantile_table(text) for text in self.rows], dtype=np.int64)


def describe(scenario: Scenario, scheduler: Host, memory: Memory, view: np.ndarray) -> np.ndarray:
    """The shared description of a scenario: uint8, PARAMETERS, the scheduler's, VM_PARAMETERS [M], PROGRAM [M], the
    programs' steps, the quantile tables, and what only those need who look at the lanes.

    `memory`: what a rule remembers in each lane.
    """
    tables = _Tables()
    vms = tuple(scenario.vms().values())
    vm_parameters, programs = _vm_parameters(scenario, vms), _programs(vms, scenario, tables)
    steps = _steps(vms, tables)
    parameters = np.zeros(1, PARAMETERS)
    host, cost, ple, noise = scenario.host, scenario.cost, scenario.ple, scenario.noise
    hz = host.tsc_hz
    values: dict[str, float] = {
        "pcpus": host.pcpus,
        "vcpus": sum(vm.vcpus for vm in vms),
        "vms": len(vms),
        "locks": sum(vm.locks for vm in vms),
        "sockets": host.sockets,
        "finite_vms": sum(vm.transactions > 0 for vm in vms),
        "tsc_hz": hz,
        "exit": cost.exit,
        "exit_per_candidate": cost.exit_per_candidate,
        "yield_to": cost.yield_to,
        "switch": cost.switch,
        "cache": cost.cache,
        "migration": cost.migration,
        "remote_migration": cost.remote_migration,
        "ipi": cost.ipi,
        "line": cost.line,
        "notify": cost.notify or cost.exit,
        "defer_preemption": host.defer_preemption_us * hz // 10**6,
        "micro_slice": host.micro_slice_us * hz // 10**6,
        "micro_for": _CRITICAL[host.micro_slice_for],
        "balloon": host.balloon_us * hz // 10**6,
        "ple_kind": _PLE_KINDS[ple.kind],
        "gap": ple.gap,
        "window": ple.window,
        "count": ple.count,
        "stacked": host.placement == "stacked",
        "least_window": ple.window if ple.kind == "window" else ple.count,
        "window_grow": ple.window_grow,
        "window_shrink": ple.window_shrink,
        "window_max": ple.window_max,
        "windows_differ": ple.window_grow > 0 or scenario.chooses_windows,
        "actuator": _ACTUATORS[scenario.actuator],
        "pull_swaps": scenario.decision.pull_swaps,
        "last_action": (scenario.vcpus + 1) * (WINDOWS if scenario.chooses_windows else 1) - 1,
        "storm_span": hz // 1000,
        "storm_exits": _storm_exits(scenario),
        "noise_rate_hz": noise.rate_hz,
        "noise_burst": noise.burst_us * hz // 10**6,
        "noise_cap_permille": noise.cap_permille,
        "noise_level_table": tables.row(noise.level),
        "limit": round(scenario.limit.simulated_s * hz),
        "tables": len(tables.rows),
        "threads": sum(vm.threads for vm in vms),
        "senders": _senders(scenario),
        "ipis_seen": _ipis_seen(scenario),
        "ticks": any(vm.tick_us for vm in vms),
        "urgent": host.urgent_ipis and _ipis_seen(scenario) > 0,
    }
    own = np.zeros(1, scheduler.PARAMETERS)
    for name, value in scheduler.describe(scenario).items():
        own[name] = value
    sections = lane_sections(scenario, scheduler, memory)
    at = 0
    for name in SECTIONS:
        values[f"{name}_at"] = at
        at += sections[name].bytes
    values["row_bytes"] = -(-at // _CACHE_LINE) * _CACHE_LINE
    parts = {"host_parameters": own, "vm_parameters": vm_parameters, "programs": programs}
    parts |= {"steps": steps, "tables": tables.array(), "view": view}
    at = parameters.nbytes
    for name, part in parts.items():
        values[f"{name}_at"] = at
        at += part.nbytes
    for name, value in values.items():
        parameters[name] = value
    return np.concatenate([part.view(np.uint8).ravel() for part in (parameters, *parts.values())])


class Memory(NamedTuple):
    """What a rule remembers in a lane: so many int64 words for each VM, and for each vCPU."""

    per_vm: int = 0
    per_vcpu: int = 0


class Section(NamedTuple):
    """A part of a lane's row."""

    dtype: np.dtype
    shape: tuple[int, ...]
    visible: bool = False  # to the hypervisor

    @property
    def bytes(self) -> int:
        """Its length: whole words."""
        return -(-self.dtype.itemsize * math.prod(self.shape) // 8) * 8


def lane_sections(scenario: Scenario, scheduler: Host, memory: Memory) -> dict[str, Section]:
    """What a lane's row holds, in order: its layout, the arrays of `Lanes`, and the tests follow this table."""
    vms = scenario.vms().values()
    pcpus, vcpus = scenario.host.pcpus, scenario.vcpus
    locks = sum(vm.locks for vm in vms)
    threads, senders = sum(vm.threads for vm in vms), _senders(scenario)
    return {
        "world": Section(WORLD, (1,)),
        "vm": Section(VM, (len(vms),)),
        "memory": Section(INT64, (len(vms) * memory.per_vm + vcpus * memory.per_vcpu,), visible=True),
        "pcpu": Section(PCPU, (pcpus,), visible=True),
        "host_world": Section(scheduler.WORLD, (1,), visible=True),
        "host_vm": Section(scheduler.VM, (len(vms),), visible=True),
        "host_pcpu": Section(scheduler.PCPU, (pcpus,), visible=True),
        "clock": Section(CLOCK, (pcpus,)),
        "vcpu": Section(VCPU, (vcpus,), visible=True),
        "host_vcpu": Section(scheduler.VCPU, (vcpus + scheduler.further(scenario),), visible=True),
        "guest": Section(VCPU_GUEST, (vcpus,)),
        "lock": Section(LOCK, (locks,)),
        "thread": Section(THREAD, (threads,)),
        "interrupts": Section(INTERRUPTS, (vcpus if senders else 0,)),
        "unanswered": Section(INT64, (vcpus, senders)),
        "ipi": Section(IPI, (_ipis_seen(scenario),), visible=True),
        "response": Section(RESPONSE, (vcpus + threads if scenario.has_goals else 0,)),
        "queue": Section(UINT16, (pcpus, vcpus), visible=True),
    }


def _vm_parameters(scenario: Scenario, vms: tuple[Vm, ...]) -> np.ndarray:
    rows = np.zeros(len(vms), VM_PARAMETERS)
    first = 0
    for row, vm in zip(rows, vms, strict=True):
        row["first"], row["vcpus"], row["weight"] = first, vm.vcpus, vm.weight
        row["roams"], row["pinned"] = vm.affinity == affinity.ANY, vm.affinity == affinity.PINNED
        for name, word in zip(AFFINITY, _words(vm.affinity), strict=True):
            row[name] = word
        row["progress"] = 2 * _between_exits(scenario.ple, vm)
        first += vm.vcpus
    return rows


def _words(text: str) -> list[int]:
    """The pCPUs of an affinity as int64 words, a bit each; all of them if it is any, none if pinned."""
    if text == affinity.ANY:
        return [-1] * len(AFFINITY)
    words = [0] * len(AFFINITY)
    for p in affinity.pcpus_of(text):
        words[p // 64] |= 1 << p % 64
    return [word - (word >> 63 << 64) for word in words]


def _programs(vms: tuple[Vm, ...], scenario: Scenario, tables: _Tables) -> np.ndarray:
    rows = np.zeros(len(vms), PROGRAM)
    first_lock = first_thread = first_step = 0
    for row, vm in zip(rows, vms, strict=True):
        kind = LOCK_KINDS[vm.lock_kind]
        values = {
            "first_lock": first_lock,
            "locks": vm.locks,
            "stand": STAND.index(kind.stand),
            "may_take": MAY_TAKE.index(kind.may_take),
            "in_line": kind.in_line,
            "shared_line": kind.shared_line,
            "pc_classes": vm.pc_classes,
            "convoy": vm.start == "convoy",
            "user_spin": vm.spin_in_user_mode,
            "transactions": vm.transactions,
            "sections": vm.sections,
            "compute": tables.row(vm.compute),
            "hold": tables.row(vm.hold),
            "block": tables.row(vm.block),
            "kernel_below": round(vm.kernel_share * 2**32),
            "lock_below": round(vm.lock_probability * 2**32),
            "hot_below": round(vm.lock_probability * vm.hot_probability * 2**32),
            "block_below": round(vm.block_probability * 2**32),
            "spin_period": vm.spin_period,
            "halt": _patience(vm),
            "stolen": kind.stolen,
            "early_wait": vm.pv_early_wait,
            "overtake": vm.overtake_after * vm.spin_period if kind.overtakes else 0,
            "notifies": vm.notify_after > 0,
            "reach": _reach(scenario.ple, vm),
            "first_thread": first_thread,
            "threads": vm.threads,
            "thread_switch": vm.thread_switch,
            "first_step": first_step,
            "steps": len(vm.steps),
            "handler": vm.ipi_handler if vm.sends_interrupts else 0,
            "ipi_to": _RECEIVERS[vm.ipi_to],
            "tick": vm.tick_us * scenario.host.tsc_hz // 10**6,
            "tick_handler": vm.tick_handler,
            "balloon": vm.balloon,
            "goal": vm.response_goal_us * scenario.host.tsc_hz // 10**6,
        }
        for name, value in values.items():
            row[name] = value
        first_lock += vm.locks
        first_thread += vm.threads
        first_step += len(vm.steps)
    return rows


def _steps(vms: tuple[Vm, ...], tables: _Tables) -> np.ndarray:
    """The steps of all programs, one VM after the other."""
    all_steps = [(step, vm) for vm in vms for step in vm.steps]
    rows = np.zeros(len(all_steps), STEP)
    for row, (step, vm) in zip(rows, all_steps, strict=True):
        values = {
            "kind": _STEPS[step.verb],
            "place": step.place,
            "held": sum(1 << place for place, taken in enumerate(step.held) if taken),
            "target": step.target,
            "table": tables.row(step.time) if step.time else 0,
            "first": step.locks.first,
            "count": min(step.locks.last, vm.locks - 1) - step.locks.first + 1,
            "below": round(step.share * 2**32),
        }
        if step.verb == "ipi":
            values["count"] = step.siblings or vm.vcpus - 1
        for name, value in values.items():
            row[name] = value
    return rows


def _senders(scenario: Scenario) -> int:
    """Words of a set of vCPUs of one VM, if one is interrupted; else 0."""
    return max((-(-vm.vcpus // 64) for vm in scenario.vms().values() if vm.is_interrupted), default=0)


def _ipis_seen(scenario: Scenario) -> int:
    """vCPUs whose interrupts the hypervisor sees."""
    return scenario.vcpus if scenario.sees_interrupts else 0


def _reach(ple: Ple, vm: Vm) -> int:
    """Cycles from the start of a PAUSE loop to its exit, where nothing comes between."""
    pauses = ple.window // vm.spin_period + 1 if ple.kind == "window" else ple.count
    return pauses * vm.spin_period


def _patience(vm: Vm) -> int:
    """Cycles of spinning until a waiter halts, or notifies the hypervisor; 0 if it does neither."""
    loops = vm.notify_after + 1 if vm.notify_after else vm.pv_spin_threshold
    return loops * vm.spin_period


def _between_exits(ple: Ple, vm: Vm) -> int:
    """Cycles from exit to exit of a vCPU that only spins (8.3: We)."""
    reach = _reach(ple, vm)
    if not vm.notify_after:
        return reach
    seen = reach > 0 and (vm.spin_period <= ple.gap or (ple.kind == "count" and ple.gap == 0))
    return min(reach, _patience(vm)) if seen else _patience(vm)


def _storm_exits(scenario: Scenario) -> int:
    """Exits within a millisecond that take half of the machine: the least that is called a storm (12.1)."""
    host, each = scenario.host, _reach(scenario.ple, scenario.guest) + scenario.cost.exit
    return max(1, host.pcpus * (host.tsc_hz // 1000) // (2 * each))
