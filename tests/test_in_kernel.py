"""The rule that was read off from a learned policy: its page is of the table, and its certificate has it as tuned."""

from __future__ import annotations

import pytest

pytest.importorskip("joblib")

from experiments.answer import in_kernel
from experiments.answer.learnable import SEARCHED, searched
from experiments.lab.tables import committed
from experiments.pages import in_kernel as in_kernel_page
from experiments.pages.learnable import certificates
from ple_gym.evaluate.runs import simulate
from ple_gym.policies import load_compiled
from ple_gym.rules import RULES
from ple_gym.sim.jit import JIT_ENABLED

pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="of many runs: not under make nojit")


def test_the_page_says_what_the_table_says() -> None:
    text = in_kernel_page.page(*map(committed, in_kernel_page.NEEDS))
    assert text == in_kernel_page.PAGE.read_text(), "docs/in-kernel.md is written by the command"
    assert all(text.count(f"\n| {varied} |") == len(in_kernel.LINUX) for varied in in_kernel.VARIED)


def test_the_rule_is_as_the_certificate_has_it() -> None:
    bars = {one.scenario: one.bar for one in certificates()}
    assert bars[in_kernel.BASE] == in_kernel.TUNED


def test_parts_are_the_rule_but_for_one_thing() -> None:
    rule = RULES[in_kernel.RULE]
    tuned, *parts = (load_compiled(name).name for name in (in_kernel.TUNED, *in_kernel.PARTS))
    values, *others = (dict(pair.split("=") for pair in one.partition(":")[2].split(",")) for one in (tuned, *parts))
    for part in others:
        assert len({name for name in rule.parameters if part.get(name) != values.get(name)}) == 1, part


def test_without_an_input_is_without_its_weight() -> None:
    whole = searched(in_kernel.BASE).network
    for name in in_kernel.inputs():
        network = in_kernel.policy_of(in_kernel.without(name)).network  # type: ignore[union-attr]
        gone = {key: (network.weights[key] != whole.weights[key]).sum() for key in whole.weights}
        assert gone == dict.fromkeys(whole.weights, 0) | {"vcpu" if name.startswith("vcpu ") else "defer": 1}
    assert (in_kernel.policy_of(SEARCHED).network.weights["vcpu"] == whole.weights["vcpu"]).all()  # type: ignore[union-attr]


def test_spinners_help_the_vm_on_low_pcpus_or_both_if_counted_from_the_asker() -> None:
    """What the page explains the gain by, on seeds of its own."""
    base = in_kernel.Place(in_kernel.LINUX[0], "as it is").scenario.with_overrides(dict(in_kernel.ENDLESS))
    seeds = range(8)

    def done(policy: str, vm: int) -> float:
        return sum(run["vm"][vm]["transactions"] for run in simulate(base, load_compiled(policy), seeds))

    siblings, _, distance = in_kernel.PARTS
    own, tuned, apart, fair = (
        [done(policy, vm) for vm in range(2)]
        for policy in (in_kernel.ON_ENDLESS[0], in_kernel.TUNED, siblings, distance)
    )
    assert tuned[0] > 2 * own[0] and tuned[1] > 0.9 * own[1]
    assert all(0.9 < after / before < 1.1 for after, before in zip(apart, own, strict=True))
    assert all(after > 1.1 * before for after, before in zip(fair, own, strict=True))
