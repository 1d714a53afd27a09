"""Compilation: one variant for all sizes; whatever becomes of the cache costs no more than compiling again."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ple_gym.compilation import units
from ple_gym.drive import simulator
from ple_gym.lanes import Lanes
from ple_gym.scenario.builtin import SCENARIOS
from ple_gym.scenario.schedulers import SCHEDULERS
from ple_gym.sim.cache import CompiledCache
from ple_gym.sim.jit import JIT_ENABLED
from ple_gym.sim.seam import Host, host_of

DRIVE = simulator(host_of("credit"))

pytestmark = pytest.mark.skipif(not JIT_ENABLED, reason="nothing is compiled")

#: A function that is compiled and kept as the simulator is, but in a moment.
TINY = """
import pathlib
from ple_gym.sim.units import Unit

def double(x):
    return 2 * x

def make():
    return Unit("double", double, 1, [pathlib.Path(__file__)], boxed=True)

unit = make()
assert unit.entry(21) == 42
print("loaded" if unit.cache.loaded else "compiled", unit.cache.folder)
"""
#: As where the installation and the home cannot be written to; root can write everywhere, so that modes do not do it.
READ_ONLY = """
import errno
from numba.core import caching
def refuse(self):
    raise OSError(errno.EROFS, "Read-only file system")
caching._CacheLocator.ensure_cache_path = refuse
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


def run(folder: Path, before: str = "", **variables: str) -> tuple[str, list[str]]:
    """What a fresh process prints that calls the function, and its lines on stderr."""
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nimport tiny"],
        env={**kept, "XDG_CACHE_HOME": str(folder / "home"), **variables, "PYTHONPATH": f"{folder}:{package_root()}"},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


def package_root() -> Path:
    return Path(inspect.getfile(CompiledCache)).parents[2]


def kept_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


def test_what_was_compiled_is_loaded_in_the_next_process(tiny: Path) -> None:
    assert run(tiny) == (f"compiled {tiny / '__pycache__'}", [])
    assert run(tiny) == (f"loaded {tiny / '__pycache__'}", [])
    (tiny / "tiny.py").write_text(TINY + "# edited")
    assert run(tiny)[0].startswith("compiled")


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_a_compilation_as_before(tiny: Path, collects: bool) -> None:
    before = "" if collects else "import gc; gc.disable()"
    printed, _ = run(tiny, f"{before}\nimport tiny, gc; print(gc.isenabled())")
    assert printed.splitlines()[0].startswith("compiled") and printed.splitlines()[1] == str(collects)


#: What a power cut, a full disk or a bad block leaves of a file.
DAMAGES = r"""
import pathlib, sys
from tiny import make
(file,) = pathlib.Path("__pycache__").glob("*.nbc")
good = file.read_bytes()
half = len(good) // 2
for how, data in {
    "empty": b"",
    "one byte": good[:1],
    "half": good[:half],
    "all but one": good[:-1],
    "longer": good + bytes(1),
    "zeros": bytes(len(good)),
    "a pickle": b"\x80\x04N.",
    "flipped in the checksum": bytes([good[0] ^ 1]) + good[1:],
    "flipped in the code": good[:half] + bytes([good[half] ^ 64]) + good[half + 1 :],
    "flipped at the end": good[:-1] + bytes([good[-1] ^ 128]),
}.items():
    file.write_bytes(data)
    for expected in ("compiled", "loaded"):
        unit = make()
        print(f"{how}, {expected}:", file=sys.stderr)
        assert unit.entry(21) == 42
        assert (unit.cache.loaded == file.resolve()) == (expected == "loaded"), how
"""


def test_a_damaged_cache_costs_one_compilation_and_one_line(tiny: Path) -> None:
    run(tiny)
    _, lines = run(tiny, f"import tiny\n{DAMAGES}")
    assert len(lines) == 30
    for before, line, after in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        assert before.endswith(", compiled:") and after.endswith(", loaded:")
        assert "damaged" in line and str(tiny / "__pycache__") in line


def test_a_full_disk_costs_the_cache_and_one_line(tiny: Path) -> None:
    full = (
        "import builtins, errno; real = open\n"
        "class Full:\n"
        "    def __init__(self, path): self.file = real(path, 'xb')\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *_): self.file.close()\n"
        "    def write(self, data):\n"
        "        self.file.write(data[:100]); raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "from ple_gym.sim import cache\n"
        "cache.open = lambda path, mode: Full(path)\n"
    )
    for _ in range(2):
        printed, lines = run(tiny, full)
        assert printed == f"compiled {tiny / '__pycache__'}"
        assert len(lines) == 1 and str(tiny / "__pycache__") in lines[0]
        assert "No space left on device" in lines[0] and "NUMBA_CACHE_DIR" in lines[0]
        assert list((tiny / "__pycache__").glob("*.nbc*")) == []
    assert run(tiny) == (f"compiled {tiny / '__pycache__'}", [])


