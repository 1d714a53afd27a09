"""The score of a policy: 0 = the host's own rule, 1 = the ideal; none above 0 for who takes from a VM what it is due.

It rests on totals of runs, on the host's and on the ideal, and on no bound that somebody may improve.

- **The ideal** is a makespan without waiting, switching and idling: the useful work of the VMs that end, on all pCPUs
  but those that endless VMs must be left.
- **Entitled** is a VM, at any moment, to its share by weight of the pCPUs among the VMs that have not ended, at most to
  one pCPU per vCPU; what it cannot use so goes to the others. Time that noise takes away is nobody's.
- **Due** it is that, or what the host's own rule leaves the worst off of the VMs like it, if that is less: who sleeps,
  or waits for locks, does not take all that it is entitled to.
- The **allowance** of VMs with an end, beside endless ones, is what they are entitled to, or what they have under the
  host's own rule if that is more. Where rules are tuned and policies searched, CPU time beyond it counts as time:
  nobody gets fast by taking it from endless VMs.
- Where VMs have a `response_goal_us`, a run whose 99 % quantile of responses takes r > 1 times its goal counts as r
  times as long (weight 1).
- **Kept** is what the worst off VM receives of what it is due: CPU time received / entitled, both on the mean of the
  runs, as shares of the machine.

Weights count as the host counts them: of a VM on a fair host with a group per VM, of each vCPU elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from ple_gym.evaluate.statistics import Bools, Estimate, Floats
from ple_gym.scenario.affinity import pcpus_of
from ple_gym.scenario.model import Scenario

KEPT = 0.9
"""The least that every VM must receive of what it is due."""
NEAR = 0.03  # where the host is nearer to the ideal, in logarithms, a score would be mostly noise
ENOUGH_WORLDS = 10  # with fewer, an interval over worlds says little of others
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """What a score needs of a policy's runs on a scenario.

    Attributes:
        above: log(makespan / ideal) per run, and what late responses add to it, [n] or, of k trained policies on the
            same seeds, [k, n].
        worst: the same of each run's VM that is furthest above its own ideal.
        got: CPU time that each VM received, as a share of all pCPU time, [..., VMs].
        entitled: and what it was entitled to.
    """

    above: Floats
    worst: Floats
    got: Floats
    entitled: Floats


World: TypeAlias = tuple[Scenario, Sample, Sample]
"""A scenario, a policy's sample and the host's, on the same seeds [n]."""


def sample(scenario: Scenario, runs: Sequence[Sequence[Mapping[str, Any]]]) -> Sample | None:
    """The sample of runs [k, n], each a record of `simulate`.

    Returns:
        None if no VM ever ends, a run did no useful work, or its record says nothing of VMs where some are endless.
    """
    if scenario.endless:
        return None
    found = [[_measured(scenario, run) for run in row] for row in runs]
    whole = [[one for one in row if one is not None] for row in found]
    if any(len(some) < len(row) for some, row in zip(whole, found, strict=True)):
        return None
    return Sample(*(np.array([[one[part] for one in row] for row in whole]) for part in range(4)))


def kept(scenario: Scenario, own: Sample, host: Sample) -> float:
    """What the worst off VM receives of what it is due, on the mean of the runs; 1 where there is only one VM."""
    if own.got.shape[-1] < 2:
        return 1.0
    return least_kept(scenario, *(of_entitled(one.got, one.entitled) for one in (own, host)))


def least_kept(scenario: Scenario, gets: Floats, got: Floats) -> float:
    """The same, of what each VM receives of what it is entitled to: under a policy, and under the host."""
    vms = len(gets)
    if vms < 2:
        return 1.0
    due, first = np.empty(vms), 0
    for vm in scenario.tables().values():
        due[first : first + vm.count] = min(1.0, got[first : first + vm.count].min())
        first += vm.count
    return float((gets / due).min())


def of_entitled(got: Floats, entitled: Floats) -> Floats:
    """CPU time received / entitled, of each VM, [VMs], on the mean of runs [..., VMs]."""
    received, own = (times.reshape(-1, times.shape[-1]).mean(axis=0) for times in (got, entitled))
    return np.asarray(received / own)


def allowance(scenario: Scenario, runs: Sequence[Mapping[str, Any]]) -> float:
    """The share of all pCPU time that the VMs with an end may have, from runs of the host's own rule; infinite if all
    VMs have an end or none has."""
    ends = _ends(scenario)
    if ends.all() or not ends.any():
        return math.inf
    entitled = [_entitled_shares(scenario, run)[ends].sum() for run in runs]
    return max(float(np.mean(entitled)), float(np.mean([_taken(run, ends) for run in runs])))


def beyond(scenario: Scenario, run: Mapping[str, Any], allowance: float) -> float:
    """The logarithm of how much more than their allowance they took in a run; 0 if no more.

    Examples:
        >>> from ple_gym import simulate
        >>> from ple_gym.evaluate.scores import allowance, beyond
        >>> from ple_gym.scenario import load
        >>> busy = load("Paper32")
        >>> run = simulate(busy, "host", 1)[0]
        >>> beyond(busy, run, allowance(busy, [run])), round(beyond(busy, run, allowance(busy, [run]) / 2), 3)
        (0.0, 0.693)
    """
    if math.isinf(allowance):
        return 0.0
    return max(0.0, math.log(max(_taken(run, _ends(scenario)), 1e-9) / allowance))


def slower(scenario: Scenario, run: Mapping[str, Any]) -> float:
    """The logarithm of how many times as long a run counts as it was, because its responses took too long; 0 if none
    did, or no VM has a goal."""
    return math.log(max(1.0, run["response_p99"])) if scenario.has_goals else 0.0


def _ends(scenario: Scenario) -> Bools:
    return np.array([vm.transactions > 0 for vm in scenario.vms().values()])


def _taken(run: Mapping[str, Any], ends: Bools) -> float:
    return float(sum(vm["share"] for vm in compress(run["vm"], ends)))


def guarded(value: Estimate | None, share: float) -> Estimate | None:
    """A score, which is at most 0 if the worst off VM has `kept` less than it must."""
    if value is None or share >= KEPT:
        return value
    low, high = (None if end is None else min(0.0, end) for end in (value.low, value.high))
    return replace(value, mean=min(0.0, value.mean), low=low, high=high)


def iqm(values: Floats) -> float:
    """Mean of the middle half of all values; those at its ends count in part.

    Examples:
        >>> from ple_gym.evaluate.scores import iqm
        >>> iqm(np.array([0.0, 2.0, 4.0, 100.0]))
        3.0
    """
    return float(_iqm(values.reshape(1, -1))[0])


def _iqm(values: Floats) -> Floats:
    """Of each row."""
    n = values.shape[1]
    places = np.arange(n)
    weights = np.clip(np.minimum(places + 1, 0.75 * n) - np.maximum(places, 0.25 * n), 0, None)
    return np.asarray(np.sort(values, axis=1) @ weights / weights.sum())


def _p95(values: Floats) -> Floats:
    n = values.shape[1]
    return np.asarray(np.sort(values, axis=1)[:, max(1, -(-95 * n // 100)) - 1])


def _cvar10(values: Floats) -> Floats:
    return np.asarray(np.sort(values, axis=1)[:, -max(1, -(-values.shape[1] // 10)) :].mean(axis=1))


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=1))


#: How runs are put together: of which of a sample's numbers, and by what function of rows.
STATISTICS: Mapping[str, tuple[str, Callable[[Floats], Floats]]] = MappingProxyType(
    {
        "mean": ("above", _mean),
        "IQM": ("above", _iqm),
        "p95": ("above", _p95),
        "CVaR10": ("above", _cvar10),
        "worst VM": ("worst", _mean),
    }
)


def scored(scenario: Scenario, own: Sample, host: Sample, statistic: str = "mean") -> float | None:
    """A policy's score on one scenario, of one of `STATISTICS`: 1 - that of the policy / that of the host.

    Returns:
        None if the host is as good as at the ideal, where the scale has no length.
    """
    field, of = STATISTICS[statistic]
    found, zero = (float(of(getattr(one, field).reshape(1, -1))[0]) for one in (own, host))
    if zero <= 0:
        return None
    value = 1 - found / zero
    return value if kept(scenario, own, host) >= KEPT else min(0.0, value)


def has_room(host: Sample) -> bool:
    """Whether the host's own rule is far enough from the ideal for a score to mean something."""
    return float(host.above.mean()) >= NEAR


