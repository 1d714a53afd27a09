"""The certificates of built-in scenarios that are shipped: `ple-gym list` shows their verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ple_gym.certify.certificate import VERDICTS
from ple_gym.errors import ArgumentError
from ple_gym.files import parse_json, read_text, reading
from ple_gym.scenario.builtin import SCENARIOS

FOLDER = Path(__file__).parent / "kept"
_MAX_BYTES = 2**20


@cache
def certificates() -> Mapping[str, Mapping[str, Any]]:
    """Of each built-in scenario that has one the certificate, as `Certificate.to_json` wrote it.

    One that was made for an earlier version of the scenario is left out.

    Raises:
        ArgumentError: a file is damaged.
    """
    found = {}
    for name, scenario in SCENARIOS.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            continue
        with reading(path, ArgumentError, "a certificate"):
            document = parse_json(read_text(path, _MAX_BYTES))
            if document["verdict"] not in VERDICTS:
                raise ArgumentError("has no verdict")
        if document["digest"] == scenario.digest:
            found[name] = document
    return found


def verdicts() -> dict[str, str]:
    """Verdict of each built-in scenario; empty where there is no certificate."""
    return {name: str(certificates().get(name, {}).get("verdict", "")) for name in SCENARIOS}