def test_with_nowhere_to_write_a_line_says_so_and_what_helps(tiny: Path) -> None:
    for _ in range(2):
        printed, lines = run(tiny, READ_ONLY)
        assert printed == "compiled None"
        assert len(lines) == 1 and "can be written to" in lines[0] and "NUMBA_CACHE_DIR" in lines[0]


def test_a_warm_cache_beside_the_code_is_used_though_nothing_can_be_written(tiny: Path) -> None:
    run(tiny)
    assert run(tiny, READ_ONLY) == ("loaded None", [])


def test_a_warm_cache_beside_the_code_is_used_though_only_the_home_can_be_written(tiny: Path) -> None:
    """An image that is built by one user and run by others."""
    run(tiny)
    beside = (
        "from numba.core.caching import InTreeCacheLocator\n"
        "InTreeCacheLocator.from_function = classmethod(lambda *_: None)\n"
        "import ple_gym.sim.cache\n"
    )
    printed, lines = run(tiny, beside)
    assert printed.startswith(f"loaded {tiny / 'home' / 'numba'}") and not lines
    for file in kept_in(tiny / "__pycache__"):
        file.unlink()
    assert run(tiny, beside)[0].startswith("compiled")
    assert run(tiny, beside)[0].startswith("loaded") and len(kept_in(tiny / "home")) == 1


def test_a_folder_that_is_named_is_the_only_one(tiny: Path) -> None:
    run(tiny)
    elsewhere = tiny / "elsewhere"
    for expected in ("compiled", "loaded"):
        printed, lines = run(tiny, NUMBA_CACHE_DIR=str(elsewhere))
        assert printed.startswith(f"{expected} {elsewhere}") and not lines
    assert kept_in(elsewhere)


def test_a_folder_that_is_named_and_cannot_be_made_is_left_for_the_next_place(tiny: Path) -> None:
    (tiny / "file").write_text("")
    assert run(tiny, NUMBA_CACHE_DIR=str(tiny / "file" / "cache")) == (f"compiled {tiny / '__pycache__'}", [])


def test_old_files_do_not_pile_up(tiny: Path) -> None:
    for number in range(10):
        (tiny / "tiny.py").write_text(f"{TINY}# {number}")
        run(tiny)
    assert len(kept_in(tiny)) == 8
    assert run(tiny)[0].startswith("loaded")


