"""The site: its map holds every page, each page says what it is for and where to go next, generated ones are whole."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from PIL import Image, ImageSequence

import ple_gym
from experiments.lab.tables import committed
from experiments.learning import typical
from ple_gym.cli.commands import Command
from ple_gym.envs.registration import MAX_EPISODE_STEPS
from ple_gym.evaluate.comparison import Comparison
from ple_gym.lanes import INFORMATION
from ple_gym.rules.own import own_rule
from ple_gym.scenario import describe_parameters
from ple_gym.scenario.builtin import SCENARIOS, VERSIONS
from ple_gym.view.features import seen_in
from website import cards, files, markdown, pages, pictures, python, tutorials

pytest.importorskip("sb3_contrib", reason="the page of commands shows the help of learners")
ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Their form is their own: the specification, what commands write, and what the repository's forge looks for.
OTHERS = {
    "best-policy.md", "field-cases.md", "findings.md", "findings-on-hosts.md", "index.md", "intervals.md",
    "leaderboard.md", "model.md", "project/changelog.md", "project/conduct.md", "project/contributing.md",
    "project/security.md", "results/claims.md", "rules.md",
}  # fmt: skip

#: Prose: tests look at its links, commands and form, and none reads what it says.
UNREAD = {
    "agents.md", "glossary.md", "hosts/credit.md", "howto/add-a-rule.md", "howto/run-the-reality-check.md",
    "project/conduct.md", "project/security.md", "reality.md", "speed.md",
}  # fmt: skip


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without calling what it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def leaves(nav: Any) -> Iterator[str]:
    """The pages of a map, in their order."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else leaves(value)


MAP = list(leaves(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]))


def text_of(page: str) -> str:
    """The Markdown of a page of the site, wherever it is from; of a tutorial without outputs."""
    if page in tutorials.PAGES:
        return tutorials.shown(page, tutorials.read(tutorials.PAGES[page].read_text("utf-8")), {})
    source = pages.source_of(page)
    return pages.generated()[page] if source is None else (ROOT / source).read_text(encoding="utf-8")


def test_the_map_holds_every_page_once() -> None:
    written = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert sorted(MAP) == sorted(written | set(pages.generated()) | set(pages.ELSEWHERE) | set(tutorials.PAGES))


def owners(page: str) -> list[str]:
    """The tests that make a page, run its examples, or read it by its name or its writer's."""
    if page in pages.generated() or page in tutorials.PAGES:
        return ["test_site.py" if page in pages.generated() else "test_tutorials.py"]
    found = ["test_docs.py"] if re.search(r"^```(?:python|sh)$", text_of(page), re.MULTILINE) else []
    name = Path(pages.source_of(page) or "").name
    read = re.compile(rf'[/"]{name}"|"{page}"|\b{name[:-3].replace("-", "_")}(_page)?\.PAGE\b')
    tests = [file for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__)]
    return found + [file.name for file in tests if read.search(file.read_text(encoding="utf-8"))]


def test_every_page_has_a_test_that_reads_it_or_is_known_to_have_none() -> None:
    assert {page for page in MAP if not owners(page)} == UNREAD


@pytest.mark.parametrize("page", [page for page in MAP if page not in OTHERS])
def test_a_page_begins_with_what_it_is_for_and_ends_with_where_to_go_next(page: str) -> None:
    title, text = text_of(page).split("\n", 1)
    assert re.match(r"# \S", title)
    first = text.partition("\n## ")[0].partition("```")[0]
    assert re.search(r"\bThis (page|card) [a-z]+", " ".join(first.split())), first
    last = text.rpartition("\n## ")[2]
    assert last.startswith("Where to go next\n") and "](" in last


