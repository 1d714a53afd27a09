"""Where is deciding hard under Linux/KVM? Kernel version, control groups, kind of lock, siblings that share a pCPU.

Beside a VM that takes locks others compute without end, or one serves requests, which must not be late.

The *bar* of a world is the rule that was best on validation seeds, of all built-in ones and of `patience` as tuned
there; a file beside this one has them, and `python -m experiments.answer.headroom` goes on where it ends. On fresh
seeds it runs beside the host's own rule and some others, and a look-ahead to the end of the run that goes on from it:
at each decision every action is tried in other futures than the one that comes. The look-ahead knows who holds which
lock: it is a bound. Where a run has too many decisions for it, there is none. Who takes from a VM what it is due beats
nobody, so of each VM it is kept what it received and was entitled to (`ple_gym.evaluate.scores`).
"""

from __future__ import annotations

import itertools
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from experiments.answer.rules import in_percent, percent
from experiments.answer.suite import from_vms, of_vms, record_of
from experiments.lab import Experiment, Table, Task, overrides_text, rough, seeds, tasks, world
from experiments.lab.report import Check
from ple_gym.certify.lookahead import TO_THE_END, LookAhead
from ple_gym.certify.plan import Plan
from ple_gym.certify.work import Parts, Work
from ple_gym.course import allowance_of
from ple_gym.episode import summarise
from ple_gym.evaluate import scores
from ple_gym.evaluate.statistics import Estimate, Floats, ratio
from ple_gym.files import write_whole
from ple_gym.policies import load_compiled
from ple_gym.rules.own import own_rule
from ple_gym.scenario import Scenario

TUNED = Path(__file__).with_suffix(".toml")
LINUX = ("6.6", "6.14", "6.18.2")
GROUPS = ("vm", "flat")
KINDS = ("ticket", "tas")
APART, STACKED, SOCKETS = "Apart", "Stacked", "Sockets"
WORLDS = (
    (APART, "Locks"), (APART, "Flushes"), (STACKED, "Locks"), (STACKED, "Flushes"), (APART, "Requests"),
    (SOCKETS, "Requests"),
)  # fmt: skip
OTHERS = (
    "host", "continue", "random", "kvm-2012", "longest-waiting", "spin-age-self", "two-patience", "resume-then-defer",
    "victim-aware", "yield-if-cheap", "longest-sibling", "oracle", "holder",
)  # fmt: skip
AHEAD = "look-ahead"
SEEDS, AHEAD_SEEDS, SAMPLES = 32, 16, 32
MOST_DECISIONS = 350  # of a run, for a look-ahead
MOST_VMS = 3
OF_VMS = tuple(f"{what}_{vm}" for what in ("got", "entitled") for vm in range(MOST_VMS))
NOTHING_DONE = {f"entitled_{vm}": 1 for vm in range(MOST_VMS)}  # of which nothing is got
PLAN = Plan(seeds=32, tuned=1, restarts=2, trials=60, validation=64)


@dataclass(frozen=True)
class Place:
    """A world of the search."""

    linux: str
    groups: str
    kind: str
    place: str
    waits: str

    @property
    def name(self) -> str:
        """Of its base."""
        return f"Headroom{self.place}{self.waits}"

    @property
    def overrides(self) -> dict[str, object]:
        """What tells it from its base."""
        return {"host.linux": self.linux, "host.groups": self.groups, "guest.lock_kind": self.kind}

    @property
    def text(self) -> str:
        """As keys have it."""
        return f"{self.linux} {self.groups} {self.kind} {self.place} {self.waits}"

    @property
    def scenario(self) -> Scenario:
        """The machine."""
        return world(self.name, overrides_text(self.overrides))

    def rows(self, table: Table, policy: str) -> Table:
        """A policy's runs, a row per seed."""
        return table.where(scenario=self.name, overrides=overrides_text(self.overrides), policy=policy)

    def losses(self, table: Table, policy: str) -> Floats:
        """The logarithm of the makespan, where CPU time beyond the allowance and late responses count as time."""
        rows, host = self.rows(table, policy), self.rows(table, own_rule(self.scenario))
        (got, _), (had, entitled) = (from_vms(one, len(self.scenario.vms())) for one in (rows, host))
        most = max(had[:, 0].mean(), entitled[:, 0].mean())
        late = np.maximum(1, rows["response"] / 1000)
        return np.asarray(np.log(rows["now_us"] * np.maximum(1, got[:, 0] / most) * late))

    def change(self, table: Table, policy: str, base: str) -> Estimate:
        """By how much that is more than another policy's on the same seeds, percent."""
        own = self.losses(table, policy)
        return in_percent(ratio(own - self.losses(table, base)[: len(own)]))

    def kept(self, table: Table, policy: str) -> float:
        """What the worst off VM receives of what it is due, on the seeds that a policy ran on."""
        rows, host = self.rows(table, policy), self.rows(table, own_rule(self.scenario))
        vms = len(self.scenario.vms())
        gets, got = (
            scores.of_entitled(*(part[: len(rows["seed"])] for part in from_vms(one, vms))) for one in (rows, host)
        )
        return scores.least_kept(self.scenario, gets, got)