def test_many_processes_at_once_leave_one_good_file(tiny: Path) -> None:
    command = [sys.executable, "-c", "import tiny"]
    environment = {**os.environ, "PYTHONPATH": f"{tiny}:{package_root()}"}
    environment.pop("NUMBA_CACHE_DIR", None)
    started = [subprocess.Popen(command, env=environment, cwd=tiny, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
               for _ in range(4)]  # fmt: skip
    assert [one.communicate()[1] for one in started] == [b""] * 4 and not any(one.returncode for one in started)
    assert len(kept_in(tiny)) == 1 and not list(tiny.rglob("*.tmp"))
    assert run(tiny)[0].startswith("loaded")


#: Helpers of a unit: one that Python can call, too, and others that it cannot, of which `told` comes with all.
HELPERS = """
import numba
from numba.core.codegen import JITCodeLibrary as Library
optimised = []
optimise = getattr(Library, "_optimize_final_module", None)
def count(library):
    optimised.append(library.name)
    optimise(library)
Library._optimize_final_module = count
{before}
from ple_gym.sim.jit import called
from ple_gym.sim.units import Unit

@numba.njit
def double(x):
    return 2 * x

@called
def one(x):
    print("one", x)
    return double(x)

@called
def two(x):
    print("two", x)
    return one(x)

@called
def three(x):
    print("three", x)
    return two(x)

@called
def four(x):
    print("four", x)
    return three(x)

@called
def told(x):
    print("told", x)
    return four(x) + 1

def entry(x):
    return told(x)

assert Unit("small", entry, 1, None, boxed=True).entry(20) == 41
print(double(21), *(name for name in ("double", "one", "two", "three", "four", "told", "entry") if name in optimised))
"""


def run_helpers(folder: Path, before: str = "") -> str:
    (folder / "tiny.py").write_text(HELPERS.format(before=before))
    printed, lines = run(folder)
    assert not lines
    *told, last = printed.splitlines()
    assert told == ["told 20", "four 20", "three 20", "two 20", "one 20"]
    return last


def test_large_helpers_are_optimised_in_their_callers_only(tmp_path: Path) -> None:
    assert run_helpers(tmp_path) == "42 double one two three four entry"


def test_a_numba_with_other_names_compiles_as_ever(tmp_path: Path) -> None:
    renamed = (
        "from numba.core import codegen; base = codegen.CPUCodeLibrary\n"
        "base.renamed = base._finalize_dynamic_globals; del base._finalize_dynamic_globals\n"
        "def finalize(library, step=base._finalize_final_module):\n"
        "    type(library)._finalize_dynamic_globals = base.renamed\n"
        "    step(library)\n"
        "    del type(library)._finalize_dynamic_globals\n"
        "base._finalize_final_module = finalize"
    )
    assert run_helpers(tmp_path, before=renamed) == "42 double one two three four told entry"


SIMULATOR = """
from ple_gym import compilation, evaluate
assert compilation.cache_folder() is None
for unit in compilation.units():
    unit.cache._readable.clear()  # whatever lies beside the code
print(evaluate.simulate("HolderPreempted", "xen-4.5", [0])[0]["ple_exits"])
"""


@pytest.mark.slow
def test_a_read_only_installation_with_a_read_only_home_still_works(tmp_path: Path) -> None:
    """It is compiled anew in every such process: here as quickly as it goes."""
    (tmp_path / "tiny.py").write_text(SIMULATOR)
    printed, lines = run(tmp_path, READ_ONLY, NUMBA_OPT="0")
    assert printed == "484" and len(lines) == 1 and "NUMBA_CACHE_DIR" in lines[0]


def test_every_unit_is_kept_this_way() -> None:
    for unit in units():
        assert unit.cache is not None and unit.cache.folder is not None, unit.name
    assert len({unit.name for unit in units()}) == len(units())


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_simulator_is_a_megabyte_or_two(scheduler: str) -> None:
    """Code grows as compile time does: copies of what is inlined once made that a minute, and no test noticed."""
    unit = simulator(host_of(scheduler))
    unit.prepare()
    assert unit.cache is not None and unit.cache.folder is not None
    file = unit.cache.folder / unit.cache._file_name(unit._signature, unit.dispatcher.targetctx.codegen())
    assert 100_000 < file.stat().st_size < 2_000_000


def dispatchers_in(function: Callable[..., object], found: set[Callable[..., object]]) -> set[Callable[..., object]]:
    """The functions that are compiled into this one: it, what it calls, what those call."""
    found.add(function)
    variables = inspect.getclosurevars(function)
    values = [*variables.globals.values(), *variables.nonlocals.values()]
    for value in [*values, *(hook for host in values if isinstance(host, Host) for hook in vars(host).values())]:
        inner = getattr(value, "py_func", None)
        if inner is not None and inner not in found:
            dispatchers_in(inner, found)
    return found


def test_an_edit_of_any_compiled_source_is_noticed_by_the_units_that_it_is_in() -> None:
    for unit in units():
        functions = dispatchers_in(unit.function, set())
        assert unit.made_of is not None
        # view/loops.py makes functions from rows of the table of features.
        files = {inspect.getfile(one) for one in functions}
        missing = {file for file in files if not file.startswith("<features ")} - {str(path) for path in unit.made_of}
        assert not missing, unit.name
    assert len(dispatchers_in(DRIVE.function, set())) > 60


def test_a_first_step_makes_no_unit_of_a_rule() -> None:
    """That reads and digests the sources of each, which takes longer than to import them."""
    script = (
        "from ple_gym.sim import units\nmade, plain = [], units.Unit.__init__\n"
        "def init(unit, name, *rest, **options):\n    made.append(name); plain(unit, name, *rest, **options)\n"
        "units.Unit.__init__ = init\n"
        "import ple_gym\nenv = ple_gym.PleEnv('Tiny')\nenv.reset(seed=0)\nprint(*made)\n"
    )
    environment = {**os.environ, "PYTHONPATH": package_root()}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "simulator.credit" in run.stdout.split() and "rules." not in run.stdout


def test_an_edit_of_a_rule_or_of_what_is_not_compiled_leaves_the_simulator_alone() -> None:
    others = [path for unit in units() if unit is not DRIVE for path in unit.made_of or ()]
    rules = {path for path in others if path.parent.name == "rules"} - set(DRIVE.made_of or ())
    assert {"kvm.py", "spin_age.py", "paper.py", "helpers.py"} <= {path.name for path in rules}
    assert not {"policies.py", "lanes.py", "file.py", "registry.py"} & {path.name for path in DRIVE.made_of or ()}


def test_another_number_of_pcpus_vcpus_or_locks_does_not_compile_again() -> None:
    for scenario in SCENARIOS.values():
        for overrides in ({}, {"host.pcpus": 7, "guest.vcpus": 11, "guest.locks": 5}):
            for count in (1, 3):
                lanes = Lanes(scenario.with_overrides(overrides), count, information="oracle", policy="host")
                lanes.run(0, 1)
    assert len(DRIVE.dispatcher.signatures) == 1


# --- units side by side -----------------------------------------------------------------------------------------------

#: Two units that are compiled in a moment; the second one is the other process's.
PAIR = """
import os, pathlib, sys, time
from ple_gym import compilation
from ple_gym.sim.units import Unit

def first(x):
    return x + 1

def second(x):
    return x + 2

made = [Unit(f.__name__, f, 1, [pathlib.Path(__file__)], boxed=True) for f in (first, second)]
compilation.units = lambda *_: made
os.sched_getaffinity = lambda _: {0, 1}
"""
UNSAID = "del os.sched_getaffinity; "  # as on macOS and Windows: not how many CPUs this process may use
WARM = """
compilation.warm_up()
print(*("loaded" if unit.cache.loaded else "compiled" for unit in made), *(unit.entry(40) for unit in made))
"""


def side_by_side(folder: Path, helper: str, before: str = "") -> list[str]:
    """Which of the two units another process compiled, if it runs `helper`, and what they return."""
    (folder / "pair.py").write_text(PAIR)
    (folder / "tiny.py").write_text(
        "import subprocess\nfrom pair import *\nreal = subprocess.Popen\n"
        f"def start(command, **options):\n    return real([command[0], '-c', {helper!r}, *command[3:]], **options)\n"
        f"subprocess.Popen = start\n{before}\n{WARM}"
    )
    printed, lines = run(folder)
    assert not lines
    return printed.split()


def test_another_process_compiles_all_but_the_first_unit(tmp_path: Path) -> None:
    helper = "import pair; pair.compilation.compile_aside()"
    assert side_by_side(tmp_path, helper) == ["compiled", "loaded", "41", "42"]
    assert len(kept_in(tmp_path)) == 2
    assert side_by_side(tmp_path, "not called: nothing is missing") == ["loaded", "loaded", "41", "42"]


def test_where_nobody_says_which_cpus_may_be_used_all_are_counted(tmp_path: Path) -> None:
    helper = "import pair; pair.compilation.compile_aside()"
    before = f"{UNSAID}os.cpu_count = lambda: 2"
    assert side_by_side(tmp_path, helper, before) == ["compiled", "loaded", "41", "42"]


@pytest.mark.parametrize(
    ("helper", "before"),
    [
        ("raise SystemExit(1)", ""),
        ("import os; os.kill(os.getpid(), 9)", ""),
        ("", "subprocess.Popen = lambda *_, **__: (_ for _ in ()).throw(OSError('no memory'))"),
        ("import pair; pair.compilation.compile_aside()", "os.sched_getaffinity = lambda _: {0}"),
        ("import pair; pair.compilation.compile_aside()", f"{UNSAID}os.cpu_count = lambda: 1"),
        ("import pair; pair.compilation.compile_aside()", f"{UNSAID}os.cpu_count = lambda: None"),
        ("import pair; pair.compilation.compile_aside()", "sys.executable = '/usr/bin/an-application'"),
    ],
    ids=["fails", "killed", "no process", "one CPU", "one in all", "who knows", "embedded"],
)
def test_what_no_other_process_compiles_is_compiled_here(tmp_path: Path, helper: str, before: str) -> None:
    assert side_by_side(tmp_path, helper, before) == ["compiled", "compiled", "41", "42"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_other_process_ends_within_a_second_of_the_first(tmp_path: Path, how: signal.Signals) -> None:
    """Whatever happens to the first one; neither leaves anything to read but the first one's own end."""
    (tmp_path / "tiny.py").write_text(
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import subprocess\nfrom ple_gym import compilation\nimport os\nos.sched_getaffinity = lambda _: {0, 1}\n"
        "real = subprocess.Popen\n"
        "def start(*args, **options):\n"
        "    helper = real(*args, **options); print(helper.pid, flush=True); return helper\n"
        "subprocess.Popen = start\n"
        "try:\n    compilation.warm_up()\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True); os._exit(3)\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = f"{tmp_path}:{package_root()}"
    process = subprocess.Popen(
        [sys.executable, "-c", "import tiny"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    helper = int(process.stdout.readline())
    time.sleep(2)
    assert is_alive(helper) and process.poll() is None
    process.send_signal(how)
    began = time.monotonic()
    out, _ = process.communicate(timeout=60)
    while is_alive(helper) and time.monotonic() - began < 10:
        time.sleep(0.01)
    assert time.monotonic() - began < 1.5  # half a second for a busy machine
    assert (process.returncode, out) == ((3, "interrupted\n") if how == signal.SIGINT else (-how, ""))


def is_alive(process: int) -> bool:
    """Whether there is such a process, and it is not one that ended and that nobody asked for."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
