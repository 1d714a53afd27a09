"""The laboratory of experiments/: a sweep gives the same file however it is run, stopped or distributed."""

import csv
import importlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("joblib")
pytest.importorskip("optuna")

from experiments import __main__ as command
from experiments import lab
from experiments.answer import coverage
from experiments.lab import (
    Experiment,
    Folders,
    Partial,
    Table,
    Task,
    commands,
    digests,
    discovery,
    replay,
    results,
    seeds,
    statistics,
    sweep,
    sweeps,
    tables,
    tasks,
)
from experiments.lab.executors import Where
from experiments.lab.report import MATRIX, results_page, within
from experiments.lab.tables import committed, kept
from experiments.lab.worlds import load_world
from experiments.pages import intervals
from experiments.paper import fit
from ple_gym import files
from ple_gym.evaluate import statistics as printing

ROOT = Path(__file__).parents[1]
COLUMNS = ("now", "exits")
WORLD = "HolderPreempted"


def experiment(measure=lab.totals, count=60):
    wanted = tasks(WORLD, ("xen-4.5", "kvm"), range(count // 2), {"guest.transactions": 20})
    return Experiment("example", "An example", COLUMNS, lambda quick: wanted, lambda table: [], None, measure)


def folders(path):
    return Folders(path / "results", path / "scratch")


def run(one, path, where=Where(1), progress=lambda done: None):  # noqa: B008
    sweep(one, False, where, folders(path), progress)
    return (path / "results" / "example.csv").read_bytes()


def count_runs(log):
    """A measure that notes each run in a file."""

    def measure(task):
        with log.open("a") as file:
            file.write(f"{task.policy} {task.seed}\n")
        return lab.totals(task)

    return measure


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_the_same_file_as_one_process(tmp_path):
    assert run(experiment(), tmp_path / "two", Where(2)) == run(experiment(), tmp_path / "one")


def test_a_table_survives_its_file(tmp_path):
    content = run(experiment(), tmp_path)
    rows = list(csv.DictReader(content.decode().splitlines()))
    measured = [(int(row["now"]), int(row["exits"])) for row in rows]
    table = Table.of(COLUMNS, dict(zip(experiment().tasks(False), measured, strict=True)))
    table.write(tmp_path / "small.table.xz")
    again = Table.read(tmp_path / "small.table.xz")
    again.write_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == content
    assert list(again.rows()) == experiment().tasks(False)
    assert again.digest() == table.digest()
    assert len(table.where(policy="kvm", seed=3)) == 1


@pytest.mark.parametrize("stop", [0, 7, 30, 55])
def test_an_interrupted_sweep_goes_on_without_losing_or_repeating_a_seed(tmp_path, stop):
    log = tmp_path / "runs.txt"
    one = experiment(count_runs(log))

    def interrupt(done):
        if done > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(one, tmp_path, progress=interrupt)
    assert not (tmp_path / "results" / "example.csv").exists()
    assert run(one, tmp_path) == run(experiment(), tmp_path / "whole")
    ran = log.read_text().splitlines()
    assert len(ran) == len(set(ran)) == 60
    assert not list((tmp_path / "scratch").iterdir())


@given(cut=st.integers(0, 3000))
def test_a_partial_file_cut_anywhere_gives_whole_rows_only(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "partial.csv"
    one = experiment()
    rows = {task: (task.seed, 7) for task in one.tasks(False)}
    with Partial(path, one) as partial:
        partial.append(rows)
    path.write_bytes(path.read_bytes()[:cut])
    kept = Partial(path, one).rows
    assert kept.items() <= rows.items()
    assert list(kept) == list(rows)[: len(kept)]


def test_rows_of_other_code_are_not_used(tmp_path):
    path = tmp_path / "partial.csv"
    with Partial(path, experiment()) as partial:
        partial.append({Task(WORLD, "", "kvm", 1): (1, 2)})
    assert len(Partial(path, experiment()).rows) == 1
    other = Experiment("example", "", (*COLUMNS, "spin"), lambda quick: [], lambda table: [])
    assert Partial(path, other).rows == {}


def sound_partial(path, one):
    """The rows of a sweep's partial file, and its bytes."""
    rows = {task: (task.seed, 7) for task in one.tasks(False)}
    with Partial(path, one) as partial:
        partial.append(rows)
    return rows, path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda data: data[:-5], 59),
        (lambda data: data + bytes(300), 60),  # as a power cut leaves it
        (lambda data: data + b"\n\n", 60),
        (lambda data: data[:-100] + bytes(100), None),
        (lambda data: data.replace(b"kvm,3,3,7", b"kvm,3,4,7"), 33),
        (lambda data: data.replace(b"kvm,3,3,7", b"kvm,3,3,7,7"), 33),
        (lambda data: data.replace(b"kvm,3,", b"kvm,\xff,"), 33),
        (lambda data: b"".join(line for line in data.splitlines(True) if b"kvm,3," not in line), 33),
        (lambda data: data.replace(b"\n", b"\r\n"), 0),
        (lambda data: b"x" + data, 0),
        (lambda data: b"\n" * 10, 0),
    ],
)
def test_of_a_damaged_partial_file_the_rows_before_the_damage_are_used_and_it_is_said(tmp_path, capsys, damage, kept):
    one = experiment()
    path = tmp_path / "scratch" / "example.partial.csv"
    rows, data = sound_partial(path, one)
    assert Partial(path, one).rows == rows and not Partial(path, one).lost
    path.write_bytes(damage(data))
    partial = Partial(path, one)
    assert list(partial.rows.items()) == list(rows.items())[: len(partial.rows)]
    assert kept is None or len(partial.rows) == kept
    assert partial.lost.isprintable() and 20 < len(partial.lost) < 300
    assert run(experiment(lambda task: {"now": task.seed, "exits": 7}), tmp_path) == run(
        experiment(lambda task: {"now": task.seed, "exits": 7}), tmp_path / "whole"
    )
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "example.partial.csv: " in told


