"""The command line reference: what each command says of itself."""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
from collections.abc import Callable, Sequence
from typing import get_args

INTRODUCTION = """# Command line

This page lists every command and option. It is made from the programs' own help.

`ple-gym` simulates and compares, `ple-gym agents` trains, and `ple-gym experiments` reproduces results; in a checkout
`python -m agents` and `python -m experiments` are the same. They end with 0; with 2 after a mistake that you can put
right, and one line that says how; with 130 after Ctrl-C. Results go to stdout, progress and messages to stderr.
"""
NEXT = """## Where to go next

[First run](../start/first-run.md) · [Parameters of `--set`](parameters.md) · [Write a rule](../howto/write-a-rule.md)
"""


def pages() -> dict[str, str]:
    """Page -> Markdown."""
    from agents.commands import LEARNERS
    from agents.commands import execute as agents
    from experiments.lab.commands import execute as experiments
    from ple_gym.cli.commands import Command, execute

    names = [one.__metadata__[0].name for one in get_args(Command)]
    trained = [[name] for name in ("evaluate", "export", "convert")] + [["train", LEARNERS[0]]]
    sections = [
        *(_section("ple-gym", execute, command) for command in ([], *([name] for name in names))),
        *(_section("ple-gym agents", agents, command) for command in ([], *trained)),
        _section("ple-gym experiments", experiments, []),
    ]
    return {"reference/commands.md": "\n".join([INTRODUCTION, *sections, NEXT])}


def _section(program: str, execute: Callable[[Sequence[str]], int], command: list[str]) -> str:
    return f"## {' '.join([program, *command])}\n\n```text\n{_help(execute, command)}```\n"


def _help(execute: Callable[[Sequence[str]], int], command: list[str]) -> str:
    """What `COMMAND --help` prints on a plain terminal of 88 columns."""
    kept = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR", "TERM")}
    os.environ.update(COLUMNS="88", NO_COLOR="1", TERM="dumb")
    try:
        with contextlib.redirect_stdout(io.StringIO()) as told:
            code = execute([*command, "--help"])
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert code == 0, f"{command}: --help ends with {code}"
    text = told.getvalue().replace(f"{os.getcwd()}/", "").rstrip()  # a default may be a folder of who builds the site
    return "\n".join(map(_wrapped, text.splitlines())) + "\n"


def _wrapped(line: str) -> str:
    """A line of at most 100 characters, or several; examples stay whole, to be copied."""
    if len(line) <= 100 or line.startswith("Example:"):
        return line
    indent = "  " if line.startswith("usage:") else ""
    return textwrap.fill(line, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
