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
from ple_gym.learned.file import LEVELS, Network
from ple_gym.view.features import names_at

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
    scheduler = envs.envs.interface.scenario.host.scheduler
    settings = {"actor_features": len(names_at(options.information, scheduler)), "hidden": options.hidden}
    return ppo.build(MaskablePPO, SetPolicy, envs, options, settings | {"scheduler": scheduler})


def network(model: Any) -> Network:
    """The actor as the kernel runs it."""
    actor, scheduler = model.policy.actor, model.get_env().envs.interface.scenario.host.scheduler
    level = next(level for level in LEVELS if len(names_at(level, scheduler)) == actor.pool.features)
    return Network("set", level, 0, actor.vcpu2.out_features, actor.weights(), {}, scheduler=scheduler)


def train(options: Options) -> Path:
    """Train; return the path of the policy."""
    return sb3.train(NAME, options, build(options), network)
