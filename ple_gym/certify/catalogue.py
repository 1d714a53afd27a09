"""The certificates of built-in scenarios that are shipped: `ple-gym list` shows their verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ple_gym.certify.certificate import Certificate
from ple_gym.errors import ArgumentError
from ple_gym.files import read_text, reading
from ple_gym.scenario.builtin import SCENARIOS

FOLDER = Path(__file__).parent / "kept"
_MAX_BYTES = 2**20


@cache
def certificates() -> Mapping[str, Certificate]:
    """Of each built-in scenario the certificate, if it has one that was made for its present parameters.

    Raises:
        ArgumentError: a file is damaged.
    """
    found = {name: certificate(FOLDER / f"{name}.json") for name in SCENARIOS if (FOLDER / f"{name}.json").exists()}
    return {name: one for name, one in found.items() if one.digest == SCENARIOS[name].digest}


def certificate(path: Path) -> Certificate:
    """The certificate in a file that `ple-gym certify --out` wrote.

    Raises:
        ArgumentError: it cannot be read, or is none.
    """
    with reading(path, ArgumentError, "a certificate"):
        return Certificate.from_json(read_text(path, _MAX_BYTES))


def verdicts() -> dict[str, str]:
    """Verdict of each built-in scenario; empty where there is no certificate."""
    found = certificates()
    return {name: found[name].verdict if name in found else "" for name in SCENARIOS}
