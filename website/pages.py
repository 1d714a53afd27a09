"""Pages of the site that do not stand in `docs/`: what each holds, and where it is in the repository if it is there."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from website import cards, commands, files, fleet, python, tutorials

#: Page of the site -> file of the repository.
ELSEWHERE = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/conduct.md": "CODE_OF_CONDUCT.md",
    "project/security.md": "SECURITY.md",
    "results/claims.md": "experiments/RESULTS.md",
}


@cache
def generated() -> dict[str, str]:
    """Page -> its Markdown, of those that are made from the program."""
    return cards.pages() | fleet.pages() | commands.pages() | python.pages() | files.pages()


@cache
def copied(root: Path) -> dict[str, str]:
    """Place in the site -> file, of pages and pictures that stand elsewhere in the repository."""
    pictures = sorted((root / "experiments" / "results").glob("*.png"))
    return ELSEWHERE | {f"results/{file.name}": file.relative_to(root).as_posix() for file in pictures}


def source_of(place: str) -> str | None:
    """The file of a page, from the root of the repository; None of one that is generated or run."""
    return None if place in generated() or place in tutorials.PAGES else ELSEWHERE.get(place, f"docs/{place}")
