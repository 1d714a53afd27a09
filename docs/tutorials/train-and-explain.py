# %% [markdown]
# # Train and explain an agent
#
# This page trains an agent for seconds and asks what it has learned. It needs the extra `agents`.
#
# ## Train and compare
#
# `set-ppo` is MaskablePPO with the same weights for every vCPU. A whole training takes six times as many decisions.

# %% language="bash"
# ple-gym agents train set-ppo --scenario Storm --steps 16384 --validate 4 --folder run --quiet

# %%
import ple_gym

agent, rule = (ple_gym.evaluate.load_policy(name) for name in ("learned:run/policy.npz", "spin-age-self"))
rows = ple_gym.compare("Storm", ["xen-4.8", rule, agent, "oracle"], "2000000:2000040").rows()
for row in rows:
    print(f"{row.policy:24}{1e3 * row.makespan_s.mean:6.2f} ms {row.ple_exits:7,.0f} exits")
assert rows[2].log_ratio.high < 0 and abs(rows[2].best_ratio.mean) < 0.1

# %% [markdown]
# In worlds that it has not seen it leaves Xen's rule far behind, and is near `spin-age-self`, a rule of a few lines.
# So is the oracle: little is left to be learned here.
#
# ## Explain
#
# `ask` says what any policy would do now. Count where agent and rule agree. And where the agent runs another vCPU,
# which share of those that it could run has less of a feature (50 %: no difference)?

# %%
import numpy as np

env = ple_gym.PleEnv("Storm", observation="tokens")
observation, info = env.reset(seed=2_000_000)
agree, less, over = [], [], False
while not over:
    vcpus, action = observation["vcpus"], env.ask(agent)
    agree.append(action == env.ask(rule))
    queued = np.flatnonzero(info["action_mask"][:-1] > vcpus[:, ple_gym.VCPU_FEATURES.index("asker")])
    if action in queued:
        less.append(((vcpus[queued] < vcpus[action]) + 0.5 * (vcpus[queued] == vcpus[action])).mean(0))
    observation, _, terminated, truncated, info = env.step(action)
    over = terminated or truncated

share = np.mean(less, axis=0)
print(f"{len(agree)} decisions, {np.mean(agree):.0%} as spin-age-self would")
for place in np.argsort(-abs(share - 0.5))[:4]:
    print(f"{ple_gym.VCPU_FEATURES[place]:12} {share[place]:.0%}")
assert share.argmax() == ple_gym.VCPU_FEATURES.index("spin_age")

# %% [markdown]
# They often differ, and yet are about as fast: some actions are about as good as others. The agent picks those that
# have spun longest (`spin_age`), as [a rule of ours](rule-to-table.md) does. Seeds 0 to 5 ended 0.4 to 4.3 % above
# that rule, all with `spin_age` first. [Another page](../best-policy.md) asks what causes the choice.
#
# ## Where to go next
#
# [The same locks on your kernel](your-kernel.md) · [Choose a library](../howto/train.md)
