"""Write docs/headroom.md from the table of `headroom`.

`python -m experiments results` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.answer import windows
from experiments.answer.headroom import (
    AHEAD,
    AHEAD_SEEDS,
    APART,
    LINUX,
    MOST_DECISIONS,
    OTHERS,
    SAMPLES,
    SEEDS,
    STACKED,
    WORLDS,
    Place,
    bars,
    looks,
    places,
)
from experiments.lab import Table
from experiments.lab.folders import DOCS
from experiments.pages.suites import interval
from ple_gym.evaluate.scores import KEPT
from ple_gym.evaluate.statistics import Estimate
from ple_gym.files import write_whole
from ple_gym.rules import RULES
from ple_gym.rules.own import own_rule

TEXT = Path(__file__).with_name("headroom.in.md")
PAGE = DOCS / "headroom.md"
NEEDS = ("headroom", "windows")
CLEARLY = 10.0  # percent
WINDOW_WORDS = ("KVM's own", "x 1", "x 4", "x 16", "x 64", "x 256")


def write(tables: Mapping[str, Table]) -> None:
    """Write the page."""
    write_whole(PAGE, page(tables["headroom"], tables["windows"]).encode())


def searched() -> list[Place]:
    """The places that were tuned."""
    return [place for place in places() if place.text in bars()]


def bar_of(place: Place) -> str:
    """The name of its bar."""
    return bars()[place.text][0]


@dataclass(frozen=True)
class Change:
    """By how much a policy takes more time than another, percent, and what it leaves the worst off VM."""

    percent: Estimate
    kept: float

    def is_clear(self, least: float) -> bool:
        """Whether it is faster by so much percent, clear of zero, and leaves all their due."""
        found = self.percent
        return self.kept >= KEPT and found.mean <= -least and found.high is not None and found.high < 0


def change(table: Table, place: Place, policy: str, base: str) -> Change:
    """Of a policy in a world."""
    return Change(place.change(table, policy, base), place.kept(table, policy))


def against_own(table: Table, place: Place) -> Change | None:
    """The bar against the host's own rule; None if that is the bar."""
    own = own_rule(place.scenario)
    return None if bar_of(place) == own else change(table, place, bar_of(place), own)


def ahead(table: Table, place: Place) -> Change | None:
    """The look-ahead against the bar; None if it was too long."""
    return change(table, place, AHEAD, bar_of(place)) if looks(place) else None


def cut(table: Table, place: Place) -> float:
    """Percent of the runs under the bar that did not end."""
    return float(100 * (1 - place.rows(table, bar_of(place))["finished"].mean()))


def losses(table: Table, rule: str) -> list[float]:
    """How much slower than the bar a rule is in each world whose runs end, percent."""
    return [place.change(table, rule, bar_of(place)).mean for place in searched() if cut(table, place) < CLEARLY]


def page(table: Table, of_windows: Table) -> str:
    """Its text."""
    every = searched()
    ends = [place for place in every if cut(table, place) < CLEARLY]
    looked = [place for place in ends if looks(place)]
    hard = [place for place in looked if (one := ahead(table, place)) and one.is_clear(CLEARLY)]
    beaten = [place for place in ends if (one := against_own(table, place)) and one.is_clear(CLEARLY)]
    simple = [rule for rule in OTHERS if not RULES[rule].privileged]
    best = min(simple, key=lambda rule: float(np.mean(np.log1p(np.array(losses(table, rule)) / 100))))
    of_all = {rule: Kind.of(table, ends, rule) for rule in simple}
    safe, safest = min(of_all.items(), key=lambda item: (item[1].slower, item[1].mean))
    first = (
        f"**In {len(hard)} of the {len(looked)} worlds that could be looked into a look-ahead beats every tuned rule, "
        f"clearly and by {CLEARLY:g} % or more; KVM's own rule loses as much to a tuned rule in {len(beaten)} "
        f"of {len(ends)}.** {stacked(table, ends)}"
    )
    lines = [
        f"- Of {len(every)} worlds, {len(every) - len(ends)} end too seldom under any rule to say something.",
        f"- A look-ahead is clearly {CLEARLY:g} % faster than the bar in {names(hard) or 'no world'}.",
        f"- Of the short rules with their defaults `{best}` is nearest to the bars: it takes "
        f"{spread(losses(table, best))} more, where KVM's own takes {spread(own_losses(table, ends))}.",
        f"- `{safe}` does least harm: it is clearly slower than KVM's own, or unfair, in {safest.slower} of "
        f"{safest.count} worlds, and clearly faster in {safest.faster}, by {-safest.mean:.0f} % on the mean of all.",
    ]
    lines.append(requests(table, [place for place in ends if place.waits == "Requests"]))
    return TEXT.read_text(encoding="utf-8").format(
        first=first,
        linux=", ".join(f"`{one}`" for one in LINUX),
        samples=SAMPLES,
        most=f"{MOST_DECISIONS:,}",
        seeds=SEEDS,
        ahead_seeds=AHEAD_SEEDS,
        summary="\n".join(lines),
        classes=of_classes(table, ends, simple),
        table=rows(table),
        half=windows.HALF,
        windows=choosing(of_windows),
    )


