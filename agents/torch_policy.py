"""Policies that torch runs, because the kernel cannot (recurrent ones) or would give them masks that they never had.

Their files are like those of `ple_gym/learned/file.py`, which writes them too: a JSON text, `card`, and float32
arrays by name, here the actor's as torch names them. Nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ple_gym import evaluate
from ple_gym.envs.vector import AutoresetMode, PleVectorEnv
from ple_gym.evaluate.comparison import Run
from ple_gym.files import read_packed, reading
from ple_gym.lanes import INFORMATION
from ple_gym.learned.file import (
    MAX_BYTES,
    WHAT,
    Network,
    PolicyError,
    check_fits,
    check_head,
    check_weights,
    decode,
    fitted,
    for_hosts_like,
    network_of,
    told_in,
)
from ple_gym.learned.inputs import Inputs
from ple_gym.scenario import Scenario
from ple_gym.view import credit
from ple_gym.view.features import table_of

KINDS = ("torch-mlp", "torch-lstm")
LANES = 16  # that `simulate` runs side by side
CRITIC = ("critic.", "lstm_critic.", "value_net.", "mlp_extractor.value_net.")  # what is not kept


@dataclass(frozen=True, eq=False)
class TorchPolicy:
    """A learned policy for one number of vCPUs, without masks: what it may not do defers to the host.

    Attributes:
        kind: `torch-mlp` or `torch-lstm`: two hidden layers; in the latter the first is an LSTM.
        information: level of the (flat) observations it reads.
        vcpus: number of vCPUs it is for.
        hidden: hidden units of each layer.
        weights: name -> float32 array, the actor's part of the `state_dict` of `network`.
        card: where it comes from, as in `ple_gym.learned.file.Network`.
        temperature: as there; draws are torch's, the same on every call.
    """

    kind: str
    information: str
    vcpus: int
    hidden: int
    weights: Mapping[str, npt.NDArray[np.float32]]
    card: Mapping[str, Any]
    temperature: float = 0.0
    scheduler: str = credit.NAME
    interrupts: bool = False

    @classmethod
    def of(cls, model: Any) -> TorchPolicy:
        """The policy of an SB3 model whose lanes are those of `make_sb3`."""
        interface = model.get_env().envs.interface
        kind = KINDS[hasattr(model.policy, "lstm_actor")]
        hidden, scenario = model.policy.action_net.in_features, interface.scenario
        weights, host = actor_weights(model.policy), for_hosts_like(scenario)
        return cls(kind, interface.information, interface.vcpus, hidden, weights, {}, **host)

    @property
    def inputs(self) -> Inputs:
        """Names of what it reads, in the order of its weights: all that is shown at its level."""
        return inputs_of(self.information, self.scheduler, self.interrupts)

    def check(self) -> None:
        """Raise PolicyError unless the numbers are in their ranges, and the weights of their shapes and finite."""
        check_head(self, KINDS, least_vcpus=1, least_hidden=1)
        check_weights(self.weights, shapes_of(self.kind, self.vcpus, self.hidden, self.inputs))

    def network(self) -> Any:
        """Return SB3's policy with these weights; call its `predict`.

        Raises:
            PolicyError: as `check`.
        """
        import torch
        from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
        from stable_baselines3.common.policies import ActorCriticPolicy

        self.check()
        length = table_of(self.scheduler, self.interrupts).length(INFORMATION[self.information], self.vcpus)
        network = RecurrentActorCriticPolicy if self.kind == "torch-lstm" else ActorCriticPolicy
        policy: Any = network(
            spaces.Box(-np.inf, np.inf, (length,), np.float32),
            spaces.Discrete(self.vcpus + 1),
            lambda _: 0.0,
            **layers(self.kind, self.hidden),
        )
        policy.load_state_dict({name: torch.from_numpy(array) for name, array in self.weights.items()}, strict=False)
        if self.temperature > 0:
            with torch.no_grad():
                for parameter in policy.action_net.parameters():
                    parameter /= self.temperature
        return policy

    def simulate(self, scenario: Scenario, seeds: Iterable[int], decisions: int | None = None) -> list[Run]:
        """Run a scenario once per seed.

        Args:
            scenario: what is run.
            seeds: on which seeds.
            decisions: where a run is cut off, as if it had reached the simulated-time limit; None: nowhere.

        Returns:
            Records as `ple_gym.evaluate.simulate` returns them, with `illegal_actions` added, in the order of the
            seeds.

        Raises:
            PolicyError: it is for another number of vCPUs, or another host.
        """
        import torch

        check_fits(self, scenario)
        if scenario.sees_interrupts and not self.interrupts:
            raise PolicyError("the learned policy does not read interrupts, which the scenario's host sees")
        numbers = list(seeds)
        # Where nothing is to be decided, all policies are alike, and an environment has no such runs.
        runs = {run["seed"]: run for run in evaluate.simulate(scenario, "host", numbers, threads=1)}
        waiting = [seed for seed in numbers if runs[seed]["decisions"]]
        runs = {seed: {**run, "illegal_actions": 0} for seed, run in runs.items() if not run["decisions"]}
        count = min(LANES, len(waiting))
        if count == 0:
            return [runs[seed] for seed in numbers]
        envs = PleVectorEnv(
            count, scenario, information=self.information, max_episode_steps=decisions,
            autoreset_mode=AutoresetMode.SAME_STEP, threads=1,
        )  # fmt: skip
        memory, starts = None, np.zeros(count, np.bool_)
        at: list[int | None] = [None] * count  # the seed that a lane runs; None: one whose record is not kept
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = self.network()
            while len(runs) < len(numbers):
                idle = [lane for lane in range(count) if at[lane] is None][: len(waiting)]
                if idle:
                    for lane in idle:
                        at[lane] = waiting.pop(0)
                    begun = np.isin(np.arange(count), idle)
                    next_seeds = [seed if lane in idle else None for lane, seed in enumerate(at)]
                    observation, _ = envs.reset(seed=next_seeds, options={"reset_mask": begun})
                    starts |= begun
                actions, memory = network.predict(observation, memory, starts, deterministic=self.temperature == 0)
                observation, *_ = envs.step(actions)
                starts = np.isin(np.arange(count), list(envs.ends))
                for lane, (_, info) in envs.ends.items():
                    if (seed := at[lane]) is not None:
                        runs[seed] = {"seed": seed, **info["ple_episode"]}
                        at[lane] = None
        return [runs[seed] for seed in numbers]


def layers(kind: str, hidden: int) -> dict[str, Any]:
    """SB3's `policy_kwargs` of such a network; its critic, which may have an LSTM of its own, does not matter here."""
    from torch import nn

    if kind == "torch-lstm":
        return {"net_arch": [hidden], "activation_fn": nn.ReLU, "lstm_hidden_size": hidden}
    return {"net_arch": [hidden] * 2, "activation_fn": nn.ReLU}


