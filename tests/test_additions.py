"""The how-tos for hosts and waits are true: what they quote stands in the files, and what they change works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
QUOTE = re.compile(r"^```python not-run (?P<file>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PATCH = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDED = ("ple_gym", "docs", "tests/reference_simulator", "tests/worlds.py")

#: Run with the changed copy as its folder: the changed kernel, as plain Python, beside the changed reference.
COMPARE = """
import sys
sys.path[:0] = [".", "tests"]
import worlds
from ple_gym.lanes import Lanes
from ple_gym.scenario import load
from reference_simulator import simulate

ends = {}
for kind in ("ticket", "lifo"):
    scenario = load("Tiny").with_overrides({"guest.lock_kind": kind, "guest.vcpus": 6, "guest.transactions": 20})
    for policy in ("kvm", "oracle"):
        lanes = Lanes(scenario, 1, policy=policy)
        for seed in range(2):
            lanes.run(0, seed)
            totals = lanes.totals(0)
            assert totals == simulate(scenario.to_dict(), policy, seed), (kind, policy, seed)
            ends[kind, policy, seed] = totals
for policy in ("kvm", "oracle"):
    for seed in range(2):
        assert ends["lifo", policy, seed]["contended"] > 0
        assert ends["lifo", policy, seed] != ends["ticket", policy, seed]
print(f"{len(ends)} runs agree")
"""


def quotes(page: Path) -> list[tuple[str, str]]:
    """What a page quotes: file and text."""
    return [(match["file"], match["text"]) for match in QUOTE.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", [page for page in PAGES if quotes(page)], ids=lambda page: page.name)
def test_what_a_page_quotes_stands_in_the_file(page: Path) -> None:
    for file, text in quotes(page):
        assert f"\n{text}" in (ROOT / file).read_text(encoding="utf-8"), f"{page.name}: not in {file}:\n{text}"


def test_quotes_are_found() -> None:
    assert len(quotes(ROOT / "docs/howto/add-a-host.md")) >= 5


def test_the_page_on_hosts_names_every_hook() -> None:
    """The hooks of the seam, what `sim/host/__init__.py` says of them, and the table of the page are the same."""
    from ple_gym.sim import host
    from ple_gym.sim.seam import NO_HOST

    hooks = {name for name, value in vars(NO_HOST).items() if callable(value)} - {"describe", "further"}
    page = (ROOT / "docs/howto/add-a-host.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\* `(\w+)\(", host.__doc__ or "", re.MULTILINE)
    assert len(hooks) == 19 and set(documented) == hooks
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == documented


def test_the_page_on_waits_adds_one_that_works(tmp_path: Path) -> None:
    page = (ROOT / "docs/howto/add-a-wait.md").read_text(encoding="utf-8")
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    changes = "".join(PATCH.findall(page))
    specification, reference, code = re.findall(r"^\+\+\+ b/(\S+)$", changes, re.MULTILINE)  # three files, each once
    assert (specification, reference) == ("docs/model.md", "tests/reference_simulator/guest.py")
    assert code == "ple_gym/sim/guest/kinds.py"
    patch = tmp_path / "lifo.patch"
    patch.write_text(changes, encoding="utf-8")
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}  # in a repository, git would skip the copy
    applied = subprocess.run(["git", "apply", patch.name], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    run = subprocess.run(
        [sys.executable, "-c", COMPARE],
        cwd=tmp_path,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "8 runs agree\n"
