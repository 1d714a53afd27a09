"""The search for the parameters of a rule: `ple-gym tune`.

Several restarts propose values: changes of the defaults at first, then in turns what Optuna's TPE makes of the results,
and small changes of the best so far. Each proposal runs on the same training seeds. The best of each restart, the rule
as it is and every built-in rule then run on the same validation seeds, which no proposal has seen, and which are none
of those that results are reported on.

Nothing is random but what the restarts' seeds draw, and what has been run is kept in a file: a search that was
interrupted goes on from there, proposes the same again, and ends with the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ple_gym.drive import simulator
from ple_gym.errors import ArgumentError, PolicyError
from ple_gym.evaluate.comparison import Run
from ple_gym.evaluate.runs import simulate, suiting
from ple_gym.evaluate.statistics import Floats, Ratio, ratio
from ple_gym.extras import needs
from ple_gym.files import Log, parse_table, read_bytes, reading, write_whole, writing
from ple_gym.learned.cards import TEXT, list_of, record
from ple_gym.messages import plain
from ple_gym.progress import Report
from ple_gym.rules import RULES, Rule
from ple_gym.rules.registry import Parameter
from ple_gym.scenario.model import Scenario
from ple_gym.scenario.parameters import MAX_SEED, number, whole
from ple_gym.sim.seam import host_of
from ple_gym.sim.units import fingerprint, sources
from ple_gym.tuned import Tuned

if TYPE_CHECKING:
    from optuna import Trial

#: As learners have them (`agents.common`); from 2,000,000 on are those that results are reported on.
TRAINING, VALIDATION = range(1_000_000), range(1_000_000, 2_000_000)
ENOUGH = {"restarts": 4, "training": 28, "validation": 128}  # with less, winners of searches did not survive
FIRST, HOPELESS = 7, math.log(1.25)  # seeds after which a proposal ends that is so far behind the best built-in rule
WIDE = 100  # a range that is searched on a logarithmic scale
MAX_BYTES = 2**26
REMEDY = "remove it to begin anew, or name another --study"
_LINE = record({"policy": TEXT, "first": whole(0, MAX_SEED), "losses": list_of(number(-1e6, 1e6), 1, 10**6)})


@dataclass(frozen=True)
class Search:
    """What is asked for.

    Attributes:
        scenario: the world.
        rule: whose parameters are searched, but for those that have been given values.
        restarts: searches that begin anew, each with a sampler's seed of its own; `trials`: proposals of each.
        training, validation: numbers of seeds.
        seed: of all samplers.
        threads: workers; one per CPU if None.

    Raises:
        PolicyError: the rule has nothing to search, or is none.
        ArgumentError: a number is out of its range.
    """

    scenario: Scenario
    rule: Rule
    restarts: int = ENOUGH["restarts"]
    trials: int = 100
    training: int = ENOUGH["training"]
    validation: int = ENOUGH["validation"]
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        ranges = {"restarts": 1000, "trials": 10**6, "training": len(TRAINING), "validation": len(VALIDATION)}
        for name, most in {**ranges, "seed": MAX_SEED}.items():
            value, least = getattr(self, name), 2 if name == "validation" else int(name != "seed")
            if not least <= value <= most:
                raise ArgumentError(f"{name} = {value}: must be {least}..{most}")
        if not self.searched:
            why = "all its parameters have been given values" if self.rule.parameters else "it has no parameters"
            raise PolicyError(f"{plain(self.rule.name)}: there is nothing to search: {why}")
        self.rule.world(self.scenario)

    @property
    def searched(self) -> dict[str, Parameter]:
        """The parameters without given values."""
        return {name: one for name, one in self.rule.parameters.items() if name not in self.rule.values}

    @property
    def weak(self) -> list[str]:
        """What there is too little of, for a result that lasts."""
        return [f"{name} < {enough}" for name, enough in ENOUGH.items() if getattr(self, name) < enough]

    @property
    def runs(self) -> int:
        """How many runs are made at most."""
        raced, each = len([n for n in suiting(self.scenario) if not RULES[n].privileged]), self.restarts * self.trials
        return (raced + each) * self.training + (raced + self.restarts + 1) * self.validation


@dataclass(frozen=True)
class Entrant:
    """Who takes part in the race.

    Attributes:
        rule: with its values.
        restart: which one has found it; -1: none.
        training: its mean log-loss against the best built-in rule's, on training seeds.
        losses: log-losses on the validation seeds.
    """

    rule: Rule
    restart: int = -1
    training: float = math.inf
    losses: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        search: what was asked for.
        best: the rule with the values that are best on the validation seeds, its defaults among them.
        entrants: all that ran there, by name, the best first.
        best_builtin: the best built-in rule that is another one and knows no more than a hypervisor.
    """

    search: Search
    best: Rule
    entrants: Mapping[str, Entrant]
    best_builtin: str

    def percent(self, other: str) -> Ratio:
        """How much the loss of the best differs from another's, percent, paired by seed."""
        found = ratio(self.entrants[self.best.name].losses - self.entrants[other].losses)
        mean, low, high = (100 * math.expm1(found.mean if x is None else x) for x in (None, found.low, found.high))
        return Ratio(mean, low, high, found.few, found.differing)

    def tuned(self, made_by: Mapping[str, Any]) -> Tuned:
        """What is kept."""
        search = self.search
        against = {"defaults": search.rule.name, "host": "host", "best_builtin": self.best_builtin}
        numbers = {f"{what}_percent": self.percent(name) for what, name in against.items()}
        return Tuned(
            search.rule.base,
            {name: self.best.values.get(name, one.default) for name, one in self.best.parameters.items()},
            {
                "scenario": search.scenario.name,
                "digest": search.scenario.digest,
                "search": {
                    "searched": list(search.searched),
                    **{name: getattr(search, name) for name in ("restarts", "trials", "seed")},
                    "training_seeds": [TRAINING[0], TRAINING[0] + search.training],
                    "validation_seeds": [VALIDATION[0], VALIDATION[0] + search.validation],
                },
                "validation": {
                    "objective": objective(search.scenario),
                    "best_builtin": self.best_builtin,
                    **{
                        name: [round(x, 3) for x in (one.mean, one.low, one.high) if x is not None]
                        for name, one in numbers.items()
                    },
                },
                "made_by": {name: str(value) for name, value in made_by.items() if name != "scenarios"},
            },
        )


