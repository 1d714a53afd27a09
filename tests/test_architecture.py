"""What imports what: every module imports only from layers below its own, as docs/architecture.md lists them."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.guest.kinds import LOCK_KINDS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
TOPS = ("ple_gym", "ple_gym_main", "agents", "experiments")
TYPES, NAMED = "for types only", "by name"  # kinds of imports; others are plain


class Import(NamedTuple):
    """Who imports what; `kind`: TYPES, NAMED (a text that is the name of a module), or empty."""

    by: str
    what: str
    kind: str = ""


#: What goes upward all the same, and why. Nothing else may; and what has gone must leave this table.
UPWARD = {
    **{
        Import("ple_gym.scenario.schedulers", host, NAMED): "the registry of hosts, loaded by the seam"
        for host in SCHEDULERS.values()
    },
    Import("ple_gym.evaluate.tables", "ple_gym.bench", TYPES): "all tables are made in one place, that of bench too",
    Import("ple_gym.adapters.minari", "ple_gym"): "a data set notes the version",
    Import("ple_gym.provenance", "ple_gym"): "every document notes the version",
    Import("ple_gym.adapters.rllib", "ple_gym"): "RLlib's workers import the adapter only: it registers the ids there",
    Import("ple_gym.bench.peers", "experiments.peers.simpy_model", NAMED): "a peer that only a checkout has",
}

#: Who reaches into host and guest from outside, beside those that ask `guest.waits` or `guest.held`, which anybody may.
MEETINGS = {
    Import(
        "ple_gym.sim.dispatch", "ple_gym.sim.guest.interrupts"
    ): "who leaves has interrupts to serve; who wakes, ticks",
    Import("ple_gym.sim.kernel", "ple_gym.sim.guest.interrupts"): "a guest's timer is one of its pCPU's",
    Import("ple_gym.sim.dispatch", "ple_gym.sim.guest.locks"): "who stands in line and leaves, or is back, is seen",
    Import("ple_gym.sim.dispatch", "ple_gym.sim.guest.running"): "a vCPU that enters goes on with its work",
    Import("ple_gym.sim.kernel", "ple_gym.sim.guest.locks"): "the event loop serves the guests' events",
    Import("ple_gym.sim.kernel", "ple_gym.sim.guest.program"): "at time 0 each vCPU takes work",
    Import("ple_gym.sim.kernel", "ple_gym.sim.guest.running"): "the event loop serves the guests' events",
    Import("ple_gym.sim.kernel", "ple_gym.sim.guest.threads"): "at time 0 threads begin, and their sleeps end",
    Import("ple_gym.sim.redraw", "ple_gym.sim.guest.program"): "what was drawn is drawn anew as it was",
    Import("ple_gym.sim.soundness", "ple_gym.sim.guest.threads"): "an idle vCPU has no thread",
    Import("ple_gym.sim.kernel", "ple_gym.sim.host.runqueue"): "at time 0 each vCPU is put into a queue",
    Import("ple_gym.rules.paper", "ple_gym.sim.host.credit"): "it reads Xen's priorities, and decides on no other host",
    Import("ple_gym.rules.header", "ple_gym.sim.host.credit"): "rules in C may read Xen's records",
    Import("ple_gym.view.credit2", "ple_gym.sim.host.credit2"): "its own features are as it sees them itself",
    Import("ple_gym.view.fair", "ple_gym.sim.host.cfs_rq"): "its own features are as it sees them itself",
    Import("ple_gym.view.fair", "ple_gym.sim.host.fair_nodes"): "its own features are as it sees them itself",
}

#: Who may import a library; numpy everybody may. Below `envs` nobody knows of Gymnasium, torch, or a terminal.
LIBRARIES = {
    "bokeh": ("ple_gym.report",),
    "numba": ("ple_gym.sim", "ple_gym.rules"),
    "llvmlite": ("ple_gym.sim", "ple_gym.rules"),
    "gymnasium": ("ple_gym.envs", "ple_gym.adapters", "ple_gym.testing", "ple_gym.bench", "agents"),
    "rich": ("ple_gym.progress", "ple_gym.evaluate", "ple_gym.cli", "experiments"),
    "tyro": ("ple_gym.cli", "agents", "experiments"),
    "matplotlib": (
        "ple_gym.measure.pictures",
        "ple_gym.traces.pictures",
        "ple_gym.evaluate.pictures",
        "ple_gym.reality.pictures",
        "agents",
        "experiments",
    ),
    "minari": ("ple_gym.adapters",),
    "pandas": ("ple_gym.evaluate.tabular",),
    "perfetto": ("ple_gym.traces.perfetto",),
    "pyarrow": ("ple_gym.traces.writers",),
    "ray": ("ple_gym.adapters", "ple_gym.cluster"),
    "torch": ("ple_gym.adapters", "ple_gym.bench", "agents"),
    "stable_baselines3": ("ple_gym.adapters", "ple_gym.bench", "agents"),
    "sb3_contrib": ("ple_gym.adapters", "ple_gym.bench", "agents"),
    "PIL": ("experiments",),
    "joblib": ("experiments",),
    "optuna": ("experiments", "ple_gym.tuning"),
    "simpy": ("experiments",),
}


def layers(text: str) -> list[list[str]]:
    """The block of layers of a page, the lowest first, each as the full names of its parts."""
    found = re.search(r"^```layers\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, "the page has no block of layers"
    lines = [line.partition("#")[0].split() for line in found[1].splitlines()]
    return [[part if part.split(".")[0] in TOPS else f"ple_gym.{part}" for part in line] for line in lines if line]


LEVELS = {part: level for level, parts in enumerate(layers(PAGE.read_text(encoding="utf-8"))) for part in parts}


def is_in(module: str, part: str) -> bool:
    return f"{module}.".startswith(f"{part}.")


def part_of(module: str) -> str:
    """The part that a module belongs to: the longest name that it begins with. `ple_gym` is only the package's file."""
    parts = [part for part in LEVELS if is_in(module, part) and (part != "ple_gym" or module == part)]
    return max(parts, key=len, default="")


