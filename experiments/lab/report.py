"""What the data say about the reproduction matrix: checks, and the generated `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: The claims of the paper that are checked, with the section they stand in.
MATRIX: Mapping[str, str] = {
    "R1": "PLE fires at the first PAUSE after the window, a gap starts the loop anew (2.2)",
    "R2": "gap 32: no PLE at all (2.2)",
    "R3": "short window: false detections; long: late or none (2.2)",
    "R4": "locks are held less than 20 us, when preempted tens of ms (2.1)",
    "R5": "99.5 % of locks are held at most 2048 cycles (4.3, of a kernel build, from elsewhere)",
    "R6": "Figure 2: most of 10,000 runs take about 1.5 s (3.2)",
    "R7": "Figure 2: up to about 250,000 PLE in less than 2 s (3.2; 250,000 and more in 1)",
    "R8": "Figure 2: runs with many PLE take 1.8 s and more (1)",
    "R9": "Figure 2: PLE and time correlate, but some slow runs have few PLE (3.2)",
    "R10": "the delay is more than the PLE themselves cost (inferred from 3.2)",
    "R11": "Figure 3: 484 and 460 PLE in one acquisition (4.2); here per dispatch, see `rival`",
    "R12": "several vCPUs have PLE at the same time (1)",
    "R13": "Figure 5: the holder is off its pCPU and the others have PLE (4.3.1)",
    "R14": "Figure 6: nobody holds the lock for 30,000 cycles or more, and PLE go on (4.3.2)",
    "R15": "the paper's loggers: holds over 30,000 cycles, long try-to-acquire times (4.2, 4.3)",
    "R16": "more vCPUs per VM: more PLE per preempted holder (3.1, conjectured)",
    "R17": "Figure 1: the story of three vCPUs (3.1, a drawing of a possible case)",
    "R18": "not running the same vCPU again shortens waits (4.4, proposed and not evaluated)",
}

FITTED = "fitted"
PREDICTED = "predicted"


@dataclass(frozen=True)
class Check:
    """One measured number and what it should be.

    Attributes:
        row: of the matrix, `R7`; or a name of an extra.
        metric: what is measured.
        value: as text, with its unit.
        band: what is accepted, as text; empty if the value is only reported.
        passed: in its band? None if only reported.
        kind: `fitted` if a parameter was chosen to give this number, else `predicted`.
        reason: why it is out of its band, if it is, as far as measurements show.
    """

    row: str
    metric: str
    value: str
    band: str = ""
    passed: bool | None = None
    kind: str = PREDICTED
    reason: str = ""


def within(
    row: str, metric: str, value: float, low: float | None, high: float | None, unit: str = "", digits: int = 3,
    *, kind: str = PREDICTED, reason: str = "",
) -> Check:  # fmt: skip
    """A check that a number lies in low..high; None is no bound."""

    def text(number: float | None) -> str:
        return "" if number is None else f"{number:,}" if isinstance(number, int) else f"{number:,.{digits}f}"

    def bound(number: float) -> str:
        return f"{number:,}" if isinstance(number, int) else f"{number:g}"

    if value != value:  # not a number: there was nothing to measure
        return Check(row, metric, "no such run", kind=kind)
    passed = bool((low is None or value >= low) and (high is None or value <= high))  # not NumPy's
    if low is not None and high is not None:
        band = bound(low) if low == high else f"{bound(low)} to {bound(high)}"
    else:
        band = f"at least {bound(low)}" if low is not None else f"at most {bound(high)}" if high is not None else ""
    unit = f" {unit}" if unit else ""
    return Check(row, metric, text(value) + unit, band + unit if band else "", passed, kind, "" if passed else reason)


def exactly(row: str, metric: str, value: object, expected: object, reason: str = "") -> Check:
    """A check that something is equal to what is expected."""
    passed = bool(value == expected)
    return Check(row, metric, str(value), str(expected), passed, PREDICTED, "" if passed else reason)


Section = tuple[str, str, str, Sequence[Check]]
"""Of an experiment: name, title, what was run, checks."""


def results_page(sections: Sequence[Section], whole: bool = False) -> str:
    """RESULTS.md from the sections of all experiments.

    Unless `whole`, numbers that are no claim's and have no band are only counted: they are most of the page.
    """
    found = [(name, check) for name, _, _, checks in sections for check in checks]
    lines = [
        "# Results",
        "",
        "Written by `python -m experiments results` from the tables in `results/`; do not edit. These hold integers,",
        "of which `python -m experiments replay` simulates a sample again and compares exactly. A digest changes with",
        "any number of its table. The command that writes this page also writes the tables as CSV files, and every",
        "picture, to `runs/experiments/tables/`. R1 to R18 are the claims of the reproduction matrix, with the paper's",
        "section in brackets. Numbers that are no claim's and have no band are in the page of that folder alone.",
        "Built-in worlds are meant in version 0 (`Paper8-v0`) where no other is named.",
        "",
        "## The matrix",
        "",
        "| row | claim | experiments | in band | out of band |",
        "|---|---|---|---|---|",
    ]
    for row, claim in MATRIX.items():
        own = [(name, check) for name, check in found if check.row == row]
        names = ", ".join(f"[{name}](#{name})" for name in dict.fromkeys(name for name, _ in own)) or "none"
        banded = [check for _, check in own if check.passed is not None]
        passed = f"{sum(check.passed is True for check in banded)} of {len(banded)}"
        failed = ", ".join(check.metric for _, check in own if check.passed is False) or "-"
        lines.append(f"| {row} | {claim} | {names} | {passed} | {failed} |")
    lines += [
        "",
        "## What was fitted",
        "",
        "Parameters were chosen so that these numbers come out.",
        "",
    ]
    lines += _table(((name, check) for name, check in found if check.kind == FITTED), with_name=True)
    lines += ["", "## What was then predicted", ""]
    lines += _table(((name, check) for name, check in found if check.kind == PREDICTED and check.row in MATRIX), True)
    for name, title, run, checks in sections:
        shown = [check for check in checks if whole or check.row in MATRIX or check.passed is not None]
        lines += ["", f"## {name}", "", title, "", run]
        lines += ["", *_table(((name, check) for check in shown), with_name=False)] if shown else []
        lines += (
            ["", f"{len(checks) - len(shown)} other numbers are not listed here."] if len(shown) < len(checks) else []
        )
    return "\n".join(lines) + "\n"


def _table(checks: Iterable[tuple[str, Check]], with_name: bool) -> list[str]:
    head = ["row", *(["experiment"] if with_name else []), "metric", "measured", "band", "in band"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    reasons = []
    for name, check in checks:
        verdict = {True: "yes", False: "**no**", None: "-"}[check.passed]
        cells = [check.row, *([name] if with_name else []), check.metric, check.value, check.band or "-", verdict]
        lines.append(f"| {' | '.join(cells)} |")
        if check.passed is False and check.reason and not with_name:
            reasons.append(f"- {check.row}, {check.metric}: {check.reason}")
    return [*lines, *(["", "Out of band because:", "", *reasons] if reasons else [])]
