"""How much faster than every rule is a policy where something can be learned? The worlds of the suite `core`.

Of each world that policy runs which was best on validation seeds of all that its certificate learned (`ple-gym certify
--policy`); it is shipped. Beside it run those rules that the certificate found best, tuned or not, the host's own, and
who knows the locks: on seeds that nothing was chosen on. CPU time beyond the allowance counts as time, and so do late
responses (`ple_gym.evaluate.scores`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from experiments.answer.headroom import OF_VMS
from experiments.answer.learnable import best_of, change, kept, row_of
from experiments.answer.rules import percent
from experiments.answer.suite import members, record_of, scenario_id
from experiments.lab import Experiment, Table, Task, rough, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.certify.catalogue import certificates
from ple_gym.certify.certificate import RULE
from ple_gym.course import allowance_of
from ple_gym.rules.own import own_rule
from ple_gym.scenario.builtin import SCENARIOS

#: World -> the policy that is shipped for it.
LEARNED: Mapping[str, str] = {
    "KvmServer614": "learned:kvm-server-614",
    "KvmServer614Flat": "learned:kvm-server-614-flat",
    "KvmServer618": "learned:kvm-server-618",
    "KvmServer618Flat": "learned:kvm-server-618-flat",
}
ORACLE = "oracle"
RULES = 4  # the best of the certificate
SEEDS = 200
TRAINING = 28  # seeds of which the allowance is the mean, as in a certificate


def rules(name: str) -> list[str]:
    """The best rules of a world's certificate, and the host's own."""
    found = [row["name"] for row in certificates()[name]["rows"] if row["kind"] == RULE]
    return list(dict.fromkeys([*found[:RULES], own_rule(SCENARIOS[name])]))


def run(quick: bool) -> list[Task]:
    """Every world of the suite."""
    own = seeds.CORE[: 2 if quick else SEEDS]
    return [task for name in members("core") for task in tasks(scenario_id(name), policies(name), own)]


def policies(name: str) -> list[str]:
    """Who runs in a world."""
    return [*rules(name), LEARNED[name], ORACLE]


@lru_cache
def allowance(scenario: str) -> float:
    """The share of all CPU time that the VM which takes locks may have."""
    return allowance_of(world(scenario, ""), TRAINING)


def measure(task: Task) -> dict[str, int]:
    """What a run amounts to: the logarithm of what is compared, in millionths; what goes into it; what each VM got."""
    record = {"seed": task.seed, **record_of(task)}
    parts = {"now_us": rough(round(1e6 * record["simulated_s"])), "responses": record["responses"]}
    return (
        parts
        | {"response": round(1000 * record["response_p99"])}
        | row_of(world(task.scenario, ""), record, allowance(task.scenario))
    )


def best_rule(table: Table, name: str) -> str:
    """Of the rules the one that is best on these seeds, which flatters it."""
    return best_of(table, scenario_id(name), rules(name))


def checks(table: Table) -> list[Check]:
    """The learned policy against the best rule of each world; reported only."""
    found = []
    for name in members("core"):
        one, policy = scenario_id(name), LEARNED[name]
        told = f"{percent(change(table, one, policy, best_rule(table, name)))}, kept {kept(table, one, policy):.2f}"
        found.append(Check("core", f"{name}: `{policy}` against the best rule", told))
    return found


EXPERIMENT = Experiment(
    "core", __doc__, ("now_us", "responses", "response", "loss", "finished", *OF_VMS), run, checks, measure=measure
)
