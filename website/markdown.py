"""Markdown as the repository's host reads it, made ready for MkDocs: links, and lists without blank lines."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

LINK = re.compile(r"(\]\(\s*<?)(?P<target>[^)\s>]+)")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
ITEM = re.compile(r"^ *(?:[-*+]|\d+\.) ")
INNER = re.compile(r"^ {2,3}(?! )")
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")


def relinked(text: str, source: str, place: str, pages: Mapping[str, str], elsewhere: Callable[[str], str]) -> str:
    """The text with its relative links as they must be in the site.

    Args:
        text: Markdown.
        source: the file that it stands in, from the root of the repository.
        place: the page's place in the site.
        pages: file of the repository -> page of the site.
        elsewhere: address of a file of the repository that is no page.
    """

    def changed(match: re.Match[str]) -> str:
        target = match["target"]
        path, mark, fragment = target.partition("#")
        if SCHEME.match(target) or not path:
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if file not in pages:
            return f"{match[1]}{elsewhere(file)}{mark}{fragment}"
        return f"{match[1]}{posixpath.relpath(pages[file], posixpath.dirname(place) or '.')}{mark}{fragment}"

    lines = (line if is_code else _between_code(line, partial(LINK.sub, changed)) for line, is_code in _lines(text))
    return "\n".join(lines) + "\n"


def spaced(text: str) -> str:
    """The text as Python-Markdown needs it: a blank line before every list, and inner lists indented by four."""
    lines: list[str] = []
    for line, is_code in _lines(text):
        if not is_code and ITEM.match(line):
            if lines and lines[-1].strip() and not lines[-1].startswith(" ") and not ITEM.match(lines[-1]):
                lines.append("")
            line = INNER.sub("    ", line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is one of a fenced block."""
    fence = ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        yield line, bool(fence or mark)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]


def _between_code(line: str, change: Callable[[str], str]) -> str:
    """The line with a change of what stands outside backticks; a link around code is changed, too."""
    codes = [match[0] for match in CODE.finditer(line)]
    holes = iter(range(len(codes)))
    changed = change(CODE.sub(lambda _: f"\0{next(holes)}\0", line))
    return re.sub("\0(\\d+)\0", lambda match: codes[int(match[1])], changed)
