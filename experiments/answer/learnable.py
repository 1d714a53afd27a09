"""How often is there something to learn? A policy searched for each of some worlds of the fleet, against all rules.

The worlds are the first of `Fleet`, whatever they are. In each, rules race on validation seeds, `patience` and the best
other one with parameters as tuned there among them; the best is the *bar*. Then the cross-entropy method searches the
weights of a linear policy, which sees what a hypervisor sees. A file beside this one has the bars, an archive the
policies, and `python -m experiments.answer.learnable` goes on where it ends. On fresh seeds the policy runs beside the
bar, the next rules of the race, the host's own rule and the oracle.

CPU time beyond the allowance counts as time (`ple_gym.evaluate.scores`), and who takes from a VM what it is due beats
nobody.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from agents.archive import Archive, halved
from experiments.answer.headroom import NOTHING_DONE, OF_VMS
from experiments.answer.rules import in_percent, percent
from experiments.answer.suite import from_vms, of_vms
from experiments.lab import Experiment, Table, Task, seeds, tasks, world
from experiments.lab.executors import without_interrupts
from experiments.lab.report import Check
from ple_gym.certify.plan import Plan
from ple_gym.certify.work import Parts, Work
from ple_gym.course import losses_of
from ple_gym.episode import summarise
from ple_gym.evaluate import scores
from ple_gym.evaluate.comparison import Run
from ple_gym.evaluate.statistics import Estimate, Floats, ratio
from ple_gym.files import write_whole
from ple_gym.lanes import Lanes
from ple_gym.learned.file import encode, read_network
from ple_gym.learned.policy import LearnedPolicy
from ple_gym.learned.search import Form
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES
from ple_gym.rules.own import own_rule
from ple_gym.scenario import Scenario

FOUND = Path(__file__).with_suffix(".toml")
KEPT = Archive(FOUND.with_suffix(".tar.xz"))
SEARCHED, ORACLE = "searched", "oracle"  # a policy of that archive; who knows the locks
WORLDS = tuple(f"Fleet-{number}" for number in range(36))
PLAN = Plan(tuned=2, restarts=2, trials=60, validation=64, learners=1, generations=24)
NEXT = 3  # rules of the race beside the bar
SEEDS = 64
MILLION = 1_000_000


@dataclass(frozen=True)
class Found:
    """What was found of a world.

    Attributes:
        rules: of the race, the bar first.
        allowance: the share of all CPU time that VMs with an end may have beside others; infinite without others.
        decisions: of a run under the bar, on the mean.
    """

    rules: tuple[str, ...]
    allowance: float
    decisions: float


@lru_cache(maxsize=1)
def found() -> dict[str, Found]:
    """What is there, by world."""
    if not FOUND.exists():
        return {}
    kept = tomllib.loads(FOUND.read_text())
    return {
        name: Found(tuple(one["rules"]), float(one["allowance"]), float(one["decisions"])) for name, one in kept.items()
    }


def run(quick: bool) -> list[Task]:
    """Every world that was searched; two of them if it must be quick."""
    wanted = [name for name in WORLDS if name in found()]
    own = seeds.LEARNABLE[: 2 if quick else SEEDS]
    return [task for name in (wanted[:2] if quick else wanted) for task in tasks(name, policies(name), own)]


def policies(name: str) -> list[str]:
    """Who runs in a world: the bar first."""
    return list(dict.fromkeys([*found()[name].rules, own_rule(world(name, "")), SEARCHED, ORACLE]))


@lru_cache(maxsize=2)
def _lanes(name: str, policy: str) -> Lanes:
    return Lanes(world(name, ""), 1, policy=searched(name) if policy == SEARCHED else policy)


def searched(name: str) -> LearnedPolicy:
    """The policy that was searched for a world."""
    return LearnedPolicy(SEARCHED, read_network(KEPT.file(f"{name}.npz")), "linear network")


def measure(task: Task) -> dict[str, int]:
    """What a run amounts to: the logarithm of what is compared, in millionths, and what each VM got."""
    scenario, lanes = world(task.scenario, task.overrides), _lanes(task.scenario, task.policy)
    lanes.run(0, task.seed)
    record: Run = {"seed": task.seed, **summarise(scenario, lanes.totals(0))}
    return row_of(scenario, record, found()[task.scenario].allowance)


def row_of(scenario: Scenario, record: Run, allowance: float) -> dict[str, int]:
    """The integers of a run's row."""
    loss = losses_of(scenario, [record], allowance)[0]
    row = {"loss": round(MILLION * loss), "finished": int(record["finished"])} | dict.fromkeys(OF_VMS, 0)
    sample = scores.sample(scenario, [[record]])
    return row | (of_vms(sample) if sample else NOTHING_DONE)


