"""The table of features: what is made of its rows, and which rows it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import contended_scenarios

from ple_gym import make_sb3
from ple_gym.drive import OBSERVE, RESET, STEP
from ple_gym.envs.env import PleEnv
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.errors import ArgumentError
from ple_gym.lanes import INFORMATION, Lanes
from ple_gym.scenario import Scenario
from ple_gym.sim.state import DECIDE
from ple_gym.view import codes, credit
from ple_gym.view.features import INTERRUPTS, NEUTRAL_HOST, NEUTRAL_VCPU, OWN, feature_table, seen_in, table_of
from ple_gym.view.observation import writers_of
from ple_gym.view.record import HYPERVISOR, INTROSPECTION, ORACLE
from ple_gym.view.rows import FLAG, Feature, Table, joined, names
from ple_gym.view.scales import coded, halved

TABLE, NO_HOST = table_of("credit"), Table((), ())
PAGE = Path(__file__).resolve().parents[1] / "docs" / "observation.md"


def test_the_page_lists_the_features_as_they_are() -> None:
    assert feature_table() in PAGE.read_text(encoding="utf-8")


def test_a_row_is_refused_that_asks_for_more_than_its_level_sees() -> None:
    """So a hypervisor's feature cannot be computed from what only the guest knows."""
    for level, word in ((HYPERVISOR, "holder"), (HYPERVISOR, "waits"), (INTROSPECTION, "behind"), (ORACLE, "vcpu")):
        writer = eval(f"lambda {word}: {word}")
        peeks = Feature("peeks", level, "what it must not see", FLAG, writer)
        vcpu = [one for one in TABLE.vcpu if one.level <= level] + [peeks]
        with pytest.raises(ValueError, match=f"^feature 'peeks' asks for '{word}': its level has .*suspected|holds"):
            writers_of(Table(tuple(vcpu), TABLE.host))


def test_tables_that_contradict_themselves_are_refused() -> None:
    one, other = NEUTRAL_VCPU[0], NEUTRAL_VCPU[-1]
    for vcpu, message in (
        ([one, one], "'asker' of a vCPU: there are two of that name"),
        ([other, one], "features of a vCPU: each level must follow the one below it"),
        ([replace(one, range=(0.5, 1.0))], r"'asker' of a vCPU: its range \(0.5, 1.0\) must hold 0"),
    ):
        with pytest.raises(ValueError, match=message):
            joined(vcpu, NEUTRAL_HOST, NO_HOST)
    with pytest.raises(ValueError, match="'credit' comes after 'last_run': there is no such feature"):
        joined([one], NEUTRAL_HOST, credit.OWN)


def test_what_belongs_to_a_scheduler_is_not_among_the_neutral_features() -> None:
    neutral = joined(NEUTRAL_VCPU, NEUTRAL_HOST, NO_HOST)
    own = {one.name for one in (*credit.OWN.vcpu, *credit.OWN.host)}
    assert own == {"credit", "priority", "slice_left", "rate_limited"}
    for without, table in ((neutral.vcpu, TABLE.vcpu), (neutral.host, TABLE.host)):
        assert names(without) == tuple(name for name in names(table) if name not in own)
    assert writers_of(neutral).own == 0 and writers_of(TABLE).own == 2


def test_features_of_interrupts_follow_those_of_their_level() -> None:
    more = names(INTERRUPTS)
    for scheduler in OWN:
        without, table = table_of(scheduler), table_of(scheduler, interrupts=True)
        seen = without.vcpu_names(HYPERVISOR)
        assert table.vcpu_names(HYPERVISOR) == (*seen, *more)
        assert names(table.vcpu) == (*seen, *more, *names(without.vcpu)[len(seen) :])
        assert table.host == without.host


