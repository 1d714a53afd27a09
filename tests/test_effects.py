"""What is known of real machines, reproduced: each test is a published or measured effect."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from machine import totals, traced
from worlds import ON_CREDIT

from ple_gym.lanes import Lanes
from ple_gym.scenario import Host, Limit, Noise, Scenario, Vm
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.traces import events as tr

HOLDER_PREEMPTED = load("HolderPreempted")
TICKET_ORDER = load("TicketOrder")
MHZ = 2_670  # cycles per microsecond of the paper's machine

#: A VM that computes without end and without locks.
BUSY = Vm(transactions=0, sections=1, compute="exponential 2670000", kernel_share=0.0, locks=0, lock_probability=0.0)


def longest_dispatch(rule: str = "xen-4.5", seed: int = 0, **overrides: object) -> int:
    """Exits in the dispatch that had most of them, while the holder is off the only pCPU."""
    scenario = HOLDER_PREEMPTED.with_overrides({name.replace("__", "."): value for name, value in overrides.items()})
    return totals(scenario, rule, seed)["ple_per_dispatch"]["max"]


# ------------------------------------------------------------------------------- the rate limit: why a spinner goes on


@pytest.mark.parametrize("seed", range(5))
def test_a_waiter_exits_484_times_before_it_gives_way(seed: int) -> None:
    """The paper's Figure 3: R / (W + C_exit). A yield is in vain for the first millisecond of a dispatch (Xen 4.5)."""
    assert abs(longest_dispatch(seed=seed) - 1000 * MHZ // (4096 + 1420)) <= 1
    assert abs(longest_dispatch(seed=seed) - 484) <= 1


def test_a_dearer_exit_explains_the_papers_other_count() -> None:
    assert abs(longest_dispatch(cost__exit=1708) - 460) <= 2


@pytest.mark.parametrize("ratelimit_us", [250, 500, 2000])
def test_the_count_is_proportional_to_the_rate_limit(ratelimit_us: int) -> None:
    assert longest_dispatch(host__ratelimit_us=ratelimit_us) == pytest.approx(484 * ratelimit_us / 1000, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_xen_48_gives_way_at_once(seed: int) -> None:
    """A yield bypasses the rate limit (commit 9fdd2f3c9c): no dispatch has more than two exits."""
    assert 1 <= longest_dispatch("xen-4.8", seed) <= 2
    assert 1 <= longest_dispatch("host", seed, profile="xen-4.8") <= 2
    assert 1 <= longest_dispatch("xen-4.5", seed, host__ratelimit_us=0) <= 2


# ----------------------------------------------------------------------------------- the processor: window, gap, count


@dataclass(frozen=True)
class Stall:
    """A waiter that is resumed at every exit, while the holder waits for its pCPU."""

    exits: int
    spin: int
    exit: int

    @property
    def rate(self) -> float:
        """Exits per stalled cycle."""
        return self.exits / (self.spin + self.exit)


def stalled(**overrides: object) -> Stall:
    scenario = HOLDER_PREEMPTED.with_overrides({name.replace("__", "."): value for name, value in overrides.items()})
    result = totals(scenario, "continue")
    return Stall(result["exits"], result["cycles"]["spin"], result["cycles"]["exit"])


@pytest.mark.parametrize(("window", "factor"), [(8192, 0.57), (512, 2.85)])
def test_the_exit_rate_follows_the_window(window: int, factor: float) -> None:
    assert stalled(ple__window=window).rate / stalled(ple__window=4096).rate == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("cost", [500, 1420, 5000])
@pytest.mark.parametrize("window", [512, 4096, 8192])
def test_an_exit_comes_at_the_first_pause_beyond_the_window(window: int, cost: int) -> None:
    """One in W + C_exit cycles, W rounded up to the spin loop's period; what is left over at a tick is little."""
    period = HOLDER_PREEMPTED.guest.spin_period
    stall = stalled(ple__window=window, cost__exit=cost)
    assert stall.exits > 500
    assert stall.rate == pytest.approx(1 / ((window // period + 1) * period + cost), rel=0.005)


def test_a_window_longer_than_the_timeslice_never_ends() -> None:
    assert stalled(ple__window=100_000_000).exits == 0


def test_the_gap_is_a_switch() -> None:
    """PAUSEs come every 50 cycles: within a gap of 50 or more they are one loop, whatever the gap is."""
    normal = stalled().exits
    assert normal > 1000
    assert [stalled(ple__gap=gap).exits for gap in (0, 32, 49)] == [0, 0, 0]
    assert [stalled(ple__gap=gap).exits for gap in (50, 128, 1000, 10_000)] == [normal] * 4


def test_spinning_in_user_mode_is_not_noticed() -> None:
    for rule in ("continue", "xen-4.5", "oracle"):
        result = totals(HOLDER_PREEMPTED.with_overrides({"guest.spin_in_user_mode": True}), rule)
        assert result["finished"] and result["exits"] == 0 and result["cycles"]["spin"] > 0


@pytest.mark.parametrize("count", [40, 80, 3000])
def test_amd_counts_pauses(count: int) -> None:
    """The filter counts down to zero, so that `count` PAUSEs take count - 1 periods."""
    period = HOLDER_PREEMPTED.guest.spin_period
    stall = stalled(ple__kind="count", ple__count=count)
    assert stall.exits > 50
    assert stall.rate == pytest.approx(1 / ((count - 1) * period + 1420), rel=0.01)


def test_amd_threshold_below_the_spin_period_disables_the_filter() -> None:
    """Each PAUSE then reloads the counter. Without a threshold every PAUSE counts."""
    exits = {gap: stalled(ple__kind="count", ple__count=80, ple__gap=gap).exits for gap in (0, 32, 49, 50, 128)}
    assert exits[32] == exits[49] == 0
    assert exits[0] == exits[50] == exits[128] > 1000


# ---------------------------------------------------------------------------------------------- lock-waiter preemption


@pytest.mark.parametrize("rule", ["continue", "xen-4.5", "xen-4.8", "paper", "kvm", "oracle"])
@pytest.mark.parametrize("kind", ["ticket", "mcs"])
def test_waiters_in_line_exit_though_the_lock_is_free(kind: str, rule: str) -> None:
    """Lock-waiter preemption (the paper's 4.3.2): the next in line is off the CPU, and nobody may overtake it."""
    result = totals(TICKET_ORDER.with_overrides({"guest.lock_kind": kind}), rule)
    assert result["lwp_events"] > 0
    assert result["exits_lock_free"] > 0.1 * result["exits"]


@pytest.mark.parametrize("rule", ON_CREDIT)
def test_without_tickets_nobody_spins_on_a_free_lock(rule: str) -> None:
    result = totals(TICKET_ORDER.with_overrides({"guest.lock_kind": "tas"}), rule)
    assert result["exits"] > 0
    assert result["exits_lock_free"] == result["lwp_events"] == 0


def test_without_overcommit_nobody_loses_its_pcpu_while_it_holds_a_lock() -> None:
    for name, overrides in (("Storm", {"guest.vcpus": 4}), ("Paper8", {"guest.vcpus": 4, "noise.rate_hz": 0})):
        for rule in ("xen-4.5", "xen-4.8", "kvm"):
            result = totals(load(name).with_overrides(overrides), rule)
            assert result["finished"]
            assert result["lhp_events"] == result["lwp_events"] == 0


# ----------------------------------------------------------------------------------------------- paravirtual spinlocks


def exits_of_halted_waits(ratelimit_us: int) -> list[int]:
    """For each wait that came to an end by halting: how many exits it had until then."""
    scenario = TICKET_ORDER.with_overrides({"guest.pv_spin_threshold": 32_768, "host.ratelimit_us": ratelimit_us})
    lanes, trace = traced(scenario, "xen-4.5")
    exits, halted = dict.fromkeys(range(6), 0), []
    for _, kind, _, vcpu, lock in trace.tolist():
        if kind == tr.TRY:
            exits[vcpu] = 0
        elif kind == tr.PLE:
            exits[vcpu] += 1
        elif kind == tr.BLOCK and lock >= 0:
            halted.append(exits[vcpu])
            exits[vcpu] = 0
    assert len(halted) == lanes.world["halts"][0] > 0
    return halted


def test_a_paravirtual_waiter_halts_after_32768_iterations_whatever_the_rate_limit() -> None:
    """The rival explanation of the paper's counts: exits per wait, not per dispatch, so the limit does not matter."""
    most = 32_768 * 50 // 4_100  # the window, rounded up to the period
    for ratelimit_us in (500, 1000, 2000):
        counts = exits_of_halted_waits(ratelimit_us)
        assert max(counts) <= most
        assert np.median(counts) == pytest.approx(most, rel=0.02)


def test_a_halted_waiter_leaves_its_pcpu_to_others() -> None:
    spinning, halting = (
        totals(TICKET_ORDER.with_overrides({"guest.pv_spin_threshold": threshold}), "continue")
        for threshold in (0, 32_768)
    )
    assert halting["finished"] and halting["halts"] > 0
    assert halting["now"] < spinning["now"] / 10


def waits_until_halting(scenario: Scenario) -> tuple[list[int], list[list[int]]]:
    """Of each wait that came to halting, how long it took; and the trace."""
    _, trace = traced(scenario, "host")
    tried, halted = {}, []
    for t, kind, _, vcpu, lock in trace.tolist():
        if kind == tr.TRY:
            tried[vcpu] = t
        elif kind == tr.BLOCK and lock >= 0:
            halted.append(t - tried[vcpu])
    return halted, trace.tolist()


LINUX_PV = {"guest.lock_kind": "pv", "guest.pv_spin_threshold": 2**15}


def test_a_waiter_of_linux_halts_after_32768_pauses_and_behind_a_halted_one_after_none() -> None:
    """Four vCPUs with a pCPU each, a lock held for 10 ms, no exits: a look at the one before each 256 PAUSEs."""
    guest = Vm(vcpus=4, transactions=40, sections=1, lock_probability=1.0, compute="exponential 1000000")
    guest = replace(guest, hold=f"constant {10_000 * MHZ}")
    scenario = Scenario(host=Host(pcpus=4), guest=guest).with_overrides({**LINUX_PV, "ple.gap": 0})
    times, trace = waits_until_halting(scenario)
    most, look = 2**15 * 50, 256 * 50
    assert times[0] == most  # the head
    assert times.count(0) > 5  # behind a halted one
    early = [time for time in times if 0 < time < most]
    assert early and all(time % look == 0 for time in early)
    kinds = [kind for _, kind, _, _, lock in trace]
    assert kinds.count(tr.WAKE) == len(times), "each is woken once"


def test_stealing_saves_a_guest_whose_line_is_off_its_cpus() -> None:
    """Where strict order falls apart, a lock that can be stolen does not (Linux 4.15: hybrid queued and unfair)."""
    queued, stolen = (
        totals(TICKET_ORDER.with_overrides({**LINUX_PV, "guest.lock_kind": kind}), "host") for kind in ("mcs", "pv")
    )
    assert stolen["finished"] and stolen["now"] < queued["now"] / 2


def lost(kernel: str, seed: int) -> int:
    """Cycles that four pCPUs lose to eight vCPUs with eight busy locks: spinning, exits, switches, cold caches."""
    paper = load("Paper8")
    busy = replace(paper.guest, transactions=1000, locks=8, hold="exponential 53400")
    world = replace(paper, guest=busy).with_overrides({"noise.rate_hz": 0, "guest.profile": kernel})
    cycles = totals(world, "host", seed)["cycles"]
    return cycles["spin"] + cycles["exit"] + cycles["switch"] + cycles["cache"]


def test_test_and_set_guests_lose_less_than_a_hundredth_of_what_ticket_guests_lose() -> None:
    unfair, fair = (sum(lost(kernel, seed) for seed in range(4)) for kernel in ("linux-tas", "linux-ticket"))
    assert 0 < unfair < 0.01 * fair


def test_waiters_that_may_overtake_mend_waiter_preemption_but_not_holder_preemption() -> None:
    """Ouyang and Lange, VEE 2013: relaxing the order is for a line whose next is off its pCPU."""
    strict, relaxed = (
        totals(TICKET_ORDER.with_overrides({"guest.lock_kind": kind}), "host")
        for kind in ("ticket", "preemptable-ticket")
    )
    assert relaxed["finished"] and relaxed["now"] < strict["now"] / 2
    assert relaxed["exits_lock_free"] < strict["exits_lock_free"] / 10
    alone = [
        totals(HOLDER_PREEMPTED.with_overrides({"guest.lock_kind": kind}), "host")["ple_per_dispatch"]["max"]
        for kind in ("ticket", "preemptable-ticket")
    ]
    assert alone[0] == alone[1] > 400


# ---------------------------------------------------------------------------------------------- long-spin notifications


def exits_of_one_wait(**overrides: int) -> tuple[int, int]:
    """PLE exits and notifications of one waiter while the holder is off the only pCPU."""
    changed = {"guest.vcpus": 2, "guest.lock_kind": "mcs", **{n.replace("__", "."): v for n, v in overrides.items()}}
    result = totals(HOLDER_PREEMPTED.with_overrides(changed), "continue")
    return result["exits"] - result["notifications"], result["notifications"]


def test_a_windows_waiter_exits_24_times_before_it_notifies_xen() -> None:
    """2047 retries are 102,400 cycles, and a window of 4096 takes 4100: PLE comes first, again and again (C.7)."""
    assert exits_of_one_wait(guest__notify_after=0)[1] == 0
    exits, notifications = exits_of_one_wait(guest__notify_after=2047)
    assert notifications > 30
    assert exits / notifications == pytest.approx(24, rel=0.01)


def test_where_ple_sees_no_loop_only_the_notification_is_left() -> None:
    exits, notifications = exits_of_one_wait(guest__notify_after=2047, guest__spin_period=150)
    assert exits == 0 and notifications > 20


def test_a_notification_has_its_own_cost() -> None:
    """Half of a waiter's time is for the handler if that is as dear as the spinning before it."""
    changed = {"guest.vcpus": 2, "guest.notify_after": 99, "ple.gap": 0, "cost.notify": 5000}
    result = totals(HOLDER_PREEMPTED.with_overrides(changed), "continue")
    assert result["exits"] == result["notifications"] > 0
    assert result["cycles"]["exit"] == 5000 * result["exits"]


# ---------------------------------------------------------------------------------------------------- the host's rules


def test_who_wakes_preempts_who_computes() -> None:
    """BOOST: whoever mostly sleeps runs as soon as the rate limit lets it, not after a time slice of 30 ms."""
    sleeper = replace(BUSY, vcpus=1, compute="constant 267000", block="exponential 26700000", block_probability=1.0)
    for ratelimit_us in (0, 1000):
        host = Host(pcpus=1, ratelimit_us=ratelimit_us)
        scenario = Scenario(
            host=host, limit=Limit(simulated_s=3.0), guest=sleeper, neighbours=(replace(BUSY, vcpus=1),)
        )
        _, trace = traced(scenario, "xen-4.5", seed=1)
        wakes = trace[(trace[:, 1] == tr.WAKE) & (trace[:, 3] == 0), 0]
        starts = trace[(trace[:, 1] == tr.RUN) & (trace[:, 3] == 0), 0]
        wakes = wakes[wakes < starts[-1]]
        delays = starts[np.searchsorted(starts, wakes)] - wakes
        assert len(delays) > 200
        assert delays.min() == scenario.cost.ipi  # at once, unless ...
        assert delays.max() <= ratelimit_us * MHZ + scenario.cost.ipi


def longest_idle_beside_a_queue(scenario: Scenario, seed: int) -> int:
    """The longest time that some pCPU was idle while some vCPU was queued elsewhere. (No VM may have a pool.)"""
    lanes, trace = traced(scenario, "xen-4.5", seed)
    now = int(lanes.world["now"][0])
    occupancy, states = tr.occupancy(trace, lanes.pcpus), tr.states(trace, lanes.vcpus)
    idle = occupancy[occupancy[:, 1] == tr.IDLE, 2:].clip(0, now)
    queued = states[np.isin(states[:, 1], (tr.QUEUED, tr.WAITING, tr.PREEMPTED)), 2:].clip(0, now)
    steps = sorted(
        (int(time), step, who)
        for who, spans in enumerate((idle, queued))
        for begin, end in spans
        for time, step in ((begin, 1), (end, -1))
    )
    count, since, longest = [0, 0], None, 0
    for time, step, who in steps:
        count[who] += step
        if all(count):
            since = time if since is None else since
        elif since is not None:
            longest, since = max(longest, time - since), None
    assert len(idle) > 100 and len(queued) > 100
    return longest


@pytest.mark.parametrize("seed", range(3))
def test_stealing_leaves_no_pcpu_idle(seed: int) -> None:
    """An idle pCPU is notified of a waking vCPU, and takes it from wherever it is queued.

    What host noise puts back in a queue is not announced, in Xen neither: it waits for its pCPU, or the next tick's
    migration.
    """
    often = {"compute": "exponential 10000000", "block": "exponential 26700000", "block_probability": 0.5}
    sleepers = replace(BUSY, vcpus=8, **often)
    calm = Scenario(host=Host(pcpus=4), limit=Limit(simulated_s=3.0), guest=sleepers)
    assert longest_idle_beside_a_queue(calm, seed) <= 3 * calm.cost.ipi
    noisy = replace(calm, noise=Noise(rate_hz=20, level="constant 1000"))
    tick = noisy.host.timeslice_ms * 1000 // 3 * MHZ
    assert longest_idle_beside_a_queue(noisy, seed) <= tick


@pytest.mark.parametrize(
    ("pcpus", "vcpus", "weights"),
    [(4, (8, 8), (256, 512)), (4, (8, 8), (512, 256)), (2, (4, 4), (256, 512)), (3, (5, 5), (256, 512)),
     (4, (8, 8), (256, 256)), (4, (4, 8), (256, 256))],
)  # fmt: skip
def test_busy_vms_get_the_share_of_their_weight(pcpus: int, vcpus: tuple[int, int], weights: tuple[int, int]) -> None:
    """A weight counts per vCPU; within three points over three seconds."""
    guest, neighbour = (replace(BUSY, vcpus=n, weight=w) for n, w in zip(vcpus, weights, strict=True))
    scenario = Scenario(host=Host(pcpus=pcpus), limit=Limit(simulated_s=3.0), guest=guest, neighbours=(neighbour,))
    entitled = vcpus[0] * weights[0] / (vcpus[0] * weights[0] + vcpus[1] * weights[1])
    for seed in range(3):
        result = totals(scenario, "xen-4.5", seed)
        share = result["vms"][0]["used"] / (pcpus * result["now"])
        assert share == pytest.approx(entitled, abs=0.03)
        assert result["cycles"]["idle"] == 0


@pytest.mark.parametrize(("credit_pcpus", "stolen"), [(0, True), (4, True), (8, False)])
def test_a_pool_with_credit_for_everybody_leaves_nobody_over(credit_pcpus: int, stolen: bool) -> None:
    """Only a pCPU whose next vCPU is OVER, or that has none, steals. With credit for eight, none of seven is OVER."""
    host = Host(pcpus=4, credit_pcpus=credit_pcpus)
    scenario = Scenario(host=host, limit=Limit(simulated_s=1.0), guest=replace(BUSY, vcpus=7))
    assert (totals(scenario, "xen-4.5", 1)["steals"] > 0) == stolen


@pytest.mark.parametrize(("rate_hz", "burst_us"), [(5, 2300), (20, 2500), (50, 2000), (200, 1000)])
def test_host_noise_takes_its_share(rate_hz: int, burst_us: int) -> None:
    """The gap runs from the end of a burst to the next: rate x burst of what is left."""
    noise = Noise(rate_hz=rate_hz, burst_us=burst_us, level="constant 1000", cap_permille=500)
    scenario = Scenario(noise=noise, limit=Limit(simulated_s=20.0), guest=BUSY)
    results = [totals(scenario, "xen-4.5", seed) for seed in range(5)]
    stolen = np.mean([result["cycles"]["stolen"] / (4 * result["now"]) for result in results])
    load_ = rate_hz * burst_us * 1e-6
    assert stolen == pytest.approx(load_ / (1 + load_), rel=0.06)


def test_host_noise_is_capped() -> None:
    noise = Noise(rate_hz=50, burst_us=2000, level="constant 1000000", cap_permille=200)
    result = totals(Scenario(noise=noise, limit=Limit(simulated_s=20.0), guest=BUSY), "xen-4.5")
    assert result["cycles"]["stolen"] / (4 * result["now"]) == pytest.approx(0.2, rel=0.05)


# ------------------------------------------------------------------------------------------------ the paper's machines


RUN = np.dtype([("makespan", "i8"), ("waste", "i8"), ("exits", "i8"), ("finished", "?"), ("dispatches", "i8", (1024,))])


@cache
def runs_of(scenario: Scenario, rule: str, seeds: int = 200) -> np.ndarray:
    """Runs 0 .. seeds-1 under a rule, a record each."""
    runs = np.zeros(seeds, RUN)
    lanes = Lanes(scenario, 2, policy=rule)

    def simulate(lane: int) -> None:
        for seed in range(lane, seeds, 2):
            lanes.run(lane, seed)
            result = lanes.totals(lane)
            waste = result["cycles"]["spin"] + result["cycles"]["exit"]
            dispatches = lanes.histogram[lane, state.DISPATCH_EXITS]
            runs[seed] = (result["now"], waste, result["exits"], result["finished"], dispatches)

    with ThreadPoolExecutor(2) as pool:  # compiled code does not hold the interpreter
        list(pool.map(simulate, range(2)))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Paper8", "Paper32"])
def test_the_most_frequent_dispatch_with_exits_has_480_to_489(name: str) -> None:
    """The paper's 484 and 460 are waits of one dispatch. Bins of width 10, over all runs."""
    dispatches = paired(name, "xen-4.5")["dispatches"].sum(axis=0)
    bins = np.add.reduceat(dispatches, np.arange(0, 1024, 10))
    assert bins.argmax() == 48
    assert bins[48] > dispatches.sum() / 2
    assert dispatches.argmax() == 484


def paired(name: str, rule: str) -> np.ndarray:
    """The 200 paired seeds of a built-in scenario: the same work under every rule."""
    return runs_of(load(name), rule)


def storms(most: int) -> Iterator[tuple[Lanes, tr.Ints]]:
    """Stormy runs of Paper8 under xen-4.5 with at most that many exits, from the paired seeds."""
    for seed, run in enumerate(paired("Paper8", "xen-4.5")):
        if 5_000 < run["exits"] <= most:
            yield traced(load("Paper8"), "xen-4.5", seed)


def exits_while_the_holder_is_off_the_cpu(lanes: Lanes, trace: tr.Ints) -> Iterator[tr.Ints]:
    """For each time that a lock holder is off the CPU: the exits of those who wait for its lock."""
    exits, acquires = trace[trace[:, 1] == tr.PLE], trace[trace[:, 1] == tr.ACQUIRE]
    states = tr.states(trace, lanes.vcpus)
    for holder, _, begin, end in states[states[:, 1] == tr.PREEMPTED].tolist():
        lock = acquires[(acquires[:, 3] == holder) & (acquires[:, 0] <= begin), 4][-1]
        yield tr.window(exits[exits[:, 4] == lock], begin, end)


def exits_while_the_lock_is_free(trace: tr.Ints) -> Iterator[tr.Ints]:
    """For each time that nobody holds a lock: the exits of those who wait for it."""
    exits = trace[trace[:, 1] == tr.PLE]
    for lock in np.unique(exits[:, 4]):
        mine = exits[exits[:, 4] == lock]
        changes = trace[(trace[:, 4] == lock) & np.isin(trace[:, 1], (tr.ACQUIRE, tr.RELEASE))]
        bounds = np.append(changes[:, 0], tr.NEVER)
        for i in np.flatnonzero(changes[:, 1] == tr.RELEASE):
            if bounds[i + 1] - bounds[i] > 4096:
                yield tr.window(mine, bounds[i], bounds[i + 1])


def vcpus_of(exits: tr.Ints) -> set[int]:
    return set(exits[:, 3].tolist())


@pytest.mark.slow
def test_four_others_spin_while_the_holder_is_off_the_cpu() -> None:
    """The paper's Figure 5, lock-holder preemption: at least four vCPUs exit again and again, and the holder waits."""
    found = [
        exits
        for lanes, trace in storms(most=500_000)
        for exits in exits_while_the_holder_is_off_the_cpu(lanes, trace)
        if len(vcpus_of(exits)) >= 4
    ]
    assert found
    assert max(len(exits) for exits in found) > 4 * 484


@pytest.mark.slow
def test_exits_go_on_though_the_lock_is_free() -> None:
    """The paper's Figure 6, lock-waiter preemption: nobody holds the lock, and those in line exit again and again.

    It is the greater part of all storms together: a preempted holder is only the trigger.
    """
    exits, free = 0, []
    for lanes, trace in storms(most=200_000):
        exits += int(lanes.world["exits"][0])
        free += list(exits_while_the_lock_is_free(trace))
    assert sum(len(some) for some in free) > exits / 2
    assert max(len(some) for some in free if len(vcpus_of(some)) >= 4) > 4 * 484


# ------------------------------------------------------------------------------------ what the published rules achieve


def waste(name: str, rule: str) -> int:
    """Cycles spent in spinning and exits, over all paired runs."""
    return int(paired(name, rule)["waste"].sum())


def stormy_makespan(name: str, rule: str) -> float:
    """Mean makespan in cycles over the seeds that storm under xen-4.5."""
    stormy = paired(name, "xen-4.5")["exits"] > 30_000
    assert stormy.sum() >= 10
    return float(paired(name, rule)["makespan"][stormy].mean())


#: Version 0 of the first was calibrated; with the credits of six pCPUs signs are others.
MACHINES = pytest.mark.parametrize("name", ["Paper8-v0", "Paper32"])


@pytest.mark.slow
@MACHINES
def test_giving_way_at_once_wastes_less_than_xen_45(name: str) -> None:
    assert waste(name, "paper") < waste(name, "xen-4.5")
    assert waste(name, "xen-4.8") < waste(name, "xen-4.5")


@pytest.mark.slow
@MACHINES
def test_the_oracle_wastes_least(name: str) -> None:
    assert waste(name, "oracle") < min(waste(name, rule) for rule in ("paper", "xen-4.8", "xen-4.5")) / 5


@pytest.mark.slow
@MACHINES
def test_xen_48_is_faster_in_a_storm(name: str) -> None:
    assert stormy_makespan(name, "xen-4.8") < stormy_makespan(name, "xen-4.5")


@pytest.mark.slow
def test_with_the_credits_of_six_pcpus_nobody_is_stolen_and_giving_way_at_once_wastes_more() -> None:
    assert waste("Paper8", "xen-4.8") > waste("Paper8", "xen-4.5")
    assert stormy_makespan("Paper8", "xen-4.8") > stormy_makespan("Paper8", "xen-4.5")


@pytest.mark.slow
@MACHINES
def test_the_oracle_is_fastest_in_a_storm(name: str) -> None:
    others = [stormy_makespan(name, rule) for rule in ("paper", "xen-4.8", "xen-4.5")]
    assert stormy_makespan(name, "oracle") < min(others)


@pytest.mark.slow
@MACHINES
def test_the_papers_rule_is_faster_in_a_storm(name: str) -> None:
    assert stormy_makespan(name, "paper") < stormy_makespan(name, "xen-4.5")


@pytest.mark.slow
def test_the_order_is_the_same_in_a_storm_of_one_vm_with_32_vcpus() -> None:
    """Set C of the calibration: all 32 vCPUs are the benchmark's, and a vCPU takes a given lock every 72 ms."""
    scenario = load("Paper8-v0").with_overrides({"guest.vcpus": 32, "guest.locks": 200})
    runs = {rule: runs_of(scenario, rule) for rule in ("xen-4.5", "xen-4.8", "paper", "oracle")}
    stormy = runs["xen-4.5"]["exits"] > 30_000
    assert stormy.sum() >= 10
    makespan = {rule: run["makespan"][stormy].mean() for rule, run in runs.items()}
    assert makespan["oracle"] < makespan["xen-4.8"] < makespan["xen-4.5"]
    assert makespan["oracle"] < makespan["paper"] < makespan["xen-4.5"]


@pytest.mark.slow
@MACHINES
def test_over_all_seeds_it_hardly_matters_what_is_decided(name: str) -> None:
    """Nine runs of ten have no storm, so that giving way at once moves the mean makespan by less than one per cent."""
    base = paired(name, "xen-4.5")
    assert (base["exits"] <= 30_000).mean() > 0.8
    for rule in ("xen-4.8", "paper"):
        assert paired(name, rule)["makespan"].mean() == pytest.approx(base["makespan"].mean(), rel=0.01)
    for rule in ("xen-4.5", "xen-4.8", "paper", "oracle"):
        assert paired(name, rule)["finished"].all()
