"""The cross-entropy method on a linear scorer: no gradients, no torch, and every run inside the kernel.

A policy is a weighted sum of a vCPU's features, another of the host's for deferring (`ple_gym/learned/search.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents import common
from agents.common import AgentError, Run, Validation, percent
from ple_gym.files import read_bytes, reading, seal_json, unseal_json
from ple_gym.lanes import Lanes
from ple_gym.learned.cards import list_of
from ple_gym.learned.search import ELITE, NOISE, POPULATION, Distribution, Form
from ple_gym.progress import bar
from ple_gym.scenario import Scenario
from ple_gym.scenario.parameters import check, number

NAME = "cem"
STATE = "state of cem, format 1"
MAX_STATE_BYTES = 2**26
TOLERANCE = 0.1  # share of --steps by which a generation may go beyond them


@dataclass(frozen=True)
class Options(common.Options):
    """The cross-entropy method on a linear scorer. --steps counts decisions, as everywhere; --lanes is not used."""

    steps: int = 5_000_000
    """decisions to train for, of all runs together; a generation is finished if that takes no more than a tenth above
    them, and is given up where it would take more. A run is never cut short for it"""
    population: int = POPULATION
    """policies of a generation"""
    elite: int = ELITE
    """of these, how many the next one is made from"""
    worlds: int = 4
    """runs of each policy, on the same worlds, which change from generation to generation"""
    limit_ideals: float = 2.0
    """runs are cut off after so many times the ideal makespan; a cut run counts by the work it has not done"""
    noise: float = NOISE
    """added to every deviation, falling to nothing at the end, so that the search does not settle too early"""
    threads: int = 1
    """runs at the same time"""


def form_of(options: Options, scenario: Scenario) -> Form:
    """A linear scorer; a bias of all vCPUs would do what that of deferring does."""
    return Form(scenario, "linear", 0, options.information, options.temperature, still=("vcpu_bias",))


class Search:
    """The distribution, and what it is fitted to."""

    def __init__(self, options: Options) -> None:
        self.options = options
        scenario = options.load_scenario()
        lanes = Lanes(scenario, 1, policy="host")
        lanes.run(0, options.first_world())
        totals = lanes.totals(0)
        self.ideal = totals["cycles"]["useful"] / scenario.host.pcpus
        limit = min(options.limit_ideals * self.ideal / scenario.host.tsc_hz, scenario.limit.simulated_s)
        self.scenario = scenario.with_overrides({"limit.simulated_s": limit})
        self.form = form_of(options, self.scenario)
        deviation = self.form.deviation()
        self.around = Distribution(np.zeros_like(deviation), deviation)
        self.generation = self.decisions = 0
        self.cycles = 0.0

    def cost(self, theta: npt.NDArray[np.float64], seeds: range, allowance: float) -> tuple[float, int, int]:
        """Return mean log(makespan / ideal) on some worlds, decisions and simulated cycles. A run that was cut off
        counts as if it had finished the rest of its work at the same pace, in ten times the limit at most.

        After more decisions than the allowance no further run is begun.
        """
        lanes = Lanes(self.scenario, 1, start=self.options.start, policy=self.form.network(theta))
        logs, decisions, cycles = [], 0, 0
        for seed in seeds:
            before = lanes.run_from_start(0, seed)
            after = lanes.totals(0)
            took = after["now"] - before["now"]
            done = (after["cycles"]["useful"] - before["cycles"]["useful"]) / self.scenario.host.pcpus
            logs.append(np.log(took / max(done, took / (10 * self.options.limit_ideals))))
            # One at least, the one at the start: else a search in which none follows would never end.
            decisions, cycles = decisions + max(1, after["exits"] - before["exits"]), cycles + took
            if decisions > allowance:
                break
        return float(np.mean(logs)), decisions, cycles

    def advance(self) -> list[float]:
        """One generation; the costs of its elite, or none if it had to be given up, which ends the search."""
        options = self.options
        rng = np.random.default_rng((options.seed, self.generation))
        first = options.first_world() + self.generation * options.worlds % common.WORLDS_PER_RUN
        first = min(first, options.first_world() + common.WORLDS_PER_RUN - options.worlds)
        thetas = self.around.draw(rng, options.population)
        worlds = range(first, first + options.worlds)
        allowance = (1 + TOLERANCE) * options.steps - self.decisions
        results, spent, place = [], 0, 0
        with ThreadPoolExecutor(options.threads) as pool:
            while place < len(thetas) and spent <= allowance:
                batch = thetas[place : place + options.threads]
                for result in pool.map(partial(self.cost, seeds=worlds, allowance=allowance), batch):
                    if spent <= allowance:  # so that the number of threads makes no difference
                        results.append(result)
                        spent += result[1]
                place += len(batch)
        self.decisions += spent
        self.cycles += sum(cycles for _, _, cycles in results)
        if spent > allowance:
            return []
        self.generation += 1
        left = max(0.0, 1 - self.decisions / options.steps)
        costs = [cost for cost, _, _ in results]
        return [costs[k] for k in self.around.fit(thetas, costs, options.elite, options.noise * left)]


def train(options: Options) -> Path:
    """Search; return the path of the policy."""
    if not 1 <= options.elite <= options.population:
        raise AgentError(f"--elite {options.elite}: must be 1..population ({options.population})")
    run = Run.open(NAME, options)
    if run.finished:
        return run.policy
    search, validation = Search(options), Validation(options.load_scenario(), options.validation_seeds, options.start)
    state = run.path / "state.json"
    if state.exists():
        _load(state, search, run)
    with bar("decisions", options.steps, quiet=options.quiet) as report:
        while search.decisions < options.steps:
            costs = search.advance()
            done = [search.decisions, search.cycles / search.scenario.host.tsc_hz, round(run.wall_s(), 2)]
            episodes, above = (options.population * options.worlds, percent(costs)) if costs else (None, None)
            run.curve.append([*done, episodes, None, above, None])
            _save(search, run)
            report(min(search.decisions, options.steps))
    found = search.form.network(search.around.mean)
    run.curve[-1][-1] = score = validation(found)
    card = run.card(search.decisions, score)
    return run.finish(replace(found, card=card))


def _save(search: Search, run: Run) -> None:
    """Write all that the search needs to go on."""
    kept: dict[str, Any] = {name: values.tolist() for name, values in vars(search.around).items()}
    kept |= {"generation": search.generation}
    kept |= {"decisions": search.decisions, "cycles": search.cycles, "curve": run.curve, "seconds": run.wall_s()}
    run.write("state.json", seal_json(STATE, kept))


def _load(path: Path, search: Search, run: Run) -> None:
    """Go on from what `_save` wrote.

    Raises:
        AgentError: the file is damaged, or of another training.
    """
    length = len(search.around.mean)
    kinds = {
        "mean": list_of(number(-1e30, 1e30), length, length),
        "deviation": list_of(number(0, 1e30), length, length),
        "generation": common.COUNT,
        "decisions": common.COUNT,
        "cycles": number(0, 1e30),
        "curve": common.CURVE_ROWS,
        "seconds": common.SECONDS,
    }
    with reading(path, AgentError, "the state of this training", common.REMEDY):
        kept = unseal_json(STATE, read_bytes(path, MAX_STATE_BYTES))
        for name, kind in kinds.items():
            check(name, kind, kept[name])
    search.around = Distribution(np.array(kept["mean"]), np.array(kept["deviation"]))
    search.generation, search.decisions, search.cycles = kept["generation"], kept["decisions"], kept["cycles"]
    run.curve, run.seconds = kept["curve"], kept["seconds"]
