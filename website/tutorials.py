"""The tutorials: notebooks in jupytext's percent format, run whenever the site is built."""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from website.markdown import spaced

ROOT = Path(__file__).resolve().parents[1]
#: Page of the site -> file.
PAGES = {f"tutorials/{file.stem}.md": file for file in sorted(ROOT.glob("docs/tutorials/*.py"))}

CELL_S = 300  # for a cell; one may compile the simulator
NOTE = "*Run when this site was built. Download it as a notebook: [{0}.ipynb]({0}.ipynb).*"


def read(kept: str) -> Any:
    notebook = jupytext.reads(kept, "py:percent")
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return notebook


def execute(notebook: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "COLUMNS": "88",
            "IPYTHONDIR": f"{folder}/.ipython",
        }
        return NotebookClient(
            notebook,
            timeout=CELL_S,
            record_timing=False,
            coalesce_streams=True,
            config=Config(KernelManager={"transport_encryption": "auto"}),
        ).execute(cwd=folder, env={**os.environ, **environment})


def sites() -> dict[str, str | bytes]:
    """Place in the site -> content, of all tutorials; two run at a time."""
    with ThreadPoolExecutor(2) as pool:
        every = pool.map(lambda one: site(one[0], one[1].read_text("utf-8")), PAGES.items())
        return {place: content for found in every for place, content in found.items()}


@cache
def site(page: str, kept: str) -> dict[str, str | bytes]:
    """Place in the site -> content, of all that becomes of a tutorial."""
    notebook = execute(read(kept))
    if wrong := unsaid(notebook):
        raise ValueError(f"{page}: bold, but not in the outputs: {', '.join(wrong)}")
    pictures: dict[str, bytes] = {}
    return {page: shown(page, notebook, pictures), page[:-2] + "ipynb": nbformat.writes(notebook), **pictures}


def shown(page: str, notebook: Any, pictures: dict[str, bytes]) -> str:
    """A notebook as Markdown; its pictures are added by place."""
    parts = []
    for cell in notebook.cells:
        code = cell.source.removeprefix("%%bash\n")
        language = "python" if code == cell.source else "sh"
        parts.append(code if cell.cell_type == "markdown" else f"```{language}\n{code}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                place = f"{page[:-3]}-{len(pictures)}.png"
                pictures[place] = base64.b64decode(data["image/png"])
                parts.append(f"![{output.metadata['image/png']['alt']}]({Path(place).name})")
            elif said := told(output):
                parts.append(said if "text/html" in data else f"```text\n{said}\n```")
    purpose, *sections = "\n\n".join(parts).split("\n## ")
    return spaced("\n## ".join([f"{purpose}\n{NOTE.format(Path(page).stem)}\n", *sections]))


def told(output: Any) -> str:
    """What an output says on stdout, as HTML or as text without colours."""
    data = {"text/plain": output.get("text", ""), **output.get("data", {})}
    said = data.get("text/html", data["text/plain"])
    return "" if output.get("name") == "stderr" else re.sub(r"\x1b\[[\d;]*m", "", said).rstrip()


def unsaid(notebook: Any) -> list[str]:
    """The numbers that stand in bold and in no output: a page must not say what is not so."""
    said = " ".join(told(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    there = re.findall(r"[+-]?\d[\d.,]*\b", re.sub("<[^>]*>", " ", said))
    bold = re.findall(r"\*\*([+-]?\d[\d.,]*)\*\*", " ".join(cell.source for cell in notebook.cells))
    return [number for number in bold if number not in there]
