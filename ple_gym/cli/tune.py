"""`ple-gym tune`: a search for a rule's parameters, what it prints, and the files that it keeps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ple_gym import progress
from ple_gym.compilation import compiling, is_warm, warm_up
from ple_gym.errors import UsageError
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.evaluate.policies import load_policy
from ple_gym.files import write_whole, writing
from ple_gym.messages import plain, shown_path
from ple_gym.provenance import provenance
from ple_gym.rules import RULES, Rule
from ple_gym.tuning import Found, Search, Study, objective, tune

SHOWN = 12  # lines of the race


def rule_named(name: str) -> Rule:
    """The rule of that name."""
    found = load_policy(name)
    if not isinstance(found, Rule):
        raise UsageError(f"{plain(name)}: only a rule has parameters")
    return found


def search_and_tell(search: Search, study_file: str) -> Found:
    """Search with a bar; say on stderr how it goes. What has been run stays in the study's file."""
    if not is_warm():
        with progress.waiting(compiling):
            warm_up()
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
    shown = [one for place, one in enumerate(found.entrants) if place < SHOWN or one in _always(found)]
    cells = [[_label(found, name), _kind(found, name), _percent(found, name)] for name in shown]
    heads = ("policy", "what it is", "the tuned rule against it")
    columns = [Column(head, list(column)) for head, column in zip(heads, zip(*cells, strict=True), strict=True)]
    title = f"{found.search.scenario.name}: {objective(found.search.scenario)}, {found.search.validation} seeds"
    return Grid(columns[0], columns[1:], title=title)


def _always(found: Found) -> set[str]:
    return {found.best.name, found.best_builtin, found.search.rule.name, "host"}


def _label(found: Found, name: str) -> str:
    """A name that fits into a table: all values of a tuned rule do not."""
    restart = found.entrants[name].restart
    return name if restart < 0 else f"{found.search.rule.base}, restart {restart + 1}"


def _kind(found: Found, name: str) -> str:
    if name == found.best.name:
        return "the tuned rule"
    return "built in" if name in RULES else "as it was" if found.entrants[name].restart < 0 else "tuned, too"


def _percent(found: Found, name: str) -> str:
    if name == found.best.name:
        return ""
    one = found.percent(name)
    return f"{one.mean:+.2f} %" + ("" if one.low is None else f" [{one.low:+.2f}, {one.high:+.2f}]")


def verdict(found: Found) -> str:
    """Whether a built-in rule is as good as the tuned one."""
    other = found.percent(found.best_builtin)
    if other.high is not None and other.high < 0:
        return f"the tuned rule beats every other built-in rule; the best of them is {found.best_builtin}"
    if other.low is not None and other.low > 0:
        return f"the built-in rule {found.best_builtin} beats the tuned one: take that"
    return f"the built-in rule {found.best_builtin} is as good as the tuned one, as far as these seeds tell"


def keep(path: str, found: Found, argv: Sequence[str]) -> str:
    """Write the file; what to do with it."""
    with writing(path, UsageError):
        write_whole(path, found.tuned(provenance(argv)).to_toml().encode())
    name = f"./{path}" if path == Path(path).name else path
    return f"{shown_path(path)}: {found.best.name}. Now: ple-gym compare SCENARIO --policies host {shown_path(name)}"