def losses(table: Table, name: str, policy: str) -> Floats:
    """The logarithm of what is compared, per seed."""
    return np.asarray(table.where(scenario=name, policy=policy)["loss"] / MILLION)


def change(table: Table, name: str, policy: str, base: str) -> Estimate:
    """By how much a policy takes more than another on the same seeds, percent."""
    return in_percent(ratio(losses(table, name, policy) - losses(table, name, base)))


def kept(table: Table, name: str, policy: str) -> float:
    """What the worst off VM receives of what it is due."""
    scenario = world(name, "")
    pair = (table.where(scenario=name, policy=one) for one in (policy, own_rule(scenario)))
    gets, got = (scores.of_entitled(*from_vms(rows, len(scenario.vms()))) for rows in pair)
    return scores.least_kept(scenario, gets, got)


def finished(table: Table, name: str, policy: str) -> float:
    """The share of its runs that end."""
    return float(table.where(scenario=name, policy=policy)["finished"].mean())


def best_rule(table: Table, name: str) -> str:
    """Of the rules of the race, and the host's own, the one that is best on the fresh seeds, which flatters it."""
    return best_of(table, name, [one for one in policies(name) if one not in (SEARCHED, ORACLE)])


def best_of(table: Table, name: str, rules: Sequence[str]) -> str:
    """Of these rules the best in a world."""
    return min(rules, key=lambda one: float(losses(table, name, one).mean()))


def checks(table: Table) -> list[Check]:
    """The searched policy against the best rule of each world; reported only."""
    return [
        Check("learnable", f"{name}: searched against `{rule}`", f"{told}, kept {kept(table, name, SEARCHED):.2f}")
        for name in found()
        for rule in [best_rule(table, name)]
        for told in [percent(change(table, name, SEARCHED, rule))]
    ]


def search_one(name: str) -> tuple[str, Found, bytes]:
    """Race, tune and search in one world."""
    scenario = world(name, "")
    work = Work(scenario, PLAN, Parts(scenario, PLAN, ""), threads=1)
    (bar, _), races = work.bar(), work.races
    form = Form(scenario, "linear")
    theta = work.search(load_compiled(bar), form, None, 0, float(np.exp(races[bar])))
    others = sorted((one for one in races if not RULES[one.partition(":")[0]].settings), key=lambda one: races[one])
    rules = dict.fromkeys([bar, *others[: NEXT + 1]])
    decisions = float(np.mean(work.fresh(load_compiled(bar))["decisions"]))
    policy = form.policy(np.array(theta), SEARCHED)
    return name, Found(tuple(rules), work.allowance, round(decisions, 1)), halved(encode(policy.network))


def search(jobs: int) -> None:
    """Search where it has not been done yet, and keep what is found after each world."""
    from joblib import Parallel, delayed

    every = found()
    missing = [name for name in WORLDS if name not in every]
    with without_interrupts():
        parallel = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch=jobs, return_as="generator_unordered")
        for name, one, policy in parallel(delayed(search_one)(name) for name in missing):
            KEPT.add({f"{name}.npz": policy})
            every[name] = one
            lines = [f"{key} = {_inline(every[key])}\n" for key in WORLDS if key in every]
            write_whole(FOUND, "".join(lines).encode())
            print(f"{name}: {one}", file=sys.stderr)


def _inline(one: Found) -> str:
    """As a line of TOML."""
    return f"{{ rules = {json.dumps(one.rules)}, allowance = {one.allowance!r}, decisions = {one.decisions} }}"


EXPERIMENT = Experiment(
    "learnable",
    __doc__,
    ("loss", "finished", *OF_VMS),
    run,
    checks,
    measure=measure,
    inputs=(FOUND, KEPT.path),
)

if __name__ == "__main__":
    search(int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1)
