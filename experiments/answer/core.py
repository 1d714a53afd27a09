"""How much faster than every rule is a policy where something can be learned? The worlds of the suite `core`.

Of each world that policy runs which was best on validation seeds of all that its certificate learned (`ple-gym certify
--policy`); it is shipped. Beside it run those rules that the certificate found best, tuned or not, the host's own, and
who knows the locks: on seeds that nothing was chosen on. CPU time beyond the allowance counts as time, and so do late
responses (`ple_gym.evaluate.scores`).

Then each number that is assumed of these worlds is halved and doubled, locks and kernel are others, and the same
policies and rules run, as they are: nothing is searched or tuned again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

import numpy as np

from experiments.answer.headroom import OF_VMS
from experiments.answer.learnable import best_of, change, kept, row_of
from experiments.answer.rules import percent
from experiments.answer.suite import members, record_of, scenario_id
from experiments.lab import Experiment, Table, Task, overrides_text, rough, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.certify.catalogue import certificates
from ple_gym.certify.certificate import RULE
from ple_gym.course import allowance_of
from ple_gym.rules.own import own_rule
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.scenario.core import HELD, SELDOM

#: World -> the policy that is shipped for it.
LEARNED: Mapping[str, str] = {
    "KvmServer614": "learned:kvm-server-614",
    "KvmServer614Flat": "learned:kvm-server-614-flat",
    "KvmServer618": "learned:kvm-server-618",
    "KvmServer618Flat": "learned:kvm-server-618-flat",
    "KvmFlushes618Flat": "learned:kvm-flushes-618-flat",
}


#: Overrides of a world; None where there is nothing to change.
Changes: TypeAlias = Callable[[Scenario], Mapping[str, object] | None]


def _set(name: str, value: object) -> Changes:
    """Another value in every world."""
    return lambda scenario: {name: value}


def _held(times: float) -> Changes:
    """Locks that are held for so many times as long, in the world's own program."""
    word, *knots = HELD.split()
    scaled = (f"{share}:{round(times * int(cycles))}" for share, cycles in (knot.split(":") for knot in knots))
    longer = " ".join((word, *scaled))
    return lambda scenario: {"guest.program": scenario.guest.program.replace(HELD, longer)}


def _flushing(share: float) -> Changes:
    """Another share of the transactions flushes TLBs, where some do."""

    def changes(scenario: Scenario) -> Mapping[str, object] | None:
        program = scenario.guest.program.replace(SELDOM, f"jump 3 with {1 - share:g}")
        return None if program == scenario.guest.program else {"guest.program": program}

    return changes


#: What is changed -> overrides of a world. The first changes nothing; the last ones what nobody has assumed.
AS_IT_IS = "as it is"
VARIANTS: Mapping[str, Changes] = {
    AS_IT_IS: lambda scenario: {},
    "one lock": _set("guest.locks", 1),
    "four locks": _set("guest.locks", 4),
    "held half as long": _held(0.5),
    "held twice as long": _held(2),
    "half the flushes": _flushing(0.05),
    "twice the flushes": _flushing(0.2),
    "half the requests": _set("neighbours.0.block", "exponential 10000000"),
    "twice the requests": _set("neighbours.0.block", "exponential 2500000"),
    "requests of 50 us": _set("neighbours.0.compute", "exponential 125000"),
    "requests of 200 us": _set("neighbours.0.compute", "exponential 500000"),
    "goal 1 ms": _set("neighbours.0.response_goal_us", 1000),
    "goal 4 ms": _set("neighbours.0.response_goal_us", 4000),
    "ticket locks": _set("guest.lock_kind", "ticket"),
    "Linux 6.6": _set("host.linux", "6.6"),
}
OTHERS = ("ticket locks", "Linux 6.6")
ORACLE = "oracle"
RULES = 4  # the best of the certificate
SEEDS, FEWER = 200, 100  # as it is, and changed
TRAINING = 28  # seeds of which the allowance is the mean, as in a certificate


def rules(name: str) -> list[str]:
    """The best rules of a world's certificate, and the host's own."""
    found = [row.name for row in certificates()[name].rows if row.kind == RULE]
    return list(dict.fromkeys([*found[:RULES], own_rule(SCENARIOS[name])]))


def run(quick: bool) -> list[Task]:
    """Every world of the suite."""
    found: list[Task] = []
    for name in members("core"):
        for changes in (make(SCENARIOS[name]) for make in VARIANTS.values()):
            if changes is None:
                continue
            own = seeds.CORE[: 2 if quick else FEWER if changes else SEEDS]
            found += tasks(scenario_id(name), policies(name)[: -1 if changes else None], own, changes)
    return found


def changed(variant: str) -> list[str]:
    """The worlds in which there is something to change."""
    return [name for name in members("core") if VARIANTS[variant](SCENARIOS[name]) is not None]


def part(table: Table, variant: str) -> Table:
    """The rows of a variant."""
    texts = {overrides_text(VARIANTS[variant](SCENARIOS[name]) or {}) for name in changed(variant)}
    return table.select(np.isin(table["overrides"].astype(str), [*texts]))


def policies(name: str) -> list[str]:
    """Who runs in a world; the last one, which knows the locks, as it is only."""
    return [*rules(name), LEARNED[name], ORACLE]


@cache
def allowance(scenario: str, overrides: str) -> float:
    """The share of all CPU time that the VM which takes locks may have."""
    return allowance_of(world(scenario, overrides), TRAINING)


def measure(task: Task) -> dict[str, int]:
    """What a run amounts to: the logarithm of what is compared, in millionths, rough; what each VM got; and, of a world
    as it is, what goes into the first."""
    record, where = {"seed": task.seed, **record_of(task)}, (task.scenario, task.overrides)
    parts = {
        "now_us": rough(round(1e6 * record["simulated_s"])),
        "responses": record["responses"],
        "response": round(1000 * record["response_p99"]),
    }
    row = row_of(world(*where), record, allowance(*where))
    return (dict.fromkeys(parts, 0) if task.overrides else parts) | row | {"loss": rough(row["loss"], 12)}


def best_rule(table: Table, name: str) -> str:
    """Of the rules the one that is best in these rows, of one variant, which flatters it."""
    return best_of(table, scenario_id(name), rules(name))


def checks(table: Table) -> list[Check]:
    """The learned policy against the best rule of each world; reported only."""
    found = []
    for name in members("core"):
        one, policy = scenario_id(name), LEARNED[name]
        for variant in (one for one in VARIANTS if name in changed(one)):
            rows = part(table, variant)
            told = f"{percent(change(rows, one, policy, best_rule(rows, name)))}, kept {kept(rows, one, policy):.2f}"
            found.append(Check("core", f"{name}, {variant}: `{policy}` against the best rule", told))
    return found


EXPERIMENT = Experiment(
    "core", __doc__, ("now_us", "responses", "response", "loss", "finished", *OF_VMS), run, checks, measure=measure
)