def test_each_scheduler_adds_its_own_to_the_same_neutral_features() -> None:
    """And the credit scheduler's table, which learned policies were trained on, is as it was."""
    neutral = joined(NEUTRAL_VCPU, NEUTRAL_HOST, NO_HOST)
    for scheduler, own in OWN.items():
        table = table_of(scheduler)
        for features, ours, without in (
            (table.vcpu, own.vcpu, neutral.vcpu),
            (table.host, own.host, neutral.host),
        ):
            assert all(one.scheduler == scheduler and one.level == HYPERVISOR for one in ours)
            assert [one for one in features if one not in ours] == list(without)
    assert [len(table_of(name).vcpu_names(HYPERVISOR)) for name in ("credit", "credit2", "fair")] == [19, 21, 32]
    assert table_of("credit").host_names == (
        *("queue", "slice_left", "ran", "rate_limited", "idle", "noisy", "spinning", "queued", "asleep"),
        *("queued_spinners", "since_decision", "since_decision_here", "pcpu"),
    )
    assert table_of("credit").vcpu_names(HYPERVISOR) == (
        *("asker", "queued", "running", "asleep", "here", "sibling", "position", "waited", "last_run", "credit"),
        *("priority", "left_in_kernel", "left_by_exit", "suspected_spinner", "exits", "since_exit", "spin_age"),
        *("same_code", "pcpu"),
    )


@pytest.mark.parametrize("scheduler", OWN)
def test_what_a_scheduler_adds_is_within_its_range_and_a_code_of_it(scheduler: str) -> None:
    options: dict[str, Any] = {"overrides": {"host.scheduler": scheduler, "host.linux": "6.14"}}
    plain = PleEnv("TicketOrder", observation="tokens", **options)
    short = PleEnv("TicketOrder", observation="tokens", observation_dtype="uint8", **options)
    values, info = plain.reset(seed=0)
    written, _ = short.reset(seed=0)
    for _ in range(100):
        assert plain.observation_space.contains(values) and short.observation_space.contains(written)
        table = table_of(scheduler)
        assert (written["vcpus"] == codes.encode(values["vcpus"], table.of_vcpu(HYPERVISOR))).all()
        assert (written["host"] == codes.encode(values["host"], table.host)).all()
        action = int(np.flatnonzero(info["action_mask"])[0])
        (values, _, over, cut, info), (written, *_) = plain.step(action), short.step(action)
        if over or cut:
            break


def walked(lanes: Lanes, seed: int, decisions: int) -> None:
    """World `seed` after some decisions, each the legal action that comes first or last, in turns."""
    lanes.world["seed"], lanes.world["index"] = seed, 0
    lanes.drive(0, 1, RESET)
    for k in range(decisions):
        if lanes.world["status"][0] == DECIDE:
            lanes.action[0] = np.flatnonzero(lanes.mask[0])[-(k % 2)]
            lanes.drive(0, 1, STEP)


@pytest.mark.kernel
@settings(max_examples=40)
@given(contended_scenarios(), st.sampled_from(("hypervisor", "introspection", "oracle")), st.integers(0, 40))
def test_every_type_shows_what_float32_shows(scenario: Scenario, level: str, decisions: int) -> None:
    """float16 as NumPy rounds it, codes as `codes.encode` does: to the bit, the run's end included."""
    lanes = {dtype: Lanes(scenario, 1, information=level, observation_dtype=dtype) for dtype in codes.DTYPES}
    for one in lanes.values():
        walked(one, 1, decisions)
        one.observation[:], one.mask[:] = 7, 7
        one.drive(0, 1, OBSERVE)
    plain = lanes["float32"].observation[0]
    table = seen_in(scenario)
    vcpu = [one for one in table.of_vcpu(INFORMATION[level]) for _ in range(lanes["uint8"].vcpus)]
    assert len(plain) == table.length(INFORMATION[level], lanes["uint8"].vcpus)
    assert lanes["float16"].observation[0].tobytes() == plain.astype(np.float16).tobytes()
    assert lanes["uint8"].observation[0].tobytes() == codes.encode(plain, [*vcpu, *table.host]).tobytes()
    assert all((one.mask == lanes["float32"].mask).all() for one in lanes.values())


