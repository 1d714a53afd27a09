"""The search for the parameters of a rule, on a scenario or on a fleet: `ple-gym tune`.

Several restarts propose values: changes of the defaults at first, then in turns what Optuna's TPE makes of the results,
and changes of the best so far. Each proposal runs on the same training seeds. The best of each restart, the rule as it
is and every built-in rule then run on the same validation seeds.

Nothing is random but what the seeds of the restarts draw, and the file of a study has what has been run: a search that
was interrupted proposes the same again, takes from there what it knows, and ends the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ple_gym.course import JUDGING, TRAINING, VALIDATION, Course
from ple_gym.drive import simulator
from ple_gym.errors import ArgumentError, PolicyError
from ple_gym.evaluate.statistics import Floats, ratio
from ple_gym.extras import needs
from ple_gym.files import Log, parse_table, read_text, reading, write_whole, writing
from ple_gym.learned.cards import TEXT, list_of, record
from ple_gym.messages import plain
from ple_gym.progress import Report
from ple_gym.rules import Rule
from ple_gym.rules.registry import Parameter
from ple_gym.scenario.parameters import MAX_SEED, number, whole
from ple_gym.sim.seam import host_of
from ple_gym.sim.units import fingerprint, sources

if TYPE_CHECKING:
    from optuna import Trial

ENOUGH = {"restarts": 4, "training": 28, "validation": 128}  # winners of smaller searches did not survive
FIRST, HOPELESS = 7, math.log(1.25)  # seeds after which a proposal ends that is so far behind the best built-in rule
WIDE = 100  # a longer range is searched on a logarithmic scale
Known: TypeAlias = dict[tuple[str, int], list[float]]
_LINE = record({"policy": TEXT, "first": whole(0, MAX_SEED), "losses": list_of(number(-1e6, 1e6), 1, 10**6)})


@dataclass(frozen=True)
class Search:
    """What is asked for: numbers of restarts, of proposals of each (`trials`) and of seeds, and the seed of all draws.

    Raises:
        PolicyError, ArgumentError: the rule has nothing to search; a number is out of its range.
    """

    course: Course
    rule: Rule
    restarts: int = 4
    trials: int = 150
    training: int = 28
    validation: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {"restarts": (1, 1000), "trials": (1, 10**6), "training": (1, 10**6), "validation": (2, 10**6)}
        for name, (least, most) in {**ranges, "seed": (0, MAX_SEED)}.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ArgumentError(f"{name} = {value}: must be {least}..{most}")
        if not self.searched:
            raise PolicyError(f"{plain(self.rule.name)}: has no parameter to search")
        self.course.check(self.rule)

    @property
    def searched(self) -> dict[str, Parameter]:
        """The parameters without given values."""
        return {name: one for name, one in self.rule.parameters.items() if name not in self.rule.values}

    @property
    def runs(self) -> int:
        """How many runs are made at most."""
        raced = len(self.course.rivals)
        return (raced + self.restarts * self.trials) * self.training + (raced + self.restarts + 1) * self.validation


@dataclass(frozen=True)
class Entrant:
    """A rule in the race: the restart that found it (-1: none), its mean loss against the best built-in rule's on
    training seeds, and its losses on the validation seeds."""

    rule: Rule
    restart: int = -1
    training: float = math.inf
    losses: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Found:
    """The rule with the values that are best on the validation seeds, its defaults among them; all entrants by name,
    the best first; and the best of the other built-in rules."""

    search: Search
    best: Rule
    entrants: Mapping[str, Entrant]
    best_builtin: str

    @property
    def own(self) -> str:
        """The rule that the host itself has."""
        return self.search.course.own

    def percent(self, other: str) -> list[float]:
        """By how much the loss of the best differs from another's: mean, and interval if there is one."""
        found = ratio(self.entrants[self.best.name].losses - self.entrants[other].losses)
        return [round(100 * math.expm1(x), 3) for x in (found.mean, found.low, found.high) if x is not None]

    def to_toml(self, made_by: str) -> str:
        """What is kept: see `tuned.FIELDS`."""
        s = self.search
        seeds = f"training 0:{s.training}, validation {VALIDATION[0]}:{VALIDATION[0] + s.validation}"
        fields = {
            "policy": self.best.name,
            "scenario": s.course.name,
            "digest": s.course.digest,
            "objective": s.course.objective,
            "search": f"{s.restarts} x {s.trials} trials, seed {s.seed}, {seeds}, of {', '.join(s.searched)}",
            "vs_defaults": self.percent(s.rule.name),
            "own": self.own,
            "vs_own": self.percent(self.own),
            "best_builtin": self.best_builtin,
            "vs_best_builtin": self.percent(self.best_builtin),
            "made_by": made_by,
        }
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())


