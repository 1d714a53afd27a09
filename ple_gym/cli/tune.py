"""`ple-gym tune`: what it prints, and the files that it keeps."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ple_gym import progress
from ple_gym.compilation import warm_up_and_say
from ple_gym.errors import UsageError
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.policies import load_policy
from ple_gym.files import write_whole, writing
from ple_gym.messages import plain, shown_path
from ple_gym.provenance import provenance
from ple_gym.rules import Rule
from ple_gym.tuning import ENOUGH, Found, Search, Study, tune

SHOWN = 12  # lines of the race


def rule_named(name: str) -> Rule:
    """The rule of that name."""
    found = load_policy(name)
    if not isinstance(found, Rule):
        raise UsageError(f"{plain(name)}: only a rule has parameters")
    return found


def search_and_tell(search: Search, study_file: str) -> Found:
    """Search with a bar; say on stderr how it goes."""
    if weak := [f"{name} < {enough}" for name, enough in ENOUGH.items() if getattr(search, name) < enough]:
        _say(f"{', '.join(weak)}: what wins may not win elsewhere")
    warm_up_and_say(*search.course.schedulers)
    with progress.bar("tuning", search.runs, "runs") as report:
        study = Study(search, study_file, report)
        if study.kept:
            _say(f"{shown_path(study_file)}: goes on; {study.kept:,} parts are there")
        try:
            return tune(search, study, _say)
        except KeyboardInterrupt:
            if study_file:
                _say(f"{shown_path(study_file)}: {study.kept:,} parts are kept; the same command goes on")
            raise
        finally:
            study.close()


def _say(line: str) -> None:
    print(f"tune: {line}", file=sys.stderr)


def race_table(found: Found) -> Grid:
    """Who was how good on the validation seeds, the best first."""
    always = {found.best.name, found.best_builtin, found.search.rule.name, found.own}
    names = [name for place, name in enumerate(found.entrants) if place < SHOWN or name in always]
    restarts = [found.entrants[name].restart for name in names]
    labels = [  # all values do not fit
        name if restart < 0 else f"{found.search.rule.base}, restart {restart + 1}"
        for name, restart in zip(names, restarts, strict=True)
    ]
    against = ["the tuned rule" if name == found.best.name else _percent(*found.percent(name)) for name in names]
    course = found.search.course
    title = f"{course.name}: {course.objective}, {found.search.validation} seeds"
    return Grid(Column("policy", labels), [Column("the tuned rule against it", against)], title=title)


def _percent(mean: float, *ends: float) -> str:
    return f"{mean:+.2f} %" + (f" [{ends[0]:+.2f}, {ends[1]:+.2f}]" if ends else "")


def verdict(found: Found) -> str:
    """Whether a built-in rule is as good as the tuned one, and what it gains on the host's own."""
    _, low, high = [*found.percent(best := found.best_builtin), 0, 0][:3]
    if high < 0:
        told = f"the tuned rule beats every other built-in rule; the best of them is {best}"
    elif low > 0:
        told = f"the built-in rule {best} beats the tuned one: take that"
    else:
        told = f"the built-in rule {best} is as good as the tuned one, as far as these seeds tell"
    return f"{told}\nagainst the host's own rule, {found.own}: {_percent(*found.percent(found.own))}"


def keep(path: str, found: Found, argv: Sequence[str]) -> str:
    """Write the file; what to do with it."""
    made = provenance(argv)
    with writing(path, UsageError):
        write_whole(path, found.to_toml(", ".join(f"{name}: {made[name]}" for name in made)).encode())
    told = shown_path(path)
    return f"{told}: {found.best.name}. Now: ple-gym compare SCENARIO --policies {found.own} {told}"
