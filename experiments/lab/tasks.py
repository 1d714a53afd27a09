"""A task: one simulated run, and the exact integers that are measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from experiments.lab.worlds import load_world
from ple_gym.lanes import Lanes
from ple_gym.policies import Compiled, load_compiled
from ple_gym.scenario import Scenario

UNFINISHED = -1  # a VM's finish if it had none


class Task(NamedTuple):
    """One run. `overrides` is text: `host.ratelimit_us=500;guest.vcpus=16`, empty for none."""

    scenario: str
    overrides: str
    policy: str
    seed: int


KEYS = Task._fields
Row: TypeAlias = tuple[int, ...]
Measure: TypeAlias = Callable[[Task], Mapping[str, int]]


def tasks(
    scenario: str, policies: str | Iterable[str], seeds: Iterable[int], overrides: Mapping[str, object] | None = None
) -> list[Task]:
    """Every policy on every seed."""
    policies = [policies] if isinstance(policies, str) else policies
    text = overrides_text(overrides)
    seeds = list(seeds)
    return [Task(scenario, text, policy, seed) for policy in policies for seed in seeds]


def overrides_text(overrides: Mapping[str, object] | None) -> str:
    """How a `Task` and a table's column `overrides` write these overrides; a program's steps are parted by `|`."""
    return ";".join(f"{name}={value}".replace(";", "|") for name, value in (overrides or {}).items())


@lru_cache(maxsize=64)
def world(scenario: str, overrides: str) -> Scenario:
    """The scenario of a task, its overrides applied."""
    pairs = (item.replace("|", ";").split("=", 1) for item in overrides.split(";") if item)
    return load_world(scenario).with_overrides(dict(pairs))


@lru_cache(maxsize=2)
def _lanes(scenario: str, overrides: str, policy: str, load: Callable[[str], Compiled]) -> Lanes:
    return Lanes(world(scenario, overrides), 1, policy=load(policy))


def run_of(task: Task, load: Callable[[str], Compiled] = load_compiled) -> Lanes:
    """Simulate a task; its lane as it ends, until the next task. `load` says what the name of a policy means."""
    lanes = _lanes(task.scenario, task.overrides, task.policy, load)
    lanes.run(0, task.seed)
    return lanes


def totals(task: Task) -> dict[str, int]:
    """Simulate a task: every metric of docs/model.md, section 13, flat, times in cycles, but `now_us` in microseconds
    and `rough`, which makes tables half as large.

    `finished, now, now_us, exits, ..., useful, spin, ..., wait_p50, wait_p99, wait_max, acquisition_exits_p50, ...,
    dispatch_exits_max, dispatch_exits_mode`, and of every VM `used_0, useful_0, finish_0, longest_steal_0`.
    """
    run: dict[str, Any] = run_of(task).totals(0)
    flat = {name: int(value) for name, value in run.items() if not isinstance(value, dict | list)}
    flat |= run["cycles"]
    flat |= {f"wait_{name}": value for name, value in run["acquire_wait"].items()}
    hz = world(task.scenario, task.overrides).host.tsc_hz
    flat["now_us"] = rough(run["now"] * 1_000_000 // hz)
    flat |= {f"acquisition_exits_{name}": value for name, value in run["ple_per_acquisition"].items()}
    flat |= {f"dispatch_exits_{name}": value for name, value in run["ple_per_dispatch"].items()}
    for number, vm in enumerate(run["vms"]):
        finish = vm["finish"] if vm["finish"] <= run["now"] else UNFINISHED
        flat |= {f"used_{number}": vm["used"], f"useful_{number}": vm["useful"], f"finish_{number}": finish}
        flat[f"longest_steal_{number}"] = vm["longest_steal"]
    return flat


def rough(value: int, bits: int = 14, beside: int | None = None) -> int:
    """The nearest that has so many significant bits, or is a step of `beside` with so many; of them only 0 becomes 0.

    Tables keep times so: further digits are in no mean over seeds, and take most of the bytes.
    """
    step = 1 << max(0, abs(value if beside is None else beside).bit_length() - bits)
    size = max(step, (abs(value) + step // 2) // step * step) if value else 0
    return size if value > 0 else -size
