"""What `ple-gym bench` measures: that all of it is there, in both forms. How fast anything is, no test says."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from ple_gym import bench, cli
from ple_gym.bench import Measurement, Report, batched, decision, hosts, peers, storm
from ple_gym.bench.batched import Replay, mixed_states
from ple_gym.bench.report import at_least, at_most
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.sim.jit import JIT_ENABLED


@pytest.fixture(scope="module")
def states() -> list[bytes]:
    """Lanes that are 0 to 29 decisions into an episode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched, "EPISODE", 30)
        return mixed_states(8)


def test_storm_scales_with_the_machine() -> None:
    small, large = storm(4, 32), storm(16, 64)
    assert small == SCENARIOS["Storm"]
    assert (large.host.pcpus, large.guest.vcpus, large.guest.locks, large.guest.transactions) == (16, 64, 16, 1800)


# --- the report -------------------------------------------------------------------------------------------------------


def test_a_report_as_json_and_as_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine: dict[str, Any] = dict.fromkeys(("python", "numba", "numpy", "gymnasium", "processor"), "1.0")
    machine |= {"cpus": 2, "load_before": (0.5, 0.4, 0.3), "load_after": (1.5, 0.4, 0.3)}
    rows = [
        Measurement("slow", 90.0, "ns", "<= 30", False, "why"),
        Measurement("left out", None, "s", "<= 45", None, ""),
    ]
    monkeypatch.setattr("ple_gym.bench.measure", lambda quick, announce: Report(rows, machine))
    assert cli.main(["bench", "--quick", "--json", "-"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [row["met"] for row in measured["rows"]] == [False, None]
    assert cli.main(["bench"]) == 0
    out = capsys.readouterr().out
    assert "NO" in out
    assert "load average before 0.50" in " ".join(out.split())  # wherever a narrow terminal breaks it


def test_targets() -> None:
    assert at_least("n", 1.2e6, "1/s", 1_200_000) == Measurement("n", 1.2e6, "1/s", ">= 1,200,000", True, "")
    assert at_least("n", 1.7, "", 1.8).met is False
    assert at_most("n", 1.5, "s", 1.5).met is True
    assert at_most("n", 5.1, "%", 5).met is False
    assert at_most("n", None, "%", 5, "not installed").met is None


@pytest.mark.slow
def test_everything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("simpy")
    assert cli.main(["bench", "--quick", "--json", "-"]) == 0
    measured = json.loads(capsys.readouterr().out)
    values = {row["name"]: row["value"] for row in measured["rows"]}
    left_out = {bench.TRAINING, "import to first step, cold"}
    if find_spec("envpool") is None:
        left_out.add("batched, Storm : EnvPool CartPole-v1, one core")
    assert {name for name, value in values.items() if value is None} == left_out
    # What a call costs is the difference of two loops, either of which may be the faster one by chance.
    positive = {name: value for name, value in values.items() if not name.endswith("called by its address : inlined")}
    assert len(positive) == len(values) - 1
    assert all(value > 0 for value in positive.values() if value is not None)
    assert len(values) == len(measured["rows"]), "no two rows have the same name"


def test_big_machines_are_measured_under_each_hosts_own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "SIZES", ((4, 8),))
    monkeypatch.setattr(hosts, "BIG", {(4, 16): 2.0, (8, 16): None})
    rows = {row.name.removeprefix("kernel, Storm "): row for row in hosts.host_rows(1, 0.001)}
    assert [*rows] == [
        *(f"4x8, {rule}, {name} : credit" for rule in ("host", "kvm") for name in ("credit2", "fair")),
        "4x16 : 4x32, host, cost per event", "8x16 : 4x32, host, cost per event",
        "4x16 : 4x32, credit2, host, cost per event", "4x16 : 4x32, fair, kvm-6.18, cost per event",
    ]  # fmt: skip
    assert all(row.value is not None and row.value > 0 for row in rows.values())
    assert [row.target for row in rows.values()] == ["<= 1.5"] * 4 + ["<= 2", "", "<= 2", "<= 2"]


# --- many lanes -------------------------------------------------------------------------------------------------------


def test_lanes_are_at_different_points_of_their_episodes(states: list[bytes]) -> None:
    envs = Replay(8, states, 8).envs[1]
    envs.reset(options={"state": states})
    exits = envs.lanes.world["exits"].tolist()
    assert len(set(exits)) > 3


def test_steps_are_repeated_exactly(states: list[bytes]) -> None:
    """By `step`, by its compiled part alone and by two threads: each ends where the recording ended."""
    replay = Replay(6, states, 600)
    ends = [replay.envs[1].lanes.rows.copy()]
    for repeat in (replay.step, replay.drive):
        assert repeat().wall > 0
        ends.append(replay.envs[1].lanes.rows.copy())
    replay.step(threads=2)
    ends.append(replay.envs[2].lanes.rows.copy())
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])
    assert replay.decisions == 600
    assert 1 < replay.events_per_decision < 50


def test_lanes_that_step_make_rows(states: list[bytes]) -> None:
    replays = [Replay(16, states, 64), Replay(64, states, 64), Replay(16, states, 64, "uint8")]
    rows = batched.batched_rows(replays, repeats=1)
    names = ["batched, Storm, 16 lanes", "batched, Storm, 64 lanes", "batched, Storm, 16 lanes, uint8"]
    assert [row.name for row in rows[:3]] == names
    assert [row.target for row in rows] == ["", ">= 1,200,000", "", ""]
    assert all(word in row.note for row in rows[:3] for word in ("events/decision", "Python", "observing"))
    assert rows[3].value in (16, 64)
    assert batched.threads_row(replays[0], repeats=1).target == ">= 1.8"


