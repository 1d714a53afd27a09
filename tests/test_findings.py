"""docs/findings.md says what the committed data say."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import findings


def test_the_page_is_the_text_with_todays_numbers() -> None:
    assert findings.PAGE.read_text(encoding="utf-8") == findings.page(), "run python -m experiments results"


def test_every_number_is_used() -> None:
    assert findings.unused() == set()


def test_an_unknown_number_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "findings.in.md"
    text.write_text("There are {no_such_number} of them.\n", encoding="utf-8")
    monkeypatch.setattr(findings, "TEXT", text)
    with pytest.raises(KeyError, match="no_such_number"):
        findings.page()
