"""What all learners share: seeds that never overlap, options, the folder of a training, its curve and its card."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import os
import platform
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

import ple_gym
from agents.torch_policy import TorchPolicy
from ple_gym.envs.interface import LEVELS, one_of
from ple_gym.errors import PleError
from ple_gym.files import make_folder, read_bytes, reading, seal_json, unseal_json, write_whole, writing
from ple_gym.lanes import STARTS, Lanes
from ple_gym.learned.cards import NOTHING, any_of, check_card, list_of
from ple_gym.learned.file import Network, check_temperature, encode
from ple_gym.messages import plain, shown_path
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.scenario.parameters import MAX_SEED, Kind, number, whole

#: Worlds by what they may be used for. Those that follow a training world are from 2^62 on (docs/model.md, 12.1).
TRAIN, VALIDATION, TEST = (range(k * 1_000_000, (k + 1) * 1_000_000) for k in range(3))
WORLDS_PER_RUN = 1000  # of TRAIN, so that two training seeds never share a world
LIBRARIES = ("numpy", "numba", "torch", "stable-baselines3", "sb3-contrib")
CURVE = ("steps", "simulated_s", "wall_s", "episodes", "reward", "above_ideal_percent", "validation_percent")


OPTIONS = "options of a training, format 1"  # of the folder's files, as `files.seal` names them
MAX_OPTIONS_BYTES = 2**20
REMEDY = "remove the file to begin anew, or name another --folder"
#: What a state keeps of a training, whoever learns.
COUNT, SECONDS = whole(0, MAX_SEED), number(0, 1e12)
CURVE_ROWS: Kind = list_of(list_of(any_of(number(-1e300, 1e300), NOTHING), len(CURVE), len(CURVE)), 0, 10**7)


class AgentError(PleError):
    """A training cannot begin, go on or be kept, or a command is wrong; the message says so in one line."""


@dataclass(frozen=True)
class Options:
    """What every training has."""

    scenario: str = "Storm"
    """name, id (PLE/Storm-v1), or .toml or .json file of the scenario to train on"""
    overrides: tuple[str, ...] = ()
    """parameters of the scenario to change: host.ratelimit_us=500"""
    seed: int = 0
    """of the training: weights, exploration, and the worlds 1000 * seed and on"""
    steps: int = 100_000
    """decisions to train for, of all lanes together"""
    lanes: int = 16
    """machines that are simulated side by side"""
    start: str = "first"
    """where episodes start, and validation: at a world's first decision, or in the first storm of exits (storm)"""
    information: str = "hypervisor"
    """what the policy sees: hypervisor, introspection or oracle"""
    temperature: float = 0.0
    """of the policy that is kept: 0 takes the best action always, which may let everybody spin for ever where a draw,
    as in training (1) or sharper (0.25), does not"""
    folder: str = ""
    """where the training is kept; by default runs/NAME-SCENARIO-SEED. The same command goes on where it was stopped"""
    save_every_s: float = 30.0
    """seconds between two states that a stopped training can go on from"""
    validate: int = 20
    """how often to measure the policy on validation seeds; the best one is kept"""
    validation_seeds: int = 16
    """how many of these"""
    torch_threads: int = 1
    """threads of torch"""
    quiet: bool = False
    """no progress bar and no table"""

    def load_scenario(self) -> Scenario:
        """The scenario with its overrides; start, information level and temperature are checked too.

        Raises:
            PleError: an unknown name or a wrong value.
        """
        one_of("start", self.start, STARTS)
        one_of("information level", self.information, LEVELS)
        check_temperature(self.temperature)
        for text in self.overrides:
            if "=" not in text:
                raise AgentError(f"--overrides {plain(text)}: must be NAME=VALUE")
        scenario = load(self.scenario).with_overrides(dict(text.split("=", 1) for text in self.overrides))
        if scenario.chooses_windows:
            raise AgentError("decision.window = 'agent': must be host; learners choose whom to run")
        return scenario

    def first_world(self) -> int:
        """Seed of the first lane's first world; the others follow.

        Raises:
            AgentError: a seed or a number of lanes that would leave the training worlds.
        """
        runs = len(TRAIN) // WORLDS_PER_RUN
        if not 0 <= self.seed < runs:
            raise AgentError(f"--seed {self.seed}: must be 0..{runs - 1}")
        if not 1 <= self.lanes <= WORLDS_PER_RUN:
            raise AgentError(f"--lanes {self.lanes}: must be 1..{WORLDS_PER_RUN}")
        return WORLDS_PER_RUN * self.seed


