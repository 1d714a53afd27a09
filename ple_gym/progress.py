"""What is shown on stderr while something takes long: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

QUIET_S = 10.0  # between two lines where there is no terminal
LONG_S = 0.5  # after which a part of long work that is not done is reported, again and again
PATIENCE_S = 3.0  # before something that may be short is shown


class Report(Protocol):
    """What long work calls: how much is done, and what it is at."""

    def __call__(self, done: float, note: str = "") -> None:
        """Show it."""


@contextmanager
def bar(what: str, total: float, unit: str = "", quiet: bool = False) -> Iterator[Report]:
    """Show how much of `total` is done; yields what to call.

    what: stands before the bar; unit: of the numbers, where lines are printed (`what` if empty);
    quiet: nothing is shown.
    """
    if quiet:
        yield _nothing
        return
    if not _live():
        yield _lines(what, total, unit)
        return
    columns: tuple[ProgressColumn, ...] = (TextColumn("{task.description}"), BarColumn())
    columns += (MofNCompleteColumn() if unit != "%" else TextColumn("{task.percentage:>3.0f} %"),)
    columns += (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total, note="")

        def report(done: float, note: str = "") -> None:
            shown.update(task, completed=done, note=note)

        yield report


def _nothing(done: float, note: str = "") -> None:
    """Show nothing."""


def _lines(what: str, total: float, unit: str) -> Report:
    printed_at, lock = time.monotonic(), threading.Lock()

    def report(done: float, note: str = "") -> None:
        nonlocal printed_at
        with lock:
            if time.monotonic() - printed_at < QUIET_S:
                return
            printed_at = time.monotonic()
            much = f"{100 * done / total:.0f} %" if unit == "%" else f"{done:g} of {total:g}"
            print(f"{what}: {much}{f', {note}' if note else ''}", file=sys.stderr)

    return report


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show which of `total` steps is being made; yields what to call with the name of each before it begins."""
    begun = 0
    with bar(what, total) as report:

        def announce(name: str) -> None:
            nonlocal begun
            if not _live():
                print(f"{what}: {name}", file=sys.stderr)
            report(begun, name)
            begun += 1

        yield announce


@contextmanager
def waiting(text: str | Callable[[], str | None], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Say what is going on inside, and for how long, if it lasts longer than `patience_s`.

    text: the message; a function is called when it has lasted that long, and may return None for no message.
    """
    began = time.monotonic()
    lock, ended = threading.Lock(), False
    shown: Progress | None = None
    message = ""

    def show() -> None:
        nonlocal shown, message
        with lock:
            if ended or not (text_now := text() if callable(text) else text):
                return
            message = text_now
            if not _live():
                print(message, file=sys.stderr)
                return
            shown = Progress(
                SpinnerColumn("line"), TextColumn("{task.description}"), TimeElapsedColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            shown.start()
            shown.add_task(message, total=None)
            shown.tasks[0].start_time = began

    timer = threading.Timer(patience_s, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended = True
            timer.cancel()
            if shown:
                shown.stop()
    if message and not shown:
        print(f"{message.partition(':')[0]}: done after {time.monotonic() - began:.0f} s", file=sys.stderr)


def _live() -> bool:
    """Whether stderr is a terminal on which lines can be drawn anew."""
    return bool(sys.stderr and sys.stderr.isatty()) and not Console(stderr=True).is_dumb_terminal
