"""The set policy: one scorer for every vCPU, whatever their order and number. It is `score_set` of
`ple_gym/learned/network.py` in torch, weight for weight, so that exporting it is copying.

h_i = relu(vCPU_i, host); context = mean h, max h, the asker's h, host; score_i = relu(h_i, context); the score of
deferring comes from the context. The critic is a second network of the same kind up to the context, and may see more.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from ple_gym.learned.network import RANKS, ranked_at
from ple_gym.view.features import VCPU_FEATURES

ASKER = VCPU_FEATURES.index("asker")  # under any scheduler


def layer(inputs: int, outputs: int, gain: float = math.sqrt(2), bias: bool = True) -> nn.Linear:
    """A linear layer with orthogonal weights, as SB3 starts them."""
    linear = nn.Linear(inputs, outputs, bias)
    nn.init.orthogonal_(linear.weight, gain)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def ranks(values: Tensor) -> Tensor:
    """1 / (1 + how many vCPUs have more), of each column: [B, V, R] -> [B, V, R]."""
    more = values.unsqueeze(-3) > values.unsqueeze(-2)
    return 1 / (1 + more.sum(dim=-2))


class Pool(nn.Module):
    """The first layer, and the context: the mean, the maximum and the asker's units of all vCPUs, and the host.

    vcpus [B, V, at least `features`] and host [B, G] -> hidden [B, V, H] and context [B, 3 H + G].
    """

    def __init__(self, features: int, host: int, hidden: int, scheduler: str) -> None:
        super().__init__()
        self.features, self.ranked = features, ranked_at(scheduler)
        self.vcpu, self.host = layer(features + RANKS, hidden, bias=False), layer(host, hidden)

    def forward(self, vcpus: Tensor, host: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden rows and context."""
        seen = torch.cat([vcpus[..., : self.features], ranks(vcpus[..., self.ranked])], dim=-1)
        hidden = torch.relu(self.vcpu(seen) + self.host(host).unsqueeze(-2))
        asker = (hidden * vcpus[..., ASKER : ASKER + 1]).sum(dim=-2)
        return hidden, torch.cat([hidden.mean(dim=-2), hidden.amax(dim=-2), asker, host], dim=-1)


class Actor(nn.Module):
    """Scores of all actions: vcpus [B, V, F] and host [B, G] -> [B, V + 1], the last one for deferring."""

    def __init__(self, features: int, host: int, hidden: int, scheduler: str) -> None:
        super().__init__()
        seen = 3 * hidden + host
        self.pool = Pool(features, host, hidden, scheduler)
        self.vcpu2, self.context2 = layer(hidden, hidden, bias=False), layer(seen, hidden)
        self.vcpu3 = layer(hidden, 1, gain=0.01)
        self.defer1, self.defer2 = layer(seen, hidden), layer(hidden, 1, gain=0.01)

    def forward(self, vcpus: Tensor, host: Tensor) -> Tensor:
        """The scores."""
        hidden, context = self.pool(vcpus, host)
        rows = torch.relu(self.vcpu2(hidden) + self.context2(context).unsqueeze(-2))
        defer = self.defer2(torch.relu(self.defer1(context)))
        return torch.cat([self.vcpu3(rows).squeeze(-1), defer], dim=-1)

    def weights(self) -> dict[str, Any]:
        """Copies of its weights as the kernel names them: float32 NumPy arrays [rows, columns]."""
        return {
            name: array.detach().cpu().numpy().copy(order="C")
            for name, array in {
                "vcpu1": self.pool.vcpu.weight,
                "host1": self.pool.host.weight.T,
                "bias1": self.pool.host.bias[None],
                "vcpu2": self.vcpu2.weight,
                "context2": self.context2.weight.T,
                "bias2": self.context2.bias[None],
                "vcpu3": self.vcpu3.weight,
                "bias3": self.vcpu3.bias[None],
                "defer1": self.defer1.weight.T,
                "defer_bias1": self.defer1.bias[None],
                "defer2": self.defer2.weight.T,
                "defer_bias2": self.defer2.bias[None],
            }.items()
        }


class Critic(nn.Module):
    """The context of the critic's own first layer, after a hidden layer: [B, H]."""

    def __init__(self, features: int, host: int, hidden: int, scheduler: str) -> None:
        super().__init__()
        self.pool, self.last = Pool(features, host, hidden, scheduler), layer(3 * hidden + host, hidden)

    def forward(self, vcpus: Tensor, host: Tensor) -> Tensor:
        """The last hidden layer."""
        return torch.relu(self.last(self.pool(vcpus, host)[1]))


class Both(BaseFeaturesExtractor):
    """Actor and critic as SB3's features extractor of `tokens`: [B, V + 1 + H], scores before the critic's layer."""

    def __init__(self, observation_space: spaces.Dict, actor_features: int, hidden: int, scheduler: str) -> None:
        (vcpus, features), (host,) = observation_space["vcpus"].shape, observation_space["host"].shape
        super().__init__(observation_space, vcpus + 1 + hidden)
        self.actor = Actor(actor_features, host, hidden, scheduler)
        self.critic = Critic(features, host, hidden, scheduler)

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Scores and the critic's layer, side by side."""
        vcpus, host = observation["vcpus"], observation["host"]
        return torch.cat([self.actor(vcpus, host), self.critic(vcpus, host)], dim=-1)


class Split(nn.Module):
    """SB3's `mlp_extractor`: it only splits what `Both` put side by side."""

    def __init__(self, latent_dim_pi: int, latent_dim_vf: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = latent_dim_pi, latent_dim_vf

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """Scores of the actions."""
        return features[..., : self.latent_dim_pi]

    def forward_critic(self, features: Tensor) -> Tensor:
        """The critic's last hidden layer."""
        return features[..., self.latent_dim_pi :]


class SetPolicy(MaskableActorCriticPolicy):
    """The policy that MaskablePPO trains; needs observation="tokens".

    `actor_features` is how many features of a vCPU the actor sees; the critic sees all that the observation has.
    `scheduler` is that of the host.
    """

    def __init__(
        self,
        *args: Any,
        actor_features: int = len(VCPU_FEATURES),
        hidden: int = 64,
        scheduler: str = "credit",
        **options: Any,
    ) -> None:
        super().__init__(
            *args,
            features_extractor_class=Both,
            features_extractor_kwargs={"actor_features": actor_features, "hidden": hidden, "scheduler": scheduler},
            **options,
        )

    @property
    def actor(self) -> Actor:
        """The part that decides."""
        return self.features_extractor.actor

    def _build(self, lr_schedule: Any) -> None:
        """Everything has its weights already; SB3's own `_build` would shrink all of the actor by its gain of 0.01."""
        scores = int(self.action_space.n)
        self.mlp_extractor = Split(scores, self.features_dim - scores)
        self.action_net = nn.Identity()
        self.value_net = layer(self.mlp_extractor.latent_dim_vf, 1, gain=1)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)
