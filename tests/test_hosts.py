"""The seam of the host: another scheduler is a file of its own, and nothing else knows of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hosts import fifo
from hosts.agreement import check_agreement, seeds, under
from hosts.fifo_reference import Fifo
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine
from reference_simulator.world import HOSTS
from test_observe import walk_and_check
from worlds import contended_scenarios

from ple_gym.drive import CHECK
from ple_gym.envs.env import PleEnv
from ple_gym.errors import PolicyError
from ple_gym.lanes import Lanes
from ple_gym.learned.file import Network, inputs_of, learned_names, shapes_of
from ple_gym.policies import load_compiled
from ple_gym.scenario import Scenario, ScenarioError, load
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.soundness import FLAWS
from ple_gym.view.features import names_at


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    """The line that a scheduler of the package would have in each of the two tables."""
    SCHEDULERS["fifo"], HOSTS["fifo"] = fifo.__name__, Fifo
    yield
    del SCHEDULERS["fifo"], HOSTS["fifo"]


def under_fifo(scenario: Scenario) -> Scenario:
    return under("fifo", scenario)


@pytest.mark.kernel
def test_kernel_and_reference_agree_under_a_second_scheduler() -> None:
    check_agreement("fifo")


@pytest.mark.kernel
@settings(max_examples=20)
@given(contended_scenarios(), seeds)
def test_its_states_are_sound(scenario: Scenario, seed: int) -> None:
    m = Machine(under_fifo(scenario), seed)
    for turn in range(20):
        assert FLAWS[m.lanes.drive(0, 1, CHECK)] == ""
        if not m.deciding:
            break
        m.step(m.legal_actions()[turn % len(m.legal_actions())])


@pytest.mark.kernel
@settings(max_examples=20)
@given(contended_scenarios(), seeds, st.sampled_from(("hypervisor", "introspection", "oracle")))
def test_agents_see_its_neutral_features(scenario: Scenario, seed: int, information: str) -> None:
    walk_and_check(information, under_fifo(scenario), seed, 20)


def test_an_environment_runs_under_it_and_networks_of_another_scheduler_are_refused() -> None:
    world = under_fifo(load("TicketOrder"))
    env = PleEnv(world, information="oracle")
    observation, info = env.reset(seed=0)
    own = {"credit", "priority"}
    assert set(names_at("oracle")) - set(names_at("oracle", "fifo")) == own
    assert env.observation_space.contains(observation)
    for _ in range(20):
        observation, _, over, cut, info = env.step(int(np.flatnonzero(info["action_mask"])[-1]))
        assert env.observation_space.contains(observation) and not (over or cut)
    inputs = inputs_of("linear", "hypervisor", "fifo")
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes_of("linear", 0, 0, inputs).items()}
    network = Network("linear", "hypervisor", 0, 0, weights, {}, scheduler="fifo")
    lanes = Lanes(world, 1, policy=network)
    lanes.run(0, 1)
    assert lanes.totals(0)["exits"] > 0
    with pytest.raises(PolicyError, match=r"is for host\.scheduler = fifo, the scenario's is credit"):
        Lanes(load("TicketOrder"), 1, policy=network)
    for name in learned_names():
        with pytest.raises(PolicyError, match=r"is for host\.scheduler = (credit|fair), the scenario's is fifo"):
            Lanes(world, 1, policy=load_compiled(name))


def test_it_is_another_scheduler_than_xens() -> None:
    scenario = load("Storm").with_overrides({"limit.simulated_s": 0.05})
    ends = []
    for world in (scenario, under_fifo(scenario)):
        lanes = Lanes(world, 1, policy="kvm")
        lanes.run(0, 1)
        ends.append(lanes.totals(0))
    assert ends[0] != ends[1] and all(totals["exits"] > 100 for totals in ends)


def test_a_rule_that_reads_another_schedulers_records_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"policy paper: it reads what host.scheduler = credit keeps.* fifo"):
        Lanes(under_fifo(load("Storm")), 1, policy="paper")
    assert load_compiled("paper").scheduler == "credit"


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"host.scheduler = 'cfs': must be credit"):
        load("Storm").with_overrides({"host.scheduler": "cfs"})
