# %% [markdown]
# # The same locks on your kernel
#
# This page compares the simulator with a real Linux kernel: with the first of five kept runs, and with yours. It needs
# a checkout and the extra `viz`.
#
# ## A kept run
#
# `ple-gym reality` runs threads on two CPUs that take a lock, hold it, and start again. A thread that has spun for a
# *window* yields, or spins on. Then the simulator runs the same worlds: threads are vCPUs, ends of windows exits.
# Nothing is fitted; costs are measured before. Here are four and eight threads:

# %%
import tarfile
from pathlib import Path

import ple_gym

with tarfile.open(Path(ple_gym.__file__).parents[1] / "tests/kept/reality.tar.xz") as archive:
    machine, *settings = archive.extractfile("run-1.txt").read().decode().split("setting ")
    few = [one for one in settings if one[8] in "48" and " groups=1 window=4096 hold=2000 " in one]
    Path("kept.txt").write_text("setting ".join([machine, *few]))

# %% language="bash"
# ple-gym reality --measured kept.txt --seeds 5 --picture kept.png

# %%
from IPython.display import Image

Image("kept.png", alt="Predicted against measured, for eight settings")

# %% [markdown]
# *ticket* is a fair lock, *tas* an unfair one. Eight threads that spin on for a fair lock get it **177** times a
# second (**190** predicted), and threads that yield get an unfair one **85,788** times (**85,915** predicted). A mark
# is hollow where repetitions differ by more than 10 %.
#
# ## Your kernel
#
# The machine that built this page, too shortly for a result: for one, use `--quick` alone.

# %% language="bash"
# ple-gym reality --quick --repetitions 1 --seconds 0.1 --seeds 2 2>&1 || true

# %% [markdown]
# If the threads had less than 97 % of the CPUs, other work ran, and the numbers say little.
#
# ## Where to go next
#
# [Run the check](../howto/run-the-reality-check.md) in full · [What it found](../reality.md)
