"""Write docs/field-cases.md: the text of `field_cases.in.md` with the numbers of `field` filled in, and its tables.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.answer.field import (
    CONTRASTS,
    KVM,
    LAYOUTS,
    LOOKS,
    TURNS,
    XEN,
    Contrast,
    Turns,
    change,
    per_second,
    rows,
    sides,
    times,
    told,
)
from experiments.answer.rules import percent
from experiments.lab import Table, overrides_text
from experiments.lab.folders import DOCS
from ple_gym.files import write_whole

TEXT = Path(__file__).with_name("field_cases.in.md")
PAGE = DOCS / "field-cases.md"
NEEDS = ("field",)


def page(table: Table) -> str:
    """The page's text from the table of `field`."""
    return TEXT.read_text(encoding="utf-8").format(**_numbers(table))


def _contrasts(*cases: str) -> list[Contrast]:
    return [one for one in CONTRASTS if one.case in cases]


def _numbers(table: Table) -> dict[str, str]:
    def changed(case: str, what: str) -> str:
        return percent(change(table, next(one for one in _contrasts(case) if one.what == what)))

    first, second = sides(table, next(one for one in _contrasts("F3")))
    fewer = 100 * (per_second(second, "switches") / per_second(first, "switches") - 1)
    found = {f"f1_{pcpus}": changed("F1", f"{pcpus} pCPUs, ticket") for pcpus in (2, 8, 32)}
    found |= {"f2_ticket": changed("F2", "24 pCPUs, ticket"), "f2_tas": changed("F2", "24 pCPUs, test-and-set")}
    found |= {"f3": changed("F3", "1 ms against none"), "f3_switches": f"{fewer:+.0f} %"}
    found |= {"f3_10": changed("F3", "10 ms against 1 ms")}
    found |= {"f3_dear": changed("F3", "1 ms against none, a switch refills 30 us")}
    found |= {f"f5_{vms}": changed("F5", f"{vms}x") for vms in (1, 2, 3, 4)}
    found |= {f"f6_{who}_{n}": changed("F6", f"{who}, {n}x") for who in ("woken", "interrupted") for n in (1, 2, 3)}
    found |= {f"f6_{who}_8": changed("F6", f"{who}, beside tasks") for who in ("woken", "interrupted")}
    found |= {f"f15_{vms}": changed("F15", f"{vms}x") for vms in (1, 2)}
    found |= {"f15_sent": changed("F15", "1x, an exit each")}
    found |= {"f8_off": changed("F8", "without PLE"), "f8_on": changed("F8", "with PLE")}
    found |= {"f8_hot": changed("F8", "without PLE, two hot locks")}
    found |= {"f8_halts": changed("F8", "without PLE, from ticket locks that halt")}
    found |= {f"f12_{name}": changed("F12", what) for name, what in WEB.items()}
    for case in ("F4", "F10"):
        means = [change(table, one).mean for one in _contrasts(case)]
        found |= {f"{case.lower()}_least": f"{min(means):+.0f} %", f"{case.lower()}_most": f"{max(means):+.0f} %"}
    return found | {
        "candidates": _table(_candidates(table)),
        "one_to_one": _table(_one_to_one(table)),
        "xen_turns": _table(_xen_turns(table)),
        "linux_turns": _table(_linux_turns(table)),
        "storms": _table(_storms(table)),
    }


WEB = {
    "old": "5.15, 8 locks", "old_hot": "5.15, one hot lock", "new": "6.18.2, 8 locks", "new_hot": "6.18.2, one hot lock"
}  # fmt: skip


def _candidates(table: Table) -> list[Sequence[str]]:
    """F4 and F10: a line per host and load."""
    lines: list[Sequence[str]] = [
        ("Linux", "groups", "load", "own rule / random", "own rule / yield", "oracle / own rule")
    ]
    found = {(one.case, one.what): percent(change(table, one)) for one in _contrasts("F4", "F4 yield", "F10")}
    for what in dict.fromkeys(what for _, what in found):
        lines.append((*what.split(", "), *(found[case, what] for case in ("F4", "F4 yield", "F10"))))
    return lines


