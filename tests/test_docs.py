"""The documents are true: their links lead somewhere, and their Python and shell examples run."""

import os
import re
import subprocess
import sys
import time
import tomllib
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote
from urllib.request import Request, urlopen
from xml.etree import ElementTree

import pytest
from rich.console import Console

import ple_gym
from ple_gym.evaluate.comparison import Comparison
from ple_gym.evaluate.tables import comparison_table
from ple_gym.scenario import describe_parameters
from ple_gym.scenario.builtin import SCENARIOS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
#: Pages of the site, from docs/: those without a file are generated when it is built, which checks their links.
PAGES = set(re.findall(r"\b([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))

FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
INLINE_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(\s*<?(?P<target>[^)\s>]+)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(?P<target>[^\s>]+)")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(?P<title>.+?)(?:\s+#+)?\s*$")
ANCHOR = re.compile(r"<\w+[^>]*\b(?:id|name)=\"(?P<name>[^\"]+)\"")
#: Addresses of files of the repository, for whoever reads the README elsewhere.
REPOSITORY = re.compile(
    r"^https://(?:github\.com/ple-gym/ple_gym/blob|raw\.githubusercontent\.com/ple-gym/ple_gym)/main/"
)
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def split_fences(text: str) -> list[tuple[str, str | None]]:
    """Pair each line with the info string of the fenced block it stands in; None outside blocks and for the fences."""
    lines: list[tuple[str, str | None]] = []
    fence = info = None
    for line in text.splitlines():
        match = FENCE.match(line)
        if fence is None and match:
            fence, info = match["fence"], match["info"].strip()
            lines.append(("", None))
        elif fence is not None and match and match["fence"].startswith(fence) and not match["info"].strip():
            fence = info = None
            lines.append(("", None))
        else:
            lines.append((line, info))
    assert fence is None, f"a block opened with {fence} is never closed"
    return lines


def prose(document: Path) -> list[str]:
    """Return the lines outside fenced blocks; a line inside one becomes empty, so that line numbers stay."""
    return ["" if info is not None else line for line, info in split_fences(document.read_text(encoding="utf-8"))]


def heading_anchors(document: Path) -> set[str]:
    """Return the fragments a link into this document may use, by the rule of the usual Markdown hosts."""
    anchors: set[str] = set()
    repeats: dict[str, int] = {}
    for line in prose(document):
        anchors.update(match["name"] for match in ANCHOR.finditer(line))
        heading = HEADING.match(line)
        if heading:
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["title"])
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            repeat = repeats.get(slug, 0)
            repeats[slug] = repeat + 1
            anchors.add(f"{slug}-{repeat}" if repeat else slug)
    return anchors


def is_generated(target: Path) -> bool:
    """Whether there is such a page on the site only."""
    docs = ROOT / "docs"
    return not target.exists() and target.is_relative_to(docs) and target.relative_to(docs).as_posix() in PAGES


def broken_links(document: Path) -> list[str]:
    """Return one line for each relative link in the document that leads nowhere."""
    broken = []
    for number, line in enumerate(prose(document), start=1):
        visible = INLINE_CODE.sub("", line)
        for match in [*LINK.finditer(visible), *REFERENCE.finditer(visible)]:
            address, in_repository = REPOSITORY.subn("", match["target"])
            if EXTERNAL.match(address):
                continue
            path, _, fragment = unquote(address).partition("#")
            folder = ROOT if in_repository else document.parent
            target = (folder / path).resolve() if path else document
            if is_generated(target):
                continue
            if not target.is_relative_to(ROOT) or not target.exists():
                broken.append(f"{document.name}:{number}: {match['target']}: no such file in the repository")
            elif fragment and target.suffix == ".md" and fragment not in heading_anchors(target):
                broken.append(f"{document.name}:{number}: {match['target']}: no such heading")
    return broken


def unmarked_commands(text: str) -> list[str]:
    """First lines of blocks of commands that nothing runs, as they have no language or are indented, not fenced."""
    begins = re.compile(r" *(ple-gym|python -m|make) ")
    lines = [("", None), *split_fences(text)]
    return [
        line
        for (before, _), (line, info) in pairwise(lines)
        if not before and begins.match(line) and (info == "" or (info is None and line.startswith("    ")))
    ]


def python_script(text: str) -> str:
    """Join a document's ```python blocks into one script in which every line keeps its number.

    Blocks run in order and see one another's names, as they do for a reader who pastes them one by one. A block that
    should not run (a sketch, hours of training) says so where it opens: ```python not-run.
    """
    return "\n".join(line if info == "python" else "" for line, info in split_fences(text)) + "\n"


def shell_script(text: str) -> str:
    """Join a document's ```sh blocks. They run before its Python, in the same folder; other shell blocks do not run."""
    return "\n".join(line for line, info in split_fences(text) if info == "sh")