def test_a_partial_table_that_cannot_be_read_is_refused_with_a_remedy(tmp_path):
    path = tmp_path / "partial.csv"
    path.symlink_to("/dev/zero")
    with pytest.raises(lab.TableError, match=r"partial\.csv: not a regular file; remove it to begin anew$"):
        Partial(path, experiment())


def test_of_two_equal_sweeps_at_once_both_end_well(tmp_path):
    """The later one finds that the earlier has removed the partial file."""
    measure = lambda task: {"now": task.seed, "exits": 7}  # noqa: E731
    inner = []

    def meanwhile(done):
        if done >= 30 and not inner:
            inner.append(run(experiment(measure), tmp_path))

    assert run(experiment(measure), tmp_path, progress=meanwhile) == inner[0]
    assert not list((tmp_path / "scratch").iterdir())


def test_finished_rows_are_on_the_disk_and_a_full_one_names_the_file(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    run(experiment(lambda task: {"now": task.seed, "exits": 7}), tmp_path)
    assert len(synced) >= 60 // 7  # batches, and two whole files

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(lab.TableError, match=r"example\.partial\.csv: cannot be written: No space left on device$"):
        run(experiment(), tmp_path / "full")


REMEDY = "; get it again, or run its experiment"


def refusal(path, data):
    """The line by which a table of these bytes is refused, without the remedy."""
    path.write_bytes(data)
    with pytest.raises(lab.TableError, match=rf"^\S*{path.name}: .*{REMEDY}$") as caught:
        Table.read(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    return str(caught.value).removesuffix(REMEDY).partition(f"{path.name}: ")[2]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: b"", "its end is missing"),
        (lambda data: data[:-3], "its end is missing"),
        (lambda data: data + data, "something stands behind it"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], ""),
        (lambda data: b"scenario,overrides,policy,seed\n", ""),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path, damage, why):
    told = refusal(tmp_path / "damaged.table.xz", damage(kept("agreement").read_bytes()))
    assert told.startswith("not a table of runs, or damaged (") and why in told


