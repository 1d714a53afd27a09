"""The calibration: fit the free parameters of `Paper32` to what the paper says of Figure 2, with Optuna.

Two explanations of the delay of storms are fitted apart, each with what is free under it:

* `fitted`: a shared host. Other busy vCPUs take over the time in which the benchmark stalls. The cost of an exit is
  not free: it is what gives Figure 3 its 484.
* `dear-exits`: the benchmark is alone, and an exit costs more than Figure 3 says.

A study is an SQLite file in the scratch folder. Stopped, it goes on where it was, and proposes what it would have
proposed (the sampler's seed is the trial's number). Only seeds of `seeds.CALIBRATION` are used.

Not free, because they made no visible difference in ablations: blocking waits (none), cache refill, switch cost.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from experiments.lab import Table, TableError, seeds, tasks, world
from experiments.lab.digests import digest_of
from experiments.lab.executors import Where, run_batches
from experiments.paper import figure2
from ple_gym.files import make_folder, reading, write_whole, writing

if TYPE_CHECKING:
    from optuna import Study, Trial

MEAN_HOLD = 702  # cycles, of the scenarios' lock hold table
TRIALS = 50  # of each explanation
RUNS, FIRST_RUNS = 800, 80  # of a trial; a hopeless one stops after the first
HOPELESS = 10.0  # times the loss at which a trial that stops early is known to be bad
LEVEL_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999)


@dataclass(frozen=True)
class Explanation:
    """One explanation of the delay.

    Attributes:
        world: whose parameters are fitted.
        description: of the profile.
        free: name -> (low, high, on a logarithmic scale?); whole numbers if the bounds are.
        starts: where the search begins, sets of the earlier study.
        judged_by_figure3: does an exit have to give 460 to 484 per dispatch?
    """

    world: str
    description: str
    free: Mapping[str, tuple[float, float, bool]]
    starts: tuple[Mapping[str, float], ...]
    judged_by_figure3: bool


_COMMON = {
    "compute_cycles": (70_000, 220_000, True),
    "revisit_ms": (20.0, 120.0, True),  # CPU time of a vCPU between two acquisitions of one given lock
    "duty": (2e-4, 3e-3, True),  # share of the benchmark's CPU time in which a vCPU holds a shared lock
    "noise_hz": (1, 10, False),
    "burst_us": (1000, 5000, True),
    "noise_sigma": (1.0, 2.2, False),  # the rate of a run is exp(sigma * normal) times the usual one
    "cap_permille": (60, 250, False),
}
A24 = {
    "compute_cycles": 110_000, "revisit_ms": 56.2, "duty": 7.0e-4, "noise_hz": 5, "burst_us": 2300, "noise_sigma": 1.8,
    "cap_permille": 180, "neighbours": 8,
}  # fmt: skip
A22 = {
    "compute_cycles": 101_000, "revisit_ms": 52.1, "duty": 6.8e-4, "noise_hz": 4, "burst_us": 3500, "noise_sigma": 1.6,
    "cap_permille": 120, "neighbours": 10,
}  # fmt: skip
B = {
    "compute_cycles": 159_500, "revisit_ms": 48.6, "duty": 4.6e-4, "noise_hz": 5, "burst_us": 2300, "noise_sigma": 1.6,
    "cap_permille": 200, "exit_cycles": 7000,
}  # fmt: skip
C = {**B, "revisit_ms": 72.4, "duty": 7.3e-4, "exit_cycles": 1420}

EXPLANATIONS: Mapping[str, Explanation] = {
    "fitted": Explanation(
        "Paper32",
        "Paper32 as fitted to Figure 2: a shared host",
        _COMMON | {"neighbours": (3, 14, False)},
        (A24, A22),
        True,
    ),
    "dear-exits": Explanation(
        "Paper32Alone",
        "Paper32 as fitted to Figure 2: dear exits",
        _COMMON | {"exit_cycles": (1420, 10_000, True)},
        (B, C),
        False,
    ),
}


def level(sigma: float) -> str:
    """The noise level exp(sigma * z) of a normal z, per mille; the quantiles at 0.0001 and 0.9999 are its ends."""
    points = {0.0: 0.0001, **{u: u for u in LEVEL_QUANTILES}, 1.0: 0.9999}
    values = {u: max(1, round(1000 * math.exp(sigma * NormalDist().inv_cdf(at)))) for u, at in points.items()}
    return "knots " + " ".join(f"{u:g}:{value}" for u, value in values.items())


def overrides(parameters: Mapping[str, float]) -> dict[str, object]:
    """The scenario parameters that a set of free parameters stands for; `hz` of the paper's machine."""
    compute, duty = int(parameters["compute_cycles"]), parameters["duty"]
    revisit = parameters["revisit_ms"] * figure2.HZ / 1000
    changes: dict[str, object] = {
        "guest.compute": f"exponential {compute}",
        "guest.lock_probability": round(min(1.0, duty * compute / MEAN_HOLD), 6),
        "guest.locks": max(1, round(revisit * duty / MEAN_HOLD)),
        "noise.rate_hz": int(parameters["noise_hz"]),
        "noise.burst_us": int(parameters["burst_us"]),
        "noise.level": level(parameters["noise_sigma"]),
        "noise.cap_permille": int(parameters["cap_permille"]),
    }
    if "neighbours" in parameters:
        busy = int(parameters["neighbours"])
        changes |= {"guest.vcpus": 32 - busy, "neighbours.0.vcpus": busy}
    if "exit_cycles" in parameters:
        changes["cost.exit"] = int(parameters["exit_cycles"])
    return changes


