"""The score: what VMs are entitled to and keep, the ideal, how runs are put together, and who may not cheat."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.answer import suite
from experiments.lab.tables import committed
from experiments.pages import for_maintainers, suites
from ple_gym.evaluate import scores
from ple_gym.evaluate.runs import compare, doubts, simulate, suiting
from ple_gym.evaluate.scores import (
    KEPT,
    STATISTICS,
    Sample,
    allowance,
    beyond,
    guarded,
    has_room,
    iqm,
    kept,
    sample,
    scored,
    shares,
    slower,
)
from ple_gym.evaluate.statistics import Estimate, Floats, ratio
from ple_gym.rules import RULES
from ple_gym.scenario import Host, Scenario, Vm
from ple_gym.scenario.builtin import SCENARIOS, load

HOG = Vm(vcpus=2, transactions=0, locks=0, lock_probability=0.0, kernel_share=0.0)
WITH_HOG = Scenario(host=Host(pcpus=4), guest=Vm(vcpus=6), neighbours=(HOG,))
TWINS = Scenario(host=Host(pcpus=4), guest=Vm(vcpus=4, count=2))
MANY = [name for name, scenario in SCENARIOS.items() if len(scenario.vms()) > 1]
#: Where a rule of the red team is simply good: it comes to `longest-sibling` there, or nearly; on fair hosts groups
#: keep what every VM is due, whatever is hinted.
GOOD = {
    **{name: {"starve", "favour"} for name in ("KvmShootdown", "KvmServer614", "KvmFlushes618Flat")},
    **{name: {"starve"} for name in ("KvmDbench", "KvmWindows", "Consolidated")},
    "KvmServer614Flat": {"hold"},
}


def floats(low: float, high: float, most: int = 12) -> st.SearchStrategy[Floats]:
    return st.lists(st.floats(low, high), min_size=1, max_size=most).map(np.array)


def vm(finish: float | None, useful: float, share: float) -> dict[str, float | None]:
    return {"finish_s": finish, "useful_s": useful, "share": share}


def run(seconds: float, *vms: dict[str, float | None], stolen: float = 0.0) -> dict[str, object]:
    cycles = {"stolen": stolen * 4 * seconds * WITH_HOG.host.tsc_hz}
    return {"simulated_s": seconds, "ideal_s": 1.0, "cycles": cycles, "vm": list(vms)}


def found(scenario: Scenario, *runs: dict[str, object]) -> Sample:
    one = sample(scenario, [runs])
    assert one is not None
    return one


def alone(above: Floats) -> Sample:
    """Runs of a single VM."""
    return Sample(above, above, np.ones((len(above), 1)), np.ones((len(above), 1)))


# --- entitled, ideal, kept --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.1, 10), st.integers(1, 8)), min_size=1, max_size=6), st.integers(1, 16))
def test_shares_are_by_weight_and_nothing_is_left_that_someone_could_use(
    vms: list[tuple[float, int]], pcpus: int
) -> None:
    weights, most = np.array([w for w, _ in vms]), np.array([float(m) for _, m in vms])
    given_ = shares(weights, most, pcpus)
    assert given_.sum() == pytest.approx(min(pcpus, most.sum()))
    assert (given_ <= most + 1e-9).all()
    below = given_ < most - 1e-9
    assert np.ptp(given_[below] / weights[below]) < 1e-9 if below.any() else True


def test_the_ideal_leaves_a_hog_what_it_must_be_left() -> None:
    # By vCPUs the hog has a quarter of the four pCPUs: 0.9 must be left it, 3.1 are there for 6.2 s of work.
    own = found(WITH_HOG, run(4.0, vm(4.0, 6.2, 0.6), vm(None, 99.0, 0.2)))
    assert own.above[0, 0] == pytest.approx(np.log(4.0 / 2.0)) == own.worst[0, 0]
    # It is entitled to 1 of 4 pCPUs, the guest to 3; noise takes a tenth of both.
    noisy = found(WITH_HOG, run(4.0, vm(4.0, 6.2, 0.6), vm(None, 99.0, 0.2), stolen=0.1))
    assert own.got[0, 0] == pytest.approx([0.6, 0.2]) and own.entitled[0, 0] == pytest.approx([0.75, 0.25])
    assert noisy.entitled == pytest.approx(0.9 * own.entitled)


def test_who_is_first_leaves_its_share_to_the_others() -> None:
    # Twins with 4 s of work each on four pCPUs: both by their shares in 2 s, or one after the other.
    fair = found(TWINS, run(2.0, vm(2.0, 4.0, 0.5), vm(2.0, 4.0, 0.5)))
    unfair = found(TWINS, run(2.0, vm(1.0, 4.0, 0.5), vm(2.0, 4.0, 0.5)))
    assert fair.above == pytest.approx(0) == fair.worst
    assert fair.entitled[0, 0] == pytest.approx([0.5, 0.5]) and kept(TWINS, fair, fair) == 1
    assert unfair.entitled[0, 0] == pytest.approx([0.25, 0.75])
    assert kept(TWINS, unfair, fair) == pytest.approx(4 / 6)
    # The other twin has its turn in the next run: nobody is worse off, on the mean.
    other = run(2.0, vm(2.0, 4.0, 0.5), vm(1.0, 4.0, 0.5))
    assert kept(TWINS, found(TWINS, run(2.0, vm(1.0, 4.0, 0.5), vm(2.0, 4.0, 0.5)), other), fair) == pytest.approx(1)
    # What the host does not give the worst off is not due, but only to VMs of a kind.
    assert kept(TWINS, unfair, unfair) == 1
    hog = found(WITH_HOG, run(4.0, vm(4.0, 6.2, 0.3), vm(None, 99.0, 0.25)))
    less = found(WITH_HOG, run(4.0, vm(4.0, 6.2, 0.3), vm(None, 99.0, 0.125)))
    assert kept(WITH_HOG, less, hog) == pytest.approx(0.5)


def test_the_worst_vm_is_measured_by_its_own_ideal() -> None:
    small_and_large = Scenario(host=Host(pcpus=4), guest=Vm(vcpus=4), neighbours=(Vm(vcpus=4),))
    # 1 s of work beside 7: done after 0.5 s and 2 s, if each has its share.
    late = found(small_and_large, run(2.0, vm(1.0, 1.0, 0.1), vm(2.0, 7.0, 0.9)))
    assert late.above == pytest.approx(0) and late.worst == pytest.approx(np.log(2))


def test_weights_count_as_the_host_counts_them() -> None:
    two = replace(WITH_HOG, guest=Vm(vcpus=6, weight=512))
    by_vm = replace(two, host=replace(two.host, scheduler="fair", groups="vm"))
    flat = replace(two, host=replace(two.host, scheduler="fair", groups="flat"))
    records = run(4.0, vm(4.0, 6.2, 0.3), vm(None, 1.0, 0.1))
    assert found(two, records).entitled[0, 0, 1] == pytest.approx(1 / 7) == found(flat, records).entitled[0, 0, 1]
    assert found(by_vm, records).entitled[0, 0, 1] == pytest.approx(1 / 3)


def test_an_allowance_is_what_is_entitled_or_what_the_host_gives() -> None:
    """By vCPUs three quarters of the machine are the guest's; noise takes a tenth of them."""
    poor, rich = (run(4.0, vm(4.0, 6.2, share), vm(None, 99.0, 1 - share)) for share in (0.6, 0.9))
    assert allowance(WITH_HOG, [poor, poor]) == pytest.approx(0.75)
    assert allowance(WITH_HOG, [run(4.0, vm(4.0, 6.2, 0.6), vm(None, 99.0, 0.3), stolen=0.1)]) == pytest.approx(0.675)
    assert allowance(WITH_HOG, [rich, rich]) == pytest.approx(0.9)
    assert beyond(WITH_HOG, poor, 0.75) == 0 and beyond(WITH_HOG, rich, 0.75) == pytest.approx(np.log(0.9 / 0.75))
    assert np.isinf(allowance(TWINS, [run(2.0, vm(2.0, 4.0, 0.5), vm(2.0, 4.0, 0.5))]))


