"""Results as others read them: what is in the numbers is in each form, and nothing of a cell is taken for markup."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from ple_gym import compare, evaluate
from ple_gym.evaluate import Comparison
from ple_gym.scenario.builtin import SCENARIOS

HOSTILE = "a#b|c*d_e&f<g>h%i\\j{k}[l]~"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare("Tiny", ["host", "kvm"], range(3))


@pytest.fixture(scope="module")
def hostile(comparison: Comparison) -> Comparison:
    runs = {HOSTILE: comparison.runs["kvm"], "host": comparison.runs["host"]}
    return Comparison(SCENARIOS["Tiny"], comparison.seeds, runs, dict.fromkeys(runs, 1.0))


def test_records_hold_the_numbers_of_the_rows(comparison: Comparison) -> None:
    for record, row in zip(comparison.records(), comparison.rows(), strict=True):
        known = asdict(row)
        assert (record["policy"], record["members"], record["ple_exits"]) == (row.policy, row.policy, row.ple_exits)
        for name in ("makespan_s", "p95_s", "log_ratio", "best_ratio", "score"):
            parts = known[name] or {}
            assert record[name] == parts.get("mean")
            assert all(record[f"{name}_{part}"] == parts.get(part) for part in ("low", "high", "few"))


def test_names_do_not_depend_on_the_policies(comparison: Comparison) -> None:
    alone = compare("Tiny", ["host"], range(1))
    assert list(alone.records()[0]) == list(comparison.records()[0])


def test_csv_reads_back(hostile: Comparison) -> None:
    text = hostile.to_csv(["compare", "Ti\nny"])
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "# command: ple-gym compare 'Ti\\nny'" in comments
    assert text.startswith("".join(f"{line}\n" for line in comments))
    rows = list(csv.DictReader(text.splitlines()[len(comments) :]))
    assert rows == [{name: "" if one is None else str(one) for name, one in row.items()} for row in hostile.records()]
    assert text.count(f'"{HOSTILE}"') == 2  # quoted, or # would begin a comment


def test_pandas_reads_what_is_written(hostile: Comparison, tmp_path_factory: pytest.TempPathFactory) -> None:
    pandas = pytest.importorskip("pandas")
    file = tmp_path_factory.mktemp("csv") / "table.csv"
    file.write_text(hostile.to_csv())
    read, direct = pandas.read_csv(file, comment="#"), hostile.to_dataframe()
    assert list(read["policy"]) == list(direct["policy"]) == [HOSTILE, "host"]
    assert list(read.columns) == list(direct.columns)
    assert list(read["makespan_s"]) == pytest.approx(list(direct["makespan_s"]), rel=1e-12)


def test_a_dataframe_is_made_of_the_records(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    assert comparison.to_dataframe() == comparison.records()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pandas is not installed: pip install 'ple-gym\[tables\]'"):
        comparison.to_dataframe()


def cells_of(comparison: Comparison) -> list[list[str]]:
    grid = evaluate.comparison_table(comparison)
    columns = [grid.key, *(column for group in grid.groups for column in group)]
    return [[column.head for column in columns], *map(list, zip(*(one.cells for one in columns), strict=True))]


def test_markdown_has_the_cells_of_the_table(hostile: Comparison) -> None:
    table, made = hostile.to_markdown().split("\n\n<!-- ", 1)
    assert made.startswith("ple_gym: ") and " -->\n<!-- date: 2" in made and "scenario Tiny: " in made
    title, blank, head, rule, *rows = table.splitlines()
    assert (title, blank, rule[:10]) == ("**Tiny: 3 seeds, times in ms**", "", "|---|---:|")
    assert rows[0].startswith(r"| a#b\|c\*d\_e&f\<g>h%i\\j{k}[l]~ | ")
    plain = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in (head, rows[1])]
    known = cells_of(hostile)
    assert plain == [known[0], known[2]]


def test_latex_takes_no_cell_for_a_command(hostile: Comparison) -> None:
    table, made = hostile.to_latex().split("\n% ple_gym: ")
    assert "\n% date: 2" in made and "\n% scenario Tiny: " in made
    title, begin, head, rule, *rows, end = table.splitlines()
    assert (begin[:19], rule, end) == (r"\begin{tabular}{lrr", r"\hline", r"\end{tabular}")
    assert title == "% Tiny: 3 seeds, times in ms"
    name = r"a\#b|c*d\_e\&f$<$g$>$h\%i\textbackslash{}j\{k\}{[}l]\textasciitilde{} & "
    assert rows[0].startswith(name)
    assert [line.replace(r"\&", "").count("&") for line in (head, *rows)] == [len(cells_of(hostile)[0]) - 1] * 3
    assert all(line.endswith(r" \\") for line in (head, *rows))


def test_notebooks_show_the_cells_of_the_table(hostile: Comparison) -> None:
    class Cells(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    found: list[str] = []
    Cells().feed(hostile._repr_html_())
    assert found == ["Tiny: 3 seeds, times in ms", *(cell for row in cells_of(hostile) for cell in row if cell)]


def test_a_comparison_is_shown_in_a_line(comparison: Comparison) -> None:
    assert repr(comparison) == "<Comparison on 'Tiny': host, kvm; 3 seeds>"
    runs = dict.fromkeys("abcdefg", comparison.runs["kvm"])
    many = Comparison(SCENARIOS["Tiny"], comparison.seeds, runs, dict.fromkeys(runs, 1.0))
    assert repr(many) == "<Comparison on 'Tiny': a, b, c, d, ...; 3 seeds>"


def test_a_digest_is_of_what_is_simulated() -> None:
    digests = {scenario.digest for scenario in SCENARIOS.values()}
    assert len(digests) == len(SCENARIOS)
    tiny = SCENARIOS["Tiny"]
    assert tiny.with_overrides({"name": "other", "description": "of it"}).digest == tiny.digest
    assert tiny.with_overrides({"ple.window": 4097}).digest not in digests
