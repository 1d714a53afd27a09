"""Where a VM's vCPUs may run: anywhere, each only where it starts, or on some pCPUs (docs/model.md, 2 and 12)."""

from __future__ import annotations

import re

ANY, PINNED = "any", "pinned"
ALLOWED = "any, pinned, or pCPUs such as 0-3 or 0 2 5-7"
MAX_PCPU = 255  # of host.pcpus

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def pcpus_of(affinity: str) -> tuple[int, ...]:
    """Return the pCPUs that a text lists, ascending; those of `any` and `pinned` are none.

    Raises:
        ValueError: the text is nothing of that kind.
    """
    if affinity in (ANY, PINNED):
        return ()
    found: set[int] = set()
    for word in affinity.split(" "):
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last <= MAX_PCPU:
            raise ValueError(f"must be {ALLOWED}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def checked(affinity: object) -> str:
    """Return an affinity, which is one.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(affinity, str):
        raise ValueError(f"must be {ALLOWED}")
    pcpus_of(affinity)
    return str(affinity)
