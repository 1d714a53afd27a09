"""PPO in one file, in the style of CleanRL, on native lanes: masks, and what `NextStep` autoreset means for learning.

    python -m agents.cleanrl_ppo --env-id PLE/Storm-v1 --num-envs 64 --total-timesteps 1_000_000

With `NextStep` autoreset the step that ends an episode returns its true last observation, and the step after it only
resets the lane: its action is ignored. So a truncated episode is bootstrapped from the observation at hand, and the
step after an end is no transition: it is left out of the loss, and no advantage passes through it.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn, optim
from torch.distributions import Categorical

import ple_gym  # noqa: F401  registers the ids


@dataclass
class Args:
    """Masked PPO on native lanes."""

    env_id: str = "PLE/Storm-v1"
    """id of the environment; its observations must be flat"""
    total_timesteps: int = 1_000_000
    """decisions in all lanes together"""
    num_envs: int = 64
    """lanes that are stepped together"""
    num_steps: int = 128
    """decisions of each lane between two updates"""
    max_episode_steps: int | None = None
    """decisions after which an episode is truncated"""
    seed: int = 1
    """of lane 0, of the networks and of the sampling; lane i has seed + i"""
    learning_rate: float = 3e-4
    """step size of Adam"""
    anneal_lr: bool = True
    """let the step size fall to 0 over the training"""
    gamma: float = 0.999
    """discount of one decision"""
    gae_lambda: float = 0.95
    """lambda of the generalised advantage estimate"""
    num_minibatches: int = 4
    """parts that the decisions of an update are split into"""
    update_epochs: int = 4
    """times that an update goes through its decisions"""
    norm_adv: bool = True
    """bring the advantages of a part to mean 0 and deviation 1"""
    clip_coef: float = 0.2
    """how far a probability may move in an update, as a ratio"""
    ent_coef: float = 0.01
    """weight of the entropy"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """largest norm of a gradient"""
    torch_threads: int = 1
    """threads of torch; networks as small as these gain nothing from more"""
    log_dir: str | None = None
    """folder for TensorBoard; none: only print"""

    # filled in at run time
    batch_size: int = 0
    """decisions of an update (num_envs * num_steps)"""
    num_iterations: int = 0
    """updates (total_timesteps / batch_size)"""


def layer_init(layer: nn.Linear, std: float = 2**0.5) -> nn.Linear:
    """Orthogonal weights, no bias."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    """Actor and critic side by side."""

    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        super().__init__()
        inputs = int(np.prod(envs.single_observation_space.shape))

        def network(outputs: int, std: float) -> nn.Sequential:
            return nn.Sequential(
                layer_init(nn.Linear(inputs, 64)),
                nn.Tanh(),
                layer_init(nn.Linear(64, 64)),
                nn.Tanh(),
                layer_init(nn.Linear(64, outputs), std),
            )

        self.critic = network(1, 1.0)
        self.actor = network(int(envs.single_action_space.n), 0.01)

    def get_value(self, x: Tensor) -> Tensor:
        """Value of observations: [B, F] to [B]."""
        return self.critic(x).squeeze(-1)

    def get_action_and_value(
        self, x: Tensor, mask: Tensor, action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Action (drawn, if none is given), its log-probability, entropy and value; `mask`: bool [B, V + 1], legal."""
        logits = self.actor(x)
        # Finite, so that what is never drawn adds nothing to the entropy, instead of 0 * infinity.
        distribution = Categorical(logits=logits.masked_fill(~mask, torch.finfo(logits.dtype).min))
        if action is None:
            action = distribution.sample()
        return action, distribution.log_prob(action), distribution.entropy(), self.get_value(x)


