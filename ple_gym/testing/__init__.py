"""A checker for vector environments, anyone's: does it keep the promises of Gymnasium's `VectorEnv`?

    check_vector_env(lambda: gym.make_vec("My/Env-v0", num_envs=5), lambda: gym.make("My/Env-v0"))

`walk.py` plays an environment and records what each lane saw; `form.py` and `episodes.py` hold the checks, one function
each, whose docstrings say what is demanded and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from ple_gym.errors import ArgumentError, PleError
from ple_gym.testing import episodes, form
from ple_gym.testing.walk import NotApplicable, Subject, Unequal

__all__ = ["CHECKS", "Report", "VectorEnvError", "check_vector_env"]

#: All checks, in the order in which they run: what comes first is what later ones rely on.
CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        form.metadata,
        form.own_metadata,
        form.spaces,
        form.outputs,
        form.infos,
        form.memory,
        form.masks,
        episodes.same_seed,
        form.actions_kept,
        episodes.autoreset_next_step,
        episodes.autoreset_same_step,
        episodes.autoreset_disabled,
        episodes.independent_lanes,
        episodes.seed_of_lanes,
        episodes.autoreset_start,
        episodes.reset_mask_kept,
        episodes.partial_reset,
        episodes.wrong_reset_mask,
        episodes.lanes_are_singles,
        form.close_twice,
    )
}


class VectorEnvError(PleError, AssertionError):
    """A vector environment does not do what a check demands; `check` is the check's name."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


@dataclass
class Report:
    """Which checks passed, which did not apply and why, and which were left out."""

    passed: list[str] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.passed)} checks passed: {', '.join(self.passed)}"]
        lines += [f"{name} does not apply: {reason}" for name, reason in self.not_applicable.items()]
        lines += [f"skipped: {', '.join(self.skipped)}"] if self.skipped else []
        return "\n".join(lines)


def check_vector_env(
    make: Callable[[], VectorEnv[Any, Any, Any]],
    single: Callable[[], gym.Env[Any, Any]] | None = None,
    *,
    steps: int = 200,
    seed: int = 0,
    skip: Iterable[str] = (),
) -> Report:
    """Play a vector environment and demand of it what `ple_gym.testing.CHECKS` lists; stop at the first failure.

    Actions are random, drawn from `single_action_space`, and legal where `infos["action_mask"]` says which are. Every
    lane is compared by itself and in Python, so a handful of lanes is best; two at least, or half of the checks do not
    apply.

    Args:
        make: builds a fresh environment; called some thirty times.
        single: builds the environment that each lane should be; None: the lanes are compared with nothing.
        steps: how long most checks play. Episodes should end within it, or the checks of their ends do not apply.
        seed: lane i gets `seed + i`.
        skip: names of checks to leave out.

    Returns:
        What has been checked.

    Raises:
        VectorEnvError: the environment fails a check, or raises in it; one line names the check, what was expected,
            what was found, and the lane and the step.
        ArgumentError: `skip` names a check that there is not, or there is nothing to play.
    """
    skip = [skip] if isinstance(skip, str) else list(skip)
    for name in skip:
        if name not in CHECKS:
            raise ArgumentError(f"skip: there is no check {name!r}; there are {', '.join(CHECKS)}")
    if steps < 1:
        raise ArgumentError(f"steps = {steps}: must be at least 1")
    report = Report(skipped=skip)
    for name, check in CHECKS.items():
        if name in skip:
            continue
        with Subject(make, single, steps, seed) as subject:
            try:
                check(subject)
            except NotApplicable as reason:
                report.not_applicable[name] = str(reason)
            except Unequal as found:
                raise VectorEnvError(name, str(found)) from None
            except Exception as error:
                what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise VectorEnvError(name, f"the environment raised {what}") from error
            else:
                report.passed.append(name)
    return report
