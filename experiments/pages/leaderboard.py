"""Write docs/leaderboard.md from the tables of `leaderboard`, `transfer` and `information`: a table per suite.

`python -m experiments results` calls it. Every number comes from `results/` or from a policy's card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lab import Table
from experiments.lab.folders import DOCS
from experiments.learning import information, leaderboard, trained, trainings, transfer
from experiments.learning.trainings import Training
from experiments.pages.suites import interval
from ple_gym.evaluate.comparison import Comparison, Row
from ple_gym.evaluate.statistics import Estimate
from ple_gym.files import write_whole
from ple_gym.rules import RULES
from ple_gym.scenario.builtin import SUITES

PAGE = DOCS / "leaderboard.md"
NEEDS = ("leaderboard", "transfer", "information")

VERDICTS = ("clearly faster", "not clearly either", "clearly slower")
INTRODUCTION = Path(__file__).with_name("leaderboard.in.md")


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables).encode())


def page(tables: Mapping[str, Table]) -> str:
    """The page's text from the tables of the three experiments."""
    board = tables["leaderboard"]
    introduction = INTRODUCTION.read_text(encoding="utf-8")
    short, rare = (len(leaderboard.test_seeds(place)) for place in (leaderboard.FOR_ALL.world, *leaderboard.RARE[:1]))
    winners = "\n".join(_winners(board))
    lines = [introduction.format(winners=winners, seeds=short, rare=rare, first=f"{min(board['seed']):,}")]
    lines += ["![Every row against the best rule](../experiments/results/leaderboard.png)", ""]
    quick = leaderboard.checks(board)[0]
    lines += [f"Quick start: {quick.metric}: **{quick.value}**; wanted: {quick.band}.", ""]
    for suite in dict.fromkeys(_suite(name) for name in leaderboard.SCENARIOS):
        worlds = [name for name in leaderboard.SCENARIOS if _suite(name) == suite]
        names = [name + rest for name in worlds for rest in ("", trained.FROM_STORM)]
        places = {name: leaderboard.compared(board, name) for name in names}
        lines += [f"## {suite}: {' and '.join(worlds)}", "", *_table(places), ""]
    lines += ["## Other sizes than it was trained on", "", _first(transfer.__doc__), ""]
    lines += ["![Above the ideal by number of vCPUs](../experiments/results/transfer.png)", ""]
    sizes = {f"{vcpus} vCPUs": transfer.compared(tables["transfer"], vcpus) for vcpus in transfer.SIZES}
    lines += [*_table(sizes), "", "## What it is worth to know more", "", _first(information.__doc__), ""]
    lines += ["![Above the ideal by information level](../experiments/results/information.png)", ""]
    lines += [*_table({information.WORLD: information.compared(tables["information"])}), ""]
    lines += ["## The trainings", "", *_trainings(trainings.ALL)]
    return "\n".join(lines) + "\n"


def _suite(name: str) -> str:
    """The suite of a built-in scenario that is named with its version."""
    return SUITES[name.removesuffix(trainings.VERSION)]


def _winners(board: Table) -> list[str]:
    """Who won: a sentence that counts, and a line per world."""
    lines, verdicts, won, most = [], [], Counter(), 0.0
    for place in leaderboard.PLACES:
        here = leaderboard.compared(board, place)
        rows = {row.policy: row for row in here.rows()}
        learner = min(
            (row for row in rows.values() if row.policy not in RULES), key=lambda row: (row.capped, row.makespan_s.mean)
        )
        best = rows[str(here.best_rule)]
        won[best.policy] += 1
        verdicts.append(_verdict(learner.best_ratio))
        most = max(most, 0.0 if learner.best_ratio is None else -100 * np.expm1(learner.best_ratio.mean))
        lines.append(
            [
                place,
                f"`{best.policy}`",
                trained.percent(best.log_ratio),
                f"`{learner.policy}`",
                trained.percent(learner.best_ratio),
                trained.percent(rows["oracle"].best_ratio),
            ]
        )
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    rules = ", ".join(f"`{rule}` ({count})" for rule, count in won.most_common())
    heads = ("world", "best rule", "it against the host", "best learner", "it against the best rule", "the oracle")
    return [
        f"**No learner beats the best rule of a hypervisor by more than {most:.1f} %.** That rule is one of these,",
        f"on so many of {len(lines)} worlds: {rules}. Against it",
        f"the best learner of a world is: {counts}.",
        "",
        *_markdown(heads, lines, left=1),
        "",
        "*Clearly*: the whole interval says so. The oracle knows who holds the lock and who is next.",
    ]