def test_without_an_end_or_work_there_is_no_score() -> None:
    endless = replace(WITH_HOG, guest=HOG)
    assert sample(endless, [[run(1.0, vm(None, 1.0, 0.5), vm(None, 1.0, 0.5))]]) is None
    assert sample(WITH_HOG, [[run(1.0, vm(None, 0.0, 0.5), vm(None, 1.0, 0.5))]]) is None
    assert sample(WITH_HOG, [[{"simulated_s": 1.0, "ideal_s": 1.0}]]) is None, "it does not say who did the work"
    assert simulate("TicketOrder", "kvm", 0)[0]["vm"][0]["finish_s"] is not None


def test_a_hog_that_is_run_instead_of_the_work_scores_nothing() -> None:
    host = found(WITH_HOG, run(4.0, vm(4.0, 6.2, 0.75), vm(None, 4.0, 0.25)))
    busy = found(WITH_HOG, run(6.0, vm(6.0, 6.2, 0.5), vm(None, 12.0, 0.5)))  # all pCPUs do useful work
    assert scored(WITH_HOG, busy, host) == pytest.approx(1 - np.log(3) / np.log(2))


# --- runs put together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", STATISTICS)
@given(floats(0.01, 3), st.randoms(use_true_random=False))
def test_order_does_not_count_the_host_scores_0_the_ideal_1_and_none_more(
    statistic: str, above: Floats, random: Random
) -> None:
    host = alone(above)
    order = np.array(random.sample(range(len(above)), len(above)))
    own = alone(above / 2)
    mixed = alone(own.above[order])
    first, again = (scored(SCENARIOS["Storm"], one, host, statistic) for one in (own, mixed))
    assert first == pytest.approx(again) == pytest.approx(0.5)
    assert scored(SCENARIOS["Storm"], host, host, statistic) == 0
    assert scored(SCENARIOS["Storm"], alone(0 * above), host, statistic) == 1