def content_of(table):
    """What is sealed: a line of names, three of texts, and the numbers."""
    return files.unseal(tables.KIND, files.uncompressed(table.read_bytes(), 2**20))


def sealed(content):
    """A table's file of this content, with a right checksum."""
    return files.compressed(files.seal(tables.KIND, content))


def with_number(content, name, row, change):
    """The content with another number in a column: `change` of what stands there."""
    *lines, planes = content.split(b"\n", 4)
    column = lines[0].decode().split(",").index(name) - 3
    numbers = np.frombuffer(planes, np.uint8).reshape(-1, 8, 1 + lines[1].count(b",")).copy()
    was = int.from_bytes(numbers[column, :, row].tobytes(), "little", signed=True)
    numbers[column, :, row] = np.frombuffer(change(was).to_bytes(8, "little", signed=True), np.uint8)
    return b"\n".join([*lines, numbers.tobytes()])


def test_an_edited_number_is_noticed(tmp_path):
    """Whether the checksum was left as it is or not: RESULTS.md shows a digest of every table."""
    sound = kept("agreement").read_bytes()
    head, _, content = files.uncompressed(sound, 2**20).partition(b"\n")
    edited = with_number(content, "decisions", 0, lambda was: was + 1)
    told = refusal(tmp_path / "edited.table.xz", files.compressed(head + b"\n" + edited))
    assert told == "not a table of runs, or damaged (its checksum is of another content)"
    forged = tmp_path / "forged.table.xz"
    forged.write_bytes(sealed(edited))
    was, now = committed("agreement"), Table.read(forged)
    assert now["decisions"].tolist() == [was["decisions"][0] + 1, *was["decisions"][1:]]
    assert now.digest() != was.digest() and was.digest() in results.PAGE.read_text()


def test_numbers_of_every_size_are_kept(tmp_path):
    numbers = [0, 1, -1, 255, 256, -256, 2**31, 10**18 - 1, 1 - 10**18]
    table = Table.of(["many"], {lab.Task("Tiny", 'a,"b"', "kvm", seed): (many,) for seed, many in enumerate(numbers)})
    for some in (table, table.select(slice(1)), table.select(slice(0))):
        some.write(tmp_path / "some.table.xz")
        assert Table.read(tmp_path / "some.table.xz").rows() == some.rows()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content.replace(b"seed", b"sead"), "its columns must be scenario, overrides, policy, seed"),
        (lambda content: content.replace(b"decisions", b"seed", 1), "its columns must be"),
        (
            lambda content: with_number(content, "seed", 1, lambda _: int(committed("agreement")["seed"][0])),
            "row 2: the same run stands there twice",
        ),
        (
            lambda content: with_number(content, "decisions", 0, lambda _: 10**18),
            "row 1: a number is not whole, or has",
        ),
        (
            lambda content: with_number(content, "decisions", 2, lambda _: -(2**63)),
            "row 3: a number is not whole, or has",
        ),
        (lambda content: content.replace(b"\nStorm", b"\n\x1b"), "row 1: a text has control characters"),
        (lambda content: content.replace(b"\nStorm-v1,", b"\n"), "not a table of runs"),
        (lambda content: content + b"1", "not a table of runs"),
        (lambda content: content[:-8], "not a table of runs"),
        (lambda content: content.decode("latin-1").encode("utf-16"), "not a table of runs"),
        (lambda content: b"", "not a table of runs"),
    ],
)
def test_what_is_no_table_is_refused_though_its_checksum_is_right(tmp_path, damage, why):
    data = sealed(damage(content_of(kept("agreement"))))
    assert refusal(tmp_path / "wrong.table.xz", data).startswith(why)


def test_a_bomb_is_not_uncompressed(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 2**16)
    bomb = files.compressed(bytes(2**24))
    assert len(bomb) < 2**16
    assert "more than 65,536 bytes are in it" in refusal(tmp_path / "bomb.table.xz", bomb)


