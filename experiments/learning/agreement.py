"""Where does the best policy differ from the short rules? Both are asked in every decision of its runs on `Storm`.

The policy decides, drawing as it does in the kernel; what `spin-age-self` and `two-patience` would do is computed
beside it. Actions are counted in five kinds: resume the asker, run a likely holder (it lost its pCPU in kernel mode and
does not seem to spin), run one that seems to spin, run another vCPU, or defer to the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.torch_policy import read_policy
from experiments.lab import CHECKPOINTS, Experiment, Table, Task, seeds, tasks, world
from experiments.lab.pictures import COLOURS, picture
from experiments.lab.report import Check
from experiments.learning.features import SHORT, WORLD, best
from experiments.learning.trainings import file_of
from ple_gym.envs.env import PleEnv
from ple_gym.learned.file import Network
from ple_gym.learned.network import ACTIONS_BITS, GUMBEL, NOISE_BITS, ranked_at
from ple_gym.sim import rng
from ple_gym.view.features import VCPU_FEATURES

KINDS = ("resume", "holder", "spinner", "other", "defer")
PAIRS = tuple(f"{rule}_{policy}" for rule in KINDS for policy in KINDS)  # the rule's kind, the policy's
RULES = ("spin-age-self", "two-patience")
#: Of the spinners that the policy runs, those that are older than any that runs; of those that the rule would run where
#: the policy resumes, those than which an older one runs.
OLDEST = ("pulled_oldest", "left_behind_running")
COLUMNS = ("decisions", "as_spin_age_self", "as_two_patience", *(f"policy_{kind}" for kind in KINDS), *PAIRS, *OLDEST)

Floats = npt.NDArray[np.float64]


def scores(network: Network, vcpus: npt.NDArray[np.float32], host: npt.NDArray[np.float32]) -> Floats:
    """What the kernel computes, in double precision: float64 [V + 1] of observations [V, F] and [G]."""
    w = {name: array.astype(np.float64) for name, array in network.weights.items()}
    x = vcpus.astype(np.float64)
    ranked = x[:, ranked_at(network.scheduler)]
    x = np.hstack([x, 1 / (1 + (ranked[np.newaxis] > ranked[:, np.newaxis]).sum(axis=1))])
    y = np.maximum(x @ w["vcpu1"].T + host @ w["host1"] + w["bias1"], 0)
    asker = int(vcpus[:, VCPU_FEATURES.index("asker")].argmax())
    context = np.concatenate([y.mean(axis=0), y.max(axis=0), y[asker], host])
    z = np.maximum(y @ w["vcpu2"].T + context @ w["context2"] + w["bias2"], 0)
    defer = np.maximum(context @ w["defer1"] + w["defer_bias1"], 0) @ w["defer2"] + w["defer_bias2"]
    found: Floats = np.append(z @ w["vcpu3"].T + w["bias3"], defer)
    return found


def noise(env: PleEnv) -> Floats:
    """The kernel's Gumbel noise for the decision that is due: float64 [V + 1]."""
    record = env.lanes.world[0]
    counters = np.arange(env.lanes.vcpus + 1, dtype=np.uint64) + np.uint64((int(record["exits"]) - 1) << ACTIONS_BITS)
    bits = rng.mix.py_func(record["policy_key"] + rng.GOLDEN * (counters + np.uint64(1)))  # rng.draw, of many
    found: Floats = GUMBEL[bits >> np.uint64(64 - NOISE_BITS)].astype(np.float64)
    return found


def older_runs(env: PleEnv, vcpus: npt.NDArray[np.float32], one: int) -> bool:
    """Whether somebody runs, the asker aside, who seems to spin for longer than this vCPU."""
    seen = dict(zip(VCPU_FEATURES, vcpus.T, strict=True))
    first = env.lanes.vcpu["first_ple"][0]
    return bool(((seen["running"] > 0) & (seen["suspected_spinner"] > 0) & (first < first[one])).any())


def kind(vcpus: npt.NDArray[np.float32], action: int) -> str:
    """What sort of action it is."""
    if action == len(vcpus):
        return "defer"
    seen = dict(zip(VCPU_FEATURES, vcpus[action], strict=True))
    if seen["asker"]:
        return "resume"
    if seen["suspected_spinner"]:
        return "spinner"
    return "holder" if seen["left_in_kernel"] else "other"


def measure(task: Task) -> dict[str, int]:
    """One run of the policy."""
    network = read_policy(file_of(task.policy))
    assert isinstance(network, Network)
    env = PleEnv(world(task.scenario, task.overrides), observation="tokens", information=network.information)
    found = dict.fromkeys(COLUMNS, 0)
    seen: Any
    seen, info = env.reset(seed=task.seed)
    over = False
    while not over:
        drawn = scores(network, seen["vcpus"], seen["host"]) + network.temperature * noise(env)
        action = int(np.where(info["action_mask"], drawn, -np.inf).argmax())
        rules = {rule: env.ask(rule) for rule in RULES}
        mine, other = (kind(seen["vcpus"], one) for one in (action, rules["spin-age-self"]))
        found["decisions"] += 1
        found["as_spin_age_self"] += action == rules["spin-age-self"]
        found["as_two_patience"] += action == rules["two-patience"]
        found[f"policy_{mine}"] += 1
        found[f"{other}_{mine}"] += action != rules["spin-age-self"]
        found["pulled_oldest"] += mine == "spinner" and not older_runs(env, seen["vcpus"], action)
        if (other, mine) == ("spinner", "resume"):
            found["left_behind_running"] += older_runs(env, seen["vcpus"], rules["spin-age-self"])
        seen, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return {name: int(value) for name, value in found.items()}


def run(quick: bool) -> list[Task]:
    """The best policy."""
    return tasks(WORLD, best(), seeds.LEADERBOARD[: 1 if quick else 10], SHORT)


def shares(table: Table) -> dict[str, float]:
    """Every count as a share of all decisions."""
    return {name: float(table[name].sum() / table["decisions"].sum()) for name in COLUMNS[1:] if name not in OLDEST}


def checks(table: Table) -> list[Check]:
    """How often they agree, and the differences that are most frequent."""
    found = shares(table)
    rows = [
        Check("agreement", f"decisions as `{rule}` would", f"{found['as_' + rule.replace('-', '_')]:.1%}")
        for rule in RULES
    ]
    rows += [Check("agreement", f"the policy's action: {kind}", f"{found['policy_' + kind]:.1%}") for kind in KINDS]
    for pair in sorted(PAIRS, key=lambda pair: -found[pair])[:6]:
        rule, policy = pair.split("_")
        rows.append(Check("agreement", f"`spin-age-self`: {rule}, the policy: {policy}", f"{found[pair]:.1%}"))
    return rows


def draw(table: Table, path: Path) -> None:
    """The rule's kind against the policy's, where they differ."""
    found = shares(table)
    grid = np.array([[100 * found[f"{rule}_{policy}"] for policy in KINDS] for rule in KINDS])
    with picture(path, 6, 4.5) as (_, axis):
        axis.grid(False)
        axis.imshow(grid, cmap="Blues")
        for (i, j), value in np.ndenumerate(grid):
            if value:
                axis.text(j, i, f"{value:.1f}", ha="center", va="center", color=COLOURS[1])
        axis.set_xticks(range(len(KINDS)), KINDS)
        axis.set_yticks(range(len(KINDS)), KINDS)
        axis.set(xlabel="the policy does", ylabel="spin-age-self would", title="differences, % of all decisions")


EXPERIMENT = Experiment("agreement", __doc__, COLUMNS, run, checks, draw, measure, (CHECKPOINTS,))
