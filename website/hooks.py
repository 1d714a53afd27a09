"""What MkDocs calls: it adds the generated pages, and makes the Markdown of the repository ready."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # MkDocs loads this file alone

from website import pages, pictures, tutorials  # noqa: E402
from website.markdown import relinked, spaced  # noqa: E402

LOG = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, config: Any) -> Files:
    """Add what stands elsewhere in the repository, what is generated, and pictures."""
    for place, content in pages.generated().items():
        files.append(File.generated(config, place, content=content))
    for place, file in pages.copied(ROOT).items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / file)))
    for place, drawn in pictures.drawn().items():
        files.append(File.generated(config, place, content=drawn))
    for place, content in tutorials.sites().items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page's text with links and lists as MkDocs needs them."""
    place = page.file.src_uri
    source = pages.source_of(place)
    if source is None:
        return markdown
    places = {f"docs/{file.src_uri}": file.src_uri for file in files} | {
        file: place for place, file in pages.copied(ROOT).items()
    }
    places["README.md"] = "index.md"
    text = re.sub(r"^```([\w-]*) .*$", r"```\1", markdown, flags=re.MULTILINE)  # not-run, and why

    def address(file: str) -> str:
        if not (ROOT / file).exists():
            LOG.warning("%s: there is no %s", source, file)  # with `strict` an error
        return f"{config.extra['repository']}/blob/main/{file}"

    return relinked(spaced(text), source, place, places, address)
