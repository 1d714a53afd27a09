# %% [markdown]
# # From your lock_stat to a decision
#
# This page takes a guest's `/proc/lock_stat` and ends with an answer: how many such VMs does a host bear? It needs the
# extra `viz`.
#
# ## What the guest says
#
# A guest of 16 vCPUs, alone on its pCPUs, counted locks for ten seconds (`echo 1 > /proc/sys/kernel/lock_stat`). These
# numbers are made up, in the form that Linux prints below its line with the columns' names; take yours.

# %%
from pathlib import Path

rows = """
&rq->__lock: 41210 45873 0.08 61.40 39909.51 0.87 1210331 4810244 0.05 48.70 2405122.00 0.50
&lruvec->lru_lock: 68112 71040 0.11 212.90 179021.00 2.52 310552 905121 0.10 180.20 1538705.70 1.70
&zone->lock: 22801 24406 0.10 140.00 43198.00 1.77 215310 1204410 0.05 96.10 1084000.00 0.90
"""
_ = Path("guest.lock_stat").write_text("lock_stat version 0.4" + rows)

# %% language="bash"
# ple-gym measure guest.lock_stat --seconds 10 --out first.toml --set guest.vcpus=16 host.pcpus=16 \
#   profile=skylake-kvm-6.6 2>&1

# %% [markdown]
# ## Does it fit?
#
# Holds agree, as they were put in. Contention does not: **2.042** percent were measured, and **25.11** are simulated.
# The reason is that a *class* is not a lock: each CPU has an `rq->__lock`. How many locks there are the table does not
# say, but its contention does. With 24, of which none is hot, both agree:

# %% language="bash"
# ple-gym measure guest.lock_stat --seconds 10 --out guest.toml --set guest.vcpus=16 host.pcpus=16 \
#   profile=skylake-kvm-6.6 guest.locks=24 guest.hot_probability=0 2>&1 | grep contended

# %% [markdown]
# ## How many VMs?
#
# Each VM has the same work, and the host has 16 pCPUs. `host` yields at an exit; `kvm-5.13` is what Linux 6.6 does; the
# oracle knows who holds what.

# %% language="bash"
# ple-gym sweep guest.toml --set guest.transactions=50000 --sweep guest.count=1,2,3 \
#   --policies host kvm-5.13 oracle --seeds 0:20 --picture vms.png 2>&1

# %%
from IPython.display import Image

Image("vms.png", alt="Makespan of one, two and three VMs under three policies")

# %% [markdown]
# One VM takes **72.43** ms. Two would take twice as long if nothing were lost, and three three times.
# Under KVM's rule two take **157.2** ms: that is little more. Three take **366.7** ms, where 217 would do. So the
# answer is two, if the rule at the exit is KVM's. (The oracle is no bound here: it asks with hints, and Linux need not
# take them.) And does pause-loop exiting matter, with two?

# %% language="bash"
# ple-gym compare guest.toml --set guest.transactions=50000 guest.count=2 --policies kvm-5.13 continue --seeds 0:20 2>&1

# %% [markdown]
# `continue` spins on, as without PLE: **853.6** ms. Leave it on.
#
# ## What it hangs on
#
# `lock_stat` gives means. That holds and stretches are exponential is assumed; so try another shape before you decide.
# With holds that are all alike two VMs take **152.1** ms:

# %% language="bash"
# ple-gym compare guest.toml --set guest.transactions=50000 guest.count=2 "guest.hold=constant 1942" \
#   --policies kvm-5.13 oracle --seeds 0:20 2>&1

# %% [markdown]
# ## Where to go next
#
# [Measure your machine](../howto/measure-your-machine.md) with traces, which give whole distributions ·
# [Compare machines](../howto/compare-machines.md)
