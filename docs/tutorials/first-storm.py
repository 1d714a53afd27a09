# %% [markdown]
# # A first storm
#
# This page runs a wait for a lock that costs hundreds of exits, and says why. It needs the extra `viz`.
#
# ## One world, two rules
#
# `HolderPreempted` has one pCPU and two vCPUs: vCPU 0 holds the lock and is off the pCPU; vCPU 1 is on it, and spins.

# %%
import ple_gym

for rule in ("xen-4.5", "oracle"):
    run = ple_gym.simulate("HolderPreempted", rule)[0]
    print(f"{rule:8}{1e3 * run['simulated_s']:.3f} ms, exits: {run['ple_exits']}")

# %% [markdown]
# Under Xen 4.5's rule the spinner exits **484** times before the holder runs. The oracle knows who holds the lock.

# %% language="bash"
# ple-gym simulate HolderPreempted --policy xen-4.5 --seeds 0 --timeline holder.png

# %%
from IPython.display import Image

Image("holder.png", alt="vCPU 0 holds the lock off the pCPU, and vCPU 1 exits again and again")

# %% [markdown]
# Above is the pCPU in the colour of its vCPU, below a row for each vCPU. Circles are exits. Red: vCPU 0 holds the lock
# off its pCPU, **lock-holder preemption** (LHP; the table has 0, as this world begins with it).
#
# ## Why so many
#
# Who spins for `ple.window` cycles exits, for `cost.exit` cycles, and Xen yields for it. But Xen 4.5 ignores a yield
# in the first millisecond after a vCPU was switched in, its rate limit:

# %%
world = ple_gym.load("HolderPreempted")
print(world.host.tsc_hz // 1000 // (world.ple.window + world.cost.exit), "exits fit into 1 ms")
for us in (0, 500, 2000):
    run = ple_gym.simulate("HolderPreempted", "xen-4.5", overrides={"host.ratelimit_us": us})[0]
    print(f"limit {us:4} us: {run['ple_per_acquisition']['max']} exits of one acquisition")

# %% [markdown]
# The exits follow the limit: **968** with one of 2 ms.
#
# ## Holder or waiter?
#
# Most locks are fair: a free one goes to the *head of the line*. If that has no pCPU, nobody can take it, which is
# **lock-waiter preemption** (LWP). A run says when its exits were made:

# %%
for rule in ("xen-4.5", "oracle"):
    runs = ple_gym.simulate("Paper8", rule, range(20))
    exits, off, free = (sum(r[key] for r in runs) for key in ("ple_exits", "exits_holder_off", "exits_lock_free"))
    print(f"{rule:8}{exits:7,} exits: holder off {off / exits:.1%}, lock free {free / exits:.1%}")

# %% [markdown]
# In these 20 runs of the paper's machine **99.9**% are made while the lock is free. The oracle runs the head: few exits
# are left.
#
# ## Where to go next
#
# [From a rule to a table](rule-to-table.md) · [What a storm is](../understand/storm.md)
