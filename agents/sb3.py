"""Training with Stable-Baselines3, from options to a file: progress, TensorBoard, a state to go on from, a policy.

A learner's file says what is learned and how; this one does what is the same for all of them.
"""

from __future__ import annotations

import importlib.util
import io
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from torch import nn

from agents.common import COUNT, CURVE_ROWS, REMEDY, SECONDS, AgentError, Options, Run, Validation, percent
from agents.torch_policy import KINDS, TorchPolicy
from ple_gym.adapters import make_sb3
from ple_gym.adapters.sb3 import PleVecEnv
from ple_gym.files import check_archive, read_bytes, reading, seal, unseal, writing
from ple_gym.learned.cards import NOTHING, any_of, check_card, list_of, record
from ple_gym.learned.file import Network, encode
from ple_gym.progress import bar
from ple_gym.scenario.parameters import FLAG, check, number, whole

STATE = "state of a training, format 1"
MAX_ARRAYS = 10_000
_WORD = whole(0, 2**32 - 1)
_ENDED = record({"reward": number(-1e30, 1e30), "finished": FLAG, "simulated_s": SECONDS, "ideal_s": SECONDS})

if importlib.util.find_spec("tensorboard") is None:  # SB3 would fail on an assertion, once it has begun
    raise ModuleNotFoundError("tensorboard is not installed", name="tensorboard")

PolicyOf = Callable[[Any], Network | TorchPolicy]


def make_envs(options: Options, **more: Any) -> PleVecEnv:
    """The lanes that the options ask for, in their training worlds from the next reset on."""
    torch.set_num_threads(options.torch_threads)
    given = {"information": options.information, "start": options.start, "threads": 1, **more}
    return make_sb3(options.load_scenario(), options.lanes, **given)


def train(
    learner: str, options: Options, model: BaseAlgorithm, policy_of: PolicyOf, training: type[Training] | None = None
) -> Path:
    """Train a model, or continue a training that was stopped; return the path of the policy.

    Args:
        learner: name of the learner.
        options: what was asked for.
        model: freshly made from the options, with lanes of `make_envs`.
        policy_of: what is kept of a model; its card is filled in here.
        training: `Training`, or one that does more.
    """
    run = Run.open(learner, options)
    if run.finished:
        return run.policy
    return (training or Training)(run, model, policy_of).run_to_the_end()


