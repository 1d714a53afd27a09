"""A certificate: who was run on a scenario, how each did against the best tuned rule, and what that says.

The *bar* is the rule that is best on validation seeds, with the defaults or the values that `tune` found, among those
that leave every VM what it is due. All else is measured against it on fresh seeds that nobody has seen, paired: rules,
what was learned, and bounds that know more. Who takes from a VM what it is due beats nobody.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np

from ple_gym.errors import ArgumentError
from ple_gym.evaluate.scores import KEPT
from ple_gym.evaluate.statistics import Floats, quantile, ratio
from ple_gym.files import parse_json

MEAN, TAIL = 10.0, 25.0  # percent of the makespan by which a world is learnable: of its mean, or of its 95 % quantile
SMALL = 2.0  # percent that make no difference
FEW = 1.0  # decisions of a run, below which there is nothing to decide
CUT = 0.1  # share of runs that do not end, above which a world is none
RESAMPLES = 2000

#: What a row may be. The last three know more than a hypervisor does.
RULE, SETTING, LEARNED, PRIVILEGED, AHEAD, CLAIRVOYANT = (
    "rule", "setting of the host", "learned", "privileged rule", "look-ahead", "clairvoyant look-ahead",
)  # fmt: skip
LEARNABLE, SOLVABLE, LIMITED, INTRINSIC, DEGENERATE = VERDICTS = (
    "learnable", "rule-solvable", "information-limited", "intrinsic", "degenerate",
)  # fmt: skip
MEANING: Mapping[str, str] = {
    LEARNABLE: f"more than one learned policy beats every rule, tuned or not, by {MEAN:g} % in the mean or {TAIL:g} % "
    "at p95",
    SOLVABLE: "a rule is as good as all that was tried, and better than what the host does",
    LIMITED: f"who knows the locks beats every rule by {MEAN:g} %, and nobody else does",
    INTRINSIC: "what is lost is not lost by the choice: no rule and no bound gets it back",
    DEGENERATE: "there is nothing to decide, runs do not end, or a setting of the host is better than any choice",
}


@dataclass(frozen=True)
class Row:
    """One policy or bound against the bar.

    Attributes:
        name, kind: who.
        seeds: fresh seeds that it ran on, from the first on.
        percent: by how much its makespan differs from the bar's: mean, and interval.
        p95_percent: the same of the 95 % quantile, if there are enough seeds.
        cut: share of its runs that did not end.
        kept: what the worst off VM receives of what it is due (`ple_gym.evaluate.scores`); 1 where no VM ends. Below
            `KEPT` the row counts for nothing: it is fast at the cost of others.
        cycles: how long its first runs took, to run them again and compare.
    """

    name: str
    kind: str
    seeds: int
    percent: list[float]
    p95_percent: list[float]
    cut: float
    kept: float
    cycles: list[int]

    def beats(self, least: float) -> bool:
        """Whether it is faster than the bar by so much percent, clear of zero, and fair."""
        return self.is_fair and self.percent[0] <= -least and len(self.percent) == 3 and self.percent[2] < 0

    def beats_tail(self, least: float) -> bool:
        """Whether its 95 % quantile is."""
        tail = self.p95_percent
        return self.is_fair and bool(tail) and tail[0] <= -least and tail[2] < 0

    @property
    def is_fair(self) -> bool:
        """Whether every VM keeps what it is due."""
        return self.kept >= KEPT


_COLUMNS = [field.name for field in fields(Row)]


@dataclass(frozen=True)
class Certificate:
    """What was found of a scenario.

    Attributes:
        scenario, digest: of what.
        verdict: one of `VERDICTS`; why: the reason, a sentence.
        bar: the best tuned rule; own: the host's own rule; objective: what is compared.
        ideal_percent: by how much the bar's runs are longer than the ideal.
        decisions: of a run under the bar, on the mean; open: share with more than one legal action; matter: share where
            some action differs from the bar's by more than two standard errors, by the look-ahead.
        plan: how much was tried.
        rows: the bar first, then by kind, the best first.
        made_by: version, command, date.
    """

    scenario: str
    digest: str
    verdict: str
    why: str
    bar: str
    own: str
    objective: str
    ideal_percent: float
    decisions: float
    open: float
    matter: float
    plan: Mapping[str, Any]
    rows: Sequence[Row]
    made_by: Mapping[str, Any]

    def to_json(self) -> str:
        """As text: an object whose `rows` are lists of the values that `columns` names, a row on a line."""
        head = asdict(self)
        del head["rows"]
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items())
        rows = ",\n".join(f"  {json.dumps(astuple(row))}" for row in self.rows)
        return f'{{\n{lines},\n "columns": {json.dumps(_COLUMNS)},\n "rows": [\n{rows}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """The certificate that `to_json` wrote.

        Raises:
            ArgumentError: it has no verdict, or other columns.
            Exception: it is no certificate; to be called within `files.reading`.
        """
        document = dict(parse_json(text))
        if document.get("verdict") not in VERDICTS:
            raise ArgumentError(f"verdict = {document.get('verdict')!r}: must be one of {', '.join(VERDICTS)}")
        if document.pop("columns") != _COLUMNS:
            raise ArgumentError(f"columns: must be {', '.join(_COLUMNS)}")
        return cls(**document | {"rows": [Row(*values) for values in document["rows"]]})


def row(name: str, kind: str, losses: Floats, bar: Floats, cut: float, kept: float, cycles: Sequence[int]) -> Row:
    """A row from the logarithms of what is compared, on the first of the bar's seeds."""
    own = bar[: len(losses)]
    found = ratio(losses - own)
    percent = [_percent(x) for x in (found.mean, found.low, found.high) if x is not None]
    tail = _tail(losses, own)
    return Row(name, kind, len(losses), percent, tail, round(cut, 4), round(kept, 4), [int(one) for one in cycles])


