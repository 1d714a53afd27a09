"""Arguments to commands, and what is wrong with them in one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from ple_gym.errors import UsageError

STYLE = (OmitArgPrefixes, FlagCreatePairsOff)
MOST_TOLD = 500  # characters of tyro's, which may quote several


def parse(command: Any, argv: Sequence[str], program: str, description: str | None = None) -> Any:
    """The command that the arguments stand for; None if they asked for help, which has then been printed.

    Raises:
        UsageError: they stand for none.
    """
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(command, args=argv, prog=program, description=description, config=STYLE)
    except SystemExit as end:
        if end.code:
            raise UsageError(f"{_unboxed(boxed.getvalue())} (see {program} --help)") from None
        return None


def _unboxed(text: str) -> str:
    """Of a title and some paragraphs in a box (of lines or, in ASCII, of rules): the first paragraph, as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    _title, *lines = (line.strip("╭╮╰╯│─ ") for line in plain.splitlines())
    body = itertools.dropwhile(_is_rule, lines)
    told = " ".join(itertools.takewhile(lambda line: not _is_rule(line), body))
    return told if len(told) <= MOST_TOLD else f"{told[:MOST_TOLD]}..."


def _is_rule(line: str) -> bool:
    return not line.strip("-")
