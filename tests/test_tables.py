"""Tables at every width: all that is in a table can be read, whole."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_exported import random_network

from ple_gym import evaluate
from ple_gym.bench import Measurement, Report
from ple_gym.certify.catalogue import verdicts
from ple_gym.evaluate import Comparison, Group, tables
from ple_gym.evaluate.grid import Column, Grid
from ple_gym.learned.file import write_network
from ple_gym.scenario import describe_parameters

WIDTHS = range(20, 201)


def printed(grid: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(grid)
    text = console.file.getvalue()
    assert text.isascii()
    return text.splitlines()


def check_whole(grid: Grid, width: int) -> None:
    """Every word of every cell stands whole in the output (but of first columns, which may be shortened or folded)."""
    lines = printed(grid, width)
    assert max(map(len, lines)) <= width
    words = [word for line in lines for word in line.split()]
    wanted: dict[str, int] = {}
    whole = [*itertools.chain(*grid.groups), *([grid.key] if grid.key.head == "seed" else [])]
    for column in whole:
        for cell in column.cells:
            for word in cell.split():
                wanted[word] = wanted.get(word, 0) + 1
    for word, times in wanted.items():
        if len(word) <= width:
            assert words.count(word) >= times, (word, width, lines)


def comparison(policies: Any = None, capped: bool = False, scenario: str = "Tiny") -> Comparison:
    limit = {"limit.simulated_s": 0.001} if capped else None
    return evaluate.compare(scenario, policies, range(3), limit)


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grid]:
    """One of each kind of table that any command prints."""
    folder = tmp_path_factory.mktemp("a-folder-with-a-long-name-" + "x" * 60)
    for name in ("a", "b"):
        (folder / name).mkdir()
        write_network(folder / name / "policy.npz", random_network("set", 0))
    learned = [f"learned:{folder}/{name}/policy.npz" for name in ("a", "b")]
    machine: dict[str, Any] = {"cpus": 2}
    rows = [
        Measurement("kernel, Storm 4x8, that lasts", 12_345_678.9, "events/s", ">= 1,200,000", False, "9,999,999 ns"),
        Measurement("left out", None, "", "", None, "3.25 and 17.5 beside " * 5),
    ]
    return {
        "scenarios": tables.scenario_table(verdicts()),
        "policies": tables.policy_table(),
        "parameters": tables.parameter_table(list(describe_parameters())),
        "runs": tables.run_table(evaluate.simulate("Storm", "xen-4.8", range(24))),
        "comparison": tables.comparison_table(comparison(scenario="TicketOrder")),
        "vms": tables.vm_table(evaluate.compare("TicketOrder", ["host", "kvm"], range(3), {"guest.count": 2})),
        "capped": tables.comparison_table(comparison(capped=True)),
        "learned": tables.comparison_table(comparison(["host", *learned, Group("set-ppo hidden=64,steps=9", learned)])),
        "ideal": tables.ideal_table([comparison(), comparison(capped=True), comparison(scenario="TicketOrder")]),
        "bench": tables.bench_table(Report(rows, machine)),
    }


@pytest.mark.parametrize(
    "name", ["scenarios", "policies", "parameters", "runs", "comparison", "vms", "capped", "learned", "ideal", "bench"]
)
def test_no_digit_is_lost_at_any_width(name: str, grids: dict[str, Grid]) -> None:
    for width in WIDTHS:
        check_whole(grids[name], width)


cells = st.one_of(
    st.floats(-1e12, 1e12).map(tables.number),
    st.tuples(*[st.floats(-1e9, 1e9)] * 3).map(lambda three: "{} [{}, {}]".format(*map(tables.number, three))),
    st.just("-"),
    st.just(""),
)


@given(st.data())
def test_no_digit_of_any_table_is_lost(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    made = [
        Column(f"head {n}", data.draw(st.lists(cells, min_size=rows, max_size=rows)), n % 2 == 0, n % 3 == 0)
        for n in range(columns)
    ]
    names = data.draw(st.lists(st.text("abc /", min_size=1, max_size=60), min_size=rows, max_size=rows))
    half = columns // 2
    check_whole(Grid(Column("policy", names), made[:half], made[half:], title="a title of several words"), width)


def test_a_wide_table_is_one_table_with_every_column() -> None:
    grid = Grid(Column("a", ["x", "y"]), [Column("b", ["1", "22"], right=True)], [Column("c", ["p q", "r"])], title="t")
    assert printed(grid, 80) == ["t", "a  b c", "--------", "x  1 p q", "y 22 r"]
    assert printed(grid, 6) == ["t", "a  b", "----", "x  1", "y 22", "", "a c", "-----", "x p q", "y r"]
    assert printed(grid, 3) == ["t", "x", "b:", "1", "c:", "p q", "", "y", "b:", "22", "c:", "r"]


def test_prose_gives_way_before_a_table_is_split() -> None:
    text = "some words that need more than one line of a narrow terminal"
    grid = Grid(Column("name", ["x"]), [Column("number", ["1,234"], right=True), Column("text", [text], prose=True)])
    lines = printed(grid, 40)
    assert lines[0].split() == ["name", "number", "text"]
    assert " ".join(" ".join(line[12:] for line in lines[2:]).split()) == text
    assert lines[2].startswith("x     1,234 some")


def test_policies_from_files_have_short_names_that_differ() -> None:
    names = [
        "host",
        "learned:storm-set",
        "learned:/a/b/c/mine.npz",
        "learned:/a/b/policy.npz",
        "learned:/a/d/policy.npz",
    ]
    assert tables.short_names(names) == [
        "host",
        "learned:storm-set",
        "learned:mine",
        "learned:b/policy",
        "learned:d/policy",
    ]
    names = ["learned:/x/b/policy.npz", "learned:/y/b/policy.npz", "learned:/storm-set.npz", "learned:storm-set"]
    assert tables.short_names(names)[:2] == ["learned:x/b/policy", "learned:y/b/policy"]
    assert len(set(tables.short_names(names))) == 4
    assert tables.short_names(["learned:policy.npz"]) == ["learned:policy.npz"]


def test_a_long_path_is_shown_where_it_fits(grids: dict[str, Grid]) -> None:
    grid = grids["learned"]
    wide = "\n".join(printed(grid, 400))
    assert "x" * 60 in wide
    narrow = printed(grid, 100)
    assert sum(line.startswith("learned:a/policy ") for line in narrow) >= 1
    assert "x" * 60 not in "\n".join(narrow)


def test_many_runs_are_told_and_not_shown() -> None:
    lines = printed(tables.run_table(evaluate.simulate("HolderPreempted", "kvm", range(25))), 100)
    assert len(lines) == 2 + tables.MOST_RUNS + 1
    assert lines[-1].split() == ["and", "5", "more"]


def test_means_of_whole_numbers_keep_a_decimal_while_small() -> None:
    assert [tables.count(float(value)) for value in np.array([0.0, 999.94, 1000.2])] == ["0.0", "999.9", "1,000"]
