"""Responses: how long a guest takes from the end of a sleep to its next one (docs/model.md, 7.13)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine import Machine
from reference_simulator import simulate as specified
from test_ticks import HOG, MS, totals, world

from ple_gym import ArgumentError, PleEnv, ScenarioError, compare, simulate
from ple_gym.certify.lookahead import CLAIRVOYANT, LookAhead
from ple_gym.course import losses_of, objective
from ple_gym.drive import CHECK, STEP
from ple_gym.evaluate.scores import sample
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario, Vm
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.soundness import FLAWS

#: It sleeps for 2 ms and works for 1 ms, ten times; each response should take no longer than 2 ms.
SLEEPER = replace(
    HOG, transactions=10, compute=f"constant {MS}", block=f"constant {2 * MS}", block_probability=1.0, tick_us=0,
    response_goal_us=2000,
)  # fmt: skip
BESIDE_A_HOG = world(SLEEPER, replace(HOG, transactions=0, tick_us=0), ratelimit_us=5000, xen="4.8")
STORM = load("Storm").with_overrides(
    {"guest.response_goal_us": 100, "guest.block_probability": 0.3, "guest.block": "exponential 100000"}
)
NO_GOAL = {"guest.response_goal_us": 0}


def responses(scenario: Scenario) -> dict[str, int]:
    """What the kernel counts; the reference counts the same."""
    found = totals(scenario)
    assert found == specified(scenario.to_dict(), "host", 0)
    return found["responses"]


@pytest.mark.kernel
def test_a_response_is_steal_and_work() -> None:
    """Beside a hog, which the rate limit protects for 5 ms.

    It sleeps at 0, and the hog begins. It wakes at 2 ms, waits until 5 ms, and works until 6 ms: 4 ms, two goals. Then
    it sleeps, the hog begins, and so on: ten times 6 ms. (Quantiles are the lower ends of bins.)
    """
    twice = {"count": 10, "late": 10, "lateness": 10 * 2 * MS, "p50": 1984, "p99": 1984, "max": 2000}
    assert responses(BESIDE_A_HOG) == twice


@pytest.mark.kernel
def test_a_thread_waits_for_its_vcpu() -> None:
    """Both wake at 2 ms: one responds in 1 ms, the other in 2 ms."""
    pair = replace(SLEEPER, threads=2, thread_switch=0, transactions=2)
    assert responses(world(pair)) == {"count": 2, "late": 0, "lateness": 0, "p50": 496, "p99": 992, "max": 1000}


@pytest.mark.kernel
@pytest.mark.parametrize(("goal_us", "count"), [(2000, 0), (100, 1)])
def test_who_never_gets_on_is_late(goal_us: int, count: int) -> None:
    """At the end, 0.5 ms after its sleep, one is under way: it counts if that is too long already."""
    scenario = world(replace(SLEEPER, response_goal_us=goal_us)).with_overrides({"limit.simulated_s": 0.0025})
    found = responses(scenario)
    assert [found[name] for name in ("count", "late", "lateness", "max")] == [n * count for n in (1, 1, 40_000, 5000)]


def test_nothing_depends_on_a_goal() -> None:
    with_goal, without = totals(STORM), totals(STORM.with_overrides(NO_GOAL))
    assert with_goal.pop("responses")["count"] > 0 == without.pop("responses")["count"]
    assert with_goal == without


def test_a_scenario_without_a_goal_keeps_its_digest() -> None:
    """Certificates and tuned values that were made before name it."""
    assert STORM.digest != STORM.with_overrides(NO_GOAL).digest
    assert load("Tiny").digest == "9b140ad0fe1be24f"


@pytest.mark.parametrize("program", ["", "compute constant 1"])
def test_who_never_sleeps_has_no_goal(program: str) -> None:
    with pytest.raises(
        ScenarioError, match=r"guest.response_goal_us = 7: must be 0 \(none\) with guest\..*; a response"
    ):
        Scenario(guest=Vm(response_goal_us=7, block_probability=0.0, program=program))


@pytest.mark.kernel
def test_a_forged_time_is_refused() -> None:
    m = Machine(STORM, 3)
    m.step_until(lambda: (m.guest["wake_at"] < state.INF).any(), lambda: m.consult("oracle"))
    asked_at, asleep = m.lanes.section("response")["asked_at"][0], int(np.argmin(m.guest["wake_at"]))
    assert asked_at[asleep] == m.guest["wake_at"][asleep] and FLAWS[m.lanes.drive(0, 1, CHECK)] == ""
    for v, value in ((asleep, asked_at[asleep] - 1), (m.asker, m.world["now"] + 1), (m.asker, -1)):
        was, asked_at[v] = asked_at[v], value
        assert FLAWS[m.lanes.drive(0, 1, CHECK)] == "a response"
        asked_at[v] = was


# --- what a run's record, scores and rewards make of it ---------------------------------------------------------------


def test_a_record_has_shares_of_the_goal() -> None:
    names = ("responses", "responses_late", "response_p50", "response_p99", "response_max")
    run = simulate(BESIDE_A_HOG, "host", 0)[0]
    assert [run[name] for name in names] == [10, 10, 1.984, 1.984, 2.0]


@pytest.mark.parametrize("p99", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("count", [1, 2])
def test_a_run_counts_as_so_many_times_as_long(count: int, p99: float) -> None:
    scenario = STORM.with_overrides({"guest.count": count})
    without = scenario.with_overrides(NO_GOAL)
    run = simulate(scenario, "host", 0)[0]
    run["response_p99"] = p99
    longer = pytest.approx(np.log(max(1.0, p99)))
    own, other = (sample(one, [[run]]) for one in (scenario, without))
    assert own.above - other.above == longer == own.worst - other.worst
    assert losses_of(scenario, [run], np.inf)[0] - losses_of(without, [run], np.inf)[0] == longer
    assert "responses beyond" in objective(scenario) != objective(without) == "makespan"


def test_a_comparison_scores_late_responses() -> None:
    """The score is that of times that count so many times."""
    found = compare(STORM, ["host", "kvm"], range(3))
    m, h = (
        np.mean([np.log(run["simulated_s"] * max(1, run["response_p99"]) / run["ideal_s"]) for run in found.runs[name]])
        for name in ("kvm", "host")
    )
    assert found.rows()[1].score.mean == pytest.approx(1 - m / h)
    assert "| response |" in found.to_markdown()


def test_a_look_ahead_counts_late_responses_as_time() -> None:
    deciders = [
        LookAhead(STORM.with_overrides({"guest.response_goal_us": goal}), RULES["kvm"], CLAIRVOYANT, 1)
        for goal in (0, 10**7, 100)
    ]
    for one in deciders:
        one.lane.run(0, 7)
    none, kept, late = (float(one._useful(one.lane, 1)[0]) for one in deciders)
    slow = simulate(STORM, "kvm", 7)[0]["response_p99"]
    assert none == kept == pytest.approx(slow * late) and slow > 1
    decider, lane = deciders[-1], deciders[-1].lane
    lane.reset(0, 7)
    while (before := lane.histogram[0, state.RESPONSES].sum()) == 0:
        lane.action[0] = STORM.vcpus
        lane.drive(0, 1, STEP)
    decider._gains(STORM.vcpus, np.array([0]), np.zeros(1, np.int64))
    assert (decider._copies.histogram[:2, state.RESPONSES].sum(axis=1) >= before).all(), "those so far count"


@pytest.mark.parametrize("threads", [0, 40])
def test_the_reward_charges_what_is_late(threads: int) -> None:
    """Those under way too, as time passes."""
    late, waste = (PleEnv(STORM, reward=one, overrides={"guest.threads": threads}) for one in ("response", "waste"))
    for env in (late, waste):
        env.reset(seed=3)
    before, done = late.lanes.responses(0)["lateness"], False
    while not done:
        _, own, ended, cut, _ = late.step(STORM.vcpus)
        _, other, *_ = waste.step(STORM.vcpus)
        after, done = late.lanes.responses(0)["lateness"], ended or cut
        assert own - other == pytest.approx(-(after - before) * 1000 / STORM.host.tsc_hz, abs=1e-6)
        before = after
    assert before > 0


def test_the_reward_needs_a_goal() -> None:
    with pytest.raises(ArgumentError, match="Tiny: no VM has a response_goal_us, which reward 'response' needs"):
        PleEnv("Tiny", reward="response")