@pytest.mark.parametrize("content", [b"nonsense" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_calibration_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "fit.db").write_bytes(content)
    with pytest.raises(lab.TableError, match=r"fit\.db: not the trials of a calibration, .*; remove it to begin anew$"):
        fit.fit(1, 20, Where(1), tmp_path, tmp_path / "profiles", print)


@pytest.mark.parametrize(
    "arguments",
    [
        ("x" * 10**5,), ("\x1b[2J",), ("figure1", "--out", "x" * 10**5), ("figure1", "--out", "\x1b[2J"),
        ("figure1", "--out", "\udcff"), ("figure1", "--jobs", "9" * 5000),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_hostile_arguments_are_refused_in_one_short_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps, "fingerprint", lambda _: pytest.fail("the work has begun"))
    assert command.main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("experiments: error: ") and printed.err.endswith("\n") and printed.out == ""
    assert printed.err[:-1].isprintable() and len(printed.err) < 700
    assert os.listdir(tmp_path) == []


def test_a_measure_must_be_an_integer(tmp_path):
    with pytest.raises(TypeError, match="float"):
        run(experiment(lambda task: {"now": 1.0, "exits": 0}), tmp_path)


def test_rough_numbers_keep_their_leading_bits_and_only_zero_is_zero():
    assert [lab.rough(one, 4) for one in (0, 1, 15, 17, -24, 1000)] == [0, 1, 15, 18, -24, 1024]
    assert [lab.rough(one, 4, beside=1000) for one in (0, 3, -3, 100)] == [0, 64, -64, 128]


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from test_experiments import count_runs, experiment, run
measure = count_runs(Path({str(tmp_path / "runs.txt")!r}))
def slow(task):
    time.sleep(0.02)
    return measure(task)
run(experiment(slow, 200), Path({str(tmp_path)!r}))
""")
    partial = tmp_path / "scratch" / "example.partial.csv"
    process = subprocess.Popen([sys.executable, program])
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 40):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = partial.read_bytes().count(b"\n") - 1
    subprocess.run([sys.executable, program], check=True)
    expected = run(experiment(count=200), tmp_path / "whole")
    assert (tmp_path / "results" / "example.csv").read_bytes() == expected
    ran = (tmp_path / "runs.txt").read_text().splitlines()
    assert set(ran) == {f"{policy} {seed}" for policy in ("xen-4.5", "kvm") for seed in range(100)}
    assert kept < 200
    assert len(ran) - 200 <= 25, "more than the batch that was running was run again"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray, about its own dependencies
def test_on_ray_a_killed_worker_changes_nothing(tmp_path):
    pytest.importorskip("ray")
    killed = tmp_path / "killed"

    def measure(task):
        if task.seed == 20:  # half-way, once: the process that runs this is Ray's, and dies
            try:
                os.close(os.open(killed, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return lab.totals(task)

    assert run(experiment(measure), tmp_path / "ray", Where(2, "local")) == run(experiment(), tmp_path / "here")
    assert killed.exists()


# --- what rows come from ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the code, to be edited."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("ple_gym", "experiments", "agents"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results", "*.xz"))
    return copy


def changes(checkout, name, edit, module="experiments/lab/tasks.py"):
    """Whether an edit changes the digest of what a module measures."""
    path = checkout / name
    sound = path.read_text() if path.exists() else None
    before = digests.digest_of(checkout / module, root=checkout)
    try:
        path.write_text(edit(sound))
        return digests.digest_of(checkout / module, root=checkout) != before
    finally:
        path.write_text(sound) if sound is not None else path.unlink()


def with_code(text):
    """A source in which something new is done."""
    return f"{text or ''}\nADDED = 1\n"


@pytest.mark.parametrize(
    "name",
    [
        "ple_gym/sim/kernel.py", "ple_gym/sim/host/credit.py", "ple_gym/view/observation.py", "ple_gym/lanes.py",
        "ple_gym/drive.py", "ple_gym/learned/network.py", "ple_gym/scenario/model.py", "ple_gym/rules/catalog.py",
        "ple_gym/rules/new_rule.py", "ple_gym/episode.py", "ple_gym/evaluate/runs.py",
        "ple_gym/traces/pictures.py",  # its thresholds are measured by
        "experiments/lab/tasks.py", "experiments/lab/worlds.py",
    ],
)  # fmt: skip
def test_rows_of_a_sweep_are_not_used_after_what_computes_them_has_changed(checkout, name):
    assert changes(checkout, name, with_code)


@pytest.mark.parametrize(
    "name",
    [
        "ple_gym/cli/commands.py", "ple_gym/cli/new.py", "ple_gym/evaluate/tables.py", "ple_gym/evaluate/grid.py",
        "ple_gym/adapters/sb3.py", "ple_gym/bench/report.py", "ple_gym/progress.py",
        "experiments/lab/report.py", "experiments/lab/commands.py", "experiments/lab/sweeps.py",
        "experiments/paper/figure4.py", "experiments/pages/findings.py", "agents/set_ppo.py",
    ],
)  # fmt: skip
def test_rows_of_a_sweep_stay_good_after_what_only_tells_of_them_has_changed(checkout, name):
    assert not changes(checkout, name, with_code)


@pytest.mark.parametrize("name", ["ple_gym/sim/kernel.py", "ple_gym/cli/commands.py", "experiments/lab/tasks.py"])
def test_rows_of_a_sweep_stay_good_after_a_word_has_changed(checkout, name):
    assert not changes(checkout, name, lambda text: text.replace('"""', '"""Other words. ', 1) + "# a comment\n")


def test_what_a_measuring_module_imports_counts_too(checkout):
    """Directly or not; and of others nothing does."""
    own = {"experiments/paper/figure4.py", "experiments/lab/traces.py", "experiments/lab/seeds.py"}
    for name in own:
        assert changes(checkout, name, with_code, module="experiments/paper/figure4.py"), name
    assert changes(checkout, "experiments/learning/features.py", with_code, module="experiments/learning/agreement.py")
    assert changes(checkout, "agents/torch_policy.py", with_code, module="experiments/learning/trained.py")
    for name in ("experiments/paper/gap.py", "experiments/lab/pictures.py"):
        assert not changes(checkout, name, with_code, module="experiments/paper/figure4.py"), name


def test_files_that_rows_come_from_count(tmp_path):
    path = tmp_path / "policies"
    one = replace(experiment(), inputs=(path,))
    before = sweeps.fingerprint(one)
    assert before != sweeps.fingerprint(replace(one, columns=("now",)))
    path.write_bytes(b"weights")
    assert sweeps.fingerprint(one) != before == sweeps.fingerprint(replace(one, inputs=(tmp_path / "none",)))


# --- discovery --------------------------------------------------------------------------------------------------------


def test_a_module_with_an_experiment_is_one(tmp_path, monkeypatch):
    """In the order of folders and names, whoever else is there."""
    for folder in discovery.FOLDERS:
        (tmp_path / folder).mkdir()
    text = "from experiments.lab import Experiment\nEXPERIMENT = Experiment({name!r}, 'A question', (), list, list)\n"
    (tmp_path / "paper" / "later_example.py").write_text(text.format(name="later_example"))
    (tmp_path / "paper" / "example.py").write_text(text.format(name="example"))
    (tmp_path / "answer" / "another_example.py").write_text(text.format(name="another_example"))
    (tmp_path / "answer" / "shared_example.py").write_text("ANSWER = 42\n")
    monkeypatch.setattr(discovery, "HERE", tmp_path)
    for folder in discovery.FOLDERS:
        package = importlib.import_module(f"experiments.{folder}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    found = discovery.experiments.__wrapped__()
    assert list(found) == ["example", "later_example", "another_example"]
    (tmp_path / "answer" / "misnamed_example.py").write_text(text.format(name="example"))
    with pytest.raises(
        AssertionError, match=r"answer\.misnamed_example: its EXPERIMENT must be called misnamed_example"
    ):
        discovery.experiments.__wrapped__()
    (tmp_path / "answer" / "misnamed_example.py").unlink()
    (tmp_path / "learning" / "example.py").write_text(text.format(name="example"))
    with pytest.raises(AssertionError, match=r"paper\.example: another experiment is called example"):
        discovery.experiments.__wrapped__()


def test_every_experiment_has_its_table_which_is_complete():
    names = {path.name.removesuffix(".table.xz") for path in lab.RESULTS.glob("*.xz")}
    assert names == set(discovery.experiments())
    for name, one in discovery.experiments().items():
        table = committed(name)
        assert tuple(table.columns)[4:] == one.columns, name
        assert list(table.rows()) == list(dict.fromkeys(one.tasks(False))), name


def test_what_git_keeps_of_results_is_shown():
    """Tables, and of the pictures those that a document shows."""
    assert {path.stem for path in lab.RESULTS.glob("*.png")} == results.shown()
    assert {path.suffix for path in lab.RESULTS.iterdir()} == {".xz", ".png"}


def test_rows_are_found_by_the_text_of_their_own_column():
    """However often they are asked for."""
    table = Table.of(("x",), {Task("a", "", "b", 1): (1,), Task("b", "", "a", 2): (2,), Task("a", "", "a", 3): (3,)})
    for _ in range(2):
        assert table.where(scenario="a")["x"].tolist() == [1, 3]
        assert table.where(policy="a")["x"].tolist() == [2, 3]
        assert table.where(scenario="a", policy="a", seed=3)["x"].tolist() == [3]


def test_what_git_keeps_is_small():
    """All files together; what is measured anew by a command, and of what a page shows a part, is not kept."""
    if not (lab.HERE.parent / ".git").exists():
        pytest.skip("no clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=lab.HERE.parent, capture_output=True, check=True).stdout
    every = [lab.HERE.parent / os.fsdecode(name) for name in listed.split(b"\0")[:-1]]
    assert len(every) > 300 and lab.CHECKPOINTS in every
    assert sum(path.stat().st_size for path in every if path.exists()) < 8 * 2**20


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_ranges_of_seeds_never_overlap():
    for one, other in itertools.combinations(seeds.RANGES.values(), 2):
        assert max(one.start, other.start) >= min(one.stop, other.stop)


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_reported_uses_no_seed_of_the_calibration(quick):
    for name, one in discovery.experiments().items():
        used = {task.seed for task in one.tasks(quick)}
        assert used.isdisjoint(seeds.CALIBRATION), name
        assert used.isdisjoint(seeds.VALIDATION) or name == "calibration", name


def test_the_fit_uses_seeds_of_the_calibration_only(monkeypatch):
    seen = []

    def no_runs(measure, columns, batches, where):
        for number, batch in enumerate(batches):
            seen.extend(task.seed for task in batch)
            yield number, [(1, 1_500_000 + task.seed % 7, 0, 0, 0) for task in batch]

    monkeypatch.setattr(fit, "run_batches", no_runs)
    fit.simulate(fit.EXPLANATIONS["fitted"], fit.A24, Where(1), fit.RUNS)
    assert sorted(seen) == list(seeds.CALIBRATION[: fit.RUNS])


# --- calibration ------------------------------------------------------------------------------------------------------


def test_the_start_of_the_fit_is_the_built_in_scenario():
    built_in = load_world("Paper32").parameters()
    start = fit.overrides(fit.A24)
    assert start.pop("guest.lock_probability") == pytest.approx(built_in["guest.lock_probability"], rel=0.01)
    assert start == {name: built_in[name] for name in start}


def test_a_fit_goes_on_where_it_was(tmp_path, monkeypatch):
    def statistics_of(explanation, parameters, where, runs):
        others = [
            "near_mode",
            "exits_of_top",
            "delayed_of_top",
            "above_2s_of_top",
            "slow_few",
            "spearman",
            "dispatch_mode",
            "most",
        ]
        return dict.fromkeys(others, 1.0) | {"mode": parameters["duty"] * 1000}

    monkeypatch.setattr(fit, "simulate", statistics_of)

    def files(name, *trials):
        for count in trials:
            fit.fit(count, 40, Where(1), tmp_path / name, tmp_path / name / "profiles", lambda line: None)
        return {path.name: path.read_text() for path in (tmp_path / name / "profiles").iterdir()}

    assert files("whole", 5) == files("stopped", 2, 5)


# --- what intervals hold ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def populations():
    """One table, so that it is studied once."""
    return committed("coverage")


@pytest.mark.parametrize("size", [20, 120, 450])
def test_the_study_draws_the_intervals_that_are_printed(size):
    """It computes them for many samples at a time."""
    rows = coverage.part(populations(), "Paper8")
    draws = np.random.default_rng(size).integers(len(rows), size=(25, size))
    base, ideal = rows["xen-4.5"].astype(float)[draws], rows["ideal"].astype(float)[draws]
    sample = coverage.Sample(base + rows["paper"][draws], ideal, base)
    logs = np.log(sample.own / base)
    printed = {
        "makespan": [printing.estimate(own) for own in sample.own],
        "p95": [printing.quantile_estimate(own, 95) for own in sample.own],
        "p99": [printing.quantile_estimate(own, 99) for own in sample.own],
        "CVaR10": [printing.cvar_estimate(own) for own in sample.own],
        "score": [
            printing.score(np.log(own / i), np.log(b / i)) for own, i, b in zip(sample.own, ideal, base, strict=True)
        ],
    }
    for name, of in coverage.QUANTITIES.items():
        low, high, bare = of(sample)
        for one, first, last, shown in zip(printed[name], low, high, bare, strict=True):
            if name in ("p95", "p99"):
                assert (one.high is not None) == shown
            else:
                assert one.few != shown
            ends = (-np.inf, np.inf) if one.high is None else (one.low, one.high)
            assert ends == (pytest.approx(first, rel=1e-9, abs=1e-9), pytest.approx(last, rel=1e-9, abs=1e-9))
    low, high = coverage.differing(logs, np.zeros((1, size)))
    for one, first, last in zip(logs, low, high, strict=True):
        found = printing.ratio(one)
        assert (found.low, found.high) == (
            pytest.approx(first, rel=1e-9, abs=1e-9),
            pytest.approx(last, rel=1e-9, abs=1e-9),
        )


def test_what_is_printed_without_a_mark_holds_what_it_promises_and_the_page_says_so():
    table = populations()
    assert len(coverage.part(table, "Paper8")) >= 4000
    promise, *_ = coverage.checks(table)
    assert promise.passed
    cells = [one for one in coverage.study(table) if one.method == coverage.SHIPPED and not one.marked]
    assert {one.population for one in cells} == set(coverage.POPULATIONS)
    assert len(cells) > 300
    assert min(one.holds_unmarked for one in cells) >= 92
    old = [one for one in coverage.study(table) if one.method == "percentile" and one.size == 20]
    assert min(one.holds for one in old) < 75  # the study tells methods apart
    assert intervals.page(table) == intervals.PAGE.read_text(), "run: python -m experiments results"


# --- replay and report ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_replay_finds_one_wrong_integer(tmp_path, monkeypatch, jobs):
    one = experiment()
    table = sweep(one, False, Where(1), folders(tmp_path), lambda done: None)
    monkeypatch.setattr(replay, "experiments", lambda: {"example": one})
    said = []
    table.write(kept("example", tmp_path))
    assert replay.replay(tmp_path, said.append, Where(jobs), sample=60) == 0
    table["exits"][8] += 1
    table.write(kept("example", tmp_path))
    assert replay.replay(tmp_path, said.append, Where(jobs), sample=60) == 1
    assert any("seed=8" in line and "exits" in line for line in said)


def test_of_the_pictures_those_are_kept_that_a_document_shows(tmp_path, monkeypatch):
    drawn, shown = tmp_path / "tables", tmp_path / "results"
    shown.mkdir()
    monkeypatch.setattr(results, "TABLES", drawn)
    monkeypatch.setattr(results, "RESULTS", shown)
    monkeypatch.setattr(results, "PAGE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(results, "pages", list)
    some = {name: discovery.experiments()[name] for name in ("gap", "agreement")}
    monkeypatch.setattr(results, "experiments", lambda: some)
    results.write()
    assert {path.name for path in drawn.iterdir()} == {
        "gap.csv", "gap.png", "agreement.csv", "agreement.png", "RESULTS.md",
    }  # fmt: skip
    assert [path.name for path in shown.iterdir()] == ["agreement.png"]
    assert (drawn / "gap.csv").read_text().splitlines()[0].split(",") == list(committed("gap").columns)
    (drawn / "agreement.png").write_bytes(b"another")
    (drawn / "gap.png").unlink()
    results.write(measured=["agreement"])
    assert (shown / "agreement.png").read_bytes() == b"another" and not (drawn / "gap.png").exists()


def test_every_row_of_the_matrix_is_measured_and_the_page_is_what_the_data_say():
    tables = {name: committed(name) for name in discovery.experiments()} | {"coverage": populations()}
    sections = results.sections(tables)
    page = results_page(sections)
    assert page == (lab.HERE / "RESULTS.md").read_text(), "run: python -m experiments results"
    whole = results_page(sections, whole=True).splitlines()
    listed = {line for line in page.splitlines() if line.startswith("|")}
    assert listed < set(whole) and len(whole) > 2 * len(listed)
    for row in MATRIX:
        assert re.search(rf"^\| {row} \| .* \| [1-9]\d* of [1-9]\d* \|", page, re.MULTILINE), f"{row} is not measured"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figure7"], "unknown experiment 'figure7'; did you mean"),
        (["figure1", "--jobs", "0"], "--jobs 0: must be 1..1000000"),
        (["fit", "--trials", "-3"], "--trials -3: must be 1..1000000"),
        (["figure1", "--out", "file"], "--out file: must be a folder"),
        (["figure1", "--trials", "3"], "--trials: figure1 does not take it, only --quick, --jobs, --ray, --out"),
        (["replay", "--out", "x"], "--out: replay does not take it"),
        (["results", "--quick"], "--quick: results does not take it"),
        (["fit", "--out", "x"], "--out: fit does not take it, only"),
        (["train", "--ray", "local"], "--ray: train does not take it, only --jobs"),
        (["figure1", "--job", "2"], "Unrecognized options: --job"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert command.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"experiments: error: {message}")
    assert err.count("\n") == 1


def test_quick_results_go_where_they_are_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "SCRATCH", tmp_path / "scratch")
    assert command.main(["figure1", "--quick", "--jobs", "1", "--out", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "figure1.csv").exists()
    assert not (tmp_path / "scratch" / "quick" / "figure1.csv").exists()
    assert command.main(["figure1", "--quick", "--jobs", "1"]) == 0
    assert (tmp_path / "scratch" / "quick" / "figure1.csv").exists()
    assert "\nfigure1: Figure 1: does" in f"\n{capsys.readouterr().out}", "no markup where there is no terminal"


def test_the_version_can_be_asked_for(capsys):
    assert command.main(["--version"]) == 0
    assert re.fullmatch(r"ple-gym \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_bands():
    assert within("R6", "x", 1.5, 1.4, 1.6).passed is True
    assert within("R6", "x", np.float64(1.7), 1.4, 1.6, reason="why").passed is False
    assert within("R6", "x", float("nan"), 1.4, 1.6).passed is None
    assert within("R6", "x", 3, None, 3).band == "at most 3"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_ranks_are_means_of_equal_places(pairs):
    values = [x for x, _ in pairs]
    expected = [np.mean([place + 1 for place, y in enumerate(sorted(values)) if y == x]) for x in values]
    assert statistics.ranks(values).tolist() == expected
