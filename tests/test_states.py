"""No saved state makes the kernel leave its arrays, or run in circles: forged ones, with a right checksum, are refused
or do no harm.
"""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine
from worlds import MORE, contended_scenarios, kicks_under_fair, one_to_one_under_fair, scenarios

from ple_gym.drive import CHECK, GO_ON, STEP
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.lanes import Lanes, _checksum
from ple_gym.rules import RULES
from ple_gym.scenario import Scenario
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.soundness import FLAWS

#: How many states are forged; PLE_FUZZ=long: ten thousand.
FORGED = 10_000 if os.environ.get("PLE_FUZZ") == "long" else 1000
WORLDS = {
    "Storm": {},
    "Tiny": {},
    "TicketOrder": {"guest.lock_kind": "mcs", "guest.pv_spin_threshold": 200},
    "Paper32": {"guest.start": "convoy", "guest.block_probability": 0.1},
    "HolderPreempted": {"guest.vcpus": 9, "host.pcpus": 3, "guest.lock_kind": "tas", "guest.transactions": 900},
    "Storm with threads": {
        "guest.threads": 40,
        "guest.block_probability": 0.3,
        "guest.block": "exponential 30000",
        "guest.response_goal_us": 50,
    },
    "Storm with a program": {
        "guest.start": "fresh",
        "guest.program": "compute constant 900; lock 0-2; compute exponential 9000; lock 3; compute constant 5000; "
        "unlock 0-2; compute exponential 2000; unlock 3; block exponential 3000; jump 0 with 0.5",
    },
    "Storm with interrupts": {
        "guest.start": "fresh",
        "guest.program": "compute exponential 20000; ipi all; lock any; compute exponential 9000; ipi 2; unlock any; "
        "block exponential 3000",
        "host.ipi_visible": True,
        "guest.response_goal_us": 50,
    },
    "Storm of Linux": {"host.scheduler": "fair", "guest.block_probability": 0.2, "guest.block": "exponential 30000"},
    "Tiny of Linux": {
        "host.scheduler": "fair",
        "host.pcpus": 5,
        "host.halt_poll_us": 200,
        "guest.vcpus": 4,
        "guest.block_probability": 0.3,
        "guest.block": "exponential 30000",
    },
    "TicketOrder of Linux": {"host.scheduler": "fair", "host.linux": "5.15", "host.groups": "flat"},
}


def flaw(lanes: Lanes) -> str:
    return FLAWS[lanes.drive(0, 1, CHECK)]


def signed(lanes: Lanes, row: np.ndarray) -> bytes:
    """A state with a right checksum."""
    body = lanes._header + row.tobytes() + lanes.histogram[0].tobytes()
    return body + _checksum(body)


def at_decision(name: str, number: int) -> Lanes:
    """A lane at some decision of a world."""
    m = Machine(load(name.split()[0]).with_overrides(WORLDS[name]), seed=number)
    for turn in range(number % 40):
        if m.deciding:
            m.step(m.legal_actions()[(number + turn) % len(m.legal_actions())])
    if not m.deciding:
        m.reset(number)
    return m.lanes


def forge(lanes: Lanes, generator: np.random.Generator) -> np.ndarray:
    """The row of a lane with one to three numbers replaced: by small, large, negative or random ones."""
    twin = Lanes(lanes.scenario, 1)
    twin.rows[0] = lanes.rows[0]
    sections = [twin.section(name)[0].reshape(-1) for name in twin.sections]
    for _ in range(generator.integers(1, 4)):
        records = sections[generator.integers(len(sections))]
        if records.dtype.names:
            records = records[records.dtype.names[generator.integers(len(records.dtype.names))]]
        if records.ndim > 1:
            records = records[:, generator.integers(records.shape[1])]
        if records.dtype.kind == "f" or not len(records):
            continue
        limits = np.iinfo(records.dtype)
        near = int(records[generator.integers(len(records))])
        value = [
            near,
            near + int(generator.integers(-3, 4)),
            int(generator.integers(0, 40)),
            limits.max - int(generator.integers(0, 3)),
            limits.min + int(generator.integers(0, 3)),
            int(generator.integers(limits.min, limits.max, endpoint=True, dtype=records.dtype)),
        ][generator.integers(6)]
        records[generator.integers(len(records))] = min(max(value, limits.min), limits.max)
    return twin.rows[0]