@pytest.mark.parametrize("statistic", STATISTICS)
@given(floats(0.01, 3), st.integers(0, 11), st.floats(0, 2))
def test_a_longer_run_is_never_better(statistic: str, above: Floats, at: int, longer: float) -> None:
    host = alone(above)
    slow = above.copy()
    slow[at % len(slow)] += longer
    value = scored(SCENARIOS["Storm"], alone(slow), host, statistic)
    assert value is not None and value <= 1e-12


def test_the_middle_half_by_hand() -> None:
    assert iqm(np.arange(8.0)) == 3.5 == iqm(np.array([-99.0, 3, 4, 99]))
    assert iqm(np.array([0.0, 1, 5])) == pytest.approx((0.25 * 0 + 1 + 0.25 * 5) / 1.5)  # of 3 runs 0.75 at each end go
    assert iqm(np.array([2.0])) == 2


@given(floats(0, 5), st.floats(0, 1))
def test_who_takes_what_others_are_due_gets_no_more_than_0(values: Floats, share: float) -> None:
    given_ = Estimate(float(values.mean()), float(values.min()), float(values.max()))
    value = guarded(given_, share)
    assert value is not None and value.low is not None
    assert value == given_ if share >= KEPT else (value.low <= value.mean <= 0)
    assert guarded(None, share) is None


def test_a_suite_is_the_mean_of_its_worlds_and_those_at_the_ideal_do_not_count() -> None:
    far, near = (alone(np.full(8, x)) for x in (1.0, 0.01))
    half, none = replace(far, above=far.above / 2), replace(far, above=far.above * 1.0)
    world = SCENARIOS["Storm"]
    assert has_room(far) and not has_room(near)
    both = [(world, half, far), (world, none, far)]
    value = scores.suite_score([*both, (world, half, near)])
    assert value is not None and value.few
    assert (value.mean, value.low, value.high) == (0.25, 0.0, 0.5)  # both worlds may be the one or the other
    assert scores.suite_score([(world, half, near)]) is None
    ahead = scores.suite_score(both, than=[(world, none, far)] * 2)
    assert ahead is not None and (ahead.mean, ahead.low) == (0.25, 0.0)
    same = scores.suite_score(both, than=both)
    assert same is not None and (same.mean, same.low, same.high) == (0, 0, 0), "both are drawn alike"


def test_a_suite_s_interval_counts_seeds_too() -> None:
    random = np.random.default_rng(0)
    host = random.uniform(0.5, 1.5, 40)
    one = alone(host)
    own = replace(one, above=host * random.uniform(0, 1, 40))
    value = scores.suite_score([(SCENARIOS["Storm"], own, one)])
    assert value is not None and value.low is not None and value.high is not None
    assert 0.05 < value.high - value.low < 0.4
    assert value.low < value.mean < value.high


# --- who may not cheat ------------------------------------------------------------------------------------------------


def test_what_is_found_of_bounds_changes_no_score() -> None:
    policies = ["host", "kvm-6.18", "spin-age-self"]
    few, more = (compare("KvmDbench", names, range(4)) for names in (policies, [*policies, "oracle", "holder"]))
    assert [few.score(name) for name in policies] == [more.score(name) for name in policies]


@pytest.mark.parametrize("name", MANY)
def test_no_rule_of_the_red_team_has_a_score_above_0_but_where_it_harms_nobody(name: str) -> None:
    table = committed("suite")
    stand, runs = suite.standings(table, name), suite.samples(table, name)
    for rule in suite.RED:
        own, host, value = runs[rule], suite.host_sample(table, name), stand[rule].score
        assert own is not None and value is not None and value.low is not None
        if rule.partition(":")[2] in GOOD.get(name, ()):
            worst = scored(load(name), own, host, "worst VM")
            assert value.low > 0 and stand[rule].kept > 0.93 and worst is not None and worst > 0, rule
        else:
            assert value.low <= 0, rule


