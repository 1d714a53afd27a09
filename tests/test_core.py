"""Where something can be learned: the suite's certificates, its shipped policies, and the page that says so."""

from __future__ import annotations

import pytest

pytest.importorskip("joblib")

from experiments.answer import core, headroom
from experiments.answer.learnable import change, kept
from experiments.answer.suite import members, scenario_id
from experiments.lab.tables import committed
from experiments.pages import certificates as page
from ple_gym.certify.catalogue import certificates
from ple_gym.certify.certificate import LEARNABLE, MEAN, RULE
from ple_gym.certify.plan import FRESH
from ple_gym.course import TRAINING, VALIDATION
from ple_gym.evaluate.scores import KEPT
from ple_gym.learned.file import FOLDER, read_network
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.scenario.core import FLUSHES
from ple_gym.sim.jit import JIT_ENABLED

pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="of many runs: not under make nojit")


def test_whoever_is_in_core_is_certified_and_nobody_else_is_learnable() -> None:
    learnable = {name for name, one in certificates().items() if one.verdict == LEARNABLE}
    assert learnable == set(members("core")) == set(core.LEARNED) and len(learnable) >= 4


def test_its_worlds_are_those_of_the_search_and_one_of_them_with_flushes() -> None:
    searched = {place.scenario.digest for place in headroom.places()}
    assert {name for name in members("core") if SCENARIOS[name].digest not in searched} == {"KvmFlushes618Flat"}
    with_flushes = {"guest.program": FLUSHES, "limit.simulated_s": 1.0}
    joined = SCENARIOS["KvmServer618Flat"].with_overrides(with_flushes)
    assert joined.digest == SCENARIOS["KvmFlushes618Flat"].digest


def test_a_variant_changes_a_number_of_the_world_it_is_of() -> None:
    """Where there is none to change it is left out."""
    flushes, server = SCENARIOS["KvmFlushes618Flat"], SCENARIOS["KvmServer618Flat"]
    twice = core.VARIANTS["twice the flushes"]
    assert twice(server) is None and core.changed("twice the flushes") == ["KvmFlushes618Flat"]
    assert "jump 3 with 0.8; ipi all" in str((twice(flushes) or {})["guest.program"])
    for scenario in (flushes, server):
        held = str((core.VARIANTS["held twice as long"](scenario) or {})["guest.program"])
        assert "0.99:6000" in held and ("ipi all" in held) == (scenario is flushes)


@pytest.mark.parametrize("name", core.LEARNED)
def test_a_shipped_policy_is_faster_than_every_rule_and_takes_from_nobody(name: str) -> None:
    """On seeds that neither it, nor a rule's values, nor the world was chosen on; by ten percent, and clearly."""
    table, one, policy = core.part(committed("core"), core.AS_IT_IS), scenario_id(name), core.LEARNED[name]
    for rule in core.rules(name):
        found = change(table, one, policy, rule)
        assert found.mean < -MEAN and found.high is not None and found.high < 0 and not found.few, rule
    assert kept(table, one, policy) >= KEPT
    network = read_network(FOLDER / f"{policy.removeprefix('learned:')}.npz")
    assert network.information == "hypervisor" and network.card["scenario"] == one


def test_its_seeds_are_of_nothing_else() -> None:
    seeds = set(committed("core")["seed"].tolist())
    assert len(seeds) == core.SEEDS
    assert not seeds & {*TRAINING, *VALIDATION} and min(seeds) > FRESH[-1]


def test_rules_of_a_world_are_the_best_of_its_certificate_and_the_hosts_own() -> None:
    for name in core.LEARNED:
        rows = certificates()[name].rows
        best = [row.name for row in sorted(rows, key=lambda row: row.percent[0]) if row.kind == RULE]
        assert set(core.rules(name)) == {*best[: core.RULES], certificates()[name].bar, certificates()[name].own}
        assert not any(RULES[rule.partition(":")[0]].privileged for rule in core.rules(name))


def test_the_page_says_what_the_table_says() -> None:
    text = page.page(committed("core"))
    assert text == page.PAGE.read_text(encoding="utf-8"), "docs/certificates.md is written by the command"
    assert all(f"| {scenario_id(name)} |" in text for name in certificates())
    assert text.count("was refused: it is *information-limited*") == len(list(page.REFUSED.glob("*.json")))