def choosing(table: Table) -> str:
    """What a choice of windows changes, by kind of world."""
    lines = [["worlds", "count", "with each world's own pair, %", "with one pair for all, %", "that pair"], ["---"] * 5]
    for kind, some in windows.kinds().items():
        one = windows.Chosen.of(table, some)
        words = [WINDOW_WORDS[number] for number in one.single_pair]
        cells = (interval(own, lambda value: f"{value:+.1f}") for own in (one.own, one.single))
        lines.append([kind, str(len(some)), *cells, f"{words[0]}; with nobody {words[1]}"])
    return "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def requests(table: Table, worlds: Sequence[Place]) -> str:
    """What is best beside a server, and how late responses are."""
    own = {place: own_rule(place.scenario) for place in worlds}
    found = {rule: Kind.of(table, worlds, rule) for rule in OTHERS if not RULES[rule].privileged}
    best, one = min(found.items(), key=lambda item: item[1].mean)
    late = [
        np.mean([place.rows(table, rule or own[place])["response"].mean() / 1000 for place in worlds])
        for rule in ("", best)
    ]
    return (
        f"- Beside a server `{best}` is clearly faster than KVM's own in {one.faster} of {len(worlds)} worlds, clearly "
        f"slower or unfair in {one.slower}, and {-one.mean:.0f} % faster on the mean, late responses counted: their "
        f"99 % quantile is {late[0]:.1f} goals under KVM's own, {late[1]:.1f} under `{best}`."
    )


def stacked(table: Table, ends: Sequence[Place]) -> str:
    """How the rule that looks whom it displaces stands where siblings share a pCPU, and where they do not."""
    one, other = (
        Kind.of(table, [p for p in ends if p.place == name and p.waits != "Requests"], "victim-aware")
        for name in (STACKED, APART)
    )
    return (
        f"Where siblings share a pCPU, `victim-aware` is clearly faster than KVM's own rule in {one.faster} of "
        f"{one.count} worlds, by {-one.mean:.0f} % on the mean; where each has a pCPU of its own, it is clearly slower "
        f"in {other.slower} of {other.count}, by up to {other.most:.0f} %."
    )


@dataclass(frozen=True)
class Kind:
    """A rule against the host's own in some worlds: the geometric mean of all changes, the least and the most, percent;
    in how many it is clearly faster, and in how many clearly slower or unfair."""

    count: int
    mean: float
    least: float
    most: float
    faster: int
    slower: int

    @classmethod
    def of(cls, table: Table, worlds: Sequence[Place], rule: str) -> Kind:
        """From a table."""
        found = [change(table, place, rule, own_rule(place.scenario)) for place in worlds]
        means = np.array([one.percent.mean for one in found])
        slower = [one.kept < KEPT or (one.percent.low or 0.0) > 0 for one in found]
        return cls(
            len(found), float(100 * np.expm1(np.log1p(means / 100).mean())), float(means.min()), float(means.max()),
            sum(one.is_clear(0.0) for one in found), sum(slower),
        )  # fmt: skip


def of_classes(table: Table, ends: Sequence[Place], rules: Sequence[str]) -> str:
    """A table of the short rules, in each kind of world."""
    worlds = {kind: [one for one in ends if (one.place, one.waits) == kind] for kind in WORLDS}
    lines = [["rule", *(f"{place}, {waits} ({len(own)})" for (place, waits), own in worlds.items())]]
    lines.append(["---"] * len(lines[0]))
    for rule in rules:
        found = [Kind.of(table, own, rule) for own in worlds.values()]
        cells = [f"{one.mean:+.0f} ({one.least:+.0f} to {one.most:+.0f}), {one.faster} : {one.slower}" for one in found]
        lines.append([f"`{rule}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def own_losses(table: Table, ends: Sequence[Place]) -> list[float]:
    """How much slower than the bar the host's own rule is, percent."""
    return [place.change(table, own_rule(place.scenario), bar_of(place)).mean for place in ends]


def spread(percents: Sequence[float]) -> str:
    """The geometric mean of percents, and the largest."""
    mean = 100 * np.expm1(np.mean(np.log1p(np.array(percents) / 100)))
    return f"{mean:.0f} % on the mean and {max(percents):,.0f} % at worst"


def names(found: Sequence[Place]) -> str:
    """Which worlds."""
    return ", ".join(f"*{place.text}*" for place in found)


def rows(table: Table) -> str:
    """The table of all worlds."""
    lines = [
        ["kernel", "groups", "lock", "siblings", "waits", "decisions", "bar", "own", "bar against own", "look-ahead "
         "against bar", "`victim-aware`", "`oracle`", "cut"],
    ]  # fmt: skip
    lines.append(["---"] * len(lines[0]))
    for place in searched():
        bar, decisions = bars()[place.text]
        short = f"`{bar}`" if ":" not in bar else f"`{bar.partition(':')[0]}`, tuned"
        cells = [cell(change(table, place, rule, bar)) for rule in ("victim-aware", "oracle")]
        lines.append(
            [place.linux, place.groups, place.kind, place.place, place.waits, f"{decisions:,.0f}", short,
             f"`{own_rule(place.scenario)}`", cell(against_own(table, place)), cell(ahead(table, place)), *cells,
             f"{cut(table, place):.0f} %"]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(found: Change | None) -> str:
    """A percentage with its interval."""
    if found is None:
        return "-"
    one, unfair = found.percent, "" if found.kept >= KEPT else f", kept {found.kept:.2f}"
    ends = "" if one.low is None or one.high is None else f" [{one.low:+,.0f}, {one.high:+,.0f}]"
    return f"{one.mean:+,.0f}{ends} %{unfair}"