def suite_score(
    worlds: Sequence[World], statistic: str = "mean", than: Sequence[World] = (), draws: int = DRAWS, seed: int = 0
) -> Estimate | None:
    """The mean score of a policy over scenarios, or how much larger it is `than` another policy's on the same.

    Its interval is a bootstrap of two levels: scenarios are drawn, and of each its seeds, the same for all policies.

    Returns:
        None if nowhere the host is far enough from the ideal; such scenarios do not count.
    """
    values = [_mean_score(each, statistic, draws, seed) for each in (worlds, than) if each]
    if not values or any(one is None for one in values):
        return None
    (mean, drawn), *other = [one for one in values if one is not None]
    for less, drawn_less in other:
        mean, drawn = mean - less, drawn - drawn_less
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(mean, float(low), float(high), sum(has_room(host) for _, _, host in worlds) < ENOUGH_WORLDS)


def _mean_score(worlds: Sequence[World], statistic: str, draws: int, seed: int) -> tuple[float, Floats] | None:
    """Over scenarios; of the sample, and of so many draws."""
    random = np.random.default_rng(seed)
    own, drawn = [], []
    for scenario, mine, host in worlds:
        value = scored(scenario, mine, host, statistic) if has_room(host) else None
        if value is not None:
            own.append(value)
            drawn.append(_redrawn((scenario, mine, host), statistic, draws, random))
    if not own:
        return None
    shape = (draws, len(own))
    return float(np.mean(own)), np.array(drawn)[
        random.integers(len(own), size=shape), random.integers(draws, size=shape)
    ].mean(axis=1)