def objective(scenario: Scenario) -> str:
    """What is made small, in words."""
    return "1 / throughput, geometric mean over VMs" if scenario.endless else "makespan"


def losses_of(scenario: Scenario, runs: Sequence[Run]) -> list[float]:
    """Of each run the logarithm of what is made small."""
    if not scenario.endless:
        return [math.log(run["simulated_s"]) for run in runs]
    return [-float(np.mean([math.log(max(1e-3, vm["transactions_per_s"])) for vm in run["vm"]])) for run in runs]


class Study:
    """Runs that have been made, kept in a file if there is a name: lines of JSON, a seed's loss each.

    Raises:
        ArgumentError: the file cannot be read or written, or is of something else.
    """

    def __init__(self, search: Search, path: str, report: Report) -> None:
        self._search, self._path, self._report = search, path, report
        self._known: dict[tuple[str, int], list[float]] = {}
        self.made = 0
        self.kept = 0
        self._log: Log | None = None
        if path:
            self._open(Path(path))

    def _head(self) -> dict[str, str]:
        """What losses depend on, besides policy and seed."""
        scenario, unit = self._search.scenario, self._search.rule.unit
        code = [*(simulator(host_of(scenario.host.scheduler)).made_of or ()), *(unit.made_of or ())]
        code += sources("rules/*.py")  # of those that it races with
        return {"format": "ple_gym tuning 1", "scenario": scenario.digest, "code": fingerprint(sorted(set(code)))}

    def _open(self, path: Path) -> None:
        head, lines = json.dumps(self._head()), []
        if path.exists():
            with reading(path, ArgumentError, "a study of ple-gym tune", REMEDY):
                text = read_bytes(path, MAX_BYTES).decode()
                first, *lines = text[: text.rfind("\n") + 1].splitlines()  # what is torn off is run again
                if first != head:
                    raise ArgumentError("is of another scenario, or of other code")
                for line in lines:
                    one = _LINE.check(parse_table(line))
                    self._known[one["policy"], one["first"]] = one["losses"]
        with writing(path, ArgumentError):
            write_whole(path, "".join(f"{line}\n" for line in (head, *lines)).encode())
            self._log = Log(path)
        self.kept = len(lines)

    def losses(self, policy: Rule, first: int, count: int, note: str) -> Floats:
        """The losses on seeds from `first` on: what is known of them, and runs of the others."""
        known = self._known.get((policy.name, first), [])[:count]
        if missing := range(first + len(known), first + count):
            before = self.made + len(known)
            runs = simulate(
                self._search.scenario, policy, missing, None, lambda done: self._report(before + done, note),
                self._search.threads,
            )  # fmt: skip
            known = [*known, *losses_of(self._search.scenario, runs)]
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
    """Search, and race on the validation seeds.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
    """
    baselines = [RULES[name] for name in suiting(search.scenario) if not RULES[name].privileged]
    known = {one.name: study.losses(one, TRAINING[0], search.training, one.name) for one in baselines}
    leader = min(known, key=lambda name: float(known[name].mean()))
    say(f"best built-in rule on {search.training} training seeds: {leader}")
    racing = {one.name: Entrant(one) for one in (search.rule, *baselines)}
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
    best = next(one for one in raced if one.restart >= 0 or one.rule.name == search.rule.name)
    others = [one.name for one in baselines if one.name != search.rule.base]
    builtin = next(one.rule.name for one in raced if one.rule.name in others)
    return Found(search, best.rule, {one.rule.name: one for one in raced}, builtin)


