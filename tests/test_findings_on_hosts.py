"""docs/findings-on-hosts.md says what the committed data say."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.answer import hosts
from experiments.answer.robustness import sign
from experiments.answer.rules import PAIRED, paired
from experiments.lab import Table, overrides_text, seeds, tasks
from experiments.lab.tables import committed
from experiments.pages import findings_on_hosts


def test_the_page_is_what_the_data_say() -> None:
    page = findings_on_hosts.page(committed("hosts"))
    assert page == findings_on_hosts.PAGE.read_text(encoding="utf-8"), "run python -m experiments results"


@pytest.mark.parametrize(("host", "proposal"), [("Xen 4.18", "paper"), ("credit2", "paper-local")])
def test_the_proposal_brings_work_as_the_host_steals(host: str, proposal: str) -> None:
    task = tasks("Paper8-v1", PAIRED, seeds.HOSTS[:1], hosts.overrides("Paper8 in line", host, "pull"))[0]
    found = hosts.measure(task)
    both = paired(task, ("host", proposal), 13)
    assert [found["host"], found[hosts.PROPOSAL]] == [both["host"], both[proposal]]


def test_cells_are_counted_by_their_sign() -> None:
    """Of one rule under Linux: sooner in one world, later in another, and no difference in the third."""
    changes = dict(zip(hosts.WORLDS, (-100, 100, 0), strict=True))
    own = hosts.families()["Linux"]
    rows = {
        task: (1000, *(changes[place] + task.seed % 7 if changes[place] else 0 for _ in hosts.OTHERS))
        for place in hosts.WORLDS
        for host in own
        for task in tasks(hosts.WORLDS[place][0], PAIRED, range(24), hosts.overrides(place, host, "hint"))
    }
    table = Table.of((hosts.BASE, *hosts.OTHERS), rows)
    claim = next(one for one in hosts.CLAIMS if (one.rule, one.actuator) == ("kvm", "hint"))
    assert hosts.counts(table, claim, own) == (len(own), len(own), len(own))
    assert hosts.counts(table, claim, own[:1]) == (1, 1, 1)


def counts(rule: str, actuator: str) -> dict[str, tuple[int, int, int]]:
    """Of the committed table: sooner, unclear, later, by kind of host."""
    claim = next(one for one in hosts.CLAIMS if (one.rule, one.actuator) == (rule, actuator))
    return {name: hosts.counts(committed("hosts"), claim, own) for name, own in hosts.families().items()}


def test_what_the_page_says_of_signs() -> None:
    assert [later for _, _, later in counts("spin-age-self", "pull").values()] == [0, 0, 0]
    for rule in ("kvm-2012", "oracle"):
        assert all(later <= 1 and sooner >= 17 for sooner, _, later in counts(rule, "hint").values())
    kvm = counts("kvm", "hint")
    assert kvm["Linux"][2] > kvm["Linux"][0]
    assert kvm["Linux, no refill"][2] == 0 < kvm["Linux, no refill"][0]
    stays = counts(hosts.PROPOSAL, "pull")["Xen"]
    assert stays[2] == 1 and stays[0] > 5


def test_in_the_place_of_whom_it_displaces_the_spinner_gains_or_loses_by_the_pool() -> None:
    def signs(versions: tuple[str, ...], other: str = "") -> set[int]:
        """Of the proposal in the worlds that ship with the credit of six pCPUs."""
        table = committed("hosts")
        changes = [
            hosts.change(table, place, f"Xen {version}{other}", "pull, swap", hosts.PROPOSAL)
            for version in versions
            for place in ("Busy8", "Paper8 in line")
        ]
        return {sign(one) for one in changes}

    assert signs(("4.5", "4.8", "4.17")) == {-1}
    assert signs(("4.5", "4.18"), hosts.OTHER_POOL) == {1}


def test_every_cell_has_all_seeds() -> None:
    table = committed("hosts")
    for place in hosts.WORLDS:
        for host, actuator in hosts.cells():
            assert len(hosts.rows(table, place, host, actuator)) == hosts.SEEDS, overrides_text(hosts.HOSTS[host])
    assert (table["unfinished"] <= 1 + len(hosts.OTHERS)).all()
    assert np.isin(table["seed"], seeds.HOSTS).all()
