"""Write docs/findings-on-hosts.md: the text of `findings_on_hosts.in.md`, the signs that stay, and the tables.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.answer.hosts import ACTUATORS, CLAIMS, HOSTS, OTHERS, WORLDS, cells, change, counts, families
from experiments.answer.rules import percent
from experiments.lab import Table
from experiments.lab.folders import DOCS
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("findings_on_hosts.in.md")
PAGE = DOCS / "findings-on-hosts.md"
NEEDS = ("hosts",)


def page(table: Table) -> str:
    """The page's text from the table of `hosts`."""
    seeds = len(table.distinct("seed"))
    return TEXT.read_text(encoding="utf-8").format(
        seeds=seeds, hosts=len(HOSTS), signs=_signs(table), tables="\n\n".join(_tables(table))
    )


def _signs(table: Table) -> str:
    lines: list[Sequence[str]] = [("who, and how", *families())]
    for claim in CLAIMS:
        found = [counts(table, claim, hosts) for hosts in families().values()]
        lines.append((claim.text, *(" / ".join(map(str, one)) if any(one) else "-" for one in found)))
    return _table(lines)


def _tables(table: Table) -> list[str]:
    found = []
    for actuator in ACTUATORS:
        for place in WORLDS:
            lines: list[Sequence[str]] = [("host", *(f"`{rule}`" for rule in OTHERS))]
            for host in (host for host, own in cells() if own == actuator):
                changes = [percent(change(table, place, host, actuator, rule)) for rule in OTHERS]
                lines.append((host, *(text.removesuffix(" %") for text in changes)))
            found.append(f"### {place}, by {actuator}\n\n{_table(lines)}")
    return found


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["hosts"]).encode())
