"""What is made of the committed tables: RESULTS.md, the pages in docs/, the pictures, and CSV files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from experiments.lab.discovery import experiments, pages
from experiments.lab.folders import DOCS, HERE, RESULTS, TABLES
from experiments.lab.pictures import shrink
from experiments.lab.report import Section, results_page
from experiments.lab.sweeps import Experiment
from experiments.lab.tables import Table, committed, kept
from ple_gym.files import make_folder, write_whole

PAGE = HERE / "RESULTS.md"


def write(measured: Collection[str] | None = None) -> None:
    """Write it all; of the pages those whose tables are there.

    measured: experiments whose CSV files and pictures are up to date, so that nothing is drawn; None: draw all.
    """
    tables = {name: committed(name) for name in experiments() if kept(name).exists()}
    for page in pages():
        if tables.keys() >= set(page.NEEDS):
            page.write(tables)
    found = sections(tables)
    write_whole(PAGE, results_page(found).encode())
    if measured is None:
        make_folder(TABLES)
        write_whole(TABLES / PAGE.name, results_page(found, whole=True).encode())
        for name, table in tables.items():
            table.write_csv(TABLES / f"{name}.csv")
            draw(experiments()[name], table, TABLES)
    for name in shown() & set(tables if measured is None else measured):
        write_whole(RESULTS / f"{name}.png", (TABLES / f"{name}.png").read_bytes())


def sections(tables: Mapping[str, Table]) -> list[Section]:
    """What RESULTS.md says of each experiment."""
    found = []
    for name, table in tables.items():
        experiment = experiments()[name]
        links = f"{len(table):,} rows, digest {table.digest()}: [results/{kept(name).name}](results/{kept(name).name})"
        links += f", picture: [results/{name}.png](results/{name}.png)" if name in shown() else ""
        found.append((name, experiment.title, links, experiment.checks(table)))
    return found


def shown() -> set[str]:
    """The names of the pictures that a document shows; these alone are committed."""
    documents = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("**/*.md"))
    return set(re.findall(r"\]\([./]*experiments/results/(\w+)\.png\)", documents))


def draw(experiment: Experiment, table: Table, folder: Path) -> None:
    """Draw the picture of a table, if the experiment has one."""
    if experiment.draw:
        make_folder(folder)
        path = folder / f"{experiment.name}.png"
        experiment.draw(table, path)
        shrink(path)