@pytest.mark.kernel
@settings(max_examples=(100 if JIT_ENABLED else 10) * MORE)
@given(
    contended_scenarios() | scenarios() | one_to_one_under_fair() | kicks_under_fair(),
    st.integers(0, 2**63 - 1),
    st.sampled_from(sorted(name for name, rule in RULES.items() if not rule.scheduler)),
)
def test_no_state_that_a_run_is_in_is_refused(scenario: Scenario, seed: int, rule: str) -> None:
    m = Machine(scenario, seed, policy=rule)
    for turn in range(25):
        assert flaw(m.lanes) == ""
        if not m.deciding:
            break
        m.step(m.legal_actions()[turn % len(m.legal_actions())])
    if m.deciding:
        m.lanes.drive(0, 1, GO_ON, decides=True)
    assert flaw(m.lanes) == "", "the run has ended"


@pytest.mark.parametrize("name", WORLDS)
def test_a_forged_state_is_refused_or_does_no_harm(name: str) -> None:
    """Each is put into a lane; what is accepted runs on under random actions and a rule, and stays sound."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    refused = 0
    lanes = None
    for number in range(FORGED // len(WORLDS)):
        if lanes is None or number % 20 == 0:
            lanes = at_decision(name, number)
            target = Lanes(lanes.scenario, 1, information="oracle")
            target.reset(0, 1)
        row = forge(lanes, generator)
        before, observed = target.rows.copy(), target.observation.copy()
        try:
            target.restore(0, signed(target, row))
        except ValueError as error:
            assert "damaged" in str(error)
            assert (target.rows == before).all()
            assert (target.observation == observed).all()
            refused += 1
            continue
        for _ in range(30):
            if target.world["status"][0] != state.DECIDE:
                break
            target.action[0] = generator.choice(np.flatnonzero(target.mask[0]))
            target.drive(0, 1, STEP)
            assert flaw(target) == ""
        target.reset(0, 1)
    assert 0.2 * FORGED < refused * len(WORLDS) < FORGED, "nearly all, or hardly any, were refused"


@pytest.mark.parametrize(
    ("section", "field", "index", "value"),
    [
        ("world", "deciding", 0, 10**6),
        ("pcpu", "current", 0, 3 * 10**9),
        ("pcpu", "queued", 1, 10**9),
        ("vcpu", "pcpu", 0, 5000),
        ("vcpu", "state", 3, state.RUNNING),
        ("guest", "lock", 3, 70_000),
        ("guest", "next_waiter", 3, 3),
        ("guest", "wake_at", 3, 0),
        ("host_vm", "active", 0, -1),
    ],
)
def test_what_made_the_kernel_write_outside_its_arrays_is_refused(
    section: str, field: str, index: int, value: int
) -> None:
    lanes = Lanes(load("Storm"), 1)
    lanes.reset(0, 1)
    twin = Lanes(load("Storm"), 1)
    twin.rows[:] = lanes.rows
    twin.section(section)[0][field][index] = value
    with pytest.raises(ValueError, match="the saved state is damaged: "):
        lanes.restore(0, signed(lanes, twin.rows[0]))


def test_a_state_of_another_length_is_refused() -> None:
    lanes = Lanes(load("Tiny"), 1)
    lanes.reset(0, 1)
    with pytest.raises(ValueError, match="bytes"):
        lanes.restore(0, signed(lanes, np.append(lanes.rows[0], np.zeros(8, np.uint8))))


def test_lanes_that_have_not_begun_are_observed_as_nothing() -> None:
    """With the holder in sight the kernel followed a line that had no end."""
    envs = PleVectorEnv(2, "Storm", information="oracle")
    observations, infos = envs.reset(seed=0, options={"reset_mask": np.array([True, False])})
    assert observations[0].any() and not observations[1].any()
    assert infos["_seed"].tolist() == [True, False]
    saved = envs.get_state(1)
    envs.set_state(1, saved)
    assert envs.get_state(1) == saved