def test_a_cheat_that_works_is_seen_and_said() -> None:
    red = suite.RED[2]
    comparison = compare("XcpWindows", ["host", red], range(16))
    assert comparison.makespans(red).mean() < 0.9 * comparison.makespans("host").mean(), "it does not cheat"
    value, share = comparison.score(red), comparison.kept(red)
    assert value is not None and value.mean == 0 and share is not None and share < 0.85
    assert any(red in line and "is due" in line for line in doubts(comparison))


def test_zero_is_the_rule_that_the_host_has() -> None:
    kernels = {"6.6": "kvm-5.13", "6.14": "kvm-6.13", "6.18.2": "kvm-6.18"}
    for name, scenario in SCENARIOS.items():
        host = scenario.host
        assert suite.own(name) == (kernels[host.linux] if host.scheduler == "fair" else "host")
    stand = suite.standings(committed("suite"), "KvmShootdown")
    yields, own = stand["host"].score, stand["kvm-5.13"].score
    assert yields is not None and yields.high is not None and yields.high < -1 and own is not None and own.mean == 0
    lines = suites.PAGE.read_text(encoding="utf-8").partition("## deploy")[2].splitlines()
    assert lines[4].startswith("| *score 0* | `kvm-5.13`, left out | `kvm-5.13` |")


# --- what the table says ----------------------------------------------------------------------------------------------


def test_the_pages_are_what_the_table_says() -> None:
    table = committed("suite")
    assert suites.PAGE.read_text(encoding="utf-8") == suites.page(table), "run: python -m experiments results"
    assert for_maintainers.PAGE.read_text(encoding="utf-8") == for_maintainers.page(
        *map(committed, for_maintainers.NEEDS)
    )


def test_every_rule_was_run_on_every_scenario_it_suits_on_the_same_seeds() -> None:
    table = committed("suite")
    for name, scenario in SCENARIOS.items():
        part = table.where(scenario=suite.scenario_id(name))
        assert [one for one in part.distinct("policy") if one in RULES] == suiting(scenario)
        numbers = {tuple(part.where(policy=rule)["seed"].tolist()) for rule in part.distinct("policy")}
        assert len(numbers) == 1 and len(next(iter(numbers))) >= 60, name


@pytest.mark.parametrize(
    ("name", "own", "seeds"), [("KvmShootdown", "kvm-5.13", 100), ("KvmServer614", "kvm-6.13", 60)]
)
def test_the_table_scores_as_a_comparison_of_the_same_runs_does(name: str, own: str, seeds: int) -> None:
    """Late responses count in both."""
    rules = ["host", own, "spin-age-self"]
    comparison = compare(name, rules, range(2_800_000, 2_800_000 + seeds))
    stand = suite.standings(committed("suite"), name)
    assert comparison.baseline == suite.own(name) == own and stand[own].change.mean == 0
    if load(name).has_goals:
        late = [np.mean([slower(load(name), run) for run in comparison.runs[rule]]) for rule in ("host", own)]
        bare = [np.log(comparison.makespans(rule)).mean() for rule in ("host", own)]
        told = 100 * np.expm1(bare[0] + late[0] - bare[1] - late[1])
        assert abs(late[0] - late[1]) > 0.01 and stand["host"].change.mean == pytest.approx(told, abs=0.1)
    for rule in ("host", "spin-age-self"):
        value, kept_ = comparison.score(rule), comparison.kept(rule)
        there = stand[rule].score
        assert value is not None and there is not None and value.low is not None
        assert (there.mean, there.low) == pytest.approx((value.mean, value.low), abs=1e-3)
        assert stand[rule].kept == pytest.approx(kept_, abs=1e-2)


def test_who_wins_is_clearly_better_than_the_host_and_nobody_is_clearly_better() -> None:
    table = committed("suite")
    for name in SCENARIOS:
        stand = suite.standings(table, name)
        logs = {rule: np.log(table.where(scenario=suite.scenario_id(name), policy=rule)["took_ns"]) for rule in stand}
        for rule in (rule for rule, one in stand.items() if one.wins):
            change = stand[rule].change
            assert change.high is not None and change.high < 0
            for other in stand:
                against = ratio(logs[other] - logs[rule])
                if against.high is not None and against.high < 0 and not against.few:
                    cheats = other not in RULES or stand[other].kept < KEPT
                    assert cheats or (RULES[other].privileged and not RULES[rule].privileged), (name, rule, other)
    assert not any(suite.standings(table, "KvmDbench")[rule].wins for rule in suite.RED)