def _tail(losses: Floats, bar: Floats) -> list[float]:
    """Percent by which the 95 % quantiles differ, with an interval from resampled seeds; nothing if these are few."""
    if len(losses) < 100:
        return []
    draws = np.random.default_rng(0).integers(len(losses), size=(RESAMPLES, len(losses)))
    place = max(1, -(-95 * len(losses) // 100)) - 1
    one, other = (np.sort(values[draws], axis=1)[:, place] for values in (losses, bar))
    low, high = np.quantile(one - other, (0.025, 0.975))
    return [_percent(x) for x in (quantile(losses, 95) - quantile(bar, 95), float(low), float(high))]


def _percent(log: float) -> float:
    return round(100 * math.expm1(min(log, 20.0)), 3)


def judge(rows: Sequence[Row], own: Row, bar: Row, decisions: float, ideal_percent: float) -> tuple[str, str]:
    """The verdict and its reason. own: of the host's own rule."""
    fair = sorted((one for one in rows if one.is_fair), key=lambda one: one.percent[0], reverse=True)
    best = {one.kind: one for one in fair}
    if decisions < FEW:
        return DEGENERATE, f"a run has {decisions:.2g} decisions"
    if bar.cut > CUT:
        return DEGENERATE, f"{100 * bar.cut:.0f} % of the runs do not end, even under {bar.name}"
    setting = best.get(SETTING)
    if setting and setting.beats(MEAN):
        return DEGENERATE, f"the host's setting {setting.name} changes more than any choice: {told(setting.percent)}"
    rules = [one for one in fair if one.kind == RULE]
    mean = _beyond(MEAN, [one.percent[0] for one in rules])
    tail = _beyond(TAIL, [one.p95_percent[0] for one in rules if one.p95_percent])
    learned = [one for one in rows if one.kind == LEARNED and (one.beats(mean) or one.beats_tail(tail))]
    if len(learned) > 1:
        first = min(learned, key=lambda one: one.percent[0])
        return LEARNABLE, f"{len(learned)} learned policies beat {bar.name}, the best by {told(first.percent)}"
    bounds = [one for kind in (PRIVILEGED, AHEAD) if (one := best.get(kind)) and one.beats(mean)]
    if bounds:
        first = min(bounds, key=lambda one: one.percent[0])
        return LIMITED, f"{first.name} beats {bar.name} by {told(first.percent)}, and no hypervisor's policy does"
    small = own.name == bar.name or own.percent[0] < SMALL
    if small and ideal_percent > MEAN:
        return INTRINSIC, f"{bar.name} takes {ideal_percent:.0f} % more than the ideal, and no choice is much better"
    against = "is the host's own" if own.name == bar.name else f"saves {told(_against(own))} against {own.name}"
    return SOLVABLE, f"{bar.name} {against}, and nothing beats it by {MEAN:g} %"


def _beyond(percent: float, found: Sequence[float]) -> float:
    """What saves so many percent against the best of all rules on fresh seeds, which may be another than the bar."""
    return 100 - (100 - percent) * (100 + min([0.0, *found])) / 100


def _against(own: Row) -> list[float]:
    """The bar against the host's own rule, percent."""
    turned = [round(100 / (100 + x) * 100 - 100, 3) for x in own.percent]
    return [turned[0], *sorted(turned[1:])]


def told(percent: Sequence[float]) -> str:
    """A percentage and its interval."""
    return f"{percent[0]:+.1f} %" + (f" [{percent[1]:+.1f}, {percent[2]:+.1f}]" if len(percent) == 3 else "")