def _restart(search: Search, study: Study, restart: int, bar: Floats) -> Entrant:
    """The best proposal of one restart; `bar`: losses of the best built-in rule."""
    with needs("tune"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws = np.random.default_rng([search.seed, restart])
    startup = max(5, min(25, search.trials // 4))
    sampler = optuna.samplers.TPESampler(seed=int(draws.integers(2**31)), n_startup_trials=startup)
    proposals = optuna.create_study(sampler=sampler)
    defaults = {name: _inner(one, one.default) for name, one in search.searched.items()}
    best, given = Entrant(search.rule, restart=restart), defaults
    for turn in range(search.trials):
        if turn < startup:
            many = max(1, len(defaults) // 3) if turn or restart else 0
            proposals.enqueue_trial(defaults | _changes(search, draws, many))
        elif turn % 2:
            proposals.enqueue_trial(given | _changes(search, draws, int(draws.integers(1, 4))))
        trial = proposals.ask()
        rule = search.rule.with_values({name: _suggest(trial, name, one) for name, one in search.searched.items()})
        sofar = "" if turn == 0 else f", best {100 * math.expm1(min(best.training, 9)):+.1f} %"
        value = _value(search, study, rule, bar, f"restart {restart + 1}, trial {turn + 1}{sofar}")
        proposals.tell(trial, value)
        if value < best.training:
            best, given = Entrant(rule, restart, value), dict(trial.params)
    return best


def _changes(search: Search, draws: np.random.Generator, many: int) -> dict[str, Any]:
    """Other values of so many parameters: of a rule with 18, random values of all of them are seldom any good."""
    names = draws.choice(list(search.searched), min(len(search.searched), many), replace=False)
    return {name: _drawn(search.searched[name], draws) for name in map(str, names)}


def _drawn(one: Parameter, draws: np.random.Generator) -> Any:
    if one.words:
        return str(draws.choice(one.words))
    low, high = one.bounds
    if isinstance(one.default, float):
        return float(draws.uniform(low, high))
    if _is_wide(one):
        return min(int(high) + 1, int(math.exp(draws.uniform(math.log(low + 1), math.log(high + 2)))))
    return int(draws.integers(int(low), int(high) + 1))


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
    """Whether a whole number from 0 on, or a number above it, is searched on a logarithmic scale."""
    low, high = one.bounds
    return high - low > WIDE and low >= 0


def _inner(one: Parameter, value: Any) -> Any:
    """A value as the sampler has it: 0 has no logarithm."""
    return value + 1 if isinstance(one.default, int) and _is_wide(one) else value


def _suggest(trial: Trial, name: str, one: Parameter) -> Any:
    if one.words:
        return trial.suggest_categorical(name, one.words)
    low, high = one.bounds
    if isinstance(one.default, float):
        return trial.suggest_float(name, low, high, log=low > 0 and high / low > WIDE)
    if _is_wide(one):
        return trial.suggest_int(name, int(low) + 1, int(high) + 1, log=True) - 1
    return trial.suggest_int(name, int(low), int(high))