# ---------------------------------------------------------------------------------------------------------- measurement


def above_ideal(
    scenario: Scenario, policy: Network | str, seeds: Iterable[int], start: str = "first"
) -> np.ndarray[Any, Any]:
    """Return log(time / ideal time) from the start to the end of each run, float64 [n]; the kernel runs them. Once the
    simulated-time limit cuts a run off, the rest is infinite and is not run: such a policy may let everybody spin,
    which costs seconds per run.
    """
    lanes = Lanes(scenario, 1, start=start, policy=policy)
    numbers = list(seeds)
    logs = np.full(len(numbers), np.inf)
    for place, seed in enumerate(numbers):
        before = lanes.run_from_start(0, seed)
        after = lanes.totals(0)
        if not after["finished"]:
            break
        useful = after["cycles"]["useful"] - before["cycles"]["useful"]
        logs[place] = np.log((after["now"] - before["now"]) * scenario.host.pcpus / useful)
    return logs


def percent(logs: Any) -> float:
    """A mean logarithm as percent above 1."""
    return float(100 * np.expm1(np.mean(logs)))


class Validation:
    """Measures policies on validation seeds, and remembers the best one: the only selection there is.

    A policy is not measured further once a run takes 1.5 times as long as the longest under a rule. Where torch
    decides, which costs a thousand times as much, the limit is 1.5 times as many decisions as under `xen-4.8`.
    """

    def __init__(self, scenario: Scenario, seeds: int, start: str = "first") -> None:
        from ple_gym import evaluate

        self.seeds, self.start = VALIDATION[:seeds], start
        rules = ("xen-4.8", "kvm", "two-patience")
        each = [evaluate.simulate(scenario, rule, self.seeds, threads=1) for rule in rules]
        longest = min(max(run["simulated_s"] for run in runs) for runs in each)
        limit = min(1.5 * longest, scenario.limit.simulated_s)
        self.decisions = max(1, int(1.5 * max(run["decisions"] for run in each[0])))
        self.scenario = scenario.with_overrides({"limit.simulated_s": limit})

    def __call__(self, policy: Network | TorchPolicy) -> float | None:
        """Percent above the ideal, by the mean logarithm; None if a run takes too long."""
        if isinstance(policy, Network):
            logs = above_ideal(self.scenario, policy, self.seeds, self.start)
        else:
            runs = policy.simulate(self.scenario, self.seeds, self.decisions)
            logs = np.array([np.log(run["simulated_s"] / run["ideal_s"]) for run in runs if run["finished"]])
            if len(logs) < len(runs):
                return None
        return percent(logs) if np.isfinite(logs).all() else None


# --------------------------------------------------------------------------------------------------------------- folder