@pytest.mark.kernel
def test_halves_are_numpys_at_every_exponent_and_tie() -> None:
    """All float16 of either sign up to 2, the numbers half-way between them, and their neighbours in float32."""
    some = np.arange(0x4001, dtype=np.uint16)[:: 7 if halved.__class__.__name__ == "function" else 1]
    exact = some.view(np.float16).astype(np.float32)
    ties = (exact[:-1] + exact[1:]) / 2
    for sign in (np.float32(1), np.float32(-1)):
        for x in sign * np.concatenate([exact, ties, np.nextafter(ties, np.float32(2)), np.nextafter(ties, -ties)]):
            assert halved_bits(x) == x.astype(np.float16).view(np.uint16), x


def halved_bits(x: np.float32) -> int:
    return int(getattr(halved, "py_func", halved)(x))


def test_codes_are_exact_where_it_matters_and_off_by_half_a_step_elsewhere() -> None:
    rng = np.random.default_rng(0)
    for feature in (*TABLE.vcpu, *TABLE.host):
        low, high = feature.range
        ends = np.array([low, 0, high] + ([1] if high > 1 else []), np.float32)[:, np.newaxis]
        assert (codes.decode(codes.encode(ends, [feature]), [feature]) == ends).all()
        values = rng.uniform(low, high, (1000, 1)).astype(np.float32)
        off = codes.decode(codes.encode(values, [feature]), [feature]) - values
        assert np.abs(off).max() <= (high - low) / 504 + 1e-6
        low_, step = codes.lows([feature])[0], codes.steps([feature])[0]
        one_by_one = [getattr(coded, "py_func", coded)(x, low_, step) for x in values[:20, 0]]
        assert one_by_one == codes.encode(values[:20], [feature])[:, 0].tolist()


@pytest.mark.parametrize("dtype", codes.DTYPES)
@pytest.mark.parametrize("observation", ["flat", "tokens"])
def test_spaces_hold_every_feature_s_range_and_what_is_shown(dtype: str, observation: str) -> None:
    options: dict[str, Any] = {"observation": observation, "observation_dtype": dtype, "information": "oracle"}
    env = PleEnv("Storm", **options)
    values, _ = env.reset(seed=0)
    for _ in range(50):
        assert env.observation_space.contains(values)
        values, *_ = env.step(int(np.flatnonzero(env.action_masks())[-2]))
    space: Any = env.observation_space if observation == "flat" else env.observation_space["vcpus"]
    ranges = np.array([one.range for one in TABLE.vcpu])
    low = space.low[:: env.lanes.vcpus][: len(ranges)] if observation == "flat" else space.low[0]
    assert low.tolist() == ([0] * len(ranges) if dtype == "uint8" else ranges[:, 0].tolist())


@pytest.mark.parametrize("observation", ["flat", "tokens"])
def test_codes_decode_to_what_float32_shows(observation: str) -> None:
    plain = PleVectorEnv(3, "TicketOrder", observation=observation)
    short = PleVectorEnv(3, "TicketOrder", observation=observation, observation_dtype="uint8")
    one, two = plain.reset(seed=0)[0], short.interface.decode(short.reset(seed=0)[0])
    for name in one if isinstance(one, dict) else [None]:
        was, found = (one, two) if name is None else (one[name], two[name])
        assert found.dtype == np.float32 and found.shape == was.shape and 0 < np.abs(found - was).max() <= 1 / 250


def test_registered_ids_and_sb3_take_the_type_too() -> None:
    pytest.importorskip("stable_baselines3", reason="an extra")
    assert gym.make("PLE/TicketOrder-v1", observation_dtype="uint8").reset(seed=0)[0].dtype == np.uint8
    assert gym.make_vec("PLE/TicketOrder-v1", 2, observation_dtype="float16").reset(seed=0)[0].dtype == np.float16
    assert make_sb3("TicketOrder", 2, observation_dtype="uint8").reset().dtype == np.uint8
    with pytest.raises(ArgumentError, match=r"^unknown observation_dtype 'float64'; .*known: float32, float16, uint8$"):
        PleEnv("Tiny", observation_dtype="float64")