def test_generated_pages_have_all_that_there_is() -> None:
    made = pages.generated()
    assert [name for name in SCENARIOS if f"environments/{name}.md" not in made] == []
    assert [name for name in describe_parameters() if f"`{name}`" not in made["reference/parameters.md"]] == []
    names = [one.__metadata__[0].name for one in get_args(Command)]
    assert [name for name in names if f"\n## ple-gym {name}\n" not in made["reference/commands.md"]] == []
    assert [page for page, text in made.items() if str(ROOT) in text] == []  # a folder of whoever builds the site
    assert (
        "--timeline FILE.png|pdf|svg" in made["reference/commands.md"] and "\x1b" not in made["reference/commands.md"]
    )
    for name in ple_gym.__all__:
        assert f"ple_gym.{name}\n" in made["reference/python.md"] or f"#ple_gym.{name})" in made["reference/python.md"]
    for module in python.public_modules():
        assert f"::: {module}\n" in made["reference/modules.md"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_card_says_what_the_environment_says(name: str) -> None:
    env, card = ple_gym.PleEnv(name), cards.card(name)
    assert f"`Discrete({env.action_space.n})`" in card
    assert f"float32 [{env.observation_space.shape[0]}]" in card
    tokens = ple_gym.PleEnv(name, observation="tokens").observation_space
    assert f"vcpus [{', '.join(map(str, tokens['vcpus'].shape))}], host [{tokens['host'].shape[0]}]" in card
    table = seen_in(env.scenario)
    features = [one.name for one in (*table.of_vcpu(INFORMATION["oracle"]), *table.host)]
    assert [feature for feature in features if f"\n| `{feature}` | " not in card] == []


def test_a_step_limit_is_far_beyond_usual_runs() -> None:
    """As docs/vector.md says: 10 times the longest run at random, 8 times that of a rule which names a vCPU."""
    table = committed("typical")
    for one in typical.IDS:
        limit = MAX_EPISODE_STEPS[one.split("-v")[0]]
        longest = {rule: table.where(scenario=one, policy=rule)["exits"].max(initial=0) for rule in typical.RULES}
        assert 0 < 10 * longest["random"] <= limit, one
        assert all(8 * longest[rule] <= limit for rule in set(longest) - {"host", "continue", "paper"}), one


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_card_tells_the_history_of_its_id(name: str) -> None:
    history = cards.card(name).split("## Version history\n")[1].split("\n## ")[0]
    versions = [int(number) for number in re.findall(r"^- `v(\d)`: ", history, re.M)]
    assert versions == [*reversed(range(VERSIONS[name] + 1))]
    for rule in typical.BOTH if versions[0] else ():
        assert re.search(rf"`{rule}` [+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]~? %", history), rule


def test_every_card_has_a_picture_and_those_that_are_drawn_show_exits() -> None:
    assert set(cards.PICTURES) == set(SCENARIOS) and set(cards.DRAWN) == set(pictures.CARDS)
    for name, shown in pictures.CARDS.items():
        marks = pictures.figure(name, *shown).axes[-1].collections
        assert max(len(one.get_offsets()) for one in marks) > 20, name


def test_the_moving_picture_is_short_and_small() -> None:
    file = DOCS / "storm.gif"
    with Image.open(file) as gif:
        ms = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
        assert gif.width == 803 and len(ms) > 9 and sum(ms) <= 10_000 and file.stat().st_size < 60_000


def test_typical_scores_name_the_best_rule_and_the_best_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    cycles = {"spin": 0, "exit": 0, "rest": 1}

    def runs(seconds: float) -> list[dict[str, Any]]:
        return [{"finished": True, "simulated_s": seconds, "ideal_s": 1.0, "ple_exits": 1, "cycles": cycles}]

    times = {"host": 9.0, "random": 8.0, "kvm": 3.0, "paper": 4.0, "oracle": 2.0, "worse": 7.0, "better": 2.5}
    made = {policy: runs(seconds) for policy, seconds in times.items()}
    comparison = Comparison(SCENARIOS["Storm"], (0,), made, dict.fromkeys(made, 0.0))
    monkeypatch.setattr(cards, "_compared", lambda name: comparison)
    card = cards.card("Storm")
    assert "best rule: `kvm` | 3,000 " in card and "best learner: `better` | 2,500 " in card
    assert "ideal, out of reach | 1,000 " in card


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_card_has_scores(name: str) -> None:
    card, own = cards.card(name), f"the host's own: `{own_rule(SCENARIOS[name])}`"
    for what in ("random: `random`", own, "rule", "knows the locks: `oracle`", "ideal, "):
        assert re.search(rf"^\| .*{re.escape(what)}.* \| [\d.,]+", card, re.M), what


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_code_of_a_card_runs(name: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", cards.card(name), re.S)
    exec(code, {})


def test_links_lead_to_pages_of_the_site_or_to_files_of_the_repository() -> None:
    places = {"docs/model.md": "model.md", "CHANGELOG.md": "project/changelog.md"}

    def relinked(text: str, source: str, place: str) -> str:
        return markdown.relinked(text, source, place, places, "https://forge/blob/{}".format).rstrip("\n")

    assert (
        relinked("[a](../model.md#x) `[b](c.md)`", "docs/howto/h.md", "howto/h.md") == "[a](../model.md#x) `[b](c.md)`"
    )
    assert relinked("[a](../../CHANGELOG.md)", "docs/howto/h.md", "howto/h.md") == "[a](../project/changelog.md)"
    assert relinked("[`a`](docs/model.md)", "CHANGELOG.md", "project/changelog.md") == "[`a`](../model.md)"
    assert relinked("[a](../tests/t.py)", "docs/model.md", "model.md") == "[a](https://forge/blob/tests/t.py)"
    assert relinked("[a](#x) [b](https://c/d)", "docs/model.md", "model.md") == "[a](#x) [b](https://c/d)"
    assert relinked("```\n[a](b.md)\n```", "docs/model.md", "model.md") == "```\n[a](b.md)\n```"


def test_lists_are_spaced_as_the_site_needs_them() -> None:
    assert markdown.spaced("Text:\n* a\n  more\n   * b\n* c\n") == "Text:\n\n* a\n  more\n    * b\n* c\n"
    assert markdown.spaced("```\nx\n- y\n```\n") == "```\nx\n- y\n```\n"
    assert markdown.spaced("- a\n- b\n") == "- a\n- b\n"


def test_parameters_are_shown_with_their_defaults() -> None:
    assert "| `host.ratelimit_us` | 0 (off) or 100..500000 | 1000 |" in files.pages()["reference/parameters.md"]


def docstring_of(name: str) -> str:
    """What stands below a public name where it is defined; of data that is a text behind its assignment."""
    value = getattr(ple_gym, name)
    if inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    for file in (ROOT / "ple_gym").rglob("*.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        for node, follower in pairwise(body):
            target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
            is_text = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
            if is_text and isinstance(target, ast.Name) and target.id == name:
                return inspect.cleandoc(follower.value.value)
    return ""


@pytest.mark.parametrize("name", ple_gym.__all__)
def test_a_public_name_is_explained_with_an_example_that_is_true(name: str) -> None:
    text = docstring_of(name)
    assert len(text.partition("Examples:")[0]) > 40, text
    example = doctest.DocTestParser().get_doctest(text, {"ple_gym": ple_gym}, name, None, 0)
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize(
    "name", ("PleEnv", "PleVectorEnv", "Scenario", "Group", "compare", "load", "make_sb3", "simulate")
)
def test_what_takes_input_of_users_says_what_it_raises(name: str) -> None:
    assert re.search(r"^Raises:\n +[A-Z]\w*Error\b", docstring_of(name), re.MULTILINE)


def test_arrays_have_shapes() -> None:
    shapes = {
        "PleEnv": "int8 [V + 1]",
        "PleVectorEnv": "int64 [N]",
        "record": "int64 [n, 5]",
        "VCPU_FEATURES": "F texts",
    }
    assert [name for name, shape in shapes.items() if shape not in docstring_of(name)] == []


def test_nothing_silences_the_build() -> None:
    """With --quiet MkDocs counts no warnings, so that `strict` finds none."""
    assert re.search(r"-m mkdocs build$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(r"^strict: true$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
