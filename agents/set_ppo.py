"""MaskablePPO with the set policy (`set_network.py`): one set of weights for any number of vCPUs, in any order.

With `--privileged-critic` the critic sees holder and ticket order while the actor sees what the hypervisor does: less
variance while training, and nothing more is needed to run the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO

from agents import ppo, sb3
from agents.set_network import SetPolicy
from ple_gym.learned.file import LEVELS, Network, for_hosts_like
from ple_gym.view.features import seen_in

NAME = "set-ppo"


@dataclass(frozen=True)
class Options(ppo.Options):
    """MaskablePPO with the set policy."""

    hidden: int = 32
    """units in each hidden layer, of actor and critic"""
    privileged_critic: bool = False
    """let the critic see what only the guest knows (information level oracle)"""


def build(options: Options) -> Any:
    """The model, with its lanes."""
    level = "oracle" if options.privileged_critic else options.information
    envs = sb3.make_envs(options, observation="tokens", information=level)
    scenario = envs.envs.interface.scenario
    features = len(seen_in(scenario).of_vcpu(LEVELS[options.information]))
    settings = {"actor_features": features, "hidden": options.hidden, "scheduler": scenario.host.scheduler}
    return ppo.build(MaskablePPO, SetPolicy, envs, options, settings)


def network(model: Any) -> Network:
    """The actor as the kernel runs it."""
    actor, scenario = model.policy.actor, model.get_env().envs.interface.scenario
    shown = seen_in(scenario)
    level = next(level for level, code in LEVELS.items() if len(shown.of_vcpu(code)) == actor.pool.features)
    return Network("set", level, 0, actor.vcpu2.out_features, actor.weights(), {}, **for_hosts_like(scenario))


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, build(options), network)