def _verdict(ratio: Estimate | None) -> str:
    """What an interval of the logarithm of two makespans says."""
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 0 <= ratio.high:
        return VERDICTS[1]
    return VERDICTS[0] if ratio.high < 0 else VERDICTS[2]


def _first(text: str | None) -> str:
    """A docstring without its first line's question, which the heading asks."""
    return (text or "").split("\n\n", 1)[1].strip()


def _table(places: Mapping[str, Comparison]) -> list[str]:
    """A line per policy, from the best to the worst; policies that do the same share one."""
    rows = {place: {row.policy: row for row in here.rows()} for place, here in places.items()}
    scored = {place: any(row.score for row in own.values()) for place, own in rows.items()}
    heads = ["policy"]
    for place in places:
        heads += [f"{place}, ms", "vs best, %", *(["score"] if scored[place] else [])]

    def above(policy: str) -> float:
        """The mean logarithm of how much longer its runs are than the best rule's, over the places that it is at."""
        here = [own[policy] for own in rows.values() if policy in own]
        return float(np.mean([row.best_ratio.mean if row.best_ratio else 0.0 for row in here]))

    lines: dict[tuple[str, ...], list[str]] = {}
    for policy in sorted({policy for own in rows.values() for policy in own}, key=lambda one: (above(one), one)):
        cells = [cell for place, own in rows.items() for cell in _cells(own.get(policy), scored[place])]
        counts = dict.fromkeys(str(len(own[policy].members)) for own in rows.values() if policy in own)
        name = f"`{policy}`" + ("" if policy in RULES else f" ({', '.join(counts)})")
        lines.setdefault(tuple(cells), []).append(name)
    return _markdown(heads, [[", ".join(names), *cells] for cells, names in lines.items()], left=1)


def _cells(row: Row | None, scored: bool) -> list[str]:
    """Makespan, against the best rule and, if any row there has one, the score."""
    if row is None:
        return ["-"] * (2 + scored)
    capped = f" ({row.capped} of {row.runs} cut off)" if row.capped else ""
    against = "best rule" if row.best_ratio is None else trained.percent(row.best_ratio).removesuffix(" %")
    score = interval(row.score, lambda one: f"{round(one, 3) + 0.0:.3f}")
    return [_ms(row.makespan_s.mean) + capped, against, *([score] if scored else [])]


def _ms(seconds: float) -> str:
    """Milliseconds with four digits."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _trainings(rows: Iterable[Training]) -> list[str]:
    """What each row took, and how it did on validation worlds."""
    heads = ("row", "finish", "decisions", "simulated, s", "wall, s", "above ideal on validation worlds, %", "command")
    cells = []
    for row in rows:
        cards = trainings.cards(row)
        if not cards:
            continue
        scores = [card["validation"]["above_ideal_percent"] for card in cards]
        known = sorted(score for score in scores if score is not None)
        cells.append(
            [
                f"`{row.name}`",
                f"{len(known)} of {len(cards)}",
                f"{row_steps(cards):,}",
                f"{np.median([card['simulated_s'] for card in cards]):.1f}",
                f"{np.median([card['wall_s'] for card in cards]):.0f}",
                ", ".join(f"{score:.1f}" for score in known) or "-",
                f"`{cards[0]['command']}`",
            ]
        )
    note = "Medians over the trainings; the decisions, and the times, are those until the policy that was kept."
    return [note, "", *_markdown(heads, cells, left=1)]


def row_steps(cards: Sequence[Mapping[str, Any]]) -> int:
    """The median of the decisions that the kept policies were trained for."""
    return int(np.median([card["steps"] for card in cards]))


def _markdown(heads: Sequence[str], cells: Iterable[Sequence[str]], left: int) -> list[str]:
    """A table whose first columns are flush left."""
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return [f"| {' | '.join(line)} |" for line in (heads, marks, *cells)]
