"""Equal VMs (`count`), and what is told of each VM: work, throughput, the longest steal (docs/model.md, 2 and 13)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ple_gym import ScenarioError
from ple_gym.cli.commands import execute
from ple_gym.evaluate import compare, simulate
from ple_gym.lanes import Lanes
from ple_gym.scenario import Host, Limit, Scenario, Vm
from ple_gym.scenario.builtin import load
from ple_gym.scenario.model import MAX_VCPUS


def several(count: int) -> Scenario:
    return load("Storm").with_overrides({"guest.count": count, "guest.vcpus": 4, "limit.simulated_s": 0.2})


@pytest.mark.parametrize("scheduler", ["credit", "credit2", "fair"])
def test_a_count_is_so_many_tables(scheduler: str) -> None:
    counted = several(3).with_overrides({"host.scheduler": scheduler})
    one = replace(counted.guest, count=1)
    written = replace(counted, guest=one, neighbours=(one, one))
    runs = [simulate(scenario, "host", [5])[0] for scenario in (counted, written)]
    names = [[vm.pop("name") for vm in run["vm"]] for run in runs]
    assert names == [["guest#0", "guest#1", "guest#2"], ["guest", "neighbours.0", "neighbours.1"]]
    assert runs[0] == runs[1]


def test_equal_vms_have_work_of_their_own() -> None:
    lanes = Lanes(several(3), 1, policy="host")
    lanes.run(0, 0)
    assert len(set(lanes.vm["work_key"][0])) == len(set(lanes.vm["useful"][0])) == 3


def test_counts_are_kept_by_every_form_of_a_scenario() -> None:
    scenario = several(3).with_overrides({"guest.count": "2"})
    assert Scenario.from_toml(scenario.to_toml()) == Scenario.from_json(scenario.to_json()) == scenario
    assert (
        scenario.vcpus == 8 and list(scenario.vms()) == ["guest#0", "guest#1"] and list(scenario.tables()) == ["guest"]
    )


def test_all_vms_of_a_count_are_counted_in_the_limits() -> None:
    assert Scenario(guest=Vm(vcpus=1, count=MAX_VCPUS)).vcpus == MAX_VCPUS
    with pytest.raises(
        ScenarioError, match=r"^guest.vcpus = 2 in 513 VMs: all VMs together must have 1..1024 vCPUs, no"
    ):
        Scenario(guest=Vm(vcpus=2, count=513))
    with pytest.raises(ScenarioError, match=r"^guest.threads = 500: all VMs together must have at most 4096, not 4500"):
        Scenario(guest=Vm(threads=500, count=9))
    heavy = {"weight": 65_535, "vcpus": 8}
    long = Host(timeslice_ms=1000, tsc_hz=10**10, pcpus=256)
    assert Scenario(host=long, guest=Vm(**heavy)).vcpus == 8
    with pytest.raises(ScenarioError, match=r"^guest.weight = 65535: weight x vcpus of all VMs must add up to at most"):
        Scenario(host=long, guest=Vm(**heavy, count=4))


def test_warnings_count_equal_vms() -> None:
    silent = [line for line in several(3).with_overrides({"guest.spin_period": 1000}).warnings() if "silently" in line]
    assert silent == ["guest (and 2 like it).spin_period = 1000: longer than ple.gap = 128, PLE is silently dead"]


def alone_on_a_pcpu(vms: int, simulated_s: float = 1.0) -> Scenario:
    """So many VMs of one vCPU that computes without an end, on one pCPU; a slice is 10 ms."""
    vm = Vm(vcpus=1, locks=0, lock_probability=0.0, transactions=0, sections=1, compute="constant 1000000", count=vms)
    host = Host(pcpus=1, tsc_hz=10**9, timeslice_ms=10)
    return Scenario(host=host, limit=Limit(simulated_s=simulated_s), guest=vm)


@pytest.mark.parametrize("vms", [1, 2, 4])
def test_the_longest_steal_is_a_round_of_the_others(vms: int) -> None:
    steals = [vm["longest_steal_ms"] for vm in simulate(alone_on_a_pcpu(vms), "host", [0])[0]["vm"]]
    one_round = 10 * (vms - 1)  # credit that has run out may make it two
    assert all(one_round <= steal <= 2 * one_round + 1e-3 * vms for steal in steals)


def test_who_still_waits_at_the_end_is_counted() -> None:
    first, second = simulate(alone_on_a_pcpu(2, 0.001), "host", [0])[0]["vm"]
    assert sorted([first["longest_steal_ms"], second["longest_steal_ms"]]) == [0, 1]


def test_throughput_is_work_over_time() -> None:
    run = simulate(several(2), "kvm", [1])[0]
    for vm in run["vm"]:
        assert vm["transactions"] == load("Storm").guest.transactions > 0
        assert vm["transactions"] / vm["transactions_per_s"] <= run["simulated_s"] * (1 + 1e-9)
    endless = simulate(alone_on_a_pcpu(1), "host", [0])[0]["vm"][0]
    assert endless["transactions_per_s"] == pytest.approx(1000, rel=0.01) and endless["transactions"] in (998, 999)


def test_a_comparison_gives_each_vms_numbers() -> None:
    comparison = compare(several(2), ["host", "kvm"], range(3))
    expected = [[run["vm"][1]["share"] for run in comparison.runs["kvm"]]]
    np.testing.assert_array_equal(comparison.of_vm("kvm", 1, "share"), expected)


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_table_has_a_line_per_vm(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [command, "Tiny", "--seeds", "0:2", "--set", "guest.count=2"]

    def printed(*more: str) -> str:
        assert execute([*arguments, *more]) == 0
        return capsys.readouterr().out

    assert "guest#1" not in printed()
    text = printed("--per-vm")
    assert "guest#0" in text and "guest#1" in text and "steal" in text