def places() -> Iterator[Place]:
    """All of them; the toy's own first candidate is among them: 6.18.2, flat, ticket."""
    for linux, groups, kind, (place, waits) in itertools.product(LINUX, GROUPS, KINDS, WORLDS):
        yield Place(linux, groups, kind, place, waits)


@lru_cache(maxsize=1)
def bars() -> dict[str, tuple[str, float]]:
    """Of each place that was tuned the bar, and how many decisions a run has under it."""
    found = tomllib.loads(TUNED.read_text()) if TUNED.exists() else {}
    return {name: (str(one["bar"]), float(one["decisions"])) for name, one in found.items()}


def looks(place: Place) -> bool:
    """Whether a look-ahead is affordable there."""
    return 1 <= bars()[place.text][1] <= MOST_DECISIONS


def run(quick: bool) -> list[Task]:
    """Every place that was tuned; two of them if it must be quick."""
    found: list[Task] = []
    wanted = [place for place in places() if place.text in bars()]
    for place in wanted[:2] if quick else wanted:
        own = seeds.HEADROOM[: 2 if quick else SEEDS]
        policies = dict.fromkeys([own_rule(place.scenario), *OTHERS, bars()[place.text][0]])
        found += tasks(place.name, policies, own, place.overrides)
        if looks(place):
            found += tasks(place.name, AHEAD, own[:AHEAD_SEEDS], place.overrides)
    return found


@lru_cache(maxsize=1)
def allowance(place: Place) -> float:
    """The share of all CPU time that the VM which takes locks may have."""
    return allowance_of(place.scenario, PLAN.training)


def measure(task: Task) -> dict[str, int]:
    """What a run amounts to."""
    scenario = world(task.scenario, task.overrides)
    if task.policy == AHEAD:
        place = next(one for one in places() if (one.name, overrides_text(one.overrides)) == task[:2])
        decider = LookAhead(scenario, load_compiled(bars()[place.text][0]), SAMPLES, TO_THE_END, allowance(place))
        record = summarise(scenario, decider.run(task.seed))
    else:
        record = record_of(task)
    row = {"now_us": rough(round(1e6 * record["simulated_s"])), "finished": int(record["finished"])}
    row |= {"response": round(1000 * record["response_p99"]), **dict.fromkeys(OF_VMS, 0)}
    found = scores.sample(scenario, [[record]])
    return row | (of_vms(found) if found else NOTHING_DONE)


def checks(table: Table) -> list[Check]:
    """The bar against the host's own rule, and the look-ahead against the bar; reported only."""
    found = []
    for place in places():
        if place.text not in bars():
            continue
        bar, own = bars()[place.text][0], own_rule(place.scenario)
        if bar != own:
            found.append(Check("headroom", f"{place.text}: the bar against `{own}`", told(table, place, bar, own)))
        if looks(place):
            found.append(Check("headroom", f"{place.text}: look-ahead", told(table, place, AHEAD, bar)))
    return found


def told(table: Table, place: Place, policy: str, base: str) -> str:
    """By how much the makespan differs, and what it left the others."""
    return f"{percent(place.change(table, policy, base))}, kept {place.kept(table, policy):.2f}"


def search() -> None:
    """Tune what is not tuned yet, and keep what is found after each place."""
    found: dict[str, Mapping[str, object]] = tomllib.loads(TUNED.read_text()) if TUNED.exists() else {}
    for place in places():
        if place.text in found:
            continue
        work = Work(place.scenario, PLAN, Parts(place.scenario, PLAN, ""))
        bar, _ = work.bar()
        runs = work.fresh(load_compiled(bar))
        found[place.text] = {"bar": bar, "decisions": round(float(np.mean(runs["decisions"])), 1)}
        lines = [
            f"{json.dumps(name)} = {{ bar = {json.dumps(one['bar'])}, decisions = {one['decisions']} }}\n"
            for name, one in found.items()
        ]
        write_whole(TUNED, "".join(lines).encode())
        print(f"{place.text}: {found[place.text]}", file=sys.stderr)


EXPERIMENT = Experiment(
    "headroom",
    __doc__,
    ("now_us", "finished", "response", *OF_VMS),
    run,
    checks,
    measure=measure,
    inputs=(TUNED,),
)

if __name__ == "__main__":
    search()