def misses(n: Mapping[str, float], judged_by_figure3: bool) -> dict[str, float]:
    """How far a scatter's statistics are from each statement of the paper, in tolerances; 0 is within.

    The most of 10,000 runs cannot be seen in 800. In the built-in scenario it is 1.43 times the mean of the top 1 %
    (340 and 238 thousand), so that 250,000 stands for a mean of 175,000.
    """

    def outside(value: float, low: float, high: float) -> float:
        return max(0.0, low - value, value - high)

    found = {
        "most runs take about 1.5 s": abs(n["mode"] - 1.5) / 0.03,
        "most of the runs": outside(n["near_mode"], 80, 100) / 5,
        "up to about 250,000 PLE": abs(math.log(max(1.0, n["exits_of_top"]) / 175_000)) / 0.15,
        "many PLE: 1.8 s and more": outside(n["delayed_of_top"], 0.8, 1) / 0.1,
        "many PLE: less than 2 s": outside(n["above_2s_of_top"], 0, 0.1) / 0.1,
        "some slow runs with few PLE": outside(n["slow_few"], 0.5, 5) / 1,
        "PLE and time are correlated": outside(n["spearman"], 0.3, 1) / 0.1,
    }
    if judged_by_figure3:
        found["460 to 484 PLE per dispatch"] = outside(n["dispatch_mode"], 460, 484.5) / 20
    return {name: value if math.isfinite(value) else HOPELESS for name, value in found.items()}


def loss(n: Mapping[str, float], judged_by_figure3: bool) -> float:
    """Sum of the squared misses, each at most `HOPELESS`."""
    return sum(min(HOPELESS, miss) ** 2 for miss in misses(n, judged_by_figure3).values())


def simulate(explanation: Explanation, parameters: Mapping[str, float], where: Where, runs: int) -> dict[str, float]:
    """Statistics of a parameter set on the first calibration seeds."""
    wanted = tasks(explanation.world, figure2.POLICY, seeds.CALIBRATION[:runs], overrides(parameters))
    batches = [wanted[i : i + 20] for i in range(0, runs, 20)]
    rows = {}
    for number, batch in run_batches(figure2.measure, figure2.COLUMNS, batches, where):
        rows.update(zip(batches[number], batch, strict=True))
    return figure2.statistics(Table.of(figure2.COLUMNS, {task: rows[task] for task in wanted}))


def fit(trials: int, runs: int, where: Where, scratch: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Search `trials` parameter sets per explanation; write the best as profiles, and all trials as a table."""
    studies = {name: _study(name, runs, scratch) for name in EXPLANATIONS}
    for name, explanation in EXPLANATIONS.items():
        while (number := len(_complete(studies[name]))) < trials:
            value = _trial(studies[name], number, explanation, where, runs)
            say(f"{name}: trial {number + 1} of {trials}, loss {value:.1f}, best {studies[name].best_value:.1f}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, study in studies.items():
        explanation = EXPLANATIONS[name]
        best = min(_complete(study)[:trials], key=lambda trial: trial.value)
        scenario = world(explanation.world, "").with_overrides(
            {"name": name, "description": explanation.description, **overrides(best.params)}
        )
        write_whole(folder / f"{name}.toml", scenario.to_toml().encode())
    write_whole(folder / "trials.csv", _trials(studies, trials).encode())


def _study(name: str, runs: int, scratch: Path) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = scratch / "fit.db"
    with writing(scratch, TableError):
        make_folder(scratch)
    with reading(kept, TableError, "the trials of a calibration", "remove it to begin anew"):
        study = optuna.create_study(
            study_name=f"{name} {_what_was_tried(runs)}",
            storage=f"sqlite:///{kept}",
            direction="minimize",
            load_if_exists=True,
        )
        _complete(study)
        return study


def _what_was_tried(runs: int) -> str:
    """Names everything that a trial's loss depends on, so that no study goes on with other code."""
    return digest_of(Path(__file__), (), runs)


def _complete(study: Study) -> list[Any]:
    """Finished trials. One that was interrupted stays unfinished for ever and is not counted."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _trial(study: Study, number: int, explanation: Explanation, where: Where, runs: int) -> float:
    """Try one parameter set and return its loss."""
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=15, multivariate=True)
    if number < len(explanation.starts):
        study.enqueue_trial(dict(explanation.starts[number]))
    trial = study.ask()
    parameters = {name: _suggest(trial, name, *bounds) for name, bounds in explanation.free.items()}
    n = simulate(explanation, parameters, where, min(FIRST_RUNS, runs))
    value = loss(n, explanation.judged_by_figure3)
    if n["most"] < 2e6 and runs > FIRST_RUNS:
        n = simulate(explanation, parameters, where, runs)
        value = loss(n, explanation.judged_by_figure3)
    study.tell(trial, value)
    return value


def _suggest(trial: Trial, name: str, low: float, high: float, logarithmic: bool) -> float:
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=logarithmic)
    return trial.suggest_float(name, low, high, log=logarithmic)


def _trials(studies: Mapping[str, Study], trials: int) -> str:
    """All trials as CSV, each explanation's best first."""
    names = list(dict.fromkeys(name for one in EXPLANATIONS.values() for name in one.free))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["explanation", "trial", "loss", *names])
    for explanation, study in studies.items():
        complete = list(enumerate(_complete(study)[:trials]))
        for number, trial in sorted(complete, key=lambda pair: pair[1].value):
            cells = [f"{trial.params[name]:.6g}" if name in trial.params else "" for name in names]
            writer.writerow([explanation, number, f"{trial.value:.3f}", *cells])
    return text.getvalue()
