"""Shared by all tests: the reference simulator is importable, hypothesis repeats itself, no skip goes unnoticed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile(
    "ple_gym", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("ple_gym"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ple_gym"))

#: What a development environment need not have: reasons of skips that `--all-here` lets pass.
ELSEWHERE = (
    "ray", "RLlib", "RL Zoo", "Tianshou", "JAX", "moviepy", "pyarrow", "gcc", "make ", "no clone", "Chromium",
    "no perf",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_module_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's file lets be imported from its folder, no other test finds there."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(autouse=True, scope="session")
def plain_resets_give_up_sooner() -> None:
    """Plain Python starts 20 worlds a second: of a thousand without a decision, none is worth waiting for."""
    from ple_gym import drive
    from ple_gym.sim.jit import JIT_ENABLED

    if not JIT_ENABLED:
        drive.MAX_REPLACEMENTS = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-here", action="store_true", help="fail if a test is skipped that could run here")


class Skips:
    """Notes why tests and whole files were skipped."""

    def __init__(self) -> None:
        self.surprising: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if report.skipped and not any(word in reason for word in ELSEWHERE):
            self.surprising.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.surprising:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print("\nskipped, though it could run here:", *self.surprising, sep="\n  ")


class Coverage:
    """Adds up what random worlds have met, whichever process ran them; too little of anything is a failure."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.tests = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and "met" in (found := dict(report.user_properties)):
            self.counts.update(found["met"])
            self.tests += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from met import RANDOM_RULES, lacking
        from worlds import EXPLORING, JIT_ENABLED

        if self.tests < len(RANDOM_RULES) or not JIT_ENABLED:  # a part of the tests, or hardly any worlds
            return
        if few := lacking(self.counts, 300 if EXPLORING else 1):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print("\ntoo few random worlds have met:", *few, sep="\n  ")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from met import report
        from worlds import EXPLORING

        if self.tests and EXPLORING:
            terminalreporter.write("\n".join(["", *report(self.counts), ""]))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # of xdist the one that hears all
        return
    config.pluginmanager.register(Coverage())
    if config.getoption("--all-here"):
        config.pluginmanager.register(Skips())
