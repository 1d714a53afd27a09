"""`ple-gym certify`: what it prints, and what it keeps."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from ple_gym import progress
from ple_gym.certify.certificate import MEANING, Certificate, Row, told
from ple_gym.certify.plan import QUICK, Plan
from ple_gym.certify.work import Parts, Work
from ple_gym.compilation import warm_up_and_say
from ple_gym.errors import UsageError
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.files import write_whole, writing
from ple_gym.learned.file import write_network
from ple_gym.messages import shown_path
from ple_gym.provenance import provenance
from ple_gym.scenario.builtin import SCENARIOS, VERSIONS
from ple_gym.scenario.model import Scenario

SHOWN = 8  # lines of each kind
LONG = 30  # characters of a name, above which the values of its parameters are left out


def plan(sizes: Mapping[str, int], quick: bool) -> Plan:
    """The plan with these sizes; a quick one has less of all that is not asked for otherwise."""
    usual = Plan()
    asked = {name: value for name, value in sizes.items() if not quick or value != getattr(usual, name)}
    return replace(QUICK if quick else usual, **asked)


def work(
    scenario: Scenario, plan: Plan, parts: str, threads: int | None, argv: Sequence[str], policy: str = ""
) -> Certificate:
    """Do what is not done, with a bar; say on stderr how it goes. policy: where the best that was learned is kept."""
    warm_up_and_say(scenario.host.scheduler)
    kept = Parts(scenario, plan, parts)
    if kept.count:
        _say(f"{shown_path(parts)}: goes on; {kept.count} parts are there")
    try:
        whole = Work(scenario, plan, kept, threads, progress.bar, _say)
        found = whole.certificate(made_by := provenance(argv))
        if policy:
            keep_policy(policy, whole, str(made_by["command"]))
        return found
    except KeyboardInterrupt:
        if parts:
            _say(f"{shown_path(parts)}: {kept.count} parts are kept; the same command goes on")
        raise
    finally:
        kept.close()


def _say(line: str) -> None:
    print(f"certify: {line}", file=sys.stderr)


def table(found: Certificate) -> Grid:
    """The bar, and of each kind the best."""
    counts: dict[str, int] = {}
    rows: list[Row] = []
    for place, row in enumerate(found.rows):
        counts[row.kind] = counts.get(row.kind, 0) + 1
        if place == 0 or counts[row.kind] <= SHOWN or row.name == found.own:
            rows.append(row)
    values = [row.name for row in rows if len(row.name) > LONG]
    names = [
        f"{row.name.partition(':')[0]}, tuned {values.index(row.name) + 1}" if row.name in values else row.name
        for row in rows
    ]
    return Grid(
        Column("who", names),
        [
            Column("kind", [row.kind for row in rows]),
            Column("seeds", [str(row.seeds) for row in rows], right=True),
            Column("against the bar", ["the bar" if row is rows[0] else told(row.percent) for row in rows]),
            Column("its 95 % quantile", [told(row.p95_percent) if row.p95_percent else "-" for row in rows]),
            Column("cut off", [f"{100 * row.cut:.0f} %" for row in rows], right=True),
            Column("kept", [f"{row.kept:.2f}" + ("" if row.is_fair else ": unfair") for row in rows]),
        ],
        title=f"{found.scenario}: {found.objective}",
    )


def verdict(found: Certificate) -> str:
    """What it says, in a few lines."""
    return "\n".join(
        [
            f"{found.decisions:g} decisions a run; {100 * found.open:.0f} % of them with a choice, "
            f"{100 * found.matter:.0f} % where it matters; the bar is {found.ideal_percent:+.1f} % from the ideal",
            f"{found.verdict}: {found.why}",
            f"({MEANING[found.verdict]})",
        ]
    )


def keep(path: str, found: Certificate) -> None:
    """Write the certificate, if there is a name."""
    if path:
        with writing(path, UsageError):
            write_whole(path, found.to_json().encode())
        print(f"{shown_path(path)}: the certificate")


def keep_policy(path: str, whole: Work, command: str) -> None:
    """Write the policy that is best on the validation seeds of all that were learned."""
    best = whole.best_learned()
    if best is None:
        raise UsageError("--policy: nothing was learned; --learners or --lessons must be 1 at least")
    name = whole.scenario.name
    own = f"{name}-v{VERSIONS[name]}" if SCENARIOS.get(name) == whole.scenario else name
    card = {"learner": f"certify, {best.name}", "scenario": own, "command": command}
    with writing(path, UsageError):
        write_network(Path(path), replace(best.network, card=card))
    print(f"{shown_path(path)}: {best.name}, the best on validation seeds")


SIZES = tuple(one.name for one in fields(Plan) if one.name not in ("training", "validation"))