def actor_weights(policy: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Copies of the weights of an SB3 policy by which it decides."""
    state = policy.state_dict()
    return {name: tensor.detach().numpy().copy() for name, tensor in state.items() if not name.startswith(CRITIC)}


def inputs_of(information: str, scheduler: str = credit.NAME, interrupts: bool = False) -> Inputs:
    """Names of what such a policy reads, in the kernel's order."""
    return Inputs.shown(table_of(scheduler, interrupts), INFORMATION[information], ranks=False)


def letters_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Sizes of each of the actor's arrays: H hidden units, 4 of each, L inputs, A actions."""
    letters: dict[str, tuple[str, ...]] = {}
    inputs = ["L", "H"]
    if kind == "torch-lstm":
        letters = {"lstm_actor.weight_ih_l0": ("4", "L"), "lstm_actor.weight_hh_l0": ("4", "H")}
        letters |= {"lstm_actor.bias_ih_l0": ("4",), "lstm_actor.bias_hh_l0": ("4",)}
        inputs = ["H"]
    for place, letter in enumerate(inputs):
        layer = f"mlp_extractor.policy_net.{2 * place}"
        letters |= {f"{layer}.weight": ("H", letter), f"{layer}.bias": ("H",)}
    return letters | {"action_net.weight": ("A", "H"), "action_net.bias": ("A",)}


def shapes_of(kind: str, vcpus: int, hidden: int, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Shape of each of the actor's arrays, of a policy that reads these inputs."""
    sizes = inputs.sizes(hidden, vcpus)
    sizes |= {"H": hidden, "4": 4 * hidden, "A": vcpus + 1}
    return {name: tuple(sizes[letter] for letter in letters) for name, letters in letters_of(kind).items()}


def read_policy(path: Path) -> Network | TorchPolicy:
    """Read a policy of either kind from a file. Nothing in it is executed.

    Raises:
        PolicyError: it cannot be read, is no such file, or a damaged one.
    """
    with reading(path, PolicyError, WHAT):
        head, weights = decode(read_packed(path, MAX_BYTES))
        if not isinstance(head["kind"], str) or head["kind"] not in KINDS:
            return network_of(head, weights)
        told = told_in(head)
        check_head(told, KINDS, least_vcpus=1, least_hidden=1)
        shown = inputs_of(told.information, told.scheduler)
        weights = dict(fitted(head, weights, letters_of(head["kind"]), shown, shapes_of))
        policy = TorchPolicy(**vars(told), weights=weights)
        policy.check()
        return policy