class Training(BaseCallback):
    """One training: a callback of SB3 that writes down what happens."""

    def __init__(self, run: Run, model: BaseAlgorithm, policy_of: PolicyOf) -> None:
        super().__init__()
        self.run, self.learning, self.policy_of = run, model, policy_of
        self.options = run.options
        if self.options.start != "first" and isinstance(policy_of(model), TorchPolicy):
            raise AgentError(
                f"--start {self.options.start}: must be first, for {run.learner} is validated on whole runs"
            )
        self.envs: PleVecEnv = model.get_env()  # type: ignore[assignment]
        self.hz = self.envs.envs.scenario.host.tsc_hz
        encode(policy_of(model))  # that it is not too large, rather now than at the end
        self.validation = Validation(self.envs.envs.scenario, self.options.validation_seeds, self.options.start)
        self.best: Network | TorchPolicy | None = None
        self.cycles = 0
        self.ended: list[dict[str, Any]] = []  # episodes since the last row of the curve
        self.row_at = 0  # steps at the last row of the curve
        self.validated = 0  # how often
        self.saved_at = time.monotonic()

    def run_to_the_end(self) -> Path:
        """Learn, and write the result.

        Raises:
            AgentError: a state is damaged, or a file cannot be written.
        """
        with _naming_events(self.run.path):
            self._learn()
        assert self.best is not None, "the last row of the curve is validated"
        return self.run.finish(self.best)

    def _learn(self) -> None:
        self.envs.seed(self.options.first_world())  # SB3 has put its own seed there
        self.learning.set_logger(configure(str(self.run.path), ["tensorboard"]))
        state = self.run.path / "state.pt"
        if state.exists():
            self.load(state)
        else:
            self.begin()
        remaining = self.options.steps - self.learning.num_timesteps
        with bar("decisions", self.options.steps, quiet=self.options.quiet) as self.report:
            if remaining > 0:
                self.learning.learn(remaining, callback=self, reset_num_timesteps=False)
            self.write_row(validate=True)
        self.learning.logger.close()

    def begin(self) -> None:
        """What comes before the first decision: nothing."""

    # -------------------------------------------------------------------------------------------- callbacks of SB3

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            self.cycles += info["elapsed_cycles"]
            if "ple_episode" in info:
                self.ended.append({**info["ple_episode"], "reward": info["episode"]["r"]})
        return True

    def _on_rollout_start(self) -> None:
        """Between two updates: everything is in weights, optimiser, generators and lanes."""
        steps, every = self.learning.num_timesteps, self.options.steps // 50
        if steps - self.row_at >= every:
            due = steps * self.options.validate >= (self.validated + 1) * self.options.steps
            self.write_row(validate=due and steps < self.options.steps)
        if time.monotonic() - self.saved_at >= self.options.save_every_s:
            self.save()
            self.saved_at = time.monotonic()

    # --------------------------------------------------------------------------------------------------- the curve

    def write_row(self, validate: bool) -> None:
        """Add a row to the curve, and measure the policy if it is time to."""
        steps = self.learning.num_timesteps
        score = None
        if validate:
            policy = replace(self.policy_of(self.learning), temperature=self.options.temperature)
            self.validated += 1
            score = self.validation(policy)
            if self.best is None or _better(score, self.best.card["validation"]["above_ideal_percent"]):
                self.best = replace(policy, card=self.run.card(steps, score))
        done = [run for run in self.ended if run["finished"]]
        row = [
            steps,
            self.cycles / self.hz,
            round(self.run.wall_s(), 2),
            len(self.ended),
            float(np.mean([run["reward"] for run in self.ended])) if self.ended else None,
            percent([np.log(run["simulated_s"] / run["ideal_s"]) for run in done]) if done else None,
            score,
        ]
        self.run.curve.append(row)
        self.row_at, self.ended = steps, []
        for name, value in zip(("simulated_s", "wall_s", "episodes", "reward", "training", "validation"), row[1:],
                               strict=True):  # fmt: skip
            if value is not None:
                self.learning.logger.record(f"ple/{name}", value)
        self.learning.logger.dump(steps)
        best = self.best and self.best.card["validation"]["above_ideal_percent"]
        note = "" if best is None else f"best: {best:+.1f} % above the ideal"
        self.report(min(steps, self.options.steps), note)

    # ------------------------------------------------------------------------------------------------------- state

    def save(self) -> None:
        """Write all that a training needs to go on as if it had not been stopped, whole or not at all."""
        model = self.learning
        best = self.best
        state = {
            "policy": model.policy.state_dict(),
            "optimizer": model.policy.optimizer.state_dict(),
            "steps": model.num_timesteps,
            "updates": model._n_updates,
            "lanes": [_bytes(saved) for saved in self.envs.env_method("get_state")],
            "lane_logs": [self.envs._returns.tolist(), self.envs._lengths.tolist()],
            "memory": [list(pair) for pair in getattr(model, "_last_lstm_states", ())],
            "episode_starts": torch.from_numpy(np.array(model._last_episode_starts)),
            "torch": torch.get_rng_state(),
            "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
            "python": random.getstate(),
            "curve": self.run.curve,
            "seconds": self.run.wall_s(),
            "counts": [self.cycles, self.row_at, self.validated],
            "best": best and {
                **{field.name: getattr(best, field.name) for field in fields(best)},
                "weights": {name: torch.from_numpy(array) for name, array in best.weights.items()},
            },
            "ended": [
                {name: run[name] for name in ("reward", "finished", "simulated_s", "ideal_s")} for run in self.ended
            ],
        }  # fmt: skip
        self.run.write("state.pt", encode_state(state))

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote. Only arrays and plain values are read: torch's `weights_only`.

        Raises:
            AgentError: the file is damaged, or of another training.
        """
        model = self.learning
        with reading(path, AgentError, "the state of this training", REMEDY):
            most = self._state_bytes()
            state = decode_state(read_bytes(path, most), most)
            self._check(state)
            model.policy.load_state_dict(state["policy"])
            model.policy.optimizer.load_state_dict(state["optimizer"])
            model.num_timesteps, model._n_updates = state["steps"], state["updates"]
            self.envs.set_options({"state": [lane.numpy().tobytes() for lane in state["lanes"]]})
            self.envs.seed(None)
            self.envs._reset_seeds()
            model._last_obs = self.envs.reset()
            model._last_episode_starts = state["episode_starts"].numpy()
            if state["memory"]:
                model._last_lstm_states = RNNStates(*map(tuple, state["memory"]))
            self.envs._returns[:], self.envs._lengths[:] = state["lane_logs"]
            self.run.curve, self.run.seconds = state["curve"], state["seconds"]
            self.cycles, self.row_at, self.validated = state["counts"]
            self.ended = state["ended"]
            if (best := state["best"]) is not None:
                best["weights"] = {name: array.numpy() for name, array in best["weights"].items()}
                self.best = (TorchPolicy if best["kind"] in KINDS else Network)(**best)
                encode(self.best)
            torch.set_rng_state(state["torch"])
            kind, keys, *rest = state["numpy"]
            np.random.set_state((kind, np.array(keys, np.uint32), *rest))
            random.setstate(state["python"])

    def _state_bytes(self) -> int:
        """More than the arrays of a state of this training have: lanes, weights, two moments of each, best weights."""
        weights = sum(parameter.numel() * 4 for parameter in self.learning.policy.parameters())
        return self.envs.envs.lanes.rows.nbytes + 8 * weights + 2**25

    def _check(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError unless every part of a state has the kind, the shape and the range of this training's."""
        model, lanes = self.learning, self.envs.num_envs
        for name, kind in (
            ("steps", COUNT),
            ("updates", COUNT),
            ("curve", CURVE_ROWS),
            ("seconds", SECONDS),
            ("counts", list_of(COUNT, 3, 3)),
            ("ended", list_of(_ENDED, 0, 10**7)),
        ):
            check(name, kind, state[name])
        check("lane_logs", list_of(number(-1e30, 1e30), lanes, lanes), state["lane_logs"][0])
        check("lane_logs", list_of(COUNT, lanes, lanes), state["lane_logs"][1])
        check("numpy", list_of(_WORD, 624, 624), state["numpy"][1])
        check("python", list_of(_WORD, 625, 625), state["python"][1])
        _same("policy", state["policy"], model.policy.state_dict())
        _check_optimizer(state["optimizer"], model.policy.optimizer)
        if state["counts"][1] > state["steps"]:
            raise ValueError("counts: the last row must not come after the last step")
        if len(state["lanes"]) != lanes or any(lane.dtype != torch.uint8 for lane in state["lanes"]):
            raise ValueError(f"lanes: must be {lanes} arrays of bytes")
        for name, like in (
            ("torch", torch.get_rng_state()),
            ("episode_starts", torch.zeros(lanes, dtype=torch.bool)),
            ("memory", [list(pair) for pair in getattr(model, "_last_lstm_states", None) or ()]),
        ):
            _same(name, state[name], like)
        if (best := state["best"]) is not None:
            policy = replace(self.policy_of(model), temperature=self.options.temperature)
            for field in fields(policy):
                if field.name not in ("weights", "card") and best[field.name] != getattr(policy, field.name):
                    raise ValueError(f"{field.name} of the best policy is of another training")
            _same("best", best["weights"], {name: torch.from_numpy(array) for name, array in policy.weights.items()})
            check_card(best["card"])
            check("validation", any_of(number(-100, 1e12), NOTHING), best["card"]["validation"]["above_ideal_percent"])


