"""Hand-checkable cases of the reference simulator, and its invariants under every rule."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reference_simulator import World, simulate
from reference_simulator.credit import next_after
from reference_simulator.draws import Draws, mix, sample, table
from reference_simulator.metrics import mode, quantile, rounded
from reference_simulator.rules import RULES
from reference_simulator.state import INF

VM = {
    "vcpus": 2,
    "weight": 256,
    "affinity": "any",
    "locks": 1,
    "lock_kind": "ticket",
    "transactions": 2,
    "sections": 1,
    "compute": "constant 50000",
    "hold": "constant 10000",
    "block": "constant 1",
    "kernel_share": 1.0,
    "lock_probability": 1.0,
    "hot_probability": 1.0,
    "block_probability": 0.0,
    "spin_period": 50,
    "spin_in_user_mode": False,
    "pv_spin_threshold": 0,
    "pc_classes": 1,
    "start": "convoy",
}
CONVOY = {
    "host": {
        "pcpus": 1,
        "sockets": 1,
        "credit_pcpus": 0,
        "tsc_hz": 10**9,
        "timeslice_ms": 30,
        "ratelimit_us": 1000,
        "xen": "4.5",
        "runqueue": "socket",
        "yield_bypasses_ratelimit": False,
        "fresh_ratelimit_slice": True,
    },
    "noise": {"rate_hz": 0, "burst_us": 0, "level": "constant 1000", "cap_permille": 500},
    "cost": {
        "exit": 2000,
        "exit_per_candidate": 0,
        "yield_to": 0,
        "switch": 1000,
        "cache": 3000,
        "migration": 4000,
        "remote_migration": 5000,
        "ipi": 700,
        "line": 100,
    },
    "ple": {
        "kind": "window",
        "gap": 128,
        "window": 4096,
        "count": 0,
        "window_grow": 0,
        "window_shrink": 0,
        "window_max": 2**32 - 1,
    },
    "decision": {"actuator": "pull", "pull_swaps": False},
    "limit": {"simulated_s": 1.0},
    "guest": VM,
    "neighbours": [],
}
BUSY = copy.deepcopy(CONVOY)
BUSY["host"].update(pcpus=4, sockets=2, timeslice_ms=3, ratelimit_us=300, fresh_ratelimit_slice=False)
BUSY["noise"] = {"rate_hz": 1000, "burst_us": 80, "level": "uniform 500 1500", "cap_permille": 300}
BUSY["limit"] = {"simulated_s": 0.008}
BUSY["guest"].update(
    vcpus=8,
    locks=3,
    transactions=0,
    sections=4,
    compute="exponential 20000",
    hold="knots 0:500 0.9:5000 0.995:40000 1:200000",
    block="exponential 50000",
    kernel_share=0.4,
    lock_probability=0.7,
    hot_probability=0.5,
    block_probability=0.05,
)
BUSY["neighbours"] = [
    {**BUSY["guest"], "vcpus": 3, "start": "fresh", "transactions": 400, "lock_kind": "tas", "weight": 512},
    {**BUSY["guest"], "vcpus": 4, "start": "fresh", "lock_kind": "mcs", "pv_spin_threshold": 10},
]


def changed(scenario: dict, **parts: dict) -> dict:
    result = copy.deepcopy(scenario)
    for name, fields in parts.items():
        result[name].update(fields)
    return result


def quiet_seed(scenario: dict) -> int:
    """A seed whose first tick, slice end and accounting of pCPU 0 come after 5 ms."""
    for seed in range(10_000):
        world = World(scenario, seed)
        if min(world.acct_at, world.pcpus[0].tick_at, world.pcpus[0].slice_end) > 5_000_000:
            return seed
    raise AssertionError


# Draws and tables


def test_mix_is_splitmix64():
    assert mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first output of SplitMix64 seeded with 0
    assert mix(2 * 0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
    assert mix(0) == 0


def test_draws_depend_on_every_key():
    values = {Draws(s, i).draw(k, c) for s in (0, 1) for i in (0, 1) for k in (1, 2) for c in (0, 1)}
    assert len(values) == 16


def test_tables():
    assert table("constant 7") == (7,) * 505
    uniform = table("uniform 0 8192")
    assert uniform[:3] == (0, 32, 64) and uniform[247:251] == (7904, 7936, 7937, 7938) and uniform[504] == 8192
    assert table("uniform 0 128")[:4] == (0, 0, 1, 2)  # 0, 0.5, 1, 1.5: half to even
    unit = table("exponential 65536")
    assert unit[0] == 0 and unit[128] == round(65536 * math.log(2)) and unit[504] == round(65536 * 16 * math.log(2))
    knots = table("knots 0:100 0.5:400 1:400")
    assert knots[0] == 100 and knots[64] == 200 and knots[128] == 400 and set(knots[128:]) == {400}


def test_sample():
    uniform = table("uniform 0 8192")
    assert sample(uniform, 0) == 0
    assert sample(uniform, 1 << 31) == 4096
    assert sample(uniform, (1 << 24) + (1 << 23)) == 48  # halfway between 32 and 64
    assert sample(uniform, 248 << 24) == 7936
    assert sample(uniform, 2**32 - 1) == 8191


def test_quantiles():
    assert [rounded(x) for x in (31, 63, 64, 65, 66, 1000, 2**40)] == [31, 63, 64, 64, 66, 992, 63 << 30]
    assert quantile([], 50) == 0 and mode([]) == 0
    assert quantile([3, 1, 2], 50) == 2 and quantile([3, 1, 2, 4], 50) == 2
    assert quantile(list(range(1, 31)), 90) == 27 and quantile(list(range(1, 31)), 99) == 30
    assert mode([2, 5, 5, 2, 9]) == 2 and mode([5000, 2000, 1]) == 1023


def test_next_cyclically():
    pcpus = World(BUSY, 0).pcpus
    assert next_after(3, pcpus[:2]).index == 0
    assert next_after(0, pcpus[:2]).index == 1
    assert next_after(1, pcpus[1:2]).index == 1


# One pCPU, two vCPUs: vCPU 0 holds the lock, vCPU 1 (last in line) runs first and spins


def test_convoy_to_the_end_by_hand():
    seed = quiet_seed(CONVOY)
    result = simulate(CONVOY, "xen-4.5", seed)
    # Entry at 1000. PAUSEs every 50; the first more than 4096 after the loop's first is the 83rd, after 4100 cycles.
    # Exit k (from 0) is at 1000 + 4100 + k (2000 + 4100); the yield does nothing before 1000000, so the switch is at
    # the first k with 5100 + 6100 k >= 1000000: k = 164, the 165th exit, at 1005500.
    assert result["ple_per_dispatch"] == {"max": 165, "mode": 165}
    assert result["exits"] == result["exits_holder_off"] == 165
    # vCPU 0: exit 2000, switch 1000, refill 3000, hold 10000: releases at 1021500 to a waiter that does not run.
    # vCPU 1: switch 1000 at the same moment, the line comes at 1022600; refill 3000, hold 10000: released at 1035600.
    # (Its refill is still owed from its first dispatch: a spinner does not pay it.)
    assert result["finished"] and result["now"] == result["vms"][0]["finish"] == 1_035_600
    assert result["lwp_events"] == 1 and result["lhp_events"] == 0 and result["switches"] == 3
    assert result["acquisitions"] == 2 and result["contended"] == 1
    assert result["acquire_wait"] == {"p50": rounded(1_022_600), "p99": rounded(1_022_600), "max": 1_022_600}
    assert result["ple_per_acquisition"]["max"] == 165
    assert result["cycles"] == {
        "useful": 20_000,
        "spin": 165 * 4100 + 100,
        "exit": 165 * 2000,
        "switch": 3000,
        "cache": 6000,
        "idle": 0,
        "stolen": 0,
    }
    assert result["vms"][0]["used"] == 20_000 + 165 * 4100 + 100 + 6000
    assert result["events"] == 165 + 1 + 2  # the exits; a release; the attempt and the last release


def test_convoy_with_bypass_or_a_count():
    seed = quiet_seed(CONVOY)
    assert simulate(CONVOY, "xen-4.8", seed)["exits"] == 1
    assert simulate(CONVOY, "paper", seed)["exits"] == 1
    counting = changed(CONVOY, ple={"kind": "count", "gap": 0, "count": 100})
    # The 100th PAUSE is 4950 after the entry: exits at 1000 + 4950 + k * 6950; k = 144, the 145th, is past 1000000.
    assert simulate(counting, "host", seed)["ple_per_dispatch"]["max"] == 145


def test_no_exits():
    for change in ({"ple": {"gap": 0}}, {"ple": {"gap": 49}}, {"guest": {"spin_in_user_mode": True}}):
        result = simulate(changed(CONVOY, **change), "host", 0)
        assert result["exits"] == 0 and result["finished"] and result["ple_per_dispatch"] == {"max": 0, "mode": 0}


def test_halting_waiter_by_hand():
    scenario = changed(CONVOY, guest={"pv_spin_threshold": 60})
    result = simulate(scenario, "host", quiet_seed(scenario))
    # vCPU 1 enters at 1000, halts at 4000; vCPU 0: switch 1000, refill 3000, hold 10000, releases at 18000, is DONE.
    # vCPU 1: woken, switched in by the same event, enters at 19000, 19100 attempt, refill 3000, hold: 32100.
    assert result["halts"] == 1 and result["exits"] == 0 and result["lwp_events"] == 1
    assert result["now"] == 32_100


def test_private_locks_by_hand():
    scenario = changed(CONVOY, guest={"start": "fresh", "locks": 0, "vcpus": 1, "transactions": 3, "sections": 2})
    result = simulate(scenario, "host", quiet_seed(scenario))
    assert result["now"] == 1000 + 3000 + 3 * 2 * 50_000
    assert result["acquisitions"] == 6 and result["contended"] == 0 and result["events"] == 6


def test_endless_run_ends_at_the_limit():
    result = simulate(changed(CONVOY, guest={"transactions": 0}, limit={"simulated_s": 0.05}), "host", 3)
    assert not result["finished"] and result["now"] == 50_000_000 and result["vms"][0]["finish"] == INF


# Invariants (asserted inside the simulator) under every rule and actuator


@pytest.mark.parametrize("policy", sorted(set(RULES) - {"yield-if-cheap"}))  # which reads what Linux alone keeps
@pytest.mark.parametrize("actuator", ["pull", "local", "hint", "yield"])
def test_busy(policy: str, actuator: str):
    scenario = changed(BUSY, decision={"actuator": actuator, "pull_swaps": actuator == "pull"})
    result = simulate(scenario, policy, seed=5)
    assert sum(result["cycles"].values()) == 4 * result["now"]
    assert sum(vm["useful"] for vm in result["vms"]) == result["cycles"]["useful"]
    assert result["exits"] > 0 and result["cycles"]["stolen"] > 0
    assert result == simulate(scenario, policy, seed=5)


@pytest.mark.parametrize("kind", ["ticket", "mcs", "tas"])
@pytest.mark.parametrize("ple", ["window", "count"])
def test_work_does_not_depend_on_the_policy(kind: str, ple: str):
    scenario = changed(
        BUSY,
        guest={"lock_kind": kind, "transactions": 60, "start": "fresh"},
        ple={"kind": ple, "count": 80},
        limit={"simulated_s": 1.0},
    )
    scenario["neighbours"] = []
    results = [simulate(scenario, policy, seed=2, index=1) for policy in ("host", "continue", "oracle", "random")]
    assert all(result["finished"] for result in results)
    assert len({result["cycles"]["useful"] for result in results}) == 1
    assert len({result["acquisitions"] for result in results}) == 1