def is_upward(one: Import) -> bool:
    """Whether an import is of another part that is not below."""
    by, what = part_of(one.by), part_of(one.what)
    return by != what and LEVELS[what] >= LEVELS[by]


def imports_in(by: str, source: str, modules: frozenset[str]) -> Iterator[Import]:
    """What a module imports, functions included, ours and others'; and our modules that it names in a text."""

    def walk(node: ast.AST, kind: str) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            kind = TYPES
        if isinstance(node, ast.Import):
            yield from (Import(by, name.name, kind) for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{by}: relative imports hide where they go"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield Import(by, inner if inner in modules else str(node.module), kind)
        if isinstance(node, ast.Constant) and node.value in modules and "." in node.value:
            yield Import(by, node.value, NAMED)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, kind)

    return walk(ast.parse(source), "")


@cache
def modules() -> dict[str, Path]:
    """Every module of ours, and its file."""
    files = [file for top in TOPS for file in (ROOT / top).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def imports() -> frozenset[Import]:
    """Every import in every module of ours."""
    names = frozenset(modules())
    return frozenset(
        one for by, file in modules().items() for one in imports_in(by, file.read_text(encoding="utf-8"), names)
    )


def ours() -> list[Import]:
    return sorted(one for one in imports() if one.what in modules())


def test_every_module_is_in_a_layer_and_every_layer_has_modules() -> None:
    assert len(modules()) > 150
    assert [module for module in modules() if module not in TOPS and not part_of(module)] == []
    assert [part for part in LEVELS if part not in map(part_of, modules())] == []


def test_no_module_imports_upward() -> None:
    assert {one for one in ours() if is_upward(one)} == set(UPWARD)


def test_no_module_imports_a_private_name_of_another() -> None:
    found = [
        (by, name.name)
        for by, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in TOPS
        for name in node.names
        if re.match("_(?!_)", name.name)
    ]
    assert found == []


def test_modules_import_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for one in ours():
        if not one.kind and one.what != "ple_gym":  # the package itself is imported with any module of it
            graph.setdefault(one.by, set()).add(one.what)
    assert len(list(TopologicalSorter(graph).static_order())) > 150  # or CycleError, with the circle


def test_host_and_guest_meet_only_where_it_is_said() -> None:
    found = set()
    for inside in ("ple_gym.sim.host", "ple_gym.sim.guest"):
        found |= {one for one in ours() if is_in(one.what, inside) and not is_in(one.by, inside)}
    asked = ("ple_gym.sim.guest.waits", "ple_gym.sim.guest.held", "ple_gym.sim.guest.kinds")
    found = {one for one in found if one not in UPWARD and one.what not in asked}
    assert found == set(MEETINGS)


def test_hosts_ask_no_guest() -> None:
    """Not even a wait: what they must know of a vCPU is in its visible record."""
    assert [one for one in ours() if is_in(one.by, "ple_gym.sim.host") and is_in(one.what, "ple_gym.sim.guest")] == []


def names_a_lock(source: str) -> bool:
    return any(isinstance(one, ast.Constant) and one.value in LOCK_KINDS for one in ast.walk(ast.parse(source)))


def test_kinds_of_locks_are_named_in_the_guest_and_where_a_scenario_is_read() -> None:
    readers = {"ple_gym.scenario.model", "ple_gym.sim.description"}
    within = "ple_gym.sim.guest"
    assert {one.by for one in ours() if one.what == f"{within}.kinds" and not is_in(one.by, within)} == readers
    named = {by for by, file in modules().items() if names_a_lock(file.read_text(encoding="utf-8"))}
    named = {by for by in named if is_in(by, "ple_gym") and not is_in(by, within)}
    # The first has one as its default, the second those of guest kernels, the third those that a C program has, too,
    # and the last those that an order of waiters tells.
    assert named == {
        "ple_gym.scenario.model", "ple_gym.scenario.profiles", "ple_gym.reality.settings", "ple_gym.measure.machine"
    }  # fmt: skip


def test_libraries_are_used_only_where_they_may_be() -> None:
    libraries = {
        (one.what.split(".")[0], one.by) for one in imports() if one.what.split(".")[0] not in (*TOPS, "numpy")
    }
    libraries = {(library, by) for library, by in libraries if library not in sys.stdlib_module_names}
    assert {library for library, _ in libraries} == set(LIBRARIES)
    wrong = [(by, library) for library, by in libraries if not any(is_in(by, part) for part in LIBRARIES[library])]
    assert sorted(wrong) == []


# The checks above would also pass if they saw nothing, so they are shown what they must find.


def test_a_name_of_a_lock_is_found() -> None:
    assert names_a_lock("if vm.lock_kind == 'tas':\n    pass") and not names_a_lock("tas = 'a lock of kind tas'")


@pytest.mark.parametrize(
    ("by", "source"),
    [
        ("ple_gym.sim.kernel", "from ple_gym.view import observation"),
        ("ple_gym.sim.kernel", "import ple_gym.rules.kvm as kvm"),
        ("ple_gym.sim.calendar", "from ple_gym.sim.guest import waits"),
        ("ple_gym.sim.guest.locks", "def f():\n    from ple_gym.sim.dispatch import wake"),
        ("ple_gym.view.unit", "from ple_gym.rules import RULES"),
        ("ple_gym.lanes", "if TYPE_CHECKING:\n    from ple_gym.envs.env import PleEnv"),
        ("ple_gym.rules.files", "load('ple_gym.lanes')"),
        ("ple_gym.envs.env", "import ple_gym"),
        ("agents.ppo", "from experiments.lab import seeds"),
    ],
)
def test_an_import_upward_is_found(by: str, source: str) -> None:
    (found,) = imports_in(by, source, frozenset(modules()))
    assert is_upward(found)


def test_an_import_downward_is_none() -> None:
    source = "from ple_gym.sim import state\nfrom ple_gym.sim.guest.waits import LINE\n'ple_gym'\n'See ple_gym.lanes.'"
    found = list(imports_in("ple_gym.view.observation", source, frozenset(modules())))
    assert [one.what for one in found] == ["ple_gym.sim.state", "ple_gym.sim.guest.waits"]
    assert not any(map(is_upward, found))


def test_the_page_names_every_folder_and_module_of_the_package() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = {f"`{path.name}/`" for path in (ROOT / "ple_gym").iterdir() if (path / "__init__.py").exists()}
    names |= {f"`{path.name}`" for path in (ROOT / "ple_gym").glob("*.py")}
    assert [name for name in sorted(names) if name not in text] == []