def advantages(
    rewards: Tensor, values: Tensor, terminations: Tensor, over: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimates under `NextStep` autoreset: [T, N].

    Args:
        rewards: [T, N], of step t.
        values: [T + 1, N], of the observation before step t; the last row is of the observation after all steps.
        terminations, over: bool [T + 1, N], whether a termination, or any end, precedes the observation before step t.
            Where `over`, step t is a reset, and the result there means nothing.
    """
    result = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        # A truncated episode goes on after its last observation, a terminated one does not.
        delta = rewards[t] + gamma * values[t + 1] * ~terminations[t + 1] - values[t]
        result[t] = last = delta + gamma * gae_lambda * last * ~over[t + 1]
    return result


def train(args: Args) -> Agent:
    """Train an agent from nothing and return it."""
    args.batch_size = args.num_envs * args.num_steps
    args.num_iterations = args.total_timesteps // args.batch_size
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.torch_threads)
    writer = None
    if args.log_dir is not None:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(args.log_dir)

    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, max_episode_steps=args.max_episode_steps)
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    agent = Agent(envs)
    optimizer = optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    steps, lanes = args.num_steps, args.num_envs
    obs = torch.zeros((steps, lanes, *envs.single_observation_space.shape))
    masks = torch.zeros((steps, lanes, int(envs.single_action_space.n)), dtype=torch.bool)
    actions = torch.zeros((steps, lanes), dtype=torch.int64)
    logprobs = torch.zeros((steps, lanes))
    rewards = torch.zeros((steps, lanes))
    values = torch.zeros((steps + 1, lanes))
    terminations = torch.zeros((steps + 1, lanes), dtype=torch.bool)
    over = torch.zeros((steps + 1, lanes), dtype=torch.bool)

    start_time = time.time()
    observation, infos = envs.reset(seed=args.seed)
    next_obs, next_mask = torch.as_tensor(observation), torch.as_tensor(infos["action_mask"]).bool()
    next_terminated = next_over = torch.zeros(lanes, dtype=torch.bool)
    for iteration in range(1, args.num_iterations + 1):
        if args.anneal_lr:
            optimizer.param_groups[0]["lr"] = (1 - (iteration - 1) / args.num_iterations) * args.learning_rate

        returns, makespans, illegal = [], [], 0
        for step in range(steps):
            obs[step], masks[step], terminations[step], over[step] = next_obs, next_mask, next_terminated, next_over
            with torch.no_grad():
                actions[step], logprobs[step], _, values[step] = agent.get_action_and_value(next_obs, next_mask)
            observation, reward, terminated, truncated, infos = envs.step(actions[step].numpy())
            rewards[step] = torch.as_tensor(reward)
            next_obs, next_mask = torch.as_tensor(observation), torch.as_tensor(infos["action_mask"]).bool()
            next_terminated, next_over = torch.as_tensor(terminated), torch.as_tensor(terminated | truncated)
            if "episode" in infos:
                ended = infos["_episode"]
                returns += infos["episode"]["r"][ended].tolist()
                makespans += infos["ple_episode"]["makespan_s"][terminated].tolist()
                illegal += int(infos["ple_episode"]["illegal_actions"][ended].sum())

        with torch.no_grad():
            values[steps], terminations[steps], over[steps] = agent.get_value(next_obs), next_terminated, next_over
            estimates = advantages(rewards, values, terminations, over, args.gamma, args.gae_lambda)

        # Flatten the batch, without the steps that only reset a lane.
        kept = ~over[:steps].flatten()
        b_obs, b_masks = obs.flatten(0, 1)[kept], masks.flatten(0, 1)[kept]
        b_actions, b_logprobs = actions.flatten()[kept], logprobs.flatten()[kept]
        b_advantages, b_values = estimates.flatten()[kept], values[:steps].flatten()[kept]
        b_returns = b_advantages + b_values

        for _ in range(args.update_epochs):
            for part in torch.randperm(len(b_actions)).chunk(args.num_minibatches):
                _, newlogprob, entropy, newvalue = agent.get_action_and_value(
                    b_obs[part], b_masks[part], b_actions[part]
                )
                ratio = (newlogprob - b_logprobs[part]).exp()
                mb_advantages = b_advantages[part]
                if args.norm_adv:
                    mb_advantages = (mb_advantages - mb_advantages.mean()) / (mb_advantages.std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                pg_loss = -torch.min(mb_advantages * ratio, mb_advantages * clipped).mean()
                v_loss = 0.5 * (newvalue - b_returns[part]).square().mean()
                loss = pg_loss - args.ent_coef * entropy.mean() + args.vf_coef * v_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()

        decisions = iteration * args.batch_size
        scalars = {"charts/SPS": decisions / (time.time() - start_time), "losses/value_loss": v_loss.item()}
        scalars |= {"losses/policy_loss": pg_loss.item(), "losses/entropy": entropy.mean().item()}
        if returns:
            scalars |= {"charts/episodic_return": float(np.mean(returns)), "charts/illegal_actions": illegal}
        if makespans:
            scalars["charts/makespan_ms"] = 1e3 * float(np.mean(makespans))
        print(f"{decisions:>12,}  " + "  ".join(f"{name.split('/')[1]} {value:.4g}" for name, value in scalars.items()))
        if writer is not None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, decisions)

    envs.close()
    if writer is not None:
        writer.close()
    return agent


if __name__ == "__main__":
    train(tyro.cli(Args))
