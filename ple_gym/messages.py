"""How values of a user stand in messages: short, on one line, and without control characters."""

from __future__ import annotations

import os

MAX_SHOWN = 80
"""Characters of the input that a message quotes at most."""
MAX_PATH = 160
"""Characters of a file's name, which is worth more: it must be found again."""


def show(value: object) -> str:
    """Return a value as Python writes it, cut after `MAX_SHOWN` characters. It never raises."""
    if isinstance(value, str | bytes):
        value = value[: MAX_SHOWN + 1]  # of a long text no more is made printable than is shown
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a whole number with more digits than Python converts; a list nested too deeply
        if isinstance(value, int):
            text = f"a whole number of {value.bit_length()} bits"
        else:
            text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def plain(text: object) -> str:
    """Return a text without quotes, control characters escaped, cut after `MAX_SHOWN` characters."""
    words = str(text)
    return escaped(words) if len(words) <= MAX_SHOWN else f"{escaped(words[:MAX_SHOWN])}..."


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a file's name as `plain` does; of a long name the end, which says more."""
    words = os.fspath(path)
    return escaped(words) if len(words) <= MAX_PATH else f"...{escaped(words[-MAX_PATH:])}"


def escaped(text: str) -> str:
    """Return a text with whatever cannot be printed written as Python writes it in a literal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
