"""Long work in the kernel returns to Python now and then, where it can be ended; that changes nothing else."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from ple_gym import drive
from ple_gym.envs.env import PleEnv
from ple_gym.envs.pool import Pool
from ple_gym.envs.vector import PleVectorEnv
from ple_gym.lanes import Lanes
from ple_gym.scenario.builtin import load
from ple_gym.sim import state
from ple_gym.sim.jit import JIT_ENABLED

STORM = load("Storm")
#: Nothing is ever decided here, so that a reset goes through 1,001 worlds.
NEVER_DECIDES = {"ple.gap": 0, "guest.transactions": 20_000, "limit.simulated_s": 10}


class Enough(Exception):
    """Raised between two parts of a run."""


class After:
    """Ends a run after so many calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, lane: int) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Enough


def long_run(lanes: Lanes, between=None) -> dict:
    lanes.run(0, 3, between=between)
    return lanes.totals(0)


@pytest.mark.skipif(not JIT_ENABLED, reason="takes minutes")
def test_a_long_run_can_be_ended_and_its_lane_used_again() -> None:
    scenario = load("Paper8").with_overrides({"guest.start": "convoy"})
    expected = long_run(Lanes(scenario, 1, policy="continue"))
    assert expected["events"] > 5 * drive.EVENTS_PER_CALL
    lanes = Lanes(scenario, 1, policy="continue")
    with pytest.raises(Enough):
        long_run(lanes, After(3))
    assert lanes.world["status"][0] == state.ADVANCING
    assert 3 * drive.EVENTS_PER_CALL <= lanes.world["events"][0] <= 4 * drive.EVENTS_PER_CALL
    assert long_run(lanes) == long_run(lanes, After(10**6)) == expected


@pytest.mark.kernel
@pytest.mark.parametrize("start", ["first", "storm"])
def test_it_does_not_matter_how_often_the_kernel_returns(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    def story(events: int) -> list:
        monkeypatch.setattr("ple_gym.lanes.EVENTS_PER_CALL", np.int64(events))
        env, envs = PleEnv("Storm", start=start), PleVectorEnv(2, "Storm", start=start)
        told = [env.reset(seed=1)[0].tobytes(), envs.reset(seed=1)[0].tobytes()]
        for turn in range(20):
            action = turn * 7 % (env.action_space.n)  # some of them illegal
            told += [env.step(action)[:2], *(part.tolist() for part in envs.step([action, 0])[:4]), env.get_state()]
        lanes = Lanes(load("Tiny"), 1, policy="kvm")
        lanes.run(0, 1)
        return [repr(told), lanes.totals(0)]

    assert story(7) == story(1 << 17)


def test_a_run_ends_at_two_thousand_million_events() -> None:
    lanes = Lanes(STORM, 1, policy="host")
    lanes.run(0, 1)
    whole = int(lanes.world["events"][0])
    lanes.reset(0, 1)
    before = state.MAX_EVENTS - 100 - lanes.world["events"][0]
    lanes.world["events"] += before
    lanes.drive(0, 1, drive.GO_ON, decides=True)
    assert whole > 1000
    assert lanes.world["events"][0] == state.MAX_EVENTS
    assert lanes.world["status"][0] == state.TIMED_OUT
    assert 0 < lanes.world["now"][0] < STORM.limit.simulated_s * STORM.host.tsc_hz


def interrupt_after(seconds: float) -> None:
    """Let this thread receive what Ctrl-C sends."""
    threading.Timer(seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()


@pytest.mark.skipif(not JIT_ENABLED, reason="a part of a run takes seconds")
def test_ctrl_c_ends_a_reset_that_finds_no_decision() -> None:
    env = PleEnv("Storm", overrides={"ple.window": 10**9, **NEVER_DECIDES, "ple.gap": 128})
    interrupt_after(0.3)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        env.reset(seed=0)
    assert time.monotonic() - started < 1.3
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)


@pytest.mark.skipif(not JIT_ENABLED, reason="a part of a run takes seconds")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_step_of_many_lanes_and_all_must_be_reset(threads: int) -> None:
    """After the first decisions no lock is taken any more, so that a step goes on to the limit."""
    quiet = {"guest.transactions": 10**9, "limit.simulated_s": 60, "guest.lock_probability": 0.0}
    envs = PleVectorEnv(4, "Storm", overrides=quiet, threads=threads)
    twin = PleVectorEnv(4, "Storm", overrides=quiet, threads=1)
    envs.reset(seed=0)
    interrupt_after(0.3)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100_000):
            envs.step(np.full(4, envs.lanes.vcpus))
    assert time.monotonic() - started < 1.5
    assert not (envs.lanes.world["status"] == state.DECIDE).any()
    assert (envs.reset(seed=7)[0] == twin.reset(seed=7)[0]).all()


def test_no_thread_of_a_pool_is_at_work_when_it_raises() -> None:
    pool, at_work, left = Pool(2, 2), threading.Event(), []

    def work(begin: int, end: int, between=None) -> int:
        if begin == 0:
            at_work.wait()
            raise Enough
        at_work.set()
        while True:
            try:
                between(begin)
            except CancelledError:
                left.append(begin)
                raise

    with pytest.raises(Enough):
        pool.run(work)
    assert left == [1]
    pool.close()
