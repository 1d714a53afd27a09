"""docs/findings.md says what the committed data say."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from experiments.answer import robustness
from experiments.lab import Table
from experiments.lab.tables import committed
from experiments.pages import findings


@lru_cache(maxsize=1)
def tables() -> dict[str, Table]:
    return {name: committed(name) for name in findings.NEEDS}


def test_the_page_is_the_text_with_todays_numbers() -> None:
    assert findings.PAGE.read_text(encoding="utf-8") == findings.page(tables()), "run python -m experiments results"


def test_every_number_is_used() -> None:
    assert findings.unused(tables()) == set()


def test_a_sentence_is_a_finding_if_nothing_in_the_grid_speaks_against_it() -> None:
    table = committed("robustness")
    found, depends = (section(name) for name in ("Findings", "Depends on"))
    kept = [robustness.survives(table, claim) for claim in robustness.CLAIMS]
    assert True in kept
    assert False in kept
    for claim, survives in zip(robustness.CLAIMS, kept, strict=True):
        assert (robustness.told(table, claim).removeprefix(claim.text) in found) == survives
        assert (robustness.told(table, claim).removeprefix(claim.text) in depends) != survives
        changes = robustness.grid(table, claim.rule).changes.items()
        signs = {robustness.sign(one) for (_, variant), one in changes if variant not in claim.without}
        assert survives == (claim.sign in signs and -claim.sign not in signs)


def test_one_cell_of_the_other_sign_is_enough_against_a_sentence() -> None:
    table = committed("robustness")
    claim = next(claim for claim in robustness.CLAIMS if robustness.survives(table, claim))
    cell = robustness.part(table, "Busy8", "unfair locks")
    turned = (table["scenario"] == cell["scenario"][0]) & (table["overrides"] == cell["overrides"][0])
    columns = {**table.columns, claim.rule: np.where(turned, -claim.sign * 10_000, table[claim.rule])}
    other = Table(columns)
    assert not robustness.survives(other, claim)
    assert "unfair locks (Busy8)" in robustness.told(other, claim)


def section(name: str) -> str:
    """Of the page."""
    return findings.PAGE.read_text(encoding="utf-8").split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def test_an_unknown_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "findings.in.md"
    text.write_text("There are {no_such_number} of them.\n", encoding="utf-8")
    monkeypatch.setattr(findings, "TEXT", text)
    with pytest.raises(KeyError, match="no_such_number"):
        findings.page(tables())