class Study:
    """Losses that are known, kept in a file if there is a name; ArgumentError if it is of something else.

    known: the losses from a first seed on, by the names of rules and that seed: studies of one scenario may share them.
    """

    def __init__(self, search: Search, path: str, report: Report, known: Known | None = None) -> None:
        self._search, self._path, self._report = search, path, report
        self._known: Known = {} if known is None else known
        self._log: Log | None = None
        self.made = self.kept = 0
        if path:
            self._open()

    def _open(self) -> None:
        course, unit = self._search.course, self._search.rule.unit
        code = {*(unit.made_of or ())}.union(*(simulator(host_of(one)).made_of or () for one in course.schedulers))
        head, lines = f"ple_gym tuning 2 {course.digest} {fingerprint(sorted(code | {*sources(*JUDGING)}))}", []
        if Path(self._path).exists():
            with reading(self._path, ArgumentError, "a study", "remove it to begin anew, or name another --study"):
                text = read_text(self._path, 2**26)
                first, *lines = text[: text.rfind("\n") + 1].splitlines()  # what is torn off is run again
                if first != head:
                    raise ArgumentError("is of another scenario, or of other code")
                for one in map(_LINE.check, map(parse_table, lines)):
                    self._known[one["policy"], one["first"]] = one["losses"]
        with writing(self._path, ArgumentError):
            write_whole(self._path, "".join(f"{line}\n" for line in (head, *lines)).encode())
            self._log = Log(self._path)
        self.kept = len(lines)

    def losses(self, policy: Rule, first: int, count: int, note: str) -> Floats:
        """The losses on seeds from `first` on: what is known of them, and runs of the others."""
        s, known = self._search, self._known.get((policy.name, first), [])[:count]
        if missing := range(first + len(known), first + count):
            before = self.made + len(known)
            known = [*known, *s.course.losses(policy, missing, lambda n: self._report(before + n, note))]
            self._known[policy.name, first] = known
            if self._log:
                line = json.dumps({"policy": policy.name, "first": first, "losses": known})
                with writing(self._path, ArgumentError):
                    self._log.add(f"{line}\n".encode())
                self.kept += 1
        self.made += count
        self._report(self.made, note)
        return np.array(known)

    def close(self) -> None:
        """Write no more."""
        if self._log:
            self._log.close()


def tune(search: Search, study: Study, say: Callable[[str], None] = lambda line: None) -> Found:
    """Search, and race on the validation seeds; ModuleNotFoundError without Optuna."""
    rivals = search.course.rivals
    known = {one.name: study.losses(one, TRAINING[0], search.training, one.name) for one in rivals}
    leader = min(known, key=lambda name: float(known[name].mean()))
    say(f"best built-in rule on {search.training} training seeds: {leader}")
    racing = {one.name: Entrant(one) for one in (search.rule, *rivals)}
    for restart in range(search.restarts):
        found = _restart(search, study, restart, known[leader])
        racing[found.rule.name] = found
        told = f"{100 * math.expm1(found.training):+.1f} % against {leader}: {found.rule.name}"
        say(f"restart {restart + 1} of {search.restarts}: {told}")
    raced = [
        replace(one, losses=study.losses(one.rule, VALIDATION[0], search.validation, f"validation: {name}"))
        for name, one in racing.items()
    ]
    raced.sort(key=lambda one: float(one.losses.mean()))
    best = next(one.rule for one in raced if one.restart >= 0 or one.rule.name == search.rule.name)
    others = {one.name for one in rivals} - {search.rule.base}
    builtin = next(one.rule.name for one in raced if one.rule.name in others)
    return Found(search, best, {one.rule.name: one for one in raced}, builtin)


def _restart(search: Search, study: Study, restart: int, bar: Floats) -> Entrant:
    """The best proposal of one restart; `bar`: losses of the best built-in rule."""
    with needs("tune"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws = np.random.default_rng([search.seed, restart])
    startup, names = max(5, min(40, search.trials // 4)), list(search.searched)
    sampler = optuna.samplers.TPESampler(seed=int(draws.integers(2**31)), n_startup_trials=startup)
    proposals = optuna.create_study(sampler=sampler)
    defaults = {
        name: one.default + _is_wide(one) if one.bounds[1] else one.default for name, one in search.searched.items()
    }
    best, given = Entrant(search.rule, restart), defaults
    for turn in range(search.trials):
        if turn % 2 == 0 if turn < startup else turn % 3:  # near the defaults at first, later near the best
            near, many = (defaults, len(names) // 3 + 1) if turn < startup else (given, int(draws.integers(1, 5)))
            drawn = set(draws.permutation(names)[: many if turn or restart else 0].tolist())
            proposals.enqueue_trial({name: value for name, value in near.items() if name not in drawn})
        trial = proposals.ask()
        rule = search.rule.with_values({name: _suggest(trial, name, one) for name, one in search.searched.items()})
        sofar = "" if turn == 0 else f", best {100 * math.expm1(min(best.training, 9)):+.1f} %"
        value = _value(search, study, rule, bar, f"restart {restart + 1}, trial {turn + 1}{sofar}")
        proposals.tell(trial, value)
        if value < best.training:
            best, given = Entrant(rule, restart, value), dict(trial.params)
    return best


def _value(search: Search, study: Study, rule: Rule, bar: Floats, note: str) -> float:
    """Mean loss on the training seeds against the best built-in rule's; on a few of them if it is hopeless."""
    few = min(FIRST, search.training)
    value = float((study.losses(rule, TRAINING[0], few, note) - bar[:few]).mean())
    if value > HOPELESS:
        study.made += search.training - few
        return value
    study.made -= few
    return float((study.losses(rule, TRAINING[0], search.training, note) - bar).mean())


def _is_wide(one: Parameter) -> bool:
    """Whether it is searched on a logarithmic scale, as one more than it is, as 0 has no logarithm."""
    return isinstance(one.default, int) and one.bounds[0] >= 0 and one.bounds[1] - one.bounds[0] > WIDE


def _suggest(trial: Trial, name: str, one: Parameter) -> Any:
    low, high = one.bounds
    if one.words:
        return trial.suggest_categorical(name, one.words)
    if isinstance(one.default, float):
        return trial.suggest_float(name, low, high)
    if _is_wide(one):
        return trial.suggest_int(name, int(low) + 1, int(high) + 1, log=True) - 1
    return trial.suggest_int(name, int(low), int(high))