def _one_to_one(table: Table) -> list[Sequence[str]]:
    """F11: a line per cost."""
    lines: list[Sequence[str]] = [("lock", "cycles a sibling", "exits a second", "PLE off / on")]
    for one in _contrasts("F11"):
        kind, cost = one.what.split(", ")
        exits = per_second(sides(table, one)[0], "exits")
        lines.append((kind, cost.removesuffix(" cycles a sibling"), f"{exits:,.0f}", percent(change(table, one))))
    assert len(lines) == 1 + 2 * len(LOOKS)
    return lines


def _turn(table: Table, what: str, rule: str, vcpus: int = 16) -> tuple[Turns, str]:
    turn = next(one for one in TURNS if (one.what, one.rule, one.world) == (what, rule, f"FieldFirmware{vcpus}"))
    return turn, told(*times(table, turn))


def _xen_turns(table: Table) -> list[Sequence[str]]:
    """F13 on Xen: a line per number of vCPUs."""
    hosts = ("no PLE", *XEN)
    lines: list[Sequence[str]] = [("vCPUs", *hosts)]
    return lines + [(str(n), *(_turn(table, host, "host", n)[1] for host in hosts)) for n in (8, 16, 32)]


def _linux_turns(table: Table) -> list[Sequence[str]]:
    """F13 on Linux: a line per version and layout."""
    lines: list[Sequence[str]] = [("Linux", "groups", "yield", "yield, no refill", "own rule", "own rule, no refill")]
    for version, own in KVM.items():
        for groups in LAYOUTS:
            cells = [_turn(table, f"{version}, {groups}{refill}", rule)[1]
                     for rule in ("host", own) for refill in ("", ", no refill")]  # fmt: skip
            lines.append((version, groups, *cells))
    for groups in LAYOUTS:
        cells = [_turn(table, f"zen 6.18.2, {groups}", rule)[1] for rule in ("host", "kvm-6.18")]
        lines.append(("6.18.2 on Zen", groups, cells[0], "-", cells[1], "-"))
    return lines


def _storms(table: Table) -> list[Sequence[str]]:
    """Switches of a second on the machines of F13 and F4."""
    lines: list[Sequence[str]] = [("case", "host", "rule", "switches a second", "per pCPU")]
    wanted = [("no PLE", "host"), ("Xen 4.5", "host"), ("Xen 4.8", "host"), ("5.15, vm", "kvm-5.13")]
    wanted += [("6.18.2, vm", "kvm-6.18"), ("zen 6.18.2, vm", "kvm-6.18")]
    for what, rule in wanted:
        turn, _ = _turn(table, what, rule)
        own = rows(table, turn.world, turn.rule, overrides_text(turn.settings))
        lines.append(("F13", what, f"`{rule}`", *_rates(own, 4)))
    for version in ("5.15", "6.6", "6.18.2"):
        for case in ("F4 yield", "F10"):
            one = next(one for one in _contrasts(case) if one.what == f"{version}, vm, medium")
            lines.append(("F4, medium", f"{version}, vm", f"`{one.rules[0]}`", *_rates(sides(table, one)[0], 32)))
    flat = next(one for one in _contrasts("F10") if one.what == "6.18, flat, medium")
    lines.append(("F4, medium", "6.18, flat", f"`{flat.rules[0]}`", *_rates(sides(table, flat)[0], 32)))
    two = next(one for one in _contrasts("F5") if one.what == "2x")
    lines.append(("F5, 2x", "Xen 4.5, no rate limit", "`host`", *_rates(sides(table, two)[0], 32)))
    return lines


def _rates(own: Table, pcpus: int) -> tuple[str, str]:
    rate = per_second(own, "switches")
    return f"{rate:,.0f}", f"{rate / pcpus:,.0f}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["field"]).encode())
