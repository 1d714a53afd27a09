"""What a certificate is made of: tuned rules, fresh runs, look-aheads, learned policies. Each part is kept."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ple_gym.certify.certificate import (
    AHEAD,
    CLAIRVOYANT,
    LEARNED,
    PRIVILEGED,
    RULE,
    SETTING,
    Certificate,
    Row,
    judge,
    row,
)
from ple_gym.certify.learned import climb, cost, probe
from ple_gym.certify.lookahead import LookAhead
from ple_gym.certify.plan import FRESH, Plan
from ple_gym.course import JUDGING, TRAINING, VALIDATION, Course, allowance_of, losses_of, objective
from ple_gym.drive import simulator
from ple_gym.episode import summarise
from ple_gym.errors import ArgumentError
from ple_gym.evaluate.comparison import Run
from ple_gym.evaluate.runs import simulate, suiting
from ple_gym.evaluate.scores import KEPT, least_kept, of_entitled, sample
from ple_gym.evaluate.statistics import Floats
from ple_gym.files import Log, parse_table, read_text, reading, write_whole, writing
from ple_gym.learned.policy import LearnedPolicy
from ple_gym.learned.search import POPULATION, Form
from ple_gym.policies import Compiled, load_compiled
from ple_gym.progress import Report
from ple_gym.rules import RULES, Rule
from ple_gym.rules.own import own_rule
from ple_gym.scenario.model import Scenario
from ple_gym.sim.seam import host_of
from ple_gym.sim.units import fingerprint, sources
from ple_gym.tuning import Known, Search, Study, tune

MOST_LESSONS = 20_000
REPEATED = 2  # runs of which it is kept how long they took
#: A policy that never leaves a storm takes a hundred times as long to run as a good one. So a search cuts runs off at
#: so many times the makespan of the bar, and runs the worse half of its candidates on a quarter of the worlds only.
LONGEST, QUARTER = 2, 4
_MAX_BYTES = 2**28

#: Opens the display of a stage of the work: its name, and how much there is of it.
Stage = Callable[[str, int], AbstractContextManager[Report]]


class Parts:
    """Parts of the work that are done, kept in a file if there is a name; ArgumentError if it is of something else."""

    def __init__(self, scenario: Scenario, plan: Plan, path: str) -> None:
        self._found: dict[str, Any] = {}
        self._log: Log | None = None
        if not path:
            return
        code = {*sources(*JUDGING, "certify/*.py", "learned/*.py", "tuning.py")}
        code |= {*(simulator(host_of(scenario.host.scheduler)).made_of or ())}
        digests = f"{scenario.digest} {fingerprint(sorted(code))}"
        head, lines = f"ple_gym certificate 2 {digests} {json.dumps(asdict(plan))}", []
        if Path(path).exists():
            with reading(path, ArgumentError, "parts of a certificate", "remove it to begin anew"):
                text = read_text(path, _MAX_BYTES)
                first, *lines = text[: text.rfind("\n") + 1].splitlines()  # what is torn off is done again
                if first != head:
                    raise ArgumentError("is of another scenario, another plan or other code")
                for line in map(parse_table, lines):
                    self._found[str(line["part"])] = line["found"]
        with writing(path, ArgumentError):
            write_whole(path, "".join(f"{line}\n" for line in (head, *lines)).encode())
            self._log = Log(path)

    @property
    def count(self) -> int:
        """How many are done."""
        return len(self._found)

    def __contains__(self, part: str) -> bool:
        return part in self._found

    def get(self, part: str, make: Callable[[], Any]) -> Any:
        """What a part is, made now if it is not done."""
        if part not in self._found:
            self.keep(part, make())
        return self._found[part]

    def keep(self, part: str, found: Any) -> None:
        """Keep a part."""
        self._found[part] = found
        if self._log:
            self._log.add(json.dumps({"part": part, "found": found}).encode() + b"\n")

    def close(self) -> None:
        """Write no more."""
        if self._log:
            self._log.close()


@contextmanager
def unseen(what: str, total: int) -> Iterator[Report]:
    """A stage that shows nothing."""
    yield lambda done, note="": None


class Work:
    """The work on one scenario."""

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        parts: Parts,
        threads: int | None = None,
        stage: Stage = unseen,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.scenario, self.plan, self.parts = scenario, plan, parts
        self.threads, self._stage, self._say = threads or os.cpu_count() or 1, stage, say
        self.own = own_rule(scenario)

    @cached_property
    def allowance(self) -> float:
        """The share of all CPU time that the VMs with an end may have."""
        return allowance_of(self.scenario, self.plan.training, self.threads)

    def certificate(self, made_by: Mapping[str, Any]) -> Certificate:
        """Do all that is not done, and judge."""
        names = [name for name in suiting(self.scenario) if not RULES[name].privileged]
        bar, tuned = self.bar()
        everybody = dict.fromkeys([bar, self.own, *names, *tuned])
        runs = {name: self.fresh(load_compiled(name)) for name in everybody}
        own = np.array(runs[bar]["losses"])
        rows = [self._row(name, self._kind(name), runs[name], own) for name in everybody]
        for name in suiting(self.scenario):
            if RULES[name].privileged:
                rows.append(self._row(name, PRIVILEGED, self.fresh(RULES[name]), own))
        base = load_compiled(bar)
        resampled, choices = self._ahead("look-ahead", base, self.plan.samples)
        rows.append(self._row("look-ahead", AHEAD, resampled, own))
        rows.append(self._row("clairvoyant look-ahead", CLAIRVOYANT, self._ahead("clairvoyant", base, 0)[0], own))
        rows += [self._row(one.name, LEARNED, self.fresh(one), own) for one in self.learned()]
        first, *others = rows
        kinds = [RULE, SETTING, LEARNED, PRIVILEGED, AHEAD, CLAIRVOYANT]
        others.sort(key=lambda one: (kinds.index(one.kind), one.percent[0]))
        by_name = {one.name: one for one in rows}
        decisions = float(np.mean(runs[bar]["decisions"]))
        ideal = round(100 * math.expm1(float(np.mean(runs[bar]["above"]))), 2)
        verdict, why = judge(rows, by_name[self.own], first, decisions, ideal)
        many = max(1, choices["decisions"])
        return Certificate(
            self.scenario.name, self.scenario.digest, verdict, why, bar, self.own, objective(self.scenario), ideal,
            round(decisions, 1), round(choices["open"] / many, 4), round(choices["matter"] / many, 4),
            asdict(self.plan), [first, *others], made_by,
        )  # fmt: skip

    def _kind(self, name: str) -> str:
        policy = load_compiled(name)
        return SETTING if isinstance(policy, Rule) and policy.settings else RULE

    def _row(self, name: str, kind: str, found: Mapping[str, Any], bar: Floats) -> Row:
        host, count = self.fresh(load_compiled(self.own)), len(found["got"])
        gets, got = (
            of_entitled(np.array(one["got"][:count]), np.array(one["entitled"][:count])) for one in (found, host)
        )
        kept = least_kept(self.scenario, gets, got)
        return row(name, kind, np.array(found["losses"]), bar, float(np.mean(found["cut"])), kept, found["cycles"])

    # ------------------------------------------------------------------------------------------------------- the rules

    @cached_property
    def races(self) -> dict[str, float]:
        """Mean loss of each rule on the validation seeds, tuned or not."""
        known: Known = {}
        races: dict[str, float] = self.parts.get("race", lambda: self._race(known))
        for name in self._worth_tuning(races):
            races = races | self.parts.get(f"tune {name}", partial(self._tuned, name, known))
        return races

    def bar(self) -> tuple[str, list[str]]:
        """The rule that is best on validation seeds, tuned or not, and all that tuning found."""
        races = self.races
        choosable = sorted((name for name in races if self._kind(name) == RULE), key=lambda name: races[name])
        best = next((name for name in choosable if self._validated(name) >= KEPT), self.own)
        self._say(f"the bar is {best}")
        return best, [name for name in races if name not in RULES]

    def _validated(self, name: str) -> float:
        """What the worst off VM keeps under a rule, on the validation seeds."""

        def got(name: str) -> list[float]:
            seeds = range(VALIDATION[0], VALIDATION[0] + self.plan.validation)
            runs = simulate(self.scenario, load_compiled(name), seeds, threads=self.threads)
            return self._got(runs)

        own, host = (self.parts.get(f"got {one}", partial(got, one)) for one in (name, self.own))
        return least_kept(self.scenario, np.array(own), np.array(host))

    def _got(self, runs: Sequence[Run]) -> list[float]:
        """What each VM receives of what it is entitled to, on the mean; of endless ones nothing is said."""
        found = sample(self.scenario, [runs])
        return [1.0] if found is None else of_entitled(found.got, found.entitled).tolist()

    def _race(self, known: Known) -> dict[str, float]:
        names = [name for name in suiting(self.scenario) if not RULES[name].privileged]
        losses: dict[str, float] = {}
        with self._stage("rules", len(names)) as report:
            for place, name in enumerate(names):
                report(place, name)
                losses[name] = float(np.mean(self._losses(RULES[name], VALIDATION[0], self.plan.validation)))
        return losses

    def _worth_tuning(self, races: Mapping[str, float]) -> list[str]:
        rules = sorted(races, key=lambda name: races[name])
        able = [name for name in rules if name in RULES and RULES[name].parameters and name != "patience"]
        return ["patience", *able][: self.plan.tuned]

    def _tuned(self, name: str, known: Known) -> dict[str, float]:
        """The best of each restart, and its mean loss on the validation seeds."""
        p = self.plan
        course = Course(self.scenario, p.training, self.threads)
        search = Search(course, RULES[name], p.restarts, p.trials, p.training, p.validation)
        with self._stage(f"tuning {name}", search.runs) as report:
            study = Study(search, "", report, known)
            found = tune(search, study, self._say)
        return {one.rule.name: float(one.losses.mean()) for one in found.entrants.values() if one.restart >= 0}

    def _losses(self, policy: Compiled, first: int, count: int) -> list[float]:
        runs = simulate(self.scenario, policy, range(first, first + count), threads=self.threads)
        return losses_of(self.scenario, runs, self.allowance)

    def fresh(self, policy: Compiled) -> dict[str, Any]:
        """What came of a policy on fresh seeds."""

        def make() -> dict[str, Any]:
            seeds = range(FRESH[0], FRESH[0] + self.plan.seeds)
            with self._stage(f"fresh runs of {policy.name}", len(seeds)) as report:
                runs = simulate(self.scenario, policy, seeds, None, lambda n: report(n), self.threads)
            return self._summary(runs)

        found: dict[str, Any] = self.parts.get(f"fresh {policy.name}", make)
        return found

    def _summary(self, runs: Sequence[Run]) -> dict[str, Any]:
        hz = self.scenario.host.tsc_hz
        found = sample(self.scenario, [runs])
        return {
            "losses": losses_of(self.scenario, runs, self.allowance),
            "above": [0.0] * len(runs) if found is None else found.above[0].tolist(),
            "got": [[1.0]] * len(runs) if found is None else found.got[0].tolist(),
            "entitled": [[1.0]] * len(runs) if found is None else found.entitled[0].tolist(),
            "cut": [int(not run["finished"] and not self.scenario.endless) for run in runs],
            "decisions": [run["decisions"] for run in runs],
            "cycles": [round(run["simulated_s"] * hz) for run in runs[:REPEATED]],
        }

    # ------------------------------------------------------------------------------------------------- the look-aheads

    def _ahead(self, name: str, base: Compiled, samples: int) -> tuple[dict[str, Any], dict[str, int]]:
        """What came of a look-ahead on fresh seeds, and its choices."""
        seeds = [FRESH[0] + k for k in range(self.plan.ahead)]
        missing = [seed for seed in seeds if f"{name} {seed}" not in self.parts]
        for seed, found, _ in self._look(name, base, samples, missing, False):
            self.parts.keep(f"{name} {seed}", found)
        every = [self.parts.get(f"{name} {seed}", dict) for seed in seeds]
        merged = {key: [one[key] for one in every] for key in ("losses", "cut", "got", "entitled")}
        merged["cycles"] = [one["cycles"] for one in every[:REPEATED]]
        return merged, {key: sum(one["choices"][key] for one in every) for key in every[0]["choices"]}

    def _look(
        self, name: str, base: Compiled, samples: int, seeds: Sequence[int], teaches: bool
    ) -> Iterator[tuple[int, dict[str, Any], LookAhead]]:
        """Look ahead on each seed, on all threads; as they are done."""
        stopping = threading.Event()

        def between() -> None:
            if stopping.is_set():
                raise CancelledError

        def run(seed: int) -> tuple[int, dict[str, Any], LookAhead]:
            decider = LookAhead(self.scenario, base, samples, self.plan.horizon_us, self.allowance, teaches, between)
            told: Run = {"seed": seed, **summarise(self.scenario, decider.run(seed))}
            one = {key: value[0] for key, value in self._summary([told]).items()}
            return seed, one | {"choices": asdict(decider.choices)}, decider

        pool = ThreadPoolExecutor(self.threads)
        try:
            with self._stage(f"{name}, {len(seeds)} seeds", len(seeds)) as report:
                for done, future in enumerate(as_completed([pool.submit(run, seed) for seed in seeds])):
                    yield future.result()
                    report(done + 1)
        finally:
            stopping.set()
            pool.shutdown(cancel_futures=True)

    # --------------------------------------------------------------------------------------------- what can be learned

    def best_learned(self) -> LearnedPolicy | None:
        """Of what was learned the policy that is best on the validation seeds; None if nothing was."""

        def validated(policy: LearnedPolicy) -> float:
            def make() -> float:
                return float(np.mean(self._losses(policy, VALIDATION[0], self.plan.validation)))

            loss: float = self.parts.get(f"validated {policy.name}", make)
            return loss

        return min(self.learned(), key=validated, default=None)

    def learned(self) -> list[LearnedPolicy]:
        """The probe, and the best of every search: from nothing, and one from the probe."""
        base = load_compiled(self.bar()[0])
        typical = float(np.exp(np.mean(self.fresh(base)["losses"])))
        linear, small = Form(self.scenario, "linear"), Form(self.scenario, "set", 4)
        learned = []
        start = None
        if self.plan.lessons:
            start = np.array(self.parts.get("probe", lambda: self._probe(base, linear)))
            learned.append(linear.policy(start, "probe"))
        for form in (linear, small):
            for number in range(self.plan.learners):
                begin = start if form is linear and number == 0 else None
                name = f"{form.kind} {number}" + (" from the probe" if begin is not None else "")
                theta = self.parts.get(name, partial(self.search, base, form, begin, number, typical))
                learned.append(form.policy(np.array(theta), name))
        return learned

    def _probe(self, base: Compiled, form: Form) -> list[float]:
        seeds = [TRAINING[0] + k for k in range(self.plan.lessons)]
        look = self._look("lessons", base, self.plan.samples, seeds, True)
        lessons = [lesson for _, _, decider in sorted(look, key=lambda one: one[0]) for lesson in decider.lessons]
        if not lessons:
            return [0.0] * len(form.deviation())
        step = -(-len(lessons) // MOST_LESSONS)
        return [round(float(x), 6) for x in probe(form, lessons[::step])]

    def search(self, base: Compiled, form: Form, start: Floats | None, number: int, typical: float) -> list[float]:
        """Weights that the cross-entropy method finds: of those to choose from the best on validation seeds.

        base: the bar, to compare with; start: weights to go on from; number: of the search, its seed; typical: what is
        compared, of the bar.
        """
        p = self.plan
        limit = self.scenario.limit.simulated_s
        world = self.scenario if self.scenario.endless else self.scenario.with_overrides(
            {"limit.simulated_s": min(limit, LONGEST * typical)}
        )  # fmt: skip
        validation = range(VALIDATION[0], VALIDATION[0] + p.validation)

        def value(policy: Compiled, seeds: range) -> float:
            runs = simulate(world, policy, seeds, threads=self.threads)
            return cost(world, runs, self.allowance)

        with self._stage(f"{form.kind} {number}", p.generations * POPULATION) as report:

            def costs(thetas: Floats, generation: int) -> Floats:
                """The cost on all worlds of the better half on a quarter of them; infinite for the others."""
                first = TRAINING[0] + (generation * p.worlds + 10_000 * number) % (len(TRAINING) - p.worlds)
                worlds, done = range(first, first + p.worlds), generation * POPULATION
                policies = [form.policy(theta, "candidate") for theta in thetas]
                tried, found = np.empty(len(policies)), np.full(len(policies), np.inf)
                for place, policy in enumerate(policies):
                    tried[place] = value(policy, worlds[: -(-p.worlds // QUARTER)])
                    report(done + (place + 1) // 2)
                better = np.argsort(tried, kind="stable")[: len(policies) // 2]
                for rank, place in enumerate(better, 1):
                    found[place] = value(policies[place], worlds)
                    report(done + len(policies) // 2 + rank)
                return found

            thetas = climb(form, start, p.generations, number, costs)
            values = [value(form.policy(theta, "candidate"), validation) for theta in thetas]
        against = min(values) - value(base, validation)
        self._say(f"{form.kind} {number}: {100 * math.expm1(against):+.1f} % against the bar")
        return [float(np.float32(x)) for x in thetas[int(np.argmin(values))]]