#: Made by `ple-gym rules`, or from the texts beside their writers.
GENERATED = {
    "rules.md",
    *(text.name.replace(".in.md", ".md").replace("_", "-") for text in ROOT.glob("experiments/pages/*.in.md")),
}
BY_HAND = [page for page in sorted(ROOT.glob("docs/**/*.md")) if page.name not in GENERATED]
MODEL = ROOT / "docs" / "model.md"


def swallowed(lines: list[str]) -> list[str]:
    """Lines that a list takes for its own, as no empty one is before them."""
    found, listed = [], False
    for line in lines:
        listed = line.lstrip().startswith(("- ", "* ")) or (listed and line.strip() != "")
        if listed and not line.startswith((" ", "- ", "* ")):
            found.append(line)
    return found


def too_long(document: Path) -> list[int]:
    """Numbers of the lines of more than 120 characters, but for rows of tables; code counts in the model only."""
    lines = document.read_text(encoding="utf-8").splitlines() if document == MODEL else prose(document)
    left_out = "|" if document == MODEL else ("|", "    ")
    return [n for n, line in enumerate(lines, start=1) if len(line) > 120 and not line.startswith(left_out)]


#: Addresses of other hosts; files of the repository are looked for here.
OUTSIDE = sorted(
    {
        address
        for document in DOCUMENTS
        for address in re.findall(r"https?://[^\s)>`]+", "\n".join(prose(document)))
        if "/ple-gym/" not in address
    }
)
WITH_PYTHON = [page for page in DOCUMENTS if python_script(page.read_text(encoding="utf-8")).strip()]
WITH_SHELL = [page for page in DOCUMENTS if shell_script(page.read_text(encoding="utf-8")).strip()]
WITH_EXAMPLES = sorted({*WITH_PYTHON, *WITH_SHELL})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_relative_links_resolve(document: Path) -> None:
    assert broken_links(document) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_commands_are_marked_as_such(document: Path) -> None:
    assert unmarked_commands(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", BY_HAND, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_lines_are_short(document: Path) -> None:
    assert too_long(document) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_a_list_ends_before_what_follows_it(document: Path) -> None:
    assert swallowed(prose(document)) == []


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/**/*.svg")), ids=lambda picture: picture.name)
def test_a_drawn_picture_is_small_titled_and_on_white(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    first, ground = root[0], root[1]
    assert first.tag.endswith("title") and first.text and ground.get("fill") == "#fff"
    assert [ground.get(side) for side in ("width", "height")] == [root.get("width"), root.get("height")]
    assert picture.stat().st_size <= 2500


@pytest.mark.parametrize("document", WITH_EXAMPLES, ids=lambda document: document.relative_to(ROOT).as_posix())
def test_examples_run(document: Path, tmp_path: Path) -> None:
    text = document.read_text(encoding="utf-8")
    if re.search("sb3|torch|agents train", python_script(text) + shell_script(text)):
        pytest.importorskip("sb3_contrib")
    script = tmp_path / f"{document.stem}.py"  # a traceback's line numbers are the document's
    script.write_text(python_script(text), encoding="utf-8")
    for command in (["bash", "-euo", "pipefail", "-c", shell_script(text)], [sys.executable, script]):
        result = subprocess.run(
            command,
            cwd=tmp_path,  # files the examples write must not land in the checkout
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "MPLBACKEND": "Agg",
                "OMP_NUM_THREADS": "1",
                "MINARI_DATASETS_PATH": str(tmp_path / "minari"),  # nor in anybody's home
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, f"the examples of {document.name} failed:\n{result.stderr}"


@pytest.mark.skipif("PLE_LINKS" not in os.environ, reason="asks other hosts: make links")
@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_answers(address: str) -> None:
    for wait_s in (5, 30, 0):
        try:
            urlopen(Request(address, headers={"User-Agent": "ple-gym"}), timeout=30).close()
            break
        except OSError:
            if not wait_s:
                raise
            time.sleep(wait_s)


def test_package_page_is_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # The build fails if the metadata names a README that does not exist.
    assert project.get("readme") == ("README.md" if README.exists() else None)


def test_there_is_one_version() -> None:
    """It stands in the package; what is built reads it there, and the citation and the changelog name it."""
    version = ple_gym.__version__
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in settings["project"] and settings["project"]["dynamic"] == ["version"]
    source = (ROOT / settings["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.+?)"', source, re.MULTILINE) == [version]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    days = re.findall(r"^## (\S+) \(([0-9-]{10})\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert (version, *re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE)) == days[0]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_demo_is_shown_as_it_prints_now(capsys: pytest.CaptureFixture[str]) -> None:
    """The same policies, heads and seeds as `make demo`; the numbers take a while, so that they are not run again."""
    flags = re.search(r"^DEMO_FLAGS \?= (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert flags
    demo = re.search(r"--policies (?P<policies>.+) --seeds 0:(?P<seeds>\d+)", flags[1])
    assert demo
    policies = demo["policies"].split()
    cycles = {"useful": 1, "spin": 1, "exit": 0}
    run = {"finished": True, "simulated_s": 2.0, "ideal_s": 1.0, "ple_exits": 1, "cycles": cycles}
    seeds = range(int(demo["seeds"]))
    runs = {policy: [run] * len(seeds) for policy in policies}
    comparison = Comparison(SCENARIOS["Paper8"], tuple(seeds), runs, dict.fromkeys(policies, 1.0))
    Console(width=80).print(comparison_table(comparison))
    page, readme = (
        file.read_text(encoding="utf-8").split("```\nPaper8")[1].split("```")[0]
        for file in (ROOT / "docs" / "start" / "demo.md", README)
    )
    assert without_numbers("Paper8" + page) == without_numbers(capsys.readouterr().out)
    assert page.startswith(readme) and "xen-4.5" in readme


def test_the_readme_can_be_read_elsewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") < 120
    assert [match["target"] for match in LINK.finditer(text) if not EXTERNAL.match(match["target"])] == []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    addresses = [
        *settings["project"]["urls"].values(),
        *re.findall(r"repository: (\S+)", (ROOT / "mkdocs.yml").read_text()),
    ]
    assert len(addresses) > 3
    assert [address for address in addresses if not address.startswith("https://github.com/ple-gym/ple_gym")] == []


def without_numbers(table: str) -> list[list[str]]:
    """Title, heads and first words of the lines of a table."""
    lines = [line.split() for line in table.splitlines() if line.strip("- ")]
    return [line if line[0] in ("policy", "Paper8:") else line[:1] for line in lines]


# The checks above would also pass if they looked at nothing, so they are shown something broken.


def test_examples_are_found() -> None:
    pages = ("sb3.md", "howto/add-an-experiment.md")
    assert {README, *(ROOT / "docs" / page for page in pages)} <= set(WITH_PYTHON)
    assert ROOT / "docs" / "howto" / "add-a-scenario.md" in WITH_SHELL


def test_only_sh_blocks_run() -> None:
    text = "```sh\ntrue\n```\n```\nexit 3\n```\n```sh\nfalse\ntrue\n```\n"
    assert shell_script(text) == "true\nfalse\ntrue"


def test_unmarked_commands_are_found() -> None:
    text = "```\nmake a\nmake b\n```\n\n    ple-gym c\n    make d\n```sh\nmake e\n```\n```text\n\nmake f\n```\nmake g\n"
    assert unmarked_commands(text) == ["make a", "    ple-gym c"]


def test_a_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    document = tmp_path / "page.md"
    document.write_text(
        "# One `two`, three!\n"
        "[good](#one-two-three) [good](page.md#one-two-three) [good](https://example.org/x) `[code](nowhere.md)`\n"
        "[bad](nowhere.md)\n"
        "[bad](page.md#four)\n"
        "```\n[code](nowhere.md)\n```\n"
        "[bad]: ../outside.md\n"
        "[bad](https://github.com/ple-gym/ple_gym/blob/main/nowhere.md)\n",
        encoding="utf-8",
    )
    assert [line.split(": ")[0] for line in broken_links(document)] == [
        "page.md:3",
        "page.md:4",
        "page.md:8",
        "page.md:9",
    ]


def test_a_long_line_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, long = tmp_path / "page.md", "x" * 121
    document.write_text(f"{long}\n| {long} |\n```\n{long}\n```\n- {long[3:]}\n- {long[2:]}\n", encoding="utf-8")
    assert too_long(document) == [1, 7] and MODEL in BY_HAND and ROOT / "docs" / "findings.md" not in BY_HAND
    monkeypatch.setattr(sys.modules[__name__], "MODEL", document)
    assert too_long(document) == [1, 4, 7]


def test_a_swallowed_line_is_found() -> None:
    assert swallowed(["- One", "  goes on.", "Two.", "", "Three.", "* Four", "", "Five."]) == ["Two."]


def test_only_python_blocks_run_and_lines_keep_their_numbers() -> None:
    text = "# x\n```python\na = 1\n```\n```python not-run\nb = 1\n```\n```bash\nmake demo\n```\n~~~python\nc = a\n~~~\n"
    assert [(n, line) for n, line in enumerate(python_script(text).splitlines(), 1) if line] == [
        (3, "a = 1"),
        (12, "c = a"),
    ]


def test_the_model_says_what_every_parameter_may_be() -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([^|]+) \|", (ROOT / "docs/model.md").read_text(), re.MULTILINE)
    allowed = {name: text for name, (text, _) in describe_parameters().items() if "." in name}
    grammars = {name: "a distribution (3.2)" for name, text in allowed.items() if text.startswith("constant C")}
    assert dict(rows) == allowed | grammars