def test_lanes_with_worlds_of_their_own_are_measured_beside_storm(
    states: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "EPISODE", 30)
    monkeypatch.setattr(batched, "WORLDS", 2)
    row = batched.fleet_row(Replay(8, states, 64), 64, repeats=1)
    assert row.name == "batched, 8 lanes, Fleet : Storm" and row.target == ">= 0.7"
    assert row.value is not None and 0 < row.value < 10 and "events/decision" in row.note


@pytest.mark.parametrize(
    ("costs", "most"),
    [
        ({16: 2.0, 64: 1.0, 256: 1.2, 1024: 1.3, 2048: 1.1}, 256),
        ({16: 1.0, 64: 0.9, 256: 0.9}, 256),
        ({16: 1.0, 64: 2.0, 256: 3.0}, 16),
    ],
)
def test_the_cliff_is_after_the_cheapest(costs: dict[int, float], most: int) -> None:
    assert batched._cliff_row(costs).value == most


def test_memory_counts_what_a_lane_has_and_what_a_step_returns() -> None:
    row = batched.memory_row(4096)
    envs = batched.PleVectorEnv(3, "Storm")
    least = envs.lanes.lane_bytes + envs.lanes.observation.nbytes // 3 + envs.lanes.mask.nbytes // 3
    assert row.value is not None
    assert least < row.value < least + 100


# --- decisions --------------------------------------------------------------------------------------------------------


def test_decisions_can_be_repeated_and_timed(states: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are legal, can be repeated, and change nothing."""
    network = decision.random_network("linear")
    for policy in ("spin-age-self", network):
        for state in states:
            decider = decision.Decider([state], policy)
            before = decider.lanes.rows.copy()
            decider.run(1)
            action = int(decider.lanes.action[0])
            decider.run(3)
            assert decider.lanes.action[0] == action
            np.testing.assert_array_equal(decider.lanes.rows, before)
            assert decider.lanes.mask[0, action]
    observing = decision.Decider(states)
    expected = observing.lanes.observation.copy()
    observing.lanes.observation[:] = 0
    observing.run(1)
    np.testing.assert_array_equal(observing.lanes.observation, expected)
    monkeypatch.setattr(decision, "TURNS", 2)
    rows = decision.decision_rows(states, repeats=1)
    assert len(rows) == 5 and all(row.value > 0 and row.unit == "ns/decision" for row in rows)


@pytest.mark.skipif(not JIT_ENABLED, reason="nothing has an address")
def test_a_rule_answers_the_same_by_its_address_and_inlined(states: list[bytes]) -> None:
    asked = [decision.Decider([state], decision.RULE) for state in states]
    for decider in asked:
        decider.run(1)
    answers = sum(int(decider.lanes.action[0]) for decider in asked)
    assert decision.Callers(states, decision.RULE).run(3) == [3 * answers, 3 * answers]
    row = decision.call_row(states, repeats=1)
    assert (row.unit, row.target) == ("ns", "<= 10") and len(row.note.split(" ns")) == 3


# --- others -----------------------------------------------------------------------------------------------------------


def test_absent_peers_are_told_and_are_no_errors(monkeypatch: pytest.MonkeyPatch, states: list[bytes]) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name="simpy" if "simpy" in name else name)

    monkeypatch.setattr(peers, "import_module", absent)
    rows = [peers.envpool_row(Replay(8, states, 8), 1), peers.simpy_row(1)]
    assert [row.value for row in rows] == [None, None]
    assert [row.met for row in rows] == [None, None]
    assert all("not installed" in row.note for row in rows)


def test_gymnasium_s_cartpole_has_no_target(monkeypatch: pytest.MonkeyPatch, states: list[bytes]) -> None:
    monkeypatch.setattr(peers, "CARTPOLE_LANES", (4,))
    (row,) = peers.cartpole_rows(Replay(8, states, 8), 1)
    assert (row.name, row.target) == ("Gymnasium's CartPole-v1, vector, 4 lanes", "")


def test_simpy_is_measured_on_the_same_events() -> None:
    pytest.importorskip("simpy")
    row = peers.simpy_row(1)
    assert row.target == ">= 50"
    assert row.note.endswith("the same events")


def test_a_simpy_model_that_disagrees_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simpy")
    model = peers.import_module(peers.SIMPY_MODEL)
    run = model.SimpyModel.run

    def one_more(self: Any) -> None:
        run(self)
        self.events += 1

    monkeypatch.setattr(model.SimpyModel, "run", one_more)
    with pytest.raises(RuntimeError, match="does not agree"):
        peers.simpy_row(1)


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_is_timed_inside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sb3_contrib")
    training = pytest.importorskip("ple_gym.bench.training", exc_type=ImportError)
    monkeypatch.setattr(training, "STEPS", 4)
    monkeypatch.setattr(training, "LANES", 4)
    monkeypatch.setattr(training, "BATCH", 16)
    row = training.training_row("share", repeats=1)
    assert 0 < row.value < 100
    assert row.target == "<= 5"
    assert "a free environment" in row.note


def test_a_timed_environment_adds_up_what_it_does() -> None:
    pytest.importorskip("sb3_contrib")
    training = pytest.importorskip("ple_gym.bench.training", exc_type=ImportError)
    from ple_gym import make_sb3

    free = training.Free(make_sb3("Storm", num_envs=3))
    timed = training.Timed(free)
    assert timed.reset().shape == free.observation.shape
    before = timed.seconds
    assert len(timed.env_method("action_masks")) == 3
    timed.step(np.zeros(3, np.int64))
    assert timed.seconds > before > 0
