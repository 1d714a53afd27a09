# %% [markdown]
# # From a rule to a table
#
# This page writes a rule, finds out why it fails, mends it, and reads the table that compares it with others.
#
# ## A first rule
#
# A rule says which vCPU runs next where one has exited. Most locks are fair, so try whoever has spun longest:

# %%
import ple_gym
from ple_gym.rules import helper, rule, seems_to_spin, siblings


@helper
def older(see, asker):
    for v in siblings(see):  # who can be run here
        if seems_to_spin(see, v) and see.vcpu[v].first_ple < see.vcpu[asker].first_ple:
            asker = v
    return asker


@rule("oldest", reads="exits", actuator="pull", source="ours")
def oldest(see, asker):
    """Whoever has spun longest."""
    return older(see, asker)


comparison = ple_gym.compare("Storm", ["xen-4.8", "kvm", oldest])
comparison

# %% [markdown]
# All **20** runs of our rule are *capped*, cut off after 100 ms. Why? A run says when its exits were made:

# %%
run = comparison.runs["oldest"][0]
print(f"{run['exits_holder_off'] / run['ple_exits']:.0%} of {run['ple_exits']:,} while the holder is off its pCPU")

# %% [markdown]
# **100**%: the oldest spinners have the pCPUs, and the holder never runs.
#
# ## Mend it
#
# A hypervisor does not know who holds a lock. But who lost its pCPU in kernel mode, and does not spin, *may* hold one:


# %%
@rule("holder-first", reads="exits, kernel mode", actuator="pull", source="ours")
def holder_first(see, asker):
    """Who may hold the lock, else whoever has spun longest."""
    for v in siblings(see):
        if see.vcpu[v].left_kernel and not seems_to_spin(see, v):
            return v
    return older(see, asker)


ple_gym.compare("Storm", ["xen-4.8", "kvm", holder_first, "oracle"], range(100))

# %% [markdown]
# With **10.78** ms it is as good as the oracle, which knows the holder. In brackets are 95 % intervals; `~` marks
# those that [rest on few worlds](../intervals.md). That of *vs first*, percent against the first row and *paired* by
# world, says who is faster ([other columns](../start/first-run.md#a-comparison)).
#
# ## Try it elsewhere
#
# `pull` runs any vCPU here and now, which no hypervisor can. The paper's proposal takes one of the same queue
# (`local`), KVM only hints at one (`hint`):

# %%
for actuator in ("pull", "local", "hint"):
    here = ple_gym.compare("Storm", ["xen-4.8", holder_first], overrides={"decision.actuator": actuator})
    ratio = here.rows()[1].log_ratio
    print(f"{actuator:6} log ratio to xen-4.8 {ratio.mean:+.2f} [{ratio.low:+.2f}, {ratio.high:+.2f}]")

# %% [markdown]
# The sign depends on it: **-0.57**, nothing clear, and **+1.32**, where the scheduler may refuse. Say which one you
# used.
#
# ## Where to go next
#
# [Train and explain an agent](train-and-explain.md) · [Write a rule](../howto/write-a-rule.md)
