"""Write docs/best-policy.md and its timelines: the text of `best_policy.in.md` with every number filled in.

`python -m experiments results` calls it. A name in braces in the text is one of the numbers below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.torch_policy import read_policy
from experiments.lab import RESULTS, Table, seeds, world
from experiments.lab.folders import DOCS
from experiments.lab.pictures import VCPU_PALETTE, shrink
from experiments.learning import agreement, features, leaderboard, trained
from experiments.learning.trainings import file_of
from ple_gym import evaluate
from ple_gym.files import write_whole
from ple_gym.learned.file import PREFIX
from ple_gym.traces.events import PLE, window
from ple_gym.traces.pictures import timeline_figure

TEXT = Path(__file__).with_name("best_policy.in.md")
PAGE = DOCS / "best-policy.md"
NEEDS = ("leaderboard", "features", "agreement")
SHOWN_MS = 2
MATTERS = 0.5  # percent
STORM_SEED = seeds.LEADERBOARD[0]

Numbers = dict[str, str]


def write(tables: Mapping[str, Table]) -> None:
    """Write the page and draw the timelines."""
    found = numbers(tables) | timelines()
    write_whole(PAGE, TEXT.read_text(encoding="utf-8").format(**found).encode())


def numbers(tables: Mapping[str, Table]) -> Numbers:
    """What the tables say."""
    policy = tables["agreement"]["policy"][0]
    card = read_policy(file_of(policy)).card
    found = {"policy": policy, "steps": f"{card['steps']:,}"}
    found["above"] = f"{card['validation']['above_ideal_percent']:.1f}"
    found |= of_leaderboard(tables["leaderboard"]) | of_features(tables["features"])
    return found | of_agreement(tables["agreement"])


def of_leaderboard(table: Table) -> Numbers:
    storm = leaderboard.compared(table, leaderboard.FOR_ALL.world)
    rows = {row.policy: row for row in storm.rows()}
    found = {"rule": str(storm.best_rule), "oracle": trained.percent(rows["oracle"].best_ratio)}
    found["against"] = trained.percent(rows[leaderboard.FOR_ALL.learner].best_ratio)
    for scenario in leaderboard.RARE:
        here = {row.policy: row for row in leaderboard.compared(table, scenario + trained.FROM_STORM).rows()}
        found[scenario.split("-")[0].lower()] = trained.percent(here[leaderboard.GENERAL].best_ratio)
    return found


def of_features(table: Table) -> Numbers:
    costs = features.costs(table)
    drawing, frozen = costs.pop(features.DRAWING)
    dear = {name: one for name, one in costs.items() if one[0] >= MATTERS or one[1]}
    lines = [f"| `{name}` | {cost:+.1f} % | {capped} |" for name, (cost, capped) in dear.items()]
    others = [cost for name, (cost, _) in costs.items() if name not in dear]
    count = len(table.distinct("seed"))
    return {
        "feature_rows": "\n".join(lines),
        "feature_seeds": str(count),
        "idle_features": str(len(others)),
        "idle_most": f"{max(others):.1f} %",
        "frozen": f"{frozen} of {count} runs are cut off, and all take {drawing:+.1f} % on average",
    }


def of_agreement(table: Table) -> Numbers:
    shares = agreement.shares(table)
    found = {name: _share(share) for name, share in shares.items()}
    elsewhere = sum(shares[f"holder_{kind}"] for kind in agreement.KINDS if kind != "holder")
    return found | {
        "decisions": f"{table['decisions'].sum():,}",
        "agreement_seeds": str(len(table)),
        "holder_other": _share(elsewhere),
        "otherwise": _share(1 - shares["as_spin_age_self"]),
        "left_behind_running": _share(table["left_behind_running"].sum() / table["spinner_resume"].sum()),
        "pulled_oldest": _share(table["pulled_oldest"].sum() / table["policy_spinner"].sum()),
    }


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def timelines() -> Numbers:
    """Draw the same world under both; their exits in the time that is shown."""
    scenario = world(features.WORLD, "")
    hz = scenario.host.tsc_hz
    stop = SHOWN_MS * hz // 1000
    best = features.best()
    found = {"storm_seed": f"{STORM_SEED:,}"}
    for when, policy, name in (("before", "xen-4.8", "xen-4.8"), ("after", f"{PREFIX}{file_of(best)}", best)):
        trace = window(evaluate.record(scenario, policy, STORM_SEED), 0, stop)
        found[f"{when}_exits"] = f"{int((trace[:, 1] == PLE).sum()):,}"
        title = f"{features.WORLD} under {name}, world {STORM_SEED}"
        vcpus = scenario.vcpus
        picture = RESULTS / f"storm_{when}.png"
        timeline_figure(trace, scenario.host.pcpus, vcpus, 0, stop, hz, title, picture)
        shrink(picture, VCPU_PALETTE)
    return found