@dataclass
class Run:
    """The folder of a training.

    It holds options.json, the options; state.pt (or state.json), what it continues from; curve.csv and curve.png; and
    policy.npz, the result.

    Attributes:
        curve: rows of `CURVE`.
        seconds: wall time of the parts before this one.
    """

    learner: str
    options: Options
    path: Path
    curve: list[list[float | None]] = field(default_factory=list)
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, learner: str, options: Options) -> Run:
        """The folder that the options name, made if need be.

        Raises:
            AgentError: it holds another training, what it holds is damaged, or it cannot be written.
        """
        scenario = Path(options.scenario.removeprefix("PLE/")).stem
        run = cls(learner, options, Path(options.folder or f"runs/{learner}-{scenario}-{options.seed}"))
        if not str(run.path).isprintable():
            raise AgentError(f"--folder {shown_path(run.path)}: must have a name that can be printed")
        check_card(run.card(0, None), AgentError)  # rather now than when it is to be written
        meaning = json.loads(json.dumps({"learner": learner, **_meaning(options)}))
        kept = run.path / "options.json"
        if not os.path.exists(kept):
            with writing(run.path, AgentError):
                make_folder(run.path)
            run.write("options.json", seal_json(OPTIONS, meaning))
        with reading(kept, AgentError, "the options of a training", "name another --folder"):
            if unseal_json(OPTIONS, read_bytes(kept, MAX_OPTIONS_BYTES)) != meaning:
                raise AgentError("another training, with other options")
        return run

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, whole.

        Raises:
            AgentError: it cannot be written.
        """
        with writing(self.path / name, AgentError):
            write_whole(self.path / name, content)

    @property
    def policy(self) -> Path:
        """The file with the result."""
        return self.path / "policy.npz"

    @property
    def finished(self) -> bool:
        """Whether the training is over."""
        return self.policy.exists()

    def wall_s(self) -> float:
        """Seconds spent on it, all parts together."""
        return self.seconds + time.monotonic() - self.began

    def finish(self, policy: Network | TorchPolicy) -> Path:
        """Write curve, picture and, last, the policy; return its path.

        Raises:
            AgentError: one of them cannot be written. The policy is, if it can be.
        """
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([CURVE, *self.curve])
        picture = curve_picture(self.curve, f"{self.learner} on {plain(self.options.scenario)}")
        failures = []
        for name, content in (("curve.csv", buffer.getvalue().encode()), ("curve.png", picture)):
            if not content:
                continue
            try:
                self.write(name, content)
            except AgentError as error:
                failures.append(error)
        self.write(self.policy.name, encode(policy))
        if failures:
            raise AgentError(f"{failures[0]}; the policy is kept: {shown_path(self.policy)}")
        return self.policy

    def card(self, steps: int, validation: float | None) -> dict[str, Any]:
        """Return where a policy comes from, for its file."""
        versions = {"ple-gym": ple_gym.__version__}
        for name in LIBRARIES:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        simulated = [row[1] for row in self.curve if row[0] is not None and row[0] <= steps]
        return {
            "learner": self.learner,
            "scenario": self.options.scenario,
            "overrides": list(self.options.overrides),
            "information": self.options.information,
            "seed": self.options.seed,
            "train_worlds": [self.options.first_world(), self.options.first_world() + self.options.lanes],
            "steps": steps,
            "simulated_s": simulated[-1] if simulated else 0.0,
            "wall_s": round(self.wall_s(), 1),
            "validation": {
                "seeds": [VALIDATION[0], VALIDATION[0] + self.options.validation_seeds],
                "above_ideal_percent": validation,
            },
            "options": _meaning(self.options),
            "versions": versions | {"python": platform.python_version()},
            "command": command_of(self.learner, self.options),
        }


def command_of(learner: str, options: Options) -> str:
    """The command that trains with these options."""
    words = ["python", "-m", "agents", "train", learner]
    for option in fields(options):
        value = getattr(options, option.name)
        if value == option.default or option.name not in _meaning(options):
            continue
        name = option.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *(value if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)


def _meaning(options: Options) -> dict[str, Any]:
    """The options that make a difference to the result."""
    return {name: value for name, value in asdict(options).items() if name not in ("folder", "save_every_s", "quiet")}


def curve_picture(curve: Sequence[Sequence[float | None]], title: str) -> bytes:
    """Makespan above the ideal, in training and on validation seeds, against steps, simulated and wall time, as PNG;
    nothing without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return b""
    table = np.array(curve, dtype=float).reshape(-1, len(CURVE))
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, column, name in zip(axes, (0, 1, 2), ("decisions", "simulated time, s", "wall time, s"), strict=True):
        for values, label, style in ((table[:, 5], "training episodes", "-"), (table[:, 6], "validation seeds", "o--")):
            known = np.isfinite(values)
            axis.plot(table[known, column], values[known], style, label=label, markersize=4)
        axis.set(xlabel=name, xlim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("makespan above ideal, %")
    axes[0].legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
