"""The search in worlds of the fleet: what it found is kept, decides as its table says, and the page is of the table."""

from __future__ import annotations

import pytest

pytest.importorskip("joblib")

from experiments.answer import learnable
from experiments.lab import world
from experiments.lab.tables import committed
from experiments.pages import learnable as learnable_page
from ple_gym.certify.certificate import RULE, judge
from ple_gym.certify.plan import FRESH
from ple_gym.course import allowance_of
from ple_gym.evaluate.runs import simulate
from ple_gym.evaluate.scores import KEPT
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES
from ple_gym.rules.own import own_rule
from ple_gym.scenario.builtin import load
from ple_gym.sim.jit import JIT_ENABLED

pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="of many runs: not under make nojit")


def test_what_was_found_is_there_for_every_world() -> None:
    """Rules that a hypervisor could have and that are no setting of the host, and a policy for its scheduler."""
    assert list(learnable.found()) == list(learnable.WORLDS)
    assert set(learnable.KEPT.files()) == {f"{name}.npz" for name in learnable.WORLDS}
    for name, found in learnable.found().items():
        assert len(found.rules) >= learnable.NEXT + 1
        for rule in found.rules:
            assert not load_compiled(rule).privileged and not RULES[rule.partition(":")[0]].settings
        network = learnable.searched(name).network
        assert (network.kind, network.information) == ("linear", "hypervisor")
        network.check_fits(world(name, ""))
    name = learnable.WORLDS[0]
    assert learnable.found()[name].allowance == allowance_of(world(name, ""), learnable.PLAN.training)


def test_the_page_says_what_the_table_says() -> None:
    text = learnable_page.page(committed("learnable"))
    assert text == learnable_page.PAGE.read_text(), "docs/learnable.md is written by the command"
    assert text.count("\n| Fleet-") == len(learnable.WORLDS)


def test_the_best_rule_is_as_good_as_any_that_ran() -> None:
    table = committed("learnable")
    for name in learnable.WORLDS:
        best = learnable.best_rule(table, name)
        for rule in (*learnable.found()[name].rules, own_rule(world(name, ""))):
            assert learnable.change(table, name, rule, best).mean >= 0
        one = learnable_page.World(table, name)
        assert not (one.wins and one.loses) and (one.kept >= KEPT or one.loses)


def test_a_kept_certificate_says_what_its_rows_say_and_some_are_run_again() -> None:
    for one in learnable_page.certificates():
        scenario = load(one.scenario)
        assert one.digest == scenario.digest and one.own == own_rule(scenario) and one.bar == one.rows[0].name
        own = next(row for row in one.rows if row.name == one.own)
        assert judge(one.rows, own, one.rows[0], one.decisions, one.ideal_percent) == (one.verdict, one.why)
        for row in [row for row in one.rows if row.kind == RULE][:4]:
            run = simulate(scenario, row.name, FRESH[0])[0]
            assert round(run["simulated_s"] * scenario.host.tsc_hz) == row.cycles[0], row.name