@contextmanager
def _naming_events(folder: Path) -> Iterator[None]:
    """Let a failure to write TensorBoard's events be one line. They are written by a thread, which would print a
    traceback, and the error that then arrives here has no name; all other files are written by `Run.write`.
    """
    hook = threading.excepthook

    def quietly(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            hook(failure)

    threading.excepthook = quietly
    try:
        with writing(folder / "events.out.tfevents", AgentError):
            yield
    finally:
        threading.excepthook = hook


def encode_state(state: Mapping[str, Any]) -> bytes:
    """The bytes of `state.pt`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return seal(STATE, buffer.getvalue())


def decode_state(data: bytes, most: int) -> Any:
    """What `encode_state` was given; to be called within `files.reading`.

    Args:
        data: the file's bytes.
        most: bytes that the arrays have at most.

    Raises:
        Exception: whatever goes wrong with what is no such file.
    """
    content = unseal(STATE, data)
    check_archive(content, MAX_ARRAYS, most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of files that it refuses next
        return torch.load(io.BytesIO(content), weights_only=True)


def _same(name: str, value: Any, like: Any) -> None:
    """Raise ValueError unless a value has the structure, the types and the shapes of another one, and is finite."""
    if isinstance(like, torch.Tensor):
        if not isinstance(value, torch.Tensor) or value.dtype != like.dtype or value.shape != like.shape:
            raise ValueError(f"{name}: must be {like.dtype} {tuple(like.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: must be finite")
    elif isinstance(like, Mapping):
        if not isinstance(value, Mapping) or value.keys() != like.keys():
            raise ValueError(f"{name}: must have other names")
        for key in like:
            _same(f"{name} {key}", value[key], like[key])
    elif isinstance(like, list):
        if not isinstance(value, list) or len(value) != len(like):
            raise ValueError(f"{name}: must be a list of {len(like)}")
        for one, other in zip(value, like, strict=True):
            _same(name, one, other)


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless it is a state of this optimizer: an Adam, or one that has not stepped yet."""
    groups = optimizer.state_dict()["param_groups"]
    if state["param_groups"] != groups:
        raise ValueError("optimizer: has other settings")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, moments in state["state"].items():
        check("optimizer", whole(0, len(parameters) - 1), place)
        like = torch.zeros_like(parameters[place])
        _same("optimizer", moments, {"step": torch.tensor(0.0), "exp_avg": like, "exp_avg_sq": like})
        if moments["step"] < 0 or bool((moments["exp_avg_sq"] < 0).any()):
            raise ValueError("optimizer: must not be negative")


def _better(score: float | None, than: float | None) -> bool:
    """Whether a policy is to be kept instead of an earlier one; None: it could not be measured."""
    return than is None or (score is not None and score <= than)


def _bytes(saved: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(saved, np.uint8).copy())


# ------------------------------------------------------------------------------------------------------------- networks


def mlp_weights(*layers: nn.Linear) -> dict[str, Any]:
    """Copies of three linear layers as the kernel names the weights of an `mlp`."""
    names = (("layer1", "bias1"), ("layer2", "bias2"), ("action", "action_bias"))
    weights = {}
    for linear, (matrix, bias) in zip(layers, names, strict=True):
        weights[matrix] = linear.weight.T.detach().cpu().numpy().copy(order="C")
        weights[bias] = linear.bias[None].detach().cpu().numpy().copy(order="C")
    return weights