def _redrawn(world: World, statistic: str, draws: int, random: np.random.Generator) -> Floats:
    """The score on one scenario, of so many draws of its seeds."""
    scenario, own, host = world
    field, of = STATISTICS[statistic]
    mine, zero = (getattr(one, field).reshape(-1) for one in (own, host))
    at = random.integers(len(mine), size=(draws, len(mine)))
    of_host = of(zero[at])
    # A draw in which the host is at the ideal has no scale: it gets the whole sample's.
    values = 1 - of(mine[at]) / np.where(of_host > 0, of_host, of(zero[np.newaxis]))
    return values if kept(scenario, own, host) >= KEPT else np.minimum(values, 0.0)


# ------------------------------------------------------------------------------------------------------------- entitled


def shares(weights: Floats, most: Floats, pcpus: float) -> Floats:
    """The pCPUs that are each one's by weight, at most `most`; what one cannot use goes to the others.

    Examples:
        >>> from ple_gym.evaluate.scores import shares
        >>> shares(np.array([1.0, 1.0, 2.0]), np.array([4.0, 4.0, 1.0]), 4).tolist()
        [1.5, 1.5, 1.0]
    """
    given, open_ = np.zeros(len(weights)), weights > 0
    while open_.any():
        each = (pcpus - given.sum()) * weights / weights[open_].sum()
        full = open_ & (each >= most)
        if not full.any():
            return np.where(open_, each, given)
        given[full] = most[full]
        open_ &= ~full
    return given


def _measured(scenario: Scenario, run: Mapping[str, Any]) -> tuple[float, float, Floats, Floats] | None:
    """A run's numbers, as in `Sample`."""
    vms, pcpus, now, ends = run.get("vm"), scenario.host.pcpus, run["simulated_s"], _ends(scenario)
    if vms is None or len(ends) == 1:
        if not ends.all() or not run["ideal_s"]:
            return None
        above = float(np.log(now / run["ideal_s"])) + slower(scenario, run)
        return above, above, np.ones(1), np.ones(1)
    weights, most = _weights(scenario)
    # Of endless VMs as much as must be left them.
    free = pcpus - KEPT * float(shares(weights, most, pcpus)[~ends].sum())
    useful = np.array([vm["useful_s"] for vm in vms])
    if not useful[ends].all():
        return None
    best = _finishes(useful[ends], weights[ends], most[ends], free)
    longer = slower(scenario, run)
    above = float(np.log(now * free / useful[ends].sum())) + longer
    worst = float(np.log(_finish(run)[ends] / best).max()) + longer
    return above, worst, np.array([vm["share"] for vm in vms]), _entitled_shares(scenario, run)


def _finish(run: Mapping[str, Any]) -> Floats:
    """When each VM was done, seconds; the end of the run if it was not."""
    return np.array([run["simulated_s"] if vm["finish_s"] is None else vm["finish_s"] for vm in run["vm"]])


def _entitled_shares(scenario: Scenario, run: Mapping[str, Any]) -> Floats:
    """What each VM was entitled to in a run, as a share of all pCPU time."""
    pcpus, now = scenario.host.pcpus, run["simulated_s"]
    left = 1 - run["cycles"]["stolen"] / (pcpus * now * scenario.host.tsc_hz)
    return np.asarray(left * _entitled(_finish(run), *_weights(scenario), pcpus) / (pcpus * now))


def _weights(scenario: Scenario) -> tuple[Floats, Floats]:
    """Each VM's weight, and the most pCPUs that it can use."""
    host, vms = scenario.host, scenario.vms().values()
    of_vm = host.scheduler == "fair" and host.groups != "flat"
    weights = [float(vm.weight * (1 if of_vm else vm.vcpus)) for vm in vms]
    most = [float(min(vm.vcpus, len(pcpus_of(vm.affinity)) or host.pcpus)) for vm in vms]
    return np.array(weights), np.array(most)


def _entitled(finish: Floats, weights: Floats, most: Floats, pcpus: float) -> Floats:
    """CPU seconds that each VM is entitled to until its finish."""
    found, since = np.zeros(len(finish)), 0.0
    for until in np.unique(finish).tolist():
        open_: Bools = finish >= until
        found += np.where(open_, shares(np.where(open_, weights, 0), most, pcpus) * (until - since), 0)
        since = until
    return found


def _finishes(work: Floats, weights: Floats, most: Floats, pcpus: float) -> Floats:
    """When each VM is done, seconds, if each gets its share of these pCPUs and makes use of all of it."""
    left, found, now = work.copy(), np.zeros(len(work)), 0.0
    while (left > 0).any():
        open_ = left > 0
        speed = shares(np.where(open_, weights, 0), most, pcpus)
        step = float((left[open_] / speed[open_]).min())
        now += step
        left = np.where(open_, left - speed * step, 0)
        left[left <= 1e-12 * work] = 0
        found[open_ & (left == 0)] = now
    return found
